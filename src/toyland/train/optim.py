"""Muon (Jordan et al. 2024): momentum whose matrices are made orthogonal before the step. Chosen because
a short run counts every sample; what it gains over AdamW here has not been measured."""

import torch


def orthogonal(update):
    """The nearest semi-orthogonal matrix to `[rows, columns]`, by five steps of a quintic Newton-Schulz iteration, in bf16 as
    its authors run it: half the time of f32."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = (update.T if update.shape[0] > update.shape[1] else update).bfloat16()
    x = x / (x.norm() + 1e-7)
    for _ in range(5):
        square = x @ x.T
        x = torch.addmm(x, torch.addmm(square, square, square, beta=b, alpha=c), x, beta=a)
    x = x.to(update.dtype)
    return x.T if update.shape[0] > update.shape[1] else x


class Muon(torch.optim.Optimizer):
    """For weights of two or more dimensions; convolutions count as matrices `[out, in * height * width]`. Steps are
    scaled to the size of AdamW's (Liu et al. 2025, arXiv:2502.16982, equation 4), so that rates carry over."""

    def __init__(self, params, lr, momentum=0.95, weight_decay=0.01):
        super().__init__(params, dict(lr=lr, momentum=momentum, weight_decay=weight_decay))

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                kept = self.state[weight].setdefault("momentum", torch.zeros_like(weight))
                kept.lerp_(weight.grad, 1 - group["momentum"])
                update = weight.grad.lerp(kept, group["momentum"]).flatten(1)
                update = orthogonal(update) * (0.2 * max(update.shape) ** 0.5)
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.add_(update.view_as(weight), alpha=-group["lr"])


class Both:
    """Muon for the matrices inside the UNet, AdamW for the rest: vectors, first and last layer."""

    def __init__(self, network, lr):
        matrices, rest = [], []
        for name, parameter in network.named_parameters():
            inside = parameter.dim() >= 2 and not any(part in name for part in ("out.2", "input_blocks.0."))
            (matrices if inside else rest).append(parameter)
        adam = torch.optim.AdamW(rest, lr=lr, betas=(0.9, 0.99), weight_decay=0.01, fused=True)
        self.all = [adam, Muon(matrices, lr=lr)]

    def step(self, lr):
        for optimizer in self.all:
            for group in optimizer.param_groups:
                group["lr"] = lr
            optimizer.step()
            optimizer.zero_grad()

    def state_dict(self):
        return [optimizer.state_dict() for optimizer in self.all]

    def load_state_dict(self, states):
        for optimizer, state in zip(self.all, states):
            optimizer.load_state_dict(state)
