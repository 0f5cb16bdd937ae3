"""Records how ComfyUI declares the stock nodes that paraflow has, as `/object_info` tells it: tests/golden/nodes/object_info.json.

Usage: python tests/golden/nodes.py COMFYUI_CHECKOUT
Made with ComfyUI 0.8.0 (commit 618b803d), Python 3.11, torch 2.15 (CPU), Pillow 12.1.0. Lists of files are left out: they depend on the disk.
"""

import asyncio
import json
import os
import sys

CLASSES = """
AddNoise AlignYourStepsScheduler BasicGuider BasicScheduler BetaSamplingScheduler CaseConverter CFGGuider CFGNorm
CFGZeroStar CheckpointLoaderSimple CLIPLoader CLIPSetLastLayer CLIPTextEncode CLIPTextEncodeSDXL
CLIPTextEncodeSDXLRefiner ConditioningAverage ConditioningCombine ConditioningConcat ConditioningSetArea
ConditioningSetAreaPercentage ConditioningSetAreaStrength ConditioningSetMask ConditioningSetTimestepRange
ConditioningZeroOut CropMask DifferentialDiffusion DisableNoise DualCFGGuider DualCLIPLoader EmptyImage
EmptyLatentImage ExponentialScheduler ExtendIntermediateSigmas FeatherMask FlipSigmas GetImageSize GrowMask
ImageAddNoise ImageBatch ImageBlend ImageBlur ImageColorToMask ImageCompositeMasked ImageCrop ImageFlip ImageFromBatch
ImageInvert ImagePadForOutpaint ImageRotate ImageScale ImageScaleBy ImageScaleToMaxDimension ImageScaleToTotalPixels
ImageSharpen ImageToMask InpaintModelConditioning InstructPixToPixConditioning InvertMask JoinImageWithAlpha
KarrasScheduler KSampler KSamplerAdvanced KSamplerSelect LaplaceScheduler LatentAdd LatentBatch
LatentBatchSeedBehavior LatentBlend LatentComposite LatentCompositeMasked LatentConcat LatentCrop LatentCut LatentFlip
LatentFromBatch LatentInterpolate LatentMultiply LatentRotate LatentSubtract LatentUpscale LatentUpscaleBy LoadImage
LoadImageMask ManualSigmas MaskComposite MaskToImage ModelSamplingContinuousEDM ModelSamplingContinuousV
ModelSamplingDiscrete PerpNegGuider PolyexponentialScheduler PreviewImage PrimitiveBoolean PrimitiveFloat PrimitiveInt
PrimitiveString PrimitiveStringMultiline RandomNoise RebatchImages RepeatImageBatch RepeatLatentBatch RescaleCFG
SamplerCustom SamplerCustomAdvanced SamplerDPMAdaptative SamplerDPMPP_2M_SDE SamplerDPMPP_2S_Ancestral
SamplerDPMPP_3M_SDE SamplerDPMPP_SDE SamplerER_SDE SamplerEulerAncestral SamplerEulerAncestralCFGPP SamplerLMS
SamplerSASolver SamplerSEEDS2 SamplingPercentToSigma SaveImage SDTurboScheduler SetFirstSigma SetLatentNoiseMask
SolidMask SplitImageWithAlpha SplitSigmas SplitSigmasDenoise StringCompare StringConcatenate StringContains
StringLength StringReplace StringSubstring StringTrim ThresholdMask UNETLoader VAEDecode VAEEncode VAEEncodeForInpaint
VAELoader VPScheduler
ControlNetApply ControlNetApplyAdvanced ControlNetLoader DiffControlNetLoader FreeU FreeU_V2 HyperTile
ImageRGBToYUV ImageStitch ImageUpscaleWithModel ImageYUVToRGB LatentCutToBatch Morphology PatchModelAddDownscale
PerpNeg PerturbedAttentionGuidance PorterDuffImageComposite ResizeAndPadImage SelfAttentionGuidance TomePatchModel
UpscaleModelLoader VAEDecodeTiled VAEEncodeTiled
CheckpointSave CLIPSave ModelSave VAESave
LoraLoader LoraLoaderModelOnly LoraModelLoader SaveLoRA
APG Canny CheckpointLoader CLIPAttentionMultiply CLIPMergeAdd CLIPMergeSimple CLIPMergeSubtract CLIPTextEncodeControlnet
ControlNetInpaintingAliMamaApply DiffusersLoader FreSca GITSScheduler ImageQuantize LatentApplyOperation
LatentApplyOperationCFG LatentOperationSharpen LatentOperationTonemapReinhard LoadImageOutput LoadLatent LoraSave Mahiro
MaskPreview ModelComputeDtype ModelMergeAdd ModelMergeBlocks ModelMergeSD1 ModelMergeSD2 ModelMergeSDXL ModelMergeSimple
ModelMergeSubtract PreviewAny RebatchLatents SamplerEulerCFGpp SaveAnimatedPNG SaveAnimatedWEBP SaveLatent SetUnionControlNetType TCFG TemporalScoreRescaling
UNetCrossAttentionMultiply UNetSelfAttentionMultiply UNetTemporalAttentionMultiply
""".split() + ["Epsilon Scaling"] + """
BatchImagesNode BatchLatentsNode BatchMasksNode CLIPVisionEncode CLIPVisionLoader ComfySwitchNode CustomCombo
EasyCache GLIGENLoader GLIGENTextBoxApply HypernetworkLoader LazyCache OptimalStepsScheduler RegexExtract RegexMatch
RegexReplace RenormCFG ResizeImageMaskNode StyleModelApply StyleModelLoader unCLIPCheckpointLoader unCLIPConditioning
VideoLinearCFGGuidance VideoTriangleCFGGuidance AddTextPrefix AddTextSuffix AdjustBrightness AdjustContrast
CenterCropImages ImageDeduplication ImageGrid LoadImageDataSetFromFolder LoadImageTextDataSetFromFolder
MakeTrainingDataset MergeImageLists NormalizeImages RandomCropImages ReplaceText ResizeImagesByLongerEdge
ResizeImagesByShorterEdge ResolutionBucket SaveImageDataSetToFolder SaveImageTextDataSetToFolder ShuffleDataset
ShuffleImageTextDataset StripWhitespace TextToLowercase TextToUppercase TruncateText
CombineHooks2 CombineHooks4 CombineHooks8 ConditioningSetDefaultCombine ConditioningSetProperties
ConditioningSetPropertiesAndCombine ConditioningTimestepsRange CreateHookKeyframe CreateHookKeyframesFromFloats
CreateHookKeyframesInterpolated CreateHookLora CreateHookLoraModelOnly CreateHookModelAsLora
CreateHookModelAsLoraModelOnly PairConditioningCombine PairConditioningSetDefaultCombine PairConditioningSetProperties
PairConditioningSetPropertiesAndCombine SetClipHooks SetHookKeyframes
ControlNetApplySD3 T5TokenizerOptions TorchCompileModel wanBlockSwap
ConditioningSetAreaPercentageVideo ContextWindowsManual ReplaceVideoLatentFrames SamplerLCMUpscale SaveSVGNode
SV3D_Conditioning SVD_img2vid_Conditioning WebcamCapture
ImageOnlyCheckpointLoader ImageOnlyCheckpointSave SD_4XUpscale_Conditioning StableZero123_Conditioning
StableZero123_Conditioning_Batched PhotoMakerEncode PhotoMakerLoader
LoadTrainingDataset LossGraphNode MergeTextLists SaveTrainingDataset TrainLoraNode
""".split()
# Inputs whose choices are files.
FILES = {"ckpt_name", "image", "clip_name", "clip_name1", "clip_name2", "unet_name", "vae_name", "model_path",
         "control_net_name", "model_name", "config_name", "latent", "lora_name", "gligen_name", "hypernetwork_name",
         "style_model_name", "folder", "photomaker_model_name", "existing_lora"}


