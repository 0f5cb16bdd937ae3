"""Warms up the text encoder: before any picture, it learns to say what a caption names.

From every padding state, linear heads read each attribute of the scene. A UNet that attends to such states starts with
the words sorted out, and saves the hours in which it would have to teach them.
"""

import torch
import torch.nn as nn
import torch.nn.functional as F

import models
from data import generator, meta_of
from loop import Loop
from tokenizer import BEGIN, END, LENGTH, Tokenizer

UNKNOWN = 0  # row of the compact vocabulary for every token that no caption uses; its embedding is and stays zero

SUBJECTS = "bear cat duck dog robot mug car house tree fish mushroom boat".split()
COLOURS = "red orange yellow green blue purple pink white".split()
PLACES = ["beach", "snow", "forest", "city", "wooden floor", "under", "night", "moon"]
SIZES = {"small": 1, "little": 1, "tiny": 1, "big": 2, "large": 2}
POSITIONS = {"left": 1, "right": 2, "middle": 3}
STYLES = ["line", "pixel"]
HEADS = dict(
    subject=13, colour=9, size=3, second_subject=13, second_colour=9, second_size=3, place=9, style=3, position=4
)


def named(caption):
    """What a caption names, as a class number a head; 0 is "not said"."""
    words = caption.replace(",", " ").split()
    found = dict.fromkeys(HEADS, 0)
    subjects = [i for i, word in enumerate(words) if word in SUBJECTS]
    for prefix, at in zip(["", "second_"], subjects):
        found[prefix + "subject"] = 1 + SUBJECTS.index(words[at])
        before = words[max(0, at - 2) : at]
        found[prefix + "colour"] = next((1 + COLOURS.index(w) for w in before if w in COLOURS), 0)
        found[prefix + "size"] = next((SIZES[w] for w in before if w in SIZES), 0)
    found["place"] = next((1 + i for i, place in enumerate(PLACES) if place in caption), 0)
    found["style"] = next((1 + i for i, style in enumerate(STYLES) if style in words), 0)
    found["position"] = next((POSITIONS[w] for w in words if w in POSITIONS), 0)
    return [found[head] for head in HEADS]


class Captions:
    """Every distinct caption of a data set as compact token ids, and which of them belong to which picture."""

    def __init__(self, meta):
        tokenizer = Tokenizer()
        numbers, self.texts, self.of_picture = {}, [], []
        for row in meta:
            for text in row["captions"]:
                if text not in numbers:
                    numbers[text] = len(numbers)
                    self.texts.append(text)
            self.of_picture.append([numbers[text] for text in row["captions"]])
        self.of_picture = torch.tensor(self.of_picture)
        self.words = [tokenizer.words(text) for text in self.texts]
        self.used = sorted({i for ids in self.words for i in ids} | {BEGIN, END})
        self.compact = {token: 1 + row for row, token in enumerate(self.used)}
        self.begin, self.end = self.compact[BEGIN], self.compact[END]
        self.words = [[self.compact[i] for i in ids] for ids in self.words]

    def pad(self, words):
        """Token ids `[batch, 77]` of lists of words."""
        rows = [[self.begin] + w[: LENGTH - 2] + [self.end] * (LENGTH - 1 - min(len(w), LENGTH - 2)) for w in words]
        return torch.tensor(rows)


def with_strangers(words, chance):
    """A caption as people write it: one in sixteen has a word or two that the model never learns."""
    if torch.rand((), generator=chance) > 1 / 16:
        return words
    at = int(torch.randint(len(words) + 1, (), generator=chance))
    count = int(torch.randint(1, 3, (), generator=chance))
    return words[:at] + [UNKNOWN] * count + words[at:]


def encoder(vocabulary_size):
    model = models.TextEncoder(**models.TEXT, vocabulary=vocabulary_size)
    table = model.embeddings["token_embedding"]
    table.padding_idx = UNKNOWN  # keeps its gradient zero
    with torch.no_grad():
        table.weight[UNKNOWN] = 0
    return model


def batch_of(captions, labels, settings, step):
    """Token ids, where each caption ends, and what it names."""
    chance = generator(settings.seed, step)
    picked = torch.randint(len(captions.texts), (settings.batch,), generator=chance)
    words = [with_strangers(captions.words[i], chance) for i in picked]
    target = labels[picked]
    for i in range(settings.batch // 16):  # nothing but strangers says nothing
        words[i], target[i] = [UNKNOWN] * int(torch.randint(0, 9, (), generator=chance)), 0
    ends = torch.tensor([1 + len(w) for w in words])
    later = ends + (torch.rand(len(ends), generator=chance) * (LENGTH - ends)).long()
    return captions.pad(words), (ends, later), target


def train(settings, data, out):
    torch.manual_seed(settings.seed)
    captions = Captions(meta_of(data))
    labels = torch.tensor([named(text) for text in captions.texts])
    model = encoder(len(captions.used) + 1)
    heads = nn.ModuleDict({name: nn.Linear(models.TEXT["width"], size) for name, size in HEADS.items()})
    moved = [*model.parameters(), *heads.parameters()]
    optimizer = torch.optim.AdamW(moved, lr=settings.rate, weight_decay=0.01, fused=True)
    loop = Loop(out, settings.steps, dict(model=model, heads=heads, optimizer=optimizer))
    rows = torch.arange(settings.batch)
    for step in loop.left():
        for group in optimizer.param_groups:
            group["lr"] = settings.rate * min(1, (step + 1) / 50) * (1 - step / settings.steps)
        tokens, places, target = batch_of(captions, labels, settings, step)
        states, loss = model(tokens), 0.0
        for at in places:
            read = states[rows, at]
            for column, head in enumerate(heads.values()):
                loss = loss + F.cross_entropy(head(read), target[:, column]) / (2 * len(heads))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        loop.note(loss.item())


def load(captions, path):
    """The trained encoder over the compact vocabulary of those captions."""
    model = encoder(len(captions.used) + 1)
    model.load_state_dict(torch.load(path, weights_only=True)["parts"]["model"])
    return model.eval().requires_grad_(False)
