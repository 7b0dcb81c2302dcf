"""The call of a pipeline: its scheduler, its arguments from a request, and its picture."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pipelines.errors import PipelineError
from pipelines.fields import ARGUMENT_FIELDS
from pipelines.guidance_methods import CFG
from pipelines.models.info import ModelInfo
from pipelines.models.loaded import LoadedModel
from pipelines.models.parts import inner_pipelines
from pipelines.models.signatures import PICTURE_OUTPUTS, picture_parameters
from pipelines.painting.result import FLAT, spread
from pipelines.painting.starts import start_anywhere
from pipelines.request import RunRequest
from pipelines.schedulers import make_scheduler, option_notes
from pipelines.sigma_schedules import SigmaSchedule, follow, schedule_note

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline
    from PIL.Image import Image

OMNIGEN_PICTURE = "<img><|image_1|></img>"


def run_scheduler(model: LoadedModel, request: RunRequest) -> Any:
    """A fresh scheduler for a resolved request; None where the pipeline has none of that name."""
    if not model.info.original_scheduler_config:
        return None
    scheduler = make_scheduler(
        request.scheduler,
        model.info.original_scheduler_config,
        request.scheduler_options,
        request.seed,
    )
    follow(scheduler, request.sigma_schedule)
    return scheduler


def set_scheduler(pipe: DiffusionPipeline, scheduler: Any) -> None:
    """Give a run's own pipeline its scheduler, in the pipelines inside a combined one too."""
    shared = getattr(pipe, "scheduler", None)
    if shared is None:
        return
    parts = [part for part in (pipe, *inner_pipelines(pipe).values())
             if getattr(part, "scheduler", None) is shared]
    for part in parts:
        part.scheduler = scheduler
    start_anywhere(scheduler, parts)
    scheduler.step = _without_unknown(scheduler.step)


def _without_unknown(step: Callable) -> Callable:
    """A scheduler's step that leaves out what it does not know: DDPM's and DDIM's pipelines hand a
    generator to every scheduler."""
    known = inspect.signature(step).parameters

    @functools.wraps(step)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return step(*args, **{name: value for name, value in kwargs.items() if name in known})

    return wrapped


def call_arguments(
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
    if "guidance_schedule" in known:  # Ideogram 4: a scale for all steps, in place of one for each
        arguments["guidance_schedule"] = None
    if "input_images" in arguments:
        arguments["prompt"] = named_in(request.prompt)
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


def named_in(prompt: str) -> str:
    """A prompt for OmniGen, which reads its picture where the prompt names it: in front where it
    does not."""
    return prompt if OMNIGEN_PICTURE in prompt else f"{OMNIGEN_PICTURE} {prompt}"


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


def picture_of(output: Any) -> Image:
    """The picture of an output; raises PipelineError where there is none."""
    name = next((name for name in PICTURE_OUTPUTS if getattr(output, name, None) is not None), None)
    if name is None:
        raise PipelineError(f"{type(output).__name__} holds no picture")
    pictures = output[name]
    if not isinstance(pictures, (list, tuple)) and pictures.ndim == 3:
        pictures = pictures[None]
    return _picture(pictures[0])


def _picture(pixels: Any) -> Image:
    """A picture, layers on top of each other, or an array from 0 to 1, as a picture."""
    from diffusers.image_processor import VaeImageProcessor
    from PIL import Image

    if isinstance(pixels, Image.Image):
        return pixels
    if isinstance(pixels, (list, tuple)):
        layers = [layer.convert("RGBA") for layer in pixels]
        return functools.reduce(Image.alpha_composite, layers).convert("RGB")
    pixels = pixels if pixels.ndim == 4 else pixels[None]
    if hasattr(pixels, "numpy"):
        pixels = VaeImageProcessor.pt_to_numpy(pixels)
    return VaeImageProcessor.numpy_to_pil(pixels)[0]


def effect_notes(
    pipe: DiffusionPipeline, request: RunRequest, output: Any, image: Image
) -> Iterator[str]:
    """What of the request had no effect, and why; that the picture shows nothing."""
    if any(getattr(output, "nsfw_content_detected", None) or ()):
        yield "the model's safety checker blacked the picture out"
    elif spread(image) < FLAT:
        middle = image.convert("RGB").getpixel((image.width // 2, image.height // 2))
        yield f"the picture is of one colour: {'black' if max(middle) < FLAT else f'RGB {middle}'}"
    tokenizers = [part for name, part in pipe.components.items() if "tokenizer" in name and part]
    if tokenizers and all("CLIP" in type(tokenizer).__name__ for tokenizer in tokenizers):
        limit = tokenizers[0].model_max_length
        for name in ("prompt", "negative_prompt"):
            ids = tokenizers[0](getattr(request, name)).input_ids
            if len(ids) > limit:
                cut = tokenizers[0].decode(ids[limit - 1 : -1]).strip()
                yield f"{name}: the model reads {limit - 2} tokens; not read: {cut!r}"
    if (request.image and "input_images" in known_arguments(pipe)
            and OMNIGEN_PICTURE not in request.prompt):
        yield f"prompt: {OMNIGEN_PICTURE} was put in front, where the model sees the picture"
    if hasattr(pipe, "prompt_note"):  # the exact models, which know a few words only
        for name in ("prompt", "negative_prompt"):
            if note := pipe.prompt_note(getattr(request, name)):
                yield f"{name}: {note}"
    if request.negative_prompt and request.guidance_scale <= 1:
        yield "negative_prompt: no effect, since guidance_scale is not above 1"
    if request.guidance_rescale and request.guidance_scale <= 1:
        yield "guidance_rescale: no effect, since guidance_scale is not above 1"
    if request.guidance_method != CFG and request.guidance_scale <= 1:
        yield "guidance_method: no effect, since guidance_scale is not above 1"
    known = known_arguments(pipe)
    for name in request.not_default:
        if name in ARGUMENT_FIELDS and name not in known:
            yield f"{name}: no effect, {type(pipe).__name__} knows none"
    scheduler = getattr(pipe, "scheduler", None)
    if request.eta and (
        scheduler is None or "eta" not in inspect.signature(scheduler.step).parameters
    ):
        yield f"eta: no effect, {type(scheduler or pipe).__name__} knows none"
    if scheduler is not None:
        yield from option_notes(scheduler, request.scheduler_options)
        if note := schedule_note(scheduler, request):
            yield note
    if count := SigmaSchedule.parse(request.sigma_schedule).count:
        yield f"num_inference_steps: {count}, as many as sigma_schedule lists"
