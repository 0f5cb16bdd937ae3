"""Writes `docs/experiments.md` with its plots and pictures from whatever was run; what was not run is not on it."""

import numpy as np

import charts
import graphs
import plan
import words
from intervals import interval, spearman
from plan import NAMES
from scores import WORDS, Scored, largest_difference, pair_ssim, ssim_to


class Page:
    def __init__(self, runner, judge, options, docs, only):
        self.runner, self.judge, self.options, self.only = runner, judge, options, only
        self.docs, self.pictures = docs, docs / "experiments"
        self.pictures.mkdir(parents=True, exist_ok=True)
        self.out = []

    def write(self):
        self.say(words.INTRODUCTION)
        notes = self.pictures / "notes.md"
        if notes.exists():
            self.say(notes.read_text())
        self.measures()
        sections = [
            ("main", self.main), ("sweep", self.sweep), ("rank", self.rank), ("subset", self.subset), ("two", self.two),
            ("edit", self.edit), ("order", self.order), ("gamma", self.gamma), ("export", self.export),
        ]
        for name, section in sections:
            if name in self.only:
                section()
        self.say(words.AGAIN)
        (self.docs / "experiments.md").write_text("\n\n".join(self.out) + "\n")

    def say(self, text):
        self.out.append(text.strip())

    def table(self, head, rows):
        lines = [head, ["---"] * len(head), *rows]
        self.say("\n".join("| " + " | ".join(str(part) for part in line) + " |" for line in lines))

    def scored(self, name, **more):
        return Scored(plan.EXPERIMENTS[name](self.options), self.runner, self.judge, **more)

    def measured(self, scored, measures, names=None):
        """A table with a row a label, and how many trainings and pictures it rests on."""
        names = names or {}
        rows = []
        for label in scored.rows:
            subjects, trainings, pictures = scored.counts(label)
            values = [shown(scored.interval(label, m)) for m in measures]
            rows.append([names.get(label, label), *values, f"{subjects} / {trainings} / {pictures}"])
        self.table(["", *[WORDS[m] for m in measures], "subjects / trainings / pictures"], rows)

    def numbers(self, scored, label):
        """How many numbers were trained, of the label's first cell."""
        for cell in scored.cells.get(label, {}).values():
            return sum(self.runner.train(spec)["numbers"] for spec in cell["trainings"])
        return 0

    def measures(self):
        own = self.judge.own
        self.say(words.MEASURES.format(
            alone=percent(own["identity"]["alone"]), pair=percent(own["identity"]["pair"]),
            nobody=percent(own["identity"]["nobody"]), **{k: percent(v) for k, v in own["classes"].items()},
            renders=", ".join(f"{name} {value:.2f}" for name, value in self.judge.renders.items()),
        ))

    # ------------------------------------------------------------ sections

    def main(self):
        scored = self.scored("main")
        if len(scored.rows) < 3:
            return
        self.say(words.MAIN.format(steps=self.options.steps))
        self.measured(scored, ["found", "alike", "place", "both"], NAMES)
        self.measured(scored, ["style", "class", "others", "drift"], NAMES)
        labels = list(scored.rows)
        series = {WORDS[m]: [scored.interval(label, m) for label in labels] for m in ("found", "place", "class")}
        short = [NAMES[label].split(",")[0] for label in labels]
        (self.pictures / "methods.svg").write_text(charts.lines("By method", short, series, joined=False))
        self.say("![By method](experiments/methods.svg)")
        self.say("Differences, subject by subject (95 % intervals; those without 0 are set in bold):")
        pairs = [("projection", "lora"), ("projection", "svdiff"), ("deft", "lora"), ("release", "lora"), ("deft", "projection")]
        pairs = [p for p in pairs if p[0] in scored.rows and p[1] in scored.rows]
        measures = ["found", "alike", "place", "class", "drift"]
        rows = [[f"{NAMES[a]} minus {NAMES[b]}", *[signed(scored.difference(a, b, m)) for m in measures]] for a, b in pairs]
        self.table(["", *[WORDS[m] for m in measures]], rows)
        self.say("What was trained, for one subject:")
        counts = {m: self.numbers(scored, m) for m in plan.METHODS if m in scored.rows}
        lora = self.matching_lora(scored)
        rows = [[NAMES[m], f"{count:,}"] for m, count in counts.items()]
        self.table(["", "numbers"], rows)
        if lora:
            self.say(lora)
        self.per_subject(scored)
        for subject in self.options.subjects:
            self.grid(scored, subject)

    def matching_lora(self, scored):
        """Claim 1: the count of a LoRA whose rank is the PaRa's, from the shapes of the PaRa's and the LoRA's states."""
        if "projection" not in scored.rows or "lora" not in scored.rows:
            return None
        para = next(iter(scored.cells["projection"].values()))["trainings"][0]
        lora = next(iter(scored.cells["lora"].values()))["trainings"][0]
        equal = self.runner.train(graphs.training("para", para["subject"], **{**inputs(para), "rank": lora["rank"], "steps": 1}))
        if equal is None:
            return None
        ratio = self.runner.train(lora)["numbers"] / equal["numbers"]
        return words.COUNT.format(rank=lora["rank"], para=equal["numbers"], ratio=ratio)

    def per_subject(self, scored):
        rows = []
        for label in scored.rows:
            row = [NAMES[label]]
            for s in self.options.subjects:
                values = [v for g, v in scored.values(label, "found").items() if g[0] == s]
                alike = [v for g, v in scored.values(label, "alike").items() if g[0] == s]
                row.append(f"{np.mean(values):.2f}, {np.mean(alike):.2f}" if values else "")
            rows.append(row)
        self.say("By subject, the share found and the likeness:")
        self.table(["", *self.options.subjects], rows)

    def grid(self, scored, subject):
        rows = []
        for label in scored.files:
            groups = [g for g in scored.files[label] if g[0] == subject]
            if groups:
                files = scored.files[label][min(groups)]
                rows.append((NAMES[label].replace(", nothing applied", ""), [some[0] for some in files[:10:1]]))
        if not rows:
            return
        prompts = plan.single_prompts(subject)[:10]
        columns = [p["place"] if p["role"] == "individual" else p["style"] for p in prompts]
        name = f"{subject}.png"
        charts.grid(self.pictures / name, rows, columns)
        self.say(f"![{subject}: methods by prompts](experiments/{name})")

    def sweep(self):
        rows = []
        for label, subject, spec in plan.sweep(self.options):
            told = self.runner.train(spec)
            if told:
                rows.append([label, f"{told['losses'][0]:.4f}", f"{last(told):.4f}", f"{told['numbers']:,}"])
        if rows:
            self.say(words.SWEEP.format(steps=self.options.steps))
            self.table(["setting", "first loss", "validation loss", "numbers"], rows)

    def rank(self):
        scored = self.scored("rank")
        if len(scored.rows) < 3:
            return
        self.say(words.RANK)
        self.measured(scored, ["found", "alike", "place", "class", "drift"])
        labels = sorted(scored.rows)
        series = {WORDS[m]: [scored.interval(r, m) for r in labels] for m in ("found", "place", "class")}
        (self.pictures / "rank.svg").write_text(charts.lines("By rank of the projection", labels, series))
        self.say("![By rank](experiments/rank.svg)")
        means = {m: [scored.interval(r, m)[0] for r in labels] for m in ("alike", "found", "class", "drift")}
        told = ", ".join(f"{WORDS[m]} {spearman(labels, values):+.2f}" for m, values in means.items())
        self.say(f"Rank correlation (Spearman) over the {len(labels)} ranks: {told}.")

    def subset(self):
        scored = self.scored("subset")
        if len(scored.rows) < 2:
            return
        self.say(words.SUBSET)
        rows = []
        for label in scored.rows:
            values = [shown(scored.interval(label, m)) for m in ("found", "alike", "place", "class", "drift")]
            rows.append([f"`{label}`", *values, f"{self.numbers(scored, label):,}"])
        self.table(["layers", *[WORDS[m] for m in ("found", "alike", "place", "class", "drift")], "numbers"], rows)

    def order(self):
        scored = self.scored("order")
        if len(scored.rows) < 2:
            return
        self.say(words.ORDER)
        rows = []
        for label, groups in scored.rows.items():
            def share(name):
                return shown(interval([[r[name(g)] for r in rows] for g, rows in groups.items()]))

            rows.append([label, share(lambda g: "found " + g[0]), share(lambda g: "style"), share(lambda g: "place")])
        self.table(["", WORDS["found"], "drawn in lines", WORDS["place"]], rows)
        self.simple_grid(scored, "order.png", [p["place"] for p in plan.style_prompts("captain")], 4)

    def two(self):
        scored = self.scored("two", subjects_of=lambda group: group[0].split(", "))
        if len(scored.rows) < 2:
            return
        self.say(words.TWO)
        rows = []
        for label, groups in scored.rows.items():
            alone, paired, both = [], [], []
            for group, seen in groups.items():
                first, second = group[0].split(", ")
                pairs = [r for r in seen if r["role"] == "both"]
                alone.append([r["found " + s] for s in (first, second) for r in seen if r["role"] == s])
                paired.append([r["found " + s] for s in (first, second) for r in pairs])
                both.append([r["found " + first] * r["found " + second] for r in pairs])
            rows.append([label, *[shown(interval(v)) for v in (alone, paired, both)], len(groups)])
        self.table(["", "found, asked for alone", "found, asked for as a pair", "both found", "pairs"], rows)
        first, second = list(plan.COLOURED)[:2]
        self.simple_grid(scored, "two.png", [p["text"].replace("sks ", "").split(" on")[0][:14] for p in plan.pair_prompts(first, second, True)], 12)

    def edit(self):
        scored = self.scored("edit")
        if len(scored.rows) < 2:
            return
        self.say(words.EDIT)
        rows = []
        for label, groups in scored.rows.items():
            parts = dict(found=[], same=[], place=[], style=[], source=[], to_place=[], to_style=[])
            for group, seen in groups.items():
                files = dict(zip(("same", "place", "style"), scored.files[label][group]))
                real = self.runner.work / "graphs/subjects" / group[0] / "0.png"
                for name in ("same", "place", "style"):
                    parts[name].append(pair_ssim(files[name]))
                parts["source"].append(ssim_to(files["same"], real))
                parts["found"].append([r["found " + group[0]] for r in seen])
                parts["to_place"].append([r["place"] for r in seen if r["role"] == "place"])
                parts["to_style"].append([r["style"] for r in seen if r["role"] == "style"])
            rows.append([NAMES[label], *[shown(interval(parts[n])) for n in parts]])
        head = ["", WORDS["found"], "pair SSIM, same prompt", "pair SSIM, new place", "pair SSIM, new style",
                "SSIM to the picture", "new place followed", "new style followed"]
        self.table(head, rows)
        self.simple_grid(scored, "edit.png", ["same"] * 3 + ["under water"] * 3 + ["line drawing"] * 3, 9, each=3)

    def gamma(self):
        scored = self.scored("gamma")
        if len(scored.rows) < 2:
            return
        self.say(words.GAMMA)
        rows = []
        for label, groups in scored.rows.items():
            told = [self.runner.train(cell["trainings"][0]) for cell in scored.cells[label].values()]
            values = [shown(scored.interval(label, m)) for m in ("found", "place", "drift", "spread")]
            first, final = np.mean([t["losses"][0] for t in told]), np.mean([last(t) for t in told])
            rows.append([f"1/{round(1 / label)}", f"{told[0]['numbers']:,}", f"{first:.3f}", f"{final:.3f}", *values])
        self.table(["gamma", "numbers", "first loss", "validation loss", *[WORDS[m] for m in ("found", "place", "drift", "spread")]], rows)

    def export(self):
        rows = plan.EXPERIMENTS["export"](self.options)
        (_, _, applied), (_, _, exported) = rows
        first, second = self.runner.cell(applied), self.runner.cell(exported)
        if first and second:
            most = largest_difference(sum(first, []), sum(second, []))
            self.say(words.EXPORT.format(pictures=len(sum(first, [])), most=most))

    def simple_grid(self, scored, name, columns, most, each=1):
        """The first pictures of each prompt, a row a label."""
        rows = []
        for label, groups in scored.files.items():
            files = [file for some in groups[min(groups)] for file in some[:each]]
            rows.append((NAMES.get(label, label)[:24], files[:most]))
        charts.grid(self.pictures / name, rows, [c[:12] for c in columns[:most]])
        self.say(f"![{name.removesuffix('.png')}](experiments/{name})")


def inputs(spec):
    return {name: value for name, value in spec.items() if name not in ("kind", "subject", "count")}


def last(told):
    return told["validation"][max(told["validation"])]


def percent(share):
    return f"{100 * share:.1f} %"


def shown(value):
    if value is None:
        return ""
    mean, low, high = value
    return f"{mean:.2f} [{low:.2f}, {high:.2f}]"


def signed(value):
    if value is None:
        return ""
    mean, low, high = value
    text = f"{mean:+.2f} [{low:+.2f}, {high:+.2f}]"
    return f"**{text}**" if low > 0 or high < 0 else text
