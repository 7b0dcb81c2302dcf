"""What guidance, steps, negative prompts and in-painting do to the bundled model, in figures."""

from __future__ import annotations

import time
from collections.abc import Sequence
from random import Random
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from pipelines.postcards import judge
from pipelines.postcards.vocabulary import COLOURS, EXTRAS, SUBJECTS, TIMES, Scene

if TYPE_CHECKING:
    from pipelines.models.loaded import LoadedModel


def as_array(pictures: Sequence[Image.Image]) -> np.ndarray:
    return np.stack([np.asarray(picture) for picture in pictures])


def tables(model: LoadedModel, count: int, seed: int) -> str:
    """Tables in Markdown: guidance, convergence, negative prompts, in-painting, time."""
    return "\n".join([
        *guidance_rows(model, count, seed),
        "",
        *convergence_rows(model, max(1, count // 2), seed),
        "",
        "| negative_prompt | pictures that show it without | with |",
        "|---|---|---|",
        *(
            f"| {extra} | {without:.0%} | {with_it:.0%} |"
            for extra in EXTRAS
            for without, with_it in [extra_shares(model, extra, count, seed)]
        ),
        "",
        *inpainting_rows(model, count, seed),
        "",
        f"One picture, 20 steps, guidance_scale 5: {seconds_for_one(model):.2f} s (median of 9)",
    ])


def guidance_rows(model: LoadedModel, count: int, seed: int) -> list[str]:
    rows = [
        "| guidance_scale | difference between seeds | saturation | pixels at the limit |",
        "|---|---|---|---|",
    ]
    for scale in (1, 3, 7, 15):
        values = guidance_figures(model, scale, count, seed)
        rows.append(f"| {scale} | {values[0]:.1f} | {values[1]:.3f} | {values[2]:.1%} |")
    return rows


def guidance_figures(
    model: LoadedModel,
    guidance_scale: float,
    count: int,
    seed: int = 0,
    num_inference_steps: int = 20,
) -> tuple[float, float, float]:
    """Over `count` pictures of four prompts: the root mean square difference (0 to 255) between
    seeds of a prompt, mean saturation (0 to 1), and the share of channel values at 0 or 255."""
    captions = [want.caption for want in judge.held_out_captions(4, seed)]
    each = max(2, count // 4)
    repeated = [caption for caption in captions for _ in range(each)]
    pictures = as_array(
        judge.generate(model, repeated, guidance_scale, num_inference_steps, seed=seed)
    ).astype(float)
    return picture_figures(pictures.reshape(4, each, *pictures.shape[1:]))


def picture_figures(pictures: np.ndarray) -> tuple[float, float, float]:
    """Of pictures (prompts, seeds, height, width, 3), 0 to 255: the root mean square difference
    between seeds of a prompt, mean saturation (0 to 1), and the share of values at 0 or 255."""
    spread = np.sqrt((pictures.var(1, ddof=1) * 2).mean())
    top, bottom = pictures.max(-1), pictures.min(-1)
    saturation = ((top - bottom) / top.clip(1)).mean()
    return float(spread), float(saturation), float(((pictures == 0) | (pictures == 255)).mean())


def convergence_rows(model: LoadedModel, count: int, seed: int) -> list[str]:
    steps = (2, 5, 10, 20, 50)
    rows = [
        "| scheduler | " + " | ".join(f"{number} steps" for number in steps) + " |",
        "|---" * (1 + len(steps)) + "|",
    ]
    for key in ("dpmpp_2m", "unipc", "ddim", "euler", "heun"):
        values = distances_to_many_steps(model, key, steps, count, seed)
        rows.append(f"| {key} | " + " | ".join(f"{value:.2f}" for value in values) + " |")
    return rows


def distances_to_many_steps(
    model: LoadedModel, scheduler: str, steps: Sequence[int], count: int, seed: int = 0
) -> list[float]:
    """Mean absolute difference (0 to 255) to the same scheduler's pictures after 100 steps."""
    captions = [want.caption for want in judge.held_out_captions(count, seed)]

    def pictures(number: int) -> np.ndarray:
        made = judge.generate(
            model, captions, num_inference_steps=number, scheduler=scheduler, seed=seed
        )
        return as_array(made).astype(float)

    many = pictures(100)
    return [float(np.abs(pictures(number) - many).mean()) for number in steps]


def extra_shares(
    model: LoadedModel, extra: str, count: int, seed: int = 0, num_inference_steps: int = 20
) -> tuple[float, float]:
    """Shares of pictures in which the judge sees the extra: without and with it as the
    negative prompt, for captions that name subject, colour and time only."""
    from pipelines.postcards.classifier import classify, load_classifier

    times = {"sun": ("day", "sunset"), "moon": ("night",)}.get(extra, TIMES)
    rng = Random(f"negative {extra} {seed}")
    captions = [
        f"{rng.choice(COLOURS)} {rng.choice(SUBJECTS)}, {rng.choice(times)}" for _ in range(count)
    ]
    shares = []
    for negative_prompt in ("", extra):
        pictures = judge.generate(
            model,
            captions,
            num_inference_steps=num_inference_steps,
            seed=seed,
            negative_prompt=negative_prompt,
        )
        seen = [row[extra] == "yes" for row in classify(load_classifier(), pictures)]
        shares.append(sum(seen) / len(seen))
    return shares[0], shares[1]


def inpainting_rows(model: LoadedModel, count: int, seed: int) -> list[str]:
    shares, kept = inpainting_figures(model, count, seed)
    cells = " | ".join(f"{share:.0%}" for share in shares.values())
    return [
        "| in-painting another subject | subject | colour | scene | change outside the mask |",
        "|---|---|---|---|---|",
        f"| {count} painted pictures | {cells} | {kept:.1f} of 255 |",
    ]


def inpainting_figures(
    model: LoadedModel, count: int, seed: int = 0
) -> tuple[dict[str, float], float]:
    """The judge's shares after another subject was painted over the one of a painted picture,
    under a box around it, and the mean absolute change outside of the box."""
    import torch

    from pipelines.postcards.painter import paint_with_mask
    from pipelines.schedulers import make_scheduler

    rng = Random(f"in-painting {seed}")
    pipe = model.view("inpainting")
    repainted, wanted, changes = [], [], []
    for index, want in enumerate(judge.held_out_captions(count, seed)):
        scene = want.scene
        other = rng.choice([subject for subject in SUBJECTS if subject != scene.subject])
        before = Scene(other, scene.colour, scene.place, scene.time)
        picture, mask = paint_with_mask(before, rng)
        box = box_around(mask)
        pipe.scheduler = make_scheduler("default", model.info.original_scheduler_config)
        made = pipe(
            want.caption,
            image=picture,
            mask_image=box,
            strength=1.0,
            num_inference_steps=20,
            guidance_scale=5.0,
            height=picture.height,
            width=picture.width,
            generator=torch.Generator().manual_seed(seed + index),
        ).images[0]
        outside = np.asarray(box) == 0
        change = np.abs(np.asarray(made).astype(int) - np.asarray(picture)).mean(-1)
        changes.append(change[outside].mean())
        repainted.append(made)
        wanted.append(want)
    return judge.accuracy(repainted, wanted), float(np.mean(changes))


def box_around(mask: Image.Image) -> Image.Image:
    """The mask of a box around what a mask shows, with four pixels more on each side."""
    left, top, right, bottom = mask.getbbox()
    box = Image.new("L", mask.size)
    box.paste(255, (max(0, left - 4), max(0, top - 4), right + 4, bottom + 4))
    return box


def seconds_for_one(model: LoadedModel) -> float:
    times = []
    for index in range(10):
        started = time.perf_counter()
        judge.generate(model, ["a red car on a road at night"], seed=index)
        times.append(time.perf_counter() - started)
    return float(np.median(times[1:]))
