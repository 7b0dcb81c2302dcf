"""What the files of a model say of it: a `ModelInfo`, read without torch where it is a folder."""

from __future__ import annotations

import functools
import os
import re
import reprlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.errors import LoadError
from pipelines.models.call_source import offered_classes, read_call
from pipelines.models.files import check_configs, find_model, weight_files
from pipelines.models.parts import AUTOENCODERS, DENOISERS, parts_of_index
from pipelines.models.quirks import (
    latent_factor,
    missing_flag,
    needs_control_mode,
    possible_tasks,
    size_multiple,
    start_values,
)
from pipelines.models.reading import (
    Kind,
    checked,
    is_number,
    is_plain_name,
    is_whole,
    read_json,
    whole,
)
from pipelines.models.signatures import (
    REQUIRED,
    call_parameters,
    component_libraries,
    component_parameters,
    connected_class,
    other_output,
    picture_parameters,
    rounds_steps_up,
    scales_input,
    unknown_inputs,
)
from pipelines.request import RunRequest, split_model_id
from pipelines.schedulers import (
    CATALOGUE,
    SchedulerInfo,
    compatible_schedulers,
    is_flow_matching,
    key_of_class,
)

MAX_SIDE = 65_536  # of a denoiser's own size
MAX_LISTED = 16  # blocks or stages of a network
NAME = Kind("a name of at most 100 letters", lambda value: (
    isinstance(value, str) and value.isprintable() and len(value) <= 100))
LISTED = Kind(f"a list of at most {MAX_LISTED}",
              lambda value: isinstance(value, list) and len(value) <= MAX_LISTED)
PATCH = Kind("a whole number from 1 to 1024, or a list of them", lambda value: (
    value != [] and all(is_whole(side, 1, 1024) for side in _listed(value))))
# What is read of a model's config files and how it has to be, by kind of part.
INDEX_KINDS = {
    "is_distilled": Kind("true or false", lambda value: isinstance(value, bool)),
    "_call_defaults": Kind("an object", lambda value: isinstance(value, dict)),
}
CALL_KINDS = {
    "num_inference_steps": Kind("a whole number from 1 to 10000",
                                lambda value: is_whole(value, 1, 10_000)),
    "guidance_scale": Kind("a number", is_number),
}
DENOISER_KINDS = {
    "_class_name": NAME,
    "sample_size": Kind(f"a whole number from 1 to {MAX_SIDE}, or height and width", lambda value: (
        len(_listed(value)) == (2 if isinstance(value, list) else 1)
        and all(is_whole(side, 1, MAX_SIDE) for side in _listed(value)))),
    "patch_size": PATCH,
    "all_patch_size": PATCH,
}
AUTOENCODER_KINDS = dict.fromkeys(
    ("block_out_channels", "encoder_block_out_channels", "temperal_downsample"), LISTED)
SCHEDULER_KINDS = {"_class_name": NAME, "prediction_type": NAME}


