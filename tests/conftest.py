"""Real components for all tests: the bundled model, loaded once."""

import pytest

from pipelines import Engine, RunRequest


@pytest.fixture(scope="session")
def session_engine(tmp_path_factory):
    """One loaded model for the whole session, with a log that nobody counts rows in."""
    return Engine(tmp_path_factory.mktemp("session"), device="cpu")


@pytest.fixture
def engine(session_engine, tmp_path):
    """An engine with an empty log of its own; the loaded model is shared."""
    engine = Engine(tmp_path / "home", device="cpu")
    engine.registry = session_engine.registry
    return engine


@pytest.fixture
def request_(engine):
    """A small request: 4 steps."""
    return RunRequest(prompt="a red car on a road at night", num_inference_steps=4, seed=7)


@pytest.fixture
def picture(engine, request_):
    """The SHA-256 of a stored 64 x 64 picture."""
    return engine.run(request_).image_sha256
