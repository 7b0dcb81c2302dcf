"""RunRequest: everything that decides one picture."""

from __future__ import annotations

import re
from math import ceil
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from pipelines.errors import RequestError
from pipelines.schedulers import BY_KEY

Task = Literal["text-to-image", "image-to-image", "inpainting", "unconditional"]
TASKS: tuple[str, ...] = get_args(Task)
MaskedContent = Literal["original", "fill"]
PICTURES = ("image", "mask_image", "control_image")  # fields that name one in the store
OptionValue = bool | int | float | str
MemoryPolicy = Literal["auto", "device", "model-offload", "group-offload", "sequential-offload"]

AttentionBackend = Literal["native", "_native_math", "_native_flash", "_native_efficient",
                           "_native_cudnn", "eager", "sliced", "flash", "sage", "xformers"]
Cache = Literal["none", "pyramid_attention_broadcast", "first_block_cache", "taylorseer_cache",
                "faster_cache", "mag_cache"]

MAX_SEED = 2**63 - 1  # SQLite's largest integer
MAX_SIDE = 4096
MASK_OPTIONS = ("padding_mask_crop", "mask_feather", "masked_content", "differential")


class Lora(BaseModel):
    """A LoRA adapter and its weight; 'PATH' or 'PATH=WEIGHT' as text (Hu et al. 2021,
    arXiv:2106.09685)."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    path: Annotated[str, Field(min_length=1, max_length=1000)]
    weight: Annotated[float, Field(ge=-10, le=10)] = 1.0

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        path, equals, weight = value.rpartition("=")
        return {"path": path.strip(), "weight": weight} if equals else {"path": value.strip()}

    def __str__(self) -> str:
        return self.path if self.weight == 1 else f"{self.path}={self.weight:g}"


def split_model_id(text: str) -> tuple[str, str | None, str | None]:
    """'ID@REVISION:VARIANT' as id, revision and variant, None for what is not there; either may be
    left out ('ID@:VARIANT'). A path that exists is taken as it stands."""
    name, at, rest = text.rpartition("@")
    pinned = re.fullmatch(r"([\w./-]*)(?::([\w.-]+))?", rest) if at else None
    if not pinned or _exists(text) or not (re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name)
                                           or _exists(name)):
        return text, None, None
    return name, pinned[1] or None, pinned[2]


def join_model_id(model_id: str, revision: str | None, variant: str | None) -> str:
    """The reverse of split_model_id."""
    rest = f"{revision or ''}{f':{variant}' if variant else ''}"
    return f"{model_id}@{rest}" if rest else model_id


def _exists(text: str) -> bool:
    try:
        return Path(text).expanduser().exists()
    except (OSError, RuntimeError, ValueError):  # no such user, too long, a null byte
        return False


class RunRequest(BaseModel):
    """One picture to be made; frozen, valid once it exists, and the same after a trip through JSON.

    `model_id` may be 'ID@REVISION:VARIANT', which sets the other two. `scheduler` is a key of the
    catalogue or 'default' (the checkpoint's own); `height` and `width`
    are pixels, None for the model's own; `image` and `mask_image` name pictures in the store by
    their SHA-256. White pixels of `mask_image` are repainted. `torch_dtype` None is the device's
    usual one; `memory_policy` says where the weights lie between uses, 'auto' takes the fastest
    that fits; `control_image` is what a ControlNet or adapter follows, `control_mode` its kind for
    union ControlNets; `class_label` a class of a class-conditional model;
    `prior_num_inference_steps` the steps of the first stage of two; `loras` may be texts such as
    'style.safetensors=0.8'. `attention_backend` and `cache` carry diffusers' names, `compile` is
    torch.compile of the denoiser (see execution.py). Raises RequestError.

    In-painting keeps the picture's size; `height` and `width` are then what the model paints, with
    the aspect kept. `padding_mask_crop`: only the masked part with that many pixels around it,
    None for the whole picture; `mask_feather`: a soft rim of so many pixels; `masked_content`:
    what the model starts from under the mask, 'original' or 'fill' from the surroundings;
    `differential`: greys of the mask are repainted by degrees.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    model_id: Annotated[str, Field(min_length=1, max_length=500)] = "postcards"
    revision: str | None = None
    variant: str | None = None
    torch_dtype: Literal["float32", "float16", "bfloat16"] | None = None
    memory_policy: MemoryPolicy = "auto"
    quantization: Literal["int8", "int4"] | None = None
    loras: tuple[Lora, ...] = ()
    attention_backend: AttentionBackend = "native"
    cache: Cache = "none"
    compile: bool = False
    task: Task = "text-to-image"
    prompt: Annotated[str, Field(max_length=10_000)] = ""
    negative_prompt: Annotated[str, Field(max_length=10_000)] = ""
    scheduler: str = "default"
    scheduler_options: dict[str, OptionValue] = {}
    num_inference_steps: Annotated[int, Field(ge=1, le=1000)] = 20
    guidance_scale: Annotated[float, Field(ge=0, le=100)] = 5.0
    guidance_rescale: Annotated[float, Field(ge=0, le=1)] = 0.0
    eta: Annotated[float, Field(ge=0, le=1)] = 0.0
    seed: Annotated[int, Field(ge=0, le=MAX_SEED)] = 0
    height: Annotated[int | None, Field(ge=8, le=MAX_SIDE)] = None
    width: Annotated[int | None, Field(ge=8, le=MAX_SIDE)] = None
    image: str | None = None
    mask_image: str | None = None
    control_image: str | None = None
    control_mode: Annotated[int | None, Field(ge=0, le=100)] = None
    class_label: Annotated[int | None, Field(ge=0, le=100_000)] = None
    prior_num_inference_steps: Annotated[int | None, Field(ge=2, le=1000)] = None
    strength: Annotated[float, Field(gt=0, le=1)] = 1.0
    padding_mask_crop: Annotated[int | None, Field(ge=0, le=MAX_SIDE)] = None
    mask_feather: Annotated[int, Field(ge=0, le=512)] = 0
    masked_content: MaskedContent = "original"
    differential: bool = False

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise RequestError("; ".join(map(_explain, error.errors()))) from None

    @model_validator(mode="before")
    @classmethod
    def _split_model(cls, values: Any) -> Any:
        if not isinstance(values.get("model_id"), str):
            return values
        model_id, *pinned = split_model_id(values["model_id"])
        found = zip(("revision", "variant"), pinned, strict=True)
        return {**values, "model_id": model_id} | {name: one for name, one in found if one}

    @model_validator(mode="after")
    def _check(self) -> RunRequest:
        if self.task != "inpainting":
            fields = RunRequest.model_fields
            unused = [name for name in MASK_OPTIONS if getattr(self, name) != fields[name].default]
            if unused:
                raise RequestError(f"{self.task} takes no {' and no '.join(unused)}")
        if self.scheduler != "default" and self.scheduler not in BY_KEY:
            raise RequestError(
                f"scheduler: received {self.scheduler!r}, accepted default, {', '.join(BY_KEY)}"
            )
        if self.task in ("text-to-image", "unconditional"):
            unused = [name for name in ("image", "mask_image") if getattr(self, name)]
            if unused:
                raise RequestError(f"{self.task} takes no {' and no '.join(unused)}")
            return self
        if not self.image:
            raise RequestError(f"{self.task} needs an image")
        if (self.task == "inpainting") != bool(self.mask_image):
            raise RequestError(
                "inpainting needs a mask_image"
                if self.task == "inpainting"
                else "image-to-image takes no mask_image; use the task 'inpainting'"
            )
        if self.steps_to_run < 1:
            raise RequestError(
                f"strength {self.strength:g} of {self.num_inference_steps} steps leaves no step to "
                f"run; use a strength of at least {ceil(1000 / self.num_inference_steps) / 1000:g}"
            )
        return self

    @field_validator("loras", mode="before")
    @classmethod
    def _loras_from_text(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        return [part for part in value.split("+") if part.strip() not in ("", "none")]

    @property
    def weights(self) -> dict[str, Any]:
        """What decides the loaded weights: the arguments of `Registry.borrow`."""
        names = ("model_id", "revision", "variant", "torch_dtype", "memory_policy",
                 "quantization", "loras")
        return {name: getattr(self, name) for name in names}

    @property
    def steps_to_run(self) -> int:
        """The steps that really run: those of `strength` where a picture is the start."""
        share = self.strength if self.image else 1.0
        return int(self.num_inference_steps * share)

    def changed(self, **values: Any) -> RunRequest:
        """The same request with other values, validated again."""
        return RunRequest(**{**self.model_dump(), **values})


def _explain(error: dict[str, Any]) -> str:
    """One pydantic error as one clause: field, value received, what would work."""
    name = ".".join(str(part) for part in error["loc"][:2]) or "request"
    received = repr(error["input"])
    if len(received) > 80:
        received = received[:77] + "..."
    if error["type"] == "extra_forbidden":
        fields = ", ".join(RunRequest.model_fields)
        return f"{name} is no field of a request; the fields are {fields}"
    if error["type"] == "string_too_long":
        limit = error["ctx"]["max_length"]
        return f"{name}: received {len(error['input'])} characters, accepted up to {limit}"
    accepted = _accepted(name)
    if not accepted and error["type"] == "literal_error":
        accepted = "accepted " + error["ctx"]["expected"].replace("'", "").replace(" or ", ", ")
    return f"{name}: received {received}, {accepted or error['msg'].lower()}"


def _accepted(name: str) -> str:
    """The range that a field's annotation states, in words."""
    field = RunRequest.model_fields.get(name)
    if field is None:
        return ""
    if name == "task":
        return f"accepted {', '.join(TASKS)}"
    limits = {key: getattr(m, key) for m in field.metadata for key in ("ge", "gt", "le")
              if getattr(m, key, None) is not None}
    if not limits:
        return ""
    kind = "a whole number " if "int" in str(field.annotation) else ""
    low = f"{limits['ge']}" if "ge" in limits else f"above {limits.get('gt')}"
    return f"accepted {kind}{'from ' if kind else ''}{low} to {limits['le']}"
