"""The form of a study: methods, prompts, seeds, and what it would cost and could show."""

from __future__ import annotations

import math

import streamlit as st

from dashboard import state
from dashboard.browser import asked
from dashboard.components.text import forecast_text, notice, words
from dashboard.form.axes import axis_controls, axis_values, parse_rules, problem_notice
from dashboard.form.fields import (
    advanced_controls,
    number_controls,
    prompt_control,
    scheduler_control,
    size_controls,
    unknown_words_note,
)
from dashboard.form.model import model_control
from pipelines.comparison import Comparison
from pipelines.errors import PipelineError
from pipelines.jobs import submit_study
from pipelines.measuring import CONVERGED
from pipelines.postcards.vocabulary import CAPTIONED_MODELS
from pipelines.request import RunRequest
from pipelines.study.design import MOST_METHODS, NOT_METHODS, Study
from pipelines.study.measures import DEFAULT, MEASURES
from pipelines.study.prompts import Prompt, bundled_prompts, parse_prompts
from pipelines.study.user_measures import register_setting

PAGE = state.STUDY
COME_WITH, TYPED, FILE = "That come with the program", "A list", "A file"
FIRST_METHODS = ["ddim", "dpmpp_2m", "unipc"]
START = {"axes": ["scheduler"], "values.scheduler": FIRST_METHODS, "prompts.source": COME_WITH,
         "prompts.count": 60, "seeds": 2, "measures": list(DEFAULT), "reference": CONVERGED,
         "stop": False}


def start_form() -> None:
    PAGE.start_request()
    PAGE.start(**START)


def put_methods(comparison: Comparison) -> None:
    """Fill the form with the methods of a comparison; its prompts and seeds stay behind, and so do
    axes that would make too many methods."""
    PAGE.put(comparison.base)
    PAGE.start(**START)
    axes, left_out = [], []
    for axis in comparison.axes:
        if NOT_METHODS.intersection(axis.parts):
            continue
        count = math.prod(len(a.values) for a in (*axes, axis))
        (axes if count <= MOST_METHODS else left_out).append(axis)
    PAGE.set("axes", [axis.name for axis in axes])
    PAGE.set("skip", "")
    PAGE.set("left_out", ", ".join(axis.name for axis in left_out))
    for axis in axes:
        PAGE.set(f"values.{axis.name}", axis_values(axis, comparison.base))


def setup() -> str | None:
    """The form; the id of the study that was started just now."""
    problem, line = None, "No forecast yet"
    left, right = st.columns([5, 6], gap="large")
    names = set(PAGE.get("axes"))
    varied = {part for name in names for part in name.split("+")} | {"prompt"}
    with left:
        if "scheduler" not in varied:
            scheduler_control(PAGE)
        number_controls(PAGE, without=varied)
        prompt_control(PAGE, without=varied)  # the negative one
        with st.popover("Model, size and more", icon=":material/tune:"):
            if "model_id" not in varied:
                model_control(PAGE)
            size_controls(PAGE, without=varied)
            advanced_controls(PAGE, without=varied)
        prompts_problem = _prompt_controls()
    with right:
        try:
            base = PAGE.request(prompt="", task="text-to-image")
            design = _design(base, prompts_problem)
            expected, in_log, sentences = state.outlook_of(design)
        except PipelineError as error:
            problem = error
        if not problem:
            reused = f" · {in_log} cells from the log" if in_log else ""
            line = (f"**{expected.cells} pictures**, references among them{reused} · "
                    f"{expected.nfe} function evaluations · {forecast_text(expected.seconds)}")
        with st.container(horizontal=True, vertical_alignment="center", gap="medium"):
            go = st.button("Start study", type="primary", icon=":material/query_stats:",
                           shortcut="Ctrl+Enter", key=PAGE.key("go"), disabled=bool(problem))
            st.caption(line)
        if names_left := PAGE.get("left_out"):
            notice("note", f"{names_left} of the comparison is left out: with it there would be "
                           f"more than {MOST_METHODS} methods.")
        if problem:
            problem_notice(problem)
        else:
            for sentence in sentences:
                words(sentence, "quiet")
            unknown_words_note(base, *(prompt.text for prompt in design.prompts))
    if go and not problem:
        PAGE.pop("left_out")
        submit_study(state.job_queue(), design, **asked())
        return design.id
    return None


