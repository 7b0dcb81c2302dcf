"""Reading the files of models, which come from anywhere: each reader is bounded, and what it finds
too large, broken or of a wrong type is a LoadError."""

from __future__ import annotations

import functools
import json
import math
import re
import reprlib
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.errors import LoadError

MAX_TEXT = 10_000_000  # bytes of JSON; a header of that size names some 80,000 tensors
MAX_DEPTH = 100  # of lists in lists
DTYPE_BITS = {"F64": 64, "F32": 32, "F16": 16, "BF16": 16, "I64": 64, "I32": 32, "I16": 16,
              "I8": 8, "U64": 64, "U32": 32, "U16": 16, "U8": 8, "BOOL": 8, "F8_E4M3": 8,
              "F8_E5M2": 8}  # fmt: skip


@dataclass(frozen=True)
class Kind:
    """What a value of a config file has to be; `accepted` says it in words."""

    accepted: str
    fits: Callable[[Any], bool]


def is_whole(value: Any, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def is_number(value: Any) -> bool:
    return (isinstance(value, int | float) and not isinstance(value, bool)
            and abs(value) < 1e9)  # not NaN either


def is_plain_name(name: Any) -> bool:
    """Whether a name means something in its folder, and nothing outside of it."""
    return isinstance(name, str) and re.fullmatch(r"\w[\w. +-]{0,250}", name) is not None


def checked(config: Mapping[str, Any], kinds: Mapping[str, Kind], place: str) -> dict[str, Any]:
    """The config without those of `kinds` that are null; LoadError where one is of another kind."""
    for name, kind in kinds.items():
        value = config.get(name)
        if value is not None and not kind.fits(value):
            raise LoadError(f"{place}: {name}: received {reprlib.repr(value)}, accepted "
                            f"{kind.accepted}")
    return {name: value for name, value in config.items()
            if name not in kinds or value is not None}


@contextmanager
def whole(model: str) -> Iterator[None]:
    """The system's errors about the files of a model, as LoadError."""
    try:
        yield
    except FileNotFoundError as error:
        raise LoadError(f"{model} is not complete: {error.filename} is not there") from error
    except OSError as error:
        raise LoadError(f"{model} cannot be read: {error}") from error


def parse_json(data: bytes) -> Any:
    """The value of a JSON text in UTF-8; ValueError for all that is none or cannot be handled."""
    try:
        value = json.loads(data.decode("utf-8-sig"))
    except RecursionError:
        raise ValueError(f"it is nested deeper than {MAX_DEPTH} levels") from None
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [child for item in level if isinstance(item, dict | list)
                 for child in (item.values() if isinstance(item, dict) else item)]
    if level:
        raise ValueError(f"it is nested deeper than {MAX_DEPTH} levels")
    return value


def read_json(path: Path) -> dict[str, Any]:
    """A config file's content, {} where there is none; LoadError where it is broken."""
    try:
        if not (path.exists() or path.is_symlink()):
            return {}
        value = parse_json(_read_file(path))
    except (OSError, ValueError) as error:
        raise LoadError(f"{path.name} of {path.parent} cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise LoadError(f"{path.name} of {path.parent} holds no JSON object")
    return value


def _read_file(path: Path) -> bytes:
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):  # a folder, or a pipe that would never end
        raise ValueError("it is no file")
    if status.st_size > MAX_TEXT:
        raise ValueError(f"it has {status.st_size} bytes, accepted up to {MAX_TEXT}")
    return path.read_bytes()


def checkpoint_shapes(path: Path) -> Mapping[str, tuple[int, ...]]:
    """Tensor names and shapes of a .safetensors file, from its header; raises LoadError.

    All callers share one mapping: nobody changes it.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("it is no file")
        return _shapes(path, status.st_size, status.st_mtime_ns)
    except (OSError, ValueError) as error:
        raise LoadError(f"{path} is no whole safetensors file: {error}") from error


@functools.lru_cache(64)
def _shapes(path: Path, size: int, _changed: int) -> Mapping[str, tuple[int, ...]]:
    """Read once for each size and time of change."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= size:
            raise ValueError("its header has no sensible length")
        if length > MAX_TEXT:
            raise ValueError(f"its header has {length} bytes, accepted up to {MAX_TEXT}")
        header = parse_json(file.read(length))
    if not isinstance(header, dict):
        raise ValueError("its header is no JSON object")
    header.pop("__metadata__", None)
    ranges = sorted((_range(name, entry), name) for name, entry in header.items())
    end = 0
    for (start, stop), name in ranges:
        if start != end:
            raise ValueError(f"{reprlib.repr(name)} starts at byte {start}, the one before ends "
                             f"at {end}")
        end = stop
    if size != 8 + length + end:
        raise ValueError(f"it has {size} of {8 + length + end} bytes; download it again")
    return {name: tuple(entry["shape"]) for name, entry in header.items()}


def _range(name: str, entry: Any) -> tuple[int, int]:
    """The bytes of a tensor, by its entry in the header; ValueError where that is not sound."""
    entry = entry if isinstance(entry, dict) else {}
    dtype, shape, offsets = (entry.get(key) for key in ("dtype", "shape", "data_offsets"))
    if not (isinstance(dtype, str) and isinstance(shape, list) and isinstance(offsets, list)
            and len(offsets) == 2 and len(shape) <= MAX_DEPTH
            and all(is_whole(number, 0, 2**63) for number in (*shape, *offsets))
            and offsets[0] <= offsets[1]):
        raise ValueError(f"the entry of {reprlib.repr(name)} in its header is not sound: "
                         f"{reprlib.repr(entry)}")
    length, bits = offsets[1] - offsets[0], DTYPE_BITS.get(dtype)
    if bits and 8 * length != bits * math.prod(shape):
        raise ValueError(f"{reprlib.repr(name)} has {length} bytes, {shape} of {dtype} need "
                         f"{bits * math.prod(shape) // 8}")
    return offsets[0], offsets[1]
