"""LoRA adapters: which layers of a file a pipeline takes, and what it does not."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.errors import LoadError, first_line
from pipelines.models.reading import checkpoint_shapes
from pipelines.models.weights import some

if TYPE_CHECKING:
    import torch
    from diffusers import DiffusionPipeline

# What the tensors of adapters are called that are no LoRA.
OTHER_ADAPTERS = {".hada_w": "LoHa", ".lokr_w": "LoKr", ".oft_": "OFT", ".boft_": "BOFT",
                  ".on_input": "(IA)³"}
DOWN = re.compile(r"lora_A\b|lora_embedding_A\b|[._]down\.weight|lora_down\b|lokr_w1")
LAYER = re.compile(r"[._](?:lora|lokr)(?=[._])")  # what follows the name of a layer


def put_adapter(pipe: DiffusionPipeline, file: Path, name: str) -> list[str]:
    """Put the adapter of a file on a pipeline's weights, under a name; notes of what of it is not
    used. Raises LoadError where nothing of it is, or where it does not fit."""
    tensors = checkpoint_shapes(file)
    try:
        with _converted(pipe) as states:
            pipe.load_lora_weights(str(file.parent), weight_name=file.name, adapter_name=name,
                                   use_safetensors=True, local_files_only=True)
    except Exception as error:
        kind = next((kind for sign, kind in OTHER_ADAPTERS.items()
                     if any(sign in tensor for tensor in tensors)), None)
        reason = f"it is a {kind} adapter; accepted: LoRA" if kind else first_line(error)
        raise LoadError(f"lora: {file} cannot be put on {type(pipe).__name__}: "
                        f"{reason}") from error
    notes = []
    if scales := [tensor for tensor in tensors if "dora_scale" in tensor]:
        notes.append(f"lora: {file.name}: its {len(scales)} DoRA scales are not used: diffusers "
                     "reads the rest as a plain LoRA")
    layers = {layer: tensor for state in states for layer, tensor in _layers(state, file).items()}
    unused = _unused(layers, list(_adapter_tensors(pipe, name)))
    if unused is None:
        notes.append(f"lora: {file.name}: how many of its {len(layers)} layers are used is not "
                     "known, since its weights are offloaded")
    elif len(unused) == len(layers):
        raise LoadError(f"lora: {file} has no weights for {type(pipe).__name__}: none of its "
                        f"{len(layers)} layers fits ({some(unused)})")
    elif unused:
        notes.append(f"lora: {file.name}: {len(layers) - len(unused)} of {len(layers)} layers "
                     f"used; not used: {some(unused)}")
    return notes


@contextmanager
def _converted(pipe: DiffusionPipeline) -> Iterator[list[dict[str, torch.Tensor]]]:
    """What a pipeline makes of the files of adapters that it reads inside: tensors by the names of
    diffusers, whatever they are called in the file."""
    states: list[dict[str, torch.Tensor]] = []

    def lora_state_dict(*args: Any, **kwargs: Any) -> Any:
        result = type(pipe).lora_state_dict(*args, **kwargs)
        states.append(dict(result[0] if isinstance(result, tuple) else result))
        return result

    pipe.lora_state_dict = lora_state_dict  # for this object, before the method of its class
    try:
        yield states
    finally:
        del pipe.lora_state_dict


def _layers(state: dict[str, torch.Tensor], file: Path) -> dict[str, torch.Tensor]:
    """Layer -> the first of its two factors; LoadError where that is missing: it would be made up
    at random."""
    names = {LAYER.split(name)[0] for name in state if LAYER.search(name)}
    layers = {LAYER.split(name)[0]: tensor for name, tensor in state.items() if DOWN.search(name)}
    if half := names - set(layers):
        raise LoadError(f"lora: {file} lacks the first factor of {len(half)} of its {len(names)} "
                        f"layers ({some(half)})")
    return layers


def _adapter_tensors(pipe: DiffusionPipeline, name: str) -> Iterator[torch.Tensor]:
    """The first factors that lie on the weights under that name."""
    import torch
    from peft.tuners.tuners_utils import BaseTunerLayer

    for network in pipe.components.values():
        for layer in network.modules() if isinstance(network, torch.nn.Module) else ():
            if isinstance(layer, BaseTunerLayer):
                for path, tensor in layer.named_parameters():
                    if DOWN.search(path) and name in path.split("."):
                        yield tensor


def _unused(
    layers: dict[str, torch.Tensor], placed: Collection[torch.Tensor]
) -> list[str] | None:
    """The layers whose tensors lie on no weights; None where that cannot be seen."""
    if any(tensor.is_meta for tensor in placed):
        return None
    there = Counter(map(_digest, placed))
    dtypes = {tensor.dtype for tensor in placed}
    unused = []
    for layer, tensor in layers.items():
        digests: Iterable[Any] = (_digest(tensor.to(dtype)) for dtype in dtypes)
        digest = next((digest for digest in digests if there[digest]), None)
        if digest is None:
            unused.append(layer)
        else:
            there[digest] -= 1
    return unused


def _digest(tensor: torch.Tensor) -> tuple[torch.dtype, bytes]:
    import torch

    values = tensor.detach().cpu().contiguous().view(-1).view(torch.uint8)
    return tensor.dtype, hashlib.sha256(values.numpy().tobytes()).digest()
