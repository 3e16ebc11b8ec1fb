// `longtail plan` for a training run: its pictures and buckets, what it would allocate, how long it would take. The very
// objects of the run are traced, so the memory is exact; nothing is encoded and nothing is written.

import { bytes, duration, grouped } from "../../evaluation/format.ts";
import type { Gpu } from "../../gpu/device.ts";
import type { StreamOptions } from "../../models/pipeline.ts";
import { availableMemory } from "../../platform/environment.ts";
import type { Config } from "../../runs/config/schema.ts";
import { deviceLine } from "../../runs/device.ts";
import { adapterStreams, chooseOffload } from "../../runs/offload.ts";
import { checkTraining } from "../../runs/train/checks.ts";
import { openTrainingData } from "../../runs/train/data.ts";
import { traceEncoders } from "../../runs/train/encode.ts";
import { buildTrainWorld } from "../../runs/train/world.ts";
import type { Plan } from "../../tensor/session.ts";
import { targetOf } from "../../tensor/target.ts";
import { plansOf, type Stage } from "../../training/stage.ts";
import { estimateSeconds, measureSpeed } from "../align/speed.ts";
import type { CommandContext } from "../command.ts";
import { memoryTables } from "../memory_table.ts";
import { renderTable } from "../table.ts";
import { ladderText, memoryLadder } from "./ladder.ts";

/** @param available bytes of `--memory`, for which the ladder of settings is shown; null shows none */
export async function planTraining(
  gpu: Gpu,
  context: CommandContext,
  config: Config,
  available: number | null,
): Promise<number> {
  checkTraining(config);
  const data = await openTrainingData(context.files, config, context.emit);
  try {
    const pictures = data.samplePictures;
    const encoders = await traceEncoders(context.files, config, targetOf(gpu), true, data.geometries);
    const encoding = encoders.session.memory();
    const captions = data.captionBytes(encoders.pipeline.layout);
    const build = (stream: StreamOptions | null) =>
      buildTrainWorld(context.files, config, targetOf(gpu), data.geometries, pictures, stream);
    const offload = await chooseOffload(
      config,
      { canStream: adapterStreams(config), available: availableMemory },
      build,
    );
    const world = await build(offload.stream);
    const memory = world.session.memory();
    const rungs =
      available === null
        ? null
        : await memoryLadder(context.files, config, targetOf(gpu), data, encoding.total, available);
    const speed = await measureSpeed(gpu);
    const perUpdate = world.trainer.samplesPerUpdate;
    // Buckets take turns as often as they have pictures.
    const draws = data.buckets.table.reduce((n, row) => n + row.draws, 0);
    const average = (of: (work: Plan | Stage) => number) =>
      data.buckets.table.reduce((sum, { bucket, draws: own }) => {
        const plans = world.trainer.plans.get(`${bucket.height / 16}x${bucket.width / 16}`)!;
        const each = plans.update ? of(plans.update) : of(plans.begin!) + config.train.accumulation * of(plans.micro!);
        return sum + (own / draws) * each;
      }, 0);
    const seconds = average((work) => estimateSeconds(plansOf(work), speed));
    const flops = average((work) => work.flops);
    const { steps } = config.train;
    const epochs = (steps * perUpdate) / draws;
    const { ask, step } = world.drawing.plans;
    const drawingSteps = [...(ask?.plans ?? []), ...step.plans];
    const sampling =
      Math.ceil(pictures / world.drawing.options.batch) *
      (config.sample.steps * estimateSeconds(drawingSteps, speed) +
        estimateSeconds([world.drawing.plans.finish], speed));
    const samplings = 2 + (config.sample.every > 0 ? Math.floor((steps - 1) / config.sample.every) : 0);
    const text = [
      `device: ${deviceLine(gpu)}`,
      data.summary,
      ...(offload.text ? [offload.text] : []),
      "",
      renderTable(
        [
          { title: "bucket" },
          { title: "pictures", align: "right" },
          { title: "draws an epoch", align: "right" },
          { title: "held back", align: "right" },
        ],
        data.buckets.table.map(({ bucket, pictures: n, draws: own, validation }) => [
          `${bucket.width} × ${bucket.height}`,
          grouped(n),
          grouped(own),
          grouped(validation),
        ]),
        context.columns(),
      ).trimEnd(),
      ...data.dropped.map(({ name, code, why }) => `left out: ${name}: ${why} (${code})`),
      "",
      ...memoryTables(memory, context.columns()),
      `before that the encoders: ${bytes(encoding.total)} for ${grouped(captions.captions)} captions (${bytes(captions.bytes)} in the cache) and the pictures; it is given back before training`,
      `trained: ${grouped(world.trainedParameters)} of ${grouped(world.parameters + (world.adapter ? world.trainedParameters : 0))} parameters; ${bytes(memory.variables.weights)} of frozen and trained weights`,
      `an update: ${perUpdate} pictures, ${(flops / 1e9).toFixed(1)} GFLOP, about ${seconds.toFixed(2)} s (${(flops / seconds / 1e9).toFixed(1)} GFLOP/s)`,
      `${grouped(steps)} updates (${epochs.toFixed(1)} epochs): about ${duration(steps * seconds)}; ${samplings} samplings of ${pictures} pictures: about ${duration(samplings * sampling)}`,
      ...(rungs ? ["", ladderText(rungs, available!, context.columns())] : []),
    ].join("\n");
    context.result(
      {
        pictures: data.counts,
        buckets: data.buckets.table,
        dropped: data.dropped,
        memory,
        ...(rungs ? { ladder: rungs } : {}),
        encoders: { memory: encoding.total, ...captions },
        speed,
        update: { pictures: perUpdate, flops, seconds },
        steps,
        epochs,
        seconds: { training: steps * seconds, samples: samplings * sampling },
      },
      text,
    );
    return 0;
  } finally {
    await data.close();
  }
}
