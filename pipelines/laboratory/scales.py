"""How samples hold signal and noise at each timestep, and what a perfect network answers there."""

from __future__ import annotations

import math
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from pipelines.errors import RequestError
from pipelines.laboratory.mixture import Mixture


class Scale(Protocol):
    """How a scheduler's samples hold signal and noise."""

    prediction: str

    def signal_and_noise(self, timestep: Tensor) -> tuple[float, float]:
        """Of what the network sees at a timestep."""
        ...

    def answer(self, mixture: Mixture, seen: Tensor, timestep: Tensor) -> Tensor:
        """What a perfect network answers to `seen`, (n, D)."""
        ...


class KeptVariance:
    """signal**2 + noise**2 = 1, by the scheduler's alphas_cumprod (Ho et al. 2020,
    arXiv:2006.11239). Between two timesteps log(noise / signal) is linear; below the first one
    noise / signal is, and ends at 0 at timestep -1."""

    def __init__(self, scheduler: Any) -> None:
        alphas = scheduler.alphas_cumprod.double()
        self._log_sigmas = ((1 - alphas) / alphas).sqrt().log()
        self.prediction = scheduler.config.prediction_type

    def signal_and_noise(self, timestep: Tensor) -> tuple[float, float]:
        last = len(self._log_sigmas) - 1
        place = min(max(float(timestep), -1.0), last)
        if place < 0:
            sigma = (1 + place) * self._log_sigmas[0].exp().item()
        else:
            low = int(place)
            sigma = torch.lerp(self._log_sigmas[low], self._log_sigmas[min(low + 1, last)],
                               place - low).exp().item()
        signal = (1 + sigma**2) ** -0.5
        return signal, sigma * signal

    def timestep(self, sigma: float) -> float:
        """Where noise / signal is `sigma`; the last timestep for all beyond it."""
        first = self._log_sigmas[0].exp().item()
        if sigma < first:
            return sigma / first - 1
        log_sigmas = self._log_sigmas.numpy()
        return float(np.interp(math.log(sigma), log_sigmas, np.arange(len(log_sigmas))))

    def answer(self, mixture: Mixture, seen: Tensor, timestep: Tensor) -> Tensor:
        return mixture.prediction(self.prediction, seen, *self.signal_and_noise(timestep))


class Flow:
    """signal = 1 - noise, noise = timestep / num_train_timesteps (Lipman et al. 2022,
    arXiv:2210.02747)."""

    prediction = "flow_prediction"

    def __init__(self, scheduler: Any) -> None:
        self._timesteps = scheduler.config.num_train_timesteps

    def signal_and_noise(self, timestep: Tensor) -> tuple[float, float]:
        noise = float(timestep) / self._timesteps
        return 1 - noise, noise

    def answer(self, mixture: Mixture, seen: Tensor, timestep: Tensor) -> Tensor:
        return mixture.prediction(self.prediction, seen, *self.signal_and_noise(timestep))


class Preconditioned:
    """EDM's (Karras et al. 2022, arXiv:2206.00364): x0 plus sigma times noise, scaled by c_in;
    the timestep is log(sigma) / 4, the network's output what precondition_outputs undoes."""

    def __init__(self, scheduler: Any) -> None:
        self._scheduler = scheduler
        self._data = scheduler.config.sigma_data
        self.prediction = scheduler.config.prediction_type

    def signal_and_noise(self, timestep: Tensor) -> tuple[float, float]:
        sigma = math.exp(4 * float(timestep))
        scale = (sigma**2 + self._data**2) ** -0.5
        return scale, sigma * scale

    def answer(self, mixture: Mixture, seen: Tensor, timestep: Tensor) -> Tensor:
        signal, noise = self.signal_and_noise(timestep)
        sample, sigma = seen / signal, torch.tensor(noise / signal, dtype=seen.dtype)
        x0 = mixture.x0(seen, signal, noise)
        # The preconditioning is linear in the output: two values give its slope.
        zero = self._scheduler.precondition_outputs(sample, torch.zeros_like(seen), sigma)
        slope = self._scheduler.precondition_outputs(sample, torch.ones_like(seen), sigma) - zero
        return (x0 - zero) / slope


def scale_of(scheduler: Any) -> Scale:
    """Raises RequestError where a scheduler's samples are of none of the kinds known here."""
    config = scheduler.config
    if hasattr(scheduler, "precondition_outputs"):
        return Preconditioned(scheduler)
    flows = (config.get("prediction_type") == "flow_prediction" or config.get("use_flow_sigmas")
             or type(scheduler).__name__.startswith("FlowMatch"))
    if flows and "num_train_timesteps" in config:
        return Flow(scheduler)
    if hasattr(scheduler, "alphas_cumprod") and "prediction_type" in config:
        return KeptVariance(scheduler)
    raise RequestError(f"{type(scheduler).__name__} holds signal and noise in a way of its own")
