"""In-painting: at any size, by any family, with every kept pixel equal bit for bit."""

from random import Random

import numpy as np
import pytest
from PIL import Image, ImageDraw

from pipelines import Engine, RunRequest
from pipelines.errors import RequestError
from pipelines.inpainting import masks
from pipelines.inpainting.canvas import changed_unmasked_pixels, soft_mask, working_size
from pipelines.postcards.painter import paint_with_mask
from pipelines.postcards.vocabulary import Scene
from pipelines.request import TO_COME
from pipelines.schedulers import expected_evaluations

CAR = Scene("car", "red", "road", "day")


@pytest.fixture(scope="module")
def scene():
    """A painted postcard and the true mask of its car."""
    return paint_with_mask(CAR, Random(1), 64)


def request_for(engine, image, mask, **values):
    defaults = {"prompt": "a blue boat at sea", "num_inference_steps": 2, "scheduler": "ddim"}
    return RunRequest(task="inpainting", image=engine.pictures.put(image),
                      mask_image=engine.pictures.put(mask), **{**defaults, **values})


def pixels(engine, run):
    assert run.status == "ok", run.error
    return np.asarray(engine.pictures.get(run.image_sha256)).astype(int)


def assert_kept(engine, run, image, mask):
    """Bit for bit, looked at here and not only by the run itself."""
    request = RunRequest(**run.request)
    kept = soft_mask(request, masks.as_mask(mask)) == 0
    after = pixels(engine, run)
    assert (after[kept] == np.asarray(image)[kept]).all()
    assert (run.changed_unmasked_pixels, run.unmasked_pixels) == (0, int(kept.sum()))
    assert (run.width, run.height) == image.size
    return after, kept


MODES = [
    {}, {"mask_feather": 3}, {"padding_mask_crop": 0}, {"padding_mask_crop": 12, "mask_feather": 4},
    {"masked_content": "fill"}, {"differential": True}, {"differential": True, "mask_feather": 5},
    {"padding_mask_crop": 4, "masked_content": "fill", "strength": 0.6},
    {"width": 128, "height": 64}, {"guidance_scale": 1.0},
]  # fmt: skip


@pytest.mark.parametrize("values", MODES, ids=str)
def test_unmasked_pixels_are_equal_in_every_mode(engine, scene, values):
    image, mask = scene
    run = engine.run(request_for(engine, image, mask, **values))
    after, kept = assert_kept(engine, run, image, mask)
    assert np.abs(after - np.asarray(image).astype(int))[~kept].mean() > 4, "repainted"


def test_a_run_is_reproducible_from_its_request(engine, scene):
    run = engine.run(request_for(engine, *scene, padding_mask_crop=4, mask_feather=2,
                                 differential=True, masked_content="fill"))
    again = engine.run(RunRequest(**run.request))
    assert again.image_sha256 == run.image_sha256
    assert again.request == run.request


def test_a_hundred_random_masks_change_no_unmasked_pixel(engine):
    """All through the model: drawn, feathered, cropped, soft, inverted, at three sizes."""
    rng = Random(0)
    unmasked = changed = painted = 0
    for number in range(100):
        scene, _ = paint_with_mask(CAR, Random(number), 64)
        image = scene.resize(rng.choice(((64, 64), (61, 33), (40, 80))))
        mask = Image.new("L", image.size)
        draw = ImageDraw.Draw(mask)
        for _ in range(rng.randrange(1, 4)):
            x, y = rng.randrange(image.width), rng.randrange(image.height)
            reach = rng.randrange(1, 24)
            shape = rng.choice((draw.ellipse, draw.rectangle))
            shape((x - reach, y - reach, x + reach, y + reach), fill=rng.choice((255, 255, 180)))
        if rng.random() < 0.2:
            mask = masks.as_image(masks.invert(masks.as_mask(mask)))
        request = request_for(
            engine, image, mask, num_inference_steps=2, guidance_scale=1, seed=number,
            mask_feather=rng.choice((0, 1, 4)), padding_mask_crop=rng.choice((None, 0, 8)),
            masked_content=rng.choice(("original", "fill")), differential=rng.random() < 0.3,
            strength=rng.choice((0.5, 1.0)))  # fmt: skip
        run = engine.run(request)
        after, kept = assert_kept(engine, run, image, mask)
        changed, unmasked = changed + run.changed_unmasked_pixels, unmasked + run.unmasked_pixels
        painted += bool((after != np.asarray(image))[~kept].any())
    print(f"{changed} of {unmasked:,} unmasked pixels changed over 100 random masks")
    assert (changed, painted) == (0, 100) and unmasked > 100_000


