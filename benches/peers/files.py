"""Model files of the real shapes with arbitrary numbers, in latent-diffusion's names, written without any library.

The shapes of Stable Diffusion 1.5 and XL are listed from their measures; the numbers are small, the same on every machine, and repeat
every few megabytes, which no program notices.
"""

import json
import random
import struct
from array import array
from pathlib import Path


def linear(shapes, name, inputs, outputs, bias=True):
    shapes[f"{name}.weight"] = [outputs, inputs]
    if bias:
        shapes[f"{name}.bias"] = [outputs]


def conv(shapes, name, inputs, outputs, kernel):
    shapes[f"{name}.weight"] = [outputs, inputs, kernel, kernel]
    shapes[f"{name}.bias"] = [outputs]


def norm(shapes, name, width):
    shapes[f"{name}.weight"] = [width]
    shapes[f"{name}.bias"] = [width]


def residual(shapes, name, inputs, outputs, time):
    norm(shapes, f"{name}.in_layers.0", inputs)
    conv(shapes, f"{name}.in_layers.2", inputs, outputs, 3)
    linear(shapes, f"{name}.emb_layers.1", time, outputs)
    norm(shapes, f"{name}.out_layers.0", outputs)
    conv(shapes, f"{name}.out_layers.3", outputs, outputs, 3)
    if inputs != outputs:
        conv(shapes, f"{name}.skip_connection", inputs, outputs, 1)


def transformer(shapes, name, width, depth, context, linear_projection):
    norm(shapes, f"{name}.norm", width)
    project = linear if linear_projection else lambda s, n, i, o: conv(s, n, i, o, 1)
    project(shapes, f"{name}.proj_in", width, width)
    for index in range(depth):
        block = f"{name}.transformer_blocks.{index}"
        for attention, source in (("attn1", width), ("attn2", context)):
            linear(shapes, f"{block}.{attention}.to_q", width, width, bias=False)
            linear(shapes, f"{block}.{attention}.to_k", source, width, bias=False)
            linear(shapes, f"{block}.{attention}.to_v", source, width, bias=False)
            linear(shapes, f"{block}.{attention}.to_out.0", width, width)
        linear(shapes, f"{block}.ff.net.0.proj", width, 8 * width)
        linear(shapes, f"{block}.ff.net.2", 4 * width, width)
        for which in (1, 2, 3):
            norm(shapes, f"{block}.norm{which}", width)
    project(shapes, f"{name}.proj_out", width, width)


def unet(widths, depths, context, label=None, linear_projection=False, blocks=2):
    """A UNet of so many channels and transformer blocks a level; the middle has the last level's blocks, SD 1.5's one."""
    shapes, time = {}, 4 * widths[0]
    linear(shapes, "time_embed.0", widths[0], time)
    linear(shapes, "time_embed.2", time, time)
    if label:
        linear(shapes, "label_emb.0.0", label, time)
        linear(shapes, "label_emb.0.2", time, time)
    conv(shapes, "input_blocks.0.0", 4, widths[0], 3)
    index, width, skips = 1, widths[0], [widths[0]]
    for level, (to, depth) in enumerate(zip(widths, depths)):
        for _ in range(blocks):
            residual(shapes, f"input_blocks.{index}.0", width, to, time)
            if depth:
                transformer(shapes, f"input_blocks.{index}.1", to, depth, context, linear_projection)
            width = to
            skips.append(width)
            index += 1
        if level + 1 < len(widths):
            conv(shapes, f"input_blocks.{index}.0.op", width, width, 3)
            skips.append(width)
            index += 1
    residual(shapes, "middle_block.0", width, width, time)
    transformer(shapes, "middle_block.1", width, depths[-1] or 1, context, linear_projection)
    residual(shapes, "middle_block.2", width, width, time)
    index = 0
    for level in reversed(range(len(widths))):
        to, depth = widths[level], depths[level]
        for block in range(blocks + 1):
            residual(shapes, f"output_blocks.{index}.0", width + skips.pop(), to, time)
            width = to
            if depth:
                transformer(shapes, f"output_blocks.{index}.1", to, depth, context, linear_projection)
            if level and block == blocks:
                conv(shapes, f"output_blocks.{index}.{2 if depth else 1}.conv", to, to, 3)
            index += 1
    norm(shapes, "out.0", width)
    conv(shapes, "out.2", width, 4, 3)
    return {f"model.diffusion_model.{name}": shape for name, shape in shapes.items()}


