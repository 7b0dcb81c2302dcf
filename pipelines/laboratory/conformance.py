"""Every scheduler class of the installed diffusers against the exact solution.

A case is a class with a prediction type, a timestep spacing and a sigma schedule. It is run from
pure noise at several step counts and from the middle at several strengths, with a perfect network,
and what is not as its literature says is a finding.
"""

from __future__ import annotations

import inspect
import itertools
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args, get_origin, get_type_hints

import torch
from torch import Tensor

from pipelines.errors import PipelineError
from pipelines.laboratory import driving
from pipelines.laboratory.mixture import Mixture
from pipelines.laboratory.scales import KeptVariance, scale_of
from pipelines.schedulers import (
    CATALOGUE,
    LATENT_DEFAULTS,
    key_of_class,
    make_scheduler,
    scheduler_classes,
)

# Stable Diffusion's noise schedule, which most checkpoints have.
CONFIG = {"num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012,
          "beta_schedule": "scaled_linear", **LATENT_DEFAULTS}
PREDICTION_TYPES = ("epsilon", "v_prediction", "sample", "flow_prediction")
SPACINGS = ("linspace", "leading", "trailing")
SIGMAS = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "use_lu_lambdas")
COMBINED = ("prediction_type", "timestep_spacing", "beta_schedule")
STEPS = (1, 2, 5, 10, 20, 40, 80, 100)
FITTED_FROM = 10  # steps; below, an order says little
FLOOR = 3e-3  # errors below it come from rounded timesteps, not from the solver
STRENGTHS = (0.1, 0.3, 0.5, 0.8)
MIDDLE_STEPS = 10
POINTS = 100
WORSE = 1.6  # than Euler's steps through the same sigmas
MISPLACED = 0.01  # of a spread of 1; below it are timesteps that were rounded


@dataclass(frozen=True)
class Case:
    """A scheduler class and how it is configured; `key` of the catalogue where it is an entry."""

    class_name: str
    options: Mapping[str, Any]
    key: str | None = None

    @property
    def title(self) -> str:
        told = [name.removeprefix("use_") if value is True else str(value)
                for name, value in self.options.items()]
        return " ".join([self.key or self.class_name, *told])

    def scheduler(self, seed: int = 0) -> Any:
        """A fresh one; `seed` for those that draw noise without a generator. Raises what diffusers
        or the catalogue raises."""
        import diffusers

        if self.key:
            return make_scheduler(self.key, {"_class_name": self.class_name, **CONFIG,
                                             **self.options}, seed=seed)
        cls = getattr(diffusers, self.class_name)
        accepted = inspect.signature(cls.__init__).parameters
        config = {**CONFIG, "noise_sampler_seed": seed}
        return cls(**{name: value for name, value in config.items() if name in accepted},
                   **self.options)


@dataclass
class Outcome:
    """What came of a case. `errors`: step count -> root mean square distance to the exact points;
    `middle`: strength -> the same from the middle of MIDDLE_STEPS; None where it did not run.
    `order` with half of its 95 % interval. Of a stochastic scheduler no exact point is known."""

    case: Case
    stochastic: bool = False
    errors: dict[int, float | None] = field(default_factory=dict)
    middle: dict[float, float | None] = field(default_factory=dict)
    evaluations: dict[int, int] = field(default_factory=dict)
    order: tuple[float, float] | None = None
    nominal: int | None = None
    problems: dict[str, list[str]] = field(default_factory=dict)  # what happened -> where
    remarks: list[str] = field(default_factory=list)
    refused: str | None = None

    @property
    def findings(self) -> list[str]:
        """What is not as it should be, in sentences."""
        return [*(f"{', '.join(places)}: {problem}" for problem, places in self.problems.items()),
                *self.remarks]

    def as_dict(self) -> dict[str, Any]:
        return {
            "scheduler": self.case.key or self.case.class_name, "class": self.case.class_name,
            "options": dict(self.case.options), "refused": self.refused,
            "stochastic": self.stochastic, "nominal_order": self.nominal,
            "order": self.order and self.order[0], "order_interval": self.order and self.order[1],
            "errors": self.errors, "errors_from_the_middle": self.middle,
            "evaluations": self.evaluations, "findings": self.findings,
        }


def cases(names: Sequence[str] = ()) -> list[Case]:
    """The catalogue's entries, and every class in each of its configurations; of `names`, keys or
    class names, only these."""
    listed = []
    for info in CATALOGUE:
        configurations = [{}] if info.flow_matching else [{"timestep_spacing": spacing}
                                                          for spacing in SPACINGS]
        listed += [Case(info.class_name, options, info.key) for options in configurations]
    for name in scheduler_classes():
        listed += [Case(name, options) for options in _configurations(name)]
    wanted = set(names)
    return [case for case in listed if not wanted or {case.key, case.class_name} & wanted]


def _configurations(class_name: str) -> Iterator[dict[str, Any]]:
    """Each combination of prediction type, spacing and sigma schedule that a class names, and each
    value of its other named choices by itself."""
    import diffusers

    cls = getattr(diffusers, class_name)
    accepted = inspect.signature(cls.__init__).parameters
    for name, hint in get_type_hints(cls.__init__).items():
        if get_origin(hint) is Literal and name not in COMBINED:
            yield from ({name: value} for value in get_args(hint)
                        if value != accepted[name].default)
    if "steps_offset" in accepted and "timestep_spacing" in accepted:
        yield {"timestep_spacing": "leading", "steps_offset": 1}
    choices = [
        [{"prediction_type": kind} for kind in PREDICTION_TYPES]
        if "prediction_type" in accepted and "sigma_data" not in accepted else [{}],
        [{"timestep_spacing": spacing} for spacing in SPACINGS]
        if "timestep_spacing" in accepted else [{}],
        [{}, *({name: True} for name in SIGMAS if name in accepted)],
    ]
    for parts in itertools.product(*choices):
        options = {name: value for part in parts for name, value in part.items()}
        if options.get("prediction_type") == "flow_prediction":
            if "use_flow_sigmas" not in accepted or any(name in options for name in SIGMAS):
                continue
            options["use_flow_sigmas"] = True
        yield options


