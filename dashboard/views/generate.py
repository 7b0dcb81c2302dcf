"""Generate: one prompt, one or more seeds, the picture large."""

from __future__ import annotations

import streamlit as st

from dashboard import controls, state
from dashboard.components.picture import Picture, picture_viewer
from dashboard.components.queue import cancel_button, progress_text
from dashboard.components.run_details import run_measurements, run_record
from dashboard.components.text import duration, notice, words
from pipelines.comparison import forecast, label
from pipelines.errors import PipelineError
from pipelines.generation import check_size
from pipelines.jobs import Job, submit_generation
from pipelines.request import RunRequest
from pipelines.run_log import Run

PAGE = state.GENERATE
COUNT = f"{PAGE}.count"


def settings() -> None:
    """The left column: the request, and the button that queues it."""
    controls.prompt_control(PAGE)
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        go = st.button("Generate", type="primary", icon=":material/photo_camera:",
                       shortcut="Ctrl+Enter", key=f"{PAGE}.go")
        controls.example_prompts(PAGE)
    below = st.container(gap="small")
    controls.scheduler_control(PAGE)
    controls.number_controls(PAGE)
    st.number_input("Number of pictures", 1, 16, step=1, key=COUNT, **controls.KEEP,
                    help="Further pictures take the next seeds.")
    with st.expander("Model, size and more"):
        controls.model_control(PAGE)
        controls.size_controls(PAGE)
        controls.advanced_controls(PAGE)
    with below:
        try:
            requests = wanted()
            misfit(requests[0])
            if go:
                job = submit_generation(state.job_queue(), state.engine(), requests)
                st.session_state[state.GENERATE_JOB] = job.id
                st.rerun()
            tell_forecast(requests)
        except PipelineError as error:
            notice("error", str(error))


def wanted() -> list[RunRequest]:
    """The requests that the widgets describe: seeds seed .. seed + n - 1."""
    base = state.request_of(PAGE)
    count = st.session_state[COUNT]
    return [base.changed(seed=base.seed + number) for number in range(count)]


def misfit(request: RunRequest) -> None:
    """Raise what would make the run fail, as far as it is known without torch."""
    info = state.engine().registry.describe(request.model_id)
    check_size(info, request.height, request.width)


def tell_forecast(requests: list[RunRequest]) -> None:
    base = requests[0]
    expected = forecast(requests, state.engine().run_log, state.engine().registry)
    time = (f"about {duration(expected.seconds)}" if expected.seconds is not None
            else "time not known yet on this machine")
    plural = "s" if expected.cells > 1 else ""
    st.caption(f"{expected.cells} picture{plural} · {expected.nfe} function evaluations · {time}")
    controls.unknown_words_note(base.model_id, base.prompt, base.negative_prompt)


def progress(job: Job) -> None:
    """The denoising as it goes; the finished pictures of this job beside it."""
    state.rerun_on_change()
    done = list(job.result or [])
    preview = job.preview
    width, height = preview.size if preview else (64, 64)
    url = state.preview_url(preview) if preview else None
    alt = "Preview of the denoising" if url else "No preview yet"
    pictures = [Picture(url, width, height, alt, "now", waiting=True),
                *(controls.picture_of(run, f"done-{run.id}", f"seed {run.seed}") for run in done)]
    picture_viewer(pictures, key=f"preview-{job.id}")
    if job.status == "queued":
        waiting = state.waiting_before(job)
        st.progress(0.0, text=f"Waiting for {waiting} other job{'s' * (waiting != 1)}")
    else:
        steps = f" · evaluation {job.done} of {job.total}"
        st.progress(job.fraction, text=progress_text(job).removeprefix("Generate · ") + steps)
    cancel_button(job, "page")


def results(runs: list[Run], job: Job | None) -> None:
    """The pictures of the last job, one of them large, with what they cost."""
    if job and job.status == "cancelled":
        notice("note", "Cancelled; what was finished is kept.")
    pictures = [controls.picture_of(run, f"picture-{run.id}", f"seed {run.seed}") for run in runs]
    share = 0.7 if any(picture.url for picture in pictures) else 0.3
    run = runs[picture_viewer(pictures, key=f"result-{runs[0].id}", share_of_height=share)]
    left, right = st.columns([3, 2], vertical_alignment="center", gap="medium")
    with left:
        words(run.prompt or "(no prompt)")
        words(f"{label('scheduler', run.scheduler)} · {run.num_inference_steps} steps · guidance "
              f"{run.guidance_scale:g} · seed {run.seed}", "quiet")
    with right:
        controls.request_buttons(run, PAGE)
    run_measurements(run)
    with st.expander("Everything about this run", on_change="rerun", key="generate.all") as more:
        if more.open:
            run_record(run)


def latest_runs(job: Job | None) -> list[Run]:
    """What the last job made, else the newest picture of the log."""
    if job and not job.active:
        return list(job.result or [])
    return list(state.engine().run_log.runs(status="ok", limit=1))


def show() -> None:
    job = state.generate_job()
    if job and job.active:
        st.fragment(progress, run_every=state.poll_seconds())(job)
        return
    if job and job.status == "failed":
        notice("error", job.error or "The job failed.")
    if runs := latest_runs(job):
        results(runs, job)
    else:
        picture_viewer([Picture(None, 64, 64, "No picture yet")], key="empty", share_of_height=0.45)
        words("No picture yet. Type a prompt, or take one of the examples, and press Generate "
              "(Ctrl+Enter).", "quiet")  # fmt: skip


state.prepare(PAGE)
st.session_state.setdefault(COUNT, 1)
st.title("Generate")
left, right = st.columns([4, 7], gap="large")
with left:
    settings()
with right:
    try:
        show()
    except PipelineError as error:
        notice("error", str(error))
