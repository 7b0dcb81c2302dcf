"""Runs a scheduler with a perfect network, from pure noise or from the middle."""

from __future__ import annotations

import functools
import inspect
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pipelines.laboratory.mixture import Mixture, solve
from pipelines.laboratory.scales import scale_of
from pipelines.painting.starts import start_anywhere


@dataclass(frozen=True, eq=False)
class Path:
    """What a scheduler made of some points of a mixture: `start` is their x / signal at the first
    of `sigmas`, or pure noise where that is None; `end` (n, D). `sigmas`: noise / signal at each
    evaluation of the network. `misplaced`: of a start in the middle, the root mean square distance
    of what the network sees first to clean points with the noise of that timestep."""

    mixture: Mixture
    start: Tensor
    sigmas: tuple[float | None, ...]
    end: Tensor
    misplaced: float | None = None

    @property
    def evaluations(self) -> int:
        return len(self.sigmas)

    @property
    def finite(self) -> bool:
        return bool(self.end.isfinite().all())

    @property
    def error(self) -> float:
        """Root mean square distance of the points to the exact ones from the same start."""
        return self._distance(self.end)

    @property
    def first_order_error(self) -> float:
        """The same of Euler's steps through the same sigmas; not for a start from pure noise."""
        points = self.start
        for sigma, following in itertools.pairwise([*self.sigmas, 0.0]):
            points = points + (following - sigma) * self.mixture.epsilon(points, 1.0, sigma)
        return self._distance(points)

    def exact(self, digits: int = 10) -> Tensor:
        """Where the probability-flow ODE takes the same start, (n, D). Starts that are equal to so
        many decimals are solved once."""
        start = self.start.numpy().round(digits)
        sigma = self.sigmas[0] and round(self.sigmas[0], digits)
        return _exact_end(self.mixture, start.tobytes(), start.shape, sigma)

    def _distance(self, end: Tensor) -> float:
        return (end - self.exact()).square().sum(1).mean().sqrt().item()


@functools.lru_cache(1000)
def _exact_end(
    mixture: Mixture, start: bytes, shape: tuple[int, int], sigma: float | None
) -> Tensor:
    return exact_end(mixture, torch.frombuffer(bytearray(start), dtype=torch.float64).view(shape),
                     sigma)


def exact_end(mixture: Mixture, start: Tensor, sigma: float | None) -> Tensor:
    """Where the probability-flow ODE takes x / signal = `start`, (n, D), from `sigma`; from pure
    noise, where there is no such quotient, it is solved in flow matching's own time."""
    if sigma is not None:
        return solve(lambda x, at: mixture.epsilon(x, 1.0, at), start, sigma)
    return solve(lambda x, at: mixture.prediction("flow_prediction", x, 1 - at, at), start, 1.0)


def run(
    scheduler: Any,
    mixture: Mixture,
    steps: int,
    noise: Tensor,
    clean: Tensor | None = None,
    strength: float = 1.0,
    seed: int = 0,
    as_in_runs: bool = False,
    watch: Callable[[Tensor, float, float], None] | None = None,
) -> Path:
    """Take the steps of a fresh scheduler, the last int(steps * strength) of them from `clean`
    points with noise where these are given. `noise`, `clean`: (n, D), float64.

    The exact end is that of the start which the scheduler itself takes: its first sigma, its own
    way to add noise. `as_in_runs`: with what this program mends in it, not as diffusers has it.
    `watch(seen, signal, noise)` is called at each evaluation of the network.
    """
    scale = scale_of(scheduler)
    set_timesteps(scheduler, steps)
    timesteps = scheduler.timesteps
    points = noise[:, :, None, None]
    if clean is None:
        points = points * float(getattr(scheduler, "init_noise_sigma", 1.0))
    else:
        pipe = ImageToImage(scheduler)
        if as_in_runs:
            start_anywhere(scheduler, [pipe])
        timesteps, _ = pipe.get_timesteps(steps, strength)
        points = add_noise(scheduler, clean[:, :, None, None], points, timesteps)
    arguments = _step_arguments(scheduler, seed)
    start, sigmas, misplaced = None, [], None
    for timestep in timesteps:
        seen = points
        if hasattr(scheduler, "scale_model_input"):
            seen = scheduler.scale_model_input(points, timestep)
        seen = seen[:, :, 0, 0].double()
        signal, noise_part = scale.signal_and_noise(timestep)
        sigmas.append(noise_part / signal if signal else None)
        if start is None:
            start = seen / signal if signal else seen
            if clean is not None:
                place = signal * clean + noise_part * noise
                misplaced = (seen - place).square().sum(1).mean().sqrt().item()
        if watch:
            watch(seen, signal, noise_part)
        answer = scale.answer(mixture, seen, timestep)[:, :, None, None]
        points = scheduler.step(answer, timestep, points, return_dict=False, **arguments)[0]
    return Path(mixture, start, tuple(sigmas), points[:, :, 0, 0].double(), misplaced)


def set_timesteps(scheduler: Any, steps: int) -> None:
    """As pipelines do it; what a class needs beside the number of steps is given."""
    parameters = inspect.signature(scheduler.set_timesteps).parameters
    shifts = "mu" in parameters and scheduler.config.get("use_dynamic_shifting")
    scheduler.set_timesteps(steps, **({"mu": 1.0} if shifts else {}))


class ImageToImage:
    """The part of an image-to-image pipeline that chooses the timesteps to run."""

    def __init__(self, scheduler: Any) -> None:
        self.scheduler = scheduler

    def get_timesteps(self, steps: int, strength: float) -> tuple[Tensor, int]:
        """The timesteps that the strength leaves, and how many steps those are."""
        skipped = max(steps - min(int(steps * strength), steps), 0)
        start = skipped * getattr(self.scheduler, "order", 1)
        if hasattr(self.scheduler, "set_begin_index"):
            self.scheduler.set_begin_index(start)
        return self.scheduler.timesteps[start:], steps - skipped


def add_noise(scheduler: Any, clean: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
    """Clean points as they are at the first of these timesteps."""
    first = timesteps[:1].repeat(len(clean))
    if hasattr(scheduler, "add_noise"):
        return scheduler.add_noise(clean, noise, first)
    return scheduler.scale_noise(clean, first, noise)


def _step_arguments(scheduler: Any, seed: int) -> dict[str, Any]:
    takes = inspect.signature(scheduler.step).parameters
    generator = torch.Generator().manual_seed(seed)
    return {"generator": generator} if "generator" in takes else {}


def fitted_order(steps: Sequence[int], errors: Sequence[float]) -> tuple[float, float] | None:
    """The order of convergence and half the width of its 95 % interval, from a line through
    log(error) over log(steps); None of fewer than three points."""
    from scipy import stats

    if len(steps) < 3:
        return None
    line = stats.linregress([math.log(n) for n in steps], [math.log(e) for e in errors])
    return -line.slope, stats.t.ppf(0.975, len(steps) - 2) * line.stderr