@pytest.mark.parametrize("size", [(1, 1), (513, 77), (77, 513), (40, 2), (65, 63)])
@pytest.mark.parametrize("crop", [None, 6])
def test_any_size_and_aspect_comes_back_as_it_came(engine, scene, size, crop):
    image = scene[0].resize(size)
    mask = np.zeros(size[::-1], np.uint8)
    mask[: (size[1] + 1) // 2, : (size[0] + 1) // 2] = 255
    mask = Image.fromarray(mask)
    run = engine.run(request_for(engine, image, mask, padding_mask_crop=crop))
    assert_kept(engine, run, image, mask)


def test_a_picture_of_4096_by_4096(engine, scene):
    image = scene[0].resize((4096, 4096), Image.Resampling.NEAREST)
    mask = scene[1].resize((4096, 4096), Image.Resampling.NEAREST)
    assert_kept(engine, engine.run(request_for(engine, image, mask, num_inference_steps=1)),
                image, mask)


def test_grey_and_transparent_pictures_of_the_store_are_taken(engine, scene):
    for image in (scene[0].convert("L"), scene[0].convert("RGBA")):
        run = engine.run(request_for(engine, image, scene[1]))
        assert_kept(engine, run, image.convert("RGB"), scene[1])


def cut_out(image):
    """The picture with a clear left part, odd colours hidden in it, and a half clear strip."""
    pixels = np.dstack([np.asarray(image), np.full(image.size[::-1], 255, np.uint8)])
    pixels[:, :20] = (9, 200, 77, 0)
    pixels[:, 20:30, 3] = 140
    return Image.fromarray(pixels)


@pytest.mark.parametrize("values", [{}, {"mask_feather": 6}, {"padding_mask_crop": 4},
                                    {"differential": True, "mask_feather": 3}], ids=str)
def test_a_cut_out_stays_one(engine, scene, values):
    """Alpha and hidden colours outside the mask stay; what is painted is as opaque as the mask."""
    image, mask = cut_out(scene[0]), Image.new("L", (64, 64))
    mask.paste(255, (10, 10, 50, 40))
    run = engine.run(request_for(engine, image, mask, **values))
    after, kept = assert_kept(engine, run, image, mask)
    assert after.shape == (64, 64, 4)
    assert (after[10:40, 10:50, 3] == 255).all(), "what was masked is opaque"
    soft = soft_mask(RunRequest(**run.request), masks.as_mask(mask))
    rim = after[(soft > 0) & (soft < 255) & (np.asarray(image)[..., 3] == 0)]
    if "mask_feather" in values:
        assert {0, 255} != set(rim[:, 3]) and len(set(rim[:, 3])) > 2, "a soft edge"
        green = rim[rim[:, 3] > 60]
        assert (green[:, 1] - green[:, 0] < 150).all(), "no hidden colour shines through"
    assert any("white where it is transparent" in note for note in run.notes)
    whole = engine.run(request_for(engine, image, Image.new("L", (64, 64), 255)))
    assert pixels(engine, whole).shape == (64, 64, 3), "nothing transparent is left"


def test_a_changed_alpha_would_be_counted(engine, scene):
    image, mask = cut_out(scene[0]), scene[1]
    other = image.copy()
    other.putpixel((0, 0), (9, 200, 77, 1))
    request = request_for(engine, image, mask)
    assert changed_unmasked_pixels(request, image, mask, image)[0] == 0
    assert changed_unmasked_pixels(request, image, mask, other)[0] == 1


def test_image_to_image_says_that_transparency_was_filled(engine, scene):
    image = cut_out(scene[0])
    white = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    runs = [engine.run(RunRequest(task="image-to-image", image=engine.pictures.put(start),
                                  prompt="a red car", strength=0.5, num_inference_steps=2))
            for start in (image, white)]
    assert [run.notes for run in runs] == [["image: transparent parts were filled with white"], []]
    assert runs[0].image_sha256 == runs[1].image_sha256, "hidden colours count nothing"


@pytest.mark.parametrize("mode", ["L", "RGBA", "LA"])
def test_masks_of_the_store_are_read_by_the_same_rule(engine, scene, mode):
    white = Image.new("RGBA", (64, 64), (255, 255, 255, 0))
    white.paste((255, 255, 255, 255), (8, 8, 24, 24))
    mask = white.convert(mode) if mode != "L" else white.getchannel("A")
    run = engine.run(request_for(engine, scene[0], mask))
    assert (run.status, run.unmasked_pixels) == ("ok", 64 * 64 - 16 * 16)


def test_white_is_repainted_and_the_inverse_keeps_the_subject(engine, scene):
    image, mask = scene
    before = np.asarray(image).astype(int)
    subject = np.asarray(mask) >= 128
    for used, painted in ((mask, subject), (Image.fromarray(255 - np.asarray(mask)), ~subject)):
        after = pixels(engine, engine.run(request_for(engine, image, used)))
        change = np.abs(after - before).sum(-1)
        assert change[painted].mean() > 10 * max(0.5, change[~painted].mean())


def test_a_thin_stroke_is_repainted_in_full(engine, scene):
    """A latent covers several pixels; a stroke of one pixel must not fall between them."""
    image, mask = scene[0], Image.new("L", (64, 64))
    ImageDraw.Draw(mask).line((3, 61, 61, 3), fill=255, width=1)
    run = engine.run(request_for(engine, image, mask))
    after, kept = assert_kept(engine, run, image, mask)
    moved = np.abs(after - np.asarray(image).astype(int)).max(-1)[~kept]
    assert (moved > 2).mean() > 0.9


def test_only_the_masked_part_is_painted_at_the_models_size(engine):
    """A region of 16 px, enlarged to 64: what comes back is finer than its share of the whole."""
    image, mask = paint_with_mask(CAR, Random(3), 256)
    small = np.zeros((256, 256), np.uint8)
    small[100:116, 60:76] = 255
    info = engine.registry.describe("postcards")
    whole = working_size(RunRequest(), info, 256, 256)
    assert (whole.width, whole.height, whole.scale) == (64, 64, 0.25)
    part = working_size(RunRequest(), info, 16, 16)
    assert (part.width, part.height, part.scale) == (64, 64, 4)
    details = []
    for crop in (None, 0):
        run = engine.run(request_for(engine, image, Image.fromarray(small), padding_mask_crop=crop,
                                     prompt="a red flower", num_inference_steps=6))
        area = pixels(engine, run)[100:116, 60:76]
        details.append(np.abs(np.diff(area, axis=0)).mean())
    assert details[1] > 1.3 * details[0]


def test_aspects_are_kept_and_nothing_is_squashed(engine):
    info = engine.registry.describe("postcards")
    for width, height in ((513, 77), (77, 513), (300, 200), (1, 1), (1, 4000)):
        size = working_size(RunRequest(), info, width, height)
        assert size.width % info.size_multiple == size.height % info.size_multiple == 0
        assert abs(size.inner[0] - width * size.scale) <= 1
        assert abs(size.inner[1] - height * size.scale) <= 1
        assert size.width * size.height <= 2.5 * info.width * info.height
    size = working_size(RunRequest(width=128, height=64), info, 100, 100)
    assert (size.width, size.height, size.inner) == (128, 64, (64, 64))


def test_differential_repaints_greys_by_degrees(engine, scene):
    """What is nearly black is repainted in the last steps only, and stays near the input."""
    image = scene[0]
    ramp = np.linspace(0, 255, 64).round().astype(np.uint8)[None].repeat(64, 0)
    run = engine.run(request_for(engine, image, Image.fromarray(ramp), num_inference_steps=10,
                                 differential=True, prompt="a snow house at night"))
    assert not run.notes
    after, _ = assert_kept(engine, run, image, Image.fromarray(ramp))
    change = np.abs(after - np.asarray(image)).mean(axis=(0, 2))
    assert 0 < change[1:7].mean() < 0.6 * change[-6:].mean()
    hard = engine.run(RunRequest(**{**run.request, "differential": False}))
    assert hard.image_sha256 != run.image_sha256
    assert "greys" in hard.notes[0]


@pytest.mark.parametrize("family", ["sd", "sd_inpaint", "sdxl", "sdxl_inpaint", "sd3", "flux",
                                    "qwen_image", "z_image"])  # fmt: skip
def test_every_family_keeps_unmasked_pixels(tmp_path, tiny_folder, scene, family):
    """With the steps that were told: half of three are two where a family rounds up, else one."""
    engine = Engine(tmp_path / "home", device="cpu")
    image, mask = scene[0].resize((72, 52)), scene[1].resize((72, 52))
    common = {"model_id": str(tiny_folder(family)), "scheduler": "default", "guidance_scale": 2.0,
              "width": 64, "height": 64}
    half = request_for(engine, image, mask, strength=0.5, num_inference_steps=3,
                       **{**common, "scheduler": "flow_heun" if family == "sd3" else "default"})
    run = engine.run(half)
    assert_kept(engine, run, image, mask)
    told = engine.registry.steps_to_run(half)
    assert told == (2 if family in ("sd3", "flux", "qwen_image", "z_image") else 1)
    assert len(run.step_ms) == expected_evaluations(run.scheduler, told)
    noted = {}
    for differential in (False, True):
        run = engine.run(request_for(engine, image, mask, differential=differential,
                                     mask_feather=3, num_inference_steps=3, **common))
        assert_kept(engine, run, image, mask)
        noted[differential] = any("differential: no effect" in note for note in run.notes)
    hard = family.endswith("_inpaint") or family == "z_image"
    assert noted == {False: False, True: hard}


def test_filling_from_the_surroundings_starts_without_the_subject(engine, scene):
    """At a low strength the car remains unless the area is filled first."""
    image, mask = scene
    mask = masks.as_image(masks.grow(masks.as_mask(mask), 3))
    red = []
    for content in ("original", "fill"):
        run = engine.run(request_for(engine, image, mask, prompt="", strength=0.3,
                                     num_inference_steps=10, masked_content=content))
        area = pixels(engine, run)[np.asarray(scene[1]) > 128]
        red.append((area[:, 0] - area[:, 2]).mean())
    assert red[0] > 60 > 2 * abs(red[1])


@pytest.mark.parametrize(("mask", "part"), [
    (Image.new("L", (64, 64)), "nothing is masked"),
    (Image.new("L", (64, 64), 100), "nothing is masked"),
    (Image.new("L", (32, 64), 255), "32 x 64 px, accepted the image's size: 64 x 64 px"),
])  # fmt: skip
def test_masks_that_cannot_be_meant_are_refused(engine, scene, mask, part):
    run = engine.run(request_for(engine, scene[0], mask))
    assert run.status == "failed" and part in run.error


def test_a_full_mask_repaints_all_and_says_so(engine, scene):
    run = engine.run(request_for(engine, scene[0], Image.new("L", (64, 64), 255)))
    assert (run.status, run.unmasked_pixels, run.changed_unmasked_pixels) == ("ok", 0, 0)


def test_a_changed_pixel_would_be_counted(engine, scene):
    image, mask = scene
    request = request_for(engine, image, mask)
    assert changed_unmasked_pixels(request, image, mask, image)[0] == 0
    other = image.copy()
    x, y = np.argwhere(np.asarray(mask).T == 0)[7]
    other.putpixel((int(x), int(y)), (1, 2, 3))
    assert changed_unmasked_pixels(request, image, mask, other)[0] == 1


def test_previews_show_the_whole_picture(engine, scene):
    image, mask = scene[0].resize((90, 70)), scene[1].resize((90, 70))
    previews = []
    engine.run(request_for(engine, image, mask, padding_mask_crop=4),
               lambda step: previews.append(step.preview()))
    assert [preview.size for preview in previews] == [(90, 70)] * 2
    kept = np.asarray(mask) < 128
    assert (np.asarray(previews[0])[kept] == np.asarray(image)[kept]).all()


def test_the_strength_that_an_error_names_works():
    for steps in range(1, 300):
        base = {"task": "image-to-image", "image": TO_COME, "num_inference_steps": steps}
        with pytest.raises(RequestError, match="use a strength of at least") as error:
            RunRequest(strength=0.999 / steps - 1e-6, **base)
        named = float(str(error.value).rsplit(" ", 1)[-1])
        assert RunRequest(strength=named, **base).steps_to_run == 1


def test_mask_options_belong_to_inpainting():
    with pytest.raises(RequestError, match="text-to-image takes no mask_feather"):
        RunRequest(mask_feather=3)
    with pytest.raises(RequestError, match="image-to-image takes no padding_mask_crop"):
        RunRequest(task="image-to-image", image=TO_COME, padding_mask_crop=0)
