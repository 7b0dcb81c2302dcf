"""Model ids -> loaded pipelines, one per model, device and dtype, shared by pages and threads."""

from __future__ import annotations

import copy
import gc
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.errors import DeviceMemoryError, LoadError, PipelineError, RequestError
from pipelines.hardware import best_device, default_dtype, device_memory_bytes, use_device
from pipelines.models.identity import lora_contents, model_content
from pipelines.models.info import (
    BUNDLED,
    ModelInfo,
    checkpoint_shapes,
    describe,
    find_lora,
    find_model,
    read_json,
)
from pipelines.models.signatures import connected_class, deprecated_module

if TYPE_CHECKING:
    import torch
    from diffusers import DiffusionPipeline

    from pipelines.request import Lora, RunRequest

_importing = threading.Lock()
MEMORY_SHARE = 0.6  # the rest is for activations and for others
# From the fastest to the one that needs least of the device's memory.
MEMORY_POLICIES = ("device", "model-offload", "group-offload", "sequential-offload")
SMALL_NETWORK = 50e6  # weights
AUTOENCODERS = ("vae", "movq", "vqvae", "vqgan")
BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}


@dataclass
class LoadedModel:
    """A pipeline in memory; its tasks are views of the same weights.

    `size_bytes` counts each weight once, however many tasks use it; `memory_policy` is where the
    weights lie between uses; `content` and `lora_contents` hash the files as they were read.
    """

    info: ModelInfo
    content: str
    device: str
    dtype: str
    memory_policy: str
    load_ms: float
    pipe: DiffusionPipeline
    size_bytes: int
    views: dict[str, DiffusionPipeline] = field(default_factory=dict)
    warmed: set[tuple] = field(default_factory=set)
    loras: tuple[Lora, ...] = ()
    lora_contents: tuple[str, ...] = ()
    seeds_together: dict[str, bool] = field(default_factory=dict)  # task -> in one call
    compiled: dict[str, Callable] = field(default_factory=dict)  # by attention backend
    shared_rows: int | None = None  # what a shared UNet call was found to hold
    row_seconds: float | None = None  # of such a call

    @property
    def tasks(self) -> tuple[str, ...]:
        return self.info.tasks

    def view(self, task: str) -> DiffusionPipeline:
        """A pipeline object of one's own for one run: shared weights, nothing else shared."""
        if task not in self.tasks:
            raise RequestError(
                f"task: received {task!r}, accepted for {self.info.model_id} "
                f"({self.info.pipeline_class}): {', '.join(self.tasks)}"
            )
        if task not in self.views:
            import diffusers

            cls = getattr(diffusers, self.info.task_classes[task])
            self.views[task] = self.pipe if type(self.pipe) is cls else cls.from_pipe(self.pipe)
        view = _own_copy(self.views[task])
        if self.memory_policy == "model-offload" and len(self.views) > 1:
            view.enable_model_cpu_offload(device=self.device)  # its hooks know one pipeline
        return view

    def wear(self, loras: Sequence[Lora]) -> None:
        """Put these adapters on the weights, and take off those of the run before.

        Raises RequestError where the pipeline takes none, LoadError where one does not fit.
        """
        loras = tuple(loras)
        if loras and not hasattr(self.pipe, "load_lora_weights"):
            raise RequestError(f"loras: {self.info.pipeline_class} takes no LoRA adapters")
        contents = lora_contents(loras)
        if (loras, contents) == (self.loras, self.lora_contents):
            return
        if self.loras:
            self._take_off()
        if not loras:
            return
        try:
            names = []
            for number, lora in enumerate(loras):
                file = find_lora(lora.path)
                names.append(f"lora{number}")
                self.pipe.load_lora_weights(
                    str(file.parent), weight_name=file.name, adapter_name=names[-1],
                    use_safetensors=True, local_files_only=True,
                )  # fmt: skip
            known = self.pipe.get_list_adapters()
            worn = {name for adapters in known.values() for name in adapters}
            if missing := [lora.path for lora, name in zip(loras, names, strict=True)
                           if name not in worn]:
                raise LoadError(f"lora: {missing[0]} has no weights for {self.info.pipeline_class}")
            self.pipe.set_adapters(names, [lora.weight for lora in loras])
        except Exception as error:
            self._take_off()
            if isinstance(error, LoadError):
                raise
            raise LoadError(f"lora: {', '.join(lora.path for lora in loras)} cannot be put on "
                            f"{self.info.model_id}: {_first_line(error)}") from error  # fmt: skip
        self.loras, self.lora_contents = loras, contents

    def _take_off(self) -> None:
        self.loras = self.lora_contents = ()
        self.pipe.unload_lora_weights()


