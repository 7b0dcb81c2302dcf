"""python -m pipelines.laboratory.build [FOLDER]: writes the exact models as folders in diffusers'
format, MODEL/PREDICTION_TYPE; what it writes is always the same."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import diffusers
import torch
from torch import Tensor

from pipelines.laboratory.conformance import PREDICTION_TYPES
from pipelines.laboratory.exact_models import (
    ExactDenoiser,
    ExactPipeline,
    LinearDecoder,
    PointPlot,
)
from pipelines.laboratory.mixture import Mixture

FOLDER = Path(__file__).with_name("models")
PLANE = ("right", "top", "bottom")  # where the components of Mixture.three lie
SHAPES = ("disc", "ring", "cross")
SIDE = 16
SPREAD = 0.1  # of a picture's latents around its component's mean
CALL_DEFAULTS = {"num_inference_steps": 20, "guidance_scale": 1.0}
SCHEDULE = {"num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012,
            "beta_schedule": "scaled_linear"}


def build(folder: Path) -> None:
    """Both models in each parametrisation."""
    mixture = Mixture.three()
    plane = {"means": mixture.means[..., None, None], "deviations": mixture.deviations,
             "weights": mixture.weights}
    plot = PointPlot(len(PLANE))
    plot.load_state_dict(plane)
    latents = {"means": shapes(), "deviations": torch.full((3,), SPREAD),
               "weights": torch.tensor([0.5, 0.25, 0.25])}
    decoder = LinearDecoder()
    # Three channels are the colours, the fourth is light.
    decoder.colours.data = torch.cat([torch.eye(3), torch.ones(3, 1)], 1) / 2
    for kind in PREDICTION_TYPES:
        for name, names, weights, vae in (("exact-2d", PLANE, plane, plot),
                                          ("exact-latents", SHAPES, latents, decoder)):
            shape = weights["means"].shape[1:]
            denoiser = ExactDenoiser(names, tuple(shape), shape[0], SIDE, **SCHEDULE,
                                     prediction_type=kind)
            denoiser.load_state_dict(weights)
            _save(ExactPipeline(denoiser, vae, diffusers.DDPMScheduler()), kind,
                  folder / name / kind)


def shapes() -> Tensor:
    """A red disc, a green ring and a blue cross, (3, 4, SIDE, SIDE)."""
    line = torch.linspace(-1, 1, SIDE)
    y, x = torch.meshgrid(line, line, indexing="ij")
    radius = (x**2 + y**2).sqrt()
    masks = (radius < 0.6, (radius > 0.5) & (radius < 0.85),
             (x.abs() < 0.2) | (y.abs() < 0.2))
    means = torch.zeros(len(masks), 4, SIDE, SIDE)
    for number, mask in enumerate(masks):
        means[number, number] = mask.float() - 0.5
        means[number, 3] = mask.float() / 2 - 0.25
    return means


def _save(pipe: ExactPipeline, kind: str, folder: Path) -> None:
    pipe.save_pretrained(folder, safe_serialization=True)
    scheduler = {"_class_name": "DPMSolverMultistepScheduler", **SCHEDULE,
                 "prediction_type": kind, "timestep_spacing": "linspace"}
    if kind == "flow_prediction":
        scheduler = {"_class_name": "FlowMatchEulerDiscreteScheduler", "prediction_type": kind,
                     "num_train_timesteps": SCHEDULE["num_train_timesteps"], "shift": 1.0}
    _write(folder / "scheduler" / "scheduler_config.json", {**scheduler, "_closed_form": True})
    index = json.loads((folder / "model_index.json").read_text())
    _write(folder / "model_index.json", {
        **index, "_call_defaults": CALL_DEFAULTS,
        "scheduler": ["diffusers", scheduler["_class_name"]]})
    for config in folder.glob("*/config.json"):
        _write(config, json.loads(config.read_text()))


def _write(path: Path, values: Mapping[str, Any]) -> None:
    """A config without what tells of the library that wrote it."""
    kept = {name: value for name, value in values.items()
            if name not in ("_diffusers_version", "_name_or_path")}
    path.write_text(json.dumps(kept, indent=2, sort_keys=True) + "\n")


if __name__ == "__main__":
    build(Path(sys.argv[1]) if sys.argv[1:] else FOLDER)
