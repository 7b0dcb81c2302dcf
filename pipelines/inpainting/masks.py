"""Masks as arrays of uint8 (height, width): 255 is repainted, 0 is kept, grey in between."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from pipelines.errors import RequestError
from pipelines.inpainting.pictures_in import check_size
from pipelines.pixels import flat, mask_of, noted, notes_of, opacity_of

if TYPE_CHECKING:
    from PIL.Image import Image

Mask = np.ndarray
Box = tuple[int, int, int, int]  # left, top, right, bottom; the last two are outside
How = Literal["replace", "add", "subtract", "intersect"]
Fill = Literal["edge", "reflect", "surroundings", "grey", "noise"]
FILLS: tuple[str, ...] = get_args(Fill)
HALF = 128
THUMBNAIL = 192  # pixels of its longer side
TINT = (255, 0, 150)  # seen on skies, meadows, skin and red cars


def as_mask(image: Image) -> Mask:
    return np.asarray(mask_of(image))


def as_image(mask: Mask) -> Image:
    from PIL import Image

    return Image.fromarray(mask)


def empty(width: int, height: int) -> Mask:
    return np.zeros((height, width), np.uint8)


def combine(mask: Mask, other: Mask, how: How) -> Mask:
    """Two masks of one size as one; grey counts by degrees."""
    if mask.shape != other.shape:
        raise RequestError(f"mask: received {size_text(other)}, accepted {size_text(mask)}")
    match how:
        case "replace":
            return other.copy()
        case "add":
            return np.maximum(mask, other)
        case "subtract":
            return np.minimum(mask, 255 - other)
        case "intersect":
            return np.minimum(mask, other)
    raise RequestError(f"combine: received {how!r}, accepted {', '.join(get_args(How))}")


def invert(mask: Mask) -> Mask:
    """Subject and background change places."""
    return 255 - mask


def grow(mask: Mask, pixels: int) -> Mask:
    """The white area larger by `pixels` on all sides; below 0 smaller. Greys stay greys.

    Steps of a cross and a square in turn make an octagon, nearly a disc, at any radius.
    """
    import cv2

    if pixels < 0:
        return 255 - grow(255 - mask, -pixels)
    count = min(pixels, max(mask.shape))
    if not count or not mask.any():
        return mask
    squares, crosses = count // 2, count - count // 2
    mask = cv2.dilate(mask, np.ones((2 * squares + 1,) * 2, np.uint8))  # their order is free
    if ((mask > 0) & (mask < 255)).any():
        cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
        return cv2.dilate(mask, cross, iterations=crosses)
    distance = cv2.distanceTransform(255 - mask, cv2.DIST_L1, 3)  # in steps of the cross
    return np.where(distance <= crosses, 255, 0).astype(np.uint8)


def feather(mask: Mask, pixels: int) -> Mask:
    """The mask with a soft rim of `pixels` around it.

    White stays white, so that what was masked is repainted in full; beyond the rim stays 0.
    """
    import cv2

    box = bounding_box(mask, 2 * pixels)  # nothing changes farther away
    if pixels <= 0 or box is None:
        return mask
    left, top, right, bottom = box
    part = mask[top:bottom, left:right]
    half = pixels // 2
    soft = grow(part, pixels - half)
    if half:
        side = 2 * half + 1
        soft = cv2.GaussianBlur(soft, (side, side), half / 2, borderType=cv2.BORDER_REPLICATE)
    whole = np.zeros_like(mask)
    whole[top:bottom, left:right] = np.maximum(soft, part)
    return whole


def share(mask: Mask) -> float:
    """The part of the picture that is not kept as it is, 0 to 1."""
    return float(np.count_nonzero(mask)) / mask.size


def bounding_box(mask: Mask, padding: int = 0) -> Box | None:
    """The smallest box around what is not 0, larger by `padding`, inside the picture."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return None
    height, width = mask.shape
    return (
        max(0, int(columns[0]) - padding),
        max(0, int(rows[0]) - padding),
        min(width, int(columns[-1]) + 1 + padding),
        min(height, int(rows[-1]) + 1 + padding),
    )


