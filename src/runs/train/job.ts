// A training run from its configuration to its report: pictures are opened and encoded, the world is traced and tuned, the loop
// runs, weights and report are written. The platform is `host`.

import type { EventSink, RunEvent } from "../../base/events.ts";
import { join } from "../../base/paths.ts";
import type { TrainReportData } from "../../evaluation/train_report_data.ts";
import type { Gpu } from "../../gpu/device.ts";
import type { StreamOptions } from "../../models/pipeline.ts";
import type { Target } from "../../tensor/lower.ts";
import { targetOf } from "../../tensor/target.ts";
import { fileIdentity } from "../../training/file_identity.ts";
import type { ResolvedConfig } from "../config/load.ts";
import { unreadKeys } from "../config/unread.ts";
import { checkMemoryCap, deviceLine } from "../device.ts";
import type { RunHost, RunSink } from "../host.ts";
import { adapterStreams, chooseOffload } from "../offload.ts";
import { Phases } from "../phases.ts";
import type { RunFolder } from "../run_folder.ts";
import { buildTuned, readKernels } from "../tuning.ts";
import { trainingWarnings } from "./checks.ts";
import { openTrainingData } from "./data.ts";
import type { EncodedData } from "./encoded.ts";
import { saveWeights, trainReport, writeTrainReport } from "./outputs.ts";
import { runTraining } from "./run.ts";
import { SampleDrawer } from "./samples.ts";
import { emptyTrainState, type TrainState } from "./state.ts";
import { TrainStore } from "./store.ts";
import { buildTrainWorld, openTrainWorld, type TrainWorld } from "./world.ts";

/** What a finished training run tells. */
export interface TrainOutcome {
  run: RunFolder;
  report: TrainReportData;
  /** Paths of the trained weights. */
  paths: string[];
  state: TrainState;
  validationLabel: string;
}

/**
 * Trains from pictures to report. The configuration names no models that are not there.
 * @throws LongtailError whatever is wrong with data, models or memory; the signal's reason where it was aborted
 */
export async function runTrain(gpu: Gpu, host: RunHost, resolved: ResolvedConfig): Promise<TrainOutcome> {
  const { files, signal } = host;
  const { config } = resolved;
  const warnings: { step?: number; code: string; text: string }[] = [];
  const collect = (event: RunEvent) => {
    if (event.kind === "warning" || event.kind === "error") warnings.push({ code: event.code, text: event.text });
  };
  const sinks: EventSink[] = [host.emit, collect];
  const emit: EventSink = (event) => {
    for (const sink of sinks) sink(event);
  };
  emit({ kind: "message", text: `device: ${deviceLine(gpu)}` });
  for (const { code, text } of [...trainingWarnings(config), ...unreadKeys(resolved, "train")])
    emit({ kind: "warning", code, text });
  const data = await openTrainingData(files, config, emit);
  try {
    const run = await host.openRun(resolved, { command: "train" });
    let sink: RunSink | null = null;
    let opened: TrainWorld | null = null;
    let batches: Awaited<ReturnType<EncodedData["batches"]>> | null = null;
    try {
      emit({ kind: "message", text: data.summary });
      const phases = new Phases(emit);
      const environment = await host.environment();
      await run.writeEnvironment({ ...environment, adapter: gpu.facts, limits: gpu.limits });
      const kernelsFile = join(run.paths.folder, "kernels.json");
      const fixed = run.resumed ? await readKernels(files, kernelsFile) : undefined;
      // Before anything is encoded: targets that meet no layer, a file that does not fit or too little memory are told at once.
      const { world, choices, text, offload } = await phases.timed("trace and tune", 1, "session", async () => {
        const build = (target: Target, stream: StreamOptions | null) =>
          buildTrainWorld(files, config, target, data.geometries, data.samplePictures, stream);
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
      opened = world;
      if (offload) emit({ kind: "message", text: offload });
      emit({ kind: "message", text });
      await files.writeAtomic(kernelsFile, `${JSON.stringify(choices, null, 1)}\n`);
      checkMemoryCap(config, world.session.memory().total);
      const encoded = await data.encode({ gpu, emit, phases, signal });
      if (signal.aborted) throw signal.reason;
      await phases.timed("compile and load", world.session.plans.length, "plans", (tick) =>
        openTrainWorld(world, gpu, config, tick),
      );
      const store = new TrainStore(files, run, config, emit, {
        ...choices,
        pictures: data.fingerprint,
        base: (await fileIdentity(files, world.pipeline.layout.transformer.weights)).slice(0, 32),
      });
      const state = (await store.restore(world)) ?? emptyTrainState();
      const stepsBefore = state.step;
      if (config.log.tensorboard && host.openSink) {
        sink = host.openSink(run, resolved, stepsBefore);
        sinks.push(sink.sink);
      }
      const samples = new SampleDrawer({
        files,
        run,
        config,
        cache: encoded.cache,
        phases,
        emit,
        prompts: encoded.samplePrompts,
        onlooker: host.onlooker,
      });
      batches = await encoded.batches(world.trainer.samplesPerUpdate, stepsBefore + 1);
      const training = {
        config,
        world,
        batches,
        samples,
        store,
        control: host.control(run),
        phases,
        emit,
        signal,
        folder: run.paths.folder,
        state,
      };
      const { session } = world;
      await host.watched({ gpu, session, emit, run }, () => runTraining(training));
      const allocatedBytes = gpu.facts.software ? await host.deviceBytes() : null;
      const inputs = {
        files,
        run,
        resolved,
        world,
        state,
        data,
        encoded,
        gpu,
        environment,
        phases,
        allocatedBytes,
        warnings,
        command: host.command,
      };
      const saved = await phases.timed("save weights", 1, "set", () => saveWeights(inputs));
      const report = await trainReport(inputs, saved);
      await writeTrainReport(files, run, report);
      await run.finish("finished", { step: state.step });
      return { run, report, paths: saved.paths, state, validationLabel: data.validationLabel };
    } finally {
      // A page keeps its device: a run that was stopped or failed gives its memory back as well.
      opened?.session.close();
      await opened?.pipeline.close();
      await batches?.close();
      sink?.close();
    }
  } finally {
    await data.close();
  }
}
