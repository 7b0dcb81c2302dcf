"""A pipeline that is in memory already, as a model of the registry: used as it is.

It is not moved, not cast, and nothing is put on its weights. Its configs are written to a folder of
their own, so that everything that reads a model's files reads them there.

What stands for its weights in the identity of a picture is their hash, with that of the configs and
of what else its modules hold: the log then knows whether a picture was made of exactly the same.
Where that takes too long, or does not say all, the pipeline has a name that nothing had before, so
that nothing is taken from the log; its runs say so.
"""

from __future__ import annotations

import copy
import hashlib
import json
import tempfile
import uuid
import weakref
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.errors import RequestError, first_line
from pipelines.models.files import IN_MEMORY
from pipelines.models.identity import model_content
from pipelines.models.info import describe_configs
from pipelines.models.loaded import LoadedModel, copy_of
from pipelines.models.opening import warm_libraries
from pipelines.models.parts import denoiser_of, inner_pipelines
from pipelines.models.placement import weight_bytes

if TYPE_CHECKING:
    import torch
    from diffusers import DiffusionPipeline

HASHED_BYTES = 4 * 2**30  # of weights; SHA-256 takes about a second for each GiB
AS_IT_IS = {"revision": None, "variant": None, "memory_policy": "auto", "quantization": None}


class _Unknown(Exception):
    """Why a hash would not say all that decides a pipeline's pictures."""


def hold(pipe: DiffusionPipeline) -> LoadedModel:
    """The pipeline as a loaded model; `info.model_id` is its name from now on.

    Raises LoadError where its class, or that of a part, is not one of diffusers or transformers.
    """
    warm_libraries()
    temporary = tempfile.TemporaryDirectory(prefix="contact-sheet-")
    folder, notes = Path(temporary.name), []
    reason = _write_configs(pipe, folder)
    try:
        if reason:
            raise _Unknown(reason)
        contents = _contents(pipe)
    except _Unknown as unknown:
        contents = uuid.uuid4().hex
        notes.append(f"the pipeline in memory {unknown}: its pictures are never taken from the log")
    (folder / "contents").write_text(contents, encoding="utf-8")
    digest = hashlib.sha256(b"".join(
        path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())).hexdigest()
    info = describe_configs(f"{IN_MEMORY}{type(pipe).__name__}-{digest[:12]}", folder)
    offloaded = any("_hf_hook" in vars(module) for module in _modules(pipe))
    model = LoadedModel(
        info, model_content(info), str(pipe.device), _dtype(pipe),
        "as it was given" if offloaded else "device", 0.0, _with_own_schedulers(pipe),
        weight_bytes(pipe), tuple(notes))
    weakref.finalize(model, temporary.cleanup)
    return model


def check_as_it_is(model: LoadedModel, asked: Mapping[str, Any]) -> None:
    """Raise RequestError where a request wants the pipeline otherwise; `asked` is its `weights`."""
    as_it_is = AS_IT_IS | {"torch_dtype": asked["torch_dtype"] and model.dtype}
    for name, value in as_it_is.items():
        if asked[name] != value:
            raise RequestError(f"{name}: received {asked[name]!r}, accepted for a pipeline in "
                               f"memory: {value or 'none'}; it is used as it is")
    if asked["loras"]:
        raise RequestError("loras: a pipeline in memory keeps the adapters that it has; put others "
                           "on it before it is handed over")


def _write_configs(pipe: DiffusionPipeline, folder: Path) -> str:
    """Write what `save_pretrained` would, but for weights; why something is missing, or ''."""
    from diffusers import ConfigMixin
    from torch.nn import Module

    _save_config(pipe, folder)
    reason = ""
    for name, part in pipe.components.items():
        if part is None:
            continue
        (folder / name).mkdir()
        try:
            if isinstance(part, ConfigMixin):
                _save_config(part, folder / name)
            elif isinstance(part, Module):
                part.config.save_pretrained(folder / name)
            else:
                part.save_pretrained(folder / name)
        except Exception as error:  # tokenizers and processors of any library
            reason = f"has a {name} whose settings cannot be written ({first_line(error)})"
    for file in folder.rglob("tokenizer.json"):  # it holds the padding of the last call, too
        state = json.loads(file.read_text("utf-8")) | {"padding": None, "truncation": None}
        file.write_text(json.dumps(state), encoding="utf-8")
    return reason


