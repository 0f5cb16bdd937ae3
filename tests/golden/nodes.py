"""Records how ComfyUI declares the stock nodes that paraflow has, as `/object_info` tells it: tests/golden/nodes/object_info.json.

Usage: python tests/golden/nodes.py COMFYUI_CHECKOUT
Made with ComfyUI 0.8.0 (commit 618b803d), Python 3.11, torch 2.15 (CPU), Pillow 12.1.0. Lists of files are left out: they depend on the disk.
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

# Picture files, tests/golden/nodes/pictures/, and what LoadImage and LoadImageMask make of them: pictures.safetensors,
# `file/image`, `file/mask`, `file/red`, `file/alpha`. Sixteen-bit grey is left out: ComfyUI means to divide it by 255, but
# Pillow 12 gives it in a form that ComfyUI does not know, and it is cut at 255.
import struct
import zlib

import folder_paths
import numpy as np
from PIL import Image
from safetensors.torch import save_file

folder = os.path.join(here, "nodes", "pictures")
os.makedirs(folder, exist_ok=True)
random = np.random.default_rng(1)


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(name, width, height, depth, colour, rows, extra=b""):
    """A PNG as Pillow would not write it."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    with open(os.path.join(folder, name), "wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n" + header + extra + pixels + chunk(b"IEND", b""))


def picture(mode, width=5, height=4):
    channels = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4}[mode]
    return Image.fromarray(random.integers(0, 256, (height, width, channels), np.uint8).squeeze(), mode)


def save(name, image, **options):
    image.save(os.path.join(folder, name), **options)


for mode in ("L", "LA", "RGB", "RGBA"):
    save(f"{mode.lower()}.png", picture(mode))
save("opaque.png", Image.merge("RGBA", (*picture("RGB").split(), Image.new("L", (5, 4), 255))))
save("palette.png", picture("RGB").quantize(7))
save("palette_clear.png", picture("RGB").quantize(7), transparency=2)
save("palette_soft.png", picture("RGB").quantize(4), transparency=bytes([0, 90, 255, 200]))
save("one_bit.png", picture("L").convert("1"))
for orientation in range(1, 9):
    exif = Image.Exif()
    exif[0x0112] = orientation
    save(f"turned_{orientation}.png", picture("RGB"), exif=exif)
save("rgb.bmp", picture("RGB"))
save("rgb.tiff", picture("RGB"))
save("rgba.webp", picture("RGBA"), lossless=True, exact=True)
save("rgb.webp", picture("RGB"), lossless=True)
save("rgb.jpg", picture("RGB", 16, 16).resize((24, 16)), quality=90, subsampling=0)
save("still.gif", picture("RGB").quantize(8))
save("moving.gif", picture("RGB").quantize(8), save_all=True, append_images=[picture("RGB").quantize(8) for _ in range(2)])
save("moving.png", picture("RGB"), save_all=True, append_images=[picture("RGB"), picture("RGB")])
save("moving.webp", picture("RGB"), save_all=True, append_images=[picture("RGB")], lossless=True)
deep = random.integers(0, 65536, (2, 3, 4), np.uint16)
png("rgb16.png", 3, 2, 16, 2, [row[:, :3].astype(">u2").tobytes() for row in deep])
png("rgba16.png", 3, 2, 16, 6, [row.astype(">u2").tobytes() for row in deep])
png("la16.png", 3, 2, 16, 4, [row[:, :2].astype(">u2").tobytes() for row in deep])
png("rgb_marked.png", 2, 1, 8, 2, [bytes([1, 2, 3, 4, 5, 6])], chunk(b"tRNS", struct.pack(">HHH", 1, 2, 3)))
png("l_marked.png", 2, 1, 8, 0, [bytes([1, 2])], chunk(b"tRNS", struct.pack(">H", 1)))
png("two_bits.png", 4, 1, 2, 0, [bytes([0b00011011])])

folder_paths.set_input_directory(folder)
seen = {}
for name in sorted(os.listdir(folder)):
    image, mask = nodes.LoadImage().load_image(name)
    seen[f"{name}/image"], seen[f"{name}/mask"] = image.contiguous(), mask.contiguous()
    for channel in ("red", "alpha"):
        seen[f"{name}/{channel}"] = nodes.LoadImageMask().load_image(name, channel)[0].contiguous()
save_file(seen, os.path.join(here, "nodes", "pictures.safetensors"))
