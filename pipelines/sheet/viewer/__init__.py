"""What the sheet viewer shows of a comparison; its script and style serve the dashboard and the
exported page alike."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pipelines.axes import label
from pipelines.comparison import Comparison
from pipelines.run_log import Run
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
) -> dict[str, Any]:
    """A comparison as the viewer's JSON.

    `records` are the cells' of sheet.cell_record(): each number in them can be shown, each True
    is a mark. `name` tells one comparison from another in the browser's memory, `states` says of
    each cell without a run what it waits for.
    """
    axes = comparison.axes
    cells: list[dict[str, Any]] = []
    used: dict[str, None] = {}
    places = zip(comparison.cells, runs, records, strict=True)
    for number, (cell, run, record) in enumerate(places):
        if cell.left_out:
            continue
        values = _numbers(record | {"peak_memory_bytes": run and run.peak_memory_bytes})
        texts = {key: _text(key, value) for key, value in values.items()}
        if run and "total" in texts:
            texts["total"] = time_text(run)
        used |= dict.fromkeys(values)
        picture = address(run, "picture") if run else None
        lost = "the picture's file is missing" if run and run.status == "ok" else ""
        cells.append({
            "at": [axis.values.index(cell.axes[axis.name]) for axis in axes],
            "label": ", ".join(f"{axis.name} {label(axis.name, cell.axes[axis.name])}"
                               for axis in axes),
            "status": run.status if run else states[number] if states else "not run",
            "text": "" if picture else (run.error or lost) if run else "",
            "run_id": run.id if run else None,
            "picture": picture,
            "strip": address(run, "steps") if run and picture and run.steps_sha256 else None,
            "steps": run.steps_shown if run and picture and run.steps_sha256 else [],
            "total_steps": run.steps_shown[-1] if run and run.steps_shown else 0,
            "width": (run and run.width) or comparison.base.width or 64,
            "height": (run and run.height) or comparison.base.height or 64,
            "values": values,
            "texts": texts,
            "marks": [key for key, value in record.items() if value is True and key != "shared"]
                     + [str(flag) for flag in record.get("flags", ())],
            "notes": list(run.notes) if run else [],
            "params": (run.request if run else cell.request.model_dump(mode="json")),
        })  # fmt: skip
    base = cells[0]["params"] if cells else {}
    for cell in cells:
        cell["params"] = {k: v for k, v in cell["params"].items() if base.get(k, ...) != v}
    shown = [cell for cell in cells if cell["picture"]] or cells
    return {
        "id": name,
        "axes": [{"name": axis.name, "labels": [label(axis.name, value) for value in axis.values]}
                 for axis in axes],
        "measures": [{"key": key, "label": MEASURES[key][0] if key in MEASURES else key,
                      "short": MEASURES[key][1] if key in MEASURES else key}
                     for key in [*(k for k in MEASURES if k in used),
                                 *(k for k in used if k not in MEASURES)]],
        "base": base,
        "cells": cells,
        "width": max((cell["width"] for cell in shown), default=64),
        "height": max((cell["height"] for cell in shown), default=64),
    }  # fmt: skip


def _numbers(record: dict[str, Any]) -> dict[str, float]:
    """The finite numbers of a cell's record, those of its timings beside the others."""
    flat = dict(record)
    for name in ("timings_ms", "measured"):
        flat |= record.get(name) or {}
    return {key: value for key, value in flat.items()
            if isinstance(value, int | float) and not isinstance(value, bool)
            and math.isfinite(value) and key not in NO_MEASURE}


def _text(key: str, value: float) -> str:
    return MEASURES[key][2](value) if key in MEASURES else f"{value:.4g}"
