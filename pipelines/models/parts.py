"""What the parts of a pipeline are called, in its model_index.json and on the object itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

# A pipeline's denoiser, and its autoencoder, is the first of these that it has.
DENOISERS = ("unet", "transformer", "decoder", "prior", "denoiser")
AUTOENCODERS = ("vae", "movq", "vqvae", "vqgan")


def parts_of_index(index: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Name -> [library, class] of the parts that a model_index.json does not leave out."""
    return {name: value for name, value in index.items()
            if not name.startswith("_") and isinstance(value, list) and len(value) == 2
            and value[0]}


def denoiser_of(pipe: DiffusionPipeline) -> Any:
    """The network that a pipeline calls at each step, None where it has none of these names."""
    return next(filter(None, (getattr(pipe, name, None) for name in DENOISERS)), None)


def autoencoder_of(pipe: DiffusionPipeline) -> Any:
    """What turns latents into pixels, None where the model works on pixels."""
    return next(filter(None, (getattr(pipe, name, None) for name in AUTOENCODERS)), None)


def inner_pipelines(pipe: DiffusionPipeline) -> dict[str, DiffusionPipeline]:
    """The pipelines that a combined one is made of, by attribute; none for the others."""
    from diffusers import DiffusionPipeline

    return {name: value for name, value in vars(pipe).items()
            if isinstance(value, DiffusionPipeline)}
