"""How the denoiser computes: each of the three really acts, and is gone after its run."""

import functools
import sys

import diffusers
import numpy as np
import pytest
import tiny
from diffusers.models.attention import AttentionModuleMixin
from diffusers.models.attention_processor import Attention
from torch.utils._python_dispatch import TorchDispatchMode

from pipelines import Comparison, Engine, RunRequest
from pipelines.comparison import work_order
from pipelines.errors import RequestError
from pipelines.fields import ADDED_LATER
from pipelines.measuring import converged_request
from pipelines.models.identity import identity
from pipelines.painting.call import run_scheduler
from pipelines.painting.execution import (
    attention_backends,
    caches,
    compile_obstacle,
    denoiser_class,
)
from pipelines.painting.resolve import resolve

BASE = RunRequest(prompt="a red car on a road at night", num_inference_steps=8)


@pytest.fixture
def flux(tiny_folder):
    return str(tiny_folder("flux"))


def denoiser_of(engine, model_id):
    with engine.registry.borrow(model_id) as (model, _):
        return model.pipe.unet if hasattr(model.pipe, "unet") else model.pipe.transformer


class Kernels(TorchDispatchMode):
    """Notes torch's fused attention kernels; its plain one is made of matrix products."""

    def __init__(self):
        super().__init__()
        self.seen = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if "scaled_dot_product" in function.__name__:
            self.seen.add(function.__name__.removeprefix("_scaled_dot_product_").split(".")[0])
        return function(*args, **kwargs or {})


def attention_work(denoiser, work):
    """What `work()` gives, how often attention was computed in it, and by which processors."""
    layers = [m for m in denoiser.modules() if isinstance(m, (Attention, AttentionModuleMixin))
              and hasattr(m, "to_q")]
    seen, computed = set(), []

    def note(layer):
        computed.append(layer)
        seen.add(type(layer.processor).__name__)

    hooks = [m.to_q.register_forward_pre_hook(lambda *_, layer=m: note(layer)) for m in layers]
    try:
        result = work()
    finally:
        for hook in hooks:
            hook.remove()
    return result, len(computed), seen


def pixels(engine, run):
    return np.asarray(engine.pictures.get(run.image_sha256)).astype(int)


def as_before(denoiser):
    """Nothing is left of a run: no forward of its own, no hook, the usual processors."""
    from diffusers.hooks import HookRegistry

    hooks = HookRegistry.check_if_exists_or_initialize(denoiser)
    left = [name for module in denoiser.modules()
            for name in getattr(getattr(module, "_diffusers_hook", hooks), "hooks", ())]
    kinds = {type(m.processor).__name__ for m in denoiser.modules() if isinstance(m, Attention)}
    return "forward" not in vars(denoiser) and not left and kinds <= {"AttnProcessor2_0"}


@pytest.mark.parametrize(
    ("name", "processor", "kernels"),
    [("native", "AttnProcessor2_0", {"flash_attention_for_cpu"}),
     ("_native_flash", "AttnProcessor2_0", {"flash_attention_for_cpu"}),
     ("_native_math", "AttnProcessor2_0", set()),
     ("eager", "AttnProcessor", set()), ("sliced", "SlicedAttnProcessor", set())],
)  # fmt: skip
def test_another_attention_backend_computes(engine, name, processor, kernels):
    """The text encoder uses torch's attention too, and keeps its kernel."""
    plain, denoiser = engine.run(BASE), denoiser_of(engine, "postcards")
    request, inside, outside = BASE.changed(attention_backend=name), Kernels(), Kernels()
    forward = type(denoiser).forward

    def watched(*args, **kwargs):
        with inside:
            return forward(denoiser, *args, **kwargs)

    denoiser.forward = watched
    try:
        with outside:
            run, _, seen = attention_work(denoiser, lambda: engine.run(request))
    finally:
        assert denoiser.forward is watched
        del denoiser.forward
    assert (seen, inside.seen) == ({processor}, kernels)
    assert "flash_attention_for_cpu" in outside.seen
    assert abs(pixels(engine, run) - pixels(engine, plain)).max() <= 2
    assert (run.identity == plain.identity) == (name == "native")
    assert as_before(denoiser)


def test_a_cache_saves_attention_and_leaves_nothing_behind(engine):
    engine.run(BASE)  # warm
    denoiser = denoiser_of(engine, "postcards")
    plain, every, _ = attention_work(denoiser, lambda: engine.run(BASE))
    request = BASE.changed(cache="pyramid_attention_broadcast")
    cached, fewer, _ = attention_work(denoiser, lambda: engine.run(request))
    assert (cached.status, cached.nfe) == ("ok", plain.nfe)
    assert fewer < every
    assert cached.image_sha256 != plain.image_sha256
    assert as_before(denoiser)
    assert engine.run(request).image_sha256 == cached.image_sha256  # a fresh state each time
    again, after, _ = attention_work(denoiser, lambda: engine.run(BASE))
    assert (again.image_sha256, after) == (plain.image_sha256, every)


