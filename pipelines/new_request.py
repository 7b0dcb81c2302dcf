"""A request from what somebody asks for: pictures as files or in memory, and what was left out."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.chain import default_strength
from pipelines.errors import RequestError
from pipelines.fields import PICTURES
from pipelines.inpainting.pictures_in import open_input
from pipelines.names import SHA256
from pipelines.request import RunRequest

if TYPE_CHECKING:
    from pipelines.engine import Engine


def new_request(engine: Engine, fields: Mapping[str, Any]) -> RunRequest:
    """A request from values of its fields. Pictures (paths, or pictures that are open already) go
    into the store, where a SHA-256 names one that is there; task and strength, where they are left
    out, follow from them and from the model. Raises RequestError, UnknownModelError or LoadError.
    """
    values = dict(fields)
    for name in PICTURES:
        picture = values.get(name)
        if isinstance(picture, str) and re.fullmatch(SHA256, picture):
            continue
        if isinstance(picture, str | Path):
            picture = open_input(Path(picture), name)
        if picture:
            values[name] = engine.pictures.put(picture)
    info = engine.registry.describe(*(values.get(k) for k in ("model_id", "revision", "variant")))
    values.setdefault("task", info.task_for("image" in values, "mask_image" in values))
    if "image" in values:
        values.setdefault("strength", default_strength(info))
    elif "strength" in values:
        raise RequestError("strength needs an image (--image): without one all steps run")
    takes_prompt = info.takes(values["task"], "prompt")
    if info.needs_prompt(values["task"]) and "prompt" not in values:
        raise RequestError(f"prompt: {info.model_id} needs one, such as \"a red car\"")
    if values.get("prompt") and not takes_prompt:
        raise RequestError(f"prompt: received {values['prompt']!r}, {info.model_id} "
                           f"({info.pipeline_class}) paints without one")
    return RunRequest(**values)
