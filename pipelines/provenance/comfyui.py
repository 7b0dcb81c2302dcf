"""ComfyUI's graphs: nodes whose inputs are values or links to other nodes.

`prompt` is the graph that ran; `workflow` is how it lies on the page, with the values of its
widgets without their names. A graph may be anything: what is understood is the way from the picture
back to one sampler, and from there to its texts, model and size.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pipelines.provenance.reading import LOST_PICTURE, Collected, ModelName, Reading
from pipelines.provenance.samplers import COMFYUI, scheduler_values

MAX_NODES = 5_000
MAX_ENDS = 20  # nodes that save or show a picture
# Widgets of nodes in the order of a workflow's `widgets_values`; "" for what is no input.
WIDGETS = {
    "KSampler": ("seed", "", "steps", "cfg", "sampler_name", "scheduler", "denoise"),
    "KSamplerAdvanced": ("add_noise", "noise_seed", "", "steps", "cfg", "sampler_name",
                         "scheduler", "start_at_step", "end_at_step",
                         "return_with_leftover_noise"),
    "CLIPTextEncode": ("text",), "CheckpointLoaderSimple": ("ckpt_name",),
    "UNETLoader": ("unet_name", "weight_dtype"),
    "EmptyLatentImage": ("width", "height", "batch_size"),
    "EmptySD3LatentImage": ("width", "height", "batch_size"),
    "LoraLoader": ("lora_name", "strength_model", "strength_clip"),
    "KSamplerSelect": ("sampler_name",), "BasicScheduler": ("scheduler", "steps", "denoise"),
    "RandomNoise": ("noise_seed", ""), "CFGGuider": ("cfg",), "FluxGuidance": ("guidance",),
}  # fmt: skip
TEXTS = ("text", "text_g", "t5xxl", "text_l", "clip_l", "string", "value", "prompt")
CONDITIONS = ("conditioning", "conditioning_1", "conditioning_2", "positive", "conditioning_to",
              "conditioning_from")
MODELS = ("ckpt_name", "unet_name", "model_name", "model_path")
SAMPLER_INPUTS = {"sampler_name", "steps", "cfg"}
PICTURES = {"LoadImage", "LoadImageMask", "LoadImageOutput"}

Node = Mapping[str, Any]


def graph_of(prompt: Any, workflow: Any) -> dict[str, Node] | None:
    """The graph by number of the node: of `prompt`, else of `workflow`; None where neither is
    one."""
    if isinstance(prompt, dict) and len(prompt) <= MAX_NODES:
        nodes = {key: node for key, node in prompt.items() if isinstance(node, dict)
                 and isinstance(node.get("class_type"), str)
                 and isinstance(node.get("inputs"), dict)}
        if nodes:
            return nodes
    return _from_workflow(workflow) if isinstance(workflow, dict) else None


def _from_workflow(workflow: Mapping[str, Any]) -> dict[str, Node] | None:
    listed, links = workflow.get("nodes"), workflow.get("links")
    if not isinstance(listed, list) or not isinstance(links, list) or len(listed) > MAX_NODES:
        return None
    sources = {str(link[0]): [str(link[1]), link[2]] for link in links[:10 * MAX_NODES]
               if isinstance(link, list) and len(link) >= 3}
    nodes: dict[str, Node] = {}
    for node in listed:
        if not isinstance(node, dict) or node.get("mode") in (2, 4):  # muted or bypassed
            continue
        kind, values = str(node.get("type")), node.get("widgets_values")
        inputs: dict[str, Any] = {}
        if isinstance(values, dict):
            inputs |= values
        elif isinstance(values, list):
            inputs |= {name: value for name, value in zip(WIDGETS.get(kind, ()), values,
                                                         strict=False) if name}
        slots = node.get("inputs")
        for slot in slots if isinstance(slots, list) else ():
            if isinstance(slot, dict) and str(slot.get("link")) in sources:
                inputs[str(slot.get("name"))] = sources[str(slot["link"])]
        nodes[str(node.get("id"))] = {"class_type": kind, "inputs": inputs}
    return nodes or None


def read_comfyui(graph: Mapping[str, Node]) -> Reading | None:
    """The reading of a graph; None where it has no sampler."""
    found = Collected("ComfyUI")
    samplers = _samplers(graph)
    if not samplers:
        return None
    if len(samplers) > 1:
        found.notes.append(f"its graph has {len(samplers)} samplers; the last one before the "
                           "picture is taken")
    sampler = graph[samplers[0]]

    def near(start: Any, names: tuple[str, ...]) -> Any:
        """The first value of one of these inputs on the way back from a node."""
        for _, node in _back(graph, start):
            for name in names:
                value = node["inputs"].get(name)
                if isinstance(value, str | int | float) and value != "":
                    return value
        return None

    inputs = sampler["inputs"]

    def value(*names: str) -> Any:
        for name in names:
            given = inputs.get(name)
            if _is_link(graph, given):
                given = near(given[0], (*names, "value", "int", "float", "number", "seed"))
            if given is not None:
                return given
        return near(samplers[0], names) if "sampler_name" not in inputs else None

    found.number("seed", value("seed", "noise_seed"), whole=True)
    found.number("num_inference_steps", value("steps"), whole=True)
    found.number("guidance_scale", value("cfg", "guidance"))
    names = [value(name) for name in ("sampler_name", "scheduler")]
    found.scheduler(scheduler_values(
        COMFYUI, *(name if isinstance(name, str) else "" for name in names)))
    guider = inputs.get("guider")
    conditions = graph[guider[0]]["inputs"] if _is_link(graph, guider) else inputs
    for field, name in (("prompt", "positive"), ("negative_prompt", "negative")):
        link = conditions.get(name) or (conditions.get("conditioning") if name == "positive"
                                        else None)
        if _is_link(graph, link):
            _take_texts(found, graph, field, str(link[0]))
    latents = inputs.get("latent_image")
    if _is_link(graph, latents):
        for name in ("width", "height"):
            found.number(name, near(latents[0], (name,)), whole=True)
        if any(node["class_type"] in PICTURES for _, node in _back(graph, latents[0])):
            found.number("strength", value("denoise"))
            found.values.pop("width", None), found.values.pop("height", None)
            found.notes.append(LOST_PICTURE)
    found.notes.append("seed: its noise is drawn for a whole batch and its samplers count sigmas "
                       "their own way: expect a picture like it, not the same")
    found.notes += sorted({
        f"LoRA {str(node['inputs']['lora_name'])[:120]} is left out: add its file, with --lora "
        "PATH or in the field LoRA adapters"
        for _, node in _back(graph, samplers[0]) if "lora_name" in node["inputs"]})
    name = near(samplers[0], MODELS)
    return found.done(ModelName(name if isinstance(name, str) else ""))


def _is_link(graph: Mapping[str, Node], value: Any) -> bool:
    return (isinstance(value, list) and len(value) == 2 and isinstance(value[0], str | int)
            and str(value[0]) in graph)


def _back(graph: Mapping[str, Node], start: Any) -> Iterator[tuple[str, Node]]:
    """A node and all that it depends on, the nearest first, each once, with their numbers."""
    keys = [str(start)]
    seen = set(keys)
    for key in keys:  # which grows meanwhile
        yield key, graph[key]
        for value in graph[key]["inputs"].values():
            if _is_link(graph, value) and str(value[0]) not in seen:
                seen.add(str(value[0]))
                keys.append(str(value[0]))


def _samplers(graph: Mapping[str, Node]) -> list[str]:
    """The numbers of the nodes that sample, the one nearest to a saved picture first."""
    samplers = {key for key, node in graph.items()
                if node["inputs"].keys() >= SAMPLER_INPUTS
                or node["class_type"] in ("SamplerCustom", "SamplerCustomAdvanced")}
    ends = [key for key, node in graph.items()
            if "Save" in node["class_type"] or "Preview" in node["class_type"]]
    ordered = dict.fromkeys(before for key in ends[:MAX_ENDS] for before, _ in _back(graph, key)
                            if before in samplers)
    return [*ordered, *sorted(samplers - ordered.keys())]


def _take_texts(found: Collected, graph: Mapping[str, Node], field: str, start: str) -> None:
    """The text of a conditioning; several are joined, and that is said."""
    texts: dict[str, None] = {}
    queue = [start]
    seen: set[str] = set()
    while queue:
        key = queue.pop(0)
        if key in seen or key not in graph:
            continue
        seen.add(key)
        inputs = graph[key]["inputs"]
        given = [inputs.get(name) for name in TEXTS]
        texts |= dict.fromkeys(text for text in given if isinstance(text, str) and text)
        links = [*given, *(inputs.get(name) for name in CONDITIONS)]
        queue += [str(link[0]) for link in links if _is_link(graph, link)]
    if len(texts) > 1:
        found.notes.append(f"{field}: its graph combines {len(texts)} texts; they are joined")
    found.values[field] = ", ".join(texts)
