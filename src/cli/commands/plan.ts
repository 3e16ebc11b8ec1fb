// `longtail plan`: what a run would allocate and how long it would take, before anything is allocated.

import { duration, grouped } from "../../evaluation/format.ts";
import type { Gpu } from "../../gpu/device.ts";
import type { Plan } from "../../tensor/session.ts";
import { deviceLine, withRunDevice } from "../align/device.ts";
import { loadItems } from "../align/items.ts";
import { chooseFromLadder } from "../align/ladder.ts";
import { judgedItems } from "../align/protocol.ts";
import { estimateSeconds, measureSpeed } from "../align/speed.ts";
import { buildWorld } from "../align/world.ts";
import type { Command, CommandContext } from "../command.ts";
import { withValue } from "../config/load.ts";
import type { Config } from "../config/schema.ts";
import { memoryTables } from "../memory_table.ts";
import { withLocalModels } from "../model_files.ts";
import { withDataFlag } from "../train/checks.ts";
import { parseMemory } from "../train/ladder.ts";

export const command: Command = {
  name: "plan",
  summary: "show device memory and time of a run before anything is allocated",
  usage: "[preset | file.toml] [--data=PATH] [--section.key=value ...]",
  options: [
    { name: "data", value: "PATH", summary: "pictures of a training run in place of data.sets" },
    { name: "memory", value: "SIZE", summary: "which settings of a training run fit, --memory=24GiB" },
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
    const config = await withLocalModels(context.files, resolved.config, context.emit);
    return await withRunDevice(config, context.emit, async (gpu) => {
      if (config.data.sets.length === 0) return await planAlignment(gpu, context, config);
      const { planTraining } = await import("../train/plan.ts");
      return await planTraining(gpu, context, config, available);
    });
  },
};

async function planAlignment(gpu: Gpu, context: CommandContext, config: Config): Promise<number> {
  const { targetOf } = await import("../../tensor/target.ts");
  const { items } = await loadItems(context.files, config);
  const world = await buildWorld(context.files, config, targetOf(gpu), { train: true });
  const memory = world.session.memory();
  const speed = await measureSpeed(gpu);
  const { plans, settings } = world.trainer!;
  const micro = settings.stacked ? 1 : settings.branches.length;
  const cleaning: [Plan, number] = plans.rollout ? [plans.rollout, config.align.rollout_steps] : [plans.encode!, 1];
  /** Sum over all replays of one update. */
  const update = (of: (plan: Plan) => number) =>
    settings.accumulation * (cleaning[1] * of(cleaning[0]) + micro * of(plans.micro)) + of(plans.optimizer);
  const estimate = (plan: Plan) => estimateSeconds(plan, speed);
  const updateSeconds = update(estimate);
  const perUpdate = update((p) => p.flops);
  const steps =
    config.align.steps === "ladder"
      ? chooseFromLadder(config.align.ladder, perUpdate / updateSeconds, perUpdate).steps
      : config.align.steps;
  const pictures = judgedItems(config, items).reduce((n, j) => n + j.pictures.length, 0);
  const batches = Math.ceil(pictures / config.eval.batch);
  const evaluation =
    2 * batches * (config.eval.steps * estimate(world.drawing.plans.step) + estimate(world.drawing.plans.finish));
  const seconds = { update: updateSeconds, training: steps * updateSeconds, evaluation };
  const dispatches = update((p) => p.lowered.calls.length);

  const text = [
    `device: ${deviceLine(gpu)}`,
    "",
    ...memoryTables(memory, context.columns()),
    `an update: ${grouped(dispatches)} dispatches, ${(perUpdate / 1e9).toFixed(1)} GFLOP, about ${seconds.update.toFixed(2)} s (${(perUpdate / updateSeconds / 1e9).toFixed(1)} GFLOP/s)`,
    `${steps} updates: about ${duration(seconds.training)}; ${2 * pictures} judged pictures: about ${duration(seconds.evaluation)}`,
  ].join("\n");
  context.result({ memory, dispatchesPerUpdate: dispatches, flopsPerUpdate: perUpdate, speed, steps, seconds }, text);
  return 0;
}
