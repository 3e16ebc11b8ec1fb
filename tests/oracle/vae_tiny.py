"""Tiny autoencoders: AutoencoderTiny in TAEF1 layout (random weights, narrow) and TAEF2 with its real weights.

vae_tiny/ : diffusers AutoencoderTiny, image range −1..1, encode, decode, gradients of sum(decode·decode_weight) with respect to the
latent and all decoder parameters and of sum(encode·encode_weight) with respect to the image and all encoder parameters.
taef2/ : own torch modules written from the layout in the TAESD files (numeric keys of an nn.Sequential, GroupNorm pool branch in
the three lowest-resolution blocks of each half), image range 0..1; the fp16 weights are promoted to float32. The weights file is
not copied: `--taef2` points at it.
"""

import argparse
import copy
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from common import Random, deviation, deviations, gradients, parse_args, report, save, save_json, state, versions
from safetensors.torch import load_file
from tiny import TAE, vae_tiny
from torch import nn

SIZES = {"a": [(64, 64), (48, 80)], "b": [(40, 72), (64, 48)]}


# --- TAEF2 -----------------------------------------------------------------------------------------------------------------------
class Block(nn.Module):
    def __init__(self, pool: bool):
        super().__init__()
        c = lambda: nn.Conv2d(64, 64, 3, padding=1)
        self.conv = nn.Sequential(c(), nn.ReLU(), c(), nn.ReLU(), c())
        self.pool = nn.Sequential(nn.Conv2d(64, 256, 1, bias=False), nn.GroupNorm(4, 256, eps=1e-5), nn.ReLU(), nn.Conv2d(256, 64, 1, bias=False)) if pool else None

    def forward(self, x):
        if self.pool is not None:
            x = x + self.pool(x)
        return F.relu(self.conv(x) + x)


class SoftClamp(nn.Module):
    def forward(self, z):
        return torch.tanh(z / 3) * 3


def down():
    return nn.Conv2d(64, 64, 3, stride=2, padding=1, bias=False)


def taef2_encoder():
    blocks = lambda n, pool=False: [Block(pool) for _ in range(n)]
    return nn.Sequential(nn.Conv2d(3, 64, 3, padding=1), *blocks(1), down(), *blocks(3), down(), *blocks(3), down(), *blocks(3, True), nn.Conv2d(64, 32, 3, padding=1))


def taef2_decoder():
    blocks = lambda n, pool=False: [Block(pool) for _ in range(n)]
    up = lambda: [nn.Upsample(scale_factor=2), nn.Conv2d(64, 64, 3, padding=1, bias=False)]
    return nn.Sequential(SoftClamp(), nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), *blocks(3, True), *up(), *blocks(3), *up(), *blocks(3), *up(), *blocks(1),
                         nn.Conv2d(64, 3, 3, padding=1))


def load_taef2(file: Path):
    weights = {k: v.float() for k, v in load_file(str(file)).items()}
    encoder, decoder = taef2_encoder(), taef2_decoder()
    encoder.load_state_dict({k.removeprefix("encoder."): v for k, v in weights.items() if k.startswith("encoder.")})
    decoder.load_state_dict({k.removeprefix("decoder."): v for k, v in weights.items() if k.startswith("decoder.")})
    return encoder.eval(), decoder.eval()


# --- both ------------------------------------------------------------------------------------------------------------------------
def run(encode, decode, modules, x, dtype):
    x = {k: v.detach().clone().to(dtype) for k, v in x.items()}
    x["image"].requires_grad_(True)
    x["latent"].requires_grad_(True)
    encoded, decoded = encode(x["image"]), decode(x["latent"])
    for m in modules.values():
        m.zero_grad(set_to_none=True)
    (encoded * x["encode_weight"]).sum().backward()
    (decoded * x["decode_weight"]).sum().backward()
    return {
        "out": {"encoded": encoded.detach(), "decoded": decoded.detach()},
        "input_grads": {"grad.image": x["image"].grad, "grad.latent": x["latent"].grad},
        "grads": {f"{prefix}{k}": v for prefix, m in modules.items() for k, v in gradients(m).items()},
    }


