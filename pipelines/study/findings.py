"""What a study found: its pairs of methods, what can be told apart, and the sentence for each."""

from __future__ import annotations

import functools
import math
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.study.design import Study
from pipelines.study.measures import MEASURES
from pipelines.study.statistics import (
    FEWEST_PROMPTS,
    Array,
    Estimate,
    compare,
    holm,
    needed_pairs,
    outlying,
    told_apart,
)
from pipelines.study.values import LiveStudy, Values

if TYPE_CHECKING:
    from pipelines.engine import Engine

SHOWN_OUTLIERS = 6
SHOWN_PROBLEMS = 5  # of users' functions, a line for each picture
# The keys of a pair in JSON, in their order.
JSON_KEYS = ("a", "b", "measure", "difference", "low", "high", "n", "win_rate", "distinguishable",
             "needed", "sentence")


@dataclass(frozen=True)
class Pair:
    """Two methods and a measure: `difference` is a minus b, the mean of `n` paired differences,
    with its 95 % interval (None where a bound is not known yet). `win_rate`: the share of pairs in
    which a is better, a tie counting half. `distinguishable`: after adjustment. `needed`: pairs
    that would tell a difference of this size, None where no number would."""

    a: str
    b: str
    measure: str
    difference: float
    low: float | None
    high: float | None
    n: int
    win_rate: float
    distinguishable: bool
    needed: int | None
    sentence: str
    prompts: int
    ties: int
    p: float
    p_adjusted: float
    category: str = ""

    def as_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in JSON_KEYS}


@dataclass(frozen=True)
class Outlier:
    """A prompt whose mean difference lies far from the others', for a pair of methods."""

    prompt: int
    a: int
    b: int
    measure: str
    difference: float


@dataclass(frozen=True)
class Findings:
    """`sequential`: intervals and verdicts hold although somebody looked on and could stop.
    `notes` say what was dropped, failed or could not be known."""

    values: Values
    pairs: tuple[Pair, ...]
    by_category: tuple[Pair, ...]
    outliers: tuple[Outlier, ...]
    sequential: bool
    floor: float
    notes: tuple[str, ...]

    @property
    def study(self) -> Study:
        return self.values.study

    @property
    def decided(self) -> bool:
        """Whether all methods are told apart in the first measure."""
        first = [pair for pair in self.pairs if pair.measure == self.study.measures[0]]
        return len(first) == len(self.study.pairs) and all(p.distinguishable for p in first)

    def as_json(self) -> dict[str, Any]:
        """The object that `study --json` prints."""
        study = self.study
        return {"study_id": study.id, "methods": list(study.methods),
                "prompts": [prompt.text for prompt in study.prompts], "seeds": list(study.seeds),
                "pairs": [pair.as_json() for pair in self.pairs]}

    def records(self) -> list[dict[str, Any]]:
        """All that was worked out of each pair, those of categories too."""
        return [asdict(pair) for pair in (*self.pairs, *self.by_category)]


def analyse(values: Values, floor: float = 0.0, sequential: bool | None = None) -> Findings:
    """What the values say. Intervals are those of a fixed number of prompts only where all cells
    that were planned are there and nobody could have stopped before."""
    study = values.study
    if sequential is None:
        sequential = study.stop_when_decided or not values.complete
    pairs = _pairs(values, range(len(study.prompts)), floor, sequential, [""])
    categories = sorted({prompt.category for prompt in study.prompts if prompt.category})
    by_category = _pairs(values, range(len(study.prompts)), floor, sequential, categories) \
        if len(categories) > 1 else ()
    return Findings(values, pairs, by_category, _outliers(values), sequential, floor,
                    _notes(values, sequential))


class WatchedStudy:
    """A study as it grows, for those who look again and again: worked out anew only where the log
    has something new; safe for threads."""

    def __init__(self, engine: Engine, study: Study) -> None:
        self._live, self._lock = LiveStudy(engine, study), threading.Lock()
        self._findings: Findings | None = None

    def look(self) -> Findings:
        """What the log holds by now; the same object while that is the same."""
        with self._lock:
            values = self._live.look()
            if self._findings is None or self._findings.values is not values:
                self._findings = analyse(values, self._live.floor())
            return self._findings


def paired(values: Values, measure: str, a: int, b: int) -> Array:
    """a minus b by prompt and seed, NaN where one is missing."""
    table = values.tables[measure]
    return table[a] - table[b]


def _pairs(
    values: Values, prompts: Sequence[int], floor: float, sequential: bool,
    categories: Sequence[str],
) -> tuple[Pair, ...]:
    """One for each category, measure and pair of methods, adjusted together; '' is all prompts."""
    study = values.study
    keys, estimates = [], []
    for category in categories:
        chosen = [n for n in prompts if category in ("", study.prompts[n].category)]
        if category and len(chosen) < FEWEST_PROMPTS:
            continue
        for measure in study.measures:
            smallest = floor if measure == "rms_latents" else 0.0
            tables = np.stack([paired(values, measure, a, b)[chosen] for a, b in study.pairs])
            for pair, estimate in zip(study.pairs, compare(tables, smallest, sequential),
                                      strict=True):
                if estimate:
                    keys.append((category, measure, *pair))
                    estimates.append(estimate)
    adjusted = holm([estimate.p for estimate in estimates])
    return tuple(_pair(study, key, estimate, p, len(estimates), floor)
                 for key, estimate, p in zip(keys, estimates, adjusted, strict=True))


