"""Line charts as SVG in a page: in the page's colours, sharp at any size, with their numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

# Of the drawing, in its own units.
_WIDE, _HIGH, _LEFT, _RIGHT, _TOP, _BOTTOM = 560, 300, 46, 24, 12, 40


@dataclass(frozen=True)
class Line:
    """One curve.

    Attributes:
      name: as the legend has it.
      points: (x, y), in rising x.
      colour: number of the colour, from 0; the page has 6.
      dashed: for a second kind of curve of the same model.
    """

    name: str
    points: Sequence[tuple[float, float]]
    colour: int = 0
    dashed: bool = False


def chart(
    lines: Sequence[Line],
    *,
    title: str,
    x_label: str,
    x_ticks: Sequence[tuple[float, str]],
    marks: Sequence[float] = (),
) -> Markup:
    """An accuracy chart, y from 0 to 1.

    Args:
      lines: the curves; at least one with a point.
      title: what a screen reader says of it.
      x_label: below the axis.
      x_ticks: (place, text) along the axis.
      marks: places of vertical lines, such as where a stage begins.
    """
    places = [x for line in lines for x, _ in line.points] + [x for x, _ in x_ticks]
    low, high = min(places), max(max(places), min(places) + 1e-9)

    def across(x: float) -> float:
        return _LEFT + (x - low) / (high - low) * (_WIDE - _LEFT - _RIGHT)

    def down(y: float) -> float:
        return _TOP + (1 - y) * (_HIGH - _TOP - _BOTTOM)

    parts = [f'<svg viewBox="0 0 {_WIDE} {_HIGH}" role="img" aria-label="{escape(title)}">']
    for tick in (0, 0.25, 0.5, 0.75, 1):
        y = down(tick)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDE - _RIGHT}" y1="{y:.1f}" '
                     f'y2="{y:.1f}"/><text x="{_LEFT - 8}" y="{y + 4:.1f}" class="end">'
                     f"{tick:.2f}</text>")  # fmt: skip
    for place in marks:
        x = across(place)
        parts.append(f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" '
                     f'y2="{_HIGH - _BOTTOM}"/>')  # fmt: skip
    for place, text in x_ticks:
        parts.append(f'<text x="{across(place):.1f}" y="{_HIGH - _BOTTOM + 18}" class="middle">'
                     f"{escape(text)}</text>")  # fmt: skip
    middle = (_LEFT + _WIDE - _RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{_HIGH - 4}" class="middle soft">{escape(x_label)}</text>')
    for line in lines:
        parts += _curve(line, [(across(x), down(y)) for x, y in line.points])
    parts.append("</svg>")
    return Markup("".join(parts) + _legend(lines))


def _curve(line: Line, places: Sequence[tuple[float, float]]) -> list[str]:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    dashes = ' stroke-dasharray="6 4"' if line.dashed else ""
    parts = [f'<polyline class="curve c{line.colour % 6}" points="{path}"{dashes}/>']
    for (x, y), (_, value) in zip(places, line.points, strict=True):
        parts.append(f'<circle class="dot c{line.colour % 6}" cx="{x:.1f}" cy="{y:.1f}" r="3.5">'
                     f"<title>{escape(line.name)}: {value:.3f}</title></circle>")  # fmt: skip
    return parts


def _legend(lines: Sequence[Line]) -> str:
    keys = "".join(
        f'<li><span class="key c{line.colour % 6}{" dashed" if line.dashed else ""}"></span>'
        f"{escape(line.name)}</li>"
        for line in lines
    )
    return f'<ul class="legend">{keys}</ul>'
