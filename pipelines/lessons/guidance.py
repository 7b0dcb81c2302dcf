"""Guidance: two predictions as vectors, and which distribution guided points have."""

from __future__ import annotations

import functools
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pipelines.laboratory.mixture import Mixture
from pipelines.lessons.plane import run
from pipelines.lessons.question import Answer, Question, nearest
from pipelines.postcards.behaviour import as_array, picture_figures

if TYPE_CHECKING:
    from PIL.Image import Image

    from pipelines.lessons.postcards import Trace

SCALES = (1.0, 2.0, 3.0, 5.0, 7.5, 10.0, 15.0)
MEAN, NARROW, WIDE = 0.8, 0.5, 1.0  # of the Gaussians with and without the condition
SOLVER, STEPS = "dpmpp_2m_karras", 60
POINTS = 500
METHODS = ("cfg", "interval", "rescale", "apg", "cfg-zero", "tangential", "magnitude")
POINT = (-0.6, 1.0)  # where the vectors are drawn


@dataclass(frozen=True, eq=False)
class Guided:
    """The perfect network of a condition and that of no condition, combined by classifier-free
    guidance (Ho and Salimans 2022, arXiv:2207.12598)."""

    conditional: Mixture
    unconditional: Mixture
    scale: float

    def prediction(self, kind: str, x: Tensor, signal: float, noise: float) -> Tensor:
        """unconditional + scale * (conditional - unconditional), as pipelines compute it."""
        with_it, without = (part.prediction(kind, x, signal, noise)
                            for part in (self.conditional, self.unconditional))
        return without + self.scale * (with_it - without)

    def epsilon(self, x: Tensor, signal: float, noise: float) -> Tensor:
        return self.prediction("epsilon", x, signal, noise)


def gaussian(mean: float, deviation: float) -> Mixture:
    """One Gaussian of the plane, its mean on the x axis."""
    one = torch.ones(1, dtype=torch.float64)
    return Mixture(torch.tensor([[mean, 0.0]], dtype=torch.float64), deviation * one, one)


@functools.lru_cache(64)
def two_gaussians(
    scale: float, mean: float = MEAN, narrow: float = NARROW, wide: float = WIDE
) -> Guided:
    return Guided(gaussian(mean, narrow), gaussian(0.0, wide), scale)


@functools.lru_cache(64)
def one_of_three(scale: float) -> Guided:
    """The condition leaves one component of a mixture of three."""
    three = Mixture.three()
    return Guided(three.given([0]), three, scale)


def guided_points(guided: Guided) -> Tensor:
    """Where diffusers' scheduler takes noise with the guided prediction, (POINTS, 2)."""
    return run(SOLVER, STEPS, guided, POINTS).path.end


def guided_gaussian(guided: Guided, sigma: float) -> tuple[float, float]:
    """Mean on the x axis and standard deviation of the exact guided points of two Gaussians, from
    noise of `sigma` down to 0.

    The guided equation is linear, dx/ds = w s (x - m) / (a^2 + s^2) + (1 - w) s x / (b^2 + s^2);
    without the mean it grows as (a^2 + s^2)^(w/2) (b^2 + s^2)^((1-w)/2), so that the deviation
    tends to a^w b^(1-w) where noise begins far above a and b.
    """
    from scipy.integrate import quad

    (mean, a), (_, b) = ((part.means[0, 0].item(), part.deviations[0].item())
                         for part in (guided.conditional, guided.unconditional))
    w = guided.scale

    def growth(s: float) -> float:
        return (a**2 + s**2) ** (w / 2) * (b**2 + s**2) ** ((1 - w) / 2)

    moved = quad(lambda s: w * s * mean / (a**2 + s**2) / growth(s), 0, sigma, limit=200)[0]
    return growth(0) * moved, growth(0) * sigma / growth(sigma)


def sharpened_gaussian(guided: Guided) -> tuple[float, float]:
    """Mean on the x axis and deviation of p(x|c)^w p(x)^(1-w), of two Gaussians."""
    (mean, a), (_, b) = ((part.means[0, 0].item(), part.deviations[0].item())
                         for part in (guided.conditional, guided.unconditional))
    precision = guided.scale / a**2 + (1 - guided.scale) / b**2
    return guided.scale * mean / a**2 / precision, precision**-0.5


