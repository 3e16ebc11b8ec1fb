// Latents between pictures and tokens: 2×2 patches become tokens with channel = 4·c + 2·row + column (FLUX's packing).

import { permute } from "../../ops/permute.ts";
import { reshape } from "../../ops/reshape.ts";
import type { Tensor } from "../../tensor/graph.ts";

/** [B, C, h, w] -> [B, (h/2)(w/2), 4C]. */
export function packLatents(z: Tensor): Tensor {
  const [b, c, h, w] = z.shape as [number, number, number, number];
  if (h % 2 || w % 2) throw new Error(`latent of ${h}x${w} has no 2x2 patches`);
  const patches = permute(reshape(z, [b, c, h / 2, 2, w / 2, 2]), [0, 2, 4, 1, 3, 5]);
  return reshape(patches, [b, (h / 2) * (w / 2), 4 * c]);
}

/** [B, rows·columns, 4C] -> [B, C, 2·rows, 2·columns]. */
export function unpackLatents(tokens: Tensor, rows: number, columns: number): Tensor {
  const [b, n, c] = tokens.shape as [number, number, number];
  if (n !== rows * columns) throw new Error(`${n} tokens are not ${rows}x${columns}`);
  const patches = permute(reshape(tokens, [b, rows, columns, c / 4, 2, 2]), [0, 3, 1, 4, 2, 5]);
  return reshape(patches, [b, c / 4, 2 * rows, 2 * columns]);
}
