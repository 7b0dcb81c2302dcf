"""Noise schedules of a run: the noise levels that its steps go through, in place of those that the
scheduler chooses.

A level is sigma, noise over signal; for flow matching the share of noise, from 0 to 1.
"""

from __future__ import annotations

import functools
import inspect
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipelines.errors import RequestError, first_line
from pipelines.notation import number_text, shown

if TYPE_CHECKING:
    import numpy as np

    from pipelines.request import RunRequest

DEFAULT = "default"
MAX_LEVELS = 1000
ROUNDED = 1e-3  # relative difference of a level from which on a run says so
# Kind -> the names, defaults and ranges of its numbers.
KINDS: dict[str, dict[str, tuple[float, float, float]]] = {
    DEFAULT: {},
    "karras": {"rho": (7.0, 0.1, 100.0)},
    "exponential": {},
    "beta": {"alpha": (0.6, 0.01, 100.0), "beta": (0.6, 0.01, 100.0)},
    "ays": {},
    "ays-xl": {},
    "linear-quadratic": {"threshold": (0.025, 0.001, 0.5)},
}
LISTS = ("sigmas", "timesteps")
AYS = {"ays": "StableDiffusionSigmas", "ays-xl": "StableDiffusionXLSigmas"}
ACCEPTED = ("default, karras[:RHO], exponential, beta[:ALPHA:BETA], ays, ays-xl, "
            "linear-quadratic[:THRESHOLD], 'sigmas:14.6 5 1 0.2' or 'timesteps:999 700 400 100', "
            "falling")


@dataclass(frozen=True)
class SigmaSchedule:
    """A kind of KINDS or LISTS and its numbers. As text 'karras:5' or 'sigmas:14.6 5 1'."""

    kind: str
    numbers: tuple[float, ...] = ()

    @classmethod
    def parse(cls, text: str) -> SigmaSchedule:
        """Raises RequestError."""
        refused = RequestError(f"sigma_schedule: received {shown(text)}, accepted {ACCEPTED}")
        kind, *rest = text.strip().split(":")
        try:
            if kind in LISTS and len(rest) == 1:
                numbers = tuple(float(part) for part in re.split(r"[\s,]+", rest[0].strip()))
                return cls(kind, _falling(kind, numbers))
            limits = KINDS[kind].values()
            if len(rest) > len(limits):
                raise ValueError(rest)
            numbers = tuple(float(given) for given in rest)
        except (KeyError, ValueError):
            raise refused from None
        numbers += tuple(default for default, _, _ in itertools.islice(limits, len(rest), None))
        if not all(low <= number <= high
                   for number, (_, low, high) in zip(numbers, limits, strict=True)):
            ranges = ", ".join(f"{name} from {low:g} to {high:g}"
                               for name, (_, low, high) in KINDS[kind].items())
            raise RequestError(f"sigma_schedule: received {shown(text)}, accepted {ranges}")
        return cls(kind, numbers)

    def __str__(self) -> str:
        numbers = [number_text(number) for number in self.numbers]
        if self.kind in LISTS:
            return f"{self.kind}:{' '.join(numbers)}"
        usual = tuple(default for default, _, _ in KINDS[self.kind].values())
        return self.kind if self.numbers == usual else ":".join([self.kind, *numbers])

    @property
    def count(self) -> int | None:
        """The steps of a list; None where any number of steps will do."""
        return len(self.numbers) if self.kind in LISTS else None

    def levels(self, steps: int, low: float, high: float, flow: bool) -> list[float]:
        """So many sigmas that fall from `high` to `low`, what the model knows; the last step goes
        on to 0. Not for lists of timesteps. Raises RequestError."""
        import numpy as np

        ramp = np.linspace(0, 1, steps) if steps > 1 else np.zeros(1)
        match self.kind:
            case "sigmas":
                outside = [s for s in self.numbers if not low * 0.999 <= s <= high * 1.001]
                if outside:
                    raise RequestError(f"sigma_schedule: received the sigma {outside[0]:g}, "
                                       f"accepted from {low:.4g} to {high:.4g} for this model")
                levels = np.array(self.numbers)
            case "karras":  # Karras et al. 2022, arXiv:2206.00364
                rho = self.numbers[0]
                levels = (high ** (1 / rho) + ramp * (low ** (1 / rho) - high ** (1 / rho))) ** rho
            case "exponential":
                levels = np.exp(np.log(high) + ramp * np.log(low / high))
            case "beta":  # Lee et al. 2024, arXiv:2407.12173
                from scipy.stats import beta

                levels = low + beta.ppf(1 - ramp, *self.numbers) * (high - low)
            case "linear-quadratic":  # Mochi's: half of the steps in the noise, then ever longer
                levels = high * (1 - _linear_quadratic(steps, self.numbers[0]))
            case _:  # Sabour et al. 2024, arXiv:2404.14507, between its ten steps log-linear
                if flow:
                    raise RequestError(f"sigma_schedule: received {self.kind!r}, which is made for "
                                       "Stable Diffusion's noise schedule; this model is of flow "
                                       "matching")
                from diffusers.schedulers import AysSchedules

                table = np.log(AysSchedules[AYS[self.kind]][:-1])
                places = np.linspace(0, len(table) - 1, steps) if steps > 1 else np.zeros(1)
                levels = np.exp(np.interp(places, np.arange(len(table)), table))
        return np.clip(levels, low, high).tolist()


