// Writes the pipelines that tests/oracle/pipeline.py described as folders in diffusers' layout: configurations, safetensors
// with generated weights, the transformer and T5 in shards behind an index.

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { type TensorToWrite, writeSafetensors } from "../../src/formats/safetensors_write.ts";
import { NodeFiles, OWN_FIXTURES } from "./files.ts";
import { generated } from "./generated_weights.ts";

export type Variant = "dev" | "schnell";

interface Described {
  index: Record<string, unknown>;
  configs: Record<string, Record<string, any>>;
  tensors: Record<string, Record<string, number[]>>;
}

export interface FolderOptions {
  /** Changes to the config.json of parts. */
  configs?: Record<string, Record<string, unknown>>;
  /** Names of CLIP's tensors with the prefix of a whole CLIP model, as the public checkpoints have them. */
  clipPrefix?: boolean;
  dtype?: "F32" | "BF16";
  /** Leaves scheduler/ out. */
  scheduler?: boolean;
}

export const describedPipeline = (variant: Variant): Described =>
  (JSON.parse(readFileSync(join(OWN_FIXTURES, "pipeline/pipeline.json"), "utf8")) as Record<Variant, Described>)[
    variant
  ];

/** Most bytes of a shard of the transformer and of T5: two or three files each. */
const SHARD_BYTES = { transformer: 400_000, text_encoder_2: 4_120_000 };
const CLIP_PREFIX = /^text_model\./;

export async function writePipelineFolder(
  folder: string,
  variant: Variant,
  options: FolderOptions = {},
): Promise<void> {
  const { dtype = "F32", clipPrefix = true } = options;
  const { index, configs, tensors } = describedPipeline(variant);
  const files = new NodeFiles();
  const json = (path: string, value: unknown) => files.writeAtomic(join(folder, path), JSON.stringify(value));
  await json("model_index.json", index);
  if (options.scheduler !== false)
    await json("scheduler/scheduler_config.json", { ...configs["scheduler"], ...options.configs?.["scheduler"] });
  for (const [part, shapes] of Object.entries(tensors)) {
    await json(`${part}/config.json`, { ...configs[part], ...options.configs?.[part] });
    const list = Object.entries(shapes).map(
      ([name, shape]): TensorToWrite => ({
        name: part === "text_encoder" && !clipPrefix ? name.replace(CLIP_PREFIX, "") : name,
        dtype,
        shape,
        data: () => generated(`${part}/${name}`, shape),
      }),
    );
    const stem = part.startsWith("text") ? "model" : "diffusion_pytorch_model";
    const shardBytes = (SHARD_BYTES as Record<string, number | undefined>)[part];
    await writeSafetensors(files, join(folder, part, `${stem}.safetensors`), list, { shardBytes });
  }
}
