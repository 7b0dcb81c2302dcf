"""The text that Stable Diffusion web UI (A1111) writes into a picture, which Forge and many
viewers share: the prompt, 'Negative prompt: ...', and one last line of 'Name: value' with commas
between."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from pipelines.names import is_hosted
from pipelines.notation import number_text
from pipelines.provenance.reading import LOST_PICTURE, Collected, ModelName, Reading
from pipelines.provenance.samplers import A1111, a1111_names, scheduler_values

NEGATIVE = "Negative prompt:"
# A value is a JSON text, or goes to the next comma; possessive, so that no text takes long.
PARAMETER = re.compile(r'\s*+(\w[\w \-/]*+):\s*+("(?:\\.|[^\\"])++"|[^,]*+)(?:,|$)')
FEWEST = 3  # parameters in the last line; with fewer it is part of the prompt
LONGEST = 2**20  # characters of the last line that are taken apart
LORA = re.compile(r"<(?:lora|lyco|hypernet):([^<>:]{1,200}):?([^<>]{0,60})>")
EMPHASIS = re.compile(r"\([^()]{1,500}:\s*[\d.]{1,8}\)")
SIZE = re.compile(r"(\d{1,6})\s*x\s*(\d{1,6})")
# Keys that need no word: they change no picture, or are told by another key.
SILENT = {"Version", "Batch size", "Batch pos", "Model", "Model hash", "Hashes", "Lora hashes",
          "Schedule type", "Sampler", "User"}


def is_a1111(text: str) -> bool:
    """Whether a text ends in a line of parameters."""
    return len(_parameters(text)) >= FEWEST


def _parameters(text: str) -> dict[str, str]:
    line = text.strip().rpartition("\n")[2]
    if len(line) > LONGEST:
        return {}
    return {match[1].strip(): _plain(match[2]) for match in PARAMETER.finditer(line)}


def _plain(value: str) -> str:
    """A value out of its quotes."""
    if value.startswith('"'):
        try:
            return str(json.loads(value))
        except ValueError:
            return value
    return value.strip()


def read_a1111(text: str) -> Reading:
    """The reading of a text for which is_a1111 holds."""
    found, parameters = Collected("A1111"), _parameters(text)
    prompt, negative = _prompts(text.strip().rpartition("\n")[0])
    found.values |= {"prompt": _without_loras(found, prompt), "negative_prompt": negative}
    if EMPHASIS.search(prompt) or EMPHASIS.search(negative):
        found.notes.append("prompt: weights such as (word:1.2) are plain text to this program")

    def take(key: str) -> str | None:
        return parameters.pop(key, None)

    found.number("num_inference_steps", take("Steps"), whole=True)
    found.number("guidance_scale", take("CFG scale"))
    found.number("seed", take("Seed"), whole=True)
    found.scheduler(scheduler_values(A1111, parameters.get("Sampler", ""),
                                     parameters.get("Schedule type", "")))
    if size := SIZE.fullmatch(take("Size") or ""):
        found.values |= {"width": int(size[1]), "height": int(size[2])}
    found.number("guidance_rescale", take("CFG Rescale"))
    found.number("eta", take("Eta DDIM") or take("Eta"))
    _noise(found, take("RNG"))
    if (skipped := take("Clip skip")) not in (None, "1"):
        found.notes.append(f"Clip skip: received {skipped[:20]}, accepted 1: the text encoder's "
                           "last layer is taken")
    _denoising(found, parameters)
    model = ModelName(parameters.get("Model", ""), parameters.get("Model hash", ""))
    found.ignored((key, value) for key, value in parameters.items() if key not in SILENT)
    return found.done(model)


def _prompts(text: str) -> tuple[str, str]:
    """Prompt and negative prompt; each line is stripped, as A1111 does when it reads."""
    parts: tuple[list[str], list[str]] = [], []
    negative = False
    for line in map(str.strip, text.split("\n")):
        if line.startswith(NEGATIVE):
            negative, line = True, line.removeprefix(NEGATIVE).strip()
        parts[negative].append(line)
    prompt, negative_prompt = ("\n".join(lines).strip() for lines in parts)
    return prompt, negative_prompt


def _without_loras(found: Collected, prompt: str) -> str:
    for name, weight in list(dict.fromkeys(LORA.findall(prompt)))[:20]:
        found.notes.append(f"LoRA {name} (weight {weight or 1}) is left out: add its file, with "
                           f"--lora PATH={weight or 1} or in the field LoRA adapters")
    return LORA.sub("", prompt).strip() if LORA.search(prompt) else prompt


def _noise(found: Collected, source: str | None) -> None:
    if source == "CPU":
        return
    kind = f"the {source[:20]} generator's" if source else "the GPU's (it names no RNG)"
    found.notes.append(f"seed: its noise is {kind}; here it is the CPU's, so that the same seed "
                       "gives another picture")


def _denoising(found: Collected, parameters: dict[str, str]) -> None:
    strength = parameters.pop("Denoising strength", None)
    if strength is None:
        return
    if any(key.startswith("Hires") for key in parameters):
        found.notes.append(f"Hires. fix with denoising strength {strength[:20]} is left out: the "
                           "first pass is what is restored")
        return
    found.number("strength", strength)
    found.notes.append(LOST_PICTURE)


def write_a1111(request: Mapping[str, Any], model: ModelName, size: tuple[int, int]) -> str:
    """The text for a request that has run, with the picture's width and height.

    Line breaks inside prompts stay, as A1111 leaves them: a prompt with a line 'Negative prompt:'
    reads back as two. The whole request stands in this program's own record.
    """
    hosted = is_hosted(model.name)  # its steps, guidance and noise may be the provider's own
    sampler, schedule = a1111_names(request["scheduler"], request.get("scheduler_options") or {})
    parameters = {
        "Steps": request["num_inference_steps"], "Sampler": sampler, "Schedule type": schedule,
        "CFG scale": "" if hosted and request["guidance_scale"] is None
                     else number_text(request["guidance_scale"] or 0), "Seed": request["seed"],
        "Size": f"{size[0]}x{size[1]}", "Model hash": model.hash[:10], "Model": model.name,
        "Denoising strength": number_text(request["strength"]) if request.get("image") else "",
        "CFG Rescale": number_text(request["guidance_rescale"])
                       if request.get("guidance_rescale") else "",
        "Eta DDIM": number_text(request["eta"]) if request.get("eta") else "",
        "RNG": "" if hosted else "CPU", "Version": "Contact Sheet",
    }
    line = ", ".join(f"{key}: {_quoted(value)}" for key, value in parameters.items()
                     if value not in ("", None))
    negative = request.get("negative_prompt")
    return "\n".join([request.get("prompt") or "", *([f"{NEGATIVE} {negative}"] * bool(negative)),
                      line])


def _quoted(value: Any) -> str:
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if any(c in text for c in ',:\n"') else text
