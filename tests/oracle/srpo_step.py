"""One complete SRPO optimizer step on tiny models, and its relatives. Everything float32, no autocast.

Cases, each with its own prefix in io.safetensors and its own entry in config.json:
  full       online rollout, HPS reward, all transformer weights: gradients after both micro-steps, norm, weights after one AdamW step
  lora       the same rollout model with a LoRA adapter, only A and B trained (rollout runs with the adapter on)
  offline    x from a VAE-encoded picture (sampled posterior), fresh noise, no rollout; LoRA
  mia        captions "<caption>. <category>, <region>" against "<caption>"; LoRA
  pickscore  reward exp(logit_scale)·cos/20, its discounts, σ range and guidance; LoRA
  tae        the decoder is AutoencoderTiny (no scaling of its latents); LoRA
golden.json holds the golden table recomputed in float64 and float32, and the σ tables.
"""

import torch
from common import Random, deviation, deviations, gradients, parse_args, report, save, save_json, state, versions
from lora import adapter_gradients, adapter_tensors, add_adapter
from srpo import NEGATIVE, POSITIVE, Options, World, micro_step, plan, rollout, rollout_sigmas, model_time, training_table
from tiny import FLUX1_SMALL, IMAGE, OPEN_CLIP, TEXT_TOKENS, flux1_small, open_clip_tiny, toy_tokens, vae_kl, vae_tiny

# max_grad_norm is below the recipe's 0.1 because the tiny models' gradients are small and clipping should act in some of the cases.
CAPTION, CATEGORY, REGION = "a gourd of mate on a wooden table", "Drink", "Argentina"
BASE = {
    "a": dict(options=Options(max_grad_norm=0.02), m0=500, step=1),
    "b": dict(options=Options(sampling_steps=20, schedule_steps=40, shift=2.0, timestep_length=200, groundtruth_ratio=0.8, train_timestep=(3, 22),
                              discount_pos=(0.2, 0.4), discount_inv=(0.35, 0.05), rollout_guidance=2.0, max_grad_norm=0.03), m0=30, step=9),
}
PICK = dict(train_timestep=(5, 30), discount_pos=(0.1, 0.5), discount_inv=(0.6, 0.01), rollout_guidance=2.0, reward="pickscore")
DOCUMENT = {  # m0 → k, b→e of both branches, gain, the two discounts
    5: (5, (0.7519, 0.7509), (0.7500, 0.7511), 0.0043, 0.1008, 0.2997), 50: (50, (0.7712, 0.7605), (0.7500, 0.7607), 0.0448, 0.1075, 0.2997),
    100: (100, (0.7927, 0.7712), (0.7500, 0.7715), 0.0938, 0.1150, 0.2997), 500: (100, (0.8785, 0.8570), (0.8356, 0.8570), 0.1500, 0.1751, 0.1839),
    900: (100, (0.9643, 0.9428), (0.9214, 0.9428), 0.3752, 0.2351, 0.0678), 950: (50, (0.9643, 0.9536), (0.9428, 0.9536), 0.2309, 0.2426, 0.0387),
    995: (5, (0.9643, 0.9632), (0.9621, 0.9632), 0.0292, 0.2494, 0.0126),
}


def golden(o: Options, document: bool) -> dict:
    rows, mismatches = [], []
    L64, L32 = training_table(o, torch.float64), training_table(o)
    indices = list(DOCUMENT) if document else [5, 30, 41, 100, 195]
    for m0 in indices:
        p = plan(o, m0, L64)
        rows.append({"m0": m0, "float64": p, "float32": plan(o, m0, L32)})
        if document:
            d, i = p["denoise"], p["inversion"]
            ours = (d["k"], (d["b"], d["e"]), (i["b"], i["e"]), d["gain"], d["discount"], i["discount"])
            flat = lambda t: [y for x in t for y in (x if isinstance(x, tuple) else (x,))]
            for name, got, said in zip(("k", "denoise b", "denoise e", "inversion b", "inversion e", "gain", "d", "d'"), flat(ours), flat(DOCUMENT[m0])):
                if abs(got - said) > 0.5000001e-4:
                    mismatches.append({"m0": m0, "field": name, "recomputed": got, "srpo.md": said})
    cut = [[i, model_time(L32[i]), model_time(L64[i])] for i in range(o.timestep_length) if model_time(L32[i]) != model_time(L64[i])]
    s32, s64 = rollout_sigmas(o), rollout_sigmas(o, torch.float64)
    # The cut 1000σ depends on rounding whenever 1000σ is close to an integer; the reference's value is the float32 one.
    grid = [(s, n) for s in (1.0, 2.0, 3.0) for n in (16, 20, 25, 26, 28, 40, 50, 100)]
    cuts = {f"shift {s:g}, {n} steps": [int(x * 1000) for x in rollout_sigmas(Options(sampling_steps=n, shift=s))[:-1]] for s, n in grid}
    return {"options": o.dict(), "rows": rows, "mismatches with srpo.md 1.4": mismatches if document else "not compared: other options",
            "training table indices whose cut timestep differs between float32 and float64 [index, f32, f64]": cut,
            "rollout sigmas (float32)": s32.double().tolist(), "rollout timesteps": [model_time(s) for s in s32[:-1]],
            "rollout timesteps that differ in float64": [i for i in range(len(s32) - 1) if model_time(s32[i]) != model_time(s64[i])],
            "training table (float32)": L32.double().tolist(), "trunc(1000 sigma) of rollouts": cuts,
            "float32 recipe": "linspace(a, b, n): step = f32(f32(b-a)/(n-1)); entry i = f32(a + step*i) for i < n//2, else f32(b - step*(n-1-i)), inner arithmetic in float64 "
                              "(torch fuses multiply and add); shift, product with 1000 and discount tables likewise rounded to float32 after every operation"}


