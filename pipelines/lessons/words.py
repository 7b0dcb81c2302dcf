"""Words: tokens, their embeddings, and which places of a picture attend to which word."""

from __future__ import annotations

import itertools
import math
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate, normalize

from pipelines.errors import RequestError
from pipelines.laboratory.mixture import Mixture
from pipelines.lessons import postcards
from pipelines.lessons.attention import AttentionWatch
from pipelines.lessons.question import Answer, Question, interval
from pipelines.models.parts import denoiser_of
from pipelines.painting.noise import make_generator
from pipelines.postcards.painter import paint_with_mask
from pipelines.postcards.vocabulary import (
    SUBJECT_WORDS,
    Scene,
    known_words,
    plain_caption,
    sample_scene,
)
from pipelines.schedulers import make_scheduler

if TYPE_CHECKING:
    from PIL.Image import Image

    from pipelines.models.registry import Registry

SCENES = 32  # whose words are asked where they point
TIMESTEP = 400
CLEAR = 0.2  # better than the other words by so much is called better
BOUNDS = (1 / 3, 2 / 3)
MOST_STEPS = 20
ALL = "all layers"


@dataclass(frozen=True, eq=False)
class Look:
    """Where a model looked while it made a picture. `layers`: (evaluations, places, tokens), which
    sums to 1 over the tokens; of the rows of an evaluation the last, which has the prompt."""

    picture: Image
    tokens: tuple[str, ...]
    layers: Mapping[str, Tensor]

    @property
    def evaluations(self) -> int:
        return min(map(len, self.layers.values()))

    def maps(self, layer: str, step: int) -> Tensor:
        """How much each place attends to each token at a step, from 1: (tokens, height, width). ALL
        is the mean of the layers, at the size of the finest."""
        names = list(self.layers) if layer == ALL else [layer]
        aspect = self.picture.height / self.picture.width
        grids = [as_grid(self.layers[name][step - 1], aspect) for name in names]
        finest = max((grid.shape[1:] for grid in grids), key=math.prod)
        return torch.stack([interpolate(grid[None], finest)[0] for grid in grids]).mean(0)[
            :len(self.tokens)]


def as_grid(weights: Tensor, aspect: float = 1.0) -> Tensor:
    """(places, tokens) as (tokens, height, width); `aspect`: height / width."""
    height = round(math.sqrt(len(weights) * aspect))
    if not height or len(weights) % height:
        raise RequestError(f"attention of {len(weights)} places, accepted a rectangle of height / "
                           f"width {aspect:.2f}")
    return weights.T.unflatten(1, (height, -1))


def tokens_of(tokenizer: Any, text: str) -> tuple[str, ...]:
    """The tokens of a text as a person reads them, with those that mark begin and end."""
    pieces = tokenizer.convert_ids_to_tokens(tokenizer(text)["input_ids"])
    names = {tokenizer.bos_token: "begin", tokenizer.eos_token: "end"}
    return tuple(names.get(piece) or re.sub("</w>|▁|Ġ", "", piece) for piece in pieces)


def look(
    registry: Registry,
    prompt: str,
    model_id: str = postcards.MODEL,
    seed: int = 0,
    on_step: Callable[[int, int], None] | None = None,
) -> Look:
    """Make a picture with the model's own scheduler and guidance, in at most MOST_STEPS steps, and
    look at its cross-attention. `on_step(number, of)` may raise. Raises RequestError where the
    model has none, or no tokenizer that it shows."""
    with registry.borrow(model_id) as (model, _):
        pipe = model.view("text-to-image")
        if getattr(pipe, "tokenizer", None) is None:
            raise RequestError(f"{model_id} ({type(pipe).__name__}) has no tokenizer, accepted are "
                               "models that paint words")
        steps = min(model.info.num_inference_steps, MOST_STEPS)
        pipe.scheduler = make_scheduler("default", model.info.original_scheduler_config, seed=seed)

        guidance = model.info.guidance_parameter
        evaluations = itertools.count(1)

        def ended(*_: Any) -> None:
            if on_step:
                on_step(min(next(evaluations), steps), steps)

        denoiser = denoiser_of(pipe)
        hook = denoiser.register_forward_hook(ended)
        try:
            with AttentionWatch(denoiser) as watch:
                image = pipe(prompt, num_inference_steps=steps, generator=make_generator(seed),
                             **{guidance: model.info.guidance_scale} if guidance else {}).images[0]
        finally:
            hook.remove()
        tokens = tokens_of(pipe.tokenizer, prompt)
    layers = {name: torch.stack([weights[-1] for weights in seen]).cpu()
              for name, seen in watch.layers.items()}
    width = min(weights.shape[-1] for weights in layers.values())
    if len(tokens) > width:
        raise RequestError(f"prompt: received {len(tokens)} tokens, accepted at most {width}")
    return Look(image, tokens, layers)


