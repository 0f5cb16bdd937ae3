"""A small classifier that has only ever seen real renders, and says what is on a generated picture."""

import csv
import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import classifier
from data import Renders, to_pixels

CLASSES = dict(
    subject="bear cat duck dog robot mug car house tree fish mushroom boat".split(),
    colour="red orange yellow green blue purple pink white".split(),
    place=["beach", "snow", "forest", "city", "wooden floor", "under water", "night", "moon"],
    style=["flat", "line drawing", "pixel art"],
)


def classes_of(row):
    """The class numbers of a scene, in the order of [`CLASSES`]."""
    return [names.index(row[head]) for head, names in CLASSES.items()]


def singles(renders):
    """The numbers of the renders with one subject, and their classes, a row each."""
    rows = [(i, row) for i, row in enumerate(renders.meta) if len(row["actors"]) == 1]
    classes = [classes_of(dict(row["actors"][0], place=row["place"], style=row["style"])) for _, row in rows]
    return torch.tensor([i for i, _ in rows]), torch.tensor(classes)


def train(settings, data, out):
    renders = Renders(data)
    chosen, target = singles(renders)
    classifier.train(CLASSES, renders, chosen, target, settings, out)


def load(path):
    return classifier.load(CLASSES, path)


def verdicts(model, pixels):
    """The class numbers that the judge sees, `[pictures, heads]`."""
    return torch.stack([scores.argmax(1) for scores in classifier.probabilities(model, pixels).values()], dim=1)


def shares(seen, wanted):
    """The share of right verdicts by head."""
    return dict(zip(CLASSES, (seen == wanted).float().mean(dim=0).tolist()))


def pictures_of(folder):
    """The PNGs of a folder in the order of their names, as pixels of 128 x 128."""
    files = sorted(Path(folder).glob("*.png"))
    pictures = [np.asarray(Image.open(file).convert("RGB").resize((128, 128), Image.BOX)) for file in files]
    return to_pixels(torch.from_numpy(np.stack(pictures)))


def judge(model, folder, prompts, wrong=None):
    """Judges a folder of PNGs, the n-th in order of name against the n-th prompt. `wrong`: a CSV for the mistakes."""
    prompts, pixels = json.loads(Path(prompts).read_text()), pictures_of(folder)
    assert len(pixels) == len(prompts), f"{len(pixels)} pictures of {len(prompts)} prompts in {folder}"
    seen, wanted = verdicts(model, pixels), torch.tensor([classes_of(prompt) for prompt in prompts])
    if wrong:
        with open(wrong, "w", newline="") as out:
            table = csv.writer(out)
            table.writerow(["prompt", "attribute", "seen"])
            for prompt, row, right in zip(prompts, seen.tolist(), wanted.tolist()):
                for (head, names), found, due in zip(CLASSES.items(), row, right):
                    if found != due:
                        table.writerow([prompt["prompt"], head, names[found]])
    return shares(seen, wanted)


def contact_sheet(folder, out, columns=8, rows=8):
    """The first pictures of a folder, side by side."""
    pixels = pictures_of(folder)[: columns * rows]
    sheet = Image.new("RGB", (columns * 128, -(-len(pixels) // columns) * 128))
    for i, picture in enumerate(pixels):
        image = ((picture.permute(1, 2, 0) + 1) * 127.5).round().byte().numpy()
        sheet.paste(Image.fromarray(image), (i % columns * 128, i // columns * 128))
    sheet.save(out)
