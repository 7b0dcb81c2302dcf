"""Paired differences with intervals, over prompts as clusters. numpy, nothing else.

The two methods of a pair paint the same prompts from the same noise, so what is compared is the
difference of each pair of pictures. Seeds of one prompt are alike, prompts are drawn from what
people write: a prompt is the unit that is drawn again, with all of its seeds.

Where all that was planned is there, the interval is a symmetric bootstrap-t one (Hall 1988, "On
symmetric bootstrap confidence intervals"), whose resamples give the p-value too. Where somebody
looked on and could stop, it is a confidence sequence for a mean of unknown variance (Wang and
Ramdas 2023, arXiv:2310.03722; a mixture over effect sizes, Lai 1976): it holds at every number of
prompts at once, and its p-value is one over the evidence.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
NORMAL = NormalDist()

ALPHA = 0.05  # of false verdicts, over all pairs that are adjusted together
POWER = 0.8
FEWEST_PROMPTS = 8  # below, nothing is told apart
RESAMPLES = 19_999
EXPECTED_EFFECT = 0.4  # standard deviations; where the confidence sequence is about the narrowest


@dataclass(frozen=True)
class Estimate:
    """The mean difference `a - b` of one pair of methods, its 95 % interval and its p-value.

    `low` and `high` are infinite where a confidence sequence has no bound yet. `pairs` of pictures
    over `prompts`; `error` is the standard error. `wins`, `ties` and `losses` count pairs by the
    sign of the difference.
    """

    difference: float
    low: float
    high: float
    p: float
    error: float
    pairs: int
    prompts: int
    wins: int
    ties: int
    losses: int


def compare(differences: ArrayLike, smallest: float = 0.0, sequential: bool = False,
            seed: int = 0) -> list[Estimate | None]:
    """An estimate for each of several tables of differences; None where one is empty.

    `differences` has the shape (tables, prompts, seeds), NaN where there is no pair. `smallest`: a
    difference no larger is none; the p-value is of the hypothesis that the true one is within it.
    `sequential`: intervals and p-values that hold although somebody may stop at any prompt.
    """
    table = np.asarray(differences, dtype=float)
    sums, counts, means, errors = _by_prompt(table)
    draws = None if sequential else np.abs(_resampled(sums, counts, means, errors, seed))
    estimates: list[Estimate | None] = []
    for number, values in enumerate(table):
        prompts = int((counts[:, number] > 0).sum())
        if not prompts:
            estimates.append(None)
            continue
        mean, error = means[number], errors[number]
        beyond = max(abs(mean) - smallest, 0.0)
        if prompts < 2:
            half, p = math.inf, 1.0
        elif draws is None:
            half = error * sequence_width(prompts)
            p = sequence_p(beyond, error, prompts)
        else:
            half, p = _bootstrap(beyond, error, draws[:, number])
        estimates.append(_estimate(values, float(mean), float(mean - half), float(mean + half),
                                   float(p), float(error), prompts))
    return estimates


def one_sided(differences: ArrayLike, reach: float = 0.0,
              seed: int = 0) -> list[Estimate | None]:
    """An estimate for each of several tables of differences, shape (tables, prompts, seeds), with
    two one-sided 95 % bounds as its interval; None where one is empty.

    Together the bounds are a 90 % interval: it lies within a margin just where two one-sided tests
    (Schuirmann 1987) at 5 % say so. They are equal-tailed bootstrap-t bounds (Efron 1981), since
    one-sided tests feel skewness. `reach`: how far one pair can lie from another, for a measure of
    few values such as a share. What happens to fewer than 1 - 0.05^(1/prompts) of all prompts may
    be seen in none of them, so no bound is nearer to the mean than that share of `reach`. `p` is
    not worked out: it is 1.
    """
    table = np.asarray(differences, dtype=float)
    sums, counts, means, errors = _by_prompt(table)
    ends = np.quantile(_resampled(sums, counts, means, errors, seed), (ALPHA, 1 - ALPHA), axis=0)
    estimates: list[Estimate | None] = []
    for number, values in enumerate(table):
        prompts = int((counts[:, number] > 0).sum())
        if not prompts:
            estimates.append(None)
            continue
        mean, error = float(means[number]), float(errors[number])
        unseen = reach * (1 - ALPHA ** (1 / prompts)) if prompts > 1 else math.inf
        below, above = (max(unseen, error * float(end)) for end in (ends[1, number],
                                                                    -ends[0, number]))
        estimates.append(_estimate(values, mean, mean - below, mean + above, 1.0, error, prompts))
    return estimates


def _estimate(values: Array, mean: float, low: float, high: float, p: float, error: float,
              prompts: int) -> Estimate:
    signs = np.sign(values[np.isfinite(values)])
    return Estimate(mean, low, high, p, error, signs.size, prompts,
                    *(int((signs == sign).sum()) for sign in (1, 0, -1)))


def prompts_to_decide(estimate: Estimate, margin: float, reach: float = 0.0) -> int | None:
    """Prompts with which 80 of 100 tests would tell on which side of the margin a true difference
    of the size that was seen lies; None where it lies on the margin."""
    room = abs(margin - abs(estimate.difference))
    if not room or estimate.prompts < 2:
        return None
    z = NORMAL.inv_cdf(1 - ALPHA) + NORMAL.inv_cdf(POWER)
    unseen = math.log(ALPHA) / math.log1p(-room / reach) if room < reach else 0.0
    count = max(estimate.prompts * (z * estimate.error / room) ** 2, unseen, FEWEST_PROMPTS)
    return math.ceil(count - 1e-9)


def _by_prompt(table: Array) -> tuple[Array, Array, Array, Array]:
    """Sums and counts by prompt, shape (prompts, tables), and means with standard errors."""
    there = np.isfinite(table)
    sums = np.where(there, table, 0.0).sum(axis=2).T
    counts = there.sum(axis=2).T.astype(float)
    means, errors = _ratio(sums, counts, np.ones((1, len(sums))))
    return sums, counts, means[0], errors[0]


def _ratio(sums: Array, counts: Array, weights: Array) -> tuple[Array, Array]:
    """Mean of the pairs and its standard error, with prompts counted `weights` times.

    A ratio of sums over prompts, linearised (Cochran 1977, chapter 6): prompts may have different
    numbers of pairs. Shapes (draws, prompts) for weights, (draws, tables) for what comes back.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        total = weights @ counts
        means = (weights @ sums) / total
        squares = (weights @ sums**2 - 2 * means * (weights @ (sums * counts))
                   + means**2 * (weights @ counts**2))
        prompts = weights @ (counts > 0)
        scale = (weights @ sums**2) * np.finfo(float).eps * len(sums)  # what rounding leaves
        squares = np.where(squares > scale, squares, 0.0)
        errors = np.sqrt(squares * prompts / np.maximum(prompts - 1, 1)) / total
    return means, errors


