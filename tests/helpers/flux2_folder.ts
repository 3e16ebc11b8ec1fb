// Writes the FLUX.2 klein that tests/oracle/flux2_pipeline.py described as a folder in diffusers' layout: configurations, the
// tokenizer, safetensors with generated weights. A pipeline.json says what a tiny model needs: shorter texts, other layers.

import { copyFileSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import type { RangedSource } from "../../src/base/tensor_source.ts";
import { type TensorToWrite, writeSafetensors } from "../../src/formats/safetensors_write.ts";
import { flux2BflMap } from "../../src/models/flux2/bfl_keys.ts";
import { mappedSource, shapesOf } from "../../src/models/mapped_source.ts";
import type { Dump } from "./dumps.ts";
import { NodeFiles } from "./files.ts";
import { generatedSource } from "./generated_source.ts";

/** The transformer's weights in the layout of Black Forest Labs, as a source that is read by ranges. */
export function originalTransformer(dump: Dump): RangedSource {
  const original = generatedSource("transformer", dump.config["_oracle"]["tensors"]["transformer"]);
  return {
    ...original,
    dtype: () => "F32",
    loadRange: async (name, first, count) =>
      (await original.load(name)).slice(first, count === undefined ? undefined : first + count),
    loadBytes: () => Promise.reject(new Error("not needed")),
    close: () => Promise.resolve(),
  };
}

/** The same as diffusers names them. */
export function diffusersTransformer(dump: Dump): RangedSource {
  const original = originalTransformer(dump);
  return mappedSource(original, flux2BflMap(shapesOf(original)));
}

export interface Flux2FolderOptions {
  /** A distilled model, which is drawn without classifier-free guidance. */
  distilled?: boolean;
  dtype?: "F32" | "BF16";
  /** Changes to the config.json of parts. */
  configs?: Record<string, Record<string, unknown>>;
  /** Changes to model_index.json. */
  index?: Record<string, unknown>;
  /** Leaves out what says how many tokens and which layers are read. */
  plain?: boolean;
}

export async function writeFlux2Folder(folder: string, dump: Dump, options: Flux2FolderOptions = {}): Promise<void> {
  const { dtype = "F32", distilled = true } = options;
  const { configs, index, length, layers, _oracle } = dump.config as Record<string, any>;
  const files = new NodeFiles();
  const json = (path: string, value: unknown) => files.writeAtomic(join(folder, path), JSON.stringify(value));
  await json("model_index.json", { ...index, is_distilled: distilled, ...options.index });
  if (!options.plain) {
    await json("pipeline.json", { text_length: length, text_layers: layers, image_size: 64, is_distilled: distilled });
  }
  for (const part of ["transformer", "text_encoder", "vae", "scheduler"]) {
    const name = part === "scheduler" ? "scheduler_config.json" : "config.json";
    await json(`${part}/${name}`, { ...configs[part], ...options.configs?.[part] });
  }
  mkdirSync(join(folder, "tokenizer"), { recursive: true });
  copyFileSync(dump.path("tokenizer.json"), join(folder, "tokenizer/tokenizer.json"));
  const write = async (path: string, source: Pick<RangedSource, "names" | "shape" | "load">) => {
    const tensors = [...source.names()].map(
      (name): TensorToWrite => ({ name, dtype, shape: source.shape(name), data: () => source.load(name) }),
    );
    await writeSafetensors(files, join(folder, path), tensors);
  };
  await write("transformer/diffusion_pytorch_model.safetensors", diffusersTransformer(dump));
  await write("text_encoder/model.safetensors", generatedSource("text_encoder", _oracle.tensors.text_encoder));
  await write("vae/diffusion_pytorch_model.safetensors", generatedSource("vae", _oracle.tensors.vae));
}

/** The transformer as a single file in the layout of Black Forest Labs. */
export async function writeOriginalTransformer(path: string, dump: Dump): Promise<void> {
  const source = originalTransformer(dump);
  const tensors = [...source.names()].map(
    (name): TensorToWrite => ({ name, dtype: "F32", shape: source.shape(name), data: () => source.load(name) }),
  );
  await writeSafetensors(new NodeFiles(), path, tensors);
}
