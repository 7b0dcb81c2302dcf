"""What a picture's file says of the run that made it."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pipelines.errors import PipelineError, StorageError
from pipelines.log_tables import Run
from pipelines.models.files import find_lora
from pipelines.models.identity import lora_contents, model_content
from pipelines.provenance.a1111 import write_a1111
from pipelines.provenance.encode import Truth
from pipelines.provenance.model_files import file_sha256, model_files
from pipelines.provenance.reading import ModelName
from pipelines.provenance.xmp import SourceType
from pipelines.stores import PictureStore

if TYPE_CHECKING:
    from PIL.Image import Image

    from pipelines.engine import Engine

FORMAT = 1  # of the records that this version writes
VERSIONS = ("python", "torch", "diffusers", "transformers", "huggingface_hub")
HARDWARE = ("device", "device_name", "torch_threads", "system")


def run_truth(engine: Engine, run: Run) -> Truth:
    """What the file of a run's picture says: request, model by commit and files, versions."""
    record = {"format": FORMAT, "requests": [run.request], **made_with(engine, [run])}
    models = record["models"]
    files = models[0].get("files", {}) if models else {}
    sha256 = next(iter(files.values()))["sha256"] if len(files) == 1 else ""
    parameters = write_a1111(run.request, ModelName(run.model_id, sha256),
                             (run.width or 0, run.height or 0))
    return Truth(record, parameters, source_type(engine, run))


def source_type(engine: Engine, run: Run) -> SourceType:
    """IPTC's word: a composite where a picture that no run made was painted into, be it at the
    start of a chain."""
    seen: set[int] = set()
    at: Run | None = run
    while at and at.id not in seen:
        if at.task == "inpainting" and at.parent_id is None:
            return "compositeWithTrainedAlgorithmicMedia"
        seen.add(at.id)
        at = engine.run_log.run(at.parent_id) if at.parent_id else None
    return "trainedAlgorithmicMedia"


def made_with(engine: Engine, runs: Sequence[Run | None]) -> dict[str, Any]:
    """The models of some runs, the versions and the hardware that they ran with, and a record of
    each picture: `pictures` has one for each run, null where there is no picture."""
    made = [run for run in runs if run and run.status == "ok"]
    models: dict[str, dict[str, Any]] = {}
    for run in made:
        models.setdefault(_model_key(run), _model_record(engine, run))
    return {
        "models": list(models.values()),
        "versions": _common(made, VERSIONS),
        "hardware": _common(made, HARDWARE),
        "pictures": [run and _picture_record(engine.pictures, run) for run in runs],
    }


def _common(runs: Sequence[Run], names: Sequence[str]) -> dict[str, Any]:
    """What the runs ran with; a list where they differ."""
    values: dict[str, Any] = {}
    for name in names:
        every = list(dict.fromkeys(str(run.environment[name]) for run in runs
                                   if name in run.environment))
        if every:
            values[name] = every[0] if len(every) == 1 else every
    return values


def _model_key(run: Run) -> str:
    fields = ("model_id", "revision", "variant", "loras")
    return repr([run.request.get(name) for name in fields])


def _model_record(engine: Engine, run: Run) -> dict[str, Any]:
    """A run's model: id, commit and files, as far as these are still the ones that it ran with."""
    record: dict[str, Any] = {name: run.request.get(name)
                              for name in ("model_id", "revision", "variant")}
    try:
        request = run.valid_request()
        info = engine.registry.describe(request.model_id, request.revision, request.variant)
        contents = {"model": model_content(info), "loras": list(lora_contents(request.loras))}
        record |= {"pipeline_class": info.pipeline_class}
        if info.hosted:
            return record | {"provider": run.environment.get("provider", {}).get("provider"),
                             "files_unknown": "a provider ran it, and may change its weights"}
        if run.environment.get("contents") != contents:
            return record | {"files_unknown": "they were not recorded, or have changed since"}
        record["files"] = model_files(info)
        if request.loras:
            record["loras"] = [{"name": find_lora(lora.path).name, "weight": lora.weight,
                                "sha256": file_sha256(find_lora(lora.path))}
                               for lora in request.loras]
    except (PipelineError, OSError) as error:
        record["files_unknown"] = str(error).splitlines()[0]
    return record


def _picture_record(pictures: PictureStore, run: Run) -> dict[str, Any] | None:
    if run.status != "ok":
        return None
    return {"image_sha256": run.image_sha256, "noise_sha256": run.noise_sha256,
            "pixels_sha256": stored_pixels(pictures, run.image_sha256)}


def stored_pixels(pictures: PictureStore, sha256: str | None) -> str | None:
    """pixels_sha256 of a stored picture; None where it is missing or damaged."""
    try:
        return _stored_pixels(pictures, sha256) if sha256 else None
    except StorageError:
        return None


@functools.lru_cache(4096)
def _stored_pixels(pictures: PictureStore, sha256: str) -> str:
    return pixels_sha256(pictures.get(sha256))


def pixels_sha256(image: Image) -> str:
    """SHA-256 of a picture's pixels with its size and mode: the same whatever file they come
    from."""
    head = f"{image.mode} {image.width} {image.height}\n".encode()
    return hashlib.sha256(head + image.tobytes()).hexdigest()


def shown_versions(record: Mapping[str, Any]) -> dict[str, Any]:
    """Versions and hardware of a record, flat; {} where it has none, or others than expected."""
    parts = [record.get(name) for name in ("versions", "hardware")]
    return {name: value for part in parts if isinstance(part, dict)
            for name, value in part.items() if isinstance(value, str | list)}
