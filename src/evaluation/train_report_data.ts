// Everything that the report page and the model card of a training run are made from: the contract between whoever runs
// the training and the pages. All of it is plain data. Most fields are optional: a run of one step, a stopped or a
// failed run gets a page too, and a section without data says so or is left out.

import type { Attribution, DeviceInfo, MemoryCategory, PhaseTime, Picture, RunFile } from "./report_data.ts";

export interface TrainReportData {
  /** Tells the report.json of a training run from that of an alignment. */
  kind: "train";
  /** The run's name, also the stem of its files. */
  name: string;
  /** When the run ended, ISO 8601. */
  createdAt: string;
  status: TrainStatus;
  method: TrainMethod;
  model: TrainModel;
  /** Word in the captions that calls up what was learnt. */
  trigger?: string;
  /** Series of the run. */
  curves?: TrainCurves;
  /** Samples over time. */
  samples?: TrainSamples;
  /** The pictures that were learnt from. */
  data?: TrainDataSet;
  /** The settings worth reading, in order; the page shows them as a list and `config` folded below. */
  settings?: [name: string, value: string][];
  /** The resolved configuration as TOML text. */
  config?: string;
  /** Files of the run folder, paths relative to it. */
  files?: TrainFile[];
  /** Ways to load the files, in place of those that the page works out from `files` and `model`. */
  usage?: TrainUsage[];
  speed?: TrainSpeed;
  /** Wall time by phase, in the order in which they ran, all starts of the run together. */
  timing?: PhaseTime[];
  /** Device memory as planned and, in the row «total», as measured. */
  memory?: MemoryCategory[];
  device?: DeviceInfo;
  /** Versions: name → version (longtail, deno, dawn, …). */
  versions?: Record<string, string>;
  /** Credits of pictures, weights and data; `key` is what a picture's `credit` names. */
  attributions?: Attribution[];
  /** The command that repeats the run. */
  command?: string;
  /** Statements of what this run does not show, before the general ones. */
  limits?: string[];
  /** Remarks on what to expect to see in the samples, shown with them. */
  remarks?: string[];
  /** Warnings and errors of the run in the order in which they came. */
  events?: { step?: number; code: string; text: string }[];
}

export interface TrainStatus {
  /** complete: all steps; stopped: the user stopped it; failed: an error did. */
  state: "complete" | "stopped" | "failed";
  stepsDone: number;
  stepsPlanned: number;
  /** One sentence on why it ended early. */
  reason?: string;
  /** The step whose weights the files hold, where it is not the last one. */
  weightsFrom?: number;
  /** Steps done at each continuation of the run; marked in the curves. */
  resumedAt?: number[];
}

export interface TrainMethod {
  adapter: "full" | "lora" | "dora" | "lokr";
  rank?: number;
  alpha?: number;
  /** Size of LoKr's first factor. */
  factor?: number;
  /** Number of layers that got an adapter. */
  layers?: number;
  /** Which layers: «diffusers' set», «every Linear». */
  targets?: string;
  /** The optimizer's name for people: «AdamW, 8-bit state». */
  optimizer?: string;
  learningRate?: number;
  /** Course of the rate after its warm-up: «cosine». */
  schedule?: string;
  warmup?: number;
  /** Pictures of a micro-batch, and micro-batches of a step. */
  batch?: number;
  accumulation?: number;
  /** Gradient-norm limit; drawn into the gradient-norm chart. */
  clip?: number;
  /** How noise levels are drawn: «logit-normal». */
  sampling?: string;
  /** Weight of a sample by its noise level; «none». */
  weighting?: string;
  /** Distance: «mean squared error». */
  loss?: string;
  /** Guidance given to the network while training. */
  guidance?: number;
  /** Decay of the running mean of the weights that samples and files come from. */
  averageDecay?: number;
  /** Share of captions left out, [0, 1]. */
  captionDropout?: number;
  checkpointing?: boolean;
  /** Storage of the frozen weights: «nf4». */
  storage?: string;
  seed?: number;
}

export interface TrainModel {
  /** For example «FLUX.1-dev». */
  label: string;
  /** For example «FluxTransformer2DModel». */
  architecture: string;
  /** diffusers' pipeline class, for example «FluxPipeline»; absent where no published pipeline fits the weights. */
  pipelineClass?: string;
  parameters?: number;
  trainedParameters?: number;
  autoencoder?: string;
  /** What `from_pretrained` takes to load the base model: a folder or a hub name. */
  base?: string;
  /** The base model's name on a model hub, for the card's front matter; absent for a local model. */
  hubName?: string;
  /** A sentence on what else is needed to use the weights. */
  usageNote?: string;
  /** Licence of what the run produced: the hub's identifier («apache-2.0», «mit», «other»). */
  licence?: string;
  /** Name and address of a licence that the hub has no identifier for. */
  licenceName?: string;
  licenceUrl?: string;
}

