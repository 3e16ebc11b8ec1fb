// What a LoRA file says about itself in `__metadata__`: the `ss_*` strings of kohya's sd-scripts, which trainers and model
// managers read, and ModelSpec 1.0.1 (Stability AI), with the hashes by which catalogues find a file. Nothing that names a
// machine, a person or a session is written.

import { f32ToBf16, f32ToF16 } from "../base/halves.ts";
import { Sha256 } from "../base/hash.ts";
import { DTYPE_BITS, type Dtype } from "./safetensors_header.ts";

/** Facts of a training. Whatever is absent is left out of the file. */
export interface LoraFacts {
  /** Name of the output, without an ending. */
  name: string;
  /** What the LoRA was trained on: "flux-1-dev", "flux-1-schnell", or "flux-1" for any other transformer of the kind. */
  architecture: "flux-1-dev" | "flux-1-schnell" | "flux-1" | "flux-2";
  /** A title for people; the name by default. */
  title?: string;
  author?: string;
  description?: string;
  license?: string;
  usageHint?: string;
  triggerPhrase?: string;
  tags?: readonly string[];
  /** ISO 8601, `2026-11-23T02:15:00`. */
  date?: string;
  /** Width and height that the model is made for, and that it was trained at. */
  resolution?: readonly [number, number];
  /** Files that went into a merged or resized LoRA. */
  mergedFrom?: readonly string[];
  /** Name and SHA-256 of the base model's transformer. */
  baseName?: string;
  baseHash?: string;
  learningRate?: number;
  optimizer?: string;
  scheduler?: string;
  warmupSteps?: number;
  /** Updates done, and those planned. */
  steps?: number;
  plannedSteps?: number;
  epoch?: number;
  epochs?: number;
  seed?: number;
  batch?: number;
  accumulation?: number;
  mixedPrecision?: "no" | "fp16" | "bf16";
  guidance?: number;
  timestepSampling?: string;
  gradientCheckpointing?: boolean;
  maxGradNorm?: number;
  pictures?: number;
  regularisationPictures?: number;
  /** How often a tag occurs, by folder or set. */
  tagFrequency?: Readonly<Record<string, Readonly<Record<string, number>>>>;
  /** One object a data set. */
  datasets?: readonly object[];
  /** Buckets by name, with their size and number of pictures. */
  buckets?: object;
  comment?: string;
  startedAt?: number;
  finishedAt?: number;
  /** Version of the program, `0.2.0`. */
  programVersion?: string;
  /** More strings, `ss_*` or others. */
  extra?: Readonly<Record<string, string>>;
}

/** The network as sd-scripts names it. */
export interface NetworkFacts {
  kind: "lora" | "dora" | "lokr";
  /** Ranks and alphas of all layers. */
  ranks: readonly number[];
  alphas: readonly number[];
}

export interface TensorRecord {
  name: string;
  dtype: Dtype;
  shape: readonly number[];
  data: ArrayBufferView;
}

/** All strings for `__metadata__`, hashes included. */
export async function loraMetadata(
  tensors: readonly TensorRecord[],
  facts: LoraFacts,
  network: NetworkFacts,
): Promise<Record<string, string>> {
  const training = trainingMetadata(facts, network);
  const { model, legacy } = fileHashes(tensors, training);
  return {
    ...training,
    sshs_model_hash: model,
    sshs_legacy_hash: legacy,
    ...modelSpec(facts, `0x${model}`),
  };
}

/** The `ss_*` strings, in sd-scripts' spelling of values. */
export function trainingMetadata(facts: LoraFacts, network: NetworkFacts): Record<string, string> {
  const size = facts.resolution ? `(${facts.resolution[0]}, ${facts.resolution[1]})` : undefined;
  const lycoris = network.kind !== "lora";
  const second = facts.architecture === "flux-2";
  const values: Record<string, unknown> = {
    ss_network_module: lycoris ? "lycoris.kohya" : second ? "networks.lora_flux_2" : "networks.lora_flux",
    ss_network_dim: common(network.ranks),
    ss_network_alpha: common(network.alphas),
    ss_network_args: lycoris
      ? json({
          algo: network.kind === "lokr" ? "lokr" : "lora",
          ...(network.kind === "dora" ? { dora_wd: "True" } : {}),
        })
      : undefined,
    ss_base_model_version: second ? "flux2" : "flux1",
    ss_output_name: facts.name,
    ss_learning_rate: facts.learningRate,
    ss_optimizer: facts.optimizer,
    ss_lr_scheduler: facts.scheduler,
    ss_lr_warmup_steps: facts.warmupSteps,
    ss_steps: facts.steps,
    ss_max_train_steps: facts.plannedSteps,
    ss_epoch: facts.epoch,
    ss_num_epochs: facts.epochs,
    ss_seed: facts.seed,
    ss_batch_size_per_device: facts.batch,
    ss_total_batch_size: facts.batch === undefined ? undefined : facts.batch * (facts.accumulation ?? 1),
    ss_gradient_accumulation_steps: facts.accumulation,
    ss_gradient_checkpointing: facts.gradientCheckpointing,
    ss_max_grad_norm: facts.maxGradNorm,
    ss_mixed_precision: facts.mixedPrecision,
    ss_guidance_scale: facts.guidance,
    ss_timestep_sampling: facts.timestepSampling,
    ss_resolution: size,
    ss_num_train_images: facts.pictures,
    ss_num_reg_images: facts.regularisationPictures,
    ss_tag_frequency: facts.tagFrequency && json(facts.tagFrequency),
    ss_datasets: facts.datasets && json(facts.datasets),
    ss_bucket_info: facts.buckets && json(facts.buckets),
    ss_sd_model_name: facts.baseName,
    ss_sd_model_hash: facts.baseHash,
    ss_training_comment: facts.comment,
    ss_training_started_at: facts.startedAt,
    ss_training_finished_at: facts.finishedAt,
    ...facts.extra,
  };
  const named = Object.entries(values).filter(([, value]) => value !== undefined);
  return Object.fromEntries(named.map(([key, value]) => [key, pythonText(value)]));
}

