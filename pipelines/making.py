"""The pictures of resolved requests on one loaded model: one way to make them, whatever the task.

Each picture is a call of its plain pipeline, a cell of a batch (painting/batching.py).
"""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from pipelines.fields import MASK_OPTIONS, PICTURES, is_plain
from pipelines.models.loaded import LoadedModel
from pipelines.painting.resolve import fit
from pipelines.painting.result import OnStep, RunResult, Step
from pipelines.pixels import input_notes
from pipelines.request import RunRequest
from pipelines.schedulers import expected_evaluations

if TYPE_CHECKING:
    from PIL.Image import Image

    from pipelines.inpainting.canvas import Canvas
    from pipelines.painting.batching import Cell

OnResult = Callable[[int, "RunResult | Exception"], None]
Images = Mapping[str, "Image"]
PREPARED = 4  # inputs that are kept for further cells
SLOW_SECONDS = 1.0  # of a network's call; a cancel acts inside longer ones
# What decides how the input pictures are prepared.
PICTURE_FIELDS = ("task", *PICTURES, "height", "width")
CANVAS_FIELDS = (*PICTURE_FIELDS, *MASK_OPTIONS)


@dataclass(frozen=True)
class Wanted:
    """A picture to make, and what its row says beside it. The final latents of a comparison's
    cells are kept."""

    request: RunRequest
    comparison_id: str | None = None
    axes: Mapping[str, Any] = field(default_factory=dict)
    parent_id: int | None = None
    keep_latents: bool = False


def why_alone(model: LoadedModel, request: RunRequest) -> str:
    """Why a request runs alone; '' where its network calls may be shared with other cells.

    A cache decides by the whole batch, a compiled denoiser by its shapes; an offloaded or quantised
    one may depend on the place of a call.
    """
    if not is_plain(request):
        return "its attention backend, cache or compiled denoiser may depend on the batch"
    if model.memory_policy != "device":
        return f"its weights wait elsewhere ({model.memory_policy})"
    return f"its weights are quantised ({request.quantization})" if request.quantization else ""


def make_pictures(
    model: LoadedModel,
    requests: Sequence[RunRequest],
    images_of: Callable[[RunRequest], Images],
    on_result: OnResult,
    on_step: Callable[[int, Step], None] | None = None,
    load_ms: float = 0.0,
    check: Callable[[], None] | None = None,
) -> None:
    """Make the pictures of resolved requests of one model, side by side where that is possible.

    `images_of(request)` gives its input pictures as they are stored; `on_result(number, result or
    error)` is called for each as it is done, `on_step(number, step)` after each of its steps. Both
    `on_step` and `check`, called before each network call, may raise Cancelled, which ends all. The
    first picture of a task and size is preceded by a denoising step that is thrown away and timed
    apart. Those that run alone (`why_alone`) follow the others, and say so.
    """
    from pipelines.painting.batching import Batch, Work
    from pipelines.painting.cost import call_costs

    inputs = _Inputs(model, images_of)
    paid_once = {"load": load_ms, "warm_up": 0.0}
    groups: dict[str, list[int]] = {}
    for number, request in enumerate(requests):
        groups.setdefault(why_alone(model, request), []).append(number)
    evaluations = [expected_evaluations(request.scheduler, model.info.steps_to_run(request))
                   for request in requests]

    def warmed(_number: int, cell: Cell) -> None:
        if isinstance(cell.outcome, float):  # an error comes again, with its picture
            paid_once["warm_up"] += cell.outcome

    def made(numbers: Sequence[int], reason: str, place: int, cell: Cell) -> None:
        result = cell.outcome
        if isinstance(result, RunResult):
            result = result.with_timings(**paid_once)
            paid_once.update(load=0.0, warm_up=0.0)
            if reason and len(requests) > 1:
                result = replace(result, notes=(*result.notes, f"not batched: {reason}"))
        on_result(numbers[place], result)

    for reason, numbers in sorted(groups.items()):
        # Warm up each shape.
        shapes = {_shape(requests[number]): requests[number] for number in numbers}
        slow = not reason and any(cost.seconds > SLOW_SECONDS for request in shapes.values()
                                  for cost in call_costs(request, model.info, model.device))
        for request in shapes.values():
            warm_up = Work(functools.partial(_warm_up, model, request, inputs))
            Batch(model, [warm_up], not reason, slow).run(warmed, check)
        # What takes longest begins first, so that it does not end alone.
        numbers.sort(key=lambda number: -evaluations[number])
        works = [
            Work(functools.partial(_make, model, requests[number], inputs,
                                   on_step and functools.partial(on_step, number)),
                 rows=2 if requests[number].guidance_scale > 1 else 1,
                 evaluations=evaluations[number])
            for number in numbers]
        Batch(model, works, not reason, slow).run(
            functools.partial(made, numbers, reason), check)


