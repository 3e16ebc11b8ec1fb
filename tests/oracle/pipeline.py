"""A whole FluxPipeline, tiny but complete: tokens, text embeddings, sigmas, sampled latents, picture, and the autoencoder's two ways.

Two variants in one folder. dev: guidance embedding, AutoencoderKL, T5 of 512 tokens, the resolution-dependent shift of FLUX.1-dev.
schnell: no guidance, AutoencoderTiny, 256 tokens, shift 1. Tokenizers are the real ones of models/tokenizers, and so are the sizes
of the vocabularies. No weights are stored: every value is a hash of its tensor's name and its place, the same formula here
and in tests/helpers/generated_weights.ts, and pipeline.json lists all names and shapes.
"""

import gzip
import json
import tempfile
from pathlib import Path

import torch
from common import deviation, parse_args, report, save, save_json, versions
from diffusers import AutoencoderKL, AutoencoderTiny, FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
from diffusers.pipelines.flux import pipeline_flux_img2img as img2img
from generated_weights import generated, hashed
from tiny import VAE_COMMON
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer, T5Config, T5EncoderModel, T5TokenizerFast

MODELS = Path(__file__).resolve().parents[2] / "models"
HEIGHT, WIDTH = 64, 96
STEPS, STRENGTH, GUIDANCE = 4, 0.6, 3.5
LENGTH = {"dev": 512, "schnell": 256}
FLUX = dict(patch_size=1, in_channels=64, out_channels=None, num_layers=1, num_single_layers=2, attention_head_dim=32, num_attention_heads=2,
            joint_attention_dim=32, pooled_projection_dim=32, axes_dims_rope=[8, 12, 12])
CLIP = dict(vocab_size=49408, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, max_position_embeddings=77,
            hidden_act="quick_gelu", bos_token_id=0, eos_token_id=2, pad_token_id=1, projection_dim=32)
# Inner width of the attention (heads x d_kv) other than the model's, as a mix-up would show.
T5 = dict(vocab_size=32128, d_model=32, d_kv=8, num_heads=3, d_ff=48, num_layers=2, relative_attention_num_buckets=32,
          relative_attention_max_distance=128, feed_forward_proj="gated-gelu", layer_norm_epsilon=1e-6, dropout_rate=0.0)
KL = dict(VAE_COMMON, block_out_channels=[8, 16, 16, 16], norm_num_groups=4, layers_per_block=1, sample_size=1024)
TINY = dict(encoder_block_out_channels=[16] * 4, decoder_block_out_channels=[16] * 4, latent_channels=16, num_encoder_blocks=[1, 3, 3, 3],
            num_decoder_blocks=[3, 3, 3, 1], latent_magnitude=3, latent_shift=0.5, scaling_factor=1.0, shift_factor=0.0)
DEV = dict(num_train_timesteps=1000, shift=3.0, use_dynamic_shifting=True, base_shift=0.5, max_shift=1.15, base_image_seq_len=256, max_image_seq_len=4096)
SCHNELL = dict(DEV, shift=1.0, use_dynamic_shifting=False)
PROMPTS = [
    "A photo of a red fox in the snow, 35mm, it's 1999!",
    "",
    # Longer than either encoder takes.
    " ".join(f"{colour} {animal}," for animal in ("fox", "heron", "axolotl", "wombat", "pangolin", "otter", "ibex", "tapir", "quokka", "lynx", "newt", "stoat")
             for colour in ("vermilion", "teal", "ochre", "mauve", "indigo", "beige", "crimson", "olive", "turquoise", "sepia")),
]


# The public checkpoints name CLIP's tensors with the prefix of a whole CLIP model, and T5's table once.
PUBLIC = {"text_encoder": lambda n: n if n.startswith("text_model.") else f"text_model.{n}",
          "text_encoder_2": lambda n: n.replace("encoder.embed_tokens.", "shared.")}


def fill(part: str, module: torch.nn.Module) -> dict[str, list[int]]:
    """Gives every parameter its generated value; returns public names and shapes."""
    shapes, public = {}, PUBLIC.get(part, lambda n: n)
    with torch.no_grad():
        for name, p in module.named_parameters():
            p.copy_(generated(f"{part}/{public(name)}", tuple(p.shape)))
            shapes[public(name)] = list(p.shape)
    module.eval()
    return shapes


