"""Pages show what applies to a model, start at its defaults, take pictures and chain stages."""

import io
import shutil

import pytest
from apptest import component_data, finish, html, page
from PIL import Image
from repositories import cached_model

from dashboard import state
from pipelines import RunRequest
from pipelines.hub.folders import LocalFolders


def labels(app):
    widgets = [*app.text_area, *app.text_input, *app.number_input, *app.selectbox, *app.slider]
    return {widget.label for widget in widgets}


def keyed(app, kind, key):
    return next(widget for widget in getattr(app, kind) if widget.key == key)


@pytest.fixture
def with_model(home, monkeypatch):
    """A page whose model was chosen in the box, with the ids of these folders on offer."""

    def start(model_id):
        monkeypatch.setattr("dashboard.form.model.model_options",
                            lambda current: ["postcards", model_id])
        app = page("generate")
        return keyed(app, "selectbox", "generate.model_id").set_value(model_id).run()

    return start


def own_numbers(app):
    """What stands in the empty boxes of steps and guidance: the model's own."""
    boxes = [box for box in app.number_input if box.key in (
        "generate.num_inference_steps", "generate.guidance_scale")]
    assert [box.value for box in boxes] == [None] * len(boxes)
    return [box.placeholder for box in boxes]


def test_a_model_without_prompt_shows_no_prompt_and_no_guidance(with_model, tiny_folder):
    app = with_model(str(tiny_folder("ddim")))
    assert not app.exception
    shown = labels(app)
    assert not shown & {"Prompt", "Negative prompt", "guidance_scale", "Width", "Height"}
    assert "num_inference_steps" in shown
    assert own_numbers(app)[0] == "50"
    keyed(app, "number_input", "generate.num_inference_steps").set_value(2)
    app = finish(keyed(app, "button", "generate.go").click().run())
    run = state.engine().run_log.runs()[0]
    assert (run.status, run.task, run.nfe) == ("ok", "unconditional", 2), run.error
    assert not app.exception


def test_the_bundled_ddpm_is_offered_and_runs(home):
    app = page("generate")
    app = keyed(app, "selectbox", "generate.model_id").set_value("postcards-ddpm").run()
    assert own_numbers(app)[0] == "50"
    keyed(app, "number_input", "generate.num_inference_steps").set_value(2)
    app = finish(keyed(app, "button", "generate.go").click().run())
    run = state.engine().run_log.runs()[0]
    assert (run.status, run.task, run.width, run.height) == ("ok", "unconditional", 32, 32)
    assert not app.exception


def test_a_distilled_model_starts_at_few_steps_and_the_bundled_one_at_its_own(
    with_model, tiny_folder
):
    app = with_model(str(tiny_folder("sdxl_turbo")))
    assert own_numbers(app) == ["4", "0"]
    keyed(app, "number_input", "generate.num_inference_steps").set_value(7)
    app = keyed(app, "selectbox", "generate.model_id").set_value("postcards").run()
    assert own_numbers(app) == ["20", "5"]


def test_image_to_image_asks_for_a_picture_and_runs_with_one(home):
    app = page("generate")
    app = next(r for r in app.radio if r.key == "generate.task").set_value("image-to-image").run()
    assert "Choose a picture to start from" in html(app)
    app = keyed(app, "button", "generate.go").click().run()
    assert not state.job_queue().jobs()
    buffer = io.BytesIO()
    Image.linear_gradient("L").resize((72, 64)).save(buffer, "PNG")
    app = keyed(app, "file_uploader", "generate.image.upload").set_value([
        ("in.png", buffer.getvalue(), "image/png")]).run()
    assert app.session_state["generate.strength"] == 0.8  # diffusers' own
    keyed(app, "slider", "generate.strength").set_value(0.5)
    keyed(app, "number_input", "generate.num_inference_steps").set_value(4)
    app = finish(keyed(app, "button", "generate.go").click().run())
    run = state.engine().run_log.runs()[0]
    assert (run.status, run.task, run.nfe, run.width) == ("ok", "image-to-image", 2, 72), run.error
    app = keyed(app, "file_uploader", "generate.image.upload").set_value([
        ("in.png", b"nothing", "image/png")]).run()
    assert "no picture that can be read" in html(app)


