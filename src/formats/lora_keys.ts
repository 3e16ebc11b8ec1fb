// The grammar of keys in adapter files: which program's style a key is of, which layer it belongs to, and which of the
// layer's values it holds. Reading, checking and describing a file all begin here, so that they agree on what a key means.
// Styles as listed in diffusers' converters and ComfyUI's key map.

import { type AdapterFamily, adapterFamily, type FusedNames, fuseNames, fusePath, unflatten } from "./lora_names.ts";

/**
 * - diffusers: `transformer.<module>.lora_A.weight` (ai-toolkit and SimpleTuner write the same)
 * - peft: `base_model.model.<module>.lora_A.weight`, beside an adapter_config.json
 * - kohya: `lora_unet_<path of Black Forest Labs, underscores>.lora_down.weight` (sd-scripts)
 * - bfl: `diffusion_model.<path of Black Forest Labs>.lora_A.weight` (ComfyUI)
 * - xlabs: `double_blocks.0.processor.qkv_lora1.down.weight`
 * - onetrainer: `lora_transformer_<module, underscores>.lora_down.weight`
 * - lycoris: `lycoris_<module, underscores>.lokr_w1`
 */
export type LoraStyle = "diffusers" | "peft" | "kohya" | "bfl" | "xlabs" | "onetrainer" | "lycoris";

/** What a tensor of a layer is. */
export type LoraPart =
  | "down"
  | "up"
  | "alpha"
  | "magnitude"
  | "lokr_w1"
  | "lokr_w1_a"
  | "lokr_w1_b"
  | "lokr_w2"
  | "lokr_w2_a"
  | "lokr_w2_b";

export interface LoraKey {
  style: LoraStyle;
  /** What the keys of one layer have in common. */
  stem: string;
  part: LoraPart;
  /** The modules of diffusers' naming that the layer holds. */
  names: FusedNames;
}

const LOKR_PARTS = ["lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b"] as const;

/** Endings of keys. PEFT puts the adapter's name between in some versions. */
const PARTS: readonly (readonly [string, LoraPart])[] = [
  [".lora_A.weight", "down"],
  [".lora_B.weight", "up"],
  [".lora_A.default.weight", "down"],
  [".lora_B.default.weight", "up"],
  [".lora_down.weight", "down"],
  [".lora_up.weight", "up"],
  [".alpha", "alpha"],
  [".dora_scale", "magnitude"],
  [".lora_magnitude_vector", "magnitude"],
  [".lora_magnitude_vector.weight", "magnitude"],
  [".lora_magnitude_vector.default", "magnitude"],
  [".lora_magnitude_vector.default.weight", "magnitude"],
  ...LOKR_PARTS.flatMap((part) => [[`.${part}`, part] as const, [`.${part}.default`, part] as const]),
];

/** XLabs' own, which no other style has. */
const XLABS_PARTS: readonly (readonly [string, LoraPart])[] = [
  [".down.weight", "down"],
  [".up.weight", "up"],
];

const XLABS: Readonly<Record<string, readonly string[]>> = {
  qkv_lora1: ["attn.to_q", "attn.to_k", "attn.to_v"],
  qkv_lora2: ["attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"],
  proj_lora1: ["attn.to_out.0"],
  proj_lora2: ["attn.to_add_out"],
};

const XLABS_SINGLE: Readonly<Record<string, readonly string[]>> = {
  qkv_lora: ["attn.to_q", "attn.to_k", "attn.to_v"],
  proj_lora: ["proj_out"],
};

/** Splits a key into style, layer and part; null where it is no key of a FLUX transformer's adapter. */
export function parseLoraKey(key: string, family: AdapterFamily = "flux1"): LoraKey | null {
  for (const [parts, xlabs] of [
    [PARTS, false],
    [XLABS_PARTS, true],
  ] as const) {
    const found = parts.find(([ending]) => key.endsWith(ending));
    if (!found) continue;
    const stem = key.slice(0, -found[0].length);
    const layer = layerOf(stem, family);
    if (layer && (layer.style === "xlabs") === xlabs) return { ...layer, stem, part: found[1] };
  }
  return null;
}

function layerOf(stem: string, family: AdapterFamily): { style: LoraStyle; names: FusedNames } | null {
  const one = (style: LoraStyle, module: string | null): { style: LoraStyle; names: FusedNames } | null =>
    module ? { style, names: { modules: [module], rows: "equal" } } : null;
  const fused = (style: LoraStyle, names: FusedNames | null) => names && { style, names };
  if (stem.startsWith("transformer.")) return one("diffusers", stem.slice("transformer.".length));
  if (stem.startsWith("base_model.model.")) return one("peft", stem.slice("base_model.model.".length));
  if (stem.startsWith("lora_unet_")) return fused("kohya", fuseNames(stem, family));
  if (stem.startsWith("lora_transformer_")) return one("onetrainer", unflatten(stem.slice("lora_transformer_".length)));
  if (stem.startsWith("lycoris_")) return one("lycoris", unflatten(stem.slice("lycoris_".length)));
  const bare = stem.replace(/^diffusion_model\./, "");
  const xlabs = /^(double|single)_blocks\.(\d+)\.processor\.(\w+)$/.exec(bare);
  if (xlabs) {
    const table = xlabs[1] === "double" ? XLABS : XLABS_SINGLE;
    if (!Object.hasOwn(table, xlabs[3]!)) return null;
    const block = `${xlabs[1] === "double" ? "transformer_blocks" : "single_transformer_blocks"}.${xlabs[2]}.`;
    return fused("xlabs", { modules: table[xlabs[3]!]!.map((module) => block + module), rows: "equal" });
  }
  return bare === stem ? null : fused("bfl", fusePath(bare, family));
}

export interface LoraKeys {
  /** Keys by stem and part. */
  layers: Map<string, { style: LoraStyle; names: FusedNames; parts: Map<LoraPart, string> }>;
  /** Keys that belong to no layer, and keys that name a part a second time. */
  unknown: string[];
  /** The style of most layers. */
  style: LoraStyle;
  family: AdapterFamily;
}

/** Sorts the keys of a file by layer, as its names and shapes say which family they are of. */
export function sortFileKeys(tensors: ReadonlyMap<string, { shape: readonly number[] }>): LoraKeys {
  return sortLoraKeys(tensors.keys(), adapterFamily(tensors));
}

/** Sorts keys by layer. */
export function sortLoraKeys(keys: Iterable<string>, family: AdapterFamily = "flux1"): LoraKeys {
  const layers: LoraKeys["layers"] = new Map();
  const counts = new Map<LoraStyle, number>();
  const unknown: string[] = [];
  for (const key of keys) {
    const parsed = parseLoraKey(key, family);
    if (!parsed) {
      unknown.push(key);
      continue;
    }
    let layer = layers.get(parsed.stem);
    if (!layer) {
      layer = { style: parsed.style, names: parsed.names, parts: new Map() };
      layers.set(parsed.stem, layer);
      counts.set(parsed.style, (counts.get(parsed.style) ?? 0) + 1);
    }
    if (layer.parts.has(parsed.part)) unknown.push(key);
    else layer.parts.set(parsed.part, key);
  }
  const [style] = [...counts].sort((a, b) => b[1] - a[1])[0] ?? ["diffusers"];
  return { layers, unknown, style: style as LoraStyle, family };
}
