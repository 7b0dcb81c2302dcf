"""The contact sheet: a comparison as labelled pictures."""

from __future__ import annotations

import bisect
import contextlib
import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from pipelines.axes import OPTION, Axis, label, own_or_label
from pipelines.comparison import Comparison
from pipelines.errors import StorageError
from pipelines.fields import HEADING_FIELDS, UNUSUAL_FIELDS
from pipelines.log_tables import Run
from pipelines.pixels import flat
from pipelines.sheet.cells import notes_of_runs
from pipelines.stores import PictureStore

PAPER, INK, FAINT, RED = "#faf8f3", "#1c1b19", "#77736a", "#b3261e"
EMPTY = "#ebe7dd"
MARGIN, GAP, SMALLEST, LARGEST = 32, 14, 192, 512
LONGEST_TEXT = 400
# Files that Pillow looks for in the system's font folders, where its own font lacks a letter.
FONTS = ("NotoSans-Regular.ttf", "DejaVuSans.ttf", "NotoSansCJK-Regular.ttc", "wqy-microhei.ttc",
         "Arial Unicode.ttf", "PingFang.ttc", "Hiragino Sans GB.ttc", "msyh.ttc", "malgun.ttf",
         "Nirmala.ttf", "segoeui.ttf")


def enlarge(image: Image.Image, at_least: int) -> Image.Image:
    """The picture at the smallest whole multiple whose longer side reaches `at_least` pixels;
    pixels are repeated, so nothing is blurred."""
    factor = max(1, -(-at_least // max(image.size)))
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)


def draw(
    comparison: Comparison, runs: Sequence[Run | None], pictures: PictureStore
) -> list[Image.Image]:
    """The labelled sheets, one for each combination of the axes beyond two."""
    rows = comparison.rows.values if comparison.rows else (None,)
    columns = comparison.columns.values if comparison.columns else (None,)
    size = len(rows) * len(columns)
    sheets, cells = [], comparison.cells
    for number, values in enumerate(itertools.product(*(a.values for a in comparison.sheet_axes))):
        block = list(runs[number * size : (number + 1) * size])
        left_out = [cell.left_out for cell in cells[number * size : (number + 1) * size]]
        heading = [f"{axis.name} {axis.label(value)}"
                   for axis, value in zip(comparison.sheet_axes, values, strict=True)]
        sheets.append(_draw_one(comparison, block, left_out, rows, columns, heading, pictures))
    return sheets


def _draw_one(
    comparison: Comparison,
    runs: list[Run | None],
    left_out: list[bool],
    rows: Sequence[Any],
    columns: Sequence[Any],
    heading: list[str],
    pictures: PictureStore,
) -> Image.Image:
    tiles = [_tile(run, pictures) for run in runs]
    sizes = [tile.size for tile in tiles if tile]
    width = max((w for w, _ in sizes), default=SMALLEST)
    height = max((h for _, h in sizes), default=SMALLEST)
    base = width // 12 if width < 300 else 26
    row_axis, column_axis = comparison.rows, comparison.columns
    row_labels = _labels(row_axis)
    under = [subtitle(comparison, runs, heading),
             *(f"note: {note}" for note in notes_of_runs(runs))]
    texts = [heading_of(comparison), *under, *row_labels,
             *_labels(column_axis), *(run.error or "" for run in runs if run)]
    load = _font_for("".join(text[:LONGEST_TEXT] for text in texts))
    title, head, small = (load(size) for size in (base + 8, base, base - 3))
    left = MARGIN
    if row_axis:
        widest = max(int(head.getlength(text)) for text in row_labels)
        left += max(min(220, widest), int(small.getlength(row_axis.name))) + 2 * GAP
    caption_height = base + 8
    inner = len(columns) * (width + GAP) - GAP
    total_width = max(left + inner + MARGIN, 640)

    lines = [(title, INK, line) for line in
             _wrap(heading_of(comparison), title, total_width - 2 * MARGIN)]
    lines += [(small, FAINT, line) for text in under
              for line in _wrap(text, small, total_width - 2 * MARGIN)]
    top = MARGIN + sum(_line_height(font) for font, _, _ in lines) + GAP
    column_labels = [_wrap(text, head, width) for text in _labels(column_axis)]
    head_height = _line_height(head) * max((len(c) for c in column_labels), default=0)
    if column_axis:
        head_height += _line_height(small)
    total_height = top + head_height + len(rows) * (height + caption_height + GAP) + MARGIN
    sheet = Image.new("RGB", (total_width, total_height), PAPER)
    pen = ImageDraw.Draw(sheet)

    y = MARGIN
    for font, colour, line in lines:
        pen.text((MARGIN, y), line, font=font, fill=colour)
        y += _line_height(font)
    if column_axis:
        pen.text((left, top), column_axis.name, font=small, fill=FAINT)
    if row_axis:
        pen.text((MARGIN, top), row_axis.name, font=small, fill=FAINT)
    for x, words in enumerate(column_labels):
        at = (left + x * (width + GAP), top + _line_height(small))
        pen.multiline_text(at, "\n".join(words), font=head, fill=INK)
    for y in range(len(rows)):
        cell_top = top + head_height + y * (height + caption_height + GAP)
        if row_axis:
            words = _wrap(row_labels[y], head, left - MARGIN - GAP)
            pen.multiline_text((MARGIN, cell_top), "\n".join(words), font=head, fill=INK)
        for x in range(len(columns)):
            number = y * len(columns) + x
            corner = (left + x * (width + GAP), cell_top)
            if not left_out[number]:
                _draw_cell(sheet, pen, corner, (width, height), tiles[number], runs[number],
                           small)
    return sheet


def _draw_cell(
    sheet: Image.Image,
    pen: ImageDraw.ImageDraw,
    corner: tuple[int, int],
    size: tuple[int, int],
    tile: Image.Image | None,
    run: Run | None,
    font: ImageFont.FreeTypeFont,
) -> None:
    x, y = corner
    if tile:
        sheet.paste(tile, corner)
        text = (f"{time_text(run)} there and back" if run.hosted
                else f"{time_text(run)}   {run.nfe} NFE")
        pen.text((x, y + size[1] + 3), text, font=font, fill=FAINT)
        return
    pen.rectangle((x, y, x + size[0] - 1, y + size[1] - 1), fill=EMPTY)
    text, colour = (run.error or run.status, RED) if run else ("not run", FAINT)
    words = _wrap(text, font, size[0] - 16)[: max(1, (size[1] - 16) // _line_height(font))]
    pen.multiline_text((x + 8, y + 8), "\n".join(words), font=font, fill=colour)


def time_text(run: Run) -> str:
    """A cell's time; a share of a batch says that it is one, and so does one from the log."""
    if run.total_ms is None:
        return ""
    return (f"{run.total_ms / 1000:.2f} s{' shared' if run.shared else ''}"
            f"{' reused' if run.reused_from else ''}")


def _tile(run: Run | None, pictures: PictureStore) -> Image.Image | None:
    """A cell's picture at its size on the sheet, None where there is none."""
    if not run or not run.image_sha256:
        return None
    try:
        image = flat(pictures.get(run.image_sha256))
    except StorageError:
        return None
    if max(image.size) > LARGEST:
        image.thumbnail((LARGEST, LARGEST), Image.Resampling.LANCZOS)
    return enlarge(image, SMALLEST)


def heading_of(comparison: Comparison) -> str:
    """The prompt, or that it is on an axis."""
    if "prompt" in comparison.varied:
        return "(prompt on an axis)"
    return comparison.base.prompt or "(no prompt)"


def subtitle(
    comparison: Comparison, runs: Sequence[Run | None], heading: Sequence[str] = ()
) -> str:
    """What all cells share, and the proof of equal noise."""
    first = next((run for run in runs if run), None)
    varied = comparison.varied
    parts = list(heading)
    if comparison.base.negative_prompt and "negative_prompt" not in varied:
        parts.append(f"negative prompt: {comparison.base.negative_prompt}")
    for name in HEADING_FIELDS:
        if name not in varied:
            asked = getattr(comparison.base, name)
            each = "model_id" in varied and asked in (None, "default")
            value = None if each else first.asked(name) if first else asked
            parts.append(f"{name} {own_or_label(name, value)}")
    parts += [f"{name} {label(name, value)}" for name, value in unusual(comparison).items()]
    if first and first.width:
        parts.append(f"{first.width} x {first.height} px")
    if kept := [run for run in runs if run and run.unmasked_pixels]:
        worst = max(run.changed_unmasked_pixels for run in kept)
        parts.append(f"{worst:,} of {kept[0].unmasked_pixels:,} unmasked pixels changed")
    noises = {run.noise_sha256 for run in runs if run and run.noise_sha256}
    if hosted := sum(run is not None and run.hosted and run.status == "ok" for run in runs):
        parts.append(f"initial noise unknown in {hosted} cell{'s' * (hosted > 1)} of a provider")
    elif len(noises) == 1:
        parts.append(f"initial noise {next(iter(noises))[:12]} in every cell")
    return "   ·   ".join(parts)


def unusual(comparison: Comparison) -> dict[str, Any]:
    """What all cells share of how they are computed, where it is not the usual."""
    base, on_axes = comparison.base, {part for axis in comparison.axes for part in axis.parts}
    values = {name: getattr(base, name) for name in base.not_default
              if name in UNUSUAL_FIELDS and name not in on_axes}
    if options := values.pop("scheduler_options", {}):
        shared = {name: of for name, of in options.items() if OPTION + name not in on_axes}
        values |= {"scheduler_options": shared} if shared else {}
    return values


def _labels(axis: Axis | None) -> list[str]:
    return list(axis.labels) if axis else [""]


def _font_for(text: str) -> Callable[[int], ImageFont.FreeTypeFont]:
    """What makes a font of a size: Pillow's own, or the first of FONTS that lacks fewer letters.

    A letter that none of them has is drawn as a box.
    """
    best, least = ImageFont.load_default, _lacking(ImageFont.load_default(20), text)
    for name in FONTS if least else ():
        with contextlib.suppress(OSError):
            lacking = _lacking(ImageFont.truetype(name, 20), text)
            if lacking < least:
                best, least = functools.partial(ImageFont.truetype, name), lacking
    return best


def _lacking(font: ImageFont.FreeTypeFont, text: str) -> int:
    """How many letters of a text a font draws as its box for unknown ones."""
    unknown = bytes(font.getmask("\U0010fffe"))
    return sum(bytes(font.getmask(letter)) == unknown
               for letter in set(text) if not letter.isascii() and letter.isprintable())


def _line_height(font: ImageFont.FreeTypeFont) -> int:
    return int(font.size * 1.35)


def _wrap(text: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    """Break a text into lines of at most `width` pixels; a word that is too long is cut, and a
    text of more than LONGEST_TEXT characters ends in an ellipsis."""
    if len(text) > LONGEST_TEXT:
        text = text[:LONGEST_TEXT] + "…"
    lines: list[str] = []
    for word in text.split():
        while font.getlength(word) > width and len(word) > 1:
            fits = bisect.bisect(range(2, len(word)), width, key=lambda n: font.getlength(word[:n]))
            lines.append(word[: fits + 1])
            word = word[fits + 1 :]
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines or [""]
