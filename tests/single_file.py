"""A tiny Stable Diffusion as one file in the names of the original (LDM) checkpoints."""

import re

from safetensors.torch import save_file

RESNET = {"norm1": "in_layers.0", "conv1": "in_layers.2", "norm2": "out_layers.0",
          "conv2": "out_layers.3", "time_emb_proj": "emb_layers.1",
          "conv_shortcut": "skip_connection"}  # fmt: skip
UNET_ENDS = {"time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
             "conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2"}
VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v",
                 "to_out.0": "proj_out"}  # fmt: skip


def renamed(name, names):
    for ours, theirs in names.items():
        name = re.sub(rf"(^|\.){re.escape(ours)}\.", rf"\g<1>{theirs}.", name)
    return name


def unet_name(name, layers):
    """A diffusers UNet's tensor name -> the original's; `layers` per block."""
    if match := re.match(r"(down|up)_blocks\.(\d+)\.(\w+)\.(\d+)\.(.*)", name):
        side, block, kind, layer, rest = match.groups()
        block, layer = int(block), int(layer)
        if side == "down":
            number = (layers + 1) * block + layer + 1
            if kind == "downsamplers":
                return f"input_blocks.{(layers + 1) * (block + 1)}.0.op.{rest[5:]}"
            place = f"input_blocks.{number}"
        else:
            number = (layers + 1) * block + layer
            if kind == "upsamplers":
                last = (layers + 1) * (block + 1) - 1
                return f"output_blocks.{last}.{2 if block == 0 else 1}.{rest}"
            place = f"output_blocks.{number}"
        if kind == "resnets":
            return f"{place}.0.{renamed(rest, RESNET)}"
        return f"{place}.1.{rest}"
    if match := re.match(r"mid_block\.(\w+)\.(\d+)\.(.*)", name):
        kind, number, rest = match.groups()
        if kind == "resnets":
            return f"middle_block.{2 * int(number)}.{renamed(rest, RESNET)}"
        return f"middle_block.1.{rest}"
    return renamed(name, UNET_ENDS)


def vae_name(name, blocks):
    name = renamed(name, {"conv_norm_out": "norm_out", "conv_shortcut": "nin_shortcut"})
    name = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", name)
    if "mid_block.attentions.0" in name:
        name = renamed(name.replace("mid_block.attentions.0", "mid.attn_1"), VAE_ATTENTION)
    name = re.sub(r"down_blocks\.(\d)\.resnets", r"down.\1.block", name)
    name = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", name)
    name = re.sub(r"up_blocks\.(\d)\.resnets",
                  lambda m: f"up.{blocks - 1 - int(m[1])}.block", name)
    return re.sub(r"up_blocks\.(\d)\.upsamplers\.0",
                  lambda m: f"up.{blocks - 1 - int(m[1])}.upsample", name)


def save_single_file(pipe, path):
    """Write UNet, VAE and text encoder of a Stable Diffusion pipeline into one file."""
    tensors = {}
    for name, tensor in pipe.unet.state_dict().items():
        layers = pipe.unet.config.layers_per_block
        tensors[f"model.diffusion_model.{unet_name(name, layers)}"] = tensor
    for name, tensor in pipe.vae.state_dict().items():
        theirs = vae_name(name, len(pipe.vae.config.block_out_channels))
        if "attn_1" in theirs and tensor.ndim == 2:
            tensor = tensor[:, :, None, None]  # 1 x 1 convolutions
        tensors[f"first_stage_model.{theirs}"] = tensor
    for name, tensor in pipe.text_encoder.state_dict().items():
        name = name if name.startswith("text_model.") else f"text_model.{name}"
        tensors[f"cond_stage_model.transformer.{name}"] = tensor
    save_file({name: tensor.contiguous().clone() for name, tensor in tensors.items()}, path)
