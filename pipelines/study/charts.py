"""The figures of a study, for its report and its page: HTML and SVG that need no script; STYLE has
their colours."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np

from pipelines.study.findings import Findings, Pair, paired
from pipelines.study.measures import MEASURES

STYLE = Path(__file__).parent / "figures.css"
WIDTH, LINE, LEFT, RIGHT = 760, 26, 250, 24
MOST_DOTS = 400


def matrix(findings: Findings, measure: str) -> str:
    """A table that says of each two methods which one is better, or that they cannot be told
    apart."""
    methods = findings.study.methods
    pairs = {(p.a, p.b): p for p in findings.pairs if p.measure == measure}
    head = "".join(f"<th scope='col'>{escape(name)}</th>" for name in methods)
    rows = []
    for row in methods:
        cells = []
        for column in methods:
            pair = pairs.get((row, column)) or pairs.get((column, row))
            cells.append(_matrix_cell(pair, row) if pair else "<td class='none'></td>")
        rows.append(f"<tr><th scope='row'>{escape(row)}</th>{''.join(cells)}</tr>")
    return f"<table class='matrix'><thead><tr><td></td>{head}</tr></thead>" \
           f"<tbody>{''.join(rows)}</tbody></table>"


def _matrix_cell(pair: Pair, row: str) -> str:
    if not pair.distinguishable:
        return f"<td title='{escape(pair.sentence, quote=True)}'>≈</td>"
    a_wins = pair.difference * MEASURES[pair.measure].sign > 0
    better = a_wins == (pair.a == row)
    return (f"<td class='{'better' if better else 'worse'}' "
            f"title='{escape(pair.sentence, quote=True)}'>{'better' if better else 'worse'}</td>")


@dataclass(frozen=True)
class IntervalRow:
    """A line of a chart of intervals: a value and its bounds, None where they are not known; `told`
    gives it the colour of what can be told apart."""

    name: str
    value: float
    low: float | None
    high: float | None
    told: bool
    title: str


def intervals(pairs: Sequence[Pair]) -> str:
    """The differences of pairs with their intervals, on one scale with its zero."""
    return interval_rows("Differences with 95 % intervals", [
        IntervalRow(f"{pair.category}: {pair.a} − {pair.b}" if pair.category
                    else f"{pair.a} − {pair.b}", pair.difference, pair.low, pair.high,
                    pair.distinguishable, pair.sentence) for pair in pairs])


def interval_rows(label: str, rows: Sequence[IntervalRow], zero: float = 0.0) -> str:
    """Values with their intervals on one scale, with a line at `zero`."""
    bounds = [bound for row in rows for bound in (row.low, row.high, row.value)
              if bound is not None]
    x, height, parts = scaffold(min([zero, *bounds]), max([zero, *bounds]), 0.05, len(rows), zero)
    for number, row in enumerate(rows):
        kind = "told" if row.told else "alike"
        y = named_row(number, row.name, parts)
        if row.low is not None and row.high is not None:
            parts.append(f"<line class='{kind}' x1='{x(row.low):.1f}' x2='{x(row.high):.1f}' "
                         f"y1='{y:.1f}' y2='{y:.1f}'/>")
        parts.append(f"<circle class='{kind}' cx='{x(row.value):.1f}' cy='{y:.1f}' r='4.5'>"
                     f"<title>{escape(row.title)}</title></circle>")
    return svg(height, label, parts)


def distributions(findings: Findings, measure: str) -> str:
    """The paired differences of each two methods, a dot each, with their quartiles."""
    study, rows = findings.study, []
    for a, b in study.pairs:
        values = paired(findings.values, measure, a, b).ravel()
        rows.append((f"{study.methods[a]} − {study.methods[b]}", values[np.isfinite(values)]))
    everything = np.concatenate([values for _, values in rows])
    if not everything.size:
        return ""
    x, height, parts = scaffold(min(0.0, everything.min()), max(0.0, everything.max()), 0.04,
                                 len(rows))
    for number, (name, values) in enumerate(rows):
        y = named_row(number, name, parts)
        shown = values[:: math.ceil(values.size / MOST_DOTS)] if values.size else values
        parts += [f"<circle class='dot' cx='{x(value):.1f}' cy='{y + (place * 7 % 11 - 5):.1f}' "
                  "r='2'/>" for place, value in enumerate(shown)]
        if values.size:
            quartiles = np.quantile(values, (0.25, 0.5, 0.75))
            parts += [f"<line class='quartile{'' if rank == 1 else ' thin'}' x1='{x(q):.1f}' "
                      f"x2='{x(q):.1f}' y1='{y - 9:.1f}' y2='{y + 9:.1f}'/>"
                      for rank, q in enumerate(quartiles)]
    return svg(height, "Distributions of the paired differences", parts)


def scaffold(
    low: float, high: float, room: float, rows: int, at: float = 0.0
) -> tuple[Callable[[float], float], int, list[str]]:
    """Where a value lies across, the height for so many rows, and the drawing of ticks and of a
    line at the value `at`; `room`: what is left free beyond `low` and `high`, as a share."""
    beyond = (high - low or 1) * room
    low, high = low - beyond, high + beyond

    def x(value: float) -> float:
        return LEFT + (value - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    height = LINE * rows + 34
    zero = f"<line class='zero' x1='{x(at):.1f}' x2='{x(at):.1f}' y1='4' y2='{height - 26}'/>"
    return x, height, [zero, *(
        f"<text class='tick' x='{x(tick):.1f}' y='{height - 8}' text-anchor='middle'>{tick:g}"
        "</text>" for tick in ticks(low, high))]


def named_row(number: int, name: str, parts: list[str]) -> float:
    """Write a row's name; the height of its middle."""
    y = LINE * number + LINE / 2 + 4
    parts.append(f"<text x='{LEFT - 10}' y='{y + 4:.1f}' text-anchor='end'>"
                 f"{escape(name[:38])}</text>")
    return y


def ticks(low: float, high: float) -> list[float]:
    """About five round numbers between two."""
    raw = (high - low) / 5
    unit = 10 ** math.floor(math.log10(raw))
    step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= raw)
    first = math.ceil(low / step)
    return [round(n * step, 12) for n in range(first, math.floor(high / step) + 1)]


def svg(height: float, label: str, parts: Sequence[str]) -> str:
    return (f"<svg viewBox='0 0 {WIDTH} {height:.0f}' role='img' aria-label='{escape(label)}'>"
            f"{''.join(parts)}</svg>")
