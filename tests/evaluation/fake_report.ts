// A made-up run for looking at the report page and for its tests. The numbers are invented but deterministic and of
// the size that real runs have; the pictures are the real emoji, blurred and tinted to stand for a model's drawings.
// Run directly, it writes the page: deno run -A --no-check tests/evaluation/fake_report.ts <folder>.

import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { decode, encode } from "fast-png";
import { RandomStream } from "../../src/base/random.ts";
import { advanceGuard, type GuardPoint, initialGuardState } from "../../src/evaluation/guards.ts";
import { renderModelCard } from "../../src/evaluation/model_card.ts";
import { EMBEDDED_LIMITS, EMBEDDED_USAGE, embeddedRemarks } from "../../src/evaluation/notes.ts";
import { renderReport } from "../../src/evaluation/report.ts";
import type {
  EvaluationPoint,
  ItemPictures,
  Picture,
  ReportData,
  UpdatePoint,
} from "../../src/evaluation/report_data.ts";
import { bootstrapMean, uniformsOf } from "../../src/evaluation/statistics.ts";
import { type Group, type ItemRow, summariseEvaluation } from "../../src/evaluation/summary.ts";

const EMBEDDED = join(dirname(fileURLToPath(import.meta.url)), "../../models/embedded");
const CELL = 64;

interface Item {
  item: string;
  category: string;
  region: string;
  tail: boolean;
  align: boolean;
}

type Cell = Uint8Array;

/** The embedded items, or a few invented ones where the data folder is absent. */
function items(): Item[] {
  const file = join(EMBEDDED, "items.json");
  if (existsSync(file)) return JSON.parse(readFileSync(file, "utf8")) as Item[];
  const regions = ["Japan", "Mexico", "China", ""];
  return Array.from({ length: 60 }, (_, i) => ({
    item: `item ${i}`,
    category: ["food", "clothing", "nature"][i % 3]!,
    region: i < 34 ? regions[i % 3]! : "",
    tail: i < 34,
    align: i < 32,
  }));
}

/** Reads a cell of a style's sheet: [64, 64, 3] bytes; a coloured square where there is none. */
function cellReader(): (item: string, style: string) => Cell {
  const index = join(EMBEDDED, "pictures.json");
  const sheets = new Map<string, ReturnType<typeof decode>>();
  const places = new Map<string, { sheet: string; column: number; row: number }>();
  if (existsSync(index)) {
    type Entry = { item: string; style: string; sheet: string; column: number; row: number };
    const { pictures } = JSON.parse(readFileSync(index, "utf8")) as { pictures: Entry[] };
    for (const p of pictures) places.set(`${p.item}/${p.style}`, p);
  }
  return (item, style) => {
    const place = places.get(`${item}/${style}`);
    const cell = new Uint8Array(CELL * CELL * 3).fill(255);
    if (!place) {
      for (let i = 0; i < cell.length; i++) cell[i] = [90, 140, 190][i % 3]! + (item.length % 7) * 8;
      return cell;
    }
    if (!sheets.has(place.sheet)) sheets.set(place.sheet, decode(readFileSync(join(EMBEDDED, place.sheet))));
    const sheet = sheets.get(place.sheet)!;
    for (let y = 0; y < CELL; y++) {
      for (let x = 0; x < CELL; x++) {
        const from = ((place.row * CELL + y) * sheet.width + place.column * CELL + x) * sheet.channels;
        for (let c = 0; c < 3; c++) cell[(y * CELL + x) * 3 + c] = Number(sheet.data[from + c]);
      }
    }
    return cell;
  };
}

/** Pictures made before, by item, style and strength: drawing them is most of the time that a made-up run takes. */
const drawn = new Map<string, Picture>();

function drawing(
  read: (item: string, style: string) => Cell,
  item: string,
  style: string,
  strength: number,
  shift: number,
): Picture {
  const key = `${item}/${style}/${strength}/${shift}`;
  const known = drawn.get(key) ?? toPicture(redraw(read(item, style), strength, shift), style);
  drawn.set(key, known);
  return known;
}

