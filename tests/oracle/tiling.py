"""AutoencoderKL in tiles, as enable_tiling does it: the same autoencoder, weights by formula, as variant dev of pipeline.py.

diffusers lets the last tile of a row or column be a narrow rest and blends it into the end; Longtail's tiles all have one size, the
last one shifted inwards. Stored are: diffusers' own tiled result without the part that a narrow rest touches (`whole`), where both
cut alike; and tiles at shifted places, decoded and encoded by diffusers and joined by its blend_v and blend_h (`shifted`).
"""

import torch
from common import deviation, parse_args, report, save, save_json, versions
from diffusers import AutoencoderKL, FluxPipeline
from generated_weights import hashed
from pipeline import KL, fill

TILE = 64  # pixels; 8 latents, 4 tokens
# Pixels of a side. Tiles begin every 48 pixels: at 0 and 48 in both, and at 16 in the second, shifted there from 48.
WHOLE, SHIFTED = 112, 80


def inputs(side: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Packed model latents and a picture in [0, 1]."""
    tokens = side * side // 256
    packed = torch.from_numpy(hashed(f"latents {side}", tokens * 64).reshape(1, tokens, 64) * 1.7).to(torch.float32).to(dtype)
    picture = torch.from_numpy((hashed(f"picture {side}", 3 * side * side).reshape(1, 3, side, side) + 1) / 2).to(torch.float32).to(dtype)
    return packed, picture


def join(vae: AutoencoderKL, tiles: list[list[torch.Tensor]], starts: list[int], size: int, side: int) -> torch.Tensor:
    """What tiled_decode does with its tiles, at any places."""
    out = torch.zeros(1, tiles[0][0].shape[1], side, side, dtype=tiles[0][0].dtype)
    for i, y in enumerate(starts):
        for j, x in enumerate(starts):
            tile = tiles[i][j]
            if i > 0:
                tile = vae.blend_v(tiles[i - 1][j], tile, starts[i - 1] + size - y)
            if j > 0:
                tile = vae.blend_h(tiles[i][j - 1], tile, starts[j - 1] + size - x)
            out[:, :, y:y + size, x:x + size] = tile
    return out


def run(vae: AutoencoderKL, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    vae = vae.to(dtype)
    c, out = vae.config, {}
    pack = lambda mean: FluxPipeline._pack_latents((mean - c.shift_factor) * c.scaling_factor, 1, 16, mean.shape[2], mean.shape[3])
    latent = lambda packed, side: FluxPipeline._unpack_latents(packed, side, side, 8) / c.scaling_factor + c.shift_factor
    with torch.no_grad():
        packed, picture = inputs(WHOLE, dtype)
        covered = WHOLE - TILE // 4
        vae.enable_tiling()
        decoded = vae.decode(latent(packed, WHOLE)).sample / 2 + 0.5
        # Every second row: the file stays small.
        out["whole.decoded"] = decoded[:, :, :covered:2, :covered]
        out["whole.packed"] = pack(vae.encode(2 * picture - 1).latent_dist.mode()[:, :, :covered // 8, :covered // 8])
        vae.disable_tiling()
        out["whole.difference"] = decoded - (vae.decode(latent(packed, WHOLE)).sample / 2 + 0.5)

        packed, picture = inputs(SHIFTED, dtype)
        starts, z, x = [0, SHIFTED - TILE], latent(packed, SHIFTED), 2 * picture - 1
        tiles = [[vae.decoder(z[:, :, i // 8:(i + TILE) // 8, j // 8:(j + TILE) // 8]) for j in starts] for i in starts]
        out["shifted.decoded"] = (join(vae, tiles, starts, TILE, SHIFTED) / 2 + 0.5)[:, :, ::2]
        tiles = [[vae.encoder(x[:, :, i:i + TILE, j:j + TILE])[:, :16] for j in starts] for i in starts]
        out["shifted.packed"] = pack(join(vae, tiles, [s // 8 for s in starts], TILE // 8, SHIFTED // 8))
    return out


def main():
    args = parse_args(__doc__)
    folder = args.out / "tiling"
    vae = AutoencoderKL(**{**KL, "sample_size": TILE})
    fill("vae", vae)
    assert (vae.tile_sample_min_size, vae.tile_latent_min_size, vae.tile_overlap_factor) == (64, 8, 0.25)
    low, high = run(vae, torch.float32), run(vae, torch.float64)
    difference = low.pop("whole.difference").abs().max().item()
    assert difference > 1e-2, "tiles must show"
    checks = {name: deviation(value, high[name]) for name, value in low.items()}
    save(folder / "io.safetensors", low)
    save_json(folder / "config.json", {"tile": TILE, "whole": WHOLE, "shifted": SHIFTED,
              "_oracle": {"seed": args.seed, "variant": args.variant, "largest difference to the untiled picture": difference, "f32_vs_f64": checks, "versions": versions()}})
    report("tiling", folder, checks)


if __name__ == "__main__":
    main()
