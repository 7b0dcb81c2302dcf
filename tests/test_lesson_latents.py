"""The lesson Latents: norms in closed form, stored pictures by their numbers."""

import math

import numpy as np
import pytest
import torch
from PIL import Image

from pipelines.laboratory.mixture import Mixture, solve
from pipelines.lessons import latents, postcards
from pipelines.postcards.train import DEFAULT_PICTURES


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 0.9, 1.0])
def test_norms_of_mixtures_are_their_closed_form(share):
    a, b = postcards.noise([4]).double(), postcards.noise([5]).double()
    b *= a.norm() / b.norm()
    angle = latents.angle_between(a, b)
    assert latents.slerp(a, b, share).norm().item() == pytest.approx(a.norm().item())
    closed = a.norm() * math.sqrt((1 - share)**2 + share**2
                                  + 2 * share * (1 - share) * math.cos(angle))
    assert latents.linear(a, b, share).norm().item() == pytest.approx(closed.item())
    # on the circle the angle to the first grows evenly
    mixed = latents.slerp(a, b, share)
    if share > 0:
        assert latents.angle_between(a, mixed) == pytest.approx(share * angle, abs=1e-6)
    torch.testing.assert_close(latents.slerp(a, b, 0.0), a)
    torch.testing.assert_close(latents.slerp(a, b, 1.0), b)


def test_ends_of_mixed_noises_in_the_plane_are_exact():
    three = Mixture.three()
    noises, ends = latents.plane_ways()["slerp"]
    assert len(noises) == len(ends) == len(latents.SHARES)
    sigma = 1e3  # the same from very much noise, in another time
    check = solve(lambda x, at: three.epsilon(x, 1.0, at), sigma * noises[[0, 10, 20]], sigma)
    assert (check - ends[[0, 10, 20]]).abs().max() < 0.02


def test_training_pictures_are_painted_again_from_their_numbers(tmp_path):
    from pipelines.postcards.pictures import paint_numbered, paint_pictures, read_scenes
    from pipelines.postcards.settings import CONFIGS, Settings

    assert DEFAULT_PICTURES["cpu"] == latents.TRAINING_PICTURES
    paint_pictures(Settings(CONFIGS["cpu"], tmp_path, tmp_path, 0, 12, 1))
    stored, scenes = np.load(tmp_path / "training.npy"), read_scenes(tmp_path / "training.jsonl")
    for index in (0, 7, 11):
        scene, picture = paint_numbered(index)
        assert np.array_equal(picture, stored[index])
        assert scene == scenes[index] == latents.training_scenes()[index]


def test_a_generated_picture_is_no_copy_of_its_nearest_training_picture(session_engine):
    found = latents.memory(session_engine.registry, latents.SCENE)
    assert found.among == 189
    assert found.copies.mean < 0.5 * min(found.generated.mean, found.fresh.mean)
    assert found.generated.mean == pytest.approx(found.fresh.mean, rel=0.4)
    for picture, twin, apart in zip(found.copies.pictures, found.copies.twins,
                                    found.copies.distances, strict=True):
        assert postcards.difference(picture, twin) == pytest.approx(apart, abs=0.05)
    copied = Image.fromarray(np.full((64, 64, 3), 10, np.uint8))
    assert latents.psnr(postcards.difference(copied, Image.new("RGB", (64, 64)))) == pytest.approx(
        20 * math.log10(25.5))
    assert latents.psnr(0) == math.inf


def test_mixed_noises_at_their_ends_are_the_pictures_of_the_seeds(session_engine):
    ends = latents.paint_mixed(session_engine.registry, postcards.PROMPT, 0.0)
    torch.testing.assert_close(ends[0], ends[1], atol=1e-3, rtol=1e-3)
    middle = latents.paint_mixed(session_engine.registry, postcards.PROMPT, 0.5)
    assert latents.fineness(middle[:1]) < latents.fineness(middle[1:])