/** The `modelspec.*` strings. @param hash "0x" and the SHA-256 of the tensors' data */
export function modelSpec(facts: LoraFacts, hash: string): Record<string, string> {
  const values: Record<string, string | undefined> = {
    sai_model_spec: "1.0.1",
    architecture: `${facts.architecture}/lora`,
    implementation: "https://github.com/black-forest-labs/flux",
    implementation_version: facts.programVersion && `longtail/${facts.programVersion}`,
    title: facts.title ?? facts.name,
    resolution: facts.resolution ? `${facts.resolution[0]}x${facts.resolution[1]}` : "1024x1024",
    author: facts.author,
    description: facts.description,
    date: facts.date,
    hash_sha256: hash,
    license: facts.license,
    usage_hint: facts.usageHint,
    trigger_phrase: facts.triggerPhrase,
    tags: facts.tags?.join(", "),
    merged_from: facts.mergedFrom?.join(", "),
    // FLUX predicts a velocity, noise − data; the two values that ModelSpec lists are those of earlier models.
    prediction_type: "flow",
  };
  const named = Object.entries(values).filter(([, value]) => value !== undefined && value !== "");
  return Object.fromEntries(named.map(([key, value]) => [`modelspec.${key}`, value!]));
}

/** Where sd-webui's old hash looks, and how far. */
const LEGACY_FROM = 0x100000;
const LEGACY_BYTES = 0x10000;

/**
 * The hashes of sd-scripts: SHA-256 of everything behind the header, and the first 8 digits of the SHA-256 of 64 KiB at
 * 1 MiB, both of the file as it would be with the `ss_*` strings alone, so that titles may be edited afterwards.
 */
export function fileHashes(
  tensors: readonly TensorRecord[],
  training: Readonly<Record<string, string>>,
): { model: string; legacy: string } {
  const ordered = [...tensors].sort(
    (a, b) => DTYPE_BITS[b.dtype] - DTYPE_BITS[a.dtype] || (a.name < b.name ? -1 : a.name > b.name ? 1 : 0),
  );
  const kept = Object.fromEntries(Object.entries(training).filter(([key]) => key.startsWith("ss_")));
  const [model, legacy] = [new Sha256(), new Sha256()];
  let at = 0;
  const passed = (bytes: Uint8Array) => {
    const from = Math.max(LEGACY_FROM - at, 0);
    const to = Math.min(LEGACY_FROM + LEGACY_BYTES - at, bytes.length);
    if (from < to) legacy.update(bytes.subarray(from, to));
    at += bytes.length;
  };
  const stored = ordered.map((tensor) => storedBytes(tensor));
  passed(header(ordered, stored, kept));
  for (const bytes of stored) {
    passed(bytes);
    model.update(bytes);
  }
  return { model: model.hex(), legacy: legacy.hex().slice(0, 8) };
}

function header(
  tensors: readonly TensorRecord[],
  stored: readonly Uint8Array[],
  metadata: Readonly<Record<string, string>>,
): Uint8Array {
  const entries = [`"__metadata__":${JSON.stringify(metadata)}`];
  let at = 0;
  tensors.forEach(({ name, dtype, shape }, i) => {
    const end = at + stored[i]!.length;
    entries.push(`${JSON.stringify(name)}:${JSON.stringify({ dtype, shape, data_offsets: [at, end] })}`);
    at = end;
  });
  const text = new TextEncoder().encode(`{${entries.join(",")}}`);
  const bytes = new Uint8Array(8 + Math.ceil(text.length / 8) * 8).fill(0x20);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(bytes.length - 8), true);
  bytes.set(text, 8);
  return bytes;
}

function storedBytes({ dtype, data }: TensorRecord): Uint8Array {
  let view = data;
  if (data instanceof Float32Array && dtype === "F16") view = f32ToF16(data);
  else if (data instanceof Float32Array && dtype === "BF16") view = f32ToBf16(data);
  return new Uint8Array(view.buffer as ArrayBuffer, view.byteOffset, view.byteLength);
}

/** The value that all share; sd-scripts says "Dynamic" where layers differ. */
function common(values: readonly number[]): number | string | undefined {
  if (values.length === 0) return undefined;
  return values.every((value) => value === values[0]) ? values[0] : "Dynamic";
}

const json = (value: unknown) => JSON.stringify(value);

/** A value as Python's str() writes it, which is how sd-scripts turns metadata into strings. */
function pythonText(value: unknown): string {
  if (typeof value === "boolean") return value ? "True" : "False";
  if (typeof value !== "number") return String(value);
  const size = Math.abs(value);
  if (size > 0 && size < 1e-4) return value.toExponential().replace(/e-(\d)$/, "e-0$1");
  return String(value);
}
