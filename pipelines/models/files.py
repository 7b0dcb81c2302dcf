"""Where the files of models lie, and which of them are read; nothing is downloaded."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from pipelines.errors import LoadError, UnknownModelError
from pipelines.models.parts import parts_of_index
from pipelines.models.reading import checkpoint_shapes, is_plain_name, read_json, whole
from pipelines.request import join_model_id

_PACKAGE = Path(__file__).parents[1]
_EXACT = {name: _PACKAGE / "laboratory" / "models" / name for name in ("exact-2d", "exact-latents")}
BUNDLED = {
    "postcards": _PACKAGE / "postcards" / "weights",
    "postcards-turbo": _PACKAGE / "postcards" / "weights-turbo",
    "postcards-inpaint": _PACKAGE / "postcards" / "weights-inpaint",
    "postcards-ddpm": _PACKAGE / "postcards" / "weights-ddpm",
    **{name: folder / "epsilon" for name, folder in _EXACT.items()},
}
IN_MEMORY = "memory:"  # begins the name of a pipeline that a program handed over (in_memory.py)
CONFIGS = (".json", ".txt", ".model", ".jinja", ".spm")
PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".pkl")


def find_model(model_id: str, revision: str | None) -> tuple[Path, str, Path | None]:
    """Folder of the configs, kind of source, and the checkpoint where the weights are one file.

    Raises UnknownModelError or LoadError.
    """
    if model_id in BUNDLED:
        return _bundled_folder(model_id, revision), "bundled", None
    path = existing_path(model_id)
    if path and path.is_dir():
        _check_files(path, ("model_index.json",))
        if not (path / "model_index.json").is_file():
            raise LoadError(f"{model_id} is a folder without model_index.json, so no pipeline")
        return path, "folder", None
    if path:
        return _single_file_config(path), "single file", path
    if model_id.startswith(IN_MEMORY):
        raise UnknownModelError(f"model_id: {model_id} was a pipeline in the memory of a program; "
                                "only that program can use it, while it holds the result")
    if folder := cached_folder(model_id, revision):
        return folder, "Hub cache", None
    raise UnknownModelError(
        f"model_id: received {join_model_id(model_id, revision, None)!r}, which is not on this "
        "machine; accepted: "
        f"{', '.join(BUNDLED)}, the path of a diffusers folder or of a .safetensors checkpoint, "
        "or a Hub id that lies in the Hugging Face cache"
    )


def _bundled_folder(model_id: str, revision: str | None) -> Path:
    """A bundled model's folder; the exact ones have a revision for each prediction type."""
    if revision is None or model_id not in _EXACT:
        return BUNDLED[model_id]
    folders = {path.name: path for path in sorted(_EXACT[model_id].iterdir()) if path.is_dir()}
    if revision not in folders:
        raise UnknownModelError(f"revision: received {revision!r}, accepted for {model_id}: "
                                f"{', '.join(folders)}")
    return folders[revision]


def cached_folder(model_id: str, revision: str | None = None) -> Path | None:
    """The snapshot of a Hub model in the local cache, None where there is none; LoadError where
    its model_index.json is a link to nothing."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        index = try_to_load_from_cache(model_id, "model_index.json", revision=revision)
    except HFValidationError:
        return None
    except ValueError as error:  # a branch whose file is no text
        raise LoadError(f"{model_id} cannot be read from the cache: {error}") from error
    if isinstance(index, str):
        return Path(index).parent
    for folder in _snapshots(model_id):
        if folder.name == revision or not revision:
            _check_files(folder, ("model_index.json",))
    return None


def _snapshots(model_id: str) -> list[Path]:
    """The revisions of a Hub model in the local cache, the newest last."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    try:
        name = repo_folder_name(repo_id=model_id, repo_type="model")
    except ValueError:  # no such id
        return []
    return sorted(Path(constants.HF_HUB_CACHE, name).glob("snapshots/*"),
                  key=lambda folder: folder.lstat().st_mtime)


def find_weights(name: str, files: Sequence[str], in_folder: Sequence[str]) -> Path | None:
    """The folder `name` where it holds the files `in_folder`, or the snapshot of that Hub id in
    the local cache that holds `files`; None where there is neither."""
    if (folder := existing_path(name)) and all((folder / file).is_file() for file in in_folder):
        return folder
    from huggingface_hub import try_to_load_from_cache

    with suppress(ValueError):  # no such id
        paths = [try_to_load_from_cache(name, file) for file in files]
        if all(isinstance(path, str) for path in paths):
            return Path(paths[0]).parent
    return None


def find_lora(path: str) -> Path:
    """The file of an adapter: a .safetensors file, a folder that holds one, or a Hub id in the
    local cache, with the file's name behind it where there are several. Raises LoadError."""
    with whole(f"lora: {path}"):
        return _find_lora(path)


def _find_lora(path: str) -> Path:
    place = existing_path(path)
    if place is None:
        snapshots = _snapshots("/".join(path.split("/")[:2]))
        place = snapshots[-1].joinpath(*path.split("/")[2:]) if snapshots else None
    if place is None or not place.exists():
        raise LoadError(f"lora: received {path!r}, accepted a .safetensors file, a folder that "
                        "holds one, or a Hub id in the Hugging Face cache")
    if place.is_file() and place.suffix in PICKLES:
        raise LoadError(f"lora: {path} is a pickle, which can run code when it is opened; "
                        "accepted: .safetensors")
    files = [place] if place.is_file() else sorted(place.glob("*.safetensors"))
    if len(files) != 1:
        listed = ", ".join(file.name for file in files[:5]) or "no .safetensors file"
        raise LoadError(f"lora: {path} holds {listed}; name one file")
    return files[0]


