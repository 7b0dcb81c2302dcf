"""RunRequest: everything that decides one picture."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo

from pipelines.errors import RequestError
from pipelines.guidance_methods import ACCEPTED as GUIDANCE_METHODS
from pipelines.guidance_methods import CFG, GuidanceMethod
from pipelines.names import SHA256
from pipelines.notation import number_text, read_json, shown, write_json
from pipelines.schedulers import BY_KEY, known_scheduler
from pipelines.sigma_schedules import DEFAULT, SigmaSchedule

Dtype = Literal["float32", "float16", "bfloat16"]
Quantization = Literal["int8", "int4"]
Task = Literal["text-to-image", "image-to-image", "inpainting", "unconditional"]
TASKS: tuple[str, ...] = get_args(Task)
MaskedContent = Literal["original", "fill"]
OptionValue = bool | int | float | str
MemoryPolicy = Literal["auto", "device", "model-offload", "group-offload", "sequential-offload"]

AttentionBackend = Literal["native", "_native_math", "_native_flash", "_native_efficient",
                           "_native_cudnn", "eager", "sliced", "flash", "sage", "xformers"]
Cache = Literal["none", "pyramid_attention_broadcast", "first_block_cache", "taylorseer_cache",
                "faster_cache", "mag_cache"]

MAX_SEED = 2**63 - 1  # SQLite's largest integer
MAX_SIDE = 4096
TO_COME = "to come"  # stands for the hash of a picture that will be there when the request runs
PictureName = Annotated[str, Field(pattern=f"^({SHA256}|{TO_COME})$")]


class Lora(BaseModel):
    """A LoRA adapter and its weight (Hu et al. 2021, arXiv:2106.09685).

    As text 'PATH' or 'PATH=WEIGHT', where a path that exists is taken as it stands; what that
    cannot hold is JSON: '{"path": "rank=8", "weight": 1}'.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    path: Annotated[str, Field(min_length=1, max_length=1000)]
    weight: Annotated[float, Field(ge=-10, le=10)] = 1.0

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        if value.startswith("{") and isinstance(given := _json_or_none(value), dict):
            return given
        if exists(value):
            return {"path": value}
        path, equals, weight = value.rpartition("=")
        if not equals or exists(value.strip()):
            return {"path": value.strip()}
        return {"path": path.strip(), "weight": weight.strip()}

    def __str__(self) -> str:
        weight = "" if self.weight == 1 and "=" not in self.path else number_text(self.weight)
        text = f"{self.path}={weight}" if weight else self.path
        if text.strip() == text and len(text.splitlines()) == 1 and not text.startswith("{"):
            with contextlib.suppress(ValidationError):
                if Lora.model_validate(text) == self:
                    return text
        return write_json(self.model_dump())


def loras_text(loras: Sequence[Lora]) -> str:
    """Several adapters as one text, which a request takes for `loras`: 'PATH=WEIGHT+PATH', JSON
    where that would read back as others."""
    texts = [str(lora) for lora in loras]
    if not any("+" in text or text in ("", "none") for text in texts):
        return "+".join(texts) or "none"
    return write_json([lora.model_dump() for lora in loras])


def _json_or_none(text: str) -> Any:
    try:
        return read_json(text)
    except ValueError:
        return None


def split_model_id(text: str) -> tuple[str, str | None, str | None]:
    """'ID@REVISION:VARIANT' as id, revision and variant, None for what is not there; either may be
    left out ('ID@:VARIANT'). A path that exists is taken as it stands."""
    name, at, rest = text.rpartition("@")
    pinned = re.fullmatch(r"([^\s:~^?*\[\\]*+)(?::([\w.-]++))?", rest) if at else None
    if not pinned or exists(text) or not (re.fullmatch(r"[\w.-]++(/[\w.-]++)?", name)
                                          or exists(name)):
        return text, None, None
    return name, pinned[1] or None, pinned[2]


