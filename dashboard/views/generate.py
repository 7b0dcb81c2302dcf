"""Generate: one prompt, one or more seeds, the picture large."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import streamlit as st

from dashboard import state
from dashboard.browser import asked
from dashboard.components.picture import Picture, picture_viewer
from dashboard.components.queue import job_buttons, job_progress
from dashboard.components.run_details import (
    guidance_text,
    run_measurements,
    run_record,
    steps_text,
)
from dashboard.components.text import notice, words, work_text
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
from dashboard.form.model import model_control, model_options
from dashboard.form.restore import request_control
from dashboard.last_net import polled
from dashboard.runs import picture_of, request_buttons
from pipelines.axes import label
from pipelines.chain import next_request
from pipelines.comparison import forecast
from pipelines.errors import PipelineError
from pipelines.jobs import submit_generation
from pipelines.log_tables import Run
from pipelines.models.hosted import check_hosted
from pipelines.notation import number_text
from pipelines.painting.resolve import check_extras, check_size
from pipelines.queue import Job
from pipelines.request import TO_COME, RunRequest, limits

PAGE = state.GENERATE
FIRST = Path(__file__).parents[1] / "first"
FIRST_PROMPT = "a red car on a road at night"
MAX_STAGES = 3
STAGE_NUMBERS = {"strength": 0.05, "num_inference_steps": 1, "guidance_scale": 0.5}  # step


def settings() -> None:
    """The left column: the request, and the button that queues it."""
    request_control(PAGE, PAGE.put)
    task_control(PAGE)
    prompt_control(PAGE)
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        go = st.button("Generate", type="primary", icon=":material/photo_camera:",
                       shortcut="Ctrl+Enter", key=PAGE.key("go"))
        example_prompts(PAGE)
    below = st.container(gap="small")
    scheduler_control(PAGE)
    number_controls(PAGE)
    st.number_input("Number of pictures", 1, 16, step=1, **PAGE.kept("count"),
                    help="Further pictures take the next seeds.")
    with st.expander("Model, size and more"):
        model_control(PAGE)
        size_controls(PAGE)
        advanced_controls(PAGE)
    stages = stage_controls()
    with below:
        if needs_picture():
            notice("note", "Choose a picture to start from: upload one, or take the output of a "
                           "run with its button \"Use as input\".")
            return
        try:
            requests = wanted()
            misfit(requests[0])
            if go:
                job = submit_generation(state.job_queue(), requests, stages, **asked())
                PAGE.set("job", job.id)
                st.rerun()
            tell_forecast(requests, stages)
        except PipelineError as error:
            notice("error", str(error))


def needs_picture() -> bool:
    return PAGE.get("task") == "image-to-image" and not PAGE.get("image")


def stage_controls() -> list[dict[str, Any]]:
    """Further stages, each image-to-image on the picture of the one before: what they change."""
    count = PAGE.get("stages")
    title = "Further stages" + (f" ({count})" if count else "")
    with st.expander(title, expanded=count > 0):
        if not count:
            words("A chain: another model goes on from the picture, such as SDXL Turbo first, then "
                  "Kandinsky.", "quiet")
        stages = [one_stage(number) for number in range(count)]
        with st.container(horizontal=True, gap="small"):
            st.button("Add a stage", icon=":material/add:", key=PAGE.key("stage_add"),
                      on_click=change_stages, args=(1,), disabled=count >= MAX_STAGES)
            if count:
                st.button("Remove the last", icon=":material/remove:", key=PAGE.key("stage_remove"),
                          on_click=change_stages, args=(-1,))
    return stages


def change_stages(by: int) -> None:
    PAGE.set("stages", PAGE.get("stages") + by)


def one_stage(number: int) -> dict[str, Any]:
    """The fields that a stage changes; what is left empty stays, or is its model's own."""

    def kept(name: str) -> dict[str, str]:
        return PAGE.kept(f"stage.{number}.{name}")

    st.markdown(f"**Stage {number + 2}**")
    first = PAGE.get("model_id")
    values = {"model_id": st.selectbox(
        "Model", model_options(first), **kept("model_id"), index=None,
        placeholder="the same model", accept_new_options=True)}
    values["prompt"] = st.text_input("Prompt", **kept("prompt"),
                                     placeholder="the same prompt")
    columns = [st.container(), *st.columns(2)]
    for column, (name, step) in zip(columns, STAGE_NUMBERS.items(), strict=True):
        values[name] = column.number_input(name, *limits(name), value=None, step=step,
                                           placeholder="own", **kept(name),
                                           format="%g" if isinstance(step, float) else None)
    return {name: value for name, value in values.items() if value not in (None, "")}


def wanted() -> list[RunRequest]:
    """The requests that the widgets describe: seeds seed .. seed + n - 1."""
    base = PAGE.request()
    count = PAGE.get("count")
    return [base.changed(seed=base.seed + number) for number in range(count)]


def misfit(request: RunRequest) -> None:
    """Raise what would make the run fail, as far as it is known without torch."""
    info = state.engine().registry.describe(request.model_id, request.revision, request.variant)
    if info.hosted:
        check_hosted(request, info)
        return
    check_size(info, request.height, request.width)
    check_extras(request, info)


def tell_forecast(requests: list[RunRequest], stages: list[dict[str, Any]]) -> None:
    base, engine = requests[0], state.engine()
    every = list(requests)
    for request in requests:
        for stage in stages:
            request = next_request(request, TO_COME, stage, engine.stage_info(request, stage))
            every.append(request)
    expected = forecast(every, engine.run_log, engine.registry)
    plural = "s" if expected.cells > 1 else ""
    st.caption(f"{expected.cells} picture{plural} · {work_text(expected)}")
    hosted_notice(every)
    unknown_words_note(base, base.prompt, base.negative_prompt)


