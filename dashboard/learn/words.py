"""The lesson Words: tokens, embeddings, and which places look at which word."""

from __future__ import annotations

from html import escape

import streamlit as st

from dashboard import state
from dashboard.learn import charts
from dashboard.learn.frame import PAGE, Lesson
from dashboard.learn.model import waiting
from dashboard.learn.pictures import gallery
from pipelines.comparison import Comparison
from pipelines.errors import PipelineError
from pipelines.lessons import plane, postcards, words
from pipelines.lessons.question import Question
from pipelines.models.parts import parts_of_index
from pipelines.request import RunRequest

SOLVER, STEPS = "ddim", 20  # in the plane
KEPT = 12  # looks that are remembered
COLUMNS = 4
LAST = "up_blocks.1.attentions.1.transformer_blocks.0.attn2"  # of postcards' layers


def pose() -> None:
    rows = "".join(f"<tr><td>{escape(token)}</td><td>{number}</td><td>{escape(near)}</td></tr>"
                   for token, number, near in waiting(_neighbours, postcards.PROMPT))
    st.html("<div class='cs-table'><table><thead><tr><th>Token</th><th>Id</th><th>Nearest words, "
            f"cosine</th></tr></thead><tbody>{rows}</tbody></table></div>")
    st.caption(f"“{postcards.PROMPT}” as tokens (CLIPTokenizer), each with a vector of 128 numbers "
               "that the model has learned (CLIPTextModel.get_input_embeddings), and the words "
               "whose vectors are nearest. The text encoder mixes them; the UNet's places attend "
               "to what it gives.")


@st.cache_resource(show_spinner=False, max_entries=20)
def _neighbours(prompt):
    return words.neighbours(state.engine().registry, prompt)


def play() -> None:
    PAGE.start(**{"words.step": 10, "words.layer": LAST, "words.prompt": postcards.PROMPT,
                  "words.model": postcards.MODEL})
    step = st.slider("step", 1, STEPS, **PAGE.kept("words.step"))
    left, right = st.columns(2, gap="medium")
    with left:
        _plane(step)
        _pointing()
    with right:
        _maps(step)


def _plane(step: int) -> None:
    three, made = plane.Mixture.three(), plane.run(SOLVER, STEPS)
    seen, (signal, noise) = made.seen[step - 1], made.scales[step - 1]
    shares = words.shares(three, seen, signal, noise)
    drawn = charts.Plane(3.2).lines("density of x_t, exact",
                                    plane.contours(three, signal, noise), exact=True)
    for component in range(3):
        mine = shares.argmax(1) == component
        if mine.any():
            drawn.points(f"most at Gaussian {component + 1}", seen[mine])
    drawn.show("words.plane", f"Step {step} of {STEPS} of DDIMScheduler: a perfect network's x0 is "
               "an attention, too: from each place it looks at the components of the mixture "
               "(words.shares), and takes the mean of what they say.", 330)
    first = ", ".join(f"{share:.2f}" for share in shares[0].tolist())
    spread = three.deviations[0].item()
    st.latex(r"\text{softmax}_k\left(\log w_k - \tfrac{|x - a\,m_k|^2}{2(a^2 s^2 + b^2)}\right)")
    st.latex(rf"a = {signal:.3f},\ b = {noise:.3f},\ s = {spread:g}")
    st.latex(rf"x = ({seen[0, 0]:.2f}, {seen[0, 1]:.2f}):\ ({first})")


def _pointing() -> None:
    rows = []
    for word in ("colour", "subject"):
        found = waiting(_pointed, word)
        rows += [row for layer, where in found.items() for row in (
            {"layer": words.short(layer), "share": where.hits, "word": word},
            *([{"layer": words.short(layer), "share": where.other_hits, "word": "other words"}]
              if word == "colour" else []))]
    area = next(iter(found.values())).area
    charts.bars(rows, "layer", "share", "word", "words.pointing",
                f"Of {words.SCENES} painted scenes at timestep {words.TIMESTEP}, the share in "
                "which the largest weight of the word lies in the painter's mask of the thing "
                "(words.pointing), of all other words of the captions as a control. The thing "
                f"covers {area:.0%} of the picture.", marked=area)


@st.cache_resource(show_spinner=False, max_entries=4)
def _pointed(word):
    return words.pointing(state.engine().registry, word, words.TIMESTEP)


def _models() -> list[str]:
    """The models here that paint from words; whether they have cross-attention shows when one
    looks."""
    registry, names = state.engine().registry, []
    for name in state.offered():
        try:
            info = registry.describe(name)
        except PipelineError:
            continue
        if "text-to-image" in info.tasks and "tokenizer" in parts_of_index(info.index):
            names.append(name)
    return names


@st.cache_resource(show_spinner=False)
def _looks() -> dict[tuple[str, str], words.Look]:
    return {}


def _look(model_id: str, prompt: str) -> words.Look:
    """Remembered, else made now, step by step; another click on the page ends it."""
    looks = _looks()
    if (model_id, prompt) not in looks:
        place = st.empty()
        place.progress(0.0, f"{model_id} paints …")
        looks[model_id, prompt] = words.look(
            state.engine().registry, prompt, model_id, on_step=lambda step, of: place.progress(
                step / of, f"{model_id}, step {step} of {of}"))
        place.empty()
        for old in list(looks)[:-KEPT]:
            del looks[old]
    return looks[model_id, prompt]


def _maps(step: int) -> None:
    models = _models()
    with st.container(horizontal=True, vertical_alignment="bottom"):
        prompt = st.text_input("prompt", **PAGE.kept("words.prompt")) or postcards.PROMPT
        if PAGE.get("words.model") not in models:
            PAGE.set("words.model", postcards.MODEL)
        model_id = st.selectbox("model", models, **PAGE.kept("words.model"), width=200)
    seen = _look(model_id, prompt)
    layers = [words.ALL, *seen.layers]
    if PAGE.get("words.layer") not in layers:
        PAGE.set("words.layer", words.ALL)
    layer = st.selectbox("layer", layers, format_func=words.short, **PAGE.kept("words.layer"))
    at = min(step, seen.evaluations)
    maps = seen.maps(layer, at)
    shown = [(seen.picture, "the picture", prompt)]
    for token, weights in zip(seen.tokens, maps, strict=True):
        shown.append((words.overlay(seen.picture, weights), f"{token} {weights.max():.2f}",
                      f"Where the picture attends to {token} at step {at}; largest weight "
                      f"{weights.max():.2f}"))
    gallery("words", shown, COLUMNS)
    st.caption(f"{model_id}, seed 0, step {at} of {seen.evaluations}: bright where a place attends "
               "to the token, with its largest weight (attention.weights, taken beside "
               "scaled_dot_product_attention; the mean of the heads). At each place the weights "
               f"of all tokens sum to 1; {maps.shape[1]} x {maps.shape[2]} places.")

def question() -> Question:
    return words.question(state.engine().registry)


def check(case: int) -> Question:
    return words.check(state.engine().registry, case)


def comparison() -> Comparison:
    prompt = PAGE.get("words.prompt") or postcards.PROMPT
    base = RunRequest(prompt=prompt, model_id=PAGE.get("words.model", postcards.MODEL))
    return Comparison.parse(base, ["guidance_scale=1,3,5,7.5", "seed=0..3"])


LESSON = Lesson("words", "Words", question, pose, play, check, comparison)
