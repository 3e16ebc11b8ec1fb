// Reads adapter files of every style into one form: a pair of factors (LoRA, DoRA) or of Kronecker factors (LoKr) for each
// module of diffusers' naming. Matrices that a style fuses are taken apart, and every way of writing a scale ends in one
// number a layer.

import { LongtailError } from "../base/errors.ts";
import type { FileStore } from "../base/files.ts";
import type { LokrLayer, LoraLayer } from "./adapter_layers.ts";
import { readLokrLayer, splitLokr } from "./lokr.ts";
import { type LoraKeys, type LoraPart, type LoraStyle, sortFileKeys } from "./lora_keys.ts";
import { splitFused } from "./lora_kohya.ts";
import { type LoraFields, readFields, scaleOf } from "./lora_metadata.ts";
import { type Dtype, Safetensors } from "./safetensors.ts";

export interface LoraFile {
  style: LoraStyle;
  /** "dora" where any layer has a magnitude. */
  kind: "lora" | "dora" | "lokr";
  /** By module path without a prefix: "transformer_blocks.0.attn.to_q". Empty for a LoKr. */
  layers: Map<string, LoraLayer>;
  /** The layers of a LoKr, else empty. */
  lokr: Map<string, LokrLayer>;
  /** What the factors are stored as; the first one's where they differ. */
  dtype: Dtype;
  /** `__metadata__` of the file. */
  metadata: ReadonlyMap<string, string>;
}

export interface ReadLoraOptions {
  /** Accepts infinite and missing numbers among the factors, for tools that report them. */
  allowNonFinite?: boolean;
}

/**
 * Reads a LoRA or DoRA of the transformer.
 * Scale: from alpha tensors where the file has them, else from the metadata (diffusers) or from adapter_config.json beside
 * the file (PEFT), with rank-stabilised scaling where that says so; 1 where nothing is said, as diffusers takes it.
 * @throws E-FILE-017 where keys belong to no known layer or style, E-FILE-018 where factors do not fit together, have
 * values that are not finite, or the file needs something that is not supported, and what reading a safetensors file throws
 */
export async function readLora(files: FileStore, path: string, options: ReadLoraOptions = {}): Promise<LoraFile> {
  const file = await readAdapter(files, path, options);
  if (file.kind !== "lokr") return file;
  throw misfit(path, "the whole file", "it is a LoKr, whose Kronecker factors are no low-rank pair", {
    fix: "load it where a LoKr is accepted, or merge it into the model with longtail lora merge",
  });
}

/** As `readLora`, for LoKr files as well. */
export async function readAdapter(files: FileStore, path: string, options: ReadLoraOptions = {}): Promise<LoraFile> {
  const file = await Safetensors.open(files, path);
  try {
    const keys = sortFileKeys(file.tensors);
    refuseUnknown(file.path, keys.unknown, keys.layers.size);
    const fields = await configurationOf(files, file, keys.style);
    const reader = new LayerReader(file, fields, options.allowNonFinite ?? false);
    for (const [stem, layer] of keys.layers) await reader.add(stem, layer);
    return reader.result(keys.style);
  } finally {
    await file.close();
  }
}

/** Fields of the adapter's configuration, or null where none is known. */
export async function configurationOf(
  files: FileStore,
  file: Safetensors,
  style: LoraStyle,
): Promise<LoraFields | null> {
  const text = file.metadata.get("lora_adapter_metadata");
  if (text !== undefined) return readFields(text, file.path, "transformer.");
  if (style !== "peft") return null;
  const slash = Math.max(file.path.lastIndexOf("/"), file.path.lastIndexOf("\\"));
  const config = `${file.path.slice(0, slash + 1)}adapter_config.json`;
  return (await files.exists(config)) ? readFields(await files.readText(config), config, "") : null;
}

type KeysOfLayer = LoraKeys["layers"] extends Map<string, infer V> ? V : never;

