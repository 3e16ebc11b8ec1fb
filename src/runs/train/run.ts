// The loop of a training run: samples and validation loss before the first update, then update by update with metrics,
// samples, validation, checkpoints and words from outside, and once more at the end. Everything that the report needs comes
// out as plain data.

import { LongtailError } from "../../base/errors.ts";
import type { EventSink } from "../../base/events.ts";
import type { Geometry } from "../../models/pipeline.ts";
import type { FlowReport } from "../../training/flow/reports.ts";
import type { FlowSample } from "../../training/flow/trainer.ts";
import type { Config } from "../config/schema.ts";
import type { Phases } from "../phases.ts";
import { leftRange } from "../run_checkpoints.ts";
import { withAverage } from "./average.ts";
import { type RunControl, stoppedByWord } from "./control.ts";
import type { SampleDrawer } from "./samples.ts";
import type { TrainState } from "./state.ts";
import type { TrainStore } from "./store.ts";
import type { TrainWorld } from "./world.ts";

/** Updates in a row without finite gradients after which a run with a loss scale gives up. */
const MOST_REFUSED = 20;

export interface TrainBatch {
  geometry: Geometry;
  samples: FlowSample[];
}

/** Where the loop gets its pictures from. */
export interface BatchSource {
  /** The samples of update `step`, from 1; a function of (seed, step) alone. */
  next(step: number): Promise<TrainBatch>;
  /** Pictures on which the loss is only measured, by size. */
  validation: readonly TrainBatch[];
}

export interface TrainInputs {
  config: Config;
  world: TrainWorld;
  batches: BatchSource;
  samples: SampleDrawer;
  store: TrainStore;
  control: RunControl;
  phases: Phases;
  emit: EventSink;
  signal: AbortSignal;
  folder: string;
  /** Where the run begins or goes on. */
  state: TrainState;
}

/** Goes on from `inputs.state` to the last update and changes the state on the way. */
export async function runTraining(inputs: TrainInputs): Promise<TrainState> {
  const { config, world, store, phases, emit, signal, control, samples, state } = inputs;
  const { steps } = config.train;
  if (state.step === 0 && state.samples.length === 0) {
    // Nothing has been trained that a checkpoint could keep.
    if (signal.aborted) throw signal.reason;
    await samples.draw(world, state, 0);
    await validate(inputs, state);
  }
  let refused = 0;
  await phases.timed("train", steps, "updates", async (tick) => {
    tick(state.step);
    while (state.step < steps) {
      await listen(inputs, state, control);
      if (signal.aborted) {
        await store.save(world, state);
        throw signal.reason;
      }
      const step = state.step + 1;
      const started = performance.now();
      const batch = await inputs.batches.next(step);
      const stalled = performance.now() - started;
      const waited = world.session.waited;
      const report = await world.trainer.step(step, batch.samples, batch.geometry);
      refused = report.finite ? 0 : refused + 1;
      if (!report.finite) await refuse(inputs, state, batch, report, refused);
      else if (!Number.isFinite(report.updateRatio)) throw leftRange(step, "the optimizer's report");
      state.step = step;
      const time = performance.now() - started;
      const host = time - stalled - (world.session.waited - waited);
      note(state, report, {
        seconds: time / 1000,
        stallSeconds: stalled / 1000,
        hostSeconds: Math.max(0, host) / 1000,
      });
      if (step % config.log.every === 0 || step === steps)
        emit({ kind: "metric", step, values: metricsOf(report, state) });
      tick(step);
      const last = step === steps;
      if (due(config.train.validate_every, step) && !last) await validate(inputs, state);
      if (due(config.sample.every, step) && !last) await samples.draw(world, state, step);
      if (due(config.save.every, step) && !last) await store.save(world, state);
    }
  });
  if (state.validation.at(-1)?.step !== state.step) await validate(inputs, state);
  if (state.samples.at(-1)?.step !== state.step) await samples.draw(world, state, state.step);
  await phases.timed("save", 1, "checkpoint", () => store.save(world, state));
  return state;
}

