"""The picture and mask that somebody works on: what the canvas page keeps between script runs."""

from __future__ import annotations

import io
import zlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from pipelines.inpainting import masks
from pipelines.inpainting.clicks import Clicks
from pipelines.inpainting.masks import Mask

UNDO_STEPS = 30


@dataclass(frozen=True)
class Snapshot:
    """A mask with the strokes over it, small enough to keep many."""

    mask: bytes
    strokes: bytes | None
    drawing: dict[str, Any] | None


@dataclass
class Draft:
    """`image` names the picture in the store; `mask` is what is settled, `strokes` (a PNG of the
    canvas) lie over it and `drawing` are the same strokes as objects; `clicks` are points that are
    no mask yet. `canvas` is the one that the browser shows, `version` names it: another number
    makes the browser start a new one from `start`, or from `clicks_start`. `trail` are the
    pictures that led here, each with its name and the run that made it; `transparency` is what of
    an uploaded picture was transparent, `settings` are the page's widgets as they were left."""

    image: str
    width: int
    height: int
    trail: list[tuple[str, str, int | None]]
    mask: Mask | None = None
    transparency: Mask | None = None
    strokes: bytes | None = None
    drawing: dict[str, Any] | None = None
    start: dict[str, Any] | None = None
    clicks: Clicks = Clicks()
    clicks_start: Clicks = Clicks()
    canvas: str = ""
    version: int = 0
    display: tuple[int, int] | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    undone: list[Snapshot] = field(default_factory=list)
    done: list[Snapshot] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.mask is None:
            self.mask = masks.empty(self.width, self.height)

    @property
    def parent_id(self) -> int | None:
        """The run that made this picture, where one did."""
        return next((run for sha, _, run in reversed(self.trail) if sha == self.image), None)

    def whole_mask(self) -> Mask:
        """The mask with the strokes over it."""
        if not self.strokes:
            return self.mask
        strokes = np.asarray(Image.open(io.BytesIO(self.strokes)).convert("RGBA"))
        add, subtract = masks.from_strokes(strokes, self.width, self.height)
        return masks.combine(masks.combine(self.mask, add, "add"), subtract, "subtract")

    def draw(self, drawing: dict[str, Any] | None, strokes: bytes | None) -> None:
        """Take what the browser sent; nothing where it only says that it has started."""
        if strokes:
            self.drawing, self.strokes = drawing, strokes

    def set_mask(self, mask: Mask) -> None:
        """Another mask in place of all that there is, with a way back."""
        self.done = [*self.done[1 - UNDO_STEPS :], self._snapshot()]
        self.undone = []
        self._restart(mask, None, None)

    def undo(self) -> None:
        self._step(self.done, self.undone)

    def redo(self) -> None:
        self._step(self.undone, self.done)

    def restart(self) -> None:
        """The browser forgot the canvas: begin a new one; strokes become mask, clicks stay."""
        self._restart(self.whole_mask(), None, None)

    def show(self, canvas: str) -> None:
        """Strokes, clicks or no canvas is on show; the browser forgets one that is not."""
        if canvas != self.canvas:
            self.canvas = canvas
            self.restart()

    def click(self, clicks: Clicks) -> None:
        """Other clicks in place of those that there are."""
        self.clicks = clicks
        self.restart()

    def fit(self, width: int, height: int) -> None:
        """The canvas's size in the browser; strokes at another size become mask first."""
        if self.display and self.display != (width, height):
            self._restart(self.whole_mask(), None, None)
        self.display = width, height

    def take(self, image: str, width: int, height: int, label: str, run_id: int | None) -> None:
        """Work on another picture; the mask stays where it fits."""
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
