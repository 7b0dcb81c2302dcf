"""The options of a request: what a command takes, and the RunRequest that they make."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from pipelines.axes import parse_option
from pipelines.chain import default_strength
from pipelines.cli.output import Interrupt
from pipelines.engine import Engine
from pipelines.errors import RequestError
from pipelines.fields import PICTURES
from pipelines.inpainting.pictures_in import open_mask, open_rgb
from pipelines.request import RunRequest

DEFAULTS = RunRequest()
Prompt = Annotated[str | None, typer.Argument(help="What the picture shows; none where the model "
                                              "paints without a prompt.")]
ModelId = Annotated[str, typer.Option(help="'postcards', a diffusers folder, a .safetensors "
                                           "checkpoint, or a cached Hub id, with "
                                           "@REVISION:VARIANT behind it or not.")]
TaskName = Annotated[str | None, typer.Option("--task", help="text-to-image, image-to-image, "
                                              "inpainting or unconditional; else as it follows "
                                              "from the pictures and the model.")]
Dtype = Annotated[str | None, typer.Option(help="float32, float16 or bfloat16; the device's own.")]
Policy = Annotated[str, typer.Option(help="Where weights lie between uses: auto, device, "
                                          "model-offload, group-offload, sequential-offload.")]
Quantization = Annotated[str | None, typer.Option(help="int8 (torchao) or int4 (bitsandbytes).")]
LoraOption = Annotated[list[str] | None, typer.Option("--lora", metavar="PATH[=WEIGHT]",
                                                      help="LoRA adapter; may be repeated.")]
Attention = Annotated[str, typer.Option(metavar="NAME", help="How attention is computed: native, "
                                        "_native_math, _native_flash, _native_efficient, "
                                        "_native_cudnn, eager, sliced, flash, sage, xformers; what "
                                        "goes with model and device.")]
CacheHook = Annotated[str, typer.Option(metavar="NAME", help="A caching hook of diffusers: none, "
                                        "pyramid_attention_broadcast, first_block_cache, "
                                        "taylorseer_cache, faster_cache, mag_cache; what goes with "
                                        "the model.")]
Compile = Annotated[bool, typer.Option("--compile", help="Compile the denoiser with torch.compile; "
                                       "a minute or more for each new shape, in the warm-up.")]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit of a Hub model.")]
Variant = Annotated[str | None, typer.Option(help="Weights variant, such as fp16.")]
Negative = Annotated[str, typer.Option(help="What the picture should not show.")]
Scheduler = Annotated[str, typer.Option(help="A key of `schedulers`, or the model's default.")]
Option = Annotated[list[str] | None, typer.Option(metavar="NAME=VALUE", help="May be repeated.")]
Steps = Annotated[str | None, typer.Option(metavar="INTEGER", help="Denoising steps; the model's "
                                           "own.")]
Guidance = Annotated[str | None, typer.Option(metavar="FLOAT", help="Classifier-free guidance, 1: "
                                              "off; the model's own.")]
Rescale = Annotated[str, typer.Option(metavar="FLOAT", help="Guidance rescale, 0 to 1.")]
Eta = Annotated[str, typer.Option(metavar="FLOAT", help="DDIM's eta, 0 to 1.")]
Seed = Annotated[str, typer.Option(metavar="INTEGER", help="Seed of the initial noise.")]
Side = Annotated[str | None, typer.Option(metavar="INTEGER", help="Pixels; the model's own.")]
Picture = Annotated[Path | None, typer.Option(help="Input picture: image-to-image.")]
Mask = Annotated[Path | None, typer.Option(help="Mask picture, white is repainted: in-painting.")]
Crop = Annotated[str | None, typer.Option(metavar="INTEGER", help="In-painting: only the masked "
                                          "part, with that many pixels around it.")]
Feather = Annotated[str, typer.Option(metavar="INTEGER", help="In-painting: pixels of soft rim.")]
Content = Annotated[str, typer.Option(help="In-painting starts from the 'original' under the mask, "
                                           "or a 'fill' from its surroundings.")]
Soft = Annotated[bool, typer.Option("--differential", help="Repaint greys of the mask by degrees.")]
Strength = Annotated[str | None, typer.Option(metavar="FLOAT", help="Share of the steps to run.")]
Control = Annotated[Path | None, typer.Option(help="Edges, depth or pose that a ControlNet or "
                                              "adapter follows.")]
ControlMode = Annotated[str | None, typer.Option(metavar="INTEGER", help="Kind of the control "
                                                 "image, for union ControlNets.")]
ClassLabel = Annotated[str | None, typer.Option(metavar="INTEGER", help="Class to paint, for "
                                                "class-conditional models.")]
PriorSteps = Annotated[str | None, typer.Option(metavar="INTEGER", help="Steps of the first stage "
                                                "of two; the model's own.")]


def request_options(command: Callable) -> Callable:
    """Give a command the request's fields as options; it gets their values as a dict, `fields`."""

    def options(
        prompt: Prompt = None,
        model_id: ModelId = DEFAULTS.model_id,
        revision: Revision = None,
        variant: Variant = None,
        torch_dtype: Dtype = None,
        memory_policy: Policy = DEFAULTS.memory_policy,
        quantization: Quantization = None,
        loras: LoraOption = None,
        attention_backend: Attention = DEFAULTS.attention_backend,
        cache: CacheHook = DEFAULTS.cache,
        compile: Compile = False,
        task: TaskName = None,
        negative_prompt: Negative = "",
        scheduler: Scheduler = DEFAULTS.scheduler,
        scheduler_option: Option = None,
        num_inference_steps: Steps = None,
        guidance_scale: Guidance = None,
        guidance_rescale: Rescale = "0",
        eta: Eta = "0",
        seed: Seed = "0",
        height: Side = None,
        width: Side = None,
        image: Picture = None,
        mask_image: Mask = None,
        strength: Strength = None,
        control_image: Control = None,
        control_mode: ControlMode = None,
        class_label: ClassLabel = None,
        prior_num_inference_steps: PriorSteps = None,
        padding_mask_crop: Crop = None,
        mask_feather: Feather = "0",
        masked_content: Content = DEFAULTS.masked_content,
        differential: Soft = False,
    ) -> None: ...

    own = inspect.signature(command, eval_str=True).parameters
    shared = inspect.signature(options, eval_str=True).parameters
    shared = {name: p for name, p in shared.items() if name not in own}

    def wrapped(**values: Any) -> None:
        fields = {name: values.pop(name) for name in shared}
        command(fields, **values)

    wrapped.__name__, wrapped.__doc__ = command.__name__, command.__doc__
    parameters = [*shared.values(), *(p for name, p in own.items() if name != "fields")]
    parameters.sort(key=lambda p: p.name != "image" or "image" in shared)  # an argument goes first
    wrapped.__signature__ = inspect.Signature(
        [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in parameters]
    )
    return wrapped


