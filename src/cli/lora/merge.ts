// Merges adapters into a transformer file: W + Σ strength · ΔW, and for DoRA towards magnitude · (W + ΔW) / ‖W + ΔW‖. One
// tensor is in memory at a time, sums are made in double precision and rounded once to the file's own number format.

import { LongtailError } from "../../base/errors.ts";
import type { FileStore } from "../../base/files.ts";
import { isLokr } from "../../formats/adapter_layers.ts";
import { type LoraFile, readAdapter } from "../../formats/lora.ts";
import { Safetensors, type TensorInfo } from "../../formats/safetensors.ts";
import { type TensorToWrite, writeSafetensors } from "../../formats/safetensors_write.ts";
import { type ModuleRows, modulesOfTensor, rowsOf } from "../../models/flux/keys.ts";
import type { BaseModel } from "./base.ts";
import { type AnyLayer, changeRows } from "./low_rank.ts";

export interface MergeInput {
  path: string;
  strength: number;
}

export interface Merged {
  /** Files written; more than one where the base is sharded. */
  files: string[];
  tensors: number;
  changed: number;
  /** Per adapter, how many of its layers were used. */
  layers: number[];
}

/** Shards as large as the hub's. */
const SHARD_BYTES = 10_000_000_000;

/**
 * @param onTensor called after every tensor
 * @throws E-FILE-074 the base has no weights, E-FILE-072 an adapter has layers that the base lacks or of another size, or
 * a tensor's number format cannot be written, and what reading adapters throws
 */
export async function mergeLoras(
  files: FileStore,
  base: BaseModel,
  inputs: readonly MergeInput[],
  output: string,
  onTensor: (done: number, total: number) => void = () => {},
): Promise<Merged> {
  if (base.weights === null) {
    throw new LongtailError("E-FILE-074", {
      what: "the base model's weights are not there",
      where: base.name,
      why: "a name says what the layers look like, but merging needs their values",
      fix: "give the transformer's file or the pipeline's folder with --base",
    });
  }
  const adapters: { file: LoraFile; input: MergeInput; used: Set<string> }[] = [];
  for (const input of inputs) {
    adapters.push({ file: await readAdapter(files, input.path), input, used: new Set() });
  }
  const source = await Safetensors.open(files, base.weights);
  try {
    const changes = new Map<string, Change[]>();
    for (const info of source.tensors.values()) {
      const found: Change[] = [];
      for (const rows of info.shape.length === 2 ? modulesOfTensor(info.name, base.family) : []) {
        for (const { file, input, used } of adapters) {
          const layer = file.layers.get(rows.module) ?? file.lokr.get(rows.module);
          if (!layer) continue;
          used.add(rows.module);
          found.push(change(info, rows, layer, input));
        }
      }
      if (found.length > 0) changes.set(info.name, found);
    }
    for (const { file, input, used } of adapters) {
      const unused = [...file.layers.keys(), ...file.lokr.keys()].filter((module) => !used.has(module));
      if (unused.length > 0) {
        throw refused(
          input.path,
          `${unused[0]} and ${unused.length - 1} more layers`,
          "the base model has no such layer",
        );
      }
    }
    let done = 0;
    const total = source.tensors.size;
    const tensors = [...source.tensors.values()].map((info): TensorToWrite => {
      const own = changes.get(info.name);
      const data = async () => {
        const values = own ? await merged(source, info, own) : await source.readBytes(info.name);
        onTensor(++done, total);
        return values;
      };
      return { name: info.name, dtype: info.dtype, shape: info.shape, data };
    });
    const metadata = {
      ...Object.fromEntries(source.metadata),
      format: "pt",
      "modelspec.merged_from": inputs.map(({ path, strength }) => `${nameOf(path)}:${strength}`).join(", "),
    };
    delete (metadata as Record<string, string>)["modelspec.hash_sha256"];
    const sharded = new Set([...source.tensors.values()].map(({ file }) => file)).size > 1;
    const written = await writeSafetensors(files, output, tensors, {
      metadata,
      ...(sharded ? { shardBytes: SHARD_BYTES } : {}),
    });
    return { files: written, tensors: total, changed: changes.size, layers: adapters.map(({ used }) => used.size) };
  } finally {
    await source.close();
  }
}

interface Change {
  layer: AnyLayer;
  strength: number;
  first: number;
  /** Row of the layer for a row of the tensor, both counted from the change's first row. */
  rowOf(i: number): number;
}

const WRITABLE = ["F32", "F16", "BF16"];

function change(info: TensorInfo, rows: ModuleRows, layer: AnyLayer, input: MergeInput): Change {
  const [outputs, inputs] = info.shape as [number, number];
  const { first, count } = rowsOf(rows, outputs, inputs);
  if (layer.inputs !== inputs || layer.outputs !== count) {
    const why = `it changes ${layer.outputs} × ${layer.inputs}, the base has ${count} × ${inputs}`;
    throw refused(input.path, rows.module, why);
  }
  if (!WRITABLE.includes(info.dtype)) {
    throw refused(input.path, info.name, `the base stores it as ${info.dtype}, which cannot be added to`);
  }
  const half = count / 2;
  const rowOf = rows.swapHalves ? (i: number) => (i < half ? i + half : i - half) : (i: number) => i;
  return { layer, strength: input.strength, first, rowOf };
}

async function merged(source: Safetensors, info: TensorInfo, changes: readonly Change[]): Promise<Float32Array> {
  const values = (await source.readF32(info.name)).slice();
  const inputs = info.shape[1]!;
  for (const { layer, strength, first, rowOf } of changes) {
    const add = changeRows(layer);
    const magnitude = isLokr(layer) ? undefined : layer.magnitude;
    const row = new Float64Array(inputs);
    for (let i = 0; i < layer.outputs; i++) {
      const own = values.subarray((first + i) * inputs, (first + i + 1) * inputs);
      const from = rowOf(i);
      row.fill(0);
      add(from, row);
      // A DoRA at part strength lies on the line between the old and the new weight, as ComfyUI takes it.
      const factor = magnitude ? magnitude[from]! / norm(own, row) : 1;
      for (let j = 0; j < inputs; j++) {
        const before = own[j]!;
        own[j] = magnitude ? before + strength * (factor * (before + row[j]!) - before) : before + strength * row[j]!;
      }
    }
  }
  const worst = info.dtype === "F16" ? values.findIndex((value) => Math.abs(value) >= 65520) : -1;
  if (worst >= 0) throw refused(info.file, info.name, `the merged value ${values[worst]} is too large for F16`);
  return values;
}

function norm(weight: Float32Array, change: Float64Array): number {
  let sum = 0;
  for (let j = 0; j < change.length; j++) sum += (weight[j]! + change[j]!) ** 2;
  return Math.sqrt(sum) || 1;
}

const nameOf = (path: string) => path.slice(Math.max(path.lastIndexOf("/"), path.lastIndexOf("\\")) + 1);

function refused(path: string, name: string, why: string): LongtailError {
  return new LongtailError("E-FILE-072", {
    what: `${name} cannot be merged`,
    where: path,
    why,
    fix: "check both with longtail lora verify --base=…",
  });
}
