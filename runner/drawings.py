"""Drawings for the pages: inline SVG made of numbers of ours alone. No script, no text inside.

The words stand beside the drawing in HTML, where they keep their size on a phone; a drawing stretches to the width it gets.
Colours come from the page's own style sheet by class, so that light, dark and print each have theirs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from runner.attemptstats import VERDICTS, Timeline

_HEIGHT = 200
_BAR = 10  # the width of one bucket in the drawing's own units
_BREAK = 2 * _BAR
_FEWEST = 12  # buckets that the width has room for
_CLASSES = (*(verdict.value for verdict in VERDICTS), "waiting")


@dataclass(frozen=True, slots=True)
class Chart:
    """A drawing with what must be said beside it."""

    svg: Markup
    top: int  # the number at the upper edge
    limit_at: float | None  # how high the line of the limit lies, in percent from the top
    ends: int | None = None  # the moment of the right edge (microseconds since the epoch) when the bars do not reach it


def timeline_svg(timeline: Timeline, words: str) -> Chart:
    """Stacked bars of attempts over time, and the limit as a line. `words` say for a screen reader what it shows."""
    tallest = max((sum(bucket) for session in timeline.sessions for bucket in session.buckets), default=0)
    limit = timeline.allowed
    # A limit far above all bars (a resumed run of three messages at 1,000/s) would squash them: then it is left out.
    drawn = limit if limit is not None and limit <= max(tallest, 1) * 5 else None
    top = _round_up(max(tallest, math.ceil((drawn or 0) * 1.1), 1))  # the limit is a line, not the edge
    shapes: list[Markup] = []
    x = 0
    for number, session in enumerate(timeline.sessions):
        if number:
            shapes.append(Markup('<path class="pause" d="M{} 0V{}"/>').format(x + _BREAK // 2, _HEIGHT))
            x += _BREAK
        for bucket in session.buckets:
            shapes += _bar(bucket, x, top)
            x += _BAR
    ends = None
    if x < _FEWEST * _BAR and len(timeline.sessions) == 1:  # a run of one second is a slim bar, not a wall
        ends = timeline.sessions[0].started_at + _FEWEST * timeline.width * 1_000_000
    x = max(x, _FEWEST * _BAR)
    limit_at = None
    if drawn is not None:
        y = _HEIGHT * (1 - drawn / top)
        limit_at = 100 * (1 - drawn / top)
        shapes.append(Markup('<path class="limit" d="M0 {:.1f}H{}"/>').format(y, x))
    svg = Markup(
        '<svg class="timeline" viewBox="0 0 {} {}" preserveAspectRatio="none" role="img" aria-label="{}">{}</svg>'
    ).format(x, _HEIGHT, words, Markup("").join(shapes))
    return Chart(svg, top, limit_at, ends)


def funnel_svg(share: float, next_share: float) -> Markup:
    """One step of a funnel, from its own width to that of the next step; shares of the whole, 0 to 1."""
    upper, lower = (50 * max(min(each, 1.0), 0.004) for each in (share, next_share))
    return Markup(
        '<svg class="funnel" viewBox="0 0 100 20" preserveAspectRatio="none" aria-hidden="true">'
        '<path d="M{:.2f} 0H{:.2f}L{:.2f} 20H{:.2f}Z"/></svg>'
    ).format(50 - upper, 50 + upper, 50 + lower, 50 - lower)


def bar_svg(share: float) -> Markup:
    """A bar of a share of the whole, 0 to 1."""
    return Markup(
        '<svg class="bar" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">'
        '<rect class="rail" width="100" height="10"/><rect width="{:.2f}" height="10"/></svg>'
    ).format(100 * max(min(share, 1.0), 0.0))


def _bar(bucket: Sequence[int], x: int, top: int) -> list[Markup]:
    shapes = []
    y = float(_HEIGHT)
    for name, count in zip(_CLASSES, bucket, strict=True):
        if count:
            height = _HEIGHT * count / top
            y -= height
            shapes.append(
                Markup('<rect class="{}" x="{}" y="{:.1f}" width="{}" height="{:.1f}"/>').format(
                    name, x + 1, y, _BAR - 2, height
                )
            )
    return shapes


def _round_up(number: int) -> int:
    """A round number for the upper edge, not below the given one."""
    step = 10.0 ** (len(str(number)) - 1)
    edges = (round(step * times) for times in (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10))
    return next(edge for edge in edges if edge >= number)
