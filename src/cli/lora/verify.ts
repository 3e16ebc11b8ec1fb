// Checks an adapter file key by key against a base model and says in words what is wrong, where readers stop at the first
// fault. It also says which programs will load the file, from what their loaders are known to do (diffusers 0.42, PEFT 0.21,
// ComfyUI's key map, sd-scripts).

import { nearestName } from "../../base/errors.ts";
import type { FileStore } from "../../base/files.ts";
import { type LoraKeys, type LoraStyle, sortFileKeys } from "../../formats/lora_keys.ts";
import { partHeights } from "../../formats/lora_kohya.ts";
import { scaleOf } from "../../formats/lora_metadata.ts";
import { configurationOf } from "../../formats/lora_read.ts";
import { Safetensors } from "../../formats/safetensors.ts";
import type { BaseModel } from "./base.ts";
import { loadabilityNotes } from "./loaders.ts";

export interface Problem {
  /** An error keeps the file from working; a warning is worth knowing. */
  kind: "error" | "warning";
  key: string;
  text: string;
}

export interface Verdict {
  style: LoraStyle;
  kind: "lora" | "dora" | "lokr";
  layers: number;
  problems: Problem[];
  /** What each program does with the file. */
  notes: { program: string; loads: "yes" | "partly" | "no"; text: string }[];
}

/** Unknown keys beyond these get no suggestion: comparing names is slow, and a file of foreign keys has thousands. */
const SUGGESTED = 20;

type Layer = LoraKeys["layers"] extends Map<string, infer V> ? V : never;

/** @throws what opening a safetensors file throws; everything else becomes a problem of the verdict */
export async function verifyLora(files: FileStore, path: string, base: BaseModel): Promise<Verdict> {
  const file = await Safetensors.open(files, path);
  try {
    const keys = sortFileKeys(file.tensors);
    const checker = new Checker(file, keys, base);
    await checker.run();
    const kind = [...keys.layers.values()].some(({ parts }) =>
      [...parts.keys()].some((part) => part.startsWith("lokr")),
    )
      ? "lokr"
      : [...keys.layers.values()].some(({ parts }) => parts.has("magnitude"))
        ? "dora"
        : "lora";
    const scales = await scalesOf(files, file, keys, checker);
    const notes = loadabilityNotes({ keys, kind, metadata: file.metadata, base, scales });
    return { style: keys.style, kind, layers: keys.layers.size, problems: checker.problems, notes };
  } finally {
    await file.close();
  }
}

/** The scale of every layer that has one, by stem. */
async function scalesOf(
  files: FileStore,
  file: Safetensors,
  keys: LoraKeys,
  checker: Checker,
): Promise<Map<string, number>> {
  const scales = new Map<string, number>();
  try {
    const fields = await configurationOf(files, file, keys.style);
    for (const [stem, { parts, names }] of keys.layers) {
      const down = parts.get("down");
      const rank = down ? file.info(down).shape[0]! : 0;
      if (rank < 1) continue;
      const alpha = parts.get("alpha");
      scales.set(stem, alpha ? (await file.readF32(alpha))[0]! / rank : scaleOf(fields, names.modules[0]!, rank));
    }
  } catch (error) {
    checker.problems.push({ kind: "error", key: "lora_adapter_metadata", text: (error as Error).message });
  }
  return scales;
}

class Checker {
  readonly problems: Problem[] = [];
  private readonly file: Safetensors;
  private readonly keys: LoraKeys;
  private readonly base: BaseModel;
  /** Widths that layers were made for, where they are not the model's. */
  private readonly widths = new Map<number, number>();
  private zero = 0;

  constructor(file: Safetensors, keys: LoraKeys, base: BaseModel) {
    this.file = file;
    this.keys = keys;
    this.base = base;
  }

  async run(): Promise<void> {
    this.unknownKeys();
    if (this.keys.layers.size === 0) this.error("", "the file has no layers of a LoRA");
    const owners = new Map<string, string>();
    for (const [stem, layer] of this.keys.layers) {
      for (const module of layer.names.modules) {
        const other = owners.get(module);
        if (other !== undefined) this.error(stem, `${module} has two sets of factors: the other is ${other}`);
        owners.set(module, stem);
      }
      const lokr = [...layer.parts.keys()].some((part) => part.startsWith("lokr_"));
      if (lokr) this.checkLokr(stem, layer);
      else this.checkPair(stem, layer);
      await this.checkValues(stem, layer);
    }
    this.summarise();
  }

