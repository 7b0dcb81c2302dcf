"""What a size costs, roughly, told from a model's files before anything runs.

Attention compares each place of a picture with every other: twice the side is sixteen times the
work. A call of a network is not stopped inside a layer, and a process that asks for more memory
than there is may be killed, so what is far too large is refused, up to limits that can be raised.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pipelines.errors import RequestError
from pipelines.hardware import cores, device_memory_bytes
from pipelines.models.files import read_json
from pipelines.models.info import ModelInfo
from pipelines.models.parts import AUTOENCODERS, DENOISERS
from pipelines.models.quirks import latent_factor
from pipelines.request import RunRequest

MAX_MINUTES, MAX_GB = "CONTACT_SHEET_MAX_MINUTES", "CONTACT_SHEET_MAX_GB"
MINUTES = 10.0  # that one call of a network may take
OWN_SIDE = 1024  # pixels, for models whose files name no size
# Multiplications and additions a second: of a CPU for each core, of the others in all.
SPEEDS = {"cpu": 3e10, "mps": 3e12, "cuda": 3e13}
# Attention that writes its table of places by places, and how much of it at once; MPS always does.
TABLES = {"eager": 1.0, "_native_math": 1.0, "sliced": 0.5}
ACTIVATION_BYTES = 4
LINEAR = ("SanaTransformer2DModel",)  # attention that does not compare each with every other


@dataclass(frozen=True)
class CallCost:
    """One call of a network: `seconds` and `bytes`, right within a factor of some three."""

    network: str
    seconds: float
    bytes: float


@dataclass
class _Work:
    operations: float = 0.0
    bytes: float = 0.0

    def attend(self, places: float, channels: int, layers: int = 1, square: bool = True) -> None:
        """A transformer's layers: attention, projections and the feed-forward part."""
        per_place = 24 * channels**2 + (4 * places * channels if square else 0)
        self.operations += layers * places * per_place


def call_costs(request: RunRequest, info: ModelInfo, device: str) -> list[CallCost]:
    """The calls of a resolved request's denoiser and decoder; none for kinds that are not known."""
    if not (request.height and request.width):
        return []
    with contextlib.suppress(TypeError, ValueError, IndexError, KeyError):  # an unusual config
        return list(_call_costs(request, info, device))
    return []


def _call_costs(request: RunRequest, info: ModelInfo, device: str) -> Iterator[CallCost]:
    pixels, kind = request.height * request.width, device.split(":")[0]
    speed = SPEEDS.get(kind, SPEEDS["cuda"]) * (cores() if kind == "cpu" else 1)
    table = 1.0 if kind == "mps" else TABLES.get(request.attention_backend, 0.0)
    autoencoder = _config(info, AUTOENCODERS)[1]
    name, config = _config(info, DENOISERS)
    if work := _denoiser(config, pixels, latent_factor(autoencoder), info.size_multiple, table):
        rows = 2 if (request.guidance_scale or 0) > 1 else 1
        yield CallCost(name, rows * work.operations / speed, rows * work.bytes)
    if "decoder_block_out_channels" not in autoencoder and "block_out_channels" in autoencoder:
        work = _decoder(autoencoder, pixels)
        yield CallCost("decoder", work.operations / speed, work.bytes)


def check_cost(request: RunRequest, info: ModelInfo, device: str) -> None:
    """Raise RequestError where a size above the model's own costs more than the limits."""
    own = info.width or OWN_SIDE, info.height or OWN_SIDE
    if (request.height or 0) * (request.width or 0) <= own[0] * own[1]:
        return
    minutes = _limit(MAX_MINUTES, MINUTES)
    memory = _limit(MAX_GB, device_memory_bytes(device) / 1e9)
    for cost in call_costs(request, info, device):
        if cost.seconds <= 60 * minutes and cost.bytes <= memory * 1e9:
            continue
        raise RequestError(
            f"width, height: received {request.width} x {request.height} for a model of "
            f"{own[0]} x {own[1]} px; each call of its {cost.network} would take about "
            f"{_duration(cost.seconds)} and {cost.bytes / 1e9:.2g} GB on {device}, accepted up to "
            f"{minutes:g} minutes and {memory:.3g} GB; {MAX_MINUTES} and {MAX_GB} raise that")


def _limit(name: str, default: float) -> float:
    """A limit of the environment, or its default."""
    text = os.environ.get(name)
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not value > 0:
        raise RequestError(f"{name}: received {text!r}, accepted a number above 0")
    return value


def _config(info: ModelInfo, names: tuple[str, ...]) -> tuple[str, dict[str, Any]]:
    """The first part of these names that a model has, and its config."""
    configs = ((name, read_json(info.folder / name / "config.json")) for name in names)
    return next(((name, config) for name, config in configs if config), ("", {}))


def _denoiser(
    config: Mapping[str, Any], pixels: int, factor: int, multiple: int, table: float
) -> _Work | None:
    """One row of a UNet or a transformer, None for others; `table`: the part of attention's table
    that is written at once."""
    work = _Work()
    if "UNet" in str(config.get("_class_name")) and "down_block_types" in config:
        for level, places, channels, layers in _levels(config, pixels / factor**2):
            attends = "Attn" in config["down_block_types"][level]
            blocks = 2 * layers + 1
            # Two convolutions each, those of the way up on twice the channels.
            work.operations += places * blocks * 45 * channels**2
            work.bytes += places * channels * ACTIVATION_BYTES * (blocks + 2)
            if attends:
                depth = _at(config.get("transformer_layers_per_block"), level)
                work.attend(places, channels, blocks * depth)
                heads = _at(config.get("num_attention_heads")
                            or config.get("attention_head_dim"), level)
                work.bytes = max(work.bytes, table * heads * places**2 * ACTIVATION_BYTES)
        return work
    layers = [config.get(name) or 0 for name in ("num_layers", "num_single_layers")]
    heads, width = config.get("num_attention_heads"), config.get("attention_head_dim")
    if not (isinstance(heads, int) and isinstance(width, int) and sum(layers)):
        return None
    places, channels = pixels / multiple**2, heads * width
    work.attend(places, channels, sum(layers), config.get("_class_name") not in LINEAR)
    work.bytes = max(places * channels * ACTIVATION_BYTES * 12,
                     table * heads * places**2 * ACTIVATION_BYTES)
    return work


def _decoder(config: Mapping[str, Any], pixels: int) -> _Work:
    """An autoencoder's way from latents to pixels."""
    work = _Work()
    for _, places, channels, layers in _levels(config, pixels):
        work.operations += places * (layers + 1) * 36 * channels**2
        work.bytes = max(work.bytes, places * channels * ACTIVATION_BYTES * 3)
    if config.get("mid_block_add_attention", True):
        work.attend(places, channels)
    return work


def _levels(config: Mapping[str, Any], places: float) -> Iterator[tuple[int, float, int, int]]:
    """Each level's number, places, channels and layers, the finest first."""
    for level, channels in enumerate(config["block_out_channels"]):
        yield level, places / 4**level, channels, _at(config.get("layers_per_block"), level)


def _at(value: Any, level: int) -> int:
    """A config's number, which may be given for each level; 1 where there is none."""
    if isinstance(value, (list, tuple)):
        value = value[min(level, len(value) - 1)] if value else 1
    if isinstance(value, (list, tuple)):
        value = sum(value)
    return value if isinstance(value, int) else 1


def _duration(seconds: float) -> str:
    """'20 s', '45 min', '7 h' or '30 days'."""
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(1, seconds):.0f} s"