class LayerReader {
  private readonly file: Safetensors;
  private readonly fields: LoraFields | null;
  private readonly allowNonFinite: boolean;
  private readonly layers = new Map<string, LoraLayer>();
  private readonly lokr = new Map<string, LokrLayer>();
  private dtype: Dtype | null = null;

  constructor(file: Safetensors, fields: LoraFields | null, allowNonFinite: boolean) {
    this.file = file;
    this.fields = fields;
    this.allowNonFinite = allowNonFinite;
  }

  async add(stem: string, keys: KeysOfLayer): Promise<void> {
    const kronecker = [...keys.parts.keys()].some((part) => part.startsWith("lokr_"));
    if (kronecker && (keys.parts.has("down") || keys.parts.has("up"))) {
      throw this.misfit(stem, "it has the factors of a LoRA and of a LoKr");
    }
    if (kronecker) await this.addLokr(stem, keys);
    else await this.addLora(stem, keys);
  }

  private async addLora(stem: string, { names, parts, style }: KeysOfLayer): Promise<void> {
    const [A, B] = [parts.get("down"), parts.get("up")];
    if (!A || !B)
      throw this.misfit(A ?? B ?? stem, `its other factor, ${lacking(style, A ? "up" : "down")}, is missing`);
    const [a, b] = [this.file.info(A).shape, this.file.info(B).shape];
    if (a.length !== 2 || b.length !== 2) throw this.misfit(A, `shapes [${a}] and [${b}] are no matrices`);
    const [rank, inputs] = a as [number, number];
    const outputs = b[0]!;
    if (b[1] !== rank || rank < 1 || inputs < 1 || outputs < 1) {
      throw this.misfit(A, `shapes [${a}] and [${b}] have no common rank`);
    }
    this.dtype ??= this.file.info(A).dtype;
    const layer: LoraLayer = {
      rank,
      inputs,
      outputs,
      down: await this.values(A),
      up: await this.values(B),
      scale: await this.scale(parts.get("alpha"), names.modules[0]!, rank),
    };
    const magnitude = parts.get("magnitude");
    if (magnitude) layer.magnitude = await this.magnitude(magnitude, outputs, inputs);
    else if (this.fields?.dora) throw this.misfit(stem, "its configuration says DoRA, but the magnitude is missing");
    const split = splitFused(names, layer);
    if (!split) throw this.misfit(stem, `${outputs} rows cannot be split into ${names.modules.join(", ")}`);
    for (const [module, part] of split) this.keep(this.layers, module, part, stem);
  }

  private async addLokr(stem: string, { names, parts }: KeysOfLayer): Promise<void> {
    if (parts.has("magnitude")) throw this.misfit(stem, "a LoKr with a DoRA magnitude is not supported");
    const shapes = new Map<LoraPart, readonly number[]>();
    const values = new Map<LoraPart, Float32Array>();
    for (const [part, key] of parts) {
      if (part === "alpha") continue;
      this.dtype ??= this.file.info(key).dtype;
      shapes.set(part, this.file.info(key).shape);
      values.set(part, await this.values(key));
    }
    const read = readLokrLayer(shapes, values);
    if (typeof read === "string") throw this.misfit(stem, read);
    const { layer, rank } = read;
    if (this.fields?.lokr) layer.scale = this.fields.lokr.scaleOf(names.modules[0]!);
    // LyCORIS has no scale where both factors are whole, whatever its alpha says.
    else if (rank !== null) layer.scale = await this.scale(parts.get("alpha"), names.modules[0]!, rank);
    const split = splitLokr(names, layer);
    if (!split) {
      throw this.misfit(stem, `its Kronecker factors cannot be shared out between ${names.modules.join(", ")}`, {
        fix: "use a LoKr whose layers are those of diffusers, one for each of query, key and value",
      });
    }
    for (const [module, part] of split) this.keep(this.lokr, module, part, stem);
  }

  private keep<T>(into: Map<string, T>, module: string, layer: T, stem: string): void {
    if (into.has(module)) throw this.misfit(stem, `${module} has two sets of factors in this file`);
    into.set(module, layer);
  }

