"""The processors of pictures and texts that models bring along, without torchvision where it is not
installed: for still pictures, Pillow does what they use it for."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from pipelines.errors import LoadError, first_line
from pipelines.models.parts import parts_of_index

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image


def restore_processors(index: Mapping[str, Any]) -> None:
    """Let transformers and diffusers give the classes of a model_index.json that they hold back
    without torchvision; LoadError that names the missing library where they need it."""
    import diffusers
    import transformers

    for part, (library, name) in parts_of_index(index).items():
        module = {"transformers": transformers, "diffusers": diffusers}.get(library)
        if not hasattr(getattr(module, name, None), "_backends"):  # which only stand-ins have
            continue
        if library == "transformers":
            _restore(name)
        stand_in = getattr(module, name)
        if hasattr(stand_in, "_backends"):
            try:
                stand_in()
            except ImportError as error:
                raise LoadError(f"its {part} cannot be read: {first_line(error)}") from error
    if str(index.get("_class_name")).startswith("OmniGen") and not find_spec("torchvision"):
        from diffusers.pipelines.omnigen import pipeline_omnigen, processor_omnigen

        processor_omnigen.transforms = TRANSFORMS
        pipeline_omnigen.OmniGenMultiModalProcessor = processor_omnigen.OmniGenMultiModalProcessor


def processors_for_stills(folder: Path, index: Mapping[str, Any]) -> dict[str, Any]:
    """Processors of pictures and text without their part for videos, which alone needs
    torchvision; none where torchvision is there."""
    if find_spec("torchvision"):
        return {}
    import transformers

    processors = {}
    for name, (_, class_name) in parts_of_index(index).items():
        cls = getattr(transformers, class_name, None)
        if (isinstance(cls, type) and issubclass(cls, transformers.ProcessorMixin)
                and "video_processor" in cls.get_attributes()):
            kept = [part for part in cls.get_attributes() if part != "video_processor"]
            without = {"get_attributes": staticmethod(lambda kept=kept: kept)}
            stills = type(cls.__name__, (cls,), without)
            processors[name] = stills.from_pretrained(folder / name, local_files_only=True)
    return processors


def _restore(name: str) -> None:
    """Give transformers' processor of that name the module that does with Pillow what the one of
    its pictures does with torchvision, where there is such a module."""
    import transformers

    package, _, module = getattr(transformers, name).__module__.rpartition(".")
    kind, _, model = module.partition("_")
    if kind != "processing":
        return
    with suppress(ImportError):
        pictures = import_module(f"{package}.image_processing_pil_{model}")
        sys.modules.setdefault(f"{package}.image_processing_{model}", pictures)
        setattr(transformers, name, getattr(import_module(f"{package}.{module}"), name))


def _to_tensor(image: Image) -> torch.Tensor:
    import numpy as np
    import torch

    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().float() / 255


def _normalise(
    mean: Sequence[float], std: Sequence[float], inplace: bool = False
) -> Callable[[torch.Tensor], torch.Tensor]:
    def normalised(image: torch.Tensor) -> torch.Tensor:
        centre, width = (image.new_tensor(values)[:, None, None] for values in (mean, std))
        return (image - centre) / width

    return normalised


# What OmniGen's processor uses of torchvision.transforms.
TRANSFORMS = SimpleNamespace(
    Compose=lambda steps: lambda image: functools.reduce(lambda x, step: step(x), steps, image),
    Lambda=lambda function: function,
    ToTensor=lambda: _to_tensor,
    Normalize=_normalise,
)
