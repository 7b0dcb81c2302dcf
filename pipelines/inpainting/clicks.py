"""Clicks on a picture -> a mask: by Segment Anything where its weights are local, else GrabCut."""

from __future__ import annotations

import contextlib
import hashlib
import reprlib
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from pipelines.errors import LoadError, RequestError
from pipelines.hardware import best_device
from pipelines.hub.cache import model_folders
from pipelines.hub.plan import SEGMENTER_FILES, SEGMENTERS
from pipelines.inpainting.masks import Box, Mask
from pipelines.models.files import find_weights
from pipelines.models.reading import read_json
from pipelines.models.weights import checked_weights
from pipelines.pixels import flat

if TYPE_CHECKING:
    from PIL.Image import Image

Point = tuple[int, int]

# Looked for in the Hugging Face cache, the best first; safetensors are the only weights read.
CHECKPOINTS = (
    "facebook/sam2.1-hiera-large", "facebook/sam2.1-hiera-base-plus", "facebook/sam2.1-hiera-small",
    "facebook/sam2.1-hiera-tiny", "facebook/sam2-hiera-large", "facebook/sam2-hiera-base-plus",
    "facebook/sam2-hiera-small", "facebook/sam2-hiera-tiny", "facebook/sam-vit-huge",
    "facebook/sam-vit-large", "facebook/sam-vit-base",
)  # fmt: skip
SMALLEST = CHECKPOINTS[3]
GRABCUT = "grabcut"  # in the place of a model id
EMBEDDINGS_KEPT = 4
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # what SAM was trained with

GRABCUT_SIDE = 256  # pixels of the longer side; small pictures grow, so that outlines have room
GRABCUT_REACH = 0.3  # of the longer side: how far around a click its subject is looked for
GRABCUT_ROUNDS = 6
SMOOTH = 2  # of 255, from pixel to pixel in each channel of Lab: no edge
TOLERANCE = 16  # of 255, in each channel of Lab: what counts as the clicked colour


@dataclass(frozen=True)
class Clicks:
    """Points of the picture that are in the subject and that are not, and a box around it."""

    this: tuple[Point, ...] = ()
    not_this: tuple[Point, ...] = ()
    box: Box | None = None

    def check(self, width: int, height: int) -> None:
        """Raise RequestError for a point outside, an empty box, or nothing that is meant."""
        for x, y in (*self.this, *self.not_this):
            if not (0 <= x < width and 0 <= y < height):
                raise RequestError(f"point: received {x},{y}, accepted 0,0 to {width - 1},"
                                   f"{height - 1}")  # fmt: skip
        if self.box:
            left, top, right, bottom = self.box
            if not (0 <= left < right <= width and 0 <= top < bottom <= height):
                raise RequestError(f"box: received {left},{top},{right},{bottom}, accepted left,"
                                   f"top,right,bottom inside 0,0,{width},{height}")  # fmt: skip
        if not self.this and not self.box:
            raise RequestError("received no point on the subject and no box; give at least one")


class Segmenter(Protocol):
    """`name` is shown to the user; `segment` gives 255 on the subject; raises RequestError."""

    name: str

    def segment(self, image: Image, clicks: Clicks) -> Mask: ...


def find_segmenter(model_id: str | None = None) -> Segmenter:
    """A named folder, cached Hub id or GRABCUT; else the best that is local. Raises LoadError
    where a named one is not there."""
    model_id = model_id or next(iter(local_segmenters()))
    if model_id == GRABCUT:
        return GrabCut()
    if folder := _folder(model_id):
        return SegmentAnything(folder, model_id)
    raise LoadError(
        f"segmenter: {model_id} is no folder and not in the Hugging Face cache; accepted "
        f"{GRABCUT}, or a checkpoint of SAM or SAM 2 with model.safetensors, such as {SMALLEST}"
    )


def local_segmenters() -> list[str]:
    """What can read clicks here now, the best first: checkpoints of the cache, then GRABCUT."""
    from huggingface_hub import constants

    cached = model_folders(Path(constants.HF_HUB_CACHE))
    segmenters = []
    for model_id in dict.fromkeys((*CHECKPOINTS, *cached)):
        with contextlib.suppress(LoadError):
            if (folder := _folder(model_id)) and _kind(folder):
                segmenters.append(model_id)
    return [*segmenters, GRABCUT]


def _folder(model_id: str) -> Path | None:
    """Where the weights lie; nothing is downloaded."""
    return find_weights(model_id, SEGMENTER_FILES, ["config.json"])


