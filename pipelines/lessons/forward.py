"""Forward: how much of a picture is left at a timestep, by noise schedule."""

from __future__ import annotations

import functools
import random
from typing import Any

import torch
from torch import Tensor

from pipelines.laboratory import driving
from pipelines.laboratory.conformance import CONFIG
from pipelines.lessons.question import Answer, Question, interval

# Schedule -> what it is called, and whose it is.
SCHEDULES = {
    "scaled_linear": "scaled linear (Stable Diffusion, postcards)",
    "linear": "linear (DDPM)",
    "squaredcos_cap_v2": "cosine (Nichol and Dhariwal)",
    "flow": "flow matching",
}
TIMESTEPS = 1000
EVEN = (100, 300, 500, 700, 900)
RATIOS = (0.1, 1.0, 10.0)


@functools.cache
def scheduler(schedule: str) -> Any:
    """A scheduler of diffusers with one of the SCHEDULES."""
    from diffusers import DDPMScheduler, FlowMatchEulerDiscreteScheduler

    if schedule == "flow":
        return FlowMatchEulerDiscreteScheduler(num_train_timesteps=TIMESTEPS)
    betas = ({name: CONFIG[name] for name in ("beta_start", "beta_end")}
             if schedule == "scaled_linear" else {})
    return DDPMScheduler(num_train_timesteps=TIMESTEPS, beta_schedule=schedule, **betas)


@functools.cache
def _scale(schedule: str) -> driving.Scale:
    return driving.scale_of(scheduler(schedule))


@functools.cache
def signal_and_noise(schedule: str, timestep: int) -> tuple[float, float]:
    """The factors of x0 and of the noise in x_t."""
    return _scale(schedule).signal_and_noise(torch.tensor(timestep))


def snr(schedule: str, timestep: int) -> float:
    """The ratio of the variances of signal and noise."""
    signal, noise = signal_and_noise(schedule, timestep)
    return signal**2 / noise**2


def noised(schedule: str, clean: Tensor, noise: Tensor, timestep: int) -> Tensor:
    """x_t of clean points or pictures, (N, ...), as the scheduler makes it."""
    return driving.add_noise(scheduler(schedule), clean, noise, torch.tensor([timestep]))


def _grade() -> Answer:
    even = min(range(1, TIMESTEPS), key=lambda t: abs(snr("scaled_linear", t) - 1))
    right = min(range(len(EVEN)), key=lambda place: abs(EVEN[place] - even))
    return Answer(right, f"At timestep {even} signal and noise have the same variance. At 500 "
                         f"there is already {1 / snr('scaled_linear', 500):.1f} times as much "
                         "noise as signal; at 100 still "
                         f"{snr('scaled_linear', 100):.0f} times as much signal.")


QUESTION = Question(
    "Noise is added to a picture over 1000 timesteps, by the schedule of Stable Diffusion. At "
    "which timestep has it as much noise as signal (a signal-to-noise ratio, SNR, of 1)?",
    tuple(f"Around {timestep}" for timestep in EVEN), _grade)


def check(case: int) -> Question:
    """The signal-to-noise ratio of another schedule and timestep."""
    rng = random.Random(f"forward {case}")
    schedule, timestep = rng.choice(list(SCHEDULES)), rng.randrange(20, 970, 10)

    def grade() -> Answer:
        signal, noise = signal_and_noise(schedule, timestep)
        ratio = snr(schedule, timestep)
        return Answer(interval(ratio, RATIOS),
                      f"There x_t = {signal:.3f} x0 + {noise:.3f} noise: SNR {ratio:.3g}.")

    return Question(
        f"Schedule: {SCHEDULES[schedule]}. What is the signal-to-noise ratio at timestep "
        f"{timestep}?",
        ("Below 0.1: nearly all is noise", "Between 0.1 and 1", "Between 1 and 10",
         "Above 10: nearly all is signal"), grade)
