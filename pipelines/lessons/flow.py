"""Flow matching and diffusion: equal marginals, curved paths, one network in both views."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pipelines.laboratory.mixture import Mixture
from pipelines.lessons.plane import run
from pipelines.lessons.question import Answer, Question, interval
from pipelines.painting.previews import predicted_x0

if TYPE_CHECKING:
    from pipelines.models.loaded import LoadedModel

STEPS = (1, 2, 3, 5, 10, 20, 50)
MANY = 200  # Euler's steps that draw a path as it is
CLOSE = 0.05  # root mean square distance; the data's spread is about 1
BOUNDS = (0.05, 0.3)


def bend(paths: Tensor) -> float:
    """How much longer paths (k, n, 2) are than the straight lines between their ends, in the mean;
    0 where they are straight."""
    length = paths.diff(dim=0).norm(dim=2).sum(0)
    return (length.sum() / (paths[-1] - paths[0]).norm(dim=1).sum()).item() - 1


def error(steps: int, mixture: Mixture | None = None) -> float:
    """Of FlowMatchEulerDiscreteScheduler with a perfect network: root mean square distance to the
    exact ends."""
    return run("flow_euler", steps, mixture).error


def _grade() -> Answer:
    one, five = error(1), error(5)
    right = 0 if one < CLOSE else 1 if five < CLOSE else 2
    made = run("flow_euler", MANY)
    bent = bend(torch.cat([made.seen, made.path.end[None]]))
    return Answer(right, f"The perfect network's paths are {bent:.0%} longer than straight lines. "
                         f"One Euler step ends {one:.2f} from the exact points, five {five:.2f}, "
                         f"fifty {error(50):.3f}. Straight are the lines between a noise and a "
                         "picture in training; where they cross, the network learns their mean.")


QUESTION = Question(
    "A flow-matching model is trained on straight lines from noise to data. How many Euler steps "
    f"does a perfect one need to come within {CLOSE} of the exact points?",
    ("One: its paths are straight", "Five: they are nearly straight",
     "More than five: its paths bend"), _grade)


def check(case: int) -> Question:
    """The error of some Euler steps on another mixture."""
    rng = random.Random(f"flow {case}")
    steps, count = rng.choice((1, 2, 5, 20, 50)), rng.choice((1, 2, 4))
    means = torch.tensor([[rng.uniform(-1.3, 1.3), rng.uniform(-1.3, 1.3)] for _ in range(count)],
                         dtype=torch.float64)
    one = torch.ones(count, dtype=torch.float64)
    mixture = Mixture(means, 0.2 * one, one / count)

    def grade() -> Answer:
        value = error(steps, mixture)
        why = f"Distance to the exact points: {value:.3f} (root mean square)."
        if steps == 1:
            end = run("flow_euler", 1, mixture).path.end
            why += (" From pure noise the best guess of every point is the data's mean: one step "
                    f"puts all points there, {end.std(0).norm():.0e} from each other.")
        return Answer(interval(value, BOUNDS), why)

    data = "one Gaussian" if count == 1 else f"a mixture of {count} Gaussians"
    plural = "s" * (steps > 1)
    return Question(
        f"The data are {data}. How far from the exact points does a perfect flow model end after "
        f"{steps} Euler step{plural}?",
        (f"Closer than {BOUNDS[0]}", f"Between {BOUNDS[0]} and {BOUNDS[1]}",
         f"Farther than {BOUNDS[1]}"), grade)


@torch.no_grad()
def denoise_as_flow(
    model: LoadedModel, prompt: str, start: Tensor, num_inference_steps: int, guidance_scale: float
) -> Tensor:
    """Latents of a picture, made by FlowMatchEulerDiscreteScheduler from a network that was
    trained as diffusion; `start`: standard normal noise (1, 4, 16, 16).

    What diffusion calls a x0 + b noise is, divided by a + b, flow matching's (1 - s) x0 + s noise
    with s = b / (a + b). The two predictions follow from each other.
    """
    from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler

    pipe = model.view("text-to-image")
    trained = DDIMScheduler.from_config(model.info.original_scheduler_config)
    alphas = trained.alphas_cumprod
    signals, noises = alphas.sqrt(), (1 - alphas).sqrt()
    shares = noises / (signals + noises)  # s of each timestep
    solver = FlowMatchEulerDiscreteScheduler()
    sigmas = torch.linspace(shares[-1], 0, num_inference_steps + 1)[:-1]
    solver.set_timesteps(sigmas=sigmas.tolist())
    text, empty = pipe.encode_prompt(prompt, model.device, 1, True)
    latents = start / (signals[-1] + noises[-1])
    for timestep, share in zip(solver.timesteps, solver.sigmas, strict=False):
        ratio = (share / (1 - share)).log()
        place = _place(ratio, (noises / signals).log())
        signal = 1 / (1 + ratio.exp() ** 2).sqrt()
        noise = ratio.exp() * signal
        seen = latents * (signal + noise)
        both = pipe.unet(torch.cat([seen, seen]), place, torch.cat([empty, text])).sample
        unconditional, conditional = both.chunk(2)
        output = unconditional + guidance_scale * (conditional - unconditional)
        x0 = predicted_x0(trained, seen[None], place[None], output[None])[0]
        velocity = (seen - signal * x0) / noise - x0
        latents = solver.step(velocity, timestep, latents, return_dict=False)[0]
    return latents


def _place(value: Tensor, rising: Tensor) -> Tensor:
    """The fractional index at which a rising line has a value."""
    high = int(torch.searchsorted(rising, value).clamp(1, len(rising) - 1))
    low = rising[high - 1]
    return high - 1 + (value - low) / (rising[high] - low)


def kept_variance(share: float) -> tuple[float, float]:
    """The factors of signal and noise, with squares that sum to 1, of flow matching's time s."""
    length = ((1 - share) ** 2 + share**2) ** 0.5
    return (1 - share) / length, share / length
