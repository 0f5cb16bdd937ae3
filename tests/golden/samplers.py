"""Records ComfyUI's samplers on a toy denoiser, for `src/diffusion/samplers`.

    PYTHONPATH=<ComfyUI> python tests/golden/samplers.py

Recorded with ComfyUI 0.8.0 (commit 618b803d), torch 2.15.0, scipy 1.17.1, on x86-64 with AVX-512.

`sigmas/<schedule>` are the levels, `end/<sampler>/<schedule>` where the sampler ends with them, from `randn` of seed 7
times 14.614641, sampling seed 7.
"""

import sys
from pathlib import Path

sys.argv = [sys.argv[0], "--cpu"]
import comfy.options

comfy.options.enable_args_parsing()
import comfy.k_diffusion.sampling as samplers
import comfy.model_sampling
import comfy.samplers
import torch
from safetensors.torch import save_file

SEED = 7
SAMPLERS = [
    "euler", "euler_ancestral", "heun", "heunpp2", "dpm_2", "dpm_2_ancestral", "lms", "dpmpp_2s_ancestral", "dpmpp_2m",
    "ddpm", "lcm", "ipndm", "res_multistep", "res_multistep_ancestral", "gradient_estimation",
]


class Eps(comfy.model_sampling.ModelSamplingDiscrete, comfy.model_sampling.EPS):
    pass


class Toy:
    """Divisions and products only: the same to the bit anywhere. Nested like ComfyUI's model, for its samplers' sake."""

    class inner_model:
        class inner_model:
            model_sampling = Eps()

    def __call__(self, x, sigma, **_):
        sigma = sigma.view(-1, 1, 1, 1)
        scaled = x / (0.5 + sigma)
        bent = scaled / (scaled.abs() + 1)
        return bent * 0.8 + x * (0.15 / (1 + sigma * sigma))


def schedule(name, steps):
    return comfy.samplers.calculate_sigmas(Toy.inner_model.inner_model.model_sampling, name, steps)


SCHEDULES = {
    "karras-8": schedule("karras", 8),
    "normal-7": schedule("normal", 7),
    "ddim_uniform-6": schedule("ddim_uniform", 6),
    "beta-30": schedule("beta", 30),
    # The first half of a pair of samplers: it stops on a level of its own.
    "simple-20-part": schedule("simple", 20)[3:15],
}
recorded = {f"sigmas/{name}": sigmas.clone() for name, sigmas in SCHEDULES.items()}
for sampler in SAMPLERS:
    for name, sigmas in SCHEDULES.items():
        x = torch.randn((2, 4, 6, 6), generator=torch.manual_seed(SEED)) * 14.614641
        sample = getattr(samplers, f"sample_{sampler}")
        recorded[f"end/{sampler}/{name}"] = sample(Toy(), x, sigmas, extra_args={"seed": SEED}, disable=True)
for name in SCHEDULES:
    recorded[f"end/ddim/{name}"] = recorded[f"end/euler/{name}"].clone()

target = Path(__file__).parent / "samplers" / "comfyui.safetensors"
target.parent.mkdir(exist_ok=True)
save_file(recorded, target)
