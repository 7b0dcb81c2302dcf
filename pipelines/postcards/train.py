"""Trains the bundled models from nothing: python -m pipelines.postcards.train

Stages: paint, VAE, latents, UNet with text encoder, decoder, judge, assemble; for the
unconditional one (--model postcards-ddpm): paint, DDPM. A stage whose result lies in the work
folder is skipped; a killed one goes on from its last checkpoint.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextModel

from pipelines.postcards import autoencoder, diffusion, model
from pipelines.postcards.classifier import train_judge
from pipelines.postcards.loop import run_workers
from pipelines.postcards.pictures import paint_pictures
from pipelines.postcards.settings import CONFIGS, Settings, say
from pipelines.postcards.unconditional import train_ddpm

MODELS = ("postcards", "postcards-ddpm")
DEFAULT_MINUTES = {"cpu": 85, "gpu": 25}
DEFAULT_DDPM_MINUTES = {"cpu": 50, "gpu": 15}
DEFAULT_PICTURES = {"cpu": 48_000, "gpu": 200_000}


def assemble(settings: Settings) -> None:
    """Write the finished folder and the curves beside it."""
    work = settings.work
    vae = AutoencoderKL.from_pretrained(work / "vae-final")
    validation = np.load(work / "validation.npy", mmap_mode="r")
    psnr = autoencoder.reconstruction_psnr(vae, validation)
    say(f"VAE: {psnr:.2f} dB on {len(validation)} held-out pictures")
    model.write_folder(
        settings.out,
        vae,
        UNet2DConditionModel.from_pretrained(work / "unet"),
        CLIPTextModel.from_pretrained(work / "text_encoder"),
        model.make_tokenizer(),
    )
    shutil.copy(work / "judge.safetensors", settings.out)
    copy_curves(settings)


def copy_curves(settings: Settings) -> None:
    curves = settings.out.with_name(settings.out.name + "-curves")
    curves.mkdir(exist_ok=True)
    for curve in settings.work.glob("*-training.csv"):
        shutil.copy(curve, curves)


def train(settings: Settings) -> None:
    """Run every stage whose result is not in the work folder, then write the model."""
    settings.work.mkdir(parents=True, exist_ok=True)
    _check_same_training(settings)
    workers = partial(run_workers, settings=settings, workers=settings.workers)
    last = settings.workers - 1
    stages = (
        ("paint", "training.npy", lambda: paint_pictures(settings)),
        ("vae", "vae", lambda: workers(autoencoder.train_vae)),
        ("latents", f"latents-{last}.npy", lambda: workers(autoencoder.encode_pictures)),
        ("tokens", "tokens.npy", lambda: diffusion.write_tokens(settings)),
        ("unet", "text_encoder", lambda: workers(diffusion.train_unet)),
        ("decoder", "vae-final", lambda: workers(autoencoder.train_decoder)),
        ("judge", "judge.safetensors", lambda: workers(train_judge)),
    )
    for name, result, run in stages:
        if not (settings.work / result).exists():
            say(f"{name}: starts")
            run()
    assemble(settings)
    say(f"done: {settings.out}")


def train_unconditional(settings: Settings) -> None:
    """Paint where there are no pictures yet, train the DDPM, write it and its curve."""
    settings.work.mkdir(parents=True, exist_ok=True)
    _check_same_training(settings)
    if not (settings.work / "training.npy").exists():
        say("paint: starts")
        paint_pictures(settings)
    say("ddpm: starts")
    run_workers(train_ddpm, settings, settings.workers)
    copy_curves(settings)
    say(f"done: {settings.out}")


def _check_same_training(settings: Settings) -> None:
    """Refuse a work folder that another config, picture count or worker count began."""
    path = settings.work / "settings.json"
    mine = {
        "config": settings.config.name,
        "pictures": settings.pictures,
        "workers": settings.workers,
    }
    if not path.exists():
        path.write_text(json.dumps(mine))
    elif (begun := json.loads(path.read_text())) != mine:
        raise SystemExit(f"train: {settings.work} holds a training of {begun}, not of {mine}")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.postcards.train", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--model", choices=MODELS, default=MODELS[0])
    parser.add_argument("--config", choices=CONFIGS, default="cpu")
    parser.add_argument("--out", type=Path, help="the finished folder; default: the model's name")
    parser.add_argument("--work", type=Path, help="pictures and checkpoints; default: OUT-work")
    parser.add_argument(
        "--minutes", type=float, help="of learning; default: 85 (gpu: 25); postcards-ddpm: 50 (15)"
    )
    parser.add_argument("--pictures", type=int, help="default: 48000 or 200000 (gpu)")
    parser.add_argument("--workers", type=int, help="processes; default: the number of CPU cores")
    options = parser.parse_args(arguments)
    if torch.cuda.is_available() and (options.workers or 1) > 1:
        parser.error("--workers: a GPU takes one worker")
    unconditional = options.model == "postcards-ddpm"
    minutes = DEFAULT_DDPM_MINUTES if unconditional else DEFAULT_MINUTES
    out = options.out or Path(options.model)
    settings = Settings(
        config=CONFIGS[options.config],
        out=out,
        work=options.work or out.with_name(out.name + "-work"),
        minutes=options.minutes or minutes[options.config],
        pictures=options.pictures or DEFAULT_PICTURES[options.config],
        workers=options.workers or (1 if torch.cuda.is_available() else os.cpu_count() or 1),
    )
    (train_unconditional if unconditional else train)(settings)


if __name__ == "__main__":
    main()
