"""Records what `src/diffusion/vision` is compared with: tests/golden/vision/{models.json, tensors.safetensors}.

Small networks of CLIP, DINO and DINOv2 as transformers builds them, their weights drawn from their names in the file (`drawing.py`). Pictures
are prepared by Pillow as the networks' own code does (shorter side by `BICUBIC`, the middle cut out, mean and deviation), and embedded.

Made with torch 2.15.0 (CPU), transformers 5.24.0, Pillow 13.0.0, safetensors, and the vocabulary that ComfyUI 0.8.0 has:

    python tests/golden/vision.py PATH/TO/ComfyUI
"""

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from drawing import parameter, uniform
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer, Dinov2Config, Dinov2Model, ViTConfig, ViTModel

OUT = Path(__file__).with_suffix("")
# Width and height.
PICTURES = {"wide": (71, 50), "high": (40, 93), "large": (300, 260)}
TEXTS = ["a red bear on the beach", "", "(a cat:1.3), " + "very " * 90 + "small"]
BEGIN, END = 49406, 49407
CLIP_PIXELS = ([0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711])
DINO_PIXELS = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])


def picture(name: str) -> Image.Image:
    width, height = PICTURES[name]
    numbers = (uniform(name, width * height * 3) + 1.0) / 2.0 * 255.0
    return Image.fromarray(numbers.astype(np.uint8).reshape(height, width, 3))


def prepared(image: Image.Image, shorter: int, side: int, pixels) -> torch.Tensor:
    width, height = image.size
    size = (shorter, int(shorter * height / width)) if width <= height else (int(shorter * width / height), shorter)
    image = image.resize(size, Image.BICUBIC)
    left, top = round((size[0] - side) / 2.0), round((size[1] - side) / 2.0)
    values = torch.from_numpy(np.array(image.crop((left, top, left + side, top + side)))).float() / 255.0
    mean, deviation = (torch.tensor(numbers) for numbers in pixels)
    return ((values - mean) / deviation).permute(2, 0, 1)[None]


def drawn(model):
    """The model with weights drawn by their names in its file, and those names with their shapes."""
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        path = str(Path(folder) / "model.safetensors")
        with safe_open(path, "pt") as file:
            shapes = {key: list(file.get_slice(key).get_shape()) for key in sorted(file.keys())}
        shapes.pop("logit_scale", None)
        tensors = {key: parameter(key, shape) for key, shape in shapes.items()}
        if isinstance(model, CLIPModel):
            tensors["logit_scale"] = torch.tensor(4.6)
        save_file(tensors, path, {"format": "pt"})
        return type(model).from_pretrained(folder, attn_implementation="eager").eval(), shapes


def clip():
    text = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 1, "intermediate_size": 128, "vocab_size": 49408,
            "bos_token_id": BEGIN, "eos_token_id": END, "pad_token_id": END}
    seen = {"hidden_size": 128, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 192, "image_size": 40, "patch_size": 8}
    return CLIPModel(CLIPConfig(text_config=text, vision_config=seen, projection_dim=48))


def main():
    OUT.mkdir(exist_ok=True)
    torch.manual_seed(0)
    recorded, models = {}, {}
    model, models["clip"] = drawn(clip())
    with torch.no_grad():
        for name in PICTURES:
            said = model.vision_model(pixel_values=prepared(picture(name), 40, 40, CLIP_PIXELS)).pooler_output
            recorded[f"clip/{name}"] = torch.nn.functional.normalize(model.visual_projection(said))
        tokenize = CLIPTokenizer.from_pretrained(str(Path(sys.argv[1]) / "comfy" / "sd1_tokenizer"))
        for index, text in enumerate(TEXTS):
            ids = tokenize(text, padding="max_length", max_length=77, truncation=True, return_tensors="pt").input_ids
            said = model.text_model(input_ids=ids).pooler_output
            recorded[f"clip/text {index}"] = torch.nn.functional.normalize(model.text_projection(said))
    shape = {"hidden_size": 128, "num_hidden_layers": 3, "num_attention_heads": 2}
    # One with a grid of its own, one that is made coarser: 252 pixels to 224.
    for name, kind, config, side in [
        ("dino", ViTModel, ViTConfig(**shape, intermediate_size=192, image_size=48, patch_size=16), 48),
        ("dino2", Dinov2Model, Dinov2Config(**shape, mlp_ratio=2, image_size=252, patch_size=14), 224),
    ]:
        model, models[name] = drawn(kind(config, add_pooling_layer=False) if kind is ViTModel else kind(config))
        with torch.no_grad():
            for seen in PICTURES:
                pixels = prepared(picture(seen), round(side * 256 / 224), side, DINO_PIXELS)
                said = model(pixel_values=pixels).last_hidden_state[:, 0]
                recorded[f"{name}/{seen}"] = torch.nn.functional.normalize(said)
    listing = {"pictures": PICTURES, "texts": TEXTS, "models": models}
    (OUT / "models.json").write_text(json.dumps(listing, indent=1) + "\n")
    save_file({key: tensor.contiguous() for key, tensor in recorded.items()}, OUT / "tensors.safetensors")


if __name__ == "__main__":
    main()
