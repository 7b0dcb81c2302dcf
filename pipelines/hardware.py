"""The device, the cores and the memory there are, and what a timing was measured on."""

from __future__ import annotations

import functools
import math
import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pipelines.errors import RequestError

HOSTED_DEVICE = "hosted"  # of pictures that a provider makes; what it has is not known


@functools.cache
def best_device() -> str:
    """'cuda', 'mps' or 'cpu'; CONTACT_SHEET_DEVICE overrules."""
    import torch

    if chosen := os.environ.get("CONTACT_SHEET_DEVICE"):
        try:
            torch.empty(1, device=chosen)
        except (RuntimeError, AssertionError) as error:
            raise RequestError(
                f"CONTACT_SHEET_DEVICE: received {chosen!r}, accepted cpu, cuda, cuda:1 or mps "
                "where this machine has it"
            ) from error
        return chosen
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


@functools.cache
def cores() -> int:
    """The CPU cores that this process may use: those of its affinity, at most a container's quota
    (cgroup v2 or v1) and OMP_NUM_THREADS, at least 1; CONTACT_SHEET_THREADS overrules."""
    if chosen := os.environ.get("CONTACT_SHEET_THREADS"):
        if not chosen.isdecimal() or not 1 <= int(chosen) <= 1024:
            raise RequestError(f"CONTACT_SHEET_THREADS: received {chosen!r}, accepted a whole "
                               "number from 1 to 1024")
        return int(chosen)
    affinity = getattr(os, "sched_getaffinity", None)
    count = len(affinity(0)) if affinity else os.cpu_count() or 1
    limits = [quota for quota in (cgroup_quota(), os.environ.get("OMP_NUM_THREADS"))
              if quota and str(quota).replace(".", "", 1).isdecimal()]
    return max(1, min([count, *(math.ceil(float(limit)) for limit in limits)]))


def cgroup_quota(
    root: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")
) -> float | None:
    """The CPU quota in cores that a container or service has, None without one."""
    quotas = []
    try:
        lines = membership.read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    for line in lines:
        if line.count(":") < 2:
            continue
        _, controllers, path = line.split(":", 2)
        place = Path(path.lstrip("/"))
        for folder in (place, *place.parents):  # a limit holds for all groups below
            if not controllers:
                quotas.append(_quota(root / folder / "cpu.max"))
            elif "cpu" in controllers.split(","):
                quotas += [_quota(base / folder / "cpu.cfs_quota_us",
                                  base / folder / "cpu.cfs_period_us")
                           for base in (root / "cpu", root / controllers)]
    return min((quota for quota in quotas if quota), default=None)


def _quota(*files: Path) -> float | None:
    """Quota over period, from one file or two; None for no limit ('max', -1)."""
    try:
        quota, period = " ".join(file.read_text(encoding="utf-8") for file in files).split()
        return int(quota) / int(period) if int(quota) > 0 else None
    except (OSError, ValueError):
        return None


def default_dtype(device: str) -> str:
    """The dtype a model is loaded in: float16 on CUDA and MPS, float32 on the CPU."""
    return "float32" if device.startswith("cpu") else "float16"


def use_device(device: str) -> None:
    """Make a CUDA device the thread's own, so that events and memory are measured on it."""
    if device.startswith("cuda"):
        import torch

        torch.cuda.set_device(device)


def device_memory_bytes(device: str) -> int:
    """All the memory of a device; for the CPU and MPS the machine's."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.get_device_properties(device).total_memory
    import psutil

    return psutil.virtual_memory().total


def free_memory_bytes(device: str) -> int:
    """What is left of it now."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.mem_get_info(device)[0]
    import psutil

    return psutil.virtual_memory().available


def memory_in_use_bytes() -> int:
    """What the process has of the machine's memory now."""
    import psutil

    return psutil.Process().memory_info().rss


def peak_memory_bytes() -> int:
    """The most that it ever had."""
    import psutil

    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def processor_name() -> str:
    """The CPU's marketing name where the system tells, else its architecture."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


@functools.cache
def environment(device: str) -> dict[str, Any]:
    """Hardware and library versions, as they stand in the run log; of a provider nothing is known
    but what asks it."""
    if device == HOSTED_DEVICE:
        return {"device": device, "device_name": "unknown", "python": platform.python_version(),
                "huggingface_hub": version("huggingface_hub")}
    import psutil

    name = processor_name()
    if device.startswith("cuda"):
        import torch

        name = torch.cuda.get_device_name(device)
    return {
        "device": device,
        "device_name": name,
        "cpu_count": os.cpu_count(),
        "torch_threads": cores(),
        "memory_bytes": psutil.virtual_memory().total,
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "diffusers", "transformers")},
    }
