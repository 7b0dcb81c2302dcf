"""The Hub's local cache: how it names things, what lies in it, and how it is cleaned up."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.errors import RequestError, StorageError, first_line
from pipelines.hub.plan import INDEX, DownloadPlan, HubFile

PARTIAL = ".contact-sheet.incomplete"  # ends the name of a file that is still being fetched


def repo_folder(cache_dir: Path, model_id: str) -> Path:
    """Where huggingface_hub's cache keeps a model: blobs, refs and snapshots."""
    from huggingface_hub.file_download import repo_folder_name

    return cache_dir / repo_folder_name(repo_id=model_id, repo_type="model")


def model_folders(cache_dir: Path) -> dict[str, Path]:
    """The other way round: the id of each model that the cache has a folder for, by name."""
    return dict(sorted((path.name.removeprefix("models--").replace("--", "/"), path)
                       for path in cache_dir.glob("models--*")))


def cached_path(plan: DownloadPlan, file: HubFile, cache_dir: Path) -> Path | None:
    """Where a file of a plan lies in the cache; None where it is missing or of another size."""
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(plan.model_id, file.path, cache_dir, plan.commit)
    with contextlib.suppress(OSError):  # it is being deleted
        if isinstance(path, str) and os.path.getsize(path) == file.size:
            return Path(path)
    return None


def here_state(plan: DownloadPlan, cache_dir: Path) -> str:
    """yes, partly or no: are the plan's files in the local cache, by name, commit and size?"""
    if all(cached_path(plan, file, cache_dir) for file in plan.files):
        return "yes"
    return "no" if missing_bytes(plan, cache_dir) == plan.size_bytes else "partly"


def missing_bytes(plan: DownloadPlan, cache_dir: Path) -> int:
    """What is still to be fetched: the same content may be here from another commit."""
    blobs = repo_folder(cache_dir, plan.model_id) / "blobs"
    return sum(file.size for file in plan.files
               if not (blobs / file.etag).exists() and not cached_path(plan, file, cache_dir))


def checksum(path: Path, etag: str, check: Callable[[], None] = lambda: None) -> str:
    """The file's content as the Hub would name it: SHA-256, or git's SHA-1 where `etag` is one."""
    if len(etag) == 64:
        digest: Any = hashlib.sha256()
    else:
        digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            check()
            digest.update(chunk)
    return digest.hexdigest()


@dataclass(frozen=True)
class CachedRevision:
    """One commit of a model in the Hub's cache; `last_used` is seconds since 1970, of the model as
    a whole; `freed_bytes` what deleting it alone would free."""

    model_id: str
    commit: str
    refs: tuple[str, ...]
    folder: Path
    files: int
    size_bytes: int
    freed_bytes: int
    last_used: float


def cached_revisions(cache_dir: Path) -> list[CachedRevision]:
    """Every revision of every model in the cache, by name; `damaged_entries` has those that cannot
    be read. Raises StorageError."""
    info = _scan(cache_dir)
    if info is None:
        return []
    return sorted(
        (CachedRevision(
            repo.repo_id, revision.commit_hash, tuple(sorted(revision.refs)),
            revision.snapshot_path, revision.nb_files, revision.size_on_disk,
            info.delete_revisions(revision.commit_hash).expected_freed_size, repo.last_accessed)
         for repo in info.repos if repo.repo_type == "model" for revision in repo.revisions),
        key=lambda revision: (revision.model_id.lower(), not revision.refs, revision.commit),
    )


def damaged_entries(cache_dir: Path) -> list[str]:
    """What of the cache cannot be read, and why; raises StorageError."""
    info = _scan(cache_dir)
    return sorted(first_line(problem) for problem in info.warnings) if info else []


def freed_bytes(cache_dir: Path, commits: Iterable[str]) -> int:
    """What deleting these revisions together would free."""
    info = _scan(cache_dir)
    return info.delete_revisions(*commits).expected_freed_size if info else 0


def delete_revisions(cache_dir: Path, commits: Iterable[str]) -> int:
    """Delete revisions and what only they need; the bytes freed. Raises RequestError for a commit
    that is not there, and StorageError."""
    info, commits = _scan(cache_dir), list(commits)
    listed = {revision.commit_hash for repo in info.repos for revision in repo.revisions
              if repo.repo_type == "model"} if info else set()
    if unknown := [commit for commit in commits if commit not in listed]:
        raise RequestError(f"revision: received {unknown[0]!r}, which is not in {cache_dir}; "
                           "accepted a commit that the cache lists")
    strategy = info.delete_revisions(*commits)
    try:
        strategy.execute()
    except OSError as error:
        raise StorageError(f"{cache_dir} cannot be changed: {error}") from error
    return strategy.expected_freed_size


def _scan(cache_dir: Path):
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        return scan_cache_dir(cache_dir)
    except CacheNotFound:
        return None
    except (OSError, ValueError) as error:
        raise StorageError(f"{cache_dir} cannot be read: {error}") from error


def damaged_files(
    revision: CachedRevision, on_file: Callable[[], None] = lambda: None
) -> list[str]:
    """Files whose content is not what their checksum says; reads every byte.

    The cache names a file's content by its checksum. Where the file system has no links there is
    no such name, and a file is only looked at for being there.
    """
    damaged = []
    for path in sorted(revision.folder.rglob("*")):
        if path.is_dir():
            continue
        name = path.relative_to(revision.folder).as_posix()
        blob = Path(path.parent / path.readlink()) if path.is_symlink() else path
        try:
            if re.fullmatch("[0-9a-f]{40}|[0-9a-f]{64}", blob.name):
                fine = checksum(path, blob.name) == blob.name
            else:
                fine = path.stat().st_size > 0
        except OSError:
            fine = False
        if not fine:
            damaged.append(name)
        on_file()
    return damaged


def forget_files(revision: CachedRevision, names: Iterable[str]) -> None:
    """Remove damaged files, so that the next download fetches them again."""
    for name in names:
        path = revision.folder / name
        with contextlib.suppress(OSError):
            if path.is_symlink():
                (path.parent / path.readlink()).unlink(missing_ok=True)
            path.unlink(missing_ok=True)


def leftovers(cache_dir: Path) -> dict[str, int]:
    """Model -> bytes of downloads that broke off and were not resumed."""
    sizes: dict[str, int] = {}
    for model_id, folder in model_folders(cache_dir).items():
        for path in folder.glob(f"blobs/*{PARTIAL}"):
            with contextlib.suppress(OSError):
                sizes[model_id] = sizes.get(model_id, 0) + path.stat().st_size
    return {model_id: size for model_id, size in sizes.items() if size}


def delete_leftovers(cache_dir: Path, model_id: str) -> None:
    for path in repo_folder(cache_dir, model_id).glob(f"blobs/*{PARTIAL}"):
        with contextlib.suppress(OSError):
            path.unlink()


def cached_pipelines(cache_dir: Path) -> list[str]:
    """Ids of the diffusers pipelines whose main branch lies in the cache; a quick look."""
    model_ids = []
    for model_id, folder in model_folders(cache_dir).items():
        with contextlib.suppress(OSError, ValueError):  # a branch whose file is no text
            commit = (folder / "refs" / "main").read_text(encoding="utf-8").strip()
            snapshot = folder / "snapshots" / commit
            index = snapshot / INDEX  # or a link to nothing: the model is there, not complete
            if any(snapshot.glob("*/*.safetensors")) and (index.exists() or index.is_symlink()):
                model_ids.append(model_id)
    return sorted(model_ids, key=str.lower)