export interface TrainCurves {
  /** Any density, in any order; of several points of one step the last counts (a continued run repeats steps). */
  steps: StepPoint[];
  /** Loss on held-out pictures with fixed noise and noise levels, step 0 (before training) first. */
  validation?: { step: number; loss: number }[];
}

export interface StepPoint {
  step: number;
  loss?: number;
  learningRate?: number;
  /** Global gradient norm before clipping. */
  gradientNorm?: number;
  /** ‖ΔW of this step‖ / ‖W‖. */
  updateRatio?: number;
  /** Mean noise level of the step's samples, [0, 1]. */
  sigma?: number;
  /** Prodigy's estimate of the distance. */
  d?: number;
  lossScale?: number;
  seconds?: number;
  /** False where the gradient was not finite and nothing was changed. */
  finite?: boolean;
}

export interface TrainSamples {
  /** One entry a row of the grid. */
  prompts: SamplePrompt[];
  /** One entry a column, in order of steps; step 0 is the model before training. */
  columns: SampleColumn[];
  /** How they were drawn: «20 Euler steps, guidance 3.5, adapter at strength 1». */
  protocol?: string;
}

export interface SamplePrompt {
  prompt: string;
  seed: number;
  width?: number;
  height?: number;
  /** A training picture to compare with, where one belongs to the prompt. */
  real?: Picture;
}

export interface SampleColumn {
  step: number;
  /** In the order of the prompts; null where none was drawn. */
  pictures: (SamplePicture | null)[];
}

export interface SamplePicture extends Picture {
  /** Its file in the run folder, for the model card. */
  path?: string;
}

export interface TrainDataSet {
  /** Pictures to learn from, without repeats. */
  pictures: number;
  /** Held-out pictures that the validation loss is measured on. */
  validation?: number;
  /** Regularisation pictures among `pictures`. */
  prior?: number;
  /** How many draws the run made of them in all. */
  draws?: number;
  sets?: { name: string; pictures: number; repeats?: number; weight?: number; prior?: boolean; split?: string }[];
  buckets?: BucketCount[];
  dropped?: { name: string; set?: string; code: string; why: string }[];
  /** Some pictures as the network saw them, with the caption they were learnt with. */
  examples?: { picture: Picture; caption: string; name?: string }[];
}

export interface BucketCount {
  width: number;
  height: number;
  pictures: number;
  /** Pictures with their repeats. */
  repeated?: number;
}

export interface TrainFile extends RunFile {
  /** What a program reads the file as; the ways to load it follow from it. */
  role?: "diffusers" | "kohya" | "transformer" | "checkpoint";
}

export interface TrainUsage {
  /** «diffusers», «ComfyUI». */
  title: string;
  /** Sentences, Markdown code spans allowed. */
  note?: string;
  /** Lines to copy. */
  code?: string[];
  /** Language of the code, for the card: python, sh. */
  language?: string;
}

export interface TrainSpeed {
  stepsPerSecond: number;
  /** Median and 95th percentile of a step, seconds. */
  median?: number;
  slowest?: number;
  picturesPerSecond?: number;
  /** Share of a step's wall time in which the host worked and the device waited, [0, 1]. */
  hostShare?: number;
  /** Share of the wall time in which the device waited for pictures, [0, 1]. */
  loaderStall?: number;
  /** Share of the device's measured arithmetic rate that was reached, [0, 1]. */
  utilisation?: number;
  gflops?: number;
}

/** Whether the value of a report.json belongs to a training run. */
export function isTrainReport(value: { kind?: unknown }): value is TrainReportData {
  return value.kind === "train";
}

/** What kind of weights the run trained, as the headline says it. */
export const ADAPTER_NAMES: Readonly<Record<TrainMethod["adapter"], string>> = {
  full: "full fine-tuning",
  lora: "LoRA",
  dora: "DoRA",
  lokr: "LoKr",
};

/** The points of a series by step, each step once: of several points the last one counts. */
export function uniqueSteps<T extends { step: number }>(points: readonly T[]): T[] {
  const byStep = new Map(points.map((p) => [p.step, p]));
  return [...byStep.values()].sort((a, b) => a.step - b.step);
}