def overlay(picture: Image, weights: Tensor) -> Image:
    """A picture, dark where `weights` (height, width) are small beside their largest."""
    from PIL import Image

    share = (weights / weights.max()).numpy()
    light = Image.fromarray((share * 255).round().astype(np.uint8)).resize(picture.size, 0)
    light = np.asarray(light)[..., None] / 255
    return Image.fromarray((np.asarray(picture.convert("RGB")) * (0.15 + 0.85 * light))
                           .round().astype(np.uint8))


def neighbours(registry: Registry, text: str, count: int = 3) -> list[tuple[str, int, str]]:
    """For each token of a text its id and the words whose embeddings are nearest to its own in the
    table of postcards' text encoder, with their cosine."""
    with registry.borrow(postcards.MODEL) as (model, _):
        tokenizer, table = model.pipe.tokenizer, model.pipe.text_encoder.get_input_embeddings()
        unit = normalize(table.weight.detach().float(), dim=1)
        known = {word: tokenizer(word)["input_ids"][1] for word in sorted(known_words())}
        ids = torch.tensor(list(known.values()))
        rows = []
        for token, number in zip(tokens_of(tokenizer, text), tokenizer(text)["input_ids"],
                                 strict=True):
            cosines = (unit[ids] @ unit[number]).masked_fill(ids == number, -1)
            near = zip(*(part.tolist() for part in cosines.topk(count)), strict=True)
            rows.append((token, number, ", ".join(f"{[*known][place]} {cosine:.2f}"
                                                  for cosine, place in near)))
    return rows


# Pointing


@dataclass(frozen=True)
class Pointing:
    """Of some scenes the share in which a word's largest weight lies on the thing that it names, by
    the painter's mask, and the mean share of its weights that does (`mass`); the same of all other
    words of the captions, put in its place; the share of the picture that the thing covers."""

    hits: float
    mass: float
    other_hits: float
    other_mass: float
    area: float


def pointing(
    registry: Registry, word: str, timestep: int, seed: int = 0, scenes: int = SCENES
) -> dict[str, Pointing]:
    """For each layer where a `subject` or `colour` points: painted pictures, of which the mask is
    known, with the noise of a timestep, are looked at once by postcards' UNet."""
    rng = random.Random(f"words {seed}")
    chosen: list[Scene] = []
    while len(chosen) < scenes:
        scene = sample_scene(rng)
        if scene.count == 1:
            chosen.append(scene)
    painted = [paint_with_mask(scene, rng) for scene in chosen]
    captions = [plain_caption(scene, rng) for scene in chosen]
    masks = torch.stack([torch.from_numpy(np.array(mask)) / 255.0 for _, mask in painted])
    with registry.borrow(postcards.MODEL) as (model, _), torch.no_grad():
        pipe = model.view("text-to-image")
        clean = postcards.encode(model, [picture for picture, _ in painted])
        solver = make_scheduler("ddim", model.info.original_scheduler_config)
        noise = torch.randn(clean.shape, generator=make_generator(seed))
        seen = solver.add_noise(clean, noise, torch.tensor([timestep]))
        text, _ = pipe.encode_prompt(captions, model.device, 1, False)
        with AttentionWatch(pipe.unet) as watch:
            pipe.unet(seen, timestep, text)
        tokens = [tokens_of(pipe.tokenizer, caption) for caption in captions]
    named = [{scene.colour} if word == "colour" else
             {part for name in SUBJECT_WORDS[scene.subject] for part in name.split()[-1:]}
             for scene in chosen]
    return {layer: pointing_of(seen[0], tokens, named, masks)
            for layer, seen in watch.layers.items()}


