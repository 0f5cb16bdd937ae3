"""Records how ComfyUI resizes latents, masks and pictures, for `src/diffusion/resize`.

    PYTHONPATH=<ComfyUI> python tests/golden/resize.py

Recorded with ComfyUI 0.8.0 (commit 618b803d), torch 2.15.0 and Pillow 12.1.0, on x86-64 with AVX-512. Pillow 13 resizes
rows before columns where that is less work, which changes bytes by one here and there, and more in pictures with opacity.

`from/<name>` is what was resized, `[batch, channels, height, width]`; `to/<method>/<crop>/<name>/<width>x<height>` is what
came of it. Names that begin with `image` were resized as ComfyUI's image nodes do, as a transposed view of
`[batch, height, width, channels]`.
"""

import sys
from pathlib import Path

sys.argv = [sys.argv[0], "--cpu"]
import comfy.options

comfy.options.enable_args_parsing()
import PIL
import torch
from comfy.utils import common_upscale
from safetensors.torch import save_file

generator = torch.Generator().manual_seed(3)
SOURCES = {
    "latent": torch.randn((2, 4, 8, 11), generator=generator),
    "wide": torch.randn((1, 4, 5, 20), generator=generator),
    "mask": torch.rand((1, 1, 21, 18), generator=generator),
    "image": torch.rand((1, 22, 15, 3), generator=generator).movedim(-1, 1),
    "image-alpha": torch.rand((1, 14, 17, 4), generator=generator).movedim(-1, 1),
}
# Unit vectors and zeros, which the spherical interpolation has rules of its own for.
SOURCES["special"] = torch.zeros((1, 4, 4, 6))
SOURCES["special"][0, 0, :, :3] = 1.0
SOURCES["special"][0, 0, :, 3] = -1.0
SIZES = {
    "latent": [(16, 12), (7, 5), (11, 8), (23, 9), (1, 1)],
    "wide": [(20, 10), (8, 24), (64, 4)],
    "mask": [(8, 8), (40, 32), (5, 4)],
    "image": [(30, 32), (8, 8), (15, 13), (7, 30)],
    "image-alpha": [(9, 30), (34, 7)],
    "special": [(12, 8), (9, 5)],
}
METHODS = ["nearest-exact", "bilinear", "area", "bicubic", "bislerp", "lanczos"]

recorded = {f"from/{name}": source.contiguous() for name, source in SOURCES.items()}
for name, source in SOURCES.items():
    for method in METHODS:
        if (method == "lanczos") != name.startswith("image") and method in ("lanczos", "bislerp"):
            continue
        if name == "special" and method != "bislerp":
            continue
        # Cutting to the new aspect comes before any method, so one method shows it.
        for crop in ("disabled", "center") if method == "bilinear" else ("disabled",):
            for width, height in SIZES[name]:
                result = common_upscale(source, width, height, method, crop)
                recorded[f"to/{method}/{crop}/{name}/{width}x{height}"] = result.contiguous()

target = Path(__file__).parent / "resize" / "comfyui.safetensors"
target.parent.mkdir(exist_ok=True)
save_file(recorded, target, metadata={"torch": torch.__version__, "pillow": PIL.__version__})
