"""postcards-turbo: the UNet of postcards, distilled to arrive in one to four evaluations."""

from __future__ import annotations

import torch
from diffusers import LCMScheduler
from torch import Tensor

from pipelines.postcards import fine_tuning, model
from pipelines.postcards.fine_tuning import Batch, FineTuning
from pipelines.postcards.settings import Settings

ODE_STEPS = 50  # the teacher's, from noise to picture
SKIP = 1000 // ODE_STEPS  # timesteps of one
GUIDANCE_SCALE = 5.0  # of the teacher; the student paints without guidance what it paints with it
SCHEDULER = {**model.SCHEDULER, "original_inference_steps": ODE_STEPS}
CALL_DEFAULTS = {"num_inference_steps": 4, "guidance_scale": 1.0}


def train_turbo(rank: int, settings: Settings) -> None:
    """Distil by consistency (Luo et al. 2023, arXiv:2310.04378); result: the UNet in turbo.

    The student learns to give the same clean latents at two neighbouring points of the teacher's
    guided path; the later one, which is nearer to the picture, is the target.
    """
    tuning = FineTuning(settings)
    teacher, student = tuning.unet(), tuning.unet()
    without = tuning.context(tuning.captioned.empty[None])
    scheduler = LCMScheduler(**SCHEDULER)
    alphas = scheduler.alphas_cumprod.to(tuning.device)

    def consistent(latents: Tensor, timesteps: Tensor, context: Tensor) -> Tensor:
        """The clean latents that the student expects; at timestep 0 its input."""
        velocity = student(latents, timesteps, context).sample.float()
        x0 = clean_and_noise(latents, velocity, alphas[timesteps])[0]
        skip, out = scheduler.get_scalings_for_boundary_condition_discrete(timesteps)
        return skip.view(-1, 1, 1, 1) * latents + out.view(-1, 1, 1, 1) * x0

    def loss(batch: Batch, autocast) -> tuple[Tensor, Tensor, Tensor]:
        count = len(batch.clean)
        # The places on the path, stratified.
        place = (torch.randperm(count) + torch.rand(count)) / count * ODE_STEPS
        timesteps = (place.long().clamp(max=ODE_STEPS - 1) + 1).to(tuning.device) * SKIP - 1
        earlier = (timesteps - SKIP).clamp(min=0)
        alpha = alphas[timesteps].view(-1, 1, 1, 1)
        noisy = alpha.sqrt() * batch.clean + (1 - alpha).sqrt() * torch.randn_like(batch.clean)
        with torch.no_grad(), autocast():
            contexts = torch.cat([batch.context, without.expand_as(batch.context)])
            predicted, unguided = teacher(
                noisy.repeat(2, 1, 1, 1), timesteps.repeat(2), contexts
            ).sample.float().chunk(2)
            velocity = unguided + GUIDANCE_SCALE * (predicted - unguided)
            x0, epsilon = clean_and_noise(noisy, velocity, alphas[timesteps])
            alpha = alphas[earlier].view(-1, 1, 1, 1)
            nearer = alpha.sqrt() * x0 + (1 - alpha).sqrt() * epsilon
            target = consistent(nearer, earlier, batch.context)
        with autocast():
            made = consistent(noisy, timesteps, batch.context)
        square = (made - target).square()
        # Pseudo-Huber, which large errors do not rule (Song & Dhariwal 2023, arXiv:2310.14189).
        return (square + 1e-4).sqrt().mean(), square.mean((1, 2, 3)), timesteps

    tuning.learn(rank, "turbo", student, loss, learning_rate=4e-4, seed=6)


def clean_and_noise(latents: Tensor, velocity: Tensor, alphas: Tensor) -> tuple[Tensor, Tensor]:
    """x0 and epsilon of a v-prediction (Salimans & Ho 2022, arXiv:2202.00512)."""
    signal, noise = (part.sqrt().view(-1, 1, 1, 1) for part in (alphas, 1 - alphas))
    return signal * latents - noise * velocity, noise * latents + signal * velocity


def write_folder(settings: Settings) -> None:
    fine_tuning.write_folder(settings, "turbo", LCMScheduler, SCHEDULER, CALL_DEFAULTS)
