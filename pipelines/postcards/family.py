"""The members of the family beside the model that they come from, in figures:
python -m pipelines.postcards.family MEMBER

turbo: what few evaluations paint. flow: accuracy and convergence of both. inpaint: what lies under
a mask, painted anew or removed. line, teapot: the adapters.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from pipelines.errors import PipelineError
from pipelines.postcards import judge
from pipelines.postcards.adapter_figures import style_table, subject_table
from pipelines.postcards.behaviour import as_array, box_around
from pipelines.postcards.vocabulary import SUBJECTS, Scene

if TYPE_CHECKING:
    from pipelines.engine import Engine
    from pipelines.models.registry import Registry

BASE = "postcards"
GUIDANCE_SCALE = 5.0
RIM = 2  # pixels of a mask's rim
ATTRIBUTES = tuple(judge.ACCEPTED)


def turbo_table(registry: Registry, member: str, count: int, seed: int) -> list[str]:
    """Base and student at few evaluations: the judge's shares, and the mean absolute difference (0
    to 255) to the picture that the base makes of the same noise in 50 steps of DDIM."""
    captions = judge.held_out_captions(count, seed)

    def pictures(model_id: str, guidance_scale: float, steps: int, scheduler: str) -> list:
        with registry.borrow(model_id) as (model, _):
            return judge.generate(model, [want.caption for want in captions], guidance_scale,
                                  steps, scheduler, seed)

    teacher = as_array(pictures(BASE, GUIDANCE_SCALE, 50, "ddim")).astype(float)
    rows = [f"{count} held-out captions, seed {seed}:", "",
            "| model | steps | guidance_scale | UNet rows a picture | subject | colour | scene | "
            "difference to 50 steps of the base |",
            "|---" * 8 + "|"]
    for model_id, guidance_scale, scheduler, all_steps in (
        (BASE, GUIDANCE_SCALE, "ddim", (1, 2, 4, 20)), (member, 1.0, "default", (1, 2, 4, 8)),
    ):
        for steps in all_steps:
            made = pictures(model_id, guidance_scale, steps, scheduler)
            difference = np.abs(as_array(made) - teacher).mean()
            cells = _shares(judge.accuracy(made, captions))
            rows.append(f"| {model_id} | {steps} | {guidance_scale:g} | "
                        f"{steps * (1 + (guidance_scale > 1))} | {cells} | {difference:.1f} |")
    return rows


def flow_table(registry: Registry, member: str, count: int, seed: int) -> list[str]:
    """Both models with DPM++ 2M: the judge's shares, and the mean absolute difference (0 to 255) to
    the same model's 100 steps."""
    captions = judge.held_out_captions(count, seed)
    rows = [f"{count} held-out captions, seed {seed}, DPM++ 2M, guidance_scale "
            f"{GUIDANCE_SCALE:g}:", "",
            "| model | steps | subject | colour | scene | difference to 100 steps |",
            "|---" * 6 + "|"]
    for model_id in (BASE, member):
        with registry.borrow(model_id) as (model, _):
            made = {steps: judge.generate(model, [want.caption for want in captions],
                                          GUIDANCE_SCALE, steps, "dpmpp_2m", seed)
                    for steps in (2, 5, 10, 20, 100)}
        many = as_array(made.pop(100)).astype(float)
        for steps, images in made.items():
            difference = np.abs(as_array(images) - many).mean()
            cells = _shares(judge.accuracy(images, captions))
            rows.append(f"| {model_id} | {steps} | {cells} | {difference:.1f} |")
    return rows