def pointing_of(
    weights: Tensor, tokens: Sequence[Sequence[str]], named: Sequence[set[str]], masks: Tensor
) -> Pointing:
    """`weights` (scenes, places, tokens), `masks` (scenes, height, width) from 0 to 1."""
    its, others = [], []
    grids = torch.stack([as_grid(scene) for scene in weights])
    covered = avg_pool2d(masks[:, None], masks.shape[-1] // grids.shape[-1])[:, 0]
    for grid, words, names, cover in zip(grids, tokens, named, covered, strict=True):
        for place in range(1, len(words) - 1):  # without begin and end
            word = grid[place].flatten()
            hit = (cover.flatten()[word.argmax()] >= 0.5).item()
            mass = ((word * cover.flatten()).sum() / word.sum()).item()
            (its if words[place] in names else others).append((hit, mass))
    means = [np.mean([row[column] for row in rows]) for rows in (its, others) for column in (0, 1)]
    return Pointing(*map(float, means), (covered >= 0.5).float().mean().item())


def told(found: Mapping[str, Pointing]) -> str:
    return "; ".join(f"{short(layer)}: {where.hits:.0%}, other words {where.other_hits:.0%}"
                     for layer, where in found.items())


def short(layer: str) -> str:
    """'down 1.0' of 'down_blocks.1.attentions.0.transformer_blocks.0.attn2'."""
    name = layer.removesuffix(".attn2").removesuffix(".transformer_blocks.0")
    for long, brief in (("_blocks.", " "), ("_block.", " "), (".attentions.", "."),
                        ("attentions.", "")):
        name = name.replace(long, brief)
    return name


def question(registry: Registry) -> Question:
    """Whether every layer looks at what a word names."""

    def grade() -> Answer:
        found = pointing(registry, "colour", TIMESTEP)
        better = [where.hits - where.other_hits > CLEAR for where in found.values()]
        right = 0 if all(better) else 1 if any(better) else 2
        area = next(iter(found.values())).area
        return Answer(right, f"Share of {SCENES} painted scenes (timestep {TIMESTEP}) in which the "
                             "place that attends most to the colour's word lies on the coloured "
                             f"thing: {told(found)}. The thing covers {area:.0%} of a picture.")

    return Question(
        "“a red car on a road at night”: which places look at “red”? In postcards' UNet four "
        "layers attend to the words. In which of them does the place that attends most to the "
        "colour lie on the coloured thing clearly more often than for the other words?",
        ("In all four", "In some of them", "In none"), grade)


def check(registry: Registry, case: int) -> Question:
    """Where a word points in one layer, for other scenes and another noise level."""
    rng = random.Random(f"words {case}")
    word, timestep = rng.choice(("colour", "subject")), rng.choice((50, 200, 600, 800, 950))
    place = rng.randrange(4)
    names = ("first on the way down", "in the middle", "first on the way up",
             "second on the way up")

    def grade() -> Answer:
        found = pointing(registry, word, timestep, case + 1)
        # In the order of the network, the middle before the way up.
        order = [name for part in ("down", "mid", "up") for name in found if name.startswith(part)]
        where = found[order[place]]
        return Answer(interval(where.hits, BOUNDS),
                      f"In {where.hits:.0%} (of its weight {where.mass:.0%}); the other words in "
                      f"{where.other_hits:.0%} ({where.other_mass:.0%}). The thing covers "
                      f"{where.area:.0%}.")

    return Question(
        f"{SCENES} other scenes, noise of timestep {timestep}, the layer {names[place]}: in which "
        f"share of them does the largest weight of the {word}'s word lie on the thing?",
        ("Less than a third", "A third to two thirds", "More than two thirds"), grade)


# The plane


def shares(mixture: Mixture, x: Tensor, signal: float, noise: float) -> Tensor:
    """How much a perfect network looks at each component of a mixture: (n, K), which sum to 1.

    Where all have the deviation s, its x0 is a softmax attention: query x, keys a m / (a^2 s^2 +
    b^2), with a bias for each component; the values are the components' own means of x0.
    """
    joint = [mixture.given([k]).log_density(x, signal, noise) + weight.log()
             for k, weight in enumerate(mixture.weights)]
    return torch.stack(joint, 1).softmax(1)
