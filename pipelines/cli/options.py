"""The options of a request: what a command takes, and the RunRequest that they make."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from pipelines.axes import parse_option
from pipelines.cli.output import print_notes
from pipelines.engine import Engine
from pipelines.errors import RequestError
from pipelines.fields import PICTURES, description
from pipelines.hub.folders import models_here
from pipelines.models.hosted import what_leaves
from pipelines.names import is_hosted
from pipelines.new_request import new_request
from pipelines.notation import JSON, number_text, read_json, shown
from pipelines.provenance.restore import Restored, restore
from pipelines.request import DEFAULTS, RunRequest, accepted
from pipelines.sheet.exports import EXPORTS

# Fields that are filled in where they are left out, and from what.
LEFT_OUT = {
    "prompt": "Left out where the model paints without one.",
    "task": "Left out, it follows from the pictures and the model.",
    "num_inference_steps": "Left out, the model's own.",
    "guidance_scale": "Left out, the model's own.",
    "strength": "Left out, what suits the model.",
}
# Fields with several values: their option may be repeated; how one value is written.
REPEATED = {"loras": "PATH[=WEIGHT]", "scheduler_options": "NAME=VALUE"}


def request_options(command: Callable) -> Callable:
    """Give a command the request's fields as options; it gets their values as a dict, `fields`.

    A field that is a parameter of the command itself gets no other option.
    """
    taken = inspect.signature(command).parameters
    return _with_options(command, "fields", [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=_default(name),
                          annotation=Annotated[_type(name), _option(name)])
        for name in RunRequest.model_fields if name not in taken
    ])


def _type(name: str) -> Any:
    """What typer reads; numbers stay texts, since RunRequest says better what is wrong with one."""
    if name in REPEATED:
        return list[str] | None
    if isinstance(DEFAULTS[name], bool):
        return bool
    return Path | None if name in PICTURES else str | None


def _default(name: str) -> str | bool | None:
    """The field's default as one would type it; None where it is nothing, or filled in."""
    default = DEFAULTS[name]
    if name in LEFT_OUT or default in (None, "", (), {}):
        return None
    if isinstance(default, bool):
        return default
    return number_text(default) if isinstance(default, float) else str(default)


def _option(name: str) -> Any:
    """A field's option: its name, and what the field says of itself as help."""
    values = accepted(name)
    sentences = (description(name), values and f"Accepted: {values}.", LEFT_OUT.get(name),
                 name == "scheduler" and "The command `schedulers` lists them.",
                 name in REPEATED and "May be repeated.")
    text = " ".join(filter(None, sentences))
    if name == "prompt":
        return typer.Argument(help=text)
    annotation = RunRequest.model_fields[name].annotation
    types = get_args(annotation) or (annotation,)
    number = "INTEGER" if int in types else "FLOAT" if float in types else None
    word = name.removesuffix("s") if name in REPEATED else name
    return typer.Option(f"--{word.replace('_', '-')}", help=text,
                        metavar=REPEATED.get(name, number))


def export_options(command: Callable) -> Callable:
    """Give a command an option for each format that has one; it gets their paths as a dict,
    `exports`."""
    return _with_options(command, "exports", [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None,
                          annotation=Annotated[Path | None, typer.Option(help=export.option)])
        for name, export in EXPORTS.items() if export.option
    ])


def _with_options(
    command: Callable, place: str, options: Sequence[inspect.Parameter]
) -> Callable:
    """A command with options in place of its parameter `place`, which gets their values."""

    def wrapped(**values: Any) -> None:
        command(**{place: {p.name: values.pop(p.name) for p in options}}, **values)

    wrapped.__name__, wrapped.__doc__ = command.__name__, command.__doc__
    parameters = inspect.signature(command, eval_str=True).parameters
    wrapped.__signature__ = inspect.Signature([
        parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for name, own in parameters.items() for parameter in (options if name == place else [own])
    ])
    return wrapped


From = Annotated[Path | None, typer.Option(
    "--from", metavar="FILE", help="Take the settings of a picture that carries them (written by "
    "this program, A1111, Forge, ComfyUI, InvokeAI, SwarmUI, NovelAI or by diffusers users), of a "
    "recipe or of an exported page. Other options overrule them; what cannot be taken is said.")]
