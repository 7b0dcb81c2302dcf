"""What a gate says: a verdict for each criterion, the speed-up, and both in a sentence.

Equality cannot be shown by failing to find a difference, so the question is turned round: a
candidate is equal within a margin where the 90 % interval of its difference lies within it, which
is two one-sided tests at 5 % (Schuirmann 1987). It is worse where the whole interval lies beyond
the margin; else too few prompts were asked. All criteria must be met, so a candidate that is beyond
a margin passes with a probability of 5 % at most, however many criteria there are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pipelines.gate.margins import reach_of
from pipelines.study.measures import MEASURES
from pipelines.study.statistics import (
    FEWEST_PROMPTS,
    Array,
    Estimate,
    compare,
    one_sided,
    prompts_to_decide,
    told_apart,
)

EQUAL, WORSE, BETTER, OPEN = "equal within the margin", "worse", "better", "not decided"
STUMBLE = 3.5  # as for outlying prompts (Iglewicz and Hoaglin 1993)
EXIT_CODES = {EQUAL: 0, WORSE: 1, OPEN: 3}


@dataclass(frozen=True)
class Criterion:
    """One measure: `difference` is candidate minus baseline, its mean over `n` pairs of pictures of
    so many `prompts`, `low` and `high` its 90 % interval, None where there is no bound. `needed`:
    prompts that would decide, where it is not decided; None where no number would."""

    measure: str
    margin: float
    difference: float | None
    low: float | None
    high: float | None
    n: int
    prompts: int
    verdict: str
    needed: int | None
    sentence: str


@dataclass(frozen=True)
class SpeedUp:
    """How many times as fast the candidate is, with a 95 % interval; `shown` where that is more
    than chance, either way."""

    ratio: float
    low: float
    high: float
    n: int
    shown: bool
    sentence: str


@dataclass(frozen=True)
class Verdict:
    """The whole gate; `notes` say what was dropped, failed or could not be known."""

    baseline: str
    candidate: str
    criteria: tuple[Criterion, ...]
    speed_up: SpeedUp | None
    notes: tuple[str, ...] = ()
    study_id: str | None = None

    @property
    def verdict(self) -> str:
        verdicts = {criterion.verdict for criterion in self.criteria}
        if WORSE in verdicts:
            return WORSE
        return EQUAL if verdicts and verdicts <= {EQUAL, BETTER} else OPEN

    @property
    def exit_code(self) -> int:
        return EXIT_CODES[self.verdict]

    @property
    def sentence(self) -> str:
        """Whether the speed-up is free."""
        quality = {EQUAL: "equal within the margins", WORSE: "worse than the margins allow",
                   OPEN: "not decided: more prompts are needed"}[self.verdict]
        speed = self.speed_up.sentence if self.speed_up else "its speed was not measured"
        free = self.verdict == EQUAL and self.speed_up and self.speed_up.shown \
            and self.speed_up.ratio > 1
        return (f"{'Free: ' if free else ''}{self.candidate} against {self.baseline} is {quality}; "
                f"{speed}")

    def as_json(self) -> dict[str, Any]:
        """The object that `gate --json` prints."""
        return {"study_id": self.study_id, "baseline": self.baseline, "candidate": self.candidate,
                "verdict": self.verdict, "sentence": self.sentence,
                "criteria": [asdict(criterion) for criterion in self.criteria],
                "speed_up": self.speed_up and asdict(self.speed_up), "notes": list(self.notes)}


def judge(
    tables: Mapping[str, Array],
    margins: Mapping[str, float],
    complete: bool = True,
) -> tuple[Criterion, ...]:
    """A verdict for each margin. `tables` by measure, shape (2, prompts, seeds), the baseline
    first, NaN where nothing was measured. Where a table is not `complete` nothing is decided:
    somebody may have stopped because of what it showed."""
    return tuple(_criterion(name, margin, tables[name][1] - tables[name][0], complete)
                 for name, margin in margins.items())


def _criterion(name: str, margin: float, differences: Array, complete: bool) -> Criterion:
    reach, sign = reach_of(name), MEASURES[name].sign
    (estimate,) = one_sided([differences], reach)
    if estimate is None:
        return Criterion(name, margin, None, None, None, 0, 0, OPEN, None,
                         f"{MEASURES[name].label}: {OPEN}, nothing was measured")
    worst, best = (estimate.low, estimate.high) if sign > 0 else (-estimate.high, -estimate.low)
    verdict, needed = OPEN, None
    if estimate.prompts >= FEWEST_PROMPTS and complete:
        if worst > -margin:
            verdict = BETTER if worst > margin else EQUAL
        elif best < -margin:
            verdict = WORSE
    if verdict == OPEN:
        needed = prompts_to_decide(estimate, margin, reach)
        needed = needed and max(needed, estimate.prompts + 1)
    low, high = (bound if math.isfinite(bound) else None for bound in (estimate.low, estimate.high))
    criterion = Criterion(name, margin, estimate.difference, low, high, estimate.pairs,
                          estimate.prompts, verdict, needed, "")
    return Criterion(**{**asdict(criterion), "sentence": _sentence(criterion, estimate, complete)})


def _sentence(criterion: Criterion, estimate: Estimate, complete: bool) -> str:
    measure = MEASURES[criterion.measure]
    text = (f"{measure.label}: {criterion.verdict} (margin {criterion.margin:g}{measure.unit}); "
            f"candidate minus baseline is {_number(criterion.difference)}{measure.unit}")
    if criterion.low is not None and criterion.high is not None:
        text += f" ({_number(criterion.low)} to {_number(criterion.high)})"
    text += f", {criterion.n} pairs of {criterion.prompts} prompts"
    if estimate.ties == estimate.pairs:
        text += ", all of them equal"
    if criterion.verdict != OPEN:
        return text
    if not complete:
        return f"{text}; not all cells are made"
    if criterion.prompts < FEWEST_PROMPTS:
        return f"{text}; below {FEWEST_PROMPTS} prompts nothing is decided"
    if criterion.needed is None:
        return f"{text}; it lies on the margin, and no number of prompts would decide"
    return f"{text}; about {criterion.needed:,} prompts would be needed"


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.2g}" if abs(value) < 10 else f"{value:.1f}"


def speed_up(times: Array) -> SpeedUp | None:
    """From milliseconds, shape (2, prompts, seeds), that were taken in turns: the geometric mean of
    the ratios of each pair, over prompts; None where there are none. Two pictures of one prompt
    were made one after the other, so that a slow minute falls on both; where the machine stumbled
    over one of them, their ratio counts no more than STUMBLE median absolute deviations."""
    with np.errstate(invalid="ignore", divide="ignore"):
        logs = np.log(times[0]) - np.log(times[1])
    logs = np.where(np.isfinite(logs), logs, np.nan)
    if np.isfinite(logs).any():
        middle = np.nanmedian(logs)
        room = STUMBLE * np.nanmedian(np.abs(logs - middle)) / 0.6745
        logs = np.clip(logs, middle - room, middle + room)
    (estimate,) = compare([logs])
    if estimate is None:
        return None
    ratio, low, high = (math.exp(value) for value in (
        estimate.difference, max(estimate.low, -700.0), min(estimate.high, 700.0)))
    shown = told_apart(estimate, estimate.p)
    if shown:
        text = f"{ratio:.2f} times as fast ({low:.2f} to {high:.2f})"
    elif estimate.prompts < FEWEST_PROMPTS:
        text = f"its speed is not judged: {estimate.prompts} prompts were timed, accepted from " \
               f"{FEWEST_PROMPTS} on"
    else:
        text = f"a difference in speed is not shown ({low:.2f} to {high:.2f} times as fast)"
    return SpeedUp(ratio, low, high, estimate.pairs, shown, f"{text}, {estimate.pairs} pairs"
                   if estimate.prompts >= FEWEST_PROMPTS else text)

