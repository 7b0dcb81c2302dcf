"""Cells that share a UNet share its calls: many rows, each with its own timestep, in one batch.

Each cell's latents are those of the plain pipeline; only the number of UNet calls differs. Rows
that would be the same (the first evaluation of cells that start from the same noise, with the same
prompt, at the same timestep and scale) are computed once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

from pipelines.errors import PipelineError
from pipelines.generation import (
    RunResult,
    check_finite,
    is_out_of_memory,
    out_of_memory,
    run_scheduler,
    warm_up,
)
from pipelines.hardware import free_memory_bytes
from pipelines.noise import NoiseWatch, draw_noise, make_generator, noise_sha256
from pipelines.previews import StepKeeper, StepLatents
from pipelines.registry import BYTES, LoadedModel, free_memory
from pipelines.request import RunRequest
from pipelines.schedulers import expected_evaluations
from pipelines.signatures import call_parameters
from pipelines.timing import Clock, MemoryWatch, Timings

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

MAX_ROWS = 32  # per UNet call; more gain little, and finished cells appear later
# Cells of a wave appear together, and a crash in it loses them all: it should not take long.
WAVE_SECONDS, FIRST_ROWS = 10.0, 8
DECODED_TOGETHER = 8192  # positions of latents
ACTIVATIONS = 60  # times a row's latents at the UNet's width: about what its call needs in memory
OWN_NOISE = {"dpmpp_sde", "dpmpp_sde_karras"}  # their noise has one seed a batch, so one cell

OnResult = Callable[[int, RunResult | PipelineError], None]


# Those whose denoising loop is the one below; the others run cell by cell.
FITTING = {
    "StableDiffusionPipeline", "StableDiffusionImg2ImgPipeline",
    "StableDiffusionXLPipeline", "StableDiffusionXLImg2ImgPipeline",
}  # fmt: skip


def fits(model: LoadedModel, request: RunRequest) -> bool:
    """Whether a request can share: text-to-image and image-to-image of Stable Diffusion and XL,
    without an embedded guidance scale."""
    unet = getattr(model.pipe, "unet", None)
    return (model.info.task_classes.get(request.task) in FITTING
            and unet.config.time_cond_proj_dim is None
            and model.memory_policy == "device")  # fmt: skip


@dataclass
class _Lane:
    """Cells that differ in guidance, seed and prompt only: one scheduler steps them together.

    `numbers` are the cells' places in the list of requests; `guided` those of its members (by
    position) with guidance_scale above 1; `x` their latents, `conditions` what the UNet takes
    beside them, each a tensor with a row per UNet row.
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
    at: int = 0


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
    longest = max(expected_evaluations(r.scheduler, r.steps_to_run) for r in requests)
    warm_up_ms = warm_up(model, requests[0], images)
    shared = _Shared(model, requests, on_step, images)
    pending = list(range(len(requests)))
    while pending:
        rows = fitting if max_rows else min(fitting, _timely_rows(model, longest))
        wave = next(_waves(requests, pending, rows))
        started = time.perf_counter()
        try:
            with torch.no_grad():
                results = list(shared.run(wave))
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            free_memory(model.device)
            if rows <= 2:
                raise out_of_memory(model, requests[wave[0][0]]) from error
            fitting = model.shared_rows = rows // 2
            continue
        computed = sum(r.denoiser_rows for _, r in results if isinstance(r, RunResult))
        if computed:
            model.row_seconds = (time.perf_counter() - started) / computed
        for number, result in results:
            pending.remove(number)
            if isinstance(result, RunResult):
                first = {"load": load_ms, "warm_up": warm_up_ms}
                result = result.with_timings(**first)
                load_ms = warm_up_ms = 0.0
            on_result(number, result)


def _timely_rows(model: LoadedModel, evaluations: int) -> int:
    """Rows whose wave takes about WAVE_SECONDS, few where the model's pace is not known yet."""
    if model.row_seconds is None:
        return FIRST_ROWS
    return max(2, int(WAVE_SECONDS / (model.row_seconds * evaluations)))


