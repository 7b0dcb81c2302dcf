"""What answers say: strengths, shares and agreement, with intervals. The package evalica computes
the strengths and Krippendorff's alpha; numpy what it has nothing for.

Strengths are those of Bradley and Terry (1952) with ties after Davidson (1970), by the iteration of
Newman (2023). Each method is also given half a win and half a loss against an imagined average one,
so that a method that won or lost every time has a finite strength. The best of four counts as
better than each of the other three, which is consistent for Luce's model of choice (Azari Soufiani
et al. 2013, "Generalized method-of-moments for rank aggregation").

Answers of one voter are alike, and so are those to one prompt. Both are drawn again in turns, with
all of their answers, and the variances added, less that of drawing voter and prompt together
(Cameron, Gelbach and Miller 2011, "Robust inference with multiway clustering"). Where there are
few of one, only the other is drawn, and the interval holds for those few.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.study.statistics import ALPHA, FEWEST_PROMPTS, holm
from pipelines.votes.rows import EQUAL, REPEAT

Array = NDArray[np.float64]

FEWEST_VOTERS = 5  # below, intervals hold for these voters only
RESAMPLES = 400  # of each: prompts, voters, both
FIT = {"tolerance": 1e-7, "limit": 2000}
PRIOR = 0.5  # wins, and losses, against an average method


@dataclass(frozen=True)
class Answer:
    """One answer: `methods` by place, `choice` is a place (from 0), None for a tie. `kind` and
    `repeat_of` as on the ballot; `prompt` and `scene` say what was painted."""

    id: str
    voter: str
    prompt: str
    scene: int
    methods: tuple[int, ...]
    choice: int | None
    kind: str
    repeat_of: str | None = None

    @property
    def chosen(self) -> int | None:
        """The method that was chosen; None for a tie."""
        return None if self.choice is None else self.methods[self.choice]

    @property
    def question(self) -> tuple[int, tuple[int, ...]]:
        """What was asked, whatever the order of the pictures."""
        return self.scene, tuple(sorted(self.methods))


@dataclass(frozen=True)
class Share:
    """`count` of `total`; `low` and `high` bound the share with 95 %."""

    count: int
    total: int
    low: float
    high: float

    @property
    def share(self) -> float:
        return self.count / self.total


@dataclass(frozen=True)
class Strength:
    """The logarithm of a method's strength, with the mean of all at 0."""

    strength: float
    low: float
    high: float


@dataclass(frozen=True)
class Preference:
    """Two methods (numbers): the share of choices that a wins against b by their strengths, with
    its 95 % interval; `wins`, `ties` and `losses` of a were counted. `p` is adjusted over all pairs
    (Holm). `told`: whether they can be told apart."""

    a: int
    b: int
    share: float
    low: float
    high: float
    wins: int
    ties: int
    losses: int
    p: float
    told: bool


@dataclass(frozen=True)
class Alpha:
    """Krippendorff's alpha over `units` that two voters or more answered; 1 is full agreement, 0
    what chance gives. No interval where all answers are the same."""

    alpha: float
    low: float | None
    high: float | None
    units: int


