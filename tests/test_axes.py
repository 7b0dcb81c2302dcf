import json

import pytest

from pipelines import Axis, Comparison, RequestError, RunRequest, parse_axis
from pipelines.axes import AxisError, label, make_axis

BASE = RunRequest(prompt="a red car, at night", num_inference_steps=3)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("num_inference_steps=1,3,7", (1, 3, 7)),
        ("num_inference_steps=1..4", (1, 2, 3, 4)),
        ("num_inference_steps=4..1", (4, 3, 2, 1)),
        ("num_inference_steps=1..10:2", (1, 3, 5, 7, 9)),
        ("num_inference_steps=10..1:-4", (10, 6, 2)),
        ("num_inference_steps=1,2,..,5", (1, 2, 3, 4, 5)),
        ("num_inference_steps=5,10,..,15,40", (5, 10, 15, 40)),
        ("num_inference_steps=20,15,..,5", (20, 15, 10, 5)),
        ("num_inference_steps=10,11,..,12", (10, 11, 12)),
        ("guidance_rescale=0.1..0.9/5", (0.1, 0.3, 0.5, 0.7, 0.9)),
        ("guidance_scale=1..2:0.5", (1, 1.5, 2)),
        ("guidance_scale=1, skip:3, 5", (1, 5)),
        ("num_inference_steps=skip:1..3, 9", (9,)),
        ("seed=1||2", (1, 2)),
        ("scheduler=ddim,euler", ("ddim", "euler")),
        ("prompt=a red car, at night || a blue boat", ("a red car, at night", "a blue boat")),
        ("prompt=a cat||skip:a dog", ("a cat",)),
        ("model_id=../a,../b", ("../a", "../b")),
        ("scheduler_options.use_karras_sigmas=true,false", (True, False)),
        ("scheduler_options.solver_order=1..3", (1, 2, 3)),
        ("scheduler_options.timestep_spacing=leading,trailing", ("leading", "trailing")),
        ("loras=none,a.safetensors=0.5", ("none", "a.safetensors=0.5")),
        ("torch_dtype=float32,bfloat16", ("float32", "bfloat16")),
        ("num_inference_steps+scheduler=20+ddim, 10+dpmpp_2m", ((20, "ddim"), (10, "dpmpp_2m"))),
        ("seed+prompt=1+a cat || 2+a dog, red", ((1, "a cat"), (2, "a dog, red"))),
    ],
)
def test_values(text, values):
    axis = parse_axis(text)
    assert axis.values == pytest.approx(values) if isinstance(values[0], float) else \
        axis.values == values
    assert Axis.from_dict(json.loads(json.dumps(axis.as_dict()))) == axis


@pytest.mark.parametrize(
    ("text", "place", "reason"),
    [
        ("guidance_scale", "guidance_scale", "NAME=VALUES"),
        ("seed+seed=1+2", "seed+seed", "linked with itself"),
        ("guidance_scale=1, high", "high", "'high'.*0 to 100"),
        ("guidance_scale=1, 500, 3", "500", "'500'.*0 to 100"),
        ("seed=1,1", "1", "more than once"),
        ("seed=3,1..5", "1..5", "3 is given more than once"),
        ("num_inference_steps=1..9:-1", "1..9:-1", "never leads"),
        ("num_inference_steps=1..9:0", "1..9:0", "never leads"),
        ("num_inference_steps=1..10/4,1...3", "1...3", "a range reads"),
        ("num_inference_steps=1..10/5", "1..10/5", "'3.25'"),
        ("num_inference_steps=1..10/1", "1..10/1", "at least 2"),
        ("seed=0..99999", "0..99999", "more than 1000"),
        ("seed=0..9/99999", "0..9/99999", "more than 1000"),
        ("seed=1,..,9", "..", "two numbers before"),
        ("seed=1,2,..", "..", "one behind"),
        ("seed=1,3,..,10", "..", "steps of 2 never lead from 3 to 10"),
        ("seed=skip:1", "skip:1", "every value is skipped"),
        ("num_inference_steps+scheduler=20", "20", "2 values"),
        ("num_inference_steps+scheduler=20+eular", "20+eular", "'eular'"),
        ("prompt_replace=||blue", "", "the one to look for"),
    ],
)  # fmt: skip
def test_bad_syntax_marks_the_place(text, place, reason):
    with pytest.raises(AxisError, match=reason) as raised:
        parse_axis(text)
    shown, carets = raised.value.marked.splitlines()
    assert shown == text
    marked = text[carets.index("^") : carets.rindex("^") + 1]
    assert marked == place or not place
    assert str(raised.value).endswith(raised.value.marked)


