"""How often the model paints what it was asked for: python -m pipelines.postcards.judge

A classifier trained on painted pictures names subject, colour and scene (the place) of pictures
generated for captions whose combination was held out of training, and, beside, of painted ones.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from pipelines.postcards.vocabulary import (
    COLOURS,
    PLACES,
    SUBJECTS,
    TIMES,
    Scene,
    held_out_combinations,
    plain_caption,
)

WEIGHTS = Path(__file__).parent / "weights"
ACCEPTED = {"subject": SUBJECTS, "colour": COLOURS, "scene": PLACES}
BATCH_SIZE = 25


class JudgeError(Exception):
    """Its message is one line, shown to the user."""


@dataclass(frozen=True)
class Wanted:
    """A caption and what a picture of it must show."""

    caption: str
    subject: str
    colour: str
    scene: str


def held_out_captions(count: int, seed: int = 0) -> list[Wanted]:
    """Plain captions over all held-out combinations in turn, in random words and times of day."""
    rng = Random(f"captions {seed}")
    combinations = held_out_combinations()
    rng.shuffle(combinations)
    wanted = []
    for index in range(count):
        subject, colour, place = combinations[index % len(combinations)]
        caption = plain_caption(Scene(subject, colour, place, rng.choice(TIMES)), rng)
        wanted.append(Wanted(caption, subject, colour, place))
    return wanted


def read_captions(path: Path) -> list[Wanted]:
    """One JSON object a line: caption, subject, colour, scene. Raises JudgeError."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise JudgeError(f"{path}: cannot be read ({type(error).__name__})") from error
    wanted = [
        _read_line(line, f"{path}, line {number}")
        for number, line in enumerate(lines, start=1)
        if line.strip()
    ]
    if not wanted:
        raise JudgeError(f"{path}: holds no captions")
    return wanted


def _read_line(line: str, where: str) -> Wanted:
    shape = '{"caption": ..., "subject": ..., "colour": ..., "scene": ...}'
    accepted = "; ".join(f"{key}: {', '.join(values)}" for key, values in ACCEPTED.items())
    try:
        row = json.loads(line)
    except ValueError:
        row = None
    if not isinstance(row, dict):
        raise JudgeError(f"{where}: not a JSON object like {shape}; accepted: {accepted}")
    for key in ("caption", *ACCEPTED):
        if not isinstance(row.get(key), str) or not row[key].strip():
            raise JudgeError(f"{where}: no text for {key!r} in {shape}; accepted: {accepted}")
    for key, values in ACCEPTED.items():
        if row[key] not in values:
            raise JudgeError(
                f"{where}: unknown {key} {row[key]!r}; accepted: {', '.join(values)}"
            )
    return Wanted(row["caption"], row["subject"], row["colour"], row["scene"])


def paint_wanted(wanted: Sequence[Wanted], seed: int = 0) -> list:
    """A fresh painted picture for each caption's subject, colour and scene."""
    from pipelines.postcards.painter import paint

    rng = Random(f"painted {seed}")
    return [
        paint(Scene(want.subject, want.colour, want.scene, rng.choice(TIMES)), rng)
        for want in wanted
    ]


def generate(
    model: Path,
    captions: Sequence[str],
    guidance_scale: float,
    num_inference_steps: int,
    scheduler: str | None = None,
    seed: int = 0,
    on_progress: Callable[[int], None] | None = None,
) -> list:
    """One PIL picture a caption; picture i starts from noise of seed + i."""
    import diffusers
    import torch

    if not (model / "model_index.json").is_file():
        raise JudgeError(f"{model}: not a diffusers folder (no model_index.json)")
    pipe = diffusers.AutoPipelineForText2Image.from_pretrained(
        model, use_safetensors=True, torch_dtype=torch.float32
    )
    if scheduler is not None:
        compatible = {kind.__name__: kind for kind in pipe.scheduler.compatibles}
        if scheduler not in compatible:
            raise JudgeError(
                f"unknown scheduler {scheduler!r}; accepted: {', '.join(sorted(compatible))}"
            )
        pipe.scheduler = compatible[scheduler].from_config(pipe.scheduler.config)
    pipe.set_progress_bar_config(disable=True)
    pipe.to("cuda" if torch.cuda.is_available() else "cpu")
    pictures: list = []
    for start in range(0, len(captions), BATCH_SIZE):
        batch = list(captions[start : start + BATCH_SIZE])
        pictures += pipe(
            batch,
            guidance_scale=guidance_scale,
            num_inference_steps=num_inference_steps,
            generator=[
                torch.Generator().manual_seed(seed + start + index) for index in range(len(batch))
            ],
        ).images
        if on_progress:
            on_progress(len(pictures))
    return pictures