def kind_of(declared):
    """`("COMBO", choices)` or `(type, None)`, for both ways in which ComfyUI writes an input."""
    if isinstance(declared[0], (list, tuple)):
        return "COMBO", [str(choice) for choice in declared[0]]
    options = declared[1] if len(declared) > 1 else {}
    return declared[0], options.get("options")


def flat(inputs):
    """Name, declaration, and the choices beside which it is there: an input that hangs on a choice stands once, behind it."""
    for key, declared in inputs.items():
        yield key, declared, None
        if declared[0] == "COMFY_DYNAMICCOMBO_V3":
            parts = {}
            for choice in declared[1]["options"]:
                for name, part in choice["inputs"].get("required", {}).items():
                    parts.setdefault(name, (part, []))[1].append(choice["key"])
            for name, (part, beside) in parts.items():
                yield f"{key}.{name}", part, beside


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
            "experimental": bool(getattr(node, "EXPERIMENTAL", False)),
        }
    inputs = []
    for group in ("required", "optional"):
        for key, declared, shown_with in flat(info["input"].get(group, {})):
            kind, choices = kind_of(declared)
            options = dict(declared[1]) if len(declared) > 1 else {}
            entry = {"name": key, "kind": kind, "required": group == "required"}
            if kind == "COMFY_DYNAMICCOMBO_V3":
                choices = [choice["key"] for choice in choices]
            if choices and key not in FILES:
                entry["choices"] = choices
            for option in ("default", "min", "max", "step", "round", "multiline", "dynamicPrompts",
                           "control_after_generate", "image_upload", "image_folder", "remote", "display", "forceInput",
                           "lazy"):
                if options.get(option, False) is not False and options[option] is not None:
                    entry[option] = options[option]
            if "template" in options:
                entry["template"] = options["template"]
            if shown_with:
                entry["with"] = shown_with
            inputs.append(entry)
    return {
        "display_name": info["display_name"] or name,
        "category": info["category"],
        "output_node": info["output_node"],
        "deprecated": bool(info.get("deprecated")),
        "experimental": bool(info.get("experimental")),
        "inputs": inputs,
        "outputs": [
            {"kind": kind, "name": label, "is_list": bool(is_list)}
            for kind, label, is_list in zip(info["output"], info["output_name"], info["output_is_list"])
        ],
    }


