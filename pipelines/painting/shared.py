"""Cells that share a UNet share its calls: many rows, each with its own timestep, in one batch.

Each cell's latents are those of the plain pipeline; only the number of UNet calls differs. Rows
that would be the same (the first evaluation of cells that start from the same noise, with the same
prompt, at the same timestep and scale) are computed once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pipelines.errors import PipelineError
from pipelines.hardware import free_memory_bytes
from pipelines.models.loaded import LoadedModel
from pipelines.models.placement import BYTES, free_memory
from pipelines.models.signatures import call_parameters
from pipelines.painting.execution import as_usual
from pipelines.painting.generation import (
    ONE_SEED_A_CALL,
    check_finite,
    is_out_of_memory,
    out_of_memory,
    run_scheduler,
    warm_up,
)
from pipelines.painting.noise import NoiseWatch, draw_noise, make_generator, noise_sha256
from pipelines.painting.previews import StepKeeper, StepLatents
from pipelines.painting.result import RunResult
from pipelines.painting.timing import Clock, MemoryWatch, Timings
from pipelines.request import RunRequest
from pipelines.schedulers import expected_evaluations

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

MAX_ROWS = 32  # per UNet call; more gain little, and finished cells appear later
# Cells of a lane appear together, and a crash loses what is under way: it should not take long.
LANE_SECONDS, FIRST_ROWS = 10.0, 8
DECODED_TOGETHER = 8192  # positions of latents
ACTIVATIONS = 60  # times a row's latents at the UNet's width: about what its call needs in memory

OnResult = Callable[[int, RunResult | PipelineError], None]


# Those whose denoising loop is the one below; the others run cell by cell.
FITTING = {
    "StableDiffusionPipeline", "StableDiffusionImg2ImgPipeline",
    "StableDiffusionXLPipeline", "StableDiffusionXLImg2ImgPipeline",
}  # fmt: skip


def fits(model: LoadedModel, request: RunRequest) -> bool:
    """Whether a request can share: text-to-image and image-to-image of Stable Diffusion and XL,
    without an embedded guidance scale, computed in the usual way."""
    unet = getattr(model.pipe, "unet", None)
    return (model.info.task_classes.get(request.task) in FITTING
            and unet.config.time_cond_proj_dim is None
            and as_usual(request)
            and model.memory_policy == "device")  # fmt: skip


@dataclass
class _Lane:
    """Cells that differ in guidance, seed and prompt only: one scheduler steps them together.

    `numbers` are the cells' places in the list of requests; `guided` those of its members (by
    position) with guidance_scale above 1; `x` their latents, `conditions` what the UNet takes
    beside them, each a tensor with a row per UNet row. `ticks` are the marks of its UNet calls and
    steps, with the rows that all lanes had in them.
    """

    numbers: list[int]
    requests: list[RunRequest]
    scheduler: Any
    timesteps: Sequence[Any]
    x: torch.Tensor
    conditions: dict[str, torch.Tensor]
    condition_keys: list[tuple[str, str]]
    guided: list[int]
    step_arguments: dict[str, Any]
    noises: list[str]
    keeper: StepKeeper
    encoding: tuple[Any, Any]
    ticks: list[tuple[Any, Any, int]] = field(default_factory=list)
    at: int = 0

    @property
    def rows(self) -> int:
        return len(self.numbers) + len(self.guided)


def _rows(request: RunRequest) -> int:
    """Rows of a UNet call: the prompt's, and the negative prompt's with guidance."""
    return 2 if request.guidance_scale > 1 else 1


def generate_shared(
    model: LoadedModel,
    requests: Sequence[RunRequest],
    on_result: OnResult,
    on_step: Callable[[int], None] | None = None,
    load_ms: float = 0.0,
    max_rows: int | None = None,
    images: Mapping[str, Image] | None = None,
) -> None:
    """Make the pictures of resolved requests of one model, task, size and input picture.

    `on_result(number, result or error)` is called for each as it is done, `on_step(evaluations)`
    after each shared UNet call and may raise Cancelled. Timings are a cell's share of its batch.
    At most `max_rows` rows a call, by default as many as memory is likely to hold and as are
    done within some seconds; half as many each time that memory does not hold them. Raises
    DeviceMemoryError where a single cell does not fit.
    """
    import torch

    images = dict(images or {})
    fitting = max_rows or model.shared_rows or likely_rows(model, requests[0])
    longest = max(map(_evaluations, requests))
    first = {"load": load_ms, "warm_up": warm_up(model, requests[0], images)}
    shared = _Shared(model, requests, on_step, images)
    pending = list(range(len(requests)))

    def rows() -> int:
        return fitting if max_rows else min(fitting, _timely_rows(model, longest))

    while pending:
        try:
            with torch.no_grad():
                for number, result in shared.run(pending, rows):
                    pending.remove(number)
                    if isinstance(result, RunResult):
                        result, first = result.with_timings(**first), {}
                    on_result(number, result)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            free_memory(model.device)
            if rows() <= 2:
                raise out_of_memory(model, requests[pending[0]]) from error
            fitting = model.shared_rows = rows() // 2


def _evaluations(request: RunRequest) -> int:
    return expected_evaluations(request.scheduler, request.steps_to_run)


def _timely_rows(model: LoadedModel, evaluations: int) -> int:
    """Rows that take about LANE_SECONDS to the end, few where the model's pace is not known yet."""
    if model.row_seconds is None:
        return FIRST_ROWS
    return max(2, int(LANE_SECONDS / (model.row_seconds * evaluations)))


