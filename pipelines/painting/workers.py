"""Rows of a batch computed side by side on the CPU: threads over rows, not inside layers.

Torch's own threads wait for each other at the end of every layer. Beside another busy program each
of these waits costs a time slice of the system, and a call takes three to five times as long. Parts
of a batch, a thread each, wait once per call. For a call with fewer rows than cores, threads inside
layers may still be faster: both are timed, see `networks.py`.
"""

from __future__ import annotations

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
    """What can be tried for a call of so many rows; first the one that waits least."""
    count = cores()
    parts = min(rows, count)
    tried = [Plan(parts, max(1, count // parts)), Plan(1, count)]
    if rows == 1:
        tried.insert(0, Plan(1, 1))
    return list(dict.fromkeys(tried))


def compute(work: Callable[[Any], Any], parts: Sequence[Any], threads: int) -> list[Any]:
    """`work` on each part, side by side, with so many torch threads each and without gradients."""
    global _pool
    try:
        if len(parts) == 1:
            torch.set_num_threads(threads)
            return [work(parts[0])]
        if _pool is None:
            _pool = ThreadPoolExecutor(cores(), thread_name_prefix="contact-sheet-rows")

        def one(part: Any) -> Any:
            torch.set_num_threads(threads)  # holds for the thread that calls it
            with torch.no_grad():  # so does this
                return work(part)

        return list(_pool.map(one, parts))
    finally:
        torch.set_num_threads(cores())  # what threads that start later begin with
