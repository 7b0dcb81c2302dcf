"""Timings per stage, taken without waiting for the device until the run is over."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from typing import Any


class Clock:
    """Marks on the device's own time line: events on CUDA and MPS, the wall clock on the CPU."""

    def __init__(self, device: str) -> None:
        self.kind = device.split(":")[0]
        if self.kind == "cuda":
            import torch

            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()

    def mark(self) -> Any:
        if self.kind == "cpu":
            return time.perf_counter()
        import torch

        module = torch.cuda if self.kind == "cuda" else torch.mps.event
        event = module.Event(enable_timing=True)
        event.record()
        return event

    def finish(self) -> None:
        """Wait once, after the last mark."""
        if self.kind == "cpu":
            return
        import torch

        (torch.cuda if self.kind == "cuda" else torch.mps).synchronize()

    def ms(self, start: Any, end: Any) -> float:
        """Milliseconds between two marks; call finish() first."""
        return (end - start) * 1000 if self.kind == "cpu" else start.elapsed_time(end)


class MemoryWatch:
    """The largest memory seen during a run, in bytes.

    CUDA: what torch allocated at its peak. Elsewhere: the process's resident set, looked at once
    per stage and step, at most every LOOK_S, so short peaks inside a step can be missed.
    """

    LOOK_S = 0.05  # a look costs 0.1 ms

    def __init__(self, device: str) -> None:
        import psutil

        self.cuda = device.startswith("cuda")
        self._process = psutil.Process()
        self._peak = 0
        self._next = 0.0

    def look(self) -> None:
        if not self.cuda and time.perf_counter() >= self._next:
            self._next = time.perf_counter() + self.LOOK_S
            self._peak = max(self._peak, self._process.memory_info().rss)

    def peak_bytes(self) -> int:
        if self.cuda:
            import torch

            return torch.cuda.max_memory_allocated()
        self._next = 0.0
        self.look()
        return self._peak


@dataclass(frozen=True)
class Timings:
    """Milliseconds of one picture. `load` and `warm_up` are paid once and not part of `total`;
    `steps` holds one value per scheduler step; previews are left out of steps and total. A provider
    tells of no stages, there they are None."""

    text_encoding: float | None
    denoising: float | None
    decoding: float | None
    total: float
    steps: tuple[float, ...] = field(default=())
    load: float = 0.0
    warm_up: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        return {k: [round(x, 3) for x in v] if k == "steps" else v if v is None else round(v, 3)
                for k, v in asdict(self).items()}