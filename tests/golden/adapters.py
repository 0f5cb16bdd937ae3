"""Records what `src/diffusion/adapters` is compared with, in tests/golden/adapters/.

    python adapters.py PATH/TO/ComfyUI          family.json and family.safetensors: what ComfyUI's `comfy/weight_adapter` makes of small
                                                weights with LoRA, LoCon (Tucker), LoHa, LoKr, DoRA and differences, under the names of
                                                kohya, diffusers and LyCORIS; peft's DoRA and scales; beside.json and beside.safetensors: what
                                                ComfyUI makes of biases and norms with LyCORIS's differences; and names.json: which layer or
                                                norm ComfyUI takes each spelling for, on SD 1, SD 2 and SDXL
    python adapters.py peft PATH/TO/paraflow    peft-para/ and peft.safetensors: a PaRa that peft trains and saves
                                                (`DeftConfig(para=True, decomposition_method="qr")`), with peft's output; and a PaRa of ours
                                                that `paraflow adapter export` made a LoRA of (exported.safetensors), loaded by diffusers and
                                                peft, with their output
    python adapters.py released                 released.pt: a file as the PaRa authors' program saves it, a dictionary of bfloat16 tensors

Made with ComfyUI 0.8.0 (commit 618b803d), torch 2.15.0 (CPU), diffusers 0.42.1, peft 0.21.2, safetensors. Tensors are drawn from their
names (`drawing.py`); only results are stored.
"""

import collections
import json
import math
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from drawing import parameter, uniform, value
from safetensors.torch import load_file, save_file

OUT = Path(__file__).with_suffix("")

# --- the LoRA family ------------------------------------------------------------------------------------------------------------------

# Weights in the checkpoint, by what they are here.
LAYERS = {
    "linear": ("diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_q.weight", [12, 10]),
    "square": ("diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_out.0.weight", [8, 8]),
    "conv": ("diffusion_model.middle_block.2.out_layers.3.weight", [8, 6, 3, 3]),
    "pixel": ("diffusion_model.input_blocks.1.1.proj_in.weight", [8, 6, 1, 1]),
    "text": ("clip_l.transformer.text_model.encoder.layers.0.mlp.fc1.weight", [9, 7]),
    "text_g": ("clip_g.transformer.text_model.encoder.layers.0.mlp.fc1.weight", [9, 7]),
}
Q = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
KOHYA = "lora_unet_" + Q.replace(".", "_")
CONV, PIXEL, SQUARE = "lora_unet_mid_block_resnets_1_conv2", "lora_unet_down_blocks_0_attentions_0_proj_in", KOHYA[:-1] + "out_0"
TEXT = "text_model_encoder_layers_0_mlp_fc1"
LINEAR_HALVES = {"lora_up.weight": [12, 3], "lora_down.weight": [3, 10]}
LOHA = {"hada_w1_a": [12, 3], "hada_w1_b": [3, 10], "hada_w2_a": [12, 3], "hada_w2_b": [3, 10]}
LOKR = {"lokr_w1": [4, 2], "lokr_w2_a": [3, 2], "lokr_w2_b": [2, 5]}
TUCKER = {"lora_up.weight": [8, 3, 1, 1], "lora_mid.weight": [3, 3, 3, 3], "lora_down.weight": [3, 6, 1, 1]}

