"""The initial noise: one negative for every print."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def make_generator(seed: int) -> torch.Generator:
    """A CPU generator, whatever the device: the same numbers on every machine."""
    import torch

    return torch.Generator("cpu").manual_seed(seed)


def unit_noise(shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    """Unit-variance float32 noise for one picture; leaves `generator` behind it.

    The scheduler scales it afterwards (`init_noise_sigma`), so it is equal for all of them. Go on
    with the same generator for the noise of stochastic schedulers: a fresh one of the same seed
    would draw the initial noise again in the first step.
    """
    import torch

    return torch.randn(shape, generator=generator, dtype=torch.float32)


def noise_sha256(noise: torch.Tensor) -> str:
    """SHA-256 of the noise as little-endian float32 in C order."""
    values = noise.detach().to("cpu").float().contiguous().numpy().astype("<f4", copy=False)
    return hashlib.sha256(values.tobytes()).hexdigest()
