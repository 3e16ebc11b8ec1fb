// Which Linear layers get an adapter and of what shape. Layers are chosen by module names as PEFT matches them, so that an
// adapter trained here names exactly the modules that other programs expect; LoKr's sizes follow LyCORIS (Yeh et al. 2023).

import { LongtailError, nearestName } from "../../base/errors.ts";
import { isLokr, type KroneckerFactor, type LokrLayer, type LoraLayer } from "../../formats/adapter_layers.ts";
import { matchesEntry } from "../../formats/lora_metadata.ts";
import type { Parameters } from "../parameters.ts";

/** The set of diffusers' FLUX training scripts; the three to_* entries also meet the single blocks. */
export const DIFFUSERS_TARGETS: readonly string[] = [
  "attn.to_k",
  "attn.to_q",
  "attn.to_v",
  "attn.to_out.0",
  "attn.add_k_proj",
  "attn.add_q_proj",
  "attn.add_v_proj",
  "attn.to_add_out",
  "ff.net.0.proj",
  "ff.net.2",
  "ff_context.net.0.proj",
  "ff_context.net.2",
];

/** The projections of attention, both streams; the single blocks' output is fused with the feed-forward and left out. */
export const ATTENTION_TARGETS: readonly string[] = DIFFUSERS_TARGETS.filter((entry) => entry.startsWith("attn."));

/** The set of diffusers' FLUX.2 training scripts: the image stream's attention, and both fused matrices of the single blocks. */
export const DIFFUSERS_TARGETS_2: readonly string[] = [
  "attn.to_k",
  "attn.to_q",
  "attn.to_v",
  "attn.to_out.0",
  "attn.to_qkv_mlp_proj",
  "attn.to_out",
];

/** FLUX.2's attention of both streams; in its single blocks query, key and value are one matrix with the gated layer. */
const ATTENTION_TARGETS_2: readonly string[] = [...ATTENTION_TARGETS, "attn.to_qkv_mlp_proj"];

export type AdapterPreset = "diffusers" | "attention" | "kohya" | "all-linear";

/** kohya's sd-scripts adapt every Linear of double and single blocks, the modulation included. */
const BLOCKS = /^(single_)?transformer_blocks\.\d+\./;

const meets = (entries: readonly string[]) => (module: string) => entries.some((entry) => matchesEntry(module, entry));

/** @param second whether the model is FLUX.2's kind */
const presetOf = (preset: AdapterPreset, second: boolean): ((module: string) => boolean) =>
  ({
    diffusers: meets(second ? DIFFUSERS_TARGETS_2 : DIFFUSERS_TARGETS),
    attention: meets(second ? ATTENTION_TARGETS_2 : ATTENTION_TARGETS),
    kohya: (module: string) => BLOCKS.test(module),
    "all-linear": () => true,
  })[preset];

export type AdapterKind = "lora" | "dora" | "lokr";

export interface AdapterSettings {
  /** "lora" by default. */
  kind?: AdapterKind;
  /** A preset, or names or endings of module names. */
  targets: AdapterPreset | readonly string[];
  rank: number;
  alpha: number;
  /** Another rank or alpha for modules of these names or endings; the first that fits counts. */
  rankOf?: Readonly<Record<string, number>>;
  alphaOf?: Readonly<Record<string, number>>;
  /** Names or endings of modules that get no adapter although the targets mean them. */
  exclude?: readonly string[];
  /** Share of an adapter's input elements that are dropped in training plans; 0 by default. */
  dropout?: number;
  /** Scale alpha / √rank in place of alpha / rank (rsLoRA, Kalajdzievski 2023). */
  rankStabilised?: boolean;
  /** LoKr: largest size of the first factor's sides; 0 or less, or absent, takes the most even split. */
  factor?: number;
  /** LoKr: makes the first factor a product of two as well, where the rank is small enough. */
  decomposeBoth?: boolean;
}

/** What one module's LoRA or DoRA looks like. */
export interface LowRankShape {
  /** "lora" by default. */
  kind?: "lora" | "dora";
  rank: number;
  /** What B A is multiplied with, before the strength: alpha / rank, or alpha / √rank. */
  scale: number;
  /** Share of input elements that training drops; none by default. */
  dropout?: number;
}

/** A factor of a Kronecker product: a whole matrix, or [rows, rank] times [rank, columns]. */
export interface FactorShape {
  rows: number;
  columns: number;
  rank: number | null;
}

/** What one module's LoKr looks like. */
export interface KroneckerShape {
  kind: "lokr";
  first: FactorShape;
  second: FactorShape;
  scale: number;
  dropout?: number;
}

export type AdapterShape = LowRankShape | KroneckerShape;

/**
 * The modules that the settings mean and their shapes, in the model's order.
 * @throws LongtailError E-CFG-040 where an entry meets no Linear layer of the model (targets, exclude) or none with an
 * adapter (rankOf, alphaOf), E-CFG-043 where nothing is left
 */
