// One alignment run from its first phase to its last: evaluate, align, evaluate again, with metrics, guard rails,
// checkpoints and exact resume on the way. Everything that the report needs comes out as plain data.

import { LongtailError } from "../../base/errors.ts";
import type { EventSink } from "../../base/events.ts";
import type { FileStore } from "../../base/files.ts";
import type { EmbeddedData } from "../../data/embedded.ts";
import type { PromptItem, PromptOrder } from "../../data/prompts.ts";
import {
  advanceGuard,
  type GuardPoint,
  type GuardState,
  initialGuardState,
  shouldStop,
} from "../../evaluation/guards.ts";
import { cosine } from "../../evaluation/image_statistics.ts";
import type { EvaluationPoint, PairCosine, PhaseTime, UpdatePoint } from "../../evaluation/report_data.ts";
import { mean } from "../../evaluation/statistics.ts";
import type { ItemScores } from "../../evaluation/summary.ts";
import type { Drawn } from "../../training/drawing.ts";
import type { UpdateReport } from "../../training/srpo/reports.ts";
import type { PreparedPrompt } from "../../training/srpo/trainer.ts";
import { guardOptions, stopAfterAlarm } from "../config/guard.ts";
import type { Config } from "../config/schema.ts";
import { Phases } from "../phases.ts";
import { leftRange } from "../run_checkpoints.ts";
import { type RunControl, stoppedByWord } from "../train/control.ts";
import { type Judged, judgedItems } from "./judged.ts";
import { drawsOf, measuredPairs, mostUpdates, promptOrder } from "./prompts.ts";
import { drawJudged, guardPoint, scoreItem, type TextBank, textBank } from "./protocol.ts";
import type { RunState, RunStore } from "./store.ts";
import type { RunTexts } from "./texts.ts";
import type { World } from "./world.ts";

export interface AlignInputs {
  files: FileStore;
  config: Config;
  world: World;
  items: readonly PromptItem[];
  /** All texts of the run, encoded. */
  texts: RunTexts;
  /** Real pictures, where there are any. */
  data: EmbeddedData | null;
  emit: EventSink;
  signal: AbortSignal;
  store: RunStore;
  /** The run's folder, for messages. */
  run: string;
  /** Words from outside: save, pause, resume, stop. */
  control: RunControl;
  /** Called with the measured speed (FLOP/s); returns the number of updates and tells the user. */
  chooseSteps: (flopsPerSecond: number, flopsPerUpdate: number) => Promise<number>;
}

export interface AlignOutcome {
  judged: Judged[];
  before: { scores: ItemScores[]; pictures: Drawn[][] };
  after: { scores: ItemScores[]; pictures: Drawn[][] };
  updates: UpdatePoint[];
  evaluations: EvaluationPoint[];
  guard: GuardState;
  pairs: PairCosine[];
  timing: PhaseTime[];
  steps: number;
  done: number;
  /** Why it ended before its last update, or null. */
  stopped: "alarm" | null;
  flopsPerSecond: number;
}

