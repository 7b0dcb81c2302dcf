"""Class mode: the wall that a teacher shows, and what a learner's browser has."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from pathlib import Path
from urllib.parse import urlsplit

import streamlit as st

from dashboard import state
from dashboard.browser import browser, remember_browser
from dashboard.components.text import notice, words
from dashboard.door import CLASS, CLASS_HEADER
from dashboard.last_net import last_net
from pipelines.errors import PipelineError
from pipelines.lessons.classroom import Board, Classroom, classrooms
from pipelines.lessons.question import Answer, Question

PAGE = state.LEARN
ASKING = "class.asking"  # the name of the question that is put to the class
WALL_SECONDS, LEARNER_SECONDS = 1.0, 2.0


def class_button() -> None:
    """Open or close the class of this browser."""
    if classrooms.of_teacher(browser()):
        st.button("End the class", icon=":material/group_off:", key=PAGE.key("class.close"),
                  on_click=classrooms.close, args=(browser(),), type="tertiary",
                  help="The code is not valid any more, and the guesses are gone.")
    else:
        st.button("Ask a class", icon=":material/groups:", key=PAGE.key("class.open"),
                  on_click=_open, type="tertiary",
                  help="Shows a code: browsers that join with it send guesses, without an "
                       "account, and the wall shows them.")


@last_net()
def _open() -> None:
    classrooms.open(browser())


def open_class() -> Classroom | None:
    """The class of this browser."""
    return classrooms.of_teacher(browser())


def join_address(code: str) -> str:
    """The address that leads to a class, as this browser reaches the dashboard."""
    parts = urlsplit(st.context.url or "")
    place = f"{parts.scheme}://{parts.netloc}" if parts.netloc else ""
    return f"{place}/?{CLASS}={code}"


def class_code(classroom: Classroom) -> None:
    """Where to go, and the code, to be read from the last row."""
    st.html(Path(__file__).parent / "class.css")
    address = join_address(classroom.code)
    local = urlsplit(address).hostname in ("localhost", "127.0.0.1", "::1")
    hint = ("Only browsers of this machine reach this address: start the dashboard with "
            "<code>contact-sheet --host 0.0.0.0</code> for others." if local else "")
    st.html(f"<div class='cs-class'><span>Join at</span><b>{escape(address)}</b>"
            f"<strong aria-label='code'>{escape(classroom.code)}</strong>"
            f"{f'<small>{hint}</small>' if hint else ''}</div>")


def asked_of_class(
    classroom: Classroom, question: Question, name: str, grade: Callable[[], Answer]
) -> bool:
    """The wall of a question that is put to the class, or the button that puts it; whether its
    answer is revealed."""
    asking = PAGE.get(ASKING) == name
    key = (question.text, question.choices)
    if asking:
        classroom.ask(*key)
    board = classroom.board(question=key)
    words(question.text, "large")
    if board and board.answer:
        wall(board)
        if asking:
            st.button("Ask it again", type="tertiary", icon=":material/undo:",
                      key=PAGE.key(f"{name}.class.again"), on_click=classroom.ask_again)
        return True
    if not asking:
        st.button("Ask the class this", icon=":material/groups:",
                  key=PAGE.key(f"{name}.class.ask"), on_click=PAGE.set, args=(ASKING, name))
        return False
    st.fragment(last_net()(lambda: wall(classroom.board(question=key))),
                run_every=WALL_SECONDS)()
    if st.button("Reveal the answer", type="primary", icon=":material/visibility:",
                 key=PAGE.key(f"{name}.class.reveal")):
        with st.spinner("Computing the answer …"):
            try:
                classroom.reveal(grade())
            except PipelineError as error:
                notice("error", str(error))
                return False
        st.rerun()
    return False


def begin_lesson(lesson: str, first: str) -> None:
    """Put a lesson's first question to the class, where another lesson was on show."""
    if not str(PAGE.get(ASKING)).startswith(f"{lesson}."):
        PAGE.set(ASKING, first)


def wall(board: Board) -> None:
    """How the class has guessed, a bar for each choice; the right one is marked once it is out."""
    most = max(1, board.guesses)
    rows = []
    for place, (choice, count) in enumerate(zip(board.choices, board.counts, strict=True)):
        right = board.answer is not None and place == board.answer.right
        mark = " <em>✓ right</em>" if right else ""
        rows.append(f"<li class='{'cs-right' if right else ''}'><span>{escape(choice)}{mark}</span>"
                    f"<i><b style='width:{100 * count / most:.1f}%'></b></i><u>{count}</u></li>")
    st.html(f"<div class='cs-wall' role='status'><ol>{''.join(rows)}</ol>"
            f"<p>{board.guesses} guess{'es' * (board.guesses != 1)} from {board.learners} "
            f"browser{'s' * (board.learners != 1)}</p></div>")
    if board.answer:
        share = board.counts[board.answer.right] / most
        told = f"{share:.0%} of the class had it. " if board.guesses else ""
        notice("good", told + board.answer.why)


def class_of_address() -> str | None:
    """The code of a learner's address, or the one that the door let in with; None of others."""
    return st.context.headers.get(CLASS_HEADER) or st.query_params.get(CLASS)


def learner(code: str) -> None:
    """All that a learner's browser sees: the question, its choices, 'sent', and the answer."""
    st.html(Path(__file__).parents[1] / "style.css")
    st.html(Path(__file__).parent / "class.css")
    remember_browser()
    st.html(f"<h2 class='cs-model'>Class {escape(code.strip().upper())}</h2>")
    st.fragment(last_net()(lambda: _learner(code)), run_every=LEARNER_SECONDS)()


def _learner(code: str) -> None:
    try:
        classroom = classrooms.join(code, browser())
    except PipelineError as error:
        notice("error", str(error))
        return
    board = classroom.board(browser())
    if board is None:
        words("Wait for the first question: it appears here.", "large")
        return
    words(board.text, "large")
    with st.container(key="class-choices"):
        for place, choice in enumerate(board.choices):
            mine = place == board.guess
            st.button(choice, key=f"class.{place}.{board.text}", width="stretch",
                      type="primary" if mine else "secondary", disabled=board.answer is not None,
                      icon=":material/check:" if mine else None,
                      on_click=_send, args=(classroom, board.text, place))
    if late := st.session_state.pop("class.late", None):
        notice("error", late)
    if board.answer:
        right = board.choices[board.answer.right]
        verdict = ("You came after the answer" if board.guess is None
                   else "Right" if board.guess == board.answer.right else "Not so")
        notice("good" if board.guess == board.answer.right else "note",
               f"{verdict}: {right}. {board.answer.why}")
    elif board.guess is None:
        words("Tap your guess. Nobody sees whose it is.", "quiet")
    else:
        notice("good", "Sent. You may change it until the answer is shown.")


def _send(classroom: Classroom, text: str, choice: int) -> None:
    """A guess, and what to tell where it came too late."""
    try:
        classroom.guess(browser(), text, choice)
    except PipelineError as error:
        st.session_state["class.late"] = str(error)
