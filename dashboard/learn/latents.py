"""The lesson Latents: what the autoencoder keeps, what lies between two noises, stored pictures."""

from __future__ import annotations

import streamlit as st

from dashboard import state
from dashboard.learn import charts
from dashboard.learn.frame import PAGE, Lesson
from dashboard.learn.model import pictures, waiting
from dashboard.learn.pictures import gallery
from pipelines.comparison import Comparison
from pipelines.lessons import latents, plane, postcards
from pipelines.lessons.question import Question
from pipelines.postcards.vocabulary import Scene
from pipelines.request import RunRequest

PAINTED = (Scene("car", "red", "road", "day"), Scene("boat", "yellow", "sea", "sunset"))
SHOWN = 2  # generated pictures beside their nearest training pictures


@st.cache_resource(show_spinner=False, max_entries=60)
def _mixed(share):
    """Latents of the pictures of two mixed noises, linear and slerp, and the pictures."""
    made = latents.paint_mixed(state.engine().registry, postcards.PROMPT, share)
    return made, pictures(made)


@st.cache_resource(show_spinner=False, max_entries=20)
def _memory(scene, seed):
    return latents.memory(state.engine().registry, scene, seed)


@st.cache_resource(show_spinner=False)
def _encoded():
    """Two painted pictures, their latents, and the first decoded from them."""
    images = [postcards.painted(scene)[0] for scene in PAINTED]
    with state.engine().registry.borrow(postcards.MODEL) as (model, _):
        encoded = postcards.encode(model, images)
    return images, encoded, pictures(encoded[:1])[0]


def pose() -> None:
    images, _, back = waiting(_encoded)
    gallery("latents-pose", [
        (images[0], "a painted picture, 64 x 64 x 3 = 12,288 numbers", "A painted red car"),
        (back, f"decoded from {latents.NUMBERS:,} numbers",
         "The red car after encoding and decoding")])
    st.caption("postcards works on 4 x 16 x 16 latents of its autoencoder (AutoencoderKL.encode, "
               "decode). It was trained with painted pictures; this painter can paint each of them "
               "again from its number.")


def play() -> None:
    PAGE.start(**{"latents.share": 0.5})
    share = st.slider("share of the second", 0.0, 1.0, step=0.1, **PAGE.kept("latents.share"))
    left, right = st.columns(2, gap="medium")
    with left:
        _plane(share)
        _norms(share)
    with right:
        _mixed_noises(share)
        _mixed_pictures(share)
        _stored()


def _plane(share: float) -> None:
    three, ways = plane.Mixture.three(), latents.plane_ways()
    drawn = charts.Plane().lines("density, exact", plane.contours(three), exact=True)
    for name, (noises, _) in ways.items():
        drawn.lines(f"noise, {name}", [noises])
    for name, (_, ends) in ways.items():
        drawn.lines(f"exact ends, {name}", [ends], width=2.2)
    at = latents.SHARES.index(share) if share in latents.SHARES else 0
    here = [way[at][None] for way in ways["slerp"]]
    drawn.lines(f"slerp at {share:g}", plane.lines_between(*here), exact=True).show(
        "latents.plane", "Two noises in the plane, mixed by latents.linear and latents.slerp, and "
        "where the probability-flow equation takes each mixture (driving.exact_end). Between two "
        "noises lies a connected way through the data, through places of low density, too.")


def _norms(share: float) -> None:
    first, second = (postcards.noise([seed]) for seed in latents.SEEDS)
    charts.lines(latents.norms(first, second), "share", "norm", "mixed", "latents.norms",
                 f"Norms of mixtures of two noises of {latents.NUMBERS:,} numbers, seeds "
                 f"{latents.SEEDS[0]} and {latents.SEEDS[1]} (latents.norms). A fresh noise has a "
                 "norm of 32.0 ± 0.7: the linear mean is none that the network was trained on. In "
                 "the plane above a small norm is nothing special.", marked=share, bare=True,
                 height=220)
    angle = latents.angle_between(first, second)
    st.latex(rf"\theta = \arccos\frac{{a \cdot b}}{{|a||b|}} = {angle:.3f}")
    st.latex(rf"|(1-t)\,a + t\,b| = {latents.linear(first, second, share).norm():.2f}")
    st.latex(r"\left|\frac{\sin((1-t)\theta)\,a + \sin(t\theta)\,b}{\sin\theta}\right| = "
             rf"{latents.slerp(first, second, share).norm():.2f}")