def resized(mask: Mask, width: int, height: int) -> Mask:
    """The mask at another size, its edges sharp again at half."""
    if mask.shape == (height, width):
        return mask
    from PIL import Image

    image = Image.fromarray(mask).resize((width, height), Image.Resampling.BICUBIC)
    return np.where(np.asarray(image) >= HALF, 255, 0).astype(np.uint8)


def from_strokes(strokes: np.ndarray, width: int, height: int) -> tuple[Mask, Mask]:
    """Strokes of a canvas (RGBA: red adds, blue takes away, the last stroke wins) as what to add
    and what to subtract, at the picture's size."""
    inked = strokes[..., 3] >= 64  # strokes are half transparent, their rims fainter
    red = strokes[..., 0] > strokes[..., 2]
    add, subtract = (np.where(inked & part, 255, 0).astype(np.uint8) for part in (red, ~red))
    return resized(add, width, height), resized(subtract, width, height)


def overlay(image: Image, mask: Mask, colour: tuple[int, int, int] = TINT) -> Image:
    """The picture with what will be repainted tinted, and a line around it."""
    import cv2
    from PIL import Image

    base = np.asarray(flat(image)).astype(np.float32)
    weight = (mask.astype(np.float32) / 255 * 0.55)[..., None]
    tinted = base * (1 - weight) + np.array(colour, np.float32) * weight
    tinted = tinted.round().astype(np.uint8)
    outlines, _ = cv2.findContours((mask >= HALF).astype(np.uint8), cv2.RETR_LIST,
                                   cv2.CHAIN_APPROX_NONE)
    if min(mask.shape) >= 128:
        cv2.drawContours(tinted, outlines, -1, (255, 255, 255), max(1, min(mask.shape) // 400))
    return Image.fromarray(tinted)


def thumbnail(image: Image) -> Image:
    """The picture with a longer side of THUMBNAIL pixels, small ones without blur."""
    from PIL.Image import Resampling

    scale = THUMBNAIL / max(image.size)
    size = tuple(max(1, round(side * scale)) for side in image.size)
    return image.resize(size, Resampling.NEAREST if scale >= 1 else Resampling.LANCZOS)


def extend(
    image: Image, left: int = 0, top: int = 0, right: int = 0, bottom: int = 0,
    fill: Fill = "edge", seed: int = 0,
) -> tuple[Image, Mask]:  # fmt: skip
    """The picture with more room around it, and a mask that is white where the room is new.

    `fill`: the edge drawn out, the picture mirrored, colours grown from the edge, grey, or noise.
    What is transparent stays so, and is filled from as white; the room is opaque.
    """
    import cv2
    from PIL import Image

    pixels = np.asarray(flat(image))
    height, width = pixels.shape[:2]
    sides = ((top, bottom), (left, right))
    if min(left, top, right, bottom) < 0:
        raise RequestError("outpaint: received a side below 0 px, accepted 0 px and more")
    check_size(width + left + right, height + top + bottom, "outpaint: the extended picture")
    mask = np.pad(np.zeros((height, width), np.uint8), sides, constant_values=255)
    colours = (*sides, (0, 0))
    match fill:
        case "edge" | "surroundings":
            padded = np.pad(pixels, colours, mode="edge")
            if fill == "surroundings":  # streaks melt into each other, the more the farther out
                reach = max(left, top, right, bottom, 1)
                side = 2 * reach + 1
                soft = cv2.blur(padded, (side, side), borderType=cv2.BORDER_REPLICATE)
                padded = np.where(mask[..., None] > 0, soft, padded)
        case "reflect":
            padded = np.pad(pixels, colours, mode="symmetric")
        case "grey":
            padded = np.pad(pixels, colours, constant_values=127)
        case "noise":
            padded = np.pad(pixels, colours)
            noise = np.random.default_rng(seed).integers(0, 256, padded.shape, np.uint8)
            padded = np.where(mask[..., None] > 0, noise, padded)
        case _:
            raise RequestError(f"fill: received {fill!r}, accepted {', '.join(FILLS)}")
    if opacity := opacity_of(image):
        clear = np.pad(np.asarray(opacity), sides, constant_values=255)
        padded = np.dstack([padded, clear])
        padded[top : top + height, left : left + width] = np.asarray(image.convert("RGBA"))
    return noted(Image.fromarray(padded), *notes_of(image)), mask


def size_text(mask: Mask) -> str:
    return f"{mask.shape[1]} x {mask.shape[0]} px"
