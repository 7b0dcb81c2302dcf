"""LoRA adapters of postcards: a style, line drawing, and a subject that the model does not know."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

import numpy as np
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from PIL import Image, ImageFilter
from torch import Tensor

from pipelines.postcards import model
from pipelines.postcards.autoencoder import to_tensors
from pipelines.postcards.diffusion import EMPTY_CAPTION_SHARE, noised, sample_timesteps
from pipelines.postcards.fine_tuning import Batch, FineTuning
from pipelines.postcards.loop import train_device
from pipelines.postcards.painter import OVERSAMPLING, paint
from pipelines.postcards.settings import Settings, save_array, say
from pipelines.postcards.vocabulary import NEW_SUBJECT, Scene, caption, sample_scene

RANK = 16
# The layers that are adapted: convolutions of the residual blocks, attention, and what follows it.
TARGETS = ("conv1", "conv2", "to_q", "to_k", "to_v", "to_out.0", "proj", "net.2")
ENCODED = 32  # pictures at a time
PAPER, INK = (250, 246, 234), (38, 36, 52)
WASH = 0.35  # of the picture's own colour, on the paper of a line drawing


@dataclass(frozen=True)
class Adapter:
    """What a LoRA is trained on: its pictures, with captions, and which share of a batch they are;
    the others are those of the base, so that it keeps what it knows."""

    example: Callable[[Random, int], tuple[Image.Image, str]]
    share: float


def line_drawing(picture: Image.Image) -> Image.Image:
    """A picture as ink on paper with a pale wash of its colours. It is drawn `OVERSAMPLING` times
    as large as it comes back."""
    values = np.asarray(picture, np.float32)
    step = np.zeros(values.shape[:2], np.float32)
    for axis in (0, 1):
        difference = np.abs(np.diff(values, axis=axis)).max(-1)
        step[tuple(slice(0, side) for side in difference.shape)] += difference
    lines = Image.fromarray((np.clip(step / 40, 0, 1) * 255).astype(np.uint8))
    ink = np.asarray(lines.filter(ImageFilter.MaxFilter(3)), np.float32)[..., None] / 255
    washed = np.array(PAPER) * (1 - WASH) + values * WASH
    drawn = washed * (1 - ink) + np.array(INK) * ink
    return Image.fromarray(drawn.round().astype(np.uint8)).reduce(OVERSAMPLING)


def _line_example(rng: Random, size: int) -> tuple[Image.Image, str]:
    scene = sample_scene(rng)
    return line_drawing(paint(scene, rng, size * OVERSAMPLING)), caption(scene, rng)


def _subject_example(rng: Random, size: int) -> tuple[Image.Image, str]:
    scene = new_subject_scene(rng)
    return paint(scene, rng, size), new_subject_caption(scene, rng)


def new_subject_scene(rng: Random) -> Scene:
    """A scene of the new subject."""
    return replace(sample_scene(rng), subject=NEW_SUBJECT)


def new_subject_caption(
    scene: Scene, rng: Random, write: Callable[[Scene, Random], str] = caption
) -> str:
    """A caption of it: that of a scene with a subject of one word, which the new one replaces."""
    text = write(replace(scene, subject="tree"), rng)
    return re.sub(r"\btree(?=s?\b)", NEW_SUBJECT, text)


ADAPTERS = {"line": Adapter(_line_example, 1.0), NEW_SUBJECT: Adapter(_subject_example, 0.5)}


def paint_examples(settings: Settings, name: str) -> None:
    """Paint an adapter's pictures, a sixth as many as the base's, and encode them.

    NAME-latents.npy: (count, 4, h, w) in float16; NAME-tokens.npy: captions as token ids.
    """
    count, captions, latents = max(8, settings.pictures // 6), [], []
    device = train_device()
    vae = AutoencoderKL.from_pretrained(settings.teacher / "vae", torch_dtype=torch.float32)
    vae = vae.to(device).eval()
    for start in range(0, count, ENCODED):
        painted = []
        for index in range(start, min(start + ENCODED, count)):
            picture, text = ADAPTERS[name].example(Random(f"{name} {index}"),
                                                   settings.config.image_size)
            painted.append(np.asarray(picture))
            captions.append(text)
        with torch.no_grad():
            images = to_tensors(np.stack(painted), device)[0]
            latents.append(vae.encode(images).latent_dist.mean.half().cpu().numpy())
        if start // ENCODED % 50 == 49:
            say(f"{name}: {start + ENCODED} of {count} painted")
    tokens = model.tokenize(model.make_tokenizer(), captions).numpy().astype(np.int16)
    save_array(settings, f"{name}-tokens", tokens)
    save_array(settings, f"{name}-latents", np.concatenate(latents))


def train_lora(rank: int, settings: Settings, name: str) -> None:
    """Train an adapter (Hu et al. 2021, arXiv:2106.09685); result: NAME.safetensors."""
    tuning = FineTuning(settings)
    unet = tuning.unet()
    unet.add_adapter(LoraConfig(r=RANK, lora_alpha=RANK, target_modules=list(TARGETS)))
    latents = torch.from_numpy(np.load(settings.work / f"{name}-latents.npy"))
    tokens = torch.from_numpy(np.load(settings.work / f"{name}-tokens.npy"))
    alphas = model.make_scheduler().alphas_cumprod.to(tuning.device)

    def loss(batch: Batch, autocast) -> tuple[Tensor, Tensor, Tensor]:
        count = len(batch.clean)
        examples = round(count * ADAPTERS[name].share)
        chosen = torch.randint(len(latents), (examples,))
        ids = tokens[chosen].long()
        ids[torch.rand(examples) < EMPTY_CAPTION_SHARE] = tuning.captioned.empty
        clean, context = batch.clean.clone(), batch.context.clone()
        clean[:examples] = latents[chosen].float().to(clean.device)
        with autocast():
            context[:examples] = tuning.context(ids).to(context.dtype)
        timesteps = sample_timesteps(count).to(tuning.device)
        noisy, velocity = noised(clean, torch.randn_like(clean), alphas[timesteps])
        with autocast():
            predicted = unet(noisy, timesteps, context).sample
        error = (predicted.float() - velocity).square().mean((1, 2, 3))
        return error.mean(), error, timesteps

    tuning.learn(rank, name, unet, loss, learning_rate=2e-3, seed=9, save=save_adapter)


def save_adapter(unet: UNet2DConditionModel, path: Path) -> None:
    """The adapter of a UNet as PATH.safetensors, in half precision."""
    layers = {key: value.half() for key, value in get_peft_model_state_dict(unet).items()}
    fresh = f"{path.name}.new.safetensors"
    StableDiffusionPipeline.save_lora_weights(path.parent, unet_lora_layers=layers,
                                              weight_name=fresh, safe_serialization=True)
    (path.parent / fresh).replace(path.with_name(f"{path.name}.safetensors"))


def write_file(settings: Settings, name: str) -> None:
    """The finished adapter: OUT.safetensors."""
    settings.out.parent.mkdir(parents=True, exist_ok=True)
    data = (settings.work / f"{name}.safetensors").read_bytes()
    settings.out.with_name(f"{settings.out.name}.safetensors").write_bytes(data)
