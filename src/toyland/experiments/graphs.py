"""The graphs of the experiments: API prompts that `paraflow run` and the editor open.

A training is a flat dict (`training(...)`), whose content gives the name of its state file: a graph holds its trainings,
and one that was done before costs nothing. A cell puts trainings on the model in some order and samples prompts.
"""

import hashlib
import json

CLASSES = dict(captain="bear", patches="cat", sprout="robot", starry="mug")
# Where the noun stands in the class of `LoadSubject`; the style set has no individual.
STYLE_SET = "line-style"

NODES = dict(para="PaRaTrain", lora="LoRATrain", svdiff="SVDiffTrain")
OWN = dict(
    para=dict(rank=8, gamma=0.125, angular_rate=0.15, mode="projection", init="random"),
    lora=dict(rank=4, alpha=4.0, learning_rate=0.001),
    svdiff=dict(learning_rate=0.01),
)
COMMON = dict(layers="exca", steps=200, batch_size=4, schedule="constant", seed=1, validate_every=50)


def training(kind, subject, count=4, captions=None, **changes):
    """One training. `changes` are inputs of its node; all others are written out, so that defaults may change.

    `captions` take the place of those in the subject's folder.
    """
    known = {**COMMON, **OWN[kind]}
    wrong = set(changes) - set(known)
    if wrong:
        raise ValueError(f"{NODES[kind]} has no input {sorted(wrong)} among those the experiments set")
    made = dict(kind=kind, subject=subject, count=count, **{**known, **changes})
    if captions:
        made["captions"] = captions
    if kind == "lora" and "rank" in changes and "alpha" not in changes:
        made["alpha"] = float(made["rank"])
    return made


def key(value):
    """A short name that follows from content."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


class Graph:
    """Nodes under construction."""

    def __init__(self):
        self.nodes = {}
        self.checkpoint = self.add("CheckpointLoaderSimple", ckpt_name="toyland.safetensors")

    def add(self, class_type, title=None, **inputs):
        name = str(len(self.nodes) + 1)
        self.nodes[name] = dict(class_type=class_type, inputs=inputs, _meta=dict(title=title or class_type))
        return name

    def model(self):
        return [self.checkpoint, 0]

    def clip(self):
        return [self.checkpoint, 1]

    def vae(self):
        return [self.checkpoint, 2]

    def trained(self, spec):
        """The nodes that train, or take up from a state what was trained."""
        spec = dict(spec)
        state = "states/" + key(spec)
        kind, subject, count = spec.pop("kind"), spec.pop("subject"), spec.pop("count")
        captions = spec.pop("captions", "")
        who = self.add("LoadSubject", subject, folder=subject, unique_token="sks", captions=captions, count=count, fit="crop")
        parts = dict(model=self.model(), clip=self.clip(), vae=self.vae(), subject=[who, 0])
        return self.add(NODES[kind], f"train {kind}", **parts, **spec, sample_every=0, state=state)

    def sampled(self, model, nothing, words, pictures, noise):
        """Pictures of a prompt; `nothing` is the empty prompt's node."""
        text = self.add("CLIPTextEncode", words, clip=self.clip(), text=words)
        canvas = self.add("EmptyLatentImage", width=128, height=128, batch_size=pictures)
        sampler = self.add(
            "KSampler",
            model=model,
            seed=noise,
            steps=12,
            cfg=4.0,
            sampler_name="dpmpp_2m",
            scheduler="karras",
            positive=[text, 0],
            negative=[nothing, 0],
            latent_image=[canvas, 0],
            denoise=1.0,
        )
        return self.add("VAEDecode", samples=[sampler, 0], vae=self.vae())


def train_graph(spec):
    """Trains, and shows the curve."""
    graph = Graph()
    trainer = graph.trained(spec)
    plot = graph.add("LossPlot", loss=[trainer, 1], width=768, height=448)
    graph.add("PreviewImage", images=[plot, 0])
    return graph.nodes


def apply_one(graph, model, kind, adapter, strength=1.0):
    """Puts one adapter on a model."""
    if kind == "para":
        return [graph.add("PaRaApply", model=model, para=adapter, strength=strength), 0]
    if kind == "lora":
        return [graph.add("LoRAApply", model=model, lora=adapter, strength_model=strength, strength_clip=strength), 0]
    return [graph.add("SVDiffApply", model=model, svdiff=adapter, strength=strength), 0]


def applied(graph, trainings, combine):
    """The model with all trainings on it.

    `chain`: one after the other. `union`: PaRas merged into one. `additive`: each exported to a LoRA for the base, and
    the LoRAs added. `export`: the same for one PaRa.
    """
    adapters = [(spec["kind"], [graph.trained(spec), 0]) for spec in trainings]
    model = graph.model()
    if combine == "union":
        (_, first), (_, second) = adapters
        merged = graph.add("PaRaMerge", para_1=first, para_2=second, how="union")
        return apply_one(graph, model, "para", [merged, 0])
    for kind, adapter in adapters:
        if combine in ("additive", "export"):
            adapter, kind = [graph.add("PaRaToLoRA", model=graph.model(), para=adapter), 0], "lora"
        model = apply_one(graph, model, kind, adapter)
    return model


def cell_graph(cell, name):
    """Trains or takes up, applies, and samples every prompt; the n-th prompt's pictures are `name/n_*`."""
    graph = Graph()
    model = applied(graph, cell["trainings"], cell["combine"])
    nothing = graph.add("CLIPTextEncode", "nothing", clip=graph.clip(), text="")
    for index, prompt in enumerate(cell["prompts"]):
        picture = graph.sampled(model, nothing, prompt["text"], prompt["pictures"], prompt["noise"])
        graph.add("SaveImage", images=[picture, 0], filename_prefix=f"cells/{name}/{index:02}")
    return graph.nodes
