"""The texts that a picture's file carries beside its pixels: PNG's text chunks, Exif, XMP.

Files come from anywhere. Everything is bounded: a file, a text, the chunks of a PNG; pixels are
never decoded. Pillow reads no text of a PNG above 1 MB, and none behind the pixels before it has
decoded them, so PNG chunks are read here.
"""

from __future__ import annotations

import contextlib
import io
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from pipelines.errors import RequestError

PNG = b"\x89PNG\r\n\x1a\n"
MAX_BYTES = 2**29  # of a file: a page with all its pictures
MAX_TEXT = 2**24  # bytes of one text
MAX_TEXTS = 2**26  # bytes of all texts
MAX_CHUNKS = 1_000_000
FORMATS = ("JPEG", "WEBP", "AVIF")
COMMENT_MARK = 8  # bytes in front of an Exif comment that say how it is written
BYTE_ORDER_MARKS = {b"\xfe\xff": "utf-16-be", b"\xff\xfe": "utf-16-le", b"\xef\xbb\xbf": "utf-8"}
EXIF_IFD, USER_COMMENT, PNG_EXIF = 0x8769, 0x9286, b"eXIf"
XMP = "XML:com.adobe.xmp"  # what PNG calls it


@dataclass
class Blocks:
    """What a picture's file says: `texts` by their key, as PNG has them; `comment`, Exif's; `tags`,
    the other texts of Exif by number; `xmp`; `problems`, what was damaged and is left out."""

    texts: dict[str, str] = field(default_factory=dict)
    comment: str = ""
    tags: dict[int, str] = field(default_factory=dict)
    xmp: str = ""
    problems: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.texts or self.comment or self.tags or self.xmp)


def open_file(source: Path | bytes, name: str) -> BinaryIO:
    """A file or its bytes, to be read; RequestError where it is none, or too large."""
    if isinstance(source, bytes):
        size, file = len(source), io.BytesIO(source)
    else:
        try:
            if not source.is_file():
                missing = "is no file" if source.exists() else "does not exist"
                raise RequestError(f"{name}: {source} {missing}")
            size, file = source.stat().st_size, source.open("rb")
        except (OSError, ValueError) as error:
            raise RequestError(f"{name}: {source} cannot be read: {error}") from error
    if size > MAX_BYTES:
        file.close()
        raise RequestError(f"{name}: {title(source)} has {size / 2**20:.0f} MB, accepted up to "
                           f"{MAX_BYTES // 2**20} MB")
    return file


def title(source: Path | bytes) -> str:
    """What to call a file in a message."""
    return str(source) if isinstance(source, Path) else "this file"


def read_blocks(file: BinaryIO) -> Blocks | None:
    """The texts of a PNG, JPEG, WebP or AVIF; None for a file of another kind. Raises RequestError
    where a bound is exceeded."""
    file.seek(0)
    if file.read(len(PNG)) == PNG:
        return _png_blocks(file)
    return _pillow_blocks(file)


def _png_blocks(file: BinaryIO) -> Blocks:
    blocks, exif, room = Blocks(), b"", MAX_TEXTS
    for kind, length in _chunks(file):
        if kind not in (b"tEXt", b"zTXt", b"iTXt", PNG_EXIF):
            continue
        if length > MAX_TEXT:
            raise RequestError(f"its text has {length} bytes, accepted up to {MAX_TEXT}")
        data = file.read(length)
        if kind == PNG_EXIF:
            exif = data
            continue
        try:
            key, text = _text(kind, data)
        except (ValueError, zlib.error) as error:
            blocks.problems.append(f"a damaged text is left out: {error}")
            continue
        room -= len(text)
        if room < 0:
            raise RequestError(f"its texts have more than {MAX_TEXTS} bytes")
        blocks.texts.setdefault(key, text)
    blocks.xmp = blocks.texts.get(XMP, "")
    if exif:
        _read_exif(blocks, exif)
    return blocks