def likely_rows(model: LoadedModel, request: RunRequest) -> int:
    """Rows of a UNet call that half of the free memory is likely to hold, 2 to MAX_ROWS."""
    unet, scale = model.pipe.unet, model.pipe.vae_scale_factor
    area = (request.height // scale) * (request.width // scale)
    row_bytes = ACTIVATIONS * area * unet.config.block_out_channels[0] * BYTES[model.dtype]
    return max(2, min(MAX_ROWS, free_memory_bytes(model.device) // 2 // row_bytes))


def _lanes(requests: Sequence[RunRequest], pending: Sequence[int]) -> list[list[int]]:
    """The requests (their numbers) that one scheduler can step together; those that take longest
    come first, so that none of them runs alone at the end."""

    def lane_key(number: int) -> tuple:
        r = requests[number]
        own = (number,) if r.scheduler in ONE_SEED_A_CALL else ()
        options = tuple(sorted(r.scheduler_options.items()))
        return (r.scheduler, options, r.num_inference_steps, r.eta, r.strength, own)

    lanes: dict[tuple, list[int]] = {}
    for number in pending:
        lanes.setdefault(lane_key(number), []).append(number)
    return sorted(lanes.values(), key=lambda lane: -_evaluations(requests[lane[0]]))


class _Shared:
    """What the lanes of one group have in common: conditions and first evaluations."""

    def __init__(
        self,
        model: LoadedModel,
        requests: Sequence[RunRequest],
        on_step: Callable[[int], None] | None,
        images: Mapping[str, Image],
    ) -> None:
        self.model, self.requests, self.on_step = model, requests, on_step
        self.task = requests[0].task
        self.pipe = model.view(self.task)
        self.image = None
        if self.task == "image-to-image":
            self.image = self.pipe.image_processor.preprocess(images["image"])
        self.rescales = model.info.takes(self.task, "guidance_rescale")
        self.clock, self.memory = Clock(model.device), MemoryWatch(model.device)
        self.computed = 0  # rows of all UNet calls
        self._conditions: dict[tuple[str, str], dict[str, torch.Tensor]] = {}
        self._first: dict[tuple, torch.Tensor] = {}

    def run(
        self, pending: Sequence[int], rows: Callable[[], int]
    ) -> Iterator[tuple[int, RunResult | PipelineError]]:
        """Denoise the pending requests, at most `rows()` rows a call; a lane that is done gives
        back its cells and makes room for the next."""
        waiting = _lanes(self.requests, pending)
        live: list[_Lane] = []
        since, computed = time.perf_counter(), self.computed
        while waiting or live:
            room = rows() - sum(lane.rows for lane in live)
            while numbers := self._next(waiting, room, alone=not live):
                try:
                    live.append(self._lane(numbers))
                    room -= live[-1].rows
                except PipelineError as error:
                    yield from ((number, error) for number in numbers)
            if not live:
                continue
            self._tick(live)
            done = [lane for lane in live if lane.at == len(lane.timesteps)]
            live = [lane for lane in live if lane not in done]
            if done:
                results = list(self._finish(done))
                now = time.perf_counter()
                self.model.row_seconds = (now - since) / max(1, self.computed - computed)
                since, computed = now, self.computed
                yield from results

    def _next(self, waiting: list[list[int]], room: int, alone: bool) -> list[int]:
        """The next cells of the first lane that fit into so many rows; at least one if `alone`."""
        numbers: list[int] = []
        while waiting:
            cost = _rows(self.requests[waiting[0][0]])
            if cost > room and not (alone and not numbers):
                break
            numbers.append(waiting[0].pop(0))
            room -= cost
            if not waiting[0]:
                waiting.pop(0)
                break
        return numbers

    def _finish(self, lanes: list[_Lane]) -> Iterator[tuple[int, RunResult | PipelineError]]:
        """The cells of lanes that are done, decoded together; times are their shares."""
        clock = self.clock
        start = clock.mark()
        images = iter([image for lane in lanes for image in self._decode(lane.x)])
        end = clock.mark()
        clock.finish()
        decoding = clock.ms(start, end) / sum(len(lane.numbers) for lane in lanes)
        for lane in lanes:
            x0, steps = lane.keeper.finish()
            encoding = clock.ms(*lane.encoding) / len(lane.numbers)
            row_ms = sum(clock.ms(*tick) / rows for *tick, rows in lane.ticks)
            for member, (number, request) in enumerate(zip(lane.numbers, lane.requests,
                                                           strict=True)):
                image = next(images)
                try:
                    check_finite(lane.x[member], lane.scheduler, request)
                except PipelineError as error:
                    yield number, error
                    continue
                denoising = row_ms * _rows(request)
                yield number, RunResult(
                    request=request, image=image,
                    timings=Timings(text_encoding=encoding, denoising=denoising, decoding=decoding,
                                    total=encoding + denoising + decoding),
                    nfe=len(lane.timesteps), denoiser_rows=_rows(request) * len(lane.timesteps),
                    noise_sha256=lane.noises[member],
                    peak_memory_bytes=self.memory.peak_bytes(), shared=True,
                    steps=StepLatents(x0[:, member].half().cpu(), steps),
                    latents=lane.x[member].cpu(),
                )  # fmt: skip

    def _lane(self, numbers: list[int]) -> _Lane:
        import inspect

        import torch

        started = self.clock.mark()
        pipe, requests = self.pipe, [self.requests[number] for number in numbers]
        scheduler = run_scheduler(self.model, requests[0])
        scheduler.set_timesteps(requests[0].num_inference_steps, device=pipe.device)
        generators = [make_generator(request.seed) for request in requests]
        x, noises, timesteps = self._start(requests, scheduler, generators)
        known = inspect.signature(scheduler.step).parameters
        step_arguments = {"eta": requests[0].eta, "generator": generators}
        guided = [m for m, request in enumerate(requests) if request.guidance_scale > 1]
        keys = [("prompt", request.prompt) for request in requests]
        keys += [("negative_prompt", requests[m].negative_prompt) for m in guided]
        rows = [self._condition(key) for key in keys]
        encoding = (started, self.clock.mark())
        return _Lane(
            numbers=numbers,
            requests=requests,
            scheduler=scheduler,
            timesteps=timesteps,
            x=x,
            conditions={name: torch.cat([row[name] for row in rows]) for name in rows[0]},
            condition_keys=keys,
            guided=guided,
            step_arguments={k: v for k, v in step_arguments.items() if k in known},
            noises=[noise_sha256(noise) for noise in noises],
            keeper=StepKeeper(scheduler),
            encoding=encoding,
        )

    def _start(
        self, requests: list[RunRequest], scheduler: Any, generators: list[Any]
    ) -> tuple[torch.Tensor, list[torch.Tensor], list[Any]]:
        """The latents to start from, the noise in them, and the timesteps that are left."""
        import torch

        pipe, first, dtype = self.pipe, requests[0], self.pipe.unet.dtype
        if self.image is None:
            shape = (1, pipe.unet.config.in_channels, first.height // pipe.vae_scale_factor,
                     first.width // pipe.vae_scale_factor)
            noises = [draw_noise(shape, generator) for generator in generators]
            x = torch.cat(noises).to(pipe.device, dtype) * scheduler.init_noise_sigma
            return x, noises, list(scheduler.timesteps)
        pipe.scheduler = scheduler  # the pipeline's own preparations read it
        timesteps, _ = pipe.get_timesteps(first.num_inference_steps, first.strength, pipe.device)
        starts, noises = [], []
        for generator in generators:
            with NoiseWatch() as watch:
                starts.append(pipe.prepare_latents(self.image, timesteps[:1], 1, 1, dtype,
                                                   pipe.device, generator))
            noises.append(watch.noise)
        return torch.cat(starts), noises, list(timesteps)

    def _condition(self, key: tuple[str, str]) -> dict[str, torch.Tensor]:
        """What the UNet takes for a prompt or a negative prompt: the text, and for XL the pooled
        text and the sizes; each a row."""
        if key in self._conditions:
            return self._conditions[key]
        kind, text = key
        negative = kind == "negative_prompt"
        texts = {"prompt": "", "negative_prompt": text or None} if negative else {"prompt": text}
        encoded = self.pipe.encode_prompt(
            device=self.pipe.device, num_images_per_prompt=1, do_classifier_free_guidance=negative,
            **texts,
        )  # fmt: skip
        row = {"encoder_hidden_states": encoded[int(negative)]}
        if len(encoded) == 4:
            row["text_embeds"] = encoded[2 + int(negative)]
            row["time_ids"] = self._time_ids(negative).to(self.pipe.device)
        self._conditions[key] = row
        return row

    def _time_ids(self, negative: bool) -> torch.Tensor:
        """XL's sizes and crop (Podell et al. 2023, arXiv:2307.01952), as its pipelines set them."""
        pipe, first = self.pipe, self.requests[0]
        size, corner = (first.height, first.width), (0, 0)
        width = pipe.text_encoder_2.config.projection_dim
        rest = {"dtype": pipe.unet.dtype, "text_encoder_projection_dim": width}
        if self.image is None:
            return pipe._get_add_time_ids(size, corner, size, **rest)
        scores = call_parameters(type(pipe).__name__)
        both = pipe._get_add_time_ids(
            size, corner, size, scores["aesthetic_score"], scores["negative_aesthetic_score"],
            size, corner, size, **rest,
        )  # fmt: skip
        return both[int(negative)]

    def _tick(self, lanes: list[_Lane]) -> None:
        """One evaluation of every lane in a shared UNet call, and one step of each scheduler."""
        import torch

        start = self.clock.mark()
        inputs, times, names = [], [], []
        for lane in lanes:
            t = lane.timesteps[lane.at]
            x = lane.scheduler.scale_model_input(lane.x, t)
            rows = torch.cat([x, x[lane.guided]])
            inputs.append(rows)
            times.append(torch.as_tensor(t, dtype=torch.float32, device=x.device).expand(len(rows)))
            names += self._names(lane, rows, t) if lane.at == 0 else [None] * len(rows)
        rows, t = torch.cat(inputs), torch.cat(times)
        conditions = {name: torch.cat([lane.conditions[name] for lane in lanes])
                      for name in lanes[0].conditions}
        output = self._evaluate(rows, t, conditions, names)
        for lane, scaled, part in zip(lanes, inputs, output.split([len(r) for r in inputs]),
                                      strict=True):
            self._step(lane, scaled, part)
        self.memory.look()
        end = self.clock.mark()
        for lane in lanes:
            lane.ticks.append((start, end, len(rows)))
        if self.on_step:
            self.on_step(sum(len(lane.numbers) for lane in lanes))

    def _names(self, lane: _Lane, rows: torch.Tensor, t: Any) -> list[tuple]:
        """What decides the first evaluation of each row: its condition, timestep and latents."""
        return [(key, float(t), row.tobytes())
                for key, row in zip(lane.condition_keys, rows.cpu().float().numpy(), strict=True)]

    def _evaluate(
        self,
        rows: torch.Tensor,
        t: torch.Tensor,
        conditions: dict[str, torch.Tensor],
        names: list[tuple | None],
    ) -> torch.Tensor:
        """The UNet's output; rows of one name, here or in an earlier call, are computed once."""
        import torch

        if not any(names):
            return self._unet(rows, t, conditions)
        places: dict[Any, int] = {}
        for place, name in enumerate(names):
            if name not in self._first:
                places.setdefault(name or place, place)
        found = {}
        if chosen := list(places.values()):
            some = {name: of_rows[chosen] for name, of_rows in conditions.items()}
            found = dict(zip(places, self._unet(rows[chosen], t[chosen], some), strict=True))
            self._first |= {n: row for n, row in found.items() if isinstance(n, tuple)}
        known = self._first | found
        return torch.stack([known[name or place] for place, name in enumerate(names)])

    def _unet(
        self, rows: torch.Tensor, t: torch.Tensor, conditions: dict[str, torch.Tensor]
    ) -> torch.Tensor:
        self.computed += len(rows)
        text = conditions["encoder_hidden_states"]
        added = {name: conditions[name] for name in ("text_embeds", "time_ids")
                 if name in conditions}
        return self.pipe.unet(rows, t, encoder_hidden_states=text,
                              added_cond_kwargs=added or None, return_dict=False)[0]

    def _step(self, lane: _Lane, scaled: torch.Tensor, output: torch.Tensor) -> None:
        """Classifier-free guidance per member (Ho and Salimans 2022), then the scheduler's step."""
        import torch

        count = len(lane.numbers)
        prediction, unconditional = output[:count], output[count:]
        if lane.guided:
            scales = torch.tensor([lane.requests[m].guidance_scale for m in lane.guided])
            scales = scales.to(output).view(-1, 1, 1, 1)
            conditional = prediction[lane.guided]
            mixed = unconditional + scales * (conditional - unconditional)
            mixed = torch.stack([
                _rescale(mix, text, lane.requests[m].guidance_rescale * self.rescales)
                for mix, text, m in zip(mixed, conditional, lane.guided, strict=True)
            ])  # fmt: skip
            prediction = prediction.clone()
            prediction[lane.guided] = mixed
        t = lane.timesteps[lane.at]
        lane.keeper.look(len(lane.timesteps), scaled, t, prediction, lane.x)
        lane.x = lane.scheduler.step(
            prediction, t, lane.x, return_dict=False, **lane.step_arguments
        )[0]
        lane.at += 1

    def _decode(self, latents: torch.Tensor) -> list[Any]:
        """Pictures of latents; large ones one by one, which batching would not speed up."""
        import torch

        vae = self.pipe.vae
        upcast = vae.dtype == torch.float16 and vae.config.force_upcast  # XL's overflows in half
        if upcast:
            vae.to(torch.float32)
        latents = latents.to(vae.dtype)
        mean, std = (getattr(vae.config, f"latents_{name}", None) for name in ("mean", "std"))
        if mean is not None and std is not None:
            mean, std = (torch.tensor(v).view(1, -1, 1, 1).to(latents) for v in (mean, std))
            latents = latents * std / vae.config.scaling_factor + mean
        else:
            latents = latents / vae.config.scaling_factor
        parts = latents.split(max(1, DECODED_TOGETHER // latents[0, 0].numel()))
        decoded = torch.cat([vae.decode(part, return_dict=False)[0] for part in parts])
        if upcast:
            vae.to(torch.float16)
        return self.pipe.image_processor.postprocess(decoded.detach())


def _rescale(mixed: torch.Tensor, text: torch.Tensor, amount: float) -> torch.Tensor:
    """Guidance rescale (Lin et al. 2023, arXiv:2305.08891, section 3.4)."""
    if not amount:
        return mixed
    return amount * mixed * (text.std() / mixed.std()) + (1 - amount) * mixed
