"""Records what ComfyUI's KSampler makes of prompts, areas, masks and latents with a toy network, for `src/diffusion/guidance`
and `src/diffusion/sample.rs`.

    PYTHONPATH=<ComfyUI> python tests/golden/guidance.py

Recorded with ComfyUI 0.8.0 (commit 618b803d), torch 2.15.0, scipy 1.17.1, on x86-64 with AVX-512.

The network stands in for a UNet inside ComfyUI's own model class, so that all around it is ComfyUI's: scaling, guidance,
regions, masks, noise, schedules. `cases.json` lists the requests, tensors by name in `tensors.safetensors`; `<case>` there is
what came out.
"""

import copy
import json
import sys
from pathlib import Path

sys.argv = [sys.argv[0], "--cpu"]
# ComfyUI's `nodes` is wanted, not the script beside this one.
sys.path.remove(str(Path(__file__).resolve().parent))
import comfy.options

comfy.options.enable_args_parsing()
import comfy.model_base
import comfy.model_patcher
import comfy.supported_models
import nodes
import torch
from safetensors.torch import save_file


class Toy(torch.nn.Module):
    """A prediction that depends on the latent and its neighbour to the left, the mean token, and the time. Bounded."""

    def __init__(self, **_):
        super().__init__()
        self.dtype = torch.float32

    def forward(self, x, timesteps, context=None, **_):
        left = torch.nn.functional.pad(x, (1, 0))[..., :-1]
        prompt = context.mean(1)[:, :, None, None]
        bent = x * 0.7 + left * 0.2 + prompt * 0.3 + (timesteps * 0.001)[:, None, None, None]
        return bent / (bent.abs() + 1)


def model(kind):
    config = comfy.supported_models.SD15({"dtype": torch.float32})
    inner = comfy.model_base.BaseModel(config, kind, device="cpu", unet_model=Toy)
    return comfy.model_patcher.ModelPatcher(inner, torch.device("cpu"), torch.device("cpu"))


MODELS = {
    "epsilon": model(comfy.model_base.ModelType.EPS),
    "velocity": model(comfy.model_base.ModelType.V_PREDICTION),
}
generator = torch.Generator().manual_seed(17)
TENSORS = {
    "cat": torch.randn((1, 77, 4), generator=generator),
    "dog": torch.randn((1, 77, 4), generator=generator),
    "long": torch.randn((1, 154, 4), generator=generator),
    "bad": torch.randn((1, 77, 4), generator=generator),
    "empty": torch.zeros((1, 4, 8, 10)),
    "empty-pair": torch.zeros((2, 4, 8, 10)),
    "empty-three": torch.zeros((1, 3, 4, 4)),
    "large": torch.zeros((1, 4, 20, 36)),
    "picture": torch.randn((1, 4, 8, 10), generator=generator) * 4,
    "pair": torch.randn((2, 4, 8, 10), generator=generator) * 4,
    "mask": torch.rand((1, 13, 17), generator=generator),
    "mask-pair": (torch.rand((2, 1, 8, 10), generator=generator) > 0.5).float(),
    "spot": torch.nn.functional.pad(torch.rand((1, 3, 4), generator=generator), (11, 21, 5, 12)),
}
# The context shrinks to its mean, so its length may be anything; few numbers keep the recording small.
BASE = {
    "model": "epsilon", "latent": "empty", "positive": [{"context": "cat"}], "negative": [{"context": "bad"}], "seed": 5,
    "steps": 6, "cfg": 7.5, "sampler": "euler", "scheduler": "normal", "denoise": 1.0,
}
left = {"cells": [8, 5, 0, 0]}
right = {"cells": [8, 5, 0, 5]}
CASES = {
    "text": {},
    "pair": {"latent": "empty-pair", "sampler": "euler_ancestral", "seed": 2**32 - 1},
    "karras-2m": {"sampler": "dpmpp_2m", "scheduler": "karras", "cfg": 4.0},
    "unguided": {"cfg": 1.0, "sampler": "heun", "seed": 2**64 - 1},
    "only-negative": {"cfg": 0.0, "sampler": "lcm", "scheduler": "sgm_uniform"},
    "partial": {"latent": "picture", "denoise": 0.55, "sampler": "dpmpp_2m"},
    "nothing": {"latent": "picture", "denoise": 0.0},
    "late-start": {"scheduler": "ddim_uniform", "latent": "picture"},
    "velocity": {"model": "velocity", "sampler": "dpm_2", "scheduler": "simple"},
    "channels": {"latent": "empty-three"},
    "long": {"positive": [{"context": "long"}]},
    "index": {"latent": "pair", "batch_index": [3, 1]},
    "first-half": {"latent": "picture", "advanced": [0, 3, True], "steps": 7, "noise": True},
    "first-half-finished": {"latent": "picture", "advanced": [0, 3, False], "steps": 7, "noise": True},
    "second-half": {"latent": "pair", "advanced": [3, 10000, False], "steps": 7, "noise": False},
    "past-the-end": {"latent": "picture", "advanced": [32, 32, False], "noise": False},
    "inpaint": {"latent": "picture", "noise_mask": "mask"},
    "inpaint-ddim": {"latent": "picture", "noise_mask": "mask", "sampler": "ddim"},
    "inpaint-ancestral": {"latent": "pair", "noise_mask": "mask-pair", "sampler": "euler_ancestral", "denoise": 0.7},
    "inpaint-pair": {"latent": "pair", "noise_mask": "mask", "sampler": "dpmpp_2m", "scheduler": "beta"},
    "combined": {"positive": [{"context": "cat", "strength": 0.7}, {"context": "dog", "strength": 0.4}]},
    "combined-lengths": {"positive": [{"context": "cat"}, {"context": "long"}], "latent": "empty-pair"},
    "areas": {
        "positive": [{"context": "cat", "area": left, "strength": 0.8}, {"context": "dog", "area": right}],
    },
    "areas-over-picture": {
        "positive": [{"context": "long"}, {"context": "cat", "area": left}, {"context": "dog", "area": {"cells": [3, 99, 4, 2]}}],
        "negative": [{"context": "bad"}, {"context": "dog", "area": left, "strength": 0.5}], "latent": "empty-pair",
    },
    "shares": {
        "positive": [{"context": "cat"}, {"context": "dog", "area": {"share": [0.5, 0.35, 0.31, 0.25]}, "strength": 2.0}],
    },
    "feathers": {
        "positive": [{"context": "cat"}, {"context": "dog", "area": {"cells": [13, 30, 3, 4]}, "strength": 1.5}],
        "latent": "large", "steps": 3,
    },
    "masks": {
        "positive": [
            {"context": "cat", "mask": {"values": "mask", "strength": 0.7, "is_area": False}, "strength": 0.9},
            {"context": "dog"},
        ],
        "latent": "empty-pair",
    },
    "mask-as-area": {
        "positive": [{"context": "cat"}, {"context": "dog", "mask": {"values": "spot", "strength": 1.0, "is_area": True}}],
        "latent": "large", "steps": 3,
    },
    "times": {
        "positive": [{"context": "cat", "start": 0.0, "end": 0.35}, {"context": "dog", "start": 0.35, "end": 1.0}],
        "negative": [{"context": "bad", "start": 0.2, "end": 0.8}], "steps": 8,
    },
}


