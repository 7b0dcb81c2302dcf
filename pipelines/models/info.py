"""Where models lie and what their files say of them; nothing here imports torch for a folder."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.errors import LoadError, UnknownModelError
from pipelines.models.signatures import (
    REQUIRED,
    call_parameters,
    component_libraries,
    component_parameters,
    connected_class,
    has_method,
    other_output,
    picture_parameters,
    rounds_steps_up,
    scales_input,
    task_classes,
    unknown_inputs,
)
from pipelines.request import RunRequest, join_model_id, split_model_id
from pipelines.schedulers import (
    IN_SIGMAS,
    SchedulerInfo,
    compatible_schedulers,
    is_flow_matching,
    key_of_class,
)

if TYPE_CHECKING:
    from pipelines.request import RunRequest

BUNDLED = {
    "postcards": Path(__file__).parents[1] / "postcards" / "weights",
    "postcards-ddpm": Path(__file__).parents[1] / "postcards" / "weights-ddpm",
}
DEFAULT_STEPS, DEFAULT_GUIDANCE, FEW_STEPS = 20, 5.0, 4
PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".pkl")


@dataclass(frozen=True)
class ModelInfo:
    """What a model's own files and diffusers' source say of it.

    `height`, `width`: pixels of its own size, None where only the pipeline knows; `size_multiple`:
    sides are a multiple of it; `size_bytes`, `weight_files`: the weights that are read, on disk;
    `task_classes`: each task and the diffusers class that does it; `num_inference_steps`,
    `guidance_scale`: where a picture starts; `guidance_parameter`: what `pipe(...)` calls the
    guidance scale, None where the model has none; `distilled`: trained for few steps;
    `checkpoint`: the single file that holds the weights, `folder` then has the configs only.
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
    num_inference_steps: int
    guidance_scale: float
    guidance_parameter: str | None
    distilled: bool
    needs_control_mode: bool = False
    checkpoint: Path | None = None

    @property
    def schedulers(self) -> tuple[SchedulerInfo, ...]:
        """The catalogue's entries that go with this model."""
        fitting = compatible_schedulers(self.original_scheduler_config)
        if self.tasks == ("unconditional",) and not scales_input(self.pipeline_class):
            fitting = tuple(info for info in fitting if info.class_name not in IN_SIGMAS)
        if "original_inference_steps" in call_parameters(self.pipeline_class):
            fitting = tuple(info for info in fitting if info.key == "lcm")
        return fitting

    @property
    def tasks(self) -> tuple[str, ...]:
        return tuple(self.task_classes)

    @property
    def needs_prior(self) -> bool:
        """Whether this is the second stage of two, and the first lies elsewhere."""
        index = read_json(self.folder / "model_index.json")
        return connected_class(str(index.get("_class_name"))) is not None

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
        return parameter in call_parameters(self.task_classes.get(task, self.pipeline_class))


    def steps_to_run(self, request: RunRequest) -> int:
        """The steps that really run with this model: families round those of `strength` up or
        down, and some run all."""
        name, steps = self.task_classes.get(request.task), request.num_inference_steps
        if not request.image or name is None:
            return request.steps_to_run
        if "strength" not in call_parameters(name):
            return steps
        if rounds_steps_up(name):  # in floats as they do it, where 10 x 0.7 is above 7
            return steps - int(max(steps - min(steps * request.strength, steps), 0))
        return request.steps_to_run


