"""The VAE: its training, the latents of all pictures, and the decoder's last training."""

from __future__ import annotations

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor

from pipelines.postcards import model
from pipelines.postcards.loop import Loop, train_device
from pipelines.postcards.settings import Settings, save_array, say

LATENT_NOISE = 0.04


def train_vae(rank: int, settings: Settings) -> None:
    """Train the autoencoder and normalise its latents; result: the folder vae."""
    torch.manual_seed(0)
    device, batch = train_device(), settings.config.vae_batch_size
    vae = model.make_vae(settings.config).to(device)
    pictures = np.load(settings.work / "training.npy", mmap_mode="r")
    loop = Loop(
        "vae-training",
        {"vae": vae},
        settings.work,
        settings.minutes_of("vae"),
        learning_rate=2e-3,
        average=0.998,
        rank=rank,
        seed=1,
    )
    for _ in loop:
        chosen = torch.randint(len(pictures), (batch,)).sort().values.numpy()
        images, masks = to_tensors(pictures[chosen], device)
        with loop.autocast():
            moments = vae.quant_conv(vae.encoder(images)).float()
        mean, log_variance = moments.chunk(2, 1)
        log_variance = log_variance.clamp(-20, 10)
        latents = mean + torch.randn_like(mean) * (0.5 * log_variance).exp()
        with loop.autocast():
            made = vae.decoder(vae.post_quant_conv(latents)).float()
        loss, l1 = reconstruction_loss(made, images, masks)
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
        loop.update(loss + 5e-4 * divergence, batch, l1=l1, divergence=divergence)
    if rank == 0:
        chosen = np.linspace(0, len(pictures) - 1, min(512, len(pictures))).astype(int)
        _normalise_latents(vae, pictures[chosen], device)
        model.save_module(vae, settings.work / "vae")


@torch.no_grad()
def _normalise_latents(vae: AutoencoderKL, pictures: np.ndarray, device: torch.device) -> None:
    """Fold mean and deviation of each latent channel into the VAE's two 1x1 convolutions."""
    moments = torch.cat([
        vae.quant_conv(vae.encoder(to_tensors(pictures[i : i + 32], device)[0]))
        for i in range(0, len(pictures), 32)
    ])
    mean, log_variance = moments.chunk(2, 1)
    centre = mean.mean((0, 2, 3))
    deviation = (mean.var((0, 2, 3)) + log_variance.exp().mean((0, 2, 3))).sqrt()
    channels, encode, decode = len(centre), vae.quant_conv, vae.post_quant_conv
    encode.weight[:channels] /= deviation[:, None, None, None]
    encode.bias[:channels] = (encode.bias[:channels] - centre) / deviation
    encode.bias[channels:] -= 2 * deviation.log()
    decode.bias += decode.weight[:, :, 0, 0] @ centre
    decode.weight *= deviation[None, :, None, None]


@torch.no_grad()
def encode_pictures(rank: int, settings: Settings) -> None:
    """Mean latents of this worker's share of the training pictures: latents-RANK.npy."""
    device = train_device()
    vae = AutoencoderKL.from_pretrained(
        (settings.teacher or settings.work) / "vae", torch_dtype=torch.float32
    ).to(device).eval()
    pictures = np.load(settings.work / "training.npy", mmap_mode="r")
    size = settings.config.latent_size
    shares = np.array_split(np.arange(len(pictures)), settings.workers)
    mine = shares[rank]
    latents = np.empty((len(mine), model.LATENT_CHANNELS, size, size), np.float16)
    batch = 32 if device.type == "cpu" else 512
    for start in range(0, len(mine), batch):
        images, _ = to_tensors(pictures[mine[start] : mine[0] + start + batch], device)
        images = images[: len(mine) - start]
        encoded = vae.encode(images).latent_dist.mean
        latents[start : start + len(encoded)] = encoded.half().cpu().numpy()
        if rank == 0 and start // batch % 100 == 99:
            say(f"latents: {start + batch} of {len(mine)} on this worker")
    save_array(settings, f"latents-{rank}", latents)


def read_latents(settings: Settings) -> Tensor:
    parts = [np.load(settings.work / f"latents-{rank}.npy") for rank in range(settings.workers)]
    return torch.from_numpy(np.concatenate(parts))


def train_decoder(rank: int, settings: Settings) -> None:
    """Train the decoder alone on slightly noisy stored latents; result: vae-final."""
    device, batch = train_device(), settings.config.vae_batch_size
    vae = AutoencoderKL.from_pretrained(settings.work / "vae").to(device)
    vae.encoder.requires_grad_(False)
    vae.quant_conv.requires_grad_(False)
    pictures = np.load(settings.work / "training.npy", mmap_mode="r")
    latents = read_latents(settings)
    loop = Loop(
        "decoder-training",
        {"vae": vae},
        settings.work,
        settings.minutes_of("decoder"),
        learning_rate=1e-3,
        average=0.998,
        rank=rank,
        seed=3,
    )
    for _ in loop:
        chosen = torch.randint(len(pictures), (batch,)).sort().values
        images, masks = to_tensors(pictures[chosen.numpy()], device)
        encoded = latents[chosen].float().to(device)
        encoded = encoded + LATENT_NOISE * torch.randn_like(encoded)
        with loop.autocast():
            made = vae.decoder(vae.post_quant_conv(encoded)).float()
        loss, l1 = reconstruction_loss(made, images, masks)
        loop.update(loss, batch, l1=l1)
    if rank == 0:
        model.save_module(vae, settings.work / "vae-final")


@torch.no_grad()
def reconstruction_psnr(vae: AutoencoderKL, pictures: np.ndarray) -> float:
    """Mean PSNR in dB of encoding and decoding the pictures."""
    values = []
    for start in range(0, len(pictures), 32):
        images, _ = to_tensors(pictures[start : start + 32], vae.device)
        made = vae.decode(vae.encode(images).latent_dist.mean).sample.clamp(-1, 1)
        values.append(10 * torch.log10(4 / (made - images).square().mean((1, 2, 3))))
    return torch.cat(values).mean().item()


def to_tensors(pictures: np.ndarray, device: torch.device) -> tuple[Tensor, Tensor]:
    """Pictures in [-1, 1], shape (n, 3, side, side), and subject masks in [0, 1]."""
    tensor = torch.from_numpy(np.array(pictures)).to(device).permute(0, 3, 1, 2).float()
    return tensor[:, :3] / 127.5 - 1, tensor[:, 3:] / 255


def reconstruction_loss(made: Tensor, wanted: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """L1, L2 and the L1 of edges, the subject counting three times; and the plain L1."""
    weight = 1 + 2 * mask
    weight = weight / weight.mean()
    error = made - wanted
    across = ((error[..., 1:] - error[..., :-1]).abs() * weight[..., 1:]).mean()
    down = ((error[:, :, 1:] - error[:, :, :-1]).abs() * weight[:, :, 1:]).mean()
    pixels = ((error.abs() + error.square()) * weight).mean()
    return pixels + 0.7 * (across + down), error.detach().abs().mean()
