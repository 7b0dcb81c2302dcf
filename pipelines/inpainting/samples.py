"""Pictures of our own to try in-painting on, painted when they are asked for, with true masks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import TYPE_CHECKING

import numpy as np

from pipelines.inpainting.masks import Mask, as_mask
from pipelines.postcards.painter import paint_with_mask
from pipelines.postcards.vocabulary import Scene

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class Sample:
    """A picture by name; `make` paints it with the mask of its subject."""

    name: str
    title: str
    make: Callable[[], tuple[Image, Mask]]


def _postcard(scene: Scene, seed: int, size: int = 64) -> Callable[[], tuple[Image, Mask]]:
    def make() -> tuple[Image, Mask]:
        image, mask = paint_with_mask(scene, Random(seed), size)
        return image, as_mask(mask)

    return make


def _panorama() -> tuple[Image, Mask]:
    """Three postcards side by side: 192 x 64 px."""
    from PIL import Image

    parts = [paint_with_mask(Scene(subject, colour, "meadow", "day"), Random(5), 64)
             for subject, colour in (("tree", "green"), ("house", "white"), ("cat", "orange"))]
    image, mask = (np.concatenate([np.asarray(part[i]) for part in parts], 1) for i in (0, 1))
    return Image.fromarray(image), mask


def _spheres() -> tuple[Image, Mask]:
    """A still life in photographic light: three lit spheres on a table, 480 x 320 px."""
    from PIL import Image

    width, height, rng = 480, 320, np.random.default_rng(4)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    wall = np.array((196, 190, 178), np.float32) * (1.05 - 0.35 * np.hypot(x - 90, y - 40) / 500
                                                    )[..., None]
    table = np.array((128, 88, 58), np.float32) * (0.75 + 0.4 * (y - 200) / 120)[..., None]
    grain = np.sin(y * 1.7 + 3 * np.sin(x / 61)) * 5
    picture = np.where((y > 205)[..., None], table + grain[..., None], wall)
    subject = np.zeros((height, width), np.uint8)
    light = np.array((-0.45, -0.62, 0.64), np.float32)
    for cx, cy, radius, colour in ((150, 190, 62, (188, 44, 36)), (290, 212, 44, (222, 176, 52)),
                                   (385, 196, 55, (58, 98, 150))):
        shadow = ((x - cx - radius * 0.6) / (radius * 1.5)) ** 2 + (
            (y - cy - radius * 0.93) / (radius * 0.28)) ** 2
        picture *= (1 - 0.5 * np.clip(1.2 - shadow, 0, 1))[..., None]
        dx, dy = (x - cx) / radius, (y - cy) / radius
        depth = np.sqrt(np.clip(1 - dx**2 - dy**2, 0, 1))
        lit = np.clip(dx * light[0] + dy * light[1] + depth * light[2], 0, 1)
        shade = np.array(colour, np.float32) * (0.22 + 0.85 * lit)[..., None]
        shade += 190 * (np.clip(lit, 0, 1) ** 28)[..., None]
        cover = np.clip((1 - np.hypot(dx, dy)) * radius + 0.5, 0, 1)[..., None]
        picture = picture * (1 - cover) + shade * cover
        if cx == 150:
            subject = (cover[..., 0] * 255).astype(np.uint8)
    picture += rng.normal(0, 3, picture.shape)
    return Image.fromarray(picture.clip(0, 255).astype(np.uint8)), subject


CAR = Scene("car", "red", "road", "day", size="large")
SAMPLES = (
    Sample("car", "Car on a road, 64 px", _postcard(CAR, 11)),
    Sample("boat", "Boat at sunset, 64 px",
           _postcard(Scene("boat", "blue", "sea", "sunset", extras=frozenset({"sun"})), 4)),
    Sample("cat", "Cat in the snow, 64 px",
           _postcard(Scene("cat", "orange", "snow", "day", size="large"), 8)),
    Sample("panorama", "Three meadows, 192 × 64 px", _panorama),
    Sample("balloon", "Balloon, 512 px", _postcard(
        Scene("balloon", "red", "meadow", "day", extras=frozenset({"clouds"})), 2, 512)),
    Sample("spheres", "Still life, 480 × 320 px", _spheres),
)
BY_NAME = {sample.name: sample for sample in SAMPLES}


@cache
def paint_sample(name: str) -> tuple[Image, Mask]:
    """The picture, and the mask of its subject."""
    return BY_NAME[name].make()
