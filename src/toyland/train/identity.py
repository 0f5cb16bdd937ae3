"""A second classifier, for the personal subjects: which individuals, if any, a picture shows.

Like the judge it has only seen real renders. Its opposites are bears in the captain's yellow and the like, so colour
alone is not enough; what counts are the marks. Pairs teach it that two can be on one picture.
"""

import torch
import torch.nn.functional as F

from data import Renders, generator
from judge import Judge, worn

NAMES = ["captain", "patches", "sprout", "starry"]
HEADS = dict(individual=NAMES)


def labels(renders):
    """1 where a picture shows an individual, `[pictures, 4]`."""
    return torch.tensor([[float(name in row["individuals"]) for name in NAMES] for row in renders.meta])


def train(args):
    torch.manual_seed(args.seed)
    renders, model = Renders(args.data), Judge(HEADS).to(memory_format=torch.channels_last)
    target = labels(renders)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.02, fused=True)
    for step in range(args.steps):
        chance = generator(args.seed, step)
        optimizer.param_groups[0]["lr"] = 2e-3 * min(1, (step + 1) / 50) * (1 - step / args.steps)
        picked = torch.randint(len(renders), (args.batch,), generator=chance)
        scores = model(worn(renders.pixels(picked.numpy()), chance))["individual"]
        loss = F.binary_cross_entropy_with_logits(scores, target[picked])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if (step + 1) % 50 == 0:
            print(f"step {step + 1} loss {loss.item():.4f}", flush=True)
    torch.save(model.state_dict(), args.out)
    print("on fresh renders:", accuracy(load(args.out), Renders(args.fresh)))


def accuracy(model, fresh):
    """Shares of fresh renders: all four verdicts right, an individual alone found, a pair found, nobody taken for one."""
    wanted = labels(fresh)
    right = ((probabilities(model, fresh.pixels(range(len(fresh)))) > 0.5) == wanted.bool()).all(dim=1)
    parts = dict(all=wanted.sum(1) >= 0, alone=wanted.sum(1) == 1, pair=wanted.sum(1) == 2, nobody=wanted.sum(1) == 0)
    return {name: round(right[which].float().mean().item(), 4) for name, which in parts.items()}


def load(path):
    model = Judge(HEADS)
    model.load_state_dict(torch.load(path, weights_only=True))
    return model.eval()


@torch.no_grad()
def probabilities(model, pixels):
    """How sure it is of each of [`NAMES`], `[batch, 4]`."""
    return torch.cat([model(part)["individual"].sigmoid() for part in pixels.split(64)])
