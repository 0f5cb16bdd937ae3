"""Records how ComfyUI declares the stock nodes that paraflow has, as `/object_info` tells it: tests/golden/nodes/object_info.json.

Usage: python tests/golden/nodes.py COMFYUI_CHECKOUT
Made with ComfyUI 0.8.0 (commit 618b803d), Python 3.11, torch 2.15 (CPU). Lists of files are left out: they depend on the disk.
"""

import asyncio
import json
import os
import sys

CLASSES = [
    "CheckpointLoaderSimple",
    "CLIPSetLastLayer",
    "CLIPTextEncode",
    "ConditioningAverage",
    "ConditioningCombine",
    "ConditioningConcat",
    "ConditioningSetArea",
    "ConditioningSetAreaPercentage",
    "ConditioningSetAreaStrength",
    "ConditioningSetMask",
    "ConditioningSetTimestepRange",
    "ConditioningZeroOut",
    "EmptyImage",
    "EmptyLatentImage",
    "ImageBatch",
    "ImageInvert",
    "ImagePadForOutpaint",
    "ImageScale",
    "ImageScaleBy",
    "KSampler",
    "KSamplerAdvanced",
    "LatentFromBatch",
    "LatentUpscale",
    "LatentUpscaleBy",
    "LoadImage",
    "LoadImageMask",
    "PreviewImage",
    "PrimitiveBoolean",
    "PrimitiveFloat",
    "PrimitiveInt",
    "PrimitiveString",
    "PrimitiveStringMultiline",
    "RepeatLatentBatch",
    "SaveImage",
    "SetLatentNoiseMask",
    "VAEDecode",
    "VAEEncode",
    "VAEEncodeForInpaint",
]
# Inputs whose choices are files.
FILES = {"ckpt_name", "image"}


def kind_of(declared):
    """`("COMBO", choices)` or `(type, None)`, for both ways in which ComfyUI writes an input."""
    if isinstance(declared[0], (list, tuple)):
        return "COMBO", [str(choice) for choice in declared[0]]
    options = declared[1] if len(declared) > 1 else {}
    return declared[0], options.get("options")


def record(name, node):
    if hasattr(node, "GET_NODE_INFO_V1"):
        info = node.GET_NODE_INFO_V1()
    else:
        types = node.INPUT_TYPES()
        info = {
            "input": types,
            "output": list(node.RETURN_TYPES),
            "output_is_list": list(getattr(node, "OUTPUT_IS_LIST", [False] * len(node.RETURN_TYPES))),
            "output_name": list(getattr(node, "RETURN_NAMES", node.RETURN_TYPES)),
            "display_name": names.get(name, name),
            "category": node.CATEGORY,
            "output_node": bool(getattr(node, "OUTPUT_NODE", False)),
            "deprecated": bool(getattr(node, "DEPRECATED", False)),
        }
    inputs = []
    for group in ("required", "optional"):
        for key, declared in info["input"].get(group, {}).items():
            kind, choices = kind_of(declared)
            options = dict(declared[1]) if len(declared) > 1 else {}
            entry = {"name": key, "kind": kind, "required": group == "required"}
            if choices is not None and key not in FILES:
                entry["choices"] = choices
            for option in ("default", "min", "max", "step", "round", "multiline", "dynamicPrompts",
                           "control_after_generate", "image_upload", "forceInput", "lazy"):
                if options.get(option, False) is not False and options[option] is not None:
                    entry[option] = options[option]
            inputs.append(entry)
    return {
        "display_name": info["display_name"] or name,
        "category": info["category"],
        "output_node": info["output_node"],
        "deprecated": bool(info.get("deprecated")),
        "inputs": inputs,
        "outputs": [
            {"kind": kind, "name": label, "is_list": is_list}
            for kind, label, is_list in zip(info["output"], info["output_name"], info["output_is_list"])
        ],
    }


checkout = os.path.abspath(sys.argv[1])
here = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, checkout)
sys.argv = [sys.argv[0], "--cpu"]
import comfy.options

comfy.options.enable_args_parsing()
import nodes

asyncio.run(nodes.init_extra_nodes(init_custom_nodes=False, init_api_nodes=False))
names = nodes.NODE_DISPLAY_NAME_MAPPINGS
recorded = {name: record(name, nodes.NODE_CLASS_MAPPINGS[name]) for name in CLASSES}
with open(os.path.join(here, "nodes", "object_info.json"), "w") as file:
    json.dump(recorded, file, indent=1)
    file.write("\n")

# How pictures and latents change size: tests/golden/nodes/resize.safetensors, `input/method-width-height/crop`.
import torch
from comfy.utils import common_upscale
from safetensors.torch import save_file

torch.manual_seed(0)
tensors = {
    "picture": torch.rand(1, 3, 9, 11),
    "transparent": torch.rand(1, 4, 7, 6),
    "latent": torch.randn(2, 4, 8, 6),
}
tensors["latent"][0, :, 2:4, 1:3] = 0.0
tensors["latent"][1, :, 5, 2] = -tensors["latent"][1, :, 5, 3]
SIZES = [(11, 9), (18, 14), (6, 4), (5, 16), (13, 6)]
METHODS = {
    "picture": ["nearest-exact", "bilinear", "area", "bicubic", "lanczos"],
    "transparent": ["lanczos"],
    "latent": ["nearest-exact", "bilinear", "area", "bicubic", "bislerp"],
}
for name, methods in METHODS.items():
    for method in methods:
        for width, height in SIZES:
            for crop in ("disabled", "center"):
                resized = common_upscale(tensors[name], width, height, method, crop)
                tensors[f"{name}/{method}-{width}-{height}/{crop}"] = resized.contiguous()
save_file(tensors, os.path.join(here, "nodes", "resize.safetensors"))
