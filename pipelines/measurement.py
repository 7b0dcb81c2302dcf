"""How far the cells of a comparison lie from a reference: a cell, or the converged picture."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from pipelines.axes import make_axis
from pipelines.comparison import Comparison, axes_key
from pipelines.errors import RequestError
from pipelines.request import RunRequest
from pipelines.run_log import Distance, Run
from pipelines.schedulers import BY_KEY
from pipelines.stores import LatentStore, PictureStore

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

    from pipelines.clip import Clip

CONVERGED = "converged"
# Scheduler, options, steps. Karras spacing reaches the last timestep whatever the checkpoint's
# timestep_spacing is. Where a picture is the start, only even spacing starts at its noise level.
CONVERGED_BY = ("dpmpp_2m_karras", {}, 200)
CONVERGED_FROM_IMAGE = ("dpmpp_2m", {"timestep_spacing": "linspace"}, 400)
CONVERGED_FLOW = ("flow_euler", {}, 500)
SMALLEST_SSIM = 11  # pixels: the window of Wang et al. 2004


def converged_request(request: RunRequest) -> RunRequest:
    """The run that stands for the exact solution of a resolved request's probability flow ODE.

    Same latents, prompt, guidance and size; a deterministic solver with many steps.
    """
    known = BY_KEY.get(request.scheduler)
    solver = CONVERGED_FROM_IMAGE if request.image else CONVERGED_BY
    scheduler, options, steps = CONVERGED_FLOW if known and known.flow_matching else solver
    return request.changed(
        scheduler=scheduler, scheduler_options=options, num_inference_steps=steps, eta=0.0,
        attention_backend="native", cache="none", compile=False,
    )


def reference_cells(comparison: Comparison, text: str) -> list[int]:
    """For each cell the number of its reference cell, from a text such as
    'scheduler=ddim,num_inference_steps=50'; an axis that it leaves out keeps the cell's own value.

    Raises RequestError where the text names no value of an axis.
    """
    wanted = _parse_cell(comparison, text)
    cells = comparison.cells
    places = {axes_key(cell.axes): number for number, cell in enumerate(cells)}
    return [places[axes_key({**cell.axes, **wanted})] for cell in cells]


def _parse_cell(comparison: Comparison, text: str) -> dict[str, Any]:
    """Values by axis. Prompts hold commas, so a value ends where the next axis's name begins."""
    axes = {axis.name: axis for axis in comparison.axes}
    names = "|".join(map(re.escape, axes))
    starts = list(re.finditer(rf"(?:^|,)\s*({names})\s*=", text)) if axes else []
    if not starts or starts[0].start() != 0:
        raise RequestError(
            f"reference: received {text!r}, accepted {CONVERGED!r} or a cell of the axes "
            f"{', '.join(axes) or '(none)'}, such as {_example(comparison)}"
        )
    wanted = {}
    ends = [start.start() for start in starts[1:]] + [len(text)]
    for start, end in zip(starts, ends, strict=True):
        axis, value = axes[start[1]], text[start.end() : end].strip()
        wanted[axis.name] = make_axis(axis.name, [value], comparison.base).values[0]
        if wanted[axis.name] not in axis.values:
            shown = ", ".join(map(str, axis.values))
            raise RequestError(f"reference: {axis.name} has no {value!r}; it has {shown}")
    return wanted


def _example(comparison: Comparison) -> str:
    return ",".join(f"{axis.name}={axis.values[-1]}" for axis in comparison.axes[:2])


def distance(
    run: Run,
    reference: Run,
    pictures: PictureStore,
    latents: LatentStore,
    clip: Clip | None = None,
) -> Distance:
    """A run's distance to its reference; a measure is None where it cannot be taken.

    `rms_latents`: root of the mean square difference of the final latents, in their own unit;
    `psnr` in dB, of 8-bit RGB, None for equal pictures too (it is infinite there); `ssim` of Wang
    et al. 2004, 1 for equal pictures, None below 11 pixels; `clip_distance` and `clip_score` as
    `clip` says (see clip.py), None without it, the score also without a prompt. Raises StorageError
    where a file is gone, LoadError where CLIP cannot be opened.
    """
    measured = Distance(run_id=run.source_id, reference_id=reference.source_id)
    if run.latents_sha256 and reference.latents_sha256:
        measured.rms_latents = _rms(*(latents.get(r.latents_sha256) for r in (run, reference)))
    images = [pictures.get(r.image_sha256).convert("RGB") for r in (run, reference)]
    measured.psnr, measured.ssim = _psnr_and_ssim(*images)
    if clip:
        named = [(r.image_sha256, image) for r, image in zip((run, reference), images, strict=True)]
        measured.clip_model, measured.clip_distance = clip.name, clip.distance(*named)
        measured.clip_score = clip.score(named[0], run.prompt) if run.prompt else None
    return measured


def _rms(one: torch.Tensor, other: torch.Tensor) -> float | None:
    if one.shape != other.shape:
        return None
    return (one.double() - other.double()).square().mean().sqrt().item()


def _psnr_and_ssim(one: Image, other: Image) -> tuple[float | None, float | None]:
    import numpy as np
    from skimage.metrics import peak_signal_noise_ratio

    if one.size != other.size:
        return None, None
    a, b = np.asarray(one), np.asarray(other)
    psnr = float(peak_signal_noise_ratio(a, b)) if (a != b).any() else None
    return psnr, ssim(one, other)


def ssim(one: Image, other: Image) -> float | None:
    """Structural similarity of two RGB pictures of one size; None below 11 pixels."""
    import numpy as np
    from skimage.metrics import structural_similarity

    if min(one.size) < SMALLEST_SSIM:
        return None
    return float(structural_similarity(
        np.asarray(one), np.asarray(other), channel_axis=2, data_range=255,
        gaussian_weights=True, sigma=1.5, use_sample_covariance=False))
