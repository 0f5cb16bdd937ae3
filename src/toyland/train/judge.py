"""A small classifier that has only ever seen real renders, and says what is on a generated picture."""

import csv
import json
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from PIL import Image

from data import Renders, generator, to_bytes, to_pixels

CLASSES = dict(
    subject="bear cat duck dog robot mug car house tree fish mushroom boat".split(),
    colour="red orange yellow green blue purple pink white".split(),
    place=["beach", "snow", "forest", "city", "wooden floor", "under water", "night", "moon"],
    style=["flat", "line drawing", "pixel art"],
)


class Judge(nn.Module):
    def __init__(self, classes=CLASSES):
        super().__init__()

        def layer(inputs, out, stride):
            return [nn.Conv2d(inputs, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out), nn.ReLU()]

        widths = [(3, 32, 1), (32, 32, 2), (32, 64, 1), (64, 64, 2), (64, 96, 1), (96, 128, 2), (128, 128, 1)]
        self.body = nn.Sequential(*[part for width in widths for part in layer(*width)])
        self.heads = nn.ModuleDict({name: nn.Linear(256, len(names)) for name, names in classes.items()})

    def features(self, pixels):
        """What the heads read, `[batch, 256]`."""
        h = self.body(F.avg_pool2d(pixels, 2))
        return torch.cat([h.mean(dim=(2, 3)), h.amax(dim=(2, 3))], dim=1)

    def forward(self, pixels):
        h = self.features(pixels)
        return {name: head(h) for name, head in self.heads.items()}


def labels(meta):
    row = dict(meta["actors"][0], place=meta["place"], style=meta["style"])
    return [classes.index(row[name]) for name, classes in CLASSES.items()]


def singles(renders):
    return torch.tensor([i for i, row in enumerate(renders.meta) if len(row["actors"]) == 1])


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


def train(args):
    torch.manual_seed(args.seed)
    renders, model = Renders(args.data), Judge().to(memory_format=torch.channels_last)
    chosen = singles(renders)
    target = torch.tensor([labels(renders.meta[i]) for i in chosen])
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.02, fused=True)
    started = time.time()
    for step in range(args.steps):
        chance = generator(args.seed, step)
        optimizer.param_groups[0]["lr"] = 2e-3 * min(1, (step + 1) / 50) * (1 - step / args.steps)
        picked = torch.randint(len(chosen), (args.batch,), generator=chance)
        scores = model(worn(renders.pixels(chosen[picked].numpy()), chance))
        loss = sum(F.cross_entropy(s, target[picked, i]) for i, s in enumerate(scores.values()))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if (step + 1) % 50 == 0:
            print(f"step {step + 1} loss {loss.item():.4f} {(step + 1) * args.batch / (time.time() - started):.0f}/s", flush=True)
    torch.save(model.state_dict(), args.out)
    fresh = Renders(args.fresh)
    chosen = singles(fresh)
    rows = dict(zip(CLASSES, zip(*[labels(fresh.meta[i]) for i in chosen])))
    print("on fresh renders:", shares(verdicts(load(args.out), fresh.pixels(chosen.numpy())), rows))


def load(path):
    model = Judge()
    model.load_state_dict(torch.load(path, weights_only=True))
    return model.eval()


@torch.no_grad()
def verdicts(model, pixels):
    """The class numbers that the judge sees, a tensor a head."""
    parts = [model(part) for part in pixels.split(64)]
    return {name: torch.cat([part[name].argmax(1) for part in parts]) for name in CLASSES}


def shares(seen, wanted):
    """The share of right verdicts, a head each."""
    return {n: round((seen[n] == torch.tensor(wanted[n])).float().mean().item(), 4) for n in CLASSES}


def wanted(prompts):
    return {name: [classes.index(prompt[name]) for prompt in prompts] for name, classes in CLASSES.items()}


def judge(args):
    """Judges a folder of PNGs, the n-th in order of name against the n-th prompt; any size."""
    files = sorted(Path(args.pictures).glob("*.png"))
    prompts = json.load(open(args.prompts))[: len(files)]
    pictures = [np.asarray(Image.open(file).convert("RGB").resize((128, 128), Image.BOX)) for file in files]
    seen = verdicts(load(args.judge), to_pixels(torch.from_numpy(np.stack(pictures))))
    target = wanted(prompts)
    print(len(files), "pictures:", shares(seen, target))
    if args.wrong:
        with open(args.wrong, "w", newline="") as out:
            table = csv.writer(out)
            table.writerow(["prompt", "attribute", "seen"])
            for i, prompt in enumerate(prompts):
                for name, classes in CLASSES.items():
                    if seen[name][i] != target[name][i]:
                        table.writerow([prompt["prompt"], name, classes[seen[name][i]]])


@torch.no_grad()
def sample(args):
    """Draws prompts with a checkpoint: PNGs into a folder, and a contact sheet beside it."""
    import export
    import text
    from sampling import euler, to_pictures

    unet, encoder, autoencoder, used = export.networks(args.checkpoint)
    tokenizer = text.Tokenizer(args.vocabulary)
    prompts = [p["prompt"] for p in json.load(open(args.prompts))[: args.count]]
    states = encoder(torch.tensor([tokenizer(prompt) for prompt in prompts]))
    nothing = encoder(torch.tensor([tokenizer("")]))
    noise = torch.cat([torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(i)) for i in range(len(prompts))])
    started = time.time()
    parts = [
        euler(unet, s, nothing, n, steps=args.steps, guidance=args.cfg) for s, n in zip(states.split(32), noise.split(32))
    ]
    pictures = to_bytes(to_pictures(autoencoder, torch.cat(parts)))
    print(f"{(time.time() - started) / len(prompts):.2f} s a picture")
    folder = Path(args.out)
    folder.mkdir(parents=True, exist_ok=True)
    for index, picture in enumerate(pictures):
        Image.fromarray(picture).save(folder / f"{index:04}.png")
    columns = 8
    rows = min(len(pictures), 64) // columns
    grid = pictures[: rows * columns].reshape(rows, columns, 128, 128, 3).transpose(0, 2, 1, 3, 4)
    Image.fromarray(grid.reshape(rows * 128, columns * 128, 3)).save(folder.with_suffix(".sheet.png"))