def _save_config(part: Any, folder: Path) -> None:
    """Save the config from a copy: diffusers adds the class's name to the one that it saves."""
    part = copy.copy(part)
    part._internal_dict = copy.copy(part._internal_dict)
    part.save_config(folder)


def _modules(pipe: DiffusionPipeline) -> Iterator[torch.nn.Module]:
    for _, part in _networks(pipe):
        yield from part.modules()


def _networks(pipe: DiffusionPipeline) -> Iterator[tuple[str, torch.nn.Module]]:
    from torch.nn import Module

    return ((name, part) for name, part in sorted(pipe.components.items())
            if isinstance(part, Module))


def _contents(pipe: DiffusionPipeline) -> str:
    """SHA-256 over weights, buffers, classes and settings of all modules; raises _Unknown."""
    if (size := weight_bytes(pipe)) > HASHED_BYTES:
        raise _Unknown(f"has {size / 2**30:.1f} GiB of weights, and up to "
                       f"{HASHED_BYTES // 2**30} GiB are hashed")
    digest = hashlib.sha256()
    for part_name, part in _networks(pipe):
        if hasattr(part, "peft_config"):
            raise _Unknown("carries adapters, whose strength is not among its weights")
        for name, module in part.named_modules():
            if "forward" in vars(module) or any(map(_changes_calls, (
                    *module._forward_hooks.values(), *module._forward_pre_hooks.values()))):
                raise _Unknown("has hooks or changed calls")
            digest.update(json.dumps([part_name, name, *_settings(module)]).encode())
        for name, tensor in (*part.named_parameters(), *part.named_buffers()):
            digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
            digest.update(_bytes(tensor))
    return digest.hexdigest()


def _changes_calls(hook: Callable) -> bool:
    """Whether a hook is not one of those by which transformers collects outputs, put on at a text
    encoder's first call."""
    return not getattr(hook, "__module__", "").startswith("transformers.")


def _plain(holder: Any) -> dict[str, Any]:
    """The public attributes of an object that are numbers, texts and the like."""
    return {name: value for name, value in vars(holder).items()
            if not name.startswith("_") and isinstance(value, bool | int | float | str | None)}


def _settings(module: torch.nn.Module) -> list[Any]:
    """A module's class and settings, those of its attention processor too."""
    processor = getattr(module, "processor", None)
    holders = [module] if processor is None else [module, processor]
    return [[type(holder).__qualname__, _plain(holder)] for holder in holders]


def _bytes(tensor: torch.Tensor) -> memoryview:
    import torch

    if type(tensor) not in (torch.Tensor, torch.nn.Parameter) or tensor.is_meta:
        raise _Unknown(f"has weights that are no plain tensors ({type(tensor).__name__})")
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return memoryview(flat.view(torch.uint8).numpy())


def _dtype(pipe: DiffusionPipeline) -> str:
    """The precision of what is called at each step."""
    network = denoiser_of(pipe)
    return str((pipe if network is None else network).dtype).removeprefix("torch.")


def _with_own_schedulers(pipe: DiffusionPipeline) -> DiffusionPipeline:
    """A pipeline object on the same networks whose schedulers are copies: they keep a state."""
    from diffusers import SchedulerMixin

    pipe = copy_of(pipe)
    copies: dict[int, Any] = {}
    for part in (pipe, *inner_pipelines(pipe).values()):
        for name, value in list(vars(part).items()):
            if isinstance(value, SchedulerMixin):
                copies.setdefault(id(value), copy.deepcopy(value))
                setattr(part, name, copies[id(value)])
    return pipe

