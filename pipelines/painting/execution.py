"""How a denoiser computes a run: attention backend, caching hook, torch.compile.

Weights and pipelines are shared, so each is put on for one call and taken off again.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import sys
import sysconfig
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.errors import PipelineError, RequestError
from pipelines.models.info import ModelInfo
from pipelines.models.parts import DENOISERS, denoiser_of
from pipelines.models.signatures import (
    call_parameters,
    dispatches_attention,
    is_cacheable,
    uses_cache_contexts,
)
from pipelines.request import RunRequest
from pipelines.schedulers import expected_evaluations

if TYPE_CHECKING:
    import torch
    from diffusers import DiffusionPipeline

    from pipelines.models.loaded import LoadedModel

UNETS = ("UNet2DModel", "UNet2DConditionModel")
# Torch's scaled dot product attention, left to choose its kernel or held to one: the devices that
# have it. Works in every family.
KERNELS = {"native": ("cpu", "cuda", "mps"), "_native_math": ("cpu", "cuda", "mps"),
           "_native_flash": ("cpu", "cuda"), "_native_efficient": ("cuda",),
           "_native_cudnn": ("cuda",)}  # fmt: skip
PROCESSORS = ("eager", "sliced")  # plain attention of UNets, written out, whole or in slices
LIBRARIES = {"flash": "flash_attn", "sage": "sageattention", "xformers": "xformers"}  # CUDA's
# Timesteps between which pyramid attention broadcast and FasterCache may skip are the library's.
CACHES = ("pyramid_attention_broadcast", "first_block_cache", "taylorseer_cache", "faster_cache",
          "mag_cache")  # fmt: skip
# Their state does not tell the two calls of classifier-free guidance apart.
ONE_STATE = ("pyramid_attention_broadcast", "faster_cache")
RECOMPILE_LIMIT = 64  # sizes and batches of one model; beyond it torch silently stops compiling


def attention_backends(info: ModelInfo, device: str) -> list[str]:
    """What can act on a model here, 'native' first; read from files, nothing is loaded."""
    kind, denoiser = device.split(":")[0], denoiser_class(info)
    found = [name for name, devices in KERNELS.items() if kind in devices]
    if denoiser in UNETS:
        found += PROCESSORS
    if kind == "cuda":
        known = ("xformers",) if denoiser in UNETS else LIBRARIES
        found += [name for name in known if find_spec(LIBRARIES[name])
                  and (denoiser in UNETS or dispatches_attention(denoiser))]
    return found


def caches(info: ModelInfo) -> list[str]:
    """The caching hooks that fit a model's denoiser, 'none' first."""
    denoiser = denoiser_class(info)
    found = ["none", CACHES[0]]
    if is_cacheable(denoiser):
        found += [name for name in CACHES[1:]
                  if name != "mag_cache" or denoiser == "FluxTransformer2DModel"]
    return found


def compile_obstacle(device: str) -> str:
    """Why torch.compile cannot work here, '' where it can."""
    if device.startswith("cuda"):
        return "" if find_spec("triton") else "it needs the library triton (pip install triton)"
    usual = {"win32": "cl", "darwin": "clang++"}.get(sys.platform, "g++")
    compiler = os.environ.get("CXX") or usual
    if not shutil.which(compiler):
        return f"it needs the C++ compiler {compiler}, which is not on this machine"
    if not (Path(sysconfig.get_path("include")) / "Python.h").is_file():
        return "it needs Python's header files (Debian: apt install python3-dev)"
    return ""


def denoiser_class(info: ModelInfo) -> str:
    index = info.index
    return next((index[name][1] for name in DENOISERS if index.get(name, [None])[0]), "")


def check_execution(request: RunRequest, info: ModelInfo, device: str) -> None:
    """Raise RequestError where one of the three cannot act, with what would work."""
    backend, cache = request.attention_backend, request.cache
    possible = attention_backends(info, device)
    if backend not in possible:
        library = LIBRARIES.get(backend)
        missing = f"; {library} is not installed" if library and not find_spec(library) else ""
        raise RequestError(f"attention_backend: received {backend!r}, accepted for "
                           f"{denoiser_class(info)} on {device}: {', '.join(possible)}{missing}")
    if cache not in caches(info):
        raise RequestError(f"cache: received {cache!r}, accepted for {denoiser_class(info)}: "
                           f"{', '.join(caches(info))}")
    if cache != "none" and _mixes_calls(request, info):
        raise RequestError(
            f"cache: received {cache!r}; {info.task_classes.get(request.task)} calls its denoiser "
            "twice a step with guidance_scale above 1, which this hook would mix up; accepted "
            "guidance_scale 1")  # fmt: skip
    if not request.compile:
        return
    if cache != "none":
        raise RequestError(f"compile: received true with the cache {cache!r}, whose decisions "
                           "would make a new graph at each step; accepted one of the two")
    if request.memory_policy not in ("auto", "device"):
        raise RequestError(f"compile: received true with memory_policy {request.memory_policy!r}, "
                           "accepted device")
    if reason := compile_obstacle(device):
        raise RequestError(f"compile: received true, but {reason}; accepted false")


