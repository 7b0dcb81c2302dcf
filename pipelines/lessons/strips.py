"""The classic strips of DDPM (Ho et al. 2020): a picture turns into noise, and noise into one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pipelines.lessons import postcards
from pipelines.painting.noise import make_generator
from pipelines.painting.previews import predicted_x0
from pipelines.postcards.unconditional import SIDE
from pipelines.schedulers import make_scheduler

if TYPE_CHECKING:
    from PIL.Image import Image

    from pipelines.models.registry import Registry

MODEL = "postcards-ddpm"
STEPS = 50
TIMESTEPS = (0, 50, 100, 200, 300, 400, 600, 999)


def forward_strip(registry: Registry, clean: Image, seed: int = 0) -> list[Image]:
    """A picture at each of TIMESTEPS by the noise schedule of the bundled DDPM, 32 x 32."""
    with registry.borrow(MODEL) as (model, _):
        solver = make_scheduler("ddpm", model.info.original_scheduler_config)
    pixels = postcards.pixels([clean.resize((SIDE, SIDE))]).expand(len(TIMESTEPS), -1, -1, -1)
    noise = torch.randn((1, 3, SIDE, SIDE), generator=make_generator(seed)).expand_as(pixels)
    return postcards.as_pictures(solver.add_noise(pixels, noise, torch.tensor(TIMESTEPS)))


@torch.no_grad()
def reverse_strip(
    registry: Registry, seed: int = 0, count: int = len(TIMESTEPS)
) -> tuple[list[int], list[Image], list[Image]]:
    """The bundled DDPM's way from noise in STEPS steps: for `count` of them, from 1, the number,
    x_t after it, and x0 as it was predicted in it."""
    with registry.borrow(MODEL) as (model, _):
        unet = model.view("unconditional").unet
        solver = make_scheduler("ddpm", model.info.original_scheduler_config, seed=seed)
        solver.set_timesteps(STEPS)
        generator = make_generator(seed)
        x = torch.randn((1, 3, SIDE, SIDE), generator=generator)
        after: list[Tensor] = []
        expected: list[Tensor] = []
        for timestep in solver.timesteps:
            output = unet(x.to(unet.dtype), timestep).sample.float()
            expected.append(predicted_x0(solver, x[None], timestep[None], output[None])[0])
            x = solver.step(output, timestep, x, generator=generator, return_dict=False)[0]
            after.append(x)
    numbers = [round(1 + place * (STEPS - 1) / (count - 1)) for place in range(count)]
    chosen = [number - 1 for number in numbers]
    return numbers, *(postcards.as_pictures(torch.cat(values)[chosen])
                      for values in (after, expected))
