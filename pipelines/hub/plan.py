"""Which files of a repository a pipeline needs: no pickles, no other variants, nothing twice."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.errors import RefusedError
from pipelines.models.files import CONFIGS, PICKLES
from pipelines.models.info import refusal
from pipelines.models.parts import parts_of_index

MAX_FILES = 500
# What turns clicks on a picture into a mask: type in config.json -> class of transformers.
SEGMENTERS = {"sam": "SamModel", "sam2": "Sam2Model", "sam2_video": "Sam2Model"}
SEGMENTER_FILES = ("model.safetensors", "config.json")
INDEX, CARD = "model_index.json", "README.md"
OTHER_WEIGHTS = {".onnx": "ONNX", ".msgpack": "Flax", ".gguf": "GGUF", ".h5": "TensorFlow",
                 ".xml": "OpenVINO"}
NO_WEIGHTS = ("Tokenizer", "TokenizerFast", "Processor", "Extractor", "Scheduler", "Guider",
              "Config")
PICTURE_TASKS = ("text-to-image", "image-to-image", "unconditional-image-generation")
ETAG = re.compile("[0-9a-f]{40}|[0-9a-f]{64}")
NO_PICTURES = ("video", "audio", "speech", "3d", "text-generation")  # parts of a task's name
# The names by which diffusers and transformers look for weights: base, shard, variant.
WEIGHTS = re.compile(
    r"(?P<base>diffusion_pytorch_model|model)(?P<old>-\d+-of-\d+)?(\.(?P<variant>[\w-]+?))?"
    r"(?P<new>-\d+-of-\d+)?\.safetensors"
)


@dataclass(frozen=True)
class HubFile:
    """`etag` names the content: SHA-256 of large files, git's SHA-1 of a blob of small ones."""

    path: str
    size: int
    etag: str

    @property
    def suffix(self) -> str:
        return Path(self.path).suffix.lower()


@dataclass(frozen=True)
class DownloadPlan:
    """The files to fetch of one commit. `kind`: pipeline (a diffusers folder), configs (the same
    without weights), checkpoint (one file) or segmenter; `variants` on offer, None for plain
    weights."""

    model_id: str
    revision: str
    commit: str
    kind: str
    pipeline_class: str | None
    variant: str | None
    variants: tuple[str | None, ...]
    files: tuple[HubFile, ...]

    @property
    def size_bytes(self) -> int:
        return sum(file.size for file in self.files)

    @property
    def file_count(self) -> str:
        return f"{len(self.files)} file{'s' * (len(self.files) != 1)}"

    @property
    def main_file(self) -> str:
        """The file whose presence makes a model of the rest; it is fetched last."""
        return self.files[0].path


def make_plan(
    model_id: str,
    revision: str,
    commit: str,
    files: Iterable[HubFile],
    index: Mapping[str, Any] | None,
    variant: str | None = None,
    filename: str | None = None,
    configs_only: bool = False,
    segmenter: bool = False,
) -> DownloadPlan:
    """The plan for a repository; raises RefusedError with the reason.

    `index` is the content of model_index.json, None where it may not be read (a gated model): then
    every folder with a config counts. `filename` asks for that single checkpoint file instead;
    `configs_only` for the configs that a single file from elsewhere goes with; `segmenter` says
    that it is one of those that find things in pictures.
    """
    by_path = {file.path: file for file in files}
    if filename is None and INDEX in by_path:
        chosen, variant, variants = _pipeline_files(by_path, index, variant)
        if configs_only:
            chosen = [file for file in chosen if file.suffix in CONFIGS
                      and ".safetensors." not in file.path]
        pipeline_class = (index or {}).get("_class_name")
        kind = "configs" if configs_only else "pipeline"
    elif segmenter and filename is None and set(SEGMENTER_FILES) <= set(by_path):
        chosen = [by_path[name] for name in SEGMENTER_FILES]
        kind, pipeline_class, variant, variants = "segmenter", None, None, (None,)
    else:
        chosen = [checkpoint_file(by_path.values(), filename)]
        kind, pipeline_class, variant, variants = "checkpoint", None, None, (None,)
    if CARD in by_path:  # so that the card can be read without a network
        chosen.append(by_path[CARD])
    for file in chosen:
        if not ETAG.fullmatch(file.etag) or {"..", ""} & set(re.split(r"[/\\:]", file.path)):
            raise RefusedError(f"the Hub names a file that cannot be stored: {file.path!r}")
    if len(chosen) > MAX_FILES:
        raise RefusedError(f"{len(chosen)} files would be fetched, accepted up to {MAX_FILES}")
    return DownloadPlan(model_id, revision, commit, kind, pipeline_class, variant, variants,
                        tuple(chosen))


def size_text(count: float | None) -> str:
    """'812 kB', '3.44 GB'; an en dash where it is not known. 1 kB is 1000 bytes."""
    if count is None:
        return "–"
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count:.0f} bytes"


def checkpoint_files(files: Iterable[HubFile]) -> list[HubFile]:
    """Safetensors that may be whole checkpoints or adapters, the largest first."""
    files = list(files)
    folders = {str(Path(f.path).parent) for f in files if Path(f.path).name == "config.json"}
    return sorted(
        (f for f in files if f.suffix == ".safetensors"
         and not (str(Path(f.path).parent) in folders and WEIGHTS.fullmatch(Path(f.path).name))),
        key=lambda file: -file.size,
    )


