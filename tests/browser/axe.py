"""Asks axe-core about a page as it is shown now: the rules of WCAG 2.2, levels A and AA."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from playwright.sync_api import Page

SOURCE = Path(__file__).with_name("vendor") / "axe-core" / "4.14.1" / "axe.min.js"
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
#: What a theme can change of a page that is laid out already.
OF_COLOURS = ["color-contrast", "link-in-text-block"]
#: Of each rule so many places are named.
NAMED = 4

_RUN = """
async ([only, without]) => {
  const found = await axe.run({ include: [["html"]], exclude: without.map((places) => [places]) }, {
    runOnly: only,
    resultTypes: ["violations"],
    preload: false,
  });
  return found.violations;
}
"""


def load(page: Page) -> None:
    """Bring axe into the page; the page's policy does not see it, since no element of the page asks for it."""
    page.evaluate(SOURCE.read_text() + ";undefined")


def violations(page: Page, *, without: Iterable[str] = (), colours_only: bool = False) -> list[str]:
    """What is wrong, a line per rule, with the first places; `without`: selectors of what is not looked at."""
    only = {"type": "rule", "values": OF_COLOURS} if colours_only else {"type": "tag", "values": RULES}
    found: list[dict[str, Any]] = page.evaluate(_RUN, [only, list(without)])
    return [f"{rule['id']}: {rule['help']}; {_places(rule['nodes'])}" for rule in found]


def _places(nodes: list[dict[str, Any]]) -> str:
    named = [f"{node['html'][:160]} ({_why(node)})" for node in nodes[:NAMED]]
    return "; ".join(named) + (f"; and {len(nodes) - NAMED} more" if len(nodes) > NAMED else "")


def _why(node: dict[str, Any]) -> str:
    return " ".join(str(node["failureSummary"]).split())[:200]
