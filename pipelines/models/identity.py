"""What decides a picture, as one hash: two runs of the same identity make the same picture."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipelines.fields import ADDED_LATER, NOT_HASHED
from pipelines.hardware import HOSTED_DEVICE, environment
from pipelines.models.files import find_lora
from pipelines.models.info import ModelInfo
from pipelines.models.reading import whole
from pipelines.request import Lora, RunRequest

ENGINE = 3  # raise it when a change of this code changes pictures
HASHED_ENVIRONMENT = ("device_name", "torch", "diffusers", "transformers")
HASHED_BELOW = 64 * 2**20  # bytes; larger files count by size and time of change


def model_content(info: ModelInfo) -> str:
    """SHA-256 over a model's files: small ones by content, the rest by size and time of change.

    A file of the Hub cache is a link to a blob that is named by its hash, which counts instead.
    A hosted model has no files here: its name and where it is asked count. Raises LoadError where a
    file cannot be read.
    """
    if info.hosted:
        return _hash([info.model_id, info.address])
    with whole(info.model_id):
        files = [info.checkpoint] if info.checkpoint else []
        files += sorted(path for path in info.folder.rglob("*") if path.is_file())
        return _hash([[path.name, *_file_content(path)] for path in files])


def lora_contents(loras: Sequence[Lora]) -> tuple[str, ...]:
    """The same for each adapter's file; raises LoadError where there is none."""
    contents = []
    for lora in loras:
        with whole(f"lora: {lora.path}"):
            contents.append(_hash(_file_content(find_lora(lora.path))))
    return tuple(contents)


def _file_content(path: Path) -> list[Any]:
    if path.is_symlink() and path.resolve().parent.name == "blobs":
        return [path.resolve().name]
    status = path.stat()
    if status.st_size < HASHED_BELOW:
        return [_file_hash(path, status.st_size, status.st_mtime_ns)]
    return [status.st_size, status.st_mtime_ns]


@functools.lru_cache(4096)
def _file_hash(path: Path, _size: int, _changed: int) -> str:
    """Read once for each size and time of change."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def identity(
    request: RunRequest, content: str, loras: Sequence[str], device: str, dtype: str,
    machine: Mapping[str, Any] | None = None,
) -> str:
    """SHA-256 of a resolved request, the contents of its model and adapters, and what computes; of
    a hosted model nothing of this machine, so that an update makes nobody pay again.

    `machine` is the `hardware.environment` of a device elsewhere, None for one of this machine.
    """
    left_out = {*NOT_HASHED, *(set(ADDED_LATER) - set(request.not_default))}
    asked = {"request": request.model_dump(mode="json", exclude=left_out), "model": content}
    if device == HOSTED_DEVICE:
        return _hash(asked)
    machine = machine or environment(device)
    return _hash(asked | {
        "engine": ENGINE,
        "loras": [[part, lora.weight] for part, lora in zip(loras, request.loras, strict=True)],
        "device": device.split(":")[0],
        "dtype": dtype,
        **{name: machine[name] for name in HASHED_ENVIRONMENT},
    })


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
