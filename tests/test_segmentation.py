"""Clicks to masks: GrabCut on painted postcards, SAM and SAM 2 with tiny random weights."""

from random import Random

import numpy as np
import pytest
from fakehub import FakeHub
from PIL import Image
from tiny_sam import tiny_sam, tiny_sam2

from pipelines.errors import LoadError, RequestError
from pipelines.hub.client import Hub
from pipelines.hub.download import Downloads
from pipelines.hub.plan import SEGMENTER_FILES
from pipelines.inpainting.clicks import (
    GRABCUT,
    Clicks,
    GrabCut,
    SegmentAnything,
    find_segmenter,
    local_segmenters,
)
from pipelines.inpainting.masks import bounding_box
from pipelines.postcards.painter import paint_with_mask
from pipelines.postcards.vocabulary import Scene, sample_scene

SCENES = 36


def inside(mask):
    """The point deepest inside a mask: where a person would click."""
    from scipy.ndimage import distance_transform_edt

    depth = distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    y, x = np.unravel_index(depth.argmax(), depth.shape)
    return int(x), int(y)


def beside(mask, rng):
    """A point near a mask, but not in it."""
    from scipy.ndimage import distance_transform_edt

    away = distance_transform_edt(~mask)
    near = np.argwhere((away > 4) & (away < 12))
    y, x = near[rng.randrange(len(near))]
    return int(x), int(y)


def anywhere(mask, rng):
    """Some point of a mask, not on its very edge: where a hasty person clicks."""
    from scipy.ndimage import distance_transform_edt

    depth = distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    places = np.argwhere(depth >= min(2, depth.max()))
    y, x = places[rng.randrange(len(places))]
    return int(x), int(y)


def two_clicks(mask, count, rng, on=inside):
    """On the subject and beside it; where there are two subjects, on each."""
    from scipy.ndimage import label

    if count == 1:
        return Clicks((on(mask),), (beside(mask, rng),))
    parts, number = label(mask)
    largest = sorted(range(1, number + 1), key=lambda n: -(parts == n).sum())[:2]
    return Clicks(tuple(on(parts == n) for n in largest))


def test_grabcut_finds_painted_subjects_with_two_clicks():
    """Intersection over union with the painter's true masks: 0.8 or more on average where the
    first click is in the middle of the subject, as people click; not much less elsewhere on it."""
    rng, scores = Random(5), {"middle": [], "anywhere": []}
    for number in range(SCENES):
        scene = sample_scene(rng)
        image, mask = paint_with_mask(scene, Random(number), 64)
        true = np.asarray(mask) >= 128
        clicks = {"middle": two_clicks(true, scene.count, rng)}
        if number % 2:
            other = Random(number)
            clicks["anywhere"] = two_clicks(true, scene.count, other,
                                            lambda part, other=other: anywhere(part, other))
        for where, points in clicks.items():
            found = GrabCut().segment(image, points) > 0
            assert found.shape == true.shape
            scores[where].append((found & true).sum() / (found | true).sum())
    for where, values in scores.items():
        print(f"GrabCut, two clicks, {where}, {len(values)} postcards: mean {np.mean(values):.3f}, "
              f"median {np.median(values):.3f}")
    assert np.mean(scores["middle"]) >= 0.8 and np.mean(scores["anywhere"]) >= 0.7


def test_grabcut_takes_the_background_where_that_is_clicked():
    scene = Scene("balloon", "red", "meadow", "day")
    picture, mask = paint_with_mask(scene, Random(2), 128)
    found = GrabCut().segment(picture, Clicks(((10, 10),)))
    assert (found > 0).mean() > 0.1 and not (found[np.asarray(mask) >= 128] > 0).mean() > 0.2


def test_grabcut_takes_boxes_and_odd_pictures():
    scene = Scene("balloon", "red", "meadow", "day")
    picture, mask = paint_with_mask(scene, Random(2), 128)
    true = np.asarray(mask) >= 128
    found = GrabCut().segment(picture, Clicks(box=bounding_box(np.asarray(mask), 5))) > 0
    assert (found & true).sum() / (found | true).sum() > 0.85
    for size in ((1, 1), (513, 77), (2, 300)):
        mask = GrabCut().segment(Image.new("L", size, 90), Clicks(((0, 0),)))
        assert mask.shape == size[::-1] and mask[0, 0] == 255


