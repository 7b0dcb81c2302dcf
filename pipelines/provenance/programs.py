"""What InvokeAI, SwarmUI and NovelAI write of a picture, and users of diffusers by themselves: JSON
objects, or texts under the names of a call's arguments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipelines.notation import shown
from pipelines.provenance.reading import LOST_PICTURE, Collected, ModelName, Reading
from pipelines.provenance.samplers import (
    COMFYUI,
    DIFFUSERS,
    INVOKEAI,
    NOVELAI,
    scheduler_values,
)
from pipelines.request import RunRequest

# Names of diffusers' call arguments, and of those that people use, for fields that we call else.
ALIASES = {"model": "model_id", "model_name": "model_id", "pretrained_model_name_or_path":
           "model_id", "repo_id": "model_id", "steps": "num_inference_steps", "cfg":
           "guidance_scale", "cfg_scale": "guidance_scale", "generator_seed": "seed"}  # fmt: skip
WHOLE = {"num_inference_steps", "seed", "width", "height", "class_label", "control_mode",
         "prior_num_inference_steps"}
NUMBERS = {"guidance_scale", "guidance_rescale", "eta", "strength"}
TEXTS = {"prompt", "negative_prompt"}
DIFFUSERS_MARKS = {"num_inference_steps", "guidance_scale", "negative_prompt", "seed", "steps"}


def read_invokeai(data: Mapping[str, Any]) -> Reading:
    """`invokeai_metadata`, since version 3; `sd-metadata` before it."""
    found = Collected("InvokeAI")
    image = data.get("image")
    if isinstance(image, dict):
        return _old_invokeai(found, data, image)
    rest = dict(data)
    take = rest.pop
    found.text("prompt", take("positive_prompt", None))
    found.text("negative_prompt", take("negative_prompt", None))
    for field, key, whole in (("num_inference_steps", "steps", True), ("seed", "seed", True),
                              ("width", "width", True), ("height", "height", True),
                              ("guidance_scale", "cfg_scale", False),
                              ("guidance_rescale", "cfg_rescale_multiplier", False)):
        found.number(field, take(key, None), whole)
    found.scheduler(scheduler_values(INVOKEAI, str(take("scheduler", ""))))
    if (device := take("rand_device", "cpu")) != "cpu":
        found.notes.append(f"seed: its noise is of {str(device)[:20]}; here it is the CPU's, so "
                           "that the same seed gives another picture")
    if take("init_image", None) is not None or rest.get("generation_mode") in (
            "img2img", "sdxl_img2img", "inpaint", "outpaint"):
        found.number("strength", rest.get("strength"))
        found.notes.append(LOST_PICTURE)
    take("strength", None)
    loras = take("loras", None)
    for lora in (loras if isinstance(loras, list) else [])[:20]:
        model = lora.get("model", lora.get("lora")) if isinstance(lora, dict) else lora
        name = model.get("name", model.get("model_name")) if isinstance(model, dict) else model
        found.notes.append(f"LoRA {shown(name)} is left out: add its file, with --lora PATH or in "
                           "the field LoRA adapters")
    model = take("model", None)
    for key in ("generation_mode", "app_version", "vae"):
        take(key, None)
    found.ignored((key, value) for key, value in rest.items() if value not in (None, [], {}, False))
    return found.done(_invokeai_model(model))


def _invokeai_model(model: Any) -> ModelName:
    if isinstance(model, dict):
        return ModelName(str(model.get("name") or model.get("model_name") or ""),
                         str(model.get("hash") or ""))
    return ModelName(str(model or ""))


def _old_invokeai(
    found: Collected, data: Mapping[str, Any], image: Mapping[str, Any]
) -> Reading:
    prompt = image.get("prompt")
    if isinstance(prompt, list):
        texts = [part.get("prompt") for part in prompt if isinstance(part, dict)]
        prompt = " ".join(text for text in texts if isinstance(text, str))
    found.text("prompt", prompt)
    for field, key, whole in (("num_inference_steps", "steps", True), ("seed", "seed", True),
                              ("width", "width", True), ("height", "height", True),
                              ("guidance_scale", "cfg_scale", False)):
        found.number(field, image.get(key), whole)
    found.scheduler(scheduler_values(INVOKEAI, str(image.get("sampler", ""))))
    found.notes.append("seed: its noise may be the GPU's; here it is the CPU's")
    return found.done(ModelName(str(data.get("model_weights") or data.get("model") or ""),
                                str(data.get("model_hash") or "")))


def read_swarmui(data: Mapping[str, Any]) -> Reading:
    """The object behind `sui_image_params`, with its models."""
    found = Collected("SwarmUI")
    parameters = data.get("sui_image_params")
    rest = dict(parameters) if isinstance(parameters, dict) else {}
    take = rest.pop
    found.text("prompt", take("prompt", None))
    found.text("negative_prompt", take("negativeprompt", None))
    for field, key, whole in (("num_inference_steps", "steps", True), ("seed", "seed", True),
                              ("width", "width", True), ("height", "height", True),
                              ("guidance_scale", "cfgscale", False)):
        found.number(field, take(key, None), whole)
    if "sampler" in rest:
        found.scheduler(scheduler_values(COMFYUI, str(take("sampler")),
                                         str(take("scheduler", ""))))
    if "initimage" in rest or "initimagecreativity" in rest:
        found.number("strength", take("initimagecreativity", None))
        found.notes.append(LOST_PICTURE)
    found.notes.append("seed: its noise is ComfyUI's: expect a picture like it, not the same")
    name = str(take("model", ""))
    models = data.get("sui_models")
    hashes = [str(model.get("hash", "")) for model in (models if isinstance(models, list) else ())
              if isinstance(model, dict) and model.get("param") == "model"]
    for key in ("swarm_version", "aspectratio", "automaticvae", "images"):
        take(key, None)
    found.ignored(rest.items())
    return found.done(ModelName(name, hashes[0].removeprefix("0x") if hashes else ""))


def read_novelai(data: Mapping[str, Any], source: str) -> Reading:
    """NovelAI's `Comment`; `source` is its text of that name, the model and its hash."""
    found = Collected("NovelAI")
    found.text("prompt", data.get("prompt"))
    found.text("negative_prompt", data.get("uc"))
    for field, key, whole in (("num_inference_steps", "steps", True), ("seed", "seed", True),
                              ("width", "width", True), ("height", "height", True),
                              ("guidance_scale", "scale", False),
                              ("guidance_rescale", "cfg_rescale", False)):
        found.number(field, data.get(key), whole)
    found.scheduler(scheduler_values(NOVELAI, str(data.get("sampler", "")),
                                     str(data.get("noise_schedule") or "")))
    if str(data.get("request_type", "")).startswith(("Img2Img", "NativeInfill")):
        found.number("strength", data.get("strength"))
        found.notes.append(LOST_PICTURE)
    found.notes.append("prompt: weights such as {word} and [word] are plain text to this program")
    found.notes.append("seed: its noise is its own; here it is the CPU's")
    name, _, digest = source.rpartition(" ")
    return found.done(ModelName(name or source, digest if name else ""))


def is_diffusers(data: Mapping[str, Any]) -> bool:
    """Whether an object, or a picture's texts, are the arguments of a call."""
    return isinstance(data.get("prompt"), str) and bool(DIFFUSERS_MARKS & data.keys())


def read_diffusers(data: Mapping[str, Any]) -> Reading:
    """Arguments of a pipeline's call as their users write them, by name."""
    found = Collected("diffusers")
    model, ignored = "", []
    for key, value in data.items():
        name = ALIASES.get(str(key).lower(), str(key).lower())
        if name == "model_id":
            model = str(value)
        elif name in TEXTS:
            found.text(name, value)
        elif name in WHOLE or name in NUMBERS:
            found.number(name, value, name in WHOLE)
        elif name in ("scheduler", "sampler"):
            label = value.get("_class_name") if isinstance(value, dict) else value
            found.scheduler(scheduler_values(DIFFUSERS, str(label)))
        elif name in RunRequest.model_fields or isinstance(value, str | int | float | bool):
            ignored.append((key, value))
    found.ignored(ignored)
    return found.done(ModelName(model))
