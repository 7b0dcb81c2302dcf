"""A question of a lesson, whose answer is computed when somebody has made a guess."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Answer:
    """`right`: the place of the right choice; `why`: a sentence with the computed numbers."""

    right: int
    why: str


@dataclass(frozen=True)
class Question:
    """`grade()` computes the answer."""

    text: str
    choices: tuple[str, ...]
    grade: Callable[[], Answer]


def interval(value: float, bounds: Sequence[float]) -> int:
    """The place of the interval that holds a value: 0 below the first bound."""
    return sum(value >= bound for bound in bounds)


def nearest(value: float, values: Sequence[float]) -> int:
    """The place of the nearest of some values."""
    return min(range(len(values)), key=lambda place: abs(values[place] - value))
