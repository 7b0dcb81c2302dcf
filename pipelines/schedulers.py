"""The scheduler catalogue: key -> diffusers class, options and what the literature says of it."""

from __future__ import annotations

import contextlib
import functools
import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from pipelines.errors import RequestError
from pipelines.scheduler_options import Option, checked, options_of

if TYPE_CHECKING:
    from diffusers import SchedulerMixin

# What a checkpoint's scheduler_config says of the model; the rest of it describes one solver.
# Passing solver options on leaks them from one scheduler into the next.
MODEL_KEYS = (
    "num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas",
    "prediction_type", "timestep_spacing", "steps_offset", "rescale_betas_zero_snr",
    "clip_sample", "clip_sample_range", "set_alpha_to_one", "skip_prk_steps",
    "shift", "use_dynamic_shifting", "base_shift", "max_shift", "base_image_seq_len",
    "max_image_seq_len", "shift_terminal", "time_shift_type",
)  # fmt: skip

# Also of the model, and options as well; `variance_type` only where the step reads the variance:
# the pipelines cut it off for the others.
SHARED_KEYS = ("use_flow_sigmas", "flow_shift", "variance_type")

# For latent models; the classes' own defaults are for pixels in [-1, 1] (final DDIM latents come
# out with a twentieth of their standard deviation).
LATENT_DEFAULTS = {"clip_sample": False, "set_alpha_to_one": False, "skip_prk_steps": True}

SDE = "sde-dpmsolver++"


@dataclass(frozen=True)
class SchedulerInfo:
    """One line of the catalogue.

    `order` is the nominal order of accuracy of the deterministic solver (strong order for SDE
    solvers is lower); `evaluations_per_step` counts calls of the denoiser, whose last step may
    need fewer; `flow_matching` schedulers go with flow-matching models only, the others with the
    rest, and those with `flow_sigmas` also with a flow-matching model whose own scheduler has them;
    `stochastic` means that fresh noise is drawn in every step, `noise_by_eta` that it is
    where the request's eta is above 0; `in_sigmas` that samples are as large as sigma, where the
    others keep the variance.
    """

    key: str
    label: str
    class_name: str
    family: str
    order: int
    paper: str
    stochastic: bool = False
    evaluations_per_step: int = 1
    extra_evaluations: int = 0  # in a whole run of several steps
    flow_matching: bool = False
    flow_sigmas: bool = False  # to the end: DEIS and SA-Solver stop at their last sigma above 0
    noise_by_eta: bool = False
    in_sigmas: bool = False
    reads_variance: bool = False  # its step reads a variance that the model predicts
    options: Mapping[str, Any] = field(default_factory=dict)

    def evaluations(self, num_inference_steps: int) -> int:
        """Denoiser calls for a whole text-to-image run; the forecast, runs count their own."""
        last_step_saves = self.evaluations_per_step - 1
        extra = self.extra_evaluations if num_inference_steps > 1 else 0
        return self.evaluations_per_step * num_inference_steps - last_step_saves + extra


DPM_PAPER = "Lu et al. 2022, DPM-Solver++, arXiv:2211.01095"
EDM_PAPER = "Karras et al. 2022, EDM, arXiv:2206.00364"
FLOW_PAPER = "Esser et al. 2024, Stable Diffusion 3, arXiv:2403.03206"
KARRAS = {"use_karras_sigmas": True}

