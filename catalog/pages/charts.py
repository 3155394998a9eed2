"""Pictures of numbers, drawn here as SVG: they need no script, and the same numbers stand in a table beside each."""

from __future__ import annotations

from collections.abc import Sequence

from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

_WIDTH, _HEIGHT, _BOTTOM, _TOP = 720, 200, 22, 10
_SPARK = (88, 20)
_LONGEST_NAME = 24


def histogram(labels: Sequence[str], shares: Sequence[float], before: Sequence[float], *, summary: str) -> SafeString:
    """Bars of shares (0 to 1) side by side, those of `before` as a line of steps over them (none when it is empty).

    labels: what each bar is of. The first and the last stand below, each with its share where the bar is pointed at.
    """
    tallest = max([*shares, *before, 1e-9])
    wide, floor = _WIDTH / max(len(shares), 1), _HEIGHT - _BOTTOM

    def y(share: float) -> float:
        return round(_TOP + (floor - _TOP) * (1 - share / tallest), 1)

    bars = format_html_join(
        "",
        '<rect class="bar" x="{}" y="{}" width="{}" height="{}"><title>{}: {}</title></rect>',
        [
            (round(wide * at + 1, 1), y(share), round(wide - 2, 1), round(floor - y(share), 1), label, _percent(share))
            for at, (label, share) in enumerate(zip(labels, shares, strict=True))
        ],
    )
    steps = "".join(f"L{wide * at:.1f} {y(share)}H{wide * (at + 1):.1f}" for at, share in enumerate(before))
    line = format_html('<path class="before" d="M0 {}{}V{}"/>', floor, steps, floor) if before else ""
    ends = format_html(
        '<text x="0" y="{y}">{}</text><text x="{}" y="{y}" text-anchor="end">{}</text>',
        labels[0] if labels else "",
        _WIDTH,
        labels[-1] if labels else "",
        y=_HEIGHT - 6,
    )
    return format_html(
        '<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">{}{}'
        '<path class="axis" d="M0 {}H{}"/>{}</svg>',
        *(_WIDTH, _HEIGHT, summary, bars, line, floor, _WIDTH, ends),
    )


def bars(labels: Sequence[str], shares: Sequence[float], before: Sequence[float], *, summary: str) -> SafeString:
    """One line for each of some named things, with a bar of its share (0 to 1); that of `before` as a mark on it (none
    when it is empty). Names are cut to what fits."""
    row, left, right = 24, 150, 60
    longest = max([*shares, *before, 1e-9])
    wide = _WIDTH - left - right
    lines = format_html_join(
        "",
        '<text x="0" y="{}">{}</text>'
        '<rect class="bar" x="{}" y="{}" width="{}" height="14"><title>{}: {}</title></rect>'
        '<text x="{}" y="{}">{}</text>',
        [
            (
                *(at * row + 15, label if len(label) <= _LONGEST_NAME else f"{label[: _LONGEST_NAME - 1]}…"),
                *(left, at * row + 4, round(wide * share / longest, 1), label, _percent(share)),
                *(round(left + wide * share / longest + 6, 1), at * row + 15, _percent(share)),
            )
            for at, (label, share) in enumerate(zip(labels, shares, strict=True))
        ],
    )
    marks = format_html_join(
        "",
        '<path class="before" d="M{} {}v18"/>',
        [(round(left + wide * share / longest, 1), at * row + 2) for at, share in enumerate(before)],
    )
    size = (_WIDTH, max(len(labels), 1) * row)
    return format_html(
        '<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">{}{}</svg>', *size, summary, lines, marks
    )


def sparkline(shares: Sequence[float], *, summary: str) -> SafeString:
    """A small line of shares from 0 to 1, the oldest left."""
    wide, high = _SPARK
    if not shares:
        return format_html('<span class="text-secondary">{}</span>', "—")
    points = list(shares) if len(shares) > 1 else [shares[0], shares[0]]
    step = (wide - 4) / (len(points) - 1)
    line = "L".join(f"{2 + step * at:.1f} {2 + (high - 4) * (1 - share):.1f}" for at, share in enumerate(points))
    return format_html(
        '<svg class="spark" viewBox="0 0 {} {}" role="img" aria-label="{}"><title>{}</title><path d="M{}"/></svg>',
        *(wide, high, summary, summary, line),
    )


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"
