"""Records what ComfyUI's PhotoMaker nodes make of pictures and prompts: tests/golden/photomaker/{models.json,
tensors.safetensors}.

    PYTHONPATH=<ComfyUI> python tests/golden/photomaker.py

Recorded with ComfyUI 0.8.0 (commit 618b803d), torch 2.15.0, transformers 5, on x86-64 with AVX-512, in f32; what sees pictures and
what reads texts keep their weights in f16, as ComfyUI has them.

The id encoder and two text encoders side by side are SDXL's and PhotoMaker's with fewer and narrower layers, their weights drawn by
name as in `drawing.py`. `models.json` lists the tensors and the cases; `tensors.safetensors` holds `<case>/cond` (the tokens of `places`) and
`<case>/pooled`.
"""

import json
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

from drawing import parameter, transformers, uniform, value

sys.argv = [sys.argv[0], "--cpu"]
# ComfyUI's `nodes` is wanted, not the script beside this one.
sys.path.remove(str(Path(__file__).resolve().parent))
import comfy.options

comfy.options.enable_args_parsing()
import comfy.ops
import comfy.sd1_clip
import comfy.sdxl_clip
import comfy_extras.nodes_photomaker as photomaker
import folder_paths
import torch
from safetensors.torch import save_file

OUT = Path(__file__).resolve().parent / "photomaker"
WIDTHS = {"l": 64, "g": 64}
# Batch, height, width, channels.
PICTURES = {"wide": [1, 70, 101, 3], "two": [2, 260, 230, 4], "square": [1, 224, 224, 3]}
# Text and picture. A stretch of words is taken out whose number is that of the word `photomaker`, whether it is in it or not.
CASES = {
    "default": ("photograph of photomaker", "wide"),
    "first": ("photomaker in the (snow:1.3), ((laughing)) beside a bear", "two"),
    "third": ("a (red:1.4) photomaker on (the:0.7) beach, photomaker", "square"),
    "absent": ("a photo of a photomaker, (smiling:1.2)", "wide"),
    "far": ("a" + " " * 90 + "photomaker", "wide"),
    "full": ("photomaker (" + "cat " * 73 + ":1.2)", "wide"),
    "long": ("a bear " * 60, "two"),
}
# The tokens that are recorded, of each chunk.
PLACES = [0, 1, 2, 3, 4, 5, 20, 40, 60, 74, 75, 76]


class Narrow(photomaker.PhotoMakerIDEncoder):
    """ComfyUI's network with other widths than the two that it has in its code."""

    widths = None

    def __init__(self):
        width, first, second = self.widths
        photomaker.VISION_CONFIG_DICT["projection_dim"] = first
        super().__init__()
        self.visual_projection_2 = comfy.ops.manual_cast.Linear(width, second, bias=False)
        self.fuse_module = photomaker.FuseModule(first + second, comfy.ops.manual_cast)


def loaded(layers, width, inner, heads, projections):
    """The network as ComfyUI's loader reads it from a file of its drawn tensors; and their shapes."""
    photomaker.VISION_CONFIG_DICT.update(
        hidden_size=width, intermediate_size=inner, num_attention_heads=heads, num_hidden_layers=layers)
    photomaker.PhotoMakerIDEncoder = Narrow
    Narrow.widths = (width, *projections)
    shapes = {key: list(weight.shape) for key, weight in Narrow().state_dict().items()}
    with tempfile.TemporaryDirectory() as folder:
        folder_paths.add_model_folder_path("photomaker", folder, is_default=True)
        torch.save({key: parameter(key, shape) for key, shape in shapes.items()}, Path(folder) / "narrow.bin")
        return photomaker.PhotoMakerLoader.execute("narrow.bin").args[0], shapes


def text_encoder(name):
    width = WIDTHS[name]
    shapes = transformers("", width, 3, 3 * width) | ({"text_projection.weight": [width, width]} if name == "g" else {})
    config = {
        "hidden_size": width, "intermediate_size": 3 * width, "num_attention_heads": width // 64, "num_hidden_layers": 3,
        "max_position_embeddings": 77, "vocab_size": 49408, "hidden_act": "quick_gelu" if name == "l" else "gelu",
        "layer_norm_eps": 1e-5, "eos_token_id": 49407, "projection_dim": width, "model_type": "clip_text_model",
        "num_positions": 77, "torch_dtype": "float32",
    }
    model = comfy.sd1_clip.SDClipModel(
        textmodel_json_config=config, dtype=torch.float16, layer="hidden", layer_idx=-2, layer_norm_hidden_state=False,
        special_tokens={"start": 49406, "end": 49407, "pad": 49407 if name == "l" else 0}, return_projected_pooled=name == "g")
    missing, unexpected = model.load_sd({key: parameter(f"{name}/{key}", shape) for key, shape in shapes.items()})
    assert not unexpected and set(missing) <= {"text_projection.weight"}, (missing, unexpected)
    return model, {f"{name}/{key}": shape for key, shape in shapes.items()}


def picture(name):
    shape = PICTURES[name]
    return (value(f"picture/{name}", shape, 1.0) + 1.0) / 2.0


def main():
    OUT.mkdir(exist_ok=True)
    listing, recorded = {"pictures": PICTURES, "places": PLACES, "cases": {}}, {}
    network, listing["id_encoder"] = loaded(3, 128, 192, 2, (48, 80))
    models = {name: text_encoder(name) for name in WIDTHS}
    listing["texts"] = models["l"][1] | models["g"][1]
    both = SimpleNamespace(**{f"clip_{name}": model for name, (model, _) in models.items()})
    tokenizers = SimpleNamespace(
        clip_l=comfy.sd1_clip.SDTokenizer(embedding_size=64), clip_g=comfy.sdxl_clip.SDXLClipGTokenizer())
    clip = SimpleNamespace(
        tokenize=lambda text, return_word_ids: comfy.sdxl_clip.SDXLTokenizer.tokenize_with_weights(tokenizers, text, return_word_ids),
        encode_from_tokens=lambda tokens, return_pooled: comfy.sdxl_clip.SDXLClipModel.encode_token_weights(both, tokens))
    for name, (text, shown) in CASES.items():
        cond, told = photomaker.PhotoMakerEncode.execute(network, picture(shown), clip, text).args[0][0]
        places = [chunk + place for chunk in range(0, cond.shape[1], 77) for place in PLACES]
        recorded[f"{name}/cond"], recorded[f"{name}/pooled"] = cond[:, places], told["pooled_output"]
        listing["cases"][name] = {"text": text, "picture": shown, "tokens": cond.shape[1]}
    (OUT / "models.json").write_text(json.dumps(listing, indent=1) + "\n")
    save_file({key: tensor.contiguous().clone() for key, tensor in recorded.items()}, OUT / "tensors.safetensors")
    for key, tensor in recorded.items():
        print(key, list(tensor.shape), float(tensor.abs().mean()))


with torch.no_grad():
    main()
