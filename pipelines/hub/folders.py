"""Models on this machine: the Hub's local cache by revision, and folders that were registered."""

from __future__ import annotations

import contextlib
import json
import logging
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from pipelines.errors import LoadError, RequestError, StorageError
from pipelines.hub.client import HubDetails, HubModel, licence_of, repo_folder
from pipelines.hub.download import PARTIAL, checksum
from pipelines.hub.plan import CARD, INDEX, HubFile, pipeline_obstacle
from pipelines.models.files import (
    BUNDLED,
    cached_folder,
    checkpoint_shapes,
    read_json,
    single_file_repository,
)
from pipelines.models.opening import warm_libraries
from pipelines.models.registry import Registry

logger = logging.getLogger(__name__)
FOLDERS = "models.json"
HUB_TASKS = {"unconditional": "unconditional-image-generation", "inpainting": "image-to-image"}


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

    @property
    def is_pipeline(self) -> bool:
        return (self.folder / INDEX).exists()


def cached_revisions(cache_dir: Path) -> list[CachedRevision]:
    """Every revision of every model in the cache, by name; broken entries are left out."""
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
    )  # fmt: skip


def freed_bytes(cache_dir: Path, commits: Iterable[str]) -> int:
    """What deleting these revisions together would free."""
    info = _scan(cache_dir)
    return info.delete_revisions(*commits).expected_freed_size if info else 0


def delete_revisions(cache_dir: Path, commits: Iterable[str]) -> int:
    """Delete revisions and what only they need; the bytes freed. Raises RequestError for a commit
    that is not there, and StorageError."""
    info, commits = _scan(cache_dir), list(commits)
    known = {revision.commit_hash for repo in info.repos for revision in repo.revisions
             if repo.repo_type == "model"} if info else set()
    if unknown := [commit for commit in commits if commit not in known]:
        raise RequestError(f"revision: received {unknown[0]!r}, which is not in {cache_dir}; "
                           "accepted a commit that the cache lists")  # fmt: skip
    strategy = info.delete_revisions(*commits)
    try:
        strategy.execute()
    except OSError as error:
        raise StorageError(f"{cache_dir} cannot be changed: {error}") from error
    return strategy.expected_freed_size


def _scan(cache_dir: Path):
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    with contextlib.suppress(CacheNotFound):
        return scan_cache_dir(cache_dir)
    return None


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
    found: dict[str, int] = {}
    for path in cache_dir.glob(f"models--*/blobs/*{PARTIAL}"):
        model_id = path.parent.parent.name.removeprefix("models--").replace("--", "/")
        with contextlib.suppress(OSError):
            found[model_id] = found.get(model_id, 0) + path.stat().st_size
    return {model_id: size for model_id, size in sorted(found.items()) if size}


def delete_leftovers(cache_dir: Path, model_id: str) -> None:
    for path in repo_folder(cache_dir, model_id).glob(f"blobs/*{PARTIAL}"):
        with contextlib.suppress(OSError):
            path.unlink()


def cached_pipelines(cache_dir: Path) -> list[str]:
    """Ids of the diffusers pipelines whose main branch lies in the cache; a quick look."""
    found = []
    for ref in cache_dir.glob("models--*/refs/main"):
        with contextlib.suppress(OSError):
            folder = ref.parents[1]
            commit = ref.read_text(encoding="utf-8").strip()
            snapshot = folder / "snapshots" / commit
            weights = next(snapshot.glob("*/*.safetensors"), None)
            if weights and (snapshot / INDEX).exists():
                found.append(folder.name.removeprefix("models--").replace("--", "/", 1))
    return sorted(found, key=str.lower)


def missing_configs(checkpoint: Path) -> str | None:
    """The Hub model whose configs a single-file checkpoint goes with, None where they are here;
    raises LoadError."""
    warm_libraries()
    repository = single_file_repository(checkpoint_shapes(checkpoint))
    return None if cached_folder(repository) else repository


