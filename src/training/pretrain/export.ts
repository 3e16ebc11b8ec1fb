// Trained parts as files in the public formats: float16 safetensors under the libraries' tensor names, compact tables with
// the ids of their rows, configurations beside them. The averaged weights are what is saved.

import type { FileStore } from "../../base/files.ts";
import { type TensorToWrite, writeSafetensors } from "../../formats/safetensors_write.ts";
import type { Parameters } from "../../nn/parameters.ts";
import type { Session } from "../../tensor/session.ts";
import type { Variable } from "../../tensor/variable.ts";
import { clipConfig } from "./clip.ts";
import { generatorConfigs } from "./generator.ts";
import type { PretrainJob } from "./jobs.ts";
import type { PretrainSettings } from "./recipes.ts";
import type { Vocabulary } from "./vocabulary.ts";

const json = (value: unknown): string => `${JSON.stringify(value, null, 1)}\n`;

/** A compact table's tensor of ids: its name, and which vocabulary it is of. */
interface Table {
  name: string;
  ids: Int32Array;
}

async function saveTree(
  files: FileStore,
  path: string,
  tree: Parameters,
  valuesOf: (variable: Variable) => Promise<Float32Array>,
  table: Table | null,
): Promise<void> {
  const tensors: TensorToWrite[] = [...(tree.variables as ReadonlyMap<string, Variable>)].map(([name, variable]) => ({
    name,
    dtype: "F16",
    // open_clip's scale has no dimension.
    shape: name === "logit_scale" ? [] : variable.shape,
    data: () => valuesOf(variable),
  }));
  if (table) {
    const bytes = new Uint8Array(table.ids.buffer, table.ids.byteOffset, table.ids.byteLength);
    tensors.push({ name: table.name, dtype: "I32", shape: [table.ids.length], data: bytes });
  }
  await writeSafetensors(files, path, tensors, { metadata: { format: "pt", licence: "MIT" } });
}

/**
 * Writes what a job trained into a pipeline's folder: transformer, text_encoder and text_encoder_2 of the generator, or
 * the folder `reward` or `judge`.
 */
export async function savePart(
  files: FileStore,
  folder: string,
  session: Session,
  job: PretrainJob,
  settings: PretrainSettings,
  vocabulary: Vocabulary,
): Promise<void> {
  const valuesOf = (variable: Variable) => session.read(job.loop.averageOf(variable));
  const { trees, part } = job;
  if (part !== "generator") {
    const table = { name: "token_embedding.ids", ids: vocabulary.clipIds };
    await saveTree(files, `${folder}/${part}/open_clip_model.safetensors`, trees["clip"]!, valuesOf, table);
    await files.writeAtomic(`${folder}/${part}/open_clip_config.json`, json(clipConfig(settings[part], settings)));
    return;
  }
  const configs = generatorConfigs(settings);
  const parts = [
    { tree: "flux", at: "transformer", stem: "diffusion_pytorch_model", table: null },
    {
      tree: "clip",
      at: "text_encoder",
      stem: "model",
      table: { name: "text_model.embeddings.token_embedding.ids", ids: vocabulary.clipIds },
    },
    { tree: "t5", at: "text_encoder_2", stem: "model", table: { name: "shared.ids", ids: vocabulary.t5Ids } },
  ] as const;
  for (const { tree, at, stem, table } of parts) {
    await saveTree(files, `${folder}/${at}/${stem}.safetensors`, trees[tree]!, valuesOf, table);
    await files.writeAtomic(`${folder}/${at}/config.json`, json(configs[tree]));
  }
}

/** Contents of pipeline.json. @param vae path of TAEF2's file relative to the folder */
export function pipelineDocument(settings: PretrainSettings, vae: string): Record<string, unknown> {
  return {
    image_size: settings.imageSize,
    tokens: (settings.imageSize / 16) ** 2,
    vae: {
      file: vae,
      kind: "TAEF2",
      scaling_factor: settings.latentScale,
      shift_factor: settings.latentShift,
      note: "model latent = (encoder output - shift) * scale",
    },
    t5_length: settings.t5Length,
    clip_length: settings.clipLength,
    sampler: { steps: 12, shift: 1.5, guidance: null },
    compact_embeddings:
      'a tensor "<table>.ids" lists the token ids of the rows that are stored; every other id is a zero row',
  };
}

/** Parameters and bytes in float16 of every file of a trained job. */
export function partSizes(job: PretrainJob): { file: string; parameters: number; bytes: number }[] {
  const names: Record<string, string> = { flux: "transformer", clip: "text_encoder", t5: "text_encoder_2" };
  return Object.entries(job.trees).map(([tree, { variables }]) => {
    const parameters = [...(variables as ReadonlyMap<string, Variable>).values()].reduce((n, v) => n + v.size, 0);
    return { file: job.part === "generator" ? names[tree]! : job.part, parameters, bytes: 2 * parameters };
  });
}
