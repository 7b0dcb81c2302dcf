"""The queue in the sidebar, the same on every page and in every browser; a job on its page."""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st

from dashboard import state
from dashboard.browser import browser, is_mine, whose
from dashboard.components.downloads import downloads_panel
from dashboard.components.task import task_card, time_left
from dashboard.components.text import duration, notice, words
from dashboard.last_net import last_net, polled
from pipelines.errors import StorageError
from pipelines.job_log import CANCEL, INTERRUPTED, PAUSE, PAUSED, RUNNING, WAITING
from pipelines.queue import Job

KINDS = {"generate": "Generate", "compare": "Compare", "measure": "Distances",
         "timings": "Timings", "inpaint": "In-paint", "study": "Study",
         "export": "Export", "import": "Import", "train": "Training"}
UNITS = {"compare": "cell", "measure": "measurement", "timings": "run", "study": "cell",
         "export": "run", "import": "run", "train": "step"}  # else a picture
MODELLESS = ("export", "import", "train")
MOST_LISTED = 6


def queue_panel() -> None:
    with st.sidebar:
        polled(_panel)()


def _panel() -> None:
    state.rerun_on_change()
    downloads_panel()
    st.markdown("##### Queue")
    try:
        active = state.job_queue().active()
        jobs = state.job_queue().jobs()
    except StorageError as error:
        notice("error", str(error))
        return
    if not active:
        st.caption("Nothing is running.")
    mine = [job for job in jobs if job.row.browser == browser()]
    if mine and mine[-1].status == "failed":
        notice("error", mine[-1].error or "The last job failed.")
    interrupted = [job for job in active if job.status == INTERRUPTED]
    if len(interrupted) > 1:
        notice("note", f"{len(interrupted)} jobs were interrupted: their program ended. What they "
                       "had finished is kept.")
        _button("Go on with all", "play_arrow", "go-on-with-all", state.job_queue().resume_all)
    for job in active[:MOST_LISTED]:
        task_card(job, f"{KINDS.get(job.kind, job.kind)} · {state_text(job)}",
                  lambda job=job: job_buttons(job, "queue"), key=f"queue-{job.id}")
    if len(active) > MOST_LISTED:
        st.caption(f"and {len(active) - MOST_LISTED} more")


def state_text(job: Job) -> str:
    """'next · in about 2 min', '12 of 30 cells · 40 % · 8 s left'; whose it is, where it is another
    browser's."""
    if job.status == WAITING:
        place = state.job_queue().place(job.id)
        parts = ["next" if place.ahead == 1 else f"{place.ahead} jobs are before it"
                 if place.ahead else "starting"]
        if place.ahead and place.seconds:
            parts.append(f"begins in about {duration(place.seconds)}")
    elif job.status == RUNNING:
        parts = [progress_text(job)]
    else:
        parts = [job.status, job.message]
    if not is_mine(job):
        parts.append(f"from {whose(job)}")
    return " · ".join(part for part in parts if part)


def progress_text(job: Job) -> str:
    """'12 of 30 cells · 40 % · 8 s left'."""
    parts = [job.message, f"{job.fraction:.0%}"]
    if job.stopping:
        parts.append("pausing after what has begun" if job.stopping == PAUSE else "stopping")
    elif job.waits_for:
        parts.append(job.waits_for)
    elif not job.began:
        parts.append("" if job.kind in MODELLESS else "loading the model")
    elif job.done >= job.total:
        parts.append("drawing the steps" if job.kind == "compare" else "finishing")
    else:
        parts.append(time_left(job))
    return " · ".join(part for part in parts if part)


