"""Weights that nobody stores: every value is a hash of its tensor's name and its place, as in tests/helpers/generated_weights.ts."""

import zlib

import numpy as np
import torch


def hashed(name: str, count: int) -> np.ndarray:
    """`count` numbers in [-1, 1), multiples of 2^-23: a hash of (CRC-32 of the name, place)."""
    h = np.arange(count, dtype=np.uint64) * 0x9E3779B9 + zlib.crc32(name.encode())
    h &= 0xFFFFFFFF
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        h ^= h >> np.uint64(shift)
        h = (h * factor) & 0xFFFFFFFF
    h ^= h >> np.uint64(16)
    return (h >> np.uint64(8)).astype(np.float64) / 2**23 - 1


def generated(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """Tables +-0.8, matrices and convolutions of variance 1/fan_in, biases +-0.15, gains 1 +- 0.3. Worked out in float64, rounded once."""
    u = hashed(name, int(np.prod(shape)))
    table = "embedding.weight" in name or "relative_attention_bias" in name or name.endswith(("shared.weight", "embed_tokens.weight"))
    if len(shape) >= 2:
        values = u * (0.8 if table else np.sqrt(3.0 / float(np.prod(shape[1:]))))
    else:
        values = u * 0.15 if name.endswith("bias") else 1 + u * 0.3
    return torch.from_numpy(values.astype(np.float32).reshape(shape))


def fill(part: str, module: torch.nn.Module) -> dict[str, list[int]]:
    """Gives every parameter and every floating-point buffer of the state its value; returns names and shapes."""
    shapes, seen = {}, set()
    with torch.no_grad():
        for name, t in module.state_dict().items():
            # A tied tensor is written once, under its first name; counters are no weights.
            if t.data_ptr() in seen or not t.is_floating_point():
                continue
            seen.add(t.data_ptr())
            t.copy_(generated(f"{part}/{name}", tuple(t.shape)))
            shapes[name] = list(t.shape)
    module.eval()
    return shapes
