"""What the in-painting page keeps between script runs."""

from random import Random

import pytest

from dashboard.inpaint.canvas import display_size
from dashboard.inpaint.clicks import clicks_of, drawing_of
from dashboard.inpaint.draft import Draft
from pipelines.inpainting import masks
from pipelines.inpainting.clicks import Clicks


@pytest.mark.parametrize("size", [(1, 1), (64, 64), (513, 77), (4000, 3000), (60, 3000)])
def test_clicks_come_back_from_a_new_canvas_as_they_were(size):
    """Whatever the picture's size is and the canvas's."""
    rng, (width, height) = Random(0), size
    draft = Draft("picture", width, height, [])
    for room in (320, 544, 800) * 20:
        left, right = sorted(rng.sample(range(width + 1), 2))
        top, bottom = sorted(rng.sample(range(height + 1), 2))
        points = [(rng.randrange(width), rng.randrange(height)) for _ in range(3)]
        draft.click(Clicks(tuple(points[:2]), (points[2],), (left, top, right, bottom)))
        shown = display_size(draft, room)
        assert clicks_of(drawing_of(draft, shown), draft, shown) == draft.clicks
    draft.click(Clicks())
    assert drawing_of(draft, shown) is None


def test_another_canvas_begins_anew_and_another_picture_without_clicks():
    draft = Draft("picture", 8, 8, [("picture", "upload", None)])
    draft.click(Clicks(((3, 3),)))
    before = draft.version
    draft.show("clicks")
    draft.show("clicks")
    assert draft.version == before + 1 and draft.clicks_start == draft.clicks
    draft.set_mask(masks.invert(draft.mask))
    draft.take("other", 8, 8, "run 1", 1)
    assert draft.clicks == Clicks() and draft.whole_mask().all()