def _falling(kind: str, numbers: tuple[float, ...]) -> tuple[float, ...]:
    """A list as it is kept: the 0 at the end of sigmas is understood. Raises ValueError."""
    if kind == "sigmas" and numbers[-1] == 0:
        numbers = numbers[:-1]
    least = 0 if kind == "timesteps" else 1e-9
    if not 0 < len(numbers) <= MAX_LEVELS or not numbers[-1] >= least or not all(
        later < earlier < 1e6 for earlier, later in itertools.pairwise((1e6 - 1, *numbers))
    ):
        raise ValueError(numbers)
    return numbers


def _linear_quadratic(steps: int, threshold: float) -> np.ndarray:
    """The share of noise that is gone before each step: `threshold` after half of them, linearly,
    then a parabola that goes on with the same slope and ends at 1."""
    import numpy as np

    half = max(1, steps // 2)
    slope, rest = threshold / half, steps - half
    n = np.arange(steps)
    beyond = np.maximum(n - half, 0)
    curve = (1 - threshold - slope * rest) / max(1, rest) ** 2
    return np.where(n < half, slope * n, threshold + slope * beyond + curve * beyond**2)


def follow(scheduler: Any, text: str) -> None:
    """Let a run's own scheduler take the levels of a schedule, whatever it would choose. Raises
    RequestError where its class takes no levels from outside."""
    if text == DEFAULT:
        return
    schedule, set_timesteps = SigmaSchedule.parse(text), scheduler.set_timesteps
    name, known = type(scheduler).__name__, inspect.signature(set_timesteps).parameters
    takes = [kind for kind in ("sigmas", "timesteps") if kind in known]
    if not takes or (_log_sigmas(scheduler) is None and not _is_flow(scheduler)):
        raise RequestError(f"sigma_schedule: received {shown(text)}, but {name} takes neither "
                           "sigmas nor timesteps; accepted default")

    @functools.wraps(set_timesteps)
    def wrapped(num_inference_steps: int | None = None, *args: Any, sigmas: Any = None,
                timesteps: Any = None, **kwargs: Any) -> None:
        given = sigmas if sigmas is not None else timesteps
        steps = schedule.count or num_inference_steps or len(given)
        levels, times = _asked(scheduler, schedule, steps)
        if "sigmas" in takes and not (schedule.kind == "timesteps" and "timesteps" in takes):
            # Classes of noise over signal want the 0 at the end, those of flow matching add it.
            argument = {"sigmas": levels if _is_flow(scheduler) else [*levels, 0.0]}
        else:
            times = [float(round(time)) for time in times]
            if any(later >= earlier for earlier, later in itertools.pairwise(times)):
                raise RequestError(f"sigma_schedule: {name} takes whole timesteps, and some of "
                                   f"the {steps} of {shown(text)} are the same; accepted fewer "
                                   "steps")
            argument = {"timesteps": [int(time) for time in times]}
        try:
            set_timesteps(None, *args, **argument, **kwargs)
        except (ValueError, TypeError) as error:
            raise RequestError(f"sigma_schedule: received {shown(text)}, which {name} refuses: "
                               f"{first_line(error)}") from error
        if _is_flow(scheduler):  # which shifts what it is given
            _set_flow_levels(scheduler, levels)

    scheduler.set_timesteps = wrapped


def _asked(
    scheduler: Any, schedule: SigmaSchedule, steps: int
) -> tuple[list[float], list[float]]:
    """The levels of a schedule and their timesteps, for a scheduler's model."""
    import numpy as np

    count, log_sigmas = scheduler.config.num_train_timesteps, _log_sigmas(scheduler)
    flow = log_sigmas is None
    places = np.arange(count)
    if schedule.kind == "timesteps":
        times = list(schedule.numbers)
        if times[0] > (count if flow else count - 1):
            raise RequestError(f"sigma_schedule: received the timestep {times[0]:g}, accepted up "
                               f"to {count if flow else count - 1}")
        levels = (np.array(times) / count if flow
                  else np.exp(np.interp(times, places, log_sigmas))).tolist()
        return levels, times
    low, high = (1 / count, 1.0) if flow else np.exp(log_sigmas[[0, -1]]).tolist()
    levels = schedule.levels(steps, low, high, flow)
    times = np.array(levels) * count if flow else np.interp(np.log(levels), log_sigmas, places)
    return levels, times.tolist()


def _set_flow_levels(scheduler: Any, levels: Sequence[float]) -> None:
    import torch

    device = scheduler.timesteps.device
    sigmas = torch.tensor([*levels, 0.0], dtype=torch.float32, device=device)
    scheduler.sigmas = sigmas
    scheduler.timesteps = sigmas[:-1] * scheduler.config.num_train_timesteps


def levels_of(scheduler: Any) -> list[float]:
    """The noise level at each evaluation of the denoiser, after set_timesteps; repeated ones once.
    Raises RequestError for schedulers that hold noise in a way of their own."""
    import numpy as np

    times = [time for time, _ in itertools.groupby(scheduler.timesteps.tolist())]
    if _is_flow(scheduler):
        return (np.array(times) / scheduler.config.num_train_timesteps).tolist()
    log_sigmas = _log_sigmas(scheduler)
    if log_sigmas is None:
        raise RequestError(f"{type(scheduler).__name__} holds noise in a way of its own")
    return np.exp(np.interp(times, np.arange(len(log_sigmas)), log_sigmas)).tolist()


def request_sigmas(request: RunRequest, original_config: dict[str, Any]) -> list[float]:
    """The noise level at each evaluation of a resolved request, whatever its schedule;
    `original_config` is its model's. Raises RequestError."""
    return levels_of(_prepared(request, original_config))


def level_range(original_config: dict[str, Any]) -> tuple[float, float]:
    """The lowest and the highest noise level that a model knows. Raises RequestError."""
    import numpy as np

    from pipelines.schedulers import make_scheduler

    scheduler = make_scheduler("default", original_config)
    log_sigmas = _log_sigmas(scheduler)
    if log_sigmas is None and not _is_flow(scheduler):
        raise RequestError(f"{type(scheduler).__name__} holds noise in a way of its own")
    if log_sigmas is None:
        return 1 / scheduler.config.num_train_timesteps, 1.0
    low, high = np.exp(log_sigmas[[0, -1]]).tolist()
    return low, high


def _prepared(request: RunRequest, original_config: dict[str, Any]) -> Any:
    from pipelines.schedulers import make_scheduler

    scheduler = make_scheduler(request.scheduler, original_config, request.scheduler_options)
    follow(scheduler, request.sigma_schedule)
    shifts = scheduler.config.get("use_dynamic_shifting")  # by the size of a picture
    scheduler.set_timesteps(request.num_inference_steps, **({"mu": 1.0} if shifts else {}))
    return scheduler


def check_schedule(request: RunRequest, original_config: dict[str, Any]) -> None:
    """Raise RequestError where the scheduler of a resolved request does not take its schedule."""
    if request.sigma_schedule != DEFAULT:
        _prepared(request, original_config)


def schedule_note(scheduler: Any, request: RunRequest) -> str | None:
    """How far a scheduler, that has run, strayed from the schedule it was given; None for not at
    all."""
    schedule = SigmaSchedule.parse(request.sigma_schedule)
    if schedule.kind in (DEFAULT, "timesteps"):
        return None
    asked = _asked(scheduler, schedule, request.num_inference_steps)[0]
    used = levels_of(scheduler)
    far = max(min(abs(level / other - 1) for other in used) for level in asked)
    if far < ROUNDED:
        return None
    return (f"sigma_schedule: {type(scheduler).__name__} takes whole timesteps; its sigmas differ "
            f"from those of {request.sigma_schedule} by up to {100 * far:.2g} %")


def _is_flow(scheduler: Any) -> bool:
    return type(scheduler).__name__.startswith("FlowMatch")


def _log_sigmas(scheduler: Any) -> np.ndarray | None:
    """log(noise / signal) at each timestep of the training; None for flow matching and others."""
    if not hasattr(scheduler, "alphas_cumprod") or scheduler.config.get("use_flow_sigmas"):
        return None
    import numpy as np

    alphas = scheduler.alphas_cumprod.cpu().double().clamp(min=1e-38).numpy()
    return np.log((1 - alphas) / alphas) / 2
