"""What charts of some runs show: only what was measured, each value with how it was.

A time is one of three that must not be mixed up: of the run as it was made, alone; a share, where
it shared its network calls with others, so that it tells how busy the batch was; or the median of
repeats that were timed apart, after warm-up.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from pipelines.axes import label
from pipelines.log_tables import Run
from pipelines.run_log import TimingSummary

ALONE, SHARE, APART = "as it was made", "share of a batch", "timed apart, median"
HOW = (ALONE, SHARE, APART)


def step_times(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """A record for each step of each run: `step` from 1, `ms`."""
    return [{**_run(run), "step": step, "ms": ms, "how": SHARE if run.shared else ALONE}
            for run in _made(runs) for step, ms in enumerate(run.step_ms, 1)]


def times_by_nfe(
    runs: Sequence[Run], timings: Mapping[int, TimingSummary]
) -> list[dict[str, Any]]:
    """A record for each time of a whole picture: `nfe`, `ms` and, where it was timed apart
    (`timings`, by source run), `ms_low` and `ms_high`, the least and the most of its repeats."""
    records = []
    for run in _made(runs):
        if run.nfe is None:
            continue
        if run.total_ms is not None:
            records.append({**_run(run), "ms": run.total_ms, "ms_low": None, "ms_high": None,
                            "repeats": 1, "how": SHARE if run.shared else ALONE})
        if timed := timings.get(run.source_id):
            records.append({**_run(run), "ms": timed.median_ms, "ms_low": timed.low_ms,
                            "ms_high": timed.high_ms, "repeats": timed.repeats, "how": APART})
    return records


def peak_memory(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """A record for each run whose memory was seen: `mib`, and of what it is the peak."""
    records = []
    for run in _made(runs):
        if run.peak_memory_bytes:
            on_cuda = (run.device or "").startswith("cuda")
            what = "allocated on the GPU" if on_cuda else "the whole process"
            records.append({**_run(run), "mib": run.peak_memory_bytes / 2**20,
                            "what": f"{what}, during a batch" if run.shared else what})
    return records


def _made(runs: Sequence[Run]) -> list[Run]:
    return [run for run in runs if run.status == "ok" and not run.damage]


def _run(run: Run) -> dict[str, Any]:
    return {"run_id": run.id, "name": f"run {run.id}", "scheduler": label("scheduler",
                                                                          run.scheduler),
            "steps": run.num_inference_steps, "nfe": run.nfe,
            "step_ms_median": statistics.median(run.step_ms) if run.step_ms else None}