checkout = os.path.abspath(sys.argv[1])
here = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, checkout)
sys.argv = [sys.argv[0], "--cpu"]
import comfy.options

comfy.options.enable_args_parsing()
# Under its own name before anything of ComfyUI's shadows it.
import utils.install_util
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
# What cameras write: colours at half the resolution, odd sides, several passes; and the kinds of JPEG that are rare.
soft = picture("RGB", 8, 8).resize((45, 37))
save("half_colours.jpg", soft, quality=85)
save("half_columns.jpg", soft, quality=60, subsampling=1, progressive=True)
save("grey.jpg", soft.convert("L"), quality=80)
save("cmyk.jpg", soft.convert("CMYK"), quality=80)
turned = Image.Exif()
turned[0x0112] = 6
save("turned.jpg", soft, quality=85, exif=turned)

folder_paths.set_input_directory(folder)
seen = {}
for name in sorted(os.listdir(folder)):
    image, mask = nodes.LoadImage().load_image(name)
    seen[f"{name}/image"], seen[f"{name}/mask"] = image.contiguous(), mask.contiguous()
    for channel in ("red", "alpha"):
        seen[f"{name}/{channel}"] = nodes.LoadImageMask().load_image(name, channel)[0].contiguous()
save_file(seen, os.path.join(here, "nodes", "pictures.safetensors"))