  private async scale(alphaKey: string | undefined, module: string, rank: number): Promise<number> {
    if (alphaKey === undefined) return scaleOf(this.fields, module, rank);
    const values = await this.file.readF32(alphaKey);
    if (values.length !== 1 || !Number.isFinite(values[0]!)) {
      throw this.misfit(alphaKey, values.length === 1 ? `its value is ${values[0]}` : "it is not one number");
    }
    return values[0]! / rank;
  }

  private async magnitude(key: string, outputs: number, inputs: number): Promise<Float32Array> {
    const { shape } = this.file.info(key);
    const sizes = shape.filter((size) => size !== 1);
    if (shape.length === 2 && shape[0] === 1 && shape[1] === inputs && inputs !== 1) {
      throw this.misfit(
        key,
        `its shape [${shape}] is a magnitude for each input, of ${inputs}; read are those for outputs`,
        {
          fix: "train it with the magnitude on the output axis, as PEFT does",
        },
      );
    }
    if ((outputs === 1 ? sizes.length : sizes.length !== 1 || sizes[0] !== outputs) || shape.length > 2) {
      throw this.misfit(key, `its shape [${shape}] is not one magnitude for each of ${outputs} outputs`);
    }
    return this.values(key);
  }

  private async values(key: string): Promise<Float32Array> {
    const values = await this.file.readF32(key);
    if (!this.allowNonFinite) {
      const bad = values.findIndex((value) => !Number.isFinite(value));
      if (bad >= 0) {
        throw this.misfit(key, `element ${bad} is ${values[bad]}`, {
          fix: "the training that made it had failed; take an earlier checkpoint",
        });
      }
    }
    return values;
  }

  result(style: LoraStyle): LoraFile {
    if (this.lokr.size > 0 && this.layers.size > 0) {
      throw this.misfit("the whole file", "it mixes layers of a LoRA with layers of a LoKr");
    }
    const dora = [...this.layers.values()].some((layer) => layer.magnitude);
    return {
      style,
      kind: this.lokr.size > 0 ? "lokr" : dora ? "dora" : "lora",
      layers: this.layers,
      lokr: this.lokr,
      dtype: this.dtype ?? "F32",
      metadata: this.file.metadata,
    };
  }

  private misfit(name: string, why: string, more: { fix?: string } = {}): LongtailError {
    return misfit(this.file.path, name, why, more);
  }
}

/** How the missing factor would be called in the file's style. */
function lacking(style: LoraStyle, part: "down" | "up"): string {
  if (style === "diffusers" || style === "peft" || style === "bfl") return part === "down" ? "lora_A" : "lora_B";
  return style === "xlabs" ? part : `lora_${part}`;
}

function refuseUnknown(path: string, unknown: readonly string[], known: number): void {
  if (unknown.length === 0 && known > 0) return;
  const listed = unknown.slice(0, 20).join(", ") + (unknown.length > 20 ? `, and ${unknown.length - 20} more` : "");
  throw new LongtailError("E-FILE-017", {
    what:
      unknown.length > 0
        ? `${unknown.length} keys belong to no layer of a FLUX transformer's LoRA: ${listed}`
        : "the file has no LoRA layers",
    where: path,
    why:
      "read are files of diffusers (transformer.…lora_A), PEFT (base_model.model.…lora_A), kohya (lora_unet_…lora_down), " +
      "OneTrainer (lora_transformer_…), LyCORIS (lycoris_…lokr_w1), XLabs and ComfyUI (diffusion_model.…)",
    fix: "use a LoRA of the transformer alone, without text encoders; longtail lora verify says more",
  });
}

/** The error of a layer that cannot be used or written. */
export function misfit(path: string, name: string, why: string, more: { fix?: string } = {}): LongtailError {
  return new LongtailError("E-FILE-018", {
    what: `the LoRA of ${name} cannot be used`,
    where: path,
    why,
    fix: more.fix ?? "save the LoRA again from the program that made it, in diffusers' style",
  });
}
