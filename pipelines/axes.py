"""Axes: what varies in a comparison, and the texts in which people write it."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from pipelines.errors import RequestError
from pipelines.fields import AXIS_FIELDS, TEXT_FIELDS
from pipelines.request import RunRequest, join_model_id, split_model_id
from pipelines.schedulers import BY_KEY

REPLACE = {"prompt_replace": "prompt", "negative_prompt_replace": "negative_prompt"}
AXIS_NAMES = (*AXIS_FIELDS, *REPLACE)
TEXT_AXES = {*TEXT_FIELDS, *REPLACE}
OPTION = "scheduler_options."
MAX_VALUES = 1000

_NUMBER = r"[+-]?\d+(?:\.\d+)?"
_RANGE = re.compile(rf"({_NUMBER})\.\.({_NUMBER})(?::({_NUMBER})|/(\d+))?")
_RULE = re.compile(r"\s*([\w.+]+?)\s*(!=|<=|>=|=|<|>)\s*")


class AxisError(RequestError):
    """Bad syntax: `reason` in words, `marked` the text with carets under the place."""

    def __init__(self, reason: str, text: str, start: int, end: int) -> None:
        self.reason = reason
        shown = text.replace("\n", " ")
        self.marked = f"{shown}\n{' ' * start}{'^' * max(1, end - start)}"
        super().__init__(f"{reason}\n{self.marked}")


@dataclass(frozen=True)
class Axis:
    """What varies, and the values it takes, in order.

    `name` is a field of the request, 'scheduler_options.NAME', 'prompt_replace', or several of
    them linked with '+', whose values are tuples. `search` is the text that a replace axis looks
    for.
    """

    name: str
    values: tuple[Any, ...]
    search: str | None = None

    @functools.cached_property
    def parts(self) -> tuple[str, ...]:
        return tuple(self.name.split("+"))

    @functools.cached_property
    def replaces(self) -> bool:
        """Whether it changes words of a prompt that another axis may choose."""
        return not REPLACE.keys().isdisjoint(self.parts)

    def set(self, fields: dict[str, Any], value: Any) -> None:
        """Put a value of this axis into the fields of a request; RequestError on a misfit."""
        linked = len(self.parts) > 1
        for name, part in zip(self.parts, value if linked else (value,), strict=True):
            if name.startswith(OPTION):
                options = fields["scheduler_options"]
                fields["scheduler_options"] = {**options, name.removeprefix(OPTION): part}
            elif name in REPLACE:
                field = REPLACE[name]
                if self.search not in fields[field]:
                    raise RequestError(f"{name}: {self.search!r} is not in the {field} "
                                       f"{fields[field]!r}")
                fields[field] = fields[field].replace(self.search, part)
            else:
                fields[name] = part

    def as_dict(self) -> dict[str, Any]:
        kept = {"name": self.name, "values": list(self.values)}
        return kept | ({"search": self.search} if self.search is not None else {})

    @classmethod
    def from_dict(cls, kept: Mapping[str, Any]) -> Axis:
        """The reverse of as_dict, also after a trip through JSON; RequestError where it is none."""
        try:
            axis = cls(kept["name"], tuple(kept["values"]), kept.get("search"))
            _check_name(axis.name)
            if len(axis.parts) > 1:
                axis = replace(axis, values=tuple(map(tuple, axis.values)))
            if axis.replaces and not isinstance(axis.search, str):
                raise ValueError("the text to look for is missing")
        except (TypeError, ValueError, LookupError, AttributeError) as error:
            raise RequestError(f"axis: received {kept!r:.80}, accepted a name of the axes and "
                               "values") from error
        return axis


def request_with(base: RunRequest, axes: Sequence[Axis], values: Sequence[Any]) -> RunRequest:
    """A cell's request; texts are replaced after the prompts are chosen."""
    fields = base.model_dump()
    pairs = list(zip(axes, values, strict=True))
    for axis, value in sorted(pairs, key=lambda pair: pair[0].replaces):
        axis.set(fields, value)
    return RunRequest(**fields)


def parse_axis(text: str, base: RunRequest | None = None) -> Axis:
    """'NAME=VALUES' as an axis whose values are valid for the request, one by one.

    Values are separated by commas: '1,3,7', '1..10', '1..10:2' (step), '0.1..0.9/5' (count),
    '1,2,..,9' (goes on in the same way); a 'skip:' before a value leaves it out. Texts hold commas,
    so theirs are separated by '||', which the others may use too. Raises RequestError, AxisError
    where a place in the text is wrong.
    """
    names, equals, listed = text.partition("=")
    if not equals:
        raise AxisError("axis: accepted NAME=VALUES, such as guidance_scale=1,3,7", text, 0,
                        len(text))
    name = "+".join(part.strip() for part in names.split("+"))
    _check_name(name)
    if len(set(name.split("+"))) < name.count("+") + 1:
        raise AxisError("axis: a name is linked with itself", text, 0, len(names))
    return _Values(name, text, len(names) + 1, base or RunRequest()).axis()


