// `longtail train`: a folder of pictures with captions in, an adapter out (LoRA, DoRA, LoKr) or the whole transformer, from
// configuration to report.

import { join, relative } from "node:path";
import type { EventSink, RunEvent } from "../../base/events.ts";
import { duration } from "../../evaluation/format.ts";
import type { Gpu } from "../../gpu/device.ts";
import type { StreamOptions } from "../../models/pipeline.ts";
import type { Target } from "../../tensor/lower.ts";
import { targetOf } from "../../tensor/target.ts";
import { fileIdentity } from "../../training/file_identity.ts";
import { checkMemoryCap, deviceLine, withRunDevice } from "../align/device.ts";
import { Phases } from "../align/phases.ts";
import { buildTuned, readKernels } from "../align/tuning.ts";
import type { Command, CommandContext } from "../command.ts";
import type { ResolvedConfig } from "../config/load.ts";
import { toToml } from "../config/toml.ts";
import { unreadKeys } from "../config/unread.ts";
import { withLocalModels } from "../model_files.ts";
import { adapterStreams, chooseOffload } from "../offload.ts";
import { PROFILE_OPTION, profiled } from "../profile.ts";
import { configText, openTensorBoard, type TensorBoardSink } from "../tensorboard_sink.ts";
import { checkTraining, trainingWarnings, withDataFlag } from "../train/checks.ts";
import { RunControl } from "../train/control.ts";
import { openTrainingData } from "../train/data.ts";
import type { EncodedData } from "../train/encoded.ts";
import { saveWeights, trainReport, writeTrainReport } from "../train/outputs.ts";
import { runTraining } from "../train/run.ts";
import { SampleDrawer } from "../train/samples.ts";
import { emptyTrainState } from "../train/state.ts";
import { TrainStore } from "../train/store.ts";
import { buildTrainWorld, openTrainWorld } from "../train/world.ts";

/** Short names that mean a training run's keys. */
export const TRAIN_ALIASES = { steps: "train.steps", batch: "train.batch", lr: "optim.lr", rank: "adapter.rank" };

export const command: Command = {
  name: "train",
  summary: "train a LoRA, DoRA or LoKr on pictures with captions",
  usage: "[preset | file.toml] [--data=PATH] [--section.key=value ...]",
  options: [
    {
      name: "data",
      value: "PATH",
      summary: "pictures in place of data.sets: a folder, a .zip, a .parquet file, an items.json",
    },
    PROFILE_OPTION,
  ],
  description:
    "Pictures and captions are encoded first and cached. Samples are drawn from fixed noise before the first update and " +
    "as the run goes on; it leaves the adapter in diffusers' and in kohya's keys, TensorBoard files, log.jsonl and a " +
    "report. Write save, sample, pause or stop into the run's CMD file to be heard at the next update.",
  positionals: [0, 1],
  configuration: true,
  aliases: TRAIN_ALIASES,
  examples: [
    ["longtail train lora", "the small model that comes along, ten of its rare items, about a minute"],
    ["longtail init lora > my.toml && longtail train my.toml", "your own configuration"],
    ["longtail train lora --data=./pictures --steps=400 --data.trigger=ohwx", "your own pictures"],
    ["longtail train my.toml --name=first --resume=auto", "continue the run of that name"],
  ],
  async run(context) {
    const source = context.arguments.positionals[0];
    const loaded = await context.loadConfig({ ...(source === undefined ? {} : { source }), preset: "lora" });
    let resolved = withDataFlag(loaded, context.arguments.flags["data"]);
    checkTraining(resolved.config);
    resolved = { ...resolved, config: await withLocalModels(context.files, resolved.config, context.emit) };
    return await withRunDevice(resolved.config, context.emit, (gpu) => train(gpu, context, resolved, source ?? "lora"));
  },
};