def split(difference: Tensor, along: Tensor) -> tuple[Tensor, Tensor]:
    """The part of each row that is parallel to the row of `along`, and what is orthogonal to it
    (Sadat et al. 2024, arXiv:2410.02416); (n, D) each."""
    unit = along / along.norm(dim=1, keepdim=True)
    parallel = (difference * unit).sum(1, keepdim=True) * unit
    return parallel, difference - parallel


def spread(points: Tensor) -> float:
    """The standard deviation of points along an axis, (n, 2)."""
    return points.var(0).mean().sqrt().item()


def _grade() -> Answer:
    guided = two_gaussians(3.0)
    measured, sharp = spread(guided_points(guided)), sharpened_gaussian(guided)[1]
    right = nearest(measured, (NARROW, sharp, NARROW**3 * WIDE**-2))
    return Answer(right, f"Guided points have a standard deviation of {measured:.3f}. That of "
                         f"p(x|c) is {NARROW}, that of the sharpened density {sharp:.3f}; the "
                         f"guided equation ends at s³ / S² = {NARROW**3 / WIDE**2:.3f}. At each "
                         "noise level guidance follows the sharpened density of that level, and "
                         "those do not belong to one another.")


QUESTION = Question(
    f"A condition c leaves a Gaussian with standard deviation s = {NARROW} of one with S = {WIDE}. "
    "Guidance at scale w = 3 is said to sample p(x|c)³ p(x)⁻². Which points come out?",
    ("Points of p(x|c): guidance only makes sure that they are right",
     "Points of the sharper p(x|c)³ p(x)⁻², as it is said",
     "Points still narrower than that: of no such distribution"), _grade)


def check(case: int) -> Question:
    """The deviation of guided points of two other Gaussians."""
    rng = random.Random(f"guidance {case}")
    narrow, wide = rng.choice((0.4, 0.5, 0.6)), rng.choice((0.9, 1.0, 1.2))
    scale = rng.choice((2.0, 2.5, 4.0))
    guided = two_gaussians(scale, MEAN, narrow, wide)
    values = [narrow, sharpened_gaussian(guided)[1], narrow**scale * wide ** (1 - scale)]
    rng.shuffle(values)

    def grade() -> Answer:
        measured = spread(guided_points(guided))
        return Answer(nearest(measured, values),
                      f"{POINTS} points, run with {STEPS} steps: {measured:.3f}; s^w S^(1-w) = "
                      f"{narrow**scale * wide ** (1 - scale):.3f}.")

    return Question(f"Now s = {narrow}, S = {wide}, and w = {scale:g}. What standard deviation do "
                    "guided points have?", tuple(f"{value:.3f}" for value in values), grade)


def vectors(guided: Guided) -> dict[str, Tensor]:
    """The predictions of noise at POINT, at signal and noise of 1, and the parts of their
    difference; each (2,)."""
    x = torch.tensor([POINT], dtype=torch.float64)
    with_it, without = (part.epsilon(x, 1.0, 1.0)
                        for part in (guided.conditional, guided.unconditional))
    parallel, orthogonal = split(with_it - without, with_it)
    return {"guided": guided.epsilon(x, 1.0, 1.0)[0], "conditional": with_it[0],
            "unconditional": without[0], "parallel part": parallel[0],
            "orthogonal part": orthogonal[0]}


def geometry(trace: Trace) -> dict[str, list[float]]:
    """What guidance adds to the conditional prediction at each step: the norm of the part that is
    parallel to that prediction and of the orthogonal one, and the prediction's own; means over the
    pictures."""
    rows: dict[str, list[float]] = {"parallel part": [], "orthogonal part": [],
                                    "conditional prediction": []}
    for conditional, guided in zip(trace.conditional, trace.guided, strict=True):
        along = conditional.flatten(1)
        parts = (*split(guided.flatten(1) - along, along), along)
        for name, part in zip(rows, parts, strict=True):
            rows[name].append(part.norm(dim=1).mean().item())
    return rows


@dataclass(frozen=True)
class Figures:
    """Of pictures of one prompt: the root mean square difference of two seeds (0 to 255), the mean
    saturation (0 to 1), the share of channel values at 0 or 255."""

    diversity: float
    saturation: float
    at_limit: float


def figures(pictures: Sequence[Image]) -> Figures:
    return Figures(*picture_figures(as_array(pictures)[None].astype(float)))
