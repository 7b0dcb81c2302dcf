"""postcards-turbo: the UNet of postcards, distilled to arrive in one to four evaluations."""

from __future__ import annotations

import copy

import numpy as np
import torch
from diffusers import AutoencoderKL, LCMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor
from transformers import CLIPTextModel

from pipelines.postcards import model
from pipelines.postcards.autoencoder import read_latents
from pipelines.postcards.diffusion import CAPTIONS_PER_PICTURE, EMPTY_CAPTION_SHARE
from pipelines.postcards.loop import Loop, train_device
from pipelines.postcards.settings import Settings

ODE_STEPS = 50  # the teacher's, from noise to picture; LCMScheduler's original_inference_steps
SKIP = 1000 // ODE_STEPS  # timesteps of one
GUIDANCE_SCALE = 5.0  # of the teacher; the student paints without guidance what it paints with it
CALL_DEFAULTS = {"num_inference_steps": 4, "guidance_scale": 1.0}


def train_turbo(rank: int, settings: Settings) -> None:
    """Distil by consistency (Luo et al. 2023, arXiv:2310.04378); result: the UNet in turbo.

    The student learns to give the same clean latents at two neighbouring points of the teacher's
    guided path; the later one, which is nearer to the picture, is the target.
    """
    torch.manual_seed(0)
    device, batch = train_device(), settings.config.unet_batch_size
    teacher = UNet2DConditionModel.from_pretrained(
        settings.teacher / "unet", torch_dtype=torch.float32
    ).to(device).requires_grad_(False)
    text_encoder = CLIPTextModel.from_pretrained(settings.teacher / "text_encoder")
    text_encoder = text_encoder.to(device).eval().requires_grad_(False)
    student = copy.deepcopy(teacher).requires_grad_(True)
    if device.type == "cpu":
        # The backward pass of fused attention is slow on CPUs at this size.
        student.set_attn_processor(AttnProcessor())
    latents = read_latents(settings)
    tokens = torch.from_numpy(np.load(settings.work / "tokens.npy"))
    empty = model.tokenize(model.make_tokenizer(), [""])[0]
    scheduler = make_scheduler()
    alphas = scheduler.alphas_cumprod.to(device)
    loop = Loop(
        "turbo-training",
        {"unet": student},
        settings.work,
        settings.minutes,
        learning_rate=4e-4,
        average=0.998,
        rank=rank,
        seed=6,
    )

    def consistent(latents: Tensor, timesteps: Tensor, context: Tensor) -> Tensor:
        """The clean latents that the student expects; at timestep 0 its input."""
        velocity = student(latents, timesteps, context).sample.float()
        x0 = clean_and_noise(latents, velocity, alphas[timesteps])[0]
        skip, out = scheduler.get_scalings_for_boundary_condition_discrete(timesteps)
        return skip.view(-1, 1, 1, 1) * latents + out.view(-1, 1, 1, 1) * x0

    for _ in loop:
        chosen = torch.randint(len(latents), (batch,))
        ids = tokens[chosen, torch.randint(CAPTIONS_PER_PICTURE, (batch,))].long()
        ids[torch.rand(batch) < EMPTY_CAPTION_SHARE] = empty
        clean = latents[chosen].float().to(device)
        noise = torch.randn_like(clean)
        # The places on the path, stratified.
        place = (torch.randperm(batch) + torch.rand(batch)) / batch * ODE_STEPS
        timesteps = (place.long().clamp(max=ODE_STEPS - 1) + 1).to(device) * SKIP - 1
        earlier = (timesteps - SKIP).clamp(min=0)
        alpha = alphas[timesteps].view(-1, 1, 1, 1)
        noisy = alpha.sqrt() * clean + (1 - alpha).sqrt() * noise
        with torch.no_grad(), loop.autocast():
            both = torch.cat([ids, empty.expand_as(ids)]).to(device)
            contexts = text_encoder(input_ids=both).last_hidden_state
            context, without = contexts.chunk(2)
            predicted, unguided = teacher(
                noisy.repeat(2, 1, 1, 1), timesteps.repeat(2), contexts
            ).sample.float().chunk(2)
            velocity = unguided + GUIDANCE_SCALE * (predicted - unguided)
            x0, epsilon = clean_and_noise(noisy, velocity, alphas[timesteps])
            alpha = alphas[earlier].view(-1, 1, 1, 1)
            nearer = alpha.sqrt() * x0 + (1 - alpha).sqrt() * epsilon
            target = consistent(nearer, earlier, context)
        with loop.autocast():
            made = consistent(noisy, timesteps, context)
        error = (made - target).square().mean((1, 2, 3))
        plain = error.detach()[timesteps.argsort()]
        noise_levels = dict(zip(("low", "middle", "high"), plain.tensor_split(3), strict=True))
        # Pseudo-Huber, which large errors do not rule (Song & Dhariwal 2023, arXiv:2310.14189).
        loop.update(
            ((made - target).square() + 1e-4).sqrt().mean(),
            batch,
            **{f"{level}_noise": part.mean() for level, part in noise_levels.items()},
        )
    if rank == 0:
        model.save_module(student, settings.work / "turbo")


def clean_and_noise(latents: Tensor, velocity: Tensor, alphas: Tensor) -> tuple[Tensor, Tensor]:
    """x0 and epsilon of a v-prediction (Salimans & Ho 2022, arXiv:2202.00512)."""
    signal, noise = (part.sqrt().view(-1, 1, 1, 1) for part in (alphas, 1 - alphas))
    return signal * latents - noise * velocity, noise * latents + signal * velocity


def make_scheduler() -> LCMScheduler:
    return LCMScheduler(**model.SCHEDULER, original_inference_steps=ODE_STEPS)


def write_folder(settings: Settings) -> None:
    """The finished model: the teacher's parts around the student's UNet."""
    model.write_folder(
        settings.out,
        AutoencoderKL.from_pretrained(settings.teacher / "vae"),
        UNet2DConditionModel.from_pretrained(settings.work / "turbo"),
        CLIPTextModel.from_pretrained(settings.teacher / "text_encoder"),
        model.make_tokenizer(),
        make_scheduler(),
        CALL_DEFAULTS,
    )
