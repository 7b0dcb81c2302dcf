"""What the timed training stages share: workers, clock, averaged gradients, checkpoints, curves."""

from __future__ import annotations

import contextlib
import csv
import math
import os
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import torch
import torch.distributed as dist
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from pipelines.postcards.optimiser import Optimiser
from pipelines.postcards.settings import say

WARMUP_STEPS = 100
CHECKPOINT_SECONDS = 120
REPORT_SECONDS = 20


def run_workers(worker: Callable, settings, workers: int) -> None:
    """Call worker(rank, settings) in `workers` processes, here if it is one."""
    if workers == 1:
        worker(0, settings)
        return
    meeting_point = settings.work / "rendezvous"
    meeting_point.unlink(missing_ok=True)
    torch.multiprocessing.spawn(
        _join, args=(worker, settings, workers, str(meeting_point)), nprocs=workers
    )


def _join(rank: int, worker: Callable, settings, workers: int, meeting_point: str) -> None:
    if hasattr(os, "setsid"):
        os.setsid()  # Linux weighs sessions against each other, and priorities within one
    with contextlib.suppress(OSError):
        Path("/proc/self/autogroup").write_text("19")
    yield_to_others()
    torch.set_num_threads(1)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group(
        "gloo", init_method=f"file://{meeting_point}", rank=rank, world_size=workers
    )
    worker(rank, settings)
    dist.barrier()
    dist.destroy_process_group()


def yield_to_others() -> None:
    """Give this process a low priority: a training is in no hurry."""
    process = psutil.Process()
    process.nice(psutil.BELOW_NORMAL_PRIORITY_CLASS if psutil.WINDOWS else 10)


def train_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


class Precision:
    """Which of bfloat16 and float32 is faster here, told from the first turns of a stage.

    Only some processors have instructions for bfloat16. On one without them, an AVX2 processor,
    float32 was twelve times as fast.
    """

    TRIALS = 3  # turns in each; the fastest counts, since the first warms up

    def __init__(self) -> None:
        self.seconds: dict[torch.dtype, list[float]] = {torch.float32: [], torch.bfloat16: []}
        self.chosen: torch.dtype | None = None

    @property
    def dtype(self) -> torch.dtype:
        """The precision of this turn: the chosen one, before that each in turn."""
        return self.chosen or min(self.seconds, key=lambda dtype: len(self.seconds[dtype]))

    def record(self, seconds: float) -> bool:
        """Count a turn; whether it was the last one that the choice needs."""
        if self.chosen:
            return False
        self.seconds[self.dtype].append(seconds)
        if min(map(len, self.seconds.values())) < self.TRIALS:
            return False
        self.chosen = min(self.seconds, key=self.best)
        return True

    def best(self, dtype: torch.dtype) -> float:
        """Seconds of the fastest turn."""
        return min(self.seconds[dtype])


