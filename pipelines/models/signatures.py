"""What diffusers' pipeline and scheduler classes are, read from their source: importing them takes
seconds. What a call does with its inputs is told by call_source.py."""

from __future__ import annotations

import ast
import functools
import importlib.util
import inspect
import re
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

REQUIRED = inspect.Parameter.empty  # stands for 'no default'

TASK_TABLES = {
    "text-to-image": "AUTO_TEXT2IMAGE_PIPELINES_MAPPING",
    "image-to-image": "AUTO_IMAGE2IMAGE_PIPELINES_MAPPING",
    "inpainting": "AUTO_INPAINT_PIPELINES_MAPPING",
}
DECODER_TABLES = {
    "_AUTO_TEXT2IMAGE_DECODER_PIPELINES_MAPPING": "AUTO_TEXT2IMAGE_PIPELINES_MAPPING",
    "_AUTO_IMAGE2IMAGE_DECODER_PIPELINES_MAPPING": "AUTO_IMAGE2IMAGE_PIPELINES_MAPPING",
    "_AUTO_INPAINT_DECODER_PIPELINES_MAPPING": "AUTO_INPAINT_PIPELINES_MAPPING",
}
# What a call may name the picture it starts from, and the mask.
IMAGE_PARAMETERS = ("image", "images", "input_images")
MASK_PARAMETERS = ("mask_image", "control_mask", "mask")
EXACT_MODELS = "pipelines.laboratory.exact_models"  # a pipeline of ours and its parts
PICTURE_OUTPUTS = ("images", "image", "rgb")  # of the output object
OTHER_OUTPUTS = {
    "frames": "video", "video": "video", "audios": "sound", "texts": "text",
    "image_embeds": "image embeddings for another model",
    "image_embeddings": "image embeddings for another model",
    "prompt_embeds": "prompt embeddings for another model",
    "prediction": "measurements of a picture, such as its depth",
}

_parsing = threading.Lock()


@functools.cache
def call_parameters(class_name: str) -> Mapping[str, Any]:
    """Name -> default of `pipe(...)`: REQUIRED where there is none, None where it is no literal.

    Empty for what is no pipeline class of diffusers.
    """
    call = method(class_name, "__call__")
    return _defaults(call.args) if call else {}


@functools.cache
def scales_input(class_name: str) -> bool:
    """Whether a pipeline's own loop scales the denoiser's input, as schedulers that count in
    sigmas need it; DDPM's and DDIM's do not."""
    call = method(class_name, "__call__")
    return call is not None and "scale_model_input" in ast.unparse(call)


@functools.cache
def component_parameters(class_name: str) -> Mapping[str, Any]:
    """Name -> default of the components that a pipeline class is made of, as `call_parameters`."""
    init = method(class_name, "__init__")
    return _defaults(init.args) if init else {}


@functools.cache
def other_output(class_name: str) -> str | None:
    """What a pipeline class makes where that is no picture, such as 'video'; None for pictures.

    Read from the names in the output object that its call returns.
    """
    call = method(class_name, "__call__")
    names = {keyword.arg for node in (ast.walk(call) if call else ())
             if isinstance(node, ast.Return) and isinstance(node.value, ast.Call)
             for keyword in node.value.keywords}
    if names & set(PICTURE_OUTPUTS):
        return None
    return next((made for name, made in OTHER_OUTPUTS.items() if name in names), None)


@functools.cache
def rounds_steps_up(class_name: str) -> bool:
    """Whether a pipeline runs a step that `strength` leaves a part of; the others drop it."""
    definition = method(class_name, "get_timesteps")
    text = ast.unparse(definition) if definition else ""
    share = "num_inference_steps * strength"
    return share in text and f"int({share})" not in text


@functools.cache
def uses_cache_contexts(class_name: str) -> bool:
    """Whether a pipeline's own loop names its calls of the denoiser to caching hooks."""
    call = method(class_name, "__call__")
    return call is not None and "cache_context" in ast.unparse(call)


def is_cacheable(class_name: str) -> bool:
    """Whether diffusers enables its caching hooks on a model class."""
    return "CacheMixin" in _model_source(class_name)[0]


def dispatches_attention(class_name: str) -> bool:
    """Whether a model's attention goes through diffusers' dispatcher of backends."""
    return "dispatch_attention_fn" in _model_source(class_name)[1]


@functools.cache
def _model_source(class_name: str) -> tuple[str, str]:
    """The bases of a model class of diffusers, and the text of its file; '' where there is none."""
    definition = re.compile(rf"^class {re.escape(class_name)}\(([^)]*)\)", re.MULTILINE)
    for path in sorted((_root().parent / "models").rglob("*.py")):
        text = path.read_text("utf-8")
        if match := definition.search(text):
            return match[1], text
    return "", ""


