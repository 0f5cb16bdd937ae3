"""Writes the three networks as one SD 1.x checkpoint, f16, and compresses it."""

import json
from pathlib import Path

import torch
import zstandard
from safetensors.torch import save_file

import models
import text
import vae

TOKENS = 49408


def stored(name, tensor):
    """How a tensor is written: f16, and the autoencoder's 1 x 1 attention weights as the four-dimensional ones they are."""
    return name, tensor.detach().half().contiguous()


def export(args):
    saved = torch.load(args.unet, weights_only=True)
    ema = saved["ema"]
    tensors = {}
    for name, tensor in ema.items():
        network, name = name.split(".", 1)
        if network == "unet":
            tensors[models.UNET_PREFIX + name] = tensor
        elif name != "embeddings.token_embedding.weight":
            tensors[models.TEXT_PREFIX + name] = tensor
    table = torch.zeros(TOKENS, models.TEXT["width"])
    table[saved["used"]] = ema["text.embeddings.token_embedding.weight"][1:]
    tensors[models.TEXT_PREFIX + "embeddings.token_embedding.weight"] = table
    for name, tensor in vae.load(args.vae).state_dict().items():
        tensors[models.VAE_PREFIX + name] = tensor
    half = dict(stored(*item) for item in sorted(tensors.items()))
    assert all(tensor.isfinite().all() for tensor in half.values()), "a weight does not fit f16"
    metadata = dict(
        title="Toyland",
        architecture="stable-diffusion-v1, narrow",
        steps=str(saved["step"]),
        training=args.note or "",
        tokens=json.dumps(saved["used"]),
    )
    save_file(half, args.out, metadata)
    packed = zstandard.ZstdCompressor(level=19).compress(Path(args.out).read_bytes())
    Path(args.out + ".zst").write_bytes(packed)
    count = sum(tensor.numel() for name, tensor in half.items() if "token_embedding" not in name)
    print(f"{len(half)} tensors, {count / 1e6:.2f} M weights, {len(packed) / 2**20:.2f} MiB packed")


def networks(path):
    """UNet, text encoder, autoencoder and a function from texts to token ids, read back from a checkpoint."""
    from safetensors import safe_open
    from safetensors.torch import load_file

    tensors = {name: tensor.float() for name, tensor in load_file(path).items()}
    with safe_open(path, "pt") as file:
        used = json.loads(file.metadata()["tokens"])
    strip = lambda prefix: {n[len(prefix) :]: t for n, t in tensors.items() if n.startswith(prefix)}  # noqa: E731
    unet = models.UNet(**models.UNET)
    unet.load_state_dict(strip(models.UNET_PREFIX))
    encoder = text.encoder(TOKENS)
    encoder.load_state_dict(strip(models.TEXT_PREFIX))
    autoencoder = models.Vae(**models.VAE)
    autoencoder.load_state_dict(strip(models.VAE_PREFIX))
    return unet.eval(), encoder.eval(), autoencoder.eval(), used
