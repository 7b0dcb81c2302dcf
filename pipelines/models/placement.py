"""Where weights lie, as what they are kept, and how much memory that takes."""

from __future__ import annotations

import gc
import math
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, get_args

from pipelines.errors import RequestError
from pipelines.hardware import device_memory_bytes
from pipelines.models.info import ModelInfo
from pipelines.models.parts import AUTOENCODERS, DENOISERS
from pipelines.models.reading import checkpoint_shapes
from pipelines.request import MemoryPolicy

if TYPE_CHECKING:
    import torch
    from diffusers import DiffusionPipeline

MEMORY_SHARE = 0.6  # the rest is for activations and for others
# From the fastest to the one that needs least of the device's memory.
MEMORY_POLICIES = get_args(MemoryPolicy)[1:]  # all but 'auto'
SMALL_NETWORK = 50e6  # weights
BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}


def choose_policy(info: ModelInfo, dtype: str, asked: str, device: str, limit: int) -> str:
    """The memory policy asked for; 'auto' is the fastest one whose weights take `limit` bytes."""
    if device.startswith("cpu"):
        if asked not in ("auto", "device"):
            raise RequestError(f"memory_policy: received {asked!r}, accepted on the CPU: auto, "
                               "device; there is no other memory to move weights to")
        return "device"
    if asked != "auto":
        return asked
    # A model offloaded whole needs its largest part only, about two thirds of a large one.
    size, shares = loaded_bytes(info, dtype), {"device": 1.0, "model-offload": 0.67}
    return next((policy for policy, share in shares.items() if size * share <= limit),
                "group-offload")


def memory_limit(device: str) -> int:
    """Bytes that weights may take of a device's memory."""
    return int(MEMORY_SHARE * device_memory_bytes(device))


def place(pipe: DiffusionPipeline, device: str, policy: str) -> None:
    """Put a pipeline's weights where a memory policy wants them."""
    import torch

    match policy:
        case "device":
            pipe.to(device)
            if device.startswith("cpu"):
                _lay_out(pipe)
        case "model-offload":
            pipe.enable_model_cpu_offload(device=device)
        case "group-offload":
            pipe.enable_group_offload(
                onload_device=torch.device(device), offload_type="leaf_level",
                use_stream=device.startswith("cuda"),
            )
        case "sequential-offload":
            pipe.enable_sequential_cpu_offload(device=device)


def _lay_out(pipe: DiffusionPipeline) -> None:
    """Channels last where the CPU's convolutions gain from it: autoencoders (8 to 18 % of their
    time) and small denoisers (5 to 12 %), not those of SD's size (which lose 3 %)."""
    import torch

    for name, part in pipe.components.items():
        if isinstance(part, torch.nn.Module) and (
            name in AUTOENCODERS or sum(p.numel() for p in part.parameters()) < SMALL_NETWORK
        ):
            for module in part.modules():
                if isinstance(module, torch.nn.Conv2d):
                    module.to(memory_format=torch.channels_last)


def advice(policy: str, device: str) -> str:
    """What to try next when memory ran out, as the end of an error message."""
    if device.startswith("cpu"):
        return ""
    rest = MEMORY_POLICIES[MEMORY_POLICIES.index(policy) + 1 :]
    return f"; try the memory_policy {rest[0]!r}" if rest else ""


def weight_bytes(pipe: DiffusionPipeline) -> int:
    """Bytes of all weights of a pipeline, shared ones counted once."""
    import torch

    tensors: dict[int, torch.Tensor] = {}
    for part in pipe.components.values():
        if isinstance(part, torch.nn.Module):
            tensors |= {id(t): t for t in (*part.parameters(), *part.buffers())}
    return sum(tensor.nbytes for tensor in tensors.values())


def free_memory(device: str) -> None:
    """Give back what no object holds any more."""
    gc.collect()
    if device.startswith(("cuda", "mps")):
        import torch

        torch.get_device_module(device).empty_cache()


def loaded_bytes(info: ModelInfo, dtype: str) -> int:
    """Bytes of a model's weights once they are loaded, from the headers of its files."""
    shapes = (shape for file in info.weight_files for shape in checkpoint_shapes(file).values())
    return BYTES[dtype] * sum(math.prod(shape) for shape in shapes)


def quantized(info: ModelInfo, quantization: str | None, device: str) -> dict[str, Any]:
    """The keyword that makes `from_pretrained` quantise the denoiser; RequestError where the
    library for it is missing."""
    if not quantization:
        return {}
    backend = {"int8": "torchao", "int4": "bitsandbytes"}[quantization]
    if not find_spec(backend):
        raise RequestError(f"quantization: {quantization} needs the library {backend}, which is "
                           f"not installed (pip install {backend})")
    if quantization == "int4" and not device.startswith("cuda"):
        raise RequestError(f"quantization: int4 needs CUDA, this device is {device}; accepted: "
                           "int8")
    from diffusers import BitsAndBytesConfig, PipelineQuantizationConfig, TorchAoConfig

    if quantization == "int8":
        from torchao.quantization import Int8WeightOnlyConfig

        config: Any = TorchAoConfig(Int8WeightOnlyConfig())
    else:
        config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
    denoiser = next((name for name in DENOISERS if (info.folder / name).is_dir()), DENOISERS[0])
    return {"quantization_config": PipelineQuantizationConfig(quant_mapping={denoiser: config})}
