"""Watches one call of a pipeline: what is kept, counted and timed, and where that is seen.

| seen at                                   | gives                                          |
|-------------------------------------------|------------------------------------------------|
| `encode_prompt` of the run's own pipeline | the time of text encoding                      |
| `prepare_latents` and the like            | the initial noise, as torch.randn draws it     |
| the denoiser's forward hook (batching.py) | evaluations and rows; the first step's start   |
| `scheduler.scale_model_input`             | what the denoiser saw, for the predicted x0    |
| `scheduler.step`                          | a step's end, the latents, the predicted x0    |
| the pipeline's callback at a step's end   | in-painting's latents, blended after the step  |
| the autoencoder's decode (batching.py)    | the time of decoding                           |
| the other networks too, but the denoiser  | whether what they give is finite               |

The pipeline object and the scheduler are the run's own, so what is wrapped on them stays there. The
scheduler's step is wrapped from the inside out: what it does not know is left out (call.py), its
timestep is told to caching hooks (execution.py), then it is counted here.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch

from pipelines.models.parts import denoiser_of, inner_pipelines
from pipelines.painting.noise import NoiseWatch
from pipelines.painting.previews import StepKeeper, decoded
from pipelines.painting.result import OnStep, Step
from pipelines.painting.timing import Timings

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline
    from PIL.Image import Image

    from pipelines.painting.batching import Cell
    from pipelines.painting.networks import Network

NOISE_METHODS = ("prepare_latents", "prepare_intermediate_images")


class Probe:
    """The measurements of one cell, whose `pipe` it watches from now on."""

    def __init__(self, cell: Cell, pipe: DiffusionPipeline, on_step: OnStep | None) -> None:
        self.cell, self.pipe, self.on_step = cell, pipe, on_step
        self.clock = cell.clock
        self.scheduler = getattr(pipe, "scheduler", None)
        self.denoiser = denoiser_of(pipe)
        self.keeper = StepKeeper(self.scheduler)
        self.nfe = self.rows = 0
        self.latents: torch.Tensor | None = None
        self.noise: torch.Tensor | None = None
        self._encoding: list[tuple[Any, Any]] = []
        self._steps: list[tuple[Any, Any]] = []
        self._decoding: list[tuple[Any, Any]] = []
        self._pauses: list[tuple[Any, Any]] = []
        self._finite: list[tuple[Network, torch.Tensor]] = []
        self._started = self.clock.mark()
        self._step_start: Any = None
        self._input: torch.Tensor | None = None
        self._previewing = False
        self._watch()
        cell.probe = self

    def _watch(self) -> None:
        pipe, scheduler = self.pipe, self.scheduler
        for part in (pipe, *inner_pipelines(pipe).values()):
            for name, wrap in (("encode_prompt", self._timed_encoding),
                               ("_encode_prompt", self._timed_encoding),
                               *((name, self._keep_noise) for name in NOISE_METHODS)):
                if hasattr(part, name):
                    setattr(part, name, wrap(getattr(part, name)))
        if hasattr(scheduler, "scale_model_input"):
            scheduler.scale_model_input = self._keep_input(scheduler.scale_model_input)
        if scheduler is not None:
            scheduler.step = self._counted_step(scheduler.step)

    def timings(self, started: Any, ended: Any) -> Timings:
        """Read the marks; call after the clock is finished."""
        ms = self.clock.ms
        return Timings(
            text_encoding=sum(ms(a, b) for a, b in self._encoding),
            denoising=sum(ms(a, b) for a, b in self._steps),
            decoding=sum(ms(a, b) for a, b in self._decoding),
            total=ms(started, ended) - sum(ms(a, b) for a, b in self._pauses),
            steps=() if self.cell.shared else tuple(ms(a, b) for a, b in self._steps),
        )

    def _timed_encoding(self, encode: Callable) -> Callable:
        @functools.wraps(encode)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            start = self.clock.mark()
            result = encode(*args, **kwargs)
            self._encoding.append((start, self.clock.mark()))
            return result

        return wrapped

    def _keep_input(self, scale: Callable) -> Callable:
        @functools.wraps(scale)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            self._input = scale(*args, **kwargs)
            return self._input

        return wrapped

    def _keep_noise(self, prepare: Callable) -> Callable:
        @functools.wraps(prepare)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            watch = NoiseWatch()
            with self.cell.inside(watch):
                result = prepare(*args, **kwargs)
            if watch.noise is not None:
                self.noise = watch.noise
            return result

        return wrapped

    def step_ended(
        self, after_step: Callable[[int], None], _pipe: Any, step: int, _timestep: Any,
        tensors: dict,
    ) -> dict:
        """The pipeline's own callback: in-painting puts the known area back before it."""
        self.latents = tensors["latents"]
        after_step(step)
        return tensors

    def watched(self, network: Network, call: Callable[[], Any]) -> Any:
        """The output of a network's call. Whether it is finite is read at the end: the device is
        not waited for."""
        if self._previewing or network.denoises:
            return call()
        start = self.clock.mark()
        output = call()
        end = self.clock.mark()
        if network.decodes:
            self._decoding.append((start, end))
        if (finite := all_finite(output)) is not None:
            self._finite.append((network, finite))
            self._pauses.append((end, self.clock.mark()))
        return output

    def not_finite(self) -> list[Network]:
        """The networks that gave values that are not finite, in the order of their calls."""
        return [network for network, finite in self._finite if not finite]

    def before_denoiser(self, module: Any, args: tuple, kwargs: dict) -> None:
        if module is not self.denoiser:
            return
        if self._step_start is None:
            self._step_start = self.clock.mark()
        names = ("sample", "hidden_states", "x")
        sample = args[0] if args else next((kwargs[n] for n in names if n in kwargs), None)
        if self.nfe == 0 and self.noise is None and hasattr(sample, "clone") and not any(
            hasattr(self.pipe, name) for name in NOISE_METHODS
        ):
            self.noise = sample.clone()  # DDPM and DDIM start from the noise itself
        self.nfe += 1
        # A list has one entry a row.
        self.rows += len(sample) if isinstance(sample, torch.Tensor | list | tuple) else 1

    def _counted_step(self, step: Callable) -> Callable:
        names = list(inspect.signature(step).parameters)

        @functools.wraps(step)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            result = step(*args, **kwargs)
            self.latents = result[0]
            # A denoiser of an unknown name tells no start: the first step's is then the call's.
            self._steps.append((self._step_start or self._started, self.clock.mark()))
            with self.cell.extras.attempt("peak memory"):
                self.cell.memory.look()
            total = getattr(self.pipe, "_num_timesteps", None) or len(self.scheduler.timesteps)
            given = {**dict(zip(names, args, strict=False)), **kwargs}
            seen = [given.get(name) for name in ("model_output", "timestep", "sample")]
            if hasattr(seen[2], "ndim"):
                with self.cell.extras.attempt("steps"):
                    self.keeper.look(total, self._scaled(seen[2]), seen[1], seen[0], seen[2])
            if self.on_step:
                self.on_step(Step(len(self._steps), total, functools.partial(self._preview, *seen)))
            self._step_start = self.clock.mark()
            self._pauses.append((self._steps[-1][1], self._step_start))
            return result

        return wrapped

    def _preview(
        self, model_output: torch.Tensor, timestep: Any, sample: torch.Tensor
    ) -> Image | None:
        """The predicted x0, decoded; pooled first where the latents are large."""
        if getattr(sample, "ndim", None) != 4:  # packed latents
            return None
        with self.cell.extras.attempt("previews"):
            keeper = StepKeeper(self.scheduler)
            keeper.look(1, self._scaled(sample), timestep, model_output, sample)
            if (kept := keeper.finish()) is None:
                return None
            self._previewing = True
            try:
                with self.cell.apart():
                    pictures = decoded(self.pipe, kept[0][:, 0])
            finally:
                self._previewing = False
            return pictures[0] if pictures else None
        return None

    def _scaled(self, sample: torch.Tensor) -> torch.Tensor:
        """What the denoiser saw of `sample`."""
        return sample if self._input is None else self._input


def all_finite(output: Any) -> torch.Tensor | None:
    """Whether the first tensor of a network's output is finite, as a tensor on its device; None
    where there is none."""
    if isinstance(output, torch.Tensor):
        return output.isfinite().all()
    if isinstance(output, Mapping):
        output = tuple(output.values())
    elif hasattr(output, "__dict__"):  # such as the distribution that an encoder gives
        output = tuple(part for part in vars(output).values() if isinstance(part, torch.Tensor))
    parts = output if isinstance(output, (list, tuple)) else ()
    return next((finite for part in parts if (finite := all_finite(part)) is not None), None)
