"""Stable Diffusion 1's noise levels, and the sampler that tests use: Euler on the `normal` schedule, as `KSampler` has
them by default."""

import torch

import models

BETAS = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
ALPHAS = torch.cumprod(1 - BETAS, dim=0)
SIGMAS = ((1 - ALPHAS) / ALPHAS).sqrt()


def sigmas_normal(steps):
    t = torch.linspace(999, 0, steps, dtype=torch.float64)
    low = t.floor().long()
    high = (low + 1).clamp(max=999)
    logs = SIGMAS.log()
    return torch.cat([(logs[low] + (logs[high] - logs[low]) * (t - low)).exp(), torch.zeros(1, dtype=torch.float64)])


def timestep(sigma):
    return (SIGMAS.log() - sigma.log()).abs().argmin()


@torch.no_grad()
def euler(unet, condition, nothing, noise, steps=20, guidance=4.0):
    """Latents from noise `[batch, 4, h, w]` under states `[batch, 77, width]`; `nothing` is the empty prompt's."""
    sigmas = sigmas_normal(steps)
    x = noise * (1 + sigmas[0] ** 2).sqrt().float()
    context = torch.cat([nothing.expand(len(noise), -1, -1), condition])
    for sigma, following in zip(sigmas, sigmas[1:]):
        scaled = x / (sigma**2 + 1).sqrt().float()
        t = timestep(sigma).repeat(2 * len(x))
        without, with_ = unet(torch.cat([scaled, scaled]), t, context).chunk(2)
        noise_found = without + guidance * (with_ - without)
        x = x + noise_found * (following - sigma).float()
    return x


@torch.no_grad()
def to_pictures(vae, latents):
    return torch.cat([vae.decode(part / models.LATENT_SCALE) for part in latents.split(16)])