def job_progress(job: Job) -> None:
    """The bar of a job on the page that started it, with how many jobs are before it."""
    if job.status == RUNNING:
        text = progress_text(job)
        if job.kind in ("generate", "inpaint"):
            text += f" · evaluation {job.done} of {job.total}"
        elif job.kind not in ("compare", "study"):  # on their page, and not the making of them
            text = f"{KINDS.get(job.kind, job.kind)} · {text}"
        st.progress(job.fraction, text=text)
        return
    if job.status == WAITING:
        place = state.job_queue().place(job.id)
        text = f"Waiting for {place.ahead} other job{'s' * (place.ahead != 1)}"
        if place.ahead and place.seconds:
            text += f", about {duration(place.seconds)}"
        st.progress(0.0, text=text if place.ahead else "Starting")
        return
    st.progress(job.fraction, text=" · ".join(filter(None, [
        "Paused" if job.status == PAUSED else "Interrupted: its program ended", job.message,
        "what is finished is kept"])))


def job_buttons(job: Job, place: str) -> None:
    """What can be done with a job; with another browser's only behind a word that says whose it
    is."""
    with st.container(horizontal=True, gap="small"):
        if is_mine(job):
            _own_buttons(job, place)
            return
        if job.status == INTERRUPTED:
            _button("Go on", "play_arrow", f"resume-{place}-{job.id}", job.resume)
        with st.popover("Cancel…", icon=":material/stop_circle:", type="tertiary",
                        key=f"others-{place}-{job.id}"):
            words(f"This job is not yours. {whose(job)} asked for it at "
                  f"{job.row.datetime_utc[11:16]} UTC: “{job.title}”")
            _cancel_buttons(job, place, "Cancel their job")


def _own_buttons(job: Job, place: str) -> None:
    if job.status in (PAUSED, INTERRUPTED) or job.stopping == PAUSE:
        _button("Go on", "play_arrow", f"resume-{place}-{job.id}", job.resume)
    else:
        _button("Pause", "pause", f"pause-{place}-{job.id}", job.pause,
                disabled=bool(job.stopping),
                help=f"The {_unit(job)}s that have begun come to their end first; the next job "
                     "may begin." if job.status == RUNNING else None)
    if job.status == RUNNING:
        label = "Stopping…" if job.stopping == CANCEL else "Cancel"
        _button(label, "stop_circle", f"cancel-{place}-{job.id}", job.cancel,
                disabled=job.stopping == CANCEL, help="After this step; what is finished is kept.")
        if job.stopping != CANCEL:
            with st.popover("", icon=":material/more_horiz:", type="tertiary",
                            key=f"more-{place}-{job.id}", help="More"):
                _button(f"Cancel after this {_unit(job)}", "last_page",
                        f"after-{place}-{job.id}", job.cancel_after, disabled=bool(job.stopping))
        return
    _button("Cancel", "stop_circle", f"cancel-{place}-{job.id}", job.cancel)
    if job.status == WAITING and place == "queue":
        queue = state.job_queue()
        waiting = [other.id for other in queue.active()
                   if other.status == WAITING and is_mine(other)]
        if len(waiting) > 1:
            for text, icon, by, end in (("Earlier", "arrow_upward", -1, 0),
                                        ("Later", "arrow_downward", 1, -1)):
                _button("", icon, f"{text.lower()}-{job.id}",
                        lambda by=by: queue.move(job.id, by), disabled=waiting[end] == job.id,
                        help=f"{text} among your jobs")


def _cancel_buttons(job: Job, place: str, label: str) -> None:
    _button(label, "stop_circle", f"cancel-{place}-{job.id}", job.cancel,
            disabled=job.stopping == CANCEL)
    if job.status == RUNNING:
        _button(f"{label} after this {_unit(job)}", "last_page", f"after-{place}-{job.id}",
                job.cancel_after, disabled=bool(job.stopping))


def _unit(job: Job) -> str:
    return UNITS.get(job.kind, "picture")


def _button(label: str, icon: str, key: str, action: Callable[[], object], **options) -> None:
    st.button(label, icon=f":material/{icon}:", key=key, type="tertiary",
              on_click=last_net()(action), **options)