class Registry:
    """Opens models by id and keeps them; safe for threads.

    Weights take at most `max_bytes` of memory (by default MEMORY_SHARE of the device's): the
    models used longest ago go first, the newest stays in any case.
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

    def describe(
        self, model_id: str, revision: str | None = None, variant: str | None = None
    ) -> ModelInfo:
        """What a model's files say, without torch; raises UnknownModelError or LoadError."""
        return describe(model_id, revision, variant)

    def fill_in(self, request: RunRequest) -> RunRequest:
        """The request with the model's scheduler and size where it left them open, without torch;
        raises UnknownModelError or LoadError. `resolve` does the rest."""
        info = self.describe(request.model_id, request.revision, request.variant)
        own = info.default_scheduler if request.scheduler == "default" else request.scheduler
        return request.changed(scheduler=own, height=request.height or info.height,
                               width=request.width or info.width)

    def steps_to_run(self, request: RunRequest) -> int:
        """The steps that really run; as most models do it where this one is unknown."""
        if request.image:
            with suppress(PipelineError):
                info = self.describe(request.model_id, request.revision, request.variant)
                return info.steps_to_run(request)
        return request.steps_to_run

    @contextmanager
    def borrow(
        self,
        model_id: str,
        revision: str | None = None,
        variant: str | None = None,
        torch_dtype: str | None = None,
        memory_policy: str = "auto",
        quantization: str | None = None,
        loras: Sequence[Lora] = (),
    ) -> Iterator[tuple[LoadedModel, bool]]:
        """The loaded model and whether this call loaded it, with its device to oneself.

        The arguments are `RunRequest.weights`. Raises LoadError, RequestError, DeviceMemoryError.
        """
        with self.device_lock(self.device):
            use_device(self.device)
            info = self.describe(model_id, revision, variant)
            dtype = torch_dtype or default_dtype(self.device)
            policy = self._policy(info, dtype, memory_policy)
            content = model_content(info)
            for key, old in list(self._models.items()):
                if key[0] == info.content and old.content != content:
                    del self._models[key]  # the files have changed since
            key = (info.content, info.variant, self.device, dtype, policy, quantization)
            model = self._models.pop(key, None)
            fresh = model is None
            if fresh:
                self._make_room(_size_in(info, dtype))
                model = self._load(info, content, dtype, policy, quantization)
                if model_content(info) != content:
                    raise LoadError(f"{model_id} changed on disk while it was read; run it again")
            self._models[key] = model  # the last is the one used last
            model.wear(loras)
            yield model, fresh

    def _policy(self, info: ModelInfo, dtype: str, asked: str) -> str:
        """The policy asked for; 'auto' is the fastest one whose weights fit the device."""
        if self.device.startswith("cpu"):
            if asked not in ("auto", "device"):
                raise RequestError(f"memory_policy: received {asked!r}, accepted on the CPU: auto, "
                                   "device; there is no other memory to move weights to")
            return "device"
        if asked != "auto":
            return asked
        # A model offloaded whole needs its largest part only, about two thirds of a large one.
        limit, size = self._limit(), _size_in(info, dtype)
        shares = {"device": 1.0, "model-offload": 0.67}
        return next((name for name, share in shares.items() if size * share <= limit),
                    "group-offload")

    def _limit(self) -> int:
        if self._max_bytes is not None:
            return self._max_bytes
        return int(MEMORY_SHARE * device_memory_bytes(self.device))

    def _make_room(self, needed: int) -> None:
        kept = sum(model.size_bytes for model in self._models.values())
        while self._models and kept + needed > self._limit():
            oldest = next(iter(self._models))
            kept -= self._models.pop(oldest).size_bytes
            free_memory(self.device)

    def unload(self, model_id: str) -> None:
        """Forget a model, so that its memory can be used again once no run holds it."""
        with self.device_lock(self.device):
            folder, _, checkpoint = find_model(model_id, None)
            content = (checkpoint or folder).resolve()
            self._models = {key: m for key, m in self._models.items() if key[0] != content}
            free_memory(self.device)

    def device_lock(self, device: str) -> threading.RLock:
        with self._lock:
            return self._device_locks.setdefault(device, threading.RLock())

    def _load(
        self, info: ModelInfo, content: str, dtype: str, policy: str, quantization: str | None
    ) -> LoadedModel:
        started = time.perf_counter()
        warm_libraries()
        import diffusers
        import torch

        options = {"dtype": getattr(torch, dtype), "use_safetensors": True,
                   "local_files_only": True}
        try:
            if info.checkpoint:
                if quantization:
                    raise RequestError("quantization: a single file is read as it is; accepted: "
                                       "a diffusers folder")
                options["torch_dtype"] = options.pop("dtype")
                cls = getattr(diffusers, info.pipeline_class)
                pipe = cls.from_single_file(str(info.checkpoint), config=str(info.folder),
                                            **options)
            else:
                index = read_json(info.folder / "model_index.json")
                own = index["_class_name"]
                _restore_moved(index)
                combined = connected_class(own)  # its prior lies in another repository
                cls = getattr(diffusers, combined or "DiffusionPipeline")
                pipe = cls.from_pretrained(
                    info.folder, variant=info.variant, **options,
                    **_quantized(info, quantization, self.device),
                    **_processors_for_stills(info.folder, index),
                )  # fmt: skip
            size_bytes = weight_bytes(pipe)
            place(pipe, self.device, policy)
        except torch.OutOfMemoryError as error:
            free_memory(self.device)
            raise DeviceMemoryError(
                f"{info.model_id} does not fit into the memory of {self.device} with the policy "
                f"{policy!r}{advice(policy, self.device)}"
            ) from error
        except (RequestError, LoadError):
            raise
        except Exception as error:
            if info.needs_prior and "expected" in str(error):
                reason = (f"it is the second stage of {info.pipeline_class}; the first, which its "
                          "README.md names as its prior, is not on this machine")
            else:
                reason = _first_line(error)
            raise LoadError(f"{info.model_id} cannot be opened: {reason}") from error
        load_ms = (time.perf_counter() - started) * 1000
        return LoadedModel(info, content, self.device, dtype, policy, load_ms, pipe, size_bytes)