def has_method(class_name: str, name: str) -> bool:
    return method(class_name, name) is not None


def unknown_inputs(class_name: str) -> list[str]:
    """What a pipeline's call demands and no field of a request can give."""
    given = {"prompt", "class_labels", *IMAGE_PARAMETERS, *MASK_PARAMETERS}
    return [name for name, default in call_parameters(class_name).items()
            if default is REQUIRED and name not in given]


@functools.cache
def picture_parameters(class_name: str, task: str) -> Mapping[str, str]:
    """Picture field of a request -> the parameter of the call that takes it, for one task."""
    parameters = call_parameters(class_name)
    if "control_mask" in parameters:  # ControlNets that in-paint: theirs is the only picture
        return {"image": "control_image", "mask_image": "control_mask"}
    names = {"control_image": "control_image"} if "control_image" in parameters else {}
    if _image_is_control(class_name):
        return {"control_image": "image"}
    if task in ("image-to-image", "inpainting"):
        names["image"] = next((n for n in IMAGE_PARAMETERS if n in parameters), "image")
    if task == "inpainting":
        names["mask_image"] = next((n for n in MASK_PARAMETERS if n in parameters), "mask_image")
    return names


def task_classes(class_name: str) -> dict[str, str]:
    """Each task that the weights of a pipeline class can do -> the class that does it, from
    diffusers' AutoPipeline tables and the parameters of the call."""
    tables = _auto_tables()
    model = next((model for table in tables.values() for model, name in table.items()
                  if name == class_name), None)
    classes = {task: tables[table][model] for task, table in TASK_TABLES.items()
               if model in tables[table]}
    classes = {task: name for task, name in classes.items()
               if task == "inpainting" or not set(MASK_PARAMETERS) & set(call_parameters(name))}
    if class_name not in classes.values():
        classes[task_of(class_name)] = class_name
    return classes


def connected_class(class_name: str) -> str | None:
    """The combined pipeline that a decoder's folder belongs to (Kandinsky, Cascade), None for the
    others; its prior lies in another repository."""
    tables = _auto_tables()
    for decoders, combined in DECODER_TABLES.items():
        for model, name in tables[decoders].items():
            if name == class_name:
                return tables[combined].get(model)
    return None


@functools.cache
def component_libraries() -> frozenset[str]:
    """Where a component's class may come from: transformers, diffusers and its own modules, and
    the one of ours."""
    modules = (path.parent.name for depth in ("*", "deprecated/*")
               for path in _root().glob(f"{depth}/__init__.py"))
    return frozenset({"diffusers", "transformers", EXACT_MODELS, *modules})


def deprecated_module(class_name: str) -> str | None:
    """The package below diffusers.pipelines.deprecated that defines a component's class; model
    indexes still name its old place."""
    path = _class_files().get(class_name)
    if path is None or "deprecated" not in path.parts:
        return None
    return path.parent.name


def task_of(class_name: str) -> str:
    """What a pipeline does, by the parameters of its call: with all pictures that it can take."""
    parameters = call_parameters(class_name)
    if set(MASK_PARAMETERS) & set(parameters):
        return "inpainting"
    if set(IMAGE_PARAMETERS) & set(parameters) and not _image_is_control(class_name):
        return "image-to-image"
    return "text-to-image" if "prompt" in parameters else "unconditional"


def _image_is_control(class_name: str) -> bool:
    """Whether the call's `image` is what a ControlNet or adapter follows, not where it starts."""
    parameters, components = call_parameters(class_name), component_parameters(class_name)
    return (bool({"controlnet", "adapter"} & set(components)) and "image" in parameters
            and not {"control_image", *MASK_PARAMETERS} & set(parameters))


@functools.cache
def _auto_tables() -> dict[str, dict[str, str]]:
    """Table -> model -> class name, as diffusers' auto_pipeline.py lists them."""
    tables: dict[str, dict[str, str]] = {}
    for node in ast.walk(_tree(_root() / "auto_pipeline.py")):
        match node:
            case ast.Assign(targets=[ast.Name(id=table)],
                            value=ast.Call(func=ast.Name(id="OrderedDict"), args=[rows])):
                tables[table] = {row.elts[0].value: row.elts[1].id for row in rows.elts}
            case ast.Assign(targets=[ast.Subscript(value=ast.Name(id=table),
                                                   slice=ast.Constant(value=model))],
                            value=ast.Name(id=name)):  # those with an optional dependency
                tables[table][model] = name
    return tables