export async function runAlignment(inputs: AlignInputs): Promise<AlignOutcome> {
  const { config, world, items, texts, emit, signal, store } = inputs;
  const trainer = world.trainer!;
  const phases = new Phases(emit);
  const judged = judgedItems(config, items);
  const guarded = judged.filter((j) => j.group === "aligned").slice(0, config.align.guard.items);
  const bank = textBank(config, world, texts, items, judged);
  const pairs = measurePairs(inputs);

  const pictures = judged.reduce((n, j) => n + j.pictures.length, 0);
  const evaluate = (name: string) =>
    phases.timed(name, pictures, "pictures", async (tick) => {
      const drawn = await drawJudged(config, world, texts, judged, (done) => {
        tick(done);
        // Either nothing is trained yet, or the checkpoint is written: no work is lost.
        if (signal.aborted) throw signal.reason;
      });
      return { pictures: drawn, scores: judged.map((j, i) => scoreItem(world, bank, j, drawn[i]!)) };
    });

  // The untouched model is always evaluated first, also when a run is continued: its numbers are the same bits.
  const before = await evaluate("evaluate before");
  const flopsPerSecond = drawingFlops(world, pictures, config) / phases.seconds("evaluate before");
  const judgeOf = (j: Judged, { features }: Drawn) => {
    const own = bank.judge?.get(j.item);
    return own ? cosine(features[0]!, own) : undefined;
  };
  await store.saveSamples(0, judged, before.pictures, judgeOf);
  const state = (await store.restore(world)) ?? emptyState();
  // A run that was stopped before its first update has it recorded already.
  if (state.evaluations.length === 0) record(state, inputs, guarded, judged, before, bank, 0);
  const perUpdate = updateFlops(world, config);
  const steps =
    // A ladder that was shortened since is the length that texts were encoded for.
    Math.min(state.steps, mostUpdates(config)) ||
    (config.align.steps === "ladder" ? await inputs.chooseSteps(flopsPerSecond, perUpdate) : config.align.steps);
  state.steps = config.align.steps === "ladder" ? steps : config.align.steps;

  const order = promptOrder(config, items);
  let stopped: AlignOutcome["stopped"] = null;
  await phases.timed("align", state.steps, "updates", async (tick) => {
    tick(state.step);
    while (state.step < state.steps) {
      // A continued run may have been stopped by its alarm before.
      if (shouldStop(state.guard, state.step, stopAfterAlarm(config))) {
        stopped = "alarm";
        break;
      }
      await listen(inputs, state);
      if (signal.aborted) {
        await store.save(world, state);
        throw signal.reason;
      }
      const step = state.step + 1;
      const started = performance.now();
      const prompts = await preparePrompts(inputs, order, step);
      const report = await trainer.update(step, prompts);
      if (!report.finite) await failNotFinite(inputs, state, prompts, report);
      if (!Number.isFinite(report.updateRatio)) throw leftRange(step, world.trained[0]!.name);
      state.step = step;
      const seconds = (performance.now() - started) / 1000;
      state.updates.push(updatePoint(report, seconds));
      if (step % config.log.every === 0 || step === state.steps)
        emit({ kind: "metric", step, values: { ...metrics(report), seconds } });
      tick(step);
      const last = step === state.steps;
      if (config.align.guard.every > 0 && step % config.align.guard.every === 0 && !last) {
        const drawn = await drawJudged(config, world, texts, guarded, () => {});
        const scores = guarded.map((j, i) => scoreItem(world, bank, j, drawn[i]!));
        if (config.align.guard.pictures) await store.saveSamples(step, guarded, drawn, judgeOf);
        record(state, inputs, guarded, guarded, { pictures: drawn, scores }, bank, step);
      }
      if (config.save.every > 0 && step % config.save.every === 0 && !last) await store.save(world, state);
    }
  });
  await phases.timed("save", 1, "checkpoint", async () => store.save(world, state));
  const after = await evaluate("evaluate after");
  record(state, inputs, guarded, judged, after, bank, state.step);
  await store.saveSamples(state.step, judged, after.pictures, judgeOf);
  return {
    judged,
    before,
    after,
    updates: state.updates,
    evaluations: state.evaluations,
    guard: state.guard,
    pairs,
    timing: phases.times(),
    steps: state.steps,
    done: state.step,
    stopped,
    flopsPerSecond,
  };
}

/** Does what was said from outside. Pictures are drawn at evaluations alone, so `sample` has no meaning here. */
async function listen({ control, store, world, signal, run, emit }: AlignInputs, state: RunState): Promise<void> {
  const words = await control.take();
  while (words.length > 0) {
    const word = words.shift()!;
    if (word === "save") await store.save(world, state);
    if (word === "sample")
      emit({
        kind: "warning",
        code: "E-RUN-031",
        text: "CMD: an alignment draws pictures at its evaluations only; sample is for longtail train",
      });
    if (word === "pause") words.unshift(...(await control.pause(signal)));
    if (word === "stop") {
      await store.save(world, state);
      throw stoppedByWord(run);
    }
  }
}