export function chooseAdapters(parameters: Parameters, wanted: AdapterSettings): Map<string, AdapterShape> {
  const modules = [...parameters.linears.keys()];
  const { targets, exclude = [], rankOf = {}, alphaOf = {} } = wanted;
  const means =
    typeof targets === "string" ? presetOf(targets, modules.some(meets(["attn.to_qkv_mlp_proj"]))) : meets(targets);
  const meant = modules.filter(means);
  if (typeof targets !== "string") refuseUnmatched(targets, modules, "adapter.targets");
  refuseUnmatched(exclude, modules, "adapter.exclude");
  const chosen = meant.filter((module) => !exclude.some((entry) => matchesEntry(module, entry)));
  if (chosen.length === 0) throw nothingLeft(meant.length, modules.length);
  refuseUnmatched(Object.keys(rankOf), chosen, "adapter.layers", "Linear layer with an adapter");
  refuseUnmatched(Object.keys(alphaOf), chosen, "adapter.layers", "Linear layer with an adapter");
  const find = (table: Readonly<Record<string, number>>, module: string) =>
    Object.entries(table).find(([entry]) => matchesEntry(module, entry))?.[1];
  return new Map<string, AdapterShape>(
    chosen.map((module): [string, AdapterShape] => {
      const rank = find(rankOf, module) ?? wanted.rank;
      const alpha = find(alphaOf, module) ?? wanted.alpha;
      const scale = alpha / (wanted.rankStabilised ? Math.sqrt(rank) : rank);
      const thinned = wanted.dropout ? { dropout: wanted.dropout } : {};
      if (wanted.kind !== "lokr") {
        return [module, { ...(wanted.kind === "dora" ? { kind: "dora" as const } : {}), rank, scale, ...thinned }];
      }
      const { inputs, outputs } = parameters.linears.get(module)!;
      return [module, { ...kroneckerShape(inputs, outputs, { ...wanted, rank, scale }), ...thinned }];
    }),
  );
}

function refuseUnmatched(
  entries: readonly string[],
  modules: readonly string[],
  where: string,
  what = "Linear layer of the model",
): void {
  for (const entry of entries) {
    if (!modules.some((module) => matchesEntry(module, entry))) throw noSuchModule(entry, modules, where, what);
  }
}

/** E-CFG-040 for a name that no module has, with the nearest. */
export function noSuchModule(
  name: string,
  modules: readonly string[],
  where: string,
  what = "Linear layer of the model",
): LongtailError {
  // A short entry is compared with endings of its own length, else nothing would be near.
  const parts = name.split(".").length;
  const endings = new Set(modules.map((module) => module.split(".").slice(-parts).join(".")));
  const near = nearestName(name, endings);
  return new LongtailError("E-CFG-040", {
    what: `no ${what} is named ${JSON.stringify(name)} or ends with it`,
    where,
    why: `there are ${modules.length}${near === null ? "" : `; the nearest is ${JSON.stringify(near)}`}`,
    fix: 'use names like "attn.to_q"; targets also take "diffusers", "attention", "kohya" or "all-linear"',
  });
}

function nothingLeft(meant: number, modules: number): LongtailError {
  return new LongtailError("E-CFG-043", {
    what: "no Linear layer is left for the adapter",
    where: meant > 0 ? "adapter.exclude" : "adapter.targets",
    why:
      meant > 0
        ? `all ${meant} layers that the targets mean are excluded`
        : `the targets mean none of the model's ${modules} Linear layers`,
    fix: "exclude fewer layers or name more targets",
  });
}

/**
 * Splits a size into two factors, the first the largest divisor that neither exceeds `factor` nor the second; without a
 * positive `factor` the most even split. LyCORIS splits the same way: 128 with factor 4 is 4 · 32, without 8 · 16.
 */
export function splitSize(size: number, factor = 0): [number, number] {
  const most = Math.floor(Math.sqrt(size));
  if (factor > 0 && size % factor === 0) return [Math.min(factor, size / factor), Math.max(factor, size / factor)];
  for (let first = factor > 0 ? Math.min(factor, most) : most; first > 1; first--) {
    if (size % first === 0) return [first, size / first];
  }
  return [1, size];
}

/**
 * LoKr's shape of a Linear layer: the second factor is a product where that saves parameters (rank below half its longer
 * side), the first only on demand. With both factors whole there is no rank, and LyCORIS takes the scale for 1.
 */
export function kroneckerShape(
  inputs: number,
  outputs: number,
  options: { rank: number; scale: number; factor?: number; decomposeBoth?: boolean },
): KroneckerShape {
  const { rank, scale, factor, decomposeBoth } = options;
  const [firstInputs, secondInputs] = splitSize(inputs, factor);
  const [firstOutputs, secondOutputs] = splitSize(outputs, factor);
  const shape = (rows: number, columns: number, decompose: boolean): FactorShape => ({
    rows,
    columns,
    rank: decompose && rank < Math.max(rows, columns) / 2 ? rank : null,
  });
  const first = shape(firstOutputs, firstInputs, decomposeBoth === true);
  const second = shape(secondOutputs, secondInputs, true);
  return { kind: "lokr", first, second, scale: first.rank === null && second.rank === null ? 1 : scale };
}

function shapeOfFactor(factor: KroneckerFactor): FactorShape {
  return { rows: factor.rows, columns: factor.columns, rank: "whole" in factor ? null : factor.rank };
}

/**
 * The shapes of a file's layers, for an adapter that will hold them.
 * @param options dropout of an adapter that goes on training; files do not say it
 */
export function adaptersOf(
  layers: ReadonlyMap<string, LoraLayer | LokrLayer>,
  options: { dropout?: number } = {},
): Map<string, AdapterShape> {
  const thinned = options.dropout ? { dropout: options.dropout } : {};
  const shapeOf = (layer: LoraLayer | LokrLayer): AdapterShape => {
    if (isLokr(layer)) {
      const { first, second, scale } = layer;
      return { kind: "lokr", first: shapeOfFactor(first), second: shapeOfFactor(second), scale, ...thinned };
    }
    const { rank, scale, magnitude } = layer;
    return { ...(magnitude ? { kind: "dora" as const } : {}), rank, scale, ...thinned };
  };
  return new Map([...layers].map(([module, layer]) => [module, shapeOf(layer)]));
}
