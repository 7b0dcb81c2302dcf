"""A class that guesses together, on the side of the engine and at the door."""

import threading

import pytest
from apptest import html, page
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from dashboard.browser import BROWSER
from dashboard.door import CLASS_HEADER, Door
from pipelines.errors import RequestError
from pipelines.lessons import classroom as module
from pipelines.lessons.classroom import Classrooms, classrooms
from pipelines.lessons.question import Answer

TEXT, CHOICES = "How many?", ("one", "two", "three")


@pytest.fixture
def room():
    room = Classrooms().open("teacher")
    room.ask(TEXT, CHOICES)
    return room


def test_forty_browsers_at_once_lose_no_guess(room):
    at_once = threading.Barrier(40)

    def guess(number):
        at_once.wait()
        for place in range(3):  # a change of mind replaces the guess
            room.guess(f"browser {number}", TEXT, (number + place) % 3)

    threads = [threading.Thread(target=guess, args=(number,)) for number in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    board = room.board()
    assert board.guesses == board.learners == 40
    assert board.counts == tuple(sum((number + 2) % 3 == place for number in range(40))
                                 for place in range(3))
    assert room.board("browser 4").guess == 0 and room.board("stranger").guess is None


def test_a_guess_may_change_until_the_answer_is_out(room):
    room.guess("a", TEXT, 0)
    room.guess("a", TEXT, 2)
    assert room.board("a").counts == (0, 0, 1)
    room.reveal(Answer(1, "It is two."))
    with pytest.raises(RequestError, match="Too late"):
        room.guess("b", TEXT, 1)
    assert room.board().counts == (0, 0, 1) and room.board().answer.why == "It is two."
    room.ask_again()
    assert room.board("a").guess is None and room.board().answer is None


def test_a_question_comes_back_with_its_guesses(room):
    room.guess("a", TEXT, 1)
    room.ask("Another?", ("yes", "no"))
    assert room.board("a").guess is None
    with pytest.raises(RequestError, match="gone on to another question"):
        room.guess("a", TEXT, 0)
    assert room.board(question=(TEXT, CHOICES)).counts == (0, 1, 0)
    room.ask(TEXT, CHOICES)
    assert room.board("a").guess == 1


def test_what_is_no_guess_and_no_class_is_refused(room, monkeypatch):
    with pytest.raises(RequestError, match="received 3, accepted 0 to 2"):
        room.guess("a", TEXT, 3)
    rooms = Classrooms()
    opened = rooms.open("teacher")
    assert rooms.open("teacher") is opened  # also after a reload of the teacher's page
    assert rooms.join(f" {opened.code.lower()} ", "a") is opened and not opened.board()
    with pytest.raises(RequestError, match="no class that is open"):
        rooms.join("zzzzz0", "a")
    monkeypatch.setattr(module, "MOST_LEARNERS", 1)
    with pytest.raises(RequestError, match="full"):
        rooms.join(opened.code, "b")
    monkeypatch.setattr(module, "MOST_CLASSES", 1)
    with pytest.raises(RequestError, match="1 classes are open"):
        rooms.open("another")
    monkeypatch.setattr(module, "IDLE_SECONDS", -1.0)
    assert rooms.open("another").teacher == "another" and not rooms.is_open(opened.code)
    rooms.close("another")
    assert rooms.of_teacher("another") is None


@pytest.fixture
def open_class():
    """A class of the process, closed afterwards."""
    room = classrooms.open("a" * 16)
    yield room
    classrooms.close("a" * 16)


def test_the_door_lets_a_learner_into_the_class_and_nowhere_else(open_class, monkeypatch):
    async def who(request):
        return PlainTextResponse(request.headers.get(CLASS_HEADER, "everything"))

    monkeypatch.setattr("dashboard.door.WRONG_SECONDS", 0.0)
    app = Starlette(routes=[Route("/{path:path}", who, methods=["GET", "POST"])])
    door = Door(app, "secret")
    learner = TestClient(door)
    assert learner.get("/", follow_redirects=False).status_code == 401
    assert learner.get("/?class=WRONG").status_code == 403
    assert learner.get(f"/?class={open_class.code.lower()}").text == open_class.code
    assert learner.get("/runs").text == open_class.code  # whatever it asks for
    assert learner.post("/upload", content="token=").status_code in (401, 403)
    assert learner.get("/?token=secret").text == "everything"
    stranger = TestClient(door, cookies={"contact_sheet_class": "WRONG"})
    assert stranger.get("/").status_code == 401
    classrooms.close("a" * 16)
    assert TestClient(door, cookies={"contact_sheet_class": open_class.code}).get(
        "/").status_code == 401


def test_the_wall_survives_a_reload_and_reveals_for_all(home, open_class):
    teacher = {BROWSER: "a" * 16, "learn.lesson": "solvers"}
    app = page("learn", teacher)
    assert open_class.code in html(app) and "0 guesses from 0 browsers" in html(app)
    learner = page("generate", {BROWSER: "b" * 16}, **{"class": open_class.code})
    assert not learner.exception and not learner.title and len(learner.button) == 3
    learner.button[1].click().run()
    assert "Sent. You may change it" in html(learner)
    app = page("learn", teacher)  # another session of the same browser
    assert "1 guess from 1 browser" in html(app)
    app.button(key="learn.solvers.guess.class.reveal").click().run()
    assert not app.exception and "100% of the class had it" in html(app)
    learner.run()
    assert "Right: Only with DDIM" in html(learner)
    assert all(button.disabled for button in learner.button)
    app.button(key="learn.solvers.check.0.class.ask").click().run()
    learner.run()
    assert len(learner.button) == 2 and "Tap your guess" in html(learner)


def test_a_code_of_no_class_is_said(home):
    learner = page("generate", **{"class": "nosuch"})
    assert "no class that is open now" in html(learner) and not learner.exception