def describe(model_id: str, revision: str | None = None, variant: str | None = None) -> ModelInfo:
    """Read a model's config files; raises UnknownModelError or LoadError.

    `model_id` may be 'ID@REVISION:VARIANT'.
    """
    model_id, *pinned = split_model_id(model_id)
    revision, variant = pinned[0] or revision, pinned[1] or variant
    folder, source, checkpoint = find_model(model_id, revision)
    index = read_json(folder / "model_index.json")
    if reason := refusal(index):
        raise LoadError(f"{model_id} cannot be opened: {reason}")
    own_class = connected_class(index["_class_name"]) or index["_class_name"]
    denoiser, decoder = (
        next(filter(None, (read_json(folder / name / "config.json") for name in names)), {})
        for names in (("unet", "transformer", "decoder"), ("vae", "movq", "vqvae"))
    )
    controlnet = read_json(folder / "controlnet" / "config.json")
    tasks = _tasks(own_class, denoiser, controlnet, index)
    if not tasks:
        missing = ", ".join(unknown_inputs(own_class))
        raise LoadError(f"{model_id} cannot be opened: {own_class} needs {missing}, which another "
                        "model or program has to make")  # fmt: skip
    scheduler = read_json(folder / "scheduler" / "scheduler_config.json")
    if checkpoint:
        weights, chosen = [checkpoint], None
    else:
        weights, chosen = weight_files(folder, index, variant)
    factor = _latent_factor(decoder)
    side = denoiser.get("sample_size")
    height, width = side if isinstance(side, list) else (side, side)
    parameters = call_parameters(own_class)
    return ModelInfo(
        model_id=model_id,
        folder=folder,
        source=source,
        checkpoint=checkpoint,
        pipeline_class=own_class,
        task_classes=tasks,
        height=height and height * factor,
        width=width and width * factor,
        size_multiple=max(8, factor * _patch(own_class, denoiser)),
        size_bytes=sum(file.stat().st_size for file in weights),
        weight_files=tuple(weights),
        variant=chosen,
        prediction_type=scheduler.get("prediction_type", "epsilon"),
        default_scheduler=key_of_class(scheduler.get("_class_name", "")) or "default",
        original_scheduler_config=scheduler,
        # Union ControlNets are told what kind of picture they follow.
        needs_control_mode="Union" in str(controlnet.get("_class_name"))
        or controlnet.get("num_mode") is not None,
        **_defaults(parameters, index, denoiser, scheduler),
    )


def refusal(index: Mapping[str, Any]) -> str | None:
    """Why a model_index.json cannot be opened, None where it can: no class of diffusers', or
    code of its own, which is never run."""
    name = index.get("_class_name")
    if isinstance(name, list):
        return "its pipeline is code of its own, which is never run"
    if not isinstance(name, str):
        return "its model_index.json names no pipeline class"
    if not call_parameters(name):
        return f"diffusers has no pipeline {name}"
    if made := other_output(name):
        return f"{name} makes {made}; Contact Sheet compares still pictures"
    for component, value in _components(index):
        if value[0] not in component_libraries():
            return (f"its {component} comes from {value[0]!r}, which is neither diffusers nor "
                    "transformers; a model's own code is never run")
    return None


def weight_files(
    folder: Path, index: Mapping[str, Any], variant: str | None = None
) -> tuple[list[Path], str | None]:
    """The safetensors files that are read, and their variant: the one asked for, else the plain
    one, else the only one there is. Raises LoadError where weights are missing or only pickles."""
    of_component: dict[str, dict[str | None, list[Path]]] = {}
    for component, _ in _components(index):
        part = folder / component
        if not part.is_dir():
            raise LoadError(f"{folder} is not complete: {component} is missing; "
                            "download it again")  # fmt: skip
        if not (part / "config.json").is_file():  # tokenizers, schedulers, processors
            continue
        found = of_component.setdefault(component, {})
        for file in sorted(part.glob("*.safetensors")):
            found.setdefault(_variant_of(file.name), []).append(file)
        if not found:
            raise LoadError(_no_weights(part))
        _check_shards(part)
    variants = {name for found in of_component.values() for name in found}
    if variant and variant not in variants:
        have = ", ".join(sorted(name or "no variant" for name in variants))
        raise LoadError(f"variant: received {variant!r}, {folder} has {have or 'none'}")
    if not variant and any(None not in found for found in of_component.values()):
        named = sorted(name for name in variants if name)
        if len(named) > 1:
            raise LoadError(f"{folder} has the variants {', '.join(named)}: name one")
        variant = named[0]
    files = [file for found in of_component.values()
             for file in found.get(variant) or found.get(None) or next(iter(found.values()))]
    return files, variant


