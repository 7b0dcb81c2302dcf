"""Requests with the model's values filled in, checked, and their pictures at their size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pipelines.errors import RequestError
from pipelines.guidance_methods import CFG, GuidanceMethod
from pipelines.models.call_source import read_call
from pipelines.models.guidance_source import guides_one_call
from pipelines.models.hosted import check_hosted
from pipelines.models.info import ModelInfo
from pipelines.pixels import flat
from pipelines.request import RunRequest
from pipelines.schedulers import CLASS, checked_options, own_scheduler
from pipelines.sigma_schedules import SigmaSchedule, check_schedule

if TYPE_CHECKING:
    from PIL.Image import Image

# Fields that some models need and others do not know, and what they are.
EXTRAS = {
    "control_image": "a picture of the edges, depth or pose to follow",
    "control_mode": "the kind of its control_image, a number of its model card",
    "class_label": "the number of a class that it was trained on",
}


def resolve(
    request: RunRequest, info: ModelInfo, image_size: tuple[int, int] | None = None
) -> RunRequest:
    """The request with the model's own values where it left them open, and the commit of a Hub
    model in place of a branch; RequestError on a misfit.

    Image-to-image keeps the size of its picture, `image_size` (width and height), rounded down to
    what the model can do; in-painting leaves open what it was not told. A hosted model is passed a
    request as it is.
    """
    if info.hosted:
        check_hosted(request, info)
        return request
    schedule = SigmaSchedule.parse(request.sigma_schedule)
    if schedule.count:
        request = request.changed(num_inference_steps=schedule.count)
    request = info.fill_in(request)
    scheduler, options = request.scheduler, request.scheduler_options
    fitting = [known.key for known in info.schedulers]
    if scheduler.startswith(CLASS):
        check_class_of_scheduler(request, info)
    elif scheduler != "default" and fitting and scheduler not in fitting:
        raise RequestError(f"scheduler: received {scheduler!r}, accepted for {info.model_id} "
                           f"({info.pipeline_class}): {', '.join(fitting)}")
    own: dict[str, Any] = {}
    if scheduler == "default":
        scheduler, own = own_scheduler(info.original_scheduler_config)
    options = {**own, **checked_options(scheduler, options)}
    own_height, own_width = info.height, info.width
    if request.task == "inpainting":  # there the picture's aspect decides
        own_height = own_width = None
    elif image_size and request.task == "image-to-image":
        step = info.size_multiple
        own_width, own_height = (max(step, side // step * step) for side in image_size)
    height, width = request.height or own_height, request.width or own_width
    check_size(info, height, width)
    check_extras(request, info)
    request = request.changed(
        scheduler=scheduler, scheduler_options=options, height=height, width=width,
        revision=info.commit or request.revision,
    )  # fmt: skip
    check_schedule(request, info.original_scheduler_config)
    check_guidance(request, info)
    return request


def fit(request: RunRequest, images: Mapping[str, Image]) -> dict[str, Image]:
    """The input pictures of a resolved request, in RGB; image-to-image starts from one of its
    size."""
    images = {name: flat(image) for name, image in images.items()}
    if request.task == "image-to-image":
        from PIL.Image import Resampling

        size = (request.width, request.height)
        if None not in size and images["image"].size != size:
            images["image"] = images["image"].resize(size, Resampling.LANCZOS)
    return images


def check_guidance(request: RunRequest, info: ModelInfo) -> None:
    """Raise RequestError where a model's pipeline cannot be guided by another method."""
    method = GuidanceMethod.parse(request.guidance_method)
    if method.kind == CFG:
        return
    name = info.task_classes.get(request.task, info.pipeline_class)
    if info.guidance_parameter != "guidance_scale" or not guides_one_call(name):
        raise RequestError(
            f"guidance_method: received {request.guidance_method!r}, but {name} does not combine "
            "the halves of one call of its denoiser; accepted cfg")
    if method.named.get("zero_steps") and not info.flow_matching:
        raise RequestError(
            f"guidance_method: received {request.guidance_method!r}, whose first steps predict 0, "
            "which stands still in flow matching only; accepted cfg-zero for this model")


def check_class_of_scheduler(request: RunRequest, info: ModelInfo) -> None:
    """Raise RequestError where the scheduler class of a request cannot run a model."""
    from pipelines.laboratory.classes import check_class

    check_class(request.scheduler, info.original_scheduler_config, request.scheduler_options)
    name = info.task_classes.get(request.task)
    if name and not read_call(name, request.task).runs(request.scheduler.removeprefix(CLASS)):
        raise RequestError(f"scheduler: received {request.scheduler!r}, which lacks what the call "
                           f"of {name} takes of a scheduler")


def check_extras(request: RunRequest, info: ModelInfo) -> None:
    """Raise RequestError where the call of a task needs what the request lacks, or takes none."""
    name = info.task_classes.get(request.task)
    if name is None:  # refused later
        return
    extras = info.extra_inputs(request.task)
    for field, meaning in EXTRAS.items():
        given = getattr(request, field) is not None
        if extras.get(field) and not given:
            raise RequestError(f"{field}: {name} needs one, {meaning}")
        if given and field not in extras:
            raise RequestError(f"{field}: {name} takes none")


def check_size(info: ModelInfo, height: int | None, width: int | None) -> None:
    """Raise RequestError where a side is no multiple of what the model needs."""
    for name, side in (("height", height), ("width", width)):
        if side and side % info.size_multiple:
            lower = side - side % info.size_multiple
            near = [str(s) for s in (lower, lower + info.size_multiple) if s >= info.size_multiple]
            raise RequestError(
                f"{name}: received {side}, accepted multiples of {info.size_multiple} px for "
                f"{info.model_id}; nearest {' and '.join(near)}"
            )