def _pair(
    study: Study, key: tuple[str, str, int, int], estimate: Estimate, p_adjusted: float,
    comparisons: int, floor: float,
) -> Pair:
    category, measure, a, b = key
    known, smallest = MEASURES[measure], floor if measure == "rms_latents" else 0.0
    better = estimate.wins if known.sign > 0 else estimate.losses
    distinguishable = told_apart(estimate, p_adjusted)
    needed = needed_pairs(estimate, comparisons, smallest)
    if needed is not None and not distinguishable:
        needed = max(needed, estimate.pairs + 1)
    low, high = (bound if math.isfinite(bound) else None for bound in (estimate.low, estimate.high))
    pair = Pair(
        study.methods[a], study.methods[b], measure, estimate.difference, low, high, estimate.pairs,
        (better + estimate.ties / 2) / estimate.pairs, distinguishable, needed, "",
        estimate.prompts, estimate.ties, estimate.p, p_adjusted, category)
    return Pair(**{**pair.__dict__, "sentence": sentence(pair, smallest)})


def sentence(pair: Pair, smallest: float = 0.0) -> str:
    """A pair in words. `smallest`: the reference's own error, where the measure has one."""
    known = MEASURES[pair.measure]
    if not pair.distinguishable:
        return f"{pair.a} and {pair.b} cannot be told apart ({known.label}): " \
               f"{_why_not(pair, smallest)}"
    a_wins = pair.difference * known.sign > 0
    winner, loser = (pair.a, pair.b) if a_wins else (pair.b, pair.a)
    bounds = sorted(abs(bound) if pair.low * pair.high > 0 else bound * known.sign
                    * (1 if a_wins else -1) for bound in (pair.low, pair.high)) \
        if pair.low is not None else []
    digits = _digits(pair)
    interval = f"{bounds[0]:.{digits}f} to {bounds[1]:.{digits}f}; " if bounds else ""
    return (f"{winner} {known.wins} {loser} by {abs(pair.difference):.{digits}f}{known.unit} "
            f"({interval}{known.label}), {pair.n} pairs")


def _digits(pair: Pair) -> int:
    """Decimals that show two digits of the interval's width."""
    width = (pair.high or 0) - (pair.low or 0) or abs(pair.difference)
    return max(0, 1 - math.floor(math.log10(width))) if width > 0 else 2


def _why_not(pair: Pair, smallest: float) -> str:
    if pair.prompts < FEWEST_PROMPTS:
        return (f"{pair.prompts} prompt{'s' * (pair.prompts != 1)}, and below {FEWEST_PROMPTS} "
                "nothing is told apart")
    if pair.ties == pair.n:
        return f"they are equal in all {pair.n} pairs"
    if pair.needed is None:
        return (f"their difference is no larger than the reference's own error of {smallest:.2g}"
                if smallest else "on average they do not differ at all")
    return f"at least {_rounded_up(pair.needed):,} pairs would be needed"


def _rounded_up(count: int) -> int:
    """To two digits: the number is an estimate."""
    unit = 10 ** max(0, len(str(count)) - 2)
    return -(-count // unit) * unit


def _outliers(values: Values) -> tuple[Outlier, ...]:
    """Of the first measure."""
    measure = values.study.measures[0]
    seen: dict[int, Outlier] = {}
    for a, b in values.study.pairs:
        differences = paired(values, measure, a, b)
        for prompt in outlying(differences):
            mean = float(np.nanmean(differences[prompt]))
            if prompt not in seen or abs(mean) > abs(seen[prompt].difference):
                seen[prompt] = Outlier(prompt, a, b, measure, mean)
    ordered = sorted(seen.values(), key=lambda outlier: -abs(outlier.difference))
    return tuple(ordered[:SHOWN_OUTLIERS])


def _notes(values: Values, sequential: bool) -> tuple[str, ...]:
    study, notes = values.study, []
    if values.failed:
        notes.append(f"{values.failed} of {values.cells} cells failed; their pairs are left out.")
    if not values.complete:
        notes.append(f"{len(values.runs)} of {values.cells} cells are made.")
    if sequential:
        notes.append("Intervals are confidence sequences: they hold although the study could be "
                     "stopped at any prompt, and are wider for it.")
    if values.unequal_noise:
        notes.append(f"Equal noise: not proven for {len(values.unequal_noise)} of "
                     f"{len(study.prompts)} prompts.")
    notes += values.problems[:SHOWN_PROBLEMS]
    if len(values.problems) > SHOWN_PROBLEMS:
        notes.append(f"{len(values.problems) - SHOWN_PROBLEMS} more pictures could not be measured "
                     "by a user's function.")
    for measure in study.measures:
        table = values.tables[measure]
        there = int(np.isfinite(table).sum())
        if measure == "time":
            if there:
                notes.append("Times are of the first seed of each prompt, each picture made apart "
                             "and in turns.")
            continue
        missing = len(values.runs) - there
        if missing and there:
            why = " (equal pictures have none)" if measure == "psnr" else ""
            notes.append(f"{measure} is missing for {missing} of {len(values.runs)} pictures{why}; "
                         "their pairs are left out.")
        elif missing:
            notes.append(f"{measure} was not measured: "
                         + {"judge": "the judge knows the bundled model's pictures only",
                            "clip_score": "no CLIP is here",
                            "clip_distance": "no CLIP is here"}.get(measure, "nothing was there")
                         + ".")
    return tuple(notes)


@functools.cache
def design_sentence(methods: int, prompts: int, seeds: int) -> str:
    """'3 methods, 60 prompts x 2 seeds: 120 pairs of pictures for each two methods'."""
    return (f"{methods} methods, {prompts} prompts × {seeds} seed{'s' * (seeds != 1)}: "
            f"{prompts * seeds} pairs of pictures for each two methods")