class Loop:
    """One stage: `for share in loop` runs until its minutes are over, share going from 0 to 1.

    Each turn calls `update(loss, pictures, **metrics)` once. Time lost between a kill and the
    next start does not count. After the loop the modules hold the moving average.
    """

    def __init__(
        self,
        name: str,
        modules: dict[str, nn.Module],
        work: Path,
        minutes: float,
        learning_rate: float,
        average: float,
        rank: int = 0,
        seed: int = 0,
    ):
        self.name, self.minutes, self.peak, self.rank = name, minutes, learning_rate, rank
        self.average_decay = average
        self.parameters = {
            f"{prefix}.{key}": parameter
            for prefix, module in modules.items()
            for key, parameter in module.named_parameters()
            if parameter.requires_grad
        }
        self.average = {key: p.detach().clone() for key, p in self.parameters.items()}
        self.optimiser = Optimiser(self.parameters)
        self.checkpoint = work / f"{name}.safetensors"
        self.curve = work / f"{name}.csv"
        self.workers = dist.get_world_size() if dist.is_initialized() else 1
        self.parent = os.getppid()
        self.seconds = 0.0
        self.pictures = 0
        self.turns = 0  # of this process
        self.precision = Precision()
        self.metrics: dict[str, list[float]] = defaultdict(list)
        self._restore()
        # A resumed stage goes on with fresh noise, not with the noise that it began with.
        torch.manual_seed(1_000_003 * seed + 1009 * self.optimiser.steps + rank)

    def __iter__(self) -> Iterator[float]:
        start = time.monotonic() - self.seconds
        self.reported, self.saved = self.seconds, -math.inf
        while True:
            before, self.seconds = self.seconds, self._agree(time.monotonic() - start)
            if self.turns and self.precision.record(self.seconds - before):
                self._forecast()
            self.share = self.seconds / (60 * self.minutes)
            if self.share >= 1 and self.optimiser.steps > 0:
                break
            self.turns += 1
            yield min(1.0, self.share)
            if self.workers > 1 and os.getppid() != self.parent:
                sys.exit("the training was stopped")
            if self.rank == 0 and self.seconds - self.saved > CHECKPOINT_SECONDS:
                self.save()
            if self.rank == 0 and self.seconds - self.reported > REPORT_SECONDS:
                self._report()
        if self.rank == 0:
            self.save()
            self._report()
        with torch.no_grad():
            for key, parameter in self.parameters.items():
                parameter.copy_(self.average[key])

    def autocast(self) -> torch.autocast:
        """The context of this turn's forward passes, in the precision that is faster here."""
        dtype = self.precision.dtype
        return torch.autocast(train_device().type, torch.bfloat16, dtype == torch.bfloat16)

    def _forecast(self) -> None:
        """Say which precision was taken, and what the minutes will bring."""
        if self.rank:
            return
        speeds = {dtype: self.batch * self.workers / self.precision.best(dtype)
                  for dtype in self.precision.seconds}
        left = max(0.0, 60 * self.minutes - self.seconds)
        told = ", ".join(f"{str(dtype).removeprefix('torch.')} {speed:.1f} pictures/s"
                         for dtype, speed in speeds.items())
        say(f"{self.name}: {told}; {str(self.precision.chosen).removeprefix('torch.')} is taken: "
            f"about {speeds[self.precision.chosen] * left:,.0f} pictures in the {left / 60:.1f} "
            "min of this stage")

    def update(self, loss: Tensor, pictures: int, **metrics: Tensor) -> None:
        """Backward pass and one step on the gradient averaged over all workers."""
        self.batch = pictures
        parameters = list(self.parameters.values())
        for parameter in parameters:
            parameter.grad = None
        loss.backward()
        flat = torch.cat([
            (torch.zeros_like(p) if p.grad is None else p.grad).reshape(-1) for p in parameters
        ])
        if self.workers > 1:
            dist.all_reduce(flat)
            flat /= self.workers
        flat /= flat.norm().clamp(min=1)
        for parameter, gradient in zip(
            parameters, flat.split([p.numel() for p in parameters]), strict=True
        ):
            parameter.grad = gradient.view_as(parameter)
        warm = min(1.0, (self.optimiser.steps + 1) / WARMUP_STEPS)
        cosine = 0.5 + 0.5 * math.cos(math.pi * min(1.0, self.share))
        self.optimiser.step(self.peak * warm * cosine + 1e-3 * self.peak, self.precision.dtype)
        steps = self.optimiser.steps
        decay = min(self.average_decay, (1 + steps) / (10 + steps))
        torch._foreach_lerp_(
            list(self.average.values()), [p.detach() for p in parameters], 1 - decay
        )
        self.pictures += pictures * self.workers
        for key, value in {"loss": loss, **metrics}.items():
            self.metrics[key].append(value.detach().item())

    def save(self) -> None:
        tensors = {f"model.{key}": p.detach() for key, p in self.parameters.items()}
        tensors |= {f"average.{key}": tensor for key, tensor in self.average.items()}
        tensors |= self.optimiser.state()
        progress = {"steps": self.optimiser.steps, "seconds": self.seconds}
        progress["pictures"] = self.pictures
        fresh = self.checkpoint.with_suffix(".new")
        save_file(tensors, fresh, metadata={key: str(value) for key, value in progress.items()})
        fresh.replace(self.checkpoint)
        self.saved = self.seconds
        say(f"{self.name}: checkpoint after {self.seconds:.0f} s")

    def _restore(self) -> None:
        if not self.checkpoint.exists():
            return
        with safe_open(self.checkpoint, "pt") as file:
            progress = file.metadata()
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        with torch.no_grad():
            for key, parameter in self.parameters.items():
                parameter.copy_(state[f"model.{key}"])
                self.average[key].copy_(state[f"average.{key}"])
        self.optimiser.load_state(state, int(progress["steps"]))
        self.seconds, self.pictures = float(progress["seconds"]), int(progress["pictures"])
        if self.rank == 0:
            say(f"{self.name}: goes on after {self.seconds:.0f} s, {self.pictures} pictures")

    def _agree(self, seconds: float) -> float:
        if self.workers == 1:
            return seconds
        shared = torch.tensor([seconds], dtype=torch.float64)
        dist.broadcast(shared, 0)
        return shared.item()

    def _report(self) -> None:
        if not self.metrics:
            return
        self.reported = self.seconds
        means = {key: sum(values) / len(values) for key, values in self.metrics.items()}
        self.metrics.clear()
        row = {"seconds": round(self.seconds), "steps": self.optimiser.steps}
        row |= {"pictures": self.pictures} | {key: f"{mean:.5f}" for key, mean in means.items()}
        fresh = not self.curve.exists()
        with self.curve.open("a", newline="") as file:
            writer = csv.DictWriter(file, row)
            if fresh:
                writer.writeheader()
            writer.writerow(row)
        left = max(0.0, self.minutes - self.seconds / 60)
        shown = ", ".join(f"{key} {value}" for key, value in row.items())
        say(f"{self.name}: {shown}, {self.pictures / self.seconds:.0f}/s, {left:.1f} min left")
