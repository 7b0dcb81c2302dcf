"""Measures on sets of pictures, against truths that the painter knows."""

import json

import numpy as np
import pytest
from PIL import ImageFilter

from pipelines import RequestError
from pipelines.sets.compare import compare_set
from pipelines.sets.features import features, painted
from pipelines.sets.measures import copies, kid, manifold

COUNT = 240


@pytest.fixture(scope="module")
def real():
    return features("judge", painted(COUNT))


@pytest.fixture(scope="module")
def others():
    """Painted pictures, none of which is in `real`."""
    return painted(COUNT, "others")


@pytest.fixture(scope="module")
def seen(others):
    return features("judge", others)


def test_painted_against_painted_is_zero_within_the_interval(seen, real):
    value = kid(seen, real)
    assert value.low <= 0 <= value.high
    shares = manifold(seen, real)
    for name in ("density", "coverage"):
        assert shares[name].low <= shares[name].expected <= shares[name].high
    assert shares["precision"].value > 0.8 and shares["recall"].value > 0.8


def test_a_missing_colour_lowers_coverage_and_recall(seen, real):
    both = manifold(seen, real)
    lacking = features("judge", painted(COUNT, "others", without_colour="red"))
    one_subject = manifold(lacking, real)
    assert one_subject["coverage"].value < both["coverage"].value
    assert one_subject["recall"].value < both["recall"].value
    assert kid(lacking, real).value > kid(seen, real).value


def test_blur_lowers_precision(others, seen, real):
    blurred = [picture.filter(ImageFilter.GaussianBlur(3)) for picture in others]
    rows = features("judge", blurred)
    assert manifold(rows, real)["precision"].high < manifold(seen, real)["precision"].low
    assert kid(rows, real).low > 0


def test_copies_of_training_pictures_are_found(seen, real):
    training = features("judge", painted(COUNT, "training"))
    none, _, _ = copies(seen, training, real)
    assert none.low <= none.expected == 0.01 <= none.high
    planted = np.concatenate([seen[:-40], training[:40]])
    some, nearest, distance = copies(planted, training, real)
    assert some.value == pytest.approx(40 / COUNT, abs=0.04) and some.low > none.high
    assert list(nearest[-40:]) == list(range(40)) and distance[-40:].max() < 1e-3


def test_below_a_number_of_pictures_nothing_is_said(others):
    for measure, count, part in (("kid", 49, "accepted 50 of each"),
                                 ("coverage", 99, "accepted 100 of each"),
                                 ("fid", 200, "received 'fid', accepted kid")):
        with pytest.raises(RequestError, match=part):
            compare_set(others[:count], measures=(measure,))
    with pytest.raises(RequestError, match="received 'nix', accepted judge, clip"):
        features("nix", others[:2])


def test_the_command(run, tmp_path, others):
    (tmp_path / "set").mkdir()
    for number, picture in enumerate(others[:60]):
        picture.save(tmp_path / "set" / f"{number:03}.png")
    code, out, errors = run("measure-set", "set", "--measure", "kid", "--json")
    (value,) = json.loads(out)
    assert (code, value["measure"], value["pictures"], value["real"]) == (0, "kid", 60, 60), errors
    assert value["low"] < value["value"] < value["high"]
    for arguments, part in ((["set"], "accepted 100 of each"), (["nix"], "accepted a folder"),
                            (["set", "--against", "."], "holds no pictures")):
        code, out, errors = run("measure-set", *arguments)
        assert (code, out) == (2, "") and part in errors
