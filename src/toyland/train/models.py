"""Stable Diffusion 1.x, narrow: the three networks under the key names of an SD 1.x single-file checkpoint.

Every width, level and depth below can be read back from the shapes and names of the tensors. Knows no data and no
training.
"""

import math

import torch
import torch.nn as nn
import torch.nn.functional as F

UNET_PREFIX = "model.diffusion_model."
TEXT_PREFIX = "cond_stage_model.transformer.text_model."
VAE_PREFIX = "first_stage_model."

# What Toyland ships. `UNET["attention"]` lists the levels with transformers, 0 being the full 16 x 16 latents.
UNET = dict(channels=64, mults=(1, 2, 3), blocks=1, attention=(1,), context=128)
TEXT = dict(width=128, layers=3)
VAE = dict(channels=32, mults=(1, 1, 2, 4), blocks=1)

LATENT_SCALE = 0.18215


def groups(channels, eps):
    """Stable Diffusion's group norm always has 32 groups."""
    return nn.GroupNorm(32, channels, eps=eps)


# ---------------------------------------------------------------- UNet


class ResBlock(nn.Module):
    def __init__(self, channels, out, time):
        super().__init__()
        self.in_layers = nn.Sequential(groups(channels, 1e-5), nn.SiLU(), nn.Conv2d(channels, out, 3, padding=1))
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(time, out))
        self.out_layers = nn.Sequential(
            groups(out, 1e-5), nn.SiLU(), nn.Identity(), zeroed(nn.Conv2d(out, out, 3, padding=1))
        )
        self.skip_connection = nn.Identity() if channels == out else nn.Conv2d(channels, out, 1)

    def forward(self, x, time, context):
        h = self.in_layers(x) + self.emb_layers(time)[:, :, None, None]
        return self.skip_connection(x) + self.out_layers(h)


class Attention(nn.Module):
    HEADS = 8

    def __init__(self, width, context):
        super().__init__()
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_k = nn.Linear(context, width, bias=False)
        self.to_v = nn.Linear(context, width, bias=False)
        self.to_out = nn.Sequential(nn.Linear(width, width))

    def forward(self, x, context):
        q, k, v = (
            t.unflatten(-1, (self.HEADS, -1)).transpose(1, 2) for t in (self.to_q(x), self.to_k(context), self.to_v(context))
        )
        return self.to_out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class GEGLU(nn.Module):
    def __init__(self, width, out):
        super().__init__()
        self.proj = nn.Linear(width, out * 2)

    def forward(self, x):
        x, gate = self.proj(x).chunk(2, dim=-1)
        return x * F.gelu(gate)


class FeedForward(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.net = nn.Sequential(GEGLU(width, width * 4), nn.Identity(), nn.Linear(width * 4, width))

    def forward(self, x):
        return self.net(x)


class TransformerBlock(nn.Module):
    def __init__(self, width, context):
        super().__init__()
        self.attn1 = Attention(width, width)
        self.ff = FeedForward(width)
        self.attn2 = Attention(width, context)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))

    def forward(self, x, context):
        y = self.norm1(x)
        x = x + self.attn1(y, y)
        x = x + self.attn2(self.norm2(x), context)
        return x + self.ff(self.norm3(x))


class SpatialTransformer(nn.Module):
    def __init__(self, channels, context):
        super().__init__()
        self.norm = groups(channels, 1e-6)
        self.proj_in = nn.Conv2d(channels, channels, 1)
        self.transformer_blocks = nn.ModuleList([TransformerBlock(channels, context)])
        self.proj_out = zeroed(nn.Conv2d(channels, channels, 1))

    def forward(self, x, time, context):
        height = x.shape[2]
        h = self.proj_in(self.norm(x)).flatten(2).transpose(1, 2)  # [batch, pixels, channels]
        for block in self.transformer_blocks:
            h = block(h, context)
        return x + self.proj_out(h.transpose(1, 2).unflatten(2, (height, -1)))


class Downsample(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x, time, context):
        return self.op(x)


class Upsample(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x, time, context):
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class First(nn.Conv2d):
    def forward(self, x, time, context):
        return super().forward(x)


class Stage(nn.ModuleList):
    def forward(self, x, time, context):
        for layer in self:
            x = layer(x, time, context)
        return x