def _prompt_controls() -> PipelineError | None:
    """Where the prompts come from; what is wrong with a file, which is kept until there is another.
    """
    st.segmented_control("Prompts", [COME_WITH, TYPED, FILE], **PAGE.kept("prompts.source"),
                         required=True)
    source = PAGE.get("prompts.source")
    if source == COME_WITH:
        st.number_input("How many", 1, 500, **PAGE.kept("prompts.count"), width=160,
                        help="Captions of the bundled model's grammar; for other models the first "
                             "of 80 prompts in eight categories.")
    elif source == TYPED:
        st.text_area("One per line", **PAGE.kept("prompts.text"), height=140,
                     placeholder="a red car on a road at night\na blue boat at sea")
    else:
        upload = st.file_uploader("One prompt a line, or CSV with the columns prompt and category",
                                  ["txt", "csv"], key=PAGE.key("prompts.upload"))
        if upload:
            try:
                text = upload.getvalue().decode("utf-8-sig", errors="replace")
                PAGE.set("prompts.file", parse_prompts(
                    text, upload.name.lower().endswith(".csv"), upload.name))
            except PipelineError as error:
                return error
        if kept := PAGE.get("prompts.file"):
            categories = {prompt.category for prompt in kept if prompt.category}
            words(f"{len(kept)} prompts, {len(categories)} categories", "quiet")
    return None


def _prompts(model_id: str, problem: PipelineError | None) -> tuple[Prompt, ...]:
    source = PAGE.get("prompts.source")
    if problem:
        raise problem
    if source == COME_WITH:
        return bundled_prompts(int(PAGE.get("prompts.count")), model_id)
    if source == TYPED:
        return parse_prompts(PAGE.get("prompts.text") or "", False)
    return PAGE.get("prompts.file") or parse_prompts("", False, "file")


def _design(base: RunRequest, prompts_problem: PipelineError | None) -> Study:
    """The widgets of methods, seeds and measures, and the study that they make; RequestError."""
    axes, _ = axis_controls(PAGE, base, "Methods: every combination of these axes, 2 to 12",
                            lambda names: ["Methods"] * len(names), without=NOT_METHODS)
    rules = st.text_input("Leave methods out", **PAGE.kept("skip"),
                          placeholder="scheduler=heun, num_inference_steps>20")
    with st.container(horizontal=True, vertical_alignment="bottom"):
        seeds = st.number_input("Seeds per prompt", 1, 50, **PAGE.kept("seeds"), width=140)
        references = {CONVERGED: "The converged picture", None: "None"}
        reference = st.selectbox("Reference", list(references), **PAGE.kept("reference"),
                                 format_func=references.get, width=220)
        register_setting()
        offered = [name for name, known in MEASURES.items()
                   if (name != "judge" or base.model_id in CAPTIONED_MODELS)
                   and (reference or not known.to_reference)]
        kept = [name for name in PAGE.get("measures") if name in offered]
        PAGE.set("measures", kept)
    measures = st.multiselect("Measures, the first decides", offered, **PAGE.kept("measures"))
    stop = st.toggle("Stop when decided", **PAGE.kept("stop"),
                     help="End as soon as all methods are told apart in the first measure. The "
                          "intervals hold although somebody looks on, and are wider for it.")
    return Study(base, tuple(axes), _prompts(base.model_id, prompts_problem),
                 tuple(range(base.seed, base.seed + int(seeds))), reference, tuple(measures),
                 parse_rules(rules or ""), stop)
