"""Draws workflows of stock nodes at random, has two servers run each, and compares what they made: ComfyUI's and paraflow's.

    PYTHONPATH=<ComfyUI> python tests/golden/workflows.py files CHECKPOINT BASE
    python tests/golden/workflows.py run CHECKPOINT COMFYUI PARAFLOW [SEED [COUNT]]

`files` writes two LoRAs, an embedding and a control network with random numbers into BASE/models, for a checkpoint of the full size of
Stable Diffusion 1.5 as `full_size.py` makes it. `run` takes the name of a checkpoint (one with `xl` in its name is asked for what SDXL has) and
the addresses of both servers, such as http://127.0.0.1:8188. Both read the same models, and pictures from the same input folder.

Latents may differ by 5e-3 of their length, of a picture's pixels one in a thousand by more than 1 of 255. A workflow with which only one server
has trouble is told, as is one with other results; it is kept in `workflow-SEED-NUMBER.json`.
"""

import io
import json
import math
import random
import struct
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

TEXTS = ["a photo of a cat", "(red:1.3) bear, [blue:1.2]", "", "a very long prompt, " * 30, "a (b (c:0.5):1.2) \\(text\\)",
         "masterpiece (best quality:0.8), ((very)) detailed", "日本語 ünïcode 🙂"]
ENLARGING = ["nearest-exact", "bilinear", "area", "bicubic"]
CUT = {"context_length": 2, "context_overlap": 1, "context_schedule": "standard_static", "context_stride": 1, "closed_loop": False,
       "fuse_method": "pyramid", "dim": 0, "freenoise": True}
SHRINK = {"block_number": 3, "downscale_factor": 2.0, "start_percent": 0.0, "end_percent": 0.35, "downscale_after_skip": True,
          "downscale_method": "bicubic", "upscale_method": "bicubic"}
PATCHES = {
    "FreeU_V2": {"b1": 1.3, "b2": 1.4, "s1": 0.9, "s2": 0.2}, "RescaleCFG": {"multiplier": 0.7},
    "PerturbedAttentionGuidance": {"scale": 2.0}, "TomePatchModel": {"ratio": 0.3}, "PatchModelAddDownscale": SHRINK,
    "HyperTile": {"tile_size": 64, "swap_size": 2, "max_depth": 1, "scale_depth": False}, "DifferentialDiffusion": {"strength": 1.0},
    "ModelSamplingDiscrete": {"sampling": "v_prediction", "zsnr": True}, "CFGZeroStar": {}, "Mahiro": {}, "TCFG": {},
    "APG": {"eta": 0.8, "norm_threshold": 3.0, "momentum": 0.2}, "Epsilon Scaling": {"scaling_factor": 1.01},
    "FreSca": {"scale_low": 1.0, "scale_high": 1.25, "freq_cutoff": 5}, "CFGNorm": {"strength": 1.0},
    "EasyCache": {"reuse_threshold": 0.2, "start_percent": 0.15, "end_percent": 0.95, "verbose": False},
    "ModelSamplingContinuousEDM": {"sampling": "v_prediction", "sigma_max": 120.0, "sigma_min": 0.002},
    "UNetSelfAttentionMultiply": {"q": 1.1, "k": 1.0, "v": 0.9, "out": 1.0}, "ContextWindowsManual": CUT,
    "TemporalScoreRescaling": {"tsr_k": 0.9, "tsr_sigma": 1.0},
}
AFTERWARDS = {
    "ImageSharpen": {"sharpen_radius": 1, "sigma": 1.0, "alpha": 1.0}, "ImageBlur": {"blur_radius": 2, "sigma": 1.0}, "ImageInvert": {},
    "ImageScaleBy": {"upscale_method": "lanczos", "scale_by": 1.5},
}