def tokenizers(folder: Path):
    """The merge list is enough for CLIP's vocabulary: bytes, bytes at the ends of words, merges, the two marks."""
    lines = gzip.decompress((MODELS / "tokenizers/clip/bpe_simple_vocab_16e6.txt.gz").read_bytes()).decode().split("\n")[1:48895]
    order = [*range(33, 127), *range(161, 173), *range(174, 256)]
    symbols = [chr(b) for b in order] + [chr(256 + i) for i in range(68)]
    words = symbols + [s + "</w>" for s in symbols] + ["".join(line.split()) for line in lines] + ["<|startoftext|>", "<|endoftext|>"]
    assert len(words) == 49408
    (folder / "vocab.json").write_text(json.dumps({w: i for i, w in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(lines) + "\n")
    clip = CLIPTokenizer.from_pretrained(str(folder), model_max_length=77, pad_token="<|endoftext|>", unk_token="<|endoftext|>")
    t5 = T5TokenizerFast(tokenizer_file=str(MODELS / "tokenizers/t5/tokenizer.json"), model_max_length=512)
    return clip, t5


def build(variant: str, folder: Path) -> tuple[FluxPipeline, dict]:
    clip_tokenizer, t5_tokenizer = tokenizers(folder)
    parts = {
        "transformer": FluxTransformer2DModel(**FLUX, guidance_embeds=variant == "dev"),
        "text_encoder": CLIPTextModel(CLIPTextConfig(**CLIP)),
        "text_encoder_2": T5EncoderModel(T5Config(**T5)),
        "vae": AutoencoderKL(**KL) if variant == "dev" else AutoencoderTiny(**TINY),
    }
    shapes = {name: fill(name, module) for name, module in parts.items()}
    scheduler = FlowMatchEulerDiscreteScheduler(**(DEV if variant == "dev" else SCHNELL))
    pipe = FluxPipeline(scheduler=scheduler, tokenizer=clip_tokenizer, tokenizer_2=t5_tokenizer, **parts)
    pipe.set_progress_bar_config(disable=True)
    configs = {"transformer": {"_class_name": "FluxTransformer2DModel", **FLUX, "guidance_embeds": variant == "dev"},
               "text_encoder": {"architectures": ["CLIPTextModel"], **CLIP}, "text_encoder_2": {"architectures": ["T5EncoderModel"], **T5},
               "vae": {"_class_name": type(parts["vae"]).__name__, **(KL if variant == "dev" else TINY)},
               "scheduler": {"_class_name": "FlowMatchEulerDiscreteScheduler", **dict(scheduler.config)}}
    return pipe, {"index": {"_class_name": "FluxPipeline"}, "configs": configs, "tensors": shapes}


def run(variant: str, pipe: FluxPipeline, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    pipe = pipe.to(dtype)
    tokens = HEIGHT * WIDTH // 256
    start = torch.from_numpy(hashed("latents", tokens * 64).reshape(1, tokens, 64) * 1.7).to(torch.float32).to(dtype)
    picture = torch.from_numpy((hashed("picture", 3 * HEIGHT * WIDTH).reshape(1, 3, HEIGHT, WIDTH) + 1) / 2).to(torch.float32).to(dtype)
    out = {}
    with torch.no_grad():
        states, pooled, _ = pipe.encode_prompt(prompt=PROMPTS, prompt_2=None, max_sequence_length=LENGTH[variant])
        out.update(states=states, pooled=pooled)
        call = dict(prompt_embeds=states[:1], pooled_prompt_embeds=pooled[:1], height=HEIGHT, width=WIDTH, num_inference_steps=STEPS,
                    guidance_scale=GUIDANCE, latents=start, max_sequence_length=LENGTH[variant])
        out["latents"] = pipe(**call, output_type="latent").images
        out["sigmas"] = pipe.scheduler.sigmas.clone()
        out["picture"] = pipe(**call, output_type="pt").images
        config, signed = pipe.vae.config, pipe.image_processor.preprocess(picture)
        encoded = pipe.vae.encode(signed)
        mean = encoded.latent_dist.mode() if variant == "dev" else encoded.latents
        scaled = (mean - config.shift_factor) * config.scaling_factor
        out.update(mean=mean, packed=pipe._pack_latents(scaled, 1, 16, HEIGHT // 8, WIDTH // 8))
        latent = pipe._unpack_latents(start, HEIGHT, WIDTH, 8)
        # From a picture: its latents are given as they are, which the pipeline does not encode, and the noise is ours.
        img2img.randn_tensor = lambda *_, **__: latent
        call.pop("latents")
        out["from_picture"] = img2img.FluxImg2ImgPipeline(**pipe.components)(**call, image=scaled, strength=STRENGTH, output_type="latent").images
        out["decoded"] = pipe.vae.decode(latent / config.scaling_factor + config.shift_factor, return_dict=False)[0] / 2 + 0.5
    return out


def main():
    args = parse_args(__doc__)
    folder, tensors, described, checks = args.out / "pipeline", {}, {}, {}
    for variant in ("dev", "schnell"):
        with tempfile.TemporaryDirectory() as place:
            pipe, described[variant] = build(variant, Path(place))
        clip, t5 = pipe.tokenizer, pipe.tokenizer_2
        tensors[f"{variant}.clip_ids"] = clip(PROMPTS, padding="max_length", max_length=77, truncation=True, return_tensors="pt").input_ids.int()
        tensors[f"{variant}.t5_ids"] = t5(PROMPTS, padding="max_length", max_length=LENGTH[variant], truncation=True, return_tensors="pt").input_ids.int()
        low, high = run(variant, pipe, torch.float32), run(variant, pipe, torch.float64)
        assert low["picture"].min() < 0.2 and low["picture"].max() > 0.8
        tensors.update({f"{variant}.{name}": value for name, value in low.items()})
        checks[variant] = {name: deviation(low[name], high[name]) for name in low}
    for name in ("text_encoder", "text_encoder_2"):
        assert described["dev"]["tensors"][name] == described["schnell"]["tensors"][name]
    # Every value of the first prompt, every fourth token of the others, and one decoded picture less: the file stays small.
    for variant in described:
        states = tensors.pop(f"{variant}.states")
        tensors.update({f"{variant}.states": states[:1], f"{variant}.other_states": states[1:, ::4]})
    del tensors["schnell.decoded"]
    save(folder / "io.safetensors", tensors)
    sample = generated("transformer/x_embedder.weight", (64, 64)).flatten()[:4].double().tolist()
    folder.joinpath("pipeline.json").write_text(json.dumps(described, separators=(",", ":")) + "\n")
    save_json(folder / "config.json", {"height": HEIGHT, "width": WIDTH, "steps": STEPS, "strength": STRENGTH, "guidance": GUIDANCE, "lengths": LENGTH, "prompts": PROMPTS,
              "first values of transformer/x_embedder.weight": sample,
              "_oracle": {"seed": args.seed, "variant": args.variant, "f32_vs_f64": checks, "versions": versions()}})
    report("pipeline", folder, checks)


if __name__ == "__main__":
    main()