@pytest.mark.parametrize("text", ["guidance_scale=1,,2", "seed=", "seed=1,"])
def test_a_missing_value(text):
    with pytest.raises(AxisError, match="value is missing"):
        parse_axis(text)


def test_options_of_a_scheduler_join_those_of_the_base():
    base = BASE.changed(scheduler="dpmpp_2m", scheduler_options={"solver_order": 3})
    comparison = Comparison.parse(base, ["scheduler_options.use_karras_sigmas=true,false"])
    assert [cell.request.scheduler_options for cell in comparison.cells] == [
        {"solver_order": 3, "use_karras_sigmas": on} for on in (True, False)]


def test_words_are_replaced_after_the_prompt_is_chosen():
    axes = ["prompt_replace=red||blue||", "prompt=a red car||two red, red boats"]
    comparison = Comparison.parse(BASE, axes)
    assert [cell.request.prompt for cell in comparison.cells] == [
        "a red car", "two red, red boats", "a blue car", "two blue, blue boats",
        "a  car", "two ,  boats"]  # fmt: skip
    kept = parse_axis("prompt_replace=skip:red||blue")
    assert (kept.search, kept.values) == ("red", ("blue",))
    with pytest.raises(RequestError, match="'green' is not in the prompt 'a red car, at night'"):
        len(Comparison.parse(BASE, ["prompt_replace=green||blue"]).cells)


def test_linked_axes_change_fields_together():
    comparison = Comparison.parse(
        BASE, ["num_inference_steps+scheduler=20+ddim, 10+dpmpp_2m", "seed=0,1"])
    cells = comparison.cells
    assert [(c.request.num_inference_steps, c.request.scheduler) for c in cells[::2]] == [
        (20, "ddim"), (10, "dpmpp_2m")]
    assert label(comparison.rows.name, comparison.rows.values[1]) == "10 + DPM++ 2M"
    with pytest.raises(RequestError, match="scheduler is given more than once"):
        Comparison.parse(BASE, ["num_inference_steps+scheduler=20+ddim", "scheduler=heun"])


def test_rules_leave_cells_out_and_keep_their_place():
    axes = ["scheduler=ddim,heun", "num_inference_steps=10,20,50"]
    rule = "scheduler=heun,num_inference_steps>10"
    comparison = Comparison.parse(BASE, axes, [rule, "scheduler=ddim, num_inference_steps=20"])
    assert [cell.left_out for cell in comparison.cells] == [
        False, True, False, False, True, True]  # fmt: skip
    linked = Comparison.parse(BASE, ["num_inference_steps+scheduler=20+ddim,10+heun"],
                              ["scheduler=heun"])
    assert [cell.left_out for cell in linked.cells] == [False, True]
    with pytest.raises(RequestError, match="leaves no cell"):
        Comparison.parse(BASE, axes, ["num_inference_steps>=10"])


@pytest.mark.parametrize(
    ("rule", "place", "reason"),
    [
        ("heun", "heun", "accepted NAME=VALUE"),
        ("sampler=heun", "sampler", "'sampler' is no axis"),
        ("scheduler=heum", "heum", "'heum'"),
        ("scheduler=heun,seed=x", "x", "'x'"),
        ("scheduler>heun", ">", "no order"),
    ],
)
def test_a_bad_rule_marks_the_place(rule, place, reason):
    with pytest.raises(AxisError, match=reason) as raised:
        Comparison.parse(BASE, ["scheduler=ddim,heun", "seed=0,1"], [rule])
    shown, carets = raised.value.marked.splitlines()
    assert shown[carets.index("^") : carets.rindex("^") + 1] == place


@pytest.mark.parametrize("text", ["cfg=1,2", "seed+cfg=1+2", "scheduler_options.=1"])
def test_an_unknown_name(text):
    with pytest.raises(RequestError, match="received '(cfg|scheduler_options.)'.*guidance_scale"):
        parse_axis(text)


def test_values_from_widgets_need_no_syntax():
    assert make_axis("scheduler", ["ddim", "euler"]).values == ("ddim", "euler")
    with pytest.raises(RequestError, match="a value is missing"):
        make_axis("scheduler", [])


@pytest.mark.parametrize(("text", "values"), [
    ("seed=10000000000000000..10000000000000002",
     (10**16, 10**16 + 1, 10**16 + 2)),
    ("seed=9223372036854775805..9223372036854775807", tuple(range(2**63 - 3, 2**63))),
    ("seed=10000000000000001,10000000000000003,..,10000000000000007",
     tuple(range(10**16 + 1, 10**16 + 8, 2))),
    ("seed=10000000000000001..20000000000000001/2", (10**16 + 1, 2 * 10**16 + 1)),
    ("guidance_scale=0.12345678901234567..0.4:0.1",
     (0.12345678901234567, 0.22345678901234567, 0.32345678901234567)),
    ("guidance_scale=0..1/4", (0.0, 0.333333333333, 0.666666666667, 1.0)),
])  # fmt: skip
def test_ranges_are_exact_to_the_last_digit(text, values):
    assert parse_axis(text).values == values


