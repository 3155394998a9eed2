// Before the page is drawn, so that no other theme flashes up; the admin keeps its choice under the same name.
(() => {
  const wanted = () => {
    try {
      return JSON.parse(localStorage.getItem("adminTheme") || '"auto"');
    } catch {
      return "auto";
    }
  };
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const apply = () => {
    const theme = wanted() === "auto" ? (dark.matches ? "dark" : "light") : wanted();
    document.documentElement.dataset.bsTheme = theme;
  };
  dark.addEventListener("change", apply);
  document.addEventListener("click", (event) => {
    if (!event.target.closest("[data-switch-theme]")) return;
    const next = document.documentElement.dataset.bsTheme === "dark" ? "light" : "dark";
    localStorage.setItem("adminTheme", JSON.stringify(next));
    apply();
  });
  apply();
})();
