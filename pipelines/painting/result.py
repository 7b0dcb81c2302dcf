"""What a run gives back: its steps while it runs, its picture and measurements at the end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from pipelines.painting.previews import StepLatents
from pipelines.painting.timing import Timings
from pipelines.request import RunRequest

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image


FLAT = 2.0  # of 255: a picture whose pixels differ by less shows nothing


def spread(image: Image) -> float:
    """The standard deviation of a picture's pixels, of 255, in the channel that has most."""
    from PIL.ImageStat import Stat

    return max(Stat(image.convert("RGB")).stddev)


@dataclass(frozen=True)
class Step:
    """One finished scheduler step; `preview()` decodes the predicted x0, None if it cannot."""

    index: int
    total: int
    preview: Callable[[], Image | None]


@dataclass(frozen=True)
class RunResult:
    """A picture and its measurements; `nfe` counts calls of the denoiser, `denoiser_rows` the rows
    in them (two per call with classifier-free guidance). `shared`: its UNet calls were shared with
    other cells, and its timings are its share of them. `steps`: the predicted x0 on the way.
    `latents` are those that were decoded, on the CPU, without the batch dimension. Of a provider's
    picture no calls are known; `told` is what its answer said."""

    request: RunRequest
    image: Image
    timings: Timings
    nfe: int | None
    denoiser_rows: int | None
    noise_sha256: str | None
    peak_memory_bytes: int | None
    notes: tuple[str, ...] = ()
    shared: bool = False
    steps: StepLatents | None = None
    latents: torch.Tensor | None = None
    told: Mapping[str, Any] = field(default_factory=dict)

    def with_timings(self, **values: float) -> RunResult:
        return replace(self, timings=replace(self.timings, **values))


OnStep = Callable[[Step], None]