def make_picture(
    model: LoadedModel,
    request: RunRequest,
    images: Images | None = None,
    on_step: OnStep | None = None,
    load_ms: float = 0.0,
) -> RunResult:
    """The picture of one resolved request; raises what its run raises."""
    results: list[RunResult | Exception] = []
    make_pictures(
        model, [request], lambda _: images or {}, lambda _, result: results.append(result),
        on_step and (lambda _, step: on_step(step)), load_ms)
    if isinstance(results[0], Exception):
        raise results[0]
    return results[0]


class _Inputs:
    """The pictures that requests start from, prepared once for all that agree in them."""

    def __init__(self, model: LoadedModel, images_of: Callable[[RunRequest], Images]) -> None:
        self._model, self._images_of = model, images_of
        self._kept: OrderedDict[Hashable, Any] = OrderedDict()

    def images(self, request: RunRequest) -> Images:
        return self._once(("images", *_values(request, PICTURE_FIELDS)),
                          lambda: fit(request, self._images_of(request)))

    def canvas(self, request: RunRequest) -> Canvas:
        from pipelines.inpainting.inpaint import prepared

        return self._once(("canvas", *_values(request, CANVAS_FIELDS)),
                          lambda: prepared(self._model, request, self._images_of(request)))

    def _once(self, key: Hashable, prepare: Callable[[], Any]) -> Any:
        if key not in self._kept:
            self._kept[key] = prepare()
            if len(self._kept) > PREPARED:
                self._kept.popitem(last=False)
        return self._kept[key]


def _make(
    model: LoadedModel, request: RunRequest, inputs: _Inputs, on_step: OnStep | None, cell: Cell
) -> RunResult:
    from pipelines.inpainting.inpaint import inpaint
    from pipelines.painting.generation import paint

    if request.task == "inpainting":
        return inpaint(cell, model, request, inputs.canvas(request), on_step)
    images = inputs.images(request)
    result = paint(cell, model, request, images, on_step)
    return replace(result, notes=(*result.notes, *input_notes(images)))


def _warm_up(model: LoadedModel, request: RunRequest, inputs: _Inputs, cell: Cell) -> float:
    """Milliseconds; 0 where this shape is warm."""
    from pipelines.painting.generation import warm_up, warm_up_key

    if request.task == "inpainting":
        canvas = inputs.canvas(request)
        request, images = canvas.fitted(request), canvas.images
    else:
        images = inputs.images(request)
    key = warm_up_key(model, request)
    if key in model.warmed:
        return 0.0
    ms = warm_up(cell, model, request, images)
    model.warmed.add(key)
    return ms


def _shape(request: RunRequest) -> tuple:
    """Requests that agree in it need no warm-up of their own."""
    fields = CANVAS_FIELDS if request.task == "inpainting" else ("task", "height", "width")
    return (*_values(request, fields), request.guidance_scale > 1, request.attention_backend,
            request.compile)


def _values(request: RunRequest, names: Sequence[str]) -> tuple:
    return tuple(getattr(request, name) for name in names)
