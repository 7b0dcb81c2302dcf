"""Charts of a lesson as SVG that needs no script: points and lines of the plane, lines over
numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

from pipelines.lessons.plane import SPAN

if TYPE_CHECKING:
    from torch import Tensor

SIDE, WIDTH, HEIGHT, EDGE = 360, 420, 260, 40
COLOURS = ("#c2452b", "#2f6fa8", "#c08a1e", "#3f7d4e", "#7a559e")
GREY = "#8c8c8c"


class PlaneDrawing:
    """A square of the plane; layers in the order in which they are added, grey for what is
    exact."""

    def __init__(self, span: float = SPAN) -> None:
        self.span, self.parts, self.legend = span, [], []

    def lines(self, name: str, paths: Sequence[Tensor], exact: bool = False) -> PlaneDrawing:
        """Polylines, each (k, 2)."""
        path = "".join("M" + "L".join(self._place(*xy) for xy in line.tolist()) for line in paths)
        colour = self._colour(name, exact)
        self.parts.append(f"<path d='{path}' fill='none' stroke='{colour}' stroke-width='1.3'/>")
        return self

    def points(self, name: str, xy: Tensor, exact: bool = False) -> PlaneDrawing:
        """Dots at (n, 2)."""
        path = "".join(f"M{self._place(x, y)}h0" for x, y in xy.tolist()
                       if math.isfinite(x) and math.isfinite(y))
        colour = self._colour(name, exact)
        self.parts.append(f"<path d='{path}' stroke='{colour}' stroke-width='3.4' opacity='.75' "
                          "stroke-linecap='round'/>")
        return self

    def svg(self, caption: str) -> str:
        """The drawing as a figure; the caption is also what a screen reader says."""
        return _figure(SIDE, SIDE, "".join(self.parts), self.legend, caption)

    def _colour(self, name: str, exact: bool) -> str:
        taken = sum(colour != GREY for colour, _ in self.legend)
        self.legend.append((GREY if exact else COLOURS[taken % len(COLOURS)], name))
        return self.legend[-1][0]

    def _place(self, x: float, y: float) -> str:
        """In whole units, far ones at a place outside that the figure cuts off."""
        scale = SIDE / (2 * self.span)
        limit = 4 * self.span
        x, y = (min(limit, max(-limit, value)) for value in (x, y))
        return f"{(x + self.span) * scale:.1f} {(self.span - y) * scale:.1f}"


def line_chart(
    series: Mapping[str, Sequence[tuple[float, float]]], x_name: str, y_name: str, caption: str,
    log: bool = False, marked: float | None = None,
) -> str:
    """Lines over numbers as a figure; `log`: both axes are logarithmic; `marked`: a place on x."""
    def scaled(value: float) -> float:
        return math.log10(max(value, 1e-12)) if log else value

    points = [(scaled(x), scaled(y)) for row in series.values() for x, y in row]
    low_x, high_x = min(x for x, _ in points), max(x for x, _ in points)
    low_y, high_y = min(y for _, y in points), max(y for _, y in points)

    def place(x: float, y: float) -> tuple[float, float]:
        return (EDGE + (scaled(x) - low_x) / (high_x - low_x or 1) * (WIDTH - EDGE - 10),
                10 + (high_y - scaled(y)) / (high_y - low_y or 1) * (HEIGHT - EDGE - 10))

    parts, legend = [], []
    for number, (name, row) in enumerate(series.items()):
        colour = COLOURS[number % len(COLOURS)]
        path = "L".join("{:.1f} {:.1f}".format(*place(x, y)) for x, y in row)
        parts.append(f"<path d='M{path}' fill='none' stroke='{colour}' stroke-width='2'/>")
        legend.append((colour, name))
    if marked is not None:
        x, _ = place(marked, 1.0)
        parts.append(f"<path d='M{x:.1f} 10V{HEIGHT - EDGE + 10}' stroke='{GREY}' "
                     "stroke-dasharray='4 3'/>")
    ends = [10**v if log else v for v in (low_x, high_x, low_y, high_y)]
    parts += [f"<text x='{EDGE}' y='{HEIGHT - 12}'>{ends[0]:.3g}</text>",
              f"<text x='{WIDTH - 10}' y='{HEIGHT - 12}' text-anchor='end'>{ends[1]:.3g}</text>",
              f"<text x='{WIDTH / 2:.0f}' y='{HEIGHT - 12}' text-anchor='middle'>{escape(x_name)}"
              "</text>",
              f"<text x='{EDGE - 5}' y='20' text-anchor='end'>{ends[3]:.2g}</text>",
              f"<text x='{EDGE - 5}' y='{HEIGHT - EDGE + 4}' text-anchor='end'>{ends[2]:.2g}"
              "</text>",
              f"<text x='{EDGE + 4}' y='20'>{escape(y_name)}</text>"]
    return _figure(WIDTH, HEIGHT, "".join(parts), legend, caption)


def _figure(
    width: int, height: int, parts: str, legend: Sequence[tuple[str, str]], caption: str
) -> str:
    named = "".join(f"<li><i style='background:{colour}'></i>{escape(name)}</li>"
                    for colour, name in dict.fromkeys(legend))
    return (f"<figure><svg viewBox='0 0 {width} {height}' role='img' "
            f"aria-label='{escape(caption, quote=True)}'>{parts}</svg><ul>{named}</ul>"
            f"<figcaption>{escape(caption)}</figcaption></figure>")
