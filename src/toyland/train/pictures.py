"""Pictures of prompts, made by the program itself: one graph with a sampling for each prompt, run once."""

import json
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
TEMPLATE = ROOT / "graphs/text-to-image.json"
EACH = ("2", "5", "6", "7")  # prompt, sampler, decoder, saver; the model, the empty prompt and the canvas are shared


def graph_of(prompts, checkpoint, sampler):
    """`graphs/text-to-image.json` for every prompt, with its seed. `sampler`: inputs of the KSampler to change."""
    template = json.loads(TEMPLATE.read_text())
    graph = {node: entry for node, entry in template.items() if node not in EACH}
    graph["1"]["inputs"]["ckpt_name"] = checkpoint
    for index, prompt in enumerate(prompts):
        changes = {"2": {"text": prompt["prompt"]}, "5": {"seed": prompt["seed"], **sampler}, "7": {"filename_prefix": f"{index:04}"}}
        for node in EACH:
            inputs = {**template[node]["inputs"], **changes.get(node, {})}
            for name, value in inputs.items():
                if isinstance(value, list) and value[0] in EACH:
                    inputs[name] = [f"{value[0]}-{index}", value[1]]
            graph[f"{node}-{index}"] = {"class_type": template[node]["class_type"], "inputs": inputs}
    return graph


def draw(paraflow, prompts, out, base=None, checkpoint="toyland.safetensors", sampler=None):
    """One PNG a prompt into the folder `out`, in the order of the file `prompts`. `base`: the folder whose
    `models/checkpoints` has the checkpoint; by default the one inside the program is used."""
    out = Path(out)
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    graph = graph_of(json.loads(Path(prompts).read_text()), checkpoint, sampler or {})
    (out / "graph.json").write_text(json.dumps(graph))
    command = [*paraflow, *(["--base-dir", str(base)] if base else []), "run", str(out / "graph.json"), "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
