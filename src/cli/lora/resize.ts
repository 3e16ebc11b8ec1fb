// Cuts a LoRA to another rank by the singular values of each layer's change, which is the best approximation of that rank
// (Eckart & Young 1936), and compares two adapters layer by layer.

import { LongtailError } from "../../base/errors.ts";
import type { FileStore } from "../../base/files.ts";
import type { LoraLayer } from "../../formats/adapter_layers.ts";
import { readAdapter, readLora, writeInStyle } from "../../formats/lora.ts";
import { tidy } from "../../formats/lora_metadata.ts";
import { portableScales } from "../../formats/lora_write.ts";
import { travelling, type WrittenStyle, writableDtype, writableStyle } from "./convert.ts";
import { type AnyLayer, changeNorm, changeProduct, productSvd } from "./low_rank.ts";

export interface ResizedLayer {
  module: string;
  before: number;
  after: number;
  /** Share of ‖ΔW‖² that is left. */
  kept: number;
}

export interface Resized {
  layers: ResizedLayer[];
  /** Share over all layers, weighted by their change. */
  kept: number;
  notes: string[];
}

/**
 * @param size a rank for every layer (layers of less keep theirs), or the share of energy that each layer must keep
 */
export async function resizeLora(
  files: FileStore,
  path: string,
  output: string,
  size: { rank: number } | { energy: number },
): Promise<Resized> {
  const file = await readLora(files, path);
  const layers = new Map<string, LoraLayer>();
  const report: ResizedLayer[] = [];
  let [all, left] = [0, 0];
  for (const [module, layer] of file.layers) {
    const svd = productSvd(layer);
    const squares = [...svd.values].map((value) => value * value);
    const energy = squares.reduce((a, b) => a + b, 0);
    const rank = "rank" in size ? Math.min(size.rank, layer.rank) : rankFor(squares, energy, size.energy);
    const own = squares.slice(0, rank).reduce((a, b) => a + b, 0);
    layers.set(module, rank === layer.rank ? layer : svd.cut(rank));
    report.push({ module, before: layer.rank, after: rank, kept: energy > 0 ? own / energy : 1 });
    all += energy * layer.scale ** 2;
    left += own * layer.scale ** 2;
  }
  const style = writableStyle(file) as Exclude<WrittenStyle, "lycoris">;
  const metadata = { ...travelling(file.metadata), ...resizedStrings(layers) };
  const notes = await writeInStyle(files, output, layers, style, {
    dtype: writableDtype(file.dtype),
    metadata,
    fields: "portable",
    scales: portableScales(layers),
  });
  if (file.kind === "dora") notes.push("the DoRA magnitudes are those of the larger rank");
  return { layers: report, kept: all > 0 ? left / all : 1, notes };
}

/** The least rank that keeps the share; at least 1. */
function rankFor(squares: readonly number[], energy: number, share: number): number {
  let sum = 0;
  for (const [k, square] of squares.entries()) {
    sum += square;
    if (sum >= share * energy) return k + 1;
  }
  return Math.max(squares.length, 1);
}

/** sd-scripts' strings of a file whose ranks have changed; alpha follows the rank, since the scale stays. */
function resizedStrings(layers: ReadonlyMap<string, LoraLayer>): Record<string, string> {
  const all = [...layers.values()];
  const shared = (values: readonly number[]) => (new Set(values).size === 1 ? String(values[0]) : "Dynamic");
  return {
    ss_network_dim: shared(all.map(({ rank }) => rank)),
    ss_network_alpha: shared(all.map(({ rank, scale }) => tidy(rank * scale))),
  };
}

export interface LayerDifference {
  module: string;
  /** ‖ΔW‖ in either file, 0 where the file has no such layer. */
  norms: [number, number];
  /** ‖ΔW₁ − ΔW₂‖. */
  difference: number;
  /** Of the angle between the changes; null where one is zero. */
  cosine: number | null;
}

export interface Difference {
  layers: LayerDifference[];
  total: LayerDifference;
}

/** @throws E-FILE-073 where a layer has different sizes in the two files */
export async function diffLoras(files: FileStore, paths: readonly [string, string]): Promise<Difference> {
  const [one, two] = [await readAdapter(files, paths[0]), await readAdapter(files, paths[1])];
  const layersOf = (file: typeof one) => new Map<string, AnyLayer>([...file.layers, ...file.lokr]);
  const [a, b] = [layersOf(one), layersOf(two)];
  const layers: LayerDifference[] = [];
  const sums = { a: 0, b: 0, product: 0 };
  for (const module of new Set([...a.keys(), ...b.keys()])) {
    const [x, y] = [a.get(module), b.get(module)];
    if (x && y && (x.inputs !== y.inputs || x.outputs !== y.outputs)) {
      throw new LongtailError("E-FILE-073", {
        what: `${module} has different sizes in the two files`,
        where: paths[1],
        why: `${y.outputs} × ${y.inputs} here, ${x.outputs} × ${x.inputs} in ${paths[0]}`,
        fix: "compare adapters of one base model",
      });
    }
    const norms: [number, number] = [x ? changeNorm(x) : 0, y ? changeNorm(y) : 0];
    const product = x && y ? changeProduct(x, y) : 0;
    layers.push(compare(module, norms, product));
    sums.a += norms[0] ** 2;
    sums.b += norms[1] ** 2;
    sums.product += product;
  }
  return { layers, total: compare("all layers", [Math.sqrt(sums.a), Math.sqrt(sums.b)], sums.product) };
}

function compare(module: string, norms: [number, number], product: number): LayerDifference {
  const [a, b] = norms;
  return {
    module,
    norms,
    difference: Math.sqrt(Math.max(0, a * a + b * b - 2 * product)),
    cosine: a > 0 && b > 0 ? product / (a * b) : null,
  };
}