def zeroed(layer):
    """A last layer of a residual branch, so that the branch starts as nothing."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def timestep_embedding(timesteps, dim):
    """Cosines first, then sines, of `t / 10000^(i / half)`."""
    half = dim // 2
    frequencies = torch.exp(-math.log(10000) * torch.arange(half, dtype=torch.float32) / half)
    angles = timesteps.float()[:, None] * frequencies.to(timesteps.device)[None]
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


class UNet(nn.Module):
    """Predicts the noise in latents `[batch, 4, height, width]` at integer timesteps under a context `[batch, 77, width]`."""

    def __init__(self, channels, mults, blocks, attention, context):
        super().__init__()
        time = channels * 4
        self.channels = channels
        self.time_embed = nn.Sequential(nn.Linear(channels, time), nn.SiLU(), nn.Linear(time, time))

        def stage(inputs, out, level):
            layers = [ResBlock(inputs, out, time)]
            return layers + [SpatialTransformer(out, context)] if level in attention else layers

        self.input_blocks = nn.ModuleList([Stage([First(4, channels, 3, padding=1)])])
        width, skips = channels, [channels]
        for level, mult in enumerate(mults):
            for _ in range(blocks):
                self.input_blocks.append(Stage(stage(width, channels * mult, level)))
                width = channels * mult
                skips.append(width)
            if level + 1 < len(mults):
                self.input_blocks.append(Stage([Downsample(width)]))
                skips.append(width)
        self.middle_block = Stage(
            [ResBlock(width, width, time), SpatialTransformer(width, context), ResBlock(width, width, time)]
        )
        self.output_blocks = nn.ModuleList()
        for level, mult in reversed(list(enumerate(mults))):
            for index in range(blocks + 1):
                layers = stage(width + skips.pop(), channels * mult, level)
                width = channels * mult
                if level > 0 and index == blocks:
                    layers.append(Upsample(width))
                self.output_blocks.append(Stage(layers))
        self.out = nn.Sequential(groups(width, 1e-5), nn.SiLU(), zeroed(nn.Conv2d(width, 4, 3, padding=1)))

    def forward(self, x, timesteps, context):
        time = self.time_embed(timestep_embedding(timesteps, self.channels))
        skips = []
        for block in self.input_blocks:
            x = block(x, time, context)
            skips.append(x)
        x = self.middle_block(x, time, context)
        for block in self.output_blocks:
            x = block(torch.cat([x, skips.pop()], dim=1), time, context)
        return self.out(x)


# ---------------------------------------------------------------- text encoder


class SelfAttention(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x):
        q, k, v = (p(x).unflatten(-1, (-1, 64)).transpose(1, 2) for p in (self.q_proj, self.k_proj, self.v_proj))
        return self.out_proj(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, width * 4), nn.Linear(width * 4, width)

    def forward(self, x):
        x = self.fc1(x)
        return self.fc2(x * torch.sigmoid(1.702 * x))


class EncoderLayer(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.layer_norm1, self.self_attn = nn.LayerNorm(width), SelfAttention(width)
        self.layer_norm2, self.mlp = nn.LayerNorm(width), Mlp(width)

    def forward(self, x):
        x = x + self.self_attn(self.layer_norm1(x))
        return x + self.mlp(self.layer_norm2(x))


class TextEncoder(nn.Module):
    """CLIP's text encoder: token ids `[batch, 77]` to states `[batch, 77, width]`, heads of 64, quick gelu."""

    def __init__(self, width, layers, vocabulary):
        super().__init__()
        self.embeddings = nn.ModuleDict(
            dict(token_embedding=nn.Embedding(vocabulary, width), position_embedding=nn.Embedding(77, width))
        )
        nn.init.normal_(self.embeddings["token_embedding"].weight, std=0.5)
        nn.init.normal_(self.embeddings["position_embedding"].weight, std=0.1)
        self.encoder = nn.ModuleDict(dict(layers=nn.ModuleList(EncoderLayer(width) for _ in range(layers))))
        self.final_layer_norm = nn.LayerNorm(width)

    def forward(self, tokens):
        x = self.embeddings["token_embedding"](tokens) + self.embeddings["position_embedding"].weight
        for layer in self.encoder["layers"]:
            x = layer(x)
        return self.final_layer_norm(x)


# ---------------------------------------------------------------- autoencoder