class Workflow:
    """A workflow that is drawn: what was added last is at `model`, `clip`, `latent` and so on."""

    def __init__(self, chance, checkpoint, choices):
        self.nodes, self.chance, self.choices, self.is_xl = {}, chance, choices, "xl" in checkpoint
        self.width, self.height = (8 * chance.randint(12, 20) for _ in range(2))
        loaded = self.add("CheckpointLoaderSimple", ckpt_name=checkpoint)
        self.model, self.clip, self.vae = (self.slot(loaded, slot) for slot in range(3))
        self.adapt()
        self.positive, self.negative = self.prompt(), self.prompt() if self.likely(0.3) else self.words()
        if not self.is_xl and self.likely(0.2):
            self.control()
        for name in chance.sample(sorted(PATCHES), chance.choice([0, 0, 1, 1, 2])):
            self.model = self.add(name, model=self.model, **PATCHES[name])
        self.canvas()
        self.sample()
        self.add("SaveLatent", samples=self.latent, filename_prefix="workflows/latent")
        picture = self.add("VAEDecode", samples=self.latent, vae=self.vae)
        if self.likely(0.3):
            name = chance.choice(sorted(AFTERWARDS))
            picture = self.add(name, image=picture, **AFTERWARDS[name])
        self.add("SaveImage", images=picture, filename_prefix="workflows/picture")

    def add(self, name, **inputs):
        self.nodes[str(len(self.nodes) + 1)] = {"class_type": name, "inputs": inputs}
        return [str(len(self.nodes)), 0]

    @staticmethod
    def slot(node, slot):
        return [node[0], slot]

    def likely(self, share):
        return self.chance.random() < share

    def share(self, least=0.2, most=1.5):
        return round(self.chance.uniform(least, most), 2)

    def classes(self):
        return [node["class_type"] for node in self.nodes.values()]

    def adapt(self):
        for name in ("style", "thing"):
            if not self.is_xl and self.likely(0.3):
                loaded = self.add("LoraLoader", model=self.model, clip=self.clip, lora_name=f"{name}.safetensors",
                                  strength_model=self.share(-1.0), strength_clip=self.share(-1.0))
                self.model, self.clip = loaded, self.slot(loaded, 1)
        if self.likely(0.25):
            self.clip = self.add("CLIPSetLastLayer", clip=self.clip, stop_at_clip_layer=-self.chance.randint(1, 4))

    def words(self):
        texts = TEXTS if self.is_xl else [*TEXTS, "embedding:mystyle, sks dog"]
        if self.is_xl and self.likely(0.3):
            return self.add("CLIPTextEncodeSDXL", clip=self.clip, width=1024, height=768, crop_w=self.chance.randint(0, 40), crop_h=8,
                            target_width=1024, target_height=1024, text_g=self.chance.choice(texts), text_l=self.chance.choice(texts))
        return self.add("CLIPTextEncode", clip=self.clip, text=self.chance.choice(texts))

    def prompt(self):
        words, kind = self.words(), self.chance.randrange(14)
        together = lambda one, other: self.add("ConditioningCombine", conditioning_1=one, conditioning_2=other)
        if kind == 0:
            return together(words, self.words())
        if kind == 1:
            return self.add("ConditioningConcat", conditioning_to=words, conditioning_from=self.words())
        if kind == 2:
            return self.add("ConditioningAverage", conditioning_to=words, conditioning_from=self.words(),
                            conditioning_to_strength=self.share(0.0, 1.0))
        if kind == 3:
            x, y = (8 * self.chance.randint(0, 4) for _ in range(2))
            return together(words, self.add("ConditioningSetArea", conditioning=self.words(), width=64, height=64, x=x, y=y,
                                            strength=self.share()))
        if kind == 4:
            return together(words, self.add("ConditioningSetMask", conditioning=self.words(), mask=self.mask(64, 80),
                                            strength=self.share(), set_cond_area=self.chance.choice(["default", "mask bounds"])))
        if kind == 5:
            first = self.add("ConditioningSetTimestepRange", conditioning=words, start=0.0, end=0.5)
            return together(first, self.add("ConditioningSetTimestepRange", conditioning=self.words(), start=0.5, end=1.0))
        return self.add("ConditioningZeroOut", conditioning=words) if kind == 6 else words

    def mask(self, width, height):
        mask = self.add("SolidMask", value=self.share(0.0, 1.0), width=width, height=height)
        left, bottom = (self.chance.randint(0, 30) for _ in range(2))
        return self.add("FeatherMask", mask=mask, left=left, top=0, right=10, bottom=bottom)

    def picture(self):
        return self.add("LoadImage", image=self.chance.choice(self.choices["image"]))

    def control(self):
        network = self.add("ControlNetLoader", control_net_name="control.safetensors")
        picture = self.picture()
        if self.likely(0.5):
            picture = self.add("Canny", image=picture, low_threshold=0.3, high_threshold=0.7)
        led = self.add("ControlNetApplyAdvanced", positive=self.positive, negative=self.negative, control_net=network, image=picture,
                       strength=self.share(), start_percent=self.chance.choice([0.0, 0.2]), end_percent=self.chance.choice([1.0, 0.7]))
        self.positive, self.negative = led, self.slot(led, 1)

    def canvas(self):
        """An empty latent, or a picture's, with a mask or without."""
        kind, count = self.chance.randrange(9), self.chance.choice([1, 1, 1, 2, 3])
        self.denoise = 1.0
        if kind < 4:
            self.latent = self.add("EmptyLatentImage", width=self.width, height=self.height, batch_size=count)
            return
        self.denoise = self.chance.choice([1.0, 0.8, 0.5, 0.3])
        pixels = self.add("ImageScale", image=self.picture(), upscale_method=self.chance.choice([*ENLARGING, "lanczos"]),
                          width=self.width, height=self.height, crop=self.chance.choice(["disabled", "center"]))
        mask = self.mask(self.width, self.height)
        if kind == 4:
            made = self.add("InpaintModelConditioning", positive=self.positive, negative=self.negative, vae=self.vae, pixels=pixels,
                            mask=mask, noise_mask=self.likely(0.5))
            self.positive, self.negative, self.latent = (self.slot(made, slot) for slot in range(3))
        elif kind == 5:
            self.latent = self.add("VAEEncodeForInpaint", pixels=pixels, vae=self.vae, mask=mask, grow_mask_by=self.chance.randint(0, 10))
        else:
            self.latent = self.add("VAEEncode", pixels=pixels, vae=self.vae)
            if kind == 6:
                self.latent = self.add("SetLatentNoiseMask", samples=self.latent, mask=mask)
        if count > 1:
            self.latent = self.add("RepeatLatentBatch", samples=self.latent, amount=count)

    def sample(self):
        steps, seed = self.chance.randint(2, 6), self.chance.choice([self.chance.randrange(2**64), self.chance.randrange(1000)])
        told = {"model": self.model, "positive": self.positive, "negative": self.negative,
                "cfg": self.chance.choice([1.0, 3.5, 7.0, 8.0])}
        how = {"sampler_name": self.chance.choice(self.choices["sampler"]), "scheduler": self.chance.choice(self.choices["scheduler"])}
        kind = self.chance.randrange(8)
        if kind == 0:
            part = lambda noise, latent, start, end, left: self.add(
                "KSamplerAdvanced", **told, **how, add_noise=noise, noise_seed=seed, steps=steps, latent_image=latent, start_at_step=start,
                end_at_step=end, return_with_leftover_noise=left)
            middle = self.chance.randint(1, steps)
            self.latent = part("disable", part("enable", self.latent, 0, middle, "enable"), middle, 10000, "disable")
        elif kind < 3:
            levels = self.add("BasicScheduler", model=self.model, scheduler=how["scheduler"], steps=steps, denoise=self.denoise)
            made = self.add("SamplerCustomAdvanced", noise=self.add("RandomNoise", noise_seed=seed), guider=self.add("CFGGuider", **told),
                            sampler=self.add("KSamplerSelect", sampler_name=how["sampler_name"]), sigmas=levels, latent_image=self.latent)
            self.latent = self.slot(made, self.chance.choice([0, 0, 1]))
        else:
            self.latent = self.add("KSampler", **told, **how, seed=seed, steps=steps, latent_image=self.latent, denoise=self.denoise)
        if self.likely(0.2):
            larger = self.add("LatentUpscaleBy", samples=self.latent, upscale_method=self.chance.choice([*ENLARGING, "bislerp"]),
                              scale_by=1.5)
            self.latent = self.add("KSampler", **told, sampler_name="euler", scheduler="normal", seed=seed, steps=2, latent_image=larger,
                                   denoise=0.6)


