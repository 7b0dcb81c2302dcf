"""Small prints of pictures: made once, again where they are damaged, gone with their picture."""

import os
import random

import pytest
from PIL import Image

from pipelines.doctor import examine
from pipelines.run_marks import RunMarks, empty_bin
from pipelines.thumbnails import SIDE


@pytest.fixture
def large(engine):
    noise = random.Random(0).randbytes(600 * 400 * 3)
    return engine.pictures.put(Image.frombytes("RGB", (600, 400), noise))


def test_a_print_is_made_once_and_again_where_it_is_damaged(engine, large):
    path = engine.thumbnails.get(large)
    with Image.open(path) as image:
        assert image.size == (SIDE, 128)
    first = path.stat().st_mtime_ns, path.stat().st_ino
    assert engine.thumbnails.get(large) == path
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == first
    for damage in (path.read_bytes()[:200], b"", b"<html>"):
        path.write_bytes(damage)
        assert engine.thumbnails.get(large) == path
        with Image.open(path) as image:
            image.load()


def test_a_small_picture_is_its_own_print_and_a_lost_one_has_none(engine, large, picture):
    assert engine.thumbnails.get(picture) == engine.pictures.path(picture)
    engine.pictures.path(large).write_bytes(b"cut")
    for name in (large, "0" * 64, None, "../../etc"):
        assert engine.thumbnails.get(name) is None


def test_a_folder_that_cannot_be_written_shows_the_picture(engine, large):
    engine.thumbnails.folder.write_bytes(b"no folder")
    assert engine.thumbnails.get(large) == engine.pictures.path(large)


def test_a_print_goes_with_its_picture_and_the_doctor_knows_the_rest(engine, large, request_):
    run = engine.run(request_)
    engine.run_log.update(run, image_sha256=large)
    path = engine.thumbnails.get(large)
    assert [f.kind for f in examine(engine.home)] == []
    lost = path.with_name(f"{path.stem[:2]}{'0' * 62}.webp")
    lost.write_bytes(path.read_bytes())
    os.utime(lost, (0, 0))
    assert [(f.kind, f.mended) for f in examine(engine.home, mend=True)] == [("thumbnail", True)]
    assert path.exists() and not lost.exists()
    RunMarks(engine.run_log).delete([run.id])
    empty_bin(engine)
    assert not engine.pictures.path(large).exists() and not path.exists()
