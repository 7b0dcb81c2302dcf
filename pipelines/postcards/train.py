"""Trains the bundled models from nothing: python -m pipelines.postcards.train

Stages: paint, VAE, latents, UNet with text encoder, decoder, judge, assemble; for the
unconditional one (--model postcards-ddpm): paint, DDPM; for those that start from the bundled
postcards: paint, latents, their own. A stage whose result lies in the work folder is skipped; a
killed one goes on from its last checkpoint. Members of the family may share a work folder.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, DPMSolverMultistepScheduler, UNet2DConditionModel
from transformers import CLIPTextModel

from pipelines.models.files import BUNDLED
from pipelines.postcards import autoencoder, diffusion, flow, inpaint, lora, model, turbo
from pipelines.postcards.classifier import train_judge
from pipelines.postcards.loop import run_workers, yield_to_others
from pipelines.postcards.pictures import paint_pictures
from pipelines.postcards.settings import CONFIGS, Settings, say
from pipelines.postcards.unconditional import train_ddpm

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
        DPMSolverMultistepScheduler,
        model.SCHEDULER,
        model.CALL_DEFAULTS,
    )
    shutil.copy(work / "judge.safetensors", settings.out)


def copy_curves(settings: Settings) -> None:
    curves = settings.out.with_name(settings.out.name + "-curves")
    curves.mkdir(exist_ok=True)
    for curve in settings.work.glob("*-training.csv"):
        shutil.copy(curve, curves)


def train_postcards(settings: Settings) -> None:
    """Every part of postcards from nothing, and the judge."""
    last = settings.workers - 1
    _run_stages(settings, {
        "training.npy": paint_pictures,
        "vae": _by_workers(autoencoder.train_vae),
        f"latents-{last}.npy": _by_workers(autoencoder.encode_pictures),
        "tokens.npy": diffusion.write_tokens,
        "text_encoder": _by_workers(diffusion.train_unet),
        "vae-final": _by_workers(autoencoder.train_decoder),
        "judge.safetensors": _by_workers(train_judge),
    })
    assemble(settings)


def train_unconditional(settings: Settings) -> None:
    _run_stages(settings, {"training.npy": paint_pictures})
    run_workers(train_ddpm, settings, settings.workers)


def train_from_postcards(
    settings: Settings,
    result: str,
    learn: Callable[[int, Settings], None],
    write_folder: Callable[[Settings], None],
    before: Mapping[str, Callable[[Settings], None]] | None = None,
) -> None:
    """A member of the family that starts from the bundled postcards; `learn` leaves `result`, and
    `before` are the stages that it needs beside the usual ones."""
    last = settings.workers - 1
    _run_stages(settings, {
        "training.npy": paint_pictures,
        f"latents-{last}.npy": _by_workers(autoencoder.encode_pictures),
        "tokens.npy": diffusion.write_tokens,
        **(before or {}),
        result: _by_workers(learn),
    })
    write_folder(settings)


def _by_workers(learn: Callable[[int, Settings], None]) -> Callable[[Settings], None]:
    return lambda settings: run_workers(learn, settings, settings.workers)


def _run_stages(settings: Settings, stages: Mapping[str, Callable[[Settings], None]]) -> None:
    """Run each stage whose result is not in the work folder."""
    for result, run in stages.items():
        if not (settings.work / result).exists():
            say(f"{result}: starts")
            run(settings)


@dataclass(frozen=True)
class Member:
    """A model of the family: how to train it, and how many minutes of learning by config."""

    train: Callable[[Settings], None]
    minutes: Mapping[str, float]
    teacher: str | None = None  # the bundled model that it starts from


FAMILY = {
    "postcards": Member(train_postcards, {"cpu": 85, "gpu": 25}),
    "postcards-ddpm": Member(train_unconditional, {"cpu": 50, "gpu": 15}),
    "postcards-turbo": Member(
        partial(train_from_postcards, result="turbo", learn=turbo.train_turbo,
                write_folder=turbo.write_folder),
        {"cpu": 60, "gpu": 10}, "postcards"),
    "postcards-flow": Member(
        partial(train_from_postcards, result="flow", learn=flow.train_flow,
                write_folder=flow.write_folder),
        {"cpu": 45, "gpu": 10}, "postcards"),
    "postcards-inpaint": Member(
        partial(train_from_postcards, result="inpaint", learn=inpaint.train_inpaint,
                write_folder=inpaint.write_folder,
                before={"backgrounds.npy": inpaint.paint_backgrounds}),
        {"cpu": 45, "gpu": 10}, "postcards"),
    **{f"postcards-{name}": Member(
        partial(train_from_postcards, result=f"{name}.safetensors",
                learn=partial(lora.train_lora, name=name),
                write_folder=partial(lora.write_file, name=name),
                before={f"{name}-latents.npy": partial(lora.paint_examples, name=name)}),
        {"cpu": 15, "gpu": 4}, "postcards")
       for name in lora.ADAPTERS},
}


def _check_same_training(settings: Settings) -> None:
    """Refuse a work folder that another config, picture count or worker count began."""
    path = settings.work / "settings.json"
    mine = {
        "config": settings.config.name,
        "pictures": settings.pictures,
        "workers": settings.workers,
    }
    if settings.teacher:
        mine["teacher"] = settings.teacher.name
    if not path.exists():
        path.write_text(json.dumps(mine))
    elif (begun := json.loads(path.read_text())) != mine:
        raise SystemExit(f"train: {settings.work} holds a training of {begun}, not of {mine}")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.postcards.train", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--model", choices=FAMILY, default="postcards")
    parser.add_argument("--config", choices=CONFIGS, default="cpu")
    parser.add_argument("--out", type=Path, help="the finished folder; default: the model's name")
    parser.add_argument("--work", type=Path, help="pictures and checkpoints; default: OUT-work")
    minutes = "; ".join(f"{name} {member.minutes['cpu']} (gpu: {member.minutes['gpu']})"
                        for name, member in FAMILY.items())
    parser.add_argument("--minutes", type=float, help=f"of learning; default: {minutes}")
    parser.add_argument("--pictures", type=int, help="default: 48000 or 200000 (gpu)")
    parser.add_argument("--workers", type=int, help="processes; default: the number of CPU cores")
    options = parser.parse_args(arguments)
    if torch.cuda.is_available() and (options.workers or 1) > 1:
        parser.error("--workers: a GPU takes one worker")
    member = FAMILY[options.model]
    out = options.out or Path(options.model)
    settings = Settings(
        config=CONFIGS[options.config],
        out=out,
        work=options.work or out.with_name(out.name + "-work"),
        minutes=options.minutes or member.minutes[options.config],
        pictures=options.pictures or DEFAULT_PICTURES[options.config],
        workers=options.workers or (1 if torch.cuda.is_available() else os.cpu_count() or 1),
        teacher=BUNDLED[member.teacher] if member.teacher else None,
    )
    settings.work.mkdir(parents=True, exist_ok=True)
    _check_same_training(settings)
    say(f"{options.model}: {settings.minutes:g} minutes of learning on {settings.workers} workers, "
        "once the pictures are painted")
    member.train(settings)
    copy_curves(settings)
    say(f"done: {settings.out}")


if __name__ == "__main__":
    yield_to_others()
    main()
