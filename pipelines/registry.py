"""Model ids -> loaded pipelines: one per model and device, shared by every page and thread."""

from __future__ import annotations

import copy
import inspect
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.errors import DeviceMemoryError, LoadError, RequestError, UnknownModelError
from pipelines.hardware import best_device, default_dtype, device_memory_bytes, use_device
from pipelines.schedulers import SchedulerInfo, compatible_schedulers, key_of_class

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

    from pipelines.request import RunRequest

_importing = threading.Lock()
MEMORY_SHARE = 0.6  # the rest is for activations and for others
BUNDLED = {"postcards": Path(__file__).parent / "postcards" / "weights"}


@dataclass(frozen=True)
class ModelInfo:
    """What a model's own files say of it, read without torch.

    `height`, `width`: pixels of its own size, None where only the pipeline knows;
    `size_multiple`: sides are a multiple of it; `size_bytes`: its weights on disk.
    """

    model_id: str
    folder: Path
    source: str
    pipeline_class: str
    height: int | None
    width: int | None
    size_multiple: int
    size_bytes: int
    prediction_type: str
    default_scheduler: str
    original_scheduler_config: dict[str, Any]

    @property
    def schedulers(self) -> tuple[SchedulerInfo, ...]:
        """The catalogue's entries that go with this model."""
        return compatible_schedulers(self.original_scheduler_config)


@dataclass
class LoadedModel:
    """A pipeline in memory; its tasks are views of the same weights."""

    info: ModelInfo
    device: str
    dtype: str
    load_ms: float
    pipe: DiffusionPipeline
    classes: dict[str, type[DiffusionPipeline]]
    views: dict[str, DiffusionPipeline] = field(default_factory=dict)
    warmed: set[tuple] = field(default_factory=set)

    @property
    def tasks(self) -> tuple[str, ...]:
        return tuple(self.classes)

    def view(self, task: str) -> DiffusionPipeline:
        """A pipeline object of one's own for one run: shared weights, nothing else shared."""
        if task not in self.classes:
            raise RequestError(
                f"task: received {task!r}, accepted for {self.info.model_id} "
                f"({self.info.pipeline_class}): {', '.join(self.tasks)}"
            )
        if task not in self.views:
            cls = self.classes[task]
            self.views[task] = self.pipe if type(self.pipe) is cls else cls.from_pipe(self.pipe)
        return _own_copy(self.views[task])