class GrabCut:
    """Colours grown from the clicks, then GrabCut (Rother et al. 2004); needs no weights."""

    name = "GrabCut (colours and edges; no model)"

    def segment(self, image: Image, clicks: Clicks) -> Mask:
        import cv2

        clicks.check(*image.size)
        pixels = np.asarray(flat(image))
        height, width = pixels.shape[:2]
        scale = GRABCUT_SIDE / max(height, width)
        size = max(1, round(width * scale)), max(1, round(height * scale))
        how = cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA
        picture = cv2.resize(pixels, size, interpolation=how)
        this, not_this = (
            [(min(size[0] - 1, int((x + 0.5) * scale)), min(size[1] - 1, int((y + 0.5) * scale)))
             for x, y in points] for points in (clicks.this, clicks.not_this)
        )  # fmt: skip
        box = clicks.box and tuple(round(side * scale) for side in clicks.box)
        labels = _first_guess(picture, this, not_this, box)
        found = _cut(picture, labels)
        if this:
            found = _holding(found, this)
        found = _without_holes(found)
        found = cv2.resize(found.astype(np.float32), (width, height), interpolation=(
            cv2.INTER_AREA if scale > 1 else cv2.INTER_LINEAR))  # fmt: skip
        mask = np.where(found >= 0.5, 255, 0).astype(np.uint8)
        for x, y in clicks.this:  # however small
            mask[y, x] = 255
        return mask


