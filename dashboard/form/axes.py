"""The axes of a comparison as widgets, and back."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Sequence

import streamlit as st

from dashboard.components.text import notice
from dashboard.form.model import fitting_schedulers
from dashboard.state import PageState
from pipelines.axes import (
    AXIS_NAMES,
    EXACT,
    OPTION,
    Axis,
    AxisError,
    format_values,
    holds_text,
    label,
    make_axis,
    parse_axis,
    parse_values,
    replaces,
)
from pipelines.comparison import Comparison
from pipelines.errors import PipelineError, RequestError
from pipelines.notation import read_json, write_json
from pipelines.request import RunRequest

OPTION_AXES = tuple(OPTION + name for name in (
    "use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "timestep_spacing",
    "solver_order", "algorithm_type", "final_sigmas_type"))
VALUES_HELP = ("1, 3, 7 or 1..10, in steps 1..10:2, a number of values 0.1..0.9/5, going on 1, 2, "
               ".., 9; skip: before a value leaves it out. A JSON list behind := holds any value: "
               '`:=["a, b.safetensors", "none"]`.')
LINES_HELP = "A JSON list behind := holds any text, also an empty one: `:=[\"two\\nlines\", \"\"]`."
REPLACE_HELP = ("The first line is looked for in the prompt; each line takes its place in turn. "
                + LINES_HELP)
AXIS_DEFAULTS = {
    "guidance_scale": "1, 3, 5, 7.5, 12",
    "num_inference_steps": "5, 10, 20, 40",
    "seed": "0, 1, 2, 3",
    "guidance_rescale": "0, 0.5, 1",
    "guidance_method": "cfg, interval, apg, cfg-zero, rescale",
    "sigma_schedule": "default, karras, exponential, ays",
    "eta": "0, 0.5, 1",
    "strength": "0.2..1/5",
    "torch_dtype": "float32, bfloat16",
    "attention_backend": "native, _native_math",
    "cache": "none, pyramid_attention_broadcast",
    "compile": "false, true",
    **dict.fromkeys(OPTION_AXES[:3], "false, true"),
    OPTION_AXES[3]: "leading, linspace, trailing",
    OPTION_AXES[4]: "1, 2, 3",
    OPTION_AXES[5]: "dpmsolver++, sde-dpmsolver++",
    OPTION_AXES[6]: "zero, sigma_min",
}
SCHEDULER_DEFAULTS = ["ddim", "euler", "dpmpp_2m", "unipc", "heun", "euler_a"]
FIRST_AXES = ("scheduler", "guidance_scale", "num_inference_steps", "seed", "prompt")


def comparison_controls(page: PageState, base: RunRequest) -> Comparison:
    """Which fields vary, over which values, and which cells are left out; raises RequestError."""
    page.start(axes=["scheduler", "guidance_scale"])
    axes, names = axis_controls(
        page, base, "Axes: the first makes rows, the second columns, others more sheets",
        lambda names: ("Rows", "Columns") if len(names) > 1 else ("Columns",))
    with st.container(horizontal=True, vertical_alignment="bottom"):
        rules = st.text_input("Leave cells out", **page.kept("skip"), width="stretch",
                              placeholder="scheduler=heun, num_inference_steps>20",
                              help="A rule over the axes; several are separated by semicolons, "
                                   "or stand as a JSON list behind :=. A value behind NAME:= is "
                                   "JSON. Cells for which all of its conditions hold are not made.")
        if "seed" not in names:
            count = st.number_input("Pictures per cell", 1, 20, **page.kept("pictures"),
                                    width=150, help="As many seeds, from the seed on.")
            if count > 1:
                axes.append(parse_axis(f"seed={base.seed}..{base.seed + count - 1}", base))
    return Comparison(base, tuple(axes), parse_rules(rules))


def axis_controls(
    page: PageState,
    base: RunRequest,
    title: str,
    places: Callable[[Sequence[str]], Sequence[str]],
    further: str = "Sheets",
    without: Collection[str] = (),
) -> tuple[list[Axis], list[str]]:
    """The axes that vary, and their names; raises RequestError. `places(names)` says what the first
    of them make, `further` what the others do; `without` are not offered."""
    order = dict.fromkeys([*FIRST_AXES, *OPTION_AXES, *AXIS_NAMES, *page.get("axes")])
    names = st.multiselect(title, [name for name in order if name not in without],
                           **page.kept("axes"), select_all=False, accept_new_options=True,
                           help="Any field of the request. Type scheduler_options.NAME for an "
                                "option of the scheduler, prompt_replace to change words of the "
                                "prompt (prompt_replace_2 for others), or names with + between "
                                "to change them together.")
    texts = [*places(names), *[further] * len(names)]
    return [_axis(page, name, place, base)
            for name, place in zip(names, texts, strict=False)], names


def parse_rules(text: str) -> tuple[str, ...]:
    """The rules that leave cells out: separated by semicolons, or a JSON list behind EXACT. Raises
    RequestError."""
    if not text.lstrip().startswith(EXACT):
        return tuple(rule.strip() for rule in text.split(";") if rule.strip())
    try:
        rules = read_json(text.strip().removeprefix(EXACT))
    except ValueError as error:
        raise RequestError(f"skip: behind {EXACT} stands a JSON list of rules ({error})") from None
    if not isinstance(rules, list) or not all(isinstance(rule, str) for rule in rules):
        raise RequestError(f"skip: behind {EXACT} stands a JSON list of rules")
    return tuple(rules)


def format_rules(rules: Sequence[str]) -> str:
    """The reverse of parse_rules."""
    plain = "; ".join(rules)
    same = plain.isprintable() and parse_rules(plain) == tuple(rules)
    return plain if same else EXACT + write_json(list(rules))


def _axis(page: PageState, name: str, place: str, base: RunRequest) -> Axis:
    values = f"values.{name}"
    if name == "scheduler":
        page.start(**{values: SCHEDULER_DEFAULTS})
        fitting = fitting_schedulers(page)
        chosen = [scheduler for scheduler in page.get(values) if scheduler not in fitting]
        return make_axis(name, st.multiselect(
            f"{place}: scheduler", [*fitting, *chosen], **page.kept(values),
            accept_new_options=True,
            help="Type class: and a name for any scheduler class of diffusers.",
            format_func=functools.partial(label, name)), base)
    current = str(page.get(name) or "")
    page.start(**{values: AXIS_DEFAULTS.get(name, current)})
    if holds_text(name):
        text = st.text_area(f"{place}: {name}, one per line", **page.kept(values), height=96,
                            help=REPLACE_HELP if replaces(name) else LINES_HELP)
    else:
        text = st.text_input(f"{place}: {name}", **page.kept(values), placeholder="1, 3, 7",
                             help=VALUES_HELP)
    return parse_values(name, text, base)


def axis_values(axis: Axis, base: RunRequest) -> str | list[str]:
    """An axis's values as its widget holds them."""
    return list(axis.values) if axis.name == "scheduler" else format_values(axis, base)


def put_comparison(page: PageState, comparison: Comparison) -> None:
    """Fill the widgets of a page with a comparison."""
    page.put(comparison.base)
    page.set("axes", [axis.name for axis in comparison.axes])
    page.set("skip", format_rules(comparison.skip))
    page.set("pictures", 1)
    for axis in comparison.axes:
        page.set(f"values.{axis.name}", axis_values(axis, comparison.base))


def problem_notice(error: PipelineError) -> None:
    """An error in words, with the place of a mistake marked where it is known."""
    if not isinstance(error, AxisError):
        notice("error", str(error))
        return
    notice("error", error.reason)
    st.code(error.marked, language=None)