@dataclass(frozen=True)
class ModelInfo:
    """What a model's own files and diffusers' source say of it.

    `height`, `width`: pixels of its own size, None where only the pipeline knows; `size_multiple`:
    sides are a multiple of it; `size_bytes`, `weight_files`: the weights that are read, on disk;
    `task_classes`: each task and the diffusers class that does it; `num_inference_steps`,
    `guidance_scale`: where a picture starts; `guidance_parameter`: what `pipe(...)` calls the
    guidance scale, None where the model has none; `distilled`: trained for few steps;
    `checkpoint`: the single file that holds the weights, `folder` then has the configs only;
    `index`: its model_index.json. A model that a provider runs (hosted.py) has no files: `calls`
    says by task what its API takes, as `call_parameters` does, `address` where it is asked; steps
    and guidance to start with are the provider's, None. One object serves all callers: nobody
    changes it.
    """

    model_id: str
    folder: Path
    source: str
    pipeline_class: str
    task_classes: dict[str, str]
    height: int | None
    width: int | None
    size_multiple: int
    size_bytes: int
    weight_files: tuple[Path, ...]
    variant: str | None
    prediction_type: str
    default_scheduler: str
    original_scheduler_config: dict[str, Any]
    index: dict[str, Any]
    num_inference_steps: int | None
    guidance_scale: float | None
    guidance_parameter: str | None
    distilled: bool
    needs_control_mode: bool = False
    checkpoint: Path | None = None
    calls: Mapping[str, Mapping[str, Any]] | None = None
    address: str = ""

    @functools.cached_property
    def schedulers(self) -> tuple[SchedulerInfo, ...]:
        """The catalogue's entries that go with this model; of a hosted one those that a class name
        says all about."""
        if self.calls is not None:
            takes = any("scheduler" in call for call in self.calls.values())
            return tuple(info for info in CATALOGUE if takes and not info.options)
        fitting = compatible_schedulers(self.original_scheduler_config)
        if self.tasks == ("unconditional",) and not scales_input(self.pipeline_class):
            fitting = tuple(info for info in fitting if not info.in_sigmas)
        if "original_inference_steps" in call_parameters(self.pipeline_class):
            fitting = tuple(info for info in fitting if info.key == "lcm")
        calls = [read_call(name, task) for task, name in self.task_classes.items()]
        return tuple(info for info in fitting if info.key == self.default_scheduler
                     or all(call.runs(info.class_name) for call in calls))

    @property
    def tasks(self) -> tuple[str, ...]:
        return tuple(self.task_classes)

    @property
    def hosted(self) -> bool:
        """Whether a provider runs it, so that requests leave this machine."""
        return self.calls is not None

    @property
    def needs_prior(self) -> bool:
        """Whether this is the second stage of two, and the first lies elsewhere."""
        return connected_class(str(self.index.get("_class_name"))) is not None

    @property
    def commit(self) -> str | None:
        """The commit of a Hub model's snapshot, None for what has no versions."""
        return self.folder.name if self.source == "Hub cache" else None

    @property
    def flow_matching(self) -> bool:
        return is_flow_matching(self.original_scheduler_config)

    @property
    def content(self) -> Path:
        """What the weights are read from: the folder, or the single file."""
        return (self.checkpoint or self.folder).resolve()

    def task_for(self, image: bool = False, mask_image: bool = False) -> str:
        """The task that a request with these pictures means."""
        if image:
            return "inpainting" if mask_image else "image-to-image"
        return next((task for task in ("text-to-image", "unconditional") if task in self.tasks),
                    self.tasks[0])

    def extra_inputs(self, task: str) -> dict[str, bool]:
        """The inputs beside prompt and picture that a task takes, and whether it needs them."""
        name = self.task_classes.get(task)
        if name is None:
            return {}
        parameters, extras = call_parameters(name), {}
        if "control_image" in picture_parameters(name, task):
            extras["control_image"] = True
        if "control_mode" in parameters and self.needs_control_mode:
            extras["control_mode"] = True
        if "class_labels" in parameters:
            extras["class_label"] = parameters["class_labels"] is REQUIRED
        return extras

    def takes(self, task: str, parameter: str) -> bool:
        """Whether a field of the request can have an effect in this task."""
        if parameter == "guidance_scale":
            return self.guidance_parameter is not None
        return parameter in self._call(task)

    def needs_prompt(self, task: str) -> bool:
        """Whether a prompt is to be given; the exact models' calls say that an empty one will
        do."""
        parameters = self._call(task)
        return "prompt" in parameters and parameters["prompt"] != ""

    def _call(self, task: str) -> Mapping[str, Any]:
        """What the call of a task takes."""
        if self.calls is not None:
            return self.calls.get(task, {})
        return call_parameters(self.task_classes.get(task, self.pipeline_class))

    def fill_in(self, request: RunRequest) -> RunRequest:
        """The request with the model's own steps and guidance where it left them open. Raises
        RequestError where its strength leaves no step of them."""
        own = {name: getattr(self, name) for name in ("num_inference_steps", "guidance_scale")
               if getattr(request, name) is None}
        return request.changed(**own) if own else request

    def steps_to_run(self, request: RunRequest) -> int:
        """The steps that really run with this model: families round those of `strength` up or
        down, and some run all. A provider tells of none: its answer counts as one."""
        if self.hosted:
            return 1
        request = self.fill_in(request)
        name, steps = self.task_classes.get(request.task), request.num_inference_steps
        if not request.image or name is None:
            return request.steps_to_run
        if "strength" not in call_parameters(name):
            return steps
        if rounds_steps_up(name):  # in floats as they do it, where 10 x 0.7 is above 7
            return steps - int(max(steps - min(steps * request.strength, steps), 0))
        return request.steps_to_run


def describe(model_id: str, revision: str | None = None, variant: str | None = None) -> ModelInfo:
    """What a model's files say, read again only where one has changed; raises UnknownModelError or
    LoadError.

    `model_id` may be 'ID@REVISION:VARIANT'.
    """
    model_id, *pinned = split_model_id(model_id)
    revision, variant = pinned[0] or revision, pinned[1] or variant
    with whole(model_id):
        folder, source, checkpoint = find_model(model_id, revision)
        files = (*_file_states(folder), *([_file_state(checkpoint)] if checkpoint else []))
        return _describe(model_id, variant, folder, source, checkpoint, files)


def describe_configs(model_id: str, folder: Path) -> ModelInfo:
    """What the configs of a model say whose weights are in memory; raises LoadError."""
    with whole(model_id):
        return _describe(model_id, None, folder, "memory", None, (*_file_states(folder),))


def _file_states(folder: Path) -> list[tuple]:
    """Name, size, time of change and mode of what lies in a model's folder and in its parts'."""
    states = []
    with suppress(OSError):  # it is being deleted
        for entry in os.scandir(folder):
            states.append(_file_state(entry))
            if entry.is_dir():
                states += map(_file_state, os.scandir(entry))
    return sorted(states)


def _file_state(file: os.DirEntry | Path) -> tuple[str, int, int, int]:
    try:
        status = file.stat()
    except OSError:  # a link to nothing
        return os.fspath(file), -1, -1, -1
    return os.fspath(file), status.st_size, status.st_mtime_ns, status.st_mode


