"""Records ComfyUI's noise levels and schedules, for `src/diffusion/schedule`.

    PYTHONPATH=<ComfyUI> python tests/golden/schedules.py

Recorded with ComfyUI 0.8.0 (commit 618b803d), torch 2.15.0, scipy 1.17.1, on x86-64 with AVX-512.

`levels` and `log_levels` are the table of Stable Diffusion; `zsnr` the one with zero terminal SNR; `percent` and
`timestep` sampled conversions. `<schedule>/<steps>` are whole schedules; `part/<schedule>/<steps>/<denoise>` and
`skip/<schedule>/<steps>` go through KSampler's rules, the latter for a sampler that skips the smallest level.
"""

import sys
from pathlib import Path

sys.argv = [sys.argv[0], "--cpu"]
import comfy.options

comfy.options.enable_args_parsing()
import comfy.model_sampling
import comfy.samplers
import torch
from safetensors.torch import save_file

STEPS = [1, 2, 3, 4, 5, 10, 20, 30, 50]
DENOISE = [0.3, 0.75]


class Eps(comfy.model_sampling.ModelSamplingDiscrete, comfy.model_sampling.EPS):
    pass


class Model:
    """As much of a ModelPatcher as KSampler's planning asks for."""

    model_options = {}

    def get_model_object(self, name):
        return sampling


sampling = Eps()
recorded = {
    "levels": sampling.sigmas,
    "log_levels": sampling.log_sigmas,
    "zsnr": Eps(zsnr=True).sigmas,
    "percent": torch.tensor([[p / 40, sampling.percent_to_sigma(p / 40)] for p in range(1, 40)]),
}
probes = torch.exp(torch.linspace(-5, 4, 500))
recorded["timestep"] = torch.stack([probes, sampling.timestep(probes).float()], 1)
for name in comfy.samplers.SCHEDULER_NAMES:
    for steps in STEPS:
        recorded[f"{name}/{steps}"] = comfy.samplers.calculate_sigmas(sampling, name, steps)
    for steps in (4, 20):
        for denoise in DENOISE:
            plan = comfy.samplers.KSampler(Model(), steps, "cpu", "euler", name, denoise)
            recorded[f"part/{name}/{steps}/{denoise}"] = plan.sigmas.clone()
    plan = comfy.samplers.KSampler(Model(), 7, "cpu", "dpm_2", name, 1.0)
    recorded[f"skip/{name}/7"] = plan.sigmas.clone()
for steps in (100, 333, 1000):
    recorded[f"beta/{steps}"] = comfy.samplers.calculate_sigmas(sampling, "beta", steps)

target = Path(__file__).parent / "schedules" / "comfyui.safetensors"
target.parent.mkdir(exist_ok=True)
save_file(recorded, target)