def _mixes_calls(request: RunRequest, info: ModelInfo) -> bool:
    """Whether guidance's two halves would share one cache. UNets and the like take both in one
    call; the transformers below call twice, unless guidance is embedded (Flux)."""
    cls = info.task_classes.get(request.task, info.pipeline_class)
    if request.guidance_scale <= 1 or not is_cacheable(denoiser_class(info)):
        return False
    embedded = "true_cfg_scale" in call_parameters(cls) and (
        info.guidance_parameter == "guidance_scale"
    )
    return not embedded and (request.cache in ONE_STATE or not uses_cache_contexts(cls))


@contextlib.contextmanager
def computing(
    model: LoadedModel, pipe: DiffusionPipeline, request: RunRequest
) -> Iterator[None]:
    """Let a run's own pipeline compute as a request says; the weights are as before afterwards.

    Raises RequestError where one of the three cannot act, PipelineError where compiling fails.
    """
    denoiser = denoiser_of(pipe)
    with contextlib.ExitStack() as stack:
        try:
            if request.cache != "none":
                stack.enter_context(_cached(pipe, denoiser, request, model.info))
            if request.compile:
                stack.enter_context(_forward(denoiser, _compiled(model, denoiser, request)))
            if request.attention_backend != "native":
                stack.enter_context(_attending(denoiser, request.attention_backend))
            yield
        except RuntimeError as error:
            if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
                raise PipelineError(f"compile: {denoiser_class(model.info)} cannot be compiled "
                                    f"here: {str(error).strip().splitlines()[0][:300]}") from error
            if "No available kernel" in str(error):
                raise RequestError(
                    f"attention_backend: received {request.attention_backend!r}, which has no "
                    f"kernel for this model's attention in {model.dtype} on {model.device}; "
                    "accepted native") from error  # fmt: skip
            raise


def _compiled(model: LoadedModel, denoiser: torch.nn.Module, request: RunRequest) -> Callable:
    """The compiled call, kept with the model. Each attention backend has graphs of its own: the
    kernel is chosen when a graph is made, and no guard asks for it again."""
    import torch

    if model.memory_policy != "device":
        raise RequestError(f"compile: received true, but the weights of {model.info.model_id} "
                           f"wait elsewhere ({model.memory_policy}); accepted false")
    if request.attention_backend not in model.compiled:
        model.compiled[request.attention_backend] = torch.compile(
            denoiser.forward, isolate_recompiles=True, recompile_limit=RECOMPILE_LIMIT)
    return model.compiled[request.attention_backend]


@contextlib.contextmanager
def _forward(denoiser: torch.nn.Module, forward: Callable) -> Iterator[None]:
    """Another forward for a while. What its class has is left to the class."""
    own = vars(denoiser).get("forward")
    denoiser.forward = functools.wraps(denoiser.forward)(forward)
    try:
        yield
    finally:
        if own is None:
            del denoiser.forward
        else:
            denoiser.forward = own