def place(pipe: DiffusionPipeline, device: str, policy: str) -> None:
    """Put a pipeline's weights where a memory policy wants them."""
    import torch

    match policy:
        case "device":
            pipe.to(device)
            if device.startswith("cpu"):
                _lay_out(pipe)
        case "model-offload":
            pipe.enable_model_cpu_offload(device=device)
        case "group-offload":
            pipe.enable_group_offload(
                onload_device=torch.device(device), offload_type="leaf_level",
                use_stream=device.startswith("cuda"),
            )  # fmt: skip
        case "sequential-offload":
            pipe.enable_sequential_cpu_offload(device=device)


def _lay_out(pipe: DiffusionPipeline) -> None:
    """Channels last where the CPU's convolutions gain from it: autoencoders (8 to 18 % of their
    time) and small denoisers (5 to 12 %), not those of SD's size (which lose 3 %)."""
    import torch

    for name, part in pipe.components.items():
        if isinstance(part, torch.nn.Module) and (
            name in AUTOENCODERS or sum(p.numel() for p in part.parameters()) < SMALL_NETWORK
        ):
            for module in part.modules():
                if isinstance(module, torch.nn.Conv2d):
                    module.to(memory_format=torch.channels_last)


def advice(policy: str, device: str) -> str:
    """What to try next when memory ran out, as the end of an error message."""
    if device.startswith("cpu"):
        return ""
    rest = MEMORY_POLICIES[MEMORY_POLICIES.index(policy) + 1 :]
    return f"; try the memory_policy {rest[0]!r}" if rest else ""