# What nodes do to small values: tests/golden/nodes/behaviour.json and behaviour.safetensors. Each case names a class, its
# literals, its wires (`kind:tensor`), and what came out.
import torch

torch.manual_seed(0)
values = {
    "picture": torch.rand(2, 6, 9, 3),
    "clear": torch.rand(1, 8, 7, 4),
    "mask": torch.rand(1, 5, 7),
    "masks": torch.rand(2, 4, 4),
    "latent": torch.randn(3, 4, 12, 9),
    "masked": torch.randn(3, 4, 12, 9),
    "prompt": torch.randn(1, 6, 8),
    "short": torch.randn(1, 4, 8),
    "long": torch.randn(1, 9, 8),
    "grey": torch.rand(1, 3, 4),
    "marked": torch.randint(0, 3, (1, 4, 5, 3)).float() / 2,
    "small": torch.randn(2, 4, 5, 6),
    "large_latent": torch.randn(3, 4, 20, 15),
    "single": torch.randn(1, 4, 12, 9),
    "levels": torch.tensor([14.6146, 7.5, 3.25, 1.5, 0.4, 0.0]),
    "large": torch.rand(1, 35, 43, 3),
    "hole": (torch.rand(1, 20, 25) > 0.8).float(),
}
noise_masks = {"masked": torch.rand(2, 1, 5, 5)}
places = {"masked": [4, 2, 7]}


def wire(text):
    kind, name = text.split(":")
    if kind == "LATENT":
        latent = {"samples": values[name]}
        if name in noise_masks:
            latent["noise_mask"] = noise_masks[name]
            latent["batch_index"] = places[name]
        return latent
    if kind == "CONDITIONING":
        return [[values[name], {"pooled_output": values[name][:, 0]}]]
    if kind == "VAE":
        return Stub
    return values[name]


class Stub:
    """An autoencoder that hands on what it gets."""

    downscale_ratio = 8
    encode = staticmethod(lambda pixels: pixels)


def run(name, literals, wires):
    node = nodes.NODE_CLASS_MAPPINGS[name]
    inputs = literals | {key: wire(text) for key, text in wires.items()}
    if hasattr(node, "execute"):
        return node.execute(**inputs).result
    return getattr(node(), node.FUNCTION)(**inputs)


def both(method, width, height, crop):
    return {"upscale_method": method, "width": width, "height": height, "crop": crop}