def _check_name(name: str) -> None:
    for part in name.split("+"):
        if part not in AXIS_NAMES and not (part.startswith(OPTION) and part != OPTION):
            raise RequestError(f"axis: received {part!r}, accepted {', '.join(AXIS_NAMES)}, "
                               f"{OPTION}NAME, or several of them with + between")


def make_axis(name: str, values: Sequence[Any], base: RunRequest | None = None) -> Axis:
    """An axis from values, which may come as text; no ranges. Raises RequestError."""
    _check_name(name)
    if not values or ("" in values and name not in TEXT_AXES):
        raise RequestError(f"axis {name}: a value is missing")
    base = base or RunRequest()
    checked = tuple(_checked(name, value, base) for value in values)
    if twice := [value for i, value in enumerate(checked) if value in checked[:i]]:
        raise RequestError(f"axis {name}: {twice[0]!r} is given more than once")
    return Axis(name, checked, checked[0] if name in REPLACE else None)


def _checked(name: str, value: Any, base: RunRequest) -> Any:
    """A value as the request would have it; RequestError where it would not."""
    parts = name.split("+")
    if len(parts) > 1:
        given = value.split("+", len(parts) - 1) if isinstance(value, str) else value
        if len(given) != len(parts):
            raise RequestError(f"{name}: received {value!r}, accepted {len(parts)} values with + "
                               "between them")
        return tuple(_checked(part, one.strip() if isinstance(one, str) else one, base)
                     for part, one in zip(parts, given, strict=True))
    if name.startswith(OPTION):
        option = parse_option(value) if isinstance(value, str) else value
        name = name.removeprefix(OPTION)
        return base.changed(scheduler_options={name: option}).scheduler_options[name]
    if name in REPLACE:
        return getattr(base.changed(**{REPLACE[name]: value}), REPLACE[name])
    if name == "model_id":
        base = base.changed(revision=None, variant=None)
    checked = getattr(request := base.changed(**{name: value}), name)
    if name == "model_id":
        return join_model_id(checked, request.revision, request.variant)
    return "+".join(map(str, checked)) or "none" if name == "loras" else checked


def parse_option(text: str) -> bool | int | float | str:
    """'true' and '2' as what they say, anything else as it stands."""
    try:
        value = json.loads(text.lower() if text.lower() in ("true", "false") else text)
    except ValueError:
        return text
    return value if isinstance(value, bool | int | float) else text


@dataclass(frozen=True)
class _Item:
    """One text between separators, and where it stands."""

    text: str
    start: int
    end: int