# Name: layer, module in the file, its tensors' shapes, alpha, strength.
CASES = {
    "kohya": ("linear", KOHYA, LINEAR_HALVES, 1.5, 1.0),
    "kohya without alpha": ("linear", KOHYA, LINEAR_HALVES, None, 0.7),
    "kohya negative": ("linear", KOHYA, LINEAR_HALVES, 2.0, -1.3),
    "kohya convolution": ("conv", CONV, {"lora_up.weight": [8, 3, 1, 1], "lora_down.weight": [3, 6, 3, 3]}, 2.0, 0.5),
    "kohya pixel": ("pixel", PIXEL, {"lora_up.weight": [8, 2, 1, 1], "lora_down.weight": [2, 6, 1, 1]}, 2.0, 1.0),
    "kohya pixel as a matrix": ("pixel", PIXEL, {"lora_up.weight": [8, 2], "lora_down.weight": [2, 6]}, 2.0, 1.0),
    "kohya checkpoint names": ("linear", "lora_unet_input_blocks_1_1_transformer_blocks_0_attn1_to_q", LINEAR_HALVES, 1.0, 1.0),
    "kohya text": ("text", f"lora_te_{TEXT}", {"lora_up.weight": [9, 2], "lora_down.weight": [2, 7]}, 1.0, 0.8),
    "kohya first text": ("text", f"lora_te1_{TEXT}", {"lora_up.weight": [9, 2], "lora_down.weight": [2, 7]}, 1.0, 0.8),
    "kohya second text": ("text_g", f"lora_te2_{TEXT}", {"lora_up.weight": [9, 2], "lora_down.weight": [2, 7]}, 1.0, 0.8),
    "diffusers": ("linear", f"unet.{Q}", {"lora_B.weight": [12, 3], "lora_A.weight": [3, 10]}, None, 1.0),
    "diffusers processor": ("linear", f"unet.{Q[:-5]}.processor.to_q", {"_lora.up.weight": [12, 3], "_lora.down.weight": [3, 10]}, None, 0.9),
    "diffusers lora": ("linear", f"unet.{Q[:-5]}.processor.to_q", {"lora.up.weight": [12, 3], "lora.down.weight": [3, 10]}, None, 1.0),
    "diffusers text": ("text", "text_encoder.text_model.encoder.layers.0.mlp.fc1",
                       {"lora_linear_layer.up.weight": [9, 2], "lora_linear_layer.down.weight": [2, 7]}, None, 1.0),
    "diffusers second text": ("text_g", "text_encoder_2.text_model.encoder.layers.0.mlp.fc1",
                              {"lora_B.weight": [9, 2], "lora_A.weight": [2, 7]}, 4.0, 1.0),
    "generic": ("linear", "diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_q", LINEAR_HALVES, 1.0, 1.0),
    "simpletuner": ("linear", f"lycoris_{Q}".replace(".", "_"), LINEAR_HALVES, 1.0, 1.0),
    "locon tucker": ("conv", CONV, TUCKER, 1.5, 0.6),
    "loha": ("linear", KOHYA, LOHA, 1.5, 0.8),
    "loha convolution": ("conv", CONV, {"hada_w1_a": [8, 3], "hada_w1_b": [3, 54], "hada_w2_a": [8, 3], "hada_w2_b": [3, 54]}, 2.0, 1.0),
    "loha tucker": ("conv", CONV, {"hada_w1_a": [3, 8], "hada_w1_b": [3, 6], "hada_w2_a": [3, 8], "hada_w2_b": [3, 6],
                                   "hada_t1": [3, 3, 3, 3], "hada_t2": [3, 3, 3, 3]}, 2.0, 1.0),
    "lokr whole": ("linear", KOHYA, {"lokr_w1": [4, 2], "lokr_w2": [3, 5]}, 1.5, 0.8),
    "lokr": ("linear", KOHYA, LOKR, 1.5, 0.8),
    "lokr twice": ("linear", KOHYA, {"lokr_w1_a": [4, 1], "lokr_w1_b": [1, 2], "lokr_w2_a": [3, 2], "lokr_w2_b": [2, 5]}, 1.5, 1.0),
    "lokr first in two": ("linear", KOHYA, {"lokr_w1_a": [4, 1], "lokr_w1_b": [1, 2], "lokr_w2": [3, 5]}, 3.0, 1.0),
    "lokr convolution": ("conv", CONV, {"lokr_w1": [2, 3], "lokr_w2": [4, 2, 3, 3]}, 1.0, 1.0),
    "lokr flat convolution": ("conv", CONV, {"lokr_w1": [2, 3], "lokr_w2_a": [4, 2], "lokr_w2_b": [2, 18]}, 1.0, 0.5),
    "lokr tucker": ("conv", CONV, {"lokr_w1": [2, 3], "lokr_w2_a": [2, 4], "lokr_w2_b": [2, 2], "lokr_t2": [2, 2, 3, 3]}, 1.0, 1.0),
    "dora rows": ("linear", KOHYA, LINEAR_HALVES | {"dora_scale": [12, 1]}, 1.5, 0.6),
    "dora columns": ("linear", KOHYA, LINEAR_HALVES | {"dora_scale": [1, 10]}, 1.5, 1.0),
    "dora square rows": ("square", SQUARE, {"lora_up.weight": [8, 3], "lora_down.weight": [3, 8], "dora_scale": [8, 1]}, 1.5, 1.0),
    "dora square columns": ("square", SQUARE, {"lora_up.weight": [8, 3], "lora_down.weight": [3, 8], "dora_scale": [1, 8]}, 1.5, 0.4),
    "dora convolution": ("conv", CONV, {"lora_up.weight": [8, 3, 1, 1], "lora_down.weight": [3, 6, 3, 3], "dora_scale": [1, 6, 1, 1]}, 2.0, 0.5),
    "dora tucker": ("conv", CONV, TUCKER | {"dora_scale": [8, 1, 1, 1]}, 2.0, 1.0),
    "dora loha": ("linear", KOHYA, LOHA | {"dora_scale": [1, 10]}, 1.5, 0.5),
    "dora lokr": ("linear", KOHYA, LOKR | {"dora_scale": [12, 1]}, 1.5, 0.5),
    "difference": ("conv", CONV, {"diff": [8, 6, 3, 3]}, None, 0.5),
}