class Estimator:
    """Intervals for one set of answers."""

    def __init__(self, answers: Sequence[Answer], seed: int = 0) -> None:
        self.answers = answers
        self.prompts = len({answer.prompt for answer in answers})
        self.voters = len({answer.voter for answer in answers})
        self._generator = np.random.default_rng(seed)
        factors = []
        if self.prompts >= FEWEST_PROMPTS:
            factors.append(_numbered([answer.prompt for answer in answers]))
        if self.voters >= FEWEST_VOTERS:
            factors.append(_numbered([answer.voter for answer in answers]))
        self.drawn = bool(factors)
        """Whether prompts or voters are drawn again; else each answer is, for itself."""
        levels = [int(factor.max()) + 1 for factor in factors] or [max(len(answers), 2)]
        if len(factors) == 2:
            factors.append(_numbered(list(zip(factors[0], factors[1], strict=True))))
        self._weights = [self._draw(factor)
                         for factor in factors or [np.arange(len(answers))]]
        self.quantile = _t_quantile(min(levels) - 1)

    def _draw(self, factor: NDArray[np.int64]) -> Array:
        """How often each answer is there in each resample of a factor; (resamples, answers)."""
        count = int(factor.max(initial=-1)) + 1
        if not count:
            return np.zeros((RESAMPLES, 0))
        drawn = self._generator.multinomial(count, np.full(count, 1 / count), RESAMPLES)
        return drawn[:, factor].astype(float)

    def variance(self, statistic: Callable[[Array], Array],
                 spread: Callable[[Array], Array] = np.nanstd) -> Array:
        """Of what `statistic` makes of weights of the answers: (resamples, answers) to (resamples,
        values), NaN where a resample has no value. `spread` is the standard deviation over the
        first axis, or what stands for it."""
        parts = [spread(statistic(weights), axis=0) ** 2 for weights in self._weights]
        if len(parts) == 1:
            return parts[0]
        prompts, voters, both = parts
        return np.maximum(prompts + voters - both, np.maximum(prompts, voters))

    def share(self, yes: Sequence[bool | None]) -> Share | None:
        """The share of answers for which `yes` is true among those for which it is not None. An
        interval of Wilson's (1927), for as many answers as the spread is worth."""
        counted = np.array([value is not None for value in yes], dtype=float)
        true = np.array([bool(value) for value in yes], dtype=float)
        total, count = int(counted.sum()), int(true.sum())
        if not total:
            return None

        def ratio(weights: Array) -> Array:
            with np.errstate(invalid="ignore", divide="ignore"):
                return ((weights @ true) / (weights @ counted))[:, None]

        share, worth = count / total, float(total)
        if 0 < count < total and self.drawn:
            variance = float(self.variance(ratio)[0])
            worth = min(worth, share * (1 - share) / variance) if variance > 0 else worth
        middle, half = _wilson(share, max(worth, 1.0), self.quantile if self.drawn else 1.96)
        return Share(count, total, max(0.0, middle - half), min(1.0, middle + half))


def strengths(
    estimator: Estimator, methods: int
) -> tuple[list[Strength], list[Preference], float, int]:
    """The strength of each method, the preference of each two, the strength of ties (Davidson's
    nu), and into how many groups the methods fall that no answer joins."""
    answers = estimator.answers
    met = sorted({pair for answer in answers for pair in itertools.combinations(
        sorted(set(answer.methods)), 2)})
    columns = {pair: number for number, pair in enumerate(met)}
    outcomes = np.zeros((len(answers), len(met), 3))  # a tie, a wins, b wins
    for number, answer in enumerate(answers):
        if answer.kind == EQUAL or answer.kind == REPEAT:
            continue
        for a, b, outcome in duels(answer):
            outcomes[number, columns[a, b], outcome] += 1
    counted = outcomes.sum(axis=0)
    flat = outcomes.reshape(len(answers), 3 * len(met))
    fit = _fitter(met, methods)
    logarithms, nu = fit(counted.ravel())

    pairs = list(itertools.combinations(range(methods), 2))
    first, second = (np.array(side, dtype=int) for side in zip(*pairs, strict=True))

    def differences(weights: Array) -> Array:
        fits = np.stack([fit(row)[0] for row in weights @ flat])
        return np.hstack([fits, fits[:, first] - fits[:, second]])

    errors = np.sqrt(estimator.variance(differences, _central_spread))
    groups = _groups(counted.sum(axis=1), met, methods)
    t = estimator.quantile
    found = [Strength(float(value), float(value - t * error), float(value + t * error))
             for value, error in zip(logarithms, errors[:methods], strict=True)]
    gaps, errors = logarithms[first] - logarithms[second], errors[methods:]
    p = [_p_value(gap, error, t) if groups[a] == groups[b] else 1.0
         for gap, error, (a, b) in zip(gaps, errors, pairs, strict=True)]
    preferences = []
    for number, ((a, b), adjusted) in enumerate(zip(pairs, holm(p), strict=True)):
        share, low, high = (_logistic(gaps[number] + side * t * errors[number])
                            for side in (0, -1, 1))
        tied, wins, losses = (int(counted[columns[a, b], outcome]) if (a, b) in columns else 0
                              for outcome in range(3))
        preferences.append(Preference(a, b, share, low, high, wins, tied, losses, adjusted,
                                      estimator.drawn and adjusted <= ALPHA))
    return found, preferences, nu, len(set(groups))