/** A drawing that is `strength` of the way from grey blur to the real picture. */
function redraw(cell: Cell, strength: number, shift: number): Cell {
  const radius = Math.round((1 - strength) * 7) + 1;
  const out = new Uint8Array(cell.length);
  for (let y = 0; y < CELL; y++) {
    for (let x = 0; x < CELL; x++) {
      for (let c = 0; c < 3; c++) {
        let sum = 0;
        let weight = 0;
        for (let dy = -radius; dy <= radius; dy += 2) {
          for (let dx = -radius; dx <= radius; dx += 2) {
            const yy = Math.min(CELL - 1, Math.max(0, y + dy));
            const xx = Math.min(CELL - 1, Math.max(0, x + dx + Math.round(3 * Math.sin((y + shift * 9) / 6))));
            sum += cell[(yy * CELL + xx) * 3 + c]!;
            weight++;
          }
        }
        out[(y * CELL + x) * 3 + c] = 255 - (255 - sum / weight) * (0.7 + 0.3 * strength);
      }
    }
  }
  return out;
}

function toPicture(cell: Cell, label: string, credit?: string): Picture {
  const png = encode({ width: CELL, height: CELL, data: cell, channels: 3, depth: 8 });
  const source = `data:image/png;base64,${Buffer.from(png).toString("base64")}`;
  return { source, width: CELL, height: CELL, label, ...(credit ? { credit } : {}) };
}

export interface FakeOptions {
  updates?: number;
  /** Makes the reward be gamed, so that the alarm is raised. */
  gamed?: boolean;
  seed?: number;
}