def key(module: str, end: str) -> str:
    return module + end if end.startswith("_lora") else f"{module}.{end}"


def drawn(case: str, end: str, shape: list[int]) -> torch.Tensor:
    """Lengths are around 2, all else around 0."""
    numbers = uniform(f"{case}/{end}", math.prod(shape)) * 0.5
    numbers = numbers + 2.0 if end == "dora_scale" or "magnitude" in end else numbers
    return torch.from_numpy(numbers.reshape(shape)).float()


def base(layer: str) -> torch.Tensor:
    return value(f"base {layer}", LAYERS[layer][1], 1.0)


def family() -> None:
    import comfy.lora

    listing, recorded = {}, {}
    # LoKr's Tucker form ends ComfyUI with an error where einsum gives a view that cannot be reshaped.
    einsum = torch.einsum
    torch.einsum = lambda *given: einsum(*given).contiguous()
    # What SDXL adds, and the names of diffusers without `processor`, which ComfyUI does not know.
    to_load = key_map("sd1") | {f"lora_te2_{TEXT}": LAYERS["text_g"][0], f"unet.{Q}": LAYERS["linear"][0],
                                "text_encoder_2.text_model.encoder.layers.0.mlp.fc1": LAYERS["text_g"][0]}
    for case, (layer, module, shapes, alpha, strength) in CASES.items():
        file = {key(module, end): drawn(case, end, shape) for end, shape in shapes.items()}
        if alpha is not None:
            file[f"{module}.alpha"] = torch.tensor(alpha)
        patches = comfy.lora.load_lora(file, to_load)
        target, _ = LAYERS[layer]
        assert list(patches) == [target], (case, list(patches))
        weight = comfy.lora.calculate_weight([(strength, patches[target], 1.0, None, None)], base(layer), target)
        assert not torch.equal(weight, base(layer)), case
        recorded[case] = weight
        listing[case] = {"layer": layer, "module": module, "tensors": shapes, "alpha": alpha, "strength": strength}
    for case, (kind, settings, ends) in PEFT.items():
        recorded[case], listing[case] = from_peft(case, kind, settings, ends)
    shapes = {name: {"key": target.removesuffix(".weight"), "shape": shape} for name, (target, shape) in LAYERS.items()}
    write("family", {"layers": shapes, "cases": listing})
    save_file({name: tensor.contiguous() for name, tensor in recorded.items()}, OUT / "family.safetensors")