def progress(job: Job) -> None:
    """The denoising as it goes; the finished pictures of this job beside it."""
    state.rerun_on_change()
    done = job.runs
    preview = job.preview
    width, height = preview.size if preview else (64, 64)
    url = state.preview_url(preview) if preview else None
    alt = "Preview of the denoising" if url else "No preview yet"
    pictures = [Picture(url, width, height, alt, "now", waiting=True),
                *(picture_of(run, f"done-{run.id}", f"seed {run.seed}") for run in done)]
    picture_viewer(pictures, key=f"preview-{job.id}")
    job_progress(job)
    job_buttons(job, "page")


def results(runs: list[Run], job: Job | None) -> None:
    """The pictures of the last job, one of them large, with what they cost."""
    if job and job.status == "cancelled":
        notice("note", "Cancelled; what was finished is kept.")
    pictures = [picture_of(run, f"picture-{run.id}", f"seed {run.seed}") for run in runs]
    share = 0.7 if any(picture.url for picture in pictures) else 0.3
    if any(run.parent_id for run in runs):
        chains(runs, pictures)
        return
    run = runs[picture_viewer(pictures, key=f"result-{runs[0].id}", share_of_height=share)]
    about(run)


def about(run: Run) -> None:
    """What a run was, what can be done with it, and what it cost."""
    left, right = st.columns([3, 2], vertical_alignment="center", gap="medium")
    with left:
        words(run.prompt or "(no prompt)")
        words(summary(run), "quiet")
    with right:
        request_buttons(run, PAGE.name)
    run_measurements(run)
    with st.expander("Everything about this run", on_change="rerun",
                     key=PAGE.key(f"all.{run.id}")) as more:
        if more.open:
            run_record(run)


def summary(run: Run) -> str:
    """A run in one line, with what its task has."""
    parts = [run.model_id] if run.model_id != "postcards" else []
    parts += [label("scheduler", run.scheduler), steps_text(run)]
    if run.task != "unconditional":
        parts.append(f"guidance {guidance_text(run)}")
    if run.request.get("image") and not run.hosted:
        parts.append(f"strength {number_text(run.request.get('strength', 1))}")
    return " · ".join([*parts, f"seed {run.seed}"])


def chains(runs: list[Run], pictures: list[Picture]) -> None:
    """The stages of a chain side by side; where there are several chains, one of them."""
    starts = [place for place, run in enumerate(runs) if run.parent_id is None]
    chosen = 0
    if len(starts) > 1:
        chosen = picture_viewer([pictures[place] for place in starts],
                                key=f"chains-{runs[0].id}", share_of_height=0.2)
    ends = [*starts[1:], len(runs)]
    stages = range(starts[chosen], ends[chosen])
    for column, place in zip(st.columns(len(stages)), stages, strict=True):
        with column:
            picture_viewer([pictures[place]], key=f"stage-{runs[place].id}", share_of_height=0.5)
    tabs = st.tabs([f"Stage {number} · {runs[place].model_id}"
                    for number, place in enumerate(stages, 1)])
    for tab, place in zip(tabs, stages, strict=True):
        with tab:
            about(runs[place])


def latest_runs(job: Job | None) -> list[Run]:
    """What the last job made, else the newest picture of the log."""
    if job and not job.active:
        return job.runs
    return list(state.engine().run_log.runs(status="ok", limit=1))


def show() -> None:
    job = state.generate_job()
    if job and job.active:
        polled(progress)(job)
        return
    if job and job.status == "failed":
        notice("error", job.error or "The job failed.")
    if runs := latest_runs(job):
        results(runs, job)
    else:
        first_minutes()


def first_minutes() -> None:
    """Before the first picture: what one looks like, and ways to go on."""
    picture, steps = (state.picture_url(FIRST / name, f"first-{name}")
                      for name in ("picture.png", "steps.png"))
    picture_viewer([Picture(picture, 64, 64, f"{FIRST_PROMPT}, made by postcards")], key="empty",
                   share_of_height=0.45)
    st.html(f"<img class='cs-first' src='{steps}' alt='What the model predicts at "
            "each of 8 steps, from noise to the picture'>")
    words(f"“{FIRST_PROMPT}”, made beforehand by the bundled model: below, what it predicts at "
          "each of its 8 steps (DDIM, seed 0, guidance 5). Yours: type a prompt, or take one of "
          "the examples, and press Generate (Ctrl+Enter). Or:", "quiet")
    with st.container(horizontal=True, gap="small"):
        for page, label, icon in (("compare", "Compare schedulers at few steps", "grid_on"),
                                  ("inpaint", "In-paint a picture", "brush"),
                                  ("learn", "Learn how it works", "school")):
            if st.button(label, icon=f":material/{icon}:", key=PAGE.key(f"first.{page}")):
                if page == "compare":
                    state.COMPARE.set("preset", "Schedulers at few steps")
                    state.open_comparison_setup()
                st.switch_page(f"views/{page}.py")


PAGE.start_request()
PAGE.start(count=1, stages=0)  # stages that follow the first
st.title("Generate")
left, right = st.columns([4, 7], gap="large")
with left:
    settings()
with right:
    try:
        show()
    except PipelineError as error:
        notice("error", str(error))