@pytest.mark.parametrize("name", ["pyramid_attention_broadcast", "first_block_cache",
                                  "taylorseer_cache", "faster_cache", "mag_cache"])
def test_caches_of_transformers(session_engine, flux, name, monkeypatch):
    # With random weights the first block changes more from step to step than the usual threshold.
    bold = functools.partial(diffusers.FirstBlockCacheConfig, threshold=10.0)
    monkeypatch.setattr(diffusers, "FirstBlockCacheConfig", bold)
    request = RunRequest(model_id=flux, prompt="a", num_inference_steps=6, guidance_scale=3,
                         height=64, width=64)
    denoiser = denoiser_of(session_engine, flux)
    session_engine.run(request.changed(num_inference_steps=1))  # warm
    plain, every, _ = attention_work(denoiser, lambda: session_engine.run(request))
    run, fewer, _ = attention_work(denoiser, lambda: session_engine.run(
        request.changed(cache=name)))
    assert run.status == "ok", run.error
    assert fewer < every
    assert not denoiser.is_cache_enabled
    assert session_engine.run(request).image_sha256 == plain.image_sha256


def test_the_pyramid_knows_the_timestep_of_each_call(engine):
    """Nothing is skipped outside the timesteps 100 to 800."""
    request = BASE.changed(cache="pyramid_attention_broadcast", num_inference_steps=4,
                           scheduler="ddim")
    engine.run(BASE)  # warm
    denoiser = denoiser_of(engine, "postcards")
    with engine.registry.borrow("postcards") as (model, _):
        scheduler = run_scheduler(model, resolve(request, model.info))
    scheduler.set_timesteps(4)
    inside = [100 < t < 800 for t in scheduler.timesteps.tolist()]
    _, every, _ = attention_work(denoiser, lambda: engine.run(request.changed(cache="none")))
    _, fewer, _ = attention_work(denoiser, lambda: engine.run(request))
    layers = sum("attn1" in name.rpartition(".")[2] or name.endswith(("attentions.0",))
                 and isinstance(module, Attention)
                 for name, module in denoiser.named_modules())
    skipped = sum(within and number % 2 for number, within in enumerate(inside))
    assert every - fewer == skipped * layers > 0


@pytest.fixture(scope="module")
def smallest(tmp_path_factory):
    """A pipeline that compiles in seconds: one block."""
    pipe, folder = tiny.build("dit"), tmp_path_factory.mktemp("smallest") / "dit"
    pipe.transformer = diffusers.DiTTransformer2DModel(
        **{**pipe.transformer.config, "num_layers": 1}).eval()
    pipe.save_pretrained(folder)
    return str(folder)


@pytest.mark.skipif(bool(compile_obstacle("cpu")), reason=compile_obstacle("cpu"))
def test_compiling_is_in_the_warm_up_and_kept(tmp_path, smallest):
    from torch._dynamo.utils import counters

    engine = Engine(tmp_path, device="cpu")
    base = RunRequest(model_id=smallest, task="unconditional", class_label=1,
                      num_inference_steps=3)
    graphs = counters["stats"]["unique_graphs"]
    plain = engine.run(base)
    assert counters["stats"]["unique_graphs"] == graphs
    first, second = (engine.run(base.changed(compile=True, seed=seed)) for seed in (0, 1))
    assert first.status == "ok", first.error
    assert counters["stats"]["unique_graphs"] == graphs + 1
    assert first.warm_up_ms > 10 * first.total_ms
    assert second.warm_up_ms == 0
    assert abs(pixels(engine, first) - pixels(engine, plain)).max() <= 2
    assert first.identity != plain.identity
    assert engine.run(base).image_sha256 == plain.image_sha256
    with engine.registry.borrow(smallest) as (model, _):
        assert list(model.compiled) == ["native"]
        assert "forward" not in vars(model.pipe.transformer)


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"attention_backend": "xformers"}, "'xformers'.*native, .*eager.*xformers is not inst"),
        ({"attention_backend": "_native_cudnn"}, "'_native_cudnn'.*UNet2DConditionModel on cpu"),
        ({"cache": "taylorseer_cache"}, "'taylorseer_cache'.*none, pyramid_attention_broadcast"),
        ({"compile": True, "cache": "pyramid_attention_broadcast"}, "compile.*one of the two"),
        ({"compile": True, "memory_policy": "group-offload"}, "compile.*'group-offload'.*device"),
    ],
)
def test_what_cannot_act_is_refused(engine, change, part):
    with pytest.raises(RequestError, match=part):
        engine.check(BASE.changed(**change))
    run = engine.run(BASE.changed(**change))
    assert run.status == "failed"