# What files of LyCORIS add beside weights: module, its tensors' shapes, strength. On the network of `unet_deep`.
A = "down_blocks.0.attentions.0.transformer_blocks.0".replace(".", "_")
BESIDE = {
    "norm": ("lora_unet_down_blocks_0_resnets_0_norm1", {"w_norm": [32], "b_norm": [32]}, 0.7),
    "norm of tokens": (f"lora_unet_{A}_norm2", {"w_norm": [32], "b_norm": [32]}, 1.0),
    "norm without its shift": ("lora_unet_mid_block_attentions_0_norm", {"w_norm": [96]}, 1.0),
    "norm as a difference": ("diffusion_model.out.0", {"diff": [32], "diff_b": [32]}, -0.5),
    "norm set": ("lora_unet_mid_block_resnets_1_norm2", {"set_weight": [96]}, 0.3),
    "bias beside factors": ("lora_unet_down_blocks_0_resnets_0_conv1", {"lora_up.weight": [32, 2, 1, 1], "lora_down.weight": [2, 32, 3, 3],
                                                                        "diff_b": [32]}, 0.8),
    "bias beside a difference": (f"lora_unet_{A}_attn1_to_out_0", {"diff": [32, 32], "diff_b": [32]}, 1.3),
    "bias alone": ("lora_unet_mid_block_resnets_0_time_emb_proj", {"diff_b": [96]}, 1.0),
    "weight set": (f"lora_unet_{A}_attn2_to_v", {"set_weight": [32, 64]}, 0.3),
}
# What ComfyUI's map of names asks of the network's measures.
DEEP_CONFIG = {"num_res_blocks": [2] * 4, "channel_mult": [1, 2, 2, 3], "transformer_depth": [1, 1, 0, 0, 1, 1, 0, 0],
               "transformer_depth_output": [1] * 3 + [0] * 3 + [1] * 3 + [0] * 3, "transformer_depth_middle": 1}


def beside() -> None:
    import comfy.lora

    listing, recorded = {}, {}
    _, shapes = deep()
    tensors = {name.removeprefix("model."): parameter(name, shape) for name, shape in shapes.items()}
    to_load = comfy.lora.model_lora_keys_unet(Named(tensors, DEEP_CONFIG), {})
    for case, (module, ends, strength) in BESIDE.items():
        patches = comfy.lora.load_lora({key(module, end): drawn(case, end, shape) for end, shape in ends.items()}, to_load)
        assert patches, case
        for target, patch in patches.items():
            before = tensors[target].clone()
            after = comfy.lora.calculate_weight([(strength, patch, 1.0, None, None)], before.clone(), target)
            assert not torch.equal(before, after), (case, target)
            recorded[f"{case}/{target.removeprefix('diffusion_model.')}"] = after
        listing[case] = {"module": module, "tensors": ends, "alpha": None, "strength": strength}
    write("beside", listing)
    save_file({name: tensor.contiguous() for name, tensor in recorded.items()}, OUT / "beside.safetensors")


# What peft saves: layer, settings, and the ends of the keys that it writes.
PEFT = {
    "peft lora": ("linear", {"r": 3, "lora_alpha": 6}, ["lora_A.weight", "lora_B.weight"]),
    "peft rslora": ("linear", {"r": 3, "lora_alpha": 6, "use_rslora": True}, ["lora_A.weight", "lora_B.weight"]),
    "peft pattern": ("linear", {"r": 3, "lora_alpha": 6, "alpha_pattern": {"to_q": 1.5}}, ["lora_A.weight", "lora_B.weight"]),
    "peft dora": ("linear", {"r": 3, "lora_alpha": 6, "use_dora": True}, ["lora_A.weight", "lora_B.weight", "lora_magnitude_vector"]),
    "peft dora convolution": ("conv", {"r": 3, "lora_alpha": 6, "use_dora": True}, ["lora_A.weight", "lora_B.weight", "lora_magnitude_vector"]),
}


def from_peft(case: str, layer: str, settings: dict, ends: list[str]):
    """The weight that peft merges, and the file that it saves, its numbers drawn."""
    from peft import LoraConfig, get_peft_model, get_peft_model_state_dict

    out, inputs = LAYERS[layer][1][:2]
    # A model whose only layer has the layer's name in diffusers.
    made = torch.nn.Linear(inputs, out, bias=False) if layer == "linear" else torch.nn.Conv2d(inputs, out, 3, padding=1, bias=False)
    made.weight.data = base(layer)
    path = Q if layer == "linear" else "mid_block.resnets.1.conv2"
    root = torch.nn.Module()
    place = root
    for step in path.split(".")[:-1]:
        place.add_module(step, torch.nn.Module())
        place = getattr(place, step)
    place.add_module(path.split(".")[-1], made)
    model = get_peft_model(root, LoraConfig(target_modules=[path.split(".")[-1]], **settings))
    names = {name: end for name, _ in model.named_parameters() for end in ends
             if end.removesuffix(".weight") in name}
    assert len(names) == len(ends), names
    for name, numbers in model.named_parameters():
        if name in names:
            numbers.data = drawn(case, names[name], list(numbers.shape))
    saved = {name.removeprefix("base_model.model.").removeprefix(path + "."): list(tensor.shape)
             for name, tensor in get_peft_model_state_dict(model).items()}
    assert sorted(saved) == sorted(ends), saved
    merged = model.merge_and_unload().get_submodule(path).weight.detach()
    return merged, {"layer": layer, "module": f"base_model.model.{path}", "tensors": saved, "alpha": None, "strength": 1.0,
                    "settings": {"peft_type": "LORA", **settings}}


