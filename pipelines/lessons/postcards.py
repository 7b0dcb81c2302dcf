"""The bundled model's way from noise to pictures, with all that a lesson looks at on the way."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pipelines.guidance_methods import CFG, GuidanceMethod
from pipelines.lessons.plane import distance
from pipelines.models.registry import Registry
from pipelines.painting.guiding import combine
from pipelines.painting.noise import make_generator
from pipelines.painting.previews import decoded, predicted_x0
from pipelines.postcards.painter import paint_with_mask
from pipelines.postcards.vocabulary import Scene
from pipelines.schedulers import make_scheduler

if TYPE_CHECKING:
    from PIL.Image import Image

    from pipelines.models.loaded import LoadedModel

MODEL = "postcards"
PROMPT = "a red car on a road at night"
SCENE = Scene("car", "red", "road", "day")
LATENTS = (4, 16, 16)


@dataclass(frozen=True, eq=False)
class Trace:
    """What happened to N pictures in K steps, each tensor (K, N, 4, 16, 16) but `latents`, the
    final ones. `seen`: sqrt(a) x0 + sqrt(1 - a) noise, as the network sees it; `conditional` and
    `unconditional`: its outputs with and without the prompt; `guided`: their combination; `x0`
    from it."""

    seen: Tensor
    conditional: Tensor
    unconditional: Tensor
    guided: Tensor
    x0: Tensor
    latents: Tensor

    def pictured(self, step: int) -> Tensor:
        """Of the first picture: what was seen at a step, from 1, the x0 that was predicted, and
        the end; (3, 4, 16, 16)."""
        return torch.stack([self.seen[step - 1, 0], self.x0[step - 1, 0], self.latents[0]])


def noise(seeds: Sequence[int]) -> Tensor:
    """The noise that runs with these seeds start from, (N, 4, 16, 16)."""
    return torch.cat([torch.randn((1, *LATENTS), generator=make_generator(seed))
                      for seed in seeds])


@torch.no_grad()
def denoise(
    model: LoadedModel,
    prompts: Sequence[str],
    start: Tensor,
    scheduler: str,
    num_inference_steps: int,
    guidance_scale: float | Tensor,
    seed: int = 0,
    guidance_method: str = CFG,
) -> Trace:
    """Make pictures side by side from `start`, standard normal noise (N, 4, 16, 16), with
    classifier-free guidance (Ho and Salimans 2022, arXiv:2207.12598), whose scale may differ from
    picture to picture, (N,), or with another method of guidance_methods.py that needs no further
    evaluation, and one scale for all."""
    pipe = model.view("text-to-image")
    solver = make_scheduler(scheduler, model.info.original_scheduler_config, seed=seed)
    solver.set_timesteps(num_inference_steps)
    text, empty = pipe.encode_prompt(list(prompts), model.device, 1, True)
    scale = torch.as_tensor(guidance_scale, dtype=start.dtype).expand(len(start)).view(-1, 1, 1, 1)
    generator = make_generator(seed)
    if len(start) == 1:
        torch.randn(start.shape, generator=generator)  # a run draws its first noise from it
    takes = inspect.signature(solver.step).parameters
    arguments = {"generator": generator} if "generator" in takes else {}
    latents, kept = start * solver.init_noise_sigma, []
    method = GuidanceMethod.parse(guidance_method)
    guider = None if method.kind == CFG else method.guider(float(guidance_scale))
    for step, timestep in enumerate(solver.timesteps):
        seen = solver.scale_model_input(latents, timestep)
        both = pipe.unet(torch.cat([seen, seen]), timestep, torch.cat([empty, text])).sample
        unconditional, conditional = both.chunk(2)
        output = unconditional + scale * (conditional - unconditional)
        if guider is not None:
            output = combine(guider, conditional, unconditional, step, len(solver.timesteps))
        x0 = predicted_x0(solver, seen[None], torch.as_tensor(timestep)[None], output[None])[0]
        kept.append((seen, conditional, unconditional, output, x0))
        latents = solver.step(output, timestep, latents, return_dict=False, **arguments)[0]
    return Trace(*map(torch.stack, zip(*kept, strict=True)), latents)


def pictures(registry: Registry, latents: Tensor) -> list[Image]:
    """Latents (N, 4, 16, 16) as pictures of 64 x 64 pixels."""
    with registry.borrow(MODEL) as (model, _):
        return decoded(model.view("text-to-image"), latents)


@torch.no_grad()
def encode(model: LoadedModel, images: Sequence[Image]) -> Tensor:
    """The mean latents of pictures of 64 x 64 pixels, (N, 4, 16, 16)."""
    vae = model.view("text-to-image").vae
    return vae.encode(pixels(images).to(vae.dtype)).latent_dist.mean * vae.config.scaling_factor


def pixels(images: Sequence[Image]) -> Tensor:
    """Pictures as (N, 3, height, width) from -1 to 1."""
    import numpy as np

    values = np.stack([np.asarray(image.convert("RGB")) for image in images])
    return torch.from_numpy(values).permute(0, 3, 1, 2).float() / 127.5 - 1


def as_pictures(values: Tensor) -> list[Image]:
    """(N, 3, height, width) from -1 to 1 as pictures; values beyond are cut."""
    from PIL import Image

    whole = ((values.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1)
    return [Image.fromarray(picture) for picture in whole.numpy()]


def painted(scene: Scene = SCENE, seed: int = 0) -> tuple[Image, Image]:
    """A picture of the painter and the true mask of its subject."""
    return paint_with_mask(scene, Random(seed))


def difference(first: Image, second: Image) -> float:
    """Root mean square difference of two pictures, 0 to 255."""
    return distance(*(pixels([image]).reshape(-1, 1).double() * 127.5
                      for image in (first, second)))
