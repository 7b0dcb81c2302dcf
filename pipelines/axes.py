"""Axes: what varies in a comparison, and the texts in which people write it."""

from __future__ import annotations

import contextlib
import functools
import json
import operator
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.errors import RequestError
from pipelines.fields import AXIS_FIELDS, TEXT_FIELDS
from pipelines.notation import (
    JSON,
    AxisError,
    named_values,
    number_text,
    read_json,
    shown,
    write_json,
)
from pipelines.request import RunRequest, join_model_id, loras_text, split_model_id
from pipelines.schedulers import known_scheduler
from pipelines.value_list import listed, marked

REPLACE = {"prompt_replace": "prompt", "negative_prompt_replace": "negative_prompt"}
AXIS_NAMES = (*AXIS_FIELDS, *REPLACE)
OPTION = "scheduler_options."
EXACT = f"{JSON}="  # before the values: a JSON list, for what plain text cannot hold
_FURTHER = re.compile(r"(?<=_replace)_\d{1,3}\Z")  # of a second axis that replaces
_LOOKED_AT = 200  # characters of a heading that tell it from another


def field_of(part: str) -> str:
    """The field of the request that a part of an axis's name sets; prompt_replace_2 is a second
    axis that replaces words of the prompt."""
    if part.startswith(OPTION):
        return "scheduler_options"
    name = _FURTHER.sub("", part)
    return REPLACE.get(name, name)


def replaces(part: str) -> bool:
    """Whether a part of an axis's name changes words of a prompt that another axis may choose."""
    return _FURTHER.sub("", part) in REPLACE


def holds_text(name: str) -> bool:
    """Whether an axis's values are prose, which may hold commas."""
    return any(field_of(part) in TEXT_FIELDS for part in name.split("+"))


@dataclass(frozen=True)
class Axis:
    """What varies, and the values it takes, in order.

    `name` is a field of the request, 'scheduler_options.NAME', 'prompt_replace', or several of
    them linked with '+', whose values are tuples. `search` is the value whose text a replace axis
    looks for.
    """

    name: str
    values: tuple[Any, ...]
    search: Any = None

    @functools.cached_property
    def parts(self) -> tuple[str, ...]:
        return tuple(self.name.split("+"))

    @functools.cached_property
    def labels(self) -> tuple[str, ...]:
        """How the values read in headings, no two alike: as JSON where the usual way tells them
        not apart, and numbered where they begin with the same long text."""
        texts = [label(self.name, value) for value in self.values]
        if alike := _alike(texts):
            texts = [write_json(value) if number in alike else text
                     for number, (value, text) in enumerate(zip(self.values, texts, strict=True))]
        if _alike(texts):
            texts = [f"{number}: {text}" for number, text in enumerate(texts, 1)]
        return tuple(texts)

    def label(self, value: Any) -> str:
        """How one of the values reads in headings."""
        return self.labels[self.values.index(value)]

    def set(self, fields: dict[str, Any], value: Any, words: dict[str, dict[str, str]]) -> None:
        """Put a value of this axis into the fields of a request; texts to replace go into `words`,
        by field."""
        linked = len(self.parts) > 1
        values = value if linked else (value,)
        search = self.values[0] if self.search is None else self.search
        searches = search if linked else (search,)
        for part, item, search in zip(self.parts, values, searches, strict=True):
            field = field_of(part)
            if field == "scheduler_options":
                fields[field] = {**fields[field], part.removeprefix(OPTION): item}
            elif not replaces(part):
                fields[field] = item
            elif search in words.setdefault(field, {}):
                raise RequestError(f"{part}: another axis looks for {search!r}, too")
            else:
                words[field][search] = item

    def as_dict(self) -> dict[str, Any]:
        kept = {"name": self.name, "values": list(self.values)}
        return kept | ({"search": self.search} if self.search is not None else {})

    @classmethod
    def from_dict(cls, kept: Mapping[str, Any]) -> Axis:
        """The reverse of as_dict, also after a trip through JSON; RequestError where it is none."""
        try:
            name, values, search = kept["name"], kept["values"], kept.get("search")
            if "+" in name:
                values, search = [tuple(value) for value in values], search and tuple(search)
            axis = cls(name, tuple(values), search)
            _check_name(axis.name)
            first = axis.values[0] if axis.search is None else axis.search
            texts = first if len(axis.parts) > 1 else (first,)
            if any(replaces(part) and not isinstance(text, str)
                   for part, text in zip(axis.parts, texts, strict=True)):
                raise ValueError("the text to look for is missing")
        except (TypeError, ValueError, LookupError, AttributeError) as error:
            raise RequestError(f"axis: received {kept!r:.80}, accepted a name of the axes and "
                               "values") from error
        return axis


