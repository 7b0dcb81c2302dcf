"""What a program wrote of a picture, in the words of a request: the value all readers give back."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pipelines.notation import shown

MAX_NOTES = 60
LOST_PICTURE = ("the picture that it began from is not in the file: give it to make this "
                "image-to-image")


@dataclass(frozen=True)
class ModelName:
    """How another program names a model: a title or the name of a file, and a hash in hex, which
    may be the start of one."""

    name: str = ""
    hash: str = ""

    def __str__(self) -> str:
        return " ".join(filter(None, [self.name[:120], self.hash and f"(hash {self.hash[:64]})"]))


@dataclass(frozen=True)
class Reading:
    """`values` are fields of a request, not checked yet; `notes` say what could not be taken."""

    program: str
    values: Mapping[str, Any]
    model: ModelName = ModelName()
    notes: tuple[str, ...] = ()


@dataclass
class Collected:
    """Fields and notes on their way to a Reading."""

    program: str
    values: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def number(self, name: str, value: Any, whole: bool = False) -> None:
        """Take a number, also from its text; what is none is noted, None left out."""
        if value is None or value == "":
            return
        try:
            number = float(value)
            if isinstance(value, bool) or not math.isfinite(number):
                raise ValueError
            if whole:
                number = int(value) if isinstance(value, int | str) else int(number)
            self.values[name] = number
        except (TypeError, ValueError, OverflowError):
            self.notes.append(f"{name}: received {shown(value)}, which is no number; left out")

    def text(self, name: str, value: Any) -> None:
        if isinstance(value, str):
            self.values[name] = value
        elif value is not None:
            self.notes.append(f"{name}: received {shown(value)}, which is no text; left out")

    def scheduler(self, translated: tuple[Mapping[str, Any], Iterable[str]]) -> None:
        """Take what samplers.scheduler_values gave."""
        values, notes = translated
        self.values |= values
        self.notes += notes

    def ignored(self, items: Iterable[tuple[Any, Any]]) -> None:
        """Note the keys that have no counterpart here, a line for each."""
        self.notes += [f"ignored, it has no counterpart here: {str(key)[:60]}: {shown(value)}"
                       for key, value in items]

    def done(self, model: ModelName | None = None) -> Reading:
        notes = self.notes
        if len(notes) > MAX_NOTES:
            notes = [*notes[:MAX_NOTES], f"and {len(notes) - MAX_NOTES} more of such lines"]
        return Reading(self.program, self.values, model or ModelName(), tuple(notes))