class Server:
    def __init__(self, address):
        self.address = address.rstrip("/")

    def get(self, path):
        with urllib.request.urlopen(self.address + path, timeout=600) as answer:
            return answer.read()

    def run(self, workflow):
        """The files of every node that saved some, or why there are none."""
        body = json.dumps({"prompt": workflow}).encode()
        request = urllib.request.Request(self.address + "/prompt", body, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=600) as answer:
                job = json.load(answer)["prompt_id"]
        except urllib.error.HTTPError as refusal:
            return f"refused: {refusal.read().decode()[:500]}"
        while job not in (history := json.loads(self.get(f"/history/{job}"))):
            time.sleep(0.2)
        entry = history[job]
        if entry["status"]["status_str"] != "success":
            failed = [message[1] for message in entry["status"]["messages"] if message[0] == "execution_error"]
            return f"failed: {failed[0]['node_type']}: {failed[0]['exception_message'][:500]}" if failed else "failed"
        place = lambda file: urllib.parse.urlencode({key: file[key] for key in ("filename", "subfolder", "type")})
        files = {node: [file for kind in ("images", "latents") for file in shown.get(kind, [])]
                 for node, shown in entry["outputs"].items()}
        return {node: [self.get(f"/view?{place(file)}") for file in of] for node, of in files.items()}


