"""Learn: the list of lessons, the one on show, and its presentation."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from dashboard.learn import (
    distillation,
    flow,
    forward,
    guidance,
    latents,
    reverse,
    solvers,
    training,
    words,
)
from dashboard.learn.class_mode import class_button
from dashboard.learn.frame import PAGE, draw

LESSONS = {lesson.key: lesson for lesson in (
    forward.LESSON, reverse.LESSON, solvers.LESSON, guidance.LESSON,
    words.LESSON, latents.LESSON, flow.LESSON, distillation.LESSON, training.LESSON,
)}
LESSON, PRESENT = "lesson", "present"  # also the query parameters
# Arrow keys, and what the buttons of a clicker send.
KEYS = {"Previous": (-1, ("Left", "PageUp")), "Next": (1, ("Right", "PageDown"))}


def learn() -> None:
    adopt_address()
    keys = list(LESSONS)
    with st.container(horizontal=True, vertical_alignment="center", gap="medium",
                      key="lesson-bar"):
        st.segmented_control("Lesson", keys, required=True, label_visibility="collapsed",
                             format_func=lambda key: f"{keys.index(key) + 1} {LESSONS[key].title}",
                             **PAGE.kept(LESSON))
        st.toggle("Presentation", **PAGE.kept(PRESENT),
                  help="Large type, no sidebar. The arrow keys and a clicker change the lesson.")
        class_button()
        if PAGE.get(PRESENT):
            turning_buttons()
    if PAGE.get(PRESENT):
        st.html(Path(__file__).parent / "presentation.css")
    keep_address()
    draw(LESSONS[PAGE.get(LESSON)])


def adopt_address() -> None:
    """A lesson and its presentation are in the address, which wins when it is opened."""
    address = st.query_params.get(LESSON), PRESENT in st.query_params
    if address[0] in LESSONS and address != PAGE.get("address"):
        PAGE.set(LESSON, address[0])
        PAGE.set(PRESENT, address[1])
    PAGE.start(**{LESSON: next(iter(LESSONS)), PRESENT: False})


def keep_address() -> None:
    st.query_params[LESSON] = PAGE.get(LESSON)
    if PAGE.get(PRESENT):
        st.query_params[PRESENT] = "1"
    else:
        st.query_params.pop(PRESENT, None)
    PAGE.set("address", (PAGE.get(LESSON), PAGE.get(PRESENT)))


def turning_buttons() -> None:
    for name, (by, shortcuts) in KEYS.items():
        for shortcut in shortcuts:
            st.button(f"{name} lesson", key=f"turn-{shortcut}", shortcut=shortcut, on_click=turn,
                      args=(by,), type="tertiary")


def turn(by: int) -> None:
    """To the next lesson or the one before, as far as there is one."""
    keys = list(LESSONS)
    place = keys.index(PAGE.get(LESSON)) + by
    PAGE.set(LESSON, keys[min(max(place, 0), len(keys) - 1)])