def _mixed_noises(share: float) -> None:
    ends = [waiting(_mixed, end)[1][0] for end in (0.0, 1.0)]
    between, (linear, slerp) = waiting(_mixed, share)
    names = (f"seed {latents.SEEDS[0]}", f"linear, {share:g}", f"slerp, {share:g}",
             f"seed {latents.SEEDS[1]}")
    gallery("latents-noise", [
        (picture, name, f"{postcards.PROMPT}, noise of {name}") for picture, name in
        zip((ends[0], linear, slerp, ends[1]), names, strict=True)])
    fine = [latents.fineness(between[place:place + 1]) for place in (0, 1)]
    st.caption(f"“{postcards.PROMPT}” from mixed noises (latents.paint_mixed), "
               f"{latents.MIXED_STEPS} steps of DDIM. Detail, the mean "
               "square that the means of 4 x 4 blocks of the latents leave (latents.fineness): "
               f"linear {fine[0]:.3f}, slerp {fine[1]:.3f}.")


def _mixed_pictures(share: float) -> None:
    images, encoded, back = waiting(_encoded)
    blend = latents.linear(*(postcards.pixels([image]) for image in images), share)
    shown = [*pictures(latents.linear(encoded[:1], encoded[1:], share)),
             *postcards.as_pictures(blend)]
    lost = postcards.difference(back, images[0])
    gallery("latents-pictures", [
        (images[0], "painted", "A painted red car by day"),
        (back, f"decoded again, PSNR {latents.psnr(lost):.1f} dB", "The same from its latents"),
        (shown[0], f"mixed latents, {share:g}", "Decoded mixture of the latents of car and boat"),
        (shown[1], f"mixed pixels, {share:g}", "Mixture of the pixels of car and boat")])
    st.caption("Latents of pictures, unlike noise: a mixture of the latents of two pictures "
               "decodes to about what a mixture of their pixels is, "
               f"{postcards.difference(*shown):.1f} of 255 from it. It is no picture between them.")


def _stored() -> None:
    found = remember(latents.SCENE, 0)
    shown = []
    for number in range(SHOWN):
        apart = found.generated.distances[number]
        shown += [(found.generated.pictures[number], f"generated, seed {number}",
                   f"{postcards.PROMPT}, seed {number}"),
                  (found.generated.twins[number], f"its nearest, {apart:.1f} of 255",
                   f"The training picture nearest to seed {number}")]
    gallery("latents-stored", shown)
    st.caption(f"{latents.told(found)} Training pictures are painted again from their numbers "
               "(pictures.paint_numbered), and compared in RGB (figures.nearest). A picture that "
               "was stored would lie where the last number is. All "
               f"{latents.TRAINING_PICTURES:,} were searched for the model card.")


def remember(scene: Scene, seed: int) -> latents.Memory:
    return waiting(_memory, scene, seed)


def question() -> Question:
    return latents.question(remember)


def check(case: int) -> Question:
    return latents.check(remember, case)


def comparison() -> Comparison:
    base = RunRequest(prompt=postcards.PROMPT, scheduler=latents.SOLVER,
                      num_inference_steps=latents.STEPS, guidance_scale=latents.GUIDANCE)
    return Comparison.parse(base, ["seed=0..5", "guidance_scale=1,3,7"])


LESSON = Lesson("latents", "Latents", question, pose, play, check, comparison)
