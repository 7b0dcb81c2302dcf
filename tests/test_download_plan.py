"""Which files of a repository are fetched, and what is refused with the reason."""

import pytest
from repositories import INDEX

from pipelines.errors import RefusedError
from pipelines.hub.plan import HubFile, make_plan


def files(*paths):
    return [HubFile(path, 10, "a" * 40) for path in paths]


def planned(*paths, index=INDEX, **options):
    plan = make_plan("a/b", "main", "c" * 40, files("model_index.json", *paths), index, **options)
    return [file.path for file in plan.files]


UNET = "unet/config.json", "scheduler/scheduler_config.json"


def test_shards_come_with_their_index_and_without_other_variants():
    shards = [f"unet/diffusion_pytorch_model-0000{n}-of-00002.safetensors" for n in (1, 2)]
    half = [f"unet/diffusion_pytorch_model.fp16-0000{n}-of-00002.safetensors" for n in (1, 2)]
    old = [f"unet/model-0000{n}-of-00002.bf16.safetensors" for n in (1, 2)]
    listing = "unet/diffusion_pytorch_model.safetensors.index.json"
    every = [*UNET, *shards, *half, listing, listing.replace(".json", ".fp16.json"), *old,
             "unet/model.safetensors.index.bf16.json"]
    assert {*shards, listing} < set(planned(*every)) and not {*half, *old} & set(planned(*every))
    assert {*half, listing.replace(".json", ".fp16.json")} < set(planned(*every, variant="fp16"))
    assert set(old) < set(planned(*every, variant="bf16"))


def test_one_file_is_preferred_to_its_shards():
    one = "unet/diffusion_pytorch_model.safetensors"
    shard = "unet/diffusion_pytorch_model-00001-of-00001.safetensors"
    assert shard not in planned(*UNET, one, shard, f"{one}.index.json")


def test_the_only_variant_is_taken_without_asking():
    half = "unet/diffusion_pytorch_model.fp16.safetensors"
    assert half in planned(*UNET, half)


@pytest.mark.parametrize("paths, index, words", [
    (UNET, {**INDEX, "_class_name": ["mine", "Pipe"]}, "code of its own"),
    (UNET, {**INDEX, "unet": ["mine", "UNet"]}, "own code is never run"),
    (UNET[1:], INDEX, "names unet, but there is no such folder"),
    (UNET, INDEX, "no safetensors by a name that diffusers reads"),
    ((*UNET, "unet/weights.safetensors"), INDEX, "no safetensors by a name"),
    ((*UNET, "unet/model.onnx"), INDEX, "only as ONNX"),
    ((*UNET, "unet/flax_model.msgpack"), INDEX, "only as Flax"),
    ((*UNET, "unet/diffusion_pytorch_model.ckpt"), INDEX, "pickle"),
])
def test_what_cannot_be_opened_is_refused_with_the_reason(paths, index, words):
    with pytest.raises(RefusedError, match=words):
        planned(*paths, index=index)


def test_repositories_without_a_pipeline_say_what_they_are():
    for paths, words in ((["config.json", "model.safetensors"], "single component"),
                         (["a.ckpt"], "pickle"), (["README.md"], "no diffusion pipeline")):
        with pytest.raises(RefusedError, match=words):
            make_plan("a/b", "main", "c" * 40, files(*paths), None)


def test_only_the_configs_for_a_single_file_from_elsewhere():
    weights = "unet/diffusion_pytorch_model.safetensors"
    got = planned(*UNET, weights, f"{weights}.index.json", configs_only=True)
    assert got == ["model_index.json", "scheduler/scheduler_config.json", "unet/config.json"]


@pytest.mark.parametrize("path", ["../evil.safetensors", "/etc/x.safetensors",
                                  "a/../../x.safetensors", "c:\\x.safetensors"])
def test_a_file_that_would_leave_the_cache_is_refused(path):
    with pytest.raises(RefusedError, match="cannot be stored"):
        make_plan("a/b", "main", "c" * 40, files(path), None)
    with pytest.raises(RefusedError, match="cannot be stored"):
        make_plan("a/b", "main", "c" * 40, [HubFile("x.safetensors", 1, "../../x")], None)
