"""Charts of the lessons: points, paths and contours in the plane; lines over numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import altair as alt
import streamlit as st

from dashboard.components.charts import COLOURS, SVG
from dashboard.components.text import words
from pipelines.lessons.plane import SPAN

if TYPE_CHECKING:
    from torch import Tensor

GREY = "#8c8c8c"
HEIGHT = 370


class Plane:
    """A square of the plane; each layer has a name in the legend. Colours in order of layers,
    grey for what is `exact`."""

    def __init__(self, span: float = SPAN) -> None:
        self.span = span
        self._layers: list[Any] = []
        self._colours: dict[str, str] = {}

    def points(self, name: str, xy: Tensor, exact: bool = False, size: int = 14) -> Plane:
        rows = [{"x": x, "y": y, "what": name} for x, y in xy.tolist()]
        return self._add(name, exact, rows, "mark_point", filled=True, size=size,
                         opacity=0.75 if not exact else 0.5)

    def lines(self, name: str, paths: Sequence[Tensor], exact: bool = False,
              width: float = 1.2) -> Plane:
        """Polylines, each (k, 2)."""
        rows = [{"x": x, "y": y, "what": name, "line": line, "order": order}
                for line, path in enumerate(paths) for order, (x, y) in enumerate(path.tolist())]
        return self._add(name, exact, rows, "mark_line", strokeWidth=width, opacity=0.8)

    def _add(self, name: str, exact: bool, rows: list[dict], mark: str, **style: Any) -> Plane:
        if exact:
            self._colours.setdefault(name, GREY)
        else:
            coloured = [colour for colour in self._colours.values() if colour != GREY]
            self._colours.setdefault(name, COLOURS[len(set(coloured))])
        self._layers.append((rows, mark, style))
        return self

    def show(self, key: str, caption: str, height: int = HEIGHT) -> None:
        """Draw it; the caption is also what a screen reader says."""
        scale = alt.Scale(domain=[-self.span, self.span], nice=False, clamp=False)
        colour = alt.Color("what:N", title=None, scale=alt.Scale(
            domain=list(self._colours), range=list(self._colours.values())),
            legend=alt.Legend(orient="bottom", columns=2, labelLimit=240))
        layers = []
        for rows, mark, style in self._layers:
            chart = getattr(alt.Chart(alt.Data(values=rows)), mark)(clip=True, **style).encode(
                x=alt.X("x:Q", title=None, scale=scale), y=alt.Y("y:Q", title=None, scale=scale),
                color=colour)
            if mark == "mark_line":
                chart = chart.encode(detail="line:N", order="order:Q")
            layers.append(chart)
        _show(alt.layer(*layers), key, caption, height)


def lines(
    rows: Sequence[Mapping[str, Any]],
    x: str,
    y: str,
    colour: str,
    key: str,
    caption: str,
    *,
    marked: float | None = None,
    log_x: bool = False,
    log_y: bool = False,
    height: int = 320,
    bare: bool = False,
) -> None:
    """Lines over numbers, one for each value of `colour`; `marked`: a place on the x axis."""

    def scale(log: bool) -> alt.Scale:
        return alt.Scale(type="log", nice=False, padding=8) if log else alt.Scale(zero=False)

    values = [dict(row) for row in rows]
    columns = 1 if max(len(row[colour]) for row in values) > 20 else 2
    base = alt.Chart(alt.Data(values=values)).encode(
        x=alt.X(f"{x}:Q", scale=scale(log_x), axis=alt.Axis(tickCount=6, format=".4~r")),
        y=alt.Y(f"{y}:Q", scale=scale(log_y), axis=alt.Axis(tickCount=5, format=".4~r")),
        color=alt.Color(f"{colour}:N", title=None, sort=None, scale=alt.Scale(range=COLOURS),
                        legend=alt.Legend(orient="bottom", columns=columns, labelLimit=320)),
        tooltip=[f"{colour}:N", f"{x}:Q", alt.Tooltip(f"{y}:Q", format=".4g")])
    layers = [base.mark_line(strokeWidth=2)]
    if not bare:
        layers.append(base.mark_point(filled=True, size=45))
    if marked is not None:
        layers.append(alt.Chart(alt.Data(values=[{x: marked}])).mark_rule(
            color=GREY, strokeDash=[4, 3]).encode(x=f"{x}:Q"))
    _show(alt.layer(*layers), key, caption, height)


def bars(
    rows: Sequence[Mapping[str, Any]],
    x: str,
    y: str,
    colour: str,
    key: str,
    caption: str,
    *,
    marked: float | None = None,
    height: int = 220,
) -> None:
    """Bars side by side, one for each value of `colour`, in the order of the rows; `marked`: a
    place on the y axis."""
    base = alt.Chart(alt.Data(values=[dict(row) for row in rows]))
    layers = [base.mark_bar().encode(
        x=alt.X(f"{x}:N", title=None, sort=None, axis=alt.Axis(labelAngle=0)),
        xOffset=alt.XOffset(f"{colour}:N", sort=None), y=alt.Y(f"{y}:Q"),
        color=alt.Color(f"{colour}:N", title=None, sort=None, scale=alt.Scale(range=COLOURS),
                        legend=alt.Legend(orient="bottom")),
        tooltip=[f"{x}:N", f"{colour}:N", alt.Tooltip(f"{y}:Q", format=".4g")])]
    if marked is not None:
        layers.append(alt.Chart(alt.Data(values=[{y: marked}])).mark_rule(
            color=GREY, strokeDash=[4, 3]).encode(y=f"{y}:Q"))
    _show(alt.layer(*layers), key, caption, height)


def _show(chart: alt.LayerChart, key: str, caption: str, height: int) -> None:
    st.altair_chart(chart.properties(height=height, description=caption, usermeta=SVG),
                    width="stretch", key=key)
    words(caption, "quiet")
