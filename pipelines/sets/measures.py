"""How near a set of generated pictures is to a set of real ones, from features of both. numpy.

Features are rows of a matrix, shape (pictures, features); each feature is measured in standard
deviations of the real set. Each measure refuses below the number of
pictures at which it means something: `FEWEST` says how many.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from pipelines.errors import RequestError
from pipelines.study.statistics import ALPHA, Array

NEIGHBOURS = 5  # Naeem et al. 2020; Kynkäänniemi et al. 2019 take 3
HALVES = 400  # half samples that tell KID's spread
NEAR = 0.01  # of held-out real pictures are as near to a training picture as what counts as a copy
# Pictures of each set. With 100 a share's interval is up to 10 points wide to either side; KID is
# unbiased with any number, but with fewer than 50 its interval holds zero for nearly any model.
FEWEST = {"kid": 50, "precision": 100, "recall": 100, "density": 100, "coverage": 100,
          "copies": 100}
LABELS = {
    "kid": "kernel distance (KID × 1000), 0 for equal distributions",
    "precision": "precision: share of the pictures that look like real ones",
    "recall": "recall: share of the real pictures that the set could contain",
    "density": "density: how deep among real pictures they lie, 1 for real ones",
    "coverage": "coverage: share of the real pictures that have one of the set near them",
    "copies": "copies: share nearer to a training picture than real pictures are, but for 1 in 100",
}


@dataclass(frozen=True)
class SetValue:
    """One measure of a set with its 95 % interval; `expected` is what another set of real pictures
    would have, None where that is not known."""

    measure: str
    value: float
    low: float
    high: float
    pictures: int
    real: int
    expected: float | None = None


def check_counts(measure: str, pictures: int, real: int) -> None:
    """Raise RequestError where a set is too small for a measure to mean something."""
    if measure not in FEWEST:
        raise RequestError(f"measure: received {measure!r}, accepted {', '.join(FEWEST)}")
    if min(pictures, real) < FEWEST[measure]:
        raise RequestError(f"{measure}: received {pictures} pictures against {real} real ones, "
                           f"accepted {FEWEST[measure]} of each or more")


def kid(features: Array, real: Array, seed: int = 0) -> SetValue:
    """The kernel Inception distance's estimator (Bińkowski et al. 2018, arXiv:1801.01401) on any
    features, times 1000: the unbiased squared maximum mean discrepancy under (x·y / d + 1)³.

    The interval is a normal one, its spread that of random halves of both sets (half-sampling,
    McCarthy 1969), which is on the safe side where the sets are alike.
    """
    check_counts("kid", len(features), len(real))
    features, real = _scaled(real, features, real)
    width = features.shape[1]

    def kernel(a: Array, b: Array) -> Array:
        return (a @ b.T / width + 1) ** 3

    inside, among, between = (kernel(features, features), kernel(real, real),
                              kernel(features, real))
    np.fill_diagonal(inside, 0)
    np.fill_diagonal(among, 0)

    def discrepancy(chosen: Array, others: Array) -> float:
        m, n = chosen.sum(), others.sum()
        return float(chosen @ inside @ chosen / (m * (m - 1)) + others @ among @ others
                     / (n * (n - 1)) - 2 * (chosen @ between @ others) / (m * n))

    rng = np.random.default_rng(seed)
    halves = [discrepancy(_half(rng, len(features)), _half(rng, len(real)))
              for _ in range(HALVES)]
    value = discrepancy(np.ones(len(features)), np.ones(len(real)))
    reach = NormalDist().inv_cdf(1 - ALPHA / 2) * float(np.std(halves, ddof=1))
    return SetValue("kid", 1000 * value, 1000 * (value - reach), 1000 * (value + reach),
                    len(features), len(real), 0.0)


def _half(rng: np.random.Generator, count: int) -> Array:
    chosen = np.zeros(count)
    chosen[rng.choice(count, count // 2, replace=False)] = 1
    return chosen


def manifold(features: Array, real: Array, neighbours: int = NEIGHBOURS) -> dict[str, SetValue]:
    """Precision and recall (Kynkäänniemi et al. 2019, arXiv:1904.06991), density and coverage
    (Naeem et al. 2020, arXiv:2002.09797): which pictures lie within the distance of others to
    their `neighbours`-th neighbour of the own set. Intervals are Wilson's, density's a normal
    one."""
    check_counts("coverage", len(features), len(real))
    features, real = _scaled(real, features, real)
    across = _distances(features, real)  # (pictures, real)
    of_real = _radii(real, neighbours)
    of_pictures = _radii(features, neighbours)
    within = across <= of_real[None]
    pictures, reals = len(features), len(real)
    depth = within.sum(axis=1) / neighbours
    spread = NormalDist().inv_cdf(1 - ALPHA / 2) * float(depth.std(ddof=1)) / math.sqrt(pictures)
    density = float(depth.mean())
    return {
        "precision": _share("precision", within.any(axis=1), pictures, reals),
        "recall": _share("recall", (across <= of_pictures[:, None]).any(axis=0), pictures, reals),
        "density": SetValue("density", density, density - spread, density + spread, pictures,
                            reals, 1.0),
        # Naeem et al., equation 9, for as many pictures as real ones
        "coverage": _share("coverage", within.any(axis=0), pictures, reals,
                           _expected_coverage(pictures, reals, neighbours)),
    }


def copies(features: Array, training: Array, held_out: Array) -> tuple[SetValue, Array, Array]:
    """The share of pictures that lie nearer to their nearest training picture than all but 1 % of
    real pictures that are not of the training do; and each picture's nearest training picture, as
    number and distance."""
    check_counts("copies", len(features), min(len(training), len(held_out)))
    features, training, held_out = _scaled(training, features, training, held_out)
    usual = np.quantile(_distances(held_out, training).min(axis=1), NEAR)
    away = _distances(features, training)
    nearest = away.min(axis=1)
    share = _share("copies", nearest < usual, len(features), len(training), NEAR)
    return share, away.argmin(axis=1), nearest


def _share(measure: str, hits: Array, pictures: int, real: int,
           expected: float | None = None) -> SetValue:
    """A share with Wilson's interval (1927)."""
    count, share = len(hits), float(np.mean(hits))
    z = NormalDist().inv_cdf(1 - ALPHA / 2)
    middle = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    reach = z / (1 + z**2 / count) * math.sqrt(share * (1 - share) / count
                                               + z**2 / (4 * count**2))
    return SetValue(measure, share, max(0.0, middle - reach), min(1.0, middle + reach), pictures,
                    real, expected)


def _expected_coverage(pictures: int, real: int, neighbours: int) -> float:
    """The probability that one of `pictures` of the same distribution lies nearer than the k-th of
    real - 1 others: 1 - product over i < k of (real - 1 - i) / (real - 1 + pictures - i)."""
    missed = 1.0
    for place in range(neighbours):
        missed *= (real - 1 - place) / (real - 1 + pictures - place)
    return 1 - missed


def _scaled(real: Array, *sets: Array) -> list[Array]:
    """Sets with each feature in standard deviations of the real set from its mean, so that none
    decides by its unit."""
    spread = real.std(axis=0)
    return [(rows - real.mean(axis=0)) / np.where(spread > 0, spread, 1) for rows in sets]


def _distances(a: Array, b: Array) -> Array:
    squares = (a**2).sum(1)[:, None] + (b**2).sum(1)[None] - 2 * a @ b.T
    return np.sqrt(np.maximum(squares, 0))


def _radii(features: Array, neighbours: int) -> Array:
    """Each row's distance to its k-th neighbour, itself not counted."""
    return np.partition(_distances(features, features), neighbours, axis=1)[:, neighbours]
