"""`python -m pipelines inpaint` and `segment`: a mask by clicks, and a picture painted into it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli.options import (
    From,
    Truthful,
    make_request,
    request_options,
    restored_from,
)
from pipelines.cli.output import (
    Interrupt,
    Json,
    Output,
    Outputs,
    check_png,
    exit_for,
    print_json,
    print_notes,
    run_bytes,
    step_bar,
)
from pipelines.engine import Engine
from pipelines.errors import RequestError
from pipelines.inpainting import masks
from pipelines.inpainting.clicks import Clicks, find_segmenter
from pipelines.inpainting.pictures_in import alpha_mask, open_picture, open_rgb
from pipelines.pixels import notes_of
from pipelines.provenance.encode import check_suffix
from pipelines.sheet.cells import cell_record

Points = Annotated[list[str] | None, typer.Option(metavar="X,Y", help="May be repeated.")]


@request_options
def inpaint(
    context: typer.Context,
    image: Annotated[Path, typer.Argument(help="PNG, JPEG or WebP of any size.")],
    fields: dict,
    mask_image: Annotated[Path | None, typer.Option(
        "--mask", "--mask-image", help="Mask picture of the same size: white is repainted, black "
        "and what is transparent is kept. Without it, what is transparent in the picture itself is "
        "repainted.")] = None,
    output: Output = Path("out.png"),
    source: From = None,
    truthful: Truthful = True,
    as_json: Json = False,
) -> None:
    """Repaint the masked part of a picture; without a prompt, remove what is there."""
    check_suffix(output)
    with Interrupt() as interrupt:
        engine = Engine()
        mask = mask_image or alpha_mask(open_picture(image))
        if mask is None:
            raise RequestError(f"inpaint: {image} has no transparency, so --mask is needed; "
                               "`segment` makes one from clicks")
        if source:
            fields, _ = restored_from(source, context, engine, fields)
            fields.pop("task", None)
        request = make_request(engine, fields | {
            "image": image, "mask_image": mask, "prompt": fields["prompt"] or "",
            "strength": fields["strength"] or "1"})
        engine.check(request)
        outputs = Outputs(("output", output))
        interrupt.check()
        with step_bar(interrupt) as on_step:
            run = engine.run(request, on_step, check=interrupt.check)
    written = run.status == "ok" and outputs.write(
        lambda: [run_bytes(engine, run, output, truthful)], output)
    if as_json:
        print_json(cell_record({}, run, engine.pictures))
    elif written:
        print(f"{output}: {run.width} x {run.height} px, {run.total_ms / 1000:.2f} s, {run.nfe} "
              f"function evaluations, {run.changed_unmasked_pixels} of {run.unmasked_pixels} "
              "unmasked pixels changed")
    print_notes(*run.notes)
    outputs.finish()
    exit_for([run])


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
    check_png(output)
    picture = open_rgb(image)
    print_notes(*(f"{image}: {note}" for note in notes_of(picture)))
    clicks = Clicks(tuple(_numbers(text, 2, "point") for text in point or []),
                    tuple(_numbers(text, 2, "not") for text in not_point or []),
                    _numbers(box, 4, "box") if box else None)
    clicks.check(*picture.size)
    segmenter = find_segmenter(model_id)
    outputs = Outputs(("output", output))
    mask = masks.grow(segmenter.segment(picture, clicks), grow)
    mask = masks.invert(mask) if invert else mask
    drawn = io.BytesIO()
    masks.as_image(mask).save(drawn, "PNG")
    written = outputs.write(lambda: [drawn.getvalue()], output)
    if as_json:
        print_json({"output": str(output), "segmenter": segmenter.name,
                     "share": masks.share(mask), "box": masks.bounding_box(mask)})
    elif written:
        print(f"{output}: {masks.share(mask):.1%} of the picture, by {segmenter.name}")
    outputs.finish()


def _numbers(text: str, count: int, name: str) -> tuple[int, ...]:
    try:
        numbers = tuple(int(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) != count:
        raise RequestError(f"{name}: received {text!r}, accepted {count} whole numbers with commas "
                           "between, such as " + ",".join("12345678"[:count]))
    return numbers
