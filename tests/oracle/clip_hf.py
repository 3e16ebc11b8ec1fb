"""transformers CLIPModel in PickScore layout (exact GELU): features, PickScore = exp(logit_scale)·cosine, gradient to the pixels.

Also writes the same weights as an open_clip state dict (`weights_openclip.safetensors`) after checking that open_clip's model gives
the same features: the key map between the two layouts is testable in both directions.
"""

import copy

import torch
import torch.nn.functional as F
from common import Random, deviation, deviations, gradients, parse_args, randomise, report, save, save_json, state, versions
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from transformers import CLIPConfig, CLIPModel

CONFIG = {
    "a": dict(projection_dim=40, text=dict(vocab_size=300, hidden_size=48, intermediate_size=192, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=77),
              vision=dict(image_size=42, patch_size=14, hidden_size=80, intermediate_size=320, num_hidden_layers=2, num_attention_heads=2)),
    "b": dict(projection_dim=36, text=dict(vocab_size=200, hidden_size=60, intermediate_size=240, num_hidden_layers=2, num_attention_heads=3, max_position_embeddings=40),
              vision=dict(image_size=28, patch_size=7, hidden_size=72, intermediate_size=288, num_hidden_layers=2, num_attention_heads=3)),
}


def build(c, seed, variant):
    v = c["text"]["vocab_size"]
    config = CLIPConfig(projection_dim=c["projection_dim"], logit_scale_init_value=4.6051702,
                        text_config=dict(**c["text"], hidden_act="gelu", bos_token_id=v - 2, eos_token_id=2, pad_token_id=1),
                        vision_config=dict(**c["vision"], hidden_act="gelu"), attn_implementation="eager")
    return randomise(CLIPModel(config), Random(seed, f"clip_hf/{variant}/weights"), special={"logit_scale": 4.6051702})


