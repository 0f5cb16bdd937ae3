"""Trains the autoencoder, whitens its latents, sharpens it in that space, computes the latents of a data set."""

import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

import models
from data import Renders, generator, to_bytes
from loop import Loop, save
from optim import Muon

KL_WEIGHT = 1e-6


def batch_of(renders, settings, step):
    """Crops at first, whole pictures from `crop_steps` on: crops teach four times as often for the same work, but
    group norms see other statistics in them. Beside the pictures comes noise for their latents."""
    chance = generator(settings.seed, step)
    if step >= settings.crop_steps:
        pixels = renders.pixels(torch.randint(len(renders), (settings.batch // 2,), generator=chance))
    else:
        pixels = renders.pixels(torch.randint(len(renders), (settings.batch,), generator=chance))
        corners = torch.randint(9, (settings.batch, 2), generator=chance) * 8
        crops = torch.stack([p[:, y : y + 64, x : x + 64] for p, (y, x) in zip(pixels, corners.tolist())])
        pixels = crops.contiguous(memory_format=torch.channels_last)
    noise = torch.randn(len(pixels), 4, pixels.shape[2] // 8, pixels.shape[3] // 8, generator=chance)
    return pixels, noise


def edges(x):
    """Differences to the right and lower neighbour, for which a blurred line costs more than for the pixels alone."""
    return x.diff(dim=2), x.diff(dim=3)


def reconstruction_loss(output, pixels):
    loss = F.l1_loss(output, pixels) + 0.5 * F.mse_loss(output, pixels)
    return loss + 0.5 * sum(F.l1_loss(a, b) for a, b in zip(edges(output), edges(pixels)))


def colour_loss(output, pixels):
    """What an eye minds more than the pixels do: the mean colour of each latent cell, above all its hue."""
    coarse = F.avg_pool2d(output - pixels, 8)
    hue = coarse - coarse.mean(dim=1, keepdim=True)
    return 2 * coarse.square().mean() + 4 * hue.square().mean() + 2 * hue.abs().mean()


def learning_rate(settings, step):
    warm = min(1.0, (step + 1) / 50)
    return settings.rate * warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / settings.steps)))


def train(settings, data, out):
    """The first training, from nothing: pictures from noised latents, and latents that a colour can be read off.

    A cell's mean colour has to be a linear function of its latent: easy to paint for the UNet, and a cure for the grey
    that the pictures otherwise settle in.
    """
    torch.manual_seed(settings.seed)
    vae = models.Vae(**models.VAE).to(memory_format=torch.channels_last)
    reader = torch.nn.Conv2d(4, 3, 1)
    with torch.no_grad():
        vae.quant_conv.bias[4:] = -6  # noise of deviation 1 would drown the first latents

    def loss_of(pixels, noise):
        output, mean, log_variance = vae(pixels, noise)
        kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(dim=(1, 2, 3)).mean()
        read = F.mse_loss(reader(mean), F.avg_pool2d(pixels, 8))
        return reconstruction_loss(output, pixels) + colour_loss(output, pixels) + KL_WEIGHT * kl + 3 * read

    run(settings, data, out, dict(model=vae, reader=reader), loss_of)


def sharpen(settings, data, start, out):
    """The second training, on whitened latents: encoder and decoder learn finer detail while the latents are held near
    those of `start`, and noised a little, so that the decoder forgives what a sampler leaves behind."""
    torch.manual_seed(settings.seed)
    vae, anchor = load(start).train(), load(start).requires_grad_(False)

    def loss_of(pixels, noise):
        mean, _ = vae.encode(pixels)
        output = vae.decode(mean + settings.latent_noise / models.LATENT_SCALE * noise)
        drift = (mean - anchor.encode(pixels)[0]) * models.LATENT_SCALE
        return reconstruction_loss(output, pixels) + colour_loss(output, pixels) + settings.anchor * drift.square().mean()

    run(settings, data, out, dict(model=vae), loss_of)


def run(settings, data, out, networks, loss_of):
    """Muon for the large matrices, AdamW for the rest, gradients clipped together."""
    moved = [parameter for network in networks.values() for parameter in network.parameters()]
    is_large = lambda p: p.dim() >= 2 and p.shape[0] >= 16 and p[0].numel() >= 16  # noqa: E731
    rest, large = [p for p in moved if not is_large(p)], [p for p in moved if is_large(p)]
    adam = torch.optim.AdamW(rest, lr=settings.rate, betas=(0.9, 0.99), weight_decay=1e-4, fused=True)
    muon = Muon(large, lr=settings.rate)
    loop, renders = Loop(out, settings.steps, dict(networks, adam=adam, muon=muon)), Renders(data)
    for step in loop.left():
        for optimizer in (adam, muon):
            optimizer.param_groups[0]["lr"] = learning_rate(settings, step)
        loss = loss_of(*batch_of(renders, settings, step))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(moved, 1.0)
        for optimizer in (adam, muon):
            optimizer.step()
            optimizer.zero_grad()
        loop.note(loss.item())


@torch.no_grad()
def reconstructed(vae, pixels):
    return torch.cat([vae.decode(vae.encode(part)[0]).clamp(-1, 1) for part in pixels.split(16)])


def compare(vae, renders, out):
    """Draws pictures above their reconstructions."""
    from PIL import Image

    pixels = renders.pixels(range(0, 16))
    copies = reconstructed(vae, pixels)
    pairs = torch.cat([pixels[:8], copies[:8], pixels[8:], copies[8:]])
    rows = to_bytes(pairs).reshape(4, 8, 128, 128, 3).transpose(0, 2, 1, 3, 4).reshape(512, 1024, 3)
    Image.fromarray(rows).save(out)


@torch.no_grad()
def whiten(settings, data, trained, out):
    """Turns the latent space so that, scaled by 0.18215, its channels have no mean, no correlation, variance one.

    The 4 x 4 transform goes into `quant_conv`, its inverse into `post_quant_conv`: pictures do not change.
    """
    vae, renders = load(trained), Renders(data)
    latents = torch.cat([vae.encode(renders.pixels(part))[0] for part in parts_of(settings.pictures)])
    flat = latents.permute(1, 0, 2, 3).flatten(1).double()
    mean = flat.mean(dim=1)
    values, vectors = torch.linalg.eigh(torch.cov(flat))
    scale = 1 / (values.sqrt() * models.LATENT_SCALE)
    turn = (scale[:, None] * vectors.T).float()
    offset = (-turn.double() @ mean).float()
    quant, post = vae.quant_conv, vae.post_quant_conv
    quant.weight[:4] = torch.einsum("ab,bchw->achw", turn, quant.weight[:4])
    quant.bias[:4] = turn @ quant.bias[:4] + offset
    # The log variances only keep their order of size; nothing reads them after training.
    quant.bias[4:] += 2 * scale.float().log().mean()
    back = torch.linalg.inv(turn)
    post.bias += post.weight[:, :, 0, 0] @ (-back @ offset)
    post.weight.copy_(torch.einsum("abhw,bc->achw", post.weight, back))
    save(out, dict(parts=dict(model=vae.state_dict())))


def load(path):
    vae = models.Vae(**models.VAE).to(memory_format=torch.channels_last).eval()
    vae.load_state_dict(torch.load(path, weights_only=True)["parts"]["model"])
    return vae


def parts_of(count, size=50):
    return [range(i, min(i + size, count)) for i in range(0, count, size)]


@torch.no_grad()
def latents(data, trained, out):
    """Writes the scaled latents of a data set, `[count, 4, 16, 16]` as f16. `.done` beside it counts those that a killed
    run had written."""
    vae, renders = load(trained), Renders(data)
    done, shape = Path(out).with_suffix(".done"), (len(renders), 4, 16, 16)
    mode = "r+" if done.exists() else "w+"
    table = np.lib.format.open_memmap(out, mode=mode, dtype=np.float16, shape=shape)
    first = int(done.read_text()) if done.exists() else 0
    for part in parts_of(len(renders)):
        if part.start < first:
            continue
        mean, _ = vae.encode(renders.pixels(part))
        table[part.start : part.stop] = (mean * models.LATENT_SCALE).numpy()
        if part.stop % 1000 == 0 or part.stop == len(renders):
            table.flush()
            done.write_text(str(part.stop))
            print(f"latents: {part.stop} of {len(renders)}", flush=True)
