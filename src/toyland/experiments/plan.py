"""What is compared with what: the cells of each experiment.

An experiment gives cells with labels; two that need the same training or the same pictures share them, because both are
named by content. `Options` cut it down: fewer seeds, fewer steps, fewer subjects.
"""

import itertools
from dataclasses import dataclass, field

import graphs
from graphs import CLASSES, STYLE_SET, training

BEST = dict(
    projection=dict(kind="para", mode="projection", rank=8, angular_rate=0.4),
    deft=dict(kind="para", mode="deft", rank=4, angular_rate=0.15),
    release=dict(kind="para", mode="release", init="unit", rank=4, angular_rate=0.15),
    lora=dict(kind="lora", rank=4, learning_rate=0.01),
    svdiff=dict(kind="svdiff", learning_rate=0.03),
)
METHODS = list(BEST)
NAMES = dict(
    base="base, nothing applied",
    projection="PaRa, rank 8",
    deft="DEFT, rank 4",
    release="release, rank 4",
    lora="LoRA, rank 4",
    svdiff="SVDiff",
)
PLACES = [
    ("beach", "on the beach"),
    ("snow", "in the snow"),
    ("forest", "in the forest"),
    ("city", "in the city"),
    ("wooden floor", "on a wooden floor"),
    ("under water", "under water"),
    ("night", "at night"),
    ("moon", "on the moon"),
]
OTHERS = [
    ("red", "car", "beach", "on the beach"),
    ("green", "house", "snow", "in the snow"),
    ("blue", "duck", "forest", "in the forest"),
    ("orange", "fish", "under water", "under water"),
]


@dataclass
class Options:
    seeds: int = 1
    steps: int = 100
    subjects: list = field(default_factory=lambda: list(CLASSES))


def best(method, subject, options, seed=1, **changes):
    made = {**BEST[method], "steps": options.steps, "validate_every": options.steps, "seed": seed, **changes}
    return training(made.pop("kind"), subject, **made)


def cell(trainings, prompts, combine="chain"):
    return dict(trainings=trainings, combine=combine, prompts=prompts)


def single_prompts(subject):
    """The individual everywhere and in other styles; other subjects; others of its class."""
    noun = CLASSES[subject]
    rows = [
        dict(role="individual", text=f"a sks {noun} {words}", pictures=1, noise=100 + i, subject=noun, place=place)
        for i, (place, words) in enumerate(PLACES)
    ]
    for i, (style, words) in enumerate([("line drawing", "line drawing of"), ("pixel art", "pixel art of")]):
        for j, (place, where) in enumerate(PLACES[:2]):
            text = f"{words} a sks {noun} {where}"
            rows.append(dict(role="style", text=text, pictures=1, noise=200 + 2 * i + j, subject=noun, place=place, style=style))
    for i, (colour, other, place, where) in enumerate(OTHERS):
        text = f"a {colour} {other} {where}"
        rows.append(dict(role="other", text=text, pictures=1, noise=300 + i, subject=other, colour=colour, place=place))
    for i, colour in enumerate(["red", "blue", "green", "pink"]):
        place, where = PLACES[i + 2]
        text = f"a {colour} {noun} {where}"
        rows.append(dict(role="class", text=text, pictures=1, noise=400 + i, subject=noun, colour=colour, place=place))
    return rows


def style_prompts(subject):
    noun = CLASSES[subject]
    return [
        dict(role="individual", text=f"a sks {noun} {words}", pictures=2, noise=100 + i, subject=noun, place=place, style="line drawing")
        for i, (place, words) in enumerate(PLACES[:4])
    ]


# What an individual is called where its colour is said, and where its first four pictures show it.
COLOURED = dict(
    captain=("a yellow sks bear", ["on the beach", "in the snow", "in the forest", "in the city"]),
    patches=("a white sks cat", ["on a wooden floor", "on the beach", "in the city", "at night"]),
    sprout=("a purple sks robot", ["in the forest", "on the moon", "in the snow", "on a wooden floor"]),
)


def called(name, coloured):
    return COLOURED[name][0] if coloured else f"a sks {CLASSES[name]}"


def pair_prompts(first, second, coloured):
    rows = []
    for name, seed in [(first, 100), (second, 100)]:
        for i, (place, words) in enumerate(PLACES[:4]):
            rows.append(dict(role=name, text=f"{called(name, coloured)} {words}", pictures=1, noise=seed + i, place=place))
    for i, (place, words) in enumerate(PLACES[:4]):
        text = f"{called(first, coloured)} and {called(second, coloured)} {words}"
        rows.append(dict(role="both", text=text, pictures=2, noise=500 + i, place=place))
    return rows


def edit_prompts(subject):
    """The picture's own prompt and two edits, six noises each."""
    noun = CLASSES[subject]
    return [
        dict(role="same", text=f"a sks {noun} {own(subject)}", pictures=6, noise=600, subject=noun),
        dict(role="place", text=f"a sks {noun} under water", pictures=6, noise=600, subject=noun, place="under water"),
        dict(role="style", text=f"line drawing of a sks {noun} {own(subject)}", pictures=6, noise=600, subject=noun, style="line drawing"),
    ]


FIRST_PLACES = dict(captain="on the beach", patches="on a wooden floor", sprout="in the forest", starry="on a wooden floor")


def own(subject):
    """Where the first picture of a subject shows it."""
    return FIRST_PLACES[subject]


def main(options):
    """B: every method on every subject and seed, at equal steps and each at its best rate. Rows of (method, group, cell)."""
    rows = [("base", (s, 0), cell([], single_prompts(s))) for s in options.subjects]
    for seed in range(1, options.seeds + 1):
        for s in options.subjects:
            for method in METHODS:
                rows.append((method, (s, seed), cell([best(method, s, options, seed)], single_prompts(s))))
    return rows


