// One pretraining job of a run: declared and tuned, restored or started, its views made, its steps done with a report now
// and then, and its averaged weights saved as a part of a pipeline.

import { join } from "node:path";
import type { EventSink } from "../../base/events.ts";
import type { FileStore } from "../../base/files.ts";
import type { Gpu } from "../../gpu/device.ts";
import { Session } from "../../tensor/session.ts";
import { targetOf } from "../../tensor/target.ts";
import { chooseFrom, type KernelChoices, tune } from "../../tensor/tuner.ts";
import { trainingFlops } from "../../training/pretrain/cost.ts";
import { savePart } from "../../training/pretrain/export.ts";
import {
  declareJob,
  openViewer,
  type PretrainData,
  type PretrainJob,
  type PretrainPart,
} from "../../training/pretrain/jobs.ts";
import type { PretrainSettings } from "../../training/pretrain/recipes.ts";
import { JobCheckpoints } from "./checkpoints.ts";

/** Steps between two reads of the losses; each read waits for the device. */
const REPORT_EVERY = 10;
/** Seconds of measuring kernels. */
const TUNING_SECONDS = { software: 3, hardware: 8 };

export interface PretrainRun {
  files: FileStore;
  gpu: Gpu;
  data: PretrainData;
  settings: PretrainSettings;
  /** Where checkpoints and kernel choices lie, and where the trained part goes. */
  folder: string;
  output: string;
  taef2: string;
  resumed: boolean;
  tuner: boolean;
  checkpointEvery: number;
  emit: EventSink;
  signal: AbortSignal;
}

export interface PretrainOutcome {
  part: PretrainPart;
  steps: number;
  /** Mean loss of the first and of the last ten steps that this start did. */
  first: number;
  last: number;
  seconds: number;
  gflops: number;
}

async function declared(run: PretrainRun, part: PretrainPart, kernelsFile: string) {
  const { files, gpu, settings, data } = run;
  const build = async (choices: KernelChoices): Promise<{ session: Session; job: PretrainJob }> => {
    const session = new Session(targetOf(gpu, chooseFrom(choices)));
    return { session, job: await declareJob(session, part, settings, data) };
  };
  if (run.resumed && (await files.exists(kernelsFile))) {
    const choices = JSON.parse(await files.readText(kernelsFile)) as KernelChoices;
    return { ...(await build(choices)), choices };
  }
  let built = await build({});
  let choices: KernelChoices = {};
  if (run.tuner) {
    const { session } = built;
    const budget = gpu.facts.software ? TUNING_SECONDS.software : TUNING_SECONDS.hardware;
    choices = (await tune(gpu, session.target, session.plans, {}, budget)).measured;
    if (Object.values(choices).some((name) => name !== "")) built = await build(choices);
  }
  await files.writeAtomic(kernelsFile, `${JSON.stringify(choices, null, 1)}\n`);
  return { ...built, choices };
}

/** Trains one part to its end, or until the signal: then the state is saved and the signal's reason thrown. */
export async function pretrainPart(run: PretrainRun, part: PretrainPart): Promise<PretrainOutcome> {
  const { files, gpu, settings, emit, signal } = run;
  const { session, job, choices } = await declared(run, part, join(run.folder, `kernels-${part}.json`));
  const { steps } = settings[part];
  const flops = trainingFlops(session.plans, settings, part);
  const mebibytes = Math.ceil(session.memory().total / 2 ** 20);
  emit({
    kind: "message",
    text: `${part}: ${steps} steps of ${settings[part].batch}, ${(flops / steps / 1e9).toFixed(0)} GFLOP a step, ${mebibytes} MiB`,
  });
  await session.open(gpu);
  try {
    const checkpoints = new JobCheckpoints(
      files,
      join(run.folder, "checkpoints", part),
      session,
      job,
      settings,
      choices,
      emit,
    );
    job.initialise();
    const from = run.resumed ? await checkpoints.restore() : 0;
    if (from < steps) {
      await job.prepare(
        (options) => openViewer(files, gpu, targetOf(gpu), run.taef2, settings, options),
        (done, total) => {
          signal.throwIfAborted();
          emit({ kind: "phase", name: `${part}: views`, done, total, unit: "pictures" });
        },
      );
    }
    const outcome = await trainSteps(run, job, checkpoints, from, flops / steps);
    await savePart(files, run.output, session, job, settings, run.data.vocabulary);
    return outcome;
  } finally {
    session.close();
  }
}

async function trainSteps(
  run: PretrainRun,
  job: PretrainJob,
  checkpoints: JobCheckpoints,
  from: number,
  stepFlops: number,
): Promise<PretrainOutcome> {
  const { emit, signal } = run;
  const { part, loop } = job;
  const { steps } = run.settings[part];
  const started = performance.now();
  const mean = (values: readonly number[]) => values.reduce((a, b) => a + b, 0) / Math.max(1, values.length);
  let first: number | null = null;
  let last = Number.NaN;
  for (let t = from + 1; t <= steps; t++) {
    job.step(t);
    const stopping = signal.aborted;
    const saving = t === steps || stopping || t % run.checkpointEvery === 0;
    if (saving || t % REPORT_EVERY === 0 || loop.full) {
      const report = await loop.report();
      last = mean(report.losses);
      first ??= last;
      emit({
        kind: "metric",
        step: t,
        values: {
          [`${part}/loss`]: last,
          [`${part}/lr`]: report.rate,
          [`${part}/gradient_norm`]: report.gradientNorm,
        },
      });
      emit({
        kind: "phase",
        name: `${part}: train`,
        done: t,
        total: steps,
        unit: "steps",
        note: `loss ${last.toFixed(4)}`,
      });
    }
    if (saving) await checkpoints.save(t);
    if (stopping && t < steps) throw signal.reason;
  }
  const seconds = (performance.now() - started) / 1000;
  const gflops = ((steps - from) * stepFlops) / 1e9 / Math.max(seconds, 1e-9);
  return { part, steps, first: first ?? Number.NaN, last, seconds, gflops };
}
