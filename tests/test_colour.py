"""Foreign pictures in other colours: they come in as sRGB, or a note says why not."""

import io
import struct

import numpy as np
import pytest
from apptest import html, page
from PIL import Image, ImageCms
from profiles import SRGB, cmyk_profile, grey_profile, rgb_profile
from test_pictures_in import chunk, encoded, png

from dashboard import state
from dashboard.inpaint.draft import Draft
from pipelines import RunRequest
from pipelines.hub.pictures import small_picture
from pipelines.inpainting.pictures_in import open_mask, open_picture
from pipelines.pixels import NOTES, PROFILE, notes_of

COLOUR = (200, 60, 40)
# What these values of other spaces are in sRGB: gamma 2.2 with the primaries of P3, and others.
IN_P3, IN_DISPLAY_P3, IN_ADOBE = (219, 37, 13), (217, 42, 23), (232, 57, 34)


def plain(mode="RGB", colour=COLOUR):
    return Image.new(mode, (8, 8), colour)


def with_chunk(kind, data, image=None):
    """A PNG with one more chunk behind its header."""
    whole = encoded(image or plain())
    return whole[:33] + chunk(kind, data) + whole[33:]


def chromaticities(*values):
    return struct.pack(">8I", *(round(value * 100_000) for value in values))


P3_PRIMARIES = chromaticities(0.3127, 0.329, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06)


def adobe_exif():
    exif = Image.Exif()
    exif[0x8769] = {0xA001: 65535, 0xA005: {1: "R03"}}
    return exif


CONVERTED = {
    "wide gamut, version 2": (encoded(plain(), icc_profile=rgb_profile()), IN_P3, "from Wide"),
    "jpeg": (encoded(plain(), "JPEG", quality=100, subsampling=0, icc_profile=rgb_profile()),
             IN_P3, "from Wide"),
    "webp": (encoded(plain(), "WEBP", lossless=True, icc_profile=rgb_profile()), IN_P3,
             "from Wide"),
    "palette": (encoded(plain().quantize(2), icc_profile=rgb_profile()), IN_P3, "from Wide"),
    "grey jpeg": (encoded(plain("L", 128), "JPEG", quality=100, icc_profile=grey_profile()),
                  (188,) * 3, "from Linear grey"),
    "grey png of 16 bits": (encoded(Image.fromarray(np.full((8, 8), 128 * 257, np.uint16)),
                                    icc_profile=grey_profile()), (188,) * 3, "from Linear grey"),
    "cmyk jpeg": (encoded(plain("CMYK", (255, 0, 0, 0)), "JPEG", quality=100,
                          icc_profile=cmyk_profile()), (207,) * 3, "from Grey ink"),
    "code points of Display P3": (with_chunk(b"cICP", bytes((12, 13, 0, 1))), IN_DISPLAY_P3,
                                  "cICP 12/13"),
    "primaries": (with_chunk(b"cHRM", P3_PRIMARIES), IN_DISPLAY_P3, "gamma and primaries"),
    "linear": (with_chunk(b"gAMA", struct.pack(">I", 100_000), plain("L", 128)), (188,) * 3,
               "gamma and primaries"),
    "Adobe RGB by Exif": (encoded(plain(), "JPEG", quality=100, subsampling=0, exif=adobe_exif()),
                          IN_ADOBE, "Adobe RGB"),
}


@pytest.mark.parametrize("kind", CONVERTED)
def test_other_colour_spaces_become_srgb_and_it_is_said(kind, engine):
    data, expected, note = CONVERTED[kind]
    image = open_picture(data)
    assert image.mode == "RGB" and set(image.info) - {PROFILE} == {NOTES}
    assert (PROFILE in image.info) == ("from Wide" in note and "cICP" not in note)
    assert np.abs(np.asarray(image).astype(int) - expected).max() <= 3, image.getpixel((4, 4))
    (told,) = [text for text in notes_of(image) if "16 bits" not in text]
    assert "colours were converted" in told and note in told
    sha = engine.pictures.put(image)
    with Image.open(engine.pictures.path(sha)) as stored:
        assert "icc_profile" not in stored.info
        assert stored.getpixel((4, 4)) == image.getpixel((4, 4))
    assert engine.pictures.notes(sha) == notes_of(engine.pictures.get(sha)) == notes_of(image)


SRGB_PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
UNCHANGED = {
    "sRGB": encoded(plain(), icc_profile=SRGB_PROFILE),
    "its chunk": with_chunk(b"sRGB", b"\0"),
    "its gamma": with_chunk(b"gAMA", struct.pack(">I", 45455)),
    "its code points": with_chunk(b"cICP", bytes((1, 13, 0, 1))),
    "its primaries": with_chunk(b"cHRM", chromaticities(0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15,
                                                        0.06)),
}


@pytest.mark.parametrize("kind", UNCHANGED)
def test_what_is_srgb_already_stays_as_it_is(kind):
    image = open_picture(UNCHANGED[kind])
    assert image.getpixel((4, 4)) == COLOUR and image.info == {}


TAKEN = {
    "noise": (encoded(plain(), icc_profile=b"\x01\x02" * 300), "profile is broken"),
    "cut": (encoded(plain(), icc_profile=rgb_profile()[:200]), "profile is broken"),
    "without curves": (encoded(plain(), icc_profile=rgb_profile()[:200].ljust(600, b"\0")),
                       "taken as sRGB"),
    "broken stream": (with_chunk(b"iCCP", b"x\0\0not zlib"), "profile is broken"),
    "for grey": (encoded(plain(), icc_profile=grey_profile()), "is for GRAY, not RGB"),
    "for inks": (encoded(plain(), icc_profile=cmyk_profile()), "is for CMYK, not RGB"),
    "PQ": (with_chunk(b"cICP", bytes((9, 16, 0, 1))), "cICP 9/16 (HDR, PQ)"),
    "short code points": (with_chunk(b"cICP", b"\x09"), "cICP 9/0"),
    "no gamma": (with_chunk(b"gAMA", bytes(4)), "are broken"),
    "no primaries": (with_chunk(b"cHRM", bytes(32)), "are broken"),
}