@pytest.mark.parametrize(("text", "reason"), [
    ("seed=1,2,..,1" + "0" * 30, "more than 1000"),
    ("seed=1..2/" + "9" * 5000, "up to 100 digits"),
    ("seed=1..2/" + "9" * 50, "more than 1000"),
    ("seed=9223372036854775807..9223372036854775808", "9223372036854775807"),
    ("seed=" + "9" * 5000, "0 to 9223372036854775807"),
    ("seed:=" + "[" * 10_000, "JSON list"),
    ("seed:=[" + "9" * 5000 + "]", "JSON list"),
    ("scheduler_options.x=" + "9" * 30, "whole numbers"),
])  # fmt: skip
def test_numbers_beyond_all_bounds_are_refused(text, reason):
    with pytest.raises(RequestError, match=reason):
        parse_axis(text)


def test_texts_that_plain_lists_cannot_hold_stand_as_json():
    assert parse_axis('prompt:=["a\\nb", "", "c||d", "skip: the bus"]').values == (
        "a\nb", "", "c||d", "skip: the bus")
    assert parse_axis('seed+prompt:=[[1, "a"], [2, ""]]').values == ((1, "a"), (2, ""))
    assert parse_axis('loras:=["a,b.safetensors", "none"]').values == ("a,b.safetensors", "none")
    assert parse_axis('scheduler_options.x:=["true", true, "1", 2]').values == (
        "true", True, "1", 2)
    assert parse_axis("guidance_scale:=[null, 5]").values == (None, 5.0)
    axis = parse_axis('prompt_replace:={"search": "red", "values": ["blue", ""]}')
    assert (axis.search, axis.values) == ("red", ("blue", ""))
    assert parse_axis('prompt="a"||:=["b"]').values == ('"a"', ':=["b"]'), "as it always was"


def test_two_axes_replace_words_of_one_prompt():
    base = BASE.changed(prompt="a red car and a blue boat")
    comparison = Comparison.parse(base, ["prompt_replace=red||blue", "prompt_replace=blue||red"])
    assert [axis.name for axis in comparison.axes] == ["prompt_replace", "prompt_replace_2"]
    assert [cell.request.prompt for cell in comparison.cells] == [
        "a red car and a blue boat", "a red car and a red boat",
        "a blue car and a blue boat", "a blue car and a red boat"]  # fmt: skip
    assert [cell.axes for cell in comparison.cells][1] == {"prompt_replace": "red",
                                                           "prompt_replace_2": "red"}
    again = Comparison(base, tuple(Axis.from_dict(json.loads(json.dumps(axis.as_dict())))
                                   for axis in comparison.axes))
    assert again == comparison
    ruled = Comparison(base, comparison.axes, ("prompt_replace=red,prompt_replace_2=red",))
    assert [cell.left_out for cell in ruled.cells] == [False, True, False, False]
    three = ["prompt_replace=red||x", "prompt_replace+seed=car+1||y+2", "prompt_replace=a||z"]
    assert Comparison.parse(base, three).cells[-1].request.prompt == "z x y znd z blue bozt"
    with pytest.raises(RequestError, match="another axis looks for 'red', too"):
        len(Comparison.parse(base, ["prompt_replace=red||x", "prompt_replace=red||y"]).cells)
    with pytest.raises(RequestError, match="'car' is not in the prompt"):
        len(Comparison.parse(base, ["prompt_replace=red car||x", "prompt_replace=car||y"]).cells)


@pytest.mark.parametrize(("name", "values", "labels"), [
    ("guidance_scale", (1.2345678, 1.2345679, 3.0), ("1.2345678", "1.2345679", "3")),
    ("prompt", ("a cat", "a cat ", "", "(empty)"),
     ('"a cat"', '"a cat "', '""', '"(empty)"')),
    ("scheduler_options.x", ("2", 2, True, "on", "off"), ('"2"', "2", "true", '"on"', "off")),
    ("torch_dtype", (None, "float32"), ("default", "float32")),
    ("revision", ("a" * 40, "a" * 39 + "b", "main"), (f'"{"a" * 40}"', f'"{"a" * 39}b"', "main")),
    ("prompt", ("x" * 400, "x" * 400 + "y"), (f'1: "{"x" * 400}"', f'2: "{"x" * 400}y"')),
])  # fmt: skip
def test_no_two_headings_are_alike(name, values, labels):
    assert Axis(name, values).labels == labels
