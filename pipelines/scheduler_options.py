"""The options of a scheduler's constructor: what a value may be, as diffusers annotates it.

diffusers itself checks little: a text such as 'no' counts as true, an order that a solver lacks
gives the highest that it has. What is wrong is refused here, before anything runs.
"""

from __future__ import annotations

import functools
import inspect
import math
import types
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Union, get_args, get_origin

from pipelines.errors import RequestError

TRUE, FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")

# What the annotations leave open, or have wrong.
CHOICES = {
    "timestep_spacing": ("linspace", "leading", "trailing"),
    "algorithm_type": ("data_prediction", "noise_prediction"),  # SA-Solver's; others are annotated
    "interpolation_type": ("linear", "log_linear"),
    "variance_type": ("learned", "learned_range"),
}
KINDS = {"sigma_max": float}
RANGES: dict[str, tuple[float, float]] = {
    "solver_order": (1, 3),
    "UniPCMultistepScheduler.solver_order": (1, 1000),  # any; a run reaches that of its steps
    "predictor_order": (1, 4),
    "corrector_order": (1, 4),
    "dynamic_thresholding_ratio": (0, 1),
    "sample_max_value": (1, math.inf),
    "original_inference_steps": (1, 1000),
    "timestep_scaling": (1e-6, math.inf),
    "flow_shift": (1e-6, math.inf),
    "sigma_min": (1e-6, math.inf),
    "sigma_max": (1e-6, math.inf),
}


@dataclass(frozen=True)
class Option:
    """One option; `kind` is None where its values are no text, number or truth value, such as a
    list. `read`: whether the class looks at it at all."""

    name: str
    default: Any
    kind: type | None
    choices: tuple[str, ...] = ()
    low: float = -math.inf
    high: float = math.inf
    read: bool = True

    @property
    def accepted(self) -> str:
        """What a value may be, in words."""
        if self.kind is bool:
            return "true or false"
        if self.kind is str:
            return ", ".join(self.choices) or "a text"
        kind = "a whole number" if self.kind is int else "a number"
        if self.high < math.inf:
            return f"{kind} from {self.low:g} to {self.high:g}"
        return kind if self.low == -math.inf else f"{kind} of at least {self.low:g}"

    def value(self, given: Any) -> Any:
        """A value as the class takes it: 'no' is False, '2' is 2. Raises ValueError."""
        if self.kind is bool:
            text = str(given).strip().lower()
            if text in TRUE + FALSE:
                return text in TRUE
        elif self.kind is str:
            if isinstance(given, str) and (not self.choices or given in self.choices):
                return given
        elif self.kind and not isinstance(given, bool):
            number = given if isinstance(given, int | float) else float(given)
            if self.kind is int or (isinstance(given, str) and number.is_integer()):
                whole = int(number)  # of infinity: OverflowError
                if whole != number:
                    raise ValueError(given)
                number = whole
            if self.low <= number <= self.high:
                return number
        raise ValueError(given)


@functools.cache
def options_of(cls: type) -> dict[str, Option]:
    """Name -> option of a scheduler class's constructor, those of the model among them."""
    names = _names_in(cls)
    options = {}
    for name, parameter in inspect.signature(cls.__init__, eval_str=True).parameters.items():
        if name in ("self", "args", "kwargs"):
            continue
        kind, choices = _kind(name, parameter.annotation)
        low, high = RANGES.get(f"{cls.__name__}.{name}", RANGES.get(name, (-math.inf, math.inf)))
        options[name] = Option(name, parameter.default, kind, choices, low, high, name in names)
    return options


def checked(label: str, options: Mapping[str, Option], given: Mapping[str, Any]) -> dict[str, Any]:
    """The given values as the class takes them; RequestError for a name or value that it does not
    know."""
    settable = {name: option for name, option in options.items() if option.kind}
    if unknown := sorted(set(given) - set(options)):
        raise RequestError(f"scheduler_options: {label} knows no {', '.join(unknown)}; it knows "
                           f"{', '.join(sorted(settable)) or 'none'}")
    values = {}
    for name, value in given.items():
        if name not in settable:
            raise RequestError(f"scheduler_options: received {name}={value!r} for {label}, which "
                               "takes neither a text nor a number there, so it cannot be set")
        try:
            values[name] = options[name].value(value)
        except (ValueError, TypeError, OverflowError):
            raise RequestError(f"scheduler_options: received {name}={value!r}, accepted for "
                               f"{label}: {options[name].accepted}") from None
    return values


def _kind(name: str, annotation: Any) -> tuple[type | None, tuple[str, ...]]:
    """The type that an annotation names beside None, and the texts that it allows."""
    if name in KINDS:
        return KINDS[name], ()
    parts = get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (
        annotation,)
    for part in parts:
        if get_origin(part) is Literal:
            return str, get_args(part)
        if part is str:
            return str, CHOICES.get(name, ())
        if part in (bool, int, float):
            return part, ()
    return None, ()


def _names_in(cls: type) -> set[str]:
    """The attributes, and the texts, that a class's own methods use."""
    names: set[str] = set()
    for method in vars(cls).values():
        code = getattr(inspect.unwrap(method), "__code__", None) if callable(method) else None
        if code:
            names |= set(code.co_names) | {text for text in code.co_consts if isinstance(text, str)}
    return names
