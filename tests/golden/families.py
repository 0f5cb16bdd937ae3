"""Records what ComfyUI makes of narrow checkpoints of each family, for `nodes/families.rs`: prompts encoded, pictures sampled.

    PYTHONPATH=<ComfyUI> python tests/golden/families.py

Recorded with ComfyUI 0.8.0 (commit 618b803d), torch 2.15.0, transformers 5, on x86-64 with AVX-512, in f32; text encoders keep their
weights in f16, as ComfyUI has them.

`families/<family>.json` lists the tensors of a checkpoint in the names that such files have, and the requests; their numbers are
drawn by name as in `drawing.py`. `families/tensors.safetensors` holds `<family>/cond` (every seventh token), `<family>/pooled` and
`<family>/end`; of the upscaler also `noised`, where the picture that it sees has noise on it.
"""

import json
import sys
from pathlib import Path

from drawing import open_clip, parameter, transformers, value

sys.argv = [sys.argv[0], "--cpu"]
# ComfyUI's `nodes` is wanted, not the script beside this one.
sys.path.remove(str(Path(__file__).resolve().parent))
import comfy.options

comfy.options.enable_args_parsing()
import comfy.model_base
import comfy.model_detection
import comfy.model_patcher
import comfy.sd1_clip
import comfy.supported_models
import comfy.utils
import nodes
import torch
from safetensors.torch import save_file

HERE = Path(__file__).resolve().parent
UNET = "model.diffusion_model."
PROMPT, NEGATIVE = "a (red:1.3) bear on the beach, ((snow))", "blurry"
L, G = 64, 128


def unet_config(inputs, context, linear, label):
    config = {
        "image_size": 32, "in_channels": inputs, "out_channels": 4, "model_channels": 64, "num_res_blocks": [1, 1],
        "channel_mult": [1, 2], "transformer_depth": [0, 1], "transformer_depth_output": [0, 0, 1, 1],
        "transformer_depth_middle": 1, "use_linear_in_transformer": linear, "context_dim": context, "legacy": False,
        "use_spatial_transformer": True, "use_temporal_attention": False, "dtype": torch.float32,
        "num_classes": "sequential" if label else None, "adm_in_channels": label, "use_temporal_resblock": False,
        "extra_ff_mult_for_proj_in": None, "num_heads": -1, "num_head_channels": 64,
    }
    config.pop("extra_ff_mult_for_proj_in")
    if not linear:
        config |= {"num_heads": 8, "num_head_channels": -1}
    return config


def text_config(width, layers, activation):
    return {
        "hidden_size": width, "intermediate_size": 3 * width, "num_attention_heads": width // 64, "num_hidden_layers": layers,
        "max_position_embeddings": 77, "vocab_size": 49408, "hidden_act": activation, "layer_norm_eps": 1e-5,
        "eos_token_id": 49407, "projection_dim": width, "initializer_factor": 1.0, "initializer_range": 0.02,
        "model_type": "clip_text_model", "num_positions": 77, "torch_dtype": "float32", "attention_dropout": 0.0,
        "bos_token_id": 0, "dropout": 0.0, "pad_token_id": 1, "architectures": ["CLIPTextModel"],
    }


def encoder(shapes, prefix, width, layers, family):
    """ComfyUI's encoder of that family with the drawn weights of a checkpoint."""
    weights = {key.removeprefix(prefix): parameter(key, shape) for key, shape in shapes.items() if key.startswith(prefix)}
    if "token_embedding.weight" in weights:
        weights = comfy.utils.clip_text_transformers_convert({f"x.{key}": w for key, w in weights.items()}, "x.", "")
    quick = family in ("l", "sd1")
    layer = {"layer": "last"} if family == "sd1" else {"layer": "hidden", "layer_idx": -2}
    model = comfy.sd1_clip.SDClipModel(
        textmodel_json_config=text_config(width, layers, "quick_gelu" if quick else "gelu"), dtype=torch.float16,
        **layer, layer_norm_hidden_state=family in ("h", "sd1"),
        special_tokens={"start": 49406, "end": 49407, "pad": 49407 if quick else 0}, return_projected_pooled=not quick,
    )
    missing, unexpected = model.load_sd(weights)
    assert not unexpected and set(missing) <= {"text_projection.weight"}, (missing, unexpected)
    tokenizer = comfy.sd1_clip.SDTokenizer(pad_with_end=quick, embedding_size=width)
    return lambda text: model.encode_token_weights(tokenizer.tokenize_with_weights(text))


def patcher(config, unet, shapes, build):
    config = config(unet)
    inner = build(config)
    weights = {key.removeprefix(UNET): parameter(key, shape) for key, shape in shapes.items() if key.startswith(UNET)}
    inner.diffusion_model.load_state_dict(weights)
    return comfy.model_patcher.ModelPatcher(inner, torch.device("cpu"), torch.device("cpu"))


def unet_shapes(unet):
    from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel

    arguments = {key: given for key, given in unet.items() if key not in ("legacy",)}
    model = UNetModel(**arguments, device="cpu", operations=comfy.ops.disable_weight_init)
    return {UNET + key: list(weight.shape) for key, weight in model.state_dict().items()}


def eps(model):
    return lambda config: model(config, comfy.model_base.ModelType.EPS, device="cpu")


