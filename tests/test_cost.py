"""What a size costs is told before it runs; what runs can be stopped."""

import select
import shutil
import signal
import subprocess
import sys
import time

import pytest

from pipelines import RequestError, RunRequest
from pipelines.errors import Cancelled
from pipelines.painting.cost import MAX_GB, MAX_MINUTES, call_costs

HUGE = RunRequest(prompt="x", height=4096, width=4096, num_inference_steps=1)


def test_a_size_far_above_the_models_own_is_refused(engine, monkeypatch):
    with pytest.raises(RequestError, match="received 4096 x 4096 for a model of 64 x 64 px") as e:
        engine.check(HUGE)
    for part in ("its unet", "GB on cpu", "accepted up to 10 minutes", MAX_MINUTES, MAX_GB):
        assert part in str(e.value)
    began = time.monotonic()
    run = engine.run(HUGE)
    assert run.status == "failed" and "4096 x 4096" in run.error
    assert time.monotonic() - began < 5
    monkeypatch.setenv(MAX_MINUTES, "1e6")
    monkeypatch.setenv(MAX_GB, "1e6")
    engine.check(HUGE)
    monkeypatch.setenv(MAX_GB, "0.001")
    with pytest.raises(RequestError, match=MAX_GB):
        engine.check(HUGE.changed(height=128, width=128))
    engine.check(HUGE.changed(height=64, width=64))
    monkeypatch.setenv(MAX_GB, "much")
    with pytest.raises(RequestError, match=f"{MAX_GB}: received 'much', accepted a number above 0"):
        engine.check(HUGE)


def test_sizes_of_everyday_are_accepted(engine):
    for side in (64, 128, 256, 512, 1024):
        engine.check(HUGE.changed(height=side, width=side))


def test_attention_costs_the_square_of_the_area(engine):
    info = engine.registry.describe("postcards")
    small, large = (call_costs(HUGE.changed(height=side, width=side), info, "cpu")[0].seconds
                    for side in (2048, 4096))
    assert 12 < large / small < 16
    eager = call_costs(HUGE.changed(attention_backend="eager"), info, "cpu")[0]
    assert eager.bytes > 100 * call_costs(HUGE, info, "cpu")[0].bytes


@pytest.mark.parametrize("family", ["sd", "sdxl", "sd3", "flux", "pixart_sigma", "ddpm", "dit"])
def test_costs_of_other_families_are_told(engine, tiny_folder, family):
    info = engine.registry.describe(str(tiny_folder(family)))
    costs = call_costs(HUGE, info, "cuda")
    assert costs and all(cost.seconds > 0 and cost.bytes > 0 for cost in costs)


def test_an_unusual_config_is_not_forecast(engine, tiny_folder, tmp_path):
    folder = shutil.copytree(tiny_folder("sd"), tmp_path / "odd")
    (folder / "unet" / "config.json").write_text(
        '{"_class_name": "UNet2DConditionModel", "block_out_channels": "many", '
        '"down_block_types": []}')
    assert call_costs(HUGE, engine.registry.describe(str(folder)), "cpu") == []


def test_a_cancel_acts_inside_a_slow_call(engine, request_, monkeypatch):
    monkeypatch.setattr("pipelines.making.SLOW_SECONDS", 0)
    engine.run(request_)
    with engine.registry.borrow("postcards") as (model, _):
        modules = list(model.pipe.unet.modules())
    before, layers, steps = [len(m._forward_pre_hooks) for m in modules], [], []

    def check():
        layers.append(len(layers))
        if len(layers) == 100:
            raise Cancelled("stopped")

    run = engine.run(request_, lambda step: steps.append(step.index), check=check)
    assert run.status == "cancelled"
    assert len(layers) == 100 and len(steps) < 1
    assert [len(m._forward_pre_hooks) for m in modules] == before
    assert engine.run(request_).status == "ok"


BUSY = """
import hashlib
from pipelines.cli.output import Interrupt
with Interrupt() as interrupt:
    print("busy", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)  # as long as a huge layer; it lets no handler in
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no such signals to a child on Windows")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_second_signal_ends_the_process_inside_a_call(number, code):
    process = subprocess.Popen([sys.executable, "-c", BUSY], text=True, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE)
    try:
        assert process.stdout.readline() == "busy\n"
        process.send_signal(number)
        assert select.select([process.stderr], [], [], 10)[0], "the first signal is heard at once"
        assert "a second time ends at once" in process.stderr.readline()
        assert process.poll() is None
        process.send_signal(number)
        assert process.wait(10) == code
    finally:
        process.kill()
