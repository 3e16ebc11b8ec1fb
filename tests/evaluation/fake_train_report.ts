// A made-up training run for looking at its page and for its tests. The numbers are invented but deterministic and of the
// size that real runs have; the pictures are drawn here: a coloured shape that comes out of noise as training goes on.
// Run directly, it writes the pages: deno run -A --no-check tests/evaluation/fake_train_report.ts <folder>.

import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { RandomStream } from "../../src/base/random.ts";
import { renderLoraCard } from "../../src/evaluation/lora_card.ts";
import type { Picture } from "../../src/evaluation/report_data.ts";
import { renderTrainReport } from "../../src/evaluation/train_report.ts";
import type { SampleColumn, StepPoint, TrainReportData } from "../../src/evaluation/train_report_data.ts";
import { dataUri, encodePng } from "../../src/formats/png.ts";

const PROMPTS = [
  "a photo of a sks kettle on a wooden table, morning light",
  "a sks kettle in the snow",
  "a watercolour of a sks kettle beside a stack of old books, a cat asleep behind it, muted colours, fine paper texture",
  "a teapot",
];

/** A disc over a gradient in the prompt's colours, `strength` of the way out of noise. */
function drawing(index: number, strength: number, width = 48, height = 48): Picture {
  const noise = new RandomStream(7, "made-up picture").normals(index, width * height * 3);
  const data = new Uint8Array(width * height * 3);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const inside = Math.hypot(x - width * (0.4 + 0.07 * index), y - height * 0.55) < width * 0.28;
      const colour = inside ? [200 - 40 * index, 90 + 30 * index, 60] : [150 + y, 170 + 10 * index, 190 - x / 2];
      for (let c = 0; c < 3; c++) {
        const i = (y * width + x) * 3 + c;
        data[i] = Math.min(255, Math.max(0, colour[c]! * strength + (1 - strength) * (128 + 50 * noise[i]!)));
      }
    }
  }
  return { source: dataUri(encodePng({ width, height, channels: 3, depth: 8, data })), width, height };
}

export interface FakeTrainOptions {
  steps?: number;
  seed?: number;
}

