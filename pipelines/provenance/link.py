"""A recipe as part of an address: JSON, deflated, in the letters that addresses take."""

from __future__ import annotations

import base64
import json
import zlib
from typing import Any

from pipelines.comparison import Comparison
from pipelines.errors import RequestError
from pipelines.request import DEFAULTS

LONGEST = 8_000  # characters that every browser and server takes
MAX_BYTES = 2**20  # of the JSON


def write_link(comparison: Comparison) -> str | None:
    """The text behind `?recipe=`; None where it would be longer than addresses may be."""
    base = {name: value for name, value in comparison.base.model_dump(mode="json").items()
            if getattr(comparison.base, name) != DEFAULTS[name]}
    record: dict[str, Any] = {"base": base, "axes": [axis.as_dict() for axis in comparison.axes]}
    if comparison.skip:
        record["skip"] = list(comparison.skip)
    data = zlib.compress(json.dumps(record, ensure_ascii=False).encode(), 9)
    text = base64.urlsafe_b64encode(data).decode().rstrip("=")
    return text if len(text) <= LONGEST else None


def read_link(text: str) -> bytes:
    """The recipe's JSON; RequestError where a text is no such, or too long."""
    try:
        if len(text) > 2 * LONGEST:
            raise ValueError(f"it has {len(text)} characters")
        inflate = zlib.decompressobj()
        packed = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        data = inflate.decompress(packed, MAX_BYTES)
        if not inflate.eof:
            raise ValueError("it is cut, or too large")
        return data
    except (ValueError, zlib.error) as error:
        raise RequestError(f"recipe: the address holds none that can be read ({error}); accepted "
                           "a link that Contact Sheet made") from error
