"""Every valid request fits into the widgets of every page: ranges come from the fields."""

import pytest
from apptest import html, page
from PIL import Image

from dashboard import state
from pipelines import RunRequest
from pipelines.log_tables import Run, utc_now
from pipelines.request import ROLES, limits

RANGED = [name for name, field in RunRequest.model_fields.items()
          if any(hasattr(mark, "le") for mark in field.metadata)]


def logged(request: RunRequest) -> Run:
    """A run of the log with this request, which was never made."""
    columns = {name: getattr(request, name) for name in (
        "model_id", "task", "prompt", "negative_prompt", "scheduler", "seed")}
    run = Run(
        **columns, datetime_utc=utc_now(), status="failed", error="never made",
        num_inference_steps=request.num_inference_steps or 0,
        guidance_scale=request.guidance_scale or 0, request=request.model_dump(mode="json"))
    state.engine().run_log.add(run)
    return run


def extreme(end: int, task: str) -> RunRequest:
    """The least or the largest value in each field with a range."""
    pictures = state.engine().pictures
    values = {name: limits(name)[end] for name in RANGED
              if task == "inpainting" or not ROLES[name].mask_only}
    if end == 0:  # a strength near 0 leaves no step of one; the model's own are not known here
        values |= {"strength": 5e-324, "num_inference_steps": None}
    picture = pictures.put(Image.new("RGB", (64, 64), "red"))
    mask = pictures.put(Image.new("L", (64, 64), 255)) if task == "inpainting" else None
    return RunRequest(**values, task=task, image=picture, mask_image=mask, prompt="x\n" * 4_000,
                      negative_prompt="a\nb", scheduler="lms",
                      loras=[{"path": "a=b,c\n+", "weight": limits("eta")[end]}],
                      scheduler_options={"a": "true", "b": 2**53 + 1, "c": 0.1 + 0.2})


def open_elsewhere(request: RunRequest, button: str):
    """The page that a run's button leads to."""
    run_id = logged(request).id
    app = page("runs", {"opened_run": run_id})
    app.button(key=f"drawer.{button}.{run_id}").click().run()
    assert not app.exception, app.exception
    return app


def test_fields_with_a_range():
    assert len(RANGED) > 10 and {"strength", "seed", "eta", "mask_feather"} <= set(RANGED)
    assert limits("strength") == (0.0, 1.0) and isinstance(limits("height")[1], int)


@pytest.mark.parametrize("end", [0, 1])
@pytest.mark.parametrize(("button", "task", "name"), [
    ("open", "image-to-image", "generate"), ("compare", "image-to-image", "compare"),
    ("compare", "inpainting", "compare"), ("retry", "inpainting", "in-paint")])  # fmt: skip
def test_extreme_values_fit_into_the_widgets(home, end, button, task, name):
    request = extreme(end, task)
    app = open_elsewhere(request, button)
    widgets = {element.key.partition(".")[2]: element.value for element in (
        *app.slider, *app.number_input, *app.text_area, *app.text_input)
        if element.key and element.key.startswith(f"{name}.")}
    shown = widgets.keys() & set(RANGED) - {"seed"}
    assert {"strength", "width", "height", "num_inference_steps"} <= shown
    for field in shown:
        assert widgets[field] == getattr(request, field), field
    assert widgets["seed"] == str(request.seed)
    assert widgets["prompt"] == request.prompt
    assert widgets["negative_prompt"] == request.negative_prompt
    if name == "in-paint":
        assert (widgets["feather"], widgets["padding"]) == (request.mask_feather,
                                                            request.padding_mask_crop)


@pytest.mark.parametrize(("button", "task", "name"), [
    ("open", "image-to-image", "generate"), ("compare", "image-to-image", "compare"),
    ("retry", "inpainting", "in-paint")])  # fmt: skip
def test_a_small_strength_of_many_steps_opens_everywhere(home, button, task, name):
    pictures = state.engine().pictures
    picture = pictures.put(Image.new("RGB", (64, 64), "red"))
    mask = pictures.put(Image.new("L", (64, 64), 255)) if task == "inpainting" else None
    request = RunRequest(prompt="a red car", task=task, image=picture, mask_image=mask,
                         strength=0.03, num_inference_steps=50, guidance_scale=1.2345678)
    app = open_elsewhere(request, button)
    assert app.slider(key=f"{name}.strength").value == 0.03
    app.switch_page(f"views/{name.replace('-', '')}.py").run()
    assert app.slider(key=f"{name}.strength").value == 0.03
    app.slider(key=f"{name}.strength").set_value(0.1 + 0.2).run()
    assert app.slider(key=f"{name}.strength").value == 0.3, "what a person sets is round"
    app.slider(key=f"{name}.strength").set_value(0.0).run()
    assert not app.exception
    assert "strength: received 0.0, accepted above 0" in html(app)
