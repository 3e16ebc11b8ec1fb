// Where the tuner's choices live: one file per adapter and driver in a folder of the platform's choice. A run takes them from its own
// folder when it is continued, from the cache otherwise, and measures what is missing.

import type { EventSink } from "../base/events.ts";
import type { FileStore } from "../base/files.ts";
import { sha256 } from "../base/hash.ts";
import { join } from "../base/paths.ts";
import type { Gpu } from "../gpu/device.ts";
import type { Target } from "../tensor/lower.ts";
import type { Session } from "../tensor/session.ts";
import { targetOf } from "../tensor/target.ts";
import { chooseFrom, type FaultyVariant, type KernelChoices, tune } from "../tensor/tuner.ts";
import type { Config } from "./config/schema.ts";

/** Raised when kernels change so that old measurements mean nothing. */
const TABLE_VERSION = 1;
/** Wall time of tuning on a first start; a GPU measures faster and has more to gain. */
const BUDGET_SECONDS = { software: 3, hardware: 8 };

interface Table {
  version: number;
  adapter: string;
  choices: KernelChoices;
}

async function tablePath(folder: string, gpu: Gpu): Promise<string> {
  return join(folder, `${(await sha256(gpu.facts.key)).slice(0, 16)}.json`);
}

async function readTable(files: FileStore, path: string, adapter: string): Promise<KernelChoices> {
  try {
    const table = JSON.parse(await files.readText(path)) as Table;
    return table.version === TABLE_VERSION && table.adapter === adapter ? table.choices : {};
  } catch {
    // No table yet, or one that is damaged: measuring again costs seconds.
    return {};
  }
}

export interface Tuned<W> {
  world: W;
  choices: KernelChoices;
  text: string;
}

function warnOf(faulty: readonly FaultyVariant[], emit: EventSink): void {
  for (const { choice, name } of faulty) {
    emit({
      kind: "warning",
      code: "E-ENV-062",
      text: `this driver computes wrong values with ${name ? `the variant ${name}` : "the default kernel"} of ${choice}; another one is used`,
    });
  }
}

/**
 * Builds a world (anything with a session whose plans are traced) with tuned kernels. `fixed` are the choices that a
 * continued run was made with; they are taken as they are, because another variant may round differently.
 * @param build traces everything for a target
 * @param options `tables` is the folder in which measured choices are remembered; `emit` hears of variants that a driver
 * compiles wrongly
 */
export async function buildTuned<W extends { session: Session; pipeline?: { close(): Promise<void> } }>(
  files: FileStore,
  config: Config,
  gpu: Gpu,
  build: (target: Target) => Promise<W>,
  { tables, emit, fixed }: { tables: string; emit: EventSink; fixed?: KernelChoices | undefined },
): Promise<Tuned<W>> {
  const make = (choices: KernelChoices) => build(targetOf(gpu, chooseFrom(choices)));
  if (fixed) return { world: await make(fixed), choices: fixed, text: "kernels as the run began with" };
  if (config.device.tuner !== "on") return { world: await make({}), choices: {}, text: "kernels: defaults" };
  const path = await tablePath(tables, gpu);
  const known = await readTable(files, path, gpu.facts.key);
  const world = await make(known);
  const budget = gpu.facts.software ? BUDGET_SECONDS.software : BUDGET_SECONDS.hardware;
  const report = await tune(gpu, world.session.target, world.session.plans, known, budget);
  warnOf(report.faulty, emit);
  const found = Object.keys(report.measured).length;
  if (found === 0)
    return { world, choices: known, text: `kernels: ${Object.keys(known).length} choices remembered for this adapter` };
  const choices = { ...known, ...report.measured };
  await files.writeAtomic(
    path,
    `${JSON.stringify({ version: TABLE_VERSION, adapter: gpu.facts.key, choices } satisfies Table, null, 1)}\n`,
  );
  const changed = Object.values(report.measured).filter((name) => name !== "").length;
  // The first world's files would stay open for good.
  if (changed > 0) await world.pipeline?.close();
  return {
    world: changed > 0 ? await make(choices) : world,
    choices,
    text: `kernels: ${found} shapes measured in ${report.seconds.toFixed(1)} s, ${changed} better than the default; remembered for this adapter`,
  };
}

/** The kernel choices that a run began with, from its folder; a file that cannot be read is measured anew. */
export async function readKernels(files: FileStore, path: string): Promise<KernelChoices | undefined> {
  if (!(await files.exists(path))) return undefined;
  try {
    return JSON.parse(await files.readText(path)) as KernelChoices;
  } catch {
    return undefined;
  }
}
