"""The denoiser: UNet and text encoder, trained together on stored latents."""

from __future__ import annotations

from random import Random

import numpy as np
import torch
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor

from pipelines.postcards import model
from pipelines.postcards.autoencoder import read_latents
from pipelines.postcards.loop import Loop, train_device
from pipelines.postcards.pictures import read_scenes
from pipelines.postcards.settings import Settings, save_array
from pipelines.postcards.vocabulary import caption

CAPTIONS_PER_PICTURE = 4
EMPTY_CAPTION_SHARE = 0.1


def write_tokens(settings: Settings) -> None:
    """Several captions a picture as token ids: tokens.npy, shape (pictures, captions, tokens)."""
    tokenizer, rng = model.make_tokenizer(), Random(0)
    scenes = read_scenes(settings.work / "training.jsonl")
    texts = [caption(scene, rng) for scene in scenes for _ in range(CAPTIONS_PER_PICTURE)]
    tokens = model.tokenize(tokenizer, texts).view(len(scenes), CAPTIONS_PER_PICTURE, -1)
    save_array(settings, "tokens", tokens.numpy().astype(np.int16))


def train_unet(rank: int, settings: Settings) -> None:
    """Train UNet and text encoder together on stored latents; results: unet, text_encoder."""
    torch.manual_seed(0)
    device, batch = train_device(), settings.config.unet_batch_size
    tokenizer = model.make_tokenizer()
    unet = model.make_unet(settings.config).to(device)
    text_encoder = model.make_text_encoder(settings.config, tokenizer).to(device)
    if device.type == "cpu":
        # The backward pass of fused attention is slow on CPUs at this size.
        unet.set_attn_processor(AttnProcessor())
        text_encoder.set_attn_implementation("eager")
    unet.train()
    text_encoder.train()
    captioned = CaptionedLatents(settings)
    weights = _subject_weights(settings, captioned.latents.shape[-1])
    alphas = model.make_scheduler().alphas_cumprod
    loop = Loop(
        "unet-training",
        {"unet": unet, "text": text_encoder},
        settings.work,
        settings.minutes_of("unet"),
        learning_rate=2e-3,
        average=0.9992,
        rank=rank,
        seed=2,
    )
    for share in loop:
        chosen, clean, ids = captioned.draw(batch)
        clean = clean.to(device)
        noise = torch.randn_like(clean)
        timesteps = sample_timesteps(batch)
        noisy, velocity = noised(clean, noise, alphas[timesteps])
        with loop.autocast():
            context = text_encoder(input_ids=ids.to(device)).last_hidden_state
            predicted = unet(noisy, timesteps.to(device), context).sample
        error = (predicted.float() - velocity).square()
        # The subject counts up to three times at first and like all else at the end.
        weight = 1 + 2 * max(0.0, 1 - 1.2 * share) * weights[chosen].float().to(device) / 255
        loop.update(
            (error * (weight / weight.mean())).mean(),
            batch,
            **by_noise_level(error.mean((1, 2, 3)), timesteps),
        )
    if rank == 0:
        model.save_module(unet, settings.work / "unet")
        model.save_module(text_encoder, settings.work / "text_encoder")


class CaptionedLatents:
    """The stored latents of the training pictures, with their captions as token ids; so large a
    share of those that are drawn is empty, for guidance."""

    def __init__(self, settings: Settings, empty_share: float = EMPTY_CAPTION_SHARE) -> None:
        self.empty_share = empty_share
        self.latents = read_latents(settings)
        self.tokens = torch.from_numpy(np.load(settings.work / "tokens.npy"))
        self.empty = model.tokenize(model.make_tokenizer(), [""])[0]

    def draw(self, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Some pictures at random: their numbers, (count,), latents in float32, (count, 4, h, w),
        and one caption of each, (count, tokens)."""
        chosen = torch.randint(len(self.latents), (count,))
        ids = self.tokens[chosen, torch.randint(CAPTIONS_PER_PICTURE, (count,))].long()
        ids[torch.rand(count) < self.empty_share] = self.empty
        return chosen, self.latents[chosen].float(), ids


def noised(clean: Tensor, noise: Tensor, alphas: Tensor) -> tuple[Tensor, Tensor]:
    """Latents or pictures (n, c, h, w) with noise at some cumulative alphas (n,), and the velocity
    that a v-prediction learns there (Salimans & Ho 2022, arXiv:2202.00512)."""
    alpha = alphas.view(-1, 1, 1, 1).to(clean.device)
    signal, share = alpha.sqrt(), (1 - alpha).sqrt()
    return signal * clean + share * noise, signal * noise - share * clean


def by_noise_level(error: Tensor, noise: Tensor) -> dict[str, Tensor]:
    """Mean error of the pictures with the least noise, with a middle amount and with the most, for
    the curves; both of shape (n,), `noise` in any unit that grows with it."""
    thirds = error.detach()[noise.argsort()].tensor_split(3)
    names = ("low_noise", "middle_noise", "high_noise")
    return {name: third.mean() for name, third in zip(names, thirds, strict=True)}


def sample_timesteps(count: int) -> Tensor:
    """Stratified timesteps: a third uniform, the others logit-normal (Esser et al., 2024)."""
    uniform = (torch.arange(count) + torch.rand(count)) / count
    uniform = uniform[torch.randperm(count)]
    logit_normal = torch.sigmoid(torch.special.ndtri(uniform.clamp(1e-4, 1 - 1e-4)))
    share = torch.where(torch.rand(count) < 1 / 3, uniform, logit_normal)
    return (share * 1000).long().clamp(0, 999)


def _subject_weights(settings: Settings, size: int) -> Tensor:
    """Share of each latent cell that the subject covers, 0 to 255, shape (pictures, 1, h, w)."""
    pictures = np.load(settings.work / "training.npy", mmap_mode="r")
    cell = settings.config.image_size // size
    parts = []
    for start in range(0, len(pictures), 4096):
        masks = np.asarray(pictures[start : start + 4096, ..., 3])
        cells = masks.reshape(len(masks), size, cell, size, cell).mean((2, 4))
        parts.append(cells.astype(np.uint8))
    return torch.from_numpy(np.concatenate(parts))[:, None]
