"""What the model card shows: python -m pipelines.postcards.figures WHAT

sheets: pictures for held-out captions, and samples of the DDPM. nearest: generated pictures
beside their nearest training pictures. curves: the training curves. behaviour: what guidance,
steps, negative prompts and in-painting do, in figures. Pictures go to docs/postcards.
"""

from __future__ import annotations

import argparse
import csv
import math
import os
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pipelines.errors import PipelineError, RequestError
from pipelines.postcards import judge
from pipelines.postcards.behaviour import as_array, tables
from pipelines.postcards.settings import CONFIGS, Settings, say
from pipelines.postcards.vocabulary import full_caption
from pipelines.sheet.draw import enlarge

if TYPE_CHECKING:
    from pipelines.models.loaded import LoadedModel
    from pipelines.models.registry import Registry

HERE = Path(__file__).parent
CURVES = HERE / "curves"
POSTCARDS, DDPM = "postcards", "postcards-ddpm"
SHOWN_SIDE, GAP, TEXT_SIZE = 128, 8, 11
PAPER, INK = "white", "#333333"


# Sheets


def draw_sheet(
    pictures: Sequence[Image.Image], texts: Sequence[str], columns: int = 8, group: int = 1
) -> Image.Image:
    """Enlarged pictures in rows, `group` of them side by side over each of the texts."""
    shown = [enlarge(picture, SHOWN_SIDE) for picture in pictures]
    font = ImageFont.load_default(TEXT_SIZE)
    width, height = group * shown[0].width, shown[0].height
    line = TEXT_SIZE + 3
    wrapped = [textwrap.wrap(text, width // 6) for text in texts]
    below = line * max(map(len, wrapped), default=0)
    blocks = len(shown) // group
    step_x, step_y = width + GAP, height + below + GAP
    sheet = Image.new(
        "RGB", (columns * step_x + GAP, math.ceil(blocks / columns) * step_y + GAP), PAPER
    )
    draw = ImageDraw.Draw(sheet)
    for block in range(blocks):
        x, y = GAP + block % columns * step_x, GAP + block // columns * step_y
        for index, picture in enumerate(shown[block * group : (block + 1) * group]):
            sheet.paste(picture, (x + index * picture.width, y))
        for number, text in enumerate(wrapped[block] if below else ()):
            draw.text((x, y + height + 2 + number * line), text, INK, font)
    return sheet


def save(sheet: Image.Image, path: Path) -> None:
    """Save as WebP without loss, which stores repeated pixels in half of a PNG's space."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path, lossless=True, method=6)
    say(f"{path}: {path.stat().st_size / 1000:.0f} kB")


def write_sheets(
    registry: Registry, models: Sequence[str], out: Path, seed: int, count: int = 64
) -> None:
    if POSTCARDS in models:
        for name, make in (
            ("held-out", judge.held_out_captions),
            ("details", judge.detailed_captions),
        ):
            captions = [want.caption for want in make(count, seed)]
            with registry.borrow(POSTCARDS) as (model, _):
                pictures = judge.generate(model, captions, seed=seed)
            save(draw_sheet(pictures, captions), out / f"{name}.webp")
    if DDPM in models:
        save(draw_sheet(sample_ddpm(registry, count, seed), [""] * count), out / "ddpm.webp")


def sample_ddpm(
    registry: Registry,
    count: int,
    seed: int = 0,
    scheduler: str = "ddpm",
    num_inference_steps: int = 50,
) -> list[Image.Image]:
    """Pictures of the bundled DDPM; picture i starts from noise of seed + i."""
    import torch

    from pipelines.schedulers import make_scheduler

    pictures: list[Image.Image] = []
    with registry.borrow(DDPM) as (model, _):
        pipe = model.view("unconditional")
        for start in range(0, count, judge.BATCH_SIZE):
            size = min(judge.BATCH_SIZE, count - start)
            pipe.scheduler = make_scheduler(scheduler, model.info.original_scheduler_config)
            pictures += pipe(
                size,
                num_inference_steps=num_inference_steps,
                generator=[torch.Generator().manual_seed(seed + start + i) for i in range(size)],
            ).images
    return pictures


# Nearest training pictures


def write_nearest(
    registry: Registry, models: Sequence[str], out: Path, work: Path, seed: int, count: int
) -> str:
    """Save generated pictures beside the nearest training pictures; a table of distances."""
    from pipelines.postcards.pictures import paint_pictures, read_scenes

    if not (work / "training.npy").exists():
        work.mkdir(parents=True, exist_ok=True)
        workers = os.cpu_count() or 1
        paint_pictures(Settings(CONFIGS["cpu"], work, work, 0, 48_000, workers))
    training = np.load(work / "training.npy", mmap_mode="r")
    scenes = read_scenes(work / "training.jsonl")
    painted = np.load(work / "validation.npy", mmap_mode="r")[:count, ..., :3]
    unseen = read_scenes(work / "validation.jsonl")[:count]
    rng = Random(f"nearest {seed}")
    captions = [full_caption(scene, rng) for scene in unseen]
    lines = ["| pictures | median | 1st percentile | least |", "|---|---|---|---|"]

    def measure(name: str, pictures: np.ndarray, sheet: str = "", texts: Sequence[str] = ()):
        say(f"nearest: {name}, {len(pictures)} pictures against {len(training)}")
        distances, matches = nearest(pictures, training)
        figures = (np.median(distances), np.percentile(distances, 1), distances.min())
        lines.append(f"| {name} | " + " | ".join(f"{value:.1f}" for value in figures) + " |")
        shown, below = [], []
        for picture, text, distance, match in zip(
            pictures, texts, distances, matches, strict=False
        ):
            twin = _shrink(training[match : match + 1, ..., :3], len(picture))[0]
            shown += [Image.fromarray(picture), Image.fromarray(twin)]
            scene = scenes[match]
            below.append(f"{text}nearest: {scene.colour} {scene.subject}, {scene.place}, "
                         f"{scene.time}; distance {distance:.0f}")
        if sheet:
            save(draw_sheet(shown, below, columns=4, group=2), out / sheet)

    if POSTCARDS in models:
        with registry.borrow(POSTCARDS) as (model, _):
            pictures = as_array(judge.generate(model, captions, seed=seed))
            copies = _through_vae(model, training[:: len(training) // count][:count, ..., :3])
        texts = [f"{caption} | " for caption in captions[:16]]
        measure("generated for held-out captions", pictures, "nearest.webp", texts)
        measure("painted, held out", painted)
        measure("training pictures through the VAE (a copy would lie here)", copies)
    if DDPM in models:
        pictures = as_array(sample_ddpm(registry, count, seed))
        measure("generated by the DDPM, 32 px", pictures, "ddpm-nearest.webp", [""] * 16)
        measure("painted, held out, 32 px", _shrink(painted, 32))
    return "\n".join(lines)


def nearest(pictures: np.ndarray, training: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each picture the least root mean square difference (0 to 255) and the index that has it.

    `training` is shrunk to the pictures' side; further channels than RGB are left out.
    """
    wanted = pictures.reshape(len(pictures), -1).astype(np.float32)
    lengths = (wanted**2).sum(1)
    best, indices = np.full(len(wanted), np.inf), np.zeros(len(wanted), int)
    rows = np.arange(len(wanted))
    for start in range(0, len(training), 1000):
        part = _shrink(training[start : start + 1000, ..., :3], pictures.shape[1])
        part = part.reshape(len(part), -1).astype(np.float32)
        squares = lengths[:, None] - 2 * wanted @ part.T + (part**2).sum(1)
        least = squares.argmin(1)
        closer = squares[rows, least] < best
        best[closer], indices[closer] = squares[rows, least][closer], start + least[closer]
    return np.sqrt(best.clip(0) / wanted.shape[1]), indices


def _shrink(pictures: np.ndarray, side: int) -> np.ndarray:
    cell = pictures.shape[1] // side
    if cell == 1:
        return pictures
    cells = pictures.reshape(-1, side, cell, side, cell, pictures.shape[-1])
    return cells.mean((2, 4)).round().astype(np.uint8)


def _through_vae(model: LoadedModel, pictures: np.ndarray) -> np.ndarray:
    import torch

    vae = model.pipe.vae
    made = []
    with torch.no_grad():
        for start in range(0, len(pictures), judge.BATCH_SIZE):
            images = torch.from_numpy(pictures[start : start + judge.BATCH_SIZE])
            images = images.permute(0, 3, 1, 2).to(vae.device, vae.dtype) / 127.5 - 1
            made.append(vae.decode(vae.encode(images).latent_dist.mean).sample.float().cpu())
    pixels = (torch.cat(made).permute(0, 2, 3, 1) * 127.5 + 127.5).round().clamp(0, 255)
    return pixels.byte().numpy()


# Training curves


def draw_curves(folder: Path) -> str:
    """An SVG: the loss of each stage, logarithmic, over its minutes."""
    width, height, margin, space = 300, 180, 44, 56
    files = sorted(folder.glob("*-training.csv"))
    columns = 3
    total_width = columns * (width + margin) + 20
    total_height = math.ceil(len(files) / columns) * (height + space) + 20
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {total_width} {total_height}" '
        f'width="{total_width}" font-family="sans-serif" font-size="11" fill="{INK}">',
        f'<rect width="{total_width}" height="{total_height}" fill="{PAPER}"/>',
    ]
    for index, path in enumerate(files):
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        minutes = [float(row["seconds"]) / 60 for row in rows]
        losses = [max(float(row["loss"]), 1e-9) for row in rows]
        low, high = math.log10(min(losses)), math.log10(max(losses))
        span, last = max(high - low, 1e-9), max(minutes)
        left = margin + index % columns * (width + margin)
        top = 30 + index // columns * (height + space)
        points = " ".join(
            f"{left + width * minute / last:.1f},"
            f"{top + height * (high - math.log10(loss)) / span:.1f}"
            for minute, loss in zip(minutes, losses, strict=True)
        )
        name = path.stem.removesuffix("-training")
        parts += [
            f'<rect x="{left}" y="{top}" width="{width}" height="{height}" fill="none" '
            'stroke="#cccccc"/>',
            f'<polyline points="{points}" fill="none" stroke="#2a6fb0" stroke-width="1.5"/>',
            f'<text x="{left}" y="{top - 8}" font-size="13" font-weight="bold">{name}: loss, '
            f"{int(rows[-1]['pictures']):,} pictures</text>",
            f'<text x="{left - 4}" y="{top + 8}" text-anchor="end">{max(losses):.2g}</text>',
            f'<text x="{left - 4}" y="{top + height}" text-anchor="end">{min(losses):.2g}</text>',
            f'<text x="{left}" y="{top + height + 14}">0</text>',
            f'<text x="{left + width}" y="{top + height + 14}" text-anchor="end">'
            f"{last:.0f} min</text>",
        ]
    return "\n".join([*parts, "</svg>", ""])


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.postcards.figures", description=__doc__.splitlines()[0]
    )
    parser.add_argument("what", choices=("sheets", "nearest", "curves", "behaviour"))
    parser.add_argument("--out", type=Path, default=Path("docs/postcards"), metavar="DIR")
    parser.add_argument("--model", choices=(POSTCARDS, DDPM), help="sheets, nearest: only its own")
    parser.add_argument("--work", type=Path, default=Path("postcards-work"), metavar="DIR",
                        help="nearest: the training pictures; painted there where missing")
    parser.add_argument("--count", type=int, help="pictures a figure; default: 200; behaviour: 24")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    from pipelines.models.registry import Registry

    registry = Registry()
    models = (options.model,) if options.model else (POSTCARDS, DDPM)
    try:
        if options.count is not None and options.count < 16:
            raise RequestError(f"--count: received {options.count}, accepted 16 or more")
        commands: dict[str, Callable[[], str | None]] = {
            "sheets": lambda: write_sheets(registry, models, options.out, options.seed),
            "nearest": lambda: write_nearest(
                registry, models, options.out, options.work, options.seed, options.count or 200
            ),
            "curves": lambda: _write_curves(options.out),
            "behaviour": lambda: _borrowed(registry, options.count or 24, options.seed),
        }
        report = commands[options.what]()
    except PipelineError as error:
        print(f"figures: {error}", file=sys.stderr)
        return 2
    if report:
        print(report)
    return 0


def _write_curves(out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    (out / "curves.svg").write_text(draw_curves(CURVES), encoding="utf-8")


def _borrowed(registry: Registry, count: int, seed: int) -> str:
    with registry.borrow(POSTCARDS) as (model, _):
        return tables(model, count, seed)


if __name__ == "__main__":
    sys.exit(main())
