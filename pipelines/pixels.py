"""Pixels as this program works on them: 8 bits a channel, in RGB, with or without transparency.

What is changed to make them so is noted in the picture itself: the notes travel in its PNG, and
every run that starts from it repeats them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

NOTES = "contact_sheet_notes"  # in a picture's info, and the PNG's text chunk: a line for each
# The same for the ICC profile, in base64, that its colours were in before they became sRGB.
PROFILE = "contact_sheet_profile"


def notes_of(image: Image) -> tuple[str, ...]:
    """What was changed of a picture on its way in."""
    return tuple(str(image.info.get(NOTES, "")).splitlines())


def noted(image: Image, *notes: str) -> Image:
    """The picture, with notes behind those that it has."""
    every = dict.fromkeys([*notes_of(image), *notes])
    image.info = {**image.info, NOTES: "\n".join(every)} if every else image.info
    return image


def input_notes(images: Mapping[str, Image]) -> tuple[str, ...]:
    """The notes of several pictures, each with the name of its field in front."""
    return tuple(f"{name}: {note}" for name, image in images.items() for note in notes_of(image))


def eight_bits(image: Image) -> Image:
    """The picture with 8 bits a channel; grey of 16 bits, which Pillow would clip, is scaled."""
    import numpy as np
    from PIL import Image

    clear = image.info.get("transparency")
    if image.mode.startswith(("I", "F")):
        values = np.asarray(image)
        grey = Image.fromarray((values.clip(0, 65535).astype(np.uint32) // 257).astype(np.uint8))
        if isinstance(clear, int):  # the one grey that is transparent, of 16 bits
            grey.putalpha(Image.fromarray(np.where(values == clear, 0, 255).astype(np.uint8)))
        grey.info = {key: value for key, value in image.info.items() if key != "transparency"}
        return grey
    if isinstance(clear, tuple) and max(clear) > 255:  # a colour of 16 bits
        image.info = {**image.info, "transparency": tuple(value >> 8 for value in clear)}
    return image


def opacity_of(image: Image) -> Image | None:
    """How opaque each pixel is, in 8-bit grey; None where all are."""
    if not image.has_transparency_data:
        return None
    opacity = image.convert("RGBA").getchannel("A")
    opacity.info = {}
    return opacity if opacity.getextrema()[0] < 255 else None


def over(image: Image, colour: str) -> Image:
    """The picture in RGB; what is transparent shows `colour`."""
    image = eight_bits(image)
    if not image.has_transparency_data:
        return image.convert("RGB")
    from PIL import Image

    ground = Image.new("RGBA", image.size, colour)
    shown = Image.alpha_composite(ground, image.convert("RGBA")).convert("RGB")
    shown.info = {NOTES: image.info[NOTES]} if NOTES in image.info else {}
    return shown


def flat(image: Image) -> Image:
    """The picture in RGB; what is transparent shows white, as viewers show it, and is noted."""
    shown = over(image, "white")
    return noted(shown, "transparent parts were filled with white") if opacity_of(image) else shown


def mask_of(image: Image) -> Image:
    """A picture as a mask in 8-bit grey, by the one rule of all masks: white is repainted, black
    and what is transparent is kept. White strokes on a transparent layer are the mask."""
    image = eight_bits(image)
    return (over(image, "black") if image.has_transparency_data else image).convert("L")
