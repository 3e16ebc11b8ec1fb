// Fused layers of kohya's sd-scripts. Query, key and value are one matrix there, and in FLUX.1's single blocks the MLP's first
// layer with them (lora_names.ts). A file holds for such a matrix either one down factor that its parts share, or the parts' own
// factors on a block diagonal.

import type { LoraLayer, LoraLayers } from "./adapter_layers.ts";
import { type FusedNames, stemOf } from "./lora_names.ts";

/** Rows of each part of a fused matrix, or null where they do not share out. */
export function partHeights(names: FusedNames, inputs: number, outputs: number): number[] | null {
  const parts = names.modules.length;
  const heights =
    names.rows === "equal" ? names.modules.map(() => outputs / parts) : [inputs, inputs, inputs, outputs - 3 * inputs];
  if (heights.some((height) => !Number.isInteger(height) || height < 1)) return null;
  return names.swapHalves && outputs % 2 !== 0 ? null : heights;
}

/** Splits a matrix into its modules' own layers; null where the rows do not share out. A part without values is left out. */
export function splitFused(names: FusedNames, fused: LoraLayer): Map<string, LoraLayer> | null {
  const { rank, inputs, outputs, scale } = fused;
  const parts = names.modules.length;
  const heights = partHeights(names, inputs, outputs);
  if (!heights) return null;
  const up = names.swapHalves ? swapped(fused.up) : fused.up;
  const magnitude = names.swapHalves && fused.magnitude ? swapped(fused.magnitude) : fused.magnitude;
  const layers = new Map<string, LoraLayer>();
  const diagonal = parts > 1 && isBlockDiagonal(up, rank, heights);
  const width = diagonal ? rank / parts : rank;
  let row = 0;
  names.modules.forEach((module, part) => {
    const height = heights[part]!;
    const column = diagonal ? part * width : 0;
    const ownUp = new Float32Array(height * width);
    for (let i = 0; i < height; i++) {
      const from = (row + i) * rank + column;
      ownUp.set(up.subarray(from, from + width), i * width);
    }
    const ownMagnitude = magnitude?.slice(row, row + height);
    row += height;
    const down = fused.down.slice(column * inputs, (column + width) * inputs);
    // The form has room for all parts of a fused layer even where only some were trained.
    if (diagonal && !ownMagnitude && ownUp.every((v) => v === 0) && down.every((v) => v === 0)) return;
    const layer: LoraLayer = { rank: width, inputs, outputs: height, down, up: ownUp, scale };
    layers.set(module, ownMagnitude ? { ...layer, magnitude: ownMagnitude } : layer);
  });
  return layers;
}

function swapped(values: Float32Array): Float32Array {
  const half = values.length / 2;
  const out = new Float32Array(values.length);
  out.set(values.subarray(half));
  out.set(values.subarray(0, half), half);
  return out;
}

/** True where every part's rows have values in the part's own columns alone. */
function isBlockDiagonal(up: Float32Array, rank: number, heights: readonly number[]): boolean {
  if (rank % heights.length !== 0) return false;
  const width = rank / heights.length;
  let row = 0;
  let any = false;
  for (const [part, height] of heights.entries()) {
    for (let i = row; i < row + height; i++) {
      for (let j = 0; j < rank; j++) {
        if (up[i * rank + j] === 0) continue;
        if (Math.floor(j / width) !== part) return false;
        any = true;
      }
    }
    row += height;
  }
  // A fresh shared factor is all zero as well: then nothing tells the two forms apart, and sharing keeps every value.
  return any;
}

export interface FusedLayers {
  /** By stem, `lora_unet_…`. */
  layers: Map<string, LoraLayer>;
  /** Modules whose values were multiplied to bring the parts of a matrix to one scale: exact up to float32's rounding. */
  rescaled: string[];
}

/**
 * Joins layers into the matrices of Black Forest Labs' layout. Parts with one common down factor keep it; others come to
 * lie on a block diagonal of n · r, where r is the largest rank of the parts, and alpha grows with the rank so that
 * alpha / rank stays. Parts that were not trained are zero.
 * @throws Error with the module's name where it cannot be joined
 */
