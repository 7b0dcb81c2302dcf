"""The queue in the sidebar, the same on every page and in every browser; a job on its page."""

from __future__ import annotations

import streamlit as st

from dashboard import state
from dashboard.components.downloads import downloads_panel
from dashboard.components.task import task_card, time_left
from dashboard.components.text import notice
from dashboard.last_net import polled
from pipelines.jobs import Job

KINDS = {"generate": "Generate", "compare": "Compare", "measure": "Distances",
         "timings": "Timings", "inpaint": "In-paint"}
MOST_LISTED = 6


def queue_panel() -> None:
    with st.sidebar:
        polled(_panel)()


def _panel() -> None:
    state.rerun_on_change()
    downloads_panel()
    active = state.job_queue().active()
    st.markdown("##### Queue")
    if not active:
        st.caption("Nothing is running.")
        jobs = state.job_queue().jobs()
        if jobs and jobs[-1].status == "failed":
            notice("error", jobs[-1].error or "The last job failed.")
        return
    for job in active[:MOST_LISTED]:
        kind = KINDS.get(job.kind, job.kind)
        text = "waiting" if job.status == "queued" else progress_text(job)
        task_card(job, f"{kind} · {text}", lambda job=job: cancel_button(job, "queue"),
                  key=f"queue-{job.id}")
    if len(active) > MOST_LISTED:
        st.caption(f"and {len(active) - MOST_LISTED} more")


def progress_text(job: Job) -> str:
    """'12 of 30 cells · 40 % · 8 s left'."""
    parts = [job.message, f"{job.fraction:.0%}"]
    if job.cancelling:
        parts.append("stopping")
    elif job.waits_for:
        parts.append(job.waits_for)
    elif job.first_step is None:
        parts.append("loading the model")
    elif job.done >= job.total:
        parts.append("drawing the steps" if job.kind == "compare" else "finishing")
    else:
        parts.append(time_left(job))
    return " · ".join(part for part in parts if part)


def job_progress(job: Job) -> None:
    """The bar of a job on the page that started it, with how many jobs are before it."""
    if job.status == "queued":
        ahead = state.waiting_before(job)
        st.progress(0.0, text=f"Waiting for {ahead} other job{'s' * (ahead != 1)}" if ahead
                    else "Starting")
    else:
        text = progress_text(job)
        if job.kind in ("generate", "inpaint"):
            text += f" · evaluation {job.done} of {job.total}"
        elif job.kind != "compare":  # on the page of a comparison, and not the making of it
            text = f"{KINDS.get(job.kind, job.kind)} · {text}"
        st.progress(job.fraction, text=text)


def cancel_button(job: Job, place: str) -> None:
    st.button("Stopping…" if job.cancelling else "Cancel", key=f"cancel-{place}-{job.id}",
              on_click=job.cancel, disabled=job.cancelling, icon=":material/stop_circle:")
