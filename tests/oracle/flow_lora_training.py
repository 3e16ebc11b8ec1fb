"""20 steps of flow-matching LoRA training of the small FLUX.1 (diffusers' recipe): the loss of each step and the final A and B.

z = (1−σ)·x + σ·ε, target = ε − x, loss = mean((v − target)²) over the batch, guidance input 1, AdamW on A and B only, global-norm
clip, constant-with-warm-up rate. B starts at zero. Batches, noises and σ of every step are in batches.safetensors. A second run
uses Prodigy (lr 1) with the settings of the public script and the `sigma_sqrt` weighting (σ⁻²) to show the weighted loss.
"""

import torch
from common import Random, deviation, deviations, gradients, parse_args, report, save, save_json, versions
from diffusers.optimization import get_scheduler
from lora import adapter_gradients, adapter_tensors, add_adapter
from prodigyopt import Prodigy
from tiny import FLUX1_SMALL, flux1_small, image_ids

STEPS = 20
GRID = {"a": (4, 4, 6), "b": (3, 5, 5)}
BATCH = 2
RUNS = {
    "adamw": dict(lr=1e-3, betas=(0.9, 0.999), weight_decay=1e-4, eps=1e-8, clip=1.0, warmup=5, weighting="none"),
    "prodigy": dict(lr=1.0, betas=(0.9, 0.999), weight_decay=1e-4, eps=1e-8, clip=1.0, warmup=0, weighting="sigma_sqrt"),
}


def train(run, args, data, dtype):
    o = RUNS[run]
    model = add_adapter(flux1_small(args.seed, args.variant), args.seed, args.variant, zero_b=True, subject="flow_lora").to(dtype)
    start = adapter_tensors(model)
    parameters = [p for p in model.parameters() if p.requires_grad]
    if run == "adamw":
        optimizer = torch.optim.AdamW(parameters, lr=o["lr"], betas=o["betas"], weight_decay=o["weight_decay"], eps=o["eps"])
    else:
        optimizer = Prodigy(parameters, lr=o["lr"], betas=o["betas"], weight_decay=o["weight_decay"], eps=o["eps"], decouple=True, use_bias_correction=True, safeguard_warmup=True)
    schedule = get_scheduler("constant_with_warmup", optimizer, num_warmup_steps=o["warmup"])
    rows, columns, text = GRID[args.variant]
    losses, norms, rates, first = [], [], [], None
    for t in range(STEPS):
        x, noise, sigma = data["latents"][t].to(dtype), data["noise"][t].to(dtype), data["sigmas"][t].to(dtype)
        s = sigma[:, None, None]
        v = model(hidden_states=(1 - s) * x + s * noise, encoder_hidden_states=data["text"][t].to(dtype), pooled_projections=data["pooled"][t].to(dtype), timestep=sigma,
                  guidance=torch.ones(BATCH, dtype=dtype), img_ids=image_ids(rows, columns).to(dtype), txt_ids=torch.zeros(text, 3, dtype=dtype), return_dict=False)[0]
        weight = torch.ones_like(s) if o["weighting"] == "none" else s**-2
        loss = (weight * (v - (noise - x)) ** 2).reshape(BATCH, -1).mean(1).mean()
        optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(parameters, o["clip"])
        if t == 1:
            first = adapter_gradients(model)  # step 1 is the first with non-zero B, so the first where A's gradient is not zero
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        norms.append(float(norm))
    return {"loss": losses, "grad_norm": norms, "lr": rates, "d": optimizer.param_groups[0].get("d")}, start, adapter_tensors(model), first


def main():
    args = parse_args(__doc__)
    folder, r, config = args.out / "flow_lora_training", Random(args.seed, f"flow_lora/{args.variant}"), FLUX1_SMALL[args.variant]
    rows, columns, text = GRID[args.variant]
    pictures = r("pictures", 4, rows * columns, 64)  # a data set of 4 latents and captions, two of them per step
    texts, pooled = r("texts", 4, text, config["joint_attention_dim"]), r("pooled", 4, config["pooled_projection_dim"])
    order = torch.stack([r.integers(f"order{t}", 0, 4, BATCH) for t in range(STEPS)])
    index = r.integers("sigma", 0, 1000, STEPS, BATCH)
    data = {"latents": pictures[order], "text": texts[order], "pooled": pooled[order], "noise": r("noise", STEPS, BATCH, rows * columns, 64), "sigmas": (1000 - index) / 1000}
    tensors = {"dataset.latents": pictures, "dataset.text": texts, "dataset.pooled": pooled, "order": order, "noise": data["noise"], "sigmas": data["sigmas"]}
    curves, check = {}, {}
    for run in RUNS:
        curve, start, end, first = train(run, args, data, torch.float32)
        curve64, _, end64, _ = train(run, args, data, torch.float64)
        curves[run] = {"options": RUNS[run], **curve}
        check[run] = {"largest relative loss difference": max(abs(a - b) / b for a, b in zip(curve["loss"], curve64["loss"])), "final adapter": deviations(end, end64)}
        save(folder / f"{run}_final.safetensors", end)
        save(folder / f"{run}_clipped_grads_step1.safetensors", first)
        save(folder / "adapter_start.safetensors", start)
    save(folder / "batches.safetensors", tensors)
    save_json(folder / "curves.json", curves)
    save_json(folder / "config.json", {"weights": "../flux1_small/weights.safetensors", "steps": STEPS, "batch": BATCH, "grid": [rows, columns], "guidance": 1.0, "_oracle": {
        "seed": args.seed, "variant": args.variant, "f32_vs_f64": check, "versions": versions()}})
    report("flow_lora_training", folder, check)


if __name__ == "__main__":
    main()
