"""Does a folder of pipelines work here? Opens each, runs two steps of each of its tasks."""

from __future__ import annotations

import contextlib
import functools
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
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
# How Qwen-Image-Edit, LongCat and the like work out the size, about a megapixel, that a call
# enlarges its input picture to: a function in the module of their class.
ENLARGED_SIZE = "calculate_dimensions"


@dataclass(frozen=True)
class FolderCheck:
    """What came of one folder: `results` has 'ok' or a one-line reason for each of `tasks`,
    `error` says why the folder could not be opened at all, `notes` what was done otherwise than in
    a run."""

    folder: str
    pipeline_class: str | None = None
    tasks: tuple[str, ...] = ()
    results: dict[str, str] = field(default_factory=dict)
    error: str | None = None
    notes: tuple[str, ...] = ()

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
    results, notes = {}, []
    with small_inputs(info) as shrunk:
        for task in info.tasks:
            errors: dict[int, str] = {}
            for side in _sides(info):
                run = engine.run(two_step_request(engine, info, task, side))
                if run.status == "ok":
                    break
                errors[side] = _one_line(run.error or run.status)
            results[task] = "ok" if run.status == "ok" else causes(errors)
            if errors and run.status == "ok":
                notes.append(f"{task}: {causes(errors)}; at {side} px: ok")
    return FolderCheck(str(folder), pipeline_class, info.tasks, results,
                       notes=(*notes, *sorted(shrunk)))


@contextlib.contextmanager
def small_inputs(info: ModelInfo) -> Iterator[set[str]]:
    """Let no class enlarge its input picture beyond SIDE, which takes minutes on a CPU; gives the
    notes on what was kept small."""
    import diffusers

    notes: set[str] = set()

    def small(class_name: str, enlarged_size: Callable, area: float, ratio: float) -> Any:
        if area <= SIDE**2:
            return enlarged_size(area, ratio)
        notes.add(f"{class_name}: its input picture was enlarged to {SIDE} x {SIDE} px, not to the "
                  f"{area**0.5:.0f} x {area**0.5:.0f} px of a run")
        return enlarged_size(SIDE**2, ratio)

    with contextlib.ExitStack() as stack:
        for name in sorted(set(info.task_classes.values())):
            module = sys.modules[getattr(diffusers, name).__module__]
            if enlarged_size := getattr(module, ENLARGED_SIZE, None):
                setattr(module, ENLARGED_SIZE, functools.partial(small, name, enlarged_size))
                stack.callback(setattr, module, ENLARGED_SIZE, enlarged_size)
        yield notes


def causes(errors: Mapping[int, str]) -> str:
    """The error of the first size that was tried, and those of the others where they differ."""
    (first_side, first), *others = errors.items()
    others = [f"at {side} px: {error}" for side, error in others if error != first]
    return "; ".join([f"at {first_side} px: {first}" if others else first, *others])


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
