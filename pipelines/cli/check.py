"""Does a folder of pipelines work here? Opens each, runs two steps of each of its tasks."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from pipelines.engine import Engine
from pipelines.errors import PipelineError
from pipelines.models.files import read_json
from pipelines.models.info import ModelInfo
from pipelines.models.signatures import REQUIRED, call_parameters, picture_parameters
from pipelines.request import RunRequest

SIDE = 64  # pixels; small, since only whether it runs is asked


@dataclass(frozen=True)
class FolderCheck:
    """What came of one folder: `results` has 'ok' or a one-line reason for each of `tasks`,
    `error` says why the folder could not be opened at all."""

    folder: str
    pipeline_class: str | None = None
    tasks: tuple[str, ...] = ()
    results: dict[str, str] = field(default_factory=dict)
    error: str | None = None

    @property
    def ok(self) -> bool:
        return not self.error and bool(self.tasks) and set(self.results.values()) == {"ok"}


def pipeline_folders(root: Path) -> list[Path]:
    """Every folder at or below `root` that holds a model_index.json."""
    return sorted(path.parent for path in root.rglob("model_index.json"))


def check_folders(root: Path, device: str | None = None) -> Iterator[FolderCheck]:
    """Check the folders one after the other; the runs go to a log that is thrown away."""
    with tempfile.TemporaryDirectory() as home:
        engine = Engine(Path(home), device)
        for folder in pipeline_folders(root):
            yield check_folder(engine, folder)
            engine.registry.unload(str(folder))


def check_folder(engine: Engine, folder: Path) -> FolderCheck:
    """Open one folder and run two steps of each task that it says it can do."""
    pipeline_class = None
    try:
        name = read_json(folder / "model_index.json").get("_class_name")
        pipeline_class = name if isinstance(name, str) else None
        info = engine.registry.describe(str(folder))
        with engine.registry.borrow(str(folder)):
            pass
    except PipelineError as error:
        return FolderCheck(str(folder), pipeline_class, error=_one_line(str(error)))
    results = {}
    for task in info.tasks:
        for side in _sides(info):
            run = engine.run(two_step_request(engine, info, task, side))
            if run.status == "ok":
                break
        results[task] = "ok" if run.status == "ok" else _one_line(run.error or run.status)
    return FolderCheck(str(folder), pipeline_class, info.tasks, results)


def two_step_request(
    engine: Engine, info: ModelInfo, task: str, side: int | None = None
) -> RunRequest:
    """Two steps, small, with the pictures and labels that the task needs."""
    side = side or _sides(info)[-1]
    name = info.task_classes[task]
    gradient = Image.linear_gradient("L").resize((side, side))
    pictures = {
        "image": gradient.convert("RGB"),
        "mask_image": gradient.point(lambda v: 255 * (v > 127)),
        "control_image": gradient.transpose(Image.Transpose.TRANSPOSE).convert("RGB"),
    }
    values: dict[str, Any] = {
        field: engine.pictures.put(pictures[field]) for field in picture_parameters(name, task)
    }
    parameters = call_parameters(name)
    if parameters.get("class_labels") is REQUIRED:
        values["class_label"] = 0
    if info.needs_control_mode and "control_mode" in parameters:
        values["control_mode"] = 0
    if task != "unconditional":
        values |= {"prompt": "a cat", "height": side, "width": side}
    return RunRequest(
        model_id=info.model_id, task=task, num_inference_steps=2, prior_num_inference_steps=2,
        **values,
    )


def _sides(info: ModelInfo) -> list[int]:
    """Sides to try: the model's own where that is small, then SIDE, in multiples that it takes."""
    step = info.size_multiple
    of_the_model = min(info.height or SIDE, SIDE)
    return list(dict.fromkeys(-(-side // step) * step for side in (of_the_model, SIDE)))


def _one_line(text: str) -> str:
    return " ".join(text.split())[:300]
