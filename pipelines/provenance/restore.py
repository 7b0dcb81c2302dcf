"""The request, or the whole comparison, that made a picture: from this program's files and from
those of others. What cannot be restored is said in notes, before anything runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.comparison import Comparison
from pipelines.errors import PipelineError, RequestError
from pipelines.fields import PICTURES
from pipelines.models.reading import parse_json
from pipelines.notation import shown
from pipelines.provenance.a1111 import is_a1111, read_a1111
from pipelines.provenance.blocks import Blocks, title
from pipelines.provenance.comfyui import graph_of, read_comfyui
from pipelines.provenance.hidden import hidden_texts
from pipelines.provenance.model_files import ModelsHere
from pipelines.provenance.programs import (
    is_diffusers,
    read_diffusers,
    read_invokeai,
    read_novelai,
    read_swarmui,
)
from pipelines.provenance.reading import Reading
from pipelines.request import DEFAULTS, RunRequest, join_model_id
from pipelines.schedulers import checked_options
from pipelines.sheet.recipe import carried, comparison_of
from pipelines.stores import PictureStore

ACCEPTED = ("accepted a picture (PNG, JPEG, WebP, AVIF) of Contact Sheet, A1111, Forge, ComfyUI, "
            "InvokeAI, SwarmUI or NovelAI, or with the arguments of a diffusers call; a recipe "
            "(JSON or YAML); or an exported page (HTML)")
OURS = "Contact Sheet"
FLOW = {"euler": "flow_euler", "heun": "flow_heun", "lcm": "flow_lcm"}


@dataclass(frozen=True)
class Restored:
    """What made a file: its `comparison`, of one cell for a single picture; the fields of its base
    request that are not at their default; and what could not be restored, a line each."""

    program: str
    comparison: Comparison
    notes: tuple[str, ...] = ()

    @property
    def request(self) -> RunRequest:
        return self.comparison.base

    @property
    def values(self) -> dict[str, Any]:
        return {name: getattr(self.request, name) for name in self.request.not_default}


def restore(
    source: Path | bytes, models: ModelsHere, pictures: PictureStore, name: str = "from"
) -> Restored:
    """What made a picture, a recipe or an exported page; `name` says in messages what the file was
    given for. Raises RequestError where it tells nothing, and for files that are no such."""
    text, blocks = carried(source, name)
    if text is not None:
        try:
            return _ours(*comparison_of(text), models, pictures)
        except RequestError as error:
            raise RequestError(f"{name}: {title(source)}: {error}") from error
    reading = read_others(blocks) if blocks else None
    if reading is None and blocks is not None:
        reading = read_others(Blocks(hidden_texts(source)))
    if reading is None:
        what = "says nothing of how it was made" if blocks is not None else "is no such file"
        raise RequestError(f"{name}: {title(source)} {what}; {ACCEPTED}")
    problems = tuple(blocks.problems) if blocks else ()
    return _others(reading, models, problems)


def read_others(blocks: Blocks) -> Reading | None:
    """What another program wrote into a picture, None where nothing is understood."""
    texts = blocks.texts
    tagged = dict(_tagged(blocks))
    for text in (texts.get("parameters", ""), blocks.comment):
        data = _object(text)
        if isinstance(data.get("sui_image_params"), dict):
            return read_swarmui(data)
        if text and not data and is_a1111(text):
            return read_a1111(text)
    for key in ("invokeai_metadata", "sd-metadata"):
        if data := _object(texts.get(key, "")):
            return read_invokeai(data)
    prompt = _object(texts.get("prompt", "") or tagged.get("prompt", ""))
    workflow = _object(texts.get("workflow", "") or tagged.get("workflow", ""))
    if (graph := graph_of(prompt, workflow)) and (reading := read_comfyui(graph)):
        return reading
    for text in (texts.get("Comment", ""), blocks.comment):
        data = _object(text)
        if data.get("Comment"):  # NovelAI's WebP holds all its texts in one
            data = {**_object(str(data["Comment"])), "Source": data.get("Source")}
        if "uc" in data and "prompt" in data:
            return read_novelai(data, texts.get("Source", "") or str(data.get("Source") or ""))
    objects = [_object(text) for text in (*texts.values(), blocks.comment, *blocks.tags.values())]
    for data in (texts, *objects):
        if is_diffusers(data):
            return read_diffusers(data)
    return None


def _tagged(blocks: Blocks) -> list[tuple[str, str]]:
    """ComfyUI's texts in Exif, 'prompt:{...}' and 'workflow:{...}', whatever tag they stand in."""
    pairs = []
    for text in blocks.tags.values():
        key, colon, value = text.partition(":")
        if colon and key.strip().lower() in ("prompt", "workflow"):
            pairs.append((key.strip().lower(), value.strip()))
    return pairs