def sample(model, positive, negative, sampler="euler"):
    latent = {"samples": value("latent", [1, 4, 8, 12], 2.0)}
    return nodes.common_ksampler(model, 7, 4, 5.0, sampler, "normal", positive, negative, latent, denoise=0.8)[0]["samples"]


out, folder = {}, HERE / "families"
folder.mkdir(exist_ok=True)


def record(name, shapes, unet, config, build, encode, extra=lambda side: {}):
    (cond, pooled), (other, other_pooled) = encode(PROMPT), encode(NEGATIVE)
    model = patcher(config, unet, shapes, build)
    sides = [[[c, {"pooled_output": p} | extra(side)]] for c, p, side in ((cond, pooled, 0), (other, other_pooled, 1))]
    out[f"{name}/cond"], out[f"{name}/pooled"] = cond[:, ::7].contiguous(), pooled.contiguous()
    out[f"{name}/end"] = sample(model, *sides).contiguous()
    text = json.dumps({"prompt": PROMPT, "negative": NEGATIVE, "tensors": shapes})
    (folder / f"{name}.json").write_text(text + "\n")
    return model, sides


def inpaint(config):
    inner = comfy.model_base.BaseModel(config, comfy.model_base.ModelType.EPS, device="cpu")
    inner.set_inpaint()
    return inner


import comfy.ops

with torch.no_grad():
    # Stable Diffusion 2.
    unet = unet_config(4, G, True, None)
    shapes = unet_shapes(unet) | open_clip("cond_stage_model.model.", G, 3, 3 * G)
    record("sd2", shapes, unet, comfy.supported_models.SD20, eps(comfy.model_base.BaseModel),
           encoder(shapes, "cond_stage_model.model.", G, 3, "h"))

    # SDXL and its refiner.
    unet = unet_config(4, L + G, True, G + 1536)
    small, large = "conditioner.embedders.0.transformer.", "conditioner.embedders.1.model."
    shapes = unet_shapes(unet) | transformers(small, L, 3, 3 * L) | open_clip(large, G, 3, 3 * G)
    both = encoder(shapes, small, L, 3, "l"), encoder(shapes, large, G, 3, "g")

    def sdxl(text):
        (first, _), (second, pooled) = (encode(text) for encode in both)
        return torch.cat([first, second], -1), pooled

    record("sdxl", shapes, unet, comfy.supported_models.SDXL, eps(comfy.model_base.SDXL), sdxl)

    unet = unet_config(4, G, True, G + 1280)
    only = "conditioner.embedders.0.model."
    shapes = unet_shapes(unet) | open_clip(only, G, 3, 3 * G)
    record("refiner", shapes, unet, comfy.supported_models.SDXLRefiner, eps(comfy.model_base.SDXLRefiner),
           encoder(shapes, only, G, 3, "g"))

    # Models that see a picture, with the text encoder of SD 2 for the sake of a small file.
    picture, mask = value("picture", [1, 4, 8, 12], 3.0), (value("mask", [1, 1, 64, 96], 1.0) + 1) / 2
    unet = unet_config(9, G, True, None)
    shapes = unet_shapes(unet) | open_clip("cond_stage_model.model.", G, 3, 3 * G)
    record("inpaint", shapes, unet, comfy.supported_models.SD20, inpaint,
           encoder(shapes, "cond_stage_model.model.", G, 3, "h"),
           lambda side: {"concat_latent_image": picture, "concat_mask": mask})
    unet = unet_config(8, G, False, None)
    unet |= {"num_heads": 8, "num_head_channels": -1}
    shapes = unet_shapes(unet) | transformers("cond_stage_model.transformer.", G, 3, 3 * G)
    encode_last = encoder(shapes, "cond_stage_model.transformer.", G, 3, "sd1")
    record("instruct", shapes, unet, comfy.supported_models.SD15_instructpix2pix,
           eps(comfy.model_base.SD15_instructpix2pix), encode_last, lambda side: {"concat_latent_image": picture})

    # The upscaler, which sees a picture of any size, without noise on it and with more for one side than for the other.
    extra = comfy.supported_models.SD_X4Upscaler.unet_extra_config
    unet = unet_config(7, G, True, None) | extra | {
        "model_channels": 32, "num_res_blocks": [1] * 4, "channel_mult": [1, 2, 2, 4], "transformer_depth": [0, 1, 1, 1],
        "transformer_depth_output": [0, 0, 1, 1, 1, 1, 1, 1],
    }
    shapes = unet_shapes(unet) | open_clip("cond_stage_model.model.", G, 3, 3 * G)
    small = value("small", [2, 3, 10, 9], 1.0)
    model, sides = record(
        "upscaler", shapes, unet, comfy.supported_models.SD_X4Upscaler,
        lambda config: comfy.model_base.SD_X4Upscaler(config, device="cpu"),
        encoder(shapes, "cond_stage_model.model.", G, 3, "h"), lambda side: {"concat_image": small, "noise_augmentation": 0.0})
    for side, noise in zip(sides, (0.4, 0.15)):
        side[0][1]["noise_augmentation"] = noise
    out["upscaler/noised"] = sample(model, *sides).contiguous()
save_file(out, folder / "tensors.safetensors")
