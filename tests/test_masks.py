import numpy as np
import pytest
from PIL import Image

from pipelines.errors import RequestError
from pipelines.inpainting import masks


def disc(side=64, radius=12):
    y, x = np.mgrid[:side, :side] - side // 2
    return np.where(x**2 + y**2 <= radius**2, 255, 0).astype(np.uint8)


def distance_outside(mask):
    from scipy.ndimage import distance_transform_edt

    return distance_transform_edt(mask == 0)


def test_combining_is_that_of_sets():
    left, top = np.zeros((2, 8, 8), np.uint8)
    left[:, :4], top[:4] = 255, 255
    counts = {how: int((masks.combine(left, top, how) > 0).sum())
              for how in ("replace", "add", "subtract", "intersect")}
    assert counts == {"replace": 32, "add": 48, "subtract": 16, "intersect": 16}
    assert (masks.combine(left, top, "subtract")[4:, :4] == 255).all()
    assert (masks.invert(left)[:, 4:] == 255).all() and not masks.invert(left)[:, :4].any()
    with pytest.raises(RequestError, match="4 x 8 px, accepted 8 x 8 px"):
        masks.combine(left, left[:, :4], "add")
    with pytest.raises(RequestError, match="xor"):
        masks.combine(left, top, "xor")


@pytest.mark.parametrize("pixels", [1, 2, 5, 9])
def test_growing_and_shrinking_move_the_edge_by_that_many_pixels(pixels):
    mask = disc()
    grown, shrunk = masks.grow(mask, pixels), masks.grow(mask, -pixels)
    away = distance_outside(mask)
    assert (grown[away <= pixels * 0.9] == 255).all()
    assert not grown[away > pixels * 1.15 + 0.5].any()
    deep = distance_outside(255 - mask)
    assert not shrunk[(deep > 0) & (deep <= pixels * 0.9)].any()
    assert (shrunk[deep > pixels * 1.15 + 0.5] == 255).all()
    assert masks.grow(np.full((8, 8), 255, np.uint8), -pixels).all(), "no edge at the picture's rim"


@pytest.mark.parametrize("pixels", [0, 1, 2, 3, 8, 20])
def test_a_feathered_mask_stays_white_inside_and_ends_after_its_rim(pixels):
    mask = disc(96)
    soft = masks.feather(mask, pixels)
    away = distance_outside(mask)
    assert (soft[mask == 255] == 255).all()
    assert not soft[away > pixels * 1.2 + 0.5].any()
    if pixels > 1:
        assert (soft[(away > 0) & (away <= pixels * 0.4)] > 128).all()
        assert ((soft > 0) & (soft < 255)).any()


def test_share_and_box():
    mask = masks.empty(40, 20)
    assert masks.bounding_box(mask) is None and masks.share(mask) == 0
    mask[5:10, 30:40] = 1
    assert masks.bounding_box(mask) == (30, 5, 40, 10)
    assert masks.bounding_box(mask, 8) == (22, 0, 40, 18)
    assert masks.share(mask) == 50 / 800


def test_the_last_stroke_wins():
    """Red adds, blue takes away, each half transparent as the canvas draws them."""
    strokes = np.zeros((20, 20, 4), np.uint8)
    strokes[:, :10] = (230, 40, 40, 140)
    strokes[:5, :10] = (90, 40, 180, 200)  # blue over red: mixed, but bluer
    add, subtract = masks.from_strokes(strokes, 10, 10)
    assert (add[4:, :4] == 255).all() and not add[:2].any() and not add[:, 6:].any()
    assert (subtract[:2, :4] == 255).all() and not subtract[4:].any()


def test_an_overlay_tints_what_is_repainted_only():
    picture = Image.new("RGB", (32, 32), (0, 90, 0))
    mask = disc(32, 8)
    shown = np.asarray(masks.overlay(picture, mask))
    assert (shown[mask == 0] == (0, 90, 0)).all()
    assert (shown[mask == 255][:, 0] > 100).all()


@pytest.mark.parametrize("fill", masks.FILLS)
def test_outpainting_keeps_the_picture_and_masks_the_room(fill):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    picture, mask = masks.extend(Image.fromarray(pixels), left=9, top=2, right=0, bottom=30,
                                 fill=fill)
    assert picture.size == (16, 37)
    result = np.asarray(picture)
    assert (result[2:7, 9:16] == pixels).all()
    assert not mask[2:7, 9:16].any()
    assert (mask > 0).sum() == 16 * 37 - 35
    if fill == "edge":
        assert (result[4, :9] == pixels[2, 0]).all()
    if fill == "grey":
        assert (result[mask > 0] == 127).all()


def test_outpainting_beyond_reason_is_refused():
    picture = Image.new("RGB", (100, 100))
    with pytest.raises(RequestError, match="below 0"):
        masks.extend(picture, left=-1)
    with pytest.raises(RequestError, match="20100 x 100 px"):
        masks.extend(picture, right=20_000)
    with pytest.raises(RequestError, match="accepted edge, reflect"):
        masks.extend(picture, right=1, fill="white")
