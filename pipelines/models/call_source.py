"""What a pipeline's call does with the inputs of a request, read from its source."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from pipelines.models.signatures import (
    IMAGE_PARAMETERS,
    MASK_PARAMETERS,
    call_parameters,
    component_parameters,
    method,
    picture_parameters,
    scheduler_members,
    task_classes,
    task_of,
)
from pipelines.models.source_walk import Refused, Value, Values, Walk

# What a call is given beside its pictures, always, sometimes, or as None (painting/call.py).
ALWAYS = ("prompt", "num_inference_steps", "guidance_scale", "strength", "generator", "eta")
SOMETIMES = ("negative_prompt", "height", "width", "class_labels", "control_mode", "max_area",
             "true_cfg_scale", "text_encoder_out_layers", "original_image",
             "prior_num_inference_steps")
AS_NONE = ("guidance_schedule", "intermediate_timesteps")
FEWER_PICTURES = {"inpainting": ("image-to-image", "text-to-image"),
                  "image-to-image": ("text-to-image",)}
EVERY_SCHEDULER = frozenset({"config", "compatibles", "register_to_config", "__class__",
                             "__dict__"})
EVERY_CONFIG = frozenset({"get", "keys", "items"})


@dataclass(frozen=True)
class CallSource:
    """What was read of a call: `refusal`, why it is sure to fail with a request's inputs, None
    where it is not; `asks`, whether it asks if a picture is there that was left out; what it takes
    of a scheduler, the options of its `set_timesteps`, its members and what its config holds."""

    refusal: str | None
    asks: bool
    timestep_options: frozenset[str]
    scheduler_members: frozenset[str]
    scheduler_config: frozenset[str]

    def runs(self, scheduler: str) -> bool:
        """Whether a scheduler class has all that the call takes of it."""
        options = method(scheduler, "set_timesteps")
        names = {argument.arg for argument in options.args.args} if options else set()
        return (self.timestep_options <= names
                and self.scheduler_members - EVERY_SCHEDULER <= scheduler_members(scheduler)
                and self.scheduler_config - EVERY_CONFIG <= set(component_parameters(scheduler)))


@functools.cache
def read_call(class_name: str, task: str) -> CallSource:
    """The call of a pipeline class with what a request for a task gives it."""
    walk, refusal = Walk(class_name), None
    call = method(class_name, "__call__")
    if call is not None:
        try:
            walk.enter(call, _inputs(class_name, task, walk.defaults(call)))
        except Refused as refused:
            refusal = refused.reason
    return CallSource(refusal, walk.asks, frozenset(walk.timestep_options),
                      frozenset(walk.members), frozenset(walk.config))


def offered_classes(class_name: str) -> dict[str, str]:
    """`task_classes`, and what the class does itself with fewer pictures, where it asks whether
    they are there."""
    classes, most = dict(task_classes(class_name)), task_of(class_name)
    fewer = FEWER_PICTURES.get(most, ()) if "prompt" in call_parameters(class_name) else ()
    optional = [task for task in fewer if read_call(class_name, task).asks
                and not read_call(class_name, task).refusal]
    for task in (most, *optional) if optional else ():
        classes.setdefault(task, class_name)
    return classes


def _inputs(class_name: str, task: str, defaults: Values) -> Values:
    """What each parameter of a call holds for a task."""
    pictures = picture_parameters(class_name, task).values()
    values = dict(defaults)
    for name, default in defaults.items():
        if name in pictures or name in ALWAYS:
            values[name] = Value.SOMETHING
        elif name in SOMETIMES:
            values[name] = Value.UNKNOWN
        elif name in AS_NONE:
            values[name] = Value.NONE
        elif name in (*IMAGE_PARAMETERS, *MASK_PARAMETERS) and default is Value.NONE:
            values[name] = Value.LEFT_OUT
    return values
