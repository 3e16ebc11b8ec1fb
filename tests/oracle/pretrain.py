"""Loss curves of pretraining the embedded experiment's models from nothing, with the public libraries' classes.

pretrain/curves.json: for every seed the loss of each step of (1) the generator (diffusers' FLUX transformer with transformers' CLIP and
T5 text models, trained together by flow matching) and (2) the reward (open_clip, multi-positive InfoNCE), at a small batch on every
18th item. A trainer with another random generator draws other samples: it is compared by means over windows of steps, within the
spread over seeds. Initial values, captions, sigmas, augmentation and schedule are those of the embedded experiment's recipe.

    python pretrain.py --seeds 6 --out ../fixtures
"""

import argparse
import json
import math
import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file

STYLES = ["noto", "twitter", "fluent"]
QUALITIES = ["Detailed", "Blurry", "Distorted", "Noisy"]
CLIP_LENGTH, T5_LENGTH = 24, 20
SCALE, SHIFT = 1.22, 0.04
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
OPTIONS = dict(stride=18, steps=40, batch=8, warmup=10, rate=1e-3, variants=1, quality_variants=1)


def caption(item, style=None, has_item=True, category=False, region=False, quality=None):
    start = (f"{quality}. " if quality else "") + (f"{style} " if style else "") + "icon of "
    place = [item["region"]] if region and item["region"] else []
    if not has_item:
        return start + ", ".join([item["category"], *place])
    attributes = ([item["category"]] if category else []) + place
    return start + item["item"] + (". " + ", ".join(attributes) if attributes else "")


class Data:
    """Items, pictures and tokens from the folder `models`."""

    def __init__(self, models: Path, stride: int):
        from open_clip.tokenizer import SimpleTokenizer
        from tokenizers import Tokenizer
        from vae_tiny import load_taef2

        self.encoder, self.decoder = load_taef2(models / "taef2/taef2.safetensors")
        self.items = json.loads((models / "embedded/items.json").read_text())[::stride]
        index = json.loads((models / "embedded/pictures.json").read_text())
        sheets = {s: np.array(Image.open(models / f"embedded/pictures-{s}.png")) for s in STYLES}
        place = {e["item"]: i for i, e in enumerate(self.items)}
        pictures, self.item, self.style = [], [], []
        for e in index["pictures"]:
            if e["style"] in STYLES and e["item"] in place:
                y, x = e["row"] * 64, e["column"] * 64
                pictures.append(sheets[e["style"]][y:y + 64, x:x + 64])
                self.item.append(place[e["item"]])
                self.style.append(STYLES.index(e["style"]))
        self.pictures = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255
        self.clip_ids = load_file(models / "embedded/text_encoder/model.safetensors")["text_model.embeddings.token_embedding.ids"].tolist()
        self.t5_ids = load_file(models / "embedded/text_encoder_2/model.safetensors")["shared.ids"].tolist()
        self.clip_row = {t: r for r, t in enumerate(self.clip_ids)}
        self.t5_row = {t: r for r, t in enumerate(self.t5_ids)}
        self.bpe, self.t5 = SimpleTokenizer(), Tokenizer.from_file(str(models / "tokenizers/t5/tokenizer.json"))
        self.t5.no_padding()
        self.t5.no_truncation()

    def clip_rows(self, texts):
        out = torch.full((len(texts), CLIP_LENGTH), self.clip_row[49407])
        for i, text in enumerate(texts):
            ids = [49406, *self.bpe.encode(text), 49407]
            out[i, : len(ids)] = torch.tensor([self.clip_row[t] for t in ids])
        return out

    def t5_rows(self, texts):
        out = torch.full((len(texts), T5_LENGTH), self.t5_row[0])
        for i, text in enumerate(texts):
            ids = self.t5.encode(text).ids
            out[i, : len(ids)] = torch.tensor([self.t5_row[t] for t in ids])
        return out

    def picks(self, weights):
        counts = np.bincount(self.item)
        p = np.array([weights[i] / counts[i] for i in self.item])
        return torch.tensor(p / p.sum())