def test_a_chain_shows_its_stages_side_by_side(home):
    app = page("generate")
    keyed(app, "number_input", "generate.num_inference_steps").set_value(2)
    app = keyed(app, "button", "generate.stage_add").click().run()
    keyed(app, "text_input", "generate.stage.0.prompt").set_value("a blue car at night")
    keyed(app, "number_input", "generate.stage.0.strength").set_value(0.5)
    app = finish(keyed(app, "button", "generate.go").click().run())
    assert not app.exception
    two, one = state.engine().run_log.runs()
    assert two.parent_id == one.id
    assert (two.prompt, two.nfe) == ("a blue car at night", 1)
    viewers = [element.proto for element in app.get("bidi_component")
               if element.proto.component_name == "contact_sheet.picture"]
    assert len(viewers) == 2
    assert [tab.label for tab in app.tabs] == ["Stage 1 · postcards", "Stage 2 · postcards"]
    app = keyed(app, "button", "generate.stage_remove").click().run()
    assert "generate.stage.0.prompt" not in {widget.key for widget in app.text_input}


def test_a_run_s_picture_becomes_the_input(home):
    run = state.engine().run(RunRequest(prompt="a red car", num_inference_steps=2))
    app = page("generate")
    app = keyed(app, "button", f"generate.input.{run.id}").click().run()
    assert app.session_state["generate.task"] == "image-to-image"
    assert app.session_state["generate.image"] == run.image_sha256
    shown = component_data(app, "contact_sheet.picture")["pictures"][0]
    assert shown["url"]


def test_loras_and_a_dtype_reach_the_request(home):
    app = page("generate", {"generate.loras": "a.safetensors = 0.5\nb.safetensors",
                            "generate.torch_dtype": "bfloat16"})
    keyed(app, "number_input", "generate.num_inference_steps").set_value(1)
    finish(keyed(app, "button", "generate.go").click().run())
    run = state.engine().run_log.runs()[0]
    assert run.status == "failed"  # there are no such files
    assert "'a.safetensors', accepted a .safetensors file" in run.error
    assert run.request["torch_dtype"] == "bfloat16"
    assert [lora["weight"] for lora in run.request["loras"]] == [0.5, 1.0]


def test_how_the_denoiser_computes_is_offered_as_far_as_it_can_act(with_model, tiny_folder):
    app = with_model(str(tiny_folder("dit")))
    assert "sliced" not in keyed(app, "selectbox", "generate.attention_backend").options
    app = keyed(app, "selectbox", "generate.model_id").set_value("postcards").run()
    keyed(app, "number_input", "generate.num_inference_steps").set_value(4)
    keyed(app, "selectbox", "generate.cache").set_value("pyramid_attention_broadcast")
    app = keyed(app, "selectbox", "generate.attention_backend").set_value("sliced").run()
    finish(keyed(app, "button", "generate.go").click().run())
    run = state.engine().run_log.runs()[0]
    assert run.status == "ok", run.error
    assert (run.request["attention_backend"], run.request["cache"]) == (
        "sliced", "pyramid_attention_broadcast")
    app = keyed(app, "selectbox", "generate.model_id").set_value(str(tiny_folder("dit"))).run()
    assert app.session_state["generate.attention_backend"] == "native"


def test_a_comparison_over_strengths_starts_from_the_picture(home):
    engine = state.engine()
    run = engine.run(RunRequest(prompt="a red car", num_inference_steps=2))
    app = page("compare", {
        "compare.task": "image-to-image", "compare.image": run.image_sha256,
        "compare.num_inference_steps": 4, "compare.axes": ["strength"],
        "compare.values.strength": "0.25, 0.5, 1",
    })  # fmt: skip
    assert not app.exception
    assert "Strength" not in labels(app)
    finish(keyed(app, "button", "compare.go").click().run())
    runs = state.engine().run_log.runs(ascending=True)[1:]
    assert [cell.nfe for cell in runs] == [1, 2, 4]
    assert {cell.request["image"] for cell in runs} == {run.image_sha256}


def test_a_controlnet_asks_for_its_picture(with_model, tiny_folder):
    app = with_model(str(tiny_folder("controlnet")))
    assert "control_image: StableDiffusionControlNetPipeline needs one" in html(app)
    buffer = io.BytesIO()
    Image.linear_gradient("L").resize((64, 64)).save(buffer, "PNG")
    app = keyed(app, "file_uploader", "generate.control_image.upload").set_value([
        ("edges.png", buffer.getvalue(), "image/png")]).run()
    assert "needs one" not in html(app)
    for name, value in (("num_inference_steps", 2), ("width", 64), ("height", 64)):
        keyed(app, "number_input", f"generate.{name}").set_value(value)
    finish(keyed(app, "button", "generate.go").click().run())
    run = state.engine().run_log.runs()[0]
    assert run.status == "ok", run.error
    assert run.request["control_image"]


