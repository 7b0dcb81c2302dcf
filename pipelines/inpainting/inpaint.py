"""In-painting around painting: prepare the picture, let the pipeline repaint it, put it back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from pipelines.inpainting.canvas import Canvas, takes_differential, use_differential_mask
from pipelines.painting.batching import Cell
from pipelines.painting.generation import paint
from pipelines.painting.result import OnStep, RunResult
from pipelines.request import RunRequest

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline
    from PIL.Image import Image

    from pipelines.models.registry import LoadedModel


def inpaint(
    cell: Cell,
    model: LoadedModel,
    request: RunRequest,
    canvas: Canvas,
    on_step: OnStep | None = None,
) -> RunResult:
    """Repaint the white area of `mask_image`; each pixel outside its feathered rim stays.

    `canvas` is the request's, `prepared`. Raises what `paint` does.
    """
    notes = list(canvas.notes)

    def prepare(pipe: DiffusionPipeline) -> Callable[[int], None]:
        if request.differential and takes_differential(pipe):
            return use_differential_mask(pipe)
        if request.differential:
            notes.append(f"differential: no effect, {type(pipe).__name__} takes a mask without "
                         "greys with this model")
        return lambda step: None

    result = paint(cell, model, canvas.fitted(request), canvas.images,
                   canvas.watch(on_step, cell.extras), prepare)
    return replace(result, request=request, image=canvas.paste(result.image),
                   notes=(*result.notes, *notes))


def prepared(
    model: LoadedModel, request: RunRequest, images: Mapping[str, Image]
) -> Canvas:
    """What the model is given of the pictures; raises RequestError for a mask that is empty or of
    another size than the picture."""
    return Canvas.of(request, images, model.info, getattr(model.pipe, "vae_scale_factor", 8))
