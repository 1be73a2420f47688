"""A line over sizes as SVG: median and spread of each size, x by powers of ten, y from nought."""

from __future__ import annotations

import math
from xml.sax.saxutils import escape

from benchmarks.figures import Series, number

WIDTH, HEIGHT = 640, 320
LEFT, RIGHT, TOP, BOTTOM = 80, 30, 50, 60
INK, LINE, GRID = "#1f2933", "#0b6e4f", "#d5dbe1"


def draw(series: Series) -> str:
    """The whole SVG file."""
    low, high = math.log10(series.points[0].x), math.log10(series.points[-1].x)
    most = max(max(point.y.values) for point in series.points) or 1.0
    step = _step(most)
    top = step * math.ceil(most / step)

    def x(value: float) -> float:
        return LEFT + (math.log10(value) - low) / ((high - low) or 1) * (WIDTH - LEFT - RIGHT)

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - value / top * (HEIGHT - TOP - BOTTOM)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        'font-family="system-ui, sans-serif" font-size="13">',
        f"<title>{escape(series.title)}</title>",
        f"<desc>{escape(_words(series))}</desc>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        _text(LEFT, 26, f"{series.title} ({series.y_label})", "start", bold=True),
    ]
    for i in range(round(top / step) + 1):
        at = y(i * step)
        parts.append(f'<path d="M{LEFT} {at:.1f}H{WIDTH - RIGHT}" stroke="{GRID}"/>')
        parts.append(_text(LEFT - 8, at + 4, number(i * step) if i else "0", "end"))
    path = " ".join(f"{x(point.x):.1f},{y(point.y.median):.1f}" for point in series.points)
    parts.append(f'<polyline points="{path}" fill="none" stroke="{LINE}" stroke-width="2"/>')
    for point in series.points:
        across, values = x(point.x), point.y.values
        parts.append(
            f'<path d="M{across:.1f} {y(min(values)):.1f}V{y(max(values)):.1f}" stroke="{LINE}" stroke-width="1.5"/>'
        )
        parts.append(f'<circle cx="{across:.1f}" cy="{y(point.y.median):.1f}" r="4" fill="{LINE}"/>')
        anchor = "end" if point is series.points[-1] else "start" if point is series.points[0] else "middle"
        parts.append(_text(across, y(max(values)) - 9, number(point.y.median), anchor))
        parts.append(_text(across, HEIGHT - BOTTOM + 20, f"{point.x:,.0f}", anchor))
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 14, series.x_label, "middle"))
    return "\n".join([*parts, "</svg>", ""])


def _step(most: float) -> float:
    """A round distance between lines, four to nine of them."""
    power = 10.0 ** math.floor(math.log10(most))
    return next(power * part for part in (0.1, 0.2, 0.25, 0.5, 1.0, 2.0) if most / (power * part) <= 8)


def _words(series: Series) -> str:
    said = "; ".join(f"{point.x:,.0f} {series.x_label}: {point.y.text()}" for point in series.points)
    return f"{series.title}, median and spread. {said}."


def _text(x: float, y: float, words: str, anchor: str, *, bold: bool = False) -> str:
    weight = ' font-weight="600"' if bold else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{INK}"{weight}>{escape(words)}</text>'
