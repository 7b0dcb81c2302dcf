"""The LoRA adapters of postcards in figures: how far a style reaches, and whether a new subject is
painted and the old ones kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import TYPE_CHECKING

import numpy as np

from pipelines.postcards import judge, vocabulary
from pipelines.postcards.vocabulary import NEW_SUBJECT
from pipelines.request import Lora

if TYPE_CHECKING:
    from PIL.Image import Image

    from pipelines.models.registry import Registry

BASE = "postcards"
WEIGHTS = (0.0, 0.5, 1.0)
PROBE_PICTURES = 1000  # painted ones that it is fitted on, half of them of the new subject
HELD_OUT_PICTURES = 400
RIDGE = 1e-2


def style_table(registry: Registry, adapter: str, count: int, seed: int) -> list[str]:
    """The judge's shares and the mean saturation by the adapter's weight, and of painted pictures
    drawn in that style."""
    from pipelines.postcards.lora import line_drawing
    from pipelines.postcards.painter import OVERSAMPLING, paint

    captions = judge.held_out_captions(count, seed)
    rows = [f"{count} held-out captions, 20 steps, guidance_scale 5, seed {seed}; saturation is "
            "the largest less the smallest of red, green and blue, 0 to 255:", "",
            "| pictures | subject | colour | scene | saturation |", "|---" * 5 + "|"]
    painted = [paint(want.scene, Random(f"style {seed} {number}"), 64 * OVERSAMPLING)
               for number, want in enumerate(captions)]
    pictures = {f"weight {weight:g}": _generated(registry, adapter, weight, captions, seed)
                for weight in WEIGHTS}
    pictures["painted, drawn in lines"] = [line_drawing(picture) for picture in painted]
    pictures["painted"] = [picture.reduce(OVERSAMPLING) for picture in painted]
    for name, images in pictures.items():
        values = np.stack([np.asarray(image) for image in images]).astype(float)
        saturation = (values.max(-1) - values.min(-1)).mean()
        rows.append(f"| {name} | {_shares(judge.accuracy(images, captions))} | {saturation:.0f} |")
    return rows


def subject_table(registry: Registry, adapter: str, count: int, seed: int) -> list[str]:
    """How often the new subject is seen where it is asked for, in colour and place, and the judge's
    shares on the captions that the base knows, by the adapter's weight."""
    from pipelines.postcards.lora import new_subject_caption

    known = judge.held_out_captions(count, seed)
    new = [judge.Wanted(new_subject_caption(want.scene, Random(f"new {seed} {number}"),
                                            vocabulary.plain_caption),
                        want.scene, ("colour", "scene"))
           for number, want in enumerate(known)]
    sees, accuracy = new_subject_probe(seed)
    rows = [f"{count} held-out captions, 20 steps, guidance_scale 5, seed {seed}; a {NEW_SUBJECT} "
            f"is told from the other subjects by a linear probe on the judge's features, right for "
            f"{accuracy:.1%} of painted pictures that it was not fitted on:", "",
            f"| weight | {NEW_SUBJECT} asked for: seen | colour | scene | another subject asked "
            f"for: {NEW_SUBJECT} seen | subject | colour | scene |", "|---" * 8 + "|"]
    for weight in WEIGHTS:
        asked = _generated(registry, adapter, weight, new, seed)
        others = _generated(registry, adapter, weight, known, seed)
        shares = judge.accuracy(asked, new)
        rows.append(f"| {weight:g} | {sees(asked).mean():.1%} | {shares['colour']:.1%} | "
                    f"{shares['scene']:.1%} | {sees(others).mean():.1%} | "
                    f"{_shares(judge.accuracy(others, known))} |")
    return rows


def new_subject_probe(seed: int) -> tuple[Callable[[Sequence[Image]], np.ndarray], float]:
    """A function that tells for each picture whether it shows the new subject, and the share of
    painted pictures, which it was not fitted on, that it tells right (ridge regression)."""
    from pipelines.postcards.lora import new_subject_scene
    from pipelines.postcards.painter import paint

    def features(images: Sequence[Image]) -> np.ndarray:
        values = judge_features(images)
        return np.concatenate([values, np.ones((len(values), 1))], 1)

    scenes = [vocabulary.sample_scene, new_subject_scene]
    painted, labels = [], []
    for number in range(PROBE_PICTURES + HELD_OUT_PICTURES):
        rng = Random(f"probe {seed} {number}")
        painted.append(paint(scenes[number % 2](rng), rng))
        labels.append(2 * (number % 2) - 1)
    count = PROBE_PICTURES
    fitted, target = features(painted[:count]), np.array(labels[:count], float)
    # The normal equations in their dual form: there are more features than pictures.
    kernel = fitted @ fitted.T + RIDGE * count * np.eye(count)
    weights = fitted.T @ np.linalg.solve(kernel, target)

    def sees(images: Sequence[Image]) -> np.ndarray:
        return features(images) @ weights > 0

    return sees, float((sees(painted[count:]) == (np.array(labels[count:]) > 0)).mean())


def judge_features(images: Sequence[Image]) -> np.ndarray:
    """The judge's last convolutions, shape (pictures, 2048)."""
    import torch

    from pipelines.postcards.classifier import load_classifier

    network = load_classifier().features
    pixels = torch.from_numpy(np.stack([np.asarray(image.convert("RGB")) for image in images]))
    with torch.no_grad():
        parts = [network(batch.permute(0, 3, 1, 2).float() / 127.5 - 1).flatten(1)
                 for batch in pixels.split(100)]
    return torch.cat(parts).double().numpy()


def _generated(
    registry: Registry, adapter: str, weight: float, captions: Sequence[judge.Wanted], seed: int
) -> list[Image]:
    loras = (Lora(path=adapter, weight=weight),) if weight else ()
    with registry.borrow(BASE, loras=loras) as (model, _):
        return judge.generate(model, [want.caption for want in captions], seed=seed)


def _shares(accuracy: dict[str, float]) -> str:
    return " | ".join(f"{accuracy[name]:.1%}" for name in judge.ACCEPTED)
