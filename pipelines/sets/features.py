"""What a network sees in pictures, as rows of numbers: the judge of the bundled models, or CLIP."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import TYPE_CHECKING

import numpy as np

from pipelines.clip import FETCH, find_clip
from pipelines.errors import RequestError
from pipelines.pixels import flat
from pipelines.postcards.vocabulary import attributes, sample_scene
from pipelines.study.statistics import Array

if TYPE_CHECKING:
    from PIL.Image import Image

JUDGE, CLIP = "judge", "clip"
NETWORKS = (JUDGE, CLIP)


def features(network: str, pictures: Sequence[Image], device: str = "cpu",
             on_picture: Callable[[], None] | None = None) -> Array:
    """One row for each picture. 'judge': the mean over the picture of all channels of its layers,
    544 numbers, of pictures of 64 px; 'clip': the embedding of unit length of the CLIP that is
    here. Raises RequestError, LoadError; `on_picture` may raise Cancelled."""
    if network == CLIP:
        clip = find_clip(device)
        if clip is None:
            raise RequestError(f"features: received clip, but no CLIP is on this machine; accepted "
                               f"{JUDGE}, or clip after {FETCH}")
        rows = []
        for number, picture in enumerate(pictures):
            if on_picture:
                on_picture()
            rows.append(np.asarray(clip.embedding(str(number), flat(picture)), dtype=float))
        return np.stack(rows)
    if network != JUDGE:
        raise RequestError(f"features: received {network!r}, accepted {', '.join(NETWORKS)}")
    from pipelines.models.opening import warm_libraries

    warm_libraries()
    from pipelines.postcards.classifier import features_of, load_classifier

    return features_of(load_classifier(), [flat(picture) for picture in pictures], on_picture)


def painted(count: int, kind: str = "fresh", without_colour: str = "") -> list[Image]:
    """Pictures of the painter, the truth of the bundled models: 'training', the first that they
    were trained on; another word, others of the same distribution, the same for the same word.
    `without_colour` leaves out scenes whose subject has it."""
    from pipelines.postcards.painter import paint

    pictures, number = [], 0
    while len(pictures) < count:
        rng = Random(f"{kind} {number}")
        scene = sample_scene(rng, False)
        number += 1
        if not without_colour or attributes(scene)["colour"] != without_colour:
            pictures.append(paint(scene, rng))
    return pictures