/** A whole run with everything in it. */
export function fakeTrainReport({ steps = 1200, seed = 5 }: FakeTrainOptions = {}): TrainReportData {
  const random = new RandomStream(seed, "made-up training");
  const normal = (step: number, index: number) => random.normals(step, 1, index)[0]!;
  const points: StepPoint[] = [];
  for (let step = 1; step <= steps; step++) {
    const sigma = 1 / (1 + Math.exp(-normal(step, 0)));
    const learnt = 1 - 0.12 * (1 - Math.exp(-step / 300));
    points.push({
      step,
      sigma,
      loss: Math.abs((0.2 + 0.55 * (sigma - 0.6) ** 2) * learnt * (1 + 0.18 * normal(step, 1))),
      learningRate: 1e-4 * Math.min(1, step / 51) * (0.5 + 0.5 * Math.cos((Math.PI * step) / steps)),
      gradientNorm: 0.35 * Math.exp(0.45 * normal(step, 2)),
      updateRatio: 4e-4 * Math.exp(0.2 * normal(step, 3)),
      lossScale: step < 400 ? 65536 : 32768,
      seconds: step === 1 ? 9 : 3.4 + 0.05 * Math.abs(normal(step, 4)),
      finite: step !== 400,
    });
  }
  const every = Math.max(1, Math.floor(steps / 12));
  const marks = Array.from({ length: Math.floor(steps / every) + 1 }, (_, i) => i * every);
  const columns: SampleColumn[] = marks.map((step) => ({
    step,
    pictures: PROMPTS.map((_, i) => ({
      ...drawing(i, i === 3 ? 0.82 : 0.25 + 0.75 * (1 - Math.exp((-3 * step) / steps)), i === 1 ? 64 : 48, 48),
      path: `samples/step-${String(step).padStart(6, "0")}/0${i}-seed${42 + i}.png`,
    })),
  }));
  return {
    kind: "train",
    name: "sks-kettle",
    createdAt: "2026-11-21T16:32:10.000Z",
    status: { state: "complete", stepsDone: steps, stepsPlanned: steps, resumedAt: [Math.floor(steps / 2)] },
    method: {
      adapter: "lora",
      rank: 16,
      alpha: 16,
      layers: 304,
      targets: "diffusers' set",
      optimizer: "AdamW, 8-bit state",
      learningRate: 1e-4,
      schedule: "cosine",
      warmup: 50,
      batch: 1,
      accumulation: 4,
      clip: 1,
      sampling: "logit-normal",
      weighting: "none",
      loss: "mean squared error",
      guidance: 1,
      averageDecay: 0.999,
      captionDropout: 0.1,
      checkpointing: true,
      storage: "nf4, computed in f16",
      seed: 1,
    },
    model: {
      label: "FLUX.1-dev",
      architecture: "FluxTransformer2DModel",
      pipelineClass: "FluxPipeline",
      parameters: 11_901_408_320,
      trainedParameters: 37_355_520,
      autoencoder: "AutoencoderKL, 16 channels",
      base: "black-forest-labs/FLUX.1-dev",
      hubName: "black-forest-labs/FLUX.1-dev",
      licence: "other",
      licenceName: "flux-1-dev-non-commercial-license",
      licenceUrl: "https://huggingface.co/black-forest-labs/FLUX.1-dev/blob/main/LICENSE.md",
    },
    trigger: "sks kettle",
    curves: {
      steps: points,
      validation: marks.map((step) => ({
        step,
        loss: 0.412 - 0.032 * (1 - Math.exp((-4 * step) / steps)) + 0.0006 * normal(step, 9),
      })),
    },
    samples: {
      prompts: PROMPTS.map((prompt, i) => ({ prompt, seed: 42 + i, width: 1024, height: 1024 })),
      columns,
      protocol: "28 Euler steps, guidance 3.5, the running mean of the weights at strength 1",
    },
    data: {
      pictures: 38,
      validation: 4,
      prior: 12,
      draws: 4 * steps,
      sets: [
        { name: "kettle", pictures: 26, repeats: 10, weight: 1, split: "train" },
        { name: "kettle_held_out", pictures: 4, repeats: 1, weight: 1, split: "validation" },
        { name: "kettles of the class", pictures: 12, repeats: 1, weight: 1, prior: true },
      ],
      buckets: [
        { width: 1024, height: 1024, pictures: 19, repeated: 127 },
        { width: 832, height: 1216, pictures: 12, repeated: 102 },
        { width: 1216, height: 832, pictures: 7, repeated: 43 },
      ],
      dropped: [
        {
          name: "IMG_2210.png",
          set: "kettle",
          code: "E-DATA-020",
          why: "the picture does not decode: it ends too early",
        },
        {
          name: "scan/2019-08-14 old kettle (2).jpg",
          set: "kettle",
          code: "E-DATA-014",
          why: "it is smaller than its bucket, and upscaling is off",
        },
        { name: "IMG_2214.png", set: "kettle", code: "E-DATA-013", why: "the same picture as IMG_2213.png" },
      ],
      examples: [0, 1, 2, 3].map((i) => ({
        picture: { ...drawing(i, 1, i === 2 ? 40 : 60, i === 2 ? 60 : 48), credit: "own" },
        caption: PROMPTS[i]!,
        name: `IMG_22${i}.jpg`,
      })),
    },
    settings: [
      ["Resolution", "1024 px, buckets in steps of 64"],
      ["Caption shuffling", "tags, the first kept"],
    ],
    config: '[train]\nsteps = 1200\nbatch = 1\n\n[adapter]\nkind = "lora"\nrank = 16\n',
    files: [
      { path: "sks-kettle.lora.safetensors", bytes: 74_760_192, what: "the LoRA, diffusers' keys", role: "diffusers" },
      { path: "sks-kettle.kohya.safetensors", bytes: 74_842_112, what: "the LoRA, kohya's keys", role: "kohya" },
      { path: "config.resolved.toml", bytes: 6_210, what: "every setting with its origin" },
      { path: "log.jsonl", bytes: 402_113, what: "every event of the run, one a line" },
      { path: "tb/", what: "the same for TensorBoard" },
      { path: "samples/", what: "the samples of every step" },
      { path: "ckpt/", what: "checkpoints with optimizer state", role: "checkpoint" },
    ],
    speed: {
      stepsPerSecond: 0.287,
      median: 3.42,
      slowest: 3.61,
      picturesPerSecond: 1.15,
      hostShare: 0.013,
      loaderStall: 0.002,
      utilisation: 0.61,
      gflops: 21_400,
    },
    timing: [
      { phase: "read pictures", seconds: 21, count: 42, unit: "pictures" },
      { phase: "cache latents and texts", seconds: 94, count: 42, unit: "pictures" },
      { phase: "compile and load", seconds: 48 },
      { phase: "train", seconds: 4182, count: steps, unit: "steps" },
      { phase: "validate", seconds: 112, count: 13, unit: "times" },
      { phase: "samples", seconds: 388, count: 52, unit: "pictures" },
      { phase: "save", seconds: 7 },
    ],
    memory: [
      { category: "frozen weights", plannedBytes: 6.9 * 2 ** 30 },
      { category: "adapter and optimizer", plannedBytes: 0.31 * 2 ** 30 },
      { category: "activations and workspace", plannedBytes: 4.2 * 2 ** 30 },
      { category: "total", plannedBytes: 11.41 * 2 ** 30, allocatedBytes: 11.62 * 2 ** 30 },
    ],
    device: {
      name: "NVIDIA GeForce RTX 4080",
      driver: "NVIDIA 580.1",
      implementation: "Dawn",
      backend: "Vulkan",
      features: ["f16", "subgroups"],
      system: "Linux 6.12, 16 cores",
    },
    versions: { longtail: "0.1.0", deno: "2.9.6", "dawn (npm webgpu)": "0.6.2" },
    attributions: [
      { key: "own", what: "Pictures of the kettle", licence: "CC BY 4.0", credit: "A. Example" },
      {
        key: "flux",
        what: "FLUX.1-dev",
        licence: "FLUX.1-dev licence",
        credit: "Black Forest Labs",
        url: "https://huggingface.co/black-forest-labs/FLUX.1-dev",
      },
    ],
    command: "npx longtail train kettle.toml --train.steps=1200",
    events: [
      { code: "E-DATA-030", text: "3 files of the data were left out" },
      { step: 400, code: "E-NUM-003", text: "the gradient was not finite; the loss scale was halved" },
    ],
  };
}

