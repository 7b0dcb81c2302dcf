"""The lesson Train your own: what a network learns, and how a training that stopped goes on."""

import pytest
import torch
from apptest import finish, html, page

from dashboard import state
from pipelines import RunRequest
from pipelines.errors import Cancelled, StorageError
from pipelines.jobs import submit_training
from pipelines.laboratory.mixture import Mixture
from pipelines.lessons import plane, postcards, strips, training

STEPS = 600


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    path = tmp_path_factory.mktemp("training") / "whole.safetensors"
    return training.train(path, 0, STEPS), path


def test_the_loss_falls_from_the_trivial_predictors_to_near_the_least(trained):
    losses, least = trained[0].losses, training.least_loss()
    assert len(losses) == STEPS // training.MEAN_OF
    assert losses[-1] < losses[0] < 1
    assert least < 0.35 and losses[-1] < least + 0.1
    nothing = training.loss(lambda x, signal, noise: torch.zeros_like(x),
                            torch.Generator().manual_seed(0), 50_000)
    assert nothing.item() == pytest.approx(1, abs=0.02)


def test_points_grow_towards_the_data(trained):
    points, fresh = trained[0].points, plane.clean_points(Mixture.three(), training.POINTS, 1)
    assert list(points) == [step for step in training.KEEP if step <= STEPS]
    distances = [training.energy_distance(made, fresh) for made in points.values()]
    assert distances[-1] < 0.1 < 1 < distances[0]
    other = plane.clean_points(Mixture.three(), training.POINTS, 2)
    assert abs(training.energy_distance(other, fresh)) < 0.02


@pytest.mark.parametrize("deviation, timestep", [(0.1, 200), (0.5, 400), (1.0, 100)])
def test_the_least_loss_of_a_gaussian_is_its_closed_form(deviation, timestep):
    one = torch.ones(1, dtype=torch.float64)
    data = Mixture(torch.zeros(1, 2, dtype=torch.float64), deviation * one, one)
    assert training.least_loss(data, timestep) == pytest.approx(
        training.least_loss_of_gaussian(deviation, timestep), rel=0.03)
    assert training.QUESTION.grade().right == 1


def test_a_training_that_stopped_ends_in_the_same_numbers(trained, tmp_path):
    path = tmp_path / "parts.safetensors"

    def stop(training):
        raise Cancelled("stopped by the user")

    with pytest.raises(Cancelled):
        training.train(path, 0, STEPS, stop)
    assert training.Training.load(path).step == training.SAVE_EVERY
    made = training.train(path, 0, STEPS)
    assert made.losses == trained[0].losses
    for name, value in made.network.state_dict().items():
        assert torch.equal(value, trained[0].network.state_dict()[name]), name
    assert training.Training.load(path).points.keys() == trained[0].points.keys()


def test_a_damaged_checkpoint_is_named(trained, tmp_path):
    path = tmp_path / "damaged.safetensors"
    path.write_bytes(trained[1].read_bytes()[:5000])
    with pytest.raises(StorageError, match="damaged.safetensors is no training that can go on"):
        training.train(path, 0, STEPS)
    with pytest.raises(ValueError, match="accepted epsilon"):
        trained[0].network.prediction("sample", torch.zeros(1, 2), 1.0, 1.0)


def test_a_training_is_a_job_whose_page_shows_loss_and_points(home):
    job = submit_training(state.job_queue(), 0, 400)
    app = page("learn", {"learn.lesson": "training", "learn.training.guess.committed": 1})
    app = finish(app)
    assert state.job_queue().get(job.id).status == "done"
    made = training.Training.load(training.checkpoint(home, 0))
    assert made.step == 400 and not app.exception
    assert {"Go on", "Start anew"} <= {button.label for button in app.button}
    assert app.select_slider(key="learn.training.moment").value == 300
    assert "cs-error" not in html(app).split("</style>")[-1]


def test_the_reverse_strip_ends_in_the_picture_that_a_run_makes(engine):
    numbers, after, expected = strips.reverse_strip(engine.registry, 3, 4)
    assert numbers == [1, 17, 34, 50] and len(after) == len(expected) == 4
    run = engine.run(RunRequest(model_id=strips.MODEL, task="unconditional", scheduler="ddpm",
                                prompt="", seed=3, num_inference_steps=strips.STEPS))
    assert postcards.difference(after[-1], engine.pictures.get(run.image_sha256)) < 1


def test_the_forward_strip_begins_with_the_picture(session_engine):
    clean = postcards.painted()[0].resize((32, 32))
    strip = strips.forward_strip(session_engine.registry, clean)
    apart = [postcards.difference(picture, clean) for picture in strip]
    assert apart[0] < 5 and apart == sorted(apart)