def to_open_clip(hf: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Own key map, transformers to open_clip."""
    out = {
        "logit_scale": hf["logit_scale"],
        "token_embedding.weight": hf["text_model.embeddings.token_embedding.weight"],
        "positional_embedding": hf["text_model.embeddings.position_embedding.weight"],
        "text_projection": hf["text_projection.weight"].T,
        "visual.proj": hf["visual_projection.weight"].T,
        "visual.class_embedding": hf["vision_model.embeddings.class_embedding"],
        "visual.positional_embedding": hf["vision_model.embeddings.position_embedding.weight"],
        "visual.conv1.weight": hf["vision_model.embeddings.patch_embedding.weight"],
    }
    for leaf in ("weight", "bias"):
        out[f"ln_final.{leaf}"] = hf[f"text_model.final_layer_norm.{leaf}"]
        out[f"visual.ln_pre.{leaf}"] = hf[f"vision_model.pre_layrnorm.{leaf}"]
        out[f"visual.ln_post.{leaf}"] = hf[f"vision_model.post_layernorm.{leaf}"]
        for source, target in (("text_model.", "transformer."), ("vision_model.", "visual.transformer.")):
            depth = 1 + max(int(k.split(".")[3]) for k in hf if k.startswith(source + "encoder.layers."))
            for i in range(depth):
                s, t = f"{source}encoder.layers.{i}.", f"{target}resblocks.{i}."
                out[f"{t}attn.in_proj_{leaf}"] = torch.cat([hf[f"{s}self_attn.{n}_proj.{leaf}"] for n in "qkv"])
                for a, b in (("self_attn.out_proj", "attn.out_proj"), ("layer_norm1", "ln_1"), ("layer_norm2", "ln_2"), ("mlp.fc1", "mlp.c_fc"), ("mlp.fc2", "mlp.c_proj")):
                    out[f"{t}{b}.{leaf}"] = hf[f"{s}{a}.{leaf}"]
    return out


def features(output):
    return output if torch.is_tensor(output) else output.pooler_output


def run(model, x, dtype):
    model = copy.deepcopy(model).to(dtype)
    pixels = x["pixel_values"].detach().clone().to(dtype).requires_grad_(True)
    image, text = features(model.get_image_features(pixel_values=pixels)), features(model.get_text_features(input_ids=x["input_ids"]))
    score = model.logit_scale.exp() * (F.normalize(image, dim=-1) * F.normalize(text, dim=-1)).sum(-1)
    (score * x["score_weight"].to(dtype)).sum().backward()
    out = {"image_features": image, "text_features": text, "score": score, "grad.pixel_values": pixels.grad}
    return {k: v.detach() for k, v in out.items()}, gradients(model)


def main():
    args = parse_args(__doc__)
    c, folder, r = CONFIG[args.variant], args.out / "clip_hf", Random(args.seed, f"clip_hf/{args.variant}")
    model = build(c, args.seed, args.variant)
    size, v, width = c["vision"]["image_size"], c["text"]["vocab_size"], 12
    ids = r.integers("ids", 1, v - 2, 3, width)
    for row, n in enumerate((5, 12, 8)):
        ids[row, 0], ids[row, n - 1 :] = v - 2, v - 1
    x = {"pixel_values": r("pixels", 3, 3, size, size), "input_ids": ids, "score_weight": r("score_weight", 3)}
    (low, grads), (high, grads64) = run(model, x, torch.float32), run(model, x, torch.float64)
    weights = state(model)
    assert "text_model.embeddings.token_embedding.weight" in weights and "vision_model.pre_layrnorm.weight" in weights, list(weights)[:9]

    vision = dict(image_size=size, patch_size=c["vision"]["patch_size"], width=c["vision"]["hidden_size"], layers=c["vision"]["num_hidden_layers"],
                  head_width=c["vision"]["hidden_size"] // c["vision"]["num_attention_heads"])
    text = dict(context_length=c["text"]["max_position_embeddings"], vocab_size=v, width=c["text"]["hidden_size"], heads=c["text"]["num_attention_heads"],
                layers=c["text"]["num_hidden_layers"])
    twin = CLIP(c["projection_dim"], CLIPVisionCfg(**vision), CLIPTextCfg(**text)).eval()
    converted = {k: t.contiguous() for k, t in to_open_clip(weights).items()}
    twin.load_state_dict(converted)
    padded = torch.zeros(3, text["context_length"], dtype=torch.long)
    padded[:, :width] = torch.where(torch.arange(width)[None] < torch.tensor([5, 12, 8])[:, None], ids, 0)  # open_clip pads with 0
    with torch.no_grad():
        twin_check = {"image": deviation(twin.encode_image(x["pixel_values"]), low["image_features"]), "text": deviation(twin.encode_text(padded), low["text_features"])}
    assert all(e["relative_l2"] < 1e-5 for e in twin_check.values()), twin_check

    save(folder / "weights.safetensors", weights)
    save(folder / "weights_openclip.safetensors", {k: t.half() for k, t in converted.items()})
    save(folder / "io.safetensors", {**x, **low})
    check = {"score": deviation(low["score"], high["score"]), "grad.pixel_values": deviation(low["grad.pixel_values"], high["grad.pixel_values"]), "grads": deviations(grads, grads64)}
    save_json(folder / "config.json", {"architectures": ["CLIPModel"], "projection_dim": c["projection_dim"], "text_config": {**c["text"], "hidden_act": "gelu", "eos_token_id": 2},
                                       "vision_config": {**c["vision"], "hidden_act": "gelu"}, "_oracle": {
        "seed": args.seed, "variant": args.variant, "score": "exp(logit_scale)*cosine", "weights_openclip.safetensors": "the same model in open_clip keys, rounded to F16",
        "open_clip twin against transformers": twin_check, "f32_vs_f64": check, "versions": versions()}})
    report("clip_hf", folder, check)


if __name__ == "__main__":
    main()
