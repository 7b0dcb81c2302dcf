"""Compare: a base request and axes, as a contact sheet."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace

import streamlit as st

from dashboard import state
from dashboard.browser import asked
from dashboard.components.analysis import analysis_panel
from dashboard.components.beside import beside_panel
from dashboard.components.queue import job_buttons, job_progress
from dashboard.components.recent import Recent, moment
from dashboard.components.sheet import contact_sheet, steps_wanted
from dashboard.components.text import notice, words, work_text
from dashboard.form.axes import comparison_controls, problem_notice, put_comparison
from dashboard.form.fields import (
    advanced_controls,
    example_prompts,
    hosted_notice,
    number_controls,
    prompt_control,
    scheduler_control,
    size_controls,
    task_control,
    unknown_words_note,
)
from dashboard.form.model import model_control
from dashboard.form.restore import LINK, restore_control, take_link
from dashboard.form.schedules import schedule_panel
from dashboard.last_net import last_net, polled
from dashboard.runs import masked_request, open_run, opened_run, truthful_control
from dashboard.study.setup import put_methods
from dashboard.votes.page import ask_people
from pipelines.axes import label, own_or_label
from pipelines.comparison import Comparison, forecast
from pipelines.errors import PipelineError
from pipelines.job_log import INTERRUPTED, PAUSED
from pipelines.jobs import submit_comparison
from pipelines.log_tables import ComparisonRow, Run
from pipelines.provenance.link import write_link
from pipelines.queue import Job
from pipelines.sheet.cells import Results, notes_of_runs
from pipelines.sheet.draw import unusual
from pipelines.sheet.exports import Export, exports_for
from pipelines.sheet.live import LiveComparison
from pipelines.sheet.viewer import viewer_data
from pipelines.votes.rows import COMPARISON

PAGE = state.COMPARE
RECENT = Recent(PAGE, state.COMPARISON, "comparison", "comparisons")
# What shows a difference: the axes of each.
PRESETS = {
    "Schedulers at few steps": ("scheduler=ddim,euler,dpmpp_2m,unipc,heun,euler_a",
                                "num_inference_steps=4,6,8,12,20"),
    "Guidance 1 to 15": ("guidance_scale=1,2,3,5,7.5,10,15", "seed=0..3"),
    "Seeds": ("seed=0..11",),
}
ICONS = {"png": "image", "zip": "image", "html": "html", "csv": "table",
         "spreadsheet": "table_view", "recipe": "receipt_long"}


def recent() -> None:
    """A list of comparisons to open again."""
    RECENT.show({row.id: f"{moment(row.datetime_utc)} · {row.summary} · {row.id}"
                 for row in state.engine().run_log.comparisons(30)})


def setup() -> None:
    """The base request, the axes, the forecast and the start."""
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.caption("Start from")
        for name in PRESETS:
            st.button(name, key=PAGE.key(f"preset.{name}"), on_click=use_preset, args=(name,))
    axes = PAGE.get("axes", ["scheduler", "guidance_scale"])
    names = {part for name in axes for part in name.split("+")}
    restore_control(PAGE, take_comparison)
    left, right = st.columns([5, 6], gap="large")
    with left:
        task_control(PAGE, without=names)
        prompt_control(PAGE, without=names)
        if "prompt" not in names:
            example_prompts(PAGE)
        if "scheduler" not in names:
            scheduler_control(PAGE)
        number_controls(PAGE, without=names)
        with st.popover("Model, size and more", icon=":material/tune:"):
            if "model_id" not in names:
                model_control(PAGE)
            size_controls(PAGE, without=names)
            advanced_controls(PAGE, without=names)
    with right:
        problem, comparison = None, None
        try:
            base = PAGE.request()
            comparison = comparison_controls(PAGE, base)
            line = forecast_line(comparison)
        except PipelineError as error:
            problem, line = error, "No forecast yet"
        schedule_panel(PAGE, comparison)
        with st.container(horizontal=True, vertical_alignment="center", gap="medium"):
            go = st.button("Start comparison", type="primary", icon=":material/grid_on:",
                           shortcut="Ctrl+Enter", key=PAGE.key("go"), disabled=comparison is None)
            st.caption(line)
        st.toggle("Share UNet calls", **PAGE.kept("shared"),
                  help="Cells in one batch where the pipeline allows it: faster, with the same "
                       "pictures. Their times are then shares of the batch, and marked so; to "
                       "time cells, use Measure timings.")
        st.toggle("Make every cell again", **PAGE.kept("fresh"),
                  help="Otherwise cells that the log holds already, made of exactly the same, are "
                       "taken from there.")
        if problem:
            problem_notice(problem)
        elif comparison:
            unknown_words_note(comparison.base, *prompts_of(comparison))
            hosted_notice(cell.request for cell in comparison.cells if not cell.left_out)
    if go and comparison:
        job = submit_comparison(state.job_queue(), comparison, PAGE.get("shared"),
                                PAGE.get("fresh"), **asked())
        RECENT.choose(job.comparison_id)
        st.rerun()


def prompts_of(comparison: Comparison) -> list[str]:
    requests = [cell.request for cell in comparison.cells if not cell.left_out]
    return list(dict.fromkeys(text for r in requests for text in (r.prompt, r.negative_prompt)))


def forecast_line(comparison: Comparison) -> str:
    engine = state.engine()
    engine.registry.describe(comparison.base.model_id)
    in_log = set() if PAGE.get("fresh") else state.cells_in_log(comparison)
    requests = [cell.request for number, cell in enumerate(comparison.cells)
                if not cell.left_out and number not in in_log]
    if not requests:
        return f"**{len(in_log)} cells**, all in the log already"
    expected = forecast(requests, engine.run_log, engine.registry, PAGE.get("shared"))
    work = work_text(expected, f", from {expected.based_on} runs on this machine")
    reused = f" · {len(in_log)} more from the log" if in_log else ""
    return f"**{expected.cells} cells**{reused} · {work}"


def show(comparison_id: str) -> None:
    """One comparison: title, state, sheet, downloads."""
    live, job = state.live_comparison(comparison_id), state.comparison_job(comparison_id)
    look = live.look()
    if look is None:
        if job and job.active:
            polled(waiting)(job)
        elif job and job.status == "cancelled":
            notice("note", "Cancelled before it started.")
        else:
            notice("error", f"comparison {comparison_id} is not in the log of this machine")
        return
    heading(look.comparison)
    urls: dict[tuple[int, str], str | None] = {}  # lives until the next full run, as they do
    polled(live_sheet)(live, urls)
    downloads(look.comparison, comparison_id)
    analysis_panel(look, open_run)
    beside_panel(comparison_id)


def waiting(job: Job) -> None:
    state.rerun_on_change()
    if state.engine().run_log.comparison(job.comparison_id):
        st.rerun()
    words(job.title)
    job_progress(job)
    job_buttons(job, "page")


def heading(comparison: Comparison) -> None:
    """What all cells share."""
    base, varied = comparison.base, comparison.varied
    if "prompt" not in varied:
        words(base.prompt or "(no prompt)", "large")
    shared = [f"negative prompt: {base.negative_prompt}"] if base.negative_prompt else []
    for name, text in (("scheduler", "{} scheduler"), ("num_inference_steps", "{} steps"),
                       ("guidance_scale", "guidance {}"), ("seed", "seed {}"), ("model_id", "{}")):
        if name not in varied:
            shared.append(text.format(own_or_label(name, getattr(base, name))))
    shared += [f"{name} {label(name, value)}" for name, value in unusual(comparison).items()]
    words(" · ".join(shared), "quiet")
    if base.task == "inpainting":
        masked_request(base, "shown")


def live_sheet(live: LiveComparison, urls: dict[tuple[int, str], str | None]) -> None:
    """State of the work, proof of equal noise, and the sheet with the cells that are done."""
    state.rerun_on_change()
    look = live.look()
    row, runs, key = look.row, look.runs, f"sheet-{look.row.id}"
    job = state.comparison_job(row.id)
    status_line(look.comparison, row, job, runs)
    noise_line(look.comparison, runs)
    kept_line(runs)
    if notes := notes_of_runs(runs):
        notice("note", "; ".join(notes))
    ended = "cancelled" if row.status == "cancelled" else "not run"
    states = ["waiting" if job and job.active else ended] * len(runs)
    missing = (number for number in live.order if runs[number] is None)
    if job and job.active and (now := next(missing, None)) is not None:
        states[now] = "running"
    with_steps = steps_wanted(key)
    if PAGE.get("drawn", ("", {}))[0] != row.id:  # cells as the viewer has them
        PAGE.set("drawn", (row.id, {}))

    def address(run: Run, kind: str) -> str | None:
        sha256 = run.image_sha256 if kind == "picture" else run.steps_sha256
        if not sha256 or (kind == "steps" and not with_steps):
            return None
        if (run.id, kind) not in urls:
            urls[run.id, kind] = state.stored_url(sha256, f"cell-{run.id}-{kind}")
        return urls[run.id, kind]

    data = viewer_data(look.comparison, runs, look.records, address, name=row.id, states=states,
                       drawn=PAGE.get("drawn")[1])
    if run_id := contact_sheet(data, key=key):
        open_run(run_id)


def status_line(
    comparison: Comparison, row: ComparisonRow, job: Job | None, runs: Sequence[Run | None]
) -> None:
    if job and job.active:
        with st.container(horizontal=True, vertical_alignment="center", gap="medium"):
            job_progress(job)
            job_buttons(job, "page")
        return
    count = sum(not cell.left_out for cell in comparison.cells)
    done = sum(run is not None and run.status == "ok" for run in runs)
    failed = sum(run is not None and run.status == "failed" for run in runs)
    reused = sum(run is not None and run.reused_from is not None for run in runs)
    if failed:
        notice("error", f"{failed} of {count} cells failed; each says why in its place.")
    if job and job.status == "failed":
        notice("error", job.error or "The comparison failed.")
    elif row.status == "cancelled":
        notice("note", f"Cancelled; {done} of {count} cells are kept.")
    elif row.status == "running":
        notice("note", f"{done} of {count} cells so far: another program makes it.")
    elif row.status in (INTERRUPTED, PAUSED):
        notice("note", f"{row.status.capitalize()}; {done} of {count} cells are kept.")
    if reused:
        notice("note", f"{reused} of {count} cells were made before, of exactly the same, and "
                       "come from the log.")
    if row.status != "done" or failed:
        st.button("Go on with what is missing", icon=":material/play_arrow:", key="resume",
                  on_click=last_net()(submit_comparison), kwargs={
                      "jobs": state.job_queue(), "comparison": comparison, "resume": row.id,
                      "shared": PAGE.get("shared", False), **asked()})


def noise_line(comparison: Comparison, runs: Sequence[Run | None]) -> None:
    """Whether all cells of one seed began from one noise, by the hashes in the log."""
    hashes: dict[int, set[str]] = {}
    made = [run for run in runs if run and run.status == "ok"]
    if hosted := sum(run.hosted for run in made):
        notice("note", f"Initial noise unknown in {hosted} of {len(made)} finished cells: a "
                       "provider made them. What is said of equal noise is of the others.")
    for run in made:
        if not run.hosted:
            hashes.setdefault(run.seed, set()).add(run.noise_sha256 or "not recorded")
    if not hashes:
        return
    unequal = [seed for seed, seen in hashes.items() if len(seen) > 1 or "not recorded" in seen]
    if unequal:
        seeds = ", ".join(map(str, unequal[:5]))
        sized = {"height", "width", "model_id"} & comparison.varied
        why = f" ({' and '.join(sorted(sized))} on an axis changes its shape)" if sized else ""
        notice("note", f"Equal noise: not proven. Cells of seed {seeds} began from different "
                       f"noise{why}.")
    elif len(hashes) == 1:
        notice("good", f"Equal noise: proven. Every {'other ' * (hosted > 0)}finished cell began "
                       "from the same noise:",
               next(iter(next(iter(hashes.values())))))
    else:
        notice("good", f"Equal noise: proven. One hash for each of {len(hashes)} seeds:",
               "  ".join(f"{seed}: {min(seen)[:12]}" for seed, seen in hashes.items()))


def kept_line(runs: Sequence[Run | None]) -> None:
    """What the finished in-paintings left alone; the worst of them counts."""
    kept = [run for run in runs if run and run.unmasked_pixels]
    if kept:
        worst = max(kept, key=lambda run: run.changed_unmasked_pixels)
        which = "in every finished cell" if not worst.changed_unmasked_pixels else "in one cell"
        notice("error" if worst.changed_unmasked_pixels else "good",
               f"{worst.changed_unmasked_pixels:,} of {worst.unmasked_pixels:,} unmasked pixels "
               f"changed {which}.")


def downloads(comparison: Comparison, comparison_id: str) -> None:
    """What people take home, built when somebody asks for it."""
    engine = state.engine()

    def write(export: Export) -> bytes:
        results = Results.of_log(engine, comparison_id)
        return export.write(replace(results, truthful=st.session_state.get(state.TRUTHFUL, True)))

    with st.container(horizontal=True, gap="small"):
        with st.popover("Download", icon=":material/download:"):
            truthful_control("sheet")
            for name, export in exports_for(comparison).items():
                st.download_button(export.label, functools.partial(write, export),
                                   f"contact-sheet-{comparison_id}{export.suffix}", export.mime,
                                   on_click="ignore", width="stretch", key=f"download.{name}",
                                   icon=f":material/{ICONS.get(name, 'data_object')}:")
            if link := write_link(comparison):
                words("A link to these settings, for who has this program:", "quiet")
                st.code(f"{st.context.url}?{LINK}={link}", language=None)
            else:
                words("These settings are too long for a link: the recipe holds them.", "quiet")
        # A callback, because it fills widgets that are drawn above.
        st.button("Use these settings again", icon=":material/edit:", key="again",
                  on_click=use_again, args=(comparison,))
        if comparison.base.task == "text-to-image" and st.button(
            "Ask this of many prompts", icon=":material/query_stats:", key="study",
            help="One prompt says little: the page Study asks many, and says what can be told "
                 "apart.",
        ):
            put_methods(comparison)
            st.session_state[state.STUDY_ID] = None
            state.STUDY.set("setup.next", True)
            st.switch_page("views/study.py")
        if st.button("Ask people", icon=":material/how_to_vote:", key="vote",
                     help="A blind vote over these pictures"):
            ask_people(COMPARISON, comparison_id)


def take_comparison(comparison: Comparison) -> list[str]:
    put_comparison(PAGE, comparison)
    RECENT.choose(None)
    return []


@last_net()
def use_again(comparison: Comparison) -> None:
    take_comparison(comparison)


@last_net()
def use_preset(name: str) -> None:
    put_comparison(PAGE, Comparison.parse(PAGE.request(), PRESETS[name]))


PAGE.start_request()
PAGE.start(shared=True)
take_link(PAGE, take_comparison)
if preset := PAGE.pop("preset"):  # another page asks for it
    use_preset(preset)
comparison_id = RECENT.chosen_id()
if comparison_id:
    st.query_params[state.COMPARISON] = comparison_id
title, list_of_recent = st.columns([3, 2], vertical_alignment="bottom")
title.title("Compare")
try:
    with list_of_recent:
        recent()
    PAGE.start(setup=comparison_id is None)
    if (opened := PAGE.pop("setup.next")) is not None:  # now that its widget may be set again
        PAGE.set("setup", opened)
    with st.expander("New comparison", key=PAGE.key("setup"), on_change="rerun",
                     icon=":material/tune:"):
        setup()
    if comparison_id:
        show(comparison_id)
    else:
        words("Nothing on the table yet: set the axes and start, or open a recent comparison.",
              "quiet")
    opened_run()
except PipelineError as error:
    notice("error", str(error))