def join_model_id(model_id: str, revision: str | None, variant: str | None) -> str:
    """The reverse of split_model_id."""
    rest = f"{revision or ''}{f':{variant}' if variant else ''}"
    return f"{model_id}@{rest}" if rest else model_id


def exists(text: str) -> bool:
    """Whether a text is the path of a file or folder, whatever signs it holds."""
    try:
        return bool(text) and Path(text).expanduser().exists()
    except (OSError, RuntimeError, ValueError):  # no such user, too long, a null byte
        return False


SETUP = ("model", "loading", "adapters", "execution", "size")
WEIGHTS = SETUP[:3]  # what decides the weights that are loaded


@dataclass(frozen=True)
class Role:
    """What a field of the request is for; `fields.py` makes the lists of names from it."""

    # What has to be set up anew when the field changes, one of SETUP, the dearest first.
    setup: str = ""
    of_model: bool = False  # goes back to its default when another model is chosen
    # Says how a picture is computed. The other fields say what is asked for.
    method: bool = False
    cost_only: bool = False  # of the method: meant to change the cost and not the picture
    # Part of the picture's identity. If not: it changes no picture, or contents stand for it.
    hashed: bool = True
    # Came after the first run logs: left out of the identity at its default, so that old rows
    # keep theirs.
    added_later: bool = False
    axis: bool = True  # may vary in a comparison
    stage: bool = True  # may be set for a further stage of a chain
    text: bool = False  # prose, which may hold commas
    picture: bool = False  # names a picture in the store by its SHA-256
    mask_only: bool = False  # acts with a mask only
    extra: bool = False  # an input that only some models take, or need
    # Handed on under its own name; a run says so where its pipeline takes no such argument.
    argument: bool = False
    widget: bool = False  # has a widget on the pages; the others travel with a run's request
    heading: Literal["", "always", "unusual"] = ""  # when a sheet's heading names it


