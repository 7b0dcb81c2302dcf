"""The frame of every lesson: a question, a guess, the live run, a check question.

A lesson is data and a few functions; what is drawn around them, and what the session holds, is
here.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass

import streamlit as st

from dashboard import state
from dashboard.components.text import duration, notice, words
from dashboard.form.axes import put_comparison
from dashboard.last_net import last_net
from dashboard.learn.class_mode import asked_of_class, begin_lesson, class_code, open_class
from dashboard.study.setup import put_methods
from pipelines.comparison import Comparison
from pipelines.errors import PipelineError
from pipelines.lessons.page import FRAMES, MAX_BYTES, PAGES, lesson_page
from pipelines.lessons.question import Answer, Question

PAGE = state.LEARN


@dataclass(frozen=True)
class Lesson:
    """`pose` draws what is seen before the guess, `play` the live run behind it, in the plane and
    on the bundled model, moved by one slider. `check(case)` asks about a
    new case; `comparison()` is what 'Open in Compare' opens, with what the lesson's widgets say,
    and 'Open in Study', where many prompts can be asked the same."""

    key: str
    title: str
    question: Callable[[], Question]
    pose: Callable[[], None]
    play: Callable[[], None]
    check: Callable[[int], Question]
    comparison: Callable[[], Comparison]
    in_study: bool = True


def draw(lesson: Lesson) -> None:
    """One lesson: on the left what is asked, on the right what is shown."""
    name, case_key = f"{lesson.key}.guess", f"{lesson.key}.case"
    PAGE.start(**{case_key: 0})
    st.html(f"<h2 class='cs-model'>{lesson.title}</h2>")
    left, right = st.container(key="lesson").columns([4, 7], gap="large")
    begin_lesson(lesson.key, name)
    with left:
        if classroom := open_class():
            class_code(classroom)
        answered = asked(lesson.question(), name)
        if answered:
            st.html("<h3 class='cs-section'>A new case</h3>")
            case = PAGE.get(case_key)
            check = f"{lesson.key}.check.{case}"
            if asked(lesson.check(case), check):
                st.button("Another case", icon=":material/refresh:", key=PAGE.key("another"),
                          on_click=PAGE.set, args=(case_key, case + 1))
            with st.container(horizontal=True):
                st.button("Open in Compare", icon=":material/grid_on:", key=PAGE.key("compare"),
                          on_click=open_in_compare, args=(lesson,),
                          help="The same question on the page Compare, its axes filled in.")
                if lesson.in_study:
                    st.button("Open in Study", icon=":material/query_stats:",
                              key=PAGE.key("study"), on_click=open_in_study, args=(lesson,),
                              help="The same question of many prompts: what can be told apart.")
                if lesson.key in PAGES:
                    page_download(lesson)
    with right:
        st.fragment(last_net()(told(lesson.play if answered else lesson.pose)))()
    if view := PAGE.pop("to"):
        st.switch_page(f"views/{view}.py")


def told(show: Callable[[], None]) -> Callable[[], None]:
    """What shows an error of the engine in its place."""

    def shown() -> None:
        try:
            show()
        except PipelineError as error:
            notice("error", str(error))

    return shown


def asked(question: Question, name: str) -> bool:
    """Draw a question; whether a guess was committed, which is then graded, or the class was
    shown the answer."""
    if classroom := open_class():
        return asked_of_class(classroom, question, name,
                              lambda: graded(question.text, question.choices, question))
    committed = f"{name}.committed"
    guess = PAGE.get(committed)
    words(question.text, "large")
    chosen = st.radio(question.text, range(len(question.choices)), index=None,
                      format_func=question.choices.__getitem__, **PAGE.kept(name),
                      disabled=guess is not None, label_visibility="collapsed")
    if guess is None:
        st.button("Commit to this guess", type="primary", key=PAGE.key(f"{name}.commit"),
                  disabled=chosen is None, icon=":material/lock:",
                  on_click=commit, args=(name,))
        return False
    with st.spinner("Computing the answer …"):
        try:
            answer = graded(question.text, question.choices, question)
        except PipelineError as error:
            notice("error", str(error))
            return True
    right = question.choices[answer.right]
    verdict = "Right." if guess == answer.right else f"Not so: {right}."
    notice("good" if guess == answer.right else "error", f"{verdict} {answer.why}")
    st.button("Guess again", type="tertiary", icon=":material/undo:", key=PAGE.key(f"{name}.again"),
              on_click=guess_again, args=(name,))
    return True


@st.cache_resource(show_spinner=False, max_entries=200)
def graded(text: str, choices: tuple[str, ...], _question: Question) -> Answer:
    return _question.grade()


def commit(name: str) -> None:
    """What the browser has chosen by now, not when the button was drawn."""
    PAGE.set(f"{name}.committed", PAGE.get(name))


def guess_again(name: str) -> None:
    PAGE.set(f"{name}.committed", None)


def page_download(lesson: Lesson) -> None:
    """The lesson as one page; it is computed when it is asked for."""
    made = PAGE.key(f"{lesson.key}.page")
    if made not in st.session_state:
        if st.button("Make an offline page", icon=":material/web_asset:",
                     key=PAGE.key("page.make"), type="tertiary",
                     help="One HTML file with question, slider and answer, which runs from disk "
                          f"without a network; at most {MAX_BYTES / 1e6:g} MB."):
            bar, done = st.progress(0.0, "Computing the page …"), itertools.count(1)
            began = time.monotonic()

            def note() -> None:
                share = next(done) / FRAMES[lesson.key]
                left = duration((time.monotonic() - began) * (1 / share - 1))
                bar.progress(min(1.0, share), f"Computing the page … about {left} left")

            try:
                st.session_state[made] = lesson_page(state.engine().registry, lesson.key, note)
            except PipelineError as error:
                notice("error", str(error))
                return
            st.rerun()
        return
    page = st.session_state[made].encode()
    st.download_button(f"Download the page ({len(page) / 1e6:.1f} MB)", page,
                       f"lesson-{lesson.key}.html", "text/html", icon=":material/download:",
                       key=PAGE.key("page.download"), on_click="ignore")


@last_net()
def open_in_compare(lesson: Lesson) -> None:
    put_comparison(state.COMPARE, lesson.comparison())
    state.open_comparison_setup()
    PAGE.set("to", "compare")


@last_net()
def open_in_study(lesson: Lesson) -> None:
    put_methods(lesson.comparison())
    st.session_state[state.STUDY_ID] = None
    state.STUDY.set("setup.next", True)
    PAGE.set("to", "study")
