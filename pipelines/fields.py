"""Lists of the request's fields by what they are for; the roles themselves stand at the fields."""

from __future__ import annotations

from collections.abc import Callable
from typing import get_args

from pipelines.request import DEFAULTS, ROLES, SETUP, WEIGHTS, Role, RunRequest


def names(test: Callable[[Role], object]) -> tuple[str, ...]:
    """The fields whose role passes a test, in the order of the request."""
    return tuple(name for name, role in ROLES.items() if test(role))


MODEL_FIELDS = names(lambda role: role.of_model)
METHOD_FIELDS = names(lambda role: role.method)
COST_FIELDS = names(lambda role: role.cost_only)
EXECUTION_FIELDS = names(lambda role: role.setup == "execution")
# Of the method, but not of the weights: what the converged reference sets anew.
SOLVER_FIELDS = names(lambda role: role.method and role.setup not in WEIGHTS)
NOT_HASHED = names(lambda role: not role.hashed)
ADDED_LATER = names(lambda role: role.added_later)
AXIS_FIELDS = names(lambda role: role.axis)
STAGE_FIELDS = names(lambda role: role.stage)
TEXT_FIELDS = names(lambda role: role.text)
PICTURES = names(lambda role: role.picture)
MASK_OPTIONS = names(lambda role: role.mask_only)
EXTRA_FIELDS = names(lambda role: role.extra)
ARGUMENT_FIELDS = names(lambda role: role.argument)
WIDGET_FIELDS = names(lambda role: role.widget)
HEADING_FIELDS = names(lambda role: role.heading == "always")
UNUSUAL_FIELDS = names(lambda role: role.heading == "unusual")

_BY_COST = [names(lambda role, level=level: role.setup == level) for level in SETUP]


def setup_levels(request: RunRequest) -> list[tuple]:
    """What the request needs set up, the dearest first: the model, also what it is loaded with,
    also its adapters and so on. Two requests with an equal entry share all up to there."""
    values: tuple = ()
    return [values := (*values, *(getattr(request, name) for name in level)) for level in _BY_COST]


def is_plain(request: RunRequest) -> bool:
    """Whether the denoiser computes as it does without being told. Only then do cells share calls:
    a cache may decide by the whole batch, and each batch would be compiled anew."""
    return all(getattr(request, name) == DEFAULTS[name] for name in EXECUTION_FIELDS)


def description(name: str) -> str:
    """What a field means, in a sentence; for options and widgets."""
    return RunRequest.model_fields[name].description


def choices(name: str) -> tuple[str, ...]:
    """The values of a field that takes one of a few, without None."""
    annotation = RunRequest.model_fields[name].annotation
    for part in get_args(annotation):
        if get_args(part):
            annotation = part
    return get_args(annotation)
