"""Loads every dump from disk into fresh library models and compares: `check.py --out <fixtures> [--variant b]`. Ends with exit code 1 on a mismatch."""

import json
import sys
from pathlib import Path

import torch
from common import deviation, parse_args
from safetensors.torch import load_file


def read(folder: Path, stem: str) -> dict[str, torch.Tensor]:
    index = folder / f"{stem}.safetensors.index.json"
    if not index.exists():
        return load_file(str(folder / f"{stem}.safetensors"))
    names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    return {k: v for n in names for k, v in load_file(str(folder / n)).items()}


def config(folder: Path) -> dict:
    return {k: v for k, v in json.loads((folder / "config.json").read_text()).items() if not k.startswith("_")}


def main():
    args = parse_args(__doc__)
    root, bad = args.out, []

    def same(what, got, want, limit=2e-6):
        d = deviation(got, want)["relative_l2"]
        print(f"{'ok ' if d <= limit else 'BAD'} {what}: {d:.2g}")
        if d > limit:
            bad.append(what)

    from diffusers import AutoencoderKL, AutoencoderTiny, Flux2Transformer2DModel, FluxTransformer2DModel, FluxPipeline
    from flux1 import forward
    from flux2 import forward as forward2

    for name in ("flux1", "flux1_small"):
        model = FluxTransformer2DModel(**config(root / name))
        model.load_state_dict({k: v.float() for k, v in read(root / name, "weights").items()}, strict=True)
        x = read(root / name, "io")
        with torch.no_grad():
            same(name, forward(model.eval(), x), x["output"])
    small = model

    x = read(root / "flux2", "io")
    model = Flux2Transformer2DModel(**config(root / "flux2"))
    model.load_state_dict({k: v.float() for k, v in read(root / "flux2", "weights").items()}, strict=True)
    with torch.no_grad():
        same("flux2", forward2(model.eval(), x), x["output"])

    vaes = {}
    for name, cls, encode, key in (("vae_kl", AutoencoderKL, lambda m, i: m.encode(i).latent_dist.parameters, "moments"), ("vae_tiny", AutoencoderTiny, lambda m, i: m.encode(i).latents, "encoded")):
        vaes[name] = cls.from_config(config(root / name))
        vaes[name].load_state_dict(read(root / name, "weights"), strict=True)
        x = read(root / name, "io")
        for size in {k.split(".")[0] for k in x}:
            with torch.no_grad():
                same(f"{name} {size} encode", encode(vaes[name].eval(), x[f"{size}.image"]), x[f"{size}.{key}"])
                same(f"{name} {size} decode", vaes[name].decode(x[f"{size}.latent"]).sample, x[f"{size}.decoded"])

    from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

    x = read(root / "t5", "io")
    model = T5EncoderModel(T5Config(**{k: v for k, v in config(root / "t5").items() if k not in ("architectures", "model_type")}))
    model.load_state_dict(read(root / "t5", "weights"), strict=False)
    with torch.no_grad():
        same("t5 unmasked", model.eval()(x["ids"]).last_hidden_state, x["output.unmasked"], 1e-5)
        same("t5 masked", model(x["ids"], attention_mask=x["mask"]).last_hidden_state, x["output.masked"], 1e-5)

    x = read(root / "clip_text", "io")
    base = {k: v for k, v in config(root / "clip_text").items() if k not in ("architectures", "model_type")}
    model = CLIPTextModel(CLIPTextConfig(**base))
    model.load_state_dict({k.removeprefix("text_model."): v for k, v in read(root / "clip_text", "weights").items()}, strict=True)
    with torch.no_grad():
        same("clip_text", model.eval()(x["ids"]).pooler_output, x["quick_gelu.argmax.pooled"])

    from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg

    c = config(root / "clip_openclip")
    clip = CLIP(c["embed_dim"], CLIPVisionCfg(**c["vision_cfg"]), CLIPTextCfg(**c["text_cfg"]))
    clip.load_state_dict(read(root / "clip_openclip", "weights"), strict=True)
    clip.eval()
    x = read(root / "clip_openclip", "io")
    with torch.no_grad():
        same("clip_openclip image", clip.encode_image(x["image"]), x["image_features"])
        same("clip_openclip text", clip.encode_text(x["tokens"]), x["text_features"])

    c, x = config(root / "clip_hf"), read(root / "clip_hf", "io")
    model = CLIPModel(CLIPConfig(projection_dim=c["projection_dim"], text_config=c["text_config"], vision_config=c["vision_config"]))
    model.load_state_dict(read(root / "clip_hf", "weights"), strict=True)
    with torch.no_grad():
        same("clip_hf score", model.eval()(input_ids=x["input_ids"], pixel_values=x["pixel_values"]).logits_per_image.diagonal(), x["score"], 5e-6)

    # SRPO, from files alone: one Euler step, then the denoise branch by the formulas of docs/training.md
    from clip_openclip import preprocess

    info, x = json.loads((root / "srpo_step" / "config.json").read_text()), read(root / "srpo_step", "io")
    case = info["cases"]["full"]
    h, w = info["image"]
    p, o = case["plan"]["denoise"], case["options"]
    from tiny import image_ids

    call = lambda z, t, g: small(hidden_states=z, timestep=torch.tensor([t]), guidance=torch.tensor([g]), encoder_hidden_states=x["encoder_hidden_states"], pooled_projections=x["pooled_projections"],
                                 img_ids=image_ids(h // 16, w // 16), txt_ids=torch.zeros(x["encoder_hidden_states"].shape[1], 3), return_dict=False)[0]
    table = json.loads((root / "srpo_step" / "golden.json").read_text())
    sigmas, times = table["rollout sigmas (float32)"], table["rollout timesteps"]
    eps = x["full.noise"]
    same("srpo packed noise", FluxPipeline._pack_latents(x["noise"], 1, 16, h // 8, w // 8), eps, 0)
    z = eps
    with torch.no_grad():
        for i in range(len(times)):
            z = z + (sigmas[i + 1] - sigmas[i]) * call(z, times[i], o["rollout_guidance"])
    same("srpo rollout", z, x["full.x"])
    z = (p["b"] * eps + (1 - p["b"]) * x["full.x"]).requires_grad_(True)
    v = call(z, p["timestep"], o["train_guidance"])
    recovered = (z + (p["e"] - p["b"]) * v - p["e"] * eps) / (1 - p["e"])
    same("srpo recovered, closed form", recovered, x["full.x"] + (p["b"] - p["e"]) * ((eps - x["full.x"]) - v) / (1 - p["e"]), 1e-5)
    same("srpo recovered", recovered, x["full.denoise.recovered"])
    picture = (vaes["vae_kl"].decode(FluxPipeline._unpack_latents(recovered, h, w, 8) / 0.3611 + 0.1159).sample / 2 + 0.5).clamp(0, 1)
    f = torch.nn.functional.normalize(clip.encode_image(preprocess(picture, clip.visual.image_size[0])), dim=-1)
    t_pos, t_neg = torch.nn.functional.normalize(clip.encode_text(x["full.tokens"]), dim=-1).detach()
    reward = (f * ((1 + p["discount"]) * t_pos - t_neg)).sum(-1)
    (torch.relu(0.7 - reward).mean() / 2).backward()
    same("srpo reward", reward, x["full.denoise.reward"], 2e-5)
    same("srpo gradient at z", z.grad, x["full.denoise.grad.z"], 2e-5)

    # every other file at least opens, and hostile files are where the manifest says
    for file in root.rglob("*.safetensors"):
        if "safetensors_files" not in file.parts:
            load_file(str(file))
    for folder in ("torch_archives", "safetensors_files"):
        manifest = json.loads((root / folder / "manifest.json").read_text())
        for kind in ("good", "valid", "hostile"):
            if kind in manifest:
                assert {f.name for f in (root / folder / kind).iterdir()} == set(manifest[kind]), (folder, kind)
    print("all agree" if not bad else f"mismatch: {bad}")
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
