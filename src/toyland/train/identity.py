"""A second classifier, for the personal subjects: which individuals, if any, a picture shows.

Like the judge it has only seen real renders. Its opposites are bears in the captain's yellow and the like, so colour
alone is not enough; what counts are the marks. Pairs teach it that two can be on one picture.
"""

import torch
import torch.nn.functional as F

import classifier
from data import Renders

NAMES = ["captain", "patches", "sprout", "starry"]
HEADS = dict(individual=NAMES)


def labels(renders):
    """1 where a picture shows an individual, `[pictures, 4]`."""
    return torch.tensor([[float(name in row["individuals"]) for name in NAMES] for row in renders.meta])


def any_of_all(scores, target):
    """The loss of one head whose names are each on a picture or not."""
    return F.binary_cross_entropy_with_logits(scores["individual"], target)


def train(settings, data, fresh, out):
    """Trains on one data set of `toyland identity`, and gives the shares of another that it judges rightly."""
    renders = Renders(data)
    everyone = torch.arange(len(renders))
    model = classifier.train(HEADS, renders, everyone, labels(renders), settings, out, any_of_all)
    return accuracy(model, Renders(fresh))


def accuracy(model, fresh):
    """Shares of fresh renders: all four verdicts right, an individual alone found, a pair found, nobody taken for one."""
    wanted = labels(fresh)
    right = ((probabilities(model, fresh.pixels(range(len(fresh)))) > 0.5) == wanted.bool()).all(dim=1)
    parts = dict(all=wanted.sum(1) >= 0, alone=wanted.sum(1) == 1, pair=wanted.sum(1) == 2, nobody=wanted.sum(1) == 0)
    return {name: round(right[which].float().mean().item(), 4) for name, which in parts.items()}


def load(path):
    return classifier.load(HEADS, path)


@torch.no_grad()
def probabilities(model, pixels):
    """How sure it is of each of [`NAMES`], `[batch, 4]`."""
    return torch.cat([model(part)["individual"].sigmoid() for part in pixels.split(64)])