def _resampled(sums: Array, counts: Array, means: Array, errors: Array, seed: int) -> Array:
    """t of each resample of prompts, shape (RESAMPLES, tables)."""
    generator = np.random.default_rng(seed)
    prompts = len(sums)
    t = np.empty((RESAMPLES, sums.shape[1]))
    for start in range(0, RESAMPLES, 1000):
        count = min(1000, RESAMPLES - start)
        weights = generator.multinomial(prompts, np.full(prompts, 1 / prompts), count)
        drawn, spread = _ratio(sums, counts, weights.astype(float))
        # A resample of equal values has no spread of its own: it takes that of the sample.
        spread = np.where(spread > 0, spread, errors)
        with np.errstate(invalid="ignore", divide="ignore"):
            t[start:start + count] = (drawn - means) / spread
    return np.where(np.isnan(t), 0.0, t)  # without any spread all resamples agree


def _bootstrap(beyond: float, error: float, draws: Array) -> tuple[float, float]:
    """Half of the interval's width, and the p-value."""
    if error == 0:
        return 0.0, 1 / (len(draws) + 1) if beyond > 0 else 1.0
    rank = math.ceil((1 - ALPHA) * (len(draws) + 1)) - 1
    width = np.partition(draws, rank)[rank]
    reached = np.count_nonzero(draws >= beyond / error * (1 - 1e-9))
    return error * width, (1 + reached) / (len(draws) + 1)


def sequence_width(prompts: int, alpha: float = ALPHA) -> float:
    """Half the width of the confidence sequence, in standard errors; infinite for few prompts."""
    spread = 1 + prompts * EXPECTED_EFFECT**2
    ratio = (math.sqrt(spread) / alpha) ** (2 / prompts)
    if ratio >= spread:
        return math.inf
    return math.sqrt((prompts - 1) * (ratio - 1) / (1 - ratio / spread))