  private error(key: string, text: string): void {
    this.problems.push({ kind: "error", key, text });
  }

  private unknownKeys(): void {
    const known = this.expectedKeys();
    this.keys.unknown.forEach((key, i) => {
      if (/^(lora_te\d?_|text_encoder|te\d?_|text_encoders\.)/.test(key)) {
        this.error(key, "belongs to a text encoder; only the transformer's layers are used here");
        return;
      }
      const fused = /\b(to_qkv|to_added_qkv|img_attn\.qkv|attn_qkv)\b/.test(key) && this.keys.style !== "kohya";
      if (fused) {
        this.error(key, "holds query, key and value fused in one matrix, which this style keeps apart");
        return;
      }
      const near = i < SUGGESTED ? nearestName(key, known) : null;
      this.error(key, `is no key of a FLUX LoRA${near === null ? "" : `; the nearest is ${near}`}`);
    });
  }

  /** Names that keys of the file's style would have, for suggestions. */
  private expectedKeys(): string[] {
    const seen = [...this.keys.layers.values()].flatMap(({ parts }) => [...parts.values()]).slice(0, 2000);
    const diffusers = [...this.base.modules.keys()].map((module) => `transformer.${module}.lora_A.weight`);
    return [...seen, ...diffusers];
  }

  private checkPair(stem: string, { parts, names, style }: Layer): void {
    const [down, up] = [parts.get("down"), parts.get("up")];
    if (!down || !up) {
      const there = down ?? up;
      if (there) this.error(there, `its partner is missing: ${partnerOf(there)}`);
      else this.error([...parts.values()][0]!, "stands without factors that it could belong to");
      return;
    }
    const [a, b] = [this.file.info(down).shape, this.file.info(up).shape];
    if (a.length !== 2 || b.length !== 2) {
      this.error(down, `has shapes [${a}] and [${b}], which are no matrices`);
      return;
    }
    const [rank, inputs] = a as [number, number];
    if (b[1] !== rank) {
      this.error(down, `has rank ${rank}, its partner rank ${b[1]}`);
      return;
    }
    this.checkSize(stem, names, style, b[0]!, inputs);
    const magnitude = parts.get("magnitude");
    if (!magnitude) return;
    const shape = this.file.info(magnitude).shape;
    const perInput = shape.length === 2 && shape[0] === 1 && shape[1] === inputs && inputs > 1;
    if (perInput) this.error(magnitude, "is a magnitude for each input; loaders here expect one for each output");
    else if (shape.reduce((product, size) => product * size, 1) !== b[0]) {
      this.error(magnitude, `has shape [${shape}], expected one value for each of ${b[0]} outputs`);
    }
  }

  private checkLokr(stem: string, { parts, names, style }: Layer): void {
    const sides = (which: "lokr_w1" | "lokr_w2"): [number, number] | null => {
      const whole = parts.get(which);
      const [a, b] = [parts.get(`${which}_a`), parts.get(`${which}_b`)];
      if (whole) {
        const { shape } = this.file.info(whole);
        if (shape.length === 2) return shape as [number, number];
        this.error(whole, `has shape [${shape}], which is no matrix`);
      } else if (a && b) {
        const [left, right] = [this.file.info(a).shape, this.file.info(b).shape];
        if (left.length === 2 && right.length === 2 && left[1] === right[0]) return [left[0]!, right[1]!];
        this.error(a, `has shape [${left}], which does not fit its partner's [${right}]`);
      } else this.error(a ?? b ?? stem, `${which}${a ? "_b" : b ? "_a" : ""} is missing`);
      return null;
    };
    const [first, second] = [sides("lokr_w1"), sides("lokr_w2")];
    if (first && second) this.checkSize(stem, names, style, first[0] * second[0], first[1] * second[1]);
  }