def duels(answer: Answer) -> list[tuple[int, int, int]]:
    """Two methods in ascending order and 0 for a tie, 1 where the first was preferred, 2 where the
    second was. A tie of four says nothing that counts."""
    if answer.choice is None:
        pair = sorted(answer.methods)
        return [(pair[0], pair[1], 0)] if len(pair) == 2 else []
    winner = answer.chosen
    return [(min(winner, other), max(winner, other), 1 if winner < other else 2)
            for other in answer.methods if other != winner]


def _fitter(
    met: Sequence[tuple[int, int]], methods: int
) -> Callable[[Array], tuple[Array, float]]:
    """What fits the logarithms of strengths, with their mean at 0, and nu to counts of outcomes:
    for each pair that met a tie, a win of the first and one of the second."""
    import evalica
    import pandas

    outcomes = [evalica.Winner.Draw, evalica.Winner.X, evalica.Winner.Y]
    # Each method also meets an average one, which has the last number.
    xs = pandas.Index([a for a, _ in met for _ in outcomes] + [n for n in range(methods)] * 2)
    ys = pandas.Index([b for _, b in met for _ in outcomes] + [methods] * (2 * methods))
    winners = outcomes * len(met) + [outcomes[1]] * methods + [outcomes[2]] * methods
    index, prior = pandas.Index(range(methods + 1)), [PRIOR] * (2 * methods)

    def fit(counts: Array) -> tuple[Array, float]:
        fitted = evalica.newman(xs, ys, winners, index, weights=counts.tolist() + prior, **FIT)
        order = np.argsort(fitted.scores.index.to_numpy())
        scores = np.log(fitted.scores.to_numpy()[order][:methods])
        return scores - scores.mean(), 2 * float(fitted.v)

    return fit