class RunRequest(BaseModel):
    """One picture to be made; frozen, valid once it exists, and the same after a trip through JSON.

    A field's annotation says all there is to it: its range, what it means, and its role. Pictures
    are named by their SHA-256 in the store. Raises RequestError.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    model_id: Annotated[str, Field(
        min_length=1, max_length=500,
        description="'postcards', a diffusers folder, a .safetensors checkpoint, or a Hub id in "
        "the cache; @REVISION:VARIANT behind it sets these two."),
        Role("model", hashed=False, widget=True, heading="always")] = "postcards"
    revision: Annotated[str | None, Field(
        description="Branch, tag or commit of a Hub model."),
        Role("model", of_model=True, hashed=False, heading="unusual")] = None
    variant: Annotated[str | None, Field(
        description="Which of a model's weight files to read, such as fp16."),
        Role("model", of_model=True, heading="unusual")] = None
    torch_dtype: Annotated[Dtype | None, Field(
        description="Precision of weights and arithmetic; left out, the device's usual one."),
        Role("loading", method=True, hashed=False, widget=True, heading="unusual")] = None
    memory_policy: Annotated[MemoryPolicy, Field(
        description="Where weights lie between uses. On the device is fastest; each further one "
        "needs less memory and more time; auto takes the fastest that fits."),
        Role("loading", method=True, cost_only=True, hashed=False, widget=True)] = "auto"
    quantization: Annotated[Quantization | None, Field(
        description="Smaller weights of the denoiser: int8 needs torchao, int4 bitsandbytes and "
        "CUDA."),
        Role("loading", of_model=True, method=True, widget=True, heading="unusual")] = None
    loras: Annotated[tuple[Lora, ...], Field(
        description="LoRA adapters: .safetensors files, folders or Hub ids in the cache; =WEIGHT "
        "behind one sets its weight, else 1."),
        Role("adapters", of_model=True, hashed=False, widget=True, heading="unusual")] = ()
    attention_backend: Annotated[AttentionBackend, Field(
        description="How attention is computed, in diffusers' names: the same picture but for the "
        "last bits, at another cost."),
        Role("execution", of_model=True, method=True, cost_only=True, added_later=True,
             widget=True, heading="unusual")] = "native"
    cache: Annotated[Cache, Field(
        description="A caching hook of diffusers: parts of a step are taken from the step before. "
        "Faster, and not quite the same picture."),
        Role("execution", of_model=True, method=True, added_later=True, widget=True,
             heading="unusual")] = "none"
    compile: Annotated[bool, Field(
        description="torch.compile of the denoiser: a minute or more before the first picture of "
        "each size, timed as warm-up; later ones use the compiled code."),
        Role("execution", of_model=True, method=True, cost_only=True, added_later=True,
             widget=True, heading="unusual")] = False
    task: Annotated[Task, Field(
        description="What is made from what."),
        Role(axis=False, stage=False, widget=True)] = "text-to-image"
    prompt: Annotated[str, Field(
        max_length=10_000, description="What the picture shows."),
        Role(text=True, widget=True)] = ""
    negative_prompt: Annotated[str, Field(
        max_length=10_000, description="What the picture should not show; acts with guidance."),
        Role(text=True, argument=True, widget=True)] = ""
    scheduler: Annotated[str, Field(
        description="Which solver takes the steps; default is the model's own, class:NAME a "
        "scheduler class of diffusers by its name."),
        Role(of_model=True, method=True, widget=True, heading="always")] = "default"
    scheduler_options: Annotated[dict[str, OptionValue], Field(
        description="Constructor options of the diffusers scheduler."),
        Role(of_model=True, method=True, axis=False, widget=True, heading="unusual")] = {}
    sigma_schedule: Annotated[str, Field(
        max_length=20_000,
        description="Noise levels that the steps go through, in place of the scheduler's own: "
        "karras:RHO, exponential, beta:ALPHA:BETA, ays, ays-xl, linear-quadratic:THRESHOLD, or a "
        "list, 'sigmas:14.6 5 1 0.2' or 'timesteps:999 700 400', which also says how many steps."),
        Role(of_model=True, method=True, added_later=True, heading="unusual")] = DEFAULT
    num_inference_steps: Annotated[int | None, Field(
        ge=1, le=1000, description="Denoising steps; left out, the model's own."),
        Role(of_model=True, method=True, widget=True, heading="always")] = None
    guidance_scale: Annotated[float | None, Field(
        ge=0, le=100, description="Classifier-free guidance: at 1 or below it is off, and a step "
        "costs half; left out, the model's own."),
        Role(of_model=True, widget=True, heading="always")] = None
    guidance_rescale: Annotated[float, Field(
        ge=0, le=1, description="How much of the contrast that guidance adds is taken back, from 0 "
        "to 1 (Lin et al. 2023, arXiv:2305.08891)."),
        Role(of_model=True, argument=True, widget=True, heading="unusual")] = 0.0
    guidance_method: Annotated[str, Field(
        max_length=200, description="How the predictions with and without the prompt are combined: "
        f"{GUIDANCE_METHODS}."),
        Role(of_model=True, added_later=True, heading="unusual")] = CFG
    eta: Annotated[float, Field(
        ge=0, le=1, description="DDIM's eta: fresh noise in each step, from 0 for none to 1 for as "
        "much as DDPM (Song et al. 2020, arXiv:2010.02502)."),
        Role(of_model=True, method=True, widget=True, heading="unusual")] = 0.0
    seed: Annotated[int, Field(
        ge=0, le=MAX_SEED, description="Decides the initial noise: the same on every machine and "
        "for every scheduler."),
        Role(widget=True, heading="always")] = 0
    height: Annotated[int | None, Field(
        ge=8, le=MAX_SIDE, description="Height in pixels; left out, the model's own, or that of "
        "the picture to start from. In-painting keeps the picture's size: there it is what the "
        "model paints."),
        Role("size", of_model=True, widget=True)] = None
    width: Annotated[int | None, Field(
        ge=8, le=MAX_SIDE, description="Width in pixels, as height."),
        Role("size", of_model=True, widget=True)] = None
    image: Annotated[PictureName | None, Field(
        description="Picture to start from."),
        Role(picture=True, axis=False, stage=False, widget=True)] = None
    mask_image: Annotated[PictureName | None, Field(
        description="Mask of an in-painting: white is repainted, black and what is "
        "transparent is kept."),
        Role(picture=True, axis=False, stage=False)] = None
    control_image: Annotated[PictureName | None, Field(
        description="Picture of the edges, depth or pose that a ControlNet or adapter follows."),
        Role(picture=True, extra=True, axis=False, widget=True)] = None
    control_mode: Annotated[int | None, Field(
        ge=0, le=100, description="Kind of the control image, for union ControlNets: a number of "
        "the model card."),
        Role(extra=True, widget=True, heading="unusual")] = None
    class_label: Annotated[int | None, Field(
        ge=0, le=100_000, description="Class to paint, for class-conditional models: a number."),
        Role(extra=True, widget=True, heading="unusual")] = None
    prior_num_inference_steps: Annotated[int | None, Field(
        ge=2, le=1000, description="Steps of the first stage, for models of two; left out, the "
        "model's own."),
        Role(argument=True, heading="unusual")] = None
    strength: Annotated[float, Field(
        gt=0, le=1, description="Share of the steps that run from a picture: near 0 it stays, at 1 "
        "only its colours and shapes hint at it."),
        Role(argument=True, widget=True, heading="unusual")] = 1.0
    padding_mask_crop: Annotated[int | None, Field(
        ge=0, le=MAX_SIDE, description="In-painting: paint only the masked part, with that many "
        "pixels around it; left out, the whole picture."),
        Role(mask_only=True, heading="unusual")] = None
    mask_feather: Annotated[int, Field(
        ge=0, le=512, description="In-painting: pixels of soft rim around the mask."),
        Role(mask_only=True, heading="unusual")] = 0
    masked_content: Annotated[MaskedContent, Field(
        description="In-painting: whether the model starts from the original under the mask, or "
        "from a fill from its surroundings."),
        Role(mask_only=True, heading="unusual")] = "original"
    differential: Annotated[bool, Field(
        description="In-painting: repaint greys of the mask by degrees."),
        Role(mask_only=True, heading="unusual")] = False

    def __init__(self, /, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise RequestError("; ".join(map(_explain, error.errors()))) from None

    @model_validator(mode="before")
    @classmethod
    def _split_model(cls, values: Any) -> Any:
        if not isinstance(values, dict) or not isinstance(values.get("model_id"), str):
            return values
        model_id, *pinned = split_model_id(values["model_id"])
        found = zip(("revision", "variant"), pinned, strict=True)
        return {**values, "model_id": model_id} | {name: one for name, one in found if one}

    @model_validator(mode="after")
    def _check(self) -> RunRequest:
        if self.task != "inpainting":
            unused = [name for name in self.not_default if ROLES[name].mask_only]
            if unused:
                raise RequestError(f"{self.task} takes no {' and no '.join(unused)}")
        if self.scheduler != "default" and not known_scheduler(self.scheduler):
            raise RequestError(f"scheduler: received {shown(self.scheduler)}, accepted default, "
                               f"{', '.join(BY_KEY)}, or class:NAME")
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
        if self.num_inference_steps and self.steps_to_run < 1:
            raise RequestError(
                f"strength {number_text(self.strength)} of {self.num_inference_steps} steps "
                "leaves no step to run; use a strength of at least "
                f"{ceil(1000 / self.num_inference_steps) / 1000:g}"
            )
        return self

    @field_validator("loras", mode="before")
    @classmethod
    def _loras_from_text(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        if value.startswith("[") and isinstance(given := _json_or_none(value), list):
            return given
        parts = [part for part in value.split("+") if part.strip() not in ("", "none")]
        return [value] if len(parts) > 1 and exists(value) else parts

    @field_validator("sigma_schedule", "guidance_method")
    @classmethod
    def _as_usual(cls, value: str, info: ValidationInfo) -> str:
        kind = SigmaSchedule if info.field_name == "sigma_schedule" else GuidanceMethod
        return str(kind.parse(value))

    @field_validator("scheduler_options", mode="before")
    @classmethod
    def _no_endless_integer(cls, value: Any) -> Any:
        """Python's integers have no end; JSON's readers and the solvers' have."""
        for name, option in value.items() if isinstance(value, dict) else ():
            if isinstance(option, int) and not -MAX_SEED - 1 <= option <= MAX_SEED:
                raise RequestError(f"scheduler_options.{name}: received {shown(option)}, accepted "
                                   f"whole numbers from {-MAX_SEED - 1} to {MAX_SEED}")
        return value

    @property
    def weights(self) -> dict[str, Any]:
        """What decides the loaded weights: the arguments of `Registry.borrow`."""
        return {name: getattr(self, name) for name, role in ROLES.items() if role.setup in WEIGHTS}

    @property
    def not_default(self) -> list[str]:
        """The fields that were given another value than their default."""
        return [name for name, default in DEFAULTS.items() if getattr(self, name) != default]

    @property
    def steps_to_run(self) -> int:
        """The steps that really run: those of `strength` where a picture is the start. 0 where
        they are left to the model."""
        share = self.strength if self.image else 1.0
        return int((self.num_inference_steps or 0) * share)

    def changed(self, **values: Any) -> RunRequest:
        """The same request with other values, validated again."""
        return RunRequest(**{**self.model_dump(), **values})


