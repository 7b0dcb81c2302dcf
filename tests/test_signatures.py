"""What is read from diffusers' source, held against the classes themselves."""

import inspect
from types import SimpleNamespace

import pytest
from diffusers.pipelines import auto_pipeline

from pipelines.models.signatures import (
    call_parameters,
    component_parameters,
    other_output,
    picture_parameters,
    rounds_steps_up,
    task_classes,
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
