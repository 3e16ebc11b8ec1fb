// Which settings of a training run fit into a given memory: the run is traced again with frozen weights stored in fewer bits,
// with gradient checkpointing, with a batch of one, and with blocks streamed from host memory, from what costs nothing to what
// costs most time.

import { LongtailError } from "../../base/errors.ts";
import type { FileStore } from "../../base/files.ts";
import { bytes } from "../../evaluation/format.ts";
import type { Config } from "../../runs/config/schema.ts";
import { leastStream, STREAMING, streamingChange } from "../../runs/offload.ts";
import type { TrainingData } from "../../runs/train/data.ts";
import { buildTrainWorld } from "../../runs/train/world.ts";
import type { Target } from "../../tensor/lower.ts";
import { renderTable } from "../table.ts";

export interface Rung {
  /** What is changed against the configuration, as words of a command line; empty for the configuration itself. */
  change: string[];
  bytes: number;
  fits: boolean;
}

const UNITS: Readonly<Record<string, number>> = { MiB: 2 ** 20, GiB: 2 ** 30, MB: 1e6, GB: 1e9 };

/** Bytes of `24GiB`, `8 GB` or `6000MiB`. @throws LongtailError E-ARG-084 where the text is no size */
export function parseMemory(text: string): number {
  const found = /^(\d+(?:\.\d+)?)\s*(MiB|GiB|MB|GB)$/i.exec(text.trim());
  const unit = found && Object.entries(UNITS).find(([name]) => name.toLowerCase() === found[2]!.toLowerCase());
  if (found && unit) return Number(found[1]) * unit[1];
  throw new LongtailError("E-ARG-084", {
    where: "--memory",
    what: `${JSON.stringify(text)} is not a size of memory`,
    fix: "as in --memory=24GiB or --memory=6000MiB",
  });
}

/** Storages of frozen weights below the configured one; none where the weights themselves are trained. */
export function smallerStorages({ adapter, model }: Config): string[] {
  const storages = ["bf16", "int8", "nf4"];
  const from = storages.indexOf(model.storage) + 1;
  return adapter.kind === "full" ? [] : storages.slice(from).map((storage) => `--model.storage=${storage}`);
}

/** Changes in order of their cost; each rung has those of the rungs before it where they help. */
function changesOf(config: Config, streamed: readonly string[]): string[][] {
  const { train } = config;
  const stored = smallerStorages(config);
  const checkpointing = train.checkpointing ? [] : ["--train.checkpointing=true"];
  const single = train.batch > 1 ? ["--train.batch=1", `--train.accumulation=${train.accumulation * train.batch}`] : [];
  const rungs: string[][] = [[], ...stored.map((storage) => [storage])];
  if (checkpointing.length > 0) rungs.push(checkpointing, ...stored.map((storage) => [storage, ...checkpointing]));
  if (single.length > 0) {
    rungs.push([...checkpointing, ...single]);
    if (stored.length > 0) rungs.push([stored.at(-1)!, ...checkpointing, ...single]);
  }
  if (streamed.length > 0) {
    // It saves most and costs most time; blocks are traced again in the backward pass anyway.
    rungs.push([...streamed], ...stored.map((storage) => [storage, ...streamed]));
    if (single.length > 0) rungs.push([...stored.slice(-1), ...single, ...streamed]);
  }
  return rungs;
}

type Section = "model" | "train" | "align" | "eval" | "device";

function changed(config: Config, changes: readonly string[]): Config {
  const copy = structuredClone(config);
  for (const change of changes) {
    const [key, value] = change.slice(2).split("=") as [string, string];
    const [section, name] = key.split(".") as [Section, string];
    const table = copy[section] as Record<string, unknown>;
    table[name] = value === "true" ? true : /^\d+$/.test(value) ? Number(value) : value;
  }
  return copy;
}

/** The need of a configuration under each of the changes. @param need traces a run and returns its bytes */
export async function rungsOf(
  config: Config,
  changes: readonly string[][],
  need: (config: Config) => Promise<number>,
  available: number,
): Promise<Rung[]> {
  const rungs: Rung[] = [];
  for (const change of changes) {
    const found = await need(changed(config, change));
    // Of a model of few blocks streaming saves nothing.
    if (change.includes(STREAMING) && found >= rungs[0]!.bytes) continue;
    rungs.push({ change, bytes: found, fits: found <= available });
  }
  return rungs;
}

/**
 * Traces the run under each rung; nothing is allocated.
 * @param encoders bytes that the phase of encoding needs: no setting of the training changes them
 */
export async function memoryLadder(
  files: FileStore,
  config: Config,
  target: Target,
  data: TrainingData,
  encoders: number,
  available: number,
): Promise<Rung[]> {
  const need = async (own: Config) => {
    const world = await buildTrainWorld(files, own, target, data.geometries, data.samplePictures, leastStream(own));
    return Math.max(world.session.memory().total, encoders);
  };
  return await rungsOf(config, changesOf(config, await streamingChange(files, config)), need, available);
}

const TRAINING_ADVICE = "lower data.resolution, adapter.rank or the samples' size";

/** The ladder as a table, and which rung to take. @param advice what is left where none fits */
export function ladderText(
  rungs: readonly Rung[],
  available: number,
  columns: number,
  advice = TRAINING_ADVICE,
): string {
  const table = renderTable(
    [{ title: "settings" }, { title: "device memory", align: "right" }, { title: `fits ${bytes(available)}` }],
    rungs.map(({ change, bytes: need, fits }) => [
      change.join(" ") || "as configured",
      bytes(need),
      fits ? "yes" : "no",
    ]),
    columns,
  ).trimEnd();
  const first = rungs.find(({ fits }) => fits);
  const told = !first
    ? `none of these fits; ${advice}`
    : first.change.length === 0
      ? "the configuration fits as it is"
      : `the first that fits: ${first.change.join(" ")}`;
  return `${table}\n${told}`;
}
