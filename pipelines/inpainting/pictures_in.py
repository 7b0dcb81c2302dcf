"""The one way in for pictures that others made: files, uploads, the camera."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.errors import RequestError

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("PNG", "JPEG", "WEBP")
MAX_BYTES = 64 * 2**20
MAX_PIXELS = 25_000_000  # a 24-megapixel camera's
MAX_SIDE = 16_384


def open_picture(source: Path | bytes, name: str = "image") -> Image:
    """A foreign picture, upright by its EXIF, as 8-bit RGB, or RGBA where it has transparency.

    PNG, JPEG or WebP, of an animation the first frame. 16 bits become 8, CMYK, grey and palettes
    become RGB. Raises RequestError for anything else, for broken files and for more than
    MAX_PIXELS, before their pixels are decoded; `name` says in the message what it was for.
    """
    from PIL import Image

    label, data = _read(source, name)
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            check_size(*image.size, label)
            image.load()
            return _plain(_upright(image))
    except RequestError:
        raise
    except Image.UnidentifiedImageError:
        raise RequestError(f"{label} is no picture that can be read; accepted PNG, JPEG, "
                           "WebP") from None  # fmt: skip
    except Image.DecompressionBombError:
        raise RequestError(f"{label} has more pixels than a picture may have; accepted up to "
                           f"{MAX_PIXELS / 1e6:.0f} million") from None  # fmt: skip
    except Exception as error:  # a broken file may raise anything in a decoder
        raise RequestError(f"{label} is no picture that can be read ({error})") from error


def open_rgb(source: Path | bytes, name: str = "image") -> Image:
    """Like open_picture, in RGB; what is transparent shows white, as viewers show it."""
    return flat(open_picture(source, name))


def open_mask(source: Path | bytes, name: str = "mask_image") -> Image:
    """A picture as a mask, in 8-bit grey; white is repainted."""
    return open_rgb(source, name).convert("L")


def flat(image: Image) -> Image:
    """The picture in RGB; what is transparent shows white."""
    if image.mode != "RGBA":
        return image.convert("RGB")
    from PIL import Image

    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


def alpha_mask(image: Image) -> Image | None:
    """The transparent part of a picture as a mask (white: transparent), None where it has none."""
    from PIL import ImageChops

    return ImageChops.invert(image.getchannel("A")) if image.mode == "RGBA" else None


def _read(source: Path | bytes, name: str) -> tuple[str, bytes]:
    """The bytes, and what to call them in a message."""
    label = f"{name}: {source}" if isinstance(source, Path) else f"{name}: this file"
    try:
        if isinstance(source, Path):
            if not source.is_file():
                missing = "is no file" if source.exists() else "does not exist"
                raise RequestError(f"{label} {missing}")
            size = source.stat().st_size
        else:
            size = len(source)
        if size > MAX_BYTES:
            raise RequestError(f"{label} has {size / 2**20:.0f} MB, accepted up to "
                               f"{MAX_BYTES // 2**20} MB")  # fmt: skip
        return label, source.read_bytes() if isinstance(source, Path) else source
    except (OSError, ValueError) as error:
        raise RequestError(f"{label} cannot be read: {error}") from error


def check_size(width: int, height: int, label: str = "image") -> None:
    """Raise RequestError for a picture larger than this program takes."""
    if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:
        raise RequestError(
            f"{label} has {width} x {height} px, accepted up to {MAX_PIXELS / 1e6:.0f} million "
            f"pixels and {MAX_SIDE} px a side; make it smaller first"
        )


def _upright(image: Image) -> Image:
    from PIL import ImageOps

    with contextlib.suppress(Exception):  # a broken EXIF block turns nothing
        return ImageOps.exif_transpose(image)
    return image


def _plain(image: Image) -> Image:
    """8-bit RGB, or RGBA where a pixel is not opaque."""
    if image.mode.startswith("I"):  # 16-bit grey, which Pillow would clip
        import numpy as np
        from PIL import Image

        values = np.asarray(image).astype(np.uint32)
        image = Image.fromarray((values.clip(0, 65535) // 257).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        if image.getextrema()[3][0] < 255:
            return image
    return image.convert("RGB")