def difference(ours, theirs):
    """What two results differ in beyond rounding, and the largest relative difference of latents."""
    import numpy
    from PIL import Image

    def latent(file):
        size = struct.unpack("<Q", file[:8])[0]
        entry = json.loads(file[8:8 + size])["latent_tensor"]
        start, end = entry["data_offsets"]
        return numpy.frombuffer(file[8 + size + start:8 + size + end], numpy.float32).reshape(entry["shape"])

    worst, told = 0.0, []
    for node in theirs.keys() | ours.keys():
        here, there = ours.get(node, []), theirs.get(node, [])
        if len(here) != len(there):
            told.append(f"node {node}: {len(here)} files for {len(there)}")
        for one, other in zip(here, there):
            is_picture = one.startswith(b"\x89PNG")
            read = (lambda file: numpy.asarray(Image.open(io.BytesIO(file))).astype(int)) if is_picture else latent
            one, other = read(one), read(other)
            if one.shape != other.shape:
                told.append(f"node {node}: {one.shape} for {other.shape}")
            elif is_picture:
                off = (abs(one - other) > 1).mean()
                if off > 1e-3:
                    told.append(f"node {node}: {off:.2%} of the picture")
            else:
                error = float(numpy.linalg.norm(one - other) / max(numpy.linalg.norm(other), 1e-30))
                worst = max(worst, error)
                if not error <= 5e-3:
                    told.append(f"node {node}: latents by {error:.1e}")
    return told, worst


