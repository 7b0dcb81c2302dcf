"""Learn: the list of lessons, and the one on show."""

from __future__ import annotations

import streamlit as st

from dashboard.learn import flow, forward, guidance, reverse, solvers
from dashboard.learn.frame import PAGE, draw

LESSONS = {lesson.key: lesson for lesson in (
    forward.LESSON, reverse.LESSON, solvers.LESSON, guidance.LESSON, flow.LESSON,
)}
LESSON = "lesson"  # also the query parameter


def learn() -> None:
    asked = st.query_params.get(LESSON)
    if asked in LESSONS and asked != PAGE.get("seen"):
        PAGE.set(LESSON, asked)
    PAGE.start(**{LESSON: next(iter(LESSONS))})
    keys = list(LESSONS)
    st.segmented_control("Lesson", keys, required=True, label_visibility="collapsed",
                         format_func=lambda key: f"{keys.index(key) + 1} {LESSONS[key].title}",
                         **PAGE.kept(LESSON))
    st.query_params[LESSON] = PAGE.get(LESSON)
    PAGE.set("seen", PAGE.get(LESSON))
    draw(LESSONS[PAGE.get(LESSON)])
