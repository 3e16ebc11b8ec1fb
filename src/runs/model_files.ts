// Where the models of a configuration lie: paths, or "embedded" for what comes along.

import type { FileStore } from "../base/files.ts";
import type { PipelineOptions } from "../models/pipeline.ts";
import { type PipelineLayout, readLayout } from "../models/pipeline_layout.ts";
import type { Config } from "./config/schema.ts";
import { embeddedPath } from "./project.ts";

/** The paths of [model] in the form that a pipeline is opened with. */
export function modelFiles({
  model,
}: Config): Pick<PipelineOptions, "folder" | "vae" | "transformer" | "tokenizers" | "imageSize"> {
  return {
    folder: embeddedPath(model.pipeline, "embedded"),
    vae: model.vae,
    transformer: model.transformer,
    tokenizers: embeddedPath(model.tokenizers, "tokenizers"),
    imageSize: model.image_size,
  };
}

/** The layout of the configuration's pipeline; weights are not touched. */
export async function layoutOf(files: FileStore, config: Config): Promise<PipelineLayout> {
  const { folder, vae, transformer } = modelFiles(config);
  return await readLayout(files, folder, vae, transformer);
}

/** The scale of classifier-free guidance that samples are drawn with; 1 is none. */
export function classifierFreeScale({ sample }: Config, { classifierFree }: PipelineLayout): number {
  return sample.cfg === "auto" ? classifierFree : sample.cfg;
}
