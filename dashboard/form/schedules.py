"""Noise schedules on a page: those of an axis drawn against each other, and one drawn by hand."""

from __future__ import annotations

import math
from pathlib import Path

import altair as alt
import streamlit as st

from dashboard.components.charts import COLOURS, SVG
from dashboard.components.text import notice, words
from dashboard.form.model import page_model
from dashboard.last_net import last_net
from dashboard.state import PageState
from pipelines.axes import Axis, format_values, make_axis, parse_values
from pipelines.comparison import Comparison
from pipelines.errors import PipelineError, RequestError, first_line
from pipelines.models.info import ModelInfo
from pipelines.notation import number_text
from pipelines.painting.resolve import resolve
from pipelines.request import RunRequest
from pipelines.sheet.viewer.scripts import joined
from pipelines.sigma_schedules import DEFAULT, level_range, request_sigmas

AXIS = "sigma_schedule"
FEWEST, MOST = 2, 30  # points of a schedule that is drawn

_editor = st.components.v2.component(
    "contact_sheet.schedule_editor",
    html="<div class='editor'></div>",
    css=(Path(__file__).with_name("schedule_editor.css")).read_text(encoding="utf-8"),
    js=joined(Path(__file__).with_name("schedule_editor.js")),
)


def schedule_panel(page: PageState, comparison: Comparison | None) -> None:
    """The schedules of a comparison with such an axis, and the editor that adds one to it."""
    info = page_model(page)
    if info is None or AXIS not in page.get("axes", ()):
        return
    with st.expander("Noise schedules", icon=":material/stacked_line_chart:",
                     key=page.key("schedules")):
        if comparison is not None:
            schedule_chart(page, comparison, info)
        _drawn_by_hand(page, info)


def schedule_chart(page: PageState, comparison: Comparison, info: ModelInfo) -> None:
    """Sigma against the number of the evaluation, a line for each value of the axis."""
    axis = next(axis for axis in comparison.axes if AXIS in axis.parts)
    rows, refused = [], []
    for value in axis.values:
        request = next(cell.request for cell in comparison.cells
                       if cell.axes[axis.name] == value)
        try:
            levels = levels_of_request(request, info)
        except PipelineError as error:
            refused.append(f"{axis.label(value)}: {first_line(error)}")
            continue
        rows += [{"evaluation": number, "sigma": level, "schedule": axis.label(value)}
                 for number, level in enumerate(levels, 1)]
    for text in refused:
        notice("note", text)
    if not rows:
        return
    base = alt.Chart(alt.Data(values=rows)).encode(
        x=alt.X("evaluation:Q", axis=alt.Axis(tickMinStep=1, format="d")),
        y=alt.Y("sigma:Q", scale=alt.Scale(type="log", nice=False, padding=8),
                axis=alt.Axis(tickCount=5, format=".3~r")),
        color=alt.Color("schedule:N", title=None, sort=None, scale=alt.Scale(range=COLOURS),
                        legend=alt.Legend(orient="bottom", columns=2, labelLimit=240)),
        tooltip=["schedule:N", "evaluation:Q", alt.Tooltip("sigma:Q", format=".4g")])
    caption = ("The noise level at each evaluation of the network, of the first cell with each "
               "value (sigma_schedules.request_sigmas).")
    st.altair_chart((base.mark_line(strokeWidth=2) + base.mark_point(filled=True, size=45))
                    .properties(height=280, description=caption, usermeta=SVG),
                    width="stretch", key=page.key("schedule.chart"))
    words(caption, "quiet")


def levels_of_request(request: RunRequest, info: ModelInfo) -> list[float]:
    """The noise level at each evaluation; raises PipelineError where the schedule is refused."""
    return request_sigmas(resolve(request, info), info.original_scheduler_config)


def _drawn_by_hand(page: PageState, info: ModelInfo) -> None:
    """Points that are dragged, and the button that puts them on the axis."""
    words("Draw one: drag a point, or choose it with Tab and move it with the arrow keys.", "quiet")
    try:
        low, high = level_range(info.original_scheduler_config)
    except PipelineError as error:
        notice("note", str(error))
        return
    page.start(**{"schedule.steps": 8})
    with st.container(horizontal=True, vertical_alignment="bottom"):
        steps = st.number_input("Points", FEWEST, MOST, width=120, **page.kept("schedule.steps"))
        st.button("Add to the axis", icon=":material/add:", key=page.key("schedule.add"),
                  on_click=add_drawn, args=(page, steps, high, low))
    result = _editor(
        key=page.key(f"schedule.editor.{steps}"),
        data={"levels": drawn_levels(page, steps, high, low), "high": high, "low": low},
        default={"levels": None}, on_levels_change=lambda: None)
    page.set(f"schedule.drawn.{steps}", result.levels)


def drawn_levels(page: PageState, steps: int, high: float, low: float) -> list[float]:
    """What the browser has drawn, from the highest level on; log-linear before it did."""
    drawn = page.get(f"schedule.drawn.{steps}")
    if drawn and len(drawn) == steps:
        return [float(level) for level in drawn]
    return [high * (low / high) ** (number / max(1, steps - 1)) for number in range(steps)]


@last_net()
def add_drawn(page: PageState, steps: int, high: float, low: float) -> None:
    """Put what was drawn on the axis, behind the values that are there."""
    levels = drawn_levels(page, steps, high, low)
    text = "sigmas:" + " ".join(number_text(float(f"{level:.4g}"))
                                for level in levels if math.isfinite(level))
    listed = str(page.get(f"values.{AXIS}") or DEFAULT)
    there = parse_values(AXIS, listed, RunRequest()).values
    if make_axis(AXIS, [text]).values[0] in there:
        raise RequestError(f"{AXIS}: {text} is on the axis already")
    axis: Axis = make_axis(AXIS, [*there, text])
    page.set(f"values.{AXIS}", format_values(axis, RunRequest()))