@contextlib.contextmanager
def _attending(denoiser: torch.nn.Module, name: str) -> Iterator[None]:
    """Another attention backend for a while; RequestError where there is nothing to change."""
    from diffusers.models.attention_dispatch import attention_backend
    from diffusers.models.attention_processor import (
        Attention,
        AttnAddedKVProcessor,
        AttnProcessor,
    )

    if name in KERNELS:
        with _forward(denoiser, _held_to(name, denoiser.forward)):
            yield
        return
    if name in LIBRARIES and dispatches_attention(type(denoiser).__name__):
        try:
            backend = attention_backend(name)
            backend.__enter__()
        except RuntimeError as error:  # not installed, or too old
            raise RequestError(f"attention_backend: {error}") from error
        try:
            yield
        finally:
            backend.__exit__(None, None, None)
        return
    attention = [module for module in denoiser.modules() if isinstance(module, Attention)]
    before = [module.processor for module in attention]
    if not attention:
        raise RequestError(f"attention_backend: received {name!r}, but {type(denoiser).__name__} "
                           "of this model has no attention; accepted native")
    try:
        for module in attention:
            if name == "xformers":
                module.set_use_memory_efficient_attention_xformers(True)
            elif name == "sliced":  # two slices, as diffusers' "auto"
                module.set_attention_slice(max(1, module.sliceable_head_dim // 2))
            else:
                added = module.added_kv_proj_dim is not None
                module.set_processor(AttnAddedKVProcessor() if added else AttnProcessor())
        yield
    finally:
        for module, processor in zip(attention, before, strict=True):
            module.set_processor(processor)


def _held_to(name: str, forward: Callable) -> Callable:
    """The denoiser's call with torch's attention held to one kernel; text encoder and autoencoder
    keep their choice."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    kernel = {"_native_math": SDPBackend.MATH, "_native_flash": SDPBackend.FLASH_ATTENTION,
              "_native_efficient": SDPBackend.EFFICIENT_ATTENTION,
              "_native_cudnn": SDPBackend.CUDNN_ATTENTION}[name]  # fmt: skip

    def held(*args: Any, **kwargs: Any) -> Any:
        with sdpa_kernel(kernel):
            return forward(*args, **kwargs)

    return held


@contextlib.contextmanager
def _cached(
    pipe: DiffusionPipeline, denoiser: torch.nn.Module, request: RunRequest, info: ModelInfo
) -> Iterator[None]:
    """diffusers' caching hook for one call, with a fresh state."""
    from diffusers.hooks import HookRegistry, apply_pyramid_attention_broadcast
    from diffusers.models.cache_utils import CacheMixin

    evaluations = expected_evaluations(request.scheduler, info.steps_to_run(request))
    config = _cache_config(request.cache, _Timestep(pipe.scheduler), evaluations)
    if not isinstance(denoiser, CacheMixin):  # diffusers offers only this one for these
        hook = "pyramid_attention_broadcast"
        apply_pyramid_attention_broadcast(denoiser, config)
        try:
            if not _hooks(denoiser, hook):
                raise _no_place(denoiser, request)
            yield
        finally:
            HookRegistry.check_if_exists_or_initialize(denoiser).remove_hook(hook, recurse=True)
        return
    try:
        denoiser.enable_cache(config)
    except (IndexError, ValueError) as error:  # it finds no block that it knows
        raise _no_place(denoiser, request) from error
    try:
        # A pipeline that names its calls overrules it; the others make one call a step.
        with denoiser.cache_context("run"):
            yield
    finally:
        denoiser.disable_cache()


def _cache_config(name: str, timestep: Callable[[], float], evaluations: int) -> Any:
    """The library's own settings, but for what it leaves open."""
    import diffusers
    from diffusers.hooks.mag_cache import FLUX_MAG_RATIOS

    match name:
        case "pyramid_attention_broadcast":
            return diffusers.PyramidAttentionBroadcastConfig(
                spatial_attention_block_skip_range=2, current_timestep_callback=timestep)
        case "first_block_cache":
            return diffusers.FirstBlockCacheConfig()
        case "taylorseer_cache":
            return diffusers.TaylorSeerCacheConfig()
        case "faster_cache":  # attention only: calls that hold both halves of guidance are videos'
            return diffusers.FasterCacheConfig(
                is_guidance_distilled=True, current_timestep_callback=timestep,
                attention_weight_callback=lambda _: 0.5)
        case _:
            return diffusers.MagCacheConfig(
                mag_ratios=FLUX_MAG_RATIOS, num_inference_steps=evaluations)


def _hooks(denoiser: torch.nn.Module, name: str) -> int:
    """How many modules carry a hook of diffusers."""
    registries = (getattr(module, "_diffusers_hook", None) for module in denoiser.modules())
    return sum(registry is not None and registry.get_hook(name) is not None
               for registry in registries)


def _no_place(denoiser: torch.nn.Module, request: RunRequest) -> RequestError:
    return RequestError(f"cache: received {request.cache!r}, which finds no layer that it knows in "
                        f"this {type(denoiser).__name__}; accepted none")


class _Timestep:
    """The timestep of the denoiser's next call, told from a run's own scheduler: denoisers see it
    in units of their own."""

    def __init__(self, scheduler: Any) -> None:
        self.scheduler, self.place = scheduler, 0
        step = scheduler.step

        @functools.wraps(step)
        def watched(model_output: Any, timestep: Any, *args: Any, **kwargs: Any) -> Any:
            self._note(timestep)
            return step(model_output, timestep, *args, **kwargs)

        scheduler.step = watched

    def __call__(self) -> float:
        timesteps = self.scheduler.timesteps
        return float(timesteps[min(self.place, len(timesteps) - 1)])

    def _note(self, timestep: Any) -> None:
        later = enumerate(self.scheduler.timesteps[self.place :], self.place + 1)
        self.place = next((after for after, t in later if t == timestep), self.place)
