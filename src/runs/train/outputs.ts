// What a finished training run leaves in its folder: the adapter in diffusers' and in kohya's keys (or the transformer), the
// report's data and page, the model card. Weights are saved first; everything after that is made from plain data.

import type { FileStore } from "../../base/files.ts";
import { basename, join } from "../../base/paths.ts";
import { renderLoraCard } from "../../evaluation/lora_card.ts";
import { EMBEDDED_LIMITS, EMBEDDED_USAGE } from "../../evaluation/notes.ts";
import type { PhaseTime } from "../../evaluation/report_data.ts";
import { median, quantile } from "../../evaluation/statistics.ts";
import { renderTrainReport } from "../../evaluation/train_report.ts";
import type { TrainFile, TrainReportData, TrainSpeed } from "../../evaluation/train_report_data.ts";
import { writeLora } from "../../formats/lora.ts";
import { dataUri, decodePng, encodePng, fromPlanes } from "../../formats/png.ts";
import { Safetensors } from "../../formats/safetensors.ts";
import { writeSafetensors } from "../../formats/safetensors_write.ts";
import type { Gpu } from "../../gpu/device.ts";
import { AUTOENCODER_NAMES, FAMILY_CLASSES } from "../../models/family.ts";
import { differenceLora } from "../../models/flux/difference.ts";
import { openPart } from "../../models/pipeline_layout.ts";
import { tensorSource } from "../../models/weights_file.ts";
import { deviceInfo, memoryCategories, versions } from "../align/outputs.ts";
import type { ResolvedConfig } from "../config/load.ts";
import { toToml } from "../config/toml.ts";
import { EMBEDDED_CREDITS, PICTURE_CREDITS } from "../credits.ts";
import type { EnvironmentFacts } from "../environment.ts";
import type { Phases } from "../phases.ts";
import type { RunFolder } from "../run_folder.ts";
import { withAverage } from "./average.ts";
import type { TrainingData } from "./data.ts";
import { describeData } from "./describe.ts";
import type { EncodedData } from "./encoded.ts";
import { adapterFacts } from "./facts.ts";
import { samplesPhase } from "./samples.ts";
import type { TrainState } from "./state.ts";
import type { TrainWorld } from "./world.ts";

export interface TrainOutputInputs {
  files: FileStore;
  run: RunFolder;
  resolved: ResolvedConfig;
  world: TrainWorld;
  state: TrainState;
  data: TrainingData;
  encoded: EncodedData;
  gpu: Gpu;
  environment: EnvironmentFacts;
  phases: Phases;
  allocatedBytes: number | null;
  warnings: { step?: number; code: string; text: string }[];
  command: string;
}

export interface SavedWeights {
  /** Paths, the one that most programs read first. */
  paths: string[];
  files: TrainFile[];
  /** Share of ‖Δ‖² that a LoRA of a full fine-tuning keeps. */
  energyKept?: number;
}

/** Writes the trained weights, from the running average where the run kept one. */
export async function saveWeights(inputs: TrainOutputInputs): Promise<SavedWeights> {
  return await withAverage(inputs.world, () => (inputs.world.adapter ? saveAdapter(inputs) : saveTransformer(inputs)));
}

async function saveAdapter(inputs: TrainOutputInputs): Promise<SavedWeights> {
  const { files, run, world, resolved } = inputs;
  const written = await world.adapter!.save(files, join(run.paths.folder, run.name), {
    dtype: resolved.config.save.dtype,
    facts: await adapterFacts(inputs),
  });
  return {
    paths: written.map(({ path }) => path),
    files: written.map(({ path, role, what }) => ({ path: basename(path), role, what })),
  };
}

async function saveTransformer(inputs: TrainOutputInputs): Promise<SavedWeights> {
  const { files, run, world, resolved } = inputs;
  const { config } = resolved;
  const { variables } = world.pipeline.transformerPool;
  const target = run.paths.transformer;
  await writeSafetensors(
    files,
    target,
    variables.map((v) => ({ name: v.name, dtype: "F32" as const, shape: v.shape, data: () => world.session.map(v) })),
    { metadata: { format: "pt", software: "longtail", base: config.model.pipeline } },
  );
  const saved: SavedWeights = {
    paths: [target],
    files: [{ path: basename(target), role: "transformer", what: "the trained transformer, diffusers' tensor names" }],
  };
  const rank = config.adapter.difference_rank;
  if (rank === 0) return saved;
  // The transformer that training began with, which need not be the pipeline's own.
  const original = await openPart(files, "transformer", world.pipeline.layout.transformer);
  const tuned = await Safetensors.open(files, target);
  try {
    const { layers, energy } = await differenceLora(original, tensorSource(tuned), { rank });
    await writeLora(files, run.paths.lora, layers, {
      fields: "portable",
      metadata: { software: "longtail", energy_kept: energy.kept.toFixed(4) },
    });
    saved.paths.push(run.paths.lora);
    saved.files.push({
      path: basename(run.paths.lora),
      role: "diffusers",
      what: `a LoRA of the difference on every Linear layer; it keeps ${(100 * energy.kept).toFixed(0)} % of the change`,
    });
    saved.energyKept = energy.kept;
  } finally {
    await original.close();
    await tuned.close();
  }
  return saved;
}

