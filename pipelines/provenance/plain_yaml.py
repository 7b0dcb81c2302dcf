"""YAML with JSON's values: the core schema of YAML 1.2, which PyYAML does not read by itself.

In YAML 1.1, which it reads, `no` is false, `12:30` is 750, `1e-3` is text and a date is none.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

DIGITS = list("-0123456789")
SCALARS = {
    "null": (r"null|Null|NULL|~|", ["n", "N", "~", ""]),
    "bool": (r"true|false|True|False|TRUE|FALSE", list("tTfF")),
    "int": (r"-?(0|[1-9][0-9]*)", DIGITS),
    "float": (r"-?[0-9]+(\.[0-9]*([eE][-+]?[0-9]+)?|[eE][-+]?[0-9]+)", DIGITS),
}


class _Loader(yaml.SafeLoader):
    """An alias is refused: a few lines of them may stand for billions of values."""

    yaml_implicit_resolvers: dict[str, Any] = {}

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise ValueError("aliases are not accepted")
        return super().compose_node(parent, index)


for name, (pattern, first) in SCALARS.items():
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{name}", re.compile(f"({pattern})$"), first)


def parse_yaml(text: str) -> Any:
    """The value of a text in YAML; raises yaml.YAMLError, ValueError or RecursionError."""
    return yaml.load(text, Loader=_Loader)  # a SafeLoader: it makes plain values only