def test_a_name_that_nobody_knows_is_answered_with_the_names():
    with pytest.raises(RequestError, match="attention_backend: received 'fast', accepted native, "):
        BASE.changed(attention_backend="fast")


def test_a_cache_that_would_mix_up_two_calls_is_refused(session_engine, tiny_folder):
    request = RunRequest(model_id=str(tiny_folder("qwen_image")), prompt="a", num_inference_steps=8,
                         height=64, width=64, guidance_scale=4, cache="pyramid_attention_broadcast")
    with pytest.raises(RequestError, match="twice a step.*guidance_scale 1"):
        session_engine.check(request)
    for change in ({"guidance_scale": 1}, {"cache": "taylorseer_cache"}):
        assert session_engine.run(request.changed(**change)).status == "ok"
    run = session_engine.run(request.changed(cache="first_block_cache"))
    assert "finds no layer that it knows" in run.error  # one block cannot skip the others


def test_what_compiling_needs_is_said_for_each_device(monkeypatch, tmp_path):
    monkeypatch.setenv("CXX", sys.executable)  # a program that is there
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path))
    assert "Python's header files" in compile_obstacle("cpu") == compile_obstacle("mps")
    (tmp_path / "Python.h").touch()
    assert compile_obstacle("cpu") == compile_obstacle("mps") == ""
    monkeypatch.setattr("pipelines.painting.execution.find_spec", lambda name: None)
    assert "triton" in compile_obstacle("cuda:0")


def test_no_compiler_is_said_before_the_work(engine, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(RequestError, match="C.. compiler no-such-compiler.*accepted false"):
        engine.check(BASE.changed(compile=True))


def test_what_a_model_offers_is_read_from_its_files(engine, flux):
    of = engine.registry.describe
    assert denoiser_class(of("postcards")) == "UNet2DConditionModel"
    assert attention_backends(of("postcards"), "cpu") == [
        "native", "_native_math", "_native_flash", "eager", "sliced"]
    assert "_native_cudnn" in attention_backends(of(flux), "cuda:0")
    assert "sliced" not in attention_backends(of(flux), "cpu")
    assert caches(of("postcards")) == ["none", "pyramid_attention_broadcast"]
    assert caches(of(flux))[-1] == "mag_cache"


def test_each_is_an_axis_and_its_cells_run_apart(engine):
    comparison = Comparison.parse(BASE, ["cache=none,pyramid_attention_broadcast", "seed=0,1",
                                         "attention_backend=native,eager"])
    runs = engine.compare(comparison, shared=True)
    assert [run.status for run in runs] == ["ok"] * 8
    usual = [run.request["cache"] == "none" and run.request["attention_backend"] == "native"
             for run in runs]
    assert [run.shared for run in runs] == usual
    assert sum(usual) == 2


def test_what_is_dear_to_change_changes_seldom():
    cells = Comparison.parse(BASE, ["seed=0,1", "compile=false,true",
                                    "attention_backend=native,eager"]).cells
    order = [cells[number].axes for number in work_order(cells)]
    assert [(a["compile"], a["attention_backend"]) for a in order[::2]] == [
        (False, "native"), (True, "native"), (False, "eager"), (True, "eager")]
    assert [a["seed"] for a in order] == [0, 1] * 4


def test_old_rows_keep_their_identity(monkeypatch):
    """At their defaults the younger fields are not in the hash; old rows lack them."""
    old = BASE.model_dump(mode="json", exclude=set(ADDED_LATER))
    assert RunRequest(**old) == BASE
    hashed = []
    monkeypatch.setattr("pipelines.models.identity._hash", hashed.append)
    identity(BASE, "", (), "cpu", "float32")
    assert not set(ADDED_LATER) & set(hashed[0]["request"])
    monkeypatch.undo()
    hashes = {identity(BASE.changed(**change), "", (), "cpu", "float32") for change in (
        {}, {"attention_backend": "eager"}, {"cache": "pyramid_attention_broadcast"},
        {"compile": True})}
    assert len(hashes) == 4


def test_the_converged_picture_is_computed_in_the_usual_way():
    request = BASE.changed(cache="pyramid_attention_broadcast", attention_backend="eager")
    assert converged_request(request) == converged_request(BASE)
