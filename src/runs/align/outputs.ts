// What a finished run leaves in its folder: weights in the base model's layout, a LoRA, the report's data and page, the
// model card. Weights are saved first; everything after that is made from plain data.

import type { FileStore } from "../../base/files.ts";
import { basename } from "../../base/paths.ts";
import type { EmbeddedData } from "../../data/embedded.ts";
import { renderModelCard } from "../../evaluation/model_card.ts";
import { EMBEDDED_LIMITS, EMBEDDED_USAGE, embeddedRemarks } from "../../evaluation/notes.ts";
import { renderReport } from "../../evaluation/report.ts";
import type {
  Attribution,
  DeviceInfo,
  ItemPictures,
  MemoryCategory,
  ReportData,
  RunFile,
} from "../../evaluation/report_data.ts";
import { type ItemRow, summariseEvaluation } from "../../evaluation/summary.ts";
import { type LoraFacts, writeLora } from "../../formats/lora.ts";
import { dataUri, encodePng, fromPlanes } from "../../formats/png.ts";
import { Safetensors } from "../../formats/safetensors.ts";
import { writeSafetensors } from "../../formats/safetensors_write.ts";
import type { Gpu } from "../../gpu/device.ts";
import { AUTOENCODER_NAMES, FAMILY_CLASSES } from "../../models/family.ts";
import { type DifferenceLora, differenceLora } from "../../models/flux/difference.ts";
import { openPart } from "../../models/pipeline_layout.ts";
import { tensorSource } from "../../models/weights_file.ts";
import type { Session } from "../../tensor/session.ts";
import { type TomlSource, toToml } from "../config/toml.ts";
import { EMBEDDED_CREDITS, PICTURE_CREDITS } from "../credits.ts";
import type { EnvironmentFacts } from "../environment.ts";
import type { RunFolder } from "../run_folder.ts";
import { realPictures } from "./protocol.ts";
import type { AlignOutcome } from "./run.ts";
import type { World } from "./world.ts";

export interface OutputInputs {
  files: FileStore;
  world: World;
  resolved: TomlSource;
  run: RunFolder;
  outcome: AlignOutcome;
  data: EmbeddedData | null;
  gpu: Gpu;
  environment: EnvironmentFacts;
  command: string;
  allocatedBytes: number | null;
  /** Device memory that the encoders of the texts had before training. */
  encoderBytes: number;
  events: { step?: number; code: string; text: string }[];
}

/** Writes the trained weights: the whole transformer and the LoRA of its difference, or the trained LoRA. */
export async function saveWeights(inputs: OutputInputs): Promise<DifferenceLora | null> {
  const { files, world, resolved, run } = inputs;
  const { config } = resolved;
  if (world.adapter) {
    await world.adapter.save(files, run.paths.lora.replace(/\.safetensors$/, ""), {
      dtype: config.save.dtype,
      facts: alignmentFacts(inputs),
    });
    return null;
  }
  const variables = world.pipeline.transformerPool.variables;
  await writeSafetensors(
    files,
    run.paths.transformer,
    variables.map((v) => ({ name: v.name, dtype: "F32" as const, shape: v.shape, data: () => world.session.map(v) })),
    { metadata: { format: "pt", software: "longtail", base: config.model.pipeline } },
  );
  const rank = config.adapter.difference_rank;
  if (rank === 0) return null;
  // The transformer that training began with, which need not be the pipeline's own.
  const original = await openPart(files, "transformer", world.pipeline.layout.transformer);
  const tuned = await Safetensors.open(files, run.paths.transformer);
  try {
    const difference = await differenceLora(original, tensorSource(tuned), { rank });
    await writeLora(files, run.paths.lora, difference.layers, {
      fields: "portable",
      metadata: { software: "longtail", energy_kept: difference.energy.kept.toFixed(4) },
    });
    return difference;
  } finally {
    await original.close();
    await tuned.close();
  }
}

/** What the file of an aligned adapter says about its making. */
function alignmentFacts({ world, run, resolved, outcome, environment }: OutputInputs): LoraFacts {
  const { config } = resolved;
  const side = world.pipeline.imageSize;
  return {
    name: run.name,
    architecture: "flux-1",
    date: new Date().toISOString().slice(0, 19),
    resolution: [side, side],
    learningRate: config.optim.lr,
    optimizer: config.optim.kind,
    warmupSteps: config.schedule.warmup,
    steps: outcome.done,
    seed: config.train.seed,
    batch: config.align.batch,
    accumulation: config.train.accumulation,
    maxGradNorm: config.optim.grad_clip,
    comment: "aligned with Longtail by SRPO",
    programVersion: environment.longtail,
  };
}

