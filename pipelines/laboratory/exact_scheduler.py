"""The exact solution as a scheduler: a Runge-Kutta method of order 8, which steps between the
timesteps of the training too, down to no noise at all. Only a model that is known in closed form
can answer there."""

from __future__ import annotations

import math
from typing import Any

import torch
from diffusers import ConfigMixin, DDPMScheduler, SchedulerMixin
from diffusers.configuration_utils import register_to_config
from scipy.integrate import DOP853
from torch import Tensor

from pipelines.laboratory.scales import KeptVariance

END = 1e-5  # the angle or time at which the last step, Euler's, goes to 0


class ExactScheduler(SchedulerMixin, ConfigMixin):
    """Prince and Dormand's method (1981) on the probability-flow ODE in the angle whose tangent is
    noise / signal, where the slope is the v-prediction (Salimans & Ho 2022, arXiv:2202.00512), or
    in the time of flow matching, where it is the network's own output.

    `timesteps` has an entry for each evaluation, twelve a step, and one for the last. Samples are
    float64 from the first step on, whatever they were.
    """

    order = 1
    init_noise_sigma = 1.0

    @register_to_config
    def __init__(
        self,
        num_train_timesteps: int = 1000,
        beta_start: float = 0.00085,
        beta_end: float = 0.012,
        beta_schedule: str = "scaled_linear",
        prediction_type: str = "epsilon",
    ) -> None:
        self.timesteps = torch.empty(0)
        self._flow = prediction_type == "flow_prediction"
        if not self._flow:
            schedule = DDPMScheduler(num_train_timesteps, beta_start, beta_end, beta_schedule,
                                     prediction_type=prediction_type)
            self.alphas_cumprod = schedule.alphas_cumprod
            self._scale = KeptVariance(schedule)

    def set_timesteps(self, num_inference_steps: int, device: Any = None) -> None:
        """Steps that become shorter towards the end, where the slope changes most."""
        last = 1.0 if self._flow else math.atan2(
            *reversed(self._scale.signal_and_noise(torch.tensor(math.inf))))
        grid = [END + (last - END) * (1 - n / num_inference_steps) ** 2
                for n in range(num_inference_steps + 1)]
        self._lengths = [later - earlier for earlier, later in zip(grid, grid[1:], strict=False)]
        self._places = [start + c * length
                        for start, length in zip(grid, self._lengths, strict=False)
                        for c in DOP853.C.tolist()] + [END]
        self.timesteps = torch.tensor([self._timestep(place) for place in self._places],
                                      dtype=torch.float64)
        self._number, self._slopes = 0, []

    def step(
        self, model_output: Tensor, timestep: Any, sample: Tensor, return_dict: bool = True
    ) -> tuple[Tensor]:
        """The sample at the next evaluation; `timestep` is the next of `timesteps` in order."""
        sample, place = sample.double(), self._places[self._number]
        self._slopes.append(self._slope(model_output.double(), sample, place))
        number, stage = divmod(self._number, DOP853.n_stages)
        self._number += 1
        if number == len(self._lengths):
            return (sample - END * self._slopes.pop(),)
        if stage == 0:
            self._start = sample
        whole = stage == DOP853.n_stages - 1
        weights = (DOP853.B if whole else DOP853.A[stage + 1, : stage + 1]).tolist()
        result = self._start + self._lengths[number] * sum(
            weight * slope for weight, slope in zip(weights, self._slopes, strict=True))
        if whole:
            self._slopes = []
        return (result,)

    def _timestep(self, place: float) -> float:
        if self._flow:
            return place * self.config.num_train_timesteps
        return self._scale.timestep(math.tan(place))

    def _slope(self, output: Tensor, sample: Tensor, place: float) -> Tensor:
        if self._flow:
            return output
        signal, noise = math.cos(place), math.sin(place)
        match self.config.prediction_type:
            case "epsilon":
                return (output - noise * sample) / signal
            case "sample":
                return (signal * sample - output) / noise
            case _:
                return output
