"""Records what ComfyUI's `TrainLoraNode` trains on a narrow Stable Diffusion 1 and a narrow SDXL: tests/golden/train_lora/.

    PYTHONPATH=<ComfyUI> python tests/golden/train_lora.py [CASE...]

Recorded with ComfyUI 0.8.0 (commit 618b803d), torch 2.15.0, on x86-64 with AVX-512. ComfyUI draws the start of its adapters from
torch's global generator in whatever state that is; here it is seeded with the node's `seed` just before.

`models.json` lists the tensors of each model file, whose numbers are drawn by name as in `drawing.py`; `cases.json` the node's
inputs, the names of what was trained, and the losses; `tensors.safetensors` every so manieth of the trained numbers, one after
another in the order of their names, and what a sampling makes of the results.
"""

import json
import sys
import tempfile
from pathlib import Path

from drawing import parameter, value

# With names of cases only these are recorded anew, and all others stay as they are.
only = sys.argv[1:]
sys.argv = [sys.argv[0], "--cpu"]
# ComfyUI's `nodes` is wanted, not the script beside this one.
sys.path.remove(str(Path(__file__).resolve().parent))
import comfy.options

comfy.options.enable_args_parsing()
# Before `nodes`, which puts another module of that name in the way.
import utils.install_util
import comfy.model_base
import comfy.model_patcher
import comfy.ops
import comfy.supported_models
import folder_paths
import nodes
import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from comfy_extras import nodes_train
from safetensors.torch import load_file, save_file

HERE = Path(__file__).resolve().parent / "train_lora"
UNET = "model.diffusion_model."
THIN = 53


def unet_config(channels, mults, depths, context, linear, label):
    return {
        "image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": channels, "num_res_blocks": [1] * len(mults),
        "channel_mult": mults, "transformer_depth": list(depths),
        "transformer_depth_output": [depth for depth in depths for _ in range(2)],
        "transformer_depth_middle": 1, "use_linear_in_transformer": linear, "context_dim": context, "legacy": False,
        "use_spatial_transformer": True, "use_temporal_attention": False, "dtype": torch.float32,
        "num_classes": "sequential" if label else None, "adm_in_channels": label, "use_temporal_resblock": False,
        "num_heads": -1 if linear else 8, "num_head_channels": 64 if linear else -1,
    }


# A narrow Stable Diffusion 1 of three levels, and a narrow SDXL.
CONFIGS = {
    "sd1": (unet_config(32, [1, 2, 4], [1, 1, 0], 64, False, None), comfy.supported_models.SD15, comfy.model_base.BaseModel),
    "sdxl": (unet_config(64, [1, 2], [0, 1], 192, True, 128 + 1536), comfy.supported_models.SDXL, comfy.model_base.SDXL),
}


def shapes_of(config):
    arguments = {key: given for key, given in config.items() if key != "legacy"}
    module = UNetModel(**arguments, device="cpu", operations=comfy.ops.disable_weight_init)
    return {UNET + key: list(weight.shape) for key, weight in module.state_dict().items()}


def patcher(name):
    config, supported, build = CONFIGS[name]
    inner = build(supported(dict(config)), comfy.model_base.ModelType.EPS, device="cpu")
    inner.diffusion_model.load_state_dict(
        {key.removeprefix(UNET): parameter(key, shape) for key, shape in models[name].items()})
    return comfy.model_patcher.ModelPatcher(inner, torch.device("cpu"), torch.device("cpu"))


models = {name: shapes_of(config) for name, (config, *_) in CONFIGS.items()}
# What a training goes on with: one layer of each kind.
EXISTING = "half_5_steps_00001_.safetensors"
layer = "diffusion_model.input_blocks.1.1.transformer_blocks.0"
models["existing"] = {
    f"{layer}.attn1.to_q.lora_up.weight": [32, 3], f"{layer}.attn1.to_q.lora_down.weight": [3, 32],
    f"{layer}.attn1.to_q.alpha": [], f"{layer}.attn1.to_q.diff_b": [32], f"{layer}.norm1.diff": [32],
    "diffusion_model.input_blocks.1.0.in_layers.2.lora_up.weight": [32, 2],
    "diffusion_model.input_blocks.1.0.in_layers.2.lora_down.weight": [2, 288],
    f"{layer}.attn2.to_k.hada_w1_a": [32, 2], f"{layer}.attn2.to_k.hada_w1_b": [2, 64],
    f"{layer}.attn2.to_k.hada_w2_a": [32, 2], f"{layer}.attn2.to_k.hada_w2_b": [2, 64],
    f"{layer}.attn2.to_v.lokr_w1": [4, 8], f"{layer}.attn2.to_v.lokr_w2": [8, 8],
    f"{layer}.attn2.to_q.oft_blocks": [8, 4, 4],
}
loras = tempfile.mkdtemp()
save_file({key: parameter(key, shape) for key, shape in models["existing"].items()}, f"{loras}/{EXISTING}")
folder_paths.add_model_folder_path("loras", loras)

