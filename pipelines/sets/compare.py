"""Sets of pictures, from folders and studies, against painted or other real ones."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.errors import RequestError, StorageError
from pipelines.inpainting.pictures_in import open_picture
from pipelines.postcards.vocabulary import CAPTIONED_MODELS
from pipelines.sets.features import JUDGE, features, painted
from pipelines.sets.measures import (
    FEWEST,
    SetValue,
    check_counts,
    copies,
    kid,
    manifold,
)
from pipelines.study.statistics import Array

if TYPE_CHECKING:
    from PIL.Image import Image

    from pipelines.engine import Engine
    from pipelines.study.findings import Findings

PAINTED = "painted"
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".avif")
MOST_PAINTED = 1000


def folder_pictures(folder: Path) -> list[Image]:
    """The pictures of a folder, by name. Raises RequestError."""
    try:
        files = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    except OSError as error:
        raise RequestError(f"set: received {folder}, accepted a folder of pictures or a study "
                           f"({error.strerror})") from error
    if not files:
        raise RequestError(f"set: {folder} holds no pictures; accepted {', '.join(SUFFIXES)}")
    return [open_picture(path, "set").convert("RGB") for path in files]


def compare_set(
    pictures: Sequence[Image],
    against: Sequence[Image] | None = None,
    measures: Sequence[str] = tuple(FEWEST),
    network: str = JUDGE,
    device: str = "cpu",
    on_picture: Callable[[], None] | None = None,
) -> list[SetValue]:
    """The measures of a set against real pictures, against as many painted ones where none are
    given. For `copies` the real ones are the training: painted ones are the first that the bundled
    models were trained on, of others the second half is taken to be held out. Raises RequestError,
    with the number that is needed where a set is too small."""
    real_count = len(against) if against is not None else min(len(pictures), MOST_PAINTED)
    for name in measures:
        check_counts(name, len(pictures), real_count // 2 if name == "copies" and against
                     is not None else real_count)
    rows = features(network, pictures, device, on_picture)
    real = _painted(network, real_count, "fresh", device) if against is None \
        else features(network, against, device, on_picture)
    values: dict[str, SetValue] = {}
    if "kid" in measures:
        values["kid"] = kid(rows, real)
    if {"precision", "recall", "density", "coverage"} & set(measures):
        values |= manifold(rows, real)
    if "copies" in measures:
        half = len(real) // 2
        training, held_out = (real[:half], real[half:]) if against is not None else (
            _painted(network, MOST_PAINTED, "training", device), real)
        values["copies"] = copies(rows, training, held_out)[0]
    return [values[name] for name in measures]


@functools.lru_cache(4)
def _painted(network: str, count: int, kind: str, device: str) -> Array:
    """Features of painted pictures, which are the same for all methods of a study."""
    return features(network, painted(count, kind), device)


def study_sets(
    engine: Engine, findings: Findings, measures: Sequence[str] = tuple(FEWEST),
    against: Sequence[Image] | None = None, network: str = JUDGE,
    on_picture: Callable[[], None] | None = None,
) -> list[tuple[str, list[SetValue]]]:
    """For each method of a study its pictures as a set. Raises RequestError, also where other
    models than those that paint captions of the bundled grammar are held to painted pictures."""
    study = findings.study
    strangers = {request.model_id for request in study.requests} - set(CAPTIONED_MODELS)
    if against is None and strangers:
        raise RequestError(f"against: received {PAINTED} for {', '.join(sorted(strangers))}, "
                           "accepted a folder of real pictures: painted ones are the truth of "
                           f"{', '.join(CAPTIONED_MODELS)} only")
    sets = []
    for number, method in enumerate(study.methods):
        pictures = []
        for place, run in findings.values.runs.items():
            if place[0] == number and run.image_sha256:
                try:
                    pictures.append(engine.pictures.get(run.image_sha256))
                except StorageError:
                    continue  # a picture that is gone is not counted
        sets.append((method, compare_set(pictures, against, measures, network,
                                         engine.registry.device, on_picture)))
    return sets