class Registry:
    """Opens models by id and keeps them; safe for threads.

    Weights, by their size on disk, take at most `max_bytes` (by default MEMORY_SHARE of the
    device's memory): the models used longest ago go first, the newest stays in any case.
    """

    def __init__(self, device: str | None = None, max_bytes: int | None = None) -> None:
        self._device = device
        self._max_bytes = max_bytes
        self._models: dict[tuple, LoadedModel] = {}
        self._device_locks: dict[str, threading.RLock] = {}
        self._lock = threading.Lock()

    @property
    def device(self) -> str:
        return self._device or best_device()

    def bundled(self) -> list[ModelInfo]:
        return [self.describe(model_id) for model_id in BUNDLED]

    def describe(self, model_id: str, revision: str | None = None) -> ModelInfo:
        """Read a model's config files; raises UnknownModelError or LoadError."""
        folder, source = _find_folder(model_id, revision)
        index = _read_json(folder / "model_index.json")
        denoiser, decoder = (
            next(filter(None, (_read_json(folder / name / "config.json") for name in names)), {})
            for names in (("unet", "transformer"), ("vae", "movq"))
        )
        scheduler = _read_json(folder / "scheduler" / "scheduler_config.json")
        blocks = decoder.get("block_out_channels") or decoder.get("encoder_block_out_channels")
        factor = 2 ** (len(blocks) - 1) if blocks else 1
        side = denoiser.get("sample_size")
        height, width = side if isinstance(side, list) else (side, side)
        return ModelInfo(
            model_id=model_id,
            folder=folder,
            source=source,
            pipeline_class=index["_class_name"],
            height=height and height * factor,
            width=width and width * factor,
            size_multiple=max(8, factor),
            size_bytes=sum(f.stat().st_size for f in folder.rglob("*.safetensors")),
            prediction_type=scheduler.get("prediction_type", "epsilon"),
            default_scheduler=key_of_class(scheduler.get("_class_name", "")) or "default",
            original_scheduler_config=scheduler,
        )

    def fill_in(self, request: RunRequest) -> RunRequest:
        """The request with the model's scheduler and size where it left them open, without torch;
        raises UnknownModelError or LoadError. `resolve` does the rest."""
        info = self.describe(request.model_id, request.revision)
        own = info.default_scheduler if request.scheduler == "default" else request.scheduler
        return request.changed(scheduler=own, height=request.height or info.height,
                               width=request.width or info.width)

    @contextmanager
    def borrow(
        self, model_id: str, revision: str | None = None, variant: str | None = None
    ) -> Iterator[tuple[LoadedModel, bool]]:
        """The loaded model and whether this call loaded it, with its device to oneself."""
        with self.device_lock(self.device):
            use_device(self.device)
            key = (_find_folder(model_id, revision)[0].resolve(), variant, self.device)
            model = self._models.pop(key, None)
            fresh = model is None
            if fresh:
                info = self.describe(model_id, revision)
                self._make_room(info.size_bytes)
                model = self._load(info, variant)
            self._models[key] = model  # the last is the one used last
            yield model, fresh

    def _make_room(self, needed: int) -> None:
        limit = self._max_bytes
        if limit is None:
            limit = int(MEMORY_SHARE * device_memory_bytes(self.device))
        kept = sum(model.info.size_bytes for model in self._models.values())
        while self._models and kept + needed > limit:
            oldest = next(iter(self._models))
            kept -= self._models.pop(oldest).info.size_bytes

    def unload(self, model_id: str) -> None:
        """Forget a model, so that its memory can be used again once no run holds it."""
        with self.device_lock(self.device):
            folder = _find_folder(model_id, None)[0].resolve()
            self._models = {key: m for key, m in self._models.items() if key[0] != folder}

    def device_lock(self, device: str) -> threading.RLock:
        with self._lock:
            return self._device_locks.setdefault(device, threading.RLock())

    def _load(self, info: ModelInfo, variant: str | None) -> LoadedModel:
        started = time.perf_counter()
        warm_libraries()
        import torch
        from diffusers import DiffusionPipeline

        classes = task_classes(info)
        dtype = default_dtype(self.device)
        try:
            pipe = DiffusionPipeline.from_pretrained(
                info.folder,
                variant=variant,
                dtype=getattr(torch, dtype),
                use_safetensors=True,
                local_files_only=True,
            ).to(self.device)
        except torch.OutOfMemoryError as error:
            raise DeviceMemoryError(
                f"{info.model_id} does not fit into the memory of {self.device}: {error}"
            ) from error
        except Exception as error:
            raise LoadError(f"{info.model_id} cannot be opened: {_first_line(error)}") from error
        load_ms = (time.perf_counter() - started) * 1000
        return LoadedModel(info, self.device, dtype, load_ms, pipe, classes)


def warm_libraries() -> None:
    """Import what the first run needs (torch and diffusers take seconds), and quieten it.

    One thread at a time: diffusers swaps its own module while it is imported, and a second thread
    would find it half made.
    """
    with _importing:
        import transformers

        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        from diffusers import AutoPipelineForText2Image, StableDiffusionPipeline  # noqa: F401
        from diffusers.utils import logging

        logging.set_verbosity_error()
    logging.disable_progress_bar()


