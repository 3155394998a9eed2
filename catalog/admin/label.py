"""How a state is shown: its word with an icon, never its colour alone."""

from __future__ import annotations

from django.utils.html import format_html
from django.utils.safestring import SafeString

from catalog.labels import COLOURS, ICONS

__all__ = ["COLOURS", "labelled", "with_icon"]


def labelled(state: str) -> tuple[str, SafeString]:
    """What a method under `@display(label=COLOURS)` returns to show `state`."""
    return str(state), with_icon(state)


def with_icon(state: str) -> SafeString:
    """The word with its icon, where no coloured label can stand: in a form or a line of text."""
    return in_words_with_icon(str(state), ICONS[state])


def in_words_with_icon(words: str, name: str) -> SafeString:
    """Words with an icon of the theme's font, which is not read out."""
    icon = '<span class="material-symbols-outlined text-sm mr-1 align-[-3px]" aria-hidden="true">{}</span>{}'
    return format_html(icon, name, words)