def inpaint_table(engine: Engine, member: str, count: int, seed: int) -> list[str]:
    """Both models through the dashboard's own in-painting, at the same settings, under a box around
    the subject of a painted picture."""
    methods = [(BASE, "original"), (BASE, "fill"), (member, "original")]
    rows = [f"{count} painted pictures, 20 steps, guidance_scale {GUIDANCE_SCALE:g}, strength 1, "
            f"seed {seed}:", "",
            "| model | masked_content | another subject: subject | colour | scene | removed: "
            f"error under the mask | in its outermost {RIM} px |",
            "|---" * 7 + "|"]
    cases = [_painted_over(want, Random(f"family {seed} {index}"))
             for index, want in enumerate(judge.held_out_captions(count, seed))]
    for model_id, content in methods:
        made, under, rim = [], [], []
        for number, (want, picture, behind, mask) in enumerate(cases, start=seed):
            changes = {"model_id": model_id, "masked_content": content, "seed": number}
            made.append(_inpainted(engine, picture, mask, prompt=want.caption, **changes))
            removed = _inpainted(engine, picture, mask, prompt="", **changes)
            error = np.abs(np.asarray(removed, float) - np.asarray(behind, float)).mean(-1)
            hidden = np.asarray(mask) > 0
            under.append(error[hidden].mean())
            rim.append(error[hidden & ~_shrunk(hidden, RIM)].mean())
        cells = _shares(judge.accuracy(made, [want for want, *_ in cases]))
        rows.append(f"| {model_id} | {content} | {cells} | {np.mean(under):.1f} of 255 | "
                    f"{np.mean(rim):.1f} of 255 |")
    return rows


def _painted_over(
    want: judge.Wanted, rng: Random
) -> tuple[judge.Wanted, Image.Image, Image.Image, Image.Image]:
    """What is asked for, a painted picture of another subject in the same place, what lies behind
    it, and the mask of a box around it."""
    from pipelines.postcards.painter import paint_background, paint_with_mask

    scene, state = want.scene, rng.getstate()
    other = rng.choice([subject for subject in SUBJECTS if subject != scene.subject])
    before = Scene(other, scene.colour, scene.place, scene.time)
    rng.setstate(state)
    picture, shape = paint_with_mask(before, rng)
    rng.setstate(state)
    behind = paint_background(before, rng)
    return want, picture, behind, box_around(shape)


def _inpainted(
    engine: Engine, picture: Image.Image, mask: Image.Image, **fields: Any
) -> Image.Image:
    from pipelines.request import RunRequest

    run = engine.run(RunRequest(
        task="inpainting", image=engine.pictures.put(picture),
        mask_image=engine.pictures.put(mask), strength=1, guidance_scale=GUIDANCE_SCALE,
        num_inference_steps=20, **fields,
    ))
    if run.status != "ok":
        raise PipelineError(run.error)
    return engine.pictures.get(run.image_sha256).convert("RGB")


def _shrunk(mask: np.ndarray, pixels: int) -> np.ndarray:
    """A boolean mask without its outermost pixels; the picture's border is none of its rim."""
    for _ in range(pixels):
        padded = np.pad(mask, 1, constant_values=True)
        mask = (mask & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2]
                & padded[1:-1, 2:])
    return mask


def _shares(accuracy: dict[str, float]) -> str:
    return " | ".join(f"{accuracy[name]:.1%}" for name in ATTRIBUTES)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.postcards.family", description=__doc__.splitlines()[0]
    )
    tables: dict[str, Callable[..., list[str]]] = {
        "turbo": turbo_table, "flow": flow_table, "inpaint": inpaint_table, "line": style_table,
        "teapot": subject_table}
    parser.add_argument("member", choices=tables)
    parser.add_argument("--model", metavar="PATH",
                        help="its folder, or an adapter's file; default: postcards-MEMBER")
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    from pipelines.engine import Engine
    from pipelines.models.registry import Registry

    about: tuple[Any, ...] = (options.model or f"{BASE}-{options.member}", options.count,
                              options.seed)
    try:
        if options.member == "inpaint":
            with tempfile.TemporaryDirectory() as home:
                rows = tables[options.member](Engine(Path(home)), *about)
        else:
            rows = tables[options.member](Registry(), *about)
    except PipelineError as error:
        print(f"family: {error}", file=sys.stderr)
        return 2
    print("\n".join(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
