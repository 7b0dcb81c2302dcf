"""The prompts of a study: a file, a list, or those that come with this program."""

from __future__ import annotations

import csv
import io
import itertools
from dataclasses import dataclass
from pathlib import Path
from random import Random

from pipelines.errors import RequestError
from pipelines.postcards.vocabulary import CAPTIONED_MODELS, plain_caption, sample_scene

BUNDLED_PROMPTS = "bundled"
OWN_LIST = Path(__file__).parent / "prompts.csv"
LARGEST_FILE = 4_000_000  # bytes


@dataclass(frozen=True)
class Prompt:
    """What a picture shows, and what kind of prompt it is ('' where that is not said)."""

    text: str
    category: str = ""


def read_prompts(source: str, model_id: str) -> tuple[Prompt, ...]:
    """'bundled:60' or the path of a file. Raises RequestError."""
    name, colon, count = source.partition(":")
    if name == BUNDLED_PROMPTS and (colon or not Path(source).exists()):
        if not (count or "60").isdecimal() or not int(count or "60"):
            raise RequestError(f"prompts: received {source!r}, accepted bundled:N such as "
                               "bundled:60, or a file")
        return bundled_prompts(int(count or "60"), model_id)
    path = Path(source)
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise RequestError(f"prompts: {path} has {path.stat().st_size / 1e6:.0f} MB, accepted "
                               f"up to {LARGEST_FILE / 1e6:.0f} MB")
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or f"{type(error).__name__}"
        raise RequestError(f"prompts: received {source!r}, accepted bundled:N or a file in UTF-8 "
                           f"({reason})") from error
    return parse_prompts(text, path.suffix.lower() == ".csv", str(path))


def parse_prompts(text: str, is_csv: bool, where: str = "prompts") -> tuple[Prompt, ...]:
    """One prompt a line; or CSV whose first line names a column `prompt`, and maybe `category`.
    Empty lines are skipped. Raises RequestError."""
    if is_csv:
        try:
            reader = csv.DictReader(io.StringIO(text), strict=True)
            names = [name.strip().lower() for name in reader.fieldnames or ()]
            reader.fieldnames = names
            rows = list(reader)
        except csv.Error as error:
            raise RequestError(f"{where}: not CSV ({error})") from error
        if "prompt" not in names:
            raise RequestError(f"{where}: received the columns {', '.join(names) or '(none)'}; "
                               "accepted `prompt`, and maybe `category`")
        prompts = [Prompt((row["prompt"] or "").strip(), (row.get("category") or "").strip())
                   for row in rows]
    else:
        prompts = [Prompt(line.strip()) for line in text.splitlines()]
    prompts = [prompt for prompt in prompts if prompt.text]
    if not prompts:
        raise RequestError(f"{where}: no prompts; accepted one a line, or CSV with a column "
                           "`prompt`")
    return tuple(prompts)


def bundled_prompts(count: int, model_id: str) -> tuple[Prompt, ...]:
    """For the bundled models that paint captions those of their grammar, with their subject as the
    category; for other models the first of a list of our own, whose categories take turns. A longer
    list begins with a shorter one. Raises RequestError."""
    prompts = _captions(count) if model_id in CAPTIONED_MODELS else parse_prompts(
        OWN_LIST.read_text(encoding="utf-8"), True)
    if count > len(prompts):
        raise RequestError(f"prompts: received bundled:{count}, accepted up to bundled:"
                           f"{len(prompts)} for this model")
    return prompts[:count]


def _captions(count: int) -> tuple[Prompt, ...]:
    rng, prompts = Random("prompts of a study"), dict[str, str]()
    for _ in itertools.repeat(None, 20 * count + 100):
        scene = sample_scene(rng)
        prompts.setdefault(plain_caption(scene, rng), scene.subject)
        if len(prompts) == count:
            break
    return tuple(Prompt(text, category) for text, category in prompts.items())
