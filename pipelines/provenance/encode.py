"""A picture as a file: its format, and what the file says of how it was made."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from pipelines.errors import RequestError
from pipelines.pixels import flat, opacity_of
from pipelines.provenance.blocks import EXIF_IFD, USER_COMMENT, XMP
from pipelines.provenance.xmp import SourceType, write_xmp

CHUNK = "contact_sheet"
MAX_SEGMENT = 65_500  # bytes of Exif, or of XMP, that a JPEG holds


@dataclass(frozen=True)
class Format:
    """A file format of pictures; `options` are Pillow's."""

    label: str
    name: str
    mime: str
    options: Mapping[str, Any] = field(default_factory=dict)


# WebP is lossless here; the other two are not.
FORMATS = {
    ".png": Format("PNG", "PNG", "image/png"),
    ".jpg": Format("JPEG", "JPEG", "image/jpeg", {"quality": 95, "subsampling": "4:4:4"}),
    ".webp": Format("WebP, lossless", "WEBP", "image/webp", {"lossless": True, "exact": True}),
    ".avif": Format("AVIF", "AVIF", "image/avif", {"quality": 90, "subsampling": "4:4:4"}),
}
SUFFIXES = {**FORMATS, ".jpeg": FORMATS[".jpg"]}


@dataclass(frozen=True)
class Truth:
    """What a file says of its picture: this program's record as JSON values, the text that A1111
    would write, and IPTC's kind of source."""

    record: Mapping[str, Any]
    parameters: str = ""
    source_type: SourceType = "trainedAlgorithmicMedia"


def check_suffix(path: Path) -> None:
    """Raise RequestError where the name of a picture does not end in a format's suffix."""
    if path.suffix.lower() not in SUFFIXES:
        raise RequestError(f"output: received {path}, accepted a name that ends in "
                           f"{', '.join(SUFFIXES)}")


def encode(
    image: Image.Image, suffix: str, truth: Truth | None = None, profile: bytes | None = None
) -> tuple[bytes, tuple[str, ...]]:
    """The bytes of a file, and notes on what its format cannot hold. `profile` is the ICC profile
    that the picture's colours are in, None for sRGB."""
    kind, notes = SUFFIXES[suffix.lower()], []
    options: dict[str, Any] = dict(kind.options)
    if kind.name == "JPEG":
        if opacity_of(image):
            notes.append("JPEG has no transparency: it was filled with white")
        image = flat(image)
    if truth and kind.name == "PNG":
        options["pnginfo"] = _chunks(truth)
    elif truth:
        options |= {"exif": _exif(truth.parameters),
                    "xmp": write_xmp(truth.source_type, _json(truth.record)).encode()}
        for name, said in (("exif", "the text of the parameters"), ("xmp", "the record")):
            if kind.name == "JPEG" and len(options[name]) > MAX_SEGMENT:
                notes.append(f"{said} has {len(options[name]):,} bytes and is left out: a JPEG "
                             f"holds {MAX_SEGMENT:,}, the other formats hold it")
                options[name] = write_xmp(truth.source_type).encode() if name == "xmp" else b""
    buffer = io.BytesIO()
    image.save(buffer, kind.name, icc_profile=profile, **options)
    return buffer.getvalue(), tuple(notes)


def _json(record: Mapping[str, Any]) -> str:
    return json.dumps(record, ensure_ascii=False)


def _chunks(truth: Truth) -> PngInfo:
    info = PngInfo()
    info.add_itxt(CHUNK, _json(truth.record))
    if truth.parameters:
        add = info.add_text if truth.parameters.isascii() else info.add_itxt
        add("parameters", truth.parameters)
    info.add_itxt(XMP, write_xmp(truth.source_type))
    return info


def _exif(parameters: str) -> bytes:
    """Exif with the text as its comment, in UTF-16 with the high byte first, as A1111 writes it."""
    exif = Image.Exif()
    if parameters:
        exif.get_ifd(EXIF_IFD)[USER_COMMENT] = b"UNICODE\0" + parameters.encode("utf-16-be")
    return exif.tobytes()