# One line adds a scheduler.
CATALOGUE: tuple[SchedulerInfo, ...] = (
    SchedulerInfo("ddim", "DDIM", "DDIMScheduler", "DDIM", 1,
                  "Song et al. 2020, DDIM, arXiv:2010.02502", noise_by_eta=True),
    SchedulerInfo("ddpm", "DDPM", "DDPMScheduler", "DDPM", 1,
                  "Ho et al. 2020, DDPM, arXiv:2006.11239", stochastic=True,
                  reads_variance=True),
    SchedulerInfo("pndm", "PNDM", "PNDMScheduler", "PNDM", 4,
                  "Liu et al. 2022, PNDM, arXiv:2202.09778", extra_evaluations=1),
    SchedulerInfo("lms", "LMS", "LMSDiscreteScheduler", "LMS", 4,
                  "Crowson 2022, k-diffusion; " + EDM_PAPER, in_sigmas=True),
    SchedulerInfo("lms_karras", "LMS Karras", "LMSDiscreteScheduler", "LMS", 4,
                  "Crowson 2022, k-diffusion; " + EDM_PAPER, options=KARRAS, in_sigmas=True),
    SchedulerInfo("euler", "Euler", "EulerDiscreteScheduler", "Euler", 1, EDM_PAPER,
                  in_sigmas=True),
    SchedulerInfo("euler_karras", "Euler Karras", "EulerDiscreteScheduler", "Euler", 1, EDM_PAPER,
                  options=KARRAS, in_sigmas=True),
    SchedulerInfo("euler_a", "Euler a", "EulerAncestralDiscreteScheduler", "Euler", 1,
                  "Crowson 2022, k-diffusion; Song et al. 2021, arXiv:2011.13456",
                  stochastic=True, in_sigmas=True),
    SchedulerInfo("heun", "Heun", "HeunDiscreteScheduler", "Heun", 2, EDM_PAPER,
                  evaluations_per_step=2, in_sigmas=True),
    SchedulerInfo("heun_karras", "Heun Karras", "HeunDiscreteScheduler", "Heun", 2, EDM_PAPER,
                  evaluations_per_step=2, options=KARRAS, in_sigmas=True),
    SchedulerInfo("kdpm2", "KDPM2", "KDPM2DiscreteScheduler", "KDPM2", 2, EDM_PAPER,
                  evaluations_per_step=2, in_sigmas=True),
    SchedulerInfo("kdpm2_a", "KDPM2 a", "KDPM2AncestralDiscreteScheduler", "KDPM2", 2, EDM_PAPER,
                  stochastic=True, evaluations_per_step=2, in_sigmas=True),
    SchedulerInfo("dpmpp_2m", "DPM++ 2M", "DPMSolverMultistepScheduler", "DPM-Solver++", 2,
                  DPM_PAPER, flow_sigmas=True),
    SchedulerInfo("dpmpp_2m_karras", "DPM++ 2M Karras", "DPMSolverMultistepScheduler",
                  "DPM-Solver++", 2, DPM_PAPER + "; " + EDM_PAPER, options=KARRAS),
    SchedulerInfo("dpmpp_3m", "DPM++ 3M", "DPMSolverMultistepScheduler", "DPM-Solver++", 3,
                  DPM_PAPER, flow_sigmas=True, options={"solver_order": 3}),
    SchedulerInfo("dpmpp_2s", "DPM++ 2S", "DPMSolverSinglestepScheduler", "DPM-Solver++", 2,
                  DPM_PAPER, flow_sigmas=True, options={"lower_order_final": True}),
    SchedulerInfo("dpmpp_2m_sde", "DPM++ 2M SDE", "DPMSolverMultistepScheduler", "DPM-Solver++",
                  2, DPM_PAPER, stochastic=True, flow_sigmas=True,
                  options={"algorithm_type": SDE}),
    SchedulerInfo("dpmpp_2m_sde_karras", "DPM++ 2M SDE Karras", "DPMSolverMultistepScheduler",
                  "DPM-Solver++", 2, DPM_PAPER + "; " + EDM_PAPER, stochastic=True,
                  options={"algorithm_type": SDE, **KARRAS}),
    SchedulerInfo("dpmpp_sde", "DPM++ SDE", "DPMSolverSDEScheduler", "DPM-Solver++", 2,
                  DPM_PAPER, stochastic=True, evaluations_per_step=2, in_sigmas=True),
    SchedulerInfo("dpmpp_sde_karras", "DPM++ SDE Karras", "DPMSolverSDEScheduler", "DPM-Solver++",
                  2, DPM_PAPER + "; " + EDM_PAPER, stochastic=True, evaluations_per_step=2,
                  options=KARRAS, in_sigmas=True),
    SchedulerInfo("unipc", "UniPC", "UniPCMultistepScheduler", "UniPC", 3,
                  "Zhao et al. 2023, UniPC, arXiv:2302.04867", flow_sigmas=True),
    SchedulerInfo("deis", "DEIS", "DEISMultistepScheduler", "DEIS", 2,
                  "Zhang and Chen 2022, DEIS, arXiv:2204.13902"),
    SchedulerInfo("sa_solver", "SA-Solver", "SASolverScheduler", "SA-Solver", 2,
                  "Xue et al. 2023, SA-Solver, arXiv:2309.05019", stochastic=True),
    SchedulerInfo("lcm", "LCM", "LCMScheduler", "consistency", 1,
                  "Luo et al. 2023, LCM, arXiv:2310.04378", stochastic=True),
    SchedulerInfo("tcd", "TCD", "TCDScheduler", "consistency", 1,
                  "Zheng et al. 2024, TCD, arXiv:2402.19159", noise_by_eta=True),
    SchedulerInfo("flow_euler", "Flow Euler", "FlowMatchEulerDiscreteScheduler", "flow matching",
                  1, FLOW_PAPER, flow_matching=True),
    SchedulerInfo("flow_heun", "Flow Heun", "FlowMatchHeunDiscreteScheduler", "flow matching", 2,
                  FLOW_PAPER, evaluations_per_step=2, flow_matching=True),
    SchedulerInfo("flow_lcm", "Flow LCM", "FlowMatchLCMScheduler", "flow matching", 1,
                  "Luo et al. 2023, LCM, arXiv:2310.04378", stochastic=True, flow_matching=True),
)

