// What a run would take, before anything is allocated: the very world that it trains with is declared and traced, and its memory
// read off.

import type { FileStore } from "../../base/files.ts";
import type { Gpu } from "../../gpu/device.ts";
import { mostUpdates } from "../../runs/align/prompts.ts";
import { updateFlops } from "../../runs/align/run.ts";
import { buildWorld } from "../../runs/align/world.ts";
import { openTrainingData } from "../../runs/train/data.ts";
import { buildTrainWorld } from "../../runs/train/world.ts";
import type { Session } from "../../tensor/session.ts";
import { targetOf } from "../../tensor/target.ts";
import type { PlanFacts, StartRequest } from "../protocol.ts";
import { configOf } from "./run_job.ts";

export async function planOf(files: FileStore, gpu: Gpu, request: StartRequest): Promise<PlanFacts> {
  const { config, warnings } = await configOf(files, request, gpu.facts.software);
  const target = targetOf(gpu);
  if (request.command === "align") {
    const world = await buildWorld(files, config, target, { train: true });
    await world.pipeline.close();
    const trained = world.trained.reduce((n, pool) => n + pool.variables.reduce((m, v) => m + v.size, 0), 0);
    return {
      steps: mostUpdates(config),
      ...memoryOf(world.session),
      flopsPerUpdate: updateFlops(world, config),
      parameters: world.parameters,
      trainedParameters: trained,
      pictures: "",
      warnings: [...warnings],
    };
  }
  const noted: { code: string; text: string }[] = [...warnings];
  const data = await openTrainingData(files, config, (event) => {
    if (event.kind === "warning") noted.push({ code: event.code, text: event.text });
  });
  try {
    const world = await buildTrainWorld(files, config, target, data.geometries, data.samplePictures);
    await world.pipeline.close();
    return {
      steps: config.train.steps,
      ...memoryOf(world.session),
      flopsPerUpdate: world.trainer.flopsPerUpdate(data.geometries[0]!),
      parameters: world.parameters,
      trainedParameters: world.trainedParameters,
      pictures: data.summary,
      warnings: noted,
    };
  } finally {
    await data.close();
  }
}

function memoryOf(session: Session): { memory: Record<string, number>; total: number } {
  const { variables, arena, uniforms, bindings, staging, total } = session.memory();
  return { memory: { ...variables, "activations and workspace": arena, uniforms, bindings, staging }, total };
}