/** One row an item. */
export function itemRows(outcome: AlignOutcome): ItemRow[] {
  return outcome.judged.map((j, i) => ({
    item: j.item.item,
    category: j.item.category,
    region: j.item.region,
    group: j.group,
    pictures: j.pictures.length,
    before: outcome.before.scores[i]!,
    after: outcome.after.scores[i]!,
  }));
}

/** Puts together everything that report.html, report.json and the model card show. */
export async function reportData(inputs: OutputInputs, difference: DifferenceLora | null): Promise<ReportData> {
  const { world, resolved, run, outcome, gpu, environment } = inputs;
  const { config } = resolved;
  const rows = itemRows(outcome);
  const embedded = config.model.pipeline === "embedded";
  const side = world.pipeline.imageSize;
  const lora = world.adapter !== null;
  const { align, optim, adapter } = config;
  const pairNames = {
    mia: "MIA pairs",
    "control-words": "control words",
    "prompt-only": "attributes in the prompt",
    none: "the plain reward",
  };
  return {
    name: run.name,
    createdAt: new Date().toISOString(),
    status: {
      state: outcome.stopped === "alarm" ? "alarm" : "complete",
      updatesDone: outcome.done,
      updatesPlanned: outcome.steps,
      ...(outcome.stopped === "alarm"
        ? { reason: "a guard rail's alarm was followed by align.stop_after_alarm updates" }
        : {}),
    },
    method: {
      label: `${align.offline ? "Offline SRPO" : "SRPO"} with ${pairNames[align.pair]}`,
      training: lora ? "lora" : "full",
      ...(lora
        ? { rank: world.adapter!.usual.rank }
        : difference
          ? { rank: adapter.difference_rank, energyKept: difference.energy.kept }
          : {}),
      learningRate: optim.lr,
      batch: align.batch * config.train.accumulation,
      warmup: config.schedule.warmup,
      clip: optim.grad_clip,
      sigma: [align.sigma_high, align.sigma_low],
      discountPositive: [align.discount_pos[0]!, align.discount_pos[1]!],
      discountInversion: [align.discount_inv[0]!, align.discount_inv[1]!],
      rolloutSteps: align.rollout_steps,
      seed: config.train.seed,
    },
    model: {
      label: embedded ? "embedded micro-FLUX" : basename(config.model.pipeline),
      architecture: FAMILY_CLASSES[world.pipeline.layout.family].transformer,
      parameters: world.parameters,
      trainedParameters: world.trained.reduce((n, pool) => pool.variables.reduce((m, v) => m + v.size, n), 0),
      autoencoder: AUTOENCODER_NAMES[world.pipeline.layout.autoencoder.settings.kind],
      reward: world.rewards.map((r) => `${r.scorer.name} (${r.kind}, open_clip)`).join(", "),
      ...(world.judge ? { judge: "open_clip, held out" } : {}),
      base: embedded ? "models/embedded" : config.model.pipeline,
      ...(embedded ? { usageNote: EMBEDDED_USAGE, licence: "MIT" } : {}),
      width: side,
      height: side,
    },
    evaluation: {
      rows,
      summary: summariseEvaluation(rows, config.eval.seed),
      protocol: `${config.eval.steps} Euler steps, shift ${config.eval.shift}, styles ${config.eval.styles.join(" and ") || "none"}, captions "${config.eval.caption}", the same noise before and after`,
      picturesPerItem: config.eval.pictures,
      ...(world.judge ? { candidates: inputs.data?.items.length ?? rows.length } : {}),
      seed: config.eval.seed,
    },
    pictures: await itemPictures(inputs, side),
    curves: { updates: outcome.updates, evaluations: outcome.evaluations },
    guards: outcome.guard,
    pairs: outcome.pairs,
    config: toToml(resolved),
    device: deviceInfo(gpu, environment, outcome.flopsPerSecond, config.device.backend),
    timing: outcome.timing,
    memory: memoryCategories(world.session, inputs.allocatedBytes, inputs.encoderBytes, inputs.gpu.facts.software),
    versions: versions(environment),
    attributions: attributions(inputs.data, embedded),
    files: runFiles(inputs, lora),
    command: inputs.command,
    ...(embedded ? { limits: [...EMBEDDED_LIMITS], remarks: embeddedRemarks(outcome.done) } : {}),
    events: inputs.events,
  };
}

