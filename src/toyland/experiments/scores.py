"""From cells to numbers: what the judges say of each cell's pictures, grouped for the intervals."""

import itertools
import json

import numpy as np

import graphs
import judges as looking
import plan
from intervals import difference, interval

# A measure takes the rows of one training's pictures and gives its values, a picture each.
MEASURES = {
    "found": lambda rows, s: [r["found " + s] for r in rows if r["role"] == "individual"],
    "alike": lambda rows, s: [r["alike " + s] for r in rows if r["role"] == "individual"],
    "place": lambda rows, s: [r["place"] for r in rows if r["role"] == "individual"],
    "style": lambda rows, s: [r["style"] for r in rows if r["role"] == "style"],
    "both": lambda rows, s: [r["place"] * r["found " + s] for r in rows if r["role"] == "individual"],
    "class": lambda rows, s: [r["colour"] * r["subject"] for r in rows if r["role"] == "class"],
    "others": lambda rows, s: [r["colour"] * r["subject"] for r in rows if r["role"] == "other"],
    "drift": lambda rows, s: [r["drift"] for r in rows if r["role"] in ("other", "class")],
    "spread": lambda rows, s: [r["spread"] for r in rows if r["role"] == "individual"],
}
WORDS = dict(
    found="individual found",
    alike="likeness",
    place="place followed",
    both="found in the right place",
    style="style followed",
    **{"class": "class kept"},
    others="others kept",
    drift="drift",
    spread="contrast",
)


class Scored:
    """An experiment's rows that were run: label, to group, to rows of pictures."""

    def __init__(self, rows, runner, judge, subjects_of=lambda group: [group[0]]):
        self.rows, self.files, self.cells = {}, {}, {}
        for label, group, cell in rows:
            files = runner.cell(cell)
            base = runner.cell(plan.cell([], cell["prompts"]))
            if files is None or base is None:
                continue
            kept = runner.work / "results" / f"{graphs.key(cell)}.{judge.name}.json"
            if not kept.exists():
                seen = []
                for prompt, some, plain in zip(cell["prompts"], files, base):
                    seen += judge.rows(some, prompt, subjects_of(group), plain)
                kept.write_text(json.dumps(seen))
            self.rows.setdefault(label, {})[group] = json.loads(kept.read_text())
            self.files.setdefault(label, {})[group] = files
            self.cells.setdefault(label, {})[group] = cell

    def values(self, label, measure):
        """Group to values."""
        return {g: MEASURES[measure](rows, g[0]) for g, rows in self.rows.get(label, {}).items()}

    def interval(self, label, measure):
        return interval(list(self.values(label, measure).values()))

    def difference(self, first, second, measure):
        return difference(self.values(first, measure), self.values(second, measure))

    def counts(self, label):
        """Subjects, trainings and pictures."""
        groups = self.rows.get(label, {})
        return len({g[0] for g in groups}), len(groups), sum(len(rows) for rows in groups.values())


def pair_ssim(files):
    """The mean similarity of every pair of pictures."""
    greys = looking.greys(looking.pixels(files))
    return [looking.ssim(a, b) for a, b in itertools.combinations(greys, 2)]


def ssim_to(files, picture):
    """The similarity of each picture to one."""
    (other,) = looking.greys(looking.pixels([picture]))
    return [looking.ssim(grey, other) for grey in looking.greys(looking.pixels(files))]


def largest_difference(first, second):
    """The greatest difference of a channel, in steps of 255."""
    return int(np.abs(looking.pixels(first).astype(int) - looking.pixels(second).astype(int)).max())
