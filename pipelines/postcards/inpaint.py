"""postcards-inpaint: the UNet of postcards with nine channels, which sees what is kept."""

from __future__ import annotations

from random import Random

import numpy as np
import torch
from diffusers import (
    AutoencoderKL,
    DPMSolverMultistepScheduler,
    StableDiffusionInpaintPipeline,
    UNet2DConditionModel,
)
from torch import Tensor, nn

from pipelines.postcards import fine_tuning, model
from pipelines.postcards.autoencoder import to_tensors
from pipelines.postcards.diffusion import noised, sample_timesteps
from pipelines.postcards.fine_tuning import Batch, FineTuning
from pipelines.postcards.painter import paint_background
from pipelines.postcards.settings import Settings, save_array, say
from pipelines.postcards.vocabulary import PLACE_PHRASES, TIME_PHRASES, Scene, sample_scene

CHANNELS = 2 * model.LATENT_CHANNELS + 1  # noisy latents, mask, latents of what is kept
BACKGROUND_SHARE = 0.3  # of a batch: pictures without a subject, whose caption names none
CAPTIONED_BACKGROUND_SHARE = 0.4  # of them; the others' captions are empty
KEPT_WEIGHT = 0.2  # of what is kept, in the loss: the network sees it, and it is soon learned


def paint_backgrounds(settings: Settings) -> None:
    """Pictures without a subject, an eighth as many as the others: backgrounds.npy, uint8 of shape
    (count, side, side, 3), and a caption of each as token ids in background-tokens.npy."""
    count, captions, pictures = max(8, settings.pictures // 8), [], []
    for index in range(count):
        rng = Random(f"background {index}")
        scene = sample_scene(rng)
        pictures.append(np.asarray(paint_background(scene, rng, settings.config.image_size)))
        captions.append(background_caption(scene, rng))
        if index % 1000 == 999:
            say(f"backgrounds: {index + 1} of {count}")
    tokens = model.tokenize(model.make_tokenizer(), captions).numpy().astype(np.int16)
    save_array(settings, "background-tokens", tokens)
    save_array(settings, "backgrounds", np.stack(pictures))


def background_caption(scene: Scene, rng: Random) -> str:
    """Place and time in words: what a picture without a subject shows."""
    return f"{rng.choice(PLACE_PHRASES[scene.place])} {rng.choice(TIME_PHRASES[scene.time])}"


def train_inpaint(rank: int, settings: Settings) -> None:
    """Learn to paint what a mask hides (Rombach et al. 2022, arXiv:2112.10752); result: the UNet
    in inpaint.

    An empty caption goes with pictures that show no subject: so it comes to mean what lies behind,
    and a subject under the mask is removed.
    """
    tuning = FineTuning(settings, empty_share=0)
    unet = with_channels(tuning.unet(), CHANNELS)
    vae = AutoencoderKL.from_pretrained(settings.teacher / "vae", torch_dtype=torch.float32)
    vae = vae.to(tuning.device).eval().requires_grad_(False)
    pictures = np.load(settings.work / "training.npy", mmap_mode="r")
    backgrounds = np.load(settings.work / "backgrounds.npy", mmap_mode="r")
    background_ids = torch.from_numpy(np.load(settings.work / "background-tokens.npy")).long()
    alphas = model.make_scheduler().alphas_cumprod.to(tuning.device)

    def loss(batch: Batch, autocast) -> tuple[Tensor, Tensor, Tensor]:
        count = len(batch.clean)
        images, subjects = to_tensors(pictures[batch.chosen.numpy()], tuning.device)
        clean, context = batch.clean.clone(), batch.context.clone()
        empty = round(count * BACKGROUND_SHARE)
        chosen = torch.randint(len(backgrounds), (empty,))
        images[:empty] = to_tensors(backgrounds[chosen.numpy()], tuning.device)[0]
        ids = background_ids[chosen]
        ids[torch.rand(empty) > CAPTIONED_BACKGROUND_SHARE] = tuning.captioned.empty
        mask = sample_masks(subjects)
        with torch.no_grad(), autocast():
            context[:empty] = tuning.context(ids).to(context.dtype)
            clean[:empty] = vae.encode(images[:empty]).latent_dist.mean.float()
            kept = vae.encode(images * (1 - mask)).latent_dist.mean.float()
        timesteps = sample_timesteps(count).to(tuning.device)
        noisy, velocity = noised(clean, torch.randn_like(clean), alphas[timesteps])
        small = nn.functional.interpolate(mask, clean.shape[-2:])  # as the pipeline does it
        with autocast():
            predicted = unet(torch.cat([noisy, small, kept], 1), timesteps, context).sample
        weight = KEPT_WEIGHT + (1 - KEPT_WEIGHT) * small
        squared = (predicted.float() - velocity).square().mean(1, keepdim=True)
        error = (weight * squared).mean((1, 2, 3)) / weight.mean((1, 2, 3))
        return error.mean(), error, timesteps

    tuning.learn(rank, "inpaint", unet, loss, learning_rate=1e-3, seed=8)


def with_channels(unet: UNet2DConditionModel, channels: int) -> UNet2DConditionModel:
    """The same UNet with more input channels, which it does not heed yet."""
    wider = UNet2DConditionModel.from_config({**unet.config, "in_channels": channels})
    state = unet.state_dict()
    weight = torch.zeros_like(wider.conv_in.weight, device=unet.device)
    weight[:, : unet.config.in_channels] = state["conv_in.weight"]
    wider.load_state_dict(state | {"conv_in.weight": weight})
    return wider.to(unet.device)


def sample_masks(subjects: Tensor) -> Tensor:
    """A mask for each picture, 1 where it is to be painted, shape (n, 1, side, side): of 20, eight
    are a box about the subject, four the subject with a rim, seven any box, one is everything.

    `subjects` are the true masks, 0 to 1. They are those of the pictures in this batch, in order,
    and so for a background a shape like any other.
    """
    count, _, side, _ = subjects.shape
    rim = 2 * int(torch.randint(1, 4, ())) + 1
    grown = nn.functional.max_pool2d((subjects > 0).float(), rim, 1, rim // 2)
    masks = torch.ones_like(grown)
    kinds = torch.rand(count)
    for number, kind in enumerate(kinds.tolist()):
        rows, columns = grown[number, 0].amax(1).nonzero(), grown[number, 0].amax(0).nonzero()
        if kind >= 0.95:
            continue
        if kind < 0.2 and len(rows):
            masks[number] = grown[number]
            continue
        if kind < 0.6 and len(rows):
            top, bottom = int(rows[0]), int(rows[-1]) + 1
            left, right = int(columns[0]), int(columns[-1]) + 1
        else:
            height, width = (int(torch.randint(side // 8, side * 3 // 4, ())) for _ in range(2))
            top = int(torch.randint(0, side - height + 1, ()))
            left = int(torch.randint(0, side - width + 1, ()))
            bottom, right = top + height, left + width
        masks[number] = 0
        masks[number, :, top:bottom, left:right] = 1
    return masks


def write_folder(settings: Settings) -> None:
    fine_tuning.write_folder(settings, "inpaint", DPMSolverMultistepScheduler, model.SCHEDULER,
                             model.CALL_DEFAULTS, StableDiffusionInpaintPipeline)
