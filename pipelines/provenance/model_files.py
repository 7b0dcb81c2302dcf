"""Models by the SHA-256 of their files: what a picture says of its model, and which of the models
on this machine it is."""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

from pipelines.errors import PipelineError
from pipelines.files import sha256_of
from pipelines.models.info import ModelInfo
from pipelines.models.reading import whole
from pipelines.models.registry import Registry
from pipelines.names import SHA256
from pipelines.provenance.reading import ModelName

SHORTEST_HASH = 8  # hex digits that are believed to name one file
OLD_HASH = 8  # digits of the hash that A1111 wrote before it took SHA-256


def model_files(info: ModelInfo) -> dict[str, dict[str, Any]]:
    """The weight files of a model by name, each with size and SHA-256; raises LoadError.

    A file of the Hub cache is named by its hash already; others are read once for each size and
    time of change, which takes some seconds for gigabytes.
    """
    files = [info.checkpoint] if info.checkpoint else info.weight_files
    with whole(info.model_id):
        return {_name(info, path): {"sha256": file_sha256(path), "size": path.stat().st_size}
                for path in files}


def _name(info: ModelInfo, path: Path) -> str:
    inside = not info.checkpoint and path.is_relative_to(info.folder)
    return path.relative_to(info.folder).as_posix() if inside else path.name


def file_sha256(path: Path) -> str:
    """SHA-256 of a file; raises OSError."""
    if named := _hub_sha256(path):
        return named
    stat = path.stat()
    return sha256_of(path, stat.st_size, stat.st_mtime_ns, stat.st_ino)


def _hub_sha256(path: Path) -> str | None:
    """The name of the blob that a file of the Hub cache is a link to."""
    blob = path.resolve() if path.is_symlink() else path
    return blob.name if (blob.parent.name == "blobs" and re.fullmatch(SHA256, blob.name)) else None


class ModelsHere:
    """The models on this machine, to look for one in; `model_ids` may name some that are not."""

    def __init__(self, registry: Registry, model_ids: Sequence[str]) -> None:
        self._registry, self._model_ids = registry, list(dict.fromkeys(model_ids))

    @functools.cached_property
    def _infos(self) -> list[ModelInfo]:
        infos = []
        for model_id in self._model_ids:
            with contextlib.suppress(PipelineError):
                infos.append(self._registry.describe(model_id))
        return infos

    def has(self, model_id: str, revision: str | None, variant: str | None) -> bool:
        try:
            self._registry.describe(model_id, revision, variant)
        except PipelineError:
            return False
        return True

    def same_files(self, files: Mapping[str, Any]) -> ModelInfo | None:
        """The model whose weights are these files, by SHA-256; only files of the right size are
        read."""
        wanted = {entry.get("sha256") for entry in files.values() if isinstance(entry, dict)}
        sizes = sorted(entry.get("size") for entry in files.values()
                       if isinstance(entry, dict) and isinstance(entry.get("size"), int))
        for info in self._infos:
            paths = [info.checkpoint] if info.checkpoint else info.weight_files
            with contextlib.suppress(PipelineError, OSError):
                if sorted(path.stat().st_size for path in paths) == sizes and wanted == {
                        file["sha256"] for file in model_files(info).values()}:
                    return info
        return None

    def named(self, model: ModelName) -> tuple[ModelInfo | None, str]:
        """The model of another program's name, and how far that can be relied on, in words.

        A hash decides where it is the start of a SHA-256: that of a checkpoint in one file.
        """
        digest = model.hash.lower()
        comparable = re.fullmatch(rf"[0-9a-f]{{{SHORTEST_HASH},64}}", digest)
        hashes = list(self._checkpoint_hashes()) if comparable else []
        for info, sha256 in hashes:
            if sha256.startswith(digest):
                return info, ""
        for info in self._infos:
            if model.name and _stem(model.name) in {_stem(info.model_id), info.model_id}:
                if any(info is other for other, _ in hashes) and len(digest) > OLD_HASH:
                    return None, f"{info.model_id} has that name and another hash"
                return info, ("by its name only, its files were not compared" if info.model_id !=
                              model.name or model.hash else "")
        return None, ""

    def _checkpoint_hashes(self) -> Iterator[tuple[ModelInfo, str]]:
        for info in self._infos:
            if info.checkpoint:
                with contextlib.suppress(OSError):
                    yield info, file_sha256(info.checkpoint)


def _stem(name: str) -> str:
    """'SD/model_v1.safetensors' -> 'model_v1', lower-cased."""
    last = PurePath(name.replace("\\", "/")).name
    return re.sub(r"\.(safetensors|ckpt|pt)$", "", last).casefold()
