"""Chains: the picture of one request is the input of the next, each stage a run of its own."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pipelines.errors import RequestError
from pipelines.models.info import ModelInfo
from pipelines.models.signatures import call_parameters
from pipelines.request import RunRequest

OF_THE_MODEL = ("scheduler", "scheduler_options", "num_inference_steps", "guidance_scale",
                "guidance_rescale", "eta", "height", "width", "loras", "quantization",
                "revision", "variant", "attention_backend", "cache", "compile")  # fmt: skip
NOT_IN_A_STAGE = {"task", "image", "mask_image"}
DEFAULT_STRENGTH = 0.6


def parse_stage(text: str) -> dict[str, Any]:
    """'model_id=NAME,strength=0.6': what a stage changes; values may hold commas.

    Raises RequestError.
    """
    names = [name for name in RunRequest.model_fields if name not in NOT_IN_A_STAGE]
    changes: dict[str, Any] = {}
    for part in re.split(rf",\s*(?=(?:{'|'.join(names)})=)", text.strip()) if text.strip() else []:
        name, equals, value = part.partition("=")
        if not equals or name.strip() not in names:
            raise RequestError(f"then: received {part!r}, accepted NAME=VALUE,NAME=VALUE with the "
                               f"names {', '.join(names)}")  # fmt: skip
        changes[name.strip()] = value.strip()
    return changes


def next_request(
    request: RunRequest, image: str, changes: Mapping[str, Any], info: ModelInfo
) -> RunRequest:
    """The stage that follows a request: image-to-image on its picture, named by its SHA-256.

    Prompts and seed stay; another model starts at its own defaults. Raises RequestError.
    """
    values = request.model_dump()
    values |= {"height": None, "width": None, "image": image, "task": "image-to-image",
               "mask_image": None}
    if info.model_id != request.model_id:
        values |= {name: RunRequest.model_fields[name].get_default() for name in OF_THE_MODEL}
        values |= {"num_inference_steps": info.num_inference_steps,
                   "guidance_scale": info.guidance_scale}
    return RunRequest(**{**values, "strength": default_strength(info), **changes})


def default_strength(info: ModelInfo) -> float:
    """The strength that the model's own image-to-image pipeline starts with."""
    cls = info.task_classes.get("image-to-image", info.pipeline_class)
    own = call_parameters(cls).get("strength")
    return own if isinstance(own, float) and 0 < own <= 1 else DEFAULT_STRENGTH