class ResnetBlock(nn.Module):
    def __init__(self, channels, out):
        super().__init__()
        self.norm1, self.conv1 = groups(channels, 1e-6), nn.Conv2d(channels, out, 3, padding=1)
        self.norm2, self.conv2 = groups(out, 1e-6), nn.Conv2d(out, out, 3, padding=1)
        if channels != out:
            self.nin_shortcut = nn.Conv2d(channels, out, 1)

    def forward(self, x):
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        return h + (self.nin_shortcut(x) if hasattr(self, "nin_shortcut") else x)


class AttnBlock(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.norm = groups(channels, 1e-6)
        self.q, self.k, self.v = (nn.Conv2d(channels, channels, 1) for _ in range(3))
        self.proj_out = zeroed(nn.Conv2d(channels, channels, 1))

    def forward(self, x):
        h = self.norm(x)
        q, k, v = (p(h).flatten(2).transpose(1, 2)[:, None] for p in (self.q, self.k, self.v))
        h = F.scaled_dot_product_attention(q, k, v)[:, 0].transpose(1, 2)
        return x + self.proj_out(h.unflatten(2, x.shape[2:]))


class VaeDownsample(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x):
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class VaeUpsample(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x):
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


def middle(channels):
    return nn.ModuleDict(
        dict(block_1=ResnetBlock(channels, channels), attn_1=AttnBlock(channels), block_2=ResnetBlock(channels, channels))
    )


def through_middle(mid, x):
    return mid["block_2"](mid["attn_1"](mid["block_1"](x)))


class Encoder(nn.Module):
    def __init__(self, channels, mults, blocks):
        super().__init__()
        self.conv_in = nn.Conv2d(3, channels, 3, padding=1)
        self.down = nn.ModuleList()
        width = channels
        for level, mult in enumerate(mults):
            stage = nn.Module()
            stage.block = nn.ModuleList()
            for _ in range(blocks):
                stage.block.append(ResnetBlock(width, channels * mult))
                width = channels * mult
            if level + 1 < len(mults):
                stage.downsample = VaeDownsample(width)
            self.down.append(stage)
        self.mid = middle(width)
        self.norm_out, self.conv_out = groups(width, 1e-6), nn.Conv2d(width, 8, 3, padding=1)

    def forward(self, x):
        x = self.conv_in(x)
        for stage in self.down:
            for block in stage.block:
                x = block(x)
            if hasattr(stage, "downsample"):
                x = stage.downsample(x)
        return self.conv_out(F.silu(self.norm_out(through_middle(self.mid, x))))


class Decoder(nn.Module):
    def __init__(self, channels, mults, blocks):
        super().__init__()
        width = channels * mults[-1]
        self.conv_in = nn.Conv2d(4, width, 3, padding=1)
        self.mid = middle(width)
        stages = []
        for level, mult in reversed(list(enumerate(mults))):
            stage = nn.Module()
            stage.block = nn.ModuleList()
            for _ in range(blocks + 1):
                stage.block.append(ResnetBlock(width, channels * mult))
                width = channels * mult
            if level > 0:
                stage.upsample = VaeUpsample(width)
            stages.insert(0, stage)
        self.up = nn.ModuleList(stages)
        self.norm_out, self.conv_out = groups(width, 1e-6), nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, x):
        x = through_middle(self.mid, self.conv_in(x))
        for stage in reversed(self.up):
            for block in stage.block:
                x = block(x)
            if hasattr(stage, "upsample"):
                x = stage.upsample(x)
        return self.conv_out(F.silu(self.norm_out(x)))


class Vae(nn.Module):
    """KL autoencoder between pixels in -1..1 `[batch, 3, h, w]` and latents `[batch, 4, h / 8, w / 8]`."""

    def __init__(self, channels, mults, blocks):
        super().__init__()
        self.encoder = Encoder(channels, mults, blocks)
        self.decoder = Decoder(channels, mults, blocks)
        self.quant_conv, self.post_quant_conv = nn.Conv2d(8, 8, 1), nn.Conv2d(4, 4, 1)

    def encode(self, pixels):
        """The mean and the log variance of the posterior, not scaled."""
        return self.quant_conv(self.encoder(pixels)).chunk(2, dim=1)

    def decode(self, latents):
        return self.decoder(self.post_quant_conv(latents))

    def forward(self, pixels, noise):
        mean, log_variance = self.encode(pixels)
        log_variance = log_variance.clamp(-30, 20)
        return self.decode(mean + noise * (0.5 * log_variance).exp()), mean, log_variance