def find_model(model_id: str, revision: str | None) -> tuple[Path, str, Path | None]:
    """Folder of the configs, kind of source, and the checkpoint where the weights are one file;
    nothing is downloaded."""
    if model_id in BUNDLED:
        return BUNDLED[model_id], "bundled", None
    path = _existing(model_id)
    if path and path.is_dir():
        if not (path / "model_index.json").is_file():
            raise LoadError(f"{model_id} is a folder without model_index.json, so no pipeline")
        return path, "folder", None
    if path:
        return _single_file_config(path), "single file", path
    if folder := cached_folder(model_id, revision):
        return folder, "Hub cache", None
    raise UnknownModelError(
        f"model_id: received {join_model_id(model_id, revision, None)!r}, which is not on this "
        "machine; accepted: "
        f"{', '.join(BUNDLED)}, the path of a diffusers folder or of a .safetensors checkpoint, "
        "or a Hub id that lies in the Hugging Face cache"
    )


def cached_folder(model_id: str, revision: str | None = None) -> Path | None:
    """The snapshot of a Hub model in the local cache, None where there is none."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(model_id, "model_index.json", revision=revision)
    except HFValidationError:
        return None
    return Path(found).parent if isinstance(found, str) else None


def find_weights(name: str, files: Sequence[str], in_folder: Sequence[str]) -> Path | None:
    """The folder `name` where it holds the files `in_folder`, or the snapshot of that Hub id in
    the local cache that holds `files`; None where there is neither."""
    if (place := _existing(name)) and all((place / file).is_file() for file in in_folder):
        return place
    from huggingface_hub import try_to_load_from_cache

    with suppress(ValueError):  # no such id
        found = [try_to_load_from_cache(name, file) for file in files]
        if all(isinstance(path, str) for path in found):
            return Path(found[0]).parent
    return None


def find_lora(path: str) -> Path:
    """The file of an adapter: a .safetensors file, a folder that holds one, or a Hub id in the
    local cache, with the file's name behind it where there are several. Raises LoadError."""
    place = _existing(path)
    if place is None:
        from huggingface_hub import scan_cache_dir
        from huggingface_hub.errors import CacheNotFound

        repo, name = "/".join(path.split("/")[:2]), "/".join(path.split("/")[2:])
        try:
            repos = [found for found in scan_cache_dir().repos if found.repo_id == repo]
        except CacheNotFound:
            repos = []
        revisions = sorted((revision for found in repos for revision in found.revisions),
                           key=lambda revision: revision.last_modified)
        place = revisions[-1].snapshot_path / name if revisions else None
    if place is None or not place.exists():
        raise LoadError(f"lora: received {path!r}, accepted a .safetensors file, a folder that "
                        "holds one, or a Hub id in the Hugging Face cache")  # fmt: skip
    if place.is_file() and place.suffix in PICKLES:
        raise LoadError(f"lora: {path} is a pickle, which can run code when it is opened; "
                        "accepted: .safetensors")  # fmt: skip
    files = [place] if place.is_file() else sorted(place.glob("*.safetensors"))
    if len(files) != 1:
        listed = ", ".join(file.name for file in files[:5]) or "no .safetensors file"
        raise LoadError(f"lora: {path} holds {listed}; name one file")
    return files[0]


