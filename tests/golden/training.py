"""Records how torch trains adapters: results, gradients by autograd through `torch.linalg.qr`, steps of AdamW.

Inputs and weights are drawn as in `drawing.py`; only results are stored.

- `layers.safetensors`, f64: one linear layer and convolutions of several strides, each with a PaRa, a DEFT, a LoRA and
  shifted singular values: output, gradients, what one and ten steps of AdamW make of the trained numbers; and peft's
  `DeftConfig(para=True, decomposition_method="qr")` on the linear layer.
- `unet.safetensors`, f32: the gradient of every trained tensor beside every layer of a whole UNet, worked out in f64.

Made with torch 2.15.0 (CPU), diffusers 0.42.1, peft 0.21.2, safetensors:

    python tests/golden/training.py
"""

import math
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from drawing import uniform
from networks import fill, unet_keys
from peft import DeftConfig, get_peft_model
from safetensors.torch import save_file

OUT = Path(__file__).with_suffix("")


def draw(key: str, shape: list[int], scale: float = 1.0) -> torch.Tensor:
    """Drawn in f64, rounded to f32 as the Rust tests have it."""
    values = torch.from_numpy(scale * uniform(key, math.prod(shape))).reshape(shape)
    return values.to(torch.float32).to(torch.float64)


def directions(b: torch.Tensor) -> torch.Tensor:
    """Q of B = QR with a positive diagonal of R. `b` is [rank, out], so is the result."""
    q, r = torch.linalg.qr(b.T)
    return (q * torch.sign(torch.diagonal(r))).T