class _Values:
    """The values of one axis: a text from `offset` on, item by item."""

    def __init__(self, name: str, text: str, offset: int, base: RunRequest) -> None:
        self.name, self.text, self.offset, self.base = name, text, offset, base

    def axis(self) -> Axis:
        listed = list(self._listed())
        seen: dict[str, _Item] = {}
        values, search = [], None
        for item, value in listed:
            skipped, value = _skip(value)
            try:
                checked = _checked(self.name, value, self.base)
            except RequestError as error:
                raise self._error(str(error), item) from None
            if self.name in REPLACE and search is None:
                search = checked
                if not search:
                    raise self._error(f"{self.name}: the first text is the one to look for", item)
            if skipped:
                continue
            if repr(checked) in seen:
                raise self._error(f"axis {self.name}: {value} is given more than once", item)
            seen[repr(checked)] = item
            values.append(checked)
        if not values:
            raise AxisError(f"axis {self.name}: every value is skipped", self.text, self.offset,
                            len(self.text))
        return Axis(self.name, tuple(values), search)

    def _items(self) -> Iterator[_Item]:
        text_axis = bool(TEXT_AXES & set(self.name.split("+")))
        separator = "||" if text_axis or "||" in self.text[self.offset :] else ","
        at = self.offset
        for part in self.text[self.offset :].split(separator):
            stripped = part.strip()
            start = at + len(part) - len(part.lstrip())
            if not stripped and not (text_axis and self.name.count("+") == 0):
                raise AxisError(f"axis {self.name}: a value is missing", self.text, at,
                                at + len(part))
            yield _Item(stripped, start, start + len(stripped))
            at += len(part) + len(separator)

    def _listed(self) -> Iterator[tuple[_Item, str]]:
        """Each value as text, with the item that it comes from."""
        items = list(self._items())
        if TEXT_AXES & set(self.name.split("+")):
            yield from ((item, item.text) for item in items)
            return
        count = 0
        for number, item in enumerate(items):
            skipped, body = _skip(item.text)
            values = [body]
            if body == "..":
                values = self._between(items, number)
            elif match := _RANGE.fullmatch(body):
                values = self._range(item, *match.groups())
            elif re.search(r"\d\s*\.\.|\.\.\s*\d", body):
                raise self._error("a range reads 1..10, 1..10:2 or 0.1..0.9/5", item)
            count += len(values)
            if count > MAX_VALUES:
                raise self._error(f"more than {MAX_VALUES} values", item)
            yield from ((item, f"skip:{value}" if skipped else value) for value in values)

    def _range(
        self, item: _Item, first: str, last: str, step: str | None, count: str | None
    ) -> list[str]:
        a, b = Decimal(first), Decimal(last)
        if count:
            n = int(count)
            if n < 2:
                raise self._error("a count is at least 2", item)
            if n > MAX_VALUES:
                raise self._error(f"more than {MAX_VALUES} values", item)
            return [_plain(a + (b - a) * i / (n - 1)) for i in range(n)]
        by = Decimal(step) if step else Decimal(1 if b >= a else -1)
        if by == 0 or (b - a) * by < 0:
            raise self._error(f"a step of {_plain(by)} never leads from {first} to {last}", item)
        return self._steps(item, a, b, by)

    def _between(self, items: list[_Item], number: int) -> list[str]:
        """What '..' stands for: the steps from the two values before it to the one behind it."""
        item = items[number]
        around = [*items[max(0, number - 2) : number], *items[number + 1 : number + 2]]
        numbers = [_skip(one.text)[1] for one in around]
        if len(numbers) < 3 or not all(re.fullmatch(_NUMBER, one) for one in numbers):
            raise self._error("'..' needs two numbers before it and one behind it, as in "
                              "1,2,..,9", item)
        before, last, end = map(Decimal, numbers)
        by = last - before
        if by == 0 or (end - last) * by <= 0 or (end - last) % by:
            raise self._error(f"steps of {_plain(by)} never lead from {_plain(last)} to "
                              f"{_plain(end)}", item)
        return self._steps(item, last + by, end - by, by)

    def _steps(self, item: _Item, a: Decimal, b: Decimal, by: Decimal) -> list[str]:
        count = max(0, int((b - a) / by) + 1)
        if count > MAX_VALUES:
            raise self._error(f"more than {MAX_VALUES} values", item)
        return [_plain(a + by * i) for i in range(count)]

    def _error(self, reason: str, item: _Item) -> AxisError:
        return AxisError(reason, self.text, item.start, item.end)


def _skip(text: str) -> tuple[bool, str]:
    """Whether a value is to be left out, and the value."""
    skipped = text[:5].lower() == "skip:"
    return skipped, text[5:].strip() if skipped else text


def _plain(number: Decimal) -> str:
    """3.50 as 3.5, never as 3.5E+0."""
    text = f"{round(number, 12):f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


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


_OPERATORS = {
    "=": lambda a, b: a == b, "!=": lambda a, b: a != b, "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b, ">": lambda a, b: a > b, ">=": lambda a, b: a >= b,
}


def parse_rule(text: str, axes: Sequence[Axis], base: RunRequest) -> Rule:
    """A rule over these axes; a value ends where the next condition begins. Raises AxisError."""
    names = {part for axis in axes for part in axis.parts}
    starts = [match for match in _RULE.finditer(text)
              if match.start() == 0 or text[match.start() - 1] == ","]
    if not starts or starts[0].start() != 0:
        raise AxisError("skip: accepted NAME=VALUE,NAME>VALUE,... over the axes "
                        f"{', '.join(sorted(names))}", text, 0, len(text))
    conditions = []
    ends = [match.start() - 1 for match in starts[1:]] + [len(text)]
    for match, end in zip(starts, ends, strict=True):
        name, operator, value = match[1], match[2], text[match.end() : end].strip()
        if name not in names:
            raise AxisError(f"skip: {name!r} is no axis; the axes are {', '.join(sorted(names))}",
                            text, match.start(1), match.end(1))
        try:
            checked = _checked(name, value, base)
        except RequestError as error:
            raise AxisError(str(error), text, match.end(), max(end, match.end())) from None
        if operator[0] in "<>" and not isinstance(checked, int | float):
            raise AxisError(f"skip: {name} has no order; accepted = and !=", text,
                            match.start(2), match.end(2))
        conditions.append((name, operator, checked))
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
    if name == "scheduler" and value in BY_KEY:
        return BY_KEY[value].label
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, float):
        return f"{value:g}"
    if value is None:
        return "default"
    if name in ("model_id", "revision"):  # a commit is long
        return re.sub(r"\b([0-9a-f]{7})[0-9a-f]{33}\b", r"\1", value)
    return str(value) if value != "" else "(empty)"
