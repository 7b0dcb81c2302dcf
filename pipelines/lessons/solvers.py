"""Solvers: what more steps do, and what an evaluation of the network buys."""

from __future__ import annotations

import functools
import random

from pipelines.errors import RequestError
from pipelines.laboratory.driving import fitted_order
from pipelines.lessons.plane import distance, run
from pipelines.lessons.question import Answer, Question
from pipelines.schedulers import BY_KEY, CATALOGUE

STEPS = (1, 2, 3, 5, 8, 12, 20, 40, 80)
DRAWN = ("ddim", "euler", "heun", "dpmpp_2m", "dpmpp_2m_karras", "euler_a")
FITTED_FROM, FLOOR = 8, 3e-3  # steps; an error below comes from rounded timesteps
STANDS_STILL = 0.1  # points that move less from 40 to 80 steps; the data's spread is about 1
NAMES = {info.key: info.label for info in CATALOGUE}


def moved(key: str, steps: int) -> float:
    """How far the points of twice as many steps lie from those of `steps`."""
    return distance(run(key, steps).path.end, run(key, 2 * steps).path.end)


@functools.cache
def errors(key: str) -> list[tuple[int, int, float]]:
    """Steps, evaluations and distance to the exact points, for the STEPS that a scheduler takes."""
    rows = []
    for steps in STEPS:
        try:
            made = run(key, steps)
        except RequestError:
            continue
        if made.path.finite:
            rows.append((steps, made.path.evaluations, made.error))
    return rows


def order(key: str) -> tuple[float, float] | None:
    """The fitted order of convergence and half of its 95 % interval; None of a stochastic one."""
    if BY_KEY[key].stochastic:
        return None
    fitted = [(steps, error) for steps, _, error in errors(key)
              if steps >= FITTED_FROM and error > FLOOR]
    return fitted_order(*zip(*fitted, strict=True)) if len(fitted) > 2 else None


def _grade() -> Answer:
    ddim, euler_a = moved("ddim", 40), moved("euler_a", 40)
    right = {(True, True): 0, (True, False): 1, (False, False): 2}[
        ddim < STANDS_STILL, euler_a < STANDS_STILL]
    return Answer(right, f"From 40 to 80 steps DDIM's points move by {ddim:.2f} (root mean square),"
                         f" those of Euler a by {euler_a:.2f}. An ancestral solver draws fresh "
                         "noise in every step: more steps are other noise, and another picture of "
                         "the same kind.")


QUESTION = Question(
    "The same noise goes into DDIM and into the ancestral solver Euler a. You double the number of "
    "steps again and again. Does the picture settle?",
    ("Yes, with both: more steps always approach one picture",
     "Only with DDIM: Euler a goes on making other pictures",
     "With neither: every number of steps gives another picture"),
    _grade)


def check(case: int) -> Question:
    """Two solvers with about as many evaluations of the network: whose points are closer?"""
    rng = random.Random(f"solvers {case}")
    first, second = rng.sample([key for key in DRAWN if not BY_KEY[key].stochastic], 2)
    evaluations = rng.choice((6, 10, 16, 24, 36))

    def steps(key: str) -> int:
        return -(-evaluations // BY_KEY[key].evaluations_per_step)

    def grade() -> Answer:
        made = [run(key, steps(key)) for key in (first, second)]
        told = " and ".join(f"{NAMES[key]} {one.error:.3f} with {one.path.evaluations} evaluations"
                            for key, one in zip((first, second), made, strict=True))
        return Answer(int(made[1].error < made[0].error),
                      f"Distance to the exact points: {told}.")

    return Question(
        f"About {evaluations} evaluations of the network are paid for. Which solver ends closer "
        "to the exact points?",
        tuple(f"{NAMES[key]} with {steps(key)} steps" for key in (first, second)), grade)