Truthful = Annotated[bool, typer.Option(
    "--metadata/--no-metadata", help="Whether the file carries how it was made: request, model, "
    "versions, A1111's parameters, IPTC's digital source type.")]


def restored_from(
    source: Path, context: typer.Context, engine: Engine, fields: dict[str, Any]
) -> tuple[dict[str, Any], Restored]:
    """The options, with what a file says in the place of those that are not given, and all that
    the file says; what could not be taken is told on standard error. Raises RequestError."""
    restored = restore(source, models_here(engine), engine.pictures)
    print(f"settings of {source}, written by {restored.program}", file=sys.stderr)
    values = {"prompt": restored.request.prompt, **restored.values}
    chosen = {name: value for name, value in fields.items() if name in given(context)}
    lost = {name for name in PICTURES if not engine.pictures.whole(values.get(name))}
    notes = list(restored.notes)
    if lost & {"image", "mask_image"} & values.keys() or {"image", "mask_image"} & chosen.keys():
        values.pop("task", None)  # it follows from the pictures
    values = {name: value for name, value in values.items() if name not in lost} | chosen
    if "strength" in values and "image" not in {*values, *required_parameters(context)}:
        notes.append("strength: left out, since there is no picture to start from")
        del values["strength"]
    print_notes(*notes)
    return fields | values, restored


def tell_what_leaves(
    context: typer.Context, requests: Iterable[RunRequest], chosen: bool = False
) -> None:
    """Say on standard error what leaves this machine, and to whom. Raises RequestError where only a
    file names a hosted model: nothing is sent for one that the command line does not name, unless
    it was `chosen` before."""
    requests = list(requests)
    typed = [str(context.params[name]) for name in given(context) if name != "prompt"]
    for model_id in dict.fromkeys(request.model_id for request in requests):
        if is_hosted(model_id) and not chosen and not any(model_id in text for text in typed):
            raise RequestError(f"model_id: the file names {model_id}, which a provider runs, so "
                               "that the prompt would leave this machine; name it on the command "
                               "line too (--model-id, or --axis model_id=), or another model")
    print_notes(*what_leaves(requests))


def required_parameters(context: typer.Context) -> set[str]:
    """The names of a command's parameters that have no default."""
    return {parameter.name for parameter in context.command.params if parameter.required}


def given(context: typer.Context) -> dict[str, str]:
    """The parameters that the command line names, and how they are written there."""
    return {parameter.name: max(parameter.opts, key=len) if parameter.param_type_name == "option"
            else parameter.name.upper()
            for parameter in context.command.params
            if context.get_parameter_source(parameter.name).name == "COMMANDLINE"}


def refuse_beside(context: typer.Context, reason: str, ignored: Collection[str]) -> None:
    """Raise RequestError, with the reason, where the command line names a parameter that would be
    ignored."""
    received = [text for name, text in given(context).items() if name in ignored]
    if received:
        raise RequestError(f"{reason}; received {', '.join(received)} beside it")


def make_request(engine: Engine, fields: dict[str, Any]) -> RunRequest:
    """A request from the options; see `new_request`."""
    values = {name: value for name, value in fields.items() if value is not None}
    options = values.get("scheduler_options", ())
    values["scheduler_options"] = (options if isinstance(options, dict)
                                   else dict(map(_named_value, options)))
    return new_request(engine, values)


def _named_value(text: str) -> tuple[str, Any]:
    """'use_karras_sigmas=true' -> name and value, numbers and booleans as such; 'NAME:=JSON'."""
    name, equals, value = text.partition("=")
    exact = name.endswith(JSON)
    name = name.removesuffix(JSON)
    if not equals or not name:
        raise RequestError(f"scheduler_option: received {text!r}, accepted NAME=VALUE")
    try:
        return name, read_json(value) if exact else parse_option(value)
    except ValueError as error:
        raise RequestError(f"scheduler_option {name}: received {shown(value)}, accepted JSON "
                           f"behind := ({error})") from None