def examine(case: Case, mixture: Mixture | None = None) -> Outcome:
    """Run a case and say what came of it."""
    mixture, outcome = mixture or Mixture.three(), Outcome(case)
    try:
        scheduler = case.scheduler()
        scale_of(scheduler)
    except Exception as error:  # whatever a class of diffusers refuses with
        outcome.refused = _reason(error)
        return outcome
    key = case.key or key_of_class(case.class_name)
    outcome.nominal = next((info.order for info in CATALOGUE if info.key == key), None)
    noise, clean = _points(mixture)
    ran = False
    for steps in STEPS:
        path = _path(case, mixture, outcome, f"{steps} steps", steps, noise)
        outcome.errors[steps] = path.error if path and path.finite else None
        if path is None:
            continue
        outcome.evaluations[steps] = path.evaluations
        if not ran:
            ran = True
            outcome.stochastic = _differs(case, mixture, noise)
    if not ran:
        outcome.refused = next(iter(outcome.problems))
        outcome.problems.clear()
        return outcome
    if not outcome.stochastic:
        _fit(outcome)
    for strength in STRENGTHS:
        place = f"strength {strength:g} of {MIDDLE_STEPS} steps"
        path = _path(case, mixture, outcome, place, MIDDLE_STEPS, noise, clean, strength)
        outcome.middle[strength] = path.error if path and path.finite else None
        if path and path.misplaced > MISPLACED:
            outcome.problems.setdefault("noise is added as at another noise level", []).append(
                place)
        if path and path.finite and not outcome.stochastic:
            _compare_with_first_order(outcome, strength, path)
    _check_timesteps(case, outcome)
    return outcome


def _points(mixture: Mixture) -> tuple[Tensor, Tensor]:
    """The noise and the clean points that every case starts from."""
    generator = torch.Generator().manual_seed(0)
    shape = (POINTS, mixture.means.shape[1])
    return (torch.randn(shape, dtype=torch.float64, generator=generator),
            mixture.sample(POINTS, generator))


def _path(
    case: Case, mixture: Mixture, outcome: Outcome, place: str, steps: int, noise: Tensor,
    clean: Tensor | None = None, strength: float = 1.0, seed: int = 0,
) -> driving.Path | None:
    """One run; what goes wrong becomes a finding."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            path = driving.run(case.scheduler(seed), mixture, steps, noise, clean, strength, seed,
                               as_in_runs=case.key is not None)
    except Exception as error:  # whatever a class of diffusers refuses with
        outcome.problems.setdefault(_reason(error), []).append(place)
        return None
    if not path.finite:
        outcome.problems.setdefault("not finite", []).append(place)
    return path


def _differs(case: Case, mixture: Mixture, noise: Tensor) -> bool:
    """Whether another seed makes other points: noise is drawn in the steps."""
    ends = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        path = _path(case, mixture, Outcome(case), "", 5, noise, seed=seed)
        ends.append(path and path.finite and path.end)
    return all(isinstance(end, Tensor) for end in ends) and not torch.equal(*ends)


def _fit(outcome: Outcome) -> None:
    """The order of convergence above the floor, beside the nominal one."""
    fitted = {steps: error for steps, error in outcome.errors.items()
              if steps >= FITTED_FROM and error is not None and error > FLOOR}
    outcome.order = driving.fitted_order(list(fitted), list(fitted.values()))
    if outcome.order and outcome.nominal:
        order, interval = outcome.order
        if order + interval < outcome.nominal - 0.25:
            outcome.remarks.append(f"order {order:.1f} ± {interval:.1f}, nominal "
                                    f"{outcome.nominal}")
    values = [error for steps, error in outcome.errors.items()
              if steps >= FITTED_FROM and error is not None]
    if any(later > 1.5 * earlier and later > FLOOR
           for earlier, later in itertools.pairwise(values)):
        outcome.remarks.append("more steps make it worse: "
                                + ", ".join(f"{value:.3f}" for value in values))


def _compare_with_first_order(outcome: Outcome, strength: float, path: driving.Path) -> None:
    """No solver should do worse than Euler's steps through the same sigmas: one that does takes the
    start in the middle for something else."""
    if path.error > FLOOR and path.error > WORSE * path.first_order_error:
        outcome.remarks.append(f"from the middle, strength {strength:g}: error {path.error:.3f}, "
                               f"Euler's steps {path.first_order_error:.3f}")


def _check_timesteps(case: Case, outcome: Outcome) -> None:
    """Whether as many steps as the training had stay within it."""
    scheduler = case.scheduler()
    trained = scheduler.config.get("num_train_timesteps")
    if not trained or "timestep_spacing" not in scheduler.config:
        return
    try:
        driving.set_timesteps(scheduler, trained)
        last = float(scheduler.timesteps.max())
    except Exception as error:  # whatever a class of diffusers refuses with
        outcome.problems.setdefault(_reason(error), []).append(f"{trained} steps")
        return
    kept_variance = isinstance(scale_of(scheduler), KeptVariance)
    if last > trained - 1 + 1e-6 and kept_variance:
        outcome.remarks.append(f"{trained} steps: timestep {last:g} is beyond the last one of the "
                                f"training, {trained - 1}")


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    if not isinstance(error, PipelineError):
        text = f"{type(error).__name__}: {text}"
    return text if len(text) <= 80 else f"{text[:77]}..."
