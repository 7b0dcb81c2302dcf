"""A picture's colours as sRGB, which models, screens and PNG files without a word take them to be.

A file may say otherwise in four ways. They are asked in the order that PNG's third edition gives
them: code points (cICP), an ICC profile, primaries and gamma (cHRM, gAMA), Exif's Adobe RGB.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.pixels import noted, opacity_of

if TYPE_CHECKING:
    from PIL.Image import Image

SAME = 2  # of 255: colours that differ by no more are the rounding of sRGB itself
LARGEST_PROFILE = 2**19  # bytes; Pillow reads texts of up to 1 MB, and this one is in base64
BAND = 256  # rows that are converted at once
# What a picture's info says of its colours; `cicp` is put there by pictures_in.py.
KEYS = ("cicp", "icc_profile", "srgb", "gamma", "chromaticity")

# x and y of white, red, green and blue, as a cHRM chunk has them.
D65 = (0.3127, 0.3290)
BT709 = (*D65, 0.640, 0.330, 0.300, 0.600, 0.150, 0.060)  # sRGB's
ADOBE_RGB = (*D65, 0.640, 0.330, 0.210, 0.710, 0.150, 0.060)
# ITU-T H.273, what cICP's first two bytes stand for.
PRIMARIES = {1: BT709, 9: (*D65, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046),
             12: (*D65, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060)}
SRGB_CURVE = 0.0  # in the place of an exponent
EXPONENTS = {1: SRGB_CURVE, 4: 2.2, 6: SRGB_CURVE, 8: 1.0, 13: SRGB_CURVE, 14: SRGB_CURVE}
HDR = {16: "HDR, PQ", 18: "HDR, HLG"}
BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367],
                     [0.0389, -0.0685, 1.0296]])
TAKEN = "its colours were taken as sRGB"
CONVERTED = "its colours were converted from"

Convert = Callable[["Image"], "Image"]  # opaque pixels of one mode -> sRGB


def to_srgb(image: Image) -> Image:
    """A picture of 8 bits with its colours in sRGB, a note of what was changed, and no word left
    of what they were; its transparency stays."""
    result, note = _converted(image)
    result.info = {key: value for key, value in result.info.items() if key not in KEYS}
    return noted(result, *filter(None, [note]))


def rgb_profile(data: Any) -> bytes | None:
    """An ICC profile that pictures in RGB can be written with again; None for others, and for those
    too large to be kept."""
    from PIL import ImageCms

    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(data))
        of_rgb = profile.profile.xcolor_space.strip() == "RGB"
        ImageCms.buildTransform(ImageCms.createProfile("sRGB"), profile, "RGB", "RGB")
    except Exception:  # anything may stand there, or it has no tables for this way
        return None
    return data if of_rgb and len(data) <= LARGEST_PROFILE else None


def from_srgb(image: Image, data: bytes) -> Image:
    """A picture in sRGB, in the colours of a profile that `rgb_profile` let through; its
    transparency stays."""
    from PIL import ImageCms

    transform = ImageCms.buildTransform(
        ImageCms.createProfile("sRGB"), ImageCms.ImageCmsProfile(io.BytesIO(data)), "RGB", "RGB",
        ImageCms.Intent.RELATIVE_COLORIMETRIC, ImageCms.Flags.BLACKPOINTCOMPENSATION)
    result = transform.apply(image.convert("RGB"))
    if opacity := opacity_of(image):
        result.putalpha(opacity)
    result.info = {}
    return result


def _converted(image: Image) -> tuple[Image, str]:
    info = image.info
    if "cicp" in info:
        return _by_code_points(image, info["cicp"])
    if "icc_profile" in info:
        return _by_profile(image, info["icc_profile"])
    if image.mode == "CMYK":
        return image, "CMYK without a colour profile: its colours are approximate"
    if "srgb" in info:
        return image, ""
    if "gamma" in info or "chromaticity" in info:
        gamma = info.get("gamma", 1 / 2.2)
        # The usual value means sRGB, whose own curve it stands for.
        exponent = SRGB_CURVE if abs(gamma - 1 / 2.2) < 0.01 else 1 / gamma if gamma > 0 else -1
        return _by_primaries(image, info.get("chromaticity", BT709), exponent,
                             "the file's gamma and primaries")
    if _is_adobe_rgb(image):
        return _by_primaries(image, ADOBE_RGB, 563 / 256, "Adobe RGB (Exif)")
    return image, ""


def _by_profile(image: Image, data: Any) -> tuple[Image, str]:
    from PIL import ImageCms

    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(data))
        space = profile.profile.xcolor_space.strip()
        text = " ".join(ImageCms.getProfileDescription(profile).split())
        name = "".join(filter(str.isprintable, text))[:80] or "without a name"
    except Exception:  # anything may stand there
        return image, f"its colour profile is broken: {TAKEN}"
    mode = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}.get(space)
    grey = image.mode in ("1", "L", "LA")
    fits = mode == image.mode if "CMYK" in (mode, image.mode) else mode == "RGB" or grey
    if mode is None or not fits:
        return image, f"its colour profile {name!r} is for {space}, not {image.mode}: {TAKEN}"
    try:
        transform = ImageCms.buildTransform(
            profile, ImageCms.createProfile("sRGB"), mode, "RGB",
            ImageCms.Intent.RELATIVE_COLORIMETRIC, ImageCms.Flags.BLACKPOINTCOMPENSATION)
    except Exception as error:  # a profile without the tables that this takes
        return image, f"its colour profile {name!r} cannot be applied ({error}): {TAKEN}"
    return _applied(image, mode, transform.apply, name)


def _by_code_points(image: Image, code_points: bytes) -> tuple[Image, str]:
    primaries, transfer, matrix, full_range = (*code_points, 0, 0, 0, 0)[:4]
    name = f"cICP {primaries}/{transfer}"
    if primaries not in PRIMARIES or transfer not in EXPONENTS or matrix or full_range != 1:
        kind = f" ({HDR[transfer]})" if transfer in HDR else ""
        return image, f"its colour space {name}{kind} is not read: {TAKEN}"
    return _by_primaries(image, PRIMARIES[primaries], EXPONENTS[transfer], name)


def _by_primaries(
    image: Image, chromaticity: tuple[float, ...], exponent: float, name: str
) -> tuple[Image, str]:
    """By primaries and the exponent that makes values linear."""
    from PIL import Image

    try:
        to_linear_srgb = np.linalg.inv(_rgb_to_xyz(BT709)) @ _rgb_to_xyz(chromaticity)
        if not (np.isfinite(to_linear_srgb).all() and 0 <= exponent < 20):
            raise ValueError
    except (ValueError, ArithmeticError, np.linalg.LinAlgError):
        return image, f"{name} are broken: {TAKEN}"
    levels = np.arange(256, dtype=np.float32) / 255
    curve = np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)
    linear = curve if exponent == SRGB_CURVE else levels**exponent

    def convert(opaque: Image) -> Image:
        pixels = np.asarray(opaque).copy()
        for top in range(0, len(pixels), BAND):
            band = pixels[top : top + BAND]
            light = (linear[band].astype(np.float32) @ to_linear_srgb.T.astype(np.float32)
                     ).clip(0, 1)
            shown = np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)
            band[:] = (shown * 255).round()
        return Image.fromarray(pixels)

    return _applied(image, "RGB", convert, name)


def _rgb_to_xyz(chromaticity: tuple[float, ...]) -> np.ndarray:
    """Linear RGB of these primaries to XYZ, its white moved to that of sRGB (Bradford)."""
    xy = np.reshape(np.array(chromaticity, float), (4, 2))
    with np.errstate(all="ignore"):
        white, *primaries = np.column_stack([xy, 1 - xy.sum(1)]) / xy[:, 1:]
    primaries = np.array(primaries).T
    to_xyz = primaries * np.linalg.solve(primaries, white)
    wanted = np.array([D65[0] / D65[1], 1, (1 - sum(D65)) / D65[1]])
    cones = (BRADFORD @ wanted) / (BRADFORD @ white)
    return np.linalg.inv(BRADFORD) @ np.diag(cones) @ BRADFORD @ to_xyz


def _applied(image: Image, mode: str, convert: Convert, name: str) -> tuple[Image, str]:
    """The picture in sRGB, or as it is where the conversion changes no colour."""
    from PIL import Image

    grid = np.arange(0, 256, 51, dtype=np.uint8)
    probe = np.stack(np.meshgrid(grid, grid, grid), -1).reshape(1, -1, 3)
    if mode == "L":
        probe = np.arange(256, dtype=np.uint8)[None, :, None].repeat(3, 2)
    if mode != "CMYK":
        after = np.asarray(convert(Image.fromarray(probe).convert(mode)))
        if np.abs(after.astype(int) - probe).max() <= SAME:
            return image, ""
    opacity = opacity_of(image)
    opaque = image if image.mode == mode else image.convert("RGBA").convert("RGB").convert(mode)
    result = convert(opaque)
    if opacity:
        result.putalpha(opacity)
    result.info = {key: value for key, value in image.info.items() if key != "transparency"}
    return result, f"{CONVERTED} {name} to sRGB"


def _is_adobe_rgb(image: Image) -> bool:
    """Whether a camera wrote so: Exif knows sRGB and, by its interoperability index, Adobe RGB."""
    from PIL.ExifTags import IFD

    try:
        exif = image.getexif()
        return (exif.get_ifd(IFD.Interop).get(1) in ("R03", b"R03")
                or exif.get_ifd(IFD.Exif).get(0xA001) == 2)
    except Exception:  # a broken block says nothing
        return False
