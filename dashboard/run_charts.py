"""Charts of the selected runs: how long a step takes, time against evaluations, memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt
import streamlit as st

from dashboard import state
from dashboard.components.charts import COLOURS, HEIGHT, SVG, colour, data_button
from dashboard.components.text import notice, words
from dashboard.last_net import last_net
from pipelines.run_charts import ALONE, APART, HOW, SHARE, peak_memory, step_times, times_by_nfe

MOST = 200  # runs of a chart
SHAPES = {ALONE: "circle", SHARE: "triangle-up", APART: "square"}


@st.dialog("Charts", width="large")
@last_net()
def charts_dialog(ids: list[int]) -> None:
    log = state.engine().run_log
    runs = log.runs_by_id(ids[:MOST])
    if len(ids) > MOST:
        words(f"The first {MOST} of {len(ids)} selected runs.", "quiet")
    steps, memory = step_times(runs), peak_memory(runs)
    times = times_by_nfe(runs, log.timings([run.source_id for run in runs]))
    measured = {record["run_id"] for record in (*steps, *times, *memory)}
    if without := [run.id for run in runs if run.id not in measured]:
        words(f"Without measurements, so not shown: run{'s' * (len(without) != 1)} "
              f"{', '.join(map(str, without[:12]))}{' …' * (len(without) > 12)}.", "quiet")
    if not measured:
        notice("note", "None of these runs was measured: they failed, or were stopped.")
        return
    by_step, by_nfe, of_memory = st.tabs(["Time per step", "Time against NFE", "Memory"])
    with by_step:
        _draw(_step_chart(steps), "steps", steps)
        if len({record["run_id"] for record in steps}) < len(measured):
            words("Runs that shared their network calls with others have no times of single steps.",
                  "quiet")
    with by_nfe:
        _draw(_nfe_chart(times), "time-nfe", times)
        if len({record["how"] for record in times}) > 1:
            notice("note", "Times of different kinds are no measure of each other: a share of a "
                           "batch tells how busy the batch was, a run as it was made what else the "
                           "machine did. Compare times that were timed apart (Measure timings).")
    with of_memory:
        _draw(_memory_chart(memory), "memory", memory)
        words("On a GPU the most that PyTorch had allocated; elsewhere the most memory of the "
              "whole process, with all that was loaded before, looked at after each step.", "quiet")


def _draw(chart: Any, name: str, records: Sequence[dict[str, Any]]) -> None:
    if not records:
        words("None of these runs was measured in this.", "quiet")
        return
    st.altair_chart(chart.properties(height=HEIGHT * 3 // 4, usermeta=SVG), width="stretch",
                    key=f"run-charts.{name}")
    data_button(f"runs-{name}", records)


def _step_chart(records: Sequence[dict[str, Any]]) -> Any:
    return alt.Chart(alt.Data(values=list(records))).mark_line(
        strokeWidth=1.5, point=alt.OverlayMarkDef(size=18)).encode(
        x=alt.X("step:Q", title="step", axis=alt.Axis(tickMinStep=1, format="d")),
        y=alt.Y("ms:Q", title="time of the step (ms)", scale=alt.Scale(zero=True)),
        color=colour("scheduler"), detail="run_id:N",
        tooltip=["name:N", "scheduler:N", "step:Q", alt.Tooltip("ms:Q", format=".1f"), "how:N"])


def _nfe_chart(records: Sequence[dict[str, Any]]) -> Any:
    kinds = [how for how in HOW if any(record["how"] == how for record in records)]
    base = alt.Chart(alt.Data(values=list(records))).encode(
        x=alt.X("nfe:Q", title="function evaluations (NFE)",
                scale=alt.Scale(zero=False, padding=12),
                axis=alt.Axis(tickMinStep=1, format="d")),
        color=colour("scheduler"))
    spread = base.transform_filter("datum.ms_low != null").mark_rule(opacity=0.6).encode(
        y="ms_low:Q", y2="ms_high:Q")
    dots = base.mark_point(size=90, strokeWidth=2).encode(
        y=alt.Y("ms:Q", title="time of one picture (ms)", scale=alt.Scale(zero=True)),
        shape=alt.Shape("how:N", title=None, legend=alt.Legend(orient="top", columns=1),
                        scale=alt.Scale(domain=kinds, range=[SHAPES[kind] for kind in kinds])),
        tooltip=["name:N", "scheduler:N", "steps:Q", "nfe:Q", alt.Tooltip("ms:Q", format=".0f"),
                 "how:N", "repeats:Q"])
    return spread + dots


def _memory_chart(records: Sequence[dict[str, Any]]) -> Any:
    return alt.Chart(alt.Data(values=list(records))).mark_bar(size=12).encode(
        x=alt.X("mib:Q", title="peak memory (MiB)"),
        y=alt.Y("name:N", title=None, sort=None),
        color=alt.Color("what:N", title=None, scale=alt.Scale(range=COLOURS),
                        legend=alt.Legend(orient="bottom", columns=1)),
        tooltip=["name:N", "scheduler:N", alt.Tooltip("mib:Q", title="MiB", format=",.0f"),
                 "what:N"])
