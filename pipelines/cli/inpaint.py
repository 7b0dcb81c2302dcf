"""`python -m pipelines inpaint` and `segment`: a mask by clicks, and a picture painted into it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from pipelines.cli.options import check_requests, make_request, request_options
from pipelines.cli.output import Json, check_writable, exit_for, print_json, step_bar
from pipelines.engine import Engine
from pipelines.errors import RequestError
from pipelines.fields import MASK_OPTIONS
from pipelines.inpainting import masks
from pipelines.inpainting.clicks import Clicks, find_segmenter
from pipelines.inpainting.pictures_in import alpha_mask, open_picture, open_rgb
from pipelines.request import RunRequest
from pipelines.sheet import draw as sheet

Points = Annotated[list[str] | None, typer.Option(metavar="X,Y", help="May be repeated.")]


@request_options
def inpaint(
    fields: dict,
    image: Annotated[Path, typer.Argument(help="PNG, JPEG or WebP of any size.")],
    mask: Annotated[Path | None, typer.Option(
        "--mask", "--mask-image", help="Mask picture of the same size, white is repainted; without "
        "it the picture's own transparency.")] = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="PNG to write.")] = Path("out.png"),
    as_json: Json = False,
) -> None:
    """Repaint the masked part of a picture; without a prompt, remove what is there."""
    check_writable(output, ".png")
    engine = Engine()
    transparent = None if mask else alpha_mask(open_picture(image))
    if mask is None and transparent is None:
        raise RequestError(f"inpaint: {image} has no transparency, so --mask is needed; `segment` "
                           "makes one from clicks")
    if transparent is not None:
        fields["task"], fields["mask_image"] = "inpainting", None
    fields |= {"image": image, "prompt": fields["prompt"] or "",
               "strength": fields["strength"] or "1"}
    request = _request(engine, fields, mask, transparent)
    check_requests(engine, request)
    with step_bar() as on_step:
        run = engine.run(request, on_step)
    if run.status == "ok":
        sheet.save_png(engine.pictures.get(run.image_sha256), output, {"requests": [run.request]})
    if as_json:
        print_json(sheet.cell_record({}, run, engine.pictures))
    elif run.status == "ok":
        print(f"{output}: {run.width} x {run.height} px, {run.total_ms / 1000:.2f} s, {run.nfe} "
              f"function evaluations, {run.changed_unmasked_pixels} of {run.unmasked_pixels} "
              "unmasked pixels changed")
    exit_for([run])


def _request(
    engine: Engine, fields: dict[str, Any], mask: Path | None, transparent: Any
) -> RunRequest:
    """The request; a mask that comes from the picture itself is stored like any other."""
    if transparent is None:
        return make_request(engine, {**fields, "mask_image": mask})
    stored = engine.pictures.put(transparent)
    base = make_request(engine, {**fields, "task": "image-to-image", "mask_image": None,
                                 **dict.fromkeys(MASK_OPTIONS)})
    given = {name: fields[name] for name in MASK_OPTIONS if fields[name] is not None}
    return base.changed(task="inpainting", mask_image=stored, **given)


def segment(
    image: Annotated[Path, typer.Argument(help="PNG, JPEG or WebP.")],
    point: Points = None,
    not_point: Annotated[list[str] | None, typer.Option(
        "--not", metavar="X,Y", help="A point that is not meant; may be repeated.")] = None,
    box: Annotated[str | None, typer.Option(
        metavar="X,Y,X,Y", help="Left, top, right and bottom around it.")] = None,
    model_id: Annotated[str | None, typer.Option(
        help="A folder or cached Hub id of SAM or SAM 2; else the best that is local, else "
        "GrabCut, which needs no model.")] = None,
    grow: Annotated[int, typer.Option(help="Pixels to grow the mask by; below 0 to shrink.")] = 0,
    invert: Annotated[bool, typer.Option("--invert", help="Mask all but it.")] = False,
    output: Annotated[Path, typer.Option("-o", "--output", help="PNG to write.")]
    = Path("mask.png"),
    as_json: Json = False,
) -> None:
    """Make a mask from points on a thing, points beside it and a box around it."""
    check_writable(output, ".png")
    picture = open_rgb(image)
    clicks = Clicks(tuple(_numbers(text, 2, "point") for text in point or []),
                    tuple(_numbers(text, 2, "not") for text in not_point or []),
                    _numbers(box, 4, "box") if box else None)
    clicks.check(*picture.size)
    segmenter = find_segmenter(model_id)
    mask = masks.grow(segmenter.segment(picture, clicks), grow)
    mask = masks.invert(mask) if invert else mask
    masks.as_image(mask).save(output)
    if as_json:
        print_json({"output": str(output), "segmenter": segmenter.name,
                     "share": masks.share(mask), "box": masks.bounding_box(mask)})
    else:
        print(f"{output}: {masks.share(mask):.1%} of the picture, by {segmenter.name}")


def _numbers(text: str, count: int, name: str) -> tuple[int, ...]:
    try:
        numbers = tuple(int(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) != count:
        raise RequestError(f"{name}: received {text!r}, accepted {count} whole numbers with commas "
                           "between, such as " + ",".join("12345678"[:count]))
    return numbers
