"""One DanceGRPO iteration (docs/training.md) on tiny models: SDE rollouts, log-probabilities, advantages, clipped ratio, gradients.

A group of 4 generations of one prompt from the same start noise; every step's noise is dumped. Pass 1: ratio exactly 1, gradients with
respect to all transformer parameters, one AdamW step. Pass 2: the same transitions under the new weights, ratios ≠ 1 and clipped.
"""

import math

import torch
from common import Random, deviation, deviations, gradients, parse_args, report, save, save_json, versions
from srpo import Options, World, model_time, rollout_sigmas
from tiny import FLUX1_SMALL, IMAGE, OPEN_CLIP, TEXT_TOKENS, flux1_small, open_clip_tiny, toy_tokens, vae_kl

SETTINGS = {
    "a": dict(steps=8, shift=3.0, eta=0.3, group=4, fraction=0.6, clip_range=1e-4, adv_clip=5.0, guidance=3.5, lr=1e-5, weight_decay=1e-4, max_grad_norm=1.0),
    "b": dict(steps=6, shift=2.0, eta=0.7, group=3, fraction=0.8, clip_range=1e-3, adv_clip=0.9, guidance=2.0, lr=3e-5, weight_decay=1e-4, max_grad_norm=0.01),
}
CAPTION = "a gourd of mate on a wooden table"


def transition(z, v, sigma, next_sigma, eta):
    """Mean and std of the SDE step, and the clean estimate."""
    delta = next_sigma - sigma
    clean = z - sigma * v
    score = -(z - (1 - sigma) * clean) / sigma**2
    mean = z + delta * v - 0.5 * eta**2 * score * delta
    return mean, eta * math.sqrt(-delta), clean


def log_probability(after, mean, std):
    """Mean, not sum, over all dimensions but the batch."""
    p = -((after - mean) ** 2) / (2 * std**2) - math.log(std) - 0.5 * math.log(2 * math.pi)
    return p.flatten(1).mean(1)


def run(args, values, s, dtype):
    c = OPEN_CLIP[args.variant]
    transformer = flux1_small(args.seed, args.variant)
    world = World(transformer, vae_kl(args.seed, args.variant), open_clip_tiny(args.seed, args.variant), IMAGE[args.variant], c["vision_cfg"]["image_size"],
                  values["encoder_hidden_states"], values["pooled_projections"], dtype)
    sigmas32 = rollout_sigmas(Options(sampling_steps=s["steps"], shift=s["shift"]))
    sigmas = [float(x) for x in sigmas32]
    times = [model_time(x) for x in sigmas32]
    n = s["group"]
    z = world.pack(values["start"].to(dtype)).expand(n, -1, -1).contiguous()
    noises = values["noises"].to(dtype)
    states, logps, means = [z], [], []
    with torch.no_grad():
        for i in range(s["steps"]):
            v = world.velocity(z, times[i], s["guidance"])
            mean, std, clean = transition(z, v, sigmas[i], sigmas[i + 1], s["eta"])
            z = mean + std * noises[:, i]
            states.append(z)
            means.append(mean)
            logps.append(log_probability(z, mean, std))
        pictures = world.decode(clean)[1]
        features = world.features(pictures)[1]
        tokens = toy_tokens([CAPTION], c["text_cfg"]["vocab_size"], c["text_cfg"]["context_length"])
        rewards = (features * world.text_features(tokens)).sum(-1)
    old = torch.stack(logps, 1)
    advantages = ((rewards - rewards.mean()) / (rewards.std() + 1e-8)).clamp(-s["adv_clip"], s["adv_clip"])
    used = values["permutations"][:, : int((s["steps"] - 1) * s["fraction"])]
    parameters = list(transformer.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=s["lr"], betas=(0.9, 0.999), eps=1e-8, weight_decay=s["weight_decay"])
    out = {"states": torch.stack(states, 1), "means": torch.stack(means, 1), "log_probabilities": old, "clean_last": clean, "pictures": pictures, "features": features,
           "tokens": tokens, "rewards": rewards, "advantages": advantages}
    passes = []
    for number in (1, 2):
        optimizer.zero_grad()
        new, ratio, losses = (torch.zeros(used.shape, dtype=dtype) for _ in range(3))
        for g in range(n):
            for j, i in enumerate(used[g].tolist()):
                before, after = states[i][g : g + 1], states[i + 1][g : g + 1]
                v = world.velocity(before, times[i], s["guidance"])
                mean, std, _ = transition(before, v, sigmas[i], sigmas[i + 1], s["eta"])
                logp = log_probability(after, mean, std)
                # Pass 1 in the reference has ratio 1 by construction (same batch size 1); subtract the value itself so that it is exactly 1 here too.
                rho = torch.exp(logp - (logp.detach() if number == 1 else old[g, i]))
                a = advantages[g]
                loss = torch.maximum(-a * rho, -a * rho.clamp(1 - s["clip_range"], 1 + s["clip_range"])).mean() / (n * used.shape[1])
                loss.backward()
                new[g, j], ratio[g, j], losses[g, j] = logp.item(), rho.item(), loss.item()
        grads = {k: v.clone() for k, v in gradients(transformer).items()}
        norm = torch.nn.utils.clip_grad_norm_(parameters, s["max_grad_norm"])
        out.update({f"pass{number}.log_probabilities": new, f"pass{number}.ratio": ratio, f"pass{number}.loss": losses, f"pass{number}.grad_norm": norm})
        passes.append(grads)
        if number == 1:
            optimizer.step()
    return {k: v.detach() for k, v in out.items()}, passes, {"sigmas": sigmas, "timesteps": times}


def main():
    args = parse_args(__doc__)
    s, folder, r, config = SETTINGS[args.variant], args.out / "grpo_step", Random(args.seed, f"grpo/{args.variant}"), FLUX1_SMALL[args.variant]
    h, w = IMAGE[args.variant]
    tokens = h * w // 256
    values = {"start": r("start", 1, 16, h // 8, w // 8), "noises": r("noises", s["group"], s["steps"], tokens, 64),
              "encoder_hidden_states": r("text", 1, TEXT_TOKENS[args.variant], config["joint_attention_dim"]), "pooled_projections": r("pooled", 1, config["pooled_projection_dim"]),
              "permutations": torch.stack([torch.randperm(s["steps"] - 1, generator=r.generator(f"permutation{g}")) for g in range(s["group"])])}
    low, grads, schedule = run(args, values, s, torch.float32)
    high, grads64, _ = run(args, values, s, torch.float64)
    check = {k: deviation(low[k], high[k])["relative_l2"] for k in low if low[k].is_floating_point()}
    save(folder / "pass1_grads.safetensors", grads[0])
    save(folder / "io.safetensors", {**values, **low})
    save_json(folder / "config.json", {"weights": {"transformer": "../flux1_small/weights.safetensors", "vae": "../vae_kl/weights.safetensors", "reward": "../clip_openclip/weights.safetensors"},
                                       "image": [h, w], "caption": CAPTION, **s, **schedule, "transitions used per sample": int((s["steps"] - 1) * s["fraction"]),
                                       "gradient_accumulation": s["group"], "_oracle": {"seed": args.seed, "variant": args.variant, "f32_vs_f64 relative L2": check,
                                                                                         "f32_vs_f64 pass 1 gradients": deviations(grads[0], grads64[0]), "versions": versions()}})
    report("grpo_step", folder, {**check, "grads": deviations(grads[0], grads64[0]), "norm": low["pass1.grad_norm"].item(), "ratios": low["pass2.ratio"].flatten().tolist()[:6], "rewards": low["rewards"].tolist()})


if __name__ == "__main__":
    main()
