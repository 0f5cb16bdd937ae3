"""Numbers and shapes that the recordings of networks share. Nothing large is stored: a tensor is drawn from a stream of its own
key, which the Rust tests draw again."""

import math

import numpy as np
import torch


def uniform(key: str, count: int) -> np.ndarray:
    """`count` numbers in [-1, 1): a splitmix64 stream seeded by the FNV-1a hash of `key`."""
    seed = 0xCBF29CE484222325
    for byte in key.encode():
        seed = ((seed ^ byte) * 0x100000001B3) & (2**64 - 1)
    with np.errstate(over="ignore"):
        z = np.uint64(seed) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return 2.0 * ((z >> np.uint64(11)).astype(np.float64) * 2.0**-53) - 1.0


def parameter(key: str, shape: list[int]) -> torch.Tensor:
    """Weights that keep the variance of what passes, scales near 1, biases near 0."""
    values = uniform(key, math.prod(shape))
    if key.endswith("bias"):
        values = 0.1 * values
    elif len(shape) == 1:
        values = 1.0 + 0.1 * values
    else:
        values = values * math.sqrt(3.0 / math.prod(shape[1:]))
    return torch.from_numpy(values.reshape(shape).astype(np.float32))


def value(key: str, shape: list[int], scale: float) -> torch.Tensor:
    """An input in [-scale, scale)."""
    return torch.from_numpy((scale * uniform(key, math.prod(shape))).reshape(shape).astype(np.float32))


def open_clip(prefix, width, layers, inner):
    """Names and shapes of an OpenCLIP text encoder; `inner` is the width within its perceptrons."""
    shapes = {
        "positional_embedding": [77, width], "token_embedding.weight": [49408, width], "text_projection": [width, width],
        "ln_final.weight": [width], "ln_final.bias": [width],
    }
    for i in range(layers):
        block = f"transformer.resblocks.{i}."
        shapes |= {
            f"{block}attn.in_proj_weight": [3 * width, width], f"{block}attn.in_proj_bias": [3 * width],
            f"{block}attn.out_proj.weight": [width, width], f"{block}attn.out_proj.bias": [width],
            f"{block}mlp.c_fc.weight": [inner, width], f"{block}mlp.c_fc.bias": [inner],
            f"{block}mlp.c_proj.weight": [width, inner], f"{block}mlp.c_proj.bias": [width],
        }
        for norm in ("ln_1", "ln_2"):
            shapes |= {f"{block}{norm}.weight": [width], f"{block}{norm}.bias": [width]}
    return {prefix + name: shape for name, shape in shapes.items()}


def transformers(prefix, width, layers, inner):
    """Names and shapes of a CLIP text encoder of transformers; `inner` is the width within its perceptrons."""
    shapes = {
        "embeddings.token_embedding.weight": [49408, width], "embeddings.position_embedding.weight": [77, width],
        "final_layer_norm.weight": [width], "final_layer_norm.bias": [width],
    }
    for i in range(layers):
        block = f"encoder.layers.{i}."
        linears = {f"self_attn.{name}_proj": [width, width] for name in ("q", "k", "v", "out")}
        linears |= {"mlp.fc1": [inner, width], "mlp.fc2": [width, inner]}
        for name, shape in linears.items():
            shapes |= {f"{block}{name}.weight": shape, f"{block}{name}.bias": shape[:1]}
        for norm in ("layer_norm1", "layer_norm2"):
            shapes |= {f"{block}{norm}.weight": [width], f"{block}{norm}.bias": [width]}
    return {f"{prefix}text_model.{name}": shape for name, shape in shapes.items()}
