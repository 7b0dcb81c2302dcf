"""Real components for all tests: the bundled model, loaded once; tiny models, built once."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import streamlit as st
import tiny
from apptest import NASTY

from dashboard import state
from pipelines import Axis, Comparison, Engine, RunRequest, cli


def pytest_collection_modifyitems(items):
    """With several workers (`pytest -n 2 --dist loadgroup`) the tests of a file stay together, and
    so do those that share the browser and its dashboard."""
    for item in items:
        group = "browser" if item.get_closest_marker("browser") else item.path.stem
        item.add_marker(pytest.mark.xdist_group(group))


@pytest.fixture(scope="session")
def session_engine(tmp_path_factory):
    """One loaded model for the whole session, with a log that nobody counts rows in."""
    return Engine(tmp_path_factory.mktemp("session"), device="cpu")


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory) -> Callable[[str], Path]:
    """family -> its saved folder, built when first asked for. To change one, copy it."""
    root = tmp_path_factory.mktemp("tiny")

    def folder(name: str) -> Path:
        if not (root / name).exists():
            tiny.build(name).save_pretrained(root / name)
        return root / name

    return folder


@pytest.fixture
def engine(session_engine, tmp_path):
    """An engine with an empty log of its own; the loaded model is shared."""
    engine = Engine(tmp_path / "home", device="cpu")
    engine.registry = session_engine.registry
    return engine


@pytest.fixture
def request_(engine):
    """A small request: 4 steps."""
    return RunRequest(prompt="a red car on a road at night", num_inference_steps=4,
                      guidance_scale=5, seed=7)


@pytest.fixture
def picture(engine, request_):
    """The SHA-256 of a stored 64 x 64 picture."""
    return engine.run(request_).image_sha256


@pytest.fixture
def home(tmp_path, monkeypatch, session_engine):
    """An empty data folder for the dashboard; the models that were loaded before stay loaded."""
    monkeypatch.setenv("CONTACT_SHEET_HOME", str(tmp_path))
    st.cache_resource.clear()
    state.engine().registry = session_engine.registry
    yield tmp_path
    state.job_queue().close()
    st.cache_resource.clear()


@pytest.fixture
def run(tmp_path, monkeypatch, capsys, session_engine):
    """Run a command line in this process, in an empty folder; gives back exit code, output and
    errors."""
    monkeypatch.setenv("CONTACT_SHEET_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pipelines.engine.Registry", lambda device: session_engine.registry)

    def call(*arguments):
        with pytest.raises(SystemExit) as ended:
            cli.main(arguments)
        captured = capsys.readouterr()
        return ended.value.code, captured.out, captured.err

    return call


@pytest.fixture(scope="session")
def five_runs(session_engine, tmp_path_factory):
    """A data folder with two runs of a comparison, one that failed, one whose prompt is nasty."""
    engine = Engine(tmp_path_factory.mktemp("five"), device="cpu")
    engine.registry = session_engine.registry
    base = RunRequest(prompt="a red car on a road", num_inference_steps=2)
    engine.run(base)
    engine.compare(Comparison(base, (Axis("scheduler", ("ddim", "euler")),)), comparison_id="first")
    engine.run(base.changed(model_id="no/such-model", prompt="a blue boat at sea"))
    engine.run(base.changed(prompt=NASTY, seed=7))
    return engine.home


@pytest.fixture
def filled(tmp_path, five_runs, request):
    """The dashboard's engine on a copy of `five_runs`."""
    shutil.copytree(five_runs, tmp_path, dirs_exist_ok=True)
    request.getfixturevalue("home")
    return state.engine()


@pytest.fixture
def two_cores(monkeypatch):
    """Calls are spread over two cores, wherever the tests run."""
    import torch

    from pipelines.hardware import cores

    monkeypatch.setenv("CONTACT_SHEET_THREADS", "2")
    cores.cache_clear()
    yield
    monkeypatch.undo()
    cores.cache_clear()
    torch.set_num_threads(cores())
