"""Rows of a batch computed side by side on the CPU: threads over rows, not inside layers.

Torch's own threads wait for each other at the end of every layer. Beside another busy program each
of these waits costs a time slice of the system, and a call takes three to five times as long. Parts
of a batch, a thread each, wait once per call. For a call with few rows threads inside layers may
still be faster on a quiet machine: the ways are timed, see `Pace`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch

from pipelines.hardware import cores

_pool: ThreadPoolExecutor | None = None


@dataclass(frozen=True)
class Plan:
    """How a call is spread over the cores: so many parts at once, so many torch threads each."""

    parts: int
    threads: int


def plans(rows: int) -> list[Plan]:
    """The ways to spread a call of so many rows; the last one has all threads inside layers."""
    count = cores()
    parts = min(rows, count)
    ways = [Plan(parts, max(1, count // parts)), Plan(1, count)]
    if rows < 2 * count:
        ways.insert(1, Plan(1, 1))
    return list(dict.fromkeys(ways))


class Pace:
    """How long each way to spread a call took, in seconds a row; tells which to take next.

    Each way is tried SAMPLES times; then the first of `ways` that can be as fast as the fastest is
    taken, unless it was CLEARLY slower lately than another: beside a busy program threads inside
    layers become several times slower. What is not taken is slowly thought to be as fast again as
    it was at its best, so it is tried again when the machine may be quiet.
    """

    SAMPLES = 3
    EQUAL = 1.05  # a way this much slower than the fastest counts as fast
    CLEARLY = 1.5  # smaller differences between single calls are noise
    FORGETTING = 0.98  # of what a way was slower than its best, kept per call

    def __init__(self, ways: Sequence[Plan]) -> None:
        self.samples = dict.fromkeys(ways, 0)
        self.best: dict[Plan, float] = {}
        self.recent: dict[Plan, float] = {}

    def took(self, plan: Plan, seconds: float) -> None:
        for other, best in self.best.items():
            self.recent[other] = best + self.FORGETTING * (self.recent[other] - best)
        self.samples[plan] += 1
        self.best[plan] = min(seconds, self.best.get(plan, seconds))
        self.recent[plan] = (self.recent.get(plan, seconds) + seconds) / 2

    @property
    def next(self) -> Plan:
        least = min(self.samples, key=self.samples.get)
        fastest = min(self.best.values(), default=0)
        if self.samples[least] < self.SAMPLES and self.best.get(least, 0) <= 2 * fastest:
            return least
        usual = next(plan for plan in self.samples
                     if self.best.get(plan, math.inf) <= self.EQUAL * fastest)
        other = min(self.recent, key=self.recent.get)
        return usual if self.recent[usual] <= self.CLEARLY * self.recent[other] else other


def compute(work: Callable[[Any], Any], parts: Sequence[Any], threads: int) -> list[Any]:
    """`work` on each part, side by side, with so many torch threads each and without gradients."""
    global _pool
    try:
        if len(parts) == 1:
            torch.set_num_threads(threads)
            return [work(parts[0])]
        if _pool is None:
            _pool = ThreadPoolExecutor(cores(), thread_name_prefix="contact-sheet-rows")

        def run_part(part: Any) -> Any:
            torch.set_num_threads(threads)  # holds for the thread that calls it
            with torch.no_grad():  # so does this
                return work(part)

        return list(_pool.map(run_part, parts))
    finally:
        torch.set_num_threads(cores())  # what threads that start later begin with