@pytest.mark.parametrize("kind", TAKEN)
def test_colours_that_cannot_be_read_are_taken_as_srgb_and_it_is_said(kind):
    data, note = TAKEN[kind]
    image = open_picture(data)
    assert image.getpixel((4, 4)) == COLOUR
    (told,) = notes_of(image)
    assert note in told and "taken as sRGB" in told


def test_other_things_that_are_lost_are_said():
    cmyk = encoded(plain("CMYK", (0, 200, 200, 0)), "JPEG")
    assert "approximate" in notes_of(open_picture(cmyk))[0]
    deep = png(2, 1, b"\0" + struct.pack(">6H", *[51_400] * 6), depth=16)
    assert notes_of(open_picture(deep)) == ("16 bits a channel were reduced to 8",)
    two = encoded(plain(), save_all=True, append_images=[Image.new("RGB", (8, 8))])
    for data in (two, encoded(plain(), "WEBP", save_all=True, lossless=True,
                              append_images=[Image.new("RGB", (8, 8))])):
        image = open_picture(data)
        assert notes_of(image) == ("the first of 2 frames was taken",)
        assert image.getpixel((4, 4)) == COLOUR
    forged = with_chunk(b"iTXt", b"contact_sheet_notes\0\0\0\0\0is a forgery")
    assert notes_of(open_picture(forged)) == ()


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_a_profile_leaves_alpha_alone(mode):
    image = plain("RGBA", (*COLOUR, 90)).convert(mode)
    profile = grey_profile() if mode == "LA" else rgb_profile()
    converted = open_picture(encoded(image, icc_profile=profile))
    assert converted.mode == "RGBA" and converted.getpixel((4, 4))[3] == 90
    assert converted.getpixel((4, 4))[:3] != image.convert("RGB").getpixel((4, 4))


def test_one_colour_of_16_bits_may_be_transparent():
    rows = struct.pack(">4H", 1000, 30_000, 30_001, 65_535)
    grey = png(4, 1, b"\0" + rows, depth=16, colour=0)
    grey = grey[:33] + chunk(b"tRNS", struct.pack(">H", 30_000)) + grey[33:]
    assert np.asarray(open_picture(grey))[0, :, 3].tolist() == [255, 0, 255, 255]
    colour = png(2, 1, b"\0" + struct.pack(">6H", 51_400, 0, 0, 0, 51_400, 0), depth=16)
    colour = colour[:33] + chunk(b"tRNS", struct.pack(">3H", 51_400, 0, 0)) + colour[33:]
    assert np.asarray(open_picture(colour))[0, :, 3].tolist() == [0, 255]


def test_a_picture_with_a_profile_is_converted_by_the_store_too(engine):
    image = Image.open(io.BytesIO(encoded(plain(), icc_profile=rgb_profile())))
    stored = engine.pictures.get(engine.pictures.put(image))
    assert np.abs(np.subtract(stored.getpixel((4, 4)), IN_P3)).max() <= 2
    assert image.info["icc_profile"], "the caller's picture is as it was"


def test_the_values_of_a_mask_are_not_colours():
    for profile in (grey_profile(), rgb_profile(SRGB, 1.0)):
        mode = "L" if profile == grey_profile() else "RGB"
        mask = open_mask(encoded(Image.new("L", (8, 8), 128).convert(mode), icc_profile=profile))
        assert mask.getpixel((4, 4)) == 128


def test_pictures_of_the_hub_are_shown_in_their_colours():
    wide = encoded(plain(), icc_profile=rgb_profile())
    with Image.open(io.BytesIO(small_picture(wide))) as small:
        assert np.abs(np.subtract(small.getpixel((4, 4)), IN_P3)).max() <= 2
    assert small_picture(encoded(plain(), "GIF")) and small_picture(b"GIF89a") is None


def test_pages_say_what_was_changed_of_a_picture(home):
    wide = open_picture(encoded(plain(), icc_profile=rgb_profile()))
    sha = state.engine().pictures.put(wide)
    told = "This picture: its colours were converted from Wide to sRGB."
    assert told in html(page("compare", {"compare.task": "image-to-image", "compare.image": sha}))
    state._drafts()["one"] = Draft(sha, 8, 8, [(sha, "upload", None)])
    assert told in html(page("inpaint", draft="one"))


def test_a_run_says_what_was_changed_of_its_picture(engine):
    """Its stored input and its result are in one colour space, and 0 changed looks it, too."""
    wide = plain().resize((64, 64))
    image = engine.pictures.put(open_picture(encoded(wide, icc_profile=rgb_profile())))
    mask = Image.new("L", (64, 64))
    mask.paste(255, (0, 0, 32, 64))
    base = RunRequest(prompt="a red car", num_inference_steps=1, task="image-to-image", image=image)
    inpainting = base.changed(task="inpainting", mask_image=engine.pictures.put(mask))
    for request in (base, inpainting):
        run = engine.run(request)
        assert run.status == "ok", run.error
        assert "image: its colours were converted from Wide to sRGB" in run.notes
    assert run.changed_unmasked_pixels == 0
    kept = engine.pictures.get(run.image_sha256).getpixel((60, 9))
    assert np.abs(np.subtract(kept, IN_P3)).max() <= 2
