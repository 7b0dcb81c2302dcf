"""Reverse: x_t and the predicted x0 on the way from noise to a picture."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from pipelines.lessons import postcards
from pipelines.lessons.question import Answer, Question, interval
from pipelines.postcards.vocabulary import EXAMPLE_PROMPTS

if TYPE_CHECKING:
    from PIL.Image import Image

    from pipelines.models.registry import Registry

SOLVER, STEPS, GUIDANCE = "ddim", 20, 3.0
BLOCK = 4  # latents of 16 x 16 have a layout of 4 x 4
SETTLED = 0.9  # of the variance


def layout(latents: Tensor) -> Tensor:
    """The mean of each block, (..., 4, 4)."""
    return avg_pool2d(latents.flatten(0, -4), BLOCK).unflatten(0, latents.shape[:-3])


def detail(latents: Tensor) -> Tensor:
    """What the means of the blocks leave, of the shape of `latents`."""
    means = layout(latents).flatten(0, -4)
    return latents - interpolate(means, scale_factor=BLOCK).view_as(latents)


def settled(part: Tensor, final: Tensor) -> list[float]:
    """For each step of (K, 4, h, w) the share of the variance of `final` that is there: 1 less the
    mean square difference over the variance."""
    variance = (final - final.mean((-1, -2), keepdim=True)).square().mean()
    return (1 - (part - final).square().mean((1, 2, 3)) / variance).tolist()


def shares(trace: postcards.Trace) -> dict[str, list[float]]:
    """How much of the final layout and detail each step's predicted x0 holds, of the first
    picture."""
    x0, final = trace.x0[:, 0], trace.latents[0]
    return {"layout": settled(layout(x0), layout(final[None])[0]),
            "detail": settled(detail(x0), detail(final[None])[0])}


def first_settled(values: list[float]) -> int:
    """The number of the first step, from 1, whose share reaches SETTLED."""
    return next((number for number, value in enumerate(values, 1) if value >= SETTLED),
                len(values))


def channels(latents: Tensor) -> list[Image]:
    """The channels of latents (4, 16, 16) as grey pictures, black at -3, white at 3."""
    from PIL import Image

    values = ((latents.clamp(-3, 3) + 3) * 42.5).round().byte().numpy()
    return [Image.fromarray(value).resize((64, 64), Image.Resampling.NEAREST) for value in values]


def trace(registry: Registry, prompt: str, seed: int) -> postcards.Trace:
    with registry.borrow(postcards.MODEL) as (model, _):
        return postcards.denoise(model, [prompt], postcards.noise([seed]), SOLVER, STEPS, GUIDANCE)


def _answer(registry: Registry, prompt: str, seed: int) -> Answer:
    found = {name: first_settled(values)
             for name, values in shares(trace(registry, prompt, seed)).items()}
    half = STEPS // 2
    right = 0 if found["layout"] > half else 1 if found["detail"] > half else 2
    return Answer(right, f"{SETTLED:.0%} of the layout (the means of 4 x 4 blocks of the latents) "
                         f"is there at step {found['layout']} of {STEPS}, {SETTLED:.0%} of the "
                         f"detail at step {found['detail']}.")


CHOICES = ("Neither layout nor detail is settled",
           "The layout is settled, the detail is not", "Both are settled")


def question(registry: Registry) -> Question:
    """What is settled half-way."""
    return Question(
        f"{STEPS} steps lead from noise to “{postcards.PROMPT}”. At each step the network predicts "
        "the finished picture, x0. What of its prediction is settled after half of the steps?",
        CHOICES, lambda: _answer(registry, postcards.PROMPT, 0))


def check(registry: Registry, case: int) -> Question:
    """From which step on another picture's detail is settled."""
    rng = random.Random(f"reverse {case}")
    prompt, seed = rng.choice(EXAMPLE_PROMPTS), rng.randrange(1, 1000)
    part = rng.choice(("layout", "detail"))

    def grade() -> Answer:
        found = first_settled(shares(trace(registry, prompt, seed))[part])
        return Answer(interval(found, (6, 8)),
                      f"{SETTLED:.0%} of its {part} is there at step {found}.")

    return Question(f"“{prompt}”, seed {seed}: at which of {STEPS} steps is {SETTLED:.0%} of its "
                    f"{part} settled?",
                    ("By step 5", "At step 6 or 7", "At step 8 or later"), grade)
