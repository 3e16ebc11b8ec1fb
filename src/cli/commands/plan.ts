// `longtail plan`: what a run would allocate and how long it would take, before anything is allocated.

import { duration, grouped } from "../../evaluation/format.ts";
import type { Gpu } from "../../gpu/device.ts";
import type { StreamOptions } from "../../models/pipeline.ts";
import { availableMemory } from "../../platform/environment.ts";
import { loadItems } from "../../runs/align/items.ts";
import { judgedItems } from "../../runs/align/judged.ts";
import { chooseFromLadder } from "../../runs/align/ladder.ts";
import { openStoredPrompts, withStoredPrompts } from "../../runs/align/stored_prompts.ts";
import { buildWorld } from "../../runs/align/world.ts";
import { withValue } from "../../runs/config/load.ts";
import type { Config } from "../../runs/config/schema.ts";
import { deviceLine } from "../../runs/device.ts";
import { adapterStreams, checkOffload, chooseOffload } from "../../runs/offload.ts";
import { withDataFlag } from "../../runs/train/checks.ts";
import type { Plan } from "../../tensor/session.ts";
import { plansOf, type Stage } from "../../training/stage.ts";
import { ALIGN_ADVICE, alignLadder, planTexts, textPhaseLines } from "../align/plan_phases.ts";
import { estimateSeconds, measureSpeed } from "../align/speed.ts";
import type { Command, CommandContext } from "../command.ts";
import { withLocalModels } from "../hub_models.ts";
import { memoryTables } from "../memory_table.ts";
import { withRunDevice } from "../run_device.ts";
import { ladderText, parseMemory } from "../train/ladder.ts";

export const command: Command = {
  name: "plan",
  summary: "show device memory and time of a run before anything is allocated",
  usage: "[preset | file.toml] [--data=PATH] [--section.key=value ...]",
  options: [
    { name: "data", value: "PATH", summary: "pictures of a training run in place of data.sets" },
    { name: "memory", value: "SIZE", summary: "which settings of the run fit, --memory=24GiB" },
  ],
  description:
    "All plans of the run are traced and placed on the host, so the memory is exact. Times come from a benchmark of this " +
    "adapter that takes about a second.",
  positionals: [0, 1],
  configuration: true,
  json: "result",
  examples: [
    ["longtail plan", "the embedded experiment"],
    ["longtail plan embedded --align.batch=16 --adapter=lora", "another batch, a LoRA"],
    ["longtail plan my.toml", "a training run, where the file has [[data.sets]]"],
    ["longtail plan lora --data=./pictures", "a training run on your own pictures"],
  ],
  async run(context) {
    const flag = context.arguments.flags["data"];
    const source = context.arguments.positionals[0] ?? (flag === undefined ? "embedded" : "lora");
    let resolved = withDataFlag(await context.loadConfig({ source }), flag);
    // `--steps` is short for the updates of whatever the file trains.
    const steps = context.arguments.overrides.find(({ key }) => key === "steps");
    if (steps && resolved.config.data.sets.length > 0)
      resolved = withValue(resolved, "train.steps", Number(steps.value), "command line");
    const { memory } = context.arguments.flags;
    const available = typeof memory === "string" ? parseMemory(memory) : null;
    const config = await withLocalModels(
      context.files,
      resolved.config,
      context.emit,
      resolved.config.data.sets.length === 0,
    );
    return await withRunDevice(config, context.emit, async (gpu) => {
      checkOffload(config);
      if (config.data.sets.length === 0) return await planAlignment(gpu, context, config, available);
      const { planTraining } = await import("../train/plan.ts");
      return await planTraining(gpu, context, config, available);
    });
  },
};

async function planAlignment(
  gpu: Gpu,
  context: CommandContext,
  loaded: Config,
  available: number | null,
): Promise<number> {
  const { targetOf } = await import("../../tensor/target.ts");
  const { files } = context;
  const target = targetOf(gpu);
  const stored = await openStoredPrompts(files, loaded);
  const config = withStoredPrompts(loaded, stored);
  const { items } = await loadItems(files, config, stored);
  const texts = await planTexts(files, config, target, items, stored);
  const build = (stream: StreamOptions | null) => buildWorld(files, config, target, { train: true, stream });
  const offload = await chooseOffload(config, { canStream: adapterStreams(config), available: availableMemory }, build);
  const world = await build(offload.stream);
  const memory = world.session.memory();
  const rungs = available === null ? null : await alignLadder(files, config, target, texts, available);
  const speed = await measureSpeed(gpu);
  const { plans, settings } = world.trainer!;
  const micro = settings.stacked ? 1 : settings.branches.length;
  const cleaning: [Plan | Stage, number] = plans.rollout
    ? [plans.rollout, config.align.rollout_steps]
    : [plans.encode!, 1];
  /** Sum over all replays of one update. */
  const update = (of: (work: Plan | Stage) => number) =>
    settings.accumulation * (cleaning[1] * of(cleaning[0]) + micro * of(plans.micro)) + of(plans.optimizer);
  const estimate = (work: Plan | Stage) => estimateSeconds(plansOf(work), speed);
  const updateSeconds = update(estimate);
  const perUpdate = update((work) => work.flops);
  const steps =
    config.align.steps === "ladder"
      ? chooseFromLadder(config.align.ladder, perUpdate / updateSeconds, perUpdate).steps
      : config.align.steps;
  const pictures = judgedItems(config, items).reduce((n, j) => n + j.pictures.length, 0);
  const batches = Math.ceil(pictures / config.eval.batch);
  const evaluation =
    2 * batches * (config.eval.steps * estimate(world.drawing.plans.step) + estimate(world.drawing.plans.finish));
  const seconds = { update: updateSeconds, training: steps * updateSeconds, evaluation };
  const dispatches = update((work) => plansOf(work).reduce((sum, plan) => sum + plan.lowered.calls.length, 0));

  const text = [
    `device: ${deviceLine(gpu)}`,
    ...(offload.text ? [offload.text] : []),
    "",
    ...memoryTables(memory, context.columns()),
    ...textPhaseLines(texts),
    `an update: ${grouped(dispatches)} dispatches, ${(perUpdate / 1e9).toFixed(1)} GFLOP, about ${seconds.update.toFixed(2)} s (${(perUpdate / updateSeconds / 1e9).toFixed(1)} GFLOP/s)`,
    `${steps} updates: about ${duration(seconds.training)}; ${2 * pictures} judged pictures: about ${duration(seconds.evaluation)}`,
    ...(rungs ? ["", ladderText(rungs, available!, context.columns(), ALIGN_ADVICE)] : []),
  ].join("\n");
  context.result(
    {
      memory,
      texts,
      ...(rungs ? { ladder: rungs } : {}),
      dispatchesPerUpdate: dispatches,
      flopsPerUpdate: perUpdate,
      speed,
      steps,
      seconds,
    },
    text,
  );
  return 0;
}