/** A whole run with everything in it. */
export function fakeReport({ updates = 40, gamed = false, seed = 3 }: FakeOptions = {}): ReportData {
  const noise = new RandomStream(seed, "made-up run");
  const normal = (step: number, index: number) => noise.normals(step, 1, index)[0]!;
  const all = items();
  const aligned = all.filter((i) => i.align);
  const head = all
    .filter((i) => !i.tail)
    .filter((_, i) => i % 18 === 0 || all.length < 100)
    .slice(0, 24);
  const read = cellReader();
  const rows: ItemRow[] = [];
  const pictures: ItemPictures[] = [];
  const members = [
    ...aligned.map((item) => [item, "aligned"] as const),
    ...head.map((item) => [item, "head"] as const),
  ];
  members.forEach(([item, group]: readonly [Item, Group], i) => {
    const base = group === "head" ? 0.65 : 0.48;
    const judge = Math.min(0.75, Math.max(0.12, base + 0.13 * normal(0, i)));
    const gain = group === "head" ? 0.014 * normal(1, i) - 0.002 : 0.054 + 0.075 * normal(1, i);
    const right = (value: number) => (value > 0.62 ? 1 : value > 0.5 ? 0.5 : 0);
    const saturation = 0.15 + 0.04 * Math.abs(normal(2, i));
    rows.push({
      item: item.item,
      category: item.category,
      region: item.region,
      group,
      pictures: 2,
      before: {
        judge,
        top1: right(judge),
        reward: judge - 0.05,
        diversity: group === "head" ? 0.19 : 0.38,
        saturation,
      },
      after: {
        judge: judge + gain,
        top1: right(judge + gain),
        reward: judge - 0.05 + gain * 1.3 + 0.01,
        diversity: (group === "head" ? 0.185 : 0.29) + 0.02 * normal(3, i),
        saturation: saturation + (group === "head" ? 0.02 : 0.035) + 0.01 * normal(4, i),
      },
    });
    const styles = ["noto", "twitter"];
    const strength = (value: number) => Math.min(0.95, Math.max(0.05, (value - 0.2) / 0.6));
    pictures.push({
      item: item.item,
      category: item.category,
      region: item.region,
      group,
      real: styles.map((style) => toPicture(read(item.item, style), style, style)),
      before: styles.map((style, k) => drawing(read, item.item, style, strength(judge), k + i)),
      after: styles.map((style, k) => drawing(read, item.item, style, strength(judge + gain), k + i)),
    });
  });

  const points: UpdatePoint[] = [];
  for (let step = 1; step <= updates; step++) {
    const positive = 0.42 + 0.055 * (step / 40) + 0.05 * normal(5, step);
    const negative = positive - 0.004 - 0.002 * normal(6, step) - 0.001 * (step / 40);
    points.push({
      step,
      positive,
      negative,
      reward: positive - negative + positive,
      loss: 0.7 - positive,
      gradientNorm: 1.4 * Math.exp(0.35 * normal(7, step)),
      updateRatio: 3e-4 * Math.min(1, step / 11) * Math.exp(0.06 * normal(8, step)),
      learningRate: 3e-5 * Math.min(1, step / 11),
      seconds: 4.1 + 0.08 * normal(10, step),
    });
  }
  let guards = initialGuardState();
  const evaluations: EvaluationPoint[] = [];
  for (let step = 0; step <= updates; step += 10) {
    const t = step / 40;
    const signals: GuardPoint["signals"] = {
      judge: 0.496 + (gamed ? -0.06 : 0.054) * t,
      diversity: 0.383 - (gamed ? 0.3 : 0.11) * Math.min(1, t),
      saturation: 0.158 + (gamed ? 0.16 : 0.034) * t,
      contrast: 0.2 + 0.012 * t,
      sharpness: 0.061 + 0.011 * t,
      grid8: 0.0011 + 0.0004 * t,
      grid16: 0.0023 + 0.0009 * t,
    };
    const reward = 0.438 + 0.06 * t;
    guards = advanceGuard(guards, { step, reward, signals });
    const spread = bootstrapMean(
      rows.filter((r) => r.group === "aligned").map((r) => r.before.judge),
      uniformsOf(seed, "spread"),
    );
    const half = ((spread.high ?? 0) - (spread.low ?? 0)) / 2;
    const around = (mean: number, h: number) => ({ mean, low: mean - h, high: mean + h });
    const judge = { aligned: around(signals.judge!, half), head: around(0.66 - 0.002 * t, half * 0.6) };
    evaluations.push({ step, reward, judge, signals });
  }

  return {
    name: "embedded-srpo-mia",
    createdAt: "2026-03-01T12:30:00Z",
    status: {
      state: gamed ? "alarm" : "complete",
      updatesDone: updates,
      updatesPlanned: gamed ? updates + 40 : updates,
      ...(gamed ? { weightsFrom: 10 } : {}),
    },
    method: {
      label: "SRPO with MIA pairs",
      training: "full",
      rank: 16,
      energyKept: 0.923,
      learningRate: 3e-5,
      batch: 4,
      warmup: 10,
      clip: 0.1,
      sigma: [0.9643, 0.5],
      discountPositive: [1, 1],
      discountInversion: [0, 0],
      rolloutSteps: 6,
      seed: 1,
    },
    model: {
      label: "embedded micro-FLUX",
      architecture: "FluxTransformer2DModel",
      parameters: 8_153_344,
      trainedParameters: 8_153_344,
      autoencoder: "TAEF2",
      reward: "micro CLIP, open_clip architecture, 3.47 M",
      judge: "micro CLIP of another size, seed and data, 1.92 M",
      base: "models/embedded",
      usageNote: EMBEDDED_USAGE,
      licence: "MIT",
      width: 64,
      height: 64,
    },
    evaluation: {
      rows,
      summary: summariseEvaluation(rows, seed),
      protocol: "6 sampler steps, shift 1.5, styles noto and twitter, captions without a style word",
      picturesPerItem: 2,
      candidates: 525,
      seed: 1234,
    },
    pictures,
    curves: { updates: points, evaluations },
    guards,
    pairs: aligned.map((item, i) => ({
      item: item.item,
      positive: `icon of ${item.item}. ${item.category}${item.region ? `, ${item.region}` : ""}`,
      negative: `icon of ${item.item}`,
      cosine: Math.min(0.9999, 0.9966 + 0.0015 * normal(9, i) - (i % 11 === 3 ? 0.021 : 0)),
    })),
    config: `[model]\nname = "embedded"\n\n[align]\nmethod = "srpo"\npair = "mia"\nsteps = ${updates}\nlr = 3e-5\n`,
    device: {
      name: "llvmpipe (LLVM 15.0.7, 256 bits)",
      vendor: "Mesa",
      driver: "Mesa 22.3.6",
      software: true,
      implementation: "Dawn",
      backend: "Vulkan",
      features: ["shader-f16", "subgroups"],
      gflops: 15.4,
      system: "linux x86_64, 2 cores",
    },
    timing: [
      { phase: "set-up", seconds: 1.4 },
      { phase: "pipelines", seconds: 6.2, count: 84, unit: "pipelines" },
      { phase: "before: pictures and judge", seconds: 33, count: 112, unit: "pictures" },
      { phase: "alignment", seconds: 168, count: updates, unit: "updates" },
      { phase: "after: pictures and judge", seconds: 33, count: 112, unit: "pictures" },
      { phase: "files and report", seconds: 2.3 },
    ],
    memory: [
      { category: "weights", plannedBytes: 56_400_000, allocatedBytes: 56_400_000 },
      { category: "optimizer", plannedBytes: 65_226_752, allocatedBytes: 65_226_752 },
      { category: "gradients", plannedBytes: 32_613_376, allocatedBytes: 32_613_376 },
      { category: "activations", plannedBytes: 402_000_000, allocatedBytes: 410_000_000 },
      { category: "workspace", plannedBytes: 21_000_000, allocatedBytes: 21_000_000 },
    ],
    versions: { longtail: "0.1.0", deno: "2.9.6", webgpu: "0.6.2" },
    attributions: [
      {
        key: "noto",
        what: "Noto Emoji",
        licence: "Apache-2.0",
        credit: "Google Inc",
        url: "https://github.com/googlefonts/noto-emoji",
      },
      {
        key: "twitter",
        what: "Twemoji",
        licence: "CC-BY 4.0",
        credit: "Twitter, Inc and other contributors; rasterised at 64 × 64 on white",
        url: "https://github.com/jdecked/twemoji",
      },
      { key: "taef2", what: "TAEF2", licence: "MIT", credit: "madebyollin" },
    ],
    files: [
      {
        path: "embedded-srpo-mia.transformer.safetensors",
        bytes: 16_310_000,
        what: "the aligned transformer, diffusers keys",
      },
      {
        path: "embedded-srpo-mia.lora.safetensors",
        bytes: 2_400_000,
        what: "LoRA of the difference, rank 16 on every Linear",
      },
      { path: "log.jsonl", bytes: 31_000, what: "one event a line" },
    ],
    command: "npm start -- --align.seed=1",
    limits: [...EMBEDDED_LIMITS],
    remarks: embeddedRemarks(updates),
    events: [{ step: 0, code: "W-RUN-010", text: "29 of 32 prompt pairs have cos(t+, t−) above .98" }],
  };
}