def task_classes(info: ModelInfo) -> dict[str, type[DiffusionPipeline]]:
    """Each task that a model can do, with the diffusers class that does it on its weights.

    Read from diffusers' own tables and the signature of the class; LoadError for a class that
    diffusers does not have (a folder's own code is never run).
    """
    import diffusers
    from diffusers.pipelines import auto_pipeline

    cls = getattr(diffusers, info.pipeline_class, None)
    if not (isinstance(cls, type) and issubclass(cls, diffusers.DiffusionPipeline)):
        raise LoadError(f"{info.model_id}: diffusers has no pipeline {info.pipeline_class}")
    tables = {
        "text-to-image": auto_pipeline.AUTO_TEXT2IMAGE_PIPELINES_MAPPING,
        "image-to-image": auto_pipeline.AUTO_IMAGE2IMAGE_PIPELINES_MAPPING,
        "inpainting": auto_pipeline.AUTO_INPAINT_PIPELINES_MAPPING,
    }
    classes = {task: found for task, table in tables.items()
               if (found := auto_pipeline._get_task_class(table, cls.__name__, False))}
    own = next((task for task, found in classes.items() if found is cls), None) or _task_of(cls)
    classes[own] = cls
    # A denoiser of 9 channels takes the mask and the masked picture: it can do nothing else. The
    # other way round, Kandinsky's in-painting needs such a denoiser.
    nine = _read_json(info.folder / "unet" / "config.json").get("in_channels") == 9
    if nine:
        return {task: found for task, found in classes.items() if task == "inpainting"}
    if "Kandinsky" in cls.__name__ and own != "inpainting":
        classes.pop("inpainting", None)
    return classes


def _task_of(cls: type[DiffusionPipeline]) -> str:
    """What a pipeline does, by the parameters of its call."""
    parameters = inspect.signature(cls.__call__).parameters
    if "mask_image" in parameters:
        return "inpainting"
    if "image" in parameters:
        return "image-to-image"
    return "text-to-image" if "prompt" in parameters else "unconditional"


def _own_copy(pipe: DiffusionPipeline) -> DiffusionPipeline:
    """The same weights under objects of its own, the pipelines inside a combined one included."""
    pipe = copy.copy(pipe)
    vars(pipe).update({name: copy.copy(part) for name, part in inner_pipelines(pipe).items()})
    pipe.set_progress_bar_config(disable=True)
    return pipe


def inner_pipelines(pipe: DiffusionPipeline) -> dict[str, DiffusionPipeline]:
    """The pipelines that a combined one is made of, by attribute; none for the others."""
    from diffusers import DiffusionPipeline

    return {name: v for name, v in vars(pipe).items() if isinstance(v, DiffusionPipeline)}


def _find_folder(model_id: str, revision: str | None) -> tuple[Path, str]:
    """Where a model lies: bundled, a folder, or the Hub's local cache; nothing is downloaded."""
    if model_id in BUNDLED:
        return BUNDLED[model_id], "bundled"
    try:
        folder = Path(model_id).expanduser()
        found_folder = folder.is_dir()
    except (OSError, RuntimeError, ValueError):  # no such user, too long, a null byte
        found_folder = False
    if found_folder:
        if not (folder / "model_index.json").is_file():
            raise LoadError(f"{model_id} is a folder without model_index.json, so no pipeline")
        return folder, "folder"
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(model_id, "model_index.json", revision=revision)
    except HFValidationError:
        found = None
    if isinstance(found, str):
        return Path(found).parent, "Hub cache"
    raise UnknownModelError(
        f"model_id: received {model_id!r}, which is not on this machine; accepted: "
        f"{', '.join(BUNDLED)}, the path of a diffusers folder, or a Hub id that lies in the "
        "Hugging Face cache"
    )


def _read_json(path: Path) -> dict[str, Any]:
    """A config file's content, {} where there is none; LoadError where it is broken."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise LoadError(f"{path.name} of {path.parent} cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise LoadError(f"{path.name} of {path.parent} holds no JSON object")
    if path.name == "model_index.json" and not isinstance(value.get("_class_name"), str):
        raise LoadError(f"{path.parent} names no pipeline class in model_index.json")
    return value


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
