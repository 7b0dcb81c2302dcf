"""Where families of models differ: each special case of reading a model is one entry or one rule
here, made from its config files and the parameters of its pipeline's call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipelines.models.signatures import call_parameters, component_parameters, has_method

DEFAULT_STEPS, DEFAULT_GUIDANCE, FEW_STEPS = 20, 5.0, 4
MASK_CHANNELS = 9  # of a denoiser that also takes the mask and the masked picture
# Second stages whose latents are a broken fraction of the first's: pixels that keep them whole.
SIZE_MULTIPLES = {"StableCascadeUNet": 128, "WuerstchenDiffNeXt": 128}


def possible_tasks(
    classes: Mapping[str, str],
    pipeline_class: str,
    index: Mapping[str, Any],
    denoiser: Mapping[str, Any],
    controlnet: Mapping[str, Any],
) -> dict[str, str]:
    """Those of a pipeline's tasks (task -> class) that its denoiser and its ControlNet can do."""
    # A flag that says that the denoiser needs an input more, such as an aesthetic score: a class
    # that does not have the flag does not give it. So SDXL's refiner has no text-to-image.
    flags = {name for name, default in component_parameters(pipeline_class).items()
             if name.startswith("requires_") and default is False and index.get(name) is True}
    classes = {task: name for task, name in classes.items()
               if flags <= set(component_parameters(name))}
    if controlnet:  # one that in-paints has channels for the mask, and can do nothing else
        masked = any(value for key, value in controlnet.items()
                     if key.startswith("extra_condition"))
        classes = {task: name for task, name in classes.items()
                   if ("control_mask" in call_parameters(name)) == masked}
    if denoiser.get("in_channels") == MASK_CHANNELS:  # it can do nothing else
        return {task: name for task, name in classes.items() if task == "inpainting"}
    # Kandinsky's in-painting needs such a denoiser.
    if "Kandinsky" in pipeline_class and classes.get("inpainting") != pipeline_class:
        return {task: name for task, name in classes.items() if task != "inpainting"}
    return dict(classes)


def missing_flag(
    index: Mapping[str, Any], denoiser: Mapping[str, Any], text_encoder_2: Mapping[str, Any]
) -> str | None:
    """The flag that an index lacks, though its denoiser is one of SDXL's refiner: a time embedding
    for five numbers, one of them an aesthetic score, where the others' is for six."""
    each = denoiser.get("addition_time_embed_dim")
    whole, pooled = (denoiser.get("projection_class_embeddings_input_dim"),
                     text_encoder_2.get("projection_dim"))
    if not all(isinstance(number, int) for number in (each, whole, pooled)):
        return None
    if whole - pooled != 5 * each:
        return None
    return None if index.get("requires_aesthetics_score") else "requires_aesthetics_score"


def needs_control_mode(controlnet: Mapping[str, Any]) -> bool:
    """Union ControlNets are told what kind of picture they follow."""
    return ("Union" in str(controlnet.get("_class_name"))
            or controlnet.get("num_mode") is not None)


def latent_factor(autoencoder: Mapping[str, Any]) -> int:
    """Pixels per latent and side."""
    if stages := autoencoder.get("temperal_downsample"):
        return 2 ** len(stages)
    blocks = (autoencoder.get("block_out_channels")
              or autoencoder.get("encoder_block_out_channels"))
    return 2 ** (len(blocks) - 1) if blocks else 1


def size_multiple(pipeline_class: str, denoiser: Mapping[str, Any], factor: int) -> int:
    """Height and width in pixels are multiples of it; `factor`: pixels per latent."""
    if multiple := SIZE_MULTIPLES.get(denoiser.get("_class_name", "")):
        return multiple
    if any(has_method(pipeline_class, name) for name in ("_pack_latents", "_patchify_latents")):
        patch = 2  # latents per token and side
    else:
        patch = denoiser.get("patch_size") or denoiser.get("all_patch_size") or 1
        patch = patch if isinstance(patch, int) else patch[-1]
    return max(8, factor * patch)


def start_values(
    parameters: Mapping[str, Any],
    index: Mapping[str, Any],
    denoiser: Mapping[str, Any],
    scheduler: Mapping[str, Any],
) -> dict[str, Any]:
    """Steps and guidance to start with: those of the pipeline's call, fewer and without guidance
    where the configs say that the model was distilled; `_call_defaults` of its index overrules.

    Also what the call names the guidance scale (None: the model has none), and `distilled`.
    """
    guidance = _guidance_parameter(parameters)
    # Flux schnell: a pipeline made for embedded guidance, a denoiser that has no input for it.
    unguided = (guidance == "guidance_scale" and "true_cfg_scale" in parameters
                and denoiser.get("guidance_embeds") is False)
    distilled = bool(index.get("is_distilled", unguided or _few_step_scheduler(scheduler)))
    steps = _number(parameters.get("num_inference_steps"), DEFAULT_STEPS)
    scale = _number(parameters.get(guidance or ""), DEFAULT_GUIDANCE)
    if distilled:
        embedded = bool(denoiser.get("time_cond_proj_dim") or denoiser.get("guidance_embeds"))
        steps, scale = min(steps, FEW_STEPS), scale if embedded else 0.0
    stated = index.get("_call_defaults") or {}
    return {
        "num_inference_steps": int(stated.get("num_inference_steps", steps)),
        "guidance_scale": float(stated.get("guidance_scale", scale)),
        "guidance_parameter": None if unguided else guidance,
        "distilled": distilled,
    }


def _guidance_parameter(parameters: Mapping[str, Any]) -> str | None:
    """What a call names its guidance scale; `true_cfg_scale` where that is on by default, or
    where `guidance_scale` is for distilled variants only (Qwen-Image)."""
    if (parameters.get("true_cfg_scale") or 0) > 1 or (
        "true_cfg_scale" in parameters and parameters.get("guidance_scale") is None
    ):
        return "true_cfg_scale"
    # Cascade and Wuerstchen guide their first stage only.
    return next((name for name in ("guidance_scale", "prior_guidance_scale")
                 if name in parameters), None)


def _few_step_scheduler(scheduler: Mapping[str, Any]) -> bool:
    """Whether a model's scheduler tells that the model was distilled: those of consistency models,
    or (SDXL Turbo, SD Turbo, Lightning) Euler's that starts from the last timestep, though the
    noise schedule was not rescaled for it."""
    solver = str(scheduler.get("_class_name", ""))
    if "LCM" in solver or solver == "TCDScheduler":
        return True
    return (solver.startswith("Euler") and scheduler.get("timestep_spacing") == "trailing"
            and scheduler.get("prediction_type", "epsilon") == "epsilon"
            and not scheduler.get("rescale_betas_zero_snr"))


def _number(value: Any, otherwise: float) -> float:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else otherwise
