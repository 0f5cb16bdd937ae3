"""Records ComfyUI's samplers on a toy denoiser, for `src/diffusion/samplers`.

    PYTHONPATH=<ComfyUI> python tests/golden/samplers.py

Recorded with ComfyUI 0.8.0 (commit 618b803d), torch 2.15.0, torchsde 0.2.6, scipy 1.17.1, on x86-64 with AVX-512.

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
from comfy.extra_samplers import uni_pc
from safetensors.torch import save_file

SEED = 7
SAMPLERS = [name for name in comfy.samplers.SAMPLER_NAMES if name != "ddim"]


class Eps(comfy.model_sampling.ModelSamplingDiscrete, comfy.model_sampling.EPS):
    pass


class Toy:
    """Divisions and products only: the same to the bit anywhere. Nested like ComfyUI's model, for its samplers' sake."""

    class inner_model:
        class inner_model:
            model_sampling = Eps()

        class model_patcher:
            @staticmethod
            def get_model_object(name):
                return Toy.inner_model.inner_model.model_sampling

    def __call__(self, x, sigma, model_options={}, **_):
        denoised = self.see(x, sigma)
        # The negative prompts see a little less.
        for hook in model_options.get("sampler_post_cfg_function", []):
            denoised = hook({"denoised": denoised, "uncond_denoised": denoised * 0.875})
        return denoised

    def see(self, x, sigma):
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
def run(sampler, x, sigmas):
    """As ComfyUI's `ksampler` calls them, with noise of their own."""
    extra = {"seed": SEED}
    least = sigmas[-1] if sigmas[-1] > 0 else sigmas[-2]
    match sampler:
        case "dpm_fast":
            return samplers.sample_dpm_fast(Toy(), x, least, sigmas[0], len(sigmas) - 1, extra_args=extra, disable=True)
        case "dpm_adaptive":
            return samplers.sample_dpm_adaptive(Toy(), x, least, sigmas[0], extra_args=extra, disable=True)
        case "uni_pc" | "uni_pc_bh2":
            sample = uni_pc.sample_unipc if sampler == "uni_pc" else uni_pc.sample_unipc_bh2
            return sample(Toy(), x, sigmas.clone(), extra_args=extra, disable=True)
    return getattr(samplers, f"sample_{sampler}")(Toy(), x, sigmas.clone(), extra_args=extra, disable=True)


recorded = {f"sigmas/{name}": sigmas.clone() for name, sigmas in SCHEDULES.items()}
for sampler in SAMPLERS:
    for name, sigmas in SCHEDULES.items():
        x = torch.randn((2, 4, 6, 6), generator=torch.manual_seed(SEED)) * 14.614641
        recorded[f"end/{sampler}/{name}"] = run(sampler, x, sigmas)
for name in SCHEDULES:
    recorded[f"end/ddim/{name}"] = recorded[f"end/euler/{name}"].clone()

target = Path(__file__).parent / "samplers" / "comfyui.safetensors"
target.parent.mkdir(exist_ok=True)
save_file(recorded, target)
