"""Records what torch's CPU generator draws, for `src/diffusion/noise`.

    python tests/golden/noise.py

Recorded with torch 2.15.0 on x86-64 with AVX2 (its vectorised Box-Muller; builds without it differ by up to 2.4e-7).
`normal/<seed>/<shape>` is the first `randn(shape)` of a fresh generator; `sequence/<seed>/<i>` are consecutive calls on
one generator, whose kinds and sizes stand in `SEQUENCE`.
"""

from pathlib import Path

import torch
from safetensors.torch import save_file

SEEDS = [0, 1, 42, 43, 123456789, 2**32 - 1, 2**32 + 42, 2**64 - 1]
SHAPES = [(1,), (2,), (3,), (15,), (16,), (17,), (31,), (32,), (33,), (100,), (1, 4, 8, 8), (1, 4, 9, 7), (3, 4, 5, 5)]
SEQUENCE = [("normal", 3), ("normal", 20), ("uniform", 5), ("normal", 2), ("normal", 1), ("normal", 16), ("normal", 7)]


def generator(seed):
    return torch.Generator().manual_seed(seed)


recorded = {}
for seed in SEEDS:
    for shape in SHAPES:
        recorded[f"normal/{seed}/{'x'.join(map(str, shape))}"] = torch.randn(shape, generator=generator(seed))
    shared = generator(seed)
    for i, (kind, count) in enumerate(SEQUENCE):
        draw = torch.randn if kind == "normal" else torch.rand
        recorded[f"sequence/{seed}/{i}"] = draw(count, generator=shared)
recorded["normal/0/1x4x64x64"] = torch.randn((1, 4, 64, 64), generator=generator(0))
recorded["normal/987654321/2x4x32x48"] = torch.randn((2, 4, 32, 48), generator=generator(987654321))

target = Path(__file__).parent / "noise" / "torch.safetensors"
target.parent.mkdir(exist_ok=True)
save_file(recorded, target, metadata={"torch": torch.__version__})
