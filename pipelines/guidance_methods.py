"""Guidance methods of a run: how the predictions with and without the prompt are combined, by a
guider of diffusers, in place of the pipeline's own `uncond + scale * (cond - uncond)`."""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pipelines.errors import RequestError
from pipelines.notation import number_text, shown

CFG = "cfg"  # the pipeline's own
LAYER = -1.0  # the middle one


@dataclass(frozen=True)
class Guider:
    """A class of diffusers.guiders. `numbers`: name -> default, least and most; `neutral`: the
    numbers with which it is classifier-free guidance, None where there are none; `perturbed`: it
    takes one more evaluation a step, of a weakened network."""

    class_name: str
    paper: str
    numbers: dict[str, tuple[float, float, float]]
    neutral: tuple[float, ...] | None
    perturbed: bool = False


SHARES = {"start": (0.0, 0.0, 0.99), "stop": (1.0, 0.01, 1.0)}
GUIDERS: dict[str, Guider] = {
    "interval": Guider("ClassifierFreeGuidance", "Kynkäänniemi et al. 2024, arXiv:2404.07724",
                       {"start": (0.2, 0.0, 0.99), "stop": (0.8, 0.01, 1.0)}, (0.0, 1.0)),
    "rescale": Guider("ClassifierFreeGuidance", "Lin et al. 2023, arXiv:2305.08891",
                      {"rescale": (0.7, 0.0, 1.0)}, (0.0,)),
    "apg": Guider("AdaptiveProjectedGuidance", "Sadat et al. 2024, arXiv:2410.02416",
                  {"eta": (0.0, 0.0, 1.0), "limit": (15.0, 0.0, 1e4),
                   "momentum": (-0.5, -1.0, 1.0)}, (1.0, 0.0, 0.0)),
    "cfg-zero": Guider("ClassifierFreeZeroStarGuidance", "Fan et al. 2025, arXiv:2503.18886",
                       {"zero_steps": (0.0, 0.0, 100.0)}, None),
    "tangential": Guider("TangentialClassifierFreeGuidance", "Kwon et al. 2025, arXiv:2503.18137",
                         {}, None),
    "magnitude": Guider("MagnitudeAwareGuidance", "Zhu et al. 2025, arXiv:2508.03442",
                        {"alpha": (8.0, 0.0, 100.0)}, (0.0,)),
    "pag": Guider("PerturbedAttentionGuidance", "Ahn et al. 2024, arXiv:2403.17377",
                  {"scale": (3.0, 0.0, 30.0), **SHARES, "layer": (LAYER, LAYER, 1000.0)},
                  (0.0, 0.0, 1.0, LAYER), perturbed=True),
    "slg": Guider("SkipLayerGuidance", "Stability AI 2024, Stable Diffusion 3.5",
                  {"scale": (2.8, 0.0, 30.0), "start": (0.0, 0.0, 0.99), "stop": (0.2, 0.01, 1.0),
                   "layer": (LAYER, LAYER, 1000.0)}, (0.0, 0.0, 0.2, LAYER), perturbed=True),
}
ACCEPTED = ", ".join([CFG, *(
    name + "".join(f"[:{number.upper()}]" for number in guider.numbers)
    for name, guider in GUIDERS.items())])


@dataclass(frozen=True)
class GuidanceMethod:
    """CFG or one of GUIDERS, and its numbers. As text 'apg:0:15:-0.5'; numbers may be left out from
    the end."""

    kind: str
    numbers: tuple[float, ...] = ()

    @classmethod
    def parse(cls, text: str) -> GuidanceMethod:
        """Raises RequestError."""
        kind, *rest = text.strip().split(":")
        if kind == CFG and not rest:
            return cls(CFG)
        try:
            limits = GUIDERS[kind].numbers.values()
            numbers = tuple(float(given) for given in rest)
            if len(rest) > len(limits):
                raise ValueError(rest)
        except (KeyError, ValueError):
            raise RequestError(f"guidance_method: received {shown(text)}, accepted "
                               f"{ACCEPTED}") from None
        numbers += tuple(usual for usual, _, _ in itertools.islice(limits, len(rest), None))
        method = cls(kind, numbers)
        if not all(low <= number <= high
                   for number, (_, low, high) in zip(numbers, limits, strict=True)):
            ranges = ", ".join(f"{name} from {low:g} to {high:g}"
                               for name, (_, low, high) in GUIDERS[kind].numbers.items())
            raise RequestError(f"guidance_method: received {shown(text)}, accepted {ranges}")
        named = method.named
        if named.get("start", 0.0) >= named.get("stop", 1.0):
            raise RequestError(f"guidance_method: received {shown(text)}, accepted a start before "
                               "the stop")
        for name in ("zero_steps", "layer"):
            if not float(named.get(name, 0)).is_integer():
                raise RequestError(f"guidance_method: received {shown(text)}, accepted a whole "
                                   f"number for {name}")
        return method

    def __str__(self) -> str:
        usual = [usual for usual, _, _ in GUIDERS[self.kind].numbers.values()] \
            if self.kind != CFG else []
        numbers = list(self.numbers)
        while numbers and numbers[-1] == usual[len(numbers) - 1]:
            numbers.pop()
        return ":".join([self.kind, *map(number_text, numbers)])

    @property
    def named(self) -> dict[str, float]:
        names = GUIDERS[self.kind].numbers if self.kind != CFG else {}
        return dict(zip(names, self.numbers, strict=True))

    @property
    def perturbed(self) -> bool:
        return self.kind != CFG and GUIDERS[self.kind].perturbed

    def guider(self, guidance_scale: float, guidance_rescale: float = 0.0) -> Any:
        """A fresh guider of diffusers for one run.

        APG is as in its paper, cond + (scale - 1) * update, in the space of what the network
        predicts; the others are in diffusers' usual form, uncond + scale * (cond - uncond).
        """
        from diffusers import guiders

        named, options = self.named, {"guidance_rescale": guidance_rescale}
        options["guidance_scale"] = guidance_scale
        match self.kind:
            case "interval":
                options |= named
            case "rescale":
                options["guidance_rescale"] = named["rescale"]
            case "apg":
                options |= {"guidance_scale": guidance_scale - 1, "use_original_formulation": True,
                            "eta": named["eta"],
                            "adaptive_projected_guidance_rescale": named["limit"],
                            "adaptive_projected_guidance_momentum": named["momentum"]}
            case "cfg-zero":
                options["zero_init_steps"] = int(named["zero_steps"])
            case "magnitude":
                options |= named
            case "pag" | "slg":
                prefix = "perturbed_guidance" if self.kind == "pag" else "skip_layer_guidance"
                options |= {f"{prefix}_{name}": named[name] for name in ("scale", "start", "stop")}
                options[f"{prefix}_layers"] = 0  # put on by us: see painting/guiding.py
        with _quiet():
            return getattr(guiders, GUIDERS[self.kind].class_name)(**options)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without diffusers' warning, at each guider, that they are experimental."""
    from diffusers.guiders import guider_utils

    before, guider_utils.logger.disabled = guider_utils.logger.disabled, True
    try:
        yield
    finally:
        guider_utils.logger.disabled = before


@functools.cache
def neutral_methods() -> tuple[GuidanceMethod, ...]:
    """Each method with the numbers that make it classifier-free guidance."""
    return tuple(GuidanceMethod(kind, guider.neutral) for kind, guider in GUIDERS.items()
                 if guider.neutral is not None)
