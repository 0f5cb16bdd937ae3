"""A second classifier, for the personal subjects: which individual, if any, a picture shows.

Like the judge it has only seen real renders. Its opposite is a bear in the captain's yellow, so colour alone is not
enough; what counts are the marks.
"""

import torch
import torch.nn.functional as F

from data import Renders, generator
from judge import Judge, worn

NAMES = ["nobody", "captain", "patches", "sprout", "starry"]
HEADS = dict(individual=NAMES)


def labels(renders):
    return torch.tensor([NAMES.index(row["individual"] or "nobody") for row in renders.meta])


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
        loss = F.cross_entropy(scores, target[picked])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if (step + 1) % 50 == 0:
            print(f"step {step + 1} loss {loss.item():.4f}", flush=True)
    torch.save(model.state_dict(), args.out)
    fresh = Renders(args.fresh)
    seen = probabilities(load(args.out), fresh.pixels(range(len(fresh)))).argmax(dim=1)
    print("on fresh renders:", round((seen == labels(fresh)).float().mean().item(), 4))


def load(path):
    model = Judge(HEADS)
    model.load_state_dict(torch.load(path, weights_only=True))
    return model.eval()


@torch.no_grad()
def probabilities(model, pixels):
    """How sure it is of each of [`NAMES`], `[batch, 5]`."""
    return torch.cat([model(part)["individual"].softmax(dim=1) for part in pixels.split(64)])
