"""The queue in the sidebar, the same on every page and in every browser."""

from __future__ import annotations

import streamlit as st

from dashboard import state
from dashboard.components.downloads import downloads_panel
from dashboard.components.text import duration, notice, words
from pipelines.jobs import Job

KINDS = {"generate": "Generate", "compare": "Compare", "measure": "Distances",
         "timings": "Timings", "inpaint": "In-paint"}
MOST_LISTED = 6


def queue_panel() -> None:
    with st.sidebar:
        st.fragment(_panel, run_every=state.poll_seconds())()


def _panel() -> None:
    state.rerun_on_change()
    downloads_panel()
    active = state.job_queue().active()
    st.markdown("##### Queue")
    if not active:
        st.caption("Nothing is running.")
        _last_failure()
        return
    for job in active[:MOST_LISTED]:
        with st.container(border=True, key=f"queue-{job.id}", gap="xsmall"):
            words(job.title, "clamp")
            if job.status == "running":
                st.progress(job.fraction, text=progress_text(job))
            else:
                st.caption(f"{KINDS.get(job.kind, job.kind)} · waiting")
            cancel_button(job, "queue")
    if len(active) > MOST_LISTED:
        st.caption(f"and {len(active) - MOST_LISTED} more")


def _last_failure() -> None:
    jobs = state.job_queue().jobs()
    if jobs and jobs[-1].status == "failed":
        notice("error", jobs[-1].error or "The last job failed.")


def progress_text(job: Job) -> str:
    """'Compare · 12 of 30 cells · 40 % · 8 s left'."""
    parts = [KINDS.get(job.kind, job.kind), job.message, f"{job.fraction:.0%}"]
    eta = job.eta_seconds()
    if job.cancelling:
        parts.append("stopping")
    elif job.first_step is None:
        parts.append("loading the model")
    elif job.done >= job.total:
        parts.append("drawing the steps" if job.kind == "compare" else "finishing")
    elif eta is not None:
        parts.append(f"{duration(max(1, round(eta))).replace('.00', '')} left")
    return " · ".join(part for part in parts if part)


def cancel_button(job: Job, place: str) -> None:
    st.button("Stopping…" if job.cancelling else "Cancel", key=f"cancel-{place}-{job.id}",
              on_click=job.cancel, disabled=job.cancelling, icon=":material/stop_circle:")
