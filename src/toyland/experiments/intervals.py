"""Means with bootstrap intervals, over trainings first and pictures second."""

import numpy as np

DRAWS = 2000


def interval(groups, seed=0):
    """`(mean, low, high)` of values in groups, a group a training.

    The mean weighs groups alike. A draw takes groups with repetition, then values of each with repetition; the interval
    holds the middle 95 % of the draws' means. With one group it speaks of that training's pictures only.
    """
    groups = [np.asarray(group, dtype=float) for group in groups if len(group)]
    if not groups:
        return None
    return spread(np.mean([group.mean() for group in groups]), drawn(groups, np.random.default_rng(seed)))


def difference(first, second, seed=0):
    """`(mean, low, high)` of first minus second, group by group: the groups that both have, drawn together."""
    pairs = [(np.asarray(first[k], float), np.asarray(second[k], float)) for k in sorted(set(first) & set(second))]
    pairs = [(a, b) for a, b in pairs if len(a) and len(b)]
    if not pairs:
        return None
    chance = np.random.default_rng(seed)
    draws = []
    for _ in range(DRAWS):
        some = chance.integers(len(pairs), size=len(pairs))
        draws.append(np.mean([again(pairs[i][0], chance) - again(pairs[i][1], chance) for i in some]))
    return spread(np.mean([a.mean() - b.mean() for a, b in pairs]), draws)


def drawn(groups, chance):
    some = chance.integers(len(groups), size=(DRAWS, len(groups)))
    return [np.mean([again(groups[i], chance) for i in row]) for row in some]


def again(values, chance):
    return values[chance.integers(len(values), size=len(values))].mean()


def spread(mean, draws):
    low, high = np.percentile(draws, [2.5, 97.5])
    return float(mean), float(low), float(high)


def ranks(values):
    """Ranks from 0, equal values sharing their mean rank."""
    values = np.asarray(values, dtype=float)
    return np.array([(values < v).sum() + ((values == v).sum() - 1) / 2 for v in values])


def spearman(a, b):
    """The rank correlation."""
    a, b = ranks(a), ranks(b)
    if a.std() == 0 or b.std() == 0:
        return float("nan")
    return float(np.corrcoef(a, b)[0, 1])