def run(checkpoint, comfyui, paraflow, seed="0", count="20"):
    servers, chance = [Server(paraflow), Server(comfyui)], random.Random(int(seed))
    info = lambda name: json.loads(servers[1].get(f"/object_info/{name}"))[name]["input"]["required"]
    choices = {"sampler": info("KSampler")["sampler_name"][0], "scheduler": info("KSampler")["scheduler"][0],
               "image": info("LoadImage")["image"][0]}
    worst, unlike = 0.0, 0
    for number in range(int(count)):
        workflow = Workflow(chance, checkpoint, choices)
        made = [server.run(workflow.nodes) for server in servers]
        told, error = [], 0.0
        if all(isinstance(result, dict) for result in made):
            told, error = difference(*made)
        elif any(isinstance(result, dict) for result in made):
            told = [f"{name} {result}" for name, result in zip(("paraflow", "ComfyUI"), made) if isinstance(result, str)]
        worst, unlike = max(worst, error), unlike + bool(told)
        print(f"{number}: {'; '.join(told) or f'{error:.1e}'}  ({', '.join(workflow.classes()[1:])})", flush=True)
        if told:
            Path(f"workflow-{seed}-{number}.json").write_text(json.dumps(workflow.nodes, indent=1))
    print(f"{unlike} of {count} unlike; latents within {worst:.1e}")


def files(checkpoint, base):
    """LoRAs of linear layers and of convolutions too, an embedding, a control network."""
    sys.argv = [sys.argv[0], "--cpu"]
    import comfy.options

    comfy.options.enable_args_parsing()
    import comfy.cldm.cldm
    import comfy.ops
    import comfy.utils
    import torch
    from safetensors import safe_open
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(1)
    number = lambda shape, scale: ((torch.rand(shape, generator=generator) * 2 - 1) * scale).half().contiguous()
    unet = {"num_res_blocks": [2] * 4, "channel_mult": [1, 2, 4, 4], "transformer_depth": [1] * 6 + [0] * 2,
            "transformer_depth_output": [1] * 9 + [0] * 3, "transformer_depth_middle": 1}
    with safe_open(checkpoint, "pt") as file:
        shapes = {key: file.get_slice(key).get_shape() for key in file.keys()}
    layers = {f"lora_unet_{name.removesuffix('.weight').replace('.', '_')}": shapes.get(f"model.diffusion_model.{key}", [])
              for name, key in comfy.utils.unet_to_diffusers(unet).items() if name.endswith(".weight")}
    words = {f"lora_te_text_model_encoder_layers_{layer}_{name}": shape for layer in range(12)
             for name, shape in (("self_attn_q_proj", [768, 768]), ("mlp_fc1", [3072, 768]))}

    def lora(layers, rank):
        tensors = {}
        for name, (out, into, *kernel) in layers.items():
            tensors[f"{name}.lora_down.weight"] = number([rank, into, *kernel], into ** -0.5)
            tensors[f"{name}.lora_up.weight"] = number([out, rank, *(1 for _ in kernel)], 0.05)
            tensors[f"{name}.alpha"] = torch.tensor(rank / 2)
        return tensors

    models = Path(base) / "models"
    linear = {name: shape for name, shape in layers.items() if len(shape) == 2}
    written = {"loras/style": lora(linear | words, 4), "loras/thing": lora({n: s for n, s in layers.items() if len(s) > 1}, 8),
               "embeddings/mystyle": {"emb_params": number([2, 768], 0.3)}}
    with torch.device("meta"):
        network = comfy.cldm.cldm.ControlNet(
            image_size=32, in_channels=4, hint_channels=3, model_channels=320, num_res_blocks=[2] * 4, channel_mult=[1, 2, 4, 4],
            transformer_depth=[1] * 6 + [0] * 2, transformer_depth_middle=1, context_dim=768, num_heads=8, use_spatial_transformer=True,
            dtype=torch.float16, operations=comfy.ops.disable_weight_init)
    control = written["controlnet/control"] = {}
    for key, weight in network.state_dict().items():
        inputs = math.prod(weight.shape[1:])
        scale = 0.8 * inputs ** -0.5 if weight.dim() > 1 else 0.05
        control[f"control_model.{key}"] = number(list(weight.shape), scale) + (weight.dim() == 1 and key.endswith("weight"))
    for name, tensors in written.items():
        (models / name).parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, models / f"{name}.safetensors")
        print(f"{name}.safetensors: {len(tensors)} tensors")


{"files": files, "run": run}[sys.argv[1]](*sys.argv[2:])
