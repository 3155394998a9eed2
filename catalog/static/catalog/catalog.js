// What the pages do beyond links and forms. Everything works without it, only less quickly.

const typing = (element) => element.closest("input, textarea, select, [contenteditable]");

// -- The palette: Cmd-K or Ctrl-K finds anything; arrows choose, Enter opens, Esc closes

const palette = document.getElementById("palette");
const search = document.getElementById("search");

const openPalette = () => {
  if (!palette.open) palette.showModal();
  palette.querySelector("input").select();
};

document.addEventListener("keydown", (event) => {
  if ((event.metaKey || event.ctrlKey) && event.key.toLowerCase() === "k") {
    event.preventDefault();
    openPalette();
  } else if (event.key === "/" && !typing(event.target) && search) {
    event.preventDefault();
    search.focus();
  }
});

palette.addEventListener("keydown", (event) => {
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (!step) return;
  const found = [...palette.querySelectorAll("a[href]")];
  if (!found.length) return;
  event.preventDefault();
  const at = found.indexOf(document.activeElement);
  if (at + step < 0) palette.querySelector("input").focus();
  else found[Math.min(at + step, found.length - 1)].focus();
});

palette.querySelector("form").addEventListener("submit", (event) => {
  const first = palette.querySelector("a[href]");
  if (!first) return;
  event.preventDefault();
  location.assign(first.href);
});

// -- Buttons that say what they do in a data- attribute

document.addEventListener("click", async (event) => {
  const button = event.target.closest("button");
  if (button?.hasAttribute("data-open-palette")) openPalette();
  if (button?.hasAttribute("data-close")) button.closest("dialog").close();
  if (button?.hasAttribute("data-copy")) {
    const told = document.getElementById("told");
    try {
      await navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent);
      told.textContent = "Copied";
      button.querySelector("[data-label]").textContent = "Copied";
    } catch {
      told.textContent = "The browser does not let this page copy; select the text instead.";
    }
  }
});

// -- Filters apply as soon as they are chosen; the button is for those without scripts

document.addEventListener("change", (event) => {
  if (event.target.closest("[data-apply-at-once]")) event.target.form.requestSubmit();
});
for (const button of document.querySelectorAll("[data-without-script]")) button.hidden = true;

// -- Tabs of one panel: arrows move between them

document.addEventListener("keydown", (event) => {
  const tab = event.target.closest("[role=tab]");
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (!tab || !step) return;
  const tabs = [...tab.closest("[role=tablist]").querySelectorAll("[role=tab]")];
  tabs[(tabs.indexOf(tab) + step + tabs.length) % tabs.length].click();
});

document.addEventListener("click", (event) => {
  const tab = event.target.closest("[role=tab]");
  if (!tab) return;
  for (const other of tab.closest("[role=tablist]").querySelectorAll("[role=tab]")) {
    const chosen = other === tab;
    other.setAttribute("aria-selected", chosen);
    other.tabIndex = chosen ? 0 : -1;
    document.getElementById(other.getAttribute("aria-controls")).hidden = !chosen;
  }
  tab.focus();
});

// -- Lineage: the first click on a node shows what it comes from and what comes of it, the second opens it

const reached = (edges, start, from, to) => {
  const seen = new Set([start]);
  for (const node of seen) for (const edge of edges) if (edge.dataset[from] === node) seen.add(edge.dataset[to]);
  return seen;
};

document.addEventListener("click", (event) => {
  const drawing = event.target.closest("svg.lineage");
  if (!drawing) return;
  const node = event.target.closest("[data-node]");
  const was = drawing.querySelector(".chosen");
  if (node && node === was) return; // its link is followed
  event.preventDefault();
  drawing.classList.toggle("following", Boolean(node));
  for (const marked of drawing.querySelectorAll(".chosen, .on-the-way")) marked.classList.remove("chosen", "on-the-way");
  if (!node) return;
  const edges = [...drawing.querySelectorAll("[data-from]")];
  const up = reached(edges, node.dataset.node, "to", "from");
  const down = reached(edges, node.dataset.node, "from", "to");
  node.classList.add("chosen");
  for (const other of drawing.querySelectorAll("[data-node]"))
    if (up.has(other.dataset.node) || down.has(other.dataset.node)) other.classList.add("on-the-way");
  for (const edge of edges) {
    const { from, to } = edge.dataset;
    if ((up.has(from) && up.has(to)) || (down.has(from) && down.has(to))) edge.classList.add("on-the-way");
  }
  const told = document.getElementById("told");
  told.textContent = `${node.dataset.label}: ${up.size - 1} before it, ${down.size - 1} after it. Again to open it.`;
});

// -- What is loaded again and again waits while nobody looks

document.body.addEventListener("htmx:beforeRequest", (event) => {
  const asksAgain = event.detail.elt.getAttribute("hx-trigger")?.startsWith("every");
  if (asksAgain && document.hidden) event.preventDefault();
});

// -- On a phone the navigation scrolls sideways: where one is, is in sight

const current = document.querySelector(".top-nav [aria-current]");
if (current) current.parentElement.scrollLeft = current.offsetLeft - current.parentElement.clientWidth / 3;
