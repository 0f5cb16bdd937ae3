"""Reads what `toyland dataset` writes, and draws batches whose content depends on seed and step alone."""

import json
from pathlib import Path

import numpy as np
import torch

SIZE = 128


def meta_of(folder):
    """One record of captions and attributes for each picture."""
    with open(Path(folder) / "meta.jsonl") as lines:
        return [json.loads(line) for line in lines]


class Renders:
    """Pictures as bytes, memory-mapped, and one record of captions and attributes for each."""

    def __init__(self, folder):
        self.meta = meta_of(folder)
        shape = (len(self.meta), SIZE, SIZE, 3)
        self.images = np.memmap(Path(folder) / "images.bin", dtype=np.uint8, mode="r", shape=shape)

    def __len__(self):
        return len(self.meta)

    def pixels(self, indices):
        """Pictures in -1..1, `[batch, 3, 128, 128]`."""
        picked = torch.from_numpy(self.images[np.asarray(indices)])
        return to_pixels(picked)


def to_pixels(bytes_):
    """Bytes `[batch, h, w, 3]` to numbers in -1..1, `[batch, 3, h, w]` laid out channels last."""
    return (bytes_.float() / 127.5 - 1).permute(0, 3, 1, 2)


def to_bytes(pixels):
    """The inverse of [`to_pixels`], clamped, as a numpy array."""
    return ((pixels.permute(0, 2, 3, 1).clamp(-1, 1) + 1) * 127.5).round().byte().cpu().numpy()


def generator(seed, step):
    """The source of chance of one step, so that a resumed run goes on as if it had never stopped."""
    return torch.Generator().manual_seed(seed * 1_000_003 + step)
