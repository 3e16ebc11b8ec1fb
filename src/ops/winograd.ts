// 3x3 convolutions of stride 1 by Winograd's minimal filtering (Winograd 1980; Lavin & Gray 2015), in tiles of 4x4 outputs:
// 36 products where a direct sum has 144. Weights and tiles are transformed, 36 matrix products are taken, and their results
// transformed back. The points of interpolation, 0, ±3/4, ±3/2 and infinity, keep the rounding error at twice a direct
// sum's (Barabasz et al. 2018). What is decided here needs no device.

import winogradInput from "../../shaders/winograd_input.wgsl" with { type: "text" };
import winogradOutput from "../../shaders/winograd_output.wgsl" with { type: "text" };
import winogradWeights from "../../shaders/winograd_weights.wgsl" with { type: "text" };
import { subgroupLanes, vectorLanes } from "../gpu/kernel_limits.ts";
import type { Node, Tensor } from "../tensor/graph.ts";
import { f32Bits, type Lowering, type Target } from "../tensor/lower.ts";
import type { ConvShape } from "./conv_choice.ts";
import { matmulKey } from "./matmul.ts";
import { chooseMatmul, defaultMatmulVariant, foldGrid, type MatmulShape, matmulVariants } from "./matmul_choice.ts";

/** Name of the variant, beside those of conv_choice.ts. */
export const WINOGRAD = "winograd_4x4";

/** Outputs of a tile along one axis, and points of interpolation along one axis. */
const TILE = 4;
const POINTS = (TILE + 2) ** 2;

/** Where transforms are a small part of the work: fewer channels or tiles take the direct kernel. */
const LEAST_CHANNELS = 16;
const LEAST_TILES = 32;

/** Bytes of transformed tiles and of their products that are held at a time; what exceeds them is done in stretches. */
const STRETCH_BYTES = { software: 4 << 20, hardware: 64 << 20 };

/** Below this many pairs of channels, and tiles, the kernels find a place by one multiplication (shaders/lib/division.wgsl). */
const MOST_ITEMS = 2 ** 22;

/** Columns that a workgroup of the widest product kernel owns. */
const PRODUCT_COLUMNS = 32;

/**
 * The products' kernel without measuring. On a CPU adapter 32 rows beat 16 by a tenth and 64 beat 32 by a twentieth, for
 * half a second of compilation: one text serves all convolutions.
 */
function defaultProduct(shape: MatmulShape, { kernels, software }: Target): string {
  const isWide = shape.M >= 32 && shape.N >= PRODUCT_COLUMNS;
  const lanes = subgroupLanes(kernels);
  if (software && isWide && lanes > 0) return `direct_${shape.M % 64 === 0 ? 64 : 32}x4x${lanes}_broadcast`;
  return defaultMatmulVariant(shape, kernels, software);
}

/** Whether the variant can compute a convolution, or the input gradient of one where `shape` is mirrored. */
export function winogradFits(s: ConvShape): boolean {
  const isSmall = s.OC * s.IC < MOST_ITEMS && tilesOf(s) < MOST_ITEMS;
  return s.KH === 3 && s.KW === 3 && (s.stride ?? 1) === 1 && isSmall;
}

/** Whether it is the one to run without measuring. */
export function winogradPays(s: ConvShape): boolean {
  return winogradFits(s) && Math.min(s.IC, s.OC) >= LEAST_CHANNELS && tilesOf(s) >= LEAST_TILES;
}

function tilesOf({ N, OH, OW }: ConvShape): number {
  return N * Math.ceil(OH / TILE) * Math.ceil(OW / TILE);
}

/** Tiles of a stretch: all of them where their transforms are small enough, else equal parts. */
export function stretchOf(s: ConvShape, target: Pick<Target, "software" | "maxBindingBytes">): number {
  const tiles = tilesOf(s);
  const bytesOfTile = 4 * POINTS * Math.max(s.IC, s.OC);
  const bytes = Math.min(target.maxBindingBytes, STRETCH_BYTES[target.software ? "software" : "hardware"]);
  const parts = Math.ceil((tiles * bytesOfTile) / bytes);
  // Whole columns of the product kernel, where that adds little.
  return parts === 1 ? tiles : Math.ceil(tiles / parts / PRODUCT_COLUMNS) * PRODUCT_COLUMNS;
}

