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
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from pipelines.errors import PipelineError, RequestError
from pipelines.postcards.vocabulary import (
    COLOURS,
    PLACES,
    SUBJECTS,
    TIMES,
    Scene,
    attributes,
    full_caption,
    held_out_combinations,
    plain_caption,
)
from pipelines.schedulers import key_of_class, make_scheduler

if TYPE_CHECKING:
    from PIL import Image

    from pipelines.models.loaded import LoadedModel

WEIGHTS = Path(__file__).parent / "weights"
ACCEPTED = {"subject": SUBJECTS, "colour": COLOURS, "scene": PLACES}
BATCH_SIZE = 25
TABLE_GUIDANCE_SCALES = (1, 3, 5, 7, 10, 15)
TABLE_SCHEDULERS = (
    "dpmpp_2m", "dpmpp_2m_sde", "unipc", "ddim", "euler", "euler_a", "heun", "pndm", "ddpm", "lcm",
)
TABLE_STEPS = (5, 10, 20, 50)


@dataclass(frozen=True)
class Wanted:
    """A caption, a scene that it describes, and the attributes to judge: those that it names."""

    caption: str
    scene: Scene
    named: tuple[str, ...] = tuple(ACCEPTED)


def held_out_captions(count: int, seed: int = 0) -> list[Wanted]:
    """Plain captions over all held-out combinations in turn, in random words and times of day."""
    rng = Random(f"captions {seed}")
    combinations = held_out_combinations()
    rng.shuffle(combinations)
    wanted = []
    for index in range(count):
        subject, colour, place = combinations[index % len(combinations)]
        scene = Scene(subject, colour, place, rng.choice(TIMES))
        wanted.append(Wanted(plain_caption(scene, rng), scene))
    return wanted


def detailed_captions(count: int, seed: int = 0) -> list[Wanted]:
    """Held-out captions with a number, a size, a position or an extra in turn."""
    rng = Random(f"details {seed}")
    wanted = []
    for index, plain in enumerate(held_out_captions(count, seed)):
        scene = plain.scene
        detail = ("number", "size", "position", "extra")[index % 4]
        if detail == "number":
            scene = replace(scene, count=rng.choice((1, 2)))
        elif detail == "size":
            scene = replace(scene, size=rng.choice(("small", "large")))
        elif detail == "position":
            scene = replace(scene, position=rng.choice(("left", "right")))
        else:
            light = "moon" if scene.time == "night" else "sun"
            detail = rng.choice((light, "clouds", "mountains"))
            scene = replace(scene, extras=frozenset({detail}))
        named = (*ACCEPTED, "time", detail)
        wanted.append(Wanted(full_caption(scene, rng), scene, named))
    return wanted