latents, images = {"samples": "LATENT:latent"}, {"image": "IMAGE:picture"}
mask, levels = {"mask": "MASK:mask"}, {"sigmas": "SIGMAS:levels"}
two = {"samples1": "LATENT:latent", "samples2": "LATENT:small"}
latent_pair = {"destination": "LATENT:latent", "source": "LATENT:small"}
image_pair = {"destination": "IMAGE:picture", "source": "IMAGE:marked"}
prompts = {"conditioning_to": "CONDITIONING:prompt"}
CASES = [
    ("LatentUpscale", both("bilinear", 0, 0, "disabled"), latents),
    ("LatentUpscale", both("bilinear", 0, 160, "disabled"), latents),
    ("LatentUpscale", both("bilinear", 20, 0, "center"), latents),
    ("LatentUpscale", both("nearest-exact", 136, 80, "center"), {"samples": "LATENT:masked"}),
    ("LatentUpscaleBy", {"upscale_method": "area", "scale_by": 0.5}, latents),
    ("LatentUpscaleBy", {"upscale_method": "bislerp", "scale_by": 1.5}, latents),
    ("LatentFromBatch", {"batch_index": 1, "length": 5}, latents),
    ("LatentFromBatch", {"batch_index": 40, "length": 1}, {"samples": "LATENT:masked"}),
    ("LatentFromBatch", {"batch_index": 0, "length": 2}, {"samples": "LATENT:masked"}),
    ("RepeatLatentBatch", {"amount": 2}, latents),
    ("RepeatLatentBatch", {"amount": 3}, {"samples": "LATENT:masked"}),
    ("SetLatentNoiseMask", {}, {"samples": "LATENT:latent", "mask": "MASK:masks"}),
    ("EmptyLatentImage", {"width": 40, "height": 17, "batch_size": 2}, {}),
    ("ImageScale", both("lanczos", 0, 0, "disabled"), images),
    ("ImageScale", both("lanczos", 0, 5, "disabled"), images),
    ("ImageScale", both("bicubic", 20, 0, "center"), images),
    ("ImageScale", both("area", 4, 4, "center"), images),
    ("ImageScaleBy", {"upscale_method": "bilinear", "scale_by": 1.5}, images),
    ("ImageInvert", {}, images),
    ("ImageBatch", {}, {"image1": "IMAGE:picture", "image2": "IMAGE:clear"}),
    ("ImageBatch", {}, {"image1": "IMAGE:clear", "image2": "IMAGE:picture"}),
    ("ImagePadForOutpaint", {"left": 2, "top": 0, "right": 1, "bottom": 3, "feathering": 2}, images),
    ("ImagePadForOutpaint", {"left": 2, "top": 4, "right": 0, "bottom": 0, "feathering": 3}, images),
    ("EmptyImage", {"width": 3, "height": 2, "batch_size": 2, "color": 0x10FF80}, {}),
    ("ConditioningAverage", {"conditioning_to_strength": 0.3}, prompts | {"conditioning_from": "CONDITIONING:short"}),
    ("ConditioningAverage", {"conditioning_to_strength": 0.3}, prompts | {"conditioning_from": "CONDITIONING:long"}),
    ("ConditioningConcat", {}, prompts | {"conditioning_from": "CONDITIONING:short"}),
    ("ConditioningZeroOut", {}, {"conditioning": "CONDITIONING:prompt"}),
    ("CropMask", {"x": 2, "y": 1, "width": 3, "height": 9}, mask),
    ("FeatherMask", {"left": 2, "top": 1, "right": 3, "bottom": 2}, mask),
    ("GrowMask", {"expand": 1, "tapered_corners": True}, mask),
    ("GrowMask", {"expand": 2, "tapered_corners": False}, mask),
    ("GrowMask", {"expand": -1, "tapered_corners": True}, mask),
    ("ImageColorToMask", {"color": 0x80FF00}, {"image": "IMAGE:marked"}),
    ("ImageColorToMask", {"color": 0xFF8080}, {"image": "IMAGE:marked"}),
    ("ImageToMask", {"channel": "green"}, images),
    ("ImageToMask", {"channel": "alpha"}, {"image": "IMAGE:clear"}),
    ("InvertMask", {}, mask),
    ("JoinImageWithAlpha", {}, images | {"alpha": "MASK:mask"}),
    ("SplitImageWithAlpha", {}, {"image": "IMAGE:clear"}),
    ("SplitImageWithAlpha", {}, images),
    ("MaskToImage", {}, mask),
    ("SolidMask", {"value": 0.25, "width": 4, "height": 3}, {}),
    ("ThresholdMask", {"value": 0.4}, mask),
    *[("MaskComposite", {"x": 2, "y": 1, "operation": how}, {"destination": "MASK:mask", "source": "MASK:grey"})
      for how in ("multiply", "add", "subtract", "and", "or", "xor")],
    ("LatentCompositeMasked", {"x": 16, "y": 24, "resize_source": False}, latent_pair),
    ("LatentCompositeMasked", {"x": 0, "y": 0, "resize_source": True}, latent_pair | {"mask": "MASK:mask"}),
    ("LatentCompositeMasked", {"x": 40, "y": 64, "resize_source": False}, latent_pair | {"mask": "MASK:grey"}),
    ("ImageCompositeMasked", {"x": 1, "y": 2, "resize_source": False}, image_pair | {"mask": "MASK:grey"}),
    ("ImageCompositeMasked", {"x": 0, "y": 0, "resize_source": True}, image_pair),
    ("LatentAdd", {}, two),
    ("LatentSubtract", {}, two),
    ("LatentMultiply", {"multiplier": -1.5}, latents),
    ("LatentInterpolate", {"ratio": 0.3}, {"samples1": "LATENT:single", "samples2": "LATENT:small"}),
    ("LatentConcat", {"dim": "x"}, {"samples1": "LATENT:latent", "samples2": "LATENT:single"}),
    ("LatentConcat", {"dim": "-y"}, {"samples1": "LATENT:latent", "samples2": "LATENT:single"}),
    ("LatentCut", {"dim": "x", "index": 2, "amount": 50}, latents),
    ("LatentCut", {"dim": "y", "index": -3, "amount": 2}, latents),
    ("LatentBatch", {}, {"samples1": "LATENT:masked", "samples2": "LATENT:small"}),
    ("LatentBatchSeedBehavior", {"seed_behavior": "fixed"}, {"samples": "LATENT:masked"}),
    ("LatentBatchSeedBehavior", {"seed_behavior": "random"}, {"samples": "LATENT:masked"}),
    *[("LatentRotate", {"rotation": f"{angle} degrees"}, latents) for angle in (90, 180, 270)],
    ("LatentFlip", {"flip_method": "x-axis: vertically"}, latents),
    ("LatentFlip", {"flip_method": "y-axis: horizontally"}, latents),
    ("LatentCrop", {"width": 64, "height": 72, "x": 8, "y": 16}, latents),
    ("LatentComposite", {"x": 16, "y": 8, "feather": 0}, {"samples_to": "LATENT:masked", "samples_from": "LATENT:latent"}),
    ("LatentComposite", {"x": 16, "y": 8, "feather": 16}, {"samples_to": "LATENT:large_latent", "samples_from": "LATENT:latent"}),
    ("LatentBlend", {"blend_factor": 0.3}, {"samples1": "LATENT:latent", "samples2": "LATENT:single"}),
    ("ImageCrop", {"width": 3, "height": 40, "x": 5, "y": 2}, images),
    *[("ImageRotate", {"rotation": f"{angle} degrees"}, images) for angle in (90, 180, 270)],
    ("ImageFlip", {"flip_method": "x-axis: vertically"}, images),
    ("ImageFlip", {"flip_method": "y-axis: horizontally"}, images),
    ("ImageFromBatch", {"batch_index": 1, "length": 5}, images),
    ("RepeatImageBatch", {"amount": 2}, images),
    ("ImageScaleToTotalPixels", {"upscale_method": "area", "megapixels": 0.01, "resolution_steps": 8}, {"image": "IMAGE:large"}),
    ("ImageScaleToMaxDimension", {"upscale_method": "bilinear", "largest_size": 20}, {"image": "IMAGE:large"}),
    ("ImageAddNoise", {"seed": 4, "strength": 0.2}, images),
    *[("ImageBlend", {"blend_factor": 0.3, "blend_mode": mode}, {"image1": "IMAGE:picture", "image2": "IMAGE:marked"})
      for mode in ("normal", "multiply", "screen", "overlay", "soft_light", "difference")],
    ("ImageBlur", {"blur_radius": 3, "sigma": 0.7}, images),
    ("ImageSharpen", {"sharpen_radius": 2, "sigma": 1.3, "alpha": 0.4}, images),
    ("CaseConverter", {"string": "ein BÄR's hut", "mode": "Title Case"}, {}),
    ("CaseConverter", {"string": "ein BÄR", "mode": "Capitalize"}, {}),
    ("StringConcatenate", {"string_a": "a", "string_b": "b", "delimiter": "-"}, {}),
    ("StringSubstring", {"string": "Bären im Schnee", "start": -6, "end": 40}, {}),
    ("StringLength", {"string": "Bären"}, {}),
    ("StringTrim", {"string": "  a b ", "mode": "Left"}, {}),
    ("StringReplace", {"string": "abcabc", "find": "bc", "replace": "x"}, {}),
    ("StringContains", {"string": "A Bear", "substring": "bear", "case_sensitive": False}, {}),
    ("StringCompare", {"string_a": "A Bear", "string_b": "Bear", "mode": "Ends With", "case_sensitive": True}, {}),
    *[("AlignYourStepsScheduler", {"model_type": family, "steps": steps, "denoise": denoise}, {})
      for family, steps, denoise in (("SD1", 10, 1.0), ("SDXL", 7, 1.0), ("SVD", 10, 0.5))],
    ("KarrasScheduler", {"steps": 5, "sigma_max": 14.6, "sigma_min": 0.03, "rho": 5.0}, {}),
    ("ExponentialScheduler", {"steps": 5, "sigma_max": 14.6, "sigma_min": 0.03}, {}),
    ("PolyexponentialScheduler", {"steps": 5, "sigma_max": 14.6, "sigma_min": 0.03, "rho": 1.5}, {}),
    ("LaplaceScheduler", {"steps": 6, "sigma_max": 14.6, "sigma_min": 0.03, "mu": 0.1, "beta": 0.7}, {}),
    ("VPScheduler", {"steps": 5, "beta_d": 19.9, "beta_min": 0.1, "eps_s": 0.001}, {}),
    ("SplitSigmas", {"step": 2}, levels),
    ("SplitSigmasDenoise", {"denoise": 0.5}, levels),
    ("FlipSigmas", {}, levels),
    ("SetFirstSigma", {"sigma": 20.0}, levels),
    *[("ExtendIntermediateSigmas", {"steps": 3, "start_at_sigma": start, "end_at_sigma": 1.0, "spacing": how}, levels)
      for start, how in ((-1.0, "linear"), (8.0, "cosine"), (8.0, "sine"))],
    ("ManualSigmas", {"sigmas": "10, 2.5 and 0"}, {}),
    ("VAEEncodeForInpaint", {"grow_mask_by": 0}, {"pixels": "IMAGE:large", "mask": "MASK:hole", "vae": "VAE:stub"}),
    ("VAEEncodeForInpaint", {"grow_mask_by": 5}, {"pixels": "IMAGE:large", "mask": "MASK:hole", "vae": "VAE:stub"}),
    ("VAEEncodeForInpaint", {"grow_mask_by": 6}, {"pixels": "IMAGE:large", "mask": "MASK:hole", "vae": "VAE:stub"}),
]
cases, tensors = [], {name: value.clone() for name, value in values.items()}
tensors["masked/noise_mask"] = noise_masks["masked"]
for number, (name, literals, wires) in enumerate(CASES):
    outputs = []
    for slot, (kind, output) in enumerate(zip(nodes.NODE_CLASS_MAPPINGS[name].RETURN_TYPES, run(name, literals, wires))):
        key = f"{number}/{slot}"
        told = {"kind": kind, "tensor": key}
        if kind == "LATENT":
            tensors[key] = output["samples"]
            if "noise_mask" in output:
                tensors[f"{key}/noise_mask"] = output["noise_mask"]
            told["batch_index"] = output.get("batch_index")
        elif kind == "CONDITIONING":
            tensors[key], told["pooled"] = output[0][0], f"{key}/pooled"
            tensors[f"{key}/pooled"] = output[0][1]["pooled_output"]
        elif not isinstance(output, torch.Tensor):
            told = {"kind": kind, "value": output}
        else:
            tensors[key] = output
        outputs.append(told)
    cases.append({"class": name, "literals": literals, "wires": wires, "outputs": outputs})
with open(os.path.join(here, "nodes", "behaviour.json"), "w") as file:
    json.dump({"places": places, "cases": cases}, file, indent=1)
    file.write("\n")
save_file({key: value.contiguous().clone() for key, value in tensors.items()}, os.path.join(here, "nodes", "behaviour.safetensors"))
