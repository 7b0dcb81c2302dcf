"""Grids on a cluster of two nodes on this machine: real Ray, real nodes that die.

Skipped without Ray (pip install 'contact-sheet[cluster]').
"""

import os
import signal
import socket
import sys
import threading
import time
from collections import Counter

import numpy as np
import pytest

from pipelines import Comparison, Engine, RunRequest
from pipelines.cluster import SETTING, cluster_of
from pipelines.cluster.driver import Cluster
from pipelines.errors import Cancelled, ClusterError, NoFurther, RequestError
from pipelines.measuring import measure_timings

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install '.[cluster]'")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="tested on Linux only")

MEGABYTES = 80 * 10**6
# A node that is killed is missed after about three seconds, one that is only slow is not.
HEALTH = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 1000,
          "health_check_timeout_ms": 10_000, "health_check_failure_threshold": 3}


@pytest.fixture(scope="module")
def nodes():
    """Two nodes of one core each."""
    from ray.cluster_utils import Cluster as Nodes

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("OMP_NUM_THREADS", "1")
        for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH", SETTING):
            patch.delenv(name, raising=False)
        nodes = Nodes(initialize_head=True, head_node_args={
            "num_cpus": 1, "object_store_memory": MEGABYTES, "include_dashboard": False,
            "_system_config": HEALTH})
        nodes.second = nodes.add_node(num_cpus=1, object_store_memory=MEGABYTES)
        patch.setenv("RAY_ADDRESS", nodes.address)
        yield nodes
        ray.shutdown()
        nodes.shutdown()


@pytest.fixture(scope="module")
def cluster(nodes):
    """The driver's side, its devices started."""
    cluster = Cluster("auto")
    cluster.wait_for_devices()
    return cluster


@pytest.fixture
def far(cluster, engine):
    """An engine with an empty log, whose pictures are made on the cluster."""
    engine.cluster = cluster
    return engine


@pytest.fixture
def base(tiny_folder):
    return RunRequest(model_id=str(tiny_folder("sd")), prompt="a cat", num_inference_steps=4)


def on(run):
    """The device that made a run."""
    return run.environment["node"]


def test_a_grid_is_what_one_machine_makes(far, base, session_engine):
    comparison = Comparison.parse(base, ["scheduler=ddim,euler_a", "seed=0..5"])
    steps = Counter()
    runs = far.compare(comparison, lambda number, step: steps.update([number]), shared=True)
    assert [run.status for run in runs] == ["ok"] * 12, {run.error for run in runs}
    assert far.run_log.count() == 12 and len({on(run) for run in runs}) == 2
    assert set(steps.values()) == {4} and len(steps) == 12
    assert all(run.steps_sha256 and far.complete(run) for run in runs)
    here = Engine(far.home.parent / "here", device="cpu")
    here.registry = session_engine.registry
    alone = here.compare(comparison, shared=True)
    for run, same in zip(runs, alone, strict=True):
        assert (run.identity, run.axes, run.noise_sha256) == (
            same.identity, same.axes, same.noise_sha256)
        assert_same_picture(far, run, here, same)
    assert far.in_log(comparison) == list(range(12))


def assert_same_picture(engine, run, other_engine, other):
    pictures = [np.asarray(engine.pictures.get(run.image_sha256), int),
                np.asarray(other_engine.pictures.get(other.image_sha256), int)]
    assert abs(pictures[0] - pictures[1]).max() <= 2  # what sharing calls may change (README)


def test_a_device_that_is_slowed_four_times_makes_about_a_fifth(far, cluster, base):
    slowed = next(hello for hello in cluster.hellos())
    comparison = Comparison.parse(base.changed(num_inference_steps=10), ["seed=0..59"])
    done = threading.Event()

    def slow():
        while not done.is_set():
            os.kill(slowed["pid"], signal.SIGSTOP)
            done.wait(0.045)
            os.kill(slowed["pid"], signal.SIGCONT)
            time.sleep(0.015)

    thread = threading.Thread(target=slow)
    thread.start()
    try:
        runs = far.compare(comparison, shared=True)
    finally:
        done.set()
        thread.join()
    count = sum(on(run) == slowed["label"] for run in runs)
    assert len({run.identity for run in runs}) == 60
    assert 4 <= count <= 22, count  # 12, were nothing else at work on this machine


def test_timings_of_a_comparison_come_from_one_device(far, base):
    runs = far.compare(Comparison.parse(base, ["seed=0..3"]), shared=True)
    assert len({on(run) for run in runs}) == 2
    measure_timings(far, runs, 2)
    ids = [run.id for run in runs]
    assert {summary.repeats for summary in far.run_log.timings(ids).values()} == {2}
    (device,) = far.run_log.timing_nodes(ids)
    assert device in {on(run) for run in runs}
    measure_timings(far, runs, 1)
    assert far.run_log.timing_nodes(ids) == {device}