class LocalFolders:
    """Pipeline folders that the user registered, kept in the data folder."""

    def __init__(self, home: Path) -> None:
        self.path = home / FOLDERS

    def paths(self) -> list[str]:
        try:
            value = json.loads(self.path.read_text(encoding="utf-8"))
            return [str(path) for path in value["folders"]]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StorageError(f"{self.path} cannot be read: {error}") from error

    def add(self, text: str, registry: Registry) -> list[str]:
        """Register a pipeline folder, or every one below a folder; the paths that are new.

        Raises RequestError or LoadError where there is nothing that can be opened.
        """
        try:
            root = Path(text.strip()).expanduser().absolute()
            there = bool(text.strip()) and root.exists()
        except (OSError, RuntimeError, ValueError):  # no such user, too long, a null byte
            there = False
        if not there:
            raise RequestError(f"folder: received {text!r}, accepted the path of a folder on the "
                               "machine where Contact Sheet runs")  # fmt: skip
        folders = [root]
        if root.is_dir() and not (root / INDEX).exists():
            folders = sorted(path.parent for path in root.glob(f"*/{INDEX}"))
            if not folders:
                raise RequestError(f"folder: {root} holds no {INDEX}, nor does a folder in it; "
                                   "accepted a folder in diffusers' format")  # fmt: skip
        for folder in folders:
            registry.describe(str(folder))
        known = self.paths()
        new = [str(folder) for folder in folders if str(folder) not in known]
        self._write([*known, *new])
        return new

    def remove(self, path: str) -> None:
        """Forget a folder; its files stay."""
        self._write([known for known in self.paths() if known != path])

    def _write(self, paths: list[str]) -> None:
        temporary = self.path.with_suffix(".tmp")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(json.dumps({"folders": paths}, indent=2), encoding="utf-8")
            temporary.replace(self.path)
        except OSError as error:
            raise StorageError(f"{self.path} cannot be written: {error}") from error


def offered_models(home: Path, cache_dir: Path) -> list[str]:
    """Ids of everything that can be opened here now: bundled, registered, cached."""
    folders = [path for path in LocalFolders(home).paths() if Path(path).exists()]
    return [*BUNDLED, *folders, *cached_pipelines(cache_dir)]


def local_models(registry: Registry, home: Path, cache_dir: Path) -> list[HubModel]:
    """What is on this machine, as results of a search; what cannot be read says why."""
    return [local_details(registry, model_id).model
            for model_id in offered_models(home, cache_dir)]


def local_details(registry: Registry, model_id: str) -> HubDetails:
    """One model on this machine with its files, config and card; raises UnknownModelError."""
    try:
        info = registry.describe(model_id)
    except LoadError as error:
        broken = HubModel(model_id, "folder", obstacle=str(error), here="yes")
        return HubDetails(broken, (), None, None)
    folder = info.checkpoint.parent if info.checkpoint else info.folder
    card_folder = folder.parent if info.source == "bundled" else folder
    paths = [info.checkpoint] if info.checkpoint else sorted(folder.rglob("*"))
    files = tuple(HubFile(path.relative_to(folder).as_posix(), path.stat().st_size, "")
                  for path in paths if path.is_file())
    card = _card_head(card_folder / CARD)
    bases = card.get("base_model") or []
    model = HubModel(
        model_id=model_id,
        source=info.source,
        task=HUB_TASKS.get(info.task_for(), info.task_for()),
        pipeline_class=info.pipeline_class,
        kind="checkpoint" if info.checkpoint else "pipeline",
        size_bytes=sum(file.size for file in files),
        licence=licence_of(card, ()),
        obstacle=pipeline_obstacle(info.pipeline_class, None),
        here="yes",
        library="diffusers",
        base_models=tuple(map(str, [bases] if isinstance(bases, str) else bases)),
        commit=folder.name if info.source == "Hub cache" else None,
    )
    index = read_json(info.folder / INDEX)
    return HubDetails(model, files, index, None, card, (folder, card_folder))


def _card_head(path: Path) -> dict:
    """The YAML head of a model card; empty where there is none or it is broken."""
    from huggingface_hub import metadata_load

    try:
        return metadata_load(path) or {}
    except (OSError, ValueError, TypeError):
        return {}
    except Exception as error:  # PyYAML's errors share no public base with the above
        logger.info("the head of %s cannot be read: %s", path, error)
        return {}