const OPTIMIZER_NAMES: Readonly<Record<string, string>> = {
  adamw: "AdamW",
  adamw8bit: "AdamW, 8-bit state",
  lion: "Lion",
  adafactor: "Adafactor",
  prodigy: "Prodigy",
  sgd: "SGD with momentum",
};

/** Everything that report.json, report.html and the model card show. */
export async function trainReport(inputs: TrainOutputInputs, saved: SavedWeights): Promise<TrainReportData> {
  const { run, resolved, world, state, data, gpu, environment } = inputs;
  const { config } = resolved;
  const { adapter, optim, schedule, train, flow } = config;
  const embedded = config.model.pipeline === "embedded";
  const lowRank = adapter.kind !== "full";
  const { layout } = world.pipeline;
  return {
    kind: "train",
    name: run.name,
    createdAt: new Date().toISOString(),
    status: { state: "complete", stepsDone: state.step, stepsPlanned: train.steps },
    method: {
      adapter: adapter.kind,
      ...(lowRank ? { ...world.adapter!.usual, layers: world.adapter!.layerCount } : {}),
      ...(lowRank && adapter.start === "none" ? { targets: [adapter.targets].flat().join(", ") } : {}),
      optimizer: OPTIMIZER_NAMES[optim.kind] ?? optim.kind,
      learningRate: optim.lr,
      schedule: schedule.kind,
      warmup: schedule.warmup,
      batch: train.batch,
      accumulation: train.accumulation,
      clip: optim.grad_clip,
      sampling: flow.sampling,
      weighting: flow.weighting,
      loss: flow.loss,
      ...(world.pipeline.config.guidance ? { guidance: flow.guidance } : {}),
      ...(optim.ema > 0 ? { averageDecay: optim.ema } : {}),
      captionDropout: config.data.caption_dropout,
      checkpointing: train.checkpointing,
      ...(lowRank ? { storage: config.model.storage === "auto" ? config.device.precision : config.model.storage } : {}),
      seed: train.seed,
    },
    model: {
      label: embedded ? "embedded micro-FLUX" : basename(config.model.pipeline),
      architecture: FAMILY_CLASSES[layout.family].transformer,
      ...(embedded ? {} : { pipelineClass: FAMILY_CLASSES[layout.family].pipeline }),
      parameters: world.parameters,
      trainedParameters: world.trainedParameters,
      autoencoder: AUTOENCODER_NAMES[layout.autoencoder.settings.kind],
      base: embedded ? "models/embedded" : config.model.pipeline,
      ...(embedded ? { usageNote: EMBEDDED_USAGE } : {}),
      // What weights that were trained on a user's pictures may be used for is for the user to say.
      ...(embedded && config.data.sets.every((set) => set.path === "embedded") ? { licence: "mit" } : {}),
    },
    ...(config.data.trigger ? { trigger: config.data.trigger } : {}),
    curves: {
      steps: state.points.map((p) => ({
        step: p.step,
        loss: p.loss,
        learningRate: p.rate,
        gradientNorm: p.gradientNorm,
        updateRatio: p.updateRatio,
        seconds: p.seconds,
        ...(p.d === undefined ? {} : { d: p.d }),
        ...(p.lossScale === undefined ? {} : { lossScale: p.lossScale }),
        finite: !state.refused.includes(p.step),
      })),
      validation: state.validation,
    },
    samples: await sampleGrid(inputs),
    data: await describeData(data, state.step * world.trainer.samplesPerUpdate),
    config: toToml(resolved),
    files: [
      ...saved.files,
      { path: "config.resolved.toml", what: "every setting with its origin" },
      { path: "log.jsonl", what: "every event of the run, one a line" },
      ...(config.log.tensorboard ? [{ path: "tb/", what: "TensorBoard event files" }] : []),
      { path: "samples/", what: "the samples" },
      { path: "ckpt/", role: "checkpoint" as const, what: "checkpoints with optimizer state" },
    ],
    ...speedOf(inputs),
    timing: ownTimes(inputs),
    memory: memoryCategories(
      world.session,
      inputs.allocatedBytes,
      inputs.encoded.plannedBytes,
      inputs.gpu.facts.software,
    ),
    device: deviceInfo(gpu, environment, flopsPerSecond(inputs), config.device.backend),
    versions: versions(environment),
    attributions: [...(data.usesEmbedded ? PICTURE_CREDITS : []), ...(embedded ? EMBEDDED_CREDITS : [])],
    command: inputs.command,
    // The others speak of the reward and the judge, which no training run has.
    ...(embedded ? { limits: EMBEDDED_LIMITS.slice(0, 1) } : {}),
    remarks:
      state.refused.length > 0
        ? [
            `${state.refused.length} updates were not made because a gradient overflowed; the loss scale was lowered then.`,
          ]
        : [],
    events: inputs.warnings,
  };
}