def test_a_cancel_stops_the_devices_and_keeps_what_is_done(far, cluster, base):
    comparison = Comparison.parse(base.changed(num_inference_steps=10), ["seed=0..39"])
    ended = []

    def check():
        if len(ended) >= 3:
            raise Cancelled("enough")

    runs = far.compare(comparison, None, lambda number, run: ended.append(number),
                       comparison_id="half", shared=True, check=check)
    made = far.run_log.count(comparison_id="half")
    assert 3 <= made < 40 and not any(link.busy for link in cluster.ready())
    assert sum(bool(run) for run in runs) == len(ended)
    runs = far.compare(comparison, comparison_id="half", shared=True)
    assert all(run.status == "ok" for run in runs)
    assert far.run_log.count(comparison_id="half") == 40  # each once


def test_no_further_lets_what_has_begun_come_to_its_end(far, cluster, base):
    comparison = Comparison.parse(base, ["seed=0..39"])
    ended = []

    def check():
        if ended:
            raise NoFurther("enough")

    far.compare(comparison, None, lambda number, run: ended.append(run), shared=True, check=check)
    assert 1 <= len(ended) < 40 and all(run.status == "ok" for run in ended)
    assert far.run_log.count() == len(ended)


def test_a_model_that_a_node_has_not_got_is_told_by_the_nodes_name(far, cluster, base, tmp_path):
    from shutil import copytree

    folder = tmp_path / "moved"
    copytree(base.model_id, folder)
    request = base.changed(model_id=str(folder))
    comparison = Comparison.parse(request, ["seed=0..1"])
    wanted = far.identity(request)  # the driver has seen it
    assert wanted
    weights = next(folder.rglob("diffusion_pytorch_model*.safetensors"))

    class Changing:
        """The engine's identities, told from before the files were changed."""

        def __init__(self):
            self.known = {}

        def __call__(self, request, _known=None):
            return type(far).identity(far, request, self.known)

    identity = Changing()
    identity(request)
    far.identity = identity
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    runs = far.compare(comparison, shared=True)
    assert [run.status for run in runs] == ["failed"] * 2
    for hello in cluster.hellos():
        assert hello["label"] in runs[0].error
    assert "not those of the driver" in runs[0].error


def test_pictures_travel_to_the_devices(far, base):
    picture = far.run(base).image_sha256
    runs = far.compare(Comparison.parse(base.changed(image=picture, task="image-to-image"),
                                        ["strength=0.5,1", "seed=0,1"]), shared=True)
    assert [run.status for run in runs] == ["ok"] * 4, {run.error for run in runs}


def test_a_node_is_killed_in_the_middle(far, nodes, cluster, base, session_engine):
    """60 cells: each is there, each once, and the same as on one machine."""
    comparison = Comparison.parse(base, ["scheduler=ddim,euler", "seed=0..29"])
    name = next(link.label for link in cluster.ready()
                if link.place.node_id == nodes.second.node_id)
    killed = []

    def on_cell(number, run):
        if on(run) == name and not killed:
            killed.append(number)
            nodes.remove_node(nodes.second, allow_graceful=False)

    runs = far.compare(comparison, on_cell=on_cell, comparison_id="killed", shared=True)
    assert killed and [run.status for run in runs] == ["ok"] * 60, {run.error for run in runs}
    assert far.run_log.count(comparison_id="killed") == 60
    assert len({run.identity for run in runs}) == 60
    assert sum(on(run) == name for run in runs) < 30
    here = Engine(far.home.parent / "here", device="cpu")
    here.registry = session_engine.registry
    for run, same in zip(runs, here.compare(comparison, shared=True), strict=True):
        assert_same_picture(far, run, here, same)


def test_addresses_are_checked_and_the_environment_names_one(monkeypatch):
    for text in ("here", "ray://", "127.0.0.1:6379"):
        with pytest.raises(RequestError, match="accepted auto"):
            cluster_of(text)
    monkeypatch.delenv(SETTING, raising=False)
    assert cluster_of() is None
    monkeypatch.setenv(SETTING, "auto")
    assert cluster_of().address == "auto"


def test_where_no_cluster_answers_the_way_to_one_is_told(monkeypatch, engine, base):
    ray.shutdown()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setenv("RAY_ADDRESS", address)
    for name in ("auto", f"ray://{address}"):
        engine.cluster = Cluster(name)
        with pytest.raises(ClusterError, match=f"{address}.*cluster start"):
            engine.compare(Comparison.parse(base, ["seed=0,1"]))
    assert not engine.run_log.count()
