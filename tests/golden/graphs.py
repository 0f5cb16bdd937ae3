"""Records what ComfyUI makes of small graphs: patches of a model, guiders, control networks, tiles, tiny models.

    PYTHONPATH=<ComfyUI> python tests/golden/graphs.py [CASE...]

Recorded with ComfyUI 0.8.0 (commit 618b803d), torch 2.15.0, spandrel 0.4, on x86-64 with AVX-512, in f32; what reads texts and sees
pictures keeps its weights in f16, as ComfyUI has it.

`graphs/models.json` lists the tensors of each model file, whose numbers are drawn by name as in `drawing.py`;
`graphs/cases.json` the graphs, in which a wire from a name that is no node is a value that both sides make; and
`graphs/tensors.safetensors` what came out, of long results every seventh number.
"""

import functools
import inspect
import json
import re
import sys
import tempfile
import types
from pathlib import Path

from drawing import open_clip, parameter, transformers, value

# With names of cases only these are recorded anew, and all others stay as they are.
only = sys.argv[1:]
sys.argv = [sys.argv[0], "--cpu"]
# ComfyUI's `nodes` is wanted, not the script beside this one.
sys.path.remove(str(Path(__file__).resolve().parent))
import comfy.options

comfy.options.enable_args_parsing()
import asyncio
import importlib

# Before `nodes`, which puts another module of that name in the way.
import utils.install_util
import comfy.cldm.cldm
import comfy.clip_vision
import comfy.controlnet
import comfy.gligen
import comfy.model_base
import comfy.model_patcher
import comfy.ops
import comfy.sd
import comfy.sd1_clip
import comfy.supported_models
import comfy.t2i_adapter.adapter
import comfy.taesd.taesd
import comfy.utils
import nodes
import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from safetensors.torch import load_file, save_file

HERE = Path(__file__).resolve().parent
UNET, VAE = "model.diffusion_model.", "first_stage_model."
EXTRAS = ("advanced_samplers apg attention_multiply canny cond controlnet eps fresca gits lora_extract mahiro model_merging "
          "model_merging_model_specific rebatch tcfg easycache hypernetwork lumina2 video_model "
          "custom_sampler model_advanced freelunch hypertile tomesd model_downscale pag sag perpneg cfg differential_diffusion "
          "upscale_model images post_processing latent mask compositing morphology ip2p hooks sdupscale stable3d context_windows")
THIN = 7


def drawn(shapes, prefix="", of=""):
    """Weights by their names; `of` tells models of the same names apart."""
    return {key.removeprefix(prefix): parameter(of + key, shape) for key, shape in shapes.items() if key.startswith(prefix)}


def shapes_of(module, prefix=""):
    return {prefix + key: list(weight.shape) for key, weight in module.state_dict().items()}


def unet_config(channels, mults, depths, context, linear, label, blocks=1):
    """`depths` is of every residual block on the way down, `blocks` of them on each level."""
    levels = [depths[start] for start in range(0, len(depths), blocks)]
    depth_out = [depth for depth in reversed(levels) for _ in range(blocks + 1)]
    return {
        "image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": channels, "num_res_blocks": [blocks] * len(mults),
        "channel_mult": mults, "transformer_depth": list(depths), "transformer_depth_output": depth_out[::-1],
        "transformer_depth_middle": 1, "use_linear_in_transformer": linear, "context_dim": context, "legacy": False,
        "use_spatial_transformer": True, "use_temporal_attention": False, "dtype": torch.float32,
        "num_classes": "sequential" if label else None, "adm_in_channels": label, "use_temporal_resblock": False,
        "num_heads": -1 if linear else 8, "num_head_channels": 64 if linear else -1,
    }


def unet_module(config):
    arguments = {key: given for key, given in config.items() if key != "legacy"}
    return UNetModel(**arguments, device="cpu", operations=comfy.ops.disable_weight_init)


def patcher(config, unet, shapes, build, of="", kept=None):
    """A model of drawn weights; `kept` in numbers that are computed with in single precision."""
    config = config(unet | {"dtype": kept or torch.float32})
    if kept:
        config.set_inference_dtype(kept, torch.float32)
    inner = build(config, comfy.model_base.ModelType.EPS, device="cpu")
    inner.diffusion_model.load_state_dict(drawn(shapes, UNET, of))
    return comfy.model_patcher.ModelPatcher(inner, torch.device("cpu"), torch.device("cpu"))


def control_config(unet):
    return {key: given for key, given in unet.items() if key != "out_channels"} | {"hint_channels": 3, "device": "cpu"}


def control(unet, shapes):
    module = comfy.cldm.cldm.ControlNet(**control_config(unet), operations=comfy.ops.disable_weight_init)
    module.load_state_dict(drawn(shapes))
    return comfy.controlnet.ControlNet(module, load_device=torch.device("cpu"))


def control_difference(unet, shapes, model):
    """A control network of a file that holds what it differs by from a model: the sum that ComfyUI's loader makes."""
    module = comfy.cldm.cldm.ControlNet(**control_config(unet), operations=comfy.ops.disable_weight_init)
    base = model.model.diffusion_model.state_dict()
    own = {key: weight + base[key] if key in base else weight for key, weight in drawn(shapes, of="difference/").items()}
    module.load_state_dict(own)
    return comfy.controlnet.ControlNet(module, load_device=torch.device("cpu"))


def control_lora(shapes):
    """Names and shapes of a control-LoRA: its own layers whole, thin changes of the model's, biases and norms on the way down."""
    found = {"lora_controlnet": [0]}
    for key, shape in shapes.items():
        if key.startswith(("input_hint_block", "zero_convs", "middle_block_out")) or (len(shape) == 1 and key.startswith("input")):
            found[key] = shape
        elif len(shape) > 1:
            layer = key.removesuffix(".weight")
            found[f"{layer}.up"], found[f"{layer}.down"] = [shape[0], 4] + [1] * (len(shape) - 2), [4] + shape[1:]
    return found


def image_adapter(module):
    shapes = shapes_of(module)
    module.load_state_dict(drawn(shapes))
    return comfy.controlnet.T2IAdapter(module, module.input_channels, 8, "nearest-exact", device=torch.device("cpu")), shapes


def text_encoder(shapes, of=""):
    """ComfyUI's CLIP of Stable Diffusion 1, of a narrow encoder."""
    config = {
        "hidden_size": 64, "intermediate_size": 192, "num_attention_heads": 1, "num_hidden_layers": 3, "max_position_embeddings": 77,
        "vocab_size": 49408, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5, "eos_token_id": 49407, "projection_dim": 64,
        "model_type": "clip_text_model", "num_positions": 77, "torch_dtype": "float32",
    }
    inner = functools.partial(comfy.sd1_clip.SDClipModel, textmodel_json_config=config)

    class Encoder(comfy.sd1_clip.SD1ClipModel):
        def __init__(self, device="cpu", dtype=None, model_options={}):
            super().__init__(device=device, dtype=torch.float16, model_options=model_options, clip_name="l", clip_model=inner)

    class Tokenizer(comfy.sd1_clip.SD1Tokenizer):
        def __init__(self, embedding_directory=None, tokenizer_data={}):
            tokens = functools.partial(comfy.sd1_clip.SDTokenizer, embedding_size=64)
            super().__init__(embedding_directory=embedding_directory, tokenizer_data=tokenizer_data, clip_name="l", tokenizer=tokens)

    target = types.SimpleNamespace(params={}, clip=Encoder, tokenizer=Tokenizer)
    clip = comfy.sd.CLIP(target, parameters=0)
    missing, unexpected = clip.cond_stage_model.clip_l.load_sd(drawn(shapes, of=of))
    assert not unexpected and set(missing) <= {"text_projection.weight"}, (missing, unexpected)
    return clip


def diffusers_names(unet, shapes):
    """A control network's names in diffusers, as ComfyUI reads them."""
    found = {}
    names = {ours: theirs for theirs, ours in comfy.utils.unet_to_diffusers(unet).items()}
    hints = sorted({int(key.split(".")[1]) for key in shapes if key.startswith("input_hint_block")})
    for key in shapes:
        layer, kind = key.rsplit(".", 1)
        if key in names:
            found[names[key]] = key
        elif layer == "middle_block_out.0":
            found[f"controlnet_mid_block.{kind}"] = key
        elif match := re.fullmatch(r"zero_convs\.(\d+)\.0", layer):
            found[f"controlnet_down_blocks.{match[1]}.{kind}"] = key
        elif match := re.fullmatch(r"input_hint_block\.(\d+)", layer):
            place = hints.index(int(match[1]))
            name = "conv_in" if place == 0 else "conv_out" if place == len(hints) - 1 else f"blocks.{place - 1}"
            found[f"controlnet_cond_embedding.{name}.{kind}"] = key
        else:
            raise KeyError(key)
    return found


def autoencoder():
    params = {
        "ddconfig": {"double_z": True, "z_channels": 4, "resolution": 256, "in_channels": 3, "out_ch": 3, "ch": 32,
                     "ch_mult": [1, 2, 2, 2], "num_res_blocks": 1, "attn_resolutions": [], "dropout": 0.0},
        "embed_dim": 4,
    }
    module = comfy.ldm.models.autoencoder.AutoencoderKL(**params)
    shapes = {key: list(weight.shape) for key, weight in module.state_dict().items()}
    return comfy.sd.VAE(sd=drawn(shapes), config={"params": params}, device=torch.device("cpu")), shapes


def tiny_autoencoder():
    tiny = comfy.taesd.taesd.TAESD()
    shapes = {key: list(weight.shape) for key, weight in tiny.state_dict().items() if not key.startswith("vae_")}
    files = {half: {key.removeprefix(f"taesd_{half}."): shape for key, shape in shapes.items() if half in key}
             for half in ("encoder", "decoder")}
    weights = {f"taesd_{half}.{key}": small(key, shape) for half, file in files.items() for key, shape in file.items()}
    weights |= {"vae_scale": torch.tensor(0.18215), "vae_shift": torch.tensor(0.0)}
    return comfy.sd.VAE(sd=weights, device=torch.device("cpu")), files