def condition(spec):
    values = {}
    if "strength" in spec:
        values["strength"] = spec["strength"]
    if "area" in spec:
        area = spec["area"]
        values["area"] = ("percentage", *area["share"]) if "share" in area else tuple(area["cells"])
    if "mask" in spec:
        values["mask"] = TENSORS[spec["mask"]["values"]]
        values["mask_strength"] = spec["mask"]["strength"]
        values["set_area_to_bounds"] = spec["mask"]["is_area"]
    if "start" in spec:
        values |= {"start_percent": spec["start"], "end_percent": spec["end"]}
    return [TENSORS[spec["context"]], values]


def run(case):
    latent = {"samples": TENSORS[case["latent"]].clone()}
    if "noise_mask" in case:
        latent |= {"noise_mask": TENSORS[case["noise_mask"]].reshape(-1, 1, *TENSORS[case["noise_mask"]].shape[-2:])}
    if "batch_index" in case:
        latent["batch_index"] = case["batch_index"]
    positive, negative = ([condition(spec) for spec in case[side]] for side in ("positive", "negative"))
    common = (MODELS[case["model"]], case["seed"], case["steps"], case["cfg"], case["sampler"], case["scheduler"])
    if "advanced" not in case:
        return nodes.common_ksampler(*common, positive, negative, latent, denoise=case["denoise"])[0]["samples"]
    start, end, leftover = case["advanced"]
    return nodes.common_ksampler(
        *common, positive, negative, latent, disable_noise=not case["noise"], start_step=start, last_step=end,
        force_full_denoise=not leftover,
    )[0]["samples"]


folder = Path(__file__).parent / "guidance"
folder.mkdir(exist_ok=True)
recorded = dict(TENSORS)
requests = {}
with torch.no_grad():
    for name, changes in CASES.items():
        case = copy.deepcopy(BASE) | changes
        requests[name] = case
        recorded[f"end/{name}"] = run(case).contiguous()
save_file({name: tensor.contiguous().clone() for name, tensor in recorded.items()}, folder / "tensors.safetensors")
(folder / "cases.json").write_text(json.dumps(requests, indent=1) + "\n")
