"""Trains the autoencoder, whitens its latents, computes the latents of a data set."""

import copy
import csv
import math
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

import models
from data import Renders, generator, to_bytes
from optim import Muon

KL_WEIGHT = 1e-6


def batch_of(renders, args, step):
    """Crops at first, whole pictures from `--crop-steps` on: crops teach four times as often for the same work, but
    group norms see other statistics in them."""
    chance = generator(args.seed, step)
    if step >= args.crop_steps:
        return renders.pixels(torch.randint(len(renders), (args.batch // 2,), generator=chance)), chance
    pixels = renders.pixels(torch.randint(len(renders), (args.batch,), generator=chance))
    corners = torch.randint(9, (args.batch, 2), generator=chance) * 8
    crops = torch.stack([p[:, y : y + 64, x : x + 64] for p, (y, x) in zip(pixels, corners.tolist())])
    return crops.contiguous(memory_format=torch.channels_last), chance


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


def learning_rate(args, step):
    warm = min(1.0, (step + 1) / 50)
    return args.lr * warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / args.steps)))


def train(args):
    """Trains encoder and decoder; with `--decoder-only` the decoder on frozen, whitened latents; with `--anchor` both,
    the latents held near those of `--start`, so that a UNet that learned those need not begin anew."""
    torch.manual_seed(args.seed)
    vae = models.Vae(**models.VAE).to(memory_format=torch.channels_last)
    with torch.no_grad():
        vae.quant_conv.bias[4:] = -6  # noise of deviation 1 would drown the first latents
    if args.start:
        vae.load_state_dict(torch.load(args.start, weights_only=True))
    moved = list(vae.parameters())
    if args.decoder_only:
        vae.encoder.requires_grad_(False)
        vae.quant_conv.requires_grad_(False)
        moved = list(vae.decoder.parameters()) + list(vae.post_quant_conv.parameters())
    anchor = copy.deepcopy(vae).eval().requires_grad_(False) if args.anchor else None
    # A cell's mean colour has to be a linear function of its latent: easy to paint for the UNet, and a cure for the
    # grey that the first stage settles in.
    reader = torch.nn.Conv2d(4, 3, 1)
    if args.colour and not args.decoder_only:
        moved += list(reader.parameters())
    optimizers = optimizers_for(moved, args)
    step, state = 0, Path(args.out)
    if args.resume and state.exists():
        saved = torch.load(state, weights_only=True)
        vae.load_state_dict(saved["model"])
        reader.load_state_dict(saved["reader"])
        for optimizer, optimizer_state in zip(optimizers, saved["optimizers"]):
            optimizer.load_state_dict(optimizer_state)
        step = saved["step"]
    renders = Renders(args.data)
    log = csv.writer(open(state.with_suffix(".csv"), "a" if step else "w", buffering=1))
    started, seen, total, logged = time.time(), 0, 0.0, step
    while step < args.steps:
        pixels, chance = batch_of(renders, args, step)
        for group in [group for optimizer in optimizers for group in optimizer.param_groups]:
            group["lr"] = learning_rate(args, step)
        noise = torch.randn(len(pixels), 4, pixels.shape[2] // 8, pixels.shape[3] // 8, generator=chance)
        if args.decoder_only:
            with torch.no_grad():
                mean, _ = vae.encode(pixels)
            # The decoder also has to forgive what a sampler leaves behind.
            output = vae.decode(mean + args.latent_noise / models.LATENT_SCALE * noise)
            loss = reconstruction_loss(output, pixels)
        elif anchor:
            mean, _ = vae.encode(pixels)
            output = vae.decode(mean + args.latent_noise / models.LATENT_SCALE * noise)
            drift = (mean - anchor.encode(pixels)[0]) * models.LATENT_SCALE
            loss = reconstruction_loss(output, pixels) + args.anchor * drift.square().mean()
        else:
            output, mean, log_variance = vae(pixels, noise)
            kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(dim=(1, 2, 3)).mean()
            loss = reconstruction_loss(output, pixels) + KL_WEIGHT * kl
            if args.colour:
                loss = loss + 3 * F.mse_loss(reader(mean), F.avg_pool2d(pixels, 8))
        if args.colour:
            loss = loss + colour_loss(output, pixels)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(moved, 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        step, seen, total = step + 1, seen + len(pixels), total + loss.item()
        if step % 50 == 0:
            rate = seen / (time.time() - started)
            log.writerow([step, f"{total / (step - logged):.5f}", f"{rate:.1f}"])
            print(f"step {step} loss {total / (step - logged):.4f} {rate:.1f}/s", flush=True)
            total, logged = 0.0, step
        if step % 250 == 0 or step == args.steps:
            states = [optimizer.state_dict() for optimizer in optimizers]
            save(state, dict(model=vae.state_dict(), reader=reader.state_dict(), optimizers=states, step=step))
    torch.save(vae.state_dict(), state.with_suffix(".model.pt"))
    compare(vae, renders, state.with_suffix(".png"))


def optimizers_for(parameters, args):
    """AdamW; with `--colour`, Muon for the large matrices."""
    large = [p for p in parameters if args.colour and p.dim() >= 2 and p.shape[0] >= 16 and p[0].numel() >= 16]
    chosen = {id(p) for p in large}
    rest = [p for p in parameters if id(p) not in chosen]
    adam = torch.optim.AdamW(rest, lr=args.lr, betas=(0.9, 0.99), weight_decay=1e-4, fused=True)
    return [adam, Muon(large, lr=args.lr)] if large else [adam]


def save(path, state):
    torch.save(state, f"{path}.new")
    Path(f"{path}.new").replace(path)


@torch.no_grad()
def compare(vae, renders, out):
    """Draws pictures above their reconstructions."""
    from PIL import Image

    pixels = renders.pixels(range(0, 16))
    pairs = torch.cat([pixels[:8], vae.decode(vae.encode(pixels[:8])[0]), pixels[8:], vae.decode(vae.encode(pixels[8:])[0])])
    rows = to_bytes(pairs).reshape(4, 8, 128, 128, 3).transpose(0, 2, 1, 3, 4).reshape(512, 1024, 3)
    Image.fromarray(rows).save(out)


@torch.no_grad()
def whiten(args):
    """Turns the latent space so that, scaled by 0.18215, its channels have no mean, no correlation, variance one.

    The 4 x 4 transform goes into `quant_conv`, its inverse into `post_quant_conv`: pictures do not change.
    """
    vae = load(args.vae)
    renders = Renders(args.data)
    latents = torch.cat([vae.encode(renders.pixels(range(i, i + 50)))[0] for i in range(0, args.count, 50)])
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
    torch.save(vae.state_dict(), args.out)
    check = torch.cat([vae.encode(renders.pixels(range(i, i + 50)))[0] for i in range(0, 200, 50)]) * models.LATENT_SCALE
    print("mean", check.mean(dim=(0, 2, 3)).tolist(), "deviation", check.std(dim=(0, 2, 3)).tolist())


def load(path):
    vae = models.Vae(**models.VAE).to(memory_format=torch.channels_last).eval()
    vae.load_state_dict(torch.load(path, weights_only=True))
    return vae


@torch.no_grad()
def latents(args):
    """Writes the scaled latents of a data set, `[count, 4, 16, 16]` as f16, beside its pictures; resumes."""
    vae, renders = load(args.vae), Renders(args.data)
    out = np.lib.format.open_memmap(args.out, mode="w+", dtype=np.float16, shape=(args.count, 4, 16, 16))
    started = time.time()
    for start in range(0, args.count, 50):
        mean, _ = vae.encode(renders.pixels(range(start, start + 50)))
        out[start : start + 50] = (mean * models.LATENT_SCALE).numpy()
        if start % 2000 == 0:
            print(f"{start} of {args.count}, {start / (time.time() - started):.0f}/s", flush=True)
    out.flush()
