"""What a postcard may show, and the words for it: attributes, scenes, captions. Pure Python."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from random import Random

SUBJECTS = (
    "car",
    "house",
    "boat",
    "tree",
    "balloon",
    "fish",
    "cat",
    "flower",
    "rocket",
    "bird",
    "umbrella",
    "mushroom",
)
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "white")
PLACES = ("meadow", "road", "snow", "desert", "sea", "forest")
TIMES = ("day", "sunset", "night")
SIZES = ("small", "medium", "large")
POSITIONS = ("left", "center", "right")
EXTRAS = ("sun", "moon", "clouds", "mountains")

SUBJECT_WORDS = {
    "car": ("car", "car", "automobile"),
    "house": ("house", "house", "cottage"),
    "boat": ("boat", "boat", "sailboat", "ship"),
    "tree": ("tree",),
    "balloon": ("balloon", "balloon", "hot air balloon"),
    "fish": ("fish",),
    "cat": ("cat", "cat", "kitten"),
    "flower": ("flower",),
    "rocket": ("rocket", "rocket", "spaceship"),
    "bird": ("bird",),
    "umbrella": ("umbrella", "umbrella", "parasol"),
    "mushroom": ("mushroom", "mushroom", "toadstool"),
}
SIZE_WORDS = {"small": ("small", "little", "tiny"), "large": ("big", "large", "huge")}
PLACE_PHRASES = {
    "meadow": ("in a meadow", "in a meadow", "on a green field", "on the grass", "in a field"),
    "road": ("on a road", "on a road", "on the road", "on a street", "by the road"),
    "snow": ("in the snow", "in the snow", "in snow", "in winter", "on a snowy field"),
    "desert": ("in the desert", "in the desert", "in a desert", "on the sand"),
    "sea": ("at sea", "on the sea", "by the sea", "on the water", "on the ocean"),
    "forest": ("in a forest", "in a forest", "in the forest", "in the woods"),
}
TIME_PHRASES = {
    "day": ("by day", "by day", "during the day", "in daylight", "under a blue sky"),
    "sunset": ("at sunset", "at sunset", "at dusk", "in the evening", "under an orange sky"),
    "night": ("at night", "at night", "at midnight", "under the stars"),
}
POSITION_PHRASES = {
    "left": ("on the left",),
    "center": ("in the middle", "in the center"),
    "right": ("on the right",),
}
EXTRA_PHRASES = {
    "sun": ("with a sun", "with the sun", "and a bright sun"),
    "moon": ("with a moon", "with the moon", "under the moon"),
    "clouds": ("with clouds", "under white clouds", "and clouds", "with a cloudy sky"),
    "mountains": ("with mountains", "and mountains", "in front of mountains"),
}
OPENINGS = (
    "a picture of",
    "a drawing of",
    "a postcard of",
    "an illustration of",
    "a painting of",
)

# The bundled models that paint these captions.
CAPTIONED_MODELS = ("postcards", "postcards-turbo", "postcards-inpaint")
NEW_SUBJECT = "teapot"  # which none of them knows, and an adapter brings
EXAMPLE_PROMPTS = (
    "a red car on a road at night",
    "a white house in the snow at night with a moon",
    "a blue boat on the sea at sunset",
    "a big orange cat in a meadow by day",
    "a pink mushroom in a forest at dusk",
    "a yellow balloon in the desert at sunset with mountains",
    "a purple fish at sea by day",
    "a green rocket in the desert under the stars",
    "two red umbrellas in a field under a blue sky",
    "a large white flower in a meadow, clouds",
    "a blue bird in a forest in the evening",
    "a small house on the left in the snow",
)


@dataclass(frozen=True)
class Scene:
    """Everything that a picture of the painter shows, short of its random details."""

    subject: str
    colour: str
    place: str
    time: str
    count: int = 1
    size: str = "medium"
    position: str = "center"
    extras: frozenset[str] = frozenset()


# What a picture can be judged by, with the values of each.
ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "subject": SUBJECTS,
    "colour": COLOURS,
    "scene": PLACES,
    "time": TIMES,
    "number": ("one", "two"),
    "size": SIZES,
    "position": POSITIONS,
    **{extra: ("no", "yes") for extra in EXTRAS},
}


def attributes(scene: Scene) -> dict[str, str]:
    """The scene's value of each of ATTRIBUTES."""
    return {
        "subject": scene.subject,
        "colour": scene.colour,
        "scene": scene.place,
        "time": scene.time,
        "number": "two" if scene.count == 2 else "one",
        "size": scene.size,
        "position": scene.position,
        **{extra: "yes" if extra in scene.extras else "no" for extra in EXTRAS},
    }


def is_held_out(subject: str, colour: str, place: str) -> bool:
    """True for one combination in ten; training never shows these, the judge asks for them."""
    index = SUBJECTS.index(subject) + 3 * COLOURS.index(colour) + 7 * PLACES.index(place)
    return index % 10 == 0


def held_out_combinations() -> list[tuple[str, str, str]]:
    """Every (subject, colour, place) that training leaves out, in a fixed order."""
    return [
        (subject, colour, place)
        for subject in SUBJECTS
        for colour in COLOURS
        for place in PLACES
        if is_held_out(subject, colour, place)
    ]


