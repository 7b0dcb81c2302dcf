"""Cells that share a UNet share its calls: many rows, each with its own timestep, in one batch.

Each cell's latents are those of the plain pipeline; only the number of UNet calls differs. Rows
that would be the same (the first evaluation of cells that start from the same noise, with the same
prompt, at the same timestep and scale) are computed once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

from pipelines.errors import PipelineError
from pipelines.generation import RunResult, check_finite, run_scheduler, warm_up
from pipelines.noise import draw_noise, make_generator, noise_sha256
from pipelines.previews import StepKeeper, StepLatents
from pipelines.registry import LoadedModel
from pipelines.request import RunRequest
from pipelines.timing import Clock, MemoryWatch, Timings

if TYPE_CHECKING:
    import torch

MAX_ROWS = 32  # per UNet call; more gain little, and finished cells appear later
OWN_NOISE = {"dpmpp_sde", "dpmpp_sde_karras"}  # their noise has one seed a batch, so one cell

OnResult = Callable[[int, RunResult | PipelineError], None]


def fits(model: LoadedModel, request: RunRequest) -> bool:
    """Whether a request can share: text-to-image of the plain Stable Diffusion pipeline."""
    cls = model.info.task_classes.get("text-to-image")
    return request.task == "text-to-image" and cls == "StableDiffusionPipeline"


@dataclass
class _Lane:
    """Cells that differ in guidance, seed and prompt only: one scheduler steps them together.

    `numbers` are the cells' places in the list of requests; `guided` those of its members (by
    position) with guidance_scale above 1; `x` their latents, `embeddings` a row per UNet row.
    """

    numbers: list[int]
    requests: list[RunRequest]
    scheduler: Any
    timesteps: Sequence[Any]
    x: torch.Tensor
    embeddings: torch.Tensor
    embedding_keys: list[tuple[str, str]]
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
    max_rows: int = MAX_ROWS,
) -> None:
    """Make the pictures of resolved requests of one model and size.

    `on_result(number, result or error)` is called for each as it is done, `on_step(evaluations)`
    after each shared UNet call and may raise Cancelled. Timings are a cell's share of its batch.
    """
    import torch

    warm_up_ms = warm_up(model, requests[0], {})
    shared = _Shared(model, requests, on_step)
    for wave in _waves(requests, max_rows):
        with torch.no_grad():
            for number, result in shared.run(wave):
                if isinstance(result, RunResult):
                    first = {"load": load_ms, "warm_up": warm_up_ms}
                    result = result.with_timings(**first)
                    load_ms = warm_up_ms = 0.0
                on_result(number, result)


def _waves(requests: Sequence[RunRequest], max_rows: int) -> Iterator[list[list[int]]]:
    """Lanes (lists of request numbers) in portions of at most `max_rows` rows a UNet call."""

    def lane_key(number: int) -> tuple:
        r = requests[number]
        own = (number,) if r.scheduler in OWN_NOISE else ()
        options = tuple(sorted(r.scheduler_options.items()))
        return (r.scheduler, options, r.num_inference_steps, r.eta, own)

    wave: list[list[int]] = []
    rows = 0
    order = {key: n for n, key in reversed(list(enumerate(map(lane_key, range(len(requests))))))}
    numbers = sorted(range(len(requests)), key=lambda n: (order[lane_key(n)], n))
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
    """What the waves of one group have in common: embeddings and first evaluations."""

    def __init__(
        self,
        model: LoadedModel,
        requests: Sequence[RunRequest],
        on_step: Callable[[int], None] | None,
    ) -> None:
        self.model, self.requests, self.on_step = model, requests, on_step
        self.pipe = model.view("text-to-image")
        self._embeddings: dict[str, torch.Tensor] = {}
        self._first: dict[tuple, torch.Tensor] = {}

    def run(self, wave: list[list[int]]) -> Iterator[tuple[int, RunResult | PipelineError]]:
        """Denoise a wave, decode it in one batch, and give back its cells."""
        import torch

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
        latents = torch.cat([lane.x for lane in lanes]) if lanes else None
        images = self._decode(latents) if lanes else []
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
        first = requests[0]
        shape = (1, pipe.unet.config.in_channels, first.height // pipe.vae_scale_factor,
                 first.width // pipe.vae_scale_factor)
        noises = [draw_noise(shape, generator) for generator in generators]
        known = inspect.signature(scheduler.step).parameters
        step_arguments = {"eta": first.eta, "generator": generators}
        guided = [m for m, request in enumerate(requests) if request.guidance_scale > 1]
        keys = [("prompt", request.prompt) for request in requests]
        keys += [("prompt", requests[m].negative_prompt) for m in guided]
        return _Lane(
            numbers=numbers,
            requests=requests,
            scheduler=scheduler,
            timesteps=list(scheduler.timesteps),
            x=torch.cat(noises).to(pipe.device, pipe.dtype) * scheduler.init_noise_sigma,
            embeddings=torch.cat([self._embedding(text) for _, text in keys]),
            embedding_keys=keys,
            guided=guided,
            step_arguments={k: v for k, v in step_arguments.items() if k in known},
            noises=[noise_sha256(noise) for noise in noises],
            keeper=StepKeeper(scheduler),
        )

    def _embedding(self, text: str) -> torch.Tensor:
        if text not in self._embeddings:
            embeds, _ = self.pipe.encode_prompt(text, self.pipe.device, 1, False)
            self._embeddings[text] = embeds
        return self._embeddings[text]

    def _tick(self, lanes: list[_Lane]) -> None:
        """One evaluation of every lane in shared UNet calls, and one step of each scheduler."""
        import torch

        inputs, times, embeddings = [], [], []
        for lane in lanes:
            t = lane.timesteps[lane.at]
            x = lane.scheduler.scale_model_input(lane.x, t)
            rows = torch.cat([x, x[lane.guided]])
            inputs.append(rows)
            times.append(torch.as_tensor(t, dtype=torch.float32, device=x.device).expand(len(rows)))
            embeddings.append(lane.embeddings)
        rows, t, e = torch.cat(inputs), torch.cat(times), torch.cat(embeddings)
        if all(lane.at == 0 for lane in lanes):
            keys = [key for lane in lanes for key in lane.embedding_keys]
            output = self._first_evaluation(rows, t, e, keys)
        else:
            output = self._unet(rows, t, e)
        parts = output.split([len(r) for r in inputs])
        for lane, scaled, part in zip(lanes, inputs, parts, strict=True):
            self._step(lane, scaled, part)
        if self.on_step:
            self.on_step(sum(len(lane.numbers) for lane in lanes))

    def _first_evaluation(
        self, rows: torch.Tensor, t: torch.Tensor, e: torch.Tensor, keys: list
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
            output = self._unet(rows[places], t[places], e[places])
            self._first.update(zip(missing, output, strict=True))
        return torch.stack([self._first[name] for name in names])

    def _unet(self, rows: torch.Tensor, t: torch.Tensor, e: torch.Tensor) -> torch.Tensor:
        return self.pipe.unet(rows, t, encoder_hidden_states=e, return_dict=False)[0]

    @staticmethod
    def _step(lane: _Lane, scaled: torch.Tensor, output: torch.Tensor) -> None:
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
                _rescale(mix, text, lane.requests[m].guidance_rescale)
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
        vae = self.pipe.vae
        decoded = vae.decode(latents / vae.config.scaling_factor, return_dict=False)[0]
        return self.pipe.image_processor.postprocess(decoded.detach())


def _rescale(mixed: torch.Tensor, text: torch.Tensor, amount: float) -> torch.Tensor:
    """Guidance rescale (Lin et al. 2023, arXiv:2305.08891, section 3.4)."""
    if not amount:
        return mixed
    return amount * mixed * (text.std() / mixed.std()) + (1 - amount) * mixed