def read_captions(path: Path) -> list[Wanted]:
    """One JSON object a line: caption, subject, colour, scene. Raises RequestError."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(f"{path}: cannot be read ({type(error).__name__})") from error
    wanted = [
        _read_line(line, f"{path}, line {number}")
        for number, line in enumerate(lines, start=1)
        if line.strip()
    ]
    if not wanted:
        raise RequestError(f"{path}: holds no captions")
    return wanted


def _read_line(line: str, where: str) -> Wanted:
    shape = '{"caption": ..., "subject": ..., "colour": ..., "scene": ...}'
    accepted = "; ".join(f"{key}: {', '.join(values)}" for key, values in ACCEPTED.items())
    try:
        row = json.loads(line)
    except ValueError:
        row = None
    if not isinstance(row, dict):
        raise RequestError(f"{where}: not a JSON object like {shape}; accepted: {accepted}")
    for key in ("caption", *ACCEPTED):
        if not isinstance(row.get(key), str) or not row[key].strip():
            raise RequestError(f"{where}: no text for {key!r} in {shape}; accepted: {accepted}")
    for key, values in ACCEPTED.items():
        if row[key] not in values:
            raise RequestError(
                f"{where}: unknown {key} {row[key]!r}; accepted: {', '.join(values)}"
            )
    time_of_day = Random(row["caption"]).choice(TIMES)
    return Wanted(
        row["caption"], Scene(row["subject"], row["colour"], row["scene"], time_of_day)
    )


def paint_wanted(wanted: Sequence[Wanted], seed: int = 0) -> list[Image.Image]:
    """A fresh painted picture of each scene."""
    from pipelines.postcards.painter import paint

    rng = Random(f"painted {seed}")
    return [paint(want.scene, rng) for want in wanted]


def generate(
    model: LoadedModel,
    captions: Sequence[str],
    guidance_scale: float = 5.0,
    num_inference_steps: int = 20,
    scheduler: str = "default",
    seed: int = 0,
    negative_prompt: str = "",
    on_progress: Callable[[int], None] | None = None,
) -> list[Image.Image]:
    """One picture a caption; picture i starts from noise of seed + i.

    `scheduler` is a key of the catalogue or the name of its diffusers class.
    """
    import torch

    pipe = model.view("text-to-image")
    key = key_of_class(scheduler) or scheduler
    pictures: list[Image.Image] = []
    for start in range(0, len(captions), BATCH_SIZE):
        batch = list(captions[start : start + BATCH_SIZE])
        pipe.scheduler = make_scheduler(
            key, model.info.original_scheduler_config, seed=seed + start
        )
        pictures += pipe(
            batch,
            negative_prompt=[negative_prompt] * len(batch),
            guidance_scale=guidance_scale,
            num_inference_steps=num_inference_steps,
            generator=[
                torch.Generator().manual_seed(seed + start + index) for index in range(len(batch))
            ],
        ).images
        if on_progress:
            on_progress(len(pictures))
    return pictures


def accuracy(pictures: Sequence[Image.Image], wanted: Sequence[Wanted]) -> dict[str, float]:
    """For each attribute the share, 0 to 1, of the pictures whose caption names it that show it."""
    from pipelines.postcards.classifier import classify, load_classifier

    hits: dict[str, list[bool]] = {}
    for seen, want in zip(classify(load_classifier(), pictures), wanted, strict=True):
        asked = attributes(want.scene)
        for name in want.named:
            hits.setdefault(name, []).append(seen[name] == asked[name])
    return {name: round(sum(right) / len(right), 4) for name, right in hits.items()}


def write_sheet(pictures: Sequence, path: Path, columns: int = 8) -> None:
    """All pictures in rows on one PNG: the judge also recognises what a person would not."""
    from PIL import Image

    width, height = (side + 2 for side in pictures[0].size)
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (min(columns, len(pictures)) * width, rows * height), "white")
    for index, picture in enumerate(pictures):
        sheet.paste(picture, (index % columns * width, index // columns * height))
    sheet.save(path)


def judge(options: argparse.Namespace, model: LoadedModel, wanted: Sequence[Wanted]) -> dict:
    """The report of one run over all captions."""
    started = time.monotonic()
    pictures = generate(
        model,
        [want.caption for want in wanted],
        options.guidance_scale,
        options.num_inference_steps,
        options.scheduler,
        options.seed,
        on_progress=lambda done: _say_progress(done, len(wanted), started),
    )
    seconds = time.monotonic() - started
    if options.sheet:
        write_sheet(pictures, options.sheet)
    return {
        "generated": accuracy(pictures, wanted),
        "real": accuracy(paint_wanted(wanted, options.seed), wanted),
        "guidance_scale": options.guidance_scale,
        "num_inference_steps": options.num_inference_steps,
        "scheduler": options.scheduler,
        "captions": len(wanted),
        "seed": options.seed,
        "seconds_per_picture": round(seconds / len(wanted), 3),
    }


def table(options: argparse.Namespace, model: LoadedModel, wanted: Sequence[Wanted]) -> str:
    """A table in Markdown over guidance scales, or over schedulers and numbers of steps.

    On a CPU the time is the processor's, so that other work on the machine does not count.
    """
    clock = time.process_time if model.device == "cpu" else time.monotonic
    unit = "CPU s a picture" if model.device == "cpu" else "s a picture"
    over_guidance = options.table == "guidance"
    total = len(wanted) * (
        len(TABLE_GUIDANCE_SCALES) * options.num_inference_steps
        if over_guidance
        else len(TABLE_SCHEDULERS) * sum(TABLE_STEPS)
    )
    started, done = time.monotonic(), 0

    def measure(guidance_scale: float, steps: int, scheduler: str) -> tuple[dict, float]:
        nonlocal done
        begun = clock()
        captions = [want.caption for want in wanted]
        pictures = generate(model, captions, guidance_scale, steps, scheduler, options.seed)
        seconds = (clock() - begun) / len(wanted)
        done += len(wanted) * steps
        _say_progress(done, total, started, "steps")
        return accuracy(pictures, wanted), seconds

    about = f"{len(wanted)} captions, seed {options.seed}"
    if over_guidance:
        lines = [
            f"{about}, {options.num_inference_steps} steps, scheduler {options.scheduler}:",
            "",
            f"| guidance_scale | subject | colour | scene | {unit} |",
            "|---|---|---|---|---|",
        ]
        for scale in TABLE_GUIDANCE_SCALES:
            shares, seconds = measure(scale, options.num_inference_steps, options.scheduler)
            lines.append(f"| {scale} | {_percent(shares)} | {seconds:.2f} |")
        real = accuracy(paint_wanted(wanted, options.seed), wanted)
        return "\n".join([*lines, f"| painted pictures | {_percent(real)} | |"])
    lines = [
        f"{about}, guidance_scale {options.guidance_scale:g}; "
        f"subject / colour / scene in %, {unit}:",
        "",
        f"| scheduler | {' | '.join(f'{steps} steps' for steps in TABLE_STEPS)} |",
        "|---" * (1 + len(TABLE_STEPS)) + "|",
    ]
    for key in TABLE_SCHEDULERS:
        cells = []
        for steps in TABLE_STEPS:
            shares, seconds = measure(options.guidance_scale, steps, key)
            shown = " / ".join(f"{100 * shares[name]:.0f}" for name in ACCEPTED)
            cells.append(f"{shown}, {seconds:.2f} s")
        lines.append(f"| {key} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _percent(shares: dict[str, float]) -> str:
    return " | ".join(f"{shares[name]:.2%}" for name in ACCEPTED)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.table and (options.json or options.sheet or options.details):
        parser.error("--table goes with neither --json, --sheet nor --details")
    if options.details and options.captions:
        parser.error("--details makes its own captions: leave out --captions")
    try:
        if options.captions:
            wanted = read_captions(options.captions)
        else:
            make = detailed_captions if options.details else held_out_captions
            wanted = make(options.count, options.seed)
        from pipelines.models.registry import Registry

        with Registry().borrow(str(options.model)) as (model, _):
            if options.table:
                print(table(options, model, wanted))
                return 0
            report = judge(options, model, wanted)
    except PipelineError as error:
        print(f"judge: {error}", file=sys.stderr)
        return 2
    print(json.dumps(report) if options.json else _table(report))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.postcards.judge", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--table", choices=("guidance", "schedulers"),
                        help="print a table over guidance scales, or over schedulers and steps")
    parser.add_argument("--captions", type=Path, metavar="FILE", help="JSON lines to judge instead")
    parser.add_argument("--details", action="store_true",
                        help="judge time, number, size, position and extras too")
    parser.add_argument("--guidance-scale", type=_at_least(float, 0), default=5.0)
    parser.add_argument("--num-inference-steps", type=_at_least(int, 1), default=20)
    parser.add_argument("--scheduler", default="default",
                        help="a key of `python -m pipelines schedulers` or a diffusers class; "
                        "default: the model's own")
    parser.add_argument("--count", type=_at_least(int, 1), default=400, help="held-out captions")
    parser.add_argument("--seed", type=_at_least(int, 0), default=0)
    parser.add_argument("--model", default=WEIGHTS, metavar="DIR",
                        help="a diffusers folder or a cached Hub id")
    parser.add_argument("--sheet", type=Path, metavar="PNG", help="save the pictures in rows")
    return parser


def _at_least(kind: type, least: int) -> Callable[[str], float]:
    def parse(text: str) -> float:
        value = kind(text)
        if not value >= least:
            raise argparse.ArgumentTypeError(f"{text} is below {least}")
        return value

    return parse


def _say_progress(done: int, total: int, started: float, unit: str = "pictures") -> None:
    seconds = time.monotonic() - started
    left = seconds / done * (total - done)
    print(f"{done} of {total} {unit}, {seconds:.0f} s, {left:.0f} s left", file=sys.stderr)


def _table(report: dict) -> str:
    names = list(report["generated"])
    rows = [f"{'':10}" + "".join(f"{name:>10}" for name in names)]
    for row in ("generated", "real"):
        rows.append(f"{row:10}" + "".join(f"{report[row][name]:10.1%}" for name in names))
    rows.append(
        f"{report['captions']} captions, guidance_scale {report['guidance_scale']:g}, "
        f"{report['num_inference_steps']} steps, scheduler {report['scheduler']}, "
        f"seed {report['seed']}, {report['seconds_per_picture']:.2f} s a picture"
    )
    return "\n".join(rows)


if __name__ == "__main__":
    sys.exit(main())
