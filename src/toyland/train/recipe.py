"""The whole training as one list of stages, each of which is done once and left out when the command is given again.

`Recipe` holds every number of it. A kill loses at most the last two minutes: the long stages go on from their last state.
"""

import json
import platform
import subprocess
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch

import export
import judge
import text
import unet
import vae
from data import Renders
from pictures import ROOT, draw


@dataclass
class Autoencoder:
    steps: int
    crop_steps: int
    rate: float
    seed: int
    batch: int = 8  # crops; whole pictures come in half as many
    anchor: float = 0.0
    latent_noise: float = 0.0


@dataclass
class Whitening:
    pictures: int = 500


@dataclass
class Text:
    steps: int = 600
    batch: int = 48
    rate: float = 1e-3
    seed: int = 2


@dataclass
class Denoiser:
    steps: int = 3000
    batch: int = 32
    rate: float = 1.5e-3
    decay: float = 0.4
    ema: float = 0.995
    seed: int = 3


@dataclass
class Judge:
    steps: int = 400
    batch: int = 48
    seed: int = 4


@dataclass
class Recipe:
    """Pictures and their seeds, and the settings of each training."""

    scale: float = 1.0
    renders: int = 20000
    renders_seed: int = 1
    fresh: int = 4000
    fresh_seed: int = 2_000_001
    prompts: int = 200
    autoencoder: Autoencoder = field(default_factory=lambda: Autoencoder(3600, 3000, 2e-3, seed=11))
    whitening: Whitening = field(default_factory=Whitening)
    sharpening: Autoencoder = field(
        default_factory=lambda: Autoencoder(3000, 2700, 1.5e-3, seed=31, anchor=0.2, latent_noise=0.05)
    )
    text: Text = field(default_factory=Text)
    unet: Denoiser = field(default_factory=Denoiser)
    judge: Judge = field(default_factory=Judge)

    def scaled(self, scale):
        """The same with that share of the pictures and the steps, to see the whole of it work in minutes."""
        part = lambda count, least: max(least, round(count * scale))  # noqa: E731

        def shorter(settings):
            changes = {name: part(getattr(settings, name), 4) for name in ("steps", "crop_steps") if hasattr(settings, name)}
            return replace(settings, **changes)

        networks = {name: shorter(getattr(self, name)) for name in ("autoencoder", "sharpening", "text", "unet", "judge")}
        return replace(
            self,
            scale=scale,
            renders=part(self.renders, 100),
            fresh=part(self.fresh, 100),
            prompts=part(self.prompts, 16),
            whitening=Whitening(min(self.whitening.pictures, part(self.renders, 100))),
            **networks,
        )


def program(package, given):
    """How to start a binary of this repository: the one given, or the release build."""
    return [given] if given else ["cargo", "run", "--quiet", "--release", "-p", package, "--"]