def u(n, low=0.0, high=1.0):
    return torch.rand(n) * (high - low) + low


def affine(x, scale=(0.8, 1.1), turn=0.2, shift=0.12):
    s, a = 1 / u(len(x), *scale), u(len(x), -turn, turn)
    rows = [[s * a.cos(), -s * a.sin(), u(len(x), -shift, shift)], [s * a.sin(), s * a.cos(), u(len(x), -shift, shift)]]
    maps = torch.stack([torch.stack(r, -1) for r in rows], 1)
    return F.grid_sample(x - 1, F.affine_grid(maps, list(x.shape), align_corners=False), align_corners=False) + 1


def blur(x, sigma):
    k = torch.exp(-torch.arange(-4, 5).float() ** 2 / (2 * sigma**2))
    k = (k / k.sum()).view(1, 1, 1, 9).expand(3, 1, 1, 9)
    x = F.conv2d(F.pad(x, (4, 4, 4, 4), mode="replicate"), k, groups=3)
    return F.conv2d(x, k.transpose(2, 3), groups=3)


def warp(x, amount):
    field = F.interpolate(torch.randn(len(x), 2, 5, 5), size=x.shape[-2:], mode="bicubic", align_corners=True) * amount
    base = F.affine_grid(torch.eye(2, 3).expand(len(x), 2, 3), list(x.shape), align_corners=False)
    return F.grid_sample(x - 1, base + field.permute(0, 2, 3, 1), align_corners=False) + 1


def layer_start(module):
    for m in module.modules():
        if isinstance(m, nn.Linear):
            m.reset_parameters()


def train(parameters, loss_of, o, decay, betas):
    groups = [dict(params=[p for p in parameters if p.ndim > 1], weight_decay=decay), dict(params=[p for p in parameters if p.ndim < 2], weight_decay=0.0)]
    optimizer = torch.optim.AdamW(groups, lr=o["rate"], betas=betas)
    losses = []
    for n in range(o["steps"]):
        for g in optimizer.param_groups:
            g["lr"] = o["rate"] * min(1, (n + 1) / o["warmup"]) * (0.5 + 0.49 * math.cos(math.pi * n / o["steps"]))
        loss = loss_of()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        losses.append(round(loss.item(), 6))
    return losses


