"""How much worse a candidate may be and still count as equal.

A margin is what somebody is ready to lose, so it is a choice and no result of measurement. The
defaults say what they rest on; those that matter should be given.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from pipelines.errors import RequestError
from pipelines.study.measures import MEASURES
from pipelines.study.user_measures import register


@dataclass(frozen=True)
class Margin:
    """`value` in the measure's unit, and why; `reach`: how far one picture can lie from another, in
    measures that take few values (see `statistics.one_sided`), else 0."""

    value: float
    reason: str
    reach: float = 0.0


MARGINS = {
    "rms_latents": Margin(0.01, "about 1 % of the standard deviation of the bundled model's "
                          "latents, 0.9"),
    "psnr": Margin(0.5, "0.5 dB are 12 % more mean square error"),
    "ssim": Margin(0.01, "noise of one level of 255 costs a painted postcard 0.006"),
    "flip": Margin(0.02, "noise of one level of 255 makes 0.018 on a painted postcard"),
    "clip_distance": Margin(0.01, "a convention: no figures of a CLIP were at hand"),
    "clip_score": Margin(0.5, "half a point of 100, a convention: no figures of a CLIP were at "
                         "hand"),
    "judge": Margin(0.1, "one picture in ten, which 60 prompts can tell: what happens on one in "
                    "twenty goes unseen in 60 with a probability of 5 %", 1.0),
}
HELP = "; ".join(f"{name}={margin.value:g} ({margin.reason})" for name, margin in MARGINS.items())


def reach_of(name: str) -> float:
    """How far one picture can lie from another in a measure of few values, else 0."""
    return MARGINS[name].reach if name in MARGINS else 0.0


def parse_margins(text: str) -> dict[str, float]:
    """'psnr=0.5,flip' as margins by measure, a bare name with its default. Raises RequestError."""
    margins: dict[str, float] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, equals, number = (piece.strip() for piece in part.partition("="))
        if ":" in name:
            register(name)
        if name not in MARGINS and (":" not in name or not equals):
            raise RequestError(f"margin: received {part!r}, accepted NAME or NAME=NUMBER of "
                               f"{', '.join(MARGINS)}, or my_module:function=NUMBER")
        if name in margins:
            raise RequestError(f"margin: received {name} twice, accepted each measure once")
        try:
            margins[name] = float(number) if equals else MARGINS[name].value
        except ValueError:
            margins[name] = math.nan
        if not 0 < margins[name] < math.inf:
            unit = MEASURES[name].unit
            raise RequestError(f"margin: received {part!r}, accepted a number above 0"
                               f"{f', in{unit}' if unit else ''}")
    if not margins:
        raise RequestError(f"margin: received {text!r}, accepted some of {', '.join(MARGINS)}")
    return margins
