"""Scheduler classes by name: whether one can run a model, tried before anything is painted."""

from __future__ import annotations

import functools
import json
import warnings
from collections.abc import Mapping
from typing import Any

import torch

from pipelines.errors import PipelineError, RequestError, first_line
from pipelines.laboratory import driving
from pipelines.laboratory.mixture import Mixture
from pipelines.laboratory.scales import Flow, Preconditioned, scale_of
from pipelines.schedulers import CLASS, is_flow_matching, make_scheduler, scheduler_classes

STEPS = (4, 10)
POINTS = 40
LESS_LIKELY = 3.0  # nats below the data's own log-density, that the points at the end may have


def check_class(key: str, config: Mapping[str, Any], options: Mapping[str, Any]) -> None:
    """Raise RequestError where the class of 'class:NAME' cannot take a model's steps, whose own
    scheduler_config is `config`: it is run on a mixture of Gaussians with a perfect network."""
    kept = {name: value for name, value in config.items() if not name.startswith("_")}
    kept["_class_name"] = config.get("_class_name")
    problem = _obstacle(key, json.dumps(kept, sort_keys=True, default=str),
                        json.dumps(dict(options), sort_keys=True))
    if problem:
        raise RequestError(f"scheduler: received {key!r}, {problem}")


@functools.lru_cache(256)
def _obstacle(key: str, config_text: str, options_text: str) -> str:
    name, config = key.removeprefix(CLASS), json.loads(config_text)
    if name not in scheduler_classes():
        import diffusers

        return (f"which is no scheduler class of diffusers {diffusers.__version__}; accepted "
                f"class: and one of {', '.join(scheduler_classes())}")
    try:
        scale = scale_of(make_scheduler(key, config, json.loads(options_text)))
        if isinstance(scale, Preconditioned):
            return "whose samples are those of EDM's preconditioning, which this model has not"
        if isinstance(scale, Flow) != is_flow_matching(config):
            kind = "flow matching" if isinstance(scale, Flow) else "diffusion"
            return f"which is for models of {kind}, as this one is not"
        for steps in STEPS:
            scheduler = make_scheduler(key, config, json.loads(options_text))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                end = _end(scheduler, steps)
            if scheduler.timesteps[0] < scheduler.timesteps[-1]:
                return "whose timesteps rise: it leads from pictures to noise"
            if not end.isfinite().all():
                return f"which gives values that are not finite in {steps} steps"
    except PipelineError as error:
        return f"which cannot run: {error}"
    except Exception as error:  # whatever a class of diffusers refuses with
        return f"which cannot run as pipelines do it: {type(error).__name__}: {first_line(error)}"
    data = Mixture.three()
    likely = data.log_density(end, 1.0, 0.0).median().item()
    usual = data.log_density(data.sample(1000, torch.Generator().manual_seed(0)), 1.0, 0.0)
    if likely < usual.median().item() - LESS_LIKELY:
        return (f"which does not lead to the data: with a perfect network the points of {steps} "
                f"steps have a log-density of {likely:.1f}, those of the data "
                f"{usual.median().item():.1f}")
    return ""


def _end(scheduler: Any, steps: int) -> torch.Tensor:
    noise = torch.randn(POINTS, 2, dtype=torch.float64,
                        generator=torch.Generator().manual_seed(0))
    state = torch.get_rng_state()
    try:
        return driving.run(scheduler, Mixture.three(), steps, noise, as_in_runs=True).end
    finally:
        torch.set_rng_state(state)