def _first_guess(
    picture: np.ndarray, this: Sequence[Point], not_this: Sequence[Point], box: Box | None
) -> np.ndarray:
    """GrabCut's four labels: the clicked colours are sure, what is near the clicks is likely."""
    import cv2

    height, width = picture.shape[:2]
    lab = cv2.cvtColor(picture, cv2.COLOR_RGB2LAB)
    if box:
        left, top, right, bottom = box
        near = np.zeros((height, width), bool)
        near[top:bottom, left:right] = True
        labels = np.where(near, cv2.GC_PR_FGD, cv2.GC_BGD).astype(np.uint8)
    else:
        near = np.zeros((height, width), np.uint8)
        for point in this:
            cv2.circle(near, point, round(GRABCUT_REACH * max(height, width)), 1, -1)
        near, outside = near > 0, _outside(lab)
        if not any(outside[y, x] for x, y in this):  # else the background itself is meant
            near &= ~outside
        labels = np.where(near, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
        rim = max(2, GRABCUT_SIDE // 64)  # subjects stand on the lower edge, seldom on the others
        for strip in (labels[:rim], labels[:, :rim], labels[:, -rim:]):
            strip[:] = cv2.GC_BGD
        labels[-rim:] = cv2.GC_PR_BGD
    for point in not_this:
        labels[_flood(lab, point)] = cv2.GC_BGD
    for point in this:
        labels[_flood(lab, point) & near] = cv2.GC_FGD
    for points, label in ((not_this, cv2.GC_BGD), (this, cv2.GC_FGD)):
        for point in points:
            cv2.circle(labels, point, 2, label, -1)
    return labels


def _outside(lab: np.ndarray) -> np.ndarray:
    """What no edge parts from the picture's upper and side borders, where backgrounds reach and
    subjects seldom do (the boundary prior of Wei et al. 2012, Geodesic Saliency)."""
    import cv2

    height, width = lab.shape[:2]
    found = np.zeros((height + 2, width + 2), np.uint8)
    flags = 4 | cv2.FLOODFILL_MASK_ONLY | (1 << 8)
    upper = [(x, 0) for x in range(0, width, 4)]
    sides = [(x, y) for x in (0, width - 1) for y in range(0, height, 4)]
    for x, y in (*upper, *sides):
        if not found[y + 1, x + 1]:
            cv2.floodFill(lab, found, (x, y), 0, (SMOOTH,) * 3, (SMOOTH,) * 3, flags)
    return found[1:-1, 1:-1] > 0


def _flood(lab: np.ndarray, point: Point) -> np.ndarray:
    """The connected area of about the colour at a point."""
    import cv2

    found = np.zeros((lab.shape[0] + 2, lab.shape[1] + 2), np.uint8)
    flags = 8 | cv2.FLOODFILL_MASK_ONLY | cv2.FLOODFILL_FIXED_RANGE | (1 << 8)
    cv2.floodFill(lab, found, point, 0, (TOLERANCE,) * 3, (TOLERANCE,) * 3, flags)
    return found[1:-1, 1:-1] > 0


def _cut(picture: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """GrabCut from these labels; the labels themselves where it has too little to go by."""
    import cv2

    cv2.setRNGSeed(0)  # its colour models start from k-means
    with contextlib.suppress(cv2.error):
        cv2.grabCut(picture, labels, None, np.zeros((1, 65)), np.zeros((1, 65)),
                    GRABCUT_ROUNDS, cv2.GC_INIT_WITH_MASK)
    return (labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD)


def _holding(found: np.ndarray, points: Sequence[Point]) -> np.ndarray:
    """The connected parts that a click lies in."""
    import cv2

    _, parts = cv2.connectedComponents(found.astype(np.uint8))
    return np.isin(parts, [parts[y, x] for x, y in points if parts[y, x]])


def _without_holes(found: np.ndarray) -> np.ndarray:
    from scipy.ndimage import binary_fill_holes

    return binary_fill_holes(found)


class SegmentAnything:
    """SAM (Kirillov et al. 2023, arXiv:2304.02643) or SAM 2 (Ravi et al. 2024, arXiv:2408.00714).

    The embedding of a picture is computed once; each further click costs the small decoder only.
    """

    def __init__(self, folder: Path, model_id: str, device: str | None = None) -> None:
        self.folder, self._device = folder, device
        self.kind = _kind(folder)
        self.name = f"{'SAM 2' if self.kind != 'sam' else 'SAM'} ({model_id})"
        self.embeddings_computed = 0
        self._model: Any = None
        self._embeddings: OrderedDict[str, Any] = OrderedDict()
        self._lock = threading.Lock()

    def segment(self, image: Image, clicks: Clicks) -> Mask:
        import torch
        from torch.nn.functional import interpolate

        clicks.check(*image.size)
        image = flat(image)
        with self._lock, torch.no_grad():
            model = self._load()
            embedding = self._embedding(image)
            side = _side(model)
            across, down = self._scale(image, side)
            scale = torch.tensor([across, down], device=model.device)
            prompts: dict[str, Any] = {}
            if points := [*clicks.this, *clicks.not_this]:
                marks = torch.tensor(points, dtype=torch.float32, device=model.device)
                prompts["input_points"] = ((marks + 0.5) * scale)[None, None]
                labels = [1] * len(clicks.this) + [0] * len(clicks.not_this)
                prompts["input_labels"] = torch.tensor([[labels]], device=model.device)
            if clicks.box:
                corners = torch.tensor(clicks.box, dtype=torch.float32, device=model.device)
                prompts["input_boxes"] = (corners * scale.repeat(2))[None, None]
            several = len(points) == 1 and not clicks.box  # one click may mean a part or the whole
            output = model(image_embeddings=embedding, multimask_output=several, **prompts)
            best = int(output.iou_scores[0, 0].argmax())
            logits = output.pred_masks[0, :1, best : best + 1].float()
            logits = interpolate(logits, (side, side), mode="bilinear", align_corners=False)
            logits = logits[..., : round(image.height * down), : round(image.width * across)]
            logits = interpolate(logits, image.size[::-1], mode="bilinear", align_corners=False)
        return np.where(logits[0, 0].cpu().numpy() > 0, 255, 0).astype(np.uint8)

    def _load(self) -> Any:
        if self._model is None:
            import transformers

            transformers.logging.disable_progress_bar()
            try:
                cls = getattr(transformers, SEGMENTERS[self.kind])
                with checked_weights():
                    model = cls.from_pretrained(self.folder, use_safetensors=True,
                                                local_files_only=True)
            except Exception as error:
                raise LoadError(f"segmenter: {self.folder} cannot be opened: {error}") from error
            self._model = model.eval().to(self._device or best_device())
        return self._model

    def _embedding(self, image: Image) -> Any:
        """The picture's embedding, from the cache where a click came before."""
        name = hashlib.sha256(repr(image.size).encode() + image.tobytes()).hexdigest()
        if name not in self._embeddings:
            model = self._load()
            self._embeddings[name] = model.get_image_embeddings(self._pixels(image, _side(model)))
            self.embeddings_computed += 1
            if len(self._embeddings) > EMBEDDINGS_KEPT:
                self._embeddings.popitem(last=False)
        self._embeddings.move_to_end(name)
        return self._embeddings[name]

    def _scale(self, image: Image, side: int) -> tuple[float, float]:
        """Pixels of the model's square for one of the picture: SAM keeps the aspect and pads at
        the right or below, SAM 2 stretches."""
        if self.kind == "sam":
            return (side / max(image.size),) * 2
        return side / image.width, side / image.height

    def _pixels(self, image: Image, side: int) -> Any:
        import torch
        from PIL import Image

        across, down = self._scale(image, side)
        size = max(1, round(image.width * across)), max(1, round(image.height * down))
        values = np.asarray(image.resize(size, Image.Resampling.BILINEAR)).astype(np.float32) / 255
        values = (values - np.array(MEAN, np.float32)) / np.array(DEVIATION, np.float32)
        square = np.zeros((side, side, 3), np.float32)
        square[: size[1], : size[0]] = values
        return torch.from_numpy(square).permute(2, 0, 1)[None].to(self._model.device)


def _kind(folder: Path) -> str:
    """The model type of a checkpoint; raises LoadError for what is no SAM or no safetensors."""
    try:
        kind = read_json(folder / "config.json").get("model_type")
    except LoadError as error:
        raise LoadError(f"segmenter: {folder} has no readable config.json ({error})") from error
    if not isinstance(kind, str) or kind not in SEGMENTERS:
        raise LoadError(f"segmenter: {folder} holds {reprlib.repr(kind)}, accepted "
                        f"{', '.join(SEGMENTERS)}")
    if not any(folder.glob("*.safetensors")):
        raise LoadError(f"segmenter: {folder} has no weights in safetensors; others are not read")
    return kind


def _side(model: Any) -> int:
    """Pixels of the square that a model sees."""
    side = model.config.prompt_encoder_config.image_size
    return side if isinstance(side, int) else side[0]
