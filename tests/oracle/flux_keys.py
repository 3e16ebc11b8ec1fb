"""Names and shapes of FLUX.1 [dev]'s tensors in both layouts, for tests of the key maps: ../fixtures/flux_keys.json.

diffusers' list comes from its class, without memory for the weights. The original list is written down here from the
published model code. Blocks are listed once, because all blocks of a kind are alike.
Run: python flux_keys.py <folder>
"""
import json
import re
import sys
from pathlib import Path

import torch
from diffusers import FluxTransformer2DModel

WIDTH, JOINT, POOLED, MLP, HEAD = 3072, 4096, 768, 12288, 128


def diffusers_layout():
    with torch.device("meta"):
        state = FluxTransformer2DModel(guidance_embeds=True).state_dict()
    assert len(state) == 1160
    kinds = {"outer": {}, "double": {}, "single": {}}
    for name, tensor in state.items():
        block = re.match(r"(single_)?transformer_blocks\.\d+\.(.+)", name)
        kind = "outer" if not block else "single" if block[1] else "double"
        kinds[kind][block[2] if block else name] = list(tensor.shape)
    return kinds


def linear(name, outputs, inputs):
    return {f"{name}.weight": [outputs, inputs], f"{name}.bias": [outputs]}


def original_layout():
    outer = linear("img_in", WIDTH, 64) | linear("txt_in", WIDTH, JOINT)
    for name, inputs in (("time_in", 256), ("guidance_in", 256), ("vector_in", POOLED)):
        outer |= linear(f"{name}.in_layer", WIDTH, inputs) | linear(f"{name}.out_layer", WIDTH, WIDTH)
    outer |= linear("final_layer.linear", 64, WIDTH) | linear("final_layer.adaLN_modulation.1", 2 * WIDTH, WIDTH)
    double = {}
    for stream in ("img", "txt"):
        double |= linear(f"{stream}_mod.lin", 6 * WIDTH, WIDTH)
        double |= linear(f"{stream}_attn.qkv", 3 * WIDTH, WIDTH) | linear(f"{stream}_attn.proj", WIDTH, WIDTH)
        double |= linear(f"{stream}_mlp.0", MLP, WIDTH) | linear(f"{stream}_mlp.2", WIDTH, MLP)
        double |= {f"{stream}_attn.norm.{kind}_norm.scale": [HEAD] for kind in ("query", "key")}
    single = linear("modulation.lin", 3 * WIDTH, WIDTH) | linear("linear1", 3 * WIDTH + MLP, WIDTH)
    single |= linear("linear2", WIDTH, WIDTH + MLP)
    single |= {f"norm.{kind}_norm.scale": [HEAD] for kind in ("query", "key")}
    assert len(outer) + 19 * len(double) + 38 * len(single) == 780
    return {"outer": outer, "double": double, "single": single}


keys = {
    "model": "FLUX.1 [dev]",
    "blocks": {"double": 19, "single": 38},
    "diffusers": diffusers_layout(),
    "original": original_layout(),
}
text = json.dumps(keys, indent=1)
text = re.sub(r"\[\s+(\d+)(?:,\s+(\d+))?\s+\]", lambda m: f"[{m[1]}{', ' + m[2] if m[2] else ''}]", text)
Path(sys.argv[1], "flux_keys.json").write_text(text + "\n")