/** Runs with little or odd data, each of which has to make a sound page. */
export function sparseReports(): Record<string, ReportData> {
  const full = fakeReport();
  const bare: ReportData = {
    name: "bare",
    createdAt: "2026-03-01T12:30:00Z",
    status: { state: "stopped", updatesDone: 1, updatesPlanned: 40, reason: "Ctrl-C." },
    method: { label: "SRPO", training: "lora" },
    model: { label: "tiny", architecture: "FluxTransformer2DModel" },
  };
  const few = full.evaluation!.rows.slice(0, 3);
  return {
    bare,
    "no update": {
      ...bare,
      status: { state: "failed", updatesDone: 0, updatesPlanned: 40, reason: "E-NUM-001 <loss> is not finite" },
    },
    "one update": {
      ...full,
      curves: { updates: full.curves!.updates.slice(0, 1), evaluations: full.curves!.evaluations!.slice(0, 1) },
      status: { state: "complete", updatesDone: 1, updatesPlanned: 1 },
    },
    "not evaluated": {
      ...full,
      evaluation: undefined,
      status: { state: "stopped", updatesDone: 17, updatesPlanned: 40 },
    },
    "three items": { ...full, evaluation: { rows: few, summary: summariseEvaluation(few) } },
    "no items": { ...full, evaluation: { rows: [], summary: summariseEvaluation([]) }, pictures: [] },
    "values that are not finite": {
      ...bare,
      curves: {
        updates: [
          { step: 1, loss: Number.NaN, gradientNorm: 0 },
          { step: 2, loss: 0.3, gradientNorm: Number.POSITIVE_INFINITY },
        ],
      },
      memory: [{ category: "weights", plannedBytes: 0 }],
      timing: [{ phase: "set-up", seconds: 0 }],
      device: { name: "" },
    },
    alarm: fakeReport({ updates: 60, gamed: true }),
  };
}

if (import.meta.main) {
  const folder = process.argv[2] ?? ".";
  mkdirSync(folder, { recursive: true });
  const pages = { full: fakeReport(), ...sparseReports() };
  for (const [name, data] of Object.entries(pages)) {
    const stem = join(folder, name.replaceAll(" ", "-"));
    writeFileSync(`${stem}.html`, renderReport(data));
    writeFileSync(`${stem}.md`, renderModelCard(data));
  }
}