def vision_shapes(width, layers, patch, side, projected):
    """Names and shapes of CLIP's picture half as OpenCLIP spells them."""
    shapes = {
        "class_embedding": [width], "positional_embedding": [(side // patch) ** 2 + 1, width], "proj": [width, projected],
        "conv1.weight": [width, 3, patch, patch],
    }
    for norm in ("ln_pre", "ln_post"):
        shapes |= {f"{norm}.weight": [width], f"{norm}.bias": [width]}
    blocks = open_clip("", width, layers, 2 * width)
    shapes |= {key: shape for key, shape in blocks.items() if key.startswith("transformer.")}
    return {f"visual.{key}": shape for key, shape in shapes.items()}


def vision(shapes, width, layers, patch, side, projected):
    """ComfyUI's CLIP vision model, of a narrow network."""
    config = {
        "hidden_size": width, "image_size": side, "intermediate_size": 2 * width, "num_attention_heads": width // 64,
        "num_channels": 3, "num_hidden_layers": layers, "patch_size": patch, "projection_dim": projected,
        "hidden_act": "quick_gelu", "model_type": "clip_vision_model",
    }
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(config, file)
        file.flush()
        model = comfy.clip_vision.ClipVisionModel(file.name)
    missing, unexpected = model.load_sd(comfy.clip_vision.convert_to_transformers(drawn(shapes), "visual."))
    assert not missing and set(unexpected) <= {"vision_model.embeddings.position_ids"}, (missing, unexpected)
    return model


def text_boxes(unet, words):
    """Names and shapes of GLIGEN's layers for a UNet that reads words of that width."""
    found = {"position_net.null_positive_feature": [words], "position_net.null_position_feature": [64]}
    for layer, (out, into) in {0: (512, words + 64), 2: (512, 512), 4: (words, 512)}.items():
        found |= {f"position_net.linears.{layer}.weight": [out, into], f"position_net.linears.{layer}.bias": [out]}
    for key, [width] in ((key, shape) for key, shape in unet.items() if key.endswith("transformer_blocks.0.norm1.weight")):
        place = key.removeprefix(UNET).removesuffix("norm1.weight") + "fuser."
        found |= {f"{place}linear.weight": [width, words], f"{place}linear.bias": [width], f"{place}alpha_attn": [1],
                  f"{place}alpha_dense": [1], f"{place}attn.to_out.0.weight": [width, width], f"{place}attn.to_out.0.bias": [width],
                  f"{place}ff.net.0.proj.weight": [8 * width, width], f"{place}ff.net.0.proj.bias": [8 * width],
                  f"{place}ff.net.2.weight": [width, 4 * width], f"{place}ff.net.2.bias": [width]}
        found |= {f"{place}attn.to_{name}.weight": [width, width] for name in "qkv"}
        found |= {f"{place}{norm}.{kind}": [width] for norm in ("norm1", "norm2") for kind in ("weight", "bias")}
    return found


def hypernetwork(shapes):
    """A hypernetwork as its pickled file nests it."""
    nested = {"activation_func": "mish", "is_layer_norm": True, "activate_output": True}
    for key, weight in drawn(shapes).items():
        width, half, name = key.split(".", 2)
        nested.setdefault(int(width), ({}, {}))[int(half)][name] = weight
    return nested


def small(key, shape):
    """Drawn as ever, and smaller: dozens of layers without normalisation would run off."""
    return parameter(key, shape) * SMALLER


SMALLER = 0.5


def rrdb(features, blocks, doublings):
    """Names and shapes of an ESRGAN in the names of its later authors."""
    # How many channels each layer of a block adds is 32 in every such network.
    grow, shapes = 32, {}

    def conv(name, into, out):
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = [out, into, 3, 3], [out]

    conv("conv_first", 3, features)
    for block in range(blocks):
        for dense in (1, 2, 3):
            for layer in range(1, 6):
                out = grow if layer < 5 else features
                conv(f"body.{block}.rdb{dense}.conv{layer}", features + (layer - 1) * grow, out)
    conv("conv_body", features, features)
    for double in range(1, doublings + 1):
        conv(f"conv_up{double}", features, features)
    conv("conv_hr", features, features)
    conv("conv_last", features, 3)
    return shapes


def old_name(name, blocks, doublings):
    """The first authors' name of a tensor."""
    layer, kind = name.rsplit(".", 1)
    last = 3 * doublings
    fixed = {"conv_first": "model.0", "conv_body": f"model.1.sub.{blocks}", "conv_hr": f"model.{last + 2}",
             "conv_last": f"model.{last + 4}"}
    if layer in fixed:
        return f"{fixed[layer]}.{kind}"
    if match := re.fullmatch(r"conv_up(\d)", layer):
        return f"model.{3 * int(match[1])}.{kind}"
    match = re.fullmatch(r"body\.(\d+)\.rdb(\d)\.conv(\d)", layer)
    return f"model.1.sub.{match[1]}.RDB{match[2]}.conv{match[3]}.0.{kind}"


def upscaler(shapes):
    from spandrel import ModelLoader

    return ModelLoader().load_from_state_dict({key: small(key, shape) for key, shape in shapes.items()}).eval()


torch.set_num_threads(1)
models, given = {}, {}
# A narrow Stable Diffusion 1 of three levels.
small_unet = unet_config(32, [1, 2, 4], [1, 1, 0], 64, False, None)
models["sd1"] = shapes_of(unet_module(small_unet), UNET)
given["model"] = patcher(comfy.supported_models.SD15, small_unet, models["sd1"], comfy.model_base.BaseModel)
# A narrow SDXL.
wide_unet = unet_config(64, [1, 2], [0, 1], 192, True, 128 + 1536)
models["sdxl"] = shapes_of(unet_module(wide_unet), UNET)
given["xl"] = patcher(comfy.supported_models.SDXL, wide_unet, models["sdxl"], comfy.model_base.SDXL)
for name, unet in (("control", small_unet), ("control_xl", wide_unet)):
    module = comfy.cldm.cldm.ControlNet(**control_config(unet), operations=comfy.ops.disable_weight_init)
    models[name] = shapes_of(module)
    given[name] = control(unet, models[name])
# A second model of each, to be mixed with the first.
given["model_2"] = patcher(comfy.supported_models.SD15, small_unet, models["sd1"], comfy.model_base.BaseModel, "second/")
given["xl_2"] = patcher(comfy.supported_models.SDXL, wide_unet, models["sdxl"], comfy.model_base.SDXL, "second/")
# What `UNETLoader` makes of the first at its choice of numbers.
for name, kept in (("model_e4m3", torch.float8_e4m3fn), ("model_e5m2", torch.float8_e5m2)):
    given[name] = patcher(comfy.supported_models.SD15, small_unet, models["sd1"], comfy.model_base.BaseModel, kept=kept)
models["text"] = transformers("", 64, 3, 192)
models["lora"] = {f"lora_te_text_model_encoder_layers_{layer}_{name}.lora_{half}.weight": shape
                  for layer in range(3) for name, (out, into) in (("self_attn_q_proj", (64, 64)), ("mlp_fc1", (192, 64)))
                  for half, shape in (("up", [out, 4]), ("down", [4, into]))}
# The same with some layers of the model, a convolution among them.
models["lora_both"] = models["lora"] | {
    f"lora_unet_{name}.lora_{half}.weight": shape
    for name, out, into in (("down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_v", 32, 64),
                            ("down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q", 64, 64),
                            ("down_blocks_1_attentions_0_transformer_blocks_0_ff_net_2", 64, 256),
                            ("mid_block_attentions_0_transformer_blocks_0_attn1_to_out_0", 128, 128))
    for half, shape in (("up", [out, 4]), ("down", [4, into]))}
given["clip"], given["clip_2"] = text_encoder(models["text"]), text_encoder(models["text"], "second/")
given["control_difference"] = control_difference(small_unet, models["control"], given["model"])
models["control_lora"] = control_lora(models["control"])
given["control_lora"] = comfy.controlnet.ControlLora(drawn(models["control_lora"]))
# T2I-adapters fit models with as many blocks as Stable Diffusion and SDXL have.
deep_unet = unet_config(32, [1, 2, 4, 4], [1] * 6 + [0] * 2, 64, False, None, 2)
models["deep"] = shapes_of(unet_module(deep_unet), UNET)
given["deep"] = patcher(comfy.supported_models.SD15, deep_unet, models["deep"], comfy.model_base.BaseModel)
deep_xl_unet = unet_config(64, [1, 2, 4], [0, 0, 1, 1, 1, 1], 192, True, 128 + 1536, 2)
models["deep_xl"] = shapes_of(unet_module(deep_xl_unet), UNET)
given["deep_xl"] = patcher(comfy.supported_models.SDXL, deep_xl_unet, models["deep_xl"], comfy.model_base.SDXL)
adapter = comfy.t2i_adapter.adapter
full = {"channels": [32, 64, 128, 128], "nums_rb": 2, "sk": True}
given["t2i"], models["t2i"] = image_adapter(adapter.Adapter(**full, cin=192, ksize=1, use_conv=False, xl=False))
given["t2i_grey"], models["t2i_grey"] = image_adapter(adapter.Adapter(**full, cin=64, ksize=3, use_conv=True, xl=False))
given["t2i_light"], models["t2i_light"] = image_adapter(adapter.Adapter_light(channels=[32, 64, 128, 128], nums_rb=4, cin=192))
given["t2i_xl"], models["t2i_xl"] = image_adapter(
    adapter.Adapter(**full | {"channels": [64, 128, 256, 256]}, cin=768, ksize=1, use_conv=False, xl=True))
# What tells kinds of pictures apart is 320 wide in every network.
one_unet = unet_config(320, [1], [1], 64, False, None)
models["one"] = shapes_of(unet_module(one_unet), UNET)
given["one"] = patcher(comfy.supported_models.SD15, one_unet, models["one"], comfy.model_base.BaseModel)
union = control_config(one_unet) | {"union_controlnet_num_control_type": 6}
models["union"] = shapes_of(comfy.cldm.cldm.ControlNet(**union, operations=comfy.ops.disable_weight_init))
given["union"] = control(union | {"out_channels": 4}, models["union"])
# One that is told what is seen in a picture, what sees it, and what makes words of that.
told_unet = unet_config(64, [1, 2], [0, 1], 64, True, 128)
models["unclip"] = shapes_of(unet_module(told_unet), UNET)
noise = {"noise_schedule_config": {"timesteps": 1000, "beta_schedule": "squaredcos_cap_v2"}, "timestep_dim": 64}
build_told = lambda config, kind, device: comfy.model_base.SD21UNCLIP(config, noise, model_type=kind, device=device)
given["unclip"] = patcher(comfy.supported_models.SD21UnclipL, told_unet, models["unclip"], build_told)
eye = {"width": 128, "layers": 2, "patch": 8, "side": 32, "projected": 64}
models["vision"] = vision_shapes(**eye)
given["vision"] = vision(models["vision"], **eye)
look = comfy.t2i_adapter.adapter.StyleAdapter(width=128, context_dim=64, num_head=8, n_layes=2, num_token=4)
models["style"] = shapes_of(look)
look.load_state_dict(drawn(models["style"]))
given["style"] = comfy.sd.StyleModel(look)
models["gligen"] = text_boxes(models["sdxl"], 64)
given["gligen"] = comfy.model_patcher.ModelPatcher(
    comfy.gligen.load_gligen(drawn(models["gligen"])), torch.device("cpu"), torch.device("cpu"))
models["hyper"] = {f"{width}.{half}.linear.{layer}.{kind}": shape[:1] if kind == "bias" or len(shape) == 1 else shape
                   for width in (32, 64) for half in (0, 1) for kind in ("weight", "bias")
                   for layer, shape in enumerate(([2 * width, width], [2 * width], [width, 2 * width], [width]))}
given["vae"], models["vae"] = autoencoder()
# A norm over the grey half of a picture, whose groups are one channel each, is off by 1e-4 in single precision in torch.
exact_vae = autoencoder()[0]
exact_vae.first_stage_model.double()
exact_vae.vae_dtype = torch.float64
# One that enlarges latents, and one that shows a thing from another side, with what sees the thing and the autoencoder.
x4_unet = unet_config(32, [1, 2, 2, 4], [0, 1, 1, 1], 192, True, None) | comfy.supported_models.SD_X4Upscaler.unet_extra_config
x4_unet["in_channels"] = 7
models["x4"] = shapes_of(unet_module(x4_unet), UNET)
build_x4 = lambda config, kind, device: comfy.model_base.SD_X4Upscaler(config, device=device)
given["x4"] = patcher(comfy.supported_models.SD_X4Upscaler, x4_unet, models["x4"], build_x4)
zero_unet = unet_config(32, [1, 2, 4], [1, 1, 0], 768, False, None) | {"in_channels": 8}
models["zero"] = shapes_of(unet_module(zero_unet), UNET) | {"cc_projection.weight": [768, 772], "cc_projection.bias": [768]}
layer = drawn({key: shape for key, shape in models["zero"].items() if key.startswith("cc_projection")})
build_zero = lambda config, kind, device: comfy.model_base.Stable_Zero123(
    config, kind, device, layer["cc_projection.weight"], layer["cc_projection.bias"])
zero_eye = eye | {"width": 64, "projected": 768}
models["zero_vision"] = vision_shapes(**zero_eye)
with torch.no_grad():
    given["zero"] = (patcher(comfy.supported_models.Stable_Zero123, zero_unet, models["zero"], build_zero),
                     vision(models["zero_vision"], **zero_eye), given["vae"])
given["tiny"], halves = tiny_autoencoder()
models |= {f"taesd_{half}": shapes for half, shapes in halves.items()}
models["esrgan"] = rrdb(8, 2, 2)
given["upscaler"] = upscaler(models["esrgan"])
names = {"control": diffusers_names(small_unet, models["control"]),
         "esrgan": {old_name(key, 2, 2): key for key in models["esrgan"]}}


def conditioning(key, tokens, width, pooled=None):
    told = {} if pooled is None else {"pooled_output": value(f"{key}/pooled", [1, pooled], 1.5)}
    return [[value(key, [1, tokens, width], 1.5), told]]


def picture(key, shape):
    return (value(key, shape, 1.0) + 1) / 2


VALUES = {
    "positive": ["CONDITIONING", "positive", 9, 64, None], "negative": ["CONDITIONING", "negative", 9, 64, None],
    "empty": ["CONDITIONING", "empty", 9, 64, None], "other": ["CONDITIONING", "other", 9, 64, None],
    "positive_xl": ["CONDITIONING", "positive_xl", 9, 192, 128], "negative_xl": ["CONDITIONING", "negative_xl", 9, 192, 128],
    "latent": ["LATENT", "latent", [1, 4, 12, 16]], "pair": ["LATENT", "pair", [2, 4, 8, 12]],
    "large": ["LATENT", "large", [1, 4, 21, 30]], "frames": ["LATENT", "frames", [5, 4, 8, 8]],
    "hint": ["IMAGE", "hint", [1, 50, 70, 3]], "other_hint": ["IMAGE", "other_hint", [1, 96, 128, 3]],
    "picture": ["IMAGE", "picture", [1, 168, 240, 3]], "small_picture": ["IMAGE", "small_picture", [2, 9, 13, 3]],
    "clear": ["IMAGE", "clear", [1, 7, 10, 4]], "mask": ["MASK", "mask", [1, 20, 20]],
}
for name, (kind, key, *shape) in VALUES.items():
    if kind == "CONDITIONING":
        given[name] = conditioning(key, *shape)
    elif kind == "LATENT":
        given[name] = {"samples": value(key, shape[0], 2.0)}
    else:
        given[name] = picture(key, shape[0])


def sampler(model, **more):
    return ["KSampler", {
        "model": model, "positive": ["positive", 0], "negative": ["negative", 0], "latent_image": ["latent", 0], "seed": 7,
        "steps": 4, "cfg": 5.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0,
    } | more]


def patched(name, more=None, **inputs):
    return {"patch": [name, {"model": ["model", 0]} | inputs], "end": sampler(["patch", 0], **(more or {}))}


def custom(guider, model="model", **more):
    return guider | {
        "noise": ["RandomNoise", {"noise_seed": 5}], "how": ["KSamplerSelect", {"sampler_name": "euler"}],
        "levels": ["BasicScheduler", {"model": [model, 0], "scheduler": "karras", "steps": 4, "denoise": 1.0}],
        "end": ["SamplerCustomAdvanced", {"noise": ["noise", 0], "guider": ["guide", 0], "sampler": ["how", 0],
                                         "sigmas": ["levels", 0], "latent_image": ["latent", 0]} | more],
    }


def chosen(name, **inputs):
    return custom({"guide": ["CFGGuider", {"model": ["model", 0], "positive": ["positive", 0], "negative": ["negative", 0],
                                          "cfg": 4.0}], "chosen": [name, inputs]}, sampler=["chosen", 0])


def leveled(name, **inputs):
    graph = chosen("KSamplerSelect", sampler_name="euler")
    return graph | {"levels": [name, inputs]}


def controlled(**inputs):
    return ["ControlNetApplyAdvanced", {"positive": ["positive", 0], "negative": ["negative", 0], "control_net": ["control", 0],
                                        "image": ["hint", 0], "strength": 1.0, "start_percent": 0.0, "end_percent": 1.0} | inputs]


def led(control, more=None):
    return {"control_1": control,
            "end": sampler(["model", 0], positive=["control_1", 0], negative=["control_1", 1], **(more or {}))}


def seen(image="picture", crop="center"):
    return ["CLIPVisionEncode", {"clip_vision": ["vision", 0], "image": [image, 0], "crop": crop}]


def told(prompt, noise, picture="seen", strength=0.8):
    return ["unCLIPConditioning", {"conditioning": [prompt, 0], "clip_vision_output": [picture, 0], "strength": strength,
                                   "noise_augmentation": noise}]


def boxed(prompt, text, width, height, x, y):
    return ["GLIGENTextBoxApply", {"conditioning_to": [prompt, 0], "clip": ["clip", 0], "gligen_textbox_model": ["gligen", 0],
                                   "text": text, "width": width, "height": height, "x": x, "y": y}]


def enlarged(image, ratio, noise, model="x4", **more):
    shown = ["SD_4XUpscale_Conditioning", {"images": [image, 0], "positive": ["positive_xl", 0], "negative": ["negative_xl", 0],
                                           "scale_ratio": ratio, "noise_augmentation": noise}]
    seen = {"positive": ["shown", 0], "negative": ["shown", 1], "latent_image": ["shown", 2]}
    return {"shown": shown, "end": sampler([model, 0], **seen | more)}


def turned(name, **more):
    shown = [name, {"clip_vision": ["zero", 1], "init_image": ["picture", 0], "vae": ["zero", 2], "width": 64, "height": 80,
                    "batch_size": 3, "elevation": 12.5, "azimuth": -40.0} | more]
    return {"shown": shown, "end": sampler(["zero", 0], positive=["shown", 0], negative=["shown", 1], latent_image=["shown", 2])}


def windowed(length, overlap, schedule, fuse, latent="frames", start="model", more=None, **inputs):
    cut = {"model": [start, 0], "context_length": length, "context_overlap": overlap, "context_schedule": schedule,
           "context_stride": 1, "closed_loop": False, "fuse_method": fuse, "dim": 0, "freenoise": False}
    return {"cut": ["ContextWindowsManual", cut | inputs], "end": sampler(["cut", 0], latent_image=[latent, 0], **(more or {}))}


def grown(ratio, steps, method, **more):
    return chosen("SamplerLCMUpscale", scale_ratio=ratio, scale_steps=steps, upscale_method=method) | more


def filmed(name, **more):
    shown = [name, {"clip_vision": ["zero", 1], "init_image": ["picture", 0], "vae": ["zero", 2], "width": 64, "height": 80,
                    "video_frames": 3} | more]
    return {"shown": shown, "end": sampler(["zero", 0], positive=["shown", 0], negative=["shown", 1], latent_image=["shown", 2])}


def merged(name, **inputs):
    return {"merged": [name, {"model1": ["model", 0], "model2": ["model_2", 0]} | inputs], "end": sampler(["merged", 0])}


def hook(strength_model=0.9, strength_clip=0.7, **more):
    return ["CreateHookLora", {"lora_name": "lora_both.safetensors", "strength_model": strength_model,
                               "strength_clip": strength_clip} | more]


def toward(strength, **more):
    return ["CreateHookModelAsLoraModelOnly", {"ckpt_name": "pair_2.safetensors", "strength_model": strength} | more]


def keyframe(strength, start, **more):
    return ["CreateHookKeyframe", {"strength_mult": strength, "start_percent": start} | more]


def between(start, end, how, count, **more):
    return ["CreateHookKeyframesInterpolated", {
        "strength_start": start, "strength_end": end, "interpolation": how, "start_percent": 0.1, "end_percent": 0.8,
        "keyframes_count": count, "print_keyframes": False} | more]


def set_on(prompt, **more):
    return ["ConditioningSetProperties", {"cond_NEW": [prompt, 0], "strength": 1.0, "set_cond_area": "default"} | more]


def hooked(hooks, more=None, **given):
    """Sampling with hooks on the positive prompt."""
    graph = {"told": set_on("positive", hooks=["hook", 0], **given)}
    return hooks | graph | {"end": sampler(["model", 0], positive=["told", 0], **(more or {}))}


def spoken(hooks, scheduled, more=None):
    """Sampling with a prompt of a text encoder with hooks."""
    return hooks | {
        "with": ["SetClipHooks", {"clip": ["clip", 0], "apply_to_conds": True, "schedule_clip": scheduled, "hooks": ["hook", 0]}],
        "told": ["CLIPTextEncode", {"clip": ["with", 0], "text": "a (red:1.2) bear on the beach"}],
        "end": sampler(["model", 0], positive=["told", 0], **(more or {})),
    }


both = {"positive": ["positive", 0], "negative": ["negative", 0]}
shrink = {"block_number": 2, "downscale_factor": 1.7, "start_percent": 0.0, "end_percent": 0.6,
          "downscale_after_skip": True, "downscale_method": "bicubic", "upscale_method": "bislerp"}
free = {"b1": 1.3, "b2": 1.4, "s1": 0.9, "s2": 0.2}
tile = {"tile_size": 32, "swap_size": 4, "max_depth": 1, "scale_depth": False}
apart = {"sampler_name": "euler_ancestral"}
CASES = {
    "plain": {"end": sampler(["model", 0])},
    "free": patched("FreeU", **free),
    "free_2": patched("FreeU_V2", **free),
    "tile": patched("HyperTile", **tile),
    "tile_deep": patched("HyperTile", **tile | {"max_depth": 2, "scale_depth": True}, more=apart),
    "merge": patched("TomePatchModel", ratio=0.4),
    "merge_most": patched("TomePatchModel", ratio=0.9, more={"latent_image": ["pair", 0]}),
    "shrink": patched("PatchModelAddDownscale", **shrink),
    "shrink_kept": patched("PatchModelAddDownscale", **shrink | {"downscale_after_skip": False, "downscale_method": "area"}),
    "perturbed": patched("PerturbedAttentionGuidance", scale=2.5),
    "perturbed_alone": patched("PerturbedAttentionGuidance", scale=2.5, more={"cfg": 1.0}),
    "watched": patched("SelfAttentionGuidance", scale=0.8, blur_sigma=2.0),
    "watched_alone": patched("SelfAttentionGuidance", scale=0.8, blur_sigma=2.0, more={"cfg": 1.0, "latent_image": ["pair", 0]}),
    "perpendicular": patched("PerpNeg", empty_conditioning=["empty", 0], neg_scale=0.7),
    "rescale": patched("RescaleCFG", multiplier=0.7),
    "zero_star": patched("CFGZeroStar"),
    "norm": patched("CFGNorm", strength=0.9),
    "v": patched("ModelSamplingDiscrete", sampling="v_prediction", zsnr=False),
    "v_zsnr": patched("ModelSamplingDiscrete", sampling="v_prediction", zsnr=True),
    "lcm": patched("ModelSamplingDiscrete", sampling="lcm", zsnr=False),
    "x0": patched("ModelSamplingDiscrete", sampling="x0", zsnr=False),
    "img_to_img": patched("ModelSamplingDiscrete", sampling="img_to_img", zsnr=False),
    "edm_v": patched("ModelSamplingContinuousEDM", sampling="v_prediction", sigma_max=120.0, sigma_min=0.002),
    "edm": patched("ModelSamplingContinuousEDM", sampling="edm", sigma_max=80.0, sigma_min=0.002),
    "continuous_v": patched("ModelSamplingContinuousV", sampling="v_prediction", sigma_max=500.0, sigma_min=0.03),
    "all_together": {
        "a": ["FreeU", {"model": ["model", 0]} | free], "b": ["PatchModelAddDownscale", {"model": ["a", 0]} | shrink],
        "c": ["PerturbedAttentionGuidance", {"model": ["b", 0], "scale": 1.5}],
        "d": ["RescaleCFG", {"model": ["c", 0], "multiplier": 0.5}], "end": sampler(["d", 0]),
    },
    "differential": {
        "patch": ["DifferentialDiffusion", {"model": ["model", 0], "strength": 1.0}],
        "masked": ["SetLatentNoiseMask", {"samples": ["latent", 0], "mask": ["mask", 0]}],
        "end": sampler(["patch", 0], latent_image=["masked", 0], steps=6),
    },
    "differential_part": {
        "patch": ["DifferentialDiffusion", {"model": ["model", 0], "strength": 0.6}],
        "masked": ["SetLatentNoiseMask", {"samples": ["latent", 0], "mask": ["mask", 0]}],
        "end": sampler(["patch", 0], latent_image=["masked", 0], steps=6, denoise=0.8),
    },
    "basic": custom({"guide": ["BasicGuider", {"model": ["model", 0], "conditioning": ["positive", 0]}]}),
    "cfg": custom({"guide": ["CFGGuider", {"model": ["model", 0], "cfg": 4.0} | both]}),
    **{f"dual_{style}": custom({"guide": ["DualCFGGuider", {
        "model": ["model", 0], "cond1": ["positive", 0], "cond2": ["other", 0], "negative": ["negative", 0], "cfg_conds": 3.0,
        "cfg_cond2_negative": 2.5, "style": style}]}) for style in ("regular", "nested")},
    "perpendicular_guider": custom({"guide": ["PerpNegGuider", {"model": ["model", 0], "empty_conditioning": ["empty", 0],
                                                               "cfg": 4.0, "neg_scale": 0.7} | both]}),
    "perpendicular_guider_perturbed": custom({
        "patch": ["PerturbedAttentionGuidance", {"model": ["model", 0], "scale": 2.0}],
        "guide": ["PerpNegGuider", {"model": ["patch", 0], "empty_conditioning": ["empty", 0], "cfg": 4.0, "neg_scale": 0.7} | both]}),
    "dual_perturbed": custom({
        "patch": ["PerturbedAttentionGuidance", {"model": ["model", 0], "scale": 2.0}],
        "guide": ["DualCFGGuider", {"model": ["patch", 0], "cond1": ["positive", 0], "cond2": ["other", 0],
                                    "negative": ["negative", 0], "cfg_conds": 3.0, "cfg_cond2_negative": 2.5, "style": "regular"}]}),
    "no_noise": custom({"guide": ["CFGGuider", {"model": ["model", 0], "cfg": 4.0} | both], "none": ["DisableNoise", {}]},
                       noise=["none", 0]),
    "custom": {
        "how": ["KSamplerSelect", {"sampler_name": "dpmpp_2m"}],
        "levels": ["BasicScheduler", {"model": ["model", 0], "scheduler": "simple", "steps": 5, "denoise": 0.7}],
        "end": ["SamplerCustom", {"model": ["model", 0], "add_noise": True, "noise_seed": 3, "cfg": 4.0, "sampler": ["how", 0],
                                  "sigmas": ["levels", 0], "latent_image": ["latent", 0]} | both],
    },
    "add_noise": {
        "noise": ["RandomNoise", {"noise_seed": 5}],
        "levels": ["KarrasScheduler", {"steps": 4, "sigma_max": 14.6, "sigma_min": 0.03, "rho": 7.0}],
        "end": ["AddNoise", {"model": ["model", 0], "noise": ["noise", 0], "sigmas": ["levels", 0], "latent_image": ["latent", 0]}],
    },
    "dpm_adaptive": chosen("SamplerDPMAdaptative", order=2, rtol=1.0, atol=1.0, h_init=0.5, pcoeff=0.0, icoeff=1.0, dcoeff=0.0,
                           accept_safety=0.81, eta=0.2, s_noise=1.0),
    **{f"dpmpp_2m_sde_{kind}": chosen("SamplerDPMPP_2M_SDE", solver_type=kind, eta=0.7, s_noise=0.9, noise_device="cpu")
       for kind in ("midpoint", "heun")},
    "dpmpp_2s": chosen("SamplerDPMPP_2S_Ancestral", eta=0.7, s_noise=0.9),
    "dpmpp_3m_sde": chosen("SamplerDPMPP_3M_SDE", eta=0.7, s_noise=0.9, noise_device="cpu"),
    "dpmpp_sde": chosen("SamplerDPMPP_SDE", eta=0.7, s_noise=0.9, r=0.4, noise_device="cpu"),
    **{f"er_sde_{number}": chosen("SamplerER_SDE", solver_type=kind, max_stage=stage, eta=0.7, s_noise=0.9)
       for number, (kind, stage) in enumerate((("ER-SDE", 3), ("Reverse-time SDE", 2), ("ODE", 3)))},
    "euler_ancestral": chosen("SamplerEulerAncestral", eta=0.7, s_noise=0.9),
    "euler_ancestral_apart": chosen("SamplerEulerAncestralCFGPP", eta=0.7, s_noise=0.9),
    "lms": chosen("SamplerLMS", order=3),
    "sa_solver": chosen("SamplerSASolver", model=["model", 0], eta=0.7, sde_start_percent=0.2, sde_end_percent=0.8, s_noise=0.9,
                        predictor_order=2, corrector_order=3, use_pece=True, simple_order_2=False),
    **{f"seeds_2_{kind}": chosen("SamplerSEEDS2", solver_type=kind, eta=0.7, s_noise=0.9, r=0.4) for kind in ("phi_1", "phi_2")},
    "beta_levels": leveled("BetaSamplingScheduler", model=["model", 0], steps=4, alpha=0.7, beta=0.5),
    "turbo_levels": leveled("SDTurboScheduler", model=["model", 0], steps=2, denoise=0.8),
    "control": led(controlled()),
    "control_weak": led(controlled(strength=0.45, start_percent=0.2, end_percent=0.7), {"steps": 6}),
    "control_batch": led(controlled(), {"latent_image": ["pair", 0]}),
    "control_alone": led(controlled(), {"cfg": 1.0}),
    "control_off": led(controlled(strength=0.0)),
    "control_twice": {
        "control_1": controlled(strength=0.6),
        "control_2": controlled(positive=["control_1", 0], negative=["control_1", 1], image=["other_hint", 0], strength=0.8,
                                end_percent=0.5),
        "end": sampler(["model", 0], positive=["control_2", 0], negative=["control_2", 1]),
    },
    "control_old": {
        "control_1": ["ControlNetApply", {"conditioning": ["positive", 0], "control_net": ["control", 0], "image": ["hint", 0],
                                          "strength": 0.8}],
        "end": sampler(["model", 0], positive=["control_1", 0]),
    },
    "control_old_of_two": {
        "control_1": ["ControlNetApply", {"conditioning": ["positive", 0], "control_net": ["control", 0], "image": ["hint", 0],
                                          "strength": 0.8}],
        "two": ["ConditioningCombine", {"conditioning_1": ["control_1", 0], "conditioning_2": ["other", 0]}],
        "end": sampler(["model", 0], positive=["two", 0]),
    },
    "control_area": {
        "control_1": controlled(),
        "area": ["ConditioningSetArea", {"conditioning": ["control_1", 0], "width": 64, "height": 64, "x": 32, "y": 16,
                                         "strength": 1.0}],
        "two": ["ConditioningCombine", {"conditioning_1": ["area", 0], "conditioning_2": ["other", 0]}],
        "end": sampler(["model", 0], positive=["two", 0], negative=["control_1", 1]),
    },
    "control_shrunk": {
        "patch": ["PatchModelAddDownscale", {"model": ["model", 0]} | shrink], "control_1": controlled(),
        "end": sampler(["patch", 0], positive=["control_1", 0], negative=["control_1", 1]),
    },
    "control_xl": {
        "control_1": controlled(control_net=["control_xl", 0], positive=["positive_xl", 0], negative=["negative_xl", 0]),
        "end": sampler(["xl", 0], positive=["control_1", 0], negative=["control_1", 1]),
    },
    "decode_tiled": {"end": ["VAEDecodeTiled", {"samples": ["large", 0], "vae": ["vae", 0], "tile_size": 96, "overlap": 32,
                                                "temporal_size": 64, "temporal_overlap": 8}]},
    "decode_overlapping": {"end": ["VAEDecodeTiled", {"samples": ["large", 0], "vae": ["vae", 0], "tile_size": 128,
                                                      "overlap": 64, "temporal_size": 64, "temporal_overlap": 8}]},
    "decode_whole": {"end": ["VAEDecodeTiled", {"samples": ["pair", 0], "vae": ["vae", 0], "tile_size": 512, "overlap": 64,
                                                "temporal_size": 64, "temporal_overlap": 8}]},
    "encode_tiled": {"end": ["VAEEncodeTiled", {"pixels": ["picture", 0], "vae": ["vae", 0], "tile_size": 128, "overlap": 32,
                                                "temporal_size": 64, "temporal_overlap": 8}]},
    "tiny_decode": {"end": ["VAEDecode", {"samples": ["pair", 0], "vae": ["tiny", 0]}]},
    "tiny_encode": {"end": ["VAEEncode", {"pixels": ["other_hint", 0], "vae": ["tiny", 0]}]},
    "upscaled": {"end": ["ImageUpscaleWithModel", {"upscale_model": ["upscaler", 0], "image": ["small_picture", 0]}]},
    **{f"stitch_{name}": {"end": ["ImageStitch", {
        "image1": ["small_picture", 0], "direction": direction, "match_image_size": match, "spacing_width": width,
        "spacing_color": colour, "image2": ["clear", 0]}]}
       for name, direction, match, width, colour in (
           ("right", "right", True, 0, "white"), ("down", "down", True, 4, "red"), ("left", "left", False, 3, "black"),
           ("up", "up", False, 2, "white"))},
    "stitch_one": {"end": ["ImageStitch", {"image1": ["small_picture", 0], "direction": "right", "match_image_size": True,
                                           "spacing_width": 0, "spacing_color": "white"}]},
    **{f"morphology_{how}": {"end": ["Morphology", {"image": ["small_picture", 0], "operation": how, "kernel_size": 3}]}
       for how in ("erode", "dilate", "open", "close", "gradient", "bottom_hat", "top_hat")},
    **{f"morphology_{how}_{size}": {"end": ["Morphology", {"image": ["small_picture", 0], "operation": how, "kernel_size": size}]}
       for how, size in (("erode", 4), ("dilate", 4), ("dilate", 6), ("open", 4), ("close", 4), ("gradient", 4), ("top_hat", 4))},
    "unet_e4m3": {"end": sampler(["model_e4m3", 0])},
    "unet_e5m2": {"end": sampler(["model_e5m2", 0])},
    "blend_many": {"end": ["ImageBlend", {"image1": ["picture", 0], "image2": ["small_picture", 0], "blend_factor": 0.3,
                                          "blend_mode": "screen"}]},
    "yuv": {"end": ["ImageRGBToYUV", {"image": ["small_picture", 0]}]},
    "yuv_back": {"a": ["ImageRGBToYUV", {"image": ["small_picture", 0]}],
                 "end": ["ImageYUVToRGB", {"Y": ["a", 0], "U": ["a", 1], "V": ["a", 2]}]},
    **{f"padded_{how}": {"end": ["ResizeAndPadImage", {"image": ["small_picture", 0], "target_width": 16, "target_height": 16,
                                                       "padding_color": colour, "interpolation": how}]}
       for how, colour in (("area", "white"), ("lanczos", "black"))},
    **{f"duff_{mode.lower()}": {
        "a": ["SplitImageWithAlpha", {"image": ["clear", 0]}], "b": ["ImageScale", {
            "image": ["small_picture", 0], "upscale_method": "bilinear", "width": 10, "height": 7, "crop": "disabled"}],
        "end": ["PorterDuffImageComposite", {"source": ["a", 0], "source_alpha": ["a", 1], "destination": ["b", 0],
                                             "destination_alpha": ["mask", 0], "mode": mode}]}
       for mode in ("ADD", "CLEAR", "DARKEN", "DST", "DST_ATOP", "DST_IN", "DST_OUT", "DST_OVER", "LIGHTEN", "MULTIPLY", "OVERLAY",
                    "SCREEN", "SRC", "SRC_ATOP", "SRC_IN", "SRC_OUT", "SRC_OVER", "XOR")},
    "inpaint_conditioning": {"end": ["InpaintModelConditioning", both | {
        "vae": ["vae", 0], "pixels": ["picture", 0], "mask": ["mask", 0], "noise_mask": True}]},
    "instruct_conditioning": {"end": ["InstructPixToPixConditioning", both | {"vae": ["vae", 0], "pixels": ["picture", 0]}]},
    "area_strength": {
        "area": ["ConditioningSetArea", {"conditioning": ["positive", 0], "width": 64, "height": 64, "x": 32, "y": 16,
                                         "strength": 1.0}],
        "strong": ["ConditioningSetAreaStrength", {"conditioning": ["area", 0], "strength": 2.5}],
        "two": ["ConditioningCombine", {"conditioning_1": ["strong", 0], "conditioning_2": ["other", 0]}],
        "end": sampler(["model", 0], positive=["two", 0]),
    },
    **{f"percent_{number}": {"end": ["SamplingPercentToSigma", {"model": ["model", 0], "sampling_percent": percent,
                                                               "return_actual_sigma": actual}]}
       for number, (percent, actual) in enumerate(((0.0, True), (0.35, False), (1.0, True)))},
    "merge_simple": merged("ModelMergeSimple", ratio=0.3),
    "merge_add": {"less": ["ModelMergeSubtract", {"model1": ["model", 0], "model2": ["model_2", 0], "multiplier": 0.4}],
                  **merged("ModelMergeAdd", model1=["model_2", 0], model2=["less", 0])},
    "merge_blocks": merged("ModelMergeBlocks", input=0.2, middle=0.5, out=0.8),
    "merge_sd1": merged("ModelMergeSD1", **{
        "time_embed.": 0.9, "label_emb.": 1.0, **{f"input_blocks.{i}.": i / 11 for i in range(12)},
        **{f"middle_block.{i}.": 0.4 for i in range(3)}, **{f"output_blocks.{i}.": 1 - i / 11 for i in range(12)}, "out.": 0.25}),
    "merge_sdxl": {"merged": ["ModelMergeSDXL", {
        "model1": ["xl", 0], "model2": ["xl_2", 0], "time_embed.": 0.9, "label_emb.": 0.3,
        **{f"input_blocks.{i}": i / 8 for i in range(9)}, **{f"middle_block.{i}": 0.4 for i in range(3)},
        **{f"output_blocks.{i}": 1 - i / 8 for i in range(9)}, "out.": 0.25}],
        "end": sampler(["merged", 0], positive=["positive_xl", 0], negative=["negative_xl", 0])},
    **{f"clip_{name}": {"merged": [label, {"clip1": ["clip", 0], "clip2": ["clip_2", 0]} | more],
                        "end": ["CLIPTextEncode", {"text": "a (red:1.3) bear", "clip": ["merged", 0]}]}
       for name, label, more in (("simple", "CLIPMergeSimple", {"ratio": 0.3}), ("add", "CLIPMergeAdd", {}),
                                 ("subtract", "CLIPMergeSubtract", {"multiplier": 0.7}))},
    "clip_stronger": {"strong": ["CLIPAttentionMultiply", {"clip": ["clip", 0], "q": 1.2, "k": 0.9, "v": 0.8, "out": 1.1}],
                      "end": ["CLIPTextEncode", {"text": "a (red:1.3) bear", "clip": ["strong", 0]}]},
    "self_stronger": patched("UNetSelfAttentionMultiply", q=1.3, k=0.9, v=0.8, out=1.2),
    "cross_stronger": patched("UNetCrossAttentionMultiply", q=1.3, k=0.9, v=0.8, out=1.2),
    "temporal_stronger": patched("UNetTemporalAttentionMultiply", self_structural=1.4, self_temporal=0.1, cross_structural=0.7,
                                 cross_temporal=0.2),
    "projected": patched("APG", eta=0.3, norm_threshold=2.0, momentum=-0.4),
    "projected_alone": patched("APG", eta=0.3, norm_threshold=2.0, momentum=0.0, more={"cfg": 1.0}),
    "damped": patched("TCFG", more={"latent_image": ["pair", 0]}),
    "frequencies": patched("FreSca", scale_low=0.8, scale_high=1.4, freq_cutoff=3),
    "frequencies_many": patched("FreSca", scale_low=0.8, scale_high=1.4, freq_cutoff=20, more={"latent_image": ["large", 0]}),
    "direction": patched("Mahiro"),
    "epsilon": patched("Epsilon Scaling", scaling_factor=1.05),
    "temporal_score": patched("TemporalScoreRescaling", tsr_k=0.8, tsr_sigma=1.3),
    **{f"operated_{name}": {"how": how, "patch": ["LatentApplyOperationCFG", {"model": ["model", 0], "operation": ["how", 0]}],
                            "end": sampler(["patch", 0])}
       for name, how in (("tonemap", ["LatentOperationTonemapReinhard", {"multiplier": 0.6}]),
                         ("sharpen", ["LatentOperationSharpen", {"sharpen_radius": 3, "sigma": 0.8, "alpha": 0.2}]))},
    "operated_first": {
        "how": ["LatentOperationTonemapReinhard", {"multiplier": 0.6}],
        "a": ["LatentApplyOperationCFG", {"model": ["model", 0], "operation": ["how", 0]}],
        "b": ["APG", {"model": ["a", 0], "eta": 0.5, "norm_threshold": 5.0, "momentum": 0.0}],
        "c": ["PerturbedAttentionGuidance", {"model": ["b", 0], "scale": 1.5}], "end": sampler(["c", 0]),
    },
    "operated_latent": {"how": ["LatentOperationTonemapReinhard", {"multiplier": 0.6}],
                        "end": ["LatentApplyOperation", {"samples": ["pair", 0], "operation": ["how", 0]}]},
    "sharpened_latent": {"how": ["LatentOperationSharpen", {"sharpen_radius": 2, "sigma": 1.0, "alpha": 0.3}],
                         "end": ["LatentApplyOperation", {"samples": ["pair", 0], "operation": ["how", 0]}]},
    **{f"euler_pp_{version}": chosen("SamplerEulerCFGpp", version=version) for version in ("regular", "alternative")},
    "control_difference": led(controlled(control_net=["control_difference", 0])),
    "control_lora": led(controlled(control_net=["control_lora", 0], strength=0.8)),
    "control_lora_merged": {
        "merged": ["ModelMergeSimple", {"model1": ["model", 0], "model2": ["model_2", 0], "ratio": 0.5}],
        "control_1": controlled(control_net=["control_lora", 0]),
        "end": sampler(["merged", 0], positive=["control_1", 0], negative=["control_1", 1]),
    },
    **{f"control_{name}": {
        "control_1": controlled(control_net=[name, 0], strength=0.7),
        "end": sampler(["deep", 0], positive=["control_1", 0], negative=["control_1", 1], steps=2)}
       for name in ("t2i", "t2i_grey", "t2i_light")},
    "control_t2i_twice": {
        "control_1": controlled(control_net=["t2i", 0], strength=0.7),
        "control_2": controlled(control_net=["t2i_light", 0], strength=0.5, image=["other_hint", 0], positive=["control_1", 0],
                                negative=["control_1", 1]),
        "end": sampler(["deep", 0], positive=["control_2", 0], negative=["control_2", 1], steps=2, latent_image=["pair", 0]),
    },
    "control_t2i_xl": {
        "control_1": controlled(control_net=["t2i_xl", 0], positive=["positive_xl", 0], negative=["negative_xl", 0]),
        "end": sampler(["deep_xl", 0], positive=["control_1", 0], negative=["control_1", 1], steps=2),
    },
    **{f"control_union_{kind}": {
        "told": ["SetUnionControlNetType", {"control_net": ["union", 0], "type": kind}],
        "control_1": controlled(control_net=["told", 0]),
        "end": sampler(["one", 0], positive=["control_1", 0], negative=["control_1", 1], steps=2)}
       for kind in ("auto", "depth")},
    "control_prompt": {
        "told": ["CLIPTextEncodeControlnet", {"clip": ["clip", 0], "conditioning": ["positive", 0], "text": "a bear"}],
        "control_1": controlled(positive=["told", 0]),
        "end": sampler(["model", 0], positive=["control_1", 0], negative=["control_1", 1]),
    },
    "edges": {"end": ["Canny", {"image": ["picture", 0], "low_threshold": 0.6, "high_threshold": 0.95}]},
    "edges_few": {"end": ["Canny", {"image": ["small_picture", 0], "low_threshold": 0.1, "high_threshold": 0.99}]},
    **{f"quantized_{how}": {"end": ["ImageQuantize", {"image": ["hint", 0], "colors": colors, "dither": how}]}
       for how, colors in (("none", 9), ("floyd-steinberg", 17), ("bayer-2", 32), ("bayer-8", 6), ("bayer-16", 256))},
    **{f"gits_{steps}": {"end": ["GITSScheduler", {"coeff": coeff, "steps": steps, "denoise": denoise}]}
       for coeff, steps, denoise in ((1.2, 10, 1.0), (0.8, 33, 1.0), (1.35, 16, 0.4))},
    "vision_center": {"end": ["CLIPVisionEncode", {"clip_vision": ["vision", 0], "image": ["picture", 0], "crop": "center"}]},
    "vision_whole": {"end": ["CLIPVisionEncode", {"clip_vision": ["vision", 0], "image": ["small_picture", 0], "crop": "none"}]},
    "unclip_none": {"end": sampler(["unclip", 0])},
    "unclip": {"seen": seen(), "told": told("positive", 0.3), "end": sampler(["unclip", 0], positive=["told", 0])},
    "unclip_many": {
        "seen": seen(), "seen_2": seen("small_picture"), "told_1": told("positive", 0.1),
        "told": told("told_1", 0.6, "seen_2", -0.5),
        "end": sampler(["unclip", 0], positive=["told", 0], seed=3),
    },
    "style": {
        "seen": seen(), "told": ["StyleModelApply", {
            "conditioning": ["positive", 0], "style_model": ["style", 0], "clip_vision_output": ["seen", 0], "strength": 0.7,
            "strength_type": "multiply"}],
        "end": sampler(["model", 0], positive=["told", 0]),
    },
    "boxes": {
        "box": boxed("positive_xl", "a bear", 48, 32, 16, 8), "boxes": boxed("box", "snow", 64, 40, 64, 56),
        "end": sampler(["xl", 0], positive=["boxes", 0], negative=["negative_xl", 0]),
    },
    "hyper": {"patch": ["HypernetworkLoader", {"model": ["model", 0], "hypernetwork_name": "hyper.safetensors",
                                               "strength": 0.6}], "end": sampler(["patch", 0])},
    "ramp": patched("VideoLinearCFGGuidance", min_cfg=1.5, more={"latent_image": ["frames", 0], "steps": 2}),
    "ramp_triangle": patched("VideoTriangleCFGGuidance", min_cfg=1.5, more={"latent_image": ["frames", 0], "steps": 2}),
    "renormed": patched("RenormCFG", cfg_trunc=5.0, renorm_cfg=0.9),
    "renormed_any": patched("RenormCFG", cfg_trunc=100.0, renorm_cfg=1.1, more={"cfg": 9.0}),
    **{f"{name.lower()}_{number}": patched(name, reuse_threshold=threshold, start_percent=0.1, end_percent=0.95, verbose=False,
                                           more={"steps": 12, "sampler_name": how})
       for name in ("EasyCache", "LazyCache")
       for number, (threshold, how) in enumerate(((0.3, "euler"), (1.2, "dpmpp_2m")))},
    "text_lora": {
        "with": ["LoraLoader", {"model": ["model", 0], "clip": ["clip", 0], "lora_name": "lora.safetensors", "strength_model": 1.0,
                               "strength_clip": 0.8}],
        "end": ["CLIPTextEncode", {"clip": ["with", 1], "text": "a (red:1.2) bear on the beach"}],
    },
    "text_loras": {
        "mixed": ["CLIPMergeSimple", {"clip1": ["clip", 0], "clip2": ["clip_2", 0], "ratio": 0.7}],
        "with": ["LoraLoader", {"model": ["model", 0], "clip": ["mixed", 0], "lora_name": "lora.safetensors", "strength_model": 0.0,
                               "strength_clip": 0.8}],
        "more": ["LoraLoader", {"model": ["model", 0], "clip": ["with", 1], "lora_name": "lora.safetensors", "strength_model": 0.0,
                               "strength_clip": -0.3}],
        "end": ["CLIPTextEncode", {"clip": ["more", 1], "text": "a (red:1.2) bear on the beach"}],
    },
    **{f"lora_{kept}": {
        "with": ["LoraLoaderModelOnly", {"model": [f"model_{kept}", 0], "lora_name": "lora_both.safetensors", "strength_model": 0.6}],
        "end": sampler(["with", 0]),
    } for kept in ("e4m3", "e5m2")},
    "hook": hooked({"hook": hook()}),
    "hook_twice": hooked({"single": hook(0.4), "hook": hook(-0.8, prev_hooks=["single", 0])}),
    "hook_range": hooked({"hook": hook(), "range": ["ConditioningTimestepsRange", {"start_percent": 0.2, "end_percent": 0.7}]},
                         timesteps=["range", 0]),
    "hook_model": hooked({"hook": toward(0.6)}),
    "hook_model_over_lora": {
        "with": ["LoraLoaderModelOnly", {"model": ["model", 0], "lora_name": "lora_both.safetensors", "strength_model": 1.0}],
        "hook": toward(0.5), "told": set_on("positive", hooks=["hook", 0]), "end": sampler(["with", 0], positive=["told", 0]),
    },
    "hook_combined": hooked({"single": hook(), "two": toward(0.3), "three": ["CombineHooks2", {"hooks_A": ["single", 0], "hooks_B": ["two", 0]}],
                             "hook": ["CombineHooks4", {"hooks_A": ["three", 0], "hooks_C": ["single", 0]}]}),
    "hook_keyframes": hooked({
        "single": hook(), "first": keyframe(0.2, 0.0), "second": keyframe(1.5, 0.4, prev_hook_kf=["first", 0]),
        "third": keyframe(0.7, 0.3, prev_hook_kf=["second", 0]),
        "hook": ["SetHookKeyframes", {"hooks": ["single", 0], "hook_kf": ["third", 0]}]}, more={"steps": 8}),
    "hook_eased": hooked({
        "single": hook(), "between": between(0.0, 1.4, "ease_in_out", 5),
        "hook": ["SetHookKeyframes", {"hooks": ["single", 0], "hook_kf": ["between", 0]}]}, more={"steps": 6, "sampler_name": "heun"}),
    "hook_keyframes_of_two": hooked({
        "a": hook(), "b": toward(0.4), "between": between(1.2, 0.1, "ease_in", 4),
        "single": ["CombineHooks2", {"hooks_A": ["a", 0], "hooks_B": ["b", 0]}],
        "hook": ["SetHookKeyframes", {"hooks": ["single", 0], "hook_kf": ["between", 0]}]},
        more={"steps": 6, "sampler_name": "dpmpp_2s_ancestral", "latent_image": ["pair", 0]}),
    "hook_pair": {
        "hook": hook(), "told": ["PairConditioningSetPropertiesAndCombine", {
            **both, "positive_NEW": ["other", 0], "negative_NEW": ["empty", 0], "strength": 0.8, "set_cond_area": "default",
            "mask": ["mask", 0], "hooks": ["hook", 0]}],
        "end": sampler(["model", 0], positive=["told", 0], negative=["told", 1]),
    },
    "hook_bounds": {
        "hook": hook(), "told": ["PairConditioningSetProperties", {
            "positive_NEW": ["positive", 0], "negative_NEW": ["negative", 0], "strength": 0.8, "set_cond_area": "mask bounds",
            "mask": ["mask", 0], "hooks": ["hook", 0]}],
        "more": ["PairConditioningCombine", {"positive_A": ["told", 0], "negative_A": ["told", 1], "positive_B": ["other", 0],
                                             "negative_B": ["empty", 0]}],
        "end": sampler(["model", 0], positive=["more", 0], negative=["more", 1]),
    },
    "hook_default": {
        "hook": hook(), "masked": set_on("positive", mask=["mask", 0]),
        "told": ["ConditioningSetDefaultCombine", {"cond": ["masked", 0], "cond_DEFAULT": ["other", 0], "hooks": ["hook", 0]}],
        "end": sampler(["model", 0], positive=["told", 0]),
    },
    "hook_default_area": {
        "area": ["ConditioningSetArea", {"conditioning": ["positive", 0], "width": 64, "height": 64, "x": 24, "y": 16,
                                         "strength": 0.6}],
        "told": ["PairConditioningSetDefaultCombine", {"positive": ["area", 0], "negative": ["negative", 0],
                                                       "positive_DEFAULT": ["other", 0], "negative_DEFAULT": ["empty", 0]}],
        "end": sampler(["model", 0], positive=["told", 0], negative=["told", 1]),
    },
    "hook_default_nowhere": {
        "told": ["ConditioningSetDefaultCombine", {"cond": ["positive", 0], "cond_DEFAULT": ["other", 0]}],
        "end": sampler(["model", 0], positive=["told", 0], negative=["empty", 0]),
    },
    "hook_clip": spoken({"hook": hook()}, False),
    "hook_clip_model": spoken({"hook": ["CreateHookModelAsLora", {
        "ckpt_name": "pair_2.safetensors", "strength_model": 0.3, "strength_clip": 0.5}]}, False),
    "hook_clip_scheduled": spoken({
        "single": hook(), "first": keyframe(0.2, 0.0), "second": keyframe(1.5, 0.4, prev_hook_kf=["first", 0]),
        "hook": ["SetHookKeyframes", {"hooks": ["single", 0], "hook_kf": ["second", 0]}]}, True, more={"steps": 6}),
    "hook_clip_eased": spoken({
        "a": hook(), "b": hook(0.5, -0.6), "between": between(1.0, 0.0, "ease_out", 3), "between_b": between(0.5, 1.0, "linear", 4),
        "single": ["SetHookKeyframes", {"hooks": ["a", 0], "hook_kf": ["between", 0]}],
        "two": ["SetHookKeyframes", {"hooks": ["b", 0], "hook_kf": ["between_b", 0]}],
        "hook": ["CombineHooks2", {"hooks_A": ["single", 0], "hooks_B": ["two", 0]}]}, True, more={"steps": 7}),
    "enlarged": enlarged("small_picture", 4.0, 0.0),
    "enlarged_noised": enlarged("hint", 1.3, 0.35),
    "enlarged_barely_noised": enlarged("small_picture", 4.0, 0.001, seed=3),
    "enlarged_more": enlarged("small_picture", 4.0, 0.6, latent_image=["more", 0]) | {
        "more": ["RepeatLatentBatch", {"samples": ["latent", 0], "amount": 3}]},
    "enlarged_unseen": {"end": sampler(["x4", 0], positive=["positive_xl", 0], negative=["negative_xl", 0])},
    "enlarged_lcm": {"patch": ["ModelSamplingDiscrete", {"model": ["x4", 0], "sampling": "lcm", "zsnr": False}],
                     **enlarged("hint", 1.3, 0.2, model="patch", sampler_name="lcm")},
    "other_side": turned("StableZero123_Conditioning"),
    "other_sides": turned("StableZero123_Conditioning_Batched", elevation_batch_increment=-7.5, azimuth_batch_increment=100.0),
    # What patches draw from was begun anew for the noise on the pictures.
    "unclip_tiled": {"seen": seen(), "seen_2": seen("small_picture"), "told_1": told("positive", 0.1),
                     "told": told("told_1", 0.6, "seen_2", -0.5),
                     "patch": ["HyperTile", {"model": ["unclip", 0], "tile_size": 16, "swap_size": 4, "max_depth": 1, "scale_depth": False}],
                     "end": sampler(["patch", 0], positive=["told", 0], latent_image=["large", 0])},
    "enlarged_merge": {"patch": ["TomePatchModel", {"model": ["x4", 0], "ratio": 0.4}],
                       **enlarged("hint", 1.3, 0.35, model="patch", sampler_name="euler_ancestral")},
    "first_frame": filmed("SVD_img2vid_Conditioning", motion_bucket_id=100, fps=8, augmentation_level=0.0),
    "orbit": filmed("SV3D_Conditioning", elevation=10.0),
    "area_of_video": {
        "told": ["ConditioningSetAreaPercentageVideo", {"conditioning": ["positive", 0], "width": 0.1, "height": 0.6, "temporal": 0.5,
                                                        "x": 0.9, "y": 0.2, "z": 0.3, "strength": 0.8}],
        "end": sampler(["model", 0], positive=["told", 0]),
    },
    "rows_replaced": {"cut": ["LatentCut", {"samples": ["latent", 0], "dim": "y", "index": 2, "amount": 3}],
                      "more": ["RepeatLatentBatch", {"samples": ["latent", 0], "amount": 2}],
                      "end": ["ReplaceVideoLatentFrames", {"destination": ["more", 0], "source": ["cut", 0], "index": -5}]},
    "rows_left": {"end": ["ReplaceVideoLatentFrames", {"destination": ["latent", 0], "source": ["latent", 0], "index": 1}]},
    "grown": grown(1.5, -1, "bislerp"),
    "grown_early": grown(2.0, 2, "nearest-exact", end=["SamplerCustomAdvanced", {
        "noise": ["noise", 0], "guider": ["guide", 0], "sampler": ["chosen", 0], "sigmas": ["levels", 0], "latent_image": ["pair", 0]}]),
    "grown_late": grown(1.7, 1000, "bicubic"),
    "grown_smaller": grown(0.6, 2, "area"),
    "grown_never": grown(3.0, 0, "bilinear"),
    "grown_area": grown(1.6, 2, "bilinear", area=["ConditioningSetArea", {
        "conditioning": ["positive", 0], "width": 72, "height": 64, "x": 40, "y": 32, "strength": 0.7}],
        guide=["CFGGuider", {"model": ["model", 0], "positive": ["two", 0], "negative": ["negative", 0], "cfg": 3.0}],
        two=["ConditioningCombine", {"conditioning_1": ["area", 0], "conditioning_2": ["other", 0]}]),
    "grown_control": grown(1.5, 1, "bilinear", control_1=controlled(), guide=["CFGGuider", {
        "model": ["model", 0], "positive": ["control_1", 0], "negative": ["control_1", 1], "cfg": 3.0}]),
    "windows": windowed(3, 1, "standard_static", "pyramid"),
    "windows_even": windowed(2, 1, "standard_static", "flat", more={"sampler_name": "euler_ancestral"}),
    "windows_uniform": windowed(3, 1, "standard_uniform", "relative", freenoise=True),
    "windows_uniform_far": windowed(2, 1, "standard_uniform", "pyramid", context_stride=2),
    "windows_looped": windowed(3, 1, "looped_uniform", "flat", closed_loop=True),
    "windows_looped_far": windowed(2, 1, "looped_uniform", "relative", closed_loop=True, context_stride=2, more={"steps": 6}),
    "windows_batched": windowed(2, 1, "batched", "pyramid", freenoise=True),
    "windows_fading": windowed(4, 3, "standard_static", "overlap-linear", freenoise=True),
    "windows_rows": windowed(8, 3, "standard_static", "overlap-linear", latent="large", dim=2),
    "windows_columns": windowed(13, 5, "standard_uniform", "pyramid", latent="large", dim=3, freenoise=True),
    "windows_all": windowed(5, 1, "standard_static", "pyramid"),
    "windows_control": windowed(3, 1, "standard_static", "pyramid", more={"positive": ["control_1", 0], "negative": ["control_1", 1]}) | {
        "control_1": controlled()},
    "windows_perturbed": windowed(3, 1, "standard_static", "relative", start="patch", more={"positive": ["masked", 0]}) | {
        "patch": ["PerturbedAttentionGuidance", {"model": ["model", 0], "scale": 2.0}],
        "masked": ["ConditioningSetMask", {"conditioning": ["positive", 0], "mask": ["mask", 0], "strength": 0.7,
                                           "set_cond_area": "default"}]},
    "windows_area": windowed(3, 1, "standard_uniform", "flat", more={"positive": ["two", 0]}) | {
        "area": ["ConditioningSetArea", {"conditioning": ["positive", 0], "width": 64, "height": 64, "x": 16, "y": 24, "strength": 0.7}],
        "two": ["ConditioningCombine", {"conditioning_1": ["area", 0], "conditioning_2": ["other", 0]}]},
    "windows_xl": windowed(3, 2, "standard_static", "pyramid", start="xl",
                           more={"positive": ["positive_xl", 0], "negative": ["negative_xl", 0]}),
    "cut_to_batch": {"end": ["LatentCutToBatch", {"samples": ["latent", 0], "dim": "x", "slice_size": 5}]},
}


def run(graph):
    done = {}

    def node(name):
        if name in given:
            return list(given[name]) if isinstance(given[name], tuple) else [given[name]]
        if name not in done:
            label, inputs = graph[name]
            is_wire = lambda x: isinstance(x, list) and len(x) == 2 and isinstance(x[0], str)
            inputs = {key: node(x[0])[x[1]] if is_wire(x) else x for key, x in inputs.items()}
            of = classes[label]
            if hasattr(of, "define_schema"):
                result = of.execute(**inputs)
                done[name] = list(result.result if hasattr(result, "result") else result)
            else:
                done[name] = list(getattr(of(), of.FUNCTION)(**inputs))
        return done[name]

    return node("end")


def plain(output):
    """The tensor of an output: of prompts, the picture to change, or what was made of the words."""
    if isinstance(output, comfy.clip_vision.Output):
        return torch.cat([output.image_embeds.flatten(), output.last_hidden_state.flatten()])
    if isinstance(output, dict):
        return output["samples"]
    if isinstance(output, list):
        return output[0][1].get("concat_latent_image", output[0][0])
    return torch.tensor([output]) if isinstance(output, float) else output


async def load():
    found = dict(nodes.NODE_CLASS_MAPPINGS)
    for name in EXTRAS.split():
        module = importlib.import_module(f"comfy_extras.nodes_{name}")
        if hasattr(module, "comfy_entrypoint"):
            extension = module.comfy_entrypoint()
            extension = await extension if inspect.isawaitable(extension) else extension
            for node in await extension.get_node_list():
                found[node.define_schema().node_id] = node
        found |= getattr(module, "NODE_CLASS_MAPPINGS", {})
    return found


classes = asyncio.run(load())
# The file is a pickle there, and none that is kept here.
of_hypernetworks = sys.modules["comfy_extras.nodes_hypernetwork"]
of_hypernetworks.folder_paths = types.SimpleNamespace(get_full_path_or_raise=lambda kind, name: name)
read = types.SimpleNamespace(load_torch_file=lambda path, safe_load: hypernetwork(models["hyper"]))
of_hypernetworks.comfy = types.SimpleNamespace(utils=read)
nodes.folder_paths = types.SimpleNamespace(get_full_path_or_raise=lambda kind, name: name)
nodes.comfy.utils.load_torch_file = lambda path, safe_load: drawn(models[Path(path).stem])
of_hooks = sys.modules["comfy_extras.nodes_hooks"]
of_hooks.folder_paths = types.SimpleNamespace(get_full_path=lambda kind, name: name, get_folder_paths=lambda kind: [])
comfy.sd.load_checkpoint_guess_config = lambda path, **parts: (given["model_2"], given["clip_2"], None)
folder = HERE / "graphs"
folder.mkdir(exist_ok=True)
tensors, cases = {}, {}
if only:
    tensors = load_file(folder / "tensors.safetensors")
    cases = json.loads((folder / "cases.json").read_text())
for name, graph in CASES.items():
    if only and name not in only:
        continue
    with torch.inference_mode():
        if name == "inpaint_conditioning":
            given["vae"], single = exact_vae, given["vae"]
        outputs = run(graph)
        if name == "inpaint_conditioning":
            given["vae"] = single
    made = []
    for slot, output in enumerate(outputs):
        output = plain(output)
        key, flat = f"{name}/{slot}", output.float().flatten()
        tensors[key] = (flat[::THIN] if len(flat) > 2000 else flat).clone().contiguous()
        made.append(list(output.shape))
    cases[name] = {"graph": graph, "shapes": made}
    print(name, made, float(tensors[f"{name}/0"].abs().max()), flush=True)
    assert all(bool(tensor.isfinite().all()) for key, tensor in tensors.items() if key.startswith(f"{name}/"))
save_file(tensors, folder / "tensors.safetensors")
(folder / "cases.json").write_text("{\n" + ",\n".join(f"{json.dumps(name)}: {json.dumps(case)}" for name, case in cases.items()) + "\n}\n")
listing = {"values": VALUES, "models": models, "names": names, "smaller": SMALLER, "thin": THIN}
(folder / "models.json").write_text(json.dumps(listing) + "\n")
if only:
    sys.exit()

# What `LoraSave` writes of what two models differ by: of products of factors and of whole differences, every so manieth number.
with torch.inference_mode(), tempfile.TemporaryDirectory() as temporary:
    import folder_paths

    folder_paths.set_output_directory(temporary)
    less = classes["ModelMergeSubtract"]().merge(given["model"], given["model_2"], 1.0)[0]
    text_less = classes["CLIPMergeSubtract"]().merge(given["clip"], given["clip_2"], 1.0)[0]
    # Singular vectors of every word of the vocabulary would take ten gigabytes.
    for table in [key for key in text_less.patcher.patches if "token_embedding" in key]:
        text_less.patcher.patches.pop(table)
        comfy.utils.set_attr_param(text_less.patcher.model, table, torch.zeros(1, 64))
    classes["LoraSave"].execute("lora", 6, "standard", True, less, text_less)
    file = load_file(next(Path(temporary).glob("*.safetensors")))
extracted = {}
for key in sorted(file):
    if key.endswith(".lora_down.weight"):
        layer = key.removesuffix(".lora_down.weight")
        up, down = file[f"{layer}.lora_up.weight"].float(), file[key].float()
        extracted[f"{layer}.product"] = (up.flatten(1) @ down.flatten(1)).flatten()[::997].clone()
    elif key.endswith((".diff", ".diff_b")):
        extracted[key] = file[key].float()[::23].clone()
save_file(extracted, folder / "extracted.safetensors")