def sequence_p(difference: float, error: float, prompts: int) -> float:
    """The p-value that holds at any stopping time: one over the Bayes factor of a t-test with a
    normal prior on the effect size, which is a test martingale of the t statistics."""
    if difference == 0 or prompts < 2:
        return 1.0
    spread = 1 + prompts * EXPECTED_EFFECT**2
    if error == 0:
        log_factor = (prompts - 1) / 2 * math.log(spread)  # the limit for ever smaller errors
    else:
        x = (difference / error) ** 2 / (prompts - 1)
        log_factor = prompts / 2 * (math.log1p(x) - math.log1p(x / spread))
        log_factor -= math.log(spread) / 2
    return min(1.0, math.exp(-log_factor))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values (Holm 1979): with those below alpha rejected, the chance of one false
    rejection or more is at most alpha."""
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, number in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p_values[number]))
        adjusted[number] = largest
    return adjusted


def told_apart(estimate: Estimate, adjusted_p: float) -> bool:
    """Whether the two methods of an estimate differ, by its p-value after adjustment."""
    return estimate.prompts >= FEWEST_PROMPTS and adjusted_p <= ALPHA


def needed_pairs(estimate: Estimate, comparisons: int, smallest: float = 0.0) -> int | None:
    """Pairs with which a true difference of the size that was seen would be told apart in 80 of 100
    studies, where `comparisons` are adjusted together; None where no number would do."""
    beyond = abs(estimate.difference) - smallest
    if beyond <= 0 or estimate.prompts < 2:
        return None
    each = estimate.pairs / estimate.prompts
    ratio = (_quantiles(comparisons) * estimate.error / beyond) ** 2
    prompts = max(FEWEST_PROMPTS, math.ceil(estimate.prompts * ratio - 1e-9))
    return math.ceil(prompts * each - 1e-9)


def smallest_effect(prompts: int, seeds: int, correlation: float, comparisons: int) -> float:
    """The difference, in standard deviations of a single pair, that a study finds with 80 %
    probability; `correlation` is that of the differences of two seeds of one prompt."""
    variance = (1 + (seeds - 1) * correlation) / (prompts * seeds)
    # The t-distribution's wider quantile, by its first correction (Cornish and Fisher 1938).
    z = _quantiles(comparisons)
    return z * math.sqrt(variance) * (1 + NORMAL.inv_cdf(_level(comparisons)) ** 2
                                      / (4 * max(prompts - 1, 1)))


def win_rate_of(effect: float) -> float:
    """The win rate of a method that is better by `effect` standard deviations, where differences
    are distributed normally."""
    return NORMAL.cdf(effect)


def _level(comparisons: int) -> float:
    return 1 - ALPHA / (2 * max(comparisons, 1))


def _quantiles(comparisons: int) -> float:
    return NORMAL.inv_cdf(_level(comparisons)) + NORMAL.inv_cdf(POWER)


def correlation_within(differences: ArrayLike) -> float | None:
    """How alike the differences of two seeds of one prompt are: the intraclass correlation (one-way
    analysis of variance), 0 to 1. `differences`: (prompts, seeds); None where it cannot be told."""
    table = np.asarray(differences, dtype=float)
    table = table[np.isfinite(table).all(axis=1)]
    prompts, seeds = table.shape
    if prompts < 2 or seeds < 2:
        return None
    between = seeds * table.mean(axis=1).var(ddof=1)
    within = table.var(axis=1, ddof=1).mean()
    total = between + (seeds - 1) * within
    return float(np.clip((between - within) / total, 0, 1)) if total > 0 else None


def outlying(differences: ArrayLike, beyond: float = 3.5) -> list[int]:
    """The numbers of prompts whose mean difference is far from the others', the farthest first:
    more than `beyond` of the median absolute deviation (Iglewicz and Hoaglin 1993)."""
    table = np.asarray(differences, dtype=float)
    there = np.isfinite(table).any(axis=1)
    means = np.full(len(table), np.nan)
    means[there] = np.nanmean(table[there], axis=1)
    away = np.abs(means - np.nanmedian(means)) if there.any() else means
    scale = np.nanmedian(away) / 0.6745 if there.any() else 0.0
    if not scale > 0:
        return []
    far = [int(n) for n in np.flatnonzero(there) if away[n] / scale > beyond]
    return sorted(far, key=lambda number: -away[number])
