"""One resolved request and one loaded model -> one picture, with everything measured on the way.

What happens here happens in a cell of a batch (batching.py): the pipeline is called as a notebook
would call it, and where it calls a network it may share that call with other cells.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import torch

from pipelines.errors import DeviceMemoryError, PipelineError
from pipelines.guidance_methods import CFG
from pipelines.models.info import ModelInfo
from pipelines.models.loaded import LoadedModel
from pipelines.models.placement import advice, free_memory
from pipelines.painting.batching import Cell
from pipelines.painting.call import (
    call_arguments,
    effect_notes,
    known_arguments,
    picture_of,
    run_scheduler,
    set_scheduler,
)
from pipelines.painting.cost import check_cost
from pipelines.painting.execution import check_execution, computing
from pipelines.painting.guiding import Guiding
from pipelines.painting.networks import Network, is_out_of_memory
from pipelines.painting.noise import noise_sha256
from pipelines.painting.previews import step_latents
from pipelines.painting.probe import Probe
from pipelines.painting.result import OnStep, RunResult
from pipelines.request import RunRequest
from pipelines.sigma_schedules import DEFAULT

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline
    from PIL.Image import Image

# Prepares a run's own pipeline; gives what is to be called after each step, with its number.
Prepare = Callable[["DiffusionPipeline"], Callable[[int], None]]


def paint(
    cell: Cell,
    model: LoadedModel,
    request: RunRequest,
    images: Mapping[str, Image],
    on_step: OnStep | None = None,
    prepare: Prepare | None = None,
) -> RunResult:
    """Make the picture of a resolved request; `images` holds what the pipeline is given.

    `on_step` may raise Cancelled. Raises DeviceMemoryError, RequestError, or PipelineError where
    the latents stop being finite.
    """
    try:
        return _painted(cell, model, request, images, on_step, prepare)
    except Exception as error:
        if is_out_of_memory(error):
            free_memory(model.device)
            raise out_of_memory(model, request) from error
        raise


def _painted(
    cell: Cell,
    model: LoadedModel,
    request: RunRequest,
    images: Mapping[str, Image],
    on_step: OnStep | None,
    prepare: Prepare | None,
) -> RunResult:
    check_execution(request, model.info, model.device)
    check_cost(request, model.info, model.device)
    # A pipeline and a scheduler of its own.
    pipe, scheduler = model.view(request.task), run_scheduler(model, request)
    set_scheduler(pipe, scheduler)
    arguments = call_arguments(pipe, model.info, request, images)
    after_step = prepare(pipe) if prepare else None

    if request.guidance_method != CFG and request.guidance_scale > 1:
        cell.guiding = Guiding(cell, pipe, request)

    # The call, watched.
    torch.manual_seed(request.seed)  # some sample parts without their generator
    with computing(model, pipe, request):
        probe = Probe(cell, pipe, on_step)
        if after_step and "callback_on_step_end" in known_arguments(pipe):
            arguments["callback_on_step_end"] = functools.partial(probe.step_ended, after_step)
        started = cell.clock.mark()
        output = pipe(**arguments)
        ended = cell.clock.mark()
    cell.clock.finish()

    # What came of it.
    unfinished = not_finite_notes(probe, model, request)
    image = picture_of(output)

    # And what was computed beside it.
    notes, noise, peak, steps, latents = [], None, None, None, None
    extras = cell.extras
    with extras.attempt("what had no effect"):
        notes += effect_notes(pipe, request, output, image)
    with extras.attempt("noise_sha256"):
        noise = None if probe.noise is None else noise_sha256(probe.noise)
    with extras.attempt("peak memory"):
        peak = cell.memory.peak_bytes()
    with extras.attempt("steps"):
        steps = step_latents(pipe, probe.keeper, image.height, image.width)
    with extras.attempt("latents"):
        latents = None if probe.latents is None else probe.latents[0].cpu()
    return RunResult(
        request=request.changed(width=image.width, height=image.height),
        image=image,
        timings=probe.timings(started, ended),
        nfe=probe.nfe,
        denoiser_rows=probe.rows,
        noise_sha256=noise,
        peak_memory_bytes=peak,
        notes=(*model.notes, *unfinished, *notes, *cell.notes, *extras.notes),
        shared=cell.shared,
        steps=steps,
        latents=latents,
    )


def out_of_memory(model: LoadedModel, request: RunRequest) -> DeviceMemoryError:
    """The error that says what did not fit and what would."""
    return DeviceMemoryError(
        f"{request.model_id} at {request.width} x {request.height} px does not fit into the "
        f"memory of {model.device}{advice(model.memory_policy, model.device)}"
        f"{_smaller(model.info, request)}"
    )


def _smaller(info: ModelInfo, request: RunRequest) -> str:
    """The size of half the area, as the end of an error message."""
    if not (request.width and request.height):
        return ""
    step = info.size_multiple
    width, height = (max(step, int(side / 2**0.5) // step * step)
                     for side in (request.width, request.height))
    return f"; or try {width} x {height} px"


def not_finite_notes(probe: Probe, model: LoadedModel, request: RunRequest) -> list[str]:
    """The networks that gave values that are not finite, where the picture has none of them; where
    it has, raises PipelineError that names what gave them first."""
    broken = probe.not_finite()
    encoders = [network for network in broken if not network.decodes]
    if probe.latents is not None and not probe.latents.isfinite().all():
        if encoders:
            raise PipelineError(_broken(encoders[0], model))
        raise PipelineError(
            f"{type(probe.scheduler).__name__} produced values that are not finite in "
            f"{request.num_inference_steps} steps (options {request.scheduler_options or 'none'})"
            f"{_other_dtype(model)}"
        )
    if len(encoders) < len(broken):
        raise PipelineError(_broken(broken[-1], model))
    return [_broken(network, model) for network in encoders]


def _broken(network: Network, model: LoadedModel) -> str:
    """That a network's output is not finite, and why that may be."""
    why = _other_dtype(model)
    weights = [weight for weight in network.owner.parameters()
               if not weight.is_meta and weight.is_floating_point()]
    if any((weight.isnan() if why else ~weight.isfinite()).any() for weight in weights):
        why = ": its weights hold such values, so its files are broken; get them again"
    return f"{network.name} ({type(network.owner).__name__}) gave values that are not finite{why}"


def _other_dtype(model: LoadedModel) -> str:
    """What helps where values have overflowed, as the end of an error message."""
    if model.dtype != "float16":
        return ""
    return ": float16 ends at 65504; try the torch_dtype bfloat16 or float32"


def warm_up_key(model: LoadedModel, request: RunRequest) -> tuple:
    """What has to be warmed up once."""
    return (request.task, request.height, request.width, request.guidance_scale > 1,
            request.attention_backend, request.compile, model.lora_contents)


def warm_up(
    cell: Cell, model: LoadedModel, request: RunRequest, images: Mapping[str, Image]
) -> float:
    """Milliseconds of one denoising step that is thrown away."""
    check_cost(request, model.info, model.device)
    steps = 1
    while request.image and int(steps * request.strength) < 1:
        steps += 1
    request = request.changed(num_inference_steps=steps, prior_num_inference_steps=2,
                              sigma_schedule=DEFAULT)
    pipe = model.view(request.task)
    set_scheduler(pipe, run_scheduler(model, request))
    torch.manual_seed(request.seed)
    with computing(model, pipe, request):
        started = cell.batch.clock.mark()
        pipe(**call_arguments(pipe, model.info, request, images))
        ended = cell.batch.clock.mark()
    cell.clock.finish()
    return cell.batch.clock.ms(started, ended)
