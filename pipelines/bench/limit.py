"""The least time that a batch of cells could take: each network's rows at its best pace."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pipelines.models.loaded import LoadedModel
from pipelines.painting.rows import NotRows, Rows
from pipelines.painting.workers import compute, plans

ROWS = (1, 2, 4, 8, 16, 32, 64)
REPEATS, SECONDS = 5, 20  # of one batch size; larger ones are not tried after so long


@dataclass
class _Seen:
    """Calls of one network with the same shapes."""

    name: str
    compute: Callable
    sample: Rows
    rows: int = 0
    row_seconds: float = field(default=math.inf)


def least_seconds(model: LoadedModel, work: Callable[[], Any]) -> tuple[float, str]:
    """Seconds that the networks' calls of `work()` take at their best pace, and how that is told.

    What is between the calls (schedulers, pictures) is left out, so it is a bound.
    """
    seen: dict[Any, _Seen] = {}
    networks = list(model.networks.values())
    for network in networks:
        _count(network, seen)
    try:
        work()
    finally:
        for network in networks:
            delattr(network.owner, network.attribute)
    for calls in seen.values():
        calls.row_seconds = _best_pace(calls)
    total, told = 0.0, []
    for name in dict.fromkeys(calls.name for calls in seen.values()):
        of_name = [calls for calls in seen.values() if calls.name == name]
        seconds = sum(calls.rows * calls.row_seconds for calls in of_name)
        rows = sum(calls.rows for calls in of_name)
        total += seconds
        told.append(f"{rows} rows of {name} x {1000 * seconds / rows:.2f} ms")
    return total, " + ".join(told)


def _count(network: Any, seen: dict[Any, _Seen]) -> None:
    forward = getattr(network.owner, network.attribute)

    def counted(*args: Any, **kwargs: Any) -> Any:
        try:
            rows = Rows.of_call(args, kwargs)
            calls = seen.setdefault((network.name, _kind(rows)),
                                    _Seen(network.name, forward, rows))
            calls.rows += rows.count
        except NotRows:
            pass
        return forward(*args, **kwargs)

    setattr(network.owner, network.attribute, counted)


def _kind(rows: Rows) -> Any:
    """Shapes only: a vector of timesteps counts as a scalar."""
    return tuple(tuple(leaf.value.shape[1:]) for leaf in rows.leaves
                 if leaf.kind == "rows" and leaf.value.ndim > 1)


def _best_pace(calls: _Seen) -> float:
    """The least median of seconds per row, over batch sizes and ways to spread them."""
    import torch

    best, began = math.inf, time.perf_counter()
    with torch.no_grad():
        for count in ROWS:
            rows = calls.sample.select([number % calls.sample.count for number in range(count)])
            for plan in plans(count):
                sizes = [count * (i + 1) // plan.parts - count * i // plan.parts
                         for i in range(plan.parts)]
                parts = rows.split(sizes)
                times = []
                for _ in range(REPEATS):
                    start = time.perf_counter()
                    compute(lambda part: calls.compute(*part.value()[0], **part.value()[1]),
                            parts, plan.threads)
                    times.append(time.perf_counter() - start)
                    if time.perf_counter() - began > SECONDS:
                        break
                best = min(best, statistics.median(times) / count)
            if time.perf_counter() - began > SECONDS:
                break
    return best
