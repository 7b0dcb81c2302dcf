"""Distillation: a teacher of many evaluations, and a student that arrives in one to four."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from pipelines.laboratory.driving import exact_end
from pipelines.laboratory.mixture import Mixture
from pipelines.lessons import plane, postcards
from pipelines.lessons.question import Answer, Question
from pipelines.postcards.vocabulary import EXAMPLE_PROMPTS

if TYPE_CHECKING:
    from PIL.Image import Image

    from pipelines.models.registry import Registry

STUDENT = "postcards-turbo"
TEACHER_STEPS = 20
EVALUATIONS = (1, 2, 4)
GUIDANCE = 5.0  # of the teacher; the student learned what it paints with it
PROMPTS = EXAMPLE_PROMPTS[:4]
SOLVERS = {"teacher": "ddim", "student": "lcm"}
POINTS = 200
EQUAL = 1.0  # of 255: pictures whose distances differ by less are called equally near

# Pictures of the `teacher` or the `student` for some prompts and seeds, with so many evaluations.
Paint = Callable[[str, tuple[str, ...], tuple[int, ...], int], list["Image"]]


@dataclass(frozen=True)
class PerfectStudent:
    """What consistency distillation aims at (Song et al. 2023, arXiv:2303.01469): from any point of
    a path of the probability-flow equation it predicts the exact end of that path."""

    teacher: Mixture

    def prediction(self, kind: str, x: Tensor, signal: float, noise: float) -> Tensor:
        """Its answer as a scheduler asks for it; only `epsilon`."""
        if kind != "epsilon":
            raise ValueError(f"prediction_type: received {kind!r}, accepted epsilon")
        x0 = exact_end(self.teacher, x / signal, noise / signal)
        return (x - signal * x0) / noise

    def epsilon(self, x: Tensor, signal: float, noise: float) -> Tensor:
        """The teacher's, whose paths lead to the exact ends."""
        return self.teacher.epsilon(x, signal, noise)


@functools.cache
def perfect_student() -> PerfectStudent:
    return PerfectStudent(Mixture.three())


def points(who: str, evaluations: int) -> plane.Run:
    """Points of the plane by the `teacher`, whose network is perfect, or the perfect `student`."""
    return plane.run(SOLVERS[who], evaluations, None if who == "teacher" else perfect_student(),
                     POINTS)


def paint(
    registry: Registry, who: str, prompts: Sequence[str], seeds: Sequence[int], evaluations: int
) -> list[Image]:
    """A picture of the teacher or the student for each prompt and seed."""
    teacher = who == "teacher"
    with registry.borrow(postcards.MODEL if teacher else STUDENT) as (model, _):
        made = postcards.denoise(model, prompts, postcards.noise(seeds), SOLVERS[who], evaluations,
                                 GUIDANCE if teacher else 1.0, seeds[0])
    return postcards.pictures(registry, made.latents)


def distances(
    paint: Paint, who: str, evaluations: int, prompts: Sequence[str], seeds: Sequence[int]
) -> list[float]:
    """How far pictures lie from the teacher's of TEACHER_STEPS and the same noise: root mean square
    differences, 0 to 255."""
    asked = tuple(prompts), tuple(seeds)
    return [postcards.difference(*pair) for pair in zip(
        paint(who, *asked, evaluations), paint("teacher", *asked, TEACHER_STEPS), strict=True)]


def mean_distance(paint: Paint, who: str, evaluations: int) -> float:
    """Of PROMPTS, each with a seed of its own."""
    values = distances(paint, who, evaluations, PROMPTS, range(len(PROMPTS)))
    return sum(values) / len(values)


def times(evaluations: int) -> str:
    return f"{evaluations} evaluation{'s' * (evaluations > 1)}"


def question(paint: Paint) -> Question:
    """Which of the student's pictures is the teacher's."""

    def grade() -> Answer:
        found = {n: mean_distance(paint, "student", n) for n in EVALUATIONS}
        least = min(found, key=found.get)
        equal = max(found.values()) - min(found.values()) < EQUAL
        told = ", ".join(f"{value:.1f} with {n}" for n, value in found.items())
        return Answer(3 if equal else 2 - EVALUATIONS.index(least),
                      f"Distance to the teacher's picture, mean of {len(PROMPTS)} prompts: {told} "
                      "(root mean square, of 255). The student is asked for the end of the "
                      "teacher's path. After its first evaluation LCMScheduler adds fresh noise, "
                      "and goes on from there to the end of another path.")

    return Question(
        f"postcards-turbo was distilled from postcards. Both start from the same noise; the "
        f"teacher takes {TEACHER_STEPS} steps. Which picture of the student is nearest to the "
        "teacher's?",
        ("That of 4 evaluations: more steps come closer", "That of 2 evaluations",
         "That of 1 evaluation", "All are equally near"), grade)


def check(paint: Paint, case: int) -> Question:
    """A teacher in a hurry or its student, for another picture."""
    rng = random.Random(f"distillation {case}")
    prompt, seed = rng.choice(EXAMPLE_PROMPTS), rng.randrange(1, 1000)
    hurried, evaluations = rng.choice((1, 2, 3, 4, 6, 8)), rng.choice(EVALUATIONS)

    def grade() -> Answer:
        found = [distances(paint, who, n, [prompt], [seed])[0]
                 for who, n in (("student", evaluations), ("teacher", hurried))]
        return Answer(int(found[1] < found[0]),
                      f"Distance to the teacher's picture of {TEACHER_STEPS} steps: student "
                      f"{found[0]:.1f}, teacher in {hurried} {found[1]:.1f} of 255.")

    return Question(
        f"“{prompt}”, seed {seed}. Which comes nearer to the teacher's picture of {TEACHER_STEPS} "
        "steps?",
        (f"The student with {times(evaluations)}",
         f"The teacher itself with {times(hurried)}, each with and without the prompt"), grade)
