"""What a training is given: the sizes of the model, folders, minutes, pictures, workers."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

# Shares of the minutes; painting and encoding take as long as they take: 4 minutes on 2 cores.
TIME_SPLIT = {"vae": 0.14, "unet": 0.75, "decoder": 0.07, "judge": 0.04}


@dataclass(frozen=True)
class ModelConfig:
    """Sizes of one variant. The VAE shrinks by 2 between two of its channel entries."""

    name: str
    image_size: int
    vae_channels: tuple[int, ...]
    vae_batch_size: int
    unet_batch_size: int
    unet_channels: tuple[int, ...] = (64, 128, 128)
    text_width: int = 128
    text_layers: int = 2

    @property
    def latent_size(self) -> int:
        return self.image_size // 2 ** (len(self.vae_channels) - 1)


CONFIGS = {
    "cpu": ModelConfig("cpu", 64, (32, 32, 64), vae_batch_size=6, unet_batch_size=32),
    "gpu": ModelConfig("gpu", 128, (32, 32, 48, 64), vae_batch_size=128, unet_batch_size=512),
}


@dataclass(frozen=True)
class Settings:
    """One training: what to build, where, from how many pictures and in how long; `teacher` is the
    folder of the finished model that it starts from, None where it starts from nothing."""

    config: ModelConfig
    work: Path
    out: Path
    minutes: float
    pictures: int
    workers: int
    teacher: Path | None = None

    @property
    def validation_pictures(self) -> int:
        return max(8, min(1000, self.pictures // 20))

    def minutes_of(self, stage: str) -> float:
        return self.minutes * TIME_SPLIT[stage]


def save_array(settings: Settings, name: str, array: np.ndarray) -> None:
    """Write NAME.npy in the work folder, whole or not at all."""
    fresh = settings.work / f"{name}.new"
    with fresh.open("wb") as file:
        np.save(file, array)
    fresh.replace(settings.work / f"{name}.npy")


def say(message: str) -> None:
    """Progress goes to standard error."""
    print(message, file=sys.stderr, flush=True)
