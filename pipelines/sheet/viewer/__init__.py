"""What the sheet viewer shows of a comparison; its script and style serve the dashboard and the
exported page alike."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pipelines.comparison import Cell, Comparison
from pipelines.log_tables import Run
from pipelines.notation import LARGEST_IN_A_BROWSER, for_browser
from pipelines.sheet.draw import time_text

FOLDER = Path(__file__).parent
STYLE, PAGE = FOLDER / "viewer.css", FOLDER / "page.html"

# key of a cell's record -> its name, what stands before it under a cell, and how it reads
MEASURES: dict[str, tuple[str, str, Callable[[float], str]]] = {
    "total": ("time", "", lambda v: f"{v / 1000:.2f} s"),
    "median_ms": ("time, median", "median", lambda v: f"{v / 1000:.3f} s"),
    "nfe": ("function evaluations", "", lambda v: f"{v:g} NFE"),
    "rms_latents": ("RMS distance of latents", "RMS", lambda v: f"{v:.3g}"),
    "psnr": ("PSNR", "", lambda v: f"{v:.1f} dB"),
    "ssim": ("SSIM", "SSIM", lambda v: f"{v:.3f}"),
    "flip": ("FLIP", "FLIP", lambda v: f"{v:.4f}"),
    "clip_distance": ("CLIP distance", "CLIP", lambda v: f"{v:.4f}"),
    "clip_score": ("CLIP score", "score", lambda v: f"{v:.1f}"),
    "text_encoding": ("text encoding", "text", lambda v: f"{v:.1f} ms"),
    "denoising": ("denoising", "denoise", lambda v: f"{v:.0f} ms"),
    "decoding": ("decoding", "decode", lambda v: f"{v:.1f} ms"),
    "load": ("loading the model", "load", lambda v: f"{v:.0f} ms"),
    "warm_up": ("warm-up", "warm-up", lambda v: f"{v:.0f} ms"),
    "changed_unmasked_pixels": ("unmasked pixels changed", "changed", lambda v: f"{v:,.0f} px"),
    "unmasked_pixels": ("unmasked pixels", "unmasked", lambda v: f"{v:,.0f} px"),
    "peak_memory_bytes": ("peak memory", "", lambda v: f"{v / 2**20:.0f} MiB"),
}
NO_MEASURE = {"run_id", "parent_id"}

Address = Callable[[Run, str], str | None]
"""From a run and 'picture' or 'steps' to what an <img> can show, None where there is none."""


def viewer_data(
    comparison: Comparison,
    runs: Sequence[Run | None],
    records: Sequence[dict[str, Any]],
    address: Address,
    *,
    name: str = "",
    states: Sequence[str] = (),
    drawn: dict[int, tuple] | None = None,
) -> dict[str, Any]:
    """A comparison as the viewer's JSON.

    `records` are those of cells.cell_record(), one for each place: each number in them can be
    shown, each True is a mark. `name` tells one comparison from another in the browser's memory,
    `states` says of each cell without a run what it waits for. `drawn` keeps cells from one call to
    the next: what has the same record, state and addresses is not made again.
    """
    drawn = {} if drawn is None else drawn
    numbers = [n for n, cell in enumerate(comparison.cells) if not cell.left_out]
    base = _params(comparison.cells[numbers[0]], runs[numbers[0]]) if numbers else {}
    cells = []
    for number in numbers:
        cell, run, record = comparison.cells[number], runs[number], records[number]
        state = states[number] if states else "not run"
        picture = address(run, "picture") if run else None
        strip = address(run, "steps") if run and picture and run.steps_sha256 else None
        made_of = (state, picture, strip, base)
        if number not in drawn or drawn[number][0] is not record or drawn[number][1] != made_of:
            drawn[number] = (record, made_of, cell_data(
                comparison, cell, run, record, state, picture, strip, base))
        cells.append(drawn[number][2])
    used = dict.fromkeys(key for cell in cells for key in cell["values"])
    shown = [cell for cell in cells if cell["picture"]] or cells
    return {
        "id": name,
        "axes": [{"name": axis.name, "labels": list(axis.labels)} for axis in comparison.axes],
        "measures": [{"key": key, "label": title, "short": short}
                     for key, (title, short, _) in MEASURES.items() if key in used]
                    + [{"key": key, "label": key, "short": key}
                       for key in used if key not in MEASURES],
        "base": base,
        "cells": cells,
        "width": max((cell["width"] for cell in shown), default=64),
        "height": max((cell["height"] for cell in shown), default=64),
    }


def cell_data(
    comparison: Comparison,
    cell: Cell,
    run: Run | None,
    record: dict[str, Any],
    state: str,
    picture: str | None,
    strip: str | None,
    base: dict[str, Any],
) -> dict[str, Any]:
    """One cell as the viewer's JSON, with the parameters that are not those of `base`; `state`
    counts without a run, `picture` and `strip` are addresses."""
    place = [(axis, cell.axes[axis.name]) for axis in comparison.axes]
    with_steps = run and picture and run.steps_sha256
    values = _numbers(record | {"peak_memory_bytes": run and run.peak_memory_bytes})
    texts = {key: _text(key, value) for key, value in values.items()}
    if run and "total" in texts:
        texts["total"] = time_text(run)
    text = ""
    if run and not picture:
        text = run.error or ("the picture's file is missing" if run.status == "ok" else "")
    return {
        "at": [axis.values.index(value) for axis, value in place],
        "label": ", ".join(f"{axis.name} {axis.label(value)}" for axis, value in place),
        "status": run.status if run else state,
        "text": text,
        "run_id": run.id if run else None,
        "picture": picture,
        "strip": strip,
        "steps": run.steps_shown if with_steps else [],
        "total_steps": run.steps_shown[-1] if run and run.steps_shown else 0,
        "width": (run and run.width) or comparison.base.width or 64,
        "height": (run and run.height) or comparison.base.height or 64,
        "values": values,
        "texts": texts,
        "marks": [key for key, value in record.items() if value is True and key != "shared"]
                 + [str(flag) for flag in record.get("flags", ())],
        "notes": list(run.notes) if run else [],
        "params": {key: value for key, value in _params(cell, run).items()
                   if base.get(key, ...) != value},
    }


def _params(cell: Cell, run: Run | None) -> dict[str, Any]:
    return for_browser(run.request if run else cell.request.model_dump(mode="json"))


def _numbers(record: dict[str, Any]) -> dict[str, float]:
    """The finite numbers of a cell's record, those of its timings beside the others."""
    flat = dict(record)
    for name in ("timings_ms", "measured"):
        flat |= record.get(name) or {}
    return {key: value for key, value in flat.items()
            if isinstance(value, int | float) and not isinstance(value, bool)
            and (isinstance(value, float) or abs(value) <= LARGEST_IN_A_BROWSER)
            and math.isfinite(value) and key not in NO_MEASURE}


def _text(key: str, value: float) -> str:
    return MEASURES[key][2](value) if key in MEASURES else f"{value:.4g}"
