"""What diffusers' pipeline classes can do, read from their source: importing them takes seconds."""

from __future__ import annotations

import ast
import functools
import importlib.util
import inspect
import re
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


@functools.cache
def call_parameters(class_name: str) -> Mapping[str, Any]:
    """Name -> default of `pipe(...)`: REQUIRED where there is none, None where it is no literal.

    Empty for what is no pipeline class of diffusers.
    """
    definition = _class_definition(class_name)
    if definition is None:
        return {}
    for item in definition.body:
        if isinstance(item, ast.FunctionDef) and item.name == "__call__":
            return _defaults(item.args)
    bases = (base.id for base in definition.bases if isinstance(base, ast.Name))
    return next(filter(None, map(call_parameters, bases)), {})


def task_classes(class_name: str) -> dict[str, str]:
    """Each task that the weights of a pipeline class can do -> the class that does it, from
    diffusers' AutoPipeline tables and the parameters of the call."""
    tables = _auto_tables()
    model = next((model for table in tables.values() for model, name in table.items()
                  if name == class_name), None)
    classes = {task: tables[table][model] for task, table in TASK_TABLES.items()
               if model in tables[table]}
    if class_name not in classes.values():
        classes[_task_of(class_name)] = class_name
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
    """Where a component's class may come from: transformers, diffusers and its own modules."""
    modules = (path.name for path in _root().iterdir() if (path / "__init__.py").is_file())
    return frozenset({"diffusers", "transformers", *modules})


def _task_of(class_name: str) -> str:
    """What a pipeline does, by the parameters of its call."""
    parameters = call_parameters(class_name)
    if "mask_image" in parameters:
        return "inpainting"
    if "image" in parameters:
        return "image-to-image"
    return "text-to-image" if "prompt" in parameters else "unconditional"


@functools.cache
def _auto_tables() -> dict[str, dict[str, str]]:
    """Table -> model -> class name, as diffusers' auto_pipeline.py lists them."""
    tables: dict[str, dict[str, str]] = {}
    for node in ast.walk(ast.parse((_root() / "auto_pipeline.py").read_text("utf-8"))):
        match node:
            case ast.Assign(targets=[ast.Name(id=table)],
                            value=ast.Call(func=ast.Name(id="OrderedDict"), args=[rows])):
                tables[table] = {row.elts[0].value: row.elts[1].id for row in rows.elts}
            case ast.Assign(targets=[ast.Subscript(value=ast.Name(id=table),
                                                   slice=ast.Constant(value=model))],
                            value=ast.Name(id=name)):  # those with an optional dependency
                tables[table][model] = name
    return tables


def _class_definition(class_name: str) -> ast.ClassDef | None:
    path = _class_files().get(class_name)
    if path is None:
        return None
    tree = ast.parse(path.read_text("utf-8"))
    return next(node for node in ast.walk(tree)
                if isinstance(node, ast.ClassDef) and node.name == class_name)


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
    """Each class that a file of diffusers' pipelines defines at its top."""
    files: dict[str, Path] = {}
    for path in sorted(_root().rglob("*.py")):
        for name in re.findall(r"^class (\w+)", path.read_text("utf-8"), re.MULTILINE):
            files.setdefault(name, path)
    return files


def _root() -> Path:
    package = importlib.util.find_spec("diffusers")
    return Path(package.submodule_search_locations[0]) / "pipelines"
