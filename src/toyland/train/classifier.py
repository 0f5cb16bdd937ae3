"""A small network that names what is on a picture, and its training on real renders. The judges are two of them."""

import torch
import torch.nn as nn
import torch.nn.functional as F

from data import generator
from loop import Loop

RATE = 2e-3


class Classifier(nn.Module):
    """Pictures in -1..1 `[batch, 3, 128, 128]` to scores of each head's names. `heads`: lists of names by head."""

    def __init__(self, heads):
        super().__init__()

        def layer(inputs, out, stride):
            return [nn.Conv2d(inputs, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out), nn.ReLU()]

        widths = [(3, 32, 1), (32, 32, 2), (32, 64, 1), (64, 64, 2), (64, 96, 1), (96, 128, 2), (128, 128, 1)]
        self.body = nn.Sequential(*[part for width in widths for part in layer(*width)])
        self.heads = nn.ModuleDict({name: nn.Linear(256, len(names)) for name, names in heads.items()})

    def forward(self, pixels):
        h = self.features(pixels)
        return {name: head(h) for name, head in self.heads.items()}

    def features(self, pixels):
        """What the heads read, `[batch, 256]`."""
        h = self.body(F.avg_pool2d(pixels, 2))
        return torch.cat([h.mean(dim=(2, 3)), h.amax(dim=(2, 3))], dim=1)


def worn(pixels, chance):
    """Renders with the marks of a sampler on them: softened, slightly noisy, a little off in colour."""
    draw = torch.rand(4, generator=chance).tolist()
    if draw[0] < 0.3:
        pixels = F.avg_pool2d(pixels, 3, stride=1, padding=1, count_include_pad=False)
    elif draw[0] < 0.5:
        pixels = F.avg_pool2d(pixels, 5, stride=1, padding=2, count_include_pad=False)
    if draw[1] < 0.5:
        pixels = pixels + 0.1 * torch.randn(pixels.shape, generator=chance)
    tint = 0.05 * torch.randn((len(pixels), 3, 1, 1), generator=chance)
    gain = 1 + 0.08 * torch.randn((len(pixels), 1, 1, 1), generator=chance)
    return (pixels * gain + tint).clamp(-1, 1)


def one_of_each(scores, target):
    """The loss of heads that choose one name each; `target` has a column of class numbers a head."""
    return sum(F.cross_entropy(score, target[:, i]) for i, score in enumerate(scores.values()))


def train(heads, renders, chosen, target, settings, out, loss_of=one_of_each):
    """Trains on the renders of the numbers `chosen`, whose targets are the rows of `target`."""
    torch.manual_seed(settings.seed)
    model = Classifier(heads).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.02, fused=True)
    loop = Loop(out, settings.steps, dict(model=model, optimizer=optimizer))
    for step in loop.left():
        chance = generator(settings.seed, step)
        optimizer.param_groups[0]["lr"] = RATE * min(1, (step + 1) / 50) * (1 - step / settings.steps)
        picked = torch.randint(len(chosen), (settings.batch,), generator=chance)
        scores = model(worn(renders.pixels(chosen[picked].numpy()), chance))
        loss = loss_of(scores, target[picked])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        loop.note(loss.item())
    return model.eval()


def load(heads, path):
    model = Classifier(heads)
    model.load_state_dict(torch.load(path, weights_only=True)["parts"]["model"])
    return model.eval()


@torch.no_grad()
def probabilities(model, pixels):
    """How sure it is of each name, `[batch, names]` by head."""
    parts = [model(part) for part in pixels.split(64)]
    return {name: torch.cat([part[name] for part in parts]).softmax(dim=1) for name in parts[0]}