def likely_rows(model: LoadedModel, request: RunRequest) -> int:
    """Rows of a UNet call that half of the free memory is likely to hold, 2 to MAX_ROWS."""
    unet, scale = model.pipe.unet, model.pipe.vae_scale_factor
    area = (request.height // scale) * (request.width // scale)
    row_bytes = ACTIVATIONS * area * unet.config.block_out_channels[0] * BYTES[model.dtype]
    return max(2, min(MAX_ROWS, free_memory_bytes(model.device) // 2 // row_bytes))


def _waves(
    requests: Sequence[RunRequest], pending: Sequence[int], max_rows: int
) -> Iterator[list[list[int]]]:
    """Lanes (lists of request numbers) in portions of at most `max_rows` rows a UNet call."""

    def lane_key(number: int) -> tuple:
        r = requests[number]
        own = (number,) if r.scheduler in OWN_NOISE else ()
        options = tuple(sorted(r.scheduler_options.items()))
        return (r.scheduler, options, r.num_inference_steps, r.eta, r.strength, own)

    wave: list[list[int]] = []
    rows = 0
    order = {key: n for n, key in reversed(list(enumerate(map(lane_key, pending))))}
    numbers = sorted(pending, key=lambda n: (order[lane_key(n)], n))
    for _, members in groupby(numbers, key=lane_key):
        lane: list[int] = []
        for number in members:
            cost = 2 if requests[number].guidance_scale > 1 else 1
            if rows + cost > max_rows and rows:
                yield [part for part in [*wave, lane] if part]
                wave, lane, rows = [], [], 0
            lane.append(number)
            rows += cost
        wave.append(lane)
    yield [part for part in wave if part]


class _Shared:
    """What the waves of one group have in common: conditions and first evaluations."""

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
        self._conditions: dict[tuple[str, str], dict[str, torch.Tensor]] = {}
        self._first: dict[tuple, torch.Tensor] = {}

    def run(self, wave: list[list[int]]) -> Iterator[tuple[int, RunResult | PipelineError]]:
        """Denoise a wave, decode it in one batch, and give back its cells."""

        clock, memory = Clock(self.model.device), MemoryWatch(self.model.device)
        started = clock.mark()
        lanes = []
        for numbers in wave:
            try:
                lanes.append(self._lane(numbers))
            except PipelineError as error:
                yield from ((number, error) for number in numbers)
        encoded = clock.mark()
        live = lanes
        while live := [lane for lane in live if lane.at < len(lane.timesteps)]:
            self._tick(live)
            memory.look()
        denoised = clock.mark()
        images = [image for lane in lanes for image in self._decode(lane.x)]
        ended = clock.mark()
        clock.finish()
        count = max(1, len(images))
        timings = Timings(
            text_encoding=clock.ms(started, encoded) / count,
            denoising=clock.ms(encoded, denoised) / count,
            decoding=clock.ms(denoised, ended) / count,
            total=clock.ms(started, ended) / count,
        )
        place = 0
        for lane in lanes:
            x0, steps = lane.keeper.finish()
            for member, number in enumerate(lane.numbers):
                request, image = lane.requests[member], images[place]
                place += 1
                try:
                    check_finite(lane.x[member], lane.scheduler, request)
                except PipelineError as error:
                    yield number, error
                    continue
                rows = 2 if member in lane.guided else 1
                yield number, RunResult(
                    request=request, image=image, timings=timings, nfe=len(lane.timesteps),
                    denoiser_rows=rows * len(lane.timesteps), noise_sha256=lane.noises[member],
                    peak_memory_bytes=memory.peak_bytes(), shared=True,
                    steps=StepLatents(x0[:, member].half().cpu(), steps),
                    latents=lane.x[member].cpu(),
                )  # fmt: skip

    def _lane(self, numbers: list[int]) -> _Lane:
        import inspect

        import torch

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
        """One evaluation of every lane in shared UNet calls, and one step of each scheduler."""
        import torch

        inputs, times = [], []
        for lane in lanes:
            t = lane.timesteps[lane.at]
            x = lane.scheduler.scale_model_input(lane.x, t)
            rows = torch.cat([x, x[lane.guided]])
            inputs.append(rows)
            times.append(torch.as_tensor(t, dtype=torch.float32, device=x.device).expand(len(rows)))
        rows, t = torch.cat(inputs), torch.cat(times)
        conditions = {name: torch.cat([lane.conditions[name] for lane in lanes])
                      for name in lanes[0].conditions}
        if all(lane.at == 0 for lane in lanes):
            keys = [key for lane in lanes for key in lane.condition_keys]
            output = self._first_evaluation(rows, t, conditions, keys)
        else:
            output = self._unet(rows, t, conditions)
        parts = output.split([len(r) for r in inputs])
        for lane, scaled, part in zip(lanes, inputs, parts, strict=True):
            self._step(lane, scaled, part)
        if self.on_step:
            self.on_step(sum(len(lane.numbers) for lane in lanes))

    def _first_evaluation(
        self,
        rows: torch.Tensor,
        t: torch.Tensor,
        conditions: dict[str, torch.Tensor],
        keys: list[tuple[str, str]],
    ) -> torch.Tensor:
        """Like _unet, but equal rows, in this wave or an earlier one, are computed once."""
        import torch

        names = [
            (key, time, row.cpu().float().numpy().tobytes())
            for key, time, row in zip(keys, t.tolist(), rows, strict=True)
        ]
        missing: dict[tuple, int] = {}
        for place, name in enumerate(names):
            if name not in self._first:
                missing.setdefault(name, place)
        if missing:
            places = list(missing.values())
            chosen = {name: rows_of[places] for name, rows_of in conditions.items()}
            output = self._unet(rows[places], t[places], chosen)
            self._first.update(zip(missing, output, strict=True))
        return torch.stack([self._first[name] for name in names])

    def _unet(
        self, rows: torch.Tensor, t: torch.Tensor, conditions: dict[str, torch.Tensor]
    ) -> torch.Tensor:
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
