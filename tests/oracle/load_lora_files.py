"""Loads the adapter files that Longtail's own writers made into diffusers and PEFT, and runs one forward pass with each.

    deno run -A --no-check tests/oracle/write_lora_files.ts FILES
    python load_lora_files.py --files FILES --fixtures ../fixtures --out ../fixtures/lora_files

The model is the one of the dump flux1_small, with that dump's inputs. Written are the outputs (io.safetensors) and, in
config.json, the hash of every file that was loaded, the differences between loaders, and the verdict of diffusers on kohya's
form at FLUX.1's own width, where the single blocks load as well: a model of width 3072 with one block of each kind gives the
same output with the kohya file as with the diffusers file.
"""

import argparse
import gc
import hashlib
import json
from pathlib import Path

import torch
from common import Random, deviation, randomise, report, save, save_json, versions
from diffusers import FluxPipeline, FluxTransformer2DModel
from flux1 import forward, inputs
from peft import PeftModel
from safetensors import safe_open
from safetensors.torch import load_file

CONFIG_KEYS = ["patch_size", "in_channels", "out_channels", "num_layers", "num_single_layers", "attention_head_dim", "num_attention_heads",
               "joint_attention_dim", "pooled_projection_dim", "guidance_embeds", "axes_dims_rope"]


def small_model(folder: Path) -> FluxTransformer2DModel:
    config = json.loads((folder / "config.json").read_text())
    model = FluxTransformer2DModel(**{k: config[k] for k in CONFIG_KEYS})
    model.load_state_dict(load_file(str(folder / "weights.safetensors")))
    return model.eval()


def through_pipeline(model, file: Path):
    """diffusers' public path: find the format, convert, read the metadata, add the adapter."""
    tensors, alphas, metadata = FluxPipeline.lora_state_dict(str(file.parent), weight_name=file.name, return_alphas=True, return_lora_metadata=True)
    FluxPipeline.load_lora_into_transformer(tensors, alphas, model, metadata=metadata)
    return model


def load(model, file: Path, loader: str):
    if loader == "diffusers":
        return through_pipeline(model, file)
    if loader == "adapter":
        model.load_lora_adapter(str(file.parent), weight_name=file.name, prefix="transformer")
        return model
    # PEFT wraps the model and replaces its layers in place.
    return PeftModel.from_pretrained(model, str(file.parent)).base_model.model


def adapter_parameters(model) -> dict[str, torch.Tensor]:
    return {n: p for n, p in model.named_parameters() if "lora_" in n or "lokr_" in n}


def hashes(file: Path) -> dict[str, str]:
    """The hash of the file, and those that sd-scripts computes from tensors and metadata (networks/lora.py), by the library itself."""
    found = {"sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
    with safe_open(str(file), "pt") as f:
        metadata = f.metadata() or {}
    if "sshs_model_hash" in metadata:
        from safetensors.torch import save as save_bytes

        whole = save_bytes(load_file(str(file)), {k: v for k, v in metadata.items() if k.startswith("ss_")})
        data = whole[8 + int.from_bytes(whole[:8], "little"):]
        found["model"] = hashlib.sha256(data).hexdigest()
        found["legacy"] = hashlib.sha256(whole[0x100000 : 0x100000 + 0x10000]).hexdigest()[:8]
        assert metadata["sshs_model_hash"] == found["model"], file
        assert metadata["sshs_legacy_hash"] == found["legacy"], file
        assert metadata["modelspec.hash_sha256"] == f"0x{found['model']}", file
    return found


def wide(folder: Path) -> dict:
    """The kohya file and the diffusers file of the same layers, loaded into one model of width 3072."""
    config = dict(num_layers=1, num_single_layers=1, guidance_embeds=True)
    model = randomise(FluxTransformer2DModel(**config), Random(0, "lora_files/wide"))
    x = inputs(Random(0, "lora_files/wide/inputs"), dict(in_channels=64, joint_attention_dim=4096, pooled_projection_dim=768), 2, 3, 4, batch=1)
    outputs = {}
    with torch.no_grad():
        outputs["base"] = forward(model, x)
        for name in ("wide.safetensors", "wide.kohya.safetensors"):
            through_pipeline(model, folder / name)
            parameters = adapter_parameters(model)
            outputs[name] = forward(model, x)
            count = len(parameters)
            model.unload_lora() if hasattr(model, "unload_lora") else model.delete_adapters(list(model.peft_config))
    difference = deviation(outputs["wide.kohya.safetensors"], outputs["wide.safetensors"])
    change = deviation(outputs["base"], outputs["wide.safetensors"])["relative_l2"]
    assert difference["relative_l2"] < 1e-5 < 0.01 < change, (difference, change)
    return {"kohya against diffusers": difference, "change by the LoRA": change, "adapter tensors": count}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=Path, required=True)
    parser.add_argument("--fixtures", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(2)
    small = args.fixtures / "flux1_small"
    x = load_file(str(small / "io.safetensors"))
    with torch.no_grad():
        base = forward(small_model(small), x)
    outputs, cases = {}, {}
    for case in json.loads((args.files / "cases.json").read_text()):
        name, file = case["name"], args.files / case["path"]
        if case["loader"] == "wide":
            continue
        model = load(small_model(small), file, case["loader"])
        stored = {k: v for k, v in load_file(str(file)).items() if not k.endswith(".alpha")}
        with torch.no_grad():
            outputs[name] = forward(model, x)
        change = deviation(outputs[name], base)["relative_l2"]
        assert change > 0.01, (name, change)
        cases[name] = {**case, **hashes(file), "tensors in the file": len(stored), "tensors in the model": len(adapter_parameters(model)), "change": change}
        if case["loader"] != "diffusers" or "kohya" not in name:
            assert len(stored) == len(adapter_parameters(model)), cases[name]
        print(name, cases[name], flush=True)
    agree = {f"{a} and {b}": deviation(outputs[a], outputs[b]) for a, b in [("peft", "diffusers"), ("alphas", "diffusers"), ("pair", "patterns"), ("dora_peft", "dora"), ("lokr_peft", "lokr")]}
    for pair, difference in agree.items():
        assert difference["relative_l2"] < 1e-5, (pair, difference)
    gc.collect()
    verdict = wide(args.files)
    save(args.out / "io.safetensors", {f"output.{name}": value for name, value in outputs.items()})
    files = {str(p.relative_to(args.files)): hashes(p) for p in sorted(args.files.rglob("*.safetensors"))}
    save_json(args.out / "config.json", {"model": "../flux1_small", "cases": cases, "files": files, "_oracle": {"loaders agree": agree, "kohya at width 3072": verdict, "versions": versions()}})
    report("lora_files", args.out, verdict)


if __name__ == "__main__":
    main()