# --- names ----------------------------------------------------------------------------------------------------------------------------

SHARED = {"in_channels": 4, "out_channels": 4, "model_channels": 320, "image_size": 32, "use_spatial_transformer": True, "legacy": False}
UNETS = {
    "sd1": SHARED | {"num_res_blocks": [2] * 4, "channel_mult": [1, 2, 4, 4], "transformer_depth": [1] * 6 + [0] * 2, "num_heads": 8,
                     "transformer_depth_output": [1] * 9 + [0] * 3, "transformer_depth_middle": 1, "context_dim": 768},
    "sd2": SHARED | {"num_res_blocks": [2] * 4, "channel_mult": [1, 2, 4, 4], "transformer_depth": [1] * 6 + [0] * 2, "num_head_channels": 64,
                     "transformer_depth_output": [1] * 9 + [0] * 3, "transformer_depth_middle": 1, "context_dim": 1024, "use_linear_in_transformer": True},
    "sdxl": SHARED | {"num_res_blocks": [2] * 3, "channel_mult": [1, 2, 4], "transformer_depth": [0, 0, 2, 2, 10, 10], "num_head_channels": 64,
                      "transformer_depth_output": [0, 0, 0, 2, 2, 2, 10, 10, 10], "transformer_depth_middle": 10, "context_dim": 2048,
                      "use_linear_in_transformer": True, "num_classes": "sequential", "adm_in_channels": 2816},
}
ENCODERS = {"sd1": ["clip_l"], "sd2": ["clip_h"], "sdxl": ["clip_l", "clip_g"]}
EVERY = 23


class Named:
    """What `comfy.lora` asks of a model."""

    def __init__(self, tensors, config=None):
        self.tensors, self.model_config = tensors, type("Config", (), {"unet_config": config})

    def state_dict(self):
        return self.tensors


def weights(family: str) -> tuple[dict, dict]:
    import comfy.ops
    from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel

    config = UNETS[family]
    unet = UNetModel(**config, device="meta", dtype=torch.float32, operations=comfy.ops.disable_weight_init)
    tensors = {f"diffusion_model.{name}": tensor for name, tensor in unet.state_dict().items()}
    layers = ["mlp.fc1", "self_attn.q_proj"]
    text = {f"{id}.transformer.text_model.encoder.layers.0.{layer}.weight": torch.empty(1, 1) for id in ENCODERS[family] for layer in layers}
    if family == "sdxl":
        text["clip_g.transformer.text_projection.weight"] = torch.empty(1, 1)
    return tensors, text


def key_map(family: str) -> dict[str, str]:
    import comfy.lora

    unet, text = weights(family)
    found = comfy.lora.model_lora_keys_unet(Named(unet, UNETS[family]), {})
    return comfy.lora.model_lora_keys_clip(Named(text), found)


def names() -> None:
    """Every so manieth layer with all spellings that ComfyUI takes for it."""
    recorded = {}
    for family in UNETS:
        unet, text = weights(family)
        spellings: dict[str, list[str]] = {}
        for spelling, target in key_map(family).items():
            spellings.setdefault(target, []).append(spelling)
        layers = [key for key, tensor in unet.items() if key.endswith(".weight") and tensor.dim() > 1]
        norms = [key for key, tensor in unet.items() if key.endswith(".weight") and tensor.dim() == 1]
        told = lambda chosen: {key: sorted(spellings[key]) for key in chosen}
        recorded[family] = {"layers": len(layers), "spellings": told(layers[::EVERY] + list(text)), "norms": told(norms[::EVERY])}
    write("names", recorded)


# --- peft -----------------------------------------------------------------------------------------------------------------------------

# Layers of `unet_deep`, and the rank of the PaRa there: several, which the export fills up to one.
PARA = {
    "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q": 3,
    "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_v": 2,
    "mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0": 5,
    "down_blocks.0.resnets.0.conv1": 1,
    "down_blocks.0.downsamplers.0.conv": 4,
    "mid_block.resnets.1.time_emb_proj": 2,
}
LINEAR = list(PARA)[:3]