def sample_scene(rng: Random, held_out: bool = False) -> Scene:
    """One scene; mostly a single, centred subject that is not small."""
    while True:
        subject, colour, place = rng.choice(SUBJECTS), rng.choice(COLOURS), rng.choice(PLACES)
        if is_held_out(subject, colour, place) == held_out:
            break
    time = rng.choices(TIMES, (0.42, 0.28, 0.30))[0]
    count = 2 if rng.random() < 0.08 else 1
    size = rng.choices(SIZES, (0.10, 0.58, 0.32))[0]
    position = rng.choices(POSITIONS, (0.12, 0.76, 0.12))[0]
    if count == 2:
        size, position = "medium", "center"
    if position != "center" and size == "large":
        size = "medium"
    extras = set()
    if time != "night" and rng.random() < 0.4:
        extras.add("sun")
    if time == "night" and rng.random() < 0.5:
        extras.add("moon")
    if rng.random() < 0.3:
        extras.add("clouds")
    if rng.random() < 0.25:
        extras.add("mountains")
    return Scene(subject, colour, place, time, count, size, position, frozenset(extras))


def plain_caption(scene: Scene, rng: Random) -> str:
    """Colour, subject, place and time in the order that people write: what the judge asks for."""
    noun = _with_article(f"{scene.colour} {rng.choice(SUBJECT_WORDS[scene.subject])}")
    return f"{noun} {rng.choice(PLACE_PHRASES[scene.place])} {rng.choice(TIME_PHRASES[scene.time])}"


def full_caption(scene: Scene, rng: Random) -> str:
    """Like plain_caption, with number, size, position and extras where they are not the usual."""
    noun = rng.choice(SUBJECT_WORDS[scene.subject])
    words = [scene.colour, _plural(noun) if scene.count == 2 else noun]
    if scene.size in SIZE_WORDS:
        words.insert(0, rng.choice(SIZE_WORDS[scene.size]))
    phrases = [f"two {' '.join(words)}" if scene.count == 2 else _with_article(" ".join(words))]
    if scene.position != "center":
        phrases += POSITION_PHRASES[scene.position]
    phrases += [rng.choice(PLACE_PHRASES[scene.place]), rng.choice(TIME_PHRASES[scene.time])]
    phrases += [rng.choice(EXTRA_PHRASES[extra]) for extra in EXTRAS if extra in scene.extras]
    return " ".join(phrases)


def caption(scene: Scene, rng: Random) -> str:
    """One of many true captions. It may leave things out; extras are named in 30 % only.

    A quarter are lists of tags or lone words, as people write negative prompts.
    """
    named_extras = [e for e in EXTRAS if e in scene.extras and rng.random() < 0.3]
    form = rng.random()
    if form < 0.07:
        return rng.choice(
            [scene.place, scene.time, scene.subject, *named_extras]
            + [scene.colour, f"{scene.colour} {scene.subject}"]
        )
    noun = _noun_phrase(scene, rng)
    if form < 0.2:
        tags = [noun.removeprefix("an ").removeprefix("a ")]
        tags += [scene.place] if rng.random() < 0.8 else []
        tags += [scene.time] if rng.random() < 0.8 else []
        tags += named_extras
        if rng.random() < 0.4:
            rng.shuffle(tags)
        return ", ".join(tags)

    where = [rng.choice(PLACE_PHRASES[scene.place])] if rng.random() < 0.9 else []
    when = [rng.choice(TIME_PHRASES[scene.time])] if rng.random() < 0.8 else []
    phrases = when + where if rng.random() < 0.1 else where + when
    if phrases and rng.random() < 0.06:
        return f"{phrases[-1]}, {' '.join([noun, *phrases[:-1]])}"
    tail = [rng.choice(EXTRA_PHRASES[extra]) for extra in named_extras]
    opening = [rng.choice(OPENINGS)] if rng.random() < 0.12 else []
    return " ".join([*opening, noun, *phrases, *tail])


def _noun_phrase(scene: Scene, rng: Random) -> str:
    noun = rng.choice(SUBJECT_WORDS[scene.subject])
    adjectives = [scene.colour] if rng.random() < 0.93 else []
    if scene.size in SIZE_WORDS and rng.random() < 0.5:
        adjectives.insert(0, rng.choice(SIZE_WORDS[scene.size]))
    if scene.count == 2:
        phrase = " ".join(["two", *adjectives, _plural(noun)])
    else:
        phrase = _with_article(" ".join([*adjectives, noun]))
    if scene.count == 1 and rng.random() < (0.05 if scene.position == "center" else 0.7):
        phrase += " " + rng.choice(POSITION_PHRASES[scene.position])
    return phrase


def _with_article(noun: str) -> str:
    return ("an " if noun[0] in "aeiou" else "a ") + noun


def _plural(noun: str) -> str:
    return noun if noun == "fish" else noun + "s"


@cache
def known_words() -> frozenset[str]:
    """Every word that a training caption may hold: each is one token of the tokenizer."""
    texts = [*COLOURS, *PLACES, *TIMES, *EXTRAS, *OPENINGS, "two"]
    for nouns in SUBJECT_WORDS.values():
        texts += [*nouns, *map(_plural, nouns), *map(_with_article, nouns)]
    for phrases in (SIZE_WORDS, PLACE_PHRASES, TIME_PHRASES, POSITION_PHRASES, EXTRA_PHRASES):
        texts += [text for group in phrases.values() for text in group]
    return frozenset(word for text in texts for word in _words(text))


def unknown_words(prompt: str, adapters: Collection[str] = ()) -> list[str]:
    """Words of the prompt that the model never saw, nor one of these adapters (names of their files
    without the end): lower case, in order, each once."""
    known = known_words()
    if f"postcards-{NEW_SUBJECT}" in adapters:
        known |= {NEW_SUBJECT, _plural(NEW_SUBJECT)}
    return list(dict.fromkeys(word for word in _words(prompt) if word not in known))


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+(?:['’-][^\W_]+)*", text.lower())