def _object(text: str) -> dict[str, Any]:
    """The JSON object of a text; {} where it is none."""
    if not text.lstrip().startswith("{"):
        return {}
    try:
        value = parse_json(text.encode("utf-8", "replace"))
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _ours(
    columns: Mapping[str, Any], comparison: Comparison, models: ModelsHere, pictures: PictureStore
) -> Restored:
    """What this program wrote, with a model that is here by its files where its id is not."""
    base, notes = comparison.base, []
    pinned = (base.model_id, base.revision, base.variant)
    if "model_id" not in comparison.varied and not models.has(*pinned):
        listed = columns.get("models")
        named = [model for model in (listed if isinstance(listed, list) else ())
                 if isinstance(model, dict) and model.get("model_id") == base.model_id
                 and isinstance(model.get("files"), dict)]
        info = models.same_files(named[0]["files"]) if named else None
        if info:
            notes.append(f"model_id: {join_model_id(*pinned)} is not here; {info.model_id} has "
                         "the same files and is taken")
            base = base.changed(model_id=info.model_id, revision=None, variant=info.variant)
        else:
            files = "nor a model of the same files" if named else "and it names no files"
            notes.append(f"model_id: {join_model_id(*pinned)} is not on this machine, {files}")
    for name in PICTURES:
        sha256 = getattr(base, name)
        if sha256 and not pictures.whole(sha256):
            notes.append(f"{name}: the picture {sha256[:12]} is not on this machine")
    return Restored(OURS, Comparison(base, comparison.axes, comparison.skip), tuple(notes))


def _others(reading: Reading, models: ModelsHere, problems: tuple[str, ...]) -> Restored:
    notes = [*problems, *reading.notes]
    values = dict(reading.values)
    info, reliance = models.named(reading.model)
    if info:
        values |= {"model_id": info.model_id}
        if reliance:
            notes.insert(0, f"model_id: {reading.model} is taken to be {info.model_id}, {reliance}")
    elif str(reading.model):
        why = f"; {reliance}" if reliance else ""
        notes.insert(0, f"model_id: {reading.model} is not on this machine{why}; "
                        f"{DEFAULTS['model_id']} stays")
    else:
        notes.insert(0, f"model_id: it names no model; {DEFAULTS['model_id']} stays")
    if info and info.flow_matching and values.get("scheduler") in FLOW:
        values["scheduler"] = FLOW[values["scheduler"]]
    if options := values.get("scheduler_options"):
        try:
            checked_options(values.get("scheduler", "default"), options)
        except RequestError as error:
            notes.append(f"{error}; left out")
            del values["scheduler_options"]
    accepted: dict[str, Any] = {}
    for name, value in values.items():
        try:
            RunRequest(**{name: value})
        except RequestError as error:
            notes.append(f"{error}; left out")
        else:
            accepted[name] = value
    try:
        request = RunRequest(**accepted)
    except PipelineError as error:
        raise RequestError(f"what {reading.program} wrote makes no request: {error}; received "
                           f"{shown(accepted)}") from error
    return Restored(reading.program, Comparison(request, ()), tuple(notes))