class Thin:
    """What acts beside one layer, its numbers drawn from the layer's name."""

    def __init__(self, method: str, name: str, weight: torch.Tensor, rank: int, product) -> None:
        out, inputs = weight.shape[0], list(weight.shape[1:])
        scale = 1.0 / math.sqrt(math.prod(inputs))
        self.method, self.product = method, product
        self.names, tensors = [], []
        if method in ("para", "deft"):
            self.names.append("b")
            tensors.append(draw(f"{name} b", [rank, out]))
        if method == "lora":
            self.names.append("up")
            tensors.append(draw(f"{name} up", [rank, out]))
        if method in ("deft", "lora"):
            self.names.append("down")
            tensors.append(draw(f"{name} down", [rank, *inputs], scale))
        if method == "svdiff":
            u, self.sigma, vh = torch.linalg.svd(weight.reshape(out, -1), full_matrices=False)
            self.u, self.vh = u, vh.reshape(-1, *inputs)
            self.names.append("delta")
            tensors.append(draw(f"{name} delta", [len(self.sigma)], 0.3))
        self.tensors = [tensor.requires_grad_() for tensor in tensors]

    def output(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """From input and product, channels last for `y`; `product(x, w)` is the layer with another weight."""
        numbers = dict(zip(self.names, self.tensors))
        if self.method in ("para", "deft"):
            q = directions(numbers["b"])
            kept = y - (y @ q.T) @ q
            return kept if self.method == "para" else kept + self.product(x, numbers["down"]) @ q
        if self.method == "lora":
            return y + self.product(x, numbers["down"]) @ numbers["up"]
        changed = torch.relu(self.sigma + numbers["delta"]) - self.sigma
        return y + (self.product(x, self.vh) * changed) @ self.u.T


def linear(x, w):
    return x @ w.reshape(w.shape[0], -1).T


def convolution(stride: int, before: int, after: int):
    def product(x, w):
        x = F.pad(x.permute(0, 3, 1, 2), (before, after, before, after))
        return F.conv2d(x, w, stride=stride).permute(0, 2, 3, 1)

    return product


def layers() -> dict[str, torch.Tensor]:
    cases = [("linear", [12, 9], [2, 5, 9], linear)]
    for stride, before, after in [(1, 1, 1), (2, 1, 1), (2, 0, 1)]:
        name = f"conv {stride} {before} {after}"
        cases.append((name, [10, 6, 3, 3], [2, 5, 7, 6], convolution(stride, before, after)))
    recorded = {}
    for case, shape, inputs, product in cases:
        weight = draw(f"{case} weight", shape, math.sqrt(3.0 / math.prod(shape[1:])))
        for method in ("para", "deft", "lora", "svdiff"):
            x = draw(f"{case} x", inputs).requires_grad_()
            thin = Thin(method, case, weight, 3, product)
            y = thin.output(x, product(x, weight))
            loss = (torch.tanh(y) * draw(f"{case} weights", list(y.shape))).sum()
            loss.backward()
            key = f"{case}.{method}"
            recorded |= {f"{key}.output": y.detach(), f"{key}.x_gradient": x.grad}
            recorded |= {f"{key}.{name}_gradient": t.grad.clone() for name, t in zip(thin.names, thin.tensors)}
            optimiser = torch.optim.AdamW(thin.tensors, lr=1e-3, weight_decay=0.01)
            for step in range(1, 11):
                optimiser.zero_grad()
                y = thin.output(x.detach(), product(x.detach(), weight))
                (torch.tanh(y) * draw(f"{case} weights", list(y.shape))).sum().backward()
                optimiser.step()
                if step in (1, 10):
                    recorded |= {f"{key}.{n}_{step}": t.detach().clone() for n, t in zip(thin.names, thin.tensors)}
    return recorded | witness()


def witness() -> dict[str, torch.Tensor]:
    """peft's PaRa on the linear layer, which has a bias there."""
    base = torch.nn.Sequential(torch.nn.Linear(9, 12)).double()
    base[0].weight.data = draw("linear weight", [12, 9], math.sqrt(3.0 / 9))
    base[0].bias.data = draw("linear bias", [12])
    model = get_peft_model(base, DeftConfig(target_modules=["0"], r=3, para=True, decomposition_method="qr"))
    trained = [p for name, p in model.named_parameters() if "deft_P" in name]
    assert len(trained) == 1, [name for name, _ in model.named_parameters()]
    numbers = draw("linear b", [3, 12])
    trained[0].data = (numbers.T if tuple(trained[0].shape) == (12, 3) else numbers).contiguous()
    y = model(draw("linear x", [2, 5, 9]))
    (torch.tanh(y) * draw("linear weights", list(y.shape))).sum().backward()
    gradient = trained[0].grad
    return {"peft.output": y.detach(), "peft.b_gradient": gradient.T if gradient.shape[0] == 12 else gradient}


def unet() -> dict[str, torch.Tensor]:
    """`unet_deep` of `networks.py`, with something beside every layer that has a weight of two or four dimensions."""
    model = UNet2DConditionModel(
        block_out_channels=[32, 64, 64, 96],
        layers_per_block=2,
        down_block_types=["CrossAttnDownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
        up_block_types=["UpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D", "CrossAttnUpBlock2D"],
        cross_attention_dim=64,
        attention_head_dim=8,
    ).eval()
    keys = unet_keys(model, 2)
    fill(model, keys, "model.diffusion_model.")
    model = model.double().requires_grad_(False)
    modules = {keys[f"{name}.weight"].removesuffix(".weight"): module for name, module in model.named_modules()
               if isinstance(module, (torch.nn.Linear, torch.nn.Conv2d))}
    recorded = {}
    for method in ("para", "lora", "svdiff"):
        thins, hooks = {}, []
        for name, module in modules.items():
            product, last = linear, lambda y: y
            if isinstance(module, torch.nn.Conv2d) and module.kernel_size != (1, 1):
                product = convolution(module.stride[0], module.padding[0], module.padding[0])
            convolves = isinstance(module, torch.nn.Conv2d)
            thins[name] = thin = Thin(method, name, module.weight, 2 if method == "para" else 1, product)

            def hook(module, given, y, thin=thin, convolves=convolves):
                x = given[0].permute(0, 2, 3, 1) if convolves else given[0]
                y = y.permute(0, 2, 3, 1) if convolves else y
                bias = 0.0 if module.bias is None else module.bias
                y = thin.output(x, y - bias) + bias
                return y.permute(0, 3, 1, 2) if convolves else y

            hooks.append(module.register_forward_hook(hook))
        x, prompt = draw("x", [2, 4, 12, 20], 1.5), draw("context", [2, 77, 64], 1.5)
        said = model(x, torch.tensor([981.0, 37.0], dtype=torch.float64), prompt).sample
        weights = 0.5 + 0.5 * draw("weights", [2, 1, 1, 1])
        loss = ((said - draw("target", list(said.shape))) ** 2 * weights).sum()
        loss.backward()
        recorded[f"{method}.loss"] = loss.detach().reshape(1).float()
        for name, thin in thins.items():
            recorded |= {f"{method}.{name}.{n}": t.grad.float() for n, t in zip(thin.names, thin.tensors)}
        for hook in hooks:
            hook.remove()
    return recorded


if __name__ == "__main__":
    torch.set_num_threads(1)
    OUT.mkdir(exist_ok=True)
    for name, tensors in [("layers", layers()), ("unet", unet())]:
        save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, OUT / f"{name}.safetensors")
