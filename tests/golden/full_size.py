"""Writes a checkpoint of the full size of Stable Diffusion 1.5 or SDXL with random numbers in half precision, to time and weigh.

    PYTHONPATH=<ComfyUI> python tests/golden/full_size.py sd15|sdxl FILE

Names and shapes are ComfyUI's own; the numbers are one megabyte of noise over and over, small enough to keep what passes them.
"""

import json
import math
import struct
import sys

import numpy as np
from drawing import open_clip, transformers

family, path = sys.argv[1:3]
sys.argv = [sys.argv[0], "--cpu"]
import comfy.options

comfy.options.enable_args_parsing()
import comfy.ldm.models.autoencoder
import comfy.ops
import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel

UNETS = {
    "sd15": {"channel_mult": [1, 2, 4, 4], "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0], "context_dim": 768, "num_heads": 8,
             "transformer_depth_output": [1] * 9 + [0] * 3, "transformer_depth_middle": 1, "num_res_blocks": [2] * 4},
    "sdxl": {"channel_mult": [1, 2, 4], "transformer_depth": [0, 0, 2, 2, 10, 10], "context_dim": 2048, "num_head_channels": 64,
             "transformer_depth_output": [0, 0, 0, 2, 2, 2, 10, 10, 10], "transformer_depth_middle": 10, "num_res_blocks": [2] * 3,
             "use_linear_in_transformer": True, "num_classes": "sequential", "adm_in_channels": 2816},
}
PARAMS = {
    "ddconfig": {"double_z": True, "z_channels": 4, "resolution": 256, "in_channels": 3, "out_ch": 3, "ch": 128,
                 "ch_mult": [1, 2, 4, 4], "num_res_blocks": 2, "attn_resolutions": [], "dropout": 0.0},
    "embed_dim": 4,
}


base = {"image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 320, "legacy": False,
        "use_spatial_transformer": True, "dtype": torch.float16}
base.pop("legacy")
unet = UNetModel(**base | UNETS[family], device="meta", operations=comfy.ops.disable_weight_init)
shapes = {f"model.diffusion_model.{key}": list(weight.shape) for key, weight in unet.state_dict().items()}
with torch.device("meta"):
    vae = comfy.ldm.models.autoencoder.AutoencoderKL(**PARAMS)
shapes |= {f"first_stage_model.{key}": list(weight.shape) for key, weight in vae.state_dict().items()}
if family == "sd15":
    shapes |= transformers("cond_stage_model.transformer.", 768, 12, 4 * 768)
else:
    shapes |= transformers("conditioner.embedders.0.transformer.", 768, 12, 4 * 768)
    shapes |= open_clip("conditioner.embedders.1.model.", 1280, 32, 4 * 1280)

noise = np.random.default_rng(0).uniform(-1, 1, 1 << 19).astype(np.float16)
header, offset = {}, 0
for key, shape in shapes.items():
    size = 2 * math.prod(shape)
    header[key] = {"dtype": "F16", "shape": shape, "data_offsets": [offset, offset + size]}
    offset += size
text = json.dumps(header).encode()
text += b" " * (-len(text) % 8)
with open(path, "wb") as file:
    file.write(struct.pack("<Q", len(text)) + text)
    for key, shape in shapes.items():
        count = math.prod(shape)
        if key.endswith("bias"):
            block = noise * np.float16(0.05)
        elif len(shape) == 1:
            block = np.float16(1) + noise * np.float16(0.05)
        else:
            block = noise * np.float16(math.sqrt(3 / math.prod(shape[1:])))
        data = block.tobytes()
        for start in range(0, 2 * count, len(data)):
            file.write(data[: 2 * count - start])
print(f"{family}: {len(shapes)} tensors, {offset / 1e9:.2f} GB")