def vae(widths=(128, 256, 512, 512), latent=4):
    shapes = {}

    def block(name, inputs, outputs):
        norm(shapes, f"{name}.norm1", inputs)
        conv(shapes, f"{name}.conv1", inputs, outputs, 3)
        norm(shapes, f"{name}.norm2", outputs)
        conv(shapes, f"{name}.conv2", outputs, outputs, 3)
        if inputs != outputs:
            conv(shapes, f"{name}.nin_shortcut", inputs, outputs, 1)

    def middle(coder):
        block(f"{coder}.mid.block_1", widths[-1], widths[-1])
        norm(shapes, f"{coder}.mid.attn_1.norm", widths[-1])
        for part in ("q", "k", "v", "proj_out"):
            conv(shapes, f"{coder}.mid.attn_1.{part}", widths[-1], widths[-1], 1)
        block(f"{coder}.mid.block_2", widths[-1], widths[-1])

    conv(shapes, "encoder.conv_in", 3, widths[0], 3)
    width = widths[0]
    for level, to in enumerate(widths):
        for index in range(2):
            block(f"encoder.down.{level}.block.{index}", width, to)
            width = to
        if level + 1 < len(widths):
            conv(shapes, f"encoder.down.{level}.downsample.conv", width, width, 3)
    middle("encoder")
    norm(shapes, "encoder.norm_out", width)
    conv(shapes, "encoder.conv_out", width, 2 * latent, 3)
    conv(shapes, "decoder.conv_in", latent, width, 3)
    middle("decoder")
    for level in reversed(range(len(widths))):
        for index in range(3):
            block(f"decoder.up.{level}.block.{index}", width, widths[level])
            width = widths[level]
        if level:
            conv(shapes, f"decoder.up.{level}.upsample.conv", width, width, 3)
    norm(shapes, "decoder.norm_out", width)
    conv(shapes, "decoder.conv_out", width, 3, 3)
    conv(shapes, "quant_conv", 2 * latent, 2 * latent, 1)
    conv(shapes, "post_quant_conv", latent, latent, 1)
    return {f"first_stage_model.{name}": shape for name, shape in shapes.items()}


def text(width, layers, projection=None):
    """A text encoder in the names of transformers."""
    shapes = {
        "text_model.embeddings.token_embedding.weight": [49408, width],
        "text_model.embeddings.position_embedding.weight": [77, width],
    }
    for index in range(layers):
        layer = f"text_model.encoder.layers.{index}"
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            linear(shapes, f"{layer}.self_attn.{part}", width, width)
        linear(shapes, f"{layer}.mlp.fc1", width, 4 * width)
        linear(shapes, f"{layer}.mlp.fc2", 4 * width, width)
        norm(shapes, f"{layer}.layer_norm1", width)
        norm(shapes, f"{layer}.layer_norm2", width)
    norm(shapes, "text_model.final_layer_norm", width)
    if projection:
        shapes["text_projection.weight"] = [projection, width]
    return shapes


def open_clip(width, layers):
    """A text encoder in the names of open_clip, which fuses queries, keys and values."""
    shapes = {"token_embedding.weight": [49408, width], "positional_embedding": [77, width]}
    for index in range(layers):
        layer = f"transformer.resblocks.{index}"
        shapes[f"{layer}.attn.in_proj_weight"], shapes[f"{layer}.attn.in_proj_bias"] = [3 * width, width], [3 * width]
        linear(shapes, f"{layer}.attn.out_proj", width, width)
        linear(shapes, f"{layer}.mlp.c_fc", width, 4 * width)
        linear(shapes, f"{layer}.mlp.c_proj", 4 * width, width)
        norm(shapes, f"{layer}.ln_1", width)
        norm(shapes, f"{layer}.ln_2", width)
    norm(shapes, "ln_final", width)
    shapes["text_projection"] = [width, width]
    return shapes


def below(prefix, shapes):
    return {prefix + name: shape for name, shape in shapes.items()}


def files():
    """Name of each file, its numbers and its tensors."""
    sd15 = unet([320, 640, 1280, 1280], [1, 1, 1, 0], 768)
    sdxl = unet([320, 640, 1280], [0, 2, 10], 2048, 2816, True)
    large = below("conditioner.embedders.0.transformer.", text(768, 12)) | below("conditioner.embedders.1.model.", open_clip(1280, 32))
    return {
        "sd15-unet-f32.safetensors": ("F32", sd15),
        "sd15-unet.safetensors": ("F16", sd15),
        "sdxl-unet.safetensors": ("F16", sdxl),
        "sd15.safetensors": ("F16", sd15 | vae() | below("cond_stage_model.transformer.", text(768, 12))),
        "sdxl.safetensors": ("F16", sdxl | vae() | large),
        "toyland-unet.safetensors": ("F32", unet([64, 128, 192], [1, 1, 1], 160, blocks=1)),
        "vae.safetensors": ("F16", vae()),
        "clip-l.safetensors": ("F16", text(768, 12)),
        "clip-g.safetensors": ("F16", text(1280, 32, 1280)),
    }


def write(folder, name):
    """Writes a file unless it is there; its path."""
    path = Path(folder) / name
    if path.exists():
        return path
    dtype, shapes = files()[name]
    width = {"F16": 2, "F32": 4}[dtype]
    header, place = {}, 0
    for key, shape in shapes.items():
        count = width
        for side in shape:
            count *= side
        header[key] = {"dtype": dtype, "shape": shape, "data_offsets": [place, place + count]}
        place += count
    head = json.dumps(header, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)
    draw = random.Random(1)
    numbers = [draw.uniform(-0.03, 0.03) for _ in range(1_000_003)]
    block = struct.pack(f"<{len(numbers)}e", *numbers) if dtype == "F16" else array("f", numbers).tobytes()
    unfinished = path.with_suffix(".part")
    with open(unfinished, "wb") as file:
        file.write(struct.pack("<Q", len(head)) + head)
        while place > 0:
            file.write(block[:place])
            place -= len(block)
    unfinished.rename(path)
    return path
