"""Whether all tensors of a network came from its files: what a library makes up is never run.

diffusers and transformers go on where a file lacks tensors: they fill them at random, or leave
them without memory. Both report it to whoever reads a single network; here that report is heard for
each network of a pipeline, whoever reads it: the pipeline, the prior of a combined one, a list of
ControlNets.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.errors import LoadError
from pipelines.models.parts import parts_of_index

if TYPE_CHECKING:
    import torch

NAMED = 3  # tensors that a message names
_notes: ContextVar[list[str] | None] = ContextVar("notes", default=None)


@contextmanager
def checked_weights() -> Iterator[list[str]]:
    """Each network that this thread reads inside has all its tensors from its files, else the call
    that reads it raises LoadError; gives notes of tensors that were in the files and not used."""
    _listen()
    notes: list[str] = []
    token = _notes.set(notes)
    try:
        yield notes
    finally:
        _notes.reset(token)


def some(names: Collection[str]) -> str:
    """'a, b, c and 5 more'."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(sorted(names)[:NAMED]) + more


def refuse_without_memory(parts: Mapping[str, Any]) -> None:
    """Raise LoadError for networks that were left without the memory of some of their tensors."""
    import torch

    for part, network in parts.items():
        if isinstance(network, torch.nn.Module):
            tensors = dict(network.named_parameters())
            _refuse_missing(part, [name for name in tensors if tensors[name].is_meta], tensors)


def tensors_needed(folder: Path, index: Mapping[str, Any]) -> int:
    """The tensors that the networks of a model's configs have together; 0 where that cannot be
    told."""
    import diffusers
    import transformers
    from accelerate import init_empty_weights

    needed = 0
    for part, (_, name) in parts_of_index(index).items():
        cls = getattr(diffusers, name, None) or getattr(transformers, name, None)
        try:
            with init_empty_weights():
                if not isinstance(cls, type):  # of a module of diffusers, or withheld
                    continue
                if issubclass(cls, diffusers.ModelMixin):
                    needed += len(cls.from_config(cls.load_config(folder / part)).state_dict())
                elif issubclass(cls, transformers.PreTrainedModel):
                    config = cls.config_class.from_pretrained(folder / part)
                    needed += len(cls(config).state_dict())
        except Exception:  # whatever a library makes of a config
            return 0
    return needed


@functools.cache
def _listen() -> None:
    """Hear what is read of each network, for as long as the program runs."""
    from diffusers import ModelMixin
    from diffusers.loaders import single_file_model, single_file_utils
    from transformers import PreTrainedModel

    for library_class, options in ((ModelMixin, {}),
                                   (PreTrainedModel, {"ignore_mismatched_sizes": True})):
        read = library_class.from_pretrained.__func__
        library_class.from_pretrained = classmethod(_reporting(read, options))
    for module in (single_file_model, single_file_utils):  # where a checkpoint is one file
        module.load_model_dict_into_meta = _comparing(module.load_model_dict_into_meta)


def _reporting(read: Callable, options: Mapping[str, Any]) -> Callable:
    """A library's `from_pretrained`, which says what it missed where somebody listens."""

    @functools.wraps(read)
    def from_pretrained(cls: type, *args: Any, **kwargs: Any) -> Any:
        notes = _notes.get()
        if notes is None or kwargs.get("output_loading_info"):
            return read(cls, *args, **kwargs)
        network, report = read(cls, *args, **{**options, **kwargs, "output_loading_info": True})
        place = args[0] if args else kwargs.get("pretrained_model_name_or_path")
        part = kwargs.get("subfolder") or Path(str(place)).name
        tensors, unused = network.state_dict(keep_vars=True), report["unexpected_keys"]
        _refuse_missing(part, _untied(tensors, report["missing_keys"]), tensors, unused)
        _refuse_shapes(part, {key: shapes for key, *shapes in report["mismatched_keys"]})
        if unused:
            notes.append(f"{part}: {len(unused)} tensors of its files are not used "
                         f"({some(unused)})")
        return network

    return from_pretrained


def _comparing(fill: Callable) -> Callable:
    """diffusers' function that fills an empty network, which compares the two before."""

    @functools.wraps(fill)
    def load_model_dict_into_meta(network: torch.nn.Module, state_dict: Mapping[str, torch.Tensor],
                                  *args: Any, **kwargs: Any) -> Any:
        if _notes.get() is None:
            return fill(network, state_dict, *args, **kwargs)
        part, tensors = type(network).__name__, network.state_dict(keep_vars=True)
        fine = [*(getattr(network, "_keys_to_ignore_on_load_missing", None) or ())]
        missing = [name for name in set(tensors) - set(state_dict)
                   if not any(re.search(pattern, name) for pattern in fine)]
        _refuse_missing(part, _untied(tensors, missing), tensors, set(state_dict) - set(tensors))
        if not kwargs.get("hf_quantizer"):  # which packs them
            _refuse_shapes(part, {name: (state_dict[name].shape, tensors[name].shape)
                                  for name in set(tensors) & set(state_dict)
                                  if state_dict[name].shape != tensors[name].shape})
        result = fill(network, state_dict, *args, **kwargs)
        if missing and hasattr(network, "tie_weights"):
            network.tie_weights()
        return result

    return load_model_dict_into_meta


def _untied(tensors: Mapping[str, Any], missing: Collection[str]) -> list[str]:
    """Those of the missing tensors that are not one with a tensor that was read."""
    read = {id(tensor) for name, tensor in tensors.items() if name not in missing}
    return [name for name in missing if id(tensors.get(name)) not in read]


def _refuse_missing(
    part: str, missing: Collection[str], tensors: Collection[str], unused: Collection[str] = ()
) -> None:
    if missing:
        instead = f"; its files hold {len(unused)} others ({some(unused)})" if unused else ""
        raise LoadError(f"{part} lacks {len(missing)} of its {len(tensors)} tensors "
                        f"({some(missing)}), which would be random{instead}")


def _refuse_shapes(part: str, shapes: Mapping[str, Any]) -> None:
    if shapes:
        name, (in_file, by_config) = min(shapes.items())
        raise LoadError(f"{part} has {len(shapes)} tensors of another shape than its config says "
                        f"({name}: {tuple(in_file)} instead of {tuple(by_config)})")
