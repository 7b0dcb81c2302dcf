"""The one way in for pictures that others made: files, uploads, the camera."""

from __future__ import annotations

import base64
import contextlib
import io
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.colour import CONVERTED, rgb_profile, to_srgb
from pipelines.errors import RequestError
from pipelines.pixels import (
    NOTES,
    PROFILE,
    eight_bits,
    flat,
    mask_of,
    noted,
    notes_of,
    opacity_of,
    over,
)

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("PNG", "JPEG", "WEBP")
MAX_BYTES = 64 * 2**20
MAX_PIXELS = 25_000_000  # a 24-megapixel camera's
MAX_SIDE = 16_384
COLOURFUL = 64  # of 255, between channels: more than JPEG makes of grey
PNG = b"\x89PNG\r\n\x1a\n"
DEPTH = 24  # where a PNG's header says bits a channel, and behind it the kind of its pixels
GREY_ALPHA = 4


def open_picture(
    source: Path | bytes, name: str = "image", formats: Sequence[str] = FORMATS
) -> Image:
    """A foreign picture, upright by its EXIF, as 8-bit sRGB, or with alpha where it has
    transparency.

    PNG, JPEG or WebP, of an animation the first frame. 16 bits become 8; CMYK, grey and palettes
    become RGB, other colour spaces sRGB; its notes say so (`pixels.notes_of`). Raises RequestError
    for anything else, for broken files and for more than MAX_PIXELS, before their pixels are
    decoded; `name` says in the message what it was for.
    """
    return _opened(source, name, formats, to_srgb)


def open_rgb(source: Path | bytes, name: str = "image") -> Image:
    """Like open_picture, in RGB; what is transparent shows white, as viewers show it."""
    return flat(open_picture(source, name))


def open_mask(source: Path | bytes, name: str = "mask_image") -> Image:
    """A picture as a mask, by the rule of `pixels.mask_of`; its notes say what counts in it.

    Its values are taken as they are stored: a colour profile is for colours. Raises RequestError
    as open_picture does, and where strokes on a transparent layer would repaint nothing.
    """
    picture = _opened(source, name, FORMATS, lambda image: image)
    mask = mask_of(picture)
    notes = []
    if picture.mode == "RGBA":
        notes.append("its transparent parts are kept")
        if not mask.getbbox():
            label = f"{name}: {source if isinstance(source, Path) else 'this file'}"
            raise RequestError(f"{label} masks nothing: what is transparent is kept, white is "
                               "repainted, and its strokes are black; accepted white strokes")
    if _most_colourful(picture) > COLOURFUL:
        notes.append("its colours count by their brightness: white is repainted")
    return noted(mask, *notes)


def open_input(source: Path | bytes, name: str) -> Image:
    """An input picture by the request's field that takes it: a mask as a mask."""
    return (open_mask if name == "mask_image" else open_picture)(source, name)


def alpha_mask(image: Image) -> Image | None:
    """The transparent part of a picture as a mask (white: transparent), None where it has none."""
    from PIL import ImageChops

    opacity = opacity_of(image)
    return ImageChops.invert(opacity) if opacity else None


def _opened(
    source: Path | bytes, name: str, formats: Sequence[str], colours: Callable[[Image], Image]
) -> Image:
    """The picture in RGB, or RGBA where it is not opaque, its info nothing but its notes."""
    import warnings

    from PIL import Image

    # Between its own limit and twice that, Pillow warns; ours is below both, and is an error.
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)
    label, data = _read(source, name)
    try:
        with Image.open(io.BytesIO(data), formats=formats) as image:
            check_size(*image.size, label)
            image.load()
            return _plain(image, data, colours)
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


def _plain(image: Image, data: bytes, colours: Callable[[Image], Image]) -> Image:
    notes = []
    if (frames := getattr(image, "n_frames", 1)) > 1:
        notes.append(f"the first of {frames} frames was taken")
    image.info.pop(NOTES, None)  # somebody else's
    image = _upright(image)
    if data.startswith(PNG):
        depth, kind = data[DEPTH : DEPTH + 2]
        if depth == 16:
            notes.append("16 bits a channel were reduced to 8")
            if kind == GREY_ALPHA:  # which Pillow opens as colours
                image = image.convert("LA")
        if code_points := _code_points(data):
            image.info["cicp"] = code_points
    before = image.info
    image = colours(eight_bits(image))
    profile = None
    if any(note.startswith(CONVERTED) for note in notes_of(image)) and "cicp" not in before:
        profile = rgb_profile(before.get("icc_profile"))
    notes = (*notes, *notes_of(image))
    opaque = opacity_of(image) is None
    if opaque:
        image.info = {}  # a colour that is transparent, and does not occur
    image = image.convert("RGB" if opaque else "RGBA")
    image.info = {PROFILE: base64.b64encode(profile).decode()} if profile else {}
    return noted(image, *notes)


def _upright(image: Image) -> Image:
    from PIL import ImageOps

    with contextlib.suppress(Exception):  # a broken EXIF block turns nothing
        return ImageOps.exif_transpose(image)
    return image


def _code_points(png: bytes) -> bytes | None:
    """What the cICP chunk of a PNG holds, which Pillow does not read."""
    at = len(PNG)
    while at + 8 <= len(png):
        length, kind = struct.unpack_from(">I4s", png, at)
        if kind == b"cICP":
            return png[at + 8 : at + 8 + length]
        if kind == b"IDAT":
            break
        at += length + 12
    return None


def _most_colourful(image: Image) -> int:
    """The largest difference between the channels of a pixel that is seen, 0 for greys."""
    from PIL import ImageChops

    red, green, blue = over(image, "black").split()
    return max(ImageChops.difference(*pair).getextrema()[1]
               for pair in ((red, green), (green, blue)))