def values(r, h, w, channels, low):
    return dict(image=r("image", 1, 3, h, w).mul(0.4).clamp(-1, 1).mul(1 if low else 0.5).add(0 if low else 0.5), latent=r("latent", 1, channels, h // 8, w // 8),
                encode_weight=r("encode_weight", 1, channels, h // 8, w // 8), decode_weight=r("decode_weight", 1, 3, h, w))


def dump(runner, seed, variant, subject, channels, signed):
    tensors, check, grads = {}, {}, None
    for h, w in SIZES[variant]:
        x = values(Random(seed, f"{subject}/{h}x{w}"), h, w, channels, signed)
        low, high = runner(x, torch.float32), runner(x, torch.float64)
        tensors.update({f"{h}x{w}.{k}": v for k, v in {**x, **low["out"], **low["input_grads"]}.items()})
        grads = grads or low["grads"]
        check[f"{h}x{w}"] = {"encoded": deviation(low["out"]["encoded"], high["out"]["encoded"]), "decoded": deviation(low["out"]["decoded"], high["out"]["decoded"]),
                             "input_grads": deviations(low["input_grads"], high["input_grads"]), "grads": deviations(low["grads"], high["grads"])}
    return tensors, check, grads


def main():
    extra = argparse.ArgumentParser(add_help=False)
    extra.add_argument("--taef2", type=Path, default=Path(__file__).resolve().parents[2] / "models/taef2/taef2.safetensors")
    known, rest = extra.parse_known_args()
    sys.argv = [sys.argv[0], *rest]
    args = parse_args(__doc__)
    first = "{}x{}".format(*SIZES[args.variant][0])

    model = vae_tiny(args.seed, args.variant)

    def diffusers_runner(x, dtype):
        m = copy.deepcopy(model).to(dtype)
        return run(lambda i: m.encode(i).latents, lambda z: m.decode(z).sample, {"": m}, x, dtype)

    tensors, check, grads = dump(diffusers_runner, args.seed, args.variant, "vae_tiny", 16, True)
    folder = args.out / "vae_tiny"
    save(folder / "weights.safetensors", state(model))
    save(folder / "grads.safetensors", grads)
    save(folder / "io.safetensors", tensors)
    save_json(folder / "config.json", {"_class_name": "AutoencoderTiny", **{k: v for k, v in model.config.items() if not k.startswith("_")}, "_oracle": {
        "seed": args.seed, "variant": args.variant, "sizes": SIZES[args.variant], "image_range": [-1, 1], "grads.safetensors belongs to": first,
        "f32_vs_f64": check, "versions": versions()}})
    report("vae_tiny", folder, check)

    encoder, decoder = load_taef2(known.taef2)

    def taef2_runner(x, dtype):
        e, d = copy.deepcopy(encoder).to(dtype), copy.deepcopy(decoder).to(dtype)
        return run(e, d, {"encoder.": e, "decoder.": d}, x, dtype)

    tensors, check, grads = dump(taef2_runner, args.seed, args.variant, "taef2", 32, False)
    folder = args.out / "taef2"
    save(folder / "io.safetensors", tensors)
    kept = {k: v for k, v in grads.items() if v.ndim == 1 or ".pool." in k and k.split(".")[1] in ("3", "11")}
    save(folder / "grads.safetensors", kept)
    save_json(folder / "config.json", {"_class_name": "TAEF2", "weights": "data/taef2/taef2.safetensors (real, not copied here)", "_oracle": {
        "seed": args.seed, "variant": args.variant, "sizes": SIZES[args.variant], "image_range": [0, 1], "grads.safetensors belongs to": first,
        "grads kept": "biases, norm gains, and the pool convolutions of blocks encoder.11 and decoder.3", "f32_vs_f64": check, "versions": versions()}})
    report("taef2", folder, check)


if __name__ == "__main__":
    main()
