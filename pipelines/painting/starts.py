"""Multistep solvers that start in the middle of their schedule: from a picture, where strength is
below 1.

They combine the outputs of the steps before. Most of diffusers' count those that there are; these
two go by the place in the schedule, as if every step before had been taken.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from diffusers import DiffusionPipeline


def start_anywhere(scheduler: Any, pipes: Iterable[DiffusionPipeline]) -> None:
    """Let a run's own scheduler, which these pipelines of the run use, start at any step."""
    match type(scheduler).__name__:
        case "LMSDiscreteScheduler":
            scheduler.step = _with_grown_order(scheduler)
        case "PNDMScheduler":
            for pipe in pipes:
                if hasattr(pipe, "get_timesteps"):
                    pipe.get_timesteps = _begun_anew(scheduler, pipe.get_timesteps)


def _with_grown_order(scheduler: Any) -> Callable:
    """LMS's step, of an order that the outputs so far allow."""
    step = scheduler.step

    @functools.wraps(step)
    def wrapped(*args: Any, order: int = 4, **kwargs: Any) -> Any:
        return step(*args, order=min(order, len(scheduler.derivatives) + 1), **kwargs)

    return wrapped


def _begun_anew(scheduler: Any, get_timesteps: Callable) -> Callable:
    """A pipeline's choice of the timesteps to run, with PNDM's doubled first one among them.

    PNDM evaluates its second timestep twice, to make up for the history that its first step lacks.
    A part of its timesteps lacks that, and each is then taken for the one before: noise is left.
    """

    @functools.wraps(get_timesteps)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        timesteps, *others = get_timesteps(*args, **kwargs)
        if left_out := len(scheduler.timesteps) - len(timesteps):
            timesteps = scheduler.timesteps = _pndm_timesteps(scheduler, left_out)
        return timesteps, *others

    return wrapped


def _pndm_timesteps(scheduler: Any, left_out: int) -> torch.Tensor:
    """PNDM's timesteps without the first ones, as it lists those of a whole run."""
    import torch

    scheduler.register_to_config(skip_prk_steps=True)  # Runge-Kutta steps are for whole runs
    last = torch.from_numpy(scheduler._timesteps[::-1].copy())[left_out:].long()
    return torch.cat([last[:2], last[1:]]).to(scheduler.timesteps.device)