class Workshop:
    """A folder in which a recipe is carried out, and what it has come to so far (`recipe.json`)."""

    def __init__(self, out, recipe, toyland=None, paraflow=None):
        self.out, self.recipe = Path(out).resolve(), recipe
        self.out.mkdir(parents=True, exist_ok=True)
        self.toyland, self.paraflow = program("paraflow-toyland", toyland), program("paraflow", paraflow)
        self.record = self.out / "recipe.json"
        self.done = json.loads(self.record.read_text()) if self.record.exists() else dict(recipe=asdict(recipe), stages={})
        if self.done["recipe"] != asdict(recipe):
            raise SystemExit(f"error: {self.out} was begun with another recipe or scale\nhint: name another folder")

    def path(self, name):
        return self.out / name

    def stage(self, name, work, *arguments):
        """Does a stage unless it is done, and gives the figures it came to. A network that it gives lies in its file."""
        if name not in self.done["stages"]:
            print(f"== {name}", flush=True)
            began = time.time()
            result = work(*arguments)
            figures = result if isinstance(result, dict) else None
            self.done["stages"][name] = dict(seconds=round(time.time() - began), result=figures)
            whole = self.record.with_suffix(".new")
            whole.write_text(json.dumps(self.done, indent=1) + "\n")
            whole.replace(self.record)
        return self.done["stages"][name]["result"]

    def draw_world(self, *arguments):
        subprocess.run([*self.toyland, *map(str, arguments)], cwd=ROOT, check=True)

    def prompts(self):
        listed = [*self.toyland, "prompts", "--held-out", "--count", str(self.recipe.prompts), "--pictures", str(self.path("drawn"))]
        self.path("prompts.json").write_bytes(subprocess.run(listed, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout)

    def world(self):
        """The data: renders to train on, fresh ones to check on, prompts of held-out combinations."""
        recipe, world = self.recipe, self.draw_world
        for name, count, seed in (("train", recipe.renders, recipe.renders_seed), ("fresh", recipe.fresh, recipe.fresh_seed)):
            self.stage(name, world, "dataset", self.path(name), "--count", count, "--seed", seed)
        self.stage("prompts", self.prompts)

    def networks(self):
        """The three networks, and the checkpoint of them."""
        recipe, at = self.recipe, self.path
        data = at("train")
        self.stage("autoencoder", vae.train, recipe.autoencoder, data, at("autoencoder.pt"))
        self.stage("whitening", vae.whiten, recipe.whitening, data, at("autoencoder.pt"), at("white.pt"))
        self.stage("sharpening", vae.sharpen, recipe.sharpening, data, at("white.pt"), at("sharp.pt"))
        self.stage("latents", vae.latents, data, at("sharp.pt"), at("latents.npy"))
        self.stage("text", text.train, recipe.text, data, at("text.pt"))
        self.stage("unet", unet.train, recipe.unet, data, at("latents.npy"), at("text.pt"), at("unet.pt"))
        at("models/checkpoints").mkdir(parents=True, exist_ok=True)
        note = f"recipe at scale {recipe.scale}, torch {torch.__version__}"
        parts = (data, at("unet.pt"), at("text.pt"), at("sharp.pt"), at("models/checkpoints/new.safetensors"))
        self.stage("export", export.export, *parts, note)

    def judge(self):
        self.stage("judge", judge.train, self.recipe.judge, self.path("train"), self.path("judge.pt"))
        return judge.load(self.path("judge.pt"))

    def quality(self, name, checkpoint, guidances=(4.0,), samplers=(("dpmpp_2m", "karras"),)):
        """The table of a checkpoint: shares of right verdicts by row. Pictures are the program's."""
        model, rows = self.judge(), {}
        rows["fresh renders"] = self.stage("judge on fresh renders", self.on_fresh_renders, model)
        rows["the prompts as renders"] = self.stage("judge on the prompts' renders", judge.judge, model, self.path("drawn"), self.path("prompts.json"))
        for (sampler, schedule), guidance in [(s, g) for s in samplers for g in guidances]:
            row = f"{name}, {sampler}, {schedule}, cfg {guidance:g}"
            rows[row] = self.stage(row, self.on_pictures, model, row, checkpoint, dict(sampler_name=sampler, scheduler=schedule, cfg=guidance))
        row = f"fresh renders through the autoencoder of {name}"
        rows[row] = self.stage(row, self.on_reconstructions, model, checkpoint)
        return rows

    def on_fresh_renders(self, model):
        renders = Renders(self.path("fresh"))
        chosen, wanted = judge.singles(renders)
        return judge.shares(judge.verdicts(model, renders.pixels(chosen.numpy())), wanted)

    def on_reconstructions(self, model, checkpoint, count=200):
        renders, autoencoder = Renders(self.path("fresh")), export.autoencoder_of(checkpoint)
        chosen, wanted = (part[:count] for part in judge.singles(renders))
        vae.compare(autoencoder, renders, self.path(f"{Path(checkpoint).stem}-autoencoder.png"))
        return judge.shares(judge.verdicts(model, vae.reconstructed(autoencoder, renders.pixels(chosen.numpy()))), wanted)

    def on_pictures(self, model, row, checkpoint, sampler):
        folder, checkpoint = self.path(row.replace(", ", "-").replace(" ", "-")), Path(checkpoint)
        draw(self.paraflow, self.path("prompts.json"), folder, checkpoint.parents[2], checkpoint.name, sampler)
        judge.contact_sheet(folder, folder.with_suffix(".sheet.png"))
        return judge.judge(model, folder, self.path("prompts.json"), folder.with_suffix(".wrong.csv"))

    def report(self, title, rows):
        """`report.md`: the settings, the time of each stage, the quality."""
        heads = list(judge.CLASSES)
        lines = [f"# {title}", "", f"torch {torch.__version__}, {platform.machine()}, {torch.get_num_threads()} threads, scale {self.recipe.scale}", ""]
        lines += ["| | " + " | ".join(heads) + " |", "|---|" + "---|" * len(heads)]
        lines += [f"| {row} | " + " | ".join(f"{share:.1%}" for share in shares.values()) + " |" for row, shares in rows.items()]
        lines += ["", "| stage | seconds |", "|---|---|"]
        lines += [f"| {name} | {stage['seconds']} |" for name, stage in self.done["stages"].items()]
        lines += ["", "```json", json.dumps(asdict(self.recipe)), "```", ""]
        self.path("report.md").write_text("\n".join(lines))
        print("\n".join(lines[:-4]))