function emptyState(): RunState {
  return { step: 0, steps: 0, updates: [], evaluations: [], guard: initialGuardState() };
}

/** FLOP of drawing and judging `pictures`, whole batches counted. */
function drawingFlops(world: World, pictures: number, config: Config): number {
  const batches = Math.ceil(pictures / config.eval.batch);
  return batches * (config.eval.steps * world.drawing.plans.step.flops + world.drawing.plans.finish.flops);
}

/** FLOP of one update: rollout, micro-steps and optimizer. */
export function updateFlops(world: World, config: Config): number {
  const { plans, settings } = world.trainer!;
  const clean = plans.encode ? plans.encode.flops : config.align.rollout_steps * plans.rollout!.flops;
  const micro = plans.micro.flops * (settings.stacked ? 1 : settings.branches.length);
  return settings.accumulation * (clean + micro) + plans.optimizer.flops;
}

/** Embeddings and text features of one update's prompts. */
export async function preparePrompts(
  inputs: Pick<AlignInputs, "config" | "world" | "texts" | "data">,
  order: PromptOrder<PromptItem>,
  step: number,
): Promise<PreparedPrompt[]> {
  const { config, world, texts, data } = inputs;
  const drawn = drawsOf(config, order, step);
  const embeddings = await texts.embeddings(drawn.map(({ prompt }) => prompt));
  const prepared: PreparedPrompt[] = embeddings.map((e) => ({ ...e, texts: [] }));
  for (const { scorer } of world.rewards) {
    for (const [i, { pair }] of drawn.entries()) {
      const [positive, negative = null] = texts.features(
        scorer.name,
        pair.neg === null ? [pair.pos] : [pair.pos, pair.neg],
      );
      prepared[i]!.texts.push({ positive: positive!, negative });
    }
  }
  if (config.align.offline) {
    for (const [i, { item, style }] of drawn.entries()) {
      const picture = data
        ? ((await data.picture(item, (style ?? data.stylesOf(item)[0]) as never)) ??
          (await data.picture(item, data.stylesOf(item)[0]!)))
        : null;
      if (!picture) {
        throw new LongtailError("E-DATA-050", {
          what: `there is no real picture of ${JSON.stringify(item.item)}`,
          where: "data.pictures",
          fix: "offline mode needs a picture for every item; leave the item out or use align.offline = false",
        });
      }
      prepared[i]!.picture = picture;
    }
  }
  return prepared;
}

/** Cosines of each aligned item's two texts under the first reward, and a warning where they are nearly one text. */
function measurePairs({ config, world, items, texts, emit }: AlignInputs): PairCosine[] {
  const { name } = world.rewards[0]!.scorer;
  const pairs = measuredPairs(config, items).map(({ item, pos, neg }): PairCosine => {
    const [positive, negative] = texts.features(name, [pos, neg]);
    return { item, positive: pos, negative: neg, cosine: cosine(positive!, negative!) };
  });
  if (pairs.length === 0) return [];
  const average = mean(pairs.map((p) => p.cosine));
  emit({
    kind: "message",
    text: `cosine of the positive and negative texts: ${average.toFixed(4)} on average over ${pairs.length} items`,
  });
  if (average > config.align.pair_cosine_warning) {
    emit({
      kind: "warning",
      code: "E-CFG-033",
      text:
        `the reward hardly tells the two texts of a pair apart (mean cosine ${average.toFixed(4)}, above ${config.align.pair_cosine_warning}): ` +
        "their difference is a nearly empty direction, and what moves the model is the weight of the positive text. " +
        "With the public script's discounts (.1 to .25, .3 to .01) such pairs damage the model; discount_pos = [1, 1] and discount_inv = [0, 0] are safe.",
    });
  }
  return pairs;
}

