"""What a person types to find runs: `scheduler:ddim steps<20 psnr>30 tag:best`.

Terms stand beside each other and all must hold; a minus in front of one turns it round. A word
without a field is looked for in both prompts. `:` compares texts and says "one of" with commas and
"from .. to" with two dots; numbers and dates also take `<`, `<=`, `>` and `>=`.
"""

from __future__ import annotations

import calendar
import difflib
import math
import re
from dataclasses import dataclass

from sqlalchemy import Float, Integer

from pipelines.log_tables import MEASURE_NUMBERS, Run
from pipelines.notation import AxisError

NUMBERS = (*(column.name for column in Run.__table__.columns
             if isinstance(column.type, Integer | Float)), *MEASURE_NUMBERS)
CHOICES = ("status", "comparison_id", "model_id", "task", "scheduler", "device", "dtype")
DATES = ("datetime_utc",)
WORDS = ("prompt", "negative_prompt", "remark", "error")  # a part of the text is enough
FLAGS = {"starred": Run.starred, "shared": Run.shared, "deleted": Run.deleted_utc.is_not(None)}
SHORT = {"steps": "num_inference_steps", "guidance": "guidance_scale", "model": "model_id",
         "time": "total_ms", "memory": "peak_memory_bytes", "date": "datetime_utc",
         "comparison": "comparison_id", "negative": "negative_prompt", "rms": "rms_latents",
         "note": "remark"}
FIELDS = (*NUMBERS, *CHOICES, *DATES, *WORDS, "tag", "is")
EXAMPLE = "scheduler:ddim steps<20 psnr>30 tag:best"

_TERM = re.compile(r'(?P<minus>-?)(?:(?P<field>[A-Za-z_]+)(?P<operator><=|>=|!=|[:=<>]))?'
                   r'(?P<value>(?:"(?:[^"\\]|\\.)*"|[^\s"])*)')
_PART = re.compile(r'"(?:[^"\\]|\\.)*"|[^,"]+')
_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_RANGE = re.compile(rf"({_NUMBER})?\.\.({_NUMBER})?")
_DAY = re.compile(r"\d{4}(?:-\d\d(?:-\d\d(?:T\d\d(?::\d\d(?::\d\d)?)?)?)?)?")
_DAYS = re.compile(rf"({_DAY.pattern})?\.\.({_DAY.pattern})?")
_AFTER = "~"  # behind a date: after all times of that day, month or year

Bound = tuple[str, float | int | str]  # the operator, and what stands behind it


class QueryError(AxisError):
    """A query cannot be read: why, and the query with carets under the place."""


@dataclass(frozen=True)
class Condition:
    """One term. A row fits where one of `alternatives` holds: each is a list of bounds that hold
    together, or ("is", text). `field` is the full name; "" is both prompts."""

    field: str
    alternatives: tuple[tuple[Bound, ...], ...]
    negated: bool = False


def parse_query(text: str) -> tuple[Condition, ...]:
    """The terms of a query; raises QueryError, which marks the place of a mistake."""
    if "\0" in text:
        at = text.index("\0")
        raise QueryError("received the character 0, which no text in the log has", text, at, at + 1)
    conditions = []
    at = 0
    while at < len(text):
        if text[at].isspace():
            at += 1
            continue
        term = _TERM.match(text, at)
        if term.end() == at or text[term.end() : term.end() + 1] == '"':
            raise QueryError('a quotation mark without its second: write \\" for the sign itself',
                             text, term.end(), len(text))
        conditions.append(_condition(text, term))
        at = term.end()
    return tuple(conditions)