def check_configs(folder: Path, parts: Iterable[str]) -> None:
    """The same for the configs of the parts that are there."""
    for part in filter(lambda part: (folder / part).is_dir(), parts):
        _check_files(folder, (f"{part}/{file.name}" for file in sorted((folder / part).iterdir())
                              if file.suffix in CONFIGS))


def weight_files(
    folder: Path, index: Mapping[str, Any], variant: str | None = None
) -> tuple[list[Path], str | None]:
    """The safetensors files that are read, and their variant: the one asked for, else the plain
    one, else the only one there is. Raises LoadError where weights are missing or only pickles."""
    by_part: dict[str, dict[str | None, list[Path]]] = {}  # part -> variant -> files
    for name in parts_of_index(index):
        part = folder / name
        if not part.is_dir():
            raise LoadError(f"{folder} is not complete: {name} is missing; download it again")
        if not (part / "config.json").is_file():  # tokenizers, schedulers, processors
            continue
        by_variant = by_part.setdefault(name, {})
        for file in sorted(part.glob("*.safetensors")):
            by_variant.setdefault(_variant_of(file.name), []).append(file)
        if not by_variant:
            raise LoadError(_no_weights(part))
        _check_shards(part)
    variants = {name for by_variant in by_part.values() for name in by_variant}
    if variant and variant not in variants:
        have = ", ".join(sorted(name or "no variant" for name in variants))
        raise LoadError(f"variant: received {variant!r}, {folder} has {have or 'none'}")
    if not variant and any(None not in by_variant for by_variant in by_part.values()):
        named = sorted(name for name in variants if name)
        if len(named) > 1:
            raise LoadError(f"{folder} has the variants {', '.join(named)}: name one")
        variant = named[0]
    files = [file for by_variant in by_part.values()
             for file in by_variant.get(variant) or by_variant.get(None)
             or next(iter(by_variant.values()))]
    _check_files(folder, (file.relative_to(folder).as_posix() for file in files))
    return files, variant


def single_file_repository(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """The Hub model whose configs diffusers takes for a checkpoint of these tensors."""
    import torch
    from diffusers.loaders.single_file_utils import fetch_diffusers_config

    checkpoint = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    return fetch_diffusers_config(checkpoint)["pretrained_model_name_or_path"]


def existing_path(text: str) -> Path | None:
    """What a text names on this machine; None where that is nothing, or no path at all."""
    try:
        path = Path(text).expanduser()
        return path if path.exists() else None
    except (OSError, RuntimeError, ValueError):  # no such user, too long, a null byte
        return None


def _variant_of(name: str) -> str | None:
    """'model.fp16-00001-of-00002.safetensors' -> 'fp16'."""
    pieces = re.sub(r"-\d{5}-of-\d{5}", "", name.removesuffix(".safetensors")).split(".")
    return pieces[1] if len(pieces) > 1 else None


def _no_weights(part: Path) -> str:
    if pickles := [file.name for file in part.iterdir() if file.suffix in PICKLES]:
        return (f"{part.parent} has the weights of {part.name} only as a pickle "
                f"({pickles[0]}), which can run code when it is opened; accepted: .safetensors")
    return f"{part.parent} is not complete: {part.name} has no weights; download it again"


def _check_files(folder: Path, names: Iterable[str]) -> None:
    """Raise LoadError where one of a model's files is a link to nothing, a folder, or may not be
    read."""
    for name in names:
        path = folder / name
        if path.is_symlink() and not path.exists():
            raise LoadError(f"{folder} is not complete: {name} is a link to nothing; download it "
                            "again")
        if path.exists() and not path.is_file():
            raise LoadError(f"{folder} is not complete: {name} is no file; download it again")
        if path.exists() and not os.access(path, os.R_OK):
            raise LoadError(f"{folder} is not complete: {name} may not be read by this user")


def _check_shards(part: Path) -> None:
    for index in part.glob("*.safetensors.index*.json"):
        shards = read_json(index).get("weight_map", {})
        if not (isinstance(shards, dict) and all(map(is_plain_name, shards.values()))):
            raise LoadError(f"{index}: weight_map: accepted names of files, by name of tensor")
        for name in sorted(set(shards.values())):
            if not (part / name).is_file():
                raise LoadError(f"{part.parent} is not complete: {part.name}/{name} is "
                                "missing; download it again")


def _single_file_config(path: Path) -> Path:
    """The folder of configs that a single-file checkpoint goes with: one of the file's own name
    beside it, else the cached configs of the Hub model that diffusers recognises in it."""
    if path.suffix in PICKLES:
        raise LoadError(f"{path} is a pickle, which can run code when it is opened; accepted: "
                        ".safetensors")
    if path.suffix != ".safetensors":
        raise LoadError(f"{path} is neither a diffusers folder nor a .safetensors checkpoint")
    status = path.stat()
    version = (path, status.st_size, status.st_mtime_ns)
    if _is_lora(*version):
        raise LoadError(f"{path} is a LoRA adapter, no model: add it to a model as a LoRA")
    beside = path.with_suffix("")
    if (beside / "model_index.json").is_file():
        return beside
    repository = _repository_of(*version)
    if folder := cached_folder(repository):
        return folder
    raise LoadError(
        f"{path} needs the config files of {repository}, which are not on this machine: download "
        f"them, or put them into a folder {beside.name} beside the file"
    )


@functools.lru_cache(256)
def _is_lora(path: Path, _size: int, _changed: int) -> bool:
    """Read once for each size and time of change."""
    return any("lora" in name for name in checkpoint_shapes(path))


@functools.lru_cache(256)
def _repository_of(path: Path, _size: int, _changed: int) -> str:
    """Read once for each size and time of change."""
    return single_file_repository(checkpoint_shapes(path))
