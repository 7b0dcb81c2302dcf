"""One-click examples of the in-painting page."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dashboard import state
from pipelines.errors import PipelineError
from pipelines.inpainting import masks
from pipelines.inpainting.masks import Mask
from pipelines.inpainting.samples import paint_sample
from pipelines.models.files import BUNDLED
from pipelines.request import TO_COME, RunRequest

if TYPE_CHECKING:
    from PIL.Image import Image

# In-painting models of the Hub that the large examples run with, where one is on this machine.
INPAINTERS = (
    "diffusers/stable-diffusion-xl-1.0-inpainting-0.1",
    "stable-diffusion-v1-5/stable-diffusion-inpainting",
)


@dataclass(frozen=True)
class Example:
    """A sample's picture, how its subject becomes the mask, and the request; `sides` extend the
    picture, `large` needs a model of photographs."""

    title: str
    text: str
    sample: str
    prompt: str
    mask: Callable[[Mask], Mask]
    values: Mapping[str, Any] = field(default_factory=dict)
    sides: Mapping[str, int] = field(default_factory=dict)
    large: bool = False

    def start(self) -> tuple[Image, Mask]:
        """Its picture and mask; extended in an example of outpainting."""
        image, subject = paint_sample(self.sample)
        if self.sides:
            return masks.extend(image, fill="surroundings", **self.sides)
        return image, self.mask(subject)

    def request(self, model_id: str | None = None) -> RunRequest:
        """Its request; the page puts its own image and mask in place of the names here."""
        model = {"model_id": model_id, "guidance_scale": 7.5} if model_id else {}
        return RunRequest(task="inpainting", image=TO_COME, mask_image=TO_COME,
                          prompt=self.prompt, **{**model, **self.values})


def local_inpainter() -> str | None:
    """A model made for in-painting photographs that is on this machine, the known ones first; None
    where there is none. The bundled one paints postcards."""
    for model_id in (*INPAINTERS, *(name for name in state.offered() if name not in BUNDLED)):
        with contextlib.suppress(PipelineError):
            if state.engine().registry.describe(model_id).tasks == ("inpainting",):
                return model_id
    return None


def _around(subject: Mask) -> Mask:
    """All but the subject."""
    return masks.invert(subject)


def _subject(subject: Mask) -> Mask:
    return masks.grow(subject, max(2, min(subject.shape) // 20))


def _nothing(subject: Mask) -> Mask:
    return masks.empty(subject.shape[1], subject.shape[0])


EXAMPLES = (
    Example("Change the world", "Keep the car, paint another world around it.", "car",
            "a red car in the desert at sunset", _around, {"seed": 3}),
    Example("Replace the subject", "Keep the world, put something else in the car's place.", "car",
            "a white house on a road", _subject, {"seed": 1, "mask_feather": 2}),
    Example("Remove it", "No prompt: postcards-inpaint paints what may lie behind.", "cat", "",
            _subject, {"model_id": "postcards-inpaint", "mask_feather": 2, "seed": 4}),
    Example("Extend the picture", "Outpainting: more sea and sky to the left and to the right.",
            "boat", "a blue boat on the sea at sunset", _nothing, {"seed": 5, "mask_feather": 4},
            {"left": 32, "right": 32}),
    Example("A glass ball, in detail", "SDXL or SD in-painting, the masked part enlarged.",
            "spheres", "a crystal glass ball on a wooden table, photograph", _subject,
            {"padding_mask_crop": 64, "mask_feather": 6, "seed": 1}, large=True),
    Example("Another room", "SDXL or SD in-painting around the red sphere.", "spheres",
            "a red sphere on a beach at sunset, photograph", _around, {"seed": 1}, large=True),
)