@functools.cache
def method(class_name: str, name: str) -> ast.FunctionDef | None:
    """A method of a class of diffusers' pipelines or schedulers, its own or inherited."""
    definition = _definition(class_name, class_name)
    if definition is None:
        return None
    for item in definition.body:
        if isinstance(item, ast.FunctionDef) and item.name == name:
            return item
    bases = (base.id for base in definition.bases if isinstance(base, ast.Name))
    return next(filter(None, (method(base, name) for base in bases)), None)


@functools.cache
def function_beside(class_name: str, name: str) -> ast.FunctionDef | None:
    """A function at the top of the file that defines a class."""
    node = _definition(class_name, name)
    return node if isinstance(node, ast.FunctionDef) else None


@functools.cache
def scheduler_members(class_name: str) -> frozenset[str]:
    """The methods of a scheduler class, and the attributes that it gives itself."""
    definition = _definition(class_name, class_name)
    if definition is None:
        return frozenset()
    names = {node.attr for node in ast.walk(definition)
             if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)}
    for node in definition.body:
        if isinstance(node, ast.FunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return frozenset(names)


@functools.lru_cache(512)
def taken_of_scheduler(function: ast.FunctionDef) -> tuple[set[str], set[str]]:
    """The members of a scheduler, and the keys of its config, that a method takes whatever kind of
    scheduler it is."""
    members, config, nodes = set(), set(), [function]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.If | ast.IfExp | ast.BoolOp) and _asks_about_scheduler(
                getattr(node, "test", node)):
            continue
        nodes += ast.iter_child_nodes(node)
        match node:
            case ast.Attribute(value=whole) if is_scheduler(whole):
                members.add(node.attr)
            case ast.Attribute(value=ast.Attribute(value=whole, attr="config")) if (
                    is_scheduler(whole)):
                config.add(node.attr)
    return members, config


def is_scheduler(node: ast.expr) -> bool:
    """Whether an expression is a pipeline's own scheduler."""
    match node:
        case ast.Attribute(value=ast.Name(id="self"), attr="scheduler"):
            return True
    return False


def _asks_about_scheduler(test: ast.expr) -> bool:
    """Whether a test tells one kind of scheduler from another."""
    return any(getattr(node.func, "id", "") in ("hasattr", "getattr", "isinstance")
               and "self.scheduler" in ast.unparse(node.args[0])
               for node in ast.walk(test) if isinstance(node, ast.Call) and node.args)


def _definition(class_name: str, name: str) -> ast.AST | None:
    """What goes by `name` at the top of the file that defines a class."""
    path = _class_files().get(class_name)
    return next((node for node in (_tree(path).body if path else ())
                 if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name), None)


def _tree(path: Path) -> ast.Module:
    """A file's syntax, read in one thread at a time: Python 3.11 counts the depth of all threads'
    trees as one, and raises SystemError where they take turns."""
    with _parsing:
        return _parsed(path)


@functools.lru_cache(8)  # a tree takes megabytes; what is made of it is kept
def _parsed(path: Path) -> ast.Module:
    text = path.read_text("utf-8")
    try:
        return ast.parse(text)
    except SystemError:  # a thread of another library was at it
        return ast.parse(text)


def _defaults(arguments: ast.arguments) -> dict[str, Any]:
    positional = [*arguments.posonlyargs, *arguments.args][1:]  # without self
    missing = [REQUIRED] * (len(positional) - len(arguments.defaults))
    pairs = [*zip(positional, [*missing, *arguments.defaults], strict=True),
             *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)]
    return {argument.arg: _literal(default) for argument, default in pairs}


def _literal(node: Any) -> Any:
    if node is REQUIRED:
        return REQUIRED
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError):
        return None


@functools.cache
def _class_files() -> dict[str, Path]:
    """Each class that a file of diffusers' pipelines or schedulers, or the laboratory's, defines at
    its top."""
    files: dict[str, Path] = {}
    schedulers = (_root().parent / "schedulers").glob("scheduling_*.py")
    ours = (Path(__file__).parents[1] / "laboratory").glob("exact_*.py")
    for path in [*sorted(_root().rglob("*.py")), *sorted(schedulers), *sorted(ours)]:
        for name in re.findall(r"^class (\w+)", path.read_text("utf-8"), re.MULTILINE):
            files.setdefault(name, path)
    return files


def _root() -> Path:
    package = importlib.util.find_spec("diffusers")
    return Path(package.submodule_search_locations[0]) / "pipelines"
