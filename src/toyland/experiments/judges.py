"""What the judges say of pictures, and how alike pictures are."""

import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import graphs
from runner import REPOSITORY

sys.path.insert(0, str(REPOSITORY / "src/toyland/train"))

import identity  # noqa: E402
import judge  # noqa: E402
from data import Renders, to_pixels  # noqa: E402


def pixels(files):
    """Pictures `[n, 128, 128, 3]` as bytes."""
    return np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files])


class Judges:
    """The two judges and the features of the first.

    Features are what the heads of the class judge read, standardised over fresh renders. That judge has never seen an
    individual, so alikeness in them is not what the judge of individuals was trained on: they play DINO's part.
    """

    def __init__(self, folder):
        folder = Path(folder)
        files = [folder / "judge.pt", folder / "identity.pt"]
        self.classes, self.individuals = judge.load(files[0]), identity.load(files[1])
        self.name = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]
        known = folder / f"measured-{self.name}.pt"
        if not known.exists():
            torch.save(self.measure(folder), known)
        facts = torch.load(known, weights_only=True)
        self.middle, self.spread, self.own, self.renders = (facts[n] for n in ("middle", "spread", "own", "renders"))
        self.real = self.real_features()

    def real_features(self):
        folders = {name: REPOSITORY / "graphs/subjects" / name for name in graphs.CLASSES}
        return {name: self.features(bytes_to(pixels(sorted(folder.glob("*.png"))))) for name, folder in folders.items()}

    def measure(self, folder):
        """What fresh renders tell of the judges themselves."""
        fresh, marked = Renders(folder / "worldfresh"), Renders(folder / "identfresh")
        self.middle, self.spread = torch.zeros(256), torch.ones(256)
        seen = self.features(fresh.pixels(range(len(fresh))))
        self.middle, self.spread = seen.mean(0), seen.std(0).clamp(min=1e-6)
        self.real = self.real_features()
        own = dict(identity=identity.accuracy(self.individuals, marked), classes=self.class_accuracy(fresh))
        renders = {}
        for name in graphs.CLASSES:
            rows = [i for i, row in enumerate(marked.meta) if row["individuals"] == [name]]
            renders[name] = self.alikeness(marked.pixels(rows), name).mean().item()
        return dict(middle=self.middle, spread=self.spread, own=own, renders=renders)

    def class_accuracy(self, fresh):
        alone = judge.singles(fresh)
        rows = dict(zip(judge.CLASSES, zip(*[judge.labels(fresh.meta[i]) for i in alone])))
        return judge.shares(judge.verdicts(self.classes, fresh.pixels(alone.numpy())), rows)

    @torch.no_grad()
    def features(self, images):
        seen = torch.cat([self.classes.features(part) for part in images.split(64)])
        return (seen - self.middle) / self.spread

    def alikeness(self, images, subject):
        """The mean cosine to the real pictures of a subject, `[n]`."""
        ours = torch.nn.functional.normalize(self.features(images), dim=1)
        real = torch.nn.functional.normalize(self.real[subject], dim=1)
        return (ours @ real.T).mean(1)

    def rows(self, files, prompt, subjects, base=None):
        """A dict a picture: verdicts as 0 or 1, likeness, distance to the base's pictures of equal noise."""
        bytes_ = pixels(files)
        images = bytes_to(bytes_)
        sure = identity.probabilities(self.individuals, images)
        seen = judge.verdicts(self.classes, images)
        alike = {name: self.alikeness(images, name) for name in subjects}
        base = None if base is None else pixels(base).astype(np.float32) / 255
        rows = []
        for i in range(len(bytes_)):
            row = dict(role=prompt["role"], file=files[i].name)
            for name, classes in judge.CLASSES.items():
                if name in prompt:
                    row[name] = float(classes[seen[name][i]] == prompt[name])
            for name in subjects:
                row["found " + name] = float(sure[i, identity.NAMES.index(name)] > 0.5)
                row["alike " + name] = alike[name][i].item()
            picture = bytes_[i].astype(np.float32) / 255
            row["spread"] = float(picture.std())
            if base is not None:
                row["drift"] = float(np.sqrt(((picture - base[i]) ** 2).mean()))
            rows.append(row)
        return rows


def bytes_to(bytes_):
    return to_pixels(torch.from_numpy(bytes_)).contiguous(memory_format=torch.channels_last)


def greys(bytes_):
    """Grey pictures from 0 to 1, ITU-R 709."""
    return bytes_.astype(np.float64) @ np.array([0.2125, 0.7154, 0.0721]) / 255


def ssim(a, b, window=7):
    """The structural similarity of two grey pictures (Wang et al. 2004): uniform windows, sample covariance."""
    view = np.lib.stride_tricks.sliding_window_view
    a, b = view(a, (window, window)), view(b, (window, window))
    axes, unbiased = (-2, -1), window**2 / (window**2 - 1)
    ma, mb = a.mean(axes), b.mean(axes)
    va, vb = unbiased * a.var(axes), unbiased * b.var(axes)
    both = unbiased * ((a * b).mean(axes) - ma * mb)
    c1, c2 = 0.01**2, 0.03**2
    return float(((2 * ma * mb + c1) * (2 * both + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2))).mean())


def style_pictures(world, folder, count=12):
    """A subject folder for a style's LoRA: line drawings of the world, whose captions do not say that they are."""
    fresh = Renders(world)
    rows = [i for i, row in enumerate(fresh.meta) if row["style"] == "line drawing" and len(row["actors"]) == 1][:count]
    folder.mkdir(parents=True, exist_ok=True)
    captions = []
    for name, i in enumerate(rows):
        Image.fromarray(np.asarray(fresh.images[i])).save(folder / f"{name:02}.png")
        actor, place = fresh.meta[i]["actors"][0], fresh.meta[i]["place"]
        captions.append(f"a {actor['colour']} {actor['subject']} {PHRASES[place]}")
    (folder / "subject.json").write_text(json.dumps(dict(captions=captions, **{"class": "thing"}), indent=1))


PHRASES = {
    "beach": "on the beach",
    "snow": "in the snow",
    "forest": "in the forest",
    "city": "in the city",
    "wooden floor": "on a wooden floor",
    "under water": "under water",
    "night": "at night",
    "moon": "on the moon",
}