# It asks between the timesteps of the training: only for models that are known in closed form.
EXACT = SchedulerInfo("exact", "Exact (DOP853)", "ExactScheduler", "Runge-Kutta", 8,
                      "Prince and Dormand 1981, DOP853", evaluations_per_step=12,
                      extra_evaluations=12)

BY_KEY = {info.key: info for info in (*CATALOGUE, EXACT)}
# Classes with the solver of another class, for which the catalogue has an entry.
LIKE = {"DDIMParallelScheduler": "ddim", "CogVideoXDDIMScheduler": "ddim",
        "DDPMParallelScheduler": "ddpm"}
CLASS = "class:"  # before the name of a scheduler class of diffusers


def known_scheduler(key: str) -> SchedulerInfo | None:
    """The catalogue's line for `key`; for 'class:NAME' the line of a scheduler class as it is, with
    what the catalogue says of the class where it has it. None for others."""
    if key in BY_KEY or not re.fullmatch(rf"{CLASS}[A-Za-z]\w*", key):
        return BY_KEY.get(key)
    name = key.removeprefix(CLASS)
    if listed := key_of_class(name) or LIKE.get(name):
        return replace(BY_KEY[listed], key=key, label=name, class_name=name, options={})
    return SchedulerInfo(key, name, name, "a class of diffusers", 0, "not in the catalogue",
                         flow_matching=name.startswith("FlowMatch"))


@functools.cache
def scheduler_classes() -> tuple[str, ...]:
    """The names of diffusers' scheduler classes."""
    import diffusers

    classes = {name: getattr(diffusers, name) for name in sorted(dir(diffusers))
               if name.endswith("Scheduler")}
    return tuple(name for name, cls in classes.items()
                 if inspect.isclass(cls) and issubclass(cls, diffusers.SchedulerMixin))


def expected_evaluations(key: str, num_inference_steps: int) -> int:
    """Denoiser calls of a run, before it runs; one per step for a scheduler of its own kind."""
    info = known_scheduler(key)
    return info.evaluations(num_inference_steps) if info else num_inference_steps


def scheduler_info(key: str) -> SchedulerInfo:
    """The catalogue's line for `key`; raises RequestError with the keys that exist."""
    if info := known_scheduler(key):
        return info
    raise RequestError(f"scheduler: received {key!r}, accepted {', '.join(BY_KEY)}, or "
                       f"{CLASS}NAME for a scheduler class of diffusers")


def key_of_class(class_name: str) -> str | None:
    """The plain catalogue entry of a diffusers class, None where there is none."""
    return next((info.key for info in CATALOGUE if info.class_name == class_name), None)


def is_flow_matching(original_config: Mapping[str, Any]) -> bool:
    """Whether a checkpoint's scheduler_config belongs to a flow-matching model."""
    return (
        str(original_config.get("_class_name", "")).startswith("FlowMatch")
        or original_config.get("prediction_type") == "flow_prediction"
        or bool(original_config.get("use_flow_sigmas"))
    )


def compatible_schedulers(original_config: Mapping[str, Any]) -> tuple[SchedulerInfo, ...]:
    """The catalogue's entries for a checkpoint: its own (Sana's is DPM-Solver++) and flow-matching
    ones or the others; those with flow sigmas too where its own has them; none where its own is of
    another kind (EDM's preconditioning, unCLIP, Wuerstchen, consistency models)."""
    flow = is_flow_matching(original_config)
    own = key_of_class(str(original_config.get("_class_name")))
    if original_config.get("_class_name") and not flow and own is None:
        return ()
    with_sigmas = bool(original_config.get("use_flow_sigmas"))
    fitting = tuple(info for info in CATALOGUE if info.flow_matching == flow or info.key == own
                    or (info.flow_sigmas and with_sigmas))
    return (*fitting, EXACT) if original_config.get("_closed_form") else fitting


