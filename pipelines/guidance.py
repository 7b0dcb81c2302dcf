"""What guidance_scale does in a comparison: prompts followed, CLIP score, diversity of seeds."""

from __future__ import annotations

import functools
import itertools
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipelines.comparison import Comparison
from pipelines.log_tables import Distance, Run
from pipelines.pixels import flat
from pipelines.postcards.vocabulary import CAPTIONED_MODELS
from pipelines.stores import PictureStore

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class GuidancePoint:
    """`accuracy`: share of pictures, 0 to 1, that show all that their prompt names, as the judge
    sees them, None where it cannot judge; `diversity`: mean of 1 - SSIM over pairs of pictures of
    one prompt with different seeds, None without such pairs; `clip_score`: mean over `scored`
    pictures, None where none was measured."""

    guidance_scale: float
    accuracy: float | None
    judged: int
    diversity: float | None
    pairs: int
    clip_score: float | None
    scored: int
    cells: tuple[int, ...]


def guidance(
    comparison: Comparison,
    runs: Sequence[Run | None],
    pictures: PictureStore,
    scores: Sequence[Distance | None] = (),
) -> list[GuidancePoint]:
    """Prompt accuracy, CLIP score (`Engine.clip_scores`) and diversity by guidance_scale; [] where
    it is on no axis."""
    if not any("guidance_scale" in axis.parts for axis in comparison.axes):
        return []
    groups: dict[float, list[int]] = {}
    for number, run in enumerate(runs):
        if run and pictures.whole(run.image_sha256):
            groups.setdefault(run.guidance_scale, []).append(number)
    scores = scores or [None] * len(runs)
    return [_guidance_point(scale, numbers, comparison, runs, pictures, scores)
            for scale, numbers in sorted(groups.items())]


def _guidance_point(
    scale: float,
    numbers: Sequence[int],
    comparison: Comparison,
    runs: Sequence[Run | None],
    pictures: PictureStore,
    scores: Sequence[Distance | None],
) -> GuidancePoint:
    judged = [follows_prompt(pictures.path(runs[n].image_sha256), runs[n].prompt)
              for n in numbers if runs[n].model_id in CAPTIONED_MODELS]
    judged = [follows for follows in judged if follows is not None]
    cells = comparison.cells
    families: dict[tuple, list[int]] = {}
    for n in numbers:
        rest = tuple((name, value) for name, value in cells[n].axes.items() if name != "seed")
        families.setdefault(rest, []).append(n)
    unlike = [
        1 - _ssim(*sorted(pictures.path(runs[n].image_sha256) for n in pair))
        for members in families.values()
        for pair in itertools.combinations(members, 2)
    ]
    scored = [scores[n].clip_score for n in numbers
              if scores[n] and scores[n].clip_score is not None]
    return GuidancePoint(
        guidance_scale=scale,
        accuracy=statistics.mean(judged) if judged else None,
        judged=len(judged),
        diversity=statistics.mean(unlike) if unlike else None,
        pairs=len(unlike),
        clip_score=statistics.mean(scored) if scored else None,
        scored=len(scored),
        cells=tuple(numbers),
    )


@functools.lru_cache(4096)
def _ssim(first: Path, second: Path) -> float:
    from PIL import Image

    from pipelines.measuring import ssim

    with Image.open(first) as a, Image.open(second) as b:
        return ssim(flat(a), flat(b))


@functools.lru_cache(4096)
def follows_prompt(path: Path, prompt: str) -> bool | None:
    """Whether the judge sees all that a prompt names; None where it names nothing it knows."""
    from PIL import Image

    wanted = named_in(prompt)
    if not wanted:
        return None
    judge = _classifier()
    from pipelines.postcards.classifier import classify

    with Image.open(path) as image:
        seen = classify(judge, [flat(image)])[0]
    return all(seen[name] == value for name, value in wanted.items())


@functools.cache
def _classifier() -> Any:
    from pipelines.models.opening import warm_libraries

    warm_libraries()  # another thread may be half through importing them
    from pipelines.postcards.classifier import load_classifier

    return load_classifier()


def named_in(prompt: str) -> dict[str, str]:
    """What a prompt of the bundled model names of subject, colour, place and time of day."""
    from pipelines.postcards import vocabulary

    text = " ".join(re.findall(r"[a-z]+", prompt.lower()))
    named = {}
    for kind, phrases in (("scene", vocabulary.PLACE_PHRASES), ("time", vocabulary.TIME_PHRASES)):
        for value, options in phrases.items():
            if any(f" {phrase} " in f" {text} " for phrase in options):
                named[kind] = value
    subjects = []
    for subject, options in vocabulary.SUBJECT_WORDS.items():
        for word in sorted(set(options), key=len, reverse=True):
            if match := re.search(rf"(?:(\w+) )?\b{word}(?:s|es)?\b", text):
                subjects.append((match.start(), subject, match[1]))
                break
    if subjects:
        _, named["subject"], before = min(subjects)
        if before in vocabulary.COLOURS:
            named["colour"] = before
    return named