BASE = {
    "batch_size": 1, "grad_accumulation_steps": 1, "steps": 5, "learning_rate": 0.002, "rank": 4, "optimizer": "AdamW",
    "loss_function": "MSE", "seed": 11, "training_dtype": "fp32", "lora_dtype": "fp32", "algorithm": "LoRA",
    "gradient_checkpointing": True, "existing_lora": "[None]", "bucket_mode": False,
}
# What each case has for itself: `latents` are shapes, one for each wire of the list, and `positive` the prompts' names, a list
# for each wire.
CASES = {
    "adamw": {}, "adam": {"optimizer": "Adam"}, "sgd": {"optimizer": "SGD", "learning_rate": 0.5}, "rmsprop": {"optimizer": "RMSprop"},
    "l1": {"loss_function": "L1"}, "huber": {"loss_function": "Huber"}, "smooth_l1": {"loss_function": "SmoothL1"},
    "loha": {"algorithm": "LoHa"}, "lokr": {"algorithm": "LoKr"}, "oft": {"algorithm": "OFT"},
    "batch": {"batch_size": 2, "latents": [[3, 4, 8, 8]], "positive": [["a", "b", "c"]], "steps": 3},
    "one_prompt": {"batch_size": 2, "latents": [[2, 4, 8, 8], [1, 4, 8, 8]], "steps": 3, "gradient_checkpointing": False},
    "all": {"batch_size": 5, "latents": [[2, 4, 8, 8]], "positive": [["a", "b"]], "steps": 2},
    "accumulated": {"grad_accumulation_steps": 3, "steps": 2, "latents": [[2, 4, 8, 8]], "positive": [["a"], ["b"]]},
    "sizes": {"batch_size": 2, "latents": [[1, 4, 8, 8], [1, 4, 8, 12], [1, 4, 12, 8]], "positive": [["a"], ["b"], ["c"]], "steps": 3},
    "buckets": {"batch_size": 2, "latents": [[3, 4, 8, 8], [1, 4, 8, 12]], "positive": [["a", "b", "c"], ["d"]], "bucket_mode": True,
                "steps": 6},
    "existing": {"existing_lora": EXISTING, "steps": 3},
    "sdxl": {"model": "sdxl", "positive": [["wide"]], "steps": 3},
    "half_weights": {"lora_dtype": "bf16"}, "half": {"lora_dtype": "bf16", "training_dtype": "bf16"},
}
WIDTHS = {"wide": (192, 128)}


def prompt(name):
    width, pooled = WIDTHS.get(name, (64, None))
    told = {} if pooled is None else {"pooled_output": value(f"{name}/pooled", [1, pooled], 1.5)}
    return [value(name, [1, 9, width], 1.5), told]


def sampled(model, case):
    positive, negative = [prompt(case["positive"][0][0])], [prompt("wide" if case["model"] == "sdxl" else "negative")]
    latent = {"samples": torch.zeros([1, 4, 8, 8])}
    with torch.inference_mode():
        return nodes.KSampler().sample(model, 7, 3, 4.0, "euler", "normal", positive, negative, latent, 1.0)[0]["samples"]


def run(name, case):
    model = patcher(case["model"])
    latents = [{"samples": value(f"latent/{index}", shape, 2.0)} for index, shape in enumerate(case["latents"])]
    positive = [[prompt(of) for of in names] for names in case["positive"]]
    inputs = {key: [case[key]] for key in BASE}
    torch.manual_seed(case["seed"])
    with torch.inference_mode():
        out = nodes_train.TrainLoraNode.execute(model=[model], latents=latents, positive=positive, **inputs)
    trained, lora, losses, steps = out.args
    # The order in which modules are drawn, which is that of the dictionary.
    names = [[key, list(tensor.shape)] for key, tensor in lora.items()]
    if names not in cases["lists"]:
        cases["lists"].append(names)
    case |= {"names": cases["lists"].index(names), "losses": losses["loss"], "out_steps": steps}
    numbers = torch.cat([tensor.detach().float().flatten() for tensor in lora.values()])
    tensors[f"{name}/trained"] = numbers[::THIN].clone()
    tensors[f"{name}/alphas"] = torch.stack([tensor.detach().float() for key, tensor in lora.items() if key.endswith("alpha")])
    if case["training_dtype"] == "fp32":
        lora = {key: tensor.detach() for key, tensor in lora.items()}
        put = nodes_train.LoraModelLoader.execute(patcher(case["model"]), lora, 0.7).args[0]
        tensors[f"{name}/put"] = sampled(put, case)
        tensors[f"{name}/model"] = sampled(trained, case)
    print(name, steps, ["%.5f" % loss for loss in losses["loss"]])


torch.set_num_threads(1)
# Trained tensors are the same for many cases: their names and shapes stand aside.
tensors, cases = {}, {"lists": []}
if only:
    tensors = load_file(HERE / "tensors.safetensors")
    cases = json.loads((HERE / "cases.json").read_text())
for name, more in CASES.items():
    if not only or name in only:
        cases[name] = {"model": "sd1", "latents": [[1, 4, 8, 8]], "positive": [["a"]]} | BASE | more
        run(name, cases[name])
HERE.mkdir(exist_ok=True)
# The names are the same for many cases.
save_file(dict(sorted(tensors.items())), HERE / "tensors.safetensors")
(HERE / "models.json").write_text(json.dumps(models, indent=None, separators=(",", ":")) + "\n")
(HERE / "cases.json").write_text(json.dumps(cases, separators=(",", ":")) + "\n")