async function train(gpu: Gpu, context: CommandContext, resolved: ResolvedConfig, source: string): Promise<number> {
  const { files, signal } = context;
  const { config } = resolved;
  const started = performance.now();
  const warnings: { step?: number; code: string; text: string }[] = [];
  const collect = (event: RunEvent) => {
    if (event.kind === "warning" || event.kind === "error") warnings.push({ code: event.code, text: event.text });
  };
  const sinks: EventSink[] = [context.emit, collect];
  const emit: EventSink = (event) => {
    for (const sink of sinks) sink(event);
  };
  emit({ kind: "message", text: `device: ${deviceLine(gpu)}` });
  for (const { code, text } of [...trainingWarnings(config), ...unreadKeys(resolved, "train")])
    emit({ kind: "warning", code, text });
  const data = await openTrainingData(files, config, emit);
  try {
    const run = await context.openRun(resolved, { command: "train" });
    let tensorboard: TensorBoardSink | null = null;
    let batches: Awaited<ReturnType<EncodedData["batches"]>> | null = null;
    try {
      emit({ kind: "message", text: data.summary });
      const phases = new Phases(emit);
      const { environmentFacts } = await import("../../platform/environment.ts");
      const environment = await environmentFacts();
      await run.writeEnvironment({ ...environment, adapter: gpu.facts, limits: gpu.limits });
      const kernelsFile = join(run.paths.folder, "kernels.json");
      const fixed = run.resumed ? await readKernels(files, kernelsFile) : undefined;
      // Before anything is encoded: targets that meet no layer, a file that does not fit or too little memory are told at once.
      const { world, choices, text, offload } = await phases.timed("trace and tune", 1, "session", async () => {
        const build = (target: Target, stream: StreamOptions | null) =>
          buildTrainWorld(files, config, target, data.geometries, data.samplePictures, stream);
        const chosen = await chooseOffload(config, { canStream: adapterStreams(config) }, (stream) =>
          build(targetOf(gpu), stream),
        );
        const tuned = await buildTuned(files, config, gpu, (target) => build(target, chosen.stream), fixed);
        return { ...tuned, offload: chosen.text };
      });
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
      if (config.log.tensorboard) {
        tensorboard = openTensorBoard(run.paths.folder, {
          stepsDone: stepsBefore,
          texts: { configuration: configText(toToml(resolved)) },
          onFailure: (error) => emit({ kind: "warning", code: error.code, text: error.message }),
        });
        sinks.push(tensorboard.sink);
      }
      const samples = new SampleDrawer({
        files,
        run,
        config,
        cache: encoded.cache,
        phases,
        emit,
        prompts: encoded.samplePrompts,
      });
      batches = await encoded.batches(world.trainer.samplesPerUpdate, stepsBefore + 1);
      const training = {
        config,
        world,
        batches,
        samples,
        store,
        control: new RunControl(files, run.paths.folder, emit),
        phases,
        emit,
        signal,
        folder: run.paths.folder,
        state,
      };
      const { session } = world;
      await profiled({ context, gpu, session, emit, path: run.paths.profile }, () => runTraining(training));
      const { softwareDeviceBytes } = await import("../../platform/device_memory.ts");
      const allocatedBytes = gpu.facts.software ? softwareDeviceBytes() : null;
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
        command: commandLine(context, source),
      };
      const saved = await phases.timed("save weights", 1, "set", () => saveWeights(inputs));
      const report = await trainReport(inputs, saved);
      await writeTrainReport(files, run, report);
      await run.finish("finished", { step: state.step });
      world.session.close();
      await world.pipeline.close();
      const path = relative(".", run.paths.report) || run.paths.report;
      const first = state.validation[0]?.loss;
      const last = state.validation.at(-1)?.loss;
      context.result(
        {
          run: run.paths.folder,
          report: run.paths.report,
          files: saved.paths,
          steps: state.step,
          validation: state.validation,
          speed: report.speed,
        },
        [
          "",
          `${state.step} updates, ${duration((performance.now() - started) / 1000)} in all` +
            (report.speed ? `, ${report.speed.stepsPerSecond.toFixed(2)} updates/s` : ""),
          ...(first === undefined || last === undefined
            ? []
            : [
                `${data.validationLabel}: ${first.toFixed(4)} before, ${last.toFixed(4)} after (the same noise both times)`,
              ]),
          ...saved.paths.map((file) => `weights: ${relative(".", file) || file}`),
          `report: ${path}`,
        ].join("\n"),
      );
      return 0;
    } finally {
      await batches?.close();
      tensorboard?.close();
    }
  } finally {
    await data.close();
  }
}

/** Keys that belong to this run alone; with them the command would meet its own folder. */
const OWN_KEYS = ["run.name", "name", "run.resume", "resume"];

/** The command that repeats the run, as words of a POSIX shell. */
function commandLine(context: CommandContext, source: string): string {
  const { overrides, flags } = context.arguments;
  const data = typeof flags["data"] === "string" ? [`--data=${flags["data"]}`] : [];
  const keys = overrides.filter((o) => !OWN_KEYS.includes(o.key)).map((o) => `--${o.key}=${o.value}`);
  const word = (text: string) => (/^[\w./:=@%,+-]+$/.test(text) ? text : `'${text.replace(/'/g, "'\\''")}'`);
  return ["npx longtail train", ...[source, ...data, ...keys].map(word)].join(" ");
}
