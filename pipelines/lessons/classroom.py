"""A class that guesses together: its question, the guesses of its browsers, the answer.

It is kept in memory and not in the run log: guesses belong to an hour and not to the pictures, and
nothing about a learner is written to a disk. It outlives a reload of every page and ends with the
program, with `close`, or when nobody came for IDLE_SECONDS.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from pipelines.errors import RequestError
from pipelines.lessons.question import Answer
from pipelines.notation import shown

LETTERS = "ABCDEFGHJKMNPQRSTUVWXYZ"  # none that is read as another letter or as a digit
CODE_LENGTH = 5
MOST_LEARNERS = 100  # browsers of one class
IDLE_SECONDS = 6 * 3600.0
MOST_CLASSES = 50


@dataclass(frozen=True)
class Board:
    """What a class sees of its question at one moment. `counts`: guesses for each choice;
    `guess`: that of the browser that looks, None where it sent none; `answer`: None until it is
    revealed."""

    text: str
    choices: tuple[str, ...]
    counts: tuple[int, ...]
    learners: int
    guess: int | None = None
    answer: Answer | None = None

    @property
    def guesses(self) -> int:
        return sum(self.counts)


@dataclass
class _Poll:
    text: str
    choices: tuple[str, ...]
    guesses: dict[str, int] = field(default_factory=dict)  # browser -> place of its choice
    answer: Answer | None = None


class Classroom:
    """One class, of the browser that opened it; safe to use from many threads."""

    def __init__(self, code: str, teacher: str) -> None:
        self.code, self.teacher = code, teacher
        self.seen = time.monotonic()
        self._lock = threading.Lock()
        self._learners: set[str] = set()
        self._polls: dict[tuple[str, tuple[str, ...]], _Poll] = {}
        self._current: _Poll | None = None

    def ask(self, text: str, choices: Sequence[str]) -> None:
        """Put a question to the class; one that was asked before comes back with its guesses."""
        key = (text, tuple(choices))
        with self._lock:
            self._current = self._polls.setdefault(key, _Poll(*key))

    def join(self, browser: str) -> None:
        """Let a browser in; RequestError where the class is full."""
        with self._lock:
            self.seen = time.monotonic()
            if browser not in self._learners and len(self._learners) >= MOST_LEARNERS:
                raise RequestError(f"class {self.code} is full: {MOST_LEARNERS} browsers have "
                                   "joined, accepted no more")
            self._learners.add(browser)

    def guess(self, browser: str, text: str, choice: int) -> None:
        """Keep a browser's guess, in place of an earlier one. Raises RequestError where it is too
        late, or the class has gone on to another question than `text`."""
        self.join(browser)
        with self._lock:
            poll = self._current
            if poll is None or poll.text != text:
                raise RequestError("The class has gone on to another question; this guess does "
                                   "not count.")
            if poll.answer is not None:
                raise RequestError("Too late: the answer is shown already; this guess does not "
                                   "count.")
            if not 0 <= choice < len(poll.choices):
                raise RequestError(f"guess: received {choice}, accepted 0 to "
                                   f"{len(poll.choices) - 1}")
            poll.guesses[browser] = choice

    def reveal(self, answer: Answer) -> None:
        """Show the class the answer of its question; guesses that come later do not count."""
        with self._lock:
            if self._current is not None:
                self._current.answer = answer

    def ask_again(self) -> None:
        """Take back the guesses and the answer of the question."""
        with self._lock:
            if self._current is not None:
                self._current.guesses.clear()
                self._current.answer = None

    def board(
        self, browser: str | None = None, question: tuple[str, tuple[str, ...]] | None = None
    ) -> Board | None:
        """The question that is put now, or another one by its text and choices, as it stands; None
        before it was asked."""
        with self._lock:
            self.seen = time.monotonic()
            poll = self._polls.get(question) if question else self._current
            if poll is None:
                return None
            given = list(poll.guesses.values())
            return Board(poll.text, poll.choices,
                         tuple(given.count(place) for place in range(len(poll.choices))),
                         len(self._learners), poll.guesses.get(browser or ""), poll.answer)


class Classrooms:
    """The classes of this program, by code."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_code: dict[str, Classroom] = {}

    def open(self, teacher: str) -> Classroom:
        """The class of a teacher's browser, a new one where it has none. RequestError where there
        are too many."""
        with self._lock:
            self._forget_idle()
            for classroom in self._by_code.values():
                if classroom.teacher == teacher:
                    return classroom
            if len(self._by_code) >= MOST_CLASSES:
                raise RequestError(f"{MOST_CLASSES} classes are open, accepted no more; close one")
            while (code := _new_code()) in self._by_code:
                pass
            self._by_code[code] = Classroom(code, teacher)
            return self._by_code[code]

    def of_teacher(self, teacher: str) -> Classroom | None:
        with self._lock:
            return next((classroom for classroom in self._by_code.values()
                         if classroom.teacher == teacher), None)

    def join(self, code: str, browser: str) -> Classroom:
        """The class of a code, with the browser in it; RequestError where there is none."""
        with self._lock:
            classroom = self._by_code.get(code.strip().upper())
        if classroom is None:
            raise RequestError(f"class: received {shown(code)}, which is no class that is open "
                               "now; accepted the code that the teacher shows")
        classroom.join(browser)
        return classroom

    def is_open(self, code: str) -> bool:
        with self._lock:
            return code.strip().upper() in self._by_code

    def close(self, teacher: str) -> None:
        """End the class of a teacher's browser; its guesses are gone."""
        with self._lock:
            for code, classroom in list(self._by_code.items()):
                if classroom.teacher == teacher:
                    del self._by_code[code]

    def _forget_idle(self) -> None:
        limit = time.monotonic() - IDLE_SECONDS
        for code, classroom in list(self._by_code.items()):
            if classroom.seen < limit:
                del self._by_code[code]


def _new_code() -> str:
    return "".join(secrets.choice(LETTERS) for _ in range(CODE_LENGTH))


classrooms = Classrooms()  # of this process, which the door asks, too
