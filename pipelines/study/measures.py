"""What a study can measure of a picture, and how a difference in it is said."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pipelines.errors import RequestError


@dataclass(frozen=True)
class Measure:
    """`label` in headings; `sign` is 1 where more is better, else -1; the better method of a pair
    `wins` over the other. `to_reference`: it is a distance to the reference."""

    label: str
    sign: int
    wins: str
    unit: str = ""
    to_reference: bool = True
    function: Callable[..., float] | None = None  # a user's own (user_measures.py)


CLOSER = "is closer than"
MEASURES = {
    "rms_latents": Measure("RMS of latents", -1, CLOSER),
    "psnr": Measure("PSNR", 1, CLOSER, " dB"),
    "ssim": Measure("SSIM", 1, CLOSER),
    "flip": Measure("FLIP", -1, CLOSER),
    "clip_distance": Measure("CLIP distance", -1, CLOSER),
    "clip_score": Measure("CLIP score", 1, "fits its prompt better than"),
    "judge": Measure("share that shows all its prompt names", 1,
                     "shows what its prompt names more often than", to_reference=False),
    "time": Measure("time of one picture", -1, "is faster than", " ms", to_reference=False),
}
DEFAULT = ("rms_latents", "psnr")


def check_measures(names: tuple[str, ...], reference: str | None) -> None:
    """Raise RequestError where one is unknown, twice there, or needs a reference."""
    accepted = f"accepted some of {', '.join(MEASURES)}"
    if users := [name for name in names if ":" in name and name not in MEASURES]:
        raise RequestError(f"measure: received {', '.join(users)}, a function that is not "
                           f"registered; accepted with CONTACT_SHEET_MEASURES={','.join(users)}")
    if unknown := [name for name in names if name not in MEASURES]:
        raise RequestError(f"measure: received {', '.join(unknown)}, {accepted}")
    if not names or len(set(names)) < len(names):
        raise RequestError(f"measure: received {', '.join(names) or 'none'}, {accepted}, each once")
    needing = [name for name in names if MEASURES[name].to_reference]
    if needing and not reference:
        raise RequestError(f"measure: {', '.join(needing)} is measured against a reference; "
                           "accepted with one, such as converged")
