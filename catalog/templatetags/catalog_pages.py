"""How the pages write things: icons, states, moments, numbers, and where a thing's page is."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django import template
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

from catalog.labels import COLOURS, ICONS
from catalog.moments import duration_text
from catalog.pages import addresses

register = template.Library()

_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))


@register.simple_tag
def icon(name: str) -> SafeString:
    """A sign of the icon font; the word beside it says what it is."""
    return format_html('<span class="ms" aria-hidden="true">{}</span>', name)


@register.filter
def state(value: str) -> SafeString:
    """A status or a run's state: its word, an icon and a colour."""
    return format_html(
        '<span class="state state-{}">{}{}</span>',
        COLOURS[value],
        icon(ICONS[value]),
        str(value).replace("_", " "),
    )


@register.filter
def ago(moment: datetime | None) -> SafeString | str:
    """How long ago it was, or in how long it will be; the moment itself in the title."""
    if moment is None:
        return "never"
    seconds = (timezone.now() - moment).total_seconds()
    words = "now" if abs(seconds) < 1 else f"{span(abs(seconds))} ago" if seconds > 0 else f"in {span(abs(seconds))}"
    return format_html('<time datetime="{}" title="{}">{}</time>', moment.isoformat(), moment_title(moment), words)


def moment_title(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"


@register.filter
def moment(moment: datetime | None) -> SafeString | str:
    """The moment to the minute, UTC."""
    if moment is None:
        return "never"
    return format_html(
        '<time datetime="{}" title="{}">{}</time>', moment.isoformat(), moment_title(moment), f"{moment:%Y-%m-%d %H:%M}"
    )


@register.filter
def span(value: float | timedelta | None) -> str:
    """A length of time in its largest unit, rounded down; below a second in milliseconds.

    >>> span(7200.0), span(0.25), span(None)
    ('2 h', '250 ms', '—')
    """
    if value is None:
        return "—"
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if seconds < 1:
        return f"{1000 * seconds:.0f} ms"
    size, unit = next((size, unit) for size, unit in _UNITS if seconds >= size)
    return f"{int(seconds // size):,} {unit}"


@register.filter
def duration(value: timedelta | None) -> str:
    """A length of time as definitions files write it: 90d."""
    return duration_text(value)


@register.filter
def number(value: float | None) -> str:
    """A number with its thousands apart; others than whole ones to four places that count.

    >>> number(1234567), number(0.123456), number(1234.5), number(None)
    ('1,234,567', '0.1235', '1,234', '—')
    """
    if value is None:
        return "—"
    if isinstance(value, int) or (float(value).is_integer() and abs(value) < 1e15):
        return f"{int(value):,}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


@register.filter
def percent(share: float | None) -> str:
    """A share from 0 to 1 in percent; what is not nothing never shows as 0 %.

    >>> percent(0.5), percent(0.0), percent(0.00001), percent(None)
    ('50 %', '0 %', '< 0.1 %', '—')
    """
    if share is None:
        return "—"
    if 0 < share < 0.001:
        return "< 0.1 %"
    return f"{100 * share:.3g} %"


@register.filter
def value_text(value: Any) -> str:
    """A value of a definition on one line; what is not set is said so.

    >>> value_text(None), value_text(["a", "b"]), value_text({"not_null": True}), value_text("")
    ('not set', 'a, b', 'not_null: true', 'empty')
    """
    if value is None:
        return "not set"
    if isinstance(value, dict):
        return "; ".join(f"{name}: {value_text(part)}" for name, part in value.items()) or "empty"
    if isinstance(value, list | tuple):
        return ", ".join(map(value_text, value)) or "empty"
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) or "empty"


@register.filter
def size(count: int | None) -> str:
    """Bytes in the unit that fits.

    >>> size(1536), size(5), size(None)
    ('1.5 KiB', '5 B', '—')
    """
    if count is None:
        return "—"
    value, units = float(count), iter(["B", "KiB", "MiB", "GiB", "TiB"])
    unit = next(units)
    while value >= 1024 and unit != "TiB":
        value, unit = value / 1024, next(units)
    return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"


@register.filter
def address(thing: Any) -> str:
    """Where the page of a thing is."""
    return addresses.page_of(thing)
