// Which weights and which size a sampling command means.

import { join } from "node:path";
import { LongtailError } from "../../base/errors.ts";
import { Safetensors } from "../../formats/safetensors.ts";
import { type Geometry, geometryOf } from "../../models/pipeline.ts";
import { type AdapterLayers, readLayers } from "../../runs/adapter_settings.ts";
import type { Config } from "../../runs/config/schema.ts";
import { layoutOf } from "../../runs/model_files.ts";
import { numberFlag } from "../choice.ts";
import type { CommandContext } from "../command.ts";
import { findRun } from "../commands/report.ts";
import { adapterStrengthFlag } from "./start_picture.ts";

export interface Weights {
  /** A transformer or an adapter file; null for the base model. */
  path: string | null;
  /** The adapter's layers, where the file is one. */
  layers: AdapterLayers | null;
  strength: number;
}

export async function weightsOf(context: CommandContext): Promise<Weights> {
  const { flags } = context.arguments;
  const strength = numberFlag(adapterStrengthFlag(flags), "strength", 1, -100, 100);
  if (typeof flags["weights"] !== "string") return { path: null, layers: null, strength };
  const path = await weightsFile(context, flags["weights"]);
  const layers = (await isAdapter(context, path)) ? await readLayers(context.files, path) : null;
  return { path, layers, strength };
}

/** The weights of a run (its transformer, else its adapter), or the file itself. */
async function weightsFile(context: CommandContext, path: string): Promise<string> {
  if (path.endsWith(".safetensors")) return path;
  const folder = await findRun(context.files, "runs", path);
  const names = (await context.files.list(folder)).filter((n) => n.endsWith(".safetensors"));
  const found =
    names.find((n) => n.endsWith(".transformer.safetensors")) ??
    names.find((n) => n.endsWith(".lora.safetensors")) ??
    names.find((n) => !n.endsWith(".kohya.safetensors"));
  if (found) return join(folder, found);
  throw new LongtailError("E-FILE-055", {
    what: "the run has no weights",
    where: folder,
    why: "it did not reach its end",
    fix: "continue it with --resume=auto",
  });
}

async function isAdapter(context: CommandContext, path: string): Promise<boolean> {
  const file = await Safetensors.open(context.files, path);
  try {
    return [...file.names()].some((name) => /lora_(A|B|down|up)|lokr_w[12]|\.down\.weight$/.test(name));
  } finally {
    await file.close();
  }
}

/** The size of `--size=WIDTHxHEIGHT`, or the pipeline's own. */
export async function sizeOf(context: CommandContext, config: Config): Promise<Geometry> {
  const flag = context.arguments.flags["size"];
  if (typeof flag !== "string") {
    const side = config.model.image_size || (await layoutOf(context.files, config)).imageSize;
    return geometryOf(side, side, "model.image_size");
  }
  const found = /^(\d{1,5})x(\d{1,5})$/.exec(flag);
  if (found) return geometryOf(Number(found[1]), Number(found[2]), "--size");
  throw new LongtailError("E-ARG-055", {
    what: "--size is not WIDTHxHEIGHT in pixels",
    where: flag,
    fix: "as in --size=768x512",
  });
}
