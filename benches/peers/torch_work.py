"""The peer's side of the table: the same piece of work with torch, diffusers, transformers and peft, driven line by line as
`paraflow bench --work` is.

    python torch_work.py WORK FILE NUMBERS
"""

import sys

import torch
from safetensors.torch import load_file

SD15 = dict(block_out_channels=(320, 640, 1280, 1280), cross_attention_dim=768, attention_head_dim=8,
            down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
            up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3, layers_per_block=2)
SDXL = dict(block_out_channels=(320, 640, 1280), cross_attention_dim=2048, attention_head_dim=(5, 10, 20),
            transformer_layers_per_block=(1, 2, 10), use_linear_projection=True, addition_embed_type="text_time",
            addition_time_embed_dim=256, projection_class_embeddings_input_dim=2816, layers_per_block=2,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"))
TOYLAND = dict(block_out_channels=(64, 128, 192), cross_attention_dim=160, attention_head_dim=8,
               down_block_types=("CrossAttnDownBlock2D",) * 3, up_block_types=("CrossAttnUpBlock2D",) * 3, layers_per_block=1)


def unet(path, dtype):
    from accelerate import init_empty_weights
    from diffusers import UNet2DConditionModel
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

    config = SDXL if "sdxl" in path else TOYLAND if "toyland" in path else SD15
    with init_empty_weights():
        model = UNet2DConditionModel(**config)
    state = convert_ldm_unet_checkpoint(load_file(path), dict(model.config))
    state = {name: tensor.to(dtype) for name, tensor in state.items()}
    model.load_state_dict(state, assign=True)
    return model.eval().requires_grad_(False)


def told(model, batch, dtype):
    """What the network hears beside the latent."""
    prompt = torch.randn(batch, 77, model.config.cross_attention_dim, dtype=dtype)
    more = {}
    if model.config.addition_embed_type:
        more = {"text_embeds": torch.randn(batch, 1280, dtype=dtype), "time_ids": torch.ones(batch, 6, dtype=dtype)}
    return dict(encoder_hidden_states=prompt, added_cond_kwargs=more)


def step(path, dtype, side, batch):
    model = unet(path, dtype)
    x, time, more = torch.randn(batch, 4, side, side, dtype=dtype), torch.tensor([500.0] * batch), told(model, batch, dtype)

    @torch.inference_mode()
    def work(times):
        for _ in range(times):
            model(x, time, **more)

    return work


def decode(path, dtype, side):
    from diffusers import AutoencoderKL
    from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

    model = AutoencoderKL(block_out_channels=(128, 256, 512, 512), layers_per_block=2, latent_channels=4,
                          down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4)
    state = convert_ldm_vae_checkpoint(load_file(path), dict(model.config))
    model.load_state_dict({name: tensor.to(dtype) for name, tensor in state.items()}, assign=True)
    model = model.eval().requires_grad_(False)
    latent = torch.randn(1, 4, side, side, dtype=dtype)

    @torch.inference_mode()
    def work(times):
        for _ in range(times):
            model.decode(latent)

    return work


def text(path, dtype):
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    large = "clip-g" in path
    width, layers = (1280, 32) if large else (768, 12)
    config = CLIPTextConfig(hidden_size=width, intermediate_size=4 * width, num_hidden_layers=layers,
                            num_attention_heads=width // 64, hidden_act="gelu" if large else "quick_gelu",
                            projection_dim=width)
    model = (CLIPTextModelWithProjection if large else CLIPTextModel)(config)
    state = load_file(path)
    if not large and not any(name.startswith("text_model.") for name in model.state_dict()):
        state = {name.removeprefix("text_model."): tensor for name, tensor in state.items()}
    missing, _ = model.load_state_dict({name: tensor.to(dtype) for name, tensor in state.items()}, strict=False)
    assert not [name for name in missing if "position_ids" not in name], missing
    model = model.to(dtype).eval().requires_grad_(False)
    tokens = torch.randint(0, 49406, (1, 77))
    tokens[0, -1] = 49407

    @torch.inference_mode()
    def work(times):
        for _ in range(times):
            model(tokens, output_hidden_states=True)

    return work


def train(method, path, dtype, side, batch, checkpointing):
    """A LoRA of peft, or what comes nearest to a PaRa there: DEFT's projection, `W - P Pᵀ W`."""
    import peft

    model = unet(path, dtype)
    targets = [name for name, module in model.named_modules()
               if isinstance(module, (torch.nn.Linear, torch.nn.Conv2d)) and ".attn2." not in name
               and not name.startswith(("conv_in", "conv_out", "time_embedding"))]
    linears = [name for name in targets if isinstance(model.get_submodule(name), torch.nn.Linear)]
    if method == "lora":
        config = peft.LoraConfig(r=4, lora_alpha=4, target_modules=targets)
    else:
        # PaRa is DEFT's ancestor; peft has it for Linear layers only.
        config = peft.DeftConfig(r=4, target_modules=linears)
    model = peft.get_peft_model(model, config)
    if checkpointing:
        model.enable_gradient_checkpointing()
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    more = told(model, batch, dtype)

    def work(times):
        for _ in range(times):
            x, target = torch.randn(batch, 4, side, side), torch.randn(batch, 4, side, side)
            said = model(x, torch.rand(batch) * 999, **more).sample
            torch.nn.functional.mse_loss(said, target).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            optimiser.zero_grad()

    return work


def main():
    work, path, numbers = sys.argv[1:]
    dtype = {"f32": torch.float32, "bf16": torch.bfloat16}[numbers]
    kind, *measures = work.split()
    sizes = [int(word) for word in measures if word.isdigit()]
    if kind in ("para", "lora"):
        run = train(kind, path, dtype, *sizes, "checkpointing" in measures)
    else:
        run = {"step": step, "decode": decode, "text": text}[kind](path, dtype, *sizes)
    print("ready", flush=True)
    for line in sys.stdin:
        run(int(line))
        print("done", flush=True)


main()
