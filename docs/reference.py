"""Writes docs/api.md from the docstrings of the public names: python docs/reference.py"""

from __future__ import annotations

import dataclasses
import inspect
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PAGE = Path(__file__).with_name("api.md")
START = """# API reference

The public names of `pipelines`, from their docstrings (written by `python docs/reference.py`).
`import pipelines as cs` loads neither torch nor diffusers; the first picture does. Errors are
`PipelineError` and its children in `pipelines.errors`, whose message says what was received and
what would be accepted.
"""


def reference() -> str:
    """The page."""
    import pipelines

    # Functions first: that is where people begin.
    names = sorted(pipelines.__all__, key=lambda name: (
        not inspect.isfunction(getattr(pipelines, name)), name.lower()))
    return "\n".join([START, *(line for name in names
                               for line in _entry(name, getattr(pipelines, name)))])


def _entry(name: str, value: Any) -> Iterator[str]:
    yield f"## {name}\n"
    if inspect.isfunction(value):
        yield from _callable(name, value)
    elif inspect.isclass(value):
        yield from _class(name, value)
    else:
        yield f"A {type(value).__name__} of {len(value)} `{type(next(iter(value))).__name__}`.\n"


def _class(name: str, cls: type) -> Iterator[str]:
    fields = getattr(cls, "model_fields", None)
    if fields is None and not issubclass(cls, Exception) and _own(cls, "__init__"):
        yield _code(f"class {name}{_signature(cls.__init__)}")
    else:
        yield _code(f"class {name}({cls.__base__.__name__})" if issubclass(cls, Exception)
                    else f"class {name}")
    yield f"{_text(cls)}\n"
    if fields:
        yield from _fields(fields)
    for attribute, member in vars(cls).items():
        if attribute.startswith("_"):
            continue
        function = getattr(member, "func", None) or getattr(member, "fget", None)
        if isinstance(member, classmethod | staticmethod):
            yield f"### {name}.{attribute}\n"
            yield from _callable(f"{name}.{attribute}", member.__func__)
        elif inspect.isfunction(member):
            yield f"### {name}.{attribute}\n"
            yield from _callable(f"{name}.{attribute}", member)
        elif inspect.isfunction(function):
            returned = inspect.signature(function).return_annotation
            yield f"### {name}.{attribute}: `{returned}`\n"
            yield f"{_text(function)}\n"


def _own(cls: type, name: str) -> bool:
    """Whether a class has a constructor that people call: its own, or a dataclass's."""
    return name in vars(cls) and (not dataclasses.is_dataclass(cls)
                                  or "sqlalchemy" not in str(cls.__mro__))


def _callable(name: str, function: Callable) -> Iterator[str]:
    yield _code(f"{name}{_signature(function)}")
    yield f"{_text(function)}\n"


def _signature(function: Callable) -> str:
    """Without self, one parameter a line where it is long."""
    signature = inspect.signature(function)
    parameters = [p for p in signature.parameters.values() if p.name not in ("self", "cls")]
    text = _readable(str(signature.replace(parameters=parameters)))
    if len(text) <= 80 or not parameters:
        return text
    lines = [_readable(str(parameter)) for parameter in parameters]
    keywords = [i for i, p in enumerate(parameters) if p.kind is p.KEYWORD_ONLY]
    if keywords:
        lines.insert(keywords[0], "*")
    _, arrow, returned = text.rpartition(" -> ")
    return "(\n" + "".join(f"    {line},\n" for line in lines) + f"){arrow}{returned}"


def _readable(text: str) -> str:
    """Annotations without quotes; defaults that have no text of their own as '...'."""
    return re.sub(r"= <.+?>(?=[,)]|$)", "= ...", text.replace("'", ""))


def _fields(fields: dict[str, Any]) -> Iterator[str]:
    yield "| field | default | meaning |\n|---|---|---|"
    for name, field in fields.items():
        yield f"| `{name}` | `{field.default!r}` | {field.description or ''} |"
    yield ""


def _code(text: str) -> str:
    return f"```python\n{text}\n```\n"


def _text(value: Any) -> str:
    return inspect.cleandoc(value.__doc__ or "")


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    PAGE.write_text(reference(), encoding="utf-8")
