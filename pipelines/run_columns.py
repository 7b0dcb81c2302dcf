"""What came out of a pipeline as columns of the run log."""

from __future__ import annotations

from typing import Any

from pipelines.inpainting.canvas import changed_unmasked_pixels
from pipelines.painting.result import RunResult
from pipelines.request import RunRequest
from pipelines.stores import PictureStore


def measurements(pictures: PictureStore, result: RunResult) -> dict[str, Any]:
    """A result as columns of the run log; stores the picture."""
    timings = result.timings.as_dict()
    sha256 = pictures.put(result.image)
    return {
        "image_sha256": sha256,
        "height": result.image.height,
        "width": result.image.width,
        "nfe": result.nfe,
        "denoiser_rows": result.denoiser_rows,
        "noise_sha256": result.noise_sha256,
        "peak_memory_bytes": result.peak_memory_bytes,
        "step_ms": timings.pop("steps"),
        "notes": list(result.notes),
        "shared": result.shared,
        **{f"{name}_ms": value for name, value in timings.items()},
    }


def unmasked(pictures: PictureStore, request: RunRequest, sha256: str) -> dict[str, int]:
    """What an in-painting left alone, measured on the stored pictures."""
    if request.task != "inpainting":
        return {}
    names = (request.image, request.mask_image, sha256)
    before, mask_image, after = map(pictures.get, names)
    changed, count = changed_unmasked_pixels(request, before, mask_image, after)
    return {"changed_unmasked_pixels": changed, "unmasked_pixels": count}
