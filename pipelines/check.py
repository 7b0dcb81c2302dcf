"""Does a folder of pipelines work here? Opens each, runs two steps of each of its tasks."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from pipelines.engine import Engine
from pipelines.errors import PipelineError
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
        pipeline_class = engine.registry.describe(str(folder)).pipeline_class
        with engine.registry.borrow(str(folder)) as (model, _):
            tasks = model.tasks
    except PipelineError as error:
        return FolderCheck(str(folder), pipeline_class, error=_one_line(str(error)))
    results = {}
    for task in tasks:
        run = engine.run(_request(engine, str(folder), task))
        results[task] = "ok" if run.status == "ok" else _one_line(run.error or run.status)
    return FolderCheck(str(folder), pipeline_class, tasks, results)


def _request(engine: Engine, model_id: str, task: str) -> RunRequest:
    values = {"model_id": model_id, "task": task, "num_inference_steps": 2}
    gradient = Image.linear_gradient("L").resize((SIDE, SIDE))
    if task in ("image-to-image", "inpainting"):
        values["image"] = engine.pictures.put(gradient.convert("RGB"))
    if task == "inpainting":
        values["mask_image"] = engine.pictures.put(gradient.point(lambda v: 255 * (v > 127)))
    if task != "unconditional":
        values |= {"prompt": "a cat", "height": SIDE, "width": SIDE}
    return RunRequest(**values)


def _one_line(text: str) -> str:
    return " ".join(text.split())[:300]