@functools.lru_cache(256)
def _describe(
    model_id: str,
    variant: str | None,
    folder: Path,
    source: str,
    checkpoint: Path | None,
    _files: tuple[tuple, ...],
) -> ModelInfo:
    index = _config(folder / "model_index.json", INDEX_KINDS)
    if reason := refusal(index):
        raise LoadError(f"{model_id} cannot be opened: {reason}")
    if defaults := index.get("_call_defaults"):
        index["_call_defaults"] = checked(defaults, CALL_KINDS, f"{folder}/model_index.json")
    pipeline_class = connected_class(index["_class_name"]) or index["_class_name"]
    check_configs(folder, parts_of_index(index))
    denoiser, autoencoder = (
        next(filter(None, (_config(folder / name / "config.json", kinds) for name in names)), {})
        for names, kinds in ((DENOISERS, DENOISER_KINDS), (AUTOENCODERS, AUTOENCODER_KINDS))
    )
    controlnet = read_json(folder / "controlnet" / "config.json")
    offered = offered_classes(pipeline_class)
    reasons = {task: _why_not(name, task, index) for task, name in offered.items()}
    tasks = possible_tasks({task: name for task, name in offered.items() if not reasons[task]},
                           pipeline_class, index, denoiser, controlnet)
    if not tasks:
        reason = next(filter(None, reasons.values()),
                      f"{pipeline_class} does nothing with a network such as its denoiser")
        raise LoadError(f"{model_id} cannot be opened: {reason}")
    if flag := missing_flag(index, denoiser, read_json(folder / "text_encoder_2" / "config.json")):
        raise LoadError(f'{model_id} cannot be opened: its denoiser asks for "{flag}": true in its '
                        "model_index.json")
    scheduler = _config(folder / "scheduler" / "scheduler_config.json", SCHEDULER_KINDS)
    if checkpoint:
        weights, used_variant = [checkpoint], None
    elif source == "memory":
        weights, used_variant = [], None
    else:
        weights, used_variant = weight_files(folder, index, variant)
    factor = latent_factor(autoencoder)
    side = denoiser.get("sample_size")
    height, width = side if isinstance(side, list) else (side, side)
    return ModelInfo(
        model_id=model_id,
        folder=folder,
        source=source,
        checkpoint=checkpoint,
        pipeline_class=pipeline_class,
        task_classes=tasks,
        height=height and height * factor,
        width=width and width * factor,
        size_multiple=size_multiple(pipeline_class, denoiser, factor),
        size_bytes=sum(file.stat().st_size for file in weights),
        weight_files=tuple(weights),
        variant=used_variant,
        prediction_type=scheduler.get("prediction_type", "epsilon"),
        default_scheduler=key_of_class(scheduler.get("_class_name", "")) or "default",
        original_scheduler_config=scheduler,
        index=index,
        needs_control_mode=needs_control_mode(controlnet),
        **start_values(call_parameters(pipeline_class), index, denoiser, scheduler),
    )


def _config(path: Path, kinds: Mapping[str, Kind]) -> dict[str, Any]:
    return checked(read_json(path), kinds, str(path))


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def refusal(index: Mapping[str, Any]) -> str | None:
    """Why a model_index.json cannot be opened, None where it can: no class of diffusers', or
    code of its own, which is never run."""
    name = index.get("_class_name")
    if isinstance(name, list):
        return "its pipeline is code of its own, which is never run"
    if not isinstance(name, str):
        return "its model_index.json names no pipeline class"
    if not call_parameters(name):
        named = name if re.fullmatch(r"\w{1,100}", name) else reprlib.repr(name)
        return f"diffusers has no pipeline {named}"
    if made := other_output(name):
        return f"{name} makes {made}; Contact Sheet compares still pictures"
    for part, (library, class_name) in parts_of_index(index).items():
        if not (is_plain_name(part) and isinstance(library, str) and isinstance(class_name, str)):
            return (f"its model_index.json names a part {reprlib.repr(part)} of "
                    f"{reprlib.repr([library, class_name])}; accepted are a folder's name, a "
                    "library and a class")
        if library not in component_libraries():
            return (f"its {part} comes from {reprlib.repr(library)}, which is neither diffusers "
                    "nor transformers; a model's own code is never run")
    return None


def _why_not(class_name: str, task: str, index: Mapping[str, Any]) -> str | None:
    """Why a class cannot do a task with the parts of an index and what a request gives; None where
    it can."""
    if inputs := unknown_inputs(class_name):
        return (f"{class_name} needs {', '.join(inputs)}, which another model or program has to "
                "make")
    if refusal := read_call(class_name, task).refusal:
        return f"{class_name} takes more than a request can give: {refusal}"
    if connected_class(index["_class_name"]):  # the first stage's parts lie elsewhere
        return None
    parts = component_parameters(class_name)
    missing = {name for name, default in parts.items() if default is REQUIRED} - set(index)
    return missing and (f"{class_name} needs {', '.join(sorted(missing))}, which its "
                        "model_index.json does not name") or None
