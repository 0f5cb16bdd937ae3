"""Trains the UNet on precomputed latents and the text encoder's states: noise prediction, min-SNR weights, an EMA."""

import copy

import numpy as np
import torch

import models
import text
from data import generator, meta_of
from loop import Loop
from optim import Both

GAMMA = 5.0  # Hang et al. 2023, arXiv:2303.09556
EMPTY, STRANGERS = 0.07, 0.03  # shares of captions replaced by nothing and by unknown words

# Stable Diffusion 1's noise levels.
BETAS = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
ALPHAS = torch.cumprod(1 - BETAS, dim=0)


class Data:
    """Latents and captions, and the batch of any step."""

    def __init__(self, latents, captions):
        self.latents, self.captions = np.load(latents, mmap_mode="r"), captions

    def batch(self, settings, step):
        chance = generator(settings.seed, step)
        picked = torch.randint(len(self.latents), (settings.batch,), generator=chance)
        which = torch.randint(self.captions.of_picture.shape[1], (settings.batch,), generator=chance)
        words = [self.words(i, chance) for i in self.captions.of_picture[picked, which]]
        latents = torch.from_numpy(self.latents[picked.numpy()]).float()
        noise = torch.randn(latents.shape, generator=chance)
        # Evenly spread timesteps: the same mean as independent ones, less scatter from step to step.
        spread = (torch.arange(settings.batch) + torch.rand((), generator=chance)) / settings.batch
        return latents, noise, (spread * 1000).long().clamp(max=999), self.captions.pad(words)

    def words(self, caption, chance):
        u = torch.rand((), generator=chance).item()
        if u < EMPTY:
            return []
        if u < EMPTY + STRANGERS:
            return [text.UNKNOWN] * int(torch.randint(1, 9, (), generator=chance))
        return text.with_strangers(self.captions.words[caption], chance)


def learning_rate(settings, step):
    """Warm-up, then constant, then a straight line to a hundredth over the last `decay` part of the steps."""
    left = (settings.steps - step) / max(1, settings.decay * settings.steps)
    return settings.rate * min(1.0, (step + 1) / 200, max(0.01, left))


def train(settings, data, latents, text_encoder, out):
    torch.manual_seed(settings.seed)
    captions = text.Captions(meta_of(data))
    batches, encoder = Data(latents, captions), text.load(captions, text_encoder)
    unet = models.UNet(**models.UNET).to(memory_format=torch.channels_last)
    ema = copy.deepcopy(unet)
    optimizer = Both(unet, settings.rate)
    loop = Loop(out, settings.steps, dict(model=unet, ema=ema, optimizer=optimizer))
    ratios = (ALPHAS / (1 - ALPHAS)).float()
    for step in loop.left():
        latents, noise, t, tokens = batches.batch(settings, step)
        with torch.no_grad():
            states = encoder(tokens)
        alpha = ALPHAS[t].float()[:, None, None, None]
        noisy = alpha.sqrt() * latents + (1 - alpha).sqrt() * noise
        error = (unet(noisy, t, states) - noise).square().mean(dim=(1, 2, 3))
        loss = (error * (GAMMA / ratios[t]).clamp(max=1.0)).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
        optimizer.step(learning_rate(settings, step))
        decay = min(settings.ema, (2 + step) / (11 + step))
        with torch.no_grad():
            torch._foreach_lerp_(list(ema.parameters()), list(unet.parameters()), 1 - decay)
        loop.note(loss.item())