def read_json(path: Path) -> dict[str, Any]:
    """A config file's content, {} where there is none; LoadError where it is broken."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise LoadError(f"{path.name} of {path.parent} cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise LoadError(f"{path.name} of {path.parent} holds no JSON object")
    return value


def checkpoint_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Tensor names and shapes of a .safetensors file, from its header; raises LoadError."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= min(100_000_000, path.stat().st_size):
                raise ValueError("its header has no sensible length")
            header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        end = 8 + length + max((entry["data_offsets"][1] for entry in header.values()), default=0)
        if path.stat().st_size != end:
            raise ValueError(f"it has {path.stat().st_size} of {end} bytes; download it again")
        return {name: tuple(entry["shape"]) for name, entry in header.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise LoadError(f"{path} is no whole safetensors file: {error}") from error


def _existing(text: str) -> Path | None:
    try:
        path = Path(text).expanduser()
        return path if path.exists() else None
    except (OSError, RuntimeError, ValueError):  # no such user, too long, a null byte
        return None


def _components(index: Mapping[str, Any]) -> list[tuple[str, list[Any]]]:
    """The parts of a pipeline that its index does not leave out."""
    named = ((name, value) for name, value in index.items() if not name.startswith("_"))
    return [(name, value) for name, value in named
            if isinstance(value, list) and len(value) == 2 and value[0]]


def _tasks(
    own_class: str,
    denoiser: Mapping[str, Any],
    controlnet: Mapping[str, Any],
    index: Mapping[str, Any],
) -> dict[str, str]:
    """Task -> class, for the tasks that the parts at hand are enough for."""
    whole = index["_class_name"] == own_class  # else its other half lies elsewhere
    classes = {
        task: name for task, name in task_classes(own_class).items()
        if not unknown_inputs(name) and not (whole and _missing_parts(name, index))
    }  # fmt: skip
    if controlnet:  # one that in-paints has channels for the mask, and can do nothing else
        mask = any(value for key, value in controlnet.items() if key.startswith("extra_condition"))
        classes = {task: name for task, name in classes.items()
                   if ("control_mask" in call_parameters(name)) == mask}  # fmt: skip
    # A denoiser of 9 channels takes the mask and the masked picture: it can do nothing else. The
    # other way round, Kandinsky's in-painting needs such a denoiser.
    if denoiser.get("in_channels") == 9:
        return {task: found for task, found in classes.items() if task == "inpainting"}
    if "Kandinsky" in own_class and classes.get("inpainting") != own_class:
        classes.pop("inpainting", None)
    return classes


def _missing_parts(class_name: str, index: Mapping[str, Any]) -> set[str]:
    parts = component_parameters(class_name)
    return {name for name, default in parts.items() if default is REQUIRED} - set(index)


def _latent_factor(decoder: Mapping[str, Any]) -> int:
    """Pixels per latent, from the config of what decodes them."""
    if stages := decoder.get("temperal_downsample"):
        return 2 ** len(stages)
    blocks = decoder.get("block_out_channels") or decoder.get("encoder_block_out_channels")
    return 2 ** (len(blocks) - 1) if blocks else 1


def _patch(class_name: str, denoiser: Mapping[str, Any]) -> int:
    """Latents per token and side; for the decoders of Cascade and Wuerstchen, whose latents are
    a broken fraction of the prior's, what keeps them whole."""
    if denoiser.get("_class_name") in ("StableCascadeUNet", "WuerstchenDiffNeXt"):
        return 128
    if has_method(class_name, "_pack_latents") or has_method(class_name, "_patchify_latents"):
        return 2
    patch = denoiser.get("patch_size") or denoiser.get("all_patch_size") or 1
    return patch if isinstance(patch, int) else patch[-1]


