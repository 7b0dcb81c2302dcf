"""What is read from diffusers' source, held against the classes themselves."""

import gc
import inspect
import sys
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
from diffusers.pipelines import auto_pipeline

from pipelines.models import signatures
from pipelines.models.call_source import offered_classes, read_call
from pipelines.models.signatures import (
    call_parameters,
    component_parameters,
    other_output,
    picture_parameters,
    rounds_steps_up,
    task_classes,
    unknown_inputs,
)

LISTED = {cls.__name__: cls for name, table in vars(auto_pipeline).items()
          if name.endswith("_PIPELINES_MAPPING") for cls in table.values()}  # fmt: skip


@pytest.mark.parametrize("name", LISTED)
def test_every_listed_class_is_read_as_python_reads_it(name):
    for method, read in (("__call__", call_parameters), ("__init__", component_parameters)):
        parameters = list(inspect.signature(getattr(LISTED[name], method)).parameters.values())[1:]
        assert list(read(name)) == [p.name for p in parameters if p.kind is not p.VAR_KEYWORD]
    if other_output(name):
        return
    for task, class_name in task_classes(name).items():
        pictures = picture_parameters(class_name, task)
        assert set(pictures.values()) <= set(call_parameters(class_name)), (task, class_name)
        assert ("image" in pictures) == (task in ("image-to-image", "inpainting"))
        assert ("mask_image" in pictures) == (task == "inpainting")


def test_how_each_inpainting_class_rounds_its_steps():
    """Asked from the methods themselves, with a scheduler that only has timesteps."""
    stand_in = SimpleNamespace(scheduler=SimpleNamespace(timesteps=range(10), order=1))
    seen = set()
    for cls in auto_pipeline.AUTO_INPAINT_PIPELINES_MAPPING.values():
        if own := getattr(cls, "get_timesteps", None):
            given = [10, 0.35, "cpu"][: len(inspect.signature(own).parameters) - 1]
            steps = own(stand_in, *given)[1]
            assert steps == (4 if rounds_steps_up(cls.__name__) else 3), cls.__name__
            seen.add(steps)
    assert seen == {3, 4}


def test_what_a_pipeline_makes():
    assert other_output("WanPipeline") == other_output("HeliosPipeline") == "video"
    assert other_output("StableAudioPipeline") == "sound"
    assert "embeddings" in other_output("KandinskyV22PriorPipeline")
    for name in ("StableDiffusionPipeline", "KandinskyV22CombinedPipeline",
                 "Kandinsky5T2IPipeline", "StableCascadeCombinedPipeline"):  # fmt: skip
        assert other_output(name) is None


def test_which_picture_is_the_control_image():
    control = {"control_image": "image"}
    assert picture_parameters("StableDiffusionControlNetPipeline", "text-to-image") == control
    assert picture_parameters("StableDiffusionXLAdapterPipeline", "text-to-image") == control
    assert picture_parameters("StableDiffusionControlNetImg2ImgPipeline", "image-to-image") == {
        "control_image": "control_image", "image": "image"}  # fmt: skip
    assert picture_parameters("StableDiffusion3ControlNetInpaintingPipeline", "inpainting") == {
        "image": "control_image", "mask_image": "control_mask"}  # fmt: skip
    assert picture_parameters("FluxKontextPipeline", "text-to-image") == {}


T2I, I2I, INPAINT = "text-to-image", "image-to-image", "inpainting"


@pytest.mark.parametrize(("name", "tasks"), [
    ("OmniGenPipeline", {T2I, I2I}), ("DreamLitePipeline", {T2I, I2I}),
    ("DreamLiteMobilePipeline", {T2I, I2I}), ("Flux2KleinKVPipeline", {T2I, I2I}),
    ("QwenImage21Pipeline", {T2I, I2I}), ("ZImageOmniPipeline", {T2I, I2I}),
    ("BriaFiboEditPipeline", {T2I, I2I, INPAINT}),  # its mask is optional, too
    # These fail without their picture, though it has a default.
    ("QwenImageEditPlusPipeline", {I2I}), ("StableDiffusionInstructPix2PixPipeline", {I2I}),
    ("LongCatImageEditPipeline", {I2I}), ("SanaSprintImg2ImgPipeline", {I2I}),
    ("FluxFillPipeline", {INPAINT}), ("StableCascadeCombinedPipeline", {T2I}),
])  # fmt: skip
def test_a_picture_that_is_optional_makes_no_task_impossible(name, tasks):
    assert set(offered_classes(name)) == tasks


def test_calls_that_are_sure_to_fail_are_few():
    """Of the pipelines that the Auto classes list, all can be called with what a request gives."""
    refused = {(name, task): reason for name in LISTED if not other_output(name)
               for task, cls in task_classes(name).items()
               if (reason := read_call(cls, task).refusal) and not unknown_inputs(cls)}
    assert refused == {}


def takes_its_time(*_):
    sum(range(500))


def test_sources_are_read_by_many_threads():
    """Python 3.11 counts the depth of the syntax trees of all threads as one: "AST constructor
    recursion depth mismatch" where threads take turns, as they do while rubbish is collected."""
    paths = sorted((signatures._root() / "flux2").glob("*.py"))
    interval, threshold = sys.getswitchinterval(), gc.get_threshold()
    sys.setswitchinterval(1e-6)
    gc.set_threshold(500)
    gc.callbacks.append(takes_its_time)
    signatures._parsed.cache_clear()
    try:
        with ThreadPoolExecutor(8) as pool:
            trees = list(pool.map(signatures._tree, paths))
    finally:
        gc.callbacks.remove(takes_its_time)
        sys.setswitchinterval(interval)
        gc.set_threshold(*threshold)
    assert all(tree.body for tree in trees)
