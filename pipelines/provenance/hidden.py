"""Texts that NovelAI, and A1111's extension of that kind, hide in a picture's lowest bits.

The lowest bits of the alpha channel, or of red, green and blue, column by column: fifteen letters
that say where and whether it is packed, the length in bits, the text. It survives where a service
removes the texts of a file, and nothing else does.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.inpainting.pictures_in import MAX_PIXELS
from pipelines.provenance.blocks import MAX_TEXT, open_file

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

FORMATS = ("PNG", "WEBP")  # those that keep every bit
MARK = 15  # bytes
GZIP = 31  # zlib's number for it


def hidden_texts(source: Path | bytes) -> dict[str, str]:
    """The hidden texts of a picture by their key, {} where there are none or they are damaged.
    RequestError where the file cannot be read."""
    from PIL import Image

    with open_file(source, "from") as file:
        try:
            with Image.open(file, formats=FORMATS) as image:
                if image.width * image.height > MAX_PIXELS or image.mode not in ("RGB", "RGBA"):
                    return {}
                text = _hidden_text(image)
        except Exception:  # a broken file may raise anything
            return {}
    if not text.startswith("{"):
        return {"parameters": text} if text else {}
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return {key: value if isinstance(value, str) else json.dumps(value)
            for key, value in values.items()}


def _hidden_text(image: Image) -> str:
    import numpy as np

    pixels = np.asarray(image).swapaxes(0, 1)
    places = {"png": pixels[..., 3], "rgb": pixels[..., :3]} if image.mode == "RGBA" else {
        "rgb": pixels}
    for name, values in places.items():
        for kind in ("info", "comp"):
            if _bytes(values, 0, MARK) == f"stealth_{name}{kind}".encode():
                length = int.from_bytes(_bytes(values, MARK, 4), "big") // 8
                if length > MAX_TEXT:
                    return ""
                data = _bytes(values, MARK + 4, length)
                if kind == "comp":
                    data = zlib.decompressobj(GZIP).decompress(data, MAX_TEXT)
                return data.decode("utf-8")
    return ""


def _bytes(values: np.ndarray, start: int, count: int) -> bytes:
    """Bytes made of the lowest bits of `values`, shape (width, height, ...)."""
    import numpy as np

    return np.packbits(values.reshape(-1)[8 * start:8 * (start + count)] & 1).tobytes()