def accuracy(pictures: Sequence, wanted: Sequence[Wanted]) -> dict[str, float]:
    """Shares of the pictures, 0 to 1, whose subject, colour and scene the judge recognises."""
    from pipelines.postcards.classifier import classify, load_classifier

    named = classify(load_classifier(), pictures)
    hits = {
        "subject": [a["subject"] == b.subject for a, b in zip(named, wanted, strict=True)],
        "colour": [a["colour"] == b.colour for a, b in zip(named, wanted, strict=True)],
        "scene": [a["place"] == b.scene for a, b in zip(named, wanted, strict=True)],
    }
    return {key: round(sum(right) / len(right), 4) for key, right in hits.items()}


def write_sheet(pictures: Sequence, path: Path, columns: int = 8) -> None:
    """All pictures in rows on one PNG: the judge also recognises what a person would not."""
    from PIL import Image

    width, height = (side + 2 for side in pictures[0].size)
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (min(columns, len(pictures)) * width, rows * height), "white")
    for index, picture in enumerate(pictures):
        sheet.paste(picture, (index % columns * width, index // columns * height))
    sheet.save(path)


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        if options.captions:
            wanted = read_captions(options.captions)
        else:
            wanted = held_out_captions(options.count, options.seed)
        started = time.monotonic()
        pictures = generate(
            options.model,
            [want.caption for want in wanted],
            options.guidance_scale,
            options.num_inference_steps,
            options.scheduler,
            options.seed,
            lambda done: print(
                f"{done} of {len(wanted)} pictures, {time.monotonic() - started:.0f} s",
                file=sys.stderr,
            ),
        )
    except JudgeError as error:
        print(f"judge: {error}", file=sys.stderr)
        return 2
    seconds = time.monotonic() - started
    if options.sheet:
        write_sheet(pictures, options.sheet)
    report = {
        "generated": accuracy(pictures, wanted),
        "real": accuracy(paint_wanted(wanted, options.seed), wanted),
        "guidance_scale": options.guidance_scale,
        "num_inference_steps": options.num_inference_steps,
        "scheduler": options.scheduler or "default",
        "captions": len(wanted),
        "seed": options.seed,
        "seconds_per_picture": round(seconds / len(wanted), 3),
    }
    print(json.dumps(report) if options.json else _table(report))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.postcards.judge", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--captions", type=Path, metavar="FILE", help="JSON lines to judge instead")
    parser.add_argument("--guidance-scale", type=_at_least(float, 0), default=5.0)
    parser.add_argument("--num-inference-steps", type=_at_least(int, 1), default=20)
    parser.add_argument("--scheduler", help="a diffusers class; default: the model's own")
    parser.add_argument("--count", type=_at_least(int, 1), default=400, help="held-out captions")
    parser.add_argument("--seed", type=_at_least(int, 0), default=0)
    parser.add_argument("--model", type=Path, default=WEIGHTS, metavar="DIR")
    parser.add_argument("--sheet", type=Path, metavar="PNG", help="save the pictures in rows")
    return parser


def _at_least(kind: type, least: int) -> Callable[[str], float]:
    def parse(text: str) -> float:
        value = kind(text)
        if not value >= least:
            raise argparse.ArgumentTypeError(f"{text} is below {least}")
        return value

    return parse


def _table(report: dict) -> str:
    rows = [f"{'':10}{'subject':>9}{'colour':>9}{'scene':>9}"]
    for name in ("generated", "real"):
        values = report[name]
        rows.append(f"{name:10}" + "".join(f"{values[key]:9.1%}" for key in ACCEPTED))
    rows.append(
        f"{report['captions']} captions, guidance_scale {report['guidance_scale']:g}, "
        f"{report['num_inference_steps']} steps, scheduler {report['scheduler']}, "
        f"seed {report['seed']}, {report['seconds_per_picture']:.2f} s a picture with loading"
    )
    return "\n".join(rows)


if __name__ == "__main__":
    sys.exit(main())
