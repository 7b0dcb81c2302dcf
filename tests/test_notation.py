"""Whatever a person types is read, or refused in our own words, and in time that grows with its
length only."""

import contextlib
import gc
import time

import pytest
from nasty import ENDLESS, PATHS, TEXTS, random_texts

from pipelines import Comparison, RunRequest, parse_axis
from pipelines.axes import AXIS_NAMES, AxisError, parse_option, parse_rule, parse_values
from pipelines.chain import parse_stage
from pipelines.cli.options import make_request
from pipelines.errors import PipelineError
from pipelines.measuring import reference_cells
from pipelines.names import file_names
from pipelines.notation import for_browser, named_values, number_text
from pipelines.request import split_model_id

BASE = RunRequest(prompt="a red car")
COMPARISON = Comparison.parse(BASE, ["seed=1,2", "prompt=a||b", "guidance_scale+model_id=1+a,2+b"])
NAMES = (*AXIS_NAMES, "scheduler_options.x", "seed+prompt", "prompt_replace+seed",
         "prompt_replace_2")  # fmt: skip
READERS = {
    "axis": parse_axis,
    **{f"axis {name}": lambda text, name=name: parse_axis(f"{name}={text}", BASE)
       for name in NAMES},
    **{f"axis {name}, JSON": lambda text, name=name: parse_axis(f"{name}:={text}", BASE)
       for name in NAMES},
    **{f"page {name}": lambda text, name=name: parse_values(name, text, BASE) for name in NAMES},
    "rule": lambda text: parse_rule(text, COMPARISON.axes, BASE),
    "rule's value": lambda text: parse_rule(f"prompt={text}", COMPARISON.axes, BASE),
    "rule's JSON": lambda text: parse_rule(f"seed:>{text}", COMPARISON.axes, BASE),
    "option": parse_option,
    "adapter": lambda text: [str(lora) for lora in RunRequest(loras=[text]).loras],
    "adapters": lambda text: RunRequest(loras=text),
    **{f"request {name}": lambda text, name=name: RunRequest(**{name: text})
       for name in RunRequest.model_fields},
    "model": split_model_id,
    "stage": parse_stage,
    "cell": lambda text: reference_cells(COMPARISON, text),
}
NASTY = list(dict.fromkeys([*ENDLESS, *TEXTS, *PATHS, *random_texts(1, 400)]))
PIECES = ("a", "1", "[", "{", '"', ",", "=", "||", "..", "1..", "1,", ":=", "skip:", "+", "seed=",
          "a@", "a ", "\\", "1 ", "a=b,", "9", "a,", " ", "/", "\n", "a:=1,", "../", "0.",
          "prompt=")


@pytest.mark.parametrize("name", READERS)
def test_only_our_own_errors(name):
    """More than 500 texts for each of more than 100 readers."""
    assert len(NASTY) > 500
    for text in NASTY:
        try:
            READERS[name](text)
        except PipelineError as error:
            message = str(error)
            assert len(message) < 3_000, text[:60]


def seconds(reader, text):
    """The least of three times: what else the machine does makes none shorter."""
    times = []
    for _ in range(3):
        start = time.process_time()
        with contextlib.suppress(PipelineError):
            reader(text)
        times.append(time.process_time() - start)
    return min(times)


@pytest.mark.parametrize("name", [name for name in READERS
                                  if name.startswith(("rule", "option", "adapter", "model", "cell",
                                                      "stage", "axis"))
                                  and name not in [f"axis {n}" for n in AXIS_NAMES[2:]]
                                  and name not in [f"axis {n}, JSON" for n in AXIS_NAMES[2:]]])
def test_time_grows_with_the_length(name):
    """Sixteen times the text takes at most about sixteen times as long, not 256 times."""
    gc.disable()
    try:
        for piece in PIECES:
            short, long = ((piece * length)[:length] for length in (1_500, 24_000))
            before = max(seconds(READERS[name], short), 1e-3)
            assert seconds(READERS[name], long) < 80 * before, piece
    finally:
        gc.enable()


def test_a_mistake_in_a_long_text_is_shown_with_what_stands_around_it():
    text = f"seed={','.join(map(str, range(500)))},x,{','.join(map(str, range(600, 900)))}"
    with pytest.raises(AxisError) as raised:
        parse_axis(text)
    shown, carets = raised.value.marked.splitlines()
    assert shown[carets.index("^")] == "x" and carets.count("^") == 1
    assert len(shown) < 210


def test_named_values_end_where_the_next_name_begins():
    def read(text, **rest):
        return [(named.name, named.operator, named.value)
                for named in named_values(text, **rest)]

    assert read("a=1, b = x, y ,c=") == [("a", "=", "1"), ("b", "=", "x, y"), ("c", "=", "")]
    assert read('a:="x,b=1", b:=2') == [("a", "=", "x,b=1"), ("b", "=", 2)]
    assert read("a=x,b=1", names="a") == [("a", "=", "x,b=1")]
    assert read("x") == read("") == []
    for text in ("a:=x", 'a:="x" y', 'a:="x",', 'a:="x"b=1'):
        with pytest.raises(AxisError, match="JSON"):
            read(text)


def test_rules_take_json_where_plain_text_cannot_hold_a_value():
    base = BASE.changed(prompt="x")
    axes = ["seed=1,2", 'prompt:=["a,seed=1", "", "b"]']
    comparison = Comparison.parse(base, axes, ['prompt:="a,seed=1",seed:>1', 'prompt:=""'])
    assert [cell.left_out for cell in comparison.cells] == [False, True, False, True, True, False]


@pytest.mark.parametrize(("value", "text"), [
    (3.0, "3"), (0.1, "0.1"), (7.5, "7.5"), (1.2345678, "1.2345678"), (0.1 + 0.2, repr(0.1 + 0.2)),
    (1e-9, "1e-09"), (123456789.0, "123456789.0")])
def test_numbers_are_written_with_the_digits_that_make_them(value, text):
    assert number_text(value) == text and float(text) == value


def test_a_browser_gets_no_integer_that_it_would_round():
    value = {"seed": 2**53, "small": 2**53 - 1, "deep": [{"x": -(2**60)}, (1, True)], "y": 1e300}
    assert for_browser(value) == {"seed": str(2**53), "small": 2**53 - 1,
                                  "deep": [{"x": str(-(2**60))}, [1, True]], "y": 1e300}


def test_options_take_json_where_text_looks_like_something_else(engine):
    fields = {"prompt": "a cat", "model_id": "postcards", "scheduler_options":
              ['a:="true"', "b=true", "c=2", 'd:="2"', "e=no", "f:=[1", "g=x=y"]}
    with pytest.raises(PipelineError, match="scheduler_option f: received '.1'.*JSON"):
        make_request(engine, fields)
    fields["scheduler_options"].remove("f:=[1")
    assert make_request(engine, fields).scheduler_options == {
        "a": "true", "b": True, "c": 2, "d": "2", "e": "no", "g": "x=y"}


def test_file_names_fit_and_differ():
    texts = [*TEXTS, "a Red car", "a red car", "con.", "車" * 300, "車" * 301]
    names = file_names(texts, 100)
    assert len({name.casefold() for name in names}) == len(texts)
    assert max(len(name.encode()) for name in names) <= 100
    assert not set("".join(names)) & set('<>:"/\\|?*\n\x00 ')
    assert not any(name.endswith((".", " ")) for name in names)
    assert file_names(["seed=1", "seed=2"]) == ["seed=1", "seed=2"]
    assert file_names(["a-Red", "a-red"]) == ["a-Red-1", "a-red-2"]
