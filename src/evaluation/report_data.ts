// Everything that the report page and the model card are made from: the contract between whoever runs a job and the
// pages. All of it is plain data. Most fields are optional, because a run of one update, a stopped run or one without
// an evaluation still gets a page; a section without data says so or is left out.

import type { GuardSignal, GuardState } from "./guards.ts";
import type { EvaluationSummary, Group, ItemRow } from "./summary.ts";

export interface ReportData {
  /** The run's name, also the stem of its files. */
  name: string;
  /** When the run ended, ISO 8601. */
  createdAt: string;
  status: RunStatus;
  method: MethodInfo;
  model: ModelInfo;
  /** The evaluation before and after; absent where none was made. */
  evaluation?: EvaluationInfo;
  /**
   * Pictures of evaluated items. The page shows the biggest gains, typical and worst ones first and the rest folded.
   */
  pictures?: ItemPictures[];
  /** Series of the run. */
  curves?: Curves;
  /** Guard rails: bands and alarm as the monitor left them. */
  guards?: GuardState;
  /** Cosines of the positive and negative caption of each prompt pair under the reward's text tower. */
  pairs?: PairCosine[];
  /** The resolved configuration as TOML text. */
  config?: string;
  device?: DeviceInfo;
  /** Wall time by phase, in the order in which they ran. */
  timing?: PhaseTime[];
  /** Device memory by category, as planned before the run and as allocated in it. */
  memory?: MemoryCategory[];
  /** Versions: name → version (longtail, deno, dawn, …). */
  versions?: Record<string, string>;
  /** Credits of pictures, weights and data; `key` is what a picture's `credit` names. */
  attributions?: Attribution[];
  /** Files of the run folder, paths relative to it. */
  files?: RunFile[];
  /** The command that repeats the run. */
  command?: string;
  /**
   * Statements of what this run's evaluation does not show, added to the general ones; see notes.ts for the embedded
   * ones.
   */
  limits?: string[];
  /** Remarks on what to expect to see in the pictures, shown with them; see notes.ts. */
  remarks?: string[];
  /** Warnings and errors of the run in the order in which they came. */
  events?: { step?: number; code: string; text: string }[];
}

export interface RunStatus {
  /** complete: all updates; stopped: the user stopped it; alarm: a guard rail did; failed: an error did. */
  state: "complete" | "stopped" | "alarm" | "failed";
  updatesDone: number;
  updatesPlanned: number;
  /** One sentence on why it ended early. */
  reason?: string;
  /** The update whose weights the run's files hold, where it is not the last one. */
  weightsFrom?: number;
}

export interface MethodInfo {
  /** For example «SRPO with MIA pairs». */
  label: string;
  /** What was trained: all transformer tensors, or a LoRA. */
  training: "full" | "lora";
  /** Rank of the trained or extracted LoRA. */
  rank?: number;
  /** Share of ‖Δ‖² that the extracted LoRA keeps, [0, 1]. */
  energyKept?: number;
  learningRate?: number;
  /** Prompts of one update. */
  batch?: number;
  warmup?: number;
  /** Gradient-norm limit; drawn into the gradient-norm chart. */
  clip?: number;
  sigma?: [number, number];
  discountPositive?: [number, number];
  discountInversion?: [number, number];
  rolloutSteps?: number;
  seed?: number;
}

export interface ModelInfo {
  /** For example «embedded micro-FLUX». */
  label: string;
  /** For example «FluxTransformer2DModel». */
  architecture: string;
  parameters?: number;
  trainedParameters?: number;
  autoencoder?: string;
  reward?: string;
  judge?: string;
  /** What `from_pretrained` takes to load the base model: a folder or a hub name; written into the model card's example. */
  base?: string;
  /** The base model's name on a model hub, for the card's front matter; absent for a local model. */
  hubName?: string;
  /** A sentence on what else is needed to use the weights. */
  usageNote?: string;
  /** Licence of the weights that the run produced, an SPDX name where there is one. */
  licence?: string;
  width?: number;
  height?: number;
}

export interface EvaluationInfo {
  rows: ItemRow[];
  summary: EvaluationSummary;
  /** How it was measured: sampler steps, shift, styles. */
  protocol?: string;
  picturesPerItem?: number;
  /** Number of captions among which top-1 ranks. */
  candidates?: number;
  seed?: number;
}

/** A picture as a data URI (`data:image/png;base64,…`); no other address is accepted. */
export interface Picture {
  source: string;
  width: number;
  height: number;
  /** What tells this picture from its neighbours, for example the style or the seed; part of the alternative text. */
  label?: string;
  /** Key of the attribution of a real picture. */
  credit?: string;
}

export interface ItemPictures {
  item: string;
  category: string;
  region: string;
  group: Group;
  real: Picture[];
  before: Picture[];
  /** In the order of `before`, made from the same noise. */
  after: Picture[];
}

export interface Curves {
  /** One entry an update, in order. */
  updates: UpdatePoint[];
  /** Evaluations on the way, step 0 first. */
  evaluations?: EvaluationPoint[];
}

export interface UpdatePoint {
  step: number;
  /** Mean relative reward of the update's prompts. */
  reward?: number;
  /** s+: the reward of the pictures with the positive caption; s−: with the negative one. */
  positive?: number;
  negative?: number;
  loss?: number;
  /** Global gradient norm before clipping. */
  gradientNorm?: number;
  /** ‖ΔW of this update‖ / ‖W‖. */
  updateRatio?: number;
  learningRate?: number;
  seconds?: number;
}

export interface EvaluationPoint {
  step: number;
  /** Mean optimised reward of the evaluated pictures. */
  reward?: number;
  /** Mean of the held-out judge by group, with its interval where known. */
  judge?: Partial<Record<Group, { mean: number; low?: number | null; high?: number | null }>>;
  signals?: Partial<Record<GuardSignal, number>>;
}

export interface PairCosine {
  item: string;
  positive: string;
  negative: string;
  cosine: number;
}

/** Above this cosine the two captions of a pair are nearly one caption, and s+ − s− is a nearly empty direction. */
export const PAIR_COSINE_WARNING = 0.98;

export interface DeviceInfo {
  /** Adapter name. */
  name: string;
  vendor?: string;
  driver?: string;
  /** Whether it is a software adapter. */
  software?: boolean;
  /** «Dawn» or «wgpu». */
  implementation?: string;
  backend?: string;
  features?: string[];
  gflops?: number;
  system?: string;
}

export interface PhaseTime {
  phase: string;
  seconds: number;
  /** Of how many calls, pictures or updates. */
  count?: number;
  unit?: string;
}

export interface MemoryCategory {
  category: string;
  plannedBytes: number;
  allocatedBytes?: number;
}

export interface Attribution {
  key: string;
  /** What it is: «Noto Emoji». */
  what: string;
  licence: string;
  credit: string;
  /** A page about it; the only kind of link that the report has. */
  url?: string;
}

export interface RunFile {
  path: string;
  bytes?: number;
  what: string;
}