def checkpoint_file(files: Iterable[HubFile], filename: str | None) -> HubFile:
    files = list(files)
    checkpoints = checkpoint_files(files)
    if filename is not None:
        match = next((file for file in files if file.path == filename), None)
        if match and match.suffix == ".safetensors":
            return match
        offered = ", ".join(file.path for file in checkpoints[:8]) or "none"
        raise RefusedError(f"file: received {filename!r}, accepted a .safetensors file: {offered}")
    if checkpoints:
        return checkpoints[0]
    if any(file.path == "config.json" for file in files):
        raise RefusedError("a single component (no model_index.json), so no pipeline of its own")
    if pickles := [file.path for file in files if file.suffix in PICKLES]:
        raise RefusedError(_pickle_reason(pickles))
    raise RefusedError("no model_index.json and no safetensors, so no diffusion pipeline")


def pipeline_obstacle(pipeline_class: str | None, task: str | None) -> str | None:
    """Why the engine cannot use a pipeline of that class and Hub task; None where it can."""
    if task and any(word in task for word in NO_PICTURES):
        return f"its task is {task}; the engine makes pictures"
    return refusal({"_class_name": pipeline_class}) if pipeline_class else None


def _pipeline_files(
    by_path: dict[str, HubFile], index: Mapping[str, Any] | None, variant: str | None
) -> tuple[list[HubFile], str | None, tuple[str | None, ...]]:
    """Files of every component, the variant taken, and the variants on offer."""
    if index is not None and (reason := refusal(index)):
        raise RefusedError(reason)
    components = _folders(by_path) if index is None else _components(index)
    configs: list[HubFile] = []
    weights: dict[str, dict[str | None, list[HubFile]]] = {}
    for name, cls in components.items():
        inside = {path.removeprefix(f"{name}/"): file for path, file in by_path.items()
                  if path.startswith(f"{name}/") and path.count("/") == 1}
        if not inside:
            raise RefusedError(f"model_index.json names {name}, but there is no such folder")
        configs += [file for base, file in inside.items()
                    if file.suffix in CONFIGS and ".index." not in base]
        if groups := _weights(inside):
            weights[name] = groups
        elif reason := _missing_weights(name, cls, inside):
            raise RefusedError(reason)
    variants = _variants(weights)
    if variant is None:
        variant = variants[0]
    elif variant not in variants:
        offered = ", ".join(v or "none (plain weights)" for v in variants)
        raise RefusedError(f"variant: received {variant!r}, accepted {offered}")
    chosen = [file for groups in weights.values() for file in groups.get(variant) or groups[None]]
    return [by_path[INDEX], *configs, *chosen], variant, variants


def _components(index: Mapping[str, Any]) -> dict[str, str]:
    """Folder -> class, of the components that are not left out."""
    return {name: class_name for name, (library, class_name) in parts_of_index(index).items()
            if isinstance(library, str) and isinstance(class_name, str)}


def _folders(by_path: Mapping[str, HubFile]) -> dict[str, str]:
    """The same without a model_index.json to read: every folder that holds a config."""
    configs = ("config.json", "scheduler_config.json", "tokenizer_config.json",
               "preprocessor_config.json")
    return {folder: "Config" for folder, slash, name in map(_split, by_path)
            if slash and name in configs}


def _split(path: str) -> tuple[str, str, str]:
    return path.partition("/")


def _weights(inside: Mapping[str, HubFile]) -> dict[str | None, list[HubFile]]:
    """Variant -> its files: the one file, else the shards and their index."""
    single: dict[str | None, list[HubFile]] = {}
    sharded: dict[str | None, list[HubFile]] = {}
    for name, file in inside.items():
        match = WEIGHTS.fullmatch(name)
        if not match:
            continue
        variant = match["variant"]
        if not (match["old"] or match["new"]):
            single[variant] = [file]
            continue
        middle = f".{variant}" if variant else ""
        listing = inside.get(f"{match['base']}.safetensors.index{middle}.json")
        if listing:
            sharded.setdefault(variant, [listing]).append(file)
    return {**sharded, **single}


def _variants(weights: Mapping[str, Mapping[str | None, list[HubFile]]]) -> tuple:
    """Variants with which every component has weights; a component without the variant lends its
    plain ones, as diffusers does. The plain weights come first."""
    names = sorted({v for groups in weights.values() for v in groups}, key=lambda v: v or "")
    complete = [v for v in names if all(v in groups or None in groups
                                        for groups in weights.values())]
    if not complete and names:
        raise RefusedError("no variant has the weights of all components: "
                           + "; ".join(f"{name}: {', '.join(str(v) for v in groups)}"
                                       for name, groups in weights.items()))
    return tuple(complete) or (None,)


def _missing_weights(name: str, cls: str, inside: Mapping[str, HubFile]) -> str | None:
    """Why a component has no weights that can be read; None where it needs none."""
    if pickles := [f"{name}/{base}" for base, file in inside.items() if file.suffix in PICKLES]:
        return _pickle_reason(pickles)
    for suffix, format in OTHER_WEIGHTS.items():
        if any(file.suffix == suffix for file in inside.values()):
            return f"the weights of {name} exist only as {format}; safetensors are needed"
    if "config.json" in inside and not cls.endswith(NO_WEIGHTS):
        return f"{name} has no safetensors by a name that diffusers reads"
    return None


def _pickle_reason(paths: list[str]) -> str:
    more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
    return (f"weights exist only as a pickle ({paths[0]}{more}), which can run code when it is "
            "opened; safetensors are needed")