def generator(d, seed, o):
    from diffusers import FluxTransformer2DModel
    from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

    torch.manual_seed(seed)
    flux = FluxTransformer2DModel(patch_size=1, in_channels=128, num_layers=2, num_single_layers=3, attention_head_dim=64, num_attention_heads=4,
                                  joint_attention_dim=128, pooled_projection_dim=128, guidance_embeds=False, axes_dims_rope=(16, 24, 24))
    for m in flux.modules():
        if isinstance(m, nn.Linear):
            nn.init.xavier_uniform_(m.weight)
            nn.init.zeros_(m.bias)
    for name, p in flux.named_parameters():
        if name.endswith(("norm.linear.weight", "norm1.linear.weight", "norm1_context.linear.weight", "norm_out.linear.weight")) or name == "proj_out.weight":
            nn.init.zeros_(p)
    end = d.clip_row[49407]
    clip = CLIPTextModel(CLIPTextConfig(vocab_size=len(d.clip_ids), hidden_size=128, intermediate_size=512, num_hidden_layers=2, num_attention_heads=2,
                                        max_position_embeddings=CLIP_LENGTH, hidden_act="quick_gelu", bos_token_id=0, eos_token_id=end, pad_token_id=end))
    layer_start(clip)
    for name, p in clip.named_parameters():
        if "token_embedding" in name:
            nn.init.normal_(p, std=0.05)
        if "position_embedding" in name:
            nn.init.normal_(p, std=0.02)
    t5 = T5EncoderModel(T5Config(vocab_size=len(d.t5_ids), d_model=128, d_kv=32, d_ff=256, num_layers=2, num_heads=4, dropout_rate=0.0,
                                 feed_forward_proj="gated-gelu", tie_word_embeddings=False))
    layer_start(t5)
    for name, p in t5.named_parameters():
        if name.startswith("shared"):
            nn.init.normal_(p, std=0.5)
        elif "relative_attention_bias" in name:
            nn.init.normal_(p, std=0.1)
        elif "SelfAttention" in name and name.endswith("weight"):
            nn.init.normal_(p, std=(128 * 32) ** -0.5 if ".q." in name else 128**-0.5)
    latents = []
    with torch.no_grad():
        for v in range(o["variants"]):
            x = d.pictures if v == 0 else affine(d.pictures, (0.86, 1.0), 0.15, 0.06)
            z = torch.cat([(d.encoder(x[i:i + 16]) - SHIFT) * SCALE for i in range(0, len(x), 16)])
            b, c, h, w = z.shape
            latents.append(z.view(b, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 1, 3, 5).reshape(b, h * w // 4, c * 4))
    latents = torch.stack(latents)
    p = d.picks([e["pretrain_weight"] for e in d.items])
    grid = torch.stack(torch.meshgrid(torch.arange(4), torch.arange(4), indexing="ij"), -1).reshape(16, 2)
    image_ids, text_ids = torch.cat([torch.zeros(16, 1), grid], 1), torch.zeros(T5_LENGTH, 3)
    b = o["batch"]

    def loss_of():
        k = torch.multinomial(p, b, replacement=True)
        v = (torch.rand(b) * 2 * (o["variants"] - 1) - (o["variants"] - 1)).ceil().clamp(min=0).long()
        x, r = latents[v, k], torch.rand(4, b)
        texts = [caption(d.items[d.item[j]], STYLES[d.style[j]] if r[3, i] < 0.92 else None, bool(r[0, i] < 0.85), bool(r[1, i] < 0.35), bool(r[2, i] < 0.35))
                 for i, j in enumerate(k.tolist())]
        sigma = torch.where(torch.rand(b) < 0.5, torch.rand(b), torch.sigmoid(torch.randn(b) + 0.3))
        noise, s = torch.randn_like(x), sigma[:, None, None]
        pooled, states = clip(d.clip_rows(texts)).pooler_output, t5(d.t5_rows(texts)).last_hidden_state
        velocity = flux(hidden_states=(1 - s) * x + s * noise, timestep=sigma, encoder_hidden_states=states, pooled_projections=pooled,
                        img_ids=image_ids, txt_ids=text_ids).sample
        return F.mse_loss(velocity, noise - x)

    parameters = [*flux.parameters(), *clip.parameters(), *(q for q in t5.parameters())]
    return train(list(dict.fromkeys(parameters)), loss_of, o, 0.01, (0.9, 0.99))


def reward(d, seed, o):
    from open_clip.model import CLIP

    torch.manual_seed(seed)
    net = CLIP(embed_dim=128, vision_cfg=dict(image_size=64, layers=6, width=192, head_width=64, patch_size=8),
               text_cfg=dict(context_length=CLIP_LENGTH, vocab_size=len(d.clip_ids), width=128, heads=2, layers=3))
    layer_start(net)
    net.visual.conv1.reset_parameters()
    for name, q in net.named_parameters():
        if name.endswith(("in_proj_bias", "out_proj.bias")):
            nn.init.zeros_(q)
        elif name.endswith("in_proj_weight"):
            nn.init.normal_(q, std=q.shape[1] ** -0.5)
        elif name in ("visual.class_embedding", "visual.positional_embedding"):
            nn.init.normal_(q, std=192**-0.5)
        elif name in ("visual.proj", "text_projection"):
            nn.init.normal_(q, std=q.shape[0] ** -0.5)
        elif name == "token_embedding.weight":
            nn.init.normal_(q, std=0.02)
        elif name == "positional_embedding":
            nn.init.normal_(q, std=0.01)
    mean, std = torch.tensor(MEAN)[:, None, None], torch.tensor(STD)[:, None, None]

    def through(x, strength):
        out = []
        for i in range(0, len(x), 16):
            z = d.encoder(x[i:i + 16])
            out.append(d.decoder(z + torch.randn_like(z) * torch.rand(len(z), 1, 1, 1) * strength))
        return torch.cat(out)

    with torch.no_grad():
        pool = [d.pictures]
        for v in range(1, o["variants"]):
            x = affine(d.pictures)
            pool.append(through(x, 0.6) if v % 2 else x)
        quality = []
        for q in range(4):
            views = []
            for r in range(o["quality_variants"]):
                x = affine(d.pictures, (0.88, 1.05), 0.1, 0.06)
                if r % 2:
                    x = through(x, 0.05)
                if q == 1:
                    x = blur(x, 1.2 + 1.0 * (r // 2))
                if q == 2:
                    x = warp(x, 0.10 + 0.06 * (r // 2))
                if q == 3:
                    x = through(x, 1.6) if r % 2 else x + torch.randn_like(x) * 0.12
                views.append(x)
            quality.append(torch.stack(views).clamp(0, 1))
        pool, quality = torch.stack(pool).clamp(0, 1), torch.stack(quality)
    p, b = d.picks(np.ones(len(d.items))), o["batch"]

    def loss_of():
        k = torch.multinomial(p, b, replacement=True).tolist()
        r, pictures, texts, facts = torch.rand(10, b), [], [], []
        for i, j in enumerate(k):
            e = d.items[d.item[j]]
            q = int(r[1, i] * 4) if r[0, i] < 0.3 else -1
            pictures.append(pool[int(r[3, i] * len(pool)), j] if q < 0 else quality[q, int(r[2, i] * quality.shape[1]), j])
            hi, hc, hr, hs = r[4, i] < 0.8, r[5, i] < 0.4, r[6, i] < 0.4 and e["region"] != "", r[7, i] < 0.6
            hq = q if q >= 0 and r[8, i] < 0.7 else -1
            texts.append(caption(e, STYLES[d.style[j]] if hs else None, bool(hi), bool(hc), bool(hr), QUALITIES[hq] if hq >= 0 else None))
            facts.append((hi, hr, hs, hq, q, d.item[j], d.style[j], e["category"], e["region"]))
        x = affine(torch.stack(pictures), (0.9, 1.05), 0.08, 0.05)
        x = (x - 1) * (0.8 + 0.4 * torch.rand(b, 3, 1, 1)) + 1 - 0.06 * torch.rand(b, 3, 1, 1) * (r[9] < 0.3).float()[:, None, None, None]
        x = (x + torch.randn_like(x) * 0.04 * torch.rand(b, 1, 1, 1)).clamp(0, 1)
        target = torch.zeros(b, b)
        for i, a in enumerate(facts):
            for j, c in enumerate(facts):
                target[i, j] = float((a[5] == c[5] if a[0] else a[7] == c[7]) and (not a[2] or a[6] == c[6]) and (not a[1] or a[8] == c[8]) and (a[3] < 0 or a[3] == c[4]))
        text, image = net.encode_text(d.clip_rows(texts), normalize=True), net.encode_image((x - mean) / std, normalize=True)
        logits = net.logit_scale.exp().clamp(max=60) * text @ image.T
        rows = -(F.log_softmax(logits, 1) * (target / target.sum(1, keepdim=True))).sum(1).mean()
        columns = -(F.log_softmax(logits, 0) * (target / target.sum(0, keepdim=True).clamp(min=1))).sum(0).mean()
        return (rows + columns) / 2

    return train(list(net.parameters()), loss_of, o, 0.05, (0.9, 0.98))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--models", type=Path, default=Path(__file__).resolve().parents[2] / "models")
    args = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("THREADS", 2)))
    d = Data(args.models, OPTIONS["stride"])
    curves = {"options": OPTIONS, "generator": [], "reward": []}
    for seed in range(args.seeds):
        for name, job in (("generator", generator), ("reward", reward)):
            losses = job(d, seed, OPTIONS)
            curves[name].append(losses)
            print(name, seed, [round(float(np.mean(losses[i:i + 10])), 4) for i in range(0, len(losses), 10)], flush=True)
    (args.out / "pretrain").mkdir(parents=True, exist_ok=True)
    (args.out / "pretrain/curves.json").write_text(json.dumps(curves) + "\n")


if __name__ == "__main__":
    main()
