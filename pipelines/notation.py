"""Texts that hold values, written so that they read back as the same ones.

People write values plainly: 'seed=1,2', 'prompt=a cat'. What such a text cannot hold (a line break,
an empty text, the sign that separates values, a text that looks like a number) is written as JSON,
and a colon before the sign says so: 'prompt:=["a\\nb", ""]'. No plain text has that colon.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pipelines.errors import RequestError

JSON = ":"  # before an operator: what stands behind it is JSON
LONGEST = 100_000  # characters of a text that is taken apart
LARGEST_IN_A_BROWSER = 2**53 - 1  # JavaScript's numbers hold no larger integer
_SHOWN = 200  # characters of a text that an error shows


class AxisError(RequestError):
    """Bad syntax: `reason` in words, `marked` the text with carets under the place."""

    def __init__(self, reason: str, text: str, start: int, end: int) -> None:
        self.reason = reason
        first = max(0, start - _SHOWN // 2) if len(text) > _SHOWN else 0
        shown = "".join(c if c.isprintable() else " " for c in text[first : first + _SHOWN])
        before, behind = "…" * (first > 0), "…" * (first + _SHOWN < len(text))
        place = start - first + len(before)
        length = max(1, min(end, first + _SHOWN) - start)
        self.marked = f"{before}{shown}{behind}\n{' ' * place}{'^' * length}"
        super().__init__(f"{reason}\n{self.marked}")


def shown(value: Any) -> str:
    """A received value for a message: its repr, cut where it is long."""
    try:
        text = repr(value[:100] if isinstance(value, str) else value)
    except (ValueError, RecursionError):  # an integer of thousands of digits, or deep lists
        text = f"a {type(value).__name__} too large to show"
    return text if len(text) <= 80 else f"{text[:77]}..."


def number_text(value: float) -> str:
    """The usual way to write a number, '3' or '0.1', with as many digits as make it that one."""
    short = f"{value:g}"
    return short if float(short) == value else repr(value)


def for_browser(value: Any) -> Any:
    """A value for JSON that JavaScript reads: integers that it would round are texts."""
    if isinstance(value, dict):
        return {name: for_browser(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [for_browser(part) for part in value]
    large = isinstance(value, int) and abs(value) > LARGEST_IN_A_BROWSER
    return str(value) if large else value


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


_decoder = json.JSONDecoder(parse_constant=_no_constant)
_SPACE = re.compile(r"\s*")


def read_json(text: str) -> Any:
    """The value of a JSON text. Raises ValueError, also where it is nested too deep."""
    try:
        return _decoder.decode(text)
    except RecursionError:
        raise ValueError("nested too deep") from None


def write_json(value: Any) -> str:
    """JSON in one line, in which every sign can be seen."""
    text = json.dumps(value, ensure_ascii=False)
    return text if text.isprintable() else json.dumps(value)


@dataclass(frozen=True)
class Named:
    """'NAME=VALUE' in a text: the value is a stripped text, or with `exact` the value of its JSON;
    `name_at`, `operator_at` and `value_at` are (start, end) in the text."""

    name: str
    operator: str
    value: Any
    exact: bool
    name_at: tuple[int, int]
    operator_at: tuple[int, int]
    value_at: tuple[int, int]


def named_values(
    text: str, names: str = r"[\w.+]++", operators: str = "="
) -> Iterator[Named]:
    """The parts of 'NAME=VALUE,NAME=VALUE'; nothing for a text that does not begin with a name.

    Values may hold commas: one ends where a comma and the next name with its operator stand, JSON
    where it ends. `names` and `operators` are regular expressions. Raises AxisError where JSON is
    broken.
    """
    if len(text) > LONGEST:
        raise RequestError(f"received {len(text)} characters, accepted up to {LONGEST}")
    head = re.compile(rf"\s*+({names})\s*+({JSON}?)({operators})\s*+")
    match = head.match(text)
    while match:
        start, following = match.end(), None
        if match[2]:
            value, end = _json_at(text, start)
            if end < len(text):
                following = head.match(text, end + 1)
                if text[end] != "," or not following:
                    raise AxisError("behind a JSON value stands a comma and the next name", text,
                                    end, len(text))
            place = start, end
        else:
            end = text.find(",", start)
            while end >= 0 and not (following := head.match(text, end + 1)):
                end = text.find(",", end + 1)
            place = start, len(text) if end < 0 else end
            value = text[slice(*place)].strip()
        yield Named(match[1], match[3], value, bool(match[2]), match.span(1), match.span(3), place)
        match = following


def _json_at(text: str, start: int) -> tuple[Any, int]:
    """The JSON value that stands at a place, and where what follows it begins."""
    try:
        value, end = _decoder.raw_decode(text, start)
    except (ValueError, RecursionError) as error:
        reason = f"behind ':' and the operator stands JSON, such as \"a text\" ({error})"
        raise AxisError(reason, text, start, len(text)) from None
    return value, _SPACE.match(text, end).end()
