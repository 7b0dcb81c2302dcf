"""Names of samplers and noise schedules in other programs, and the schedulers of the catalogue.

A name that is missing here has no scheduler of diffusers that does the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipelines.schedulers import BY_KEY, CATALOGUE

BH1 = {"solver_type": "bh1"}
HEUN = {"solver_type": "heun"}

# A1111's and Forge's name -> key, and options where the catalogue's are others.
A1111: dict[str, Any] = {
    "Euler": "euler", "Euler a": "euler_a", "LMS": "lms", "Heun": "heun", "DPM2": "kdpm2",
    "DPM2 a": "kdpm2_a", "DPM++ 2M": "dpmpp_2m", "DPM++ SDE": "dpmpp_sde",
    "DPM++ 2M SDE": "dpmpp_2m_sde", "DPM++ 2M SDE Heun": ("dpmpp_2m_sde", HEUN), "DDIM": "ddim",
    "PLMS": "pndm", "UniPC": ("unipc", BH1), "LCM": "lcm", "TCD": "tcd", "DEIS": "deis",
    "DDPM": "ddpm",
}
COMFYUI: dict[str, Any] = {
    "euler": "euler", "euler_ancestral": "euler_a", "heun": "heun", "dpm_2": "kdpm2",
    "dpm_2_ancestral": "kdpm2_a", "lms": "lms", "dpmpp_sde": "dpmpp_sde",
    "dpmpp_sde_gpu": "dpmpp_sde", "dpmpp_2m": "dpmpp_2m", "dpmpp_2m_sde": "dpmpp_2m_sde",
    "dpmpp_2m_sde_gpu": "dpmpp_2m_sde", "dpmpp_2m_sde_heun": ("dpmpp_2m_sde", HEUN),
    "dpmpp_2m_sde_heun_gpu": ("dpmpp_2m_sde", HEUN), "ddpm": "ddpm", "ddim": "ddim",
    "uni_pc": ("unipc", BH1), "uni_pc_bh2": "unipc", "lcm": "lcm", "deis": "deis",
    "sa_solver": "sa_solver",
}
INVOKEAI: dict[str, Any] = {
    "ddim": "ddim", "ddpm": "ddpm", "deis": "deis", "deis_k": "deis", "lms": "lms",
    "lms_k": "lms", "pndm": "pndm", "heun": "heun", "heun_k": "heun", "euler": "euler",
    "euler_k": "euler", "euler_a": "euler_a", "kdpm_2": "kdpm2", "kdpm_2_k": "kdpm2",
    "kdpm_2_a": "kdpm2_a", "kdpm_2_a_k": "kdpm2_a", "dpmpp_2s": "dpmpp_2s",
    "dpmpp_2s_k": "dpmpp_2s", "dpmpp_2m": "dpmpp_2m", "dpmpp_2m_k": "dpmpp_2m",
    "dpmpp_2m_sde": "dpmpp_2m_sde", "dpmpp_2m_sde_k": "dpmpp_2m_sde", "dpmpp_3m": "dpmpp_3m",
    "dpmpp_3m_k": "dpmpp_3m", "dpmpp_sde": "dpmpp_sde", "dpmpp_sde_k": "dpmpp_sde",
    "unipc": "unipc", "unipc_k": "unipc", "lcm": "lcm", "tcd": "tcd",
    # Up to version 2.
    "plms": "pndm", "k_lms": "lms", "k_heun": "heun", "k_euler": "euler", "k_euler_a": "euler_a",
    "k_dpm_2": "kdpm2", "k_dpm_2_a": "kdpm2_a", "k_dpmpp_2": "dpmpp_2m",
}
NOVELAI: dict[str, Any] = {
    "k_euler": "euler", "k_euler_ancestral": "euler_a", "k_dpm_2": "kdpm2",
    "k_dpm_2_ancestral": "kdpm2_a", "k_dpmpp_2m": "dpmpp_2m", "k_dpmpp_sde": "dpmpp_sde",
    "k_dpmpp_2m_sde": "dpmpp_2m_sde", "k_lms": "lms", "ddim": "ddim", "ddim_v3": "ddim",
    "plms": "pndm",
}
DIFFUSERS: dict[str, Any] = (
    {info.class_name: info.key for info in reversed(CATALOGUE)} | {key: key for key in BY_KEY})

# A noise schedule's name in any of them -> options of the scheduler.
SCHEDULES: dict[str, Mapping[str, Any]] = {
    "": {}, "uniform": {}, "normal": {}, "automatic": {}, "native": {}, "default": {},
    "karras": {"use_karras_sigmas": True}, "exponential": {"use_exponential_sigmas": True},
    "beta": {"use_beta_sigmas": True}, "sgm uniform": {"timestep_spacing": "trailing"},
    "simple": {"timestep_spacing": "trailing"}, "ddim": {"timestep_spacing": "leading"},
    "ddim uniform": {"timestep_spacing": "leading"},
}
# What A1111 takes for its schedule 'Automatic'.
AUTOMATIC = {"DPM++ 2M": "Karras", "DPM++ SDE": "Karras", "DPM2": "Karras", "DPM2 a": "Karras",
             "DPM++ 2M SDE": "Exponential", "DPM++ 2M SDE Heun": "Exponential"}


def scheduler_values(
    program: Mapping[str, Any], sampler: str, schedule: str = ""
) -> tuple[dict[str, Any], list[str]]:
    """`scheduler` and `scheduler_options` for another program's names, and what could not be
    translated. `program` is one of the tables above."""
    names = {name.casefold(): entry for name, entry in program.items()}
    sampler, schedule = sampler.strip(), schedule.strip()
    entry = names.get(sampler.casefold())
    if entry is None and program is A1111:  # before version 1.9 the schedule stood in the name
        head, _, tail = sampler.rpartition(" ")
        if tail.casefold() in ("karras", "exponential") and head.casefold() in names:
            entry, schedule = names[head.casefold()], schedule or tail
    if not sampler:
        return {}, ["sampler: it names none; the model's own is taken"]
    if entry is None:
        return {}, [f"sampler: {sampler[:80]!r} has no scheduler of the same kind here; the "
                    "model's own is taken"]
    key, options = (entry, {}) if isinstance(entry, str) else entry
    if program is A1111 and schedule.casefold() == "automatic":
        schedule = AUTOMATIC.get(sampler, "")
    if program is INVOKEAI and sampler.endswith("_k"):
        schedule = "karras"
    wanted = SCHEDULES.get(schedule.casefold().replace("_", " "))
    notes = []
    if wanted is None:
        notes.append(f"noise schedule: {schedule[:80]!r} is not known here; the scheduler's own is "
                     "taken")
        wanted = {}
    if wanted.get("use_karras_sigmas") and f"{key}_karras" in BY_KEY:
        key, wanted = f"{key}_karras", {}
    values: dict[str, Any] = {"scheduler": key}
    if options or wanted:
        values["scheduler_options"] = {**options, **wanted}
    return values, notes


def a1111_names(key: str, options: Mapping[str, Any]) -> tuple[str, str]:
    """Sampler and schedule type as A1111 would write them; the catalogue's own label where it has
    no such sampler."""
    schedule = "Uniform"
    if key.endswith("_karras"):
        key, schedule = key.removesuffix("_karras"), "Karras"
    for name, changes in SCHEDULES.items():
        if changes and all(options.get(option) == value for option, value in changes.items()):
            schedule = "SGM Uniform" if name == "sgm uniform" else name.capitalize()
            break
    labels = {(entry if isinstance(entry, str) else entry[0]): name
              for name, entry in reversed(A1111.items())}
    return labels.get(key, BY_KEY[key].label if key in BY_KEY else key), schedule
