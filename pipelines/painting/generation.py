"""One request and one loaded model -> one picture, with everything measured on the way."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pipelines.errors import Cancelled, DeviceMemoryError, PipelineError
from pipelines.inpainting.canvas import Canvas, takes_differential, use_differential_mask
from pipelines.models.info import ModelInfo
from pipelines.models.loaded import LoadedModel
from pipelines.models.parts import autoencoder_of, denoiser_of, inner_pipelines
from pipelines.models.placement import advice, free_memory
from pipelines.models.signatures import (
    PICTURE_OUTPUTS,
    picture_parameters,
)
from pipelines.painting.execution import as_usual, check_execution, computing
from pipelines.painting.previews import StepKeeper, decoded, step_latents
from pipelines.painting.result import OnStep, RunResult, Step
from pipelines.painting.timing import Clock, MemoryWatch, Timings
from pipelines.request import RunRequest
from pipelines.schedulers import make_scheduler

if TYPE_CHECKING:
    import torch
    from diffusers import DiffusionPipeline
    from PIL.Image import Image

COUNTS = ("num_images_per_prompt", "batch_size")  # how a call names its number of pictures
ONE_SEED_A_CALL = {"dpmpp_sde", "dpmpp_sde_karras"}  # their noise has one seed a batch
NOISE_METHODS = ("prepare_latents", "prepare_intermediate_images")


def generate(
    model: LoadedModel,
    request: RunRequest,
    images: Mapping[str, Image] | None = None,
    on_step: OnStep | None = None,
    load_ms: float = 0.0,
) -> RunResult:
    """Make the picture of a resolved request; `images` holds 'image' and 'mask_image'.

    The first picture of a task and size is preceded by one denoising step that is thrown away and
    timed apart. `on_step` may raise Cancelled. Raises DeviceMemoryError, RequestError, or
    PipelineError where the latents stop being finite.
    """
    check_execution(request, model.info, model.device)
    work, images, canvas = request, dict(images or {}), None
    if request.task == "inpainting":
        cell = getattr(model.pipe, "vae_scale_factor", 8)
        canvas = Canvas.of(request, images, model.info, cell)
        work, images, on_step = canvas.request, canvas.images, canvas.watch(on_step)
    try:
        warm_up_ms = warm_up(model, work, images)
        [result] = _measured(model, [work], images, on_step, load_ms, warm_up_ms)
        return canvas.finish(result, request) if canvas else result
    except Exception as error:
        if is_out_of_memory(error):
            free_memory(model.device)
            raise out_of_memory(model, request) from error
        raise


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


def takes_seeds(model: LoadedModel, request: RunRequest) -> bool:
    """Whether one call of the pipeline makes the pictures of several seeds: it takes their number
    and a generator for each, and its first picture was seen to draw from nothing else."""
    known = known_arguments(model.view(request.task))
    return (request.task != "inpainting" and not known.keys().isdisjoint(COUNTS)
            and as_usual(request)
            and request.scheduler not in ONE_SEED_A_CALL
            and model.seeds_together.get(request.task, False))  # fmt: skip


def generate_seeds(
    model: LoadedModel,
    requests: Sequence[RunRequest],
    images: Mapping[str, Image] | None = None,
    on_step: OnStep | None = None,
) -> list[RunResult]:
    """The pictures of resolved requests that differ in their seed only, in one call.

    The model has made such a picture before, and `takes_seeds` it. Timings are shares. Raises
    what `generate` does, and whatever a pipeline raises that cannot after all; it is not asked
    again then.
    """
    try:
        return _measured(model, requests, dict(images or {}), on_step, 0.0, 0.0)
    except Exception as error:
        if not (isinstance(error, Cancelled) or is_out_of_memory(error)):
            model.seeds_together[requests[0].task] = False
        raise


def _measured(
    model: LoadedModel,
    requests: Sequence[RunRequest],
    images: dict[str, Image],
    on_step: OnStep | None,
    load_ms: float,
    warm_up_ms: float,
) -> list[RunResult]:
    """The pictures of one call: of one request, or of several that differ in their seed only."""
    from pipelines.painting.noise import make_generator, noise_sha256

    request, count = requests[0], len(requests)
    pipe = model.view(request.task)
    scheduler = run_scheduler(model, request)
    _set_scheduler(pipe, scheduler)
    arguments = _arguments(pipe, model.info, request, images)
    if count > 1:
        arguments["generator"] = [make_generator(one.seed) for one in requests]
        arguments |= {name: count for name in COUNTS if name in known_arguments(pipe)}
    soft = request.differential and takes_differential(pipe)
    move_mask = use_differential_mask(pipe) if soft else None
    clock, memory = Clock(model.device), MemoryWatch(model.device)
    _seed_the_rest(request)
    before = _global_state(model.device)
    with computing(model, pipe, request), _Probe(pipe, clock, memory, on_step, count) as probe:
        if request.task == "inpainting" and "callback_on_step_end" in known_arguments(pipe):
            arguments["callback_on_step_end"] = functools.partial(probe.keep_blended, move_mask)
        started = clock.mark()
        output = pipe(**arguments)
        ended = clock.mark()
    clock.finish()
    model.seeds_together.setdefault(request.task, before == _global_state(model.device))
    if probe.latents is not None:
        check_finite(probe.latents, scheduler, request)
    images = _pictures(output)
    several = {"pictures": images, "noise": probe.noise, "latents": probe.latents}
    if count > 1:
        for name, made in several.items():
            if made is not None and len(made) != count:
                raise PipelineError(f"{type(pipe).__name__}: {len(made)} {name}, {count} seeds")
    noises = probe.noise if probe.noise is None else probe.noise.chunk(count)
    timings = probe.timings(started, ended, load_ms, warm_up_ms).shares(count)
    width, height = images[0].size
    steps = step_latents(pipe, probe.keeper, height, width, count)
    return [
        RunResult(
            request=one.changed(width=width, height=height),
            image=images[row],
            timings=timings,
            nfe=probe.nfe,
            denoiser_rows=probe.rows // count,
            noise_sha256=None if noises is None else noise_sha256(noises[row]),
            peak_memory_bytes=memory.peak_bytes(),
            notes=tuple(_notes(pipe, one, output)),
            shared=count > 1,
            steps=steps[row],
            latents=None if probe.latents is None else probe.latents[row].cpu(),
        )
        for row, one in enumerate(requests)
    ]


def _global_state(device: str) -> list[bytes]:
    """Where the random numbers stand that need no generator."""
    import torch

    states = [torch.get_rng_state()]
    if device.startswith("cuda"):
        states.append(torch.cuda.get_rng_state())
    return [state.numpy().tobytes() for state in states]


def _pictures(output: Any) -> list[Image]:
    """The pictures of an output."""
    name = next((name for name in PICTURE_OUTPUTS if getattr(output, name, None) is not None), None)
    if name is None:
        raise PipelineError(f"{type(output).__name__} holds no picture")
    pictures = output[name]
    if not isinstance(pictures, (list, tuple)) and pictures.ndim == 3:
        pictures = pictures[None]
    return [_picture(one) for one in pictures]


def _picture(one: Any) -> Image:
    """A picture, layers on top of each other, or an array from 0 to 1, as a picture."""
    from diffusers.image_processor import VaeImageProcessor
    from PIL import Image

    if isinstance(one, Image.Image):
        return one
    if isinstance(one, (list, tuple)):
        layers = [layer.convert("RGBA") for layer in one]
        return functools.reduce(Image.alpha_composite, layers).convert("RGB")
    pixels = one if one.ndim == 4 else one[None]
    if hasattr(pixels, "numpy"):
        pixels = VaeImageProcessor.pt_to_numpy(pixels)
    return VaeImageProcessor.numpy_to_pil(pixels)[0]


def check_finite(latents: torch.Tensor, scheduler: Any, request: RunRequest) -> None:
    """Raise PipelineError where a solver diverged."""
    if not latents.isfinite().all():
        raise PipelineError(
            f"{type(scheduler).__name__} produced values that are not finite in "
            f"{request.num_inference_steps} steps (options {request.scheduler_options or 'none'})"
        )


def _notes(pipe: DiffusionPipeline, request: RunRequest, output: Any) -> Iterator[str]:
    """What of the request had no effect, and why."""
    if any(getattr(output, "nsfw_content_detected", None) or ()):
        yield "the model's safety checker blacked the picture out"
    tokenizers = [part for name, part in pipe.components.items() if "tokenizer" in name and part]
    if tokenizers and all("CLIP" in type(tokenizer).__name__ for tokenizer in tokenizers):
        limit = tokenizers[0].model_max_length
        for name in ("prompt", "negative_prompt"):
            ids = tokenizers[0](getattr(request, name)).input_ids
            if len(ids) > limit:
                cut = tokenizers[0].decode(ids[limit - 1 : -1]).strip()
                yield f"{name}: the model reads {limit - 2} tokens; not read: {cut!r}"
    if request.negative_prompt and request.guidance_scale <= 1:
        yield "negative_prompt: no effect, since guidance_scale is not above 1"
    if request.strength < 1 and "strength" not in inspect.signature(pipe.__call__).parameters:
        yield f"strength: no effect, {type(pipe).__name__} knows none"
    if request.differential and not takes_differential(pipe):
        yield (f"differential: no effect, {type(pipe).__name__} takes a mask without greys with "
               "this model")
    scheduler = getattr(pipe, "scheduler", None)
    if request.eta and (
        scheduler is None or "eta" not in inspect.signature(scheduler.step).parameters
    ):
        yield f"eta: no effect, {type(scheduler or pipe).__name__} knows none"


def warm_up(model: LoadedModel, request: RunRequest, images: dict[str, Image]) -> float:
    """Milliseconds of one discarded denoising step, 0 where this shape is warm already."""
    shape = (request.task, request.height, request.width, request.guidance_scale > 1,
             request.attention_backend, request.compile, model.lora_contents)
    if shape in model.warmed:
        return 0.0
    steps = 1
    while request.image and int(steps * request.strength) < 1:
        steps += 1
    pipe = model.view(request.task)
    _set_scheduler(pipe, run_scheduler(model, request))
    request = request.changed(num_inference_steps=steps, prior_num_inference_steps=2)
    arguments = _arguments(pipe, model.info, request, images)
    clock = Clock(model.device)
    _seed_the_rest(request)
    with computing(model, pipe, request):
        started = clock.mark()
        pipe(**arguments)
        ended = clock.mark()
        clock.finish()
    model.warmed.add(shape)
    return clock.ms(started, ended)


def _seed_the_rest(request: RunRequest) -> None:
    """Some pipelines sample parts without their generator (an encoder's posterior, tokens)."""
    import torch

    torch.manual_seed(request.seed)


def run_scheduler(model: LoadedModel, request: RunRequest) -> Any:
    """A fresh scheduler for a resolved request; None where the pipeline has none of that name."""
    if not model.info.original_scheduler_config:
        return None
    return make_scheduler(
        request.scheduler,
        model.info.original_scheduler_config,
        request.scheduler_options,
        request.seed,
    )


def _set_scheduler(pipe: DiffusionPipeline, scheduler: Any) -> None:
    """Give a run's own pipeline its scheduler, in the pipelines inside a combined one too."""
    shared = getattr(pipe, "scheduler", None)
    if shared is None:
        return
    scheduler.step = _without_unknown(scheduler.step)
    for part in (pipe, *inner_pipelines(pipe).values()):
        if getattr(part, "scheduler", None) is shared:
            part.scheduler = scheduler


def _without_unknown(step: Callable) -> Callable:
    """A scheduler's step that leaves out what it does not know: DDPM's and DDIM's pipelines hand a
    generator to every scheduler."""
    known = inspect.signature(step).parameters

    @functools.wraps(step)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return step(*args, **{name: value for name, value in kwargs.items() if name in known})

    return wrapped


def _arguments(
    pipe: DiffusionPipeline, info: ModelInfo, request: RunRequest, images: dict[str, Image]
) -> dict[str, Any]:
    """What `pipe(...)` is called with: the request's fields that its signature knows."""
    from pipelines.painting.noise import make_generator

    known = known_arguments(pipe)
    arguments: dict[str, Any] = {
        "prompt": request.prompt,
        "num_inference_steps": request.num_inference_steps,
        info.guidance_parameter or "guidance_scale": request.guidance_scale,
        "guidance_rescale": request.guidance_rescale,
        "eta": request.eta,
        "height": request.height,
        "width": request.width,
        "strength": request.strength,
        "generator": make_generator(request.seed),
        "output_type": "pil",
        # PixArt, Sana, Kontext: the size asked for, no nearest bucket; the prompt as typed.
        "use_resolution_binning": False,
        "_auto_resize": False,
        "clean_caption": False,
        **_picture_arguments(pipe, request, images),
    }
    area = request.height * request.width if request.height and request.width else None
    if request.num_inference_steps != 2:
        arguments["intermediate_timesteps"] = None  # Sana Sprint: a default for two steps only
    for name, value in (("max_area", area),
                        ("text_encoder_out_layers", _text_layers(pipe, known)),
                        ("prior_num_inference_steps", request.prior_num_inference_steps),
                        ("control_mode", request.control_mode)):
        if value is not None:
            arguments[name] = value
    if request.class_label is not None:
        arguments["class_labels"] = [request.class_label]
    if request.negative_prompt:  # families differ in what they take for none
        arguments["negative_prompt"] = request.negative_prompt
    if info.guidance_parameter == "true_cfg_scale":  # which acts only where a negative is given
        arguments.setdefault("negative_prompt", " ")
    if type(pipe).__name__.startswith("KandinskyV22Img2Img"):  # diffusers 0.42 mixes them up
        arguments["height"], arguments["width"] = request.width, request.height
    return {name: value for name, value in arguments.items() if name in known}


def known_arguments(pipe: DiffusionPipeline) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(pipe.__call__).parameters


def _text_layers(pipe: DiffusionPipeline, known: Mapping[str, Any]) -> tuple[int, ...] | None:
    """The text encoder's layers that Flux 2 reads, for an encoder with fewer than its own has;
    None for its own."""
    if "text_encoder_out_layers" not in known:
        return None
    config = pipe.text_encoder.config
    config = getattr(config, "text_config", config)
    own, last = known["text_encoder_out_layers"].default, config.num_hidden_layers
    if max(own) <= last:
        return None
    count = pipe.transformer.config.joint_attention_dim // config.hidden_size
    return tuple(max(1, last * (number + 1) // count) for number in range(count))


def _picture_arguments(
    pipe: DiffusionPipeline, request: RunRequest, images: Mapping[str, Image]
) -> dict[str, Any]:
    """The pictures under the names, and in the lists, that a pipeline's call wants."""
    arguments: dict[str, Any] = {}
    nets = getattr(getattr(pipe, "controlnet", None), "nets", ())
    for field, name in picture_parameters(type(pipe).__name__, request.task).items():
        arguments[name] = images[field]
        if field == "control_image" and nets:  # several ControlNets, all on the same picture
            arguments[name] = [images[field]] * len(nets)
        elif name.endswith("images"):
            arguments[name] = [images[field]]
    # The second stage of a cascade also sees the picture that the first one saw.
    return arguments | {"original_image": images.get("image")}


class _Probe:
    """Watches one run of one pipeline object through hooks; takes them away afterwards."""

    def __init__(
        self,
        pipe: DiffusionPipeline,
        clock: Clock,
        memory: MemoryWatch,
        on_step: OnStep | None,
        count: int = 1,
    ) -> None:
        self.pipe, self.clock, self.memory, self.on_step = pipe, clock, memory, on_step
        self.count = count  # of pictures
        self.scheduler = getattr(pipe, "scheduler", None)
        self.keeper = StepKeeper(self.scheduler)
        self.nfe = self.rows = 0
        self.latents: torch.Tensor | None = None
        self.noise: torch.Tensor | None = None
        self._encoding: list[tuple[Any, Any]] = []
        self._steps: list[tuple[Any, Any]] = []
        self._decoding: list[tuple[Any, Any]] = []
        self._pauses: list[tuple[Any, Any]] = []
        self._step_start: Any = None
        self._input: torch.Tensor | None = None
        self._previewing = False
        self._hooks: list[Any] = []

    def __enter__(self) -> _Probe:
        pipe, scheduler = self.pipe, self.scheduler
        if denoiser := denoiser_of(pipe):
            self._hooks.append(
                denoiser.register_forward_pre_hook(self._before_denoiser, with_kwargs=True))
        if decoder := getattr(autoencoder_of(pipe), "decoder", None):
            self._hooks.append(decoder.register_forward_pre_hook(self._before_decoder))
            self._hooks.append(decoder.register_forward_hook(self._after_decoder))
        # The pipeline objects and the scheduler are this run's own.
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
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def timings(self, started: Any, ended: Any, load_ms: float, warm_up_ms: float) -> Timings:
        """Read the marks; call after the clock is finished."""
        ms = self.clock.ms
        return Timings(
            text_encoding=sum(ms(a, b) for a, b in self._encoding),
            denoising=sum(ms(a, b) for a, b in self._steps),
            decoding=sum(ms(a, b) for a, b in self._decoding),
            total=ms(started, ended) - sum(ms(a, b) for a, b in self._pauses),
            steps=tuple(ms(a, b) for a, b in self._steps),
            load=load_ms,
            warm_up=warm_up_ms,
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
        import torch

        from pipelines.painting.noise import NoiseWatch

        @functools.wraps(prepare)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            with NoiseWatch() as watch:
                result = prepare(*args, **kwargs)
            if len(watch.draws) % self.count:  # one sample of the input picture for all of them
                raise PipelineError(f"{type(self.pipe).__name__} does not draw alike for each seed")
            if watch.draws:
                self.noise = torch.cat(watch.draws[-self.count :])
            return result

        return wrapped

    def keep_blended(
        self, move_mask: Callable[[int], None] | None, _pipe: Any, step: int, _timestep: Any,
        tensors: dict,
    ) -> dict:  # fmt: skip
        """In-painting puts the known area back after the scheduler's step."""
        self.latents = tensors["latents"]
        if move_mask:
            move_mask(step)
        return tensors

    def _before_denoiser(self, _module: Any, args: tuple, kwargs: dict) -> None:
        if self._step_start is None:
            self._step_start = self.clock.mark()
        names = ("sample", "hidden_states", "x")
        sample = args[0] if args else next((kwargs[n] for n in names if n in kwargs), None)
        if self.nfe == 0 and self.noise is None and hasattr(sample, "clone") and not any(
            hasattr(self.pipe, name) for name in NOISE_METHODS
        ):
            self.noise = sample.clone()  # DDPM and DDIM start from the noise itself
        self.nfe += 1
        self.rows += 1 if sample is None else len(sample)  # a list has one entry a row

    def _before_decoder(self, *_: Any) -> None:
        if not self._previewing:
            self._decoding.append((self.clock.mark(), None))

    def _after_decoder(self, *_: Any) -> None:
        if not self._previewing:
            self._decoding[-1] = (self._decoding[-1][0], self.clock.mark())

    def _counted_step(self, step: Callable) -> Callable:
        names = list(inspect.signature(step).parameters)

        @functools.wraps(step)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            result = step(*args, **kwargs)
            self.latents = result[0]
            self._steps.append((self._step_start, self.clock.mark()))
            self.memory.look()
            total = getattr(self.pipe, "_num_timesteps", None) or len(self.scheduler.timesteps)
            given = {**dict(zip(names, args, strict=False)), **kwargs}
            seen = [given.get(name) for name in ("model_output", "timestep", "sample")]
            if hasattr(seen[2], "ndim"):
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
        keeper = StepKeeper(self.scheduler)
        keeper.look(1, self._scaled(sample), timestep, model_output, sample)
        if (kept := keeper.finish()) is None:
            return None
        self._previewing = True
        try:
            pictures = decoded(self.pipe, kept[0][:, 0])
        finally:
            self._previewing = False
        return pictures[0] if pictures else None

    def _scaled(self, sample: torch.Tensor) -> torch.Tensor:
        """What the denoiser saw of `sample`."""
        return sample if self._input is None else self._input


def is_out_of_memory(error: Exception) -> bool:
    import torch

    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    )
