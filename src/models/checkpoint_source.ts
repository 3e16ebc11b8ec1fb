// Opens a published checkpoint, whatever form it has: a folder in diffusers' layout or one file in either layout, with or
// without a configuration beside it, plain or in scaled float8. What comes out has diffusers' names and fields, so that no
// model needs to know where its weights are from.

import { LongtailError } from "../base/errors.ts";
import type { FileStore } from "../base/files.ts";
import type { RangedSource } from "../base/tensor_source.ts";
import { findWeights, openWeights } from "./checkpoint_files.ts";
import { fluxDiffusersMap } from "./flux/bfl_keys.ts";
import { type FluxVariant, recogniseVariant } from "./flux/variants.ts";
import { flux2BflMap } from "./flux2/bfl_keys.ts";
import {
  contradiction,
  type Inferred,
  inferAutoencoder,
  inferFlux1,
  inferFlux2,
  type Json,
  unknownField,
} from "./inferred_config.ts";
import { mappedSource, shapesOf, withoutPrefix } from "./mapped_source.ts";
import { type CheckpointFamily, type CheckpointLayout, type CheckpointPart, recognise } from "./recognise.ts";
import { scaledSource } from "./scaled_source.ts";
import { vaeDiffusersMap } from "./vae/bfl_keys.ts";
import { readJson } from "./weights_file.ts";

export interface Checkpoint {
  family: CheckpointFamily;
  layout: CheckpointLayout;
  /** Tensors under diffusers' names, read by ranges. */
  source: RangedSource;
  /** The configuration in diffusers' fields: from config.json, or read from the tensors' shapes. */
  config: Record<string, unknown>;
  /** Where the configuration is from, for messages. */
  configPath: string;
  /** The public transformer of these sizes; null for an autoencoder and for sizes of one's own. */
  variant: FluxVariant | null;
  /** False where public models of the same size exist and no name told them apart. */
  certain: boolean;
  /** Names that the layout does not know; a model reads none of them. */
  unknown: readonly string[];
}

export interface CheckpointOptions {
  /** Which part of a folder or file is meant; by default a transformer, or what there is. */
  part?: CheckpointPart;
  /** The configuration of what the weights take the place of; it counts where its sizes are theirs. */
  config?: { json: Json; path: string };
  /** Names that tell models of one size apart, before those in the path: a hub id, for example. */
  hints?: readonly string[];
}

const CLASSES: Readonly<Record<CheckpointFamily, readonly string[]>> = {
  flux1: ["FluxTransformer2DModel"],
  flux2: ["Flux2Transformer2DModel"],
  autoencoder: ["AutoencoderKL", "AutoencoderKLFlux2"],
};

/**
 * Opens the checkpoint at `where`, a weights file or a folder; only headers are read. The caller closes `source`.
 * @throws LongtailError E-FILE-001 nothing is there, E-FILE-120 nothing known, E-FILE-121 another model, E-FILE-122 codes
 * that are not read, E-FILE-123 several files, E-FILE-124 the layout is not complete, E-FILE-125 configuration and tensors
 * contradict each other, E-FILE-126 a configuration is needed
 */
export async function openCheckpoint(
  files: FileStore,
  where: string,
  options: CheckpointOptions = {},
): Promise<Checkpoint> {
  const found = await findWeights(files, where, options.part ?? "transformer");
  const file = await openWeights(files, found.path);
  try {
    const { family, layout, prefix } = recognise([...file.names()], found.path, options.part);
    const stored = scaledSource(withoutPrefix(file, prefix));
    const { source, unknown } = renamed(stored, family, layout, found.path);
    const inferred = infer(family, source, found.path);
    const beside = found.configPath ? { json: await readJson(files, found.configPath), path: found.configPath } : null;
    const { config, path } = chooseConfig(family, inferred, beside, options.config ?? null, found.path);
    const hints = [...(options.hints ?? []), found.path, found.pipeline ?? ""];
    const variant = inferred.sizes ? recogniseVariant(inferred.sizes, hints) : null;
    return {
      family,
      layout,
      source,
      config,
      configPath: path,
      variant: variant?.variant ?? null,
      certain: variant?.certain ?? true,
      unknown,
    };
  } catch (error) {
    await file.close();
    throw error;
  }
}

/**
 * Refuses transformers that need more than text and noise: without their other inputs they draw noise.
 * @throws LongtailError E-FILE-127
 */
export function requireTextToImage({ variant }: Pick<Checkpoint, "variant">, where: string): void {
  if (!variant || variant.conditioning === "text" || variant.conditioning === "reference picture") return;
  throw new LongtailError("E-FILE-127", {
    what: `${variant.title} draws from text and a ${variant.conditioning}`,
    where,
    why: `its ${variant.inChannels} input channels hold more than the noise, and pictures are made from text alone here`,
    fix: "use a text-to-image model: FLUX.1 [dev], [schnell], Krea, or one made from them",
  });
}

function renamed(
  stored: RangedSource,
  family: CheckpointFamily,
  layout: CheckpointLayout,
  where: string,
): { source: RangedSource; unknown: string[] } {
  if (layout === "diffusers") return { source: stored, unknown: [] };
  const shapes = shapesOf(stored);
  const maps = {
    flux1: () => fluxDiffusersMap(shapes, where),
    flux2: () => flux2BflMap(shapes),
    autoencoder: () => vaeDiffusersMap(shapes),
  };
  const map = maps[family]();
  const used = new Set([...map.values()].flatMap(({ pieces }) => pieces.map(({ tensor }) => tensor)));
  return { source: mappedSource(stored, map), unknown: [...shapes.keys()].filter((name) => !used.has(name)) };
}

function infer(family: CheckpointFamily, source: RangedSource, where: string): Inferred {
  const shapes = shapesOf(source);
  if (family === "autoencoder") return inferAutoencoder(shapes, where);
  return family === "flux1" ? inferFlux1(shapes, where) : inferFlux2(shapes, where);
}

interface Written {
  json: Json;
  path: string;
}

/** The configuration beside the weights, else the one they are to fit, else what the tensors show. */
function chooseConfig(
  family: CheckpointFamily,
  inferred: Inferred,
  beside: Written | null,
  fitting: Written | null,
  weights: string,
): { config: Record<string, unknown>; path: string } {
  const ofFamily = (json: Json) => CLASSES[family].includes(String(json["_class_name"]));
  // A config.json in a folder of single files may be anybody's.
  if (beside && ofFamily(beside.json)) {
    const difference = contradiction(beside.json, inferred.config);
    if (difference) {
      const { key, written, shown } = difference;
      throw new LongtailError("E-FILE-125", {
        what: `${key} is ${JSON.stringify(written)}, and the tensors show ${JSON.stringify(shown)}`,
        where: beside.path,
        why: `it does not describe the weights beside it (${weights.slice(weights.lastIndexOf("/") + 1)})`,
        fix: "use the config.json that came with these weights, or take it away: public sizes are read from the tensors",
      });
    }
    return { config: { ...beside.json }, path: beside.path };
  }
  if (fitting && ofFamily(fitting.json) && !contradiction(fitting.json, inferred.config)) {
    return { config: { ...fitting.json }, path: fitting.path };
  }
  const unknown = unknownField(inferred.config);
  if (unknown) {
    throw new LongtailError("E-FILE-126", {
      what: `the file has no config.json beside it, and its tensors do not show ${unknown}`,
      where: weights,
      why: "its size is not that of a public model",
      fix: "put the model's config.json into the same folder",
    });
  }
  return { config: { ...inferred.config }, path: weights };
}