/** Runs with little or odd data. */
export function sparseTrainReports(): Record<string, TrainReportData> {
  const full = fakeTrainReport({ steps: 60 });
  const bare: TrainReportData = {
    kind: "train",
    name: "bare",
    createdAt: "2026-11-21T16:32:10.000Z",
    status: { state: "stopped", stepsDone: 3, stepsPlanned: 500, reason: "stopped by Ctrl-C" },
    method: { adapter: "lora", rank: 4 },
    model: { label: "embedded micro-FLUX", architecture: "FluxTransformer2DModel" },
  };
  const points = full.curves!.steps;
  return {
    bare,
    "no step": {
      ...bare,
      status: { state: "failed", stepsDone: 0, stepsPlanned: 40, reason: "E-NUM-001 <loss> is not finite" },
      samples: { prompts: full.samples!.prompts, columns: full.samples!.columns.slice(0, 1) },
    },
    "one step": {
      ...full,
      status: { state: "complete", stepsDone: 1, stepsPlanned: 1 },
      curves: { steps: points.slice(0, 1), validation: full.curves!.validation!.slice(0, 1) },
      samples: { prompts: full.samples!.prompts, columns: full.samples!.columns.slice(0, 2) },
    },
    "a resumed run": {
      ...full,
      status: { state: "complete", stepsDone: 60, stepsPlanned: 60, resumedAt: [20, 40], weightsFrom: 50 },
      curves: { steps: [...points.slice(0, 25), ...points.slice(20, 44), ...points.slice(40)] },
    },
    "embedded LoKr": {
      ...full,
      method: { adapter: "lokr", rank: 8, factor: 8 },
      model: {
        label: "embedded micro-FLUX",
        architecture: "FluxTransformer2DModel",
        base: "models/embedded",
        licence: "MIT",
      },
    },
    overfitting: {
      ...full,
      curves: {
        steps: points,
        validation: [0.42, 0.38, 0.36, 0.37, 0.39, 0.41].map((loss, i) => ({ step: i * 12, loss })),
      },
    },
    "full fine-tuning": {
      ...full,
      method: { adapter: "full", optimizer: "AdamW" },
      trigger: undefined,
      files: [{ path: "x.transformer.safetensors", what: "the transformer", role: "transformer" }],
    },
    "many columns and prompts": {
      ...full,
      samples: {
        prompts: Array.from({ length: 20 }, (_, i) => ({ prompt: `prompt ${i}`, seed: i })),
        columns: Array.from({ length: 30 }, (_, k) => ({
          step: k * 10,
          pictures: Array.from({ length: 20 }, (_, i) => (i === 4 && k === 0 ? null : drawing(i % 4, k / 29, 16, 16))),
        })),
      },
      data: {
        pictures: 1,
        dropped: Array.from({ length: 30 }, (_, i) => ({
          name: `f${i}.png`,
          code: "E-DATA-020",
          why: "does not decode",
        })),
      },
    },
    "values that are not finite": {
      ...bare,
      curves: {
        steps: [
          { step: 1, loss: Number.NaN, gradientNorm: 0 },
          { step: 2, loss: 0.3, gradientNorm: Number.POSITIVE_INFINITY, finite: false },
        ],
        validation: [{ step: 0, loss: Number.NaN }],
      },
      memory: [{ category: "total", plannedBytes: 0, allocatedBytes: 5 }],
      timing: [{ phase: "set-up", seconds: 0 }],
      device: { name: "" },
      data: { pictures: 0, buckets: [{ width: 64, height: 64, pictures: 0 }] },
      speed: { stepsPerSecond: 0 },
    },
  };
}

if (import.meta.main) {
  const folder = process.argv[2] ?? ".";
  mkdirSync(folder, { recursive: true });
  for (const [name, data] of Object.entries({ full: fakeTrainReport(), ...sparseTrainReports() })) {
    const stem = join(folder, name.replaceAll(" ", "-"));
    writeFileSync(`${stem}.html`, renderTrainReport(data));
    writeFileSync(`${stem}.md`, renderLoraCard(data));
  }
}
