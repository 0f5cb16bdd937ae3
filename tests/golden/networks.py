"""Records what the reference UNet and autoencoder make of small random weights.

Nothing large is stored: every tensor is drawn from a splitmix64 stream seeded by its own key, which the Rust tests draw
again. A recording is `<case>.json` (keys, shapes, configuration) and `<case>.safetensors` (inputs and outputs, f32).

Made with torch 2.15.0 (CPU), diffusers 0.42.1, safetensors, numpy:

    python tests/golden/networks.py
"""

import json
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import save_file

from drawing import parameter, value

OUT = Path(__file__).with_suffix("")

# Keys of diffusers, rewritten as single-file checkpoints spell them.

RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}


def unet_key(name: str, layers: int) -> str:
    """One key of a UNet with that many resnets a level."""
    top = {
        "conv_in": "input_blocks.0.0",
        "conv_norm_out": "out.0",
        "conv_out": "out.2",
        "time_embedding.linear_1": "time_embed.0",
        "time_embedding.linear_2": "time_embed.2",
    }
    for old, new in top.items():
        if name.startswith(old + "."):
            return new + name[len(old) :]
    side, *rest = name.split(".")
    if side == "mid_block":
        kind, index, *tail = rest
        place = "middle_block.1" if kind == "attentions" else f"middle_block.{2 * int(index)}"
    else:
        level, kind, index, *tail = int(rest[0]), rest[1], int(rest[2]), *rest[3:]
        if side == "down_blocks":
            if kind == "downsamplers":
                return f"input_blocks.{(layers + 1) * (level + 1)}.0.op.{tail[-1]}"
            place = f"input_blocks.{1 + (layers + 1) * level + index}." + ("1" if kind == "attentions" else "0")
        else:
            if kind == "upsamplers":
                return f"output_blocks.{(layers + 1) * (level + 1) - 1}.UP.conv.{tail[-1]}"
            place = f"output_blocks.{(layers + 1) * level + index}." + ("1" if kind == "attentions" else "0")
    if kind == "resnets":
        tail[0] = RESNET[tail[0]]
    return ".".join([place, *tail])


def unet_keys(model: UNet2DConditionModel, layers: int) -> dict[str, str]:
    """Key of diffusers to key of a checkpoint; an upsampler comes after the attention where there is one."""
    keys = {name: unet_key(name, layers) for name in model.state_dict()}
    attended = {key.rsplit(".1.norm.", 1)[0] for key in keys.values() if ".1.norm." in key}
    return {name: key.replace("UP", "2" if key.split(".UP")[0] in attended else "1") for name, key in keys.items()}


def vae_key(name: str, levels: int) -> str:
    """One key of an autoencoder."""
    if name.startswith(("quant_conv", "post_quant_conv")):
        return name
    coder, *rest = name.split(".")
    if rest[0] in ("conv_in", "conv_out", "conv_norm_out"):
        return ".".join([coder, rest[0].replace("conv_norm_out", "norm_out"), *rest[1:]])
    if rest[0] == "mid_block":
        kind, index, *tail = rest[1:]
        if kind == "resnets":
            return ".".join([coder, f"mid.block_{int(index) + 1}", *tail]).replace("conv_shortcut", "nin_shortcut")
        names = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out": "proj_out"}
        return f"{coder}.mid.attn_1.{names[tail[0]]}.{tail[-1]}"
    level, kind, index, *tail = int(rest[1]), rest[2], rest[3], *rest[4:]
    side = "down" if rest[0] == "down_blocks" else "up"
    level = level if side == "down" else levels - 1 - level
    if kind == "resnets":
        return f"{coder}.{side}.{level}.block.{index}." + ".".join(tail).replace("conv_shortcut", "nin_shortcut")
    return f"{coder}.{side}.{level}.{side}sample.conv.{tail[-1]}"


def fill(model: torch.nn.Module, keys: dict[str, str], prefix: str) -> dict[str, list[int]]:
    """Draws every parameter of the model; the checkpoint's keys and shapes."""
    state, listing = {}, {}
    for name, tensor in model.state_dict().items():
        key = prefix + keys[name]
        shape = list(tensor.shape)
        # The autoencoder's attention is made of 1x1 convolutions in checkpoints.
        listing[key] = shape + [1, 1] if ".attn_1." in key and len(shape) == 2 else shape
        state[name] = parameter(key, listing[key]).reshape(shape)
    model.load_state_dict(state)
    return dict(sorted(listing.items()))


def record(case: str, config: dict, listing: dict, tensors: dict[str, torch.Tensor]) -> None:
    OUT.mkdir(exist_ok=True)
    with open(OUT / f"{case}.json", "w") as file:
        json.dump({"config": config, "tensors": listing}, file, separators=(",", ":"))
        file.write("\n")
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, OUT / f"{case}.safetensors")


def unet(
    case: str,
    channels: list[int],
    layers: int,
    attended: list[bool],
    context: int,
    size: tuple[int, int],
    gradients: bool = False,
) -> None:
    down = ["CrossAttnDownBlock2D" if here else "DownBlock2D" for here in attended]
    up = ["CrossAttnUpBlock2D" if here else "UpBlock2D" for here in reversed(attended)]
    model = UNet2DConditionModel(
        block_out_channels=channels,
        layers_per_block=layers,
        down_block_types=down,
        up_block_types=up,
        cross_attention_dim=context,
        attention_head_dim=8,
    ).eval()
    listing = fill(model, unet_keys(model, layers), "model.diffusion_model.")
    x = value("x", [2, 4, *size], 1.5)
    prompt = value("context", [2, 77, context], 1.5)
    timesteps = torch.tensor([981.0, 37.0])
    x.requires_grad_()
    prompt.requires_grad_()
    output = model(x, timesteps, prompt).sample
    (output * value("weights", list(output.shape), 1.0)).sum().backward()
    config = {"channels": channels, "layers": layers, "attended": attended, "context": context, "size": size}
    recorded = {"timesteps": timesteps, "output": output.detach()}
    if gradients:
        recorded |= {"x_gradient": x.grad, "context_gradient": prompt.grad}
    record(case, config, listing, recorded)


def vae(case: str, channels: list[int], size: tuple[int, int]) -> None:
    levels = len(channels)
    model = AutoencoderKL(
        block_out_channels=channels,
        layers_per_block=2,
        down_block_types=["DownEncoderBlock2D"] * levels,
        up_block_types=["UpDecoderBlock2D"] * levels,
        latent_channels=4,
        norm_num_groups=32,
    ).eval()
    keys = {name: vae_key(name, levels) for name in model.state_dict()}
    listing = fill(model, keys, "first_stage_model.")
    factor = 2 ** (levels - 1)
    image = 0.5 + value("image", [1, 3, *size], 0.5)
    latent = value("latent", [2, 4, size[0] // factor, size[1] // factor], 2.0)
    with torch.no_grad():
        mean = model.encode(image * 2 - 1).latent_dist.mode()
        decoded = ((model.decode(latent).sample + 1) / 2).clamp(0, 1)
    record(case, {"channels": channels, "size": size}, listing, {"mean": mean, "decoded": decoded})


if __name__ == "__main__":
    unet("unet_narrow", [64, 128, 192], 1, [True, True, True], 160, (16, 16), gradients=True)
    unet("unet_odd", [64, 128, 192], 1, [True, True, False], 96, (13, 21))
    unet("unet_deep", [32, 64, 64, 96], 2, [True, False, True, False], 64, (12, 20))
    vae("vae", [32, 64, 96, 96], (40, 56))