ROLES: dict[str, Role] = {name: next(mark for mark in field.metadata if isinstance(mark, Role))
                          for name, field in RunRequest.model_fields.items()}
DEFAULTS: dict[str, Any] = {name: field.default for name, field in RunRequest.model_fields.items()}


def _explain(error: dict[str, Any]) -> str:
    """One pydantic error as one clause: field, value received, what would work."""
    name = ".".join(str(part) for part in error["loc"][:2]) or "request"
    received = shown(error["input"])
    if error["type"] == "extra_forbidden":
        fields = ", ".join(RunRequest.model_fields)
        return f"{name} is no field of a request; the fields are {fields}"
    if error["type"] == "string_too_long":
        limit = error["ctx"]["max_length"]
        return f"{name}: received {len(error['input'])} characters, accepted up to {limit}"
    if error["type"] == "string_pattern_mismatch":
        return f"{name}: received {received}, accepted a picture's SHA-256: 64 hex digits"
    values = accepted(name)
    problem = f"accepted {values}" if values else error["msg"].lower()
    return f"{name}: received {received}, {problem}"


def _limits(field: FieldInfo) -> dict[str, float]:
    return {key: getattr(mark, key) for mark in field.metadata for key in ("ge", "gt", "le")
            if getattr(mark, key, None) is not None}


def limits(name: str) -> tuple[float, float]:
    """The ends of a number field's range, as its type; a field that lies above its least value is
    given that one."""
    field = RunRequest.model_fields[name]
    ends = _limits(field)
    kind = int if "int" in str(field.annotation) else float
    return kind(ends.get("ge", ends.get("gt"))), kind(ends["le"])


def accepted(name: str) -> str:
    """The values that a field's annotation allows, in words; '' where it says nothing."""
    field = RunRequest.model_fields.get(name)
    if field is None:
        return ""
    for part in (field.annotation, *get_args(field.annotation)):
        if get_origin(part) is Literal:
            return ", ".join(get_args(part))
    limits = _limits(field)
    if not limits:
        return ""
    kind = "a whole number " if "int" in str(field.annotation) else ""
    low = f"{limits['ge']}" if "ge" in limits else f"above {limits.get('gt')}"
    return f"{kind}{'from ' if kind else ''}{low} to {limits['le']}"