def captions(case: str, step: int) -> tuple[str, str]:
    if case == "mia":
        return f"{CAPTION}. {CATEGORY}, {REGION}", CAPTION
    return f"{POSITIVE[step % 4]}. {CAPTION}", f"{NEGATIVE[step % 5]}. {CAPTION}"


def run(case, args, values, dtype):
    base = BASE[args.variant]
    o = Options(**{**base["options"].dict(), **(PICK if case == "pickscore" else {})})
    transformer = flux1_small(args.seed, args.variant)
    if case != "full":
        transformer = add_adapter(transformer, args.seed, args.variant, subject="srpo")
    tiny_vae = case == "tae"
    vae = vae_tiny(args.seed, args.variant) if tiny_vae else vae_kl(args.seed, args.variant)
    clip = open_clip_tiny(args.seed, args.variant)
    c = OPEN_CLIP[args.variant]
    world = World(transformer, vae, clip, IMAGE[args.variant], c["vision_cfg"]["image_size"], values["encoder_hidden_states"], values["pooled_projections"], dtype, tiny_vae)
    texts = captions(case, base["step"])
    tokens = toy_tokens(list(texts), c["text_cfg"]["vocab_size"], c["text_cfg"]["context_length"])
    t_pos, t_neg = world.text_features(tokens).split(1)
    out = {"tokens": tokens, "t_pos": t_pos, "t_neg": t_neg}

    noise = world.pack(values["noise"].to(dtype))
    if case == "offline":
        with torch.no_grad():
            posterior = world.vae.encode(values["picture"].to(dtype) * 2 - 1).latent_dist
            sample = posterior.mean + posterior.std * values["posterior_noise"].to(dtype)
        x = world.pack((sample - world.vae.config.shift_factor) * world.vae.config.scaling_factor)
        noise = world.pack(values["fresh_noise"].to(dtype))
    else:
        states = rollout(world, o, noise)
        x = states[-1]
        for i in (1, 2, 10, o.sampling_steps - 1):
            out[f"rollout.{i}"] = states[i]
    out.update(x=x, noise=noise)

    branches = plan(o, base["m0"], training_table(o))
    parameters = [p for p in transformer.parameters() if p.requires_grad]
    for kind in ("denoise", "inversion"):  # i = 1 then 0: odd is denoise
        result = micro_step(world, o, branches[kind], kind, x, noise, t_pos, t_neg)
        out.update({f"{kind}.{k}": t for k, t in result.items()})
    grads = {k: g.clone() for k, g in (gradients(transformer) if case == "full" else adapter_gradients(transformer)).items()}
    norm = torch.nn.utils.clip_grad_norm_(parameters, o.max_grad_norm)
    optimizer = torch.optim.AdamW(parameters, lr=o.learning_rate, betas=(0.9, 0.999), eps=1e-8, weight_decay=o.weight_decay)
    optimizer.step()
    after = state(transformer) if case == "full" else adapter_tensors(transformer)
    out["grad_norm"] = norm
    info = {"captions": texts, "m0": base["m0"], "step": base["step"], "plan": branches, "options": o.dict(), "grad_norm": norm.item(),
            "reward": {k: out[f"{k}.reward"].item() for k in branches}, "loss": {k: out[f"{k}.loss"].item() for k in branches},
            "clamped share of the pictures": {k: (out[f"{k}.picture_unclamped"] != out[f"{k}.picture"]).double().mean().item() for k in branches},
            "closest distance of an unclamped value to 0 or 1": {k: min((out[f"{k}.picture_unclamped"] - edge).abs().min().item() for edge in (0, 1)) for k in branches}}
    return out, grads, after, info


