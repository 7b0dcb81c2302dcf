"""Models on this machine: bundled ones, folders that were registered, and the Hub's cache."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.errors import LoadError, PipelineError, RequestError, StorageError
from pipelines.files import write_file
from pipelines.hub.cache import cached_pipelines
from pipelines.hub.model import ModelDetails, ModelSummary, base_models_of, licence_of
from pipelines.hub.plan import CARD, INDEX, HubFile, pipeline_obstacle
from pipelines.models.files import (
    BUNDLED,
    cached_folder,
    existing_path,
    single_file_repository,
)
from pipelines.models.opening import warm_libraries
from pipelines.models.reading import checkpoint_shapes, parse_json, whole
from pipelines.models.registry import Registry
from pipelines.provenance.model_files import ModelsHere

if TYPE_CHECKING:
    from pipelines.engine import Engine

logger = logging.getLogger(__name__)
FOLDERS = "models.json"
HUB_TASKS = {"unconditional": "unconditional-image-generation", "inpainting": "image-to-image"}


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
        """As they were registered; raises StorageError."""
        try:
            value = parse_json(self.path.read_bytes())
        except FileNotFoundError:
            return []
        except (OSError, ValueError) as error:
            raise StorageError(f"{self.path} cannot be read: {error}") from error
        paths = value.get("folders") if isinstance(value, dict) else None
        if not (isinstance(paths, list) and all(isinstance(path, str) for path in paths)):
            raise StorageError(f"{self.path} cannot be read: accepted an object with a list of "
                               "paths, 'folders'")
        return paths

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
                               "machine where Contact Sheet runs")
        folders = [root]
        if root.is_dir() and not (root / INDEX).exists():
            folders = sorted(path.parent for path in root.glob(f"*/{INDEX}"))
            if not folders:
                raise RequestError(f"folder: {root} holds no {INDEX}, nor does a folder in it; "
                                   "accepted a folder in diffusers' format")
        for folder in folders:
            registry.describe(str(folder))
        registered = self.paths()
        new = [str(folder) for folder in folders if str(folder) not in registered]
        self._write([*registered, *new])
        return new

    def remove(self, path: str) -> None:
        """Forget a folder; its files stay."""
        self._write([other for other in self.paths() if other != path])

    def _write(self, paths: list[str]) -> None:
        try:
            write_file(self.path, json.dumps({"folders": paths}, indent=2).encode())
        except OSError as error:
            raise StorageError(f"{self.path} cannot be written: {error}") from error


def offered_models(home: Path, cache_dir: Path) -> list[str]:
    """Ids of everything that can be opened here now: bundled, registered, cached."""
    try:
        registered = LocalFolders(home).paths()
    except StorageError as error:  # the page and the command that list folders say so
        logger.warning("%s", error)
        registered = []
    return [*BUNDLED, *filter(existing_path, registered), *cached_pipelines(cache_dir)]


def models_here(engine: Engine) -> ModelsHere:
    """All models that can be opened here, those of the log among them, to look for one by name or
    by its files."""
    from huggingface_hub import constants

    offered = offered_models(engine.home, Path(constants.HF_HUB_CACHE))
    return ModelsHere(engine.registry, [*offered, *engine.run_log.distinct("model_id")])


def local_models(registry: Registry, home: Path, cache_dir: Path) -> list[ModelSummary]:
    """What is on this machine, as results of a search; what cannot be read says why."""
    models = []
    for model_id in offered_models(home, cache_dir):
        try:
            models.append(local_details(registry, model_id).model)
        except PipelineError as error:
            models.append(_broken(model_id, error).model)
    return models


def local_details(registry: Registry, model_id: str) -> ModelDetails:
    """One model on this machine with its files, config and card; raises UnknownModelError."""
    try:
        info = registry.describe(model_id)
        folder = info.checkpoint.parent if info.checkpoint else info.folder
        with whole(model_id):
            paths = [info.checkpoint] if info.checkpoint else sorted(folder.rglob("*"))
            files = tuple(HubFile(path.relative_to(folder).as_posix(), path.stat().st_size, "")
                          for path in paths if path.is_file())
    except LoadError as error:
        return _broken(model_id, error)
    card_folder = folder.parent if info.source == "bundled" else folder
    card = _card_head(card_folder / CARD)
    model = ModelSummary(
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
        base_models=base_models_of(card),
        commit=info.commit,
    )
    return ModelDetails(model, files, info.index, None, card, (folder, card_folder))


def _broken(model_id: str, error: PipelineError) -> ModelDetails:
    source = "folder" if existing_path(model_id) else "Hub cache"
    return ModelDetails(ModelSummary(model_id, source, obstacle=str(error), here="yes"), (), None,
                        None)


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