def request_with(base: RunRequest, axes: Sequence[Axis], values: Sequence[Any]) -> RunRequest:
    """A cell's request; texts are replaced after the prompts are chosen, all at once, so that none
    is looked for in what another put there. RequestError on a misfit."""
    fields = base.model_dump()
    words: dict[str, dict[str, str]] = {}
    for axis, value in zip(axes, values, strict=True):
        axis.set(fields, value, words)
    for field, texts in words.items():
        searches = sorted(texts, key=len, reverse=True)
        pattern = re.compile("|".join(map(re.escape, searches)))
        missing = set(searches).difference(pattern.findall(fields[field]))
        if missing:
            raise RequestError(f"{field}_replace: {', '.join(map(repr, sorted(missing)))} is not "
                               f"in the {field} {fields[field]!r}")
        fields[field] = pattern.sub(lambda match, texts=texts: texts[match[0]], fields[field])
    return RunRequest(**fields)


def parse_axis(text: str, base: RunRequest | None = None) -> Axis:
    """'NAME=VALUES' as an axis whose values are valid for the request, one by one.

    Values are separated by commas: '1,3,7', '1..10', '1..10:2' (step), '0.1..0.9/5' (count),
    '1,2,..,9' (goes on in the same way); a 'skip:' before a value leaves it out. Texts hold commas,
    so theirs are separated by '||', which the others may use too. 'NAME:=[...]' is a JSON list,
    whose values are taken as they stand: those that plain text cannot hold. Raises RequestError,
    AxisError where a place in the text is wrong.
    """
    names, equals, listed = text.partition("=")
    if not equals:
        raise AxisError("axis: accepted NAME=VALUES, such as guidance_scale=1,3,7", text, 0,
                        len(text))
    name = "+".join(part.strip() for part in names.removesuffix(JSON).split("+"))
    _check_name(name)
    if len(set(name.split("+"))) < name.count("+") + 1:
        raise AxisError("axis: a name is linked with itself", text, 0, len(names))
    base = base or RunRequest()
    if not names.endswith(JSON):
        return _from_list(name, text, len(names) + 1, base)
    try:
        given = read_json(listed)
    except ValueError as error:
        raise AxisError(f"axis {name}: behind {EXACT} stands a JSON list of values ({error})", text,
                        len(names) + 1, len(text)) from None
    search = None
    if isinstance(given, dict) and given.keys() == {"search", "values"}:
        search, given = given["search"], given["values"]
    if not isinstance(given, list):
        raise AxisError(f"axis {name}: behind {EXACT} stands a JSON list of values", text,
                        len(names) + 1, len(text))
    return make_axis(name, given, base, search)


def _check_name(name: str) -> None:
    for part in name.split("+"):
        if not (part.removeprefix(OPTION) if part.startswith(OPTION)
                else part in AXIS_NAMES or replaces(part)):
            raise RequestError(f"axis: received {shown(part)}, accepted {', '.join(AXIS_NAMES)}, "
                               f"{OPTION}NAME, or several of them with + between")


def make_axis(
    name: str, values: Sequence[Any], base: RunRequest | None = None, search: Any = None
) -> Axis:
    """An axis from values as they stand; `search`, where it is not the first of them, is what a
    replace axis looks for. Raises RequestError."""
    _check_name(name)
    if not values:
        raise RequestError(f"axis {name}: a value is missing")
    base = base or RunRequest()
    checked = tuple(checked_value(name, value, base) for value in values)
    if twice := [value for value, count in Counter(checked).items() if count > 1]:
        raise RequestError(f"axis {name}: {shown(twice[0])} is given more than once")
    if not any(map(replaces, name.split("+"))):
        return Axis(name, checked)
    search = checked[0] if search is None else checked_value(name, search, base)
    _check_search(name, search)
    return Axis(name, checked, search)