/**
 * Calls the kernels that make output 0 of `node`.
 * @param flipped `x` is dY and `s` the mirrored convolution, which reads the forward weights turned and transposed
 */
export function lowerWinograd(
  lowering: Lowering,
  node: Node,
  [x, w]: readonly [Tensor, Tensor],
  s: ConvShape,
  flipped: boolean,
): void {
  const { target } = lowering;
  const { N, IC, H, W, OC, OH, OW, padTop = 0, padLeft = 0 } = s;
  const tilesY = Math.ceil(OH / TILE);
  const tilesX = Math.ceil(OW / TILE);
  const lanes = target.software ? vectorLanes(target.kernels) : 64;
  const label = `${flipped ? "conv grad" : "conv"} 3x3 ${flipped ? `${IC}x${OC}` : `${OC}x${IC}`} ${OH}x${OW}`;
  const gridOf = (items: number, perWorkgroup: number) =>
    foldGrid(Math.ceil(items / perWorkgroup), target.maxWorkgroups);
  const weights = lowering.scratch(POINTS * OC * IC);
  const over = gridOf(OC * IC, lanes);
  lowering.call({
    label: `${label} weights`,
    source: winogradWeights,
    constants: { W: w.dtype, USES_F16: w.dtype === "f16", FLIPPED: flipped, LANES: lanes },
    inputs: [lowering.slot(w)],
    outputs: [weights],
    params: [OC, IC, over.fold, f32Bits(1 / IC)],
    grid: over.grid,
    flops: 108 * OC * IC,
  });
  const all = N * tilesY * tilesX;
  const stretch = stretchOf(s, target);
  for (let first = 0; first < all; first += stretch) {
    const tiles = Math.min(stretch, all - first);
    const inverses = [tiles, tilesX, tilesY].map((size) => f32Bits(1 / size));
    const inputs = lowering.scratch(POINTS * IC * tiles);
    const into = gridOf(IC * tiles, lanes);
    lowering.call({
      label: `${label} tiles`,
      source: winogradInput,
      constants: { X: x.dtype, USES_F16: x.dtype === "f16", LANES: lanes },
      inputs: [lowering.slot(x)],
      outputs: [inputs],
      params: [IC, H, W, padTop, padLeft, tilesY, tilesX, first, tiles, into.fold, ...inverses],
      grid: into.grid,
      flops: 216 * IC * tiles,
    });
    const outputs = lowering.scratch(POINTS * OC * tiles);
    const shape: MatmulShape = { M: OC, N: tiles, K: IC, batch: POINTS };
    const chosen =
      target.choose("matmul", matmulKey(shape, "f32", "f32"), matmulVariants(target.kernels)) ??
      defaultProduct(shape, target);
    const product = chooseMatmul(shape, chosen, target.kernels);
    lowering.call({
      label: `${label} products`,
      source: product.source,
      constants: product.constants,
      inputs: [weights, inputs],
      outputs: [outputs],
      params: product.params,
      grid: product.grid,
      flops: 2 * POINTS * OC * IC * tiles,
    });
    const out = gridOf(OC * tiles, lanes);
    lowering.call({
      label: `${label} outputs`,
      source: winogradOutput,
      constants: { ITEM: "f32", WIDE: false, USES_F16: false, LANES: lanes },
      wide: OH % TILE === 0 && OW % TILE === 0 ? { constants: { ITEM: "vec4<f32>", WIDE: true } } : null,
      inputs: [outputs],
      outputs: [lowering.slot(node.outputs[0]!)],
      params: [OC, OH, OW, tilesY, tilesX, first, tiles, out.fold, ...inverses],
      grid: out.grid,
      flops: 120 * OC * tiles,
      epilogueOf: node,
    });
  }
}