async function itemPictures({ outcome, data }: OutputInputs, side: number): Promise<ItemPictures[]> {
  const picture = (planes: Float32Array, label: string, credit?: string) => ({
    source: dataUri(encodePng(fromPlanes(planes, side, side))),
    width: side,
    height: side,
    label,
    ...(credit ? { credit } : {}),
  });
  const all: ItemPictures[] = [];
  for (const [i, j] of outcome.judged.entries()) {
    const label = (p: number) => j.pictures[p]!.style ?? `picture ${p + 1}`;
    all.push({
      item: j.item.item,
      category: j.item.category,
      region: j.item.region,
      group: j.group,
      real: (await realPictures(data, j)).map(({ style, planes }) => picture(planes, style, style)),
      before: outcome.before.pictures[i]!.map((d, p) => picture(d.picture, label(p))),
      after: outcome.after.pictures[i]!.map((d, p) => picture(d.picture, label(p))),
    });
  }
  return all;
}

export function deviceInfo(
  gpu: Gpu,
  environment: EnvironmentFacts,
  flopsPerSecond: number,
  backend: string,
): DeviceInfo {
  const { facts } = gpu;
  return {
    name: facts.name,
    vendor: facts.vendor,
    driver: facts.description,
    software: facts.software,
    implementation:
      environment.runtime.name === "browser" ? "the browser's WebGPU" : backend === "dawn" ? "Dawn" : "wgpu",
    features: [facts.f16 ? "f16" : "", facts.subgroups ? "subgroups" : "", facts.timestamps ? "timestamps" : ""].filter(
      Boolean,
    ),
    gflops: flopsPerSecond / 1e9,
    system: [environment.system.name, environment.processor.model, `${environment.processor.cores} cores`]
      .filter(Boolean)
      .join(", "),
  };
}

/**
 * What a training session planned, and in the last row what was measured. A GPU takes memory that was given back at once; a
 * CPU adapter's file of pages keeps it, so that there the encoders of before count too.
 * @param encoders bytes of the session that encoded before and was closed; 0 where there was none
 */
export function memoryCategories(
  session: Session,
  allocated: number | null,
  encoders: number,
  software: boolean,
): MemoryCategory[] {
  const { variables, arena, uniforms, bindings, staging, total } = session.memory();
  const rows: MemoryCategory[] = Object.entries(variables)
    .filter(([, bytes]) => bytes > 0)
    .map(([category, plannedBytes]) => ({ category, plannedBytes }));
  rows.push({ category: "activations and workspace", plannedBytes: arena });
  rows.push({ category: "uniforms", plannedBytes: uniforms });
  rows.push({ category: "tables of bindings", plannedBytes: bindings });
  rows.push({ category: "staging", plannedBytes: staging });
  if (encoders > 0) rows.push({ category: "encoders, before training and freed", plannedBytes: encoders });
  const plannedBytes = software ? total + encoders : Math.max(total, encoders);
  return [...rows, { category: "total", plannedBytes, ...(allocated ? { allocatedBytes: allocated } : {}) }];
}

export function versions(environment: EnvironmentFacts): Record<string, string> {
  const found: Record<string, string> = {
    longtail: environment.commit ? `${environment.longtail} (${environment.commit})` : environment.longtail,
    [environment.runtime.name]: environment.runtime.version,
  };
  if (environment.dawn) found["dawn (npm webgpu)"] = environment.dawn;
  return found;
}

function attributions(data: EmbeddedData | null, embedded: boolean): Attribution[] {
  return [...(data ? PICTURE_CREDITS : []), ...(embedded ? EMBEDDED_CREDITS : [])];
}

function runFiles({ run }: OutputInputs, lora: boolean): RunFile[] {
  const list: RunFile[] = [];
  if (!lora)
    list.push({
      path: basename(run.paths.transformer),
      what: "the aligned transformer, diffusers' tensor names, float32",
    });
  list.push({
    path: basename(run.paths.lora),
    what: lora
      ? "the trained adapter, diffusers' keys"
      : "a LoRA of the difference on every Linear layer, diffusers' keys",
  });
  if (lora)
    list.push({
      path: basename(run.paths.lora).replace(/\.safetensors$/, ".kohya.safetensors"),
      what: "the same in kohya's keys, for ComfyUI and sd-scripts",
    });
  list.push({ path: "config.resolved.toml", what: "every setting with its origin" });
  list.push({ path: "log.jsonl", what: "every event of the run, one a line" });
  list.push({ path: "samples/", what: "the judged pictures before and after" });
  list.push({ path: "ckpt/", what: "checkpoints with optimizer state" });
  return list;
}

/** Writes report.json, report.html and the model card. */
export async function writeReport(files: FileStore, run: RunFolder, data: ReportData): Promise<void> {
  await files.writeAtomic(run.paths.reportData, `${JSON.stringify(data)}\n`);
  await files.writeAtomic(run.paths.report, renderReport(data));
  await files.writeAtomic(run.paths.modelCard, renderModelCard(data));
}
