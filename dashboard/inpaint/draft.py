"""The picture and mask that somebody works on: what the canvas page keeps between script runs."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipelines.inpainting import masks
from pipelines.inpainting.canvas import MaskSummary, feathered
from pipelines.inpainting.clicks import Clicks
from pipelines.inpainting.masks import Mask
from pipelines.inpainting.pictures_in import open_picture

UNDO_STEPS = 30


@dataclass(frozen=True)
class Snapshot:
    """A mask (compressed) and its strokes, for undo."""

    mask: bytes
    strokes: bytes | None
    drawing: dict[str, Any] | None


@dataclass
class Draft:
    """A picture of the store, its mask, and the canvas that the browser shows of them.

    The browser forgets a canvas that leaves the page; `version` is part of the canvas's key, so
    that another number makes the browser start a new one.
    """

    image: str  # SHA-256 in the store of pictures
    width: int
    height: int
    trail: list[tuple[str, str, int | None]]  # pictures that led here: SHA-256, name, run
    mask: Mask | None = None  # without the strokes that are still on the canvas
    transparency: Mask | None = None  # what was transparent in an uploaded picture
    strokes: bytes | None = None  # on the canvas, as a PNG of its size
    drawing: dict[str, Any] | None = None  # the same strokes as objects
    start: dict[str, Any] | None = None  # the drawing that the canvas began with
    clicks: Clicks = Clicks()  # on the canvas; not part of the mask yet
    clicks_start: Clicks = Clicks()  # those that the canvas began with
    canvas: str = ""  # on show: strokes, clicks or none
    version: int = 0
    display: tuple[int, int] | None = None  # CSS pixels of the canvas
    settings: dict[str, Any] = field(default_factory=dict)  # the page's values when it was left
    undone: list[Snapshot] = field(default_factory=list)
    done: list[Snapshot] = field(default_factory=list)
    made: dict[str, tuple[tuple, Any]] = field(default_factory=dict, repr=False)  # by once()

    def __post_init__(self) -> None:
        if self.mask is None:
            self.mask = masks.empty(self.width, self.height)

    @property
    def parent_id(self) -> int | None:
        """The run that made this picture; None for an upload or a sample."""
        return next((run for sha, _, run in reversed(self.trail) if sha == self.image), None)

    def once(self, name: str, make: Callable[..., Any], *parts: Any) -> Any:
        """make(*parts), or what it gave the last time where it was made of the same parts: a draw
        of the page changes a large mask seldom, and asks for it often. Arrays are never changed in
        place, so that the same one is an equal one."""
        before, result = self.made.get(name, ((), None))
        if len(before) != len(parts) or not all(map(_same, before, parts)):
            result = make(*parts)
            self.made[name] = parts, result
        return result

    def whole_mask(self) -> Mask:
        """The mask with the strokes over it."""
        return self.once("whole_mask", _with_strokes, self.mask, self.strokes)

    def soft_mask(self, feather: int, differential: bool) -> Mask:
        """The whole mask as it counts, with its rim."""
        return self.once("soft_mask", feathered, self.whole_mask(), feather, differential)

    def summary(self, feather: int, differential: bool) -> MaskSummary:
        """What the page tells of the whole mask."""
        return self.once("summary", MaskSummary.of, self.soft_mask(feather, differential),
                         self.whole_mask(), differential)

    def draw(self, drawing: dict[str, Any] | None, strokes: bytes | None) -> None:
        """Take the strokes that the browser sent; a canvas that has only started sends none."""
        if strokes:
            self.drawing, self.strokes = drawing, strokes

    def set_mask(self, mask: Mask) -> None:
        """Replace mask and strokes; `undo` brings them back."""
        self.done = [*self.done[1 - UNDO_STEPS :], self._snapshot()]
        self.undone = []
        self._restart(mask, None, None)

    def undo(self) -> None:
        self._step(self.done, self.undone)

    def redo(self) -> None:
        self._step(self.undone, self.done)

    def restart(self) -> None:
        """Begin a new canvas: strokes become part of the mask, clicks stay."""
        self._restart(self.whole_mask(), None, None)

    def show(self, canvas: str) -> None:
        """Show strokes, clicks or no canvas (""); a change begins a new canvas."""
        if canvas != self.canvas:
            self.canvas = canvas
            self.restart()

    def click(self, clicks: Clicks) -> None:
        """Replace the clicks."""
        self.clicks = clicks
        self.restart()

    def fit(self, width: int, height: int) -> None:
        """Set the canvas's size; a change begins a new canvas, the strokes become mask."""
        if self.display and self.display != (width, height):
            self._restart(self.whole_mask(), None, None)
        self.display = width, height

    def take(self, image: str, width: int, height: int, label: str, run_id: int | None) -> None:
        """Work on another picture; the mask stays if the sizes are equal."""
        mask, self.clicks = self.whole_mask(), Clicks()
        if not any(sha == image for sha, _, _ in self.trail):
            self.trail.append((image, label, run_id))
        if (width, height) != (self.width, self.height):
            self.done, self.undone, mask = [], [], masks.empty(width, height)
            self.transparency = None
        self.image, self.width, self.height = image, width, height
        self._restart(mask, None, None)

    def _restart(self, mask: Mask, strokes: bytes | None, drawing: dict[str, Any] | None) -> None:
        self.mask, self.strokes, self.drawing, self.start = mask, strokes, drawing, drawing
        self.clicks_start = self.clicks
        self.version += 1

    def _step(self, source: list[Snapshot], target: list[Snapshot]) -> None:
        if source:
            target.append(self._snapshot())
            snapshot = source.pop()
            mask = np.frombuffer(zlib.decompress(snapshot.mask), np.uint8)
            self._restart(mask.reshape(self.height, self.width), snapshot.strokes,
                          snapshot.drawing)

    def _snapshot(self) -> Snapshot:
        return Snapshot(zlib.compress(np.ascontiguousarray(self.mask).tobytes(), 1), self.strokes,
                        self.drawing)


def _same(before: Any, now: Any) -> bool:
    return before is now or (not isinstance(now, np.ndarray) and before == now)


def _with_strokes(mask: Mask, strokes: bytes | None) -> Mask:
    if not strokes:
        return mask
    drawn = np.asarray(open_picture(strokes, "strokes").convert("RGBA"))
    add, subtract = masks.from_strokes(drawn, mask.shape[1], mask.shape[0])
    return masks.combine(masks.combine(mask, add, "add"), subtract, "subtract")