def _defaults(
    parameters: Mapping[str, Any],
    index: Mapping[str, Any],
    denoiser: Mapping[str, Any],
    scheduler: Mapping[str, Any],
) -> dict[str, Any]:
    """Steps and guidance to start with: the pipeline's own, fewer and without guidance where the
    configs say that the model was distilled; `_call_defaults` of a model_index.json overrules."""
    # Cascade and Wuerstchen guide their first stage only.
    guidance = next((name for name in ("guidance_scale", "prior_guidance_scale")
                     if name in parameters), None)  # fmt: skip
    if (parameters.get("true_cfg_scale") or 0) > 1 or (
        "true_cfg_scale" in parameters and parameters.get("guidance_scale") is None
    ):
        guidance = "true_cfg_scale"
    embedded = bool(denoiser.get("time_cond_proj_dim") or denoiser.get("guidance_embeds"))
    # Flux schnell: a pipeline made for embedded guidance, a denoiser that has no input for it.
    unguided = guidance == "guidance_scale" and (
        "true_cfg_scale" in parameters and denoiser.get("guidance_embeds") is False
    )
    solver = str(scheduler.get("_class_name", ""))
    # SDXL Turbo, SD Turbo, Lightning: they start from the last timestep, though their noise
    # schedule was not rescaled for it.
    turbo = (solver.startswith("Euler") and scheduler.get("timestep_spacing") == "trailing"
             and scheduler.get("prediction_type", "epsilon") == "epsilon"
             and not scheduler.get("rescale_betas_zero_snr"))  # fmt: skip
    consistent = "LCM" in solver or solver == "TCDScheduler"
    distilled = bool(index.get("is_distilled", unguided or turbo or consistent))
    steps = _number(parameters.get("num_inference_steps"), DEFAULT_STEPS)
    scale = _number(parameters.get(guidance or ""), DEFAULT_GUIDANCE)
    if distilled:
        steps = min(steps, FEW_STEPS)
        scale = scale if embedded else 0.0
    own = index.get("_call_defaults") or {}
    return {
        "num_inference_steps": int(own.get("num_inference_steps", steps)),
        "guidance_scale": float(own.get("guidance_scale", scale)),
        "guidance_parameter": None if unguided else guidance,
        "distilled": distilled,
    }


def _number(value: Any, otherwise: float) -> float:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else otherwise


def _variant_of(name: str) -> str | None:
    """'model.fp16-00001-of-00002.safetensors' -> 'fp16'."""
    parts = re.sub(r"-\d{5}-of-\d{5}", "", name.removesuffix(".safetensors")).split(".")
    return parts[1] if len(parts) > 1 else None


def _no_weights(part: Path) -> str:
    if pickles := [file.name for file in part.iterdir() if file.suffix in PICKLES]:
        return (f"{part.parent} has the weights of {part.name} only as a pickle "
                f"({pickles[0]}), which can run code when it is opened; accepted: .safetensors")
    return f"{part.parent} is not complete: {part.name} has no weights; download it again"


def _check_shards(part: Path) -> None:
    for index in part.glob("*.safetensors.index*.json"):
        for name in set(read_json(index).get("weight_map", {}).values()):
            if not (part / name).is_file():
                raise LoadError(f"{part.parent} is not complete: {part.name}/{name} is "
                                "missing; download it again")  # fmt: skip


def _single_file_config(path: Path) -> Path:
    """The folder of configs that a single-file checkpoint goes with: one of the file's own name
    beside it, else the cached configs of the Hub model that diffusers recognises in it."""
    if path.suffix in PICKLES:
        raise LoadError(f"{path} is a pickle, which can run code when it is opened; accepted: "
                        ".safetensors")  # fmt: skip
    if path.suffix != ".safetensors":
        raise LoadError(f"{path} is neither a diffusers folder nor a .safetensors checkpoint")
    shapes = checkpoint_shapes(path)
    if any("lora" in name for name in shapes):
        raise LoadError(f"{path} is a LoRA adapter, no model: add it to a model as a LoRA")
    beside = path.with_suffix("")
    if (beside / "model_index.json").is_file():
        return beside
    repository = single_file_repository(shapes)
    if folder := cached_folder(repository):
        return folder
    raise LoadError(
        f"{path} needs the config files of {repository}, which are not on this machine: download "
        f"them, or put them into a folder {beside.name} beside the file"
    )


def single_file_repository(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """The Hub model whose configs diffusers takes for a checkpoint of these tensors."""
    import torch
    from diffusers.loaders.single_file_utils import fetch_diffusers_config

    checkpoint = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    return fetch_diffusers_config(checkpoint)["pretrained_model_name_or_path"]