def _chunks(file: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """Kind and length of each chunk, the file at its data; the end of a cut file ends them."""
    at = len(PNG)
    for _ in range(MAX_CHUNKS):
        file.seek(at)
        head = file.read(8)
        if len(head) < 8:
            return
        length, kind = struct.unpack(">I4s", head)
        yield kind, length
        if kind == b"IEND":
            return
        at += length + 12
    raise RequestError(f"it has more than {MAX_CHUNKS} chunks")


def _text(kind: bytes, data: bytes) -> tuple[str, str]:
    """Key and text of a chunk; ValueError or zlib.error where it is damaged."""
    key, zero, rest = data.partition(b"\0")
    if not zero or not 1 <= len(key) <= 79:
        raise ValueError("it has no key")
    name = key.decode("latin-1")
    if kind == b"tEXt":
        return name, _latin_or_utf8(rest)
    if kind == b"zTXt":
        return name, _latin_or_utf8(_inflated(rest[1:]))
    packed, rest = rest[:1] == b"\1", rest[2:]
    _, _, rest = rest.partition(b"\0")  # the language, then the key in that language
    _, _, rest = rest.partition(b"\0")
    return name, (_inflated(rest) if packed else rest).decode("utf-8")


def _inflated(data: bytes) -> bytes:
    text = zlib.decompressobj().decompress(data, MAX_TEXT + 1)
    if len(text) > MAX_TEXT:
        raise RequestError(f"its text has more than {MAX_TEXT} bytes")
    return text


def _latin_or_utf8(data: bytes) -> str:
    """The standard says Latin-1; several programs write UTF-8 all the same."""
    with contextlib.suppress(UnicodeDecodeError):
        return data.decode("utf-8")
    return data.decode("latin-1")


def _pillow_blocks(file: BinaryIO) -> Blocks | None:
    import warnings

    from PIL import Image

    blocks = Blocks()
    file.seek(0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(file, formats=FORMATS) as image:
                exif, xmp = image.info.get("exif", b""), image.info.get("xmp", b"")
    except Image.UnidentifiedImageError:
        return None
    except Image.DecompressionBombError:
        raise RequestError("it has more pixels than a picture may have") from None
    except Exception as error:  # a broken file may raise anything
        raise RequestError(f"it is no picture that can be read ({error})") from error
    blocks.xmp = xmp.decode("utf-8", "replace") if isinstance(xmp, bytes) else str(xmp)
    if exif:
        _read_exif(blocks, exif)
    return blocks


def _read_exif(blocks: Blocks, data: bytes) -> None:
    import warnings

    from PIL import Image

    try:
        exif = Image.Exif()
        with warnings.catch_warnings():  # of broken entries, which are left out
            warnings.simplefilter("ignore")
            exif.load(data)
            exif.get_ifd(EXIF_IFD)
        comment = exif.get_ifd(EXIF_IFD).get(USER_COMMENT, b"")
        if isinstance(comment, str):
            comment = comment.encode("utf-8", "surrogateescape")
        blocks.comment = comment_text(bytes(comment)[:MAX_TEXT])
        for number, value in exif.items():
            if isinstance(value, bytes):
                value = value.decode("utf-8", "replace")
            if isinstance(value, str):
                # Exif's texts are ASCII; several programs write UTF-8, which Pillow takes apart.
                with contextlib.suppress(UnicodeError):
                    value = value.encode("latin-1").decode("utf-8")
                blocks.tags[number] = value.rstrip("\0")[:MAX_TEXT]
    except Exception as error:  # a broken block may raise anything
        blocks.problems.append(f"its Exif block is damaged and left out ({error})")


def comment_text(data: bytes) -> str:
    """Exif's UserComment as text: eight bytes say how it is written, and are often wrong. Behind
    UNICODE stands UTF-16 of either order, or UTF-8."""
    mark, rest = data[:COMMENT_MARK], data[COMMENT_MARK:]
    if mark != b"UNICODE\0":
        marked = mark in (b"ASCII\0\0\0", b"JIS\0\0\0\0\0", b"\0" * COMMENT_MARK)
        return _latin_or_utf8(rest if marked else data).rstrip("\0")
    # The high byte of ASCII signs is 0, which is at even places where it comes first.
    even, odd = rest[::2].count(0), rest[1::2].count(0)
    if even == odd:
        for byte_order_mark, encoding in BYTE_ORDER_MARKS.items():
            if rest.startswith(byte_order_mark):
                return rest.removeprefix(byte_order_mark).decode(encoding, "replace")
        if not even:
            with contextlib.suppress(UnicodeDecodeError):
                return rest.decode("utf-8")
    text = rest.decode("utf-16-be" if even >= odd else "utf-16-le", "replace")
    return text.rstrip("\0").removeprefix("\ufeff")
