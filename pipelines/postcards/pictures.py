"""The painted training and validation sets: arrays of pictures with masks, and their scenes."""

from __future__ import annotations

import json
import time
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from random import Random

import numpy as np

from pipelines.postcards.painter import paint_with_mask
from pipelines.postcards.settings import Settings, say
from pipelines.postcards.vocabulary import Scene, sample_scene


def paint_pictures(settings: Settings) -> None:
    """Fill the work folder: training.npy with training.jsonl, validation.npy with its own.

    Arrays are uint8 of shape (count, side, side, 4): RGB and the subject's mask. The validation
    pictures show only combinations that are held out of training.
    """
    _paint_set(settings, "validation", settings.validation_pictures, held_out=True)
    _paint_set(settings, "training", settings.pictures, held_out=False)


def _paint_set(settings: Settings, name: str, count: int, held_out: bool) -> None:
    side = settings.config.image_size
    fresh = settings.work / f"{name}.new"
    array = np.lib.format.open_memmap(fresh, "w+", np.uint8, (count, side, side, 4))
    paint = partial(paint_numbered, size=side, held_out=held_out)
    started = time.monotonic()
    with ExitStack() as stack:
        scenes = stack.enter_context((settings.work / f"{name}.jsonl").open("w"))
        painted = map(paint, range(count))
        if settings.workers > 1:
            pool = stack.enter_context(get_context("spawn").Pool(settings.workers))
            painted = pool.imap(paint, range(count), chunksize=64)
        for index, (scene, picture) in enumerate(painted, start=1):
            array[index - 1] = picture
            scenes.write(json.dumps(asdict(scene) | {"extras": sorted(scene.extras)}) + "\n")
            if index % 4000 == 0:
                rate = index / (time.monotonic() - started)
                say(f"paint: {index} of {count}, {(count - index) / rate:.0f} s left")
    array.flush()
    del array
    fresh.replace(settings.work / f"{name}.npy")


def numbered_scene(index: int, held_out: bool = False) -> tuple[Scene, Random]:
    """What picture `index` of the training set shows, or of the validation set, and the generator
    that goes on to paint it."""
    rng = Random(f"{'held out' if held_out else 'training'} {index}")
    return sample_scene(rng, held_out), rng


def paint_numbered(
    index: int, size: int = 64, held_out: bool = False
) -> tuple[Scene, np.ndarray]:
    """That scene and its picture with the mask, (size, size, 4)."""
    scene, rng = numbered_scene(index, held_out)
    picture, mask = paint_with_mask(scene, rng, size)
    return scene, np.dstack([np.asarray(picture), np.asarray(mask)])


def read_scenes(path: Path) -> list[Scene]:
    with path.open() as file:
        rows = [json.loads(line) for line in file]
    return [Scene(**row | {"extras": frozenset(row["extras"])}) for row in rows]