def weight_bytes(pipe: DiffusionPipeline) -> int:
    """Bytes of all weights of a pipeline, shared ones counted once."""
    import torch

    tensors: dict[int, torch.Tensor] = {}
    for part in pipe.components.values():
        if isinstance(part, torch.nn.Module):
            tensors |= {id(t): t for t in (*part.parameters(), *part.buffers())}
    return sum(tensor.nbytes for tensor in tensors.values())


def free_memory(device: str) -> None:
    """Give back what no object holds any more."""
    gc.collect()
    if device.startswith(("cuda", "mps")):
        import torch

        torch.get_device_module(device).empty_cache()


def _size_in(info: ModelInfo, dtype: str) -> int:
    """Bytes of a model's weights once they are loaded, from the headers of its files."""
    shapes = (shape for file in info.weight_files for shape in checkpoint_shapes(file).values())
    return BYTES[dtype] * sum(math.prod(shape) for shape in shapes)


def _quantized(info: ModelInfo, quantization: str | None, device: str) -> dict[str, Any]:
    """The keyword that makes `from_pretrained` quantise the denoiser; RequestError where the
    library for it is missing."""
    if not quantization:
        return {}
    backend = {"int8": "torchao", "int4": "bitsandbytes"}[quantization]
    if not find_spec(backend):
        raise RequestError(f"quantization: {quantization} needs the library {backend}, which is "
                           f"not installed (pip install {backend})")
    if quantization == "int4" and not device.startswith("cuda"):
        raise RequestError(f"quantization: int4 needs CUDA, this device is {device}; accepted: "
                           "int8")
    from diffusers import BitsAndBytesConfig, PipelineQuantizationConfig, TorchAoConfig

    if quantization == "int8":
        from torchao.quantization import Int8WeightOnlyConfig

        config: Any = TorchAoConfig(Int8WeightOnlyConfig())
    else:
        config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
    denoiser = "transformer" if (info.folder / "transformer").is_dir() else "unet"
    return {"quantization_config": PipelineQuantizationConfig(quant_mapping={denoiser: config})}


def _restore_moved(index: Mapping[str, Any]) -> None:
    """Let diffusers find a component's class where the index says, though it was moved to the
    deprecated ones (Cascade and Wuerstchen share such a decoder)."""
    import diffusers

    for value in index.values():
        name = value[1] if isinstance(value, list) and len(value) == 2 else None
        package = deprecated_module(str(name))
        if package is None or hasattr(diffusers, name):
            continue
        module = import_module(f"diffusers.pipelines.deprecated.{package}")
        if value[0] == "diffusers":
            setattr(diffusers, name, getattr(module, name))
        else:
            setattr(diffusers.pipelines, value[0], module)


def _processors_for_stills(folder: Path, index: Mapping[str, Any]) -> dict[str, Any]:
    """Processors of pictures and text without their part for videos, which alone needs
    torchvision; none where torchvision is there."""
    if find_spec("torchvision"):
        return {}
    import transformers

    found = {}
    for name, value in index.items():
        cls = getattr(transformers, str(value[1]), None) if isinstance(value, list) else None
        if (isinstance(cls, type) and issubclass(cls, transformers.ProcessorMixin)
                and "video_processor" in cls.get_attributes()):
            kept = [part for part in cls.get_attributes() if part != "video_processor"]
            without = {"get_attributes": staticmethod(lambda kept=kept: kept)}
            stills = type(cls.__name__, (cls,), without)
            found[name] = stills.from_pretrained(folder / name, local_files_only=True)
    return found


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


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