def test_a_class_conditional_model_asks_for_its_class(with_model, tiny_folder):
    app = with_model(str(tiny_folder("dit")))
    keyed(app, "number_input", "generate.class_label").set_value(3)
    keyed(app, "number_input", "generate.num_inference_steps").set_value(2)
    finish(keyed(app, "button", "generate.go").click().run())
    run = state.engine().run_log.runs()[0]
    assert (run.status, run.request["class_label"]) == ("ok", 3), run.error


def test_examples_for_an_inpainting_model_come_with_it_and_run(home, tiny_folder):
    """Nine channels, a picture of 480 x 320 px, the masked part or all but it."""
    titles = ("A glass ball, in detail", "Another room")
    assert not set(titles) & {button.label for button in page("inpaint").button}
    LocalFolders(state.engine().home).add(str(tiny_folder("sdxl_inpaint")), state.engine().registry)
    for title in titles:
        app = page("inpaint")
        app = next(button for button in app.button if button.label == title).click().run()
        app = finish(app)
        assert not app.exception
        run = state.engine().run_log.runs()[0]
        assert (run.status, run.model_id) == ("ok", str(tiny_folder("sdxl_inpaint"))), run.error
        assert (run.width, run.height, run.changed_unmasked_pixels) == (480, 320, 0)
        assert run.unmasked_pixels > 10_000 and run.guidance_scale == 7.5
    assert f"0 of {run.unmasked_pixels:,} unmasked pixels changed." in html(app)


def test_compare_keeps_the_mask_when_the_model_changes(home, tiny_folder, monkeypatch):
    model = str(tiny_folder("sdxl_inpaint"))
    monkeypatch.setattr("dashboard.form.model.model_options",
                        lambda current: ["postcards", model])
    pictures = state.engine().pictures
    mask = Image.new("L", (64, 64))
    mask.paste(255, (0, 0, 32, 32))
    carried = {"mask_image": pictures.put(mask), "mask_feather": 0, "revision": "main"}
    app = page("compare", {"compare.task": "inpainting", "compare.carried": carried,
                           "compare.image": pictures.put(Image.new("RGB", (64, 64), "teal"))})
    assert "25.0% of the picture is repainted" in html(app)
    app = keyed(app, "selectbox", "compare.model_id").set_value(model).run()
    assert not app.exception
    assert "revision" not in app.session_state["compare.carried"]
    assert "25.0% of the picture is repainted" in html(app)


@pytest.fixture
def broken_models(home, monkeypatch, tiny_folder):
    """A registered folder and a model of the cache, each with one link to nothing."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(home / "cache"))
    state.hub.clear()
    registered = shutil.copytree(tiny_folder("ddim"), home / "mine")
    LocalFolders(home).add(str(registered), state.engine().registry)
    for folder in (registered, cached_model(home / "cache", tiny_folder("ddim"))):
        weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
        weights.unlink()
        weights.symlink_to("nothing")
    yield str(registered), "nobody/model"
    state.hub.clear()


@pytest.mark.parametrize("name", ["generate", "compare", "inpaint", "hub"])
def test_a_model_with_a_link_to_nothing_takes_no_page_down(broken_models, name):
    app = page(name)
    assert not app.exception
    if name == "hub":
        listed = component_data(app, "contact_sheet.model_list")["lines"]
        lines = {line["id"]: line for line in listed}
        for model_id in broken_models:
            assert "is not complete" in lines[model_id]["problem"]
        assert not lines["postcards"]["problem"]


def test_a_broken_list_of_folders_takes_no_page_down(home):
    (home / "models.json").write_bytes(b"[" * 100_000)
    assert not page("generate").exception
    app = page("hub", {"hub.view": "This machine"})
    assert not app.exception
    assert "models.json cannot be read" in html(app)


def test_an_exact_model_runs_from_the_page_without_a_prompt(home):
    app = page("generate")
    app = keyed(app, "selectbox", "generate.model_id").set_value("exact-latents").run()
    assert not app.exception
    assert own_numbers(app) == ["20", "1"]
    keyed(app, "number_input", "generate.num_inference_steps").set_value(2)
    finish(keyed(app, "button", "generate.go").click().run())
    run = state.engine().run_log.runs()[0]
    assert (run.model_id, run.status, run.nfe) == ("exact-latents", "ok", 2), run.error
