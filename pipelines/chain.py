"""Chains: the picture of one request is the input of the next, each stage a run of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipelines.errors import RequestError
from pipelines.fields import MODEL_FIELDS, STAGE_FIELDS
from pipelines.models.info import ModelInfo
from pipelines.models.signatures import call_parameters
from pipelines.notation import named_values, shown
from pipelines.request import DEFAULTS, RunRequest

DEFAULT_STRENGTH = 0.6


def parse_stage(text: str) -> dict[str, Any]:
    """'model_id=NAME,strength=0.6': what a stage changes; values may hold commas, and stand as JSON
    behind 'NAME:='. Raises RequestError."""
    changes = {named.name: named.value for named in named_values(text, "|".join(STAGE_FIELDS))}
    if text.strip() and not changes:
        raise RequestError(f"then: received {shown(text)}, accepted NAME=VALUE,NAME=VALUE with the "
                           f"names {', '.join(STAGE_FIELDS)}")
    return changes


def next_request(
    request: RunRequest, image: str, changes: Mapping[str, Any], info: ModelInfo
) -> RunRequest:
    """The stage that follows a request: image-to-image on its picture, named by its SHA-256.

    Prompts and seed stay; another model starts at its own values. Raises RequestError.
    """
    values = request.model_dump()
    values |= {"height": None, "width": None, "image": image, "task": "image-to-image",
               "mask_image": None}
    if info.model_id != request.model_id:
        values |= {name: DEFAULTS[name] for name in MODEL_FIELDS}
    return RunRequest(**{**values, "strength": default_strength(info), **changes})


def default_strength(info: ModelInfo) -> float:
    """The strength that the model's own image-to-image pipeline starts with; a provider is told
    none."""
    if info.hosted:
        return DEFAULTS["strength"]
    cls = info.task_classes.get("image-to-image", info.pipeline_class)
    own = call_parameters(cls).get("strength")
    return own if isinstance(own, float) and 0 < own <= 1 else DEFAULT_STRENGTH