  private checkSize(stem: string, names: Layer["names"], style: LoraStyle, outputs: number, inputs: number): void {
    const sizes = names.modules.map((module) => this.base.modules.get(module));
    const lacking = names.modules.find((_, i) => !sizes[i]);
    if (lacking !== undefined) {
      this.error(stem, this.noSuchModule(lacking));
      return;
    }
    const want = sizes[0]!;
    const heights = sizes.map((size) => size!.outputs);
    const total = heights.reduce((sum, height) => sum + height, 0);
    if (inputs === want.inputs && outputs === total) {
      const shared = partHeights(names, inputs, outputs);
      if (!shared) this.error(stem, `its ${outputs} rows do not share out between ${names.modules.join(", ")}`);
      return;
    }
    if (inputs === want.inputs && outputs === 3 * total && names.modules.length === 1 && /to_q|to_k|to_v/.test(stem)) {
      this.error(stem, "holds query, key and value fused in one matrix, which this style keeps apart");
      return;
    }
    if (inputs === want.inputs && names.modules.length > 1 && outputs === heights[0]) {
      this.error(
        stem,
        `has the rows of one of ${names.modules.length} parts: ${style} keys hold all of them in one matrix`,
      );
      return;
    }
    const width = Math.round((this.base.config.width * inputs) / want.inputs);
    const scaled = inputs % want.inputs === 0 || want.inputs % inputs === 0;
    const ofWidth = !FOREIGN.test(names.modules[0]!) && scaled && outputs * this.base.config.width === total * width;
    if (ofWidth) {
      this.widths.set(width, (this.widths.get(width) ?? 0) + 1);
      this.error(stem, `is for a model of width ${width}, this one has ${this.base.config.width}`);
      return;
    }
    this.error(stem, `changes a matrix of ${outputs} × ${inputs}, the model's is ${total} × ${want.inputs}`);
  }

  private noSuchModule(module: string): string {
    const block = /^(single_transformer_blocks|transformer_blocks)\.(\d+)\./.exec(module);
    const { doubleBlocks, singleBlocks } = this.base.config;
    if (block) {
      const [count, kind] =
        block[1] === "transformer_blocks" ? [doubleBlocks, "double blocks"] : [singleBlocks, "single blocks"];
      if (Number(block[2]) >= count) return `is for block ${block[2]}, but ${this.base.name} has ${count} ${kind}`;
    }
    if (module.includes("guidance_embedder")) return `is for the guidance embedder, which ${this.base.name} lacks`;
    const near = this.problems.length < SUGGESTED ? nearestName(module, this.base.modules.keys()) : null;
    return `${module} is no Linear layer of ${this.base.name}${near === null ? "" : `; the nearest is ${near}`}`;
  }

  private async checkValues(stem: string, { parts }: Layer): Promise<void> {
    for (const [part, key] of parts) {
      const values = await this.file.readF32(key).catch((error: Error) => {
        this.error(key, error.message);
        return new Float32Array(0);
      });
      let bad = 0;
      let zero = true;
      for (const value of values) {
        if (!Number.isFinite(value)) bad++;
        if (value !== 0) zero = false;
      }
      if (bad > 0) this.error(key, `has ${bad} of ${values.length} values that are not finite (NaN or infinite)`);
      if (part === "up" && zero && values.length > 0) {
        this.zero++;
        this.problems.push({ kind: "warning", key, text: "is all zero: the layer changes nothing" });
      }
      if (part === "alpha" && values.length !== 1) this.error(stem, "its alpha is not one number");
    }
  }

  private summarise(): void {
    const { size } = this.keys.layers;
    if (size > 0 && this.zero === size) {
      this.problems.unshift({ kind: "warning", key: "", text: "every layer is all zero: the LoRA was never trained" });
    }
    const [most] = [...this.widths].sort((a, b) => b[1] - a[1]);
    if (most && most[1] > 1) {
      const text = `the LoRA is for a model of width ${most[0]}, ${this.base.name} has ${this.base.config.width}`;
      this.problems.unshift({ kind: "error", key: "", text: `${text} (${most[1]} of ${size} layers)` });
    }
  }
}

/** Layers whose inputs do not follow the model's width. */
const FOREIGN = /^(x_embedder|context_embedder|time_(text|guidance)_embed\.\w+\.linear_1)$/;

function partnerOf(key: string): string {
  const swaps: readonly [string, string][] = [
    ["lora_A", "lora_B"],
    ["lora_down", "lora_up"],
    [".down.", ".up."],
  ];
  for (const [one, other] of swaps) {
    if (key.includes(one)) return key.replace(one, other);
    if (key.includes(other)) return key.replace(other, one);
  }
  return "the other factor";
}