/** Adds an evaluation to the curves and moves the guard rails on. */
function record(
  state: RunState,
  inputs: AlignInputs,
  guarded: readonly Judged[],
  judged: readonly Judged[],
  result: { pictures: Drawn[][]; scores: ItemScores[] },
  bank: TextBank,
  step: number,
): void {
  const { config, world, emit } = inputs;
  // Guard rails always see the same items, so that their bands mean the same at every evaluation.
  const at = guarded.map((g) => judged.indexOf(g)).filter((i) => i >= 0);
  const point = guardPoint(
    world,
    bank,
    at.map((i) => judged[i]!),
    at.map((i) => result.pictures[i]!),
    step,
  );
  const level = state.guard.level;
  state.guard = advanceGuard(state.guard, point, guardOptions(config));
  if (state.guard.level === "alarm" && level !== "alarm") {
    emit({
      kind: "warning",
      code: "E-NUM-010",
      text: `guard rails: the reward rose while ${state.guard.alarm!.outside.join(", ")} left their bands; the best weights before are of update ${state.guard.best?.step ?? 0}`,
    });
  }
  const groups = new Map<string, number[]>();
  judged.forEach((j, i) => groups.set(j.group, [...(groups.get(j.group) ?? []), result.scores[i]!.judge]));
  const isPartial = judged === guarded;
  emit({ kind: "metric", step, values: measured(point, isPartial || !world.judge ? new Map() : groups) });
  state.evaluations.push({
    step,
    reward: point.reward,
    ...(isPartial || !world.judge
      ? {}
      : { judge: Object.fromEntries([...groups].map(([g, values]) => [g, { mean: mean(values) }])) }),
    signals: point.signals,
  });
}

/**
 * A measurement as metrics: `eval_reward` and `guard_<signal>` of the guarded items, which are the same at every measurement,
 * and `eval_judge_<group>` where whole groups were judged.
 */
function measured(point: GuardPoint, groups: ReadonlyMap<string, readonly number[]>): Record<string, number> {
  const values: Record<string, number> = { eval_reward: point.reward };
  for (const [signal, value] of Object.entries(point.signals)) values[`guard_${signal}`] = value;
  for (const [group, scores] of groups) values[`eval_judge_${group.replaceAll(" ", "_")}`] = mean(scores);
  return values;
}

function updatePoint(report: UpdateReport, seconds: number): UpdatePoint {
  return {
    step: report.step,
    reward: report.reward,
    positive: report.positive,
    negative: report.negative,
    loss: report.loss,
    gradientNorm: report.gradientNorm,
    updateRatio: report.updateRatio,
    learningRate: report.rate,
    seconds,
  };
}

function metrics(report: UpdateReport): Record<string, number> {
  return {
    reward: report.reward,
    positive: report.positive,
    negative: report.negative,
    loss: report.loss,
    grad_norm: report.gradientNorm,
    update_ratio: report.updateRatio,
    lr: report.rate,
    m0: report.m0,
  };
}

/** The optimizer changed nothing: make sure that the good weights are saved, find the first bad kernel, stop. */
async function failNotFinite(
  inputs: AlignInputs,
  state: RunState,
  prompts: PreparedPrompt[],
  report: UpdateReport,
): Promise<never> {
  const kept = await inputs.store.keepLastGood(inputs.world, state);
  const place = await inputs.world.trainer!.locateNotFinite(report.step, prompts);
  throw new LongtailError("E-NUM-001", {
    what: `update ${report.step} has a loss or gradient that is not finite, first in ${place}`,
    where: `m0 ${report.m0}, gradient norm ${report.gradientNorm}`,
    why: `the update was not made; ${kept ? `the last good weights are in ${kept}` : "no good weights were saved before"}`,
    fix: "start again under another run.name with a lower optim.lr, or train at less noise with a lower align.sigma_high",
  });
}
