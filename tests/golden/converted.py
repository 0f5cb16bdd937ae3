"""Checks that diffusers and transformers load what `paraflow models convert` writes.

    paraflow models convert toyland.safetensors FOLDER
    python tests/golden/converted.py toyland FOLDER
    python tests/golden/converted.py loads FOLDER...
    python tests/golden/converted.py lora KOHYA DIFFUSERS [FOLDER]

`toyland` draws with the folder's pipeline, its own tokenizer and its own scheduler, and compares the latent with the recording of
`toyland.py`. `loads` loads a pipeline and counts what was missing or left over. `lora` puts a LoRA in both of its forms on the
UNet of SD 1.5's shape, or of a folder, and compares the layers' changes.
"""

import json
import sys
from pathlib import Path

import diffusers
import torch
from diffusers import DiffusionPipeline, UNet2DConditionModel
from safetensors.torch import load_file

HERE = Path(__file__).resolve().parent


def loads(folder):
    """Loads a pipeline; every tensor of the folder has to find its place."""
    pipeline = DiffusionPipeline.from_pretrained(folder, torch_dtype=torch.float32)
    for name, part in pipeline.components.items():
        if not isinstance(part, torch.nn.Module):
            continue
        files = list((Path(folder) / name).glob("*.safetensors"))
        assert len(files) == 1, files
        stored, own = load_file(files[0]), part.state_dict()
        # Newer versions of transformers leave out the `text_model.` in the middle.
        plain = lambda key: key.replace("text_model.", "")  # noqa: E731
        stored = {plain(key): tensor for key, tensor in stored.items()}
        own = {plain(key): tensor for key, tensor in own.items()}
        missing = sorted(key for key in own if key not in stored and not key.endswith("position_ids"))
        left = sorted(key for key in stored if key not in own)
        same = all(torch.equal(own[key], stored[key].to(own[key].dtype).reshape(own[key].shape)) for key in own if key in stored)
        print(f"{folder} {name}: {type(part).__name__}, {len(own)} tensors, missing {missing}, left over {left}, equal {same}")
        assert not missing and same
    return pipeline


@torch.no_grad()
def toyland(folder):
    pipeline = loads(folder)
    pipeline.set_progress_bar_config(disable=True)
    noise = torch.randn((1, 4, 16, 16), generator=torch.Generator().manual_seed(7))
    steps = 20
    latent = pipeline(
        "a red bear on the beach", negative_prompt="", latents=noise, guidance_scale=4.0, height=128, width=128,
        timesteps=[999 - int(step * 1000 / steps) for step in range(steps)], output_type="latent",
    ).images / 0.18215  # fmt: skip
    recorded = load_file(HERE / "toyland/latent.safetensors")["latent"]
    error = float((latent - recorded).abs().max() / recorded.abs().max())
    print(f"latent: {error:.1e} of the recording's largest value off")
    assert error < 1e-3


def changes(unet, path):
    before = {key: tensor.clone() for key, tensor in unet.state_dict().items()}
    folder, name = str(Path(path).parent), Path(path).name
    pipeline = diffusers.StableDiffusionPipeline(None, None, None, unet, None, None, None, requires_safety_checker=False)
    pipeline.load_lora_weights(folder, weight_name=name)
    pipeline.fuse_lora(components=["unet"])
    pipeline.unload_lora_weights()
    after = unet.state_dict()
    return {key: after[key] - before[key] for key in before if key in after and not torch.equal(after[key], before[key])}


def lora(kohya, other, folder=None):
    make = lambda: (  # noqa: E731
        UNet2DConditionModel.from_pretrained(folder, subfolder="unet") if folder else
        UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8)
    )
    torch.manual_seed(0)
    one = changes(make(), kohya)
    torch.manual_seed(0)
    two = changes(make(), other)
    assert one.keys() == two.keys() and one, (len(one), len(two))
    worst = max(float((one[key] - two[key]).norm() / one[key].norm()) for key in one)
    print(f"{len(one)} layers changed alike, worst {worst:.1e}")
    assert worst < 1e-5


if __name__ == "__main__":
    torch.set_num_threads(2)
    what, *arguments = sys.argv[1:]
    print(json.dumps({"diffusers": diffusers.__version__, "torch": torch.__version__}))
    if what == "loads":
        for folder in arguments:
            loads(folder)
    else:
        {"toyland": toyland, "lora": lora}[what](*arguments)
