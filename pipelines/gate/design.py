"""A gate is a study of two methods: a baseline and what is to replace it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipelines.axes import OPTION, Axis, field_of, label, make_axis, parse_axis, replaces
from pipelines.clip import find_clip
from pipelines.comparison import Comparison
from pipelines.errors import RequestError
from pipelines.gate.margins import MARGINS
from pipelines.measuring import CONVERGED, converged_request
from pipelines.postcards.vocabulary import CAPTIONED_MODELS
from pipelines.references import CONVERGED_OF, cell_texts
from pipelines.request import RunRequest, join_model_id, loras_text
from pipelines.study.design import NOT_METHODS, Study
from pipelines.study.prompts import Prompt

if TYPE_CHECKING:
    from pipelines.engine import Engine

BASELINE = "baseline"
REFERENCES = (CONVERGED, BASELINE)


@dataclass(frozen=True)
class Gate:
    """`study` has the baseline as its first method, the candidate as its second, and measures what
    `margins` name, and the time."""

    study: Study
    margins: Mapping[str, float]

    @property
    def names(self) -> tuple[str, str]:
        """Baseline and candidate in words."""
        axis = self.study.axes[0]
        baseline, candidate = (_in_words(axis, value) for value in axis.values)
        return baseline, candidate

    @property
    def to_baseline(self) -> bool:
        """Whether distances are measured to the baseline's own pictures."""
        return not str(self.study.reference).startswith(CONVERGED)


def make_gate(
    engine: Engine,
    base: RunRequest,
    baseline: Sequence[str],
    candidate: Sequence[str],
    prompts: Sequence[Prompt],
    seeds: Sequence[int],
    reference: str = CONVERGED,
    margins: Mapping[str, float] | None = None,
    timings: bool = True,
) -> Gate:
    """The gate of `base` changed by the texts of `baseline` against the same changed by those of
    `candidate`, each 'NAME=VALUE' as on an axis.

    `reference`: 'converged', distances are to the baseline's converged picture and the difference
    between the two is judged; 'baseline', they are to the baseline's own picture. Without margins
    the defaults of the measures that fit. Raises RequestError, also for a request that would fail.
    """
    base = base.changed(prompt=prompts[0].text)
    for name, value in settings("baseline", baseline, base).items():
        base = changed(base, name, value)
    wanted = settings("candidate", candidate, base)
    before = {part: _value_of(engine, base, part) for part in wanted}
    if before == wanted:
        raise RequestError(f"candidate: received {', '.join(candidate)}, which the baseline has "
                           "already; accepted another value")
    values: list[Any] = [tuple(part.values()) for part in (before, wanted)]
    if len(wanted) == 1:
        values = [value for (value,) in values]
    axis = make_axis("+".join(wanted), values, base)
    cell = cell_texts(Comparison(base, (axis,)))[0]
    if margins is None:
        margins = {name: MARGINS[name].value for name in fitting(
            engine, reference, {request.model_id for request in _requests(base, axis)})}
    if reference == BASELINE and "psnr" in margins:
        raise RequestError("margin: received psnr with --reference baseline, accepted others such "
                           "as flip: the PSNR of a picture to itself is infinite")
    study = Study(
        base.changed(prompt=""), (axis,), tuple(prompts), tuple(seeds),
        cell if reference == BASELINE else f"{CONVERGED_OF}{cell}",
        (*margins, "time") if timings else tuple(margins))
    checked = [engine.check(request) for request in study.requests]
    if reference == CONVERGED:
        try:
            engine.check(converged_request(checked[0]))
        except RequestError as error:
            raise RequestError(f"reference: received {CONVERGED!r}, which this model cannot make "
                               f"({error}); accepted {BASELINE}") from error
    return Gate(study, dict(margins))


def gate_of(study: Study, margins: Mapping[str, float] | None = None) -> Gate:
    """The gate of a study of the log, with the default margins where none are given. Raises
    RequestError where the study has more than two methods or did not measure what is to be judged.
    """
    measured = [name for name in study.measures if name != "time"]
    if len(study.methods) != 2 or len(study.axes) != 1 or not measured:
        raise RequestError(f"resume: study {study.id} has {len(study.methods)} methods, accepted "
                           "one of two, a baseline and a candidate, with a measure of "
                           f"{', '.join(MARGINS)}")
    margins = margins or {name: MARGINS[name].value for name in measured if name in MARGINS}
    if unknown := [name for name in margins if name not in measured]:
        raise RequestError(f"margin: received {', '.join(unknown)}, but study {study.id} measures "
                           f"{', '.join(measured)}")
    return Gate(study, dict(margins))


def settings(option: str, texts: Sequence[str], base: RunRequest) -> dict[str, Any]:
    """'NAME=VALUE' texts as values by part of an axis's name. Raises RequestError."""
    values: dict[str, Any] = {}
    for text in texts:
        axis = parse_axis(text, base)
        if len(axis.values) != 1:
            raise RequestError(f"{option}: received {len(axis.values)} values of {axis.name}, "
                               f"accepted one; more settings are further --{option}")
        parts = zip(axis.parts, axis.values[0] if len(axis.parts) > 1 else axis.values, strict=True)
        for part, value in parts:
            if field_of(part) in NOT_METHODS or replaces(part) or part in values:
                raise RequestError(f"{option}: received {part}, accepted what says how a picture "
                                   "is made, each once; prompts and seeds are for both")
            values[part] = value
    if option == "candidate" and not values:
        raise RequestError("candidate: received none, accepted NAME=VALUE such as "
                           "torch_dtype=bfloat16")
    return values


def changed(request: RunRequest, part: str, value: Any) -> RunRequest:
    """The request with one part of an axis's name set."""
    fields: dict[str, Any] = request.model_dump()
    Axis(part, (value,)).set(fields, value, {})
    return RunRequest(**fields)


def fitting(engine: Engine, reference: str, model_ids: set[str]) -> list[str]:
    """The measures that are judged where none is named."""
    names = ["flip", "ssim"] if reference == BASELINE else ["psnr", "flip"]
    if model_ids <= set(CAPTIONED_MODELS):
        names.append("judge")
    return [*names, "clip_score"] if find_clip(engine.registry.device) else names


def _requests(base: RunRequest, axis: Axis) -> list[RunRequest]:
    return [cell.request for cell in Comparison(base, (axis,)).cells]


def _value_of(engine: Engine, base: RunRequest, part: str) -> Any:
    """What a request has for a part of an axis's name, filled in where it was left open."""
    if part.startswith(OPTION):
        option = part.removeprefix(OPTION)
        if option not in base.scheduler_options:
            raise RequestError(f"candidate: received {part}, which the baseline leaves open; "
                               f"accepted with --baseline {part}=VALUE beside it")
        return base.scheduler_options[option]
    if part == "model_id":
        return join_model_id(base.model_id, base.revision, base.variant)
    if part == "torch_dtype":
        return engine.registry.dtype(base, engine.device)
    info = engine.registry.describe(base.model_id, base.revision, base.variant)
    value = getattr(info.fill_in(base), part)
    return loras_text(value) if part == "loras" else value


def _in_words(axis: Axis, value: Any) -> str:
    values = value if len(axis.parts) > 1 else (value,)
    return ", ".join(f"{part} {label(part, item)}"
                     for part, item in zip(axis.parts, values, strict=True))