CASES = ("full", "lora", "offline", "mia", "pickscore", "tae")
MARGIN = 5e-6


def draw(args, attempt: int) -> dict[str, torch.Tensor]:
    r, config, (h, w) = Random(args.seed, f"srpo/{args.variant}/{attempt}"), FLUX1_SMALL[args.variant], IMAGE[args.variant]
    return {"noise": r("noise", 1, 16, h // 8, w // 8), "fresh_noise": r("fresh_noise", 1, 16, h // 8, w // 8), "posterior_noise": r("posterior_noise", 1, 16, h // 8, w // 8),
            "picture": r.uniform("picture", 1, 3, h, w), "encoder_hidden_states": r("text", 1, TEXT_TOKENS[args.variant], config["joint_attention_dim"]),
            "pooled_projections": r("pooled", 1, config["pooled_projection_dim"])}


def clear_of_the_clamp(args, values) -> bool:
    """No pixel so close to 0 or 1 that rounding could switch its gradient on or off, which alone would move gradients by about 1 %."""
    return all(min(run(case, args, values, torch.float32)[3]["closest distance of an unclamped value to 0 or 1"].values()) >= MARGIN for case in CASES)


def main():
    args = parse_args(__doc__)
    folder, (h, w) = args.out / "srpo_step", IMAGE[args.variant]
    attempt = next(i for i in range(200) if clear_of_the_clamp(args, draw(args, i)))
    values = draw(args, attempt)
    tensors, cases = dict(values), {}
    for case in CASES:
        out, grads, after, info = run(case, args, values, torch.float32)
        high, grads64, after64, _ = run(case, args, values, torch.float64)
        check = {k: deviation(out[k], high[k])["relative_l2"] for k in out if out[k].is_floating_point() and k != "noise"}
        info["f32_vs_f64 relative L2"] = {k: v for k, v in check.items() if any(k.endswith(s) for s in ("x", ".v", ".recovered", ".picture", ".feature", ".reward", ".loss", "grad.v", "grad_norm"))}
        info["f32_vs_f64 gradients"] = deviations(grads, grads64)
        info["f32_vs_f64 after the step, largest difference"] = max((after[k].double() - after64[k].double()).abs().max().item() for k in after)
        skip = () if case == "full" else ("clip_input", "picture_unclamped", "moved")
        tensors.update({f"{case}.{k}": t for k, t in out.items() if not k.endswith(skip or "\0")})
        cases[case] = info
        save(folder / f"{case}_grads.safetensors", grads)
        if case in ("full", "lora"):
            save(folder / f"{case}_after.safetensors", after)
        if case == "lora":
            start = adapter_tensors(add_adapter(flux1_small(args.seed, args.variant), args.seed, args.variant, subject="srpo"))
            save(folder / "adapter.safetensors", start)
        print(case, {k: info[k] for k in ("reward", "loss", "grad_norm", "clamped share of the pictures", "f32_vs_f64 gradients")}, flush=True)
    save(folder / "io.safetensors", tensors)
    table = golden(BASE[args.variant]["options"], args.variant == "a")
    save_json(folder / "golden.json", table)
    save_json(folder / "config.json", {
        "weights": {"transformer": "../flux1_small/weights.safetensors", "vae": "../vae_kl/weights.safetensors", "vae of case tae": "../vae_tiny/weights.safetensors",
                    "reward": "../clip_openclip/weights.safetensors", "adapter of the LoRA cases": "adapter.safetensors"},
        "image": [h, w], "order of micro-steps": ["denoise", "inversion"], "adapter scale": "lora_alpha / r as in ../lora/config.json", "optimizer": "AdamW betas 0.9 0.999 eps 1e-8, bias-corrected step 1",
        "cases": cases, "_oracle": {"seed": args.seed, "variant": args.variant, "draw of the inputs": attempt, "smallest distance of a pixel to the clamp": MARGIN, "tokens": "CLIP BPE id mod (V-2); start V-2, end V-1, pad 0", "versions": versions()}})
    report("srpo_step", folder, {"mismatches with srpo.md": table["mismatches with srpo.md 1.4"], "cut": len(table["training table indices whose cut timestep differs between float32 and float64 [index, f32, f64]"])})


if __name__ == "__main__":
    main()