def make_request(engine: Engine, fields: dict[str, Any]) -> RunRequest:
    """A request from the options; pictures go into the store, the task follows from them."""
    values = {k: v for k, v in fields.items() if v is not None and k != "scheduler_option"}
    options = [_option(text) for text in fields["scheduler_option"] or []]
    values["scheduler_options"] = dict(options)
    for name in PICTURES:
        if path := values.get(name):
            picture = open_mask(path, name) if name == "mask_image" else open_rgb(path, name)
            values[name] = engine.pictures.put(picture)
    info = engine.registry.describe(*(values.get(k) for k in ("model_id", "revision", "variant")))
    values.setdefault("task", info.task_for("image" in values, "mask_image" in values))
    values.setdefault("num_inference_steps", info.num_inference_steps)
    values.setdefault("guidance_scale", info.guidance_scale)
    if "image" in values:
        values.setdefault("strength", default_strength(info))
    elif "strength" in values:
        raise RequestError("strength needs --image: without one all steps run")
    takes_prompt = info.takes(values["task"], "prompt")
    if takes_prompt and "prompt" not in values:
        raise RequestError(f"prompt: {info.model_id} needs one, such as \"a red car\"")
    if values.get("prompt") and not takes_prompt:
        raise RequestError(f"prompt: received {values['prompt']!r}, {info.model_id} "
                           f"({info.pipeline_class}) paints without one")
    return RunRequest(**values)


def check_requests(engine: Engine, *requests: RunRequest) -> None:
    """Raise what would make one of them fail, before any is made; Cancelled after Ctrl-C."""
    with Interrupt() as interrupt:
        for request in requests:
            engine.check(request)
        interrupt.check()


def _option(text: str) -> tuple[str, Any]:
    """'use_karras_sigmas=true' -> name and value, numbers and booleans as such."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise RequestError(f"scheduler_option: received {text!r}, accepted NAME=VALUE")
    return name, parse_option(value)
