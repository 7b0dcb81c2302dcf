"""Lists of values as people write them: '1, 3, skip:7', and ranges of numbers, exact to the last
digit: 1..10, 1..10:2, 0.1..0.9/5 and 1,2,..,9."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from decimal import Context, Decimal

from pipelines.errors import RequestError
from pipelines.notation import AxisError

MAX_VALUES = 1000
MAX_DIGITS = 100
DECIMALS = 12  # of a value that has no end, as thirds have; more where the ends are given with more

_NUMBER = r"[+-]?\d+(?:\.\d+)?"
_RANGE = re.compile(rf"({_NUMBER})\.\.({_NUMBER})(?::({_NUMBER})|/(\d+))?")


@dataclass(frozen=True)
class Item:
    """A value as text, whether 'skip:' leaves it out, and where it stands in the whole text."""

    text: str
    skipped: bool
    start: int
    end: int


@contextlib.contextmanager
def marked(text: str, item: Item) -> Iterator[None]:
    """Mark an item's place in the text where what is done with it raises RequestError."""
    try:
        yield
    except RequestError as error:
        raise AxisError(str(error), text, item.start, item.end) from None


def listed(name: str, text: str, offset: int, prose: bool) -> Iterator[Item]:
    """The values of an axis, which stand in a text from `offset` on. `prose` may hold commas and be
    empty, and has no ranges; its values are separated by '||'. Raises AxisError."""
    items = list(_items(name, text, offset, prose))
    if prose:
        yield from items
        return
    count = 0
    for number, item in enumerate(items):
        with marked(text, item):
            if item.text == "..":
                around = items[max(0, number - 2) : number] + items[number + 1 : number + 2]
                values = values_between([other.text for other in around])
            else:
                values = range_values(item.text) or [item.text]
            count += len(values)
            if count > MAX_VALUES:
                raise RequestError(f"more than {MAX_VALUES} values")
        yield from (replace(item, text=value) for value in values)


def _items(name: str, text: str, offset: int, prose: bool) -> Iterator[Item]:
    separator = "||" if prose or "||" in text[offset:] else ","
    at = offset
    for part in text[offset:].split(separator):
        value = part.strip()
        start = at + len(part) - len(part.lstrip())
        end = start + len(value)
        if not value and not (prose and "+" not in name):
            raise AxisError(f"axis {name}: a value is missing", text, at, at + len(part))
        skipped = value[:5].lower() == "skip:"
        yield Item(value[5:].strip() if skipped else value, skipped, start, end)
        at += len(part) + len(separator)


def range_values(text: str) -> list[str] | None:
    """The values of '1..10', '1..10:2' (step) or '0.1..0.9/5' (count); None for another text.
    Raises RequestError."""
    match = _RANGE.fullmatch(text)
    if match is None:
        if re.search(r"\d\s*\.\.|\.\.\s*\d", text):
            raise RequestError("a range reads 1..10, 1..10:2 or 0.1..0.9/5")
        return None
    first, last, step, count = match.groups()
    a, b = _number(first), _number(last)
    if count is None:
        by = _number(step) if step else Decimal(1 if b >= a else -1)
        return _steps(a, b, by, f"from {first} to {last}")
    if _number(count) > MAX_VALUES:
        raise RequestError(f"more than {MAX_VALUES} values")
    n = int(_number(count))
    if n < 2:
        raise RequestError("a count is at least 2")
    exact = _exact(a, b)
    last_decimal = Decimal((0, (1,), -max(DECIMALS, _decimals(a), _decimals(b))))
    parts = (exact.divide(exact.multiply(exact.subtract(b, a), i), n - 1) for i in range(n))
    return [_plain(exact.quantize(exact.add(a, part), last_decimal)) for part in parts]


def values_between(around: Sequence[str]) -> list[str]:
    """What '..' stands for in '1,2,..,9', of the two values before it and the one behind it. Raises
    RequestError."""
    if len(around) < 3 or not all(re.fullmatch(_NUMBER, text) for text in around):
        raise RequestError("'..' needs two numbers before it and one behind it, as in 1,2,..,9")
    a, b, c = map(_number, around)
    exact = _exact(a, b, c)
    by, rest = exact.subtract(b, a), exact.subtract(c, b)
    if by == 0 or exact.multiply(rest, by) <= 0 or exact.remainder(rest, by):
        raise RequestError(f"steps of {_plain(by)} never lead from {_plain(b)} to {_plain(c)}")
    return _steps(b, c, by, "")[1:-1]


def _number(text: str) -> Decimal:
    if len(text) > MAX_DIGITS:
        raise RequestError(f"a number of a range has up to {MAX_DIGITS} digits")
    return Decimal(text)


def _steps(a: Decimal, b: Decimal, by: Decimal, way: str) -> list[str]:
    """From a to b, or as near to it as steps lead."""
    exact = _exact(a, b, by)
    distance = exact.subtract(b, a)
    if by == 0 or exact.multiply(distance, by) < 0:
        raise RequestError(f"a step of {_plain(by)} never leads {way}")
    count = exact.divide_int(distance, by) + 1
    if count > MAX_VALUES:
        raise RequestError(f"more than {MAX_VALUES} values")
    return [_plain(exact.add(a, exact.multiply(by, i))) for i in range(int(count))]


def _exact(*numbers: Decimal) -> Context:
    """Arithmetic with room for all digits of these numbers, of their products and quotients."""
    return Context(prec=2 * sum(len(number.as_tuple().digits) + _decimals(number)
                                for number in numbers) + 2 * DECIMALS + 10)


def _decimals(number: Decimal) -> int:
    return -number.as_tuple().exponent


def _plain(number: Decimal) -> str:
    """3.50 as 3.5, never as 3.5E+0."""
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