@pytest.mark.parametrize(("clicks", "part"), [
    (Clicks(), "no point on the subject and no box"),
    (Clicks(not_this=((1, 1),)), "no point on the subject"),
    (Clicks(((64, 0),)), "64,0, accepted 0,0 to 63,63"),
    (Clicks(box=(5, 5, 5, 9)), "box: received 5,5,5,9"),
])  # fmt: skip
def test_clicks_that_cannot_be_meant_are_refused(clicks, part):
    with pytest.raises(RequestError, match=part):
        GrabCut().segment(Image.new("RGB", (64, 64)), clicks)


@pytest.fixture(scope="module", params=["SAM", "SAM 2"])
def checkpoint(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param.replace(" ", ""))
    (tiny_sam if request.param == "SAM" else tiny_sam2)().save_pretrained(folder)
    return request.param, folder


def test_segment_anything_embeds_a_picture_once(checkpoint):
    kind, folder = checkpoint
    segmenter = find_segmenter(str(folder))
    assert segmenter.name.startswith(kind + " (")
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (40, 90, 3), np.uint8))
    for clicks in (Clicks(((5, 5),)), Clicks(((80, 30), (4, 4)), ((40, 20),)),
                   Clicks(box=(10, 5, 60, 35)), Clicks(((20, 20),), (), (10, 5, 60, 35))):
        mask = segmenter.segment(image, clicks)
        assert (mask.shape, mask.dtype) == ((40, 90), np.uint8)
        assert set(np.unique(mask)) <= {0, 255}
        assert segmenter.embeddings_computed == 1
    segmenter.segment(image.transpose(Image.Transpose.ROTATE_90), Clicks(((5, 5),)))
    assert segmenter.embeddings_computed == 2


def test_segment_anything_is_given_the_points_that_were_clicked(checkpoint):
    """In the model's own pixels: SAM scales by the longer side, SAM 2 each side for itself."""
    kind, folder = checkpoint
    segmenter = SegmentAnything(folder, "tiny", "cpu")
    image = Image.new("RGB", (128, 32))
    seen = {}
    model = segmenter._load()
    hook = model.prompt_encoder.register_forward_pre_hook(
        lambda module, args, values: seen.update(values), with_kwargs=True)
    segmenter.segment(image, Clicks(((63, 15),), ((0, 0),)))
    hook.remove()
    points = seen["input_points"][0, 0].tolist()
    assert seen["input_labels"][0, 0].tolist() == [1, 0]
    down = 0.5 if kind == "SAM" else 2.0
    assert points == [[63.5 * 0.5, 15.5 * down], [0.25, 0.5 * down]]


def test_without_a_checkpoint_it_says_grabcut(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert "GrabCut" in find_segmenter().name
    with pytest.raises(LoadError, match="nobody/sam is no folder"):
        find_segmenter("nobody/sam")


def test_a_checkpoint_is_fetched_from_a_hub_and_found(monkeypatch, tmp_path):
    model_id, cache = "facebook/sam-vit-base", tmp_path / "cache"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    folder = tmp_path / "hub" / model_id
    tiny_sam().save_pretrained(folder)
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with FakeHub(tmp_path / "hub") as fake:
        fake.meta[model_id] = {"config": {"model_type": "sam"}}
        hub = Hub(fake.url, cache, False)
        plan = hub.details(model_id).plan
        assert plan.kind == "segmenter"
        assert {file.path for file in plan.files} == set(SEGMENTER_FILES)
        assert local_segmenters() == [GRABCUT]
        download = Downloads().start(hub, plan)
        assert download.finished.wait(60) and download.status == "done", download.error
    assert local_segmenters() == [model_id, GRABCUT]
    found = find_segmenter()
    assert found.name == f"SAM ({model_id})"
    assert found.segment(Image.new("RGB", (30, 20)), Clicks(((3, 3),))).shape == (20, 30)
    assert "GrabCut" in find_segmenter(GRABCUT).name


def test_pickles_and_other_models_are_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "sam"}')
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(LoadError, match="no weights in safetensors"):
        find_segmenter(str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "clip"}')
    with pytest.raises(LoadError, match="'clip', accepted sam"):
        find_segmenter(str(tmp_path))
