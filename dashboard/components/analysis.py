"""What a comparison teaches: distances, measured times, charts, flags."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import altair as alt
import streamlit as st

from dashboard import state
from dashboard.browser import asked
from dashboard.components.charts import HEIGHT, SVG, colour, data_button
from dashboard.components.text import notice, words
from pipelines import measuring
from pipelines.analysis import Line, Method, convergence, methods, pareto_front, verdict
from pipelines.clip import FETCH
from pipelines.comparison import Cell, Comparison
from pipelines.flags import flags
from pipelines.guidance import guidance
from pipelines.jobs import submit_measurement, submit_timings
from pipelines.measuring import CONVERGED
from pipelines.references import cell_texts
from pipelines.sheet.live import Look
from pipelines.study.statistics import FEWEST_PROMPTS

REPEATS = 7  # with fewer, the ranges of six methods may lie apart by chance


def analysis_panel(look: Look, open_run: Callable[[int], None]) -> None:
    """Below a finished sheet: measure, and see what it says; a chosen point opens its cell."""
    comparison, row, runs = look.comparison, look.row, look.runs
    if sum(run is not None and run.status == "ok" for run in runs) < 2:
        return
    st.subheader("What it shows")
    reference = _measuring(look)
    engine = state.engine()
    if reference == row.reference:
        distances = look.distances
    else:
        distances = look.once(("distances", reference),
                              lambda: measuring.distances(engine, comparison, runs, reference))
    found = look.once(("methods", reference),
                      lambda: methods(comparison, runs, distances, look.timings))
    tabs = st.tabs(["Convergence", "Quality against time", "Guidance", "Flags"],
                   on_change="rerun", key=f"analysis-{row.id}")
    with tabs[0]:
        floor = (look.once("floor", lambda: measuring.floor(engine, runs))
                 if reference == CONVERGED else 0.0)
        _convergence(found, reference, floor, row.id, open_run)
    with tabs[1]:
        _quality(look, found, reference, open_run)
    if tabs[2].open:  # these two look at every picture
        with tabs[2], st.spinner("Looking at the pictures …"):
            _guidance(look, open_run)
    if tabs[3].open:
        with tabs[3], st.spinner("Looking at the pictures …"):
            _flags(look)


def _measuring(look: Look) -> str | None:
    """The reference, and the two buttons that measure; the reference whose distances to show."""
    row = look.row
    names = look.once("names", lambda: {CONVERGED: "the converged picture"} | {
        text: _cell_name(look.comparison, cell)
        for text, cell, run in zip(cell_texts(look.comparison), look.comparison.cells,
                                   look.runs, strict=True)
        if run and run.status == "ok"
    })
    job = state.comparison_job(row.id)
    busy = bool(job and job.active)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        known = row.reference if row.reference in names else CONVERGED
        reference = st.selectbox(
            "Reference", list(names), index=list(names).index(known), format_func=names.get,
            key=f"reference-{row.id}", width=340,
            help="The converged picture: the same noise through a solver with so many steps that "
                 "more change nothing. It is made once for each prompt, seed and guidance scale.")
        if st.button("Measure distances", icon=":material/straighten:", disabled=busy,
                     key="measure.distances"):
            submit_measurement(state.job_queue(), row.id, reference, **asked())
            st.rerun()
        repeats = st.number_input("Repeats", 2, 50, REPEATS, key="measure.repeats", width=110)
        if st.button("Measure timings", icon=":material/timer:", disabled=busy,
                     key="measure.timings",
                     help="Each cell apart, after warm-up, in turns, so that a slow minute falls "
                          "on all of them."):
            submit_timings(state.job_queue(), row.id, repeats, **asked())
            st.rerun()
    return reference


def _cell_name(comparison: Comparison, cell: Cell) -> str:
    axes = {axis.name: axis for axis in comparison.axes}
    return " · ".join(f"{name} {axes[name].label(value)}" for name, value in cell.axes.items())


def _convergence(
    found: Sequence[Method],
    reference: str | None,
    floor: float,
    place: str,
    open_run: Callable[[int], None],
) -> None:
    lines = convergence(found, floor)
    if not lines:
        words("Measure distances to see how fast each scheduler comes to the reference.", "quiet")
        return
    if len({m.num_inference_steps for m in found}) < 2:
        words("All cells have the same number of steps; with num_inference_steps on an axis there "
              "are lines.", "quiet")  # fmt: skip
    chart = _line_chart(lines, floor)
    _chart(chart, f"convergence-{place}", open_run)
    _orders(lines)
    if reference == CONVERGED and any(line.stochastic for line in lines):
        notice("note", "Stochastic samplers (dashed) draw fresh noise on the way: they make other "
                       "pictures of the same prompt, and do not converge to this one.")
    if floor:
        words(f"The reference's own error is about {floor:.2g} (grey line): distances near it "
              "say nothing.", "quiet")  # fmt: skip
    data_button("convergence", [_record(m) for line in lines for m in line.points])


def _line_chart(lines: Sequence[Line], floor: float) -> alt.LayerChart:
    rows = [{**_record(m), "solver": line.name,
             "kind": "stochastic" if line.stochastic else "deterministic"}
            for line in lines for m in line.points]
    point = alt.selection_point(name="point", fields=["run_id"], on="click", empty=False)
    base = alt.Chart(alt.Data(values=rows)).encode(
        x=alt.X("nfe:Q", title="function evaluations (NFE)",
                axis=alt.Axis(values=sorted({row["nfe"] for row in rows}), labelOverlap=True),
                scale=alt.Scale(type="log", nice=False, padding=12)),
        y=alt.Y("rms_latents:Q", title="distance (RMS of latents)",
                scale=alt.Scale(type="log", nice=False, padding=12)),
        color=colour("solver"),
        strokeDash=alt.StrokeDash("kind:N", title=None, legend=None, scale=alt.Scale(
            domain=["deterministic", "stochastic"], range=[[1, 0], [5, 4]])),
    )
    marks = base.mark_line(strokeWidth=2) + base.mark_point(filled=True, size=90).encode(
        tooltip=_tooltip(rows), opacity=alt.value(1.0)).add_params(point)
    if floor:
        rule = alt.Chart(alt.Data(values=[{"floor": floor}]))
        marks = rule.mark_rule(color="#8888", strokeDash=[2, 3]).encode(y="floor:Q") + marks
    return marks.properties(height=HEIGHT, usermeta=SVG)


def _orders(lines: Sequence[Line]) -> None:
    """The orders of accuracy: fitted, and what the literature says."""
    st.dataframe(
        [{"solver": line.name,
          "fitted order": "–" if line.fitted is None else f"{line.fitted:.2f}",
          "nominal order": "–" if line.nominal is None else str(line.nominal),
          "note": line.why} for line in lines],
        hide_index=True, width="stretch",
    )  # fmt: skip


def _quality(
    look: Look,
    found: Sequence[Method],
    reference: str | None,
    open_run: Callable[[int], None],
) -> None:
    timed = [m for m in found if m.ms is not None and m.rms_latents]
    if not timed:
        missing = "timings" if any(m.rms_latents for m in found) else "distances and timings"
        words(f"Measure {missing} to see what a scheduler and a number of steps buy. Times of "
              "single runs are not used here.", "quiet")  # fmt: skip
        return
    front = look.once(("front", reference), lambda: {m.name for m in pareto_front(timed)})
    if sentence := look.once(("verdict", reference), lambda: verdict(timed, reference or "")):
        words(sentence, "large")
    rows = [{**_record(m), "front": m.name in front} for m in timed]
    point = alt.selection_point(name="point", fields=["run_id"], on="click", empty=False)
    base = alt.Chart(alt.Data(values=rows)).encode(
        x=alt.X("ms:Q", title="measured time of one picture (ms, median)",
                scale=alt.Scale(type="log", nice=False, padding=16)),
        y=alt.Y("rms_latents:Q", title="distance (RMS of latents)",
                scale=alt.Scale(type="log", nice=False, padding=12)),
    )
    of_line = colour("line")
    bounds = base.transform_filter("datum.rms_low != null").mark_rule(opacity=0.5).encode(
        y=alt.Y("rms_low:Q"), y2="rms_high:Q", color=of_line)
    spread = base.mark_rule(opacity=0.5).encode(
        x=alt.X("ms_low:Q"), x2="ms_high:Q", color=of_line)
    dots = base.mark_point(filled=True, size=110).encode(
        color=of_line, tooltip=_tooltip(rows),
        opacity=alt.condition("datum.front", alt.value(1.0), alt.value(0.45)),
    ).add_params(point)  # fmt: skip
    names = base.transform_filter("datum.front").mark_text(
        align="left", dx=8, dy=-8, fontSize=12, color="#888").encode(text="num_inference_steps:Q")
    _chart((bounds + spread + dots + names).properties(height=HEIGHT, usermeta=SVG),
           f"quality-{look.row.id}", open_run)
    words("Dots of full colour, with their number of steps: nothing here can be told to be both "
          "faster and closer. Bars across reach from the shortest to the longest repeat; bars up "
          f"and down are 95 % intervals over prompts, from {FEWEST_PROMPTS} prompts on.", "quiet")
    data_button("quality", rows)


def _guidance(look: Look, open_run: Callable[[int], None]) -> None:
    comparison, runs, place = look.comparison, look.runs, look.row.id
    scored = look.once("scored", lambda: measuring.clip_scores(state.engine(), runs))
    points = look.once("guidance", lambda: guidance(comparison, runs, state.engine().pictures,
                                                    scored))
    if len(points) < 2:
        words("With guidance_scale on an axis: whether pictures follow their prompt, and how much "
              "seeds differ.", "quiet")  # fmt: skip
        return
    rows = []
    for one in points:
        run_id = runs[one.cells[0]].id
        if one.accuracy is not None:
            rows.append({"guidance_scale": one.guidance_scale, "measure": "follows the prompt",
                         "value": one.accuracy, "of": f"{one.judged} pictures", "run_id": run_id})
        if one.diversity is not None:
            rows.append({"guidance_scale": one.guidance_scale, "measure": "diversity of seeds",
                         "value": one.diversity, "of": f"{one.pairs} pairs", "run_id": run_id})
    if rows:
        _chart(_guidance_chart(rows, [0, 1]), f"guidance-{place}", open_run)
    scores = [{"guidance_scale": one.guidance_scale, "measure": "CLIP score",
               "value": one.clip_score, "of": f"{one.scored} pictures",
               "run_id": runs[one.cells[0]].id} for one in points if one.clip_score is not None]
    if scores:
        _chart(_guidance_chart(scores, None), f"clip-{place}", open_run)
        words("CLIP score: 100 times the cosine of picture and prompt, as "
              f"{next(one.clip_model for one in scored if one)} sees them.", "quiet")
    if any(one.judged for one in points):
        fewest = min(one.judged for one in points)
        words("Follows the prompt: the share of pictures in which the judge of the bundled model "
              f"sees all that the prompt names; {fewest} pictures or more per scale"
              f"{', too few to tell small differences' if fewest < 30 else ''}.", "quiet")
    elif not scores:
        words("Whether pictures follow their prompt: the bundled model's are judged by its judge, "
              f"others by CLIP where its weights are on this machine ({FETCH}), with Measure "
              "distances.", "quiet")  # fmt: skip
    if not any(one.pairs for one in points):
        words("With several seeds (pictures per cell) there is diversity too: the mean of "
              "1 - SSIM over pairs of pictures of one prompt.", "quiet")  # fmt: skip
    if rows or scores:
        data_button("guidance", [asdict(one) for one in points])


def _guidance_chart(rows: Sequence[dict[str, Any]], domain: list[float] | None) -> alt.LayerChart:
    point = alt.selection_point(name="point", fields=["run_id"], on="click", empty=False)
    scale = alt.Scale(domain=domain) if domain else alt.Scale(zero=False)
    base = alt.Chart(alt.Data(values=rows)).encode(
        x=alt.X("guidance_scale:Q"),
        y=alt.Y("value:Q", title=None, scale=scale),
        color=colour("measure"),
        tooltip=["measure:N", "guidance_scale:Q", alt.Tooltip("value:Q", format=".3f"), "of:N"],
    )
    marks = base.mark_line(strokeWidth=2) + base.mark_point(filled=True, size=90).add_params(point)
    return marks.properties(height=HEIGHT, usermeta=SVG)


def _flags(look: Look) -> None:
    found = look.once("flags", lambda: flags(look.comparison, look.runs, state.engine().pictures))
    if not found:
        words("Nothing stands out: no two cells are identical, none is empty or saturated.",
              "quiet")  # fmt: skip
    for flag in found:
        notice("note", flag.text)


def _record(method: Method) -> dict[str, Any]:
    record = asdict(method)
    record["cells"] = len(method.cells)
    del record["by_prompt"]
    return record


def _tooltip(rows: Sequence[dict[str, Any]]) -> list[Any]:
    """What a point says when it is pointed at, as far as it was measured."""
    found = [alt.Tooltip("name:N"), alt.Tooltip("nfe:Q", title="NFE", format=".0f"),
            alt.Tooltip("rms_latents:Q", format=".4f"),
            alt.Tooltip("psnr:Q", title="psnr (dB)", format=".1f"),
            alt.Tooltip("ssim:Q", format=".4f"),
            alt.Tooltip("clip_distance:Q", title="CLIP distance", format=".4f"),
            alt.Tooltip("ms:Q", title="time (ms)", format=".0f"),
            alt.Tooltip("cells:Q", title="mean of cells")]
    return [one for one in found
            if any(row.get(one.shorthand.partition(":")[0]) is not None for row in rows)]


def _chart(chart: Any, key: str, open_run: Callable[[int], None]) -> None:
    """A chart whose chosen point opens its cell, once."""
    event = st.altair_chart(chart, on_select="rerun", key=key, width="stretch")
    chosen = [point["run_id"] for point in event.selection.get("point", [])]
    if chosen != st.session_state.get(f"{key}.seen", []):
        st.session_state[f"{key}.seen"] = chosen
        if chosen:
            open_run(int(chosen[0]))