def _check_search(name: str, search: Any) -> None:
    parts = name.split("+")
    for part, text in zip(parts, search if len(parts) > 1 else (search,), strict=True):
        if replaces(part) and not text:
            raise RequestError(f"{part}: the first text is the one to look for")


def checked_value(name: str, value: Any, base: RunRequest) -> Any:
    """A value as the request would have it; RequestError where it would not."""
    parts = name.split("+")
    if len(parts) > 1:
        if not isinstance(value, list | tuple) or len(value) != len(parts):
            raise RequestError(f"{name}: received {shown(value)}, accepted a list of {len(parts)} "
                               "values")
        return tuple(checked_value(part, item, base)
                     for part, item in zip(parts, value, strict=True))
    field = field_of(name)
    if field == "scheduler_options":
        option = name.removeprefix(OPTION)
        return base.changed(scheduler_options={option: value}).scheduler_options[option]
    if field == "model_id":
        base = base.changed(revision=None, variant=None)
    request = base.changed(**{field: value})
    checked = getattr(request, field)
    if field == "model_id":
        return join_model_id(checked, request.revision, request.variant)
    return loras_text(checked) if field == "loras" else checked


def value_of(name: str, text: str, base: RunRequest) -> Any:
    """An axis's value from its plain text; RequestError."""
    parts = name.split("+")
    texts = [text] if len(parts) == 1 else [
        item.strip() for item in text.split("+", len(parts) - 1)]
    if len(texts) != len(parts):
        raise RequestError(f"{name}: received {shown(text)}, accepted {len(parts)} values with + "
                           "between them")
    values = [parse_option(item) if part.startswith(OPTION) else item
              for part, item in zip(parts, texts, strict=True)]
    return checked_value(name, values if len(parts) > 1 else values[0], base)


def parse_option(text: str) -> bool | int | float | str:
    """'true' and '2' as what they say, anything else as it stands."""
    try:
        value = read_json(text.lower() if text.lower() in ("true", "false") else text)
    except ValueError:
        return text
    return value if isinstance(value, bool | int | float) else text


def _from_list(name: str, text: str, offset: int, base: RunRequest) -> Axis:
    seen: set[Any] = set()
    values, search = [], None
    for item in listed(name, text, offset, holds_text(name)):
        with marked(text, item):
            value = value_of(name, item.text, base)
            if search is None and any(map(replaces, name.split("+"))):
                search = value
                _check_search(name, search)
            if item.skipped:
                continue
            if value in seen:
                raise RequestError(f"axis {name}: {item.text} is given more than once")
        seen.add(value)
        values.append(value)
    if not values:
        raise AxisError(f"axis {name}: every value is skipped", text, offset, len(text))
    return Axis(name, tuple(values), search)


def parse_values(name: str, text: str, base: RunRequest) -> Axis:
    """The values of an axis as a page has them: what stands behind NAME= in parse_axis, prose in
    lines; EXACT and a JSON list, where the text begins so. Raises RequestError."""
    if text.lstrip().startswith(EXACT):
        return parse_axis(f"{name}{text.strip()}", base)
    if holds_text(name):
        text = " || ".join(line.strip() for line in text.splitlines() if line.strip())
    return parse_axis(f"{name}={text}", base)


def format_values(axis: Axis, base: RunRequest) -> str:
    """The reverse of parse_values: plain where that reads back as the same values, else JSON."""
    def exact(axis: Axis) -> str:
        return repr(make_axis(axis.name, axis.values, base, axis.search))

    texts = [_plain_text(axis.name, value) for value in axis.values]
    if axis.search not in (None, *axis.values[:1]):
        texts.insert(0, f"skip:{_plain_text(axis.name, axis.search)}")
    plain = ("\n" if holds_text(axis.name) else ", ").join(texts)
    with contextlib.suppress(RequestError):
        in_lines = holds_text(axis.name) or plain.isprintable()
        if in_lines and exact(parse_values(axis.name, plain, base)) == exact(axis):
            return plain
    kept: Any = list(axis.values)
    if axis.search not in (None, *axis.values[:1]):
        kept = {"search": axis.search, "values": kept}
    return EXACT + write_json(kept)


