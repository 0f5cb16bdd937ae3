"""Records what diffusers draws with Toyland's weights: `toyland/picture.png` and `toyland/latent.safetensors`.

    pip install torch==2.15.0 diffusers==0.42.1 transformers accelerate safetensors pillow zstandard
    python tests/golden/toyland.py

diffusers' own pipeline, networks, key conversion and Euler scheduler, all in f32. Prompt, seed, steps, guidance and size are
those of `graphs/text-to-image.json`; the sampler is `euler` and the schedule `simple`, whose noise levels lie on the
model's table, so that both programs name them exactly. Tokens come from `src/toyland/train/tokenizer.py`.
"""

import sys
import tempfile
from pathlib import Path

import torch
import zstandard
from diffusers import AutoencoderKL, EulerDiscreteScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT / "src/toyland/train"))

from tokenizer import Tokenizer  # noqa: E402

PROMPT, SEED, STEPS, GUIDANCE = "a red bear on the beach", 7, 20, 4.0


def weights():
    packed = (ROOT / "nodes/embedded/toyland.safetensors.zst").read_bytes()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "toyland.safetensors"
        path.write_bytes(zstandard.ZstdDecompressor().decompress(packed, max_output_size=1 << 28))
        return {name: tensor.float() for name, tensor in load_file(path).items()}


def networks(tensors):
    unet = UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(64, 128, 192),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=128,
        attention_head_dim=8,
    )
    unet.load_state_dict(convert_ldm_unet_checkpoint(dict(tensors), unet.config))
    vae = AutoencoderKL(
        block_out_channels=(32, 32, 64, 128),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        latent_channels=4,
        scaling_factor=0.18215,
    )
    vae.load_state_dict(convert_ldm_vae_checkpoint(dict(tensors), vae.config))
    config = dict(hidden_size=128, intermediate_size=512, num_hidden_layers=3, num_attention_heads=2, hidden_act="quick_gelu")
    text = CLIPTextModel(CLIPTextConfig(**config, bos_token_id=49406, eos_token_id=49407, pad_token_id=49407))
    prefix = "cond_stage_model.transformer."
    kept = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    own = text.state_dict()
    # Newer versions of transformers leave out the `text_model.` in the middle.
    kept = {name if name in own else name.removeprefix("text_model."): tensor for name, tensor in kept.items()}
    missing, unexpected = text.load_state_dict(kept, strict=False)
    assert not unexpected and all("position_ids" in name for name in missing), (missing, unexpected)
    return unet.eval(), vae.eval(), text.eval()


@torch.no_grad()
def main():
    torch.set_num_threads(2)
    unet, vae, text = networks(weights())
    scheduler = EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", timestep_spacing="leading", steps_offset=1
    )
    pipeline = StableDiffusionPipeline(
        vae=vae, text_encoder=text, tokenizer=None, unet=unet, scheduler=scheduler, safety_checker=None,
        feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    tokenizer = Tokenizer()
    prompt, nothing = (text(torch.tensor([tokenizer(words)])).last_hidden_state for words in (PROMPT, ""))
    noise = torch.randn((1, 4, 16, 16), generator=torch.Generator().manual_seed(SEED))
    draw = lambda kind: pipeline(  # noqa: E731
        prompt_embeds=prompt, negative_prompt_embeds=nothing, latents=noise, guidance_scale=GUIDANCE, height=128, width=128,
        timesteps=[999 - int(step * 1000 / STEPS) for step in range(STEPS)], output_type=kind,
    ).images  # fmt: skip
    latent = draw("latent") / 0.18215
    picture = (draw("pt") * 255).round().byte()[0].permute(1, 2, 0)
    save_file({"latent": latent.contiguous()}, HERE / "toyland/latent.safetensors")
    Image.fromarray(picture.numpy()).save(HERE / "toyland/picture.png", optimize=True)
    print("latent", latent.std().item())


if __name__ == "__main__":
    main()