const due = (every: number, step: number): boolean => every > 0 && step % every === 0;

/** Does what was written into CMD. */
async function listen(inputs: TrainInputs, state: TrainState, control: RunControl): Promise<void> {
  const { world, store, samples, signal } = inputs;
  const words = await control.take();
  while (words.length > 0) {
    const word = words.shift()!;
    if (word === "save") await store.save(world, state);
    if (word === "sample") await samples.draw(world, state, state.step);
    if (word === "pause") words.unshift(...(await control.pause(signal)));
    if (word === "stop") {
      await store.save(world, state);
      throw stoppedByWord(inputs.folder);
    }
  }
}

async function validate(inputs: TrainInputs, state: TrainState): Promise<void> {
  const { world, batches, emit } = inputs;
  let sum = 0;
  let count = 0;
  // Of the same weights as samples and files: the running average where the run keeps one.
  await withAverage(world, async () => {
    for (const { geometry, samples } of batches.validation) {
      sum += samples.length * (await world.trainer.validate(samples, geometry));
      count += samples.length;
    }
  });
  if (count === 0) return;
  const loss = sum / count;
  state.validation.push({ step: state.step, loss });
  emit({ kind: "metric", step: state.step, values: { val_loss: loss } });
}

type Times = Pick<TrainState["points"][number], "seconds" | "stallSeconds" | "hostSeconds">;

function note(state: TrainState, report: FlowReport, times: Times): void {
  state.points.push({
    step: report.step,
    loss: report.loss,
    gradientNorm: report.gradientNorm,
    rate: report.rate,
    updateRatio: report.updateRatio,
    ...times,
    ...(report.d === undefined ? {} : { d: report.d }),
    ...(report.lossScale === undefined ? {} : { lossScale: report.lossScale }),
  });
}

/** Losses of single updates jump with their sigmas; people look at the mean of the last ones. */
const SMOOTHED = 20;

function metricsOf(report: FlowReport, state: TrainState): Record<string, number> {
  const recent = state.points.slice(-SMOOTHED);
  const point = state.points.at(-1)!;
  return {
    loss: report.loss,
    loss_mean: recent.reduce((sum, p) => sum + p.loss, 0) / recent.length,
    grad_norm: report.gradientNorm,
    lr: report.rate,
    update_ratio: report.updateRatio,
    seconds: point.seconds,
    stall_seconds: point.stallSeconds,
    host_seconds: point.hostSeconds,
    ...(report.d === undefined ? {} : { d: report.d }),
    ...(report.lossScale === undefined ? {} : { loss_scale: report.lossScale }),
  };
}

/**
 * An update whose gradients overflowed changed nothing. With a loss scale that is how the scale finds its size, and the
 * run goes on; without one, or where it does not end, the first bad kernel is named and the run stops.
 */
async function refuse(
  inputs: TrainInputs,
  state: TrainState,
  batch: TrainBatch,
  report: FlowReport,
  refused: number,
): Promise<void> {
  const { world, store } = inputs;
  state.refused.push(report.step);
  if (world.optimizer.lossScale && refused < MOST_REFUSED) {
    // Infinity has no place in a curve or a checkpoint.
    report.gradientNorm = Number.isFinite(report.gradientNorm) ? report.gradientNorm : 0;
    report.loss = Number.isFinite(report.loss) ? report.loss : (state.points.at(-1)?.loss ?? 0);
    report.updateRatio = 0;
    return;
  }
  state.refused.pop();
  const kept = await store.save(world, state);
  const place = await world.trainer.locateNotFinite(report.step, batch.samples, batch.geometry);
  throw new LongtailError("E-NUM-001", {
    what: `update ${report.step} has a loss or gradient that is not finite, first in ${place}`,
    where: `gradient norm ${report.gradientNorm}, loss ${report.loss}`,
    why: `the update was not made; the last good weights are in ${kept}`,
    fix: "start again under another run.name with a lower optim.lr",
  });
}
