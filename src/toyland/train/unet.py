"""Trains the UNet on precomputed latents and the text encoder's states: noise prediction, min-SNR weights, an EMA."""

import copy
import csv
import json
import math
import time
from pathlib import Path

import numpy as np
import torch

import models
import text
from data import generator
from optim import Both
from sampling import ALPHAS
from vae import save

GAMMA = 5.0  # Hang et al. 2023, arXiv:2303.09556
EMPTY, STRANGERS = 0.07, 0.03  # shares of captions replaced by nothing and by unknown words


class Data:
    """Latents and captions, and the batch of any step."""

    def __init__(self, args):
        self.latents = np.load(args.latents, mmap_mode="r")
        meta = [json.loads(line) for line in open(Path(args.data) / "meta.jsonl")][: len(self.latents)]
        self.captions = text.Captions(meta, args.vocabulary)

    def batch(self, args, step):
        chance = generator(args.seed, step)
        picked = torch.randint(len(self.latents), (args.batch,), generator=chance)
        which = torch.randint(self.captions.of_picture.shape[1], (args.batch,), generator=chance)
        words = [self.words(i, chance) for i in self.captions.of_picture[picked, which]]
        latents = torch.from_numpy(self.latents[picked.numpy()]).float()
        noise = torch.randn(latents.shape, generator=chance)
        # Evenly spread timesteps: the same mean as independent ones, less scatter from step to step.
        spread = (torch.arange(args.batch) + torch.rand((), generator=chance)) / args.batch
        return latents, noise, (spread * 1000).long().clamp(max=999), self.captions.pad(words)

    def words(self, caption, chance):
        u = torch.rand((), generator=chance).item()
        if u < EMPTY:
            return []
        if u < EMPTY + STRANGERS:
            return [text.UNKNOWN] * int(torch.randint(1, 9, (), generator=chance))
        return text.with_strangers(self.captions.words[caption], chance)


def learning_rate(args, step):
    """Warm-up, then constant, then a straight line to a hundredth over the last `--decay` part of the steps."""
    left = (args.steps - step) / max(1, args.decay * args.steps)
    return args.lr * min(1.0, (step + 1) / 200, max(0.01, left))


def train(args):
    torch.manual_seed(args.seed)
    data = Data(args)
    saved_text = torch.load(args.text, weights_only=True)
    assert saved_text["used"] == data.captions.used, "the text encoder was warmed up on other captions"
    encoder = text.encoder(len(data.captions.used) + 1)
    encoder.load_state_dict(saved_text["model"])
    unet = models.UNet(**models.UNET).to(memory_format=torch.channels_last)
    joint = args.text_lr > 0
    networks = [(unet, 1.0)] + ([(encoder, args.text_lr)] if joint else [])
    optimizer = Both(networks, args.lr, muon=not args.adam)
    both = torch.nn.ModuleDict(dict(unet=unet, text=encoder))
    ema = copy.deepcopy(both)
    step, state = 0, Path(args.out)
    if args.resume and state.exists():
        saved = torch.load(state, weights_only=True)
        both.load_state_dict(saved["model"])
        ema.load_state_dict(saved["ema"])
        if [len(o["param_groups"]) for o in saved["optimizer"]] == [len(o.param_groups) for o in optimizer.all]:
            optimizer.load_state_dict(saved["optimizer"])
        step = saved["step"]
    log = csv.writer(open(state.with_suffix(".csv"), "a" if step else "w", buffering=1))
    ratios = (ALPHAS / (1 - ALPHAS)).float()
    begun, logged, started, total, saved_at = step, step, time.time(), 0.0, time.time()
    while step < args.steps:
        latents, noise, t, tokens = data.batch(args, step)
        with torch.set_grad_enabled(joint):
            states = encoder(tokens)
        alpha = ALPHAS[t].float()[:, None, None, None]
        noisy = alpha.sqrt() * latents + (1 - alpha).sqrt() * noise
        error = (unet(noisy, t, states) - noise).square().mean(dim=(1, 2, 3))
        loss = (error * (GAMMA / ratios[t]).clamp(max=1.0)).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(both.parameters(), 1.0)
        optimizer.step(learning_rate(args, step))
        step, total = step + 1, total + loss.item()
        decay = min(args.ema, (1 + step) / (10 + step))
        with torch.no_grad():
            torch._foreach_lerp_(list(ema.parameters()), list(both.parameters()), 1 - decay)
        if step % 50 == 0:
            rate = (step - begun) * args.batch / (time.time() - started)
            log.writerow([step, f"{total / (step - logged):.5f}", f"{rate:.1f}"])
            print(f"step {step} loss {total / (step - logged):.4f} {rate:.1f}/s", flush=True)
            total, logged = 0.0, step
        if time.time() - saved_at > 180 or step == args.steps or not math.isfinite(total):
            assert math.isfinite(total), f"the loss left the numbers at step {step}"
            optimizer_state = optimizer.state_dict()
            save(state, dict(model=both.state_dict(), ema=ema.state_dict(), optimizer=optimizer_state, step=step, used=data.captions.used))
            saved_at = time.time()
