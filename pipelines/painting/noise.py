"""The initial noise: one negative for every print."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import torch
from torch.overrides import TorchFunctionMode

if TYPE_CHECKING:
    from collections.abc import Callable


def make_generator(seed: int) -> torch.Generator:
    """A CPU generator, whatever the device: the same numbers on every machine."""
    return torch.Generator("cpu").manual_seed(seed)


class NoiseWatch(TorchFunctionMode):
    """Sees what torch.randn draws from a generator while a pipeline prepares its latents.

    Draws in float32 whatever the model's dtype is, so that a seed's noise is the same in every
    precision. `noise` is the last draw: an image's posterior sample comes before it; a list of
    generators draws once for each. Schedulers scale the noise afterwards (`init_noise_sigma`), so
    it is equal for all of them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.draws: list[torch.Tensor] = []

    @property
    def noise(self) -> torch.Tensor | None:
        return self.draws[-1] if self.draws else None

    def __torch_function__(
        self, function: Callable, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if function is not torch.randn or kwargs.get("generator") is None:
            return function(*args, **kwargs)
        dtype = kwargs.get("dtype")
        self.draws.append(function(*args, **{**kwargs, "dtype": torch.float32}))
        return self.draws[-1].to(dtype or torch.float32)


def noise_sha256(noise: torch.Tensor) -> str:
    """SHA-256 of the noise's shape, as text such as '1x4x16x16', and its values in C order as
    little-endian float32."""
    values = noise.detach().to("cpu").float().contiguous().numpy().astype("<f4", copy=False)
    shape = "x".join(map(str, values.shape)).encode()
    return hashlib.sha256(shape + values.tobytes()).hexdigest()
