"""Work in the background, as the sidebar and the pages show it: jobs and downloads alike."""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st

from dashboard.components.text import duration, notice, words
from pipelines.queue import Job
from pipelines.tasks import Task


def task_card(task: Task | Job, text: str, buttons: Callable[[], None], *, key: str) -> None:
    """One piece of work in the sidebar: what it is, how far it is, and its buttons."""
    with st.container(border=True, key=key, gap="xsmall"):
        words(task.title, "clamp")
        if task.error:
            notice("error", task.error)
        elif task.status in ("running", "paused"):
            st.progress(task.fraction, text=text)
        else:
            st.caption(text)
        buttons()


def time_left(task: Task | Job) -> str:
    """'8 s left'; empty where nobody can tell."""
    seconds = task.eta_seconds()
    if seconds is None:
        return ""
    return f"{duration(max(1, round(seconds))).replace('.00', '')} left"
