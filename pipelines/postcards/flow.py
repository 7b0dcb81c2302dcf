"""postcards-flow: the UNet of postcards, trained on to flow matching."""

from __future__ import annotations

import torch
from diffusers import DPMSolverMultistepScheduler
from torch import Tensor

from pipelines.postcards import fine_tuning, model
from pipelines.postcards.diffusion import sample_timesteps
from pipelines.postcards.fine_tuning import Batch, FineTuning
from pipelines.postcards.settings import Settings

# A scheduler that StableDiffusionPipeline runs: it asks for `init_noise_sigma`, which
# FlowMatchEulerDiscreteScheduler does not have.
SCHEDULER = {
    "num_train_timesteps": 1000,
    "prediction_type": "flow_prediction",
    "use_flow_sigmas": True,
    "flow_shift": 1.0,
    "steps_offset": 1,  # unused; StableDiffusionPipeline warns of any other
}


def train_flow(rank: int, settings: Settings) -> None:
    """Learn the velocity of straight lines from picture to noise (Lipman et al. 2022,
    arXiv:2210.02747; Liu et al. 2022, arXiv:2209.03003); result: the UNet in flow."""
    tuning = FineTuning(settings)
    unet = tuning.unet()

    def loss(batch: Batch, autocast) -> tuple[Tensor, Tensor, Tensor]:
        timesteps = (sample_timesteps(len(batch.clean)) + 1).to(tuning.device)
        sigma = (timesteps / 1000).view(-1, 1, 1, 1)
        noise = torch.randn_like(batch.clean)
        noisy = (1 - sigma) * batch.clean + sigma * noise
        with autocast():
            predicted = unet(noisy, timesteps, batch.context).sample
        error = (predicted.float() - (noise - batch.clean)).square().mean((1, 2, 3))
        return error.mean(), error, timesteps

    tuning.learn(rank, "flow", unet, loss, learning_rate=1e-3, seed=7)


def write_folder(settings: Settings) -> None:
    fine_tuning.write_folder(
        settings, "flow", DPMSolverMultistepScheduler, SCHEDULER, model.CALL_DEFAULTS)
