"""From the files of a model to a pipeline in memory."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from pipelines.errors import DeviceMemoryError, LoadError, RequestError, first_line
from pipelines.models.info import ModelInfo
from pipelines.models.loaded import LoadedModel
from pipelines.models.placement import advice, free_memory, place, quantized, weight_bytes
from pipelines.models.processors import processors_for_stills, restore_processors
from pipelines.models.reading import checkpoint_shapes, read_json
from pipelines.models.signatures import EXACT_MODELS, connected_class, deprecated_module
from pipelines.models.weights import checked_weights, refuse_without_memory, tensors_needed

if TYPE_CHECKING:
    import torch
    from diffusers import DiffusionPipeline

_importing = threading.Lock()


def open_model(
    info: ModelInfo,
    content: str,
    device: str,
    dtype: str,
    memory_policy: str,
    quantization: str | None,
) -> LoadedModel:
    """Read a model's weights and put them where the memory policy wants them.

    `content` is the hash of its files. Raises LoadError, RequestError or DeviceMemoryError.
    """
    started = time.perf_counter()
    warm_libraries()
    import torch

    try:
        with checked_weights() as notes:
            pipe = _read(info, device, getattr(torch, dtype), quantization)
        refuse_without_memory(pipe.components)
        size_bytes = weight_bytes(pipe)
        place(pipe, device, memory_policy)
    except torch.OutOfMemoryError as error:
        free_memory(device)
        raise DeviceMemoryError(
            f"{info.model_id} does not fit into the memory of {device} with the policy "
            f"{memory_policy!r}{advice(memory_policy, device)}"
        ) from error
    except RequestError:
        raise
    except Exception as error:
        if info.needs_prior and "expected" in str(error):
            reason = (f"it is the second stage of {info.pipeline_class}; the first, which its "
                      "README.md names as its prior, is not on this machine")
        elif isinstance(error, KeyError) and info.checkpoint:  # asked for by diffusers' converters
            reason = f"the file lacks tensors, {error} being the first that was looked for"
        else:
            reason = str(error) if isinstance(error, LoadError) else first_line(error)
        if info.checkpoint and not isinstance(error, LoadError):
            reason = reason.rstrip(".") + _shortage(info)
        raise LoadError(f"{info.model_id} cannot be opened: {reason}") from error
    load_ms = (time.perf_counter() - started) * 1000
    return LoadedModel(info, content, device, dtype, memory_policy, load_ms, pipe, size_bytes,
                       tuple(notes))


def _read(
    info: ModelInfo, device: str, dtype: torch.dtype, quantization: str | None
) -> DiffusionPipeline:
    import diffusers

    options: dict[str, Any] = {"use_safetensors": True, "local_files_only": True}
    if info.checkpoint:
        if quantization:
            raise RequestError("quantization: a single file is read as it is; accepted: "
                               "a diffusers folder")
        cls = getattr(diffusers, info.pipeline_class)
        return cls.from_single_file(str(info.checkpoint), config=str(info.folder),
                                    torch_dtype=dtype, **options)
    index = read_json(info.folder / "model_index.json")
    _restore_moved(index)
    restore_processors(index)
    combined = connected_class(index["_class_name"])  # its prior lies in another repository
    cls = (import_module(EXACT_MODELS).ExactPipeline if info.pipeline_class == "ExactPipeline"
           else getattr(diffusers, combined or "DiffusionPipeline"))
    return cls.from_pretrained(
        info.folder, variant=info.variant, dtype=dtype, **options,
        **quantized(info, quantization, device),
        **processors_for_stills(info.folder, index),
    )


def _shortage(info: ModelInfo) -> str:
    """How many tensors a single file has too few, as the end of an error message; diffusers stops
    at the first that it looks for."""
    held, needed = len(checkpoint_shapes(info.checkpoint)), tensors_needed(info.folder, info.index)
    if held >= needed:
        return ""
    return (f"; the file lacks at least {needed - held} tensors: it holds {held}, the networks of "
            f"its configs have {needed}")


def warm_libraries() -> None:
    """Import what the first run needs (torch and diffusers take seconds), and quieten it.

    One thread at a time: diffusers swaps its own module while it is imported, and a second thread
    would find it half made.
    """
    with _importing:
        import transformers

        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        from diffusers import AutoPipelineForText2Image, StableDiffusionPipeline  # noqa: F401
        from diffusers.utils import logging

        logging.set_verbosity_error()
    logging.disable_progress_bar()


def _restore_moved(index: Mapping[str, Any]) -> None:
    """Let diffusers find a component's class where the index says, though it was moved to the
    deprecated ones (Cascade and Wuerstchen share such a decoder)."""
    import diffusers

    for value in index.values():
        name = value[1] if isinstance(value, list) and len(value) == 2 else None
        package = deprecated_module(str(name))
        if package is None or hasattr(diffusers, name):
            continue
        module = import_module(f"diffusers.pipelines.deprecated.{package}")
        if value[0] == "diffusers":
            setattr(diffusers, name, getattr(module, name))
        else:
            setattr(diffusers.pipelines, value[0], module)
