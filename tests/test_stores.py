"""Pictures and latents on disk: no damaged file is believed, no name leads out of the folder."""

import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from apptest import html, page
from PIL import Image

from dashboard import state
from pipelines import Comparison, Engine, RunRequest
from pipelines.errors import StorageError
from pipelines.stores import LatentStore, PictureStore

BASE = RunRequest(prompt="a red car", num_inference_steps=1)
DAMAGES = {
    "cut": lambda data: data[:40],
    "empty": lambda data: b"",
    "one byte": lambda data: data[:-9] + bytes([data[-9] ^ 1]) + data[-8:],
    "another file": lambda data: b"<html>" * 200,
    "a tail": lambda data: data + b"x",
}


def damage(path: Path, how: str) -> None:
    path.write_bytes(DAMAGES[how](path.read_bytes()))


def stores(folder):
    """Each store with something to put into it."""
    return ((PictureStore(folder / "pictures"), Image.new("RGB", (9, 7), "red")),
            (LatentStore(folder / "latents"), torch.arange(12.0).reshape(3, 2, 2)))


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_file_is_an_error_and_is_written_again(tmp_path, how):
    for store, thing in stores(tmp_path):
        name = store.put(thing)
        whole = store.path(name).read_bytes()
        assert store.whole(name) and store.read(name) == whole
        damage(store.path(name), how)
        assert not store.whole(name)
        for read in (store.get, store.read, getattr(store, "size", store.get)):
            with pytest.raises(StorageError, match="cannot be read"):
                read(name)
        assert store.put(thing) == name and store.path(name).read_bytes() == whole
        assert store.whole(name)
        store.get(name)


def test_a_file_that_was_never_changed_is_hashed_once(tmp_path, monkeypatch):
    store = PictureStore(tmp_path)
    name = store.put(Image.new("RGB", (9, 7)))
    os.utime(store.path(name), (1e9, 1e9))
    assert store.whole(name)
    monkeypatch.setattr(Path, "open", None)
    assert store.whole(name)


@pytest.mark.parametrize("name", [
    "../../etc/x", "/etc/passwd", "..", "", "a", "A" * 64, "a" * 65, "a" * 64 + "\n", "to come",
    None, 7, "a" * 62 + "/x", "\0" * 64,
])  # fmt: skip
def test_a_name_that_is_no_sha256_opens_nothing(tmp_path, name):
    Image.new("RGB", (4, 4)).save(tmp_path / "x.png")
    for store, _ in stores(tmp_path / "a" / "b"):
        assert not store.whole(name)
        for read in (store.path, store.get, store.read, getattr(store, "size", store.get)):
            with pytest.raises(StorageError, match="accepted a SHA-256"):
                read(name)


def test_a_write_that_fails_leaves_nothing(tmp_path, monkeypatch):
    for store, thing in stores(tmp_path):
        for error in (OSError(28, "No space left on device"), KeyboardInterrupt()):

            def fail(_path, _target, error=error):
                raise error

            with monkeypatch.context() as patched:
                patched.setattr(Path, "replace", fail)
                with pytest.raises((StorageError, KeyboardInterrupt)):
                    store.put(thing)
            assert not [path for path in store.folder.rglob("*") if path.is_file()]


FULL = """
import resource, signal, sys
from pathlib import Path
import numpy as np
from PIL import Image
from pipelines.stores import PictureStore
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
store = PictureStore(Path(sys.argv[1]))
try:
    store.put(Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)))
except Exception as error:
    print(type(error).__name__, error)
print([path.name for path in store.folder.rglob("*") if path.is_file()])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no file size limit on Windows")
def test_a_full_disk_leaves_no_half_file(tmp_path):
    done = subprocess.run([sys.executable, "-c", FULL, str(tmp_path)], capture_output=True,
                          text=True)
    error, files = done.stdout.splitlines()
    assert error.startswith("StorageError a picture cannot be written") and files == "[]"


@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize("kind", ["pictures", "latents"])
def test_a_comparison_makes_a_damaged_cell_again(engine, kind, fresh):
    comparison = Comparison.parse(BASE, ["seed=0,1,2"])
    runs = engine.compare(comparison)
    store = getattr(engine, kind)
    names = [run.image_sha256 if kind == "pictures" else run.latents_sha256 for run in runs]
    for name, how in zip(names, ("cut", "one byte", None), strict=True):
        if how:
            damage(store.path(name), how)
    again = engine.compare(comparison, fresh=fresh)
    reused = [None, None, None if fresh else runs[2].id]
    assert [run.reused_from for run in again] == reused
    assert [run.image_sha256 for run in again] == [run.image_sha256 for run in runs]
    assert all(map(store.whole, names))


def test_a_resumed_comparison_makes_a_damaged_cell_again(engine):
    comparison = Comparison.parse(BASE, ["seed=0,1"])
    runs = engine.compare(comparison, comparison_id="one")
    damage(engine.pictures.path(runs[0].image_sha256), "empty")
    again = engine.compare(comparison, comparison_id="one")
    assert [run.id == before.id for run, before in zip(again, runs, strict=True)] == [False, True]
    assert engine.pictures.whole(runs[0].image_sha256)


def test_a_damaged_input_fails_its_run_with_the_reason(engine):
    image = engine.pictures.put(Image.new("RGB", (64, 64), "red"))
    damage(engine.pictures.path(image), "one byte")
    run = engine.run(BASE.changed(task="image-to-image", image=image, strength=1.0))
    assert run.status == "failed" and "the file is damaged" in run.error


@pytest.mark.parametrize("name", ["generate", "runs", "compare", "inpaint"])
def test_pages_show_the_place_of_a_damaged_picture(filled, name):
    files = sorted(filled.pictures.folder.rglob("*.png"))
    for file, how in zip(files, itertools.cycle(("cut", "empty", "another file")),
                         strict=False):
        damage(file, how)
    newest = filled.run_log.runs(status="ok", limit=1)[0]
    app = page(name, {state.OPENED_RUN: newest.id})
    assert not app.exception
    if name == "runs":
        assert "Download" not in [button.proto.label for button in app.get("download_button")]


def test_the_page_of_an_inpainting_says_what_is_damaged(filled):
    engine = filled
    mask = Image.new("L", (64, 64))
    mask.paste(255, (0, 0, 30, 30))
    image = engine.pictures.put(Image.new("RGB", (64, 64), "red"))
    carried = {"mask_image": engine.pictures.put(mask)}
    values = {"compare.task": "inpainting", "compare.image": image, "compare.carried": carried}
    for name in (image, carried["mask_image"]):
        damage(engine.pictures.path(name), "cut")
        app = page("compare", values)
        assert not app.exception and "the file is damaged" in html(app)


def test_the_log_of_others_leads_nowhere(engine):
    """Names that a log holds are no more trusted than those of a request."""
    run = engine.run(BASE)
    run.image_sha256, run.latents_sha256 = "../../etc/x", "../../etc/x"
    assert engine.picture_path(run) is None and not engine.complete(run)
    assert os.sep not in Engine(engine.home).pictures.path("a" * 64).name