def _condition(text: str, term: re.Match) -> Condition:
    name, operator, value = term["field"], term["operator"], term["value"]
    if name is None:
        if not (word := _unquoted(value)):
            raise QueryError("received no text, accepted a word or a field with a value",
                             text, term.start(), term.end())
        return Condition("", ((("is", word),),), bool(term["minus"]))
    field = SHORT.get(name.lower(), name.lower())
    if field not in FIELDS:
        close = difflib.get_close_matches(name.lower(), [*FIELDS, *SHORT], 1)
        raise QueryError(
            f"{name!r} is no field{f'; {close[0]} is' if close else ''}. Accepted: "
            f"{', '.join(sorted({*FIELDS, *SHORT}))}; quotation marks make it a text to look for",
            text, *term.span("field"))
    if not value:
        raise QueryError(f"{name}: received no value", text, term.start("field"), term.end())
    if operator not in (":", "=", "!=") and field not in (*NUMBERS, *DATES):
        raise QueryError(f"{name}: received {operator}, accepted : for a text",
                         text, *term.span("operator"))
    negated = bool(term["minus"]) != (operator == "!=")
    alternatives = []
    for part in _parts(text, term):
        start, end = (term.start("value") + at for at in part.span())
        try:
            alternatives.append(_bounds(field, operator, part[0]))
        except ValueError as error:
            raise QueryError(f"{name}: received {part[0]}, accepted {error}",
                             text, start, end) from None
    return Condition(field, tuple(alternatives), negated)


def _parts(text: str, term: re.Match) -> list[re.Match]:
    """The values that stand with commas between them."""
    value = term["value"]
    parts = list(_PART.finditer(value))
    if ",".join(part[0] for part in parts) != value:
        raise QueryError(f"{term['field']}: a comma stands between two values; a value with a "
                         "comma or a quotation mark is written in quotation marks",
                         text, *term.span("value"))
    return parts


def _bounds(field: str, operator: str, value: str) -> tuple[Bound, ...]:
    """What one value says; ValueError with what would be accepted."""
    compared = operator if operator in ("<", "<=", ">", ">=") else ""
    if field in NUMBERS:
        if not compared and (ends := _RANGE.fullmatch(value)) and value != "..":
            low, high = ends.groups()
            return ((((">=", _number(low)),) if low else ())
                    + ((("<=", _number(high)),) if high else ()))
        if not compared and value == "none":
            return (("is", ""),)
        return ((compared or "=", _number(value)),)
    if field in DATES:
        low, high = value, value
        if not compared and (ends := _DAYS.fullmatch(value)) and value != "..":
            low, high = ends.groups()
        for day in filter(None, (low, high)):
            _check_date(day)
        return {
            "<": (("<", low),), ">=": ((">=", low),),
            "<=": (("<", f"{low}{_AFTER}"),), ">": ((">=", f"{low}{_AFTER}"),),
        }.get(compared, (*(((">=", low),) if low else ()),
                         *((("<", f"{high}{_AFTER}"),) if high else ())))
    word = _unquoted(value)
    if field == "is" and word not in FLAGS:
        raise ValueError(", ".join(FLAGS))
    return (("is", word),)


def _number(text: str) -> float | int:
    if not re.fullmatch(_NUMBER, text):
        raise ValueError("a number, numbers with commas, a range such as 10..20, or none")
    number = int(text) if re.fullmatch(r"[+-]?\d+", text) and len(text) < 20 else float(text)
    if not math.isfinite(number) or abs(number) >= 2**63 and isinstance(number, int):
        raise ValueError("a number that a column can hold")
    return number


def _check_date(text: str) -> None:
    """Raise ValueError where a text is no day of the calendar, or its year or month."""
    accepted = "a date, 2026, 2026-11 or 2026-11-26, or a range such as 2026-01..2026-03"
    if not _DAY.fullmatch(text):
        raise ValueError(accepted)
    year, month, day = (int(part) for part in (text[:10].split("-") + ["1", "1"])[:3])
    if not (year and 1 <= month <= 12 and 1 <= day <= calendar.monthrange(year, month)[1]):
        raise ValueError(accepted)


def _unquoted(value: str) -> str:
    """A value without its quotation marks."""
    return re.sub(r'"((?:[^"\\]|\\.)*)"', lambda part: re.sub(r"\\(.)", r"\1", part[1]), value)


def quoted(value: object) -> str:
    """A value as a query holds it."""
    text = str(value)
    if re.fullmatch(r'[^\s",\\:<>=!-][^\s",\\]*', text):
        return text
    escaped = re.sub(r'(["\\])', r"\\\1", text)
    return f'"{escaped}"'