def own_scheduler(original_config: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The checkpoint's own scheduler as key and options that differ from the class's own.

    The key is 'default' where the catalogue has no such class.
    """
    key = key_of_class(original_config.get("_class_name", ""))
    if key is None:
        return "default", {}
    own = {}
    for name, option in accepted_options(key).items():
        default = BY_KEY[key].options.get(name, option.default)
        if name in original_config and name not in MODEL_KEYS:
            with contextlib.suppress(ValueError, TypeError, OverflowError):  # the class ignores it
                value = option.value(original_config[name])
                own |= {name: value} if value != default else {}
    return key, own


def scheduler_class(key: str) -> type[SchedulerMixin]:
    import diffusers

    if key == EXACT.key:
        from pipelines.laboratory.exact_scheduler import ExactScheduler

        return ExactScheduler
    name = scheduler_info(key).class_name
    if name not in scheduler_classes():
        raise RequestError(f"scheduler: received {key!r}, accepted {CLASS} and one of "
                           f"{', '.join(scheduler_classes())}")
    return getattr(diffusers, name)


@functools.cache
def accepted_options(key: str) -> Mapping[str, Option]:
    """Constructor options of a scheduler, without those of the model."""
    fixed = {"noise_sampler_seed", *MODEL_KEYS} - {"timestep_spacing"}
    return {name: option for name, option in options_of(scheduler_class(key)).items()
            if name not in fixed}


def checked_options(key: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Options as the scheduler takes them, 'no' as False; RequestError where it does not, or where
    `key` is 'default': a scheduler that is not of the catalogue."""
    if not options:
        return {}
    if key == "default":
        raise RequestError(f"scheduler_options: received {', '.join(options)}, accepted none for "
                           "this model's own scheduler")
    return checked(scheduler_info(key).label, accepted_options(key), options)


def option_notes(scheduler: SchedulerMixin, options: Mapping[str, Any]) -> Iterator[str]:
    """The options that a scheduler replaced, or never looks at."""
    name_of_class, described = type(scheduler).__name__, options_of(type(scheduler))
    for name, value in options.items():
        used = scheduler.config.get(name)
        if used != value:
            yield f"scheduler_options: {name_of_class} took {name}={used!r} in place of {value!r}"
        elif name in described and not described[name].read:
            yield f"scheduler_options: {name} has no effect, {name_of_class} never reads it"


def make_scheduler(
    key: str,
    original_config: Mapping[str, Any],
    options: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> SchedulerMixin:
    """A fresh scheduler for one run, always from the checkpoint's original config.

    `options` overrule the catalogue's; `seed` only feeds DPMSolverSDE, whose Brownian tree has a
    seed of its own. Raises RequestError for an unknown key or option, or another family's key.
    """
    if key == "default":
        return _from_original(original_config)
    fits = compatible_schedulers(original_config)
    if key in BY_KEY and BY_KEY[key] not in fits:
        fitting = ", ".join(info.key for info in fits) or "default"
        kind = "a flow-matching model" if is_flow_matching(original_config) else "this model"
        raise RequestError(f"scheduler: received {key!r}, accepted for {kind}: {fitting}")
    info, cls = scheduler_info(key), scheduler_class(key)
    options = checked_options(key, options or {})
    model = {k: original_config[k] for k in (*MODEL_KEYS, *SHARED_KEYS) if k in original_config}
    if not info.reads_variance:
        model.pop("variance_type", None)
    config = {**LATENT_DEFAULTS, **model, **info.options, **options}
    parameters = inspect.signature(cls.__init__).parameters
    config = {k: v for k, v in config.items() if k in parameters}
    if "noise_sampler_seed" in parameters:
        config["noise_sampler_seed"] = seed % 2**32
    try:
        return cls(**config)
    except (NotImplementedError, ImportError, ValueError, TypeError) as error:
        raise RequestError(f"scheduler_options of {info.label}: {error}") from error


def _from_original(original_config: Mapping[str, Any]) -> SchedulerMixin:
    """The checkpoint's own scheduler, of a class that the catalogue does not have."""
    import diffusers

    cls = getattr(diffusers, str(original_config.get("_class_name")), None)
    if cls is None:
        raise RequestError(
            f"scheduler: this model's own, {original_config.get('_class_name')}, is none of "
            "diffusers'; choose one by name"
        )
    return cls.from_config(dict(original_config))