def _groups(counts: Array, met: Sequence[tuple[int, int]], methods: int) -> list[int]:
    """For each method the number of the group that answers join it to."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    joined = [pair for pair, count in zip(met, counts, strict=True) if count]
    first, second = ([pair[side] for pair in joined] for side in (0, 1))
    graph = coo_array((np.ones(len(joined)), (first, second)), shape=(methods, methods))
    return connected_components(graph, directed=False)[1].tolist()


def places(estimator: Estimator, count: int) -> list[Share | None]:
    """The share of choices that fell on each of `count` places."""
    return [estimator.share([None if answer.choice is None else answer.choice == place
                             for answer in estimator.answers]) for place in range(count)]


def ties(estimator: Estimator, equal: bool) -> Share | None:
    """How often the answer was a tie: where one picture was in all places (`equal`), or where
    methods differed."""
    return estimator.share([None if (answer.kind == EQUAL) != equal or answer.kind == REPEAT
                            else answer.choice is None for answer in estimator.answers])


def with_themselves(estimator: Estimator) -> Share | None:
    """How often a voter who was asked again answered the same, wherever the pictures stood."""
    by_id = {answer.id: answer for answer in estimator.answers}

    def same(answer: Answer) -> bool | None:
        first = by_id.get(answer.repeat_of or "") if answer.kind == REPEAT else None
        return None if first is None else first.chosen == answer.chosen

    return estimator.share([same(answer) for answer in estimator.answers])


def with_each_other(answers: Sequence[Answer]) -> tuple[Alpha | None, tuple[int, int] | None]:
    """Krippendorff's alpha, and of how many pairs of answers of two voters to one question (both of
    them choices) how many agree: (agree, all).

    The methods of each question are numbered by chance: in the order of the vote, a first method
    that everybody prefers would make all answers one value, and alpha 0 by its own definition."""
    import evalica
    import pandas

    generator = np.random.default_rng(0)
    table: dict[tuple, dict[str, int]] = {}
    orders: dict[tuple, NDArray[np.int64]] = {}
    for answer in answers:
        if answer.kind not in (EQUAL, REPEAT):
            _, methods = answer.question
            order = orders.setdefault(answer.question, generator.permutation(len(methods)))
            # For two: -1, 0, 1, a tie being between. For more: which one; a tie is one more value.
            value = 0 if answer.chosen is None else int(order[methods.index(answer.chosen)]) + 1
            if len(methods) == 2:
                value = (0, -1, 1)[value]
            table.setdefault(answer.question, {})[answer.voter] = value
    asked_twice = {question: values for question, values in table.items() if len(values) > 1}
    if not asked_twice:
        return None, None
    agree = total = 0
    for values in asked_twice.values():
        for one, other in itertools.combinations(values.values(), 2):
            if one and other:
                total, agree = total + 1, agree + (one == other)
    two = len(next(iter(asked_twice))[1]) == 2
    frame = pandas.DataFrame({number: values for number, values in
                              enumerate(asked_twice.values())})
    options: dict[str, Any] = {"distance": "ordinal" if two else "nominal"}
    result = evalica.alpha(frame, **options)
    low = high = None
    if result.expected > 0:
        drawn = evalica.alpha_bootstrap(frame, **options, n_resamples=2000, random_state=0)
        low, high = drawn.low, drawn.high
    return Alpha(result.alpha, low, high, len(asked_twice)), (agree, total) if total else None


def measure_agreement(
    estimator: Estimator, sign: int, value_of: Callable[[int, int], float | None]
) -> tuple[Share | None, int]:
    """How often the picture that a measure finds better was the one that was chosen, and of how
    many choices the measure finds both equal or has no value. `value_of(scene, method)`; `sign` 1
    where more is better, else -1. Intervals are over what `estimator` draws."""
    marks: list[bool | None] = []
    left_out = 0
    weights_of: list[Answer] = []
    for answer in estimator.answers:
        if answer.kind in (EQUAL, REPEAT):
            continue
        for a, b, outcome in duels(answer):
            if not outcome:
                continue
            one, other = value_of(answer.scene, a), value_of(answer.scene, b)
            if one is None or other is None or one == other:
                left_out += 1
                continue
            marks.append((sign * (one - other) > 0) == (outcome == 1))
            weights_of.append(answer)
    if not marks:
        return None, left_out
    return Estimator(weights_of).share(marks), left_out


def _numbered(values: Sequence[Any]) -> NDArray[np.int64]:
    numbers: dict[Any, int] = {}
    return np.array([numbers.setdefault(value, len(numbers)) for value in values], dtype=np.int64)


def _central_spread(values: Array, axis: int) -> Array:
    """Half the width of the central 68 %: a standard deviation that a few resamples in which a
    method won every time, and is very strong, do not stretch."""
    low, high = np.quantile(values, (0.1587, 0.8413), axis=axis)
    return (high - low) / 2


def _wilson(share: float, total: float, z: float) -> tuple[float, float]:
    """Middle and half width."""
    below = 1 + z * z / total
    half = z / below * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    return (share + z * z / (2 * total)) / below, half


def _t_quantile(freedom: int) -> float:
    from scipy.stats import t

    return float(t.ppf(1 - ALPHA / 2, max(freedom, 1)))


def _p_value(gap: float, error: float, quantile: float) -> float:
    """Two-sided, from the normal distribution stretched to the quantile of the interval, so that
    the two agree: p is below 0.05 where the interval leaves out 0."""
    if error == 0:
        return 1.0 if gap == 0 else 0.0
    return math.erfc(abs(gap) / error * 1.959964 / quantile / math.sqrt(2))


def _logistic(value: float) -> float:
    return 1 / (1 + math.exp(-min(max(value, -700.0), 700.0)))