def rank(options):
    """C: rank 1 to 16 of the projection. Where 8 bounds narrow layers, gamma rises with the rank."""
    rows = []
    for r in [1, 2, 4, 8, 16]:
        for s in options.subjects[:2]:
            gamma = dict(gamma=0.25) if r > 8 else {}
            rows.append((r, (s, 1), cell([best("projection", s, options, rank=r, **gamma)], single_prompts(s))))
    return rows


def subset(options):
    """D: which layers."""
    names = ["exca", "full", "wide", "sao", "cao"]
    s = options.subjects[0]
    return [(n, (s, 1), cell([best("projection", s, options, layers=n)], single_prompts(s))) for n in names]


def style_lora(options):
    return training("lora", STYLE_SET, count=12, rank=4, learning_rate=0.004, layers="full", steps=150, validate_every=150)


def order(options):
    """E: a subject's adapter and a style's LoRA, in both orders."""
    rows, style = [], style_lora(options)
    for s in options.subjects[:2]:
        prompts, group = style_prompts(s), (s, 1)
        rows.append(("LoRA alone", group, cell([style], prompts)))
        for method in ["projection", "deft"]:
            own = best(method, s, options)
            name = NAMES[method]
            rows.append((f"{name} alone", group, cell([own], prompts)))
            rows.append((f"{name}, then LoRA", group, cell([own, style], prompts)))
            rows.append((f"LoRA, then {name}", group, cell([style, own], prompts)))
    return rows


def two(options):
    """F: two subjects on one model, every pair of three, with and without the colour in captions and prompts."""
    rows = []
    for coloured in (True, False):
        for first, second in itertools.combinations(COLOURED, 2):
            prompts, group = pair_prompts(first, second, coloured), (f"{first}, {second}", 1)

            def made(method):
                return [best(method, s, options, **told(s, coloured)) for s in (first, second)]

            def row(label, trainings, combine="chain"):
                rows.append((label + ('' if coloured else ', no colour'), group, cell(trainings, prompts, combine)))

            row("base", [])
            row("PaRa, sequential", made("projection"))
            if coloured:
                row("PaRa, sequential, reversed", made("projection")[::-1])
                row("PaRa, union", made("projection"), "union")
                row("PaRa, additive", made("projection"), "additive")
            row(NAMES["deft"], made("deft"))
            row(NAMES["lora"], made("lora"))
    return rows


def told(name, coloured):
    """The captions of a training that says the colour; those of the folder else."""
    words, places = COLOURED[name]
    return dict(captions="\n".join(f"{words} {place}" for place in places)) if coloured else {}


def edit(options):
    """G: one picture learned, the rest asked for."""
    rows = []
    for s in options.subjects[:1]:
        prompts = edit_prompts(s)
        rows.append(("base", (s, 0), cell([], prompts)))
        for method in METHODS:
            rows.append((method, (s, 1), cell([best(method, s, options, count=1)], prompts)))
    return rows


def gamma(options):
    """H: how much of each layer may go. Rank 64, so that gamma alone bounds."""
    s = options.subjects[0]
    shares = [1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32]
    return [(g, (s, 1), cell([best("projection", s, options, rank=96, gamma=g)], single_prompts(s))) for g in shares]


def sweep(options):
    """A: settings of the projection, judged by the loss on noise that stays the same. Rows of (words, training)."""
    rows = []
    for words, kind, changes in SWEEP:
        for s in options.subjects[:1]:
            rows.append((words, s, training(kind, s, **{"steps": options.steps, "validate_every": options.steps, **changes})))
    return rows


SWEEP = [
    *[(f"rank 8, angular rate {a}", "para", dict(angular_rate=a)) for a in (0.05, 0.15, 0.4, 0.8)],
    *[(f"rank 8, angular rate {a}, start `min_energy`", "para", dict(angular_rate=a, init="min_energy")) for a in (0.15, 0.4)],
    ("rank 8, angular rate 0.3, cosine", "para", dict(angular_rate=0.3, schedule="cosine")),
    ("rank 4, angular rate 0.15", "para", dict(rank=4)),
    *[(f"rank 16 (gamma 1/4), angular rate {a}", "para", dict(rank=16, gamma=0.25, angular_rate=a)) for a in (0.15, 0.4)],
    *[(f"rank 8, angular rate 0.15, layers `{n}`", "para", dict(layers=n)) for n in ("full", "wide")],
    *[(f"DEFT, rank {r}, angular rate {a}", "para", dict(mode="deft", rank=r, angular_rate=a)) for r, a in ((4, 0.15), (4, 0.4), (8, 0.15))],
    *[(f"release, rank {r}, angular rate {a}", "para", dict(mode="release", init="unit", rank=r, angular_rate=a)) for r, a in ((4, 0.15), (8, 0.15))],
    *[(f"LoRA, rank 4, rate {a}", "lora", dict(learning_rate=a)) for a in (0.001, 0.003, 0.01, 0.03)],
    *[(f"SVDiff, rate {a}", "svdiff", dict(learning_rate=a)) for a in (0.01, 0.03, 0.1)],
]


def export(options):
    """The same PaRa, applied and exported: the pictures must be equal."""
    own = [best("projection", options.subjects[0], options)]
    prompts = single_prompts(options.subjects[0])[:2]
    return [("applied", None, cell(own, prompts)), ("exported", None, cell(own, prompts, "export"))]


EXPERIMENTS = dict(main=main, rank=rank, subset=subset, order=order, two=two, edit=edit, gamma=gamma, export=export)