def _plain_text(name: str, value: Any) -> str:
    if isinstance(value, tuple):
        return "+".join(map(_plain_text, name.split("+"), value))
    if isinstance(value, float) and not name.startswith(OPTION):
        return number_text(value)
    return value if isinstance(value, str) else json.dumps(value)


@dataclass(frozen=True)
class Rule:
    """Leaves out the cells for which all of its conditions hold: 'scheduler=heun,seed>2'."""

    text: str
    conditions: tuple[tuple[str, str, Any], ...]

    def holds(self, values: Mapping[str, Any]) -> bool:
        """For a cell's values by axis, linked axes taken apart."""
        return all(_OPERATORS[operator](_as_named(name, values[name], value), value)
                   for name, operator, value in self.conditions)


def _as_named(name: str, value: Any, wanted: Any) -> Any:
    """A rule that names a model without a revision means every one."""
    return split_model_id(value)[0] if name == "model_id" and "@" not in wanted else value


_OPERATORS = {"!=": operator.ne, "<=": operator.le, ">=": operator.ge, "=": operator.eq,
              "<": operator.lt, ">": operator.gt}


def parse_rule(text: str, axes: Sequence[Axis], base: RunRequest) -> Rule:
    """A rule over these axes; a value ends where the next condition begins. ':' before an operator
    lets a JSON value follow. Raises AxisError."""
    names = {part for axis in axes for part in axis.parts}
    conditions = []
    for named in named_values(text, operators="|".join(_OPERATORS)):
        if named.name not in names:
            raise AxisError(f"skip: {shown(named.name)} is no axis; the axes are "
                            f"{', '.join(sorted(names))}", text, *named.name_at)
        try:
            read = checked_value if named.exact else value_of
            value = read(named.name, named.value, base)
        except RequestError as error:
            raise AxisError(str(error), text, *named.value_at) from None
        if named.operator[0] in "<>" and not isinstance(value, int | float):
            raise AxisError(f"skip: {named.name} has no order; accepted = and !=", text,
                            *named.operator_at)
        conditions.append((named.name, named.operator, value))
    if not conditions:
        raise AxisError("skip: accepted NAME=VALUE,NAME>VALUE,... over the axes "
                        f"{', '.join(sorted(names))}", text, 0, len(text))
    return Rule(text, tuple(conditions))


def flat_values(axes: Sequence[Axis], values: Mapping[str, Any]) -> dict[str, Any]:
    """A cell's values by axis, linked axes taken apart."""
    flat = {}
    for axis in axes:
        value = values[axis.name]
        flat |= zip(axis.parts, value if len(axis.parts) > 1 else (value,), strict=True)
    return flat


def own_or_label(name: str, value: Any) -> str:
    """How a value of a request reads that the model fills in where it is left out."""
    return "the model's own" if value is None else label(name, value)


def label(name: str, value: Any) -> str:
    """How a value reads in a heading."""
    if "+" in name:
        return " + ".join(map(label, name.split("+"), value))
    if name == "scheduler" and (info := known_scheduler(value)):
        return info.label
    if name == "loras" and not isinstance(value, str):
        return loras_text(value)
    if isinstance(value, dict):
        return ", ".join(f"{option}={label(option, of)}" for option, of in value.items())
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, float):
        return number_text(value)
    if value is None:
        return "default"
    if name in ("model_id", "revision"):  # a commit is long
        return re.sub(r"\b([0-9a-f]{7})[0-9a-f]{33}\b", r"\1", value)
    return str(value) if value != "" else "(empty)"


def _alike(texts: Sequence[str]) -> set[int]:
    """The places of texts that look the same on a sheet, where spaces run together and long texts
    are cut."""
    looks = [" ".join(text.split())[:_LOOKED_AT] for text in texts]
    return {number for number, look in enumerate(looks) if looks.count(look) > 1}
