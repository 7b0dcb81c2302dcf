"""Guidance by a guider of diffusers, inside a plain pipeline.

A pipeline calls its denoiser once a step with two rows, without and with the prompt, and computes
`uncond + scale * (cond - uncond)` from the halves of the output. Here the output is replaced,
behind the network and the batch that it may have run in: both halves become the guider's prediction
g, and g + scale * (g - g) is g to the last bit, whatever the scale. So the call keeps its cost:
both rows are computed in every step, also where a method needs one only. The scheduler's step looks
at what arrives: a pipeline that combines in another way is an error and no other picture.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from pipelines.errors import PipelineError, RequestError, first_line
from pipelines.guidance_methods import GuidanceMethod
from pipelines.models.parts import denoiser_of
from pipelines.painting.networks import Network, is_out_of_memory
from pipelines.painting.rows import NotRows, Rows
from pipelines.request import RunRequest

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

    from pipelines.painting.batching import Cell

ARRIVED = 1e-3  # of the largest value: how far what the scheduler is given may lie from it
HOOK = "layer_skip_hook"  # diffusers' name of it


class Guiding:
    """The guidance of one run: replaces the output of its denoiser, step by step."""

    def __init__(self, cell: Cell, pipe: DiffusionPipeline, request: RunRequest) -> None:
        self.cell, self.pipe = cell, pipe
        self.method = GuidanceMethod.parse(request.guidance_method)
        self.guider = self.method.guider(request.guidance_scale, request.guidance_rescale)
        self.denoiser = denoiser_of(pipe)
        self.step = 0
        self._guided: torch.Tensor | None = None
        self._busy = False
        pipe.scheduler.step = self._watched(pipe.scheduler.step)

    def guide(
        self, module: torch.nn.Module, args: tuple, kwargs: dict[str, Any], output: Any
    ) -> Any:
        """The output of a denoiser's call with both halves guided; as it is for other networks."""
        if module is not self.denoiser or self._busy:
            return output
        prediction = output if isinstance(output, torch.Tensor) else output[0]
        sample = next(value for value in (*args, *kwargs.values())
                      if isinstance(value, torch.Tensor) and value.ndim)
        if len(prediction) != 2:
            raise RequestError(
                f"guidance_method: received {self.method}, but {type(self.pipe).__name__} calls "
                f"its denoiser with {len(prediction)} rows a step; accepted cfg")
        channels = sample.shape[1]  # what is beyond them is a variance that the model predicts
        uncond, cond = (half[:, :channels] for half in prediction.chunk(2))
        total = getattr(self.pipe, "_num_timesteps", None) or len(self.pipe.scheduler.timesteps)
        self._guided = combine(self.guider, cond, uncond, self.step, total,
                               lambda: self._weakened(module, args, kwargs)[:, :channels])
        self.step += 1
        guided = prediction.clone()
        guided[:, :channels] = self._guided
        if isinstance(output, torch.Tensor):
            return guided
        if isinstance(output, tuple):
            return (guided, *output[1:])
        return type(output)(**{**output, dataclasses.fields(output)[0].name: guided})

    def _weakened(
        self, module: torch.nn.Module, args: tuple, kwargs: dict[str, Any]
    ) -> torch.Tensor:
        """The prediction with the prompt of the network without some of its layers."""
        try:
            rows = Rows.of_call(args, kwargs).select(slice(1, 2))
        except NotRows as reason:
            raise RequestError(f"guidance_method: received {self.method}, but the call of "
                               f"{type(module).__name__} cannot be taken apart: {reason}") from None
        networks, place = self.cell.batch.model.networks, (id(module), f"forward {self.method}")
        if place not in networks:
            plain = networks.get((id(module), "forward"))
            networks[place] = Weakened(f"{plain.name if plain else 'denoiser'}, {self.method.kind}",
                                       module, "forward", True, self.cell.batch.model.device)
        network = networks[place]
        network.weaken(self.method, networks.get((id(module), "forward")))
        args, kwargs = rows.value()
        self._busy = True
        try:
            if self.cell.probe is not None:
                self.cell.probe.before_denoiser(module, args, kwargs)
            output = self.cell.call(network, args, kwargs)
        finally:
            self._busy = False
        return output if isinstance(output, torch.Tensor) else output[0]

    def _watched(self, step: Callable) -> Callable:
        @functools.wraps(step)
        def wrapped(model_output: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            if self._guided is None:
                raise PipelineError(f"guidance_method: {type(self.pipe).__name__} took a step "
                                    "before its denoiser was called; accepted cfg")
            arrived = model_output[:, :self._guided.shape[1]]
            size = self._guided.abs().max().clamp(min=1e-12)
            if arrived.shape != self._guided.shape or (
                    (arrived - self._guided).abs().max() > ARRIVED * size):
                raise PipelineError(f"guidance_method: {type(self.pipe).__name__} changes what the "
                                    "guider predicts; accepted cfg")
            return step(model_output, *args, **kwargs)

        return wrapped


def combine(
    guider: Any, cond: torch.Tensor, uncond: torch.Tensor, step: int, total: int,
    weakened: Callable[[], torch.Tensor] | None = None,
) -> torch.Tensor:
    """The guided prediction of step `step`, from 0, of `total` evaluations; `cond`, `uncond`: the
    predictions with and without the prompt, (n, ...).

    Each row is handed on flat: none of these methods knows an image's sides, and diffusers 0.42's
    MagnitudeAwareGuidance fails on four dimensions.
    """
    guider.set_state(step=step, num_inference_steps=total, timestep=None)
    batches = guider.prepare_inputs({"prediction": (cond.flatten(1), uncond.flatten(1))})
    for batch in batches:
        skipped = batch.__guidance_identifier__ == "pred_cond_skip"
        batch.noise_pred = weakened().flatten(1) if skipped and weakened else batch.prediction
    return guider(batches).pred.view_as(cond)


class Weakened(Network):
    """A denoiser with layers skipped, by diffusers' hooks, which are on for each call only: no
    other call of the network comes between."""

    def weaken(self, method: GuidanceMethod, plain: Network | None) -> None:
        """Take the network's call as it is now; `plain`: the one that batches it, if any."""
        compute = plain.compute if plain else self.owner.forward

        def weakened(*args: Any, **kwargs: Any) -> Any:
            with layers_skipped(self.owner, method):
                return compute(*args, **kwargs)

        self.compute = weakened

    @property
    def splits(self) -> bool:
        """Never in threads: the hooks are on for all of them."""
        return False


@contextmanager
def layers_skipped(denoiser: torch.nn.Module, method: GuidanceMethod) -> Iterator[None]:
    """Perturb the self-attention of a layer (pag), or skip the layer (slg), of a UNet's middle
    block or of a transformer. Raises RequestError where there is none that diffusers knows."""
    from diffusers.hooks import HookRegistry, LayerSkipConfig, apply_layer_skip

    fqn, count = _layers(denoiser)
    layer = int(method.named["layer"])
    if layer >= count or not count:
        where = f"a layer from 0 to {count - 1}" if count else "a method that skips no layer"
        raise RequestError(f"guidance_method: received {method}, accepted {where} for "
                           f"{type(denoiser).__name__}")
    attention = method.kind == "pag"
    config = LayerSkipConfig([count // 2 if layer < 0 else layer], fqn,
                             skip_attention=not attention, skip_attention_scores=attention,
                             skip_ff=not attention)
    try:
        apply_layer_skip(denoiser, config)
        yield
    except (ValueError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise
        raise RequestError(f"guidance_method: received {method}, which diffusers' hooks cannot do "
                           f"in {type(denoiser).__name__}: {first_line(error)}") from error
    finally:
        HookRegistry.check_if_exists_or_initialize(denoiser).remove_hook(HOOK, recurse=True)


def _layers(denoiser: torch.nn.Module) -> tuple[str, int]:
    """Where the transformer blocks are that may be skipped, and how many."""
    middle = getattr(getattr(denoiser, "mid_block", None), "attentions", None)
    names = (("mid_block.attentions.0.transformer_blocks",) if middle else
             ("transformer_blocks", "blocks", "layers"))
    for name in names:
        blocks = dict(denoiser.named_modules()).get(name)
        if isinstance(blocks, torch.nn.ModuleList) and len(blocks):
            return name, len(blocks)
    return "", 0
