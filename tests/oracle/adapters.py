"""Adapters beyond plain LoRA by PEFT on the small FLUX.1: rsLoRA, DoRA and LoKr (outputs, gradients of every adapter tensor, merged weights).

<case>.safetensors: the adapter under PEFT's own keys with `transformer.` in front; <case>_grads.safetensors: gradients under the same names.
io.safetensors: the inputs that all cases share with the sinusoids of their times (see flux1), `<case>.output`, `<case>.loss`, `<case>.grad.hidden_states`, and `<case>.merged.<module>`, the
weight that PEFT's merge leaves there. Magnitudes are moved away from the row norms and no factor is zero, so that every gradient flows.
"""

import copy

import torch
from common import Random, deviation, deviations, parse_args, report, save, save_json, versions
from flux1 import forward, inputs, loss_of
from peft import LoKrConfig, LoraConfig, inject_adapter_in_model
from peft.utils import get_peft_model_state_dict
from tiny import FLUX1_SMALL, flux1_small

MODULATION = ["norm1.linear", "norm1_context.linear", "norm.linear"]
ATTENTION = ["attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0", "attn.add_q_proj"]


def cases(variant: str) -> dict:
    """Settings by case. LoKr meets its three forms: both factors whole, the second a product, both products."""
    a = variant == "a"
    return {
        "rslora": LoraConfig(r=4 if a else 3, lora_alpha=3 if a else 7, use_rslora=True, target_modules=["attn.to_q", "proj_mlp", "ff.net.2"],
                             rank_pattern={"ff.net.2": 2}, alpha_pattern={"proj_mlp": 5}),
        "dora": LoraConfig(r=4 if a else 3, lora_alpha=6 if a else 5, use_dora=True, target_modules=[*ATTENTION, "ff.net.0.proj", "proj_out"]),
        "lokr": LoKrConfig(r=3 if a else 2, alpha=5 if a else 3, target_modules=[*ATTENTION, *MODULATION],
                           rank_pattern={"attn.to_out.0": 8}),
        "lokr_both": LoKrConfig(r=2, alpha=1 if a else 3, decompose_both=True, decompose_factor=8 if a else 6,
                                target_modules=["ff.net.0.proj", "ff.net.2", "attn.to_out.0", "attn.add_k_proj", "x_embedder"]),
    }


def public(name: str) -> str:
    """PEFT's name of a parameter in a file: without the adapter's name, and a magnitude without `.weight`."""
    return "transformer." + name.replace("lora_magnitude_vector.default.weight", "lora_magnitude_vector").replace(".default", "")


def add_adapter(args, case: str, config):
    model = flux1_small(args.seed, args.variant)
    model.requires_grad_(False)
    inject_adapter_in_model(config, model, "default")
    r = Random(args.seed, f"adapters/{args.variant}/{case}")
    with torch.no_grad():
        for name, p in model.named_parameters():
            if ".default" not in name:
                continue
            if "magnitude" in name:
                p.mul_(1 + 0.2 * r(name, *p.shape))
            elif "lora_B" in name:
                p.copy_(0.2 * r(name, *p.shape))
            elif "lora_A" in name:
                p.copy_(r(name, *p.shape) / p.shape[0])
            else:
                p.copy_(0.4 * r(name, *p.shape))
            p.requires_grad_(True)
    return model.eval()


def run(model, x, dtype):
    model = copy.deepcopy(model).to(dtype)
    x = {k: v.detach().clone().to(dtype) for k, v in x.items()}
    x["hidden_states"].requires_grad_(True)
    v = forward(model, x)
    loss = loss_of(v, x["loss_weight"])
    loss.backward()
    grads = {public(n): p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    return {"output": v.detach(), "loss": loss.detach(), "grad.hidden_states": x["hidden_states"].grad}, grads


def sinusoids(model, x) -> dict[str, torch.Tensor]:
    """What this machine's float32 makes of times and guidance scales: other processors differ in the last place."""
    names, found = iter(["sinusoid.timestep", "sinusoid.guidance"]), {}  # time_proj is called for one, then for the other
    hook = model.time_text_embed.time_proj.register_forward_hook(lambda m, a, out: found.update({next(names): out}))
    with torch.no_grad():
        forward(model, x)
    hook.remove()
    return found


def main():
    args = parse_args(__doc__)
    folder, config = args.out / "adapters", FLUX1_SMALL[args.variant]
    rows, columns, text = (4, 4, 6) if args.variant == "a" else (3, 5, 4)
    x = inputs(Random(args.seed, f"adapters/{args.variant}/inputs"), config, rows, columns, text, batch=2)
    io, described, checks = {**x, **sinusoids(flux1_small(args.seed, args.variant), x)}, {}, {}
    for case, settings in cases(args.variant).items():
        model = add_adapter(args, case, settings)
        low, grads = run(model, x, torch.float32)
        high, grads64 = run(model, x, torch.float64)
        adapter = {f"transformer.{k}": v.detach().clone() for k, v in get_peft_model_state_dict(model).items()}
        assert set(adapter) == set(grads), set(adapter) ^ set(grads)
        save(folder / f"{case}.safetensors", adapter)
        save(folder / f"{case}_grads.safetensors", grads)
        io.update({f"{case}.{k}": v for k, v in low.items()})
        layers = {n: m for n, m in model.named_modules() if hasattr(m, "scaling") and "default" in m.scaling}
        scales = {n: m.scaling["default"] for n, m in layers.items()}
        # The smallest layers stand for the merge, one of each form.
        shown = {}
        for n, m in sorted(layers.items(), key=lambda item: item[1].get_base_layer().weight.numel()):
            form = tuple(sorted(k.split(".")[0] for k, _ in m.named_parameters() if ".default" in k))
            if shown.setdefault(form, n) == n:
                layer = copy.deepcopy(m)
                layer.merge()
                io[f"{case}.merged.{n}"] = layer.get_base_layer().weight
        merged = copy.deepcopy(model)
        for m in merged.modules():
            if hasattr(m, "scaling") and "default" in m.scaling:
                m.merge()
        with torch.no_grad():
            checks[case] = {"output": deviation(low["output"], high["output"]), "grads": deviations(grads, grads64),
                            "merged": deviation(forward(merged, x), low["output"])}
        assert checks[case]["merged"]["relative_l2"] < 3e-6, (case, checks[case])
        fields = {k: sorted(v) if isinstance(v, set) else v for k, v in settings.to_dict().items()}
        keep = ("peft_type", "r", "lora_alpha", "alpha", "target_modules", "rank_pattern", "alpha_pattern", "use_rslora", "use_dora", "decompose_both", "decompose_factor")
        described[case] = {**{k: getattr(v, "value", v) for k, v in fields.items() if k in keep}, "scales": scales}
    save(folder / "io.safetensors", io)
    save_json(folder / "config.json", {"weights": "../flux1_small/weights.safetensors", "cases": described, "_oracle": {
        "seed": args.seed, "variant": args.variant, "loss": "mean(loss_weight*v) + 0.5*mean(v*v)", "f32_vs_f64": checks, "versions": versions()}})
    report("adapters", folder, checks)


if __name__ == "__main__":
    main()