export function joinFused(layers: LoraLayers): FusedLayers {
  const stems = new Map<string, FusedNames>();
  for (const module of layers.keys()) {
    const found = stemOf(module);
    if (found === null) throw new Error(`${module} has no name in Black Forest Labs' layout`);
    stems.set(found.stem, found.names);
  }
  const joined: FusedLayers = { layers: new Map(), rescaled: [] };
  for (const [stem, names] of stems) {
    const parts = names.modules.map((module) => layers.get(module) ?? null);
    joined.layers.set(stem, names.modules.length === 1 ? single(names, parts[0]!) : joinParts(names, parts, joined));
  }
  return joined;
}

function single(names: FusedNames, layer: LoraLayer): LoraLayer {
  if (!names.swapHalves) return layer;
  if (layer.outputs % 2 !== 0) throw new Error(`${names.modules[0]} has an odd number of rows`);
  const { magnitude } = layer;
  return { ...layer, up: swapped(layer.up), ...(magnitude ? { magnitude: swapped(magnitude) } : {}) };
}

function joinParts(names: FusedNames, parts: readonly (LoraLayer | null)[], joined: FusedLayers): LoraLayer {
  const present = parts.filter((part) => part !== null);
  const { inputs } = present[0]!;
  const scale = present.find((part) => part.scale !== 0)?.scale ?? 0;
  const lacking = names.modules.find((_, i) => parts[i] === null);
  const dora = present.some((part) => part.magnitude);
  if (present.some((part) => part.inputs !== inputs))
    throw new Error(`${names.modules[0]} and its kin differ in width`);
  if (dora && (lacking !== undefined || present.some((part) => !part.magnitude))) {
    throw new Error(
      `${lacking ?? names.modules[0]} has no DoRA magnitude, so the matrix that holds it cannot have one`,
    );
  }
  // The MLP is four times as wide in every FLUX.1 model; its height matters only where it was not trained.
  const heights = parts.map(
    (part, i) => part?.outputs ?? (names.rows === "single-linear1" && i === 3 ? 4 : 1) * inputs,
  );
  const expected = partHeights(
    names,
    inputs,
    heights.reduce((a, b) => a + b, 0),
  );
  if (!expected || expected.some((height, i) => height !== heights[i])) {
    throw new Error(`${names.modules.join(", ")} have rows ${heights.join(", ")}, which do not form one matrix`);
  }
  const outputs = heights.reduce((a, b) => a + b, 0);
  const magnitude = dora ? concatenated(present.map((part) => part.magnitude!)) : undefined;
  const extra = magnitude ? { magnitude } : {};
  const first = present[0]!;
  const shared =
    lacking === undefined &&
    present.every((part) => part.rank === first.rank && part.scale === scale && sameValues(part.down, first.down));
  if (shared) {
    const up = concatenated(present.map((part) => part.up));
    // Zeros off the diagonal would make a reader take the factor apart.
    if (!isBlockDiagonal(up, first.rank, heights)) {
      return { rank: first.rank, inputs, outputs, down: first.down, up, scale, ...extra };
    }
  }
  const width = Math.max(...present.map((part) => part.rank));
  const rank = width * parts.length;
  const down = new Float32Array(rank * inputs);
  const up = new Float32Array(outputs * rank);
  let row = 0;
  parts.forEach((part, i) => {
    if (part) {
      const factor = scale === 0 ? 1 : part.scale / scale;
      if (factor !== 1) joined.rescaled.push(names.modules[i]!);
      down.set(part.down, i * width * inputs);
      for (let r = 0; r < part.outputs; r++) {
        for (let k = 0; k < part.rank; k++) {
          up[(row + r) * rank + i * width + k] = factor * part.up[r * part.rank + k]!;
        }
      }
    }
    row += heights[i]!;
  });
  return { rank, inputs, outputs, down, up, scale, ...extra };
}

function concatenated(parts: readonly Float32Array[]): Float32Array {
  const out = new Float32Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}

const sameValues = (a: Float32Array, b: Float32Array) =>
  a === b || (a.length === b.length && a.every((value, i) => value === b[i]));
