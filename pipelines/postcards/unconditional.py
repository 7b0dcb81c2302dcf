"""The unconditional DDPM: it denoises small pictures themselves, with neither latents nor words."""

from __future__ import annotations

import shutil

import numpy as np
import torch
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from diffusers.models.attention_processor import Attention, AttnProcessor
from torch import Tensor

from pipelines.postcards.autoencoder import to_tensors
from pipelines.postcards.diffusion import by_noise_level, noised
from pipelines.postcards.loop import Loop, train_device
from pipelines.postcards.model import keep_only
from pipelines.postcards.settings import Settings

SIDE = 32
CALL_DEFAULTS = {"num_inference_steps": 50}
BATCH_SIZE = {"cpu": 16, "cuda": 512}
SCHEDULER = {
    "num_train_timesteps": 1000,
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "prediction_type": "v_prediction",
    "timestep_spacing": "trailing",
    "clip_sample": True,
}


def make_unet() -> UNet2DModel:
    """A three-level UNet that attends to all places at a quarter of its resolution."""
    return UNet2DModel(
        sample_size=SIDE,
        in_channels=3,
        out_channels=3,
        block_out_channels=(48, 64, 128),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        attention_head_dim=32,
        norm_num_groups=8,
    )


def train_ddpm(rank: int, settings: Settings) -> None:
    """Train on the painted pictures, made small; result: the pipeline's folder at settings.out."""
    torch.manual_seed(0)
    device = train_device()
    batch = BATCH_SIZE[device.type]
    unet = make_unet().to(device).train()
    if device.type == "cpu":
        # The backward pass of fused attention is slow on CPUs at this size.
        for module in unet.modules():
            if isinstance(module, Attention):
                module.set_processor(AttnProcessor())
    pictures = _small_pictures(settings)
    alphas = DDPMScheduler(**SCHEDULER).alphas_cumprod
    loop = Loop(
        "ddpm-training",
        {"unet": unet},
        settings.work,
        settings.minutes,
        learning_rate=2e-3,
        average=0.9992,
        rank=rank,
        seed=5,
    )
    for _ in loop:
        chosen = torch.randint(len(pictures), (batch,))
        clean, _ = to_tensors(pictures[chosen.numpy()], device)
        noise = torch.randn_like(clean)
        timesteps = sample_timesteps(batch, alphas)
        noisy, velocity = noised(clean, noise, alphas[timesteps])
        with loop.autocast():
            predicted = unet(noisy, timesteps.to(device)).sample
        error = (predicted.float() - velocity).square().mean((1, 2, 3))
        loop.update(error.mean(), batch, **by_noise_level(error, timesteps))
    if rank == 0:
        write_folder(unet.cpu(), settings)


def sample_timesteps(count: int, alphas: Tensor) -> Tensor:
    """Stratified timesteps: a third uniform, the others as often as min-SNR weighs their loss.

    Hang et al., 2023 multiply the loss of a velocity by min(SNR, 5) / (SNR + 1); drawing by it
    costs no pictures that hardly count.
    """
    signal_to_noise = alphas / (1 - alphas)
    weights = signal_to_noise.clamp(max=5) / (signal_to_noise + 1)
    chances = (2 * weights / weights.sum() + 1 / len(alphas)) / 3
    strata = (torch.arange(count) + torch.rand(count)) / count
    timesteps = torch.searchsorted(chances.cumsum(0), strata).clamp(max=len(alphas) - 1)
    return timesteps[torch.randperm(count)]


def write_folder(unet: UNet2DModel, settings: Settings) -> None:
    """Save the pipeline in half precision as a standard folder, replacing one that is there."""
    pipe = DDPMPipeline(unet.half(), DDPMScheduler(**SCHEDULER))
    fresh = settings.out.with_name(settings.out.name + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    pipe.save_pretrained(fresh, safe_serialization=True)
    # Only what was chosen: a default of DDPM would otherwise bind every other scheduler.
    keep_only(
        fresh / "scheduler/scheduler_config.json",
        lambda key: key.startswith("_") or key in SCHEDULER,
    )
    keep_only(fresh / "model_index.json", lambda key: True, {"_call_defaults": CALL_DEFAULTS})
    keep_only(fresh / "unet/config.json", lambda key: key != "_name_or_path")
    shutil.rmtree(settings.out, ignore_errors=True)
    fresh.replace(settings.out)


def _small_pictures(settings: Settings) -> np.ndarray:
    """The training pictures with their masks, as averages of whole pixels, SIDE x SIDE."""
    pictures = np.load(settings.work / "training.npy", mmap_mode="r")
    cell = pictures.shape[1] // SIDE
    small = np.empty((len(pictures), SIDE, SIDE, 4), np.uint8)
    for start in range(0, len(pictures), 1024):
        cells = pictures[start : start + 1024].reshape(-1, SIDE, cell, SIDE, cell, 4)
        small[start : start + 1024] = cells.mean((2, 4)).round()
    return small
