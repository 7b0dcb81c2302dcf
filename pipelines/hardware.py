"""What a timing was measured on."""

from __future__ import annotations

import functools
import os
import platform
from importlib.metadata import version
from typing import Any

from pipelines.errors import RequestError


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
    """Hardware and library versions, as they stand in the run log."""
    import psutil
    import torch

    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else processor_name()
    return {
        "device": device,
        "device_name": name,
        "cpu_count": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "memory_bytes": psutil.virtual_memory().total,
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "diffusers", "transformers")},
    }