DEEP = {
    "block_out_channels": [32, 64, 64, 96], "layers_per_block": 2, "cross_attention_dim": 64, "attention_head_dim": 8,
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D", "CrossAttnUpBlock2D"],
}


def deep():
    """The network of `networks.py`'s `unet_deep`, and the keys and shapes of its checkpoint."""
    import networks
    from diffusers import UNet2DConditionModel

    model = UNet2DConditionModel(**DEEP).eval()
    return model, networks.fill(model, networks.unet_keys(model, DEEP["layers_per_block"]), "model.diffusion_model.")


def output(model) -> torch.Tensor:
    x, prompt = value("x", [2, 4, 12, 20], 1.5), value("context", [2, 77, DEEP["cross_attention_dim"]], 1.5)
    with torch.no_grad():
        return model(x, torch.tensor([981.0, 37.0]), prompt).sample


def peft(paraflow: str) -> None:
    from diffusers import StableDiffusionPipeline
    from peft import DeftConfig, get_peft_model

    OUT.mkdir(exist_ok=True)
    recorded = {}
    model, _ = deep()
    recorded["base"] = output(model)
    theirs = get_peft_model(model, DeftConfig(target_modules=LINEAR, r=3, para=True, decomposition_method="qr"))
    for name, directions in theirs.named_parameters():
        if "deft_P" in name:
            directions.data = value(f"peft {name}", list(directions.shape), 0.02)
    recorded["peft para"] = output(theirs)
    theirs.save_pretrained(OUT / "peft-para")
    (OUT / "peft-para" / "README.md").unlink(missing_ok=True)

    model, listing = deep()
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        checkpoint = {name: parameter(name, shape) for name, shape in listing.items()}
        save_file(checkpoint, folder / "base.safetensors")
        shapes = {name.removesuffix(".weight"): tensor.shape for name, tensor in model.state_dict().items()}
        para = {f"lora_unet_{layer.replace('.', '_')}.para_q": value(f"para {layer}", [shapes[layer][0], rank], 1.0)
                for layer, rank in PARA.items()}
        save_file(para, folder / "para.safetensors", {"para.version": "1"})
        command = [paraflow, "adapter", "export", str(folder / "base.safetensors"), str(folder / "para.safetensors"),
                   str(folder / "exported.safetensors"), "--base-dir", str(folder)]
        subprocess.run(command, check=True)
        exported = load_file(folder / "exported.safetensors")
        (OUT / "exported.safetensors").write_bytes((folder / "exported.safetensors").read_bytes())
    state, alphas = StableDiffusionPipeline.lora_state_dict(exported, unet_config=model.config)
    model.load_lora_adapter(state, network_alphas=alphas, prefix="unet")
    loaded = [name for name, _ in model.named_parameters() if "lora_A" in name]
    assert len(loaded) == len(PARA), loaded
    recorded["exported"] = output(model)
    save_file({name: tensor.contiguous() for name, tensor in recorded.items()}, OUT / "peft.safetensors")


def released() -> None:
    state = collections.OrderedDict()
    for module, up, down, kernel in ((KOHYA, [12, 3], [3, 10], []), (CONV, [8, 2], [2, 54], [6, 3, 3])):
        pixel = [1, 1] if kernel else []
        state[f"{module}.lora_down.weight"] = value(f"{module}.down", down, 1.0).reshape(down[:1] + (kernel or down[1:])).bfloat16()
        state[f"{module}.lora_up.weight"] = value(f"{module}.up", up, 1.0).reshape(up + pixel).bfloat16()
        state[f"{module}.alpha"] = torch.tensor(1.0)
    torch.save(state, OUT / "released.pt")


def write(name: str, content: dict) -> None:
    OUT.mkdir(exist_ok=True)
    (OUT / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")


def main() -> None:
    torch.set_num_threads(1)
    if sys.argv[1] == "peft":
        return peft(sys.argv[2])
    if sys.argv[1] == "released":
        return released()
    comfyui = sys.argv[1]
    sys.argv[1:] = ["--cpu"]
    sys.path.insert(0, comfyui)
    import comfy.options

    comfy.options.enable_args_parsing()
    family()
    beside()
    names()


if __name__ == "__main__":
    main()
