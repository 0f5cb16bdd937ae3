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
    state = convert_ldm_unet_checkpoint(part(path, "model.diffusion_model."), dict(model.config))
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


def vae(path, dtype):
    from diffusers import AutoencoderKL
    from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

    model = AutoencoderKL(block_out_channels=(128, 256, 512, 512), layers_per_block=2, latent_channels=4,
                          down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4)
    state = part(path, "first_stage_model.")
    state = convert_ldm_vae_checkpoint(state, dict(model.config))
    model.load_state_dict({name: tensor.to(dtype) for name, tensor in state.items()}, assign=True)
    return model.eval().requires_grad_(False)


def part(path, *prefixes):
    """The tensors below some prefixes, and no others."""
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys() if name.startswith(prefixes)}


def decode(path, dtype, side, tiled=False):
    model = vae(path, dtype)
    if tiled:
        model.enable_tiling()
    latent = torch.randn(1, 4, side, side, dtype=dtype)

    @torch.inference_mode()
    def work(times):
        for _ in range(times):
            model.decode(latent)

    return work


def encoder(large):
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    width, layers = (1280, 32) if large else (768, 12)
    config = CLIPTextConfig(hidden_size=width, intermediate_size=4 * width, num_hidden_layers=layers,
                            num_attention_heads=width // 64, hidden_act="gelu" if large else "quick_gelu",
                            projection_dim=width)
    return (CLIPTextModelWithProjection if large else CLIPTextModel)(config)


def text(path, dtype):
    large = "clip-g" in path
    model = encoder(large)
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


class Para(torch.nn.Module):
    """What PaRa does beside a layer: `y - Q Qᵀ y` with the columns of `Q` from a QR factorisation of what is trained."""

    def __init__(self, layer, rank):
        super().__init__()
        out = layer.weight.shape[0]
        self.layer, self.b = layer, torch.nn.Parameter(torch.randn(out, min(rank, out // 8)))

    @property
    def weight(self):
        return self.layer.weight

    def forward(self, x):
        y = torch.nn.functional.conv2d(x, self.layer.weight, None, self.layer.stride, self.layer.padding) \
            if isinstance(self.layer, torch.nn.Conv2d) else torch.nn.functional.linear(x, self.layer.weight)
        q = torch.linalg.qr(self.b)[0]
        if y.dim() == 4:
            kept = torch.nn.functional.conv2d(y, q.t()[:, :, None, None])
            y = y - torch.nn.functional.conv2d(kept, q[:, :, None, None])
        else:
            y = y - (y @ q) @ q.t()
        if self.layer.bias is None:
            return y
        return y + (self.layer.bias[:, None, None] if y.dim() == 4 else self.layer.bias)


def with_para(model, targets):
    """Every target of at least eight outputs wrapped, by hand: peft's PaRa (`DeftConfig`) takes no convolutions."""
    for name in targets:
        layer = model.get_submodule(name)
        if layer.weight.shape[0] >= 8:
            parent, _, own = name.rpartition(".")
            setattr(model.get_submodule(parent), own, Para(layer, 4))
    return model


def train(method, path, dtype, side, batch, checkpointing):
    """A LoRA of peft, or PaRa, on every layer but cross-attention's, rank 4."""
    import peft

    model = unet(path, dtype)
    targets = [name for name, module in model.named_modules()
               if isinstance(module, (torch.nn.Linear, torch.nn.Conv2d)) and ".attn2." not in name]
    if method == "lora":
        model = peft.get_peft_model(model, peft.LoraConfig(r=4, lora_alpha=4, target_modules=targets))
    else:
        model = with_para(model, targets)
    if checkpointing:
        model.enable_gradient_checkpointing()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=1e-3)
    more = told(model, batch, dtype)

    def work(times):
        for _ in range(times):
            x, target = torch.randn(batch, 4, side, side), torch.randn(batch, 4, side, side)
            said = model(x, torch.rand(batch) * 999, **more).sample
            torch.nn.functional.mse_loss(said, target).backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimiser.step()
            optimiser.zero_grad()

    return work


def picture(path, dtype, side, steps):
    """A prompt and an empty one, guided steps, the decoding; the text encoders' numbers stay random, which costs the same."""
    encoders = [encoder(large).to(dtype).eval().requires_grad_(False) for large in ([False, True] if "sdxl" in path else [False])]
    model, coder = unet(path, dtype), vae(path, dtype)
    tokens = torch.randint(0, 49406, (2, 77))
    noise = torch.randn(1, 4, side, side, dtype=dtype)

    @torch.inference_mode()
    def work(times):
        for _ in range(times):
            prompt = torch.cat([model(tokens, output_hidden_states=True).hidden_states[-2] for model in encoders], -1)
            more, latent = told(model, 2, dtype) | {"encoder_hidden_states": prompt}, noise
            for step in range(steps):
                said = model(torch.cat([latent] * 2), torch.tensor([999.0 - step] * 2), **more).sample
                guided = 7 * said[:1] - 6 * said[1:]
                latent = latent - guided / steps
            coder.decode(latent)

    return work


def main():
    work, path, numbers = sys.argv[1:]
    # What comes before this is Python's and torch's own start.
    print("started", flush=True)
    dtype = {"f32": torch.float32, "bf16": torch.bfloat16}[numbers]
    kind, *measures = work.split()
    sizes = [int(word) for word in measures if word.isdigit()]
    if kind in ("para", "lora"):
        run = train(kind, path, dtype, *sizes, "checkpointing" in measures)
    else:
        kinds = {"step": step, "decode": decode, "text": text, "picture": picture,
                 "tiled": lambda *given: decode(*given, tiled=True)}
        run = kinds[kind](path, dtype, *sizes)
    print("ready", flush=True)
    for line in sys.stdin:
        run(int(line))
        print("done", flush=True)


main()
