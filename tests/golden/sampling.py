"""Records whole samplings of ComfyUI with its own UNet on small random weights, for `src/diffusion/sample`.

    PYTHONPATH=<ComfyUI> python tests/golden/sampling.py

Recorded with ComfyUI 0.8.0 (commit 618b803d), torch 2.15.0, on x86-64 with AVX-512, in f32.

The weights are those of `networks/unet_narrow.json`, prompts and latents are drawn the same way, by name. `cases.json` lists
the requests, `tensors.safetensors` what came of each.
"""

import json
import sys
from pathlib import Path

from drawing import parameter, value

sys.argv = [sys.argv[0], "--cpu"]
# ComfyUI's `nodes` is wanted, not the script beside this one.
sys.path.remove(str(Path(__file__).resolve().parent))
import comfy.options

comfy.options.enable_args_parsing()
import comfy.model_base
import comfy.model_detection
import comfy.model_patcher
import comfy.supported_models
import nodes
import torch
from safetensors.torch import save_file

PREFIX = "model.diffusion_model."
HERE = Path(__file__).resolve().parent
CASES = {
    "text": {"sampler": "euler", "scheduler": "karras", "steps": 8, "cfg": 6.0},
    "picture": {"sampler": "dpmpp_2m", "scheduler": "normal", "steps": 6, "cfg": 4.5, "denoise": 0.6, "latent": 4.0},
    "ancestral": {"sampler": "euler_ancestral", "scheduler": "sgm_uniform", "steps": 5, "cfg": 7.0},
    "unguided": {"sampler": "heun", "scheduler": "exponential", "steps": 5, "cfg": 1.0},
    "consistency": {"sampler": "lcm", "scheduler": "simple", "steps": 4, "cfg": 1.5},
    "inpaint": {"sampler": "ddim", "scheduler": "ddim_uniform", "steps": 5, "cfg": 5.0, "latent": 4.0, "mask": True},
    "long": {"sampler": "euler", "scheduler": "normal", "steps": 4, "cfg": 6.0, "tokens": 154},
}
BASE = {"seed": 3, "denoise": 1.0, "latent": 0.0, "mask": False, "tokens": 77}


def load():
    listing = json.loads((HERE / "networks" / "unet_narrow.json").read_text())
    weights = {key: parameter(key, shape) for key, shape in listing["tensors"].items()}
    unet_config = comfy.model_detection.detect_unet_config(weights, PREFIX)
    config = comfy.supported_models.SD15(unet_config | {"dtype": torch.float32})
    inner = comfy.model_base.BaseModel(config, comfy.model_base.ModelType.EPS, device="cpu")
    inner.diffusion_model.load_state_dict({key.removeprefix(PREFIX): weight for key, weight in weights.items()})
    return comfy.model_patcher.ModelPatcher(inner, torch.device("cpu"), torch.device("cpu")), listing["config"]["context"]


def run(model, width, case):
    latent = {"samples": value("latent", [1, 4, 12, 8], case["latent"])}
    if case["mask"]:
        latent["noise_mask"] = (value("mask", [1, 1, 20, 20], 1.0) + 1) / 2
    positive = [[value("positive", [1, case["tokens"], width], 1.5), {}]]
    negative = [[value("negative", [1, 77, width], 1.5), {}]]
    return nodes.common_ksampler(
        model, case["seed"], case["steps"], case["cfg"], case["sampler"], case["scheduler"], positive, negative, latent,
        denoise=case["denoise"],
    )[0]["samples"]


folder = HERE / "sampling"
folder.mkdir(exist_ok=True)
model, width = load()
requests = {name: BASE | case for name, case in CASES.items()}
with torch.no_grad():
    ends = {name: run(model, width, case).contiguous() for name, case in requests.items()}
save_file(ends, folder / "tensors.safetensors")
(folder / "cases.json").write_text(json.dumps(requests, indent=1) + "\n")