/** The samples that were drawn, as data URIs, with the training picture beside prompts that are a picture's caption. */
async function sampleGrid({ files, run, state, resolved, encoded, world }: TrainOutputInputs) {
  const { sample } = resolved.config;
  const side = world.pipeline.imageSize;
  const rows = encoded.samplePrompts.flatMap(({ prompt, real }) =>
    Array.from({ length: sample.pictures }, () => ({ prompt, real })),
  );
  const columns = [];
  for (const { step, paths } of state.samples) {
    const pictures = [];
    for (const path of paths) {
      const place = join(run.paths.folder, path);
      if (!(await files.exists(place))) {
        pictures.push(null);
        continue;
      }
      const bytes = await files.readBytes(place);
      const { width, height } = decodePng(bytes, place);
      pictures.push({ source: dataUri(bytes), width, height, path });
    }
    columns.push({ step, pictures });
  }
  return {
    prompts: await Promise.all(
      rows.map(async ({ prompt, real }) => ({
        prompt,
        seed: sample.seed,
        width: side,
        height: side,
        ...(real
          ? { real: { source: dataUri(encodePng(fromPlanes(await real(), side, side))), width: side, height: side } }
          : {}),
      })),
    ),
    columns,
    protocol: `${sample.steps} Euler steps, shift ${sample.shift}${world.pipeline.config.guidance ? `, guidance ${sample.guidance}` : ""}, the same noise at every step${resolved.config.optim.ema > 0 ? ", from the averaged weights" : ""}`,
  };
}

/** FLOP per second of the middle update. */
function flopsPerSecond({ world, state, data }: TrainOutputInputs): number {
  const seconds = median(state.points.map((p) => p.seconds));
  const flops = world.trainer.flopsPerUpdate(data.geometries[0]!);
  return seconds > 0 ? flops / seconds : 0;
}

function speedOf(inputs: TrainOutputInputs): { speed?: TrainSpeed } {
  const { state, world } = inputs;
  if (state.points.length === 0) return {};
  const seconds = state.points.map((p) => p.seconds);
  const total = seconds.reduce((a, b) => a + b, 0);
  const stalled = state.points.reduce((sum, p) => sum + p.stallSeconds, 0);
  const host = state.points.reduce((sum, p) => sum + p.hostSeconds, 0);
  return {
    speed: {
      stepsPerSecond: seconds.length / total,
      median: median(seconds),
      slowest: quantile(seconds, 0.95),
      picturesPerSecond: (seconds.length * world.trainer.samplesPerUpdate) / total,
      hostShare: host / total,
      loaderStall: stalled / total,
      gflops: flopsPerSecond(inputs) / 1e9,
    },
  };
}

/** Times of the phases, each second counted once: samples that were drawn while training are no part of the training. */
function ownTimes({ phases, state, resolved }: TrainOutputInputs): PhaseTime[] {
  const times = phases.times();
  const within = state.samples.map(({ step }) => step).filter((step) => step > 0 && step < resolved.config.train.steps);
  const names = new Set(within.map(samplesPhase));
  const nested = times.filter(({ phase }) => names.has(phase)).reduce((sum, { seconds }) => sum + seconds, 0);
  return times.map((time) =>
    time.phase === "train" ? { ...time, seconds: Math.max(0, time.seconds - nested) } : time,
  );
}

/** Writes report.json, report.html and the model card. */
export async function writeTrainReport(files: FileStore, run: RunFolder, data: TrainReportData): Promise<void> {
  await files.writeAtomic(run.paths.reportData, `${JSON.stringify(data)}\n`);
  await files.writeAtomic(run.paths.report, renderTrainReport(data));
  await files.writeAtomic(run.paths.modelCard, renderLoraCard(data));
}
