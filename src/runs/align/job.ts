// An alignment from its configuration to its report: items are judged, texts encoded, the world traced and tuned, the loop runs,
// weights and report are written. The platform is `host`.

import { fanOut, type RunEvent } from "../../base/events.ts";
import { join } from "../../base/paths.ts";
import type { ReportData } from "../../evaluation/report_data.ts";
import type { Gpu } from "../../gpu/device.ts";
import type { StreamOptions } from "../../models/pipeline.ts";
import type { Target } from "../../tensor/lower.ts";
import { targetOf } from "../../tensor/target.ts";
import { type ResolvedConfig, withValue } from "../config/load.ts";
import { toToml } from "../config/toml.ts";
import { checkMemoryCap, deviceLine } from "../device.ts";
import type { RunHost } from "../host.ts";
import { adapterStreams, chooseOffload } from "../offload.ts";
import { Phases } from "../phases.ts";
import type { RunFolder } from "../run_folder.ts";
import { buildTuned, readKernels } from "../tuning.ts";
import { loadItems } from "./items.ts";
import { judgedItems } from "./judged.ts";
import { chooseFromLadder } from "./ladder.ts";
import { reportData, saveWeights, writeReport } from "./outputs.ts";
import { realPictures } from "./protocol.ts";
import { type AlignInputs, runAlignment } from "./run.ts";
import { RunStore } from "./store.ts";
import { openStoredPrompts, withStoredPrompts } from "./stored_prompts.ts";
import { encodeTexts } from "./texts.ts";
import { buildWorld, checkModels, openWorld, type World } from "./world.ts";

/** What a finished alignment tells. */
export interface AlignResult {
  run: RunFolder;
  report: ReportData;
  steps: number;
}

/**
 * Aligns from items to report. The configuration names no models that are not there.
 * @param commandName for the run's record and its automatic name
 * @throws LongtailError whatever is wrong with items, models or memory; the signal's reason where it was aborted
 */
export async function runAlign(
  gpu: Gpu,
  host: RunHost,
  loaded: ResolvedConfig,
  commandName = "align",
): Promise<AlignResult> {
  const opened: World[] = [];
  try {
    return await align(gpu, host, loaded, commandName, opened);
  } finally {
    // A page keeps its device: a run that was stopped or failed gives its memory back as well.
    for (const { session, pipeline } of opened) {
      session.close();
      await pipeline.close();
    }
  }
}

/** @param opened takes the world that is to be closed at the end */
async function align(
  gpu: Gpu,
  host: RunHost,
  loaded: ResolvedConfig,
  commandName: string,
  opened: World[],
): Promise<AlignResult> {
  const { files, signal } = host;
  const stored = await openStoredPrompts(files, loaded.config);
  let resolved = { ...loaded, config: withStoredPrompts(loaded.config, stored) };
  const { config } = resolved;
  const events: { step?: number; code: string; text: string }[] = [];
  const emit = fanOut(host.emit, (event: RunEvent) => {
    if (event.kind === "warning" || event.kind === "error") events.push({ code: event.code, text: event.text });
  });
  const phases = new Phases(emit);

  emit({ kind: "message", text: `device: ${deviceLine(gpu)}` });
  const { items, data } = await loadItems(files, config, stored);
  if (stored)
    emit({
      kind: "message",
      text: `prompts: ${items.length} captions of ${stored.folder}, encoded already; data.prompt and the styles are not read`,
    });
  const judged = judgedItems(config, items);
  // Real pictures are shown at the end; one that does not decode is told before hours of work, not after.
  for (const one of judged) await realPictures(data, one);
  await checkModels(files, config, targetOf(gpu));
  const run = await host.openRun(resolved, { command: commandName });
  const texts = await encodeTexts({ files, config, gpu, items, judged, stored, emit, phases, signal });
  const kernelsFile = join(run.paths.folder, "kernels.json");
  const fixed = run.resumed ? await readKernels(files, kernelsFile) : undefined;
  const { world, choices, text, offload } = await phases.timed("trace and tune", 1, "session", async () => {
    const build = (target: Target, stream: StreamOptions | null) =>
      buildWorld(files, config, target, { train: true, stream });
    const { availableMemory: available, kernelTables: tables } = host;
    const chosen = await chooseOffload(config, { canStream: adapterStreams(config), available }, (stream) =>
      build(targetOf(gpu), stream),
    );
    const tuned = await buildTuned(files, config, gpu, (target) => build(target, chosen.stream), {
      tables,
      emit,
      fixed,
    });
    return { ...tuned, offload: chosen.text };
  });
  opened.push(world);
  if (offload) emit({ kind: "message", text: offload });
  emit({ kind: "message", text });
  await files.writeAtomic(kernelsFile, `${JSON.stringify(choices, null, 1)}\n`);
  const { total } = world.session.memory();
  checkMemoryCap(config, total);
  const environment = await host.environment();
  await run.writeEnvironment({ ...environment, adapter: gpu.facts, limits: gpu.limits });
  await phases.timed("compile and load", world.session.plans.length, "plans", (tick) =>
    openWorld(world, gpu, config, (name, done, count) => name === "compile" && tick(done, count)),
  );
  const store = new RunStore(files, run, config, emit, choices);
  const alignment: AlignInputs = {
    files,
    config,
    world,
    items,
    texts,
    data,
    emit,
    signal,
    store,
    run: run.paths.folder,
    control: host.control(run),
    async chooseSteps(flopsPerSecond, flopsPerUpdate) {
      const choice = chooseFromLadder(config.align.ladder, flopsPerSecond, flopsPerUpdate);
      emit({ kind: "message", text: choice.text });
      resolved = withValue(resolved, "align.steps", choice.steps, choice.origin);
      await run.writeConfig(resolved.sourceText, toToml(resolved));
      return choice.steps;
    },
  };
  const { session } = world;
  const outcome = await host.watched({ gpu, session, emit, run }, () => runAlignment(alignment));
  outcome.timing.unshift(...phases.times());
  const inputs = {
    files,
    world,
    resolved,
    run,
    outcome,
    data,
    gpu,
    environment,
    command: host.command,
    allocatedBytes: gpu.facts.software ? await host.deviceBytes() : null,
    encoderBytes: texts.plannedBytes,
    events,
  };
  const last = new Phases(emit);
  const difference = await last.timed("save weights", 1, "set", () => saveWeights(inputs));
  outcome.timing.push(...last.times());
  const report = await reportData(inputs, difference);
  await writeReport(files, run, report);
  await run.finish("finished", { step: outcome.done });
  return { run, report, steps: outcome.done };
}
