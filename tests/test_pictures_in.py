"""Foreign pictures: every kind is read the right way up and in the right colours, or refused."""

import io
import os
import random
import struct
import threading
import zlib

import numpy as np
import pytest
from PIL import Image, ImageDraw

from pipelines.errors import RequestError
from pipelines.inpainting.pictures_in import (
    MAX_PIXELS,
    alpha_mask,
    open_mask,
    open_picture,
    open_rgb,
)
from pipelines.pixels import notes_of

RED, BLUE = (224, 32, 32), (32, 64, 224)


def half_and_half(width=32, height=16):
    """Red on the left, blue on the right."""
    image = Image.new("RGB", (width, height), RED)
    image.paste(BLUE, (width // 2, 0, width, height))
    return image


def encoded(image, format="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, data, depth=8, colour=2):
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(data))
            + chunk(b"IEND", b""))


def sides(image):
    """Mean colour of the left and of the right third."""
    pixels = np.asarray(image.convert("RGB")).astype(int)
    third = max(1, pixels.shape[1] // 3)
    return pixels[:, :third].mean((0, 1)), pixels[:, -third:].mean((0, 1))


KINDS = {
    "png": lambda image: encoded(image),
    "palette": lambda image: encoded(image.quantize(8)),
    "jpeg": lambda image: encoded(image, "JPEG", quality=95),
    "progressive": lambda image: encoded(image, "JPEG", quality=95, progressive=True),
    "cmyk": lambda image: encoded(image.convert("CMYK"), "JPEG", quality=95),
    "webp": lambda image: encoded(image, "WEBP", lossless=True),
    "webp lossy": lambda image: encoded(image, "WEBP", quality=90),
    "animation": lambda image: encoded(
        image, "WEBP", save_all=True, append_images=[Image.new("RGB", image.size)], lossless=True),
    "opaque alpha": lambda image: encoded(image.convert("RGBA")),
    "16-bit colour": lambda image: png(
        *image.size, b"".join(b"\0" + row.astype(">u2").tobytes() for row in
                              np.asarray(image).astype(np.uint16) * 257), depth=16),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_keeps_its_size_and_colours(kind):
    image = open_picture(KINDS[kind](half_and_half()))
    assert (image.mode, image.size) == ("RGB", (32, 16))
    left, right = sides(image)
    assert np.abs(left - RED).max() < 24 and np.abs(right - BLUE).max() < 24


def test_grey_of_1_8_and_16_bits_spans_black_to_white():
    ramp = np.linspace(0, 65535, 256).astype(np.uint16)[None].repeat(4, 0)
    eight = Image.fromarray((ramp // 257).astype(np.uint8))
    for data in (encoded(Image.fromarray(ramp)), encoded(eight), encoded(eight.convert("1"))):
        pixels = np.asarray(open_picture(data))
        assert pixels.shape == (4, 256, 3)
        assert pixels[:, :8].mean() < 10 and pixels[:, -8:].mean() > 245
    assert np.abs(np.asarray(open_mask(encoded(Image.fromarray(ramp))))[0] - np.arange(256.0)
                  ).max() <= 1


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_exif_rotation_is_honoured(turn, format):
    back = {2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
            4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
            6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
            8: Image.Transpose.ROTATE_270}  # fmt: skip
    stored = half_and_half()
    if turn > 1:
        stored = stored.transpose(back[turn])
    exif = Image.Exif()
    exif[0x0112] = turn
    image = open_picture(encoded(stored, format, exif=exif))
    assert image.size == (32, 16)
    left, right = sides(image)
    assert np.abs(left - RED).max() < 40 and np.abs(right - BLUE).max() < 40


def test_transparency_becomes_a_mask_and_shows_white():
    picture = half_and_half().convert("RGBA")
    ImageDraw.Draw(picture).rectangle((0, 0, 7, 15), fill=(0, 0, 0, 0))
    for data in (encoded(picture), encoded(picture, "WEBP", lossless=True)):
        image = open_picture(data)
        mask = np.asarray(alpha_mask(image))
        assert (mask[:, :8] == 255).all() and (mask[:, 8:] == 0).all()
        assert (np.asarray(open_rgb(data))[:, :8] == 255).all()
    assert alpha_mask(open_picture(encoded(half_and_half()))) is None
    palette = encoded(half_and_half().quantize(4), transparency=0)
    assert open_picture(palette).mode == "RGBA"


def strokes(colour, ground=(0, 0, 0, 0), opacity=255):
    """A square of strokes on a layer, 32 x 16 px, the square 8 x 8."""
    layer = Image.new("RGBA", (32, 16), ground)
    layer.paste((*colour, opacity), (4, 4, 12, 12))
    return layer


def of_16_bits(image):
    """A grey picture with alpha as a PNG of 16 bits a channel."""
    values = np.asarray(image.convert("LA")).astype(np.uint16) * 257
    return png(*image.size, b"".join(b"\0" + row.astype(">u2").tobytes() for row in values),
               depth=16, colour=4)


WHITE, BLACK = (255, 255, 255), (0, 0, 0)
STROKES = strokes(WHITE)
GREY = STROKES.getchannel("A")
MASKS = {
    "RGBA": encoded(STROKES),
    "RGBA, white hidden": encoded(strokes(WHITE, (255, 255, 255, 0))),
    "LA": encoded(STROKES.convert("LA")),
    "LA of 16 bits": of_16_bits(STROKES),
    "WebP": encoded(STROKES, "WEBP", lossless=True),
    "palette": encoded(GREY.convert("1").convert("P"), transparency=0),
    "palette with alpha": encoded(STROKES.quantize(2)),
    "L with a clear grey": encoded(GREY, transparency=0),
    "1 bit with a clear black": encoded(GREY.convert("1"), transparency=0),
    "opaque L": encoded(GREY),
    "opaque RGB": encoded(GREY.convert("RGB")),
    "opaque 1 bit": encoded(GREY.convert("1")),
    "opaque 16 bits": encoded(Image.fromarray(np.asarray(GREY).astype(np.uint16) * 257)),
    "CMYK": encoded(GREY.convert("RGB").convert("CMYK"), "JPEG", quality=100, subsampling=0),
    "black and white strokes": encoded(Image.alpha_composite(
        strokes(BLACK).transpose(Image.Transpose.FLIP_LEFT_RIGHT), STROKES)),
}


@pytest.mark.parametrize("kind", MASKS)
def test_white_is_repainted_and_what_is_transparent_is_kept(kind):
    mask = open_mask(MASKS[kind])
    assert mask.mode == "L"
    # JPEG spreads an edge over its neighbours.
    assert np.abs(np.asarray(mask).astype(int) - np.asarray(GREY)).max() <= 8 * (kind == "CMYK")
    clear = not kind.startswith(("opaque", "CMYK"))
    assert ("its transparent parts are kept" in notes_of(mask)) == clear


def test_half_clear_strokes_are_greys_and_colours_count_by_their_brightness():
    assert open_mask(encoded(strokes(WHITE, opacity=128))).getpixel((8, 8)) == 128
    red = open_mask(encoded(strokes((255, 0, 0), (255, 255, 255, 255))))
    assert red.getpixel((8, 8)) == 76 and red.getpixel((20, 2)) == 255
    assert "its colours count by their brightness: white is repainted" in notes_of(red)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_black_strokes_on_a_transparent_layer_are_refused(mode):
    with pytest.raises(RequestError, match="transparent is kept, white is repainted, .* black"):
        open_mask(encoded(strokes(BLACK).convert(mode)))


def hostile():
    """Name -> bytes: broken, cut, forged and foreign files; made here, the same every time."""
    rng = random.Random(0)
    whole = {name: make(half_and_half()) for name, make in KINDS.items()}
    cases = {"empty": b"", "text": b"a red car" * 40, "html": b"<script>alert(1)</script>",
             "svg": b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>",
             "gif": encoded(half_and_half(), "GIF"), "bmp": encoded(half_and_half(), "BMP"),
             "tiff": encoded(half_and_half(), "TIFF"), "ppm": encoded(half_and_half(), "PPM"),
             "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n",
             "pickle": b"\x80\x04cos\nsystem\n(S'true'\ntR.", "zeros": bytes(4096)}
    for name, data in whole.items():
        for share in (0.02, 0.1, 0.3, 0.5, 0.8, 0.95):
            cases[f"{name} cut at {share}"] = data[: int(len(data) * share)]
        for number in range(10):
            broken = bytearray(data)
            for _ in range(1 + number):
                broken[rng.randrange(len(broken))] = rng.randrange(256)
            cases[f"{name} broken {number}"] = bytes(broken)
        cases[f"{name} with a tail"] = data + b"\0" * 999
        cases[f"{name} twice"] = data + data
    sizes = ((10**5, 10**5), (2**31 - 1, 1), (0, 5), (5, 0), (20_000, 2), (6000, 6000))
    for width, height in sizes:
        cases[f"png of {width} x {height}"] = png(width, height, b"\0" * 64)
    cases["short idat"] = png(64, 64, b"\0" * 5)
    cases["long idat"] = png(4, 4, b"\0" * 10**6)
    bomb = chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(80 * 2**20)))
    cases["text bomb"] = encoded(half_and_half())[:33] + bomb + encoded(half_and_half())[33:]
    exif = b"Exif\0\0" + b"II*\0\xff\xff\xff\xff" + bytes(range(64))
    cases["broken exif"] = encoded(half_and_half(), "JPEG", exif=exif)
    for number in range(20):
        head = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFFxxxxWEBP")[number % 3]
        cases[f"noise {number}"] = head + rng.randbytes(rng.randrange(2000))
    return cases


HOSTILE = hostile()


def test_a_hostile_corpus_neither_crashes_nor_hangs():
    """Each file gives a plain picture of bounded size or one RequestError, soon."""
    assert len(HOSTILE) >= 200
    done = []

    def work():
        for name, data in HOSTILE.items():
            try:
                image = open_picture(data, name)
            except RequestError as error:
                done.append((name, str(error)))
            else:
                assert image.mode in ("RGB", "RGBA"), name
                assert 0 < image.width * image.height <= MAX_PIXELS, name
                done.append((name, None))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(60)
    assert len(done) == len(HOSTILE), f"stopped at {list(HOSTILE)[len(done)]}"
    outcome = dict(done)
    refused = [name for name, message in done if message]
    assert all(name in message for name, message in done if message)
    assert len(refused) > 60 and len(refused) < len(HOSTILE)
    assert outcome["broken exif"] is None
    for name in ("gif", "bmp", "tiff", "svg", "eps", "pickle", "empty", "png of 100000 x 100000",
                 "png of 6000 x 6000", "png of 20000 x 2", "png cut at 0.5", "text bomb"):
        assert outcome[name], name


def test_messages_say_what_would_work():
    with pytest.raises(RequestError, match="6000 x 6000 px, accepted up to 25 million"):
        open_picture(HOSTILE["png of 6000 x 6000"])
    with pytest.raises(RequestError, match="accepted PNG, JPEG, WebP"):
        open_picture(HOSTILE["gif"])
    with pytest.raises(RequestError, match="65 MB, accepted up to 64 MB"):
        open_picture(bytes(65 * 2**20))


def test_paths_are_checked_before_they_are_opened(tmp_path):
    with pytest.raises(RequestError, match="does not exist"):
        open_picture(tmp_path / "missing.png")
    with pytest.raises(RequestError, match="is no file"):
        open_picture(tmp_path)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.png")
        with pytest.raises(RequestError, match="is no file"):
            open_picture(tmp_path / "pipe.png")


@pytest.mark.parametrize("size", [(1, 1), (513, 77), (4096, 4096)])
def test_odd_sizes_are_kept(size):
    assert open_rgb(encoded(Image.new("RGB", size, RED), compress_level=1)).size == size
