// Chooses kernel variants by measuring them on the adapter at hand, for the shapes of the plans at hand, the costliest
// first, within a time budget. Choices are plain data: the command line keeps them on disk per adapter and driver and
// writes them into run folder and checkpoint, because another variant may round differently.

import copySource from "../../shaders/copy.wgsl" with { type: "text" };
import { f32ToF16 } from "../base/halves.ts";
import type { Gpu } from "../gpu/device.ts";
import { PipelineCache } from "../gpu/pipelines.ts";
import { Readback, upload } from "../gpu/transfer.ts";
import { Executable } from "./executable.ts";
import { type ChoiceAsked, Lowering, type Slot, type Target } from "./lower.ts";
import type { Plan } from "./session.ts";

/** Variant by "family|key". */
export type KernelChoices = Record<string, string>;

/** Variants worth measuring beside the default, by family; those that an adapter cannot run are left out. */
const CANDIDATES: Readonly<Record<"software" | "hardware", Readonly<Record<string, readonly string[]>>>> = {
  // Compiling costs a CPU adapter more than running: only what was seen to win for some shapes.
  software: {
    matmul: ["direct_32x4x8_broadcast", "direct_32x4x16_broadcast", "tiled_64x64x16"],
    conv2d: ["direct_32x4x8_broadcast"],
    conv2d_grad_weight: [],
  },
  hardware: {
    matmul: ["tiled_128x64x16", "tiled_64x64x16", "tiled_32x32x16", "direct_8x2x64", "direct_4x2x64"],
    conv2d: ["direct_8x4x64", "direct_16x2x64", "direct_4x2x64", "direct_8x1x64"],
    conv2d_grad_weight: ["weight_8x8", "weight_4x32"],
  },
};

/** Ends of the names of forms on subgroup matrices that are worth measuring. */
const MATRIX_FORM = /_(128x128|128x64|64x128|64x64)(_split4|_band8|_straight)?$|_[48](_shared2)?(_ahead)?$/;

/** Forms on the adapter's largest matrices, which are named first; every further size would cost seconds of compilation. */
function matrixForms(variants: readonly string[]): string[] {
  const all = variants.filter((name) => name.startsWith("matrix_"));
  const size = all[0]?.split("_")[1];
  return all.filter((name) => name.split("_")[1] === size && MATRIX_FORM.test(name));
}

/** A variant must win by this factor: a smaller gain may be noise, and every change costs a pipeline. */
const WORTHWHILE = 1.08;
/** A run that takes so many times as long as what it must beat is not repeated. */
const HOPELESS = 4;
/** Device time of one measurement. */
const MEASURE_SECONDS = 0.012;

export const choiceKey = (family: string, key: string): string => `${family}|${key}`;

/** A `choose` function that answers from `choices`, and the default (null) for everything else. */
export function chooseFrom(choices: Readonly<KernelChoices>): Target["choose"] {
  return (family, key, variants) => {
    const name = choices[choiceKey(family, key)];
    return name !== undefined && variants.includes(name) ? name : null;
  };
}

/** A variant that the driver compiles wrongly. */
export interface FaultyVariant {
  /** "family|key" of the choice that it was tried for. */
  choice: string;
  /** The variant, or "" for the default. */
  name: string;
}

export interface TuningReport {
  /** Choices measured now, the default included where it won ("" then). */
  measured: KernelChoices;
  /** Variants whose results were wrong; none of them is chosen. */
  faulty: FaultyVariant[];
  /** Keys that the budget did not reach. */
  left: number;
  seconds: number;
}

/**
 * Measures the variants of the plans' costliest choices that `known` does not answer. A variant is chosen only where its
 * result is the default's within `SAME`. Where one is wrong, a third decides which of both is wrong; a default that is wrong
 * gives way whatever it takes.
 * @param budgetSeconds wall time after which no further variant is measured
 */
export async function tune(
  gpu: Gpu,
  target: Target,
  plans: readonly Plan[],
  known: Readonly<KernelChoices>,
  budgetSeconds: number,
): Promise<TuningReport> {
  const started = performance.now();
  const elapsed = () => (performance.now() - started) / 1000;
  const cache = new PipelineCache(gpu);
  const asked = costliest(plans).filter((c) => !(choiceKey(c.family, c.key) in known));
  const measured: KernelChoices = {};
  const faulty: FaultyVariant[] = [];
  let left = 0;
  for (const choice of asked) {
    if (elapsed() > budgetSeconds) {
      left++;
      continue;
    }
    const own = CANDIDATES[target.software ? "software" : "hardware"][choice.family] ?? [];
    const candidates = own.filter((name) => choice.variants.includes(name));
    if (!target.software) candidates.push(...matrixForms(choice.variants));
    if (candidates.length === 0) continue;
    const key = choiceKey(choice.family, choice.key);
    const run = (name: string | null, most?: number) => measure(gpu, cache, target, choice, name, most);
    const base = await run(null);
    let best = { name: "", seconds: base.seconds / WORTHWHILE };
    let isBaseWrong = false;
    for (const name of candidates) {
      // What was measured of a choice stands: a shape whose variants take longer than the budget is not begun anew each time.
      if (elapsed() > budgetSeconds) break;
      const found = await run(name, best.seconds);
      if (isBaseWrong || agrees(found.output, base.output)) {
        if (found.seconds < best.seconds && !isBaseWrong) best = { name, seconds: found.seconds };
        continue;
      }
      if (agrees(found.output, base.output, FAULT)) continue;
      // A driver that compiles a variant wrongly must not be asked for it, however fast it is.
      const witness = await thirdOf(choice, [base, found], run);
      isBaseWrong = witness !== null && agrees(found.output, witness.output) && !agrees(base.output, witness.output);
      if (isBaseWrong) best = { name, seconds: found.seconds };
      faulty.push({ choice: key, name: isBaseWrong ? "" : name });
    }
    // A neighbour on the machine can slow one measurement: a winner has to win twice.
    if (best.name !== "" && !isBaseWrong) {
      const again = await run(null);
      if (again.seconds / WORTHWHILE < best.seconds) best.name = "";
    }
    measured[key] = best.name;
  }
  return { measured, faulty, left, seconds: elapsed() };
}

/** The result of a plain variant that is none of two; null where there is no other. */
async function thirdOf(
  choice: ChoiceAsked,
  two: readonly Measured[],
  run: (name: string, most: number) => Promise<Measured>,
): Promise<Measured | null> {
  // The plainest decides: faults come with subgroups and workgroup memory, and variants that use them share them.
  const plain = choice.variants.filter((name) => !/^matrix|^tiled|_broadcast$/.test(name));
  for (const name of plain) {
    const found = await run(name, 0);
    if (two.every(({ kernel }) => kernel !== found.kernel)) return found;
  }
  return null;
}

/** One entry a key, by the FLOP that all plans spend under it. */
function costliest(plans: readonly Plan[]): ChoiceAsked[] {
  const cost = new Map<string, { choice: ChoiceAsked; flops: number }>();
  for (const plan of plans) {
    for (const choice of plan.lowered.choices) {
      const key = choiceKey(choice.family, choice.key);
      const entry = cost.get(key) ?? { choice, flops: 0 };
      entry.flops += flopsOf(choice);
      cost.set(key, entry);
    }
  }
  return [...cost.values()].sort((a, b) => b.flops - a.flops).map((entry) => entry.choice);
}

function flopsOf(choice: ChoiceAsked): number {
  const size = (i: number) => choice.node.inputs[i]?.size ?? 1;
  // Good enough to rank: products of operand sizes grow with the work.
  return Math.sqrt(size(0) * size(1) * (choice.node.outputs[0]?.size ?? 1));
}

interface Measured {
  /** The least of a few runs. */
  seconds: number;
  /** What the node's calls wrote, from fixed inputs. */
  output: Float32Array;
  /** Tells its kernels from those of another variant. */
  kernel: string;
}

/** Relative L2 difference that a variant may have to the default: what rounding of factors to f16 explains. */
const SAME = 1e-3;
/** Above this it is a fault: one wrong value of a thousand, as large as the others, is three times as much. */
const FAULT = 1e-2;

function agrees(a: Float32Array, b: Float32Array, bound = SAME): boolean {
  let difference = 0;
  let norm = 0;
  for (let i = 0; i < a.length; i++) {
    difference += (a[i]! - b[i]!) ** 2;
    norm += b[i]! ** 2;
  }
  return difference <= bound ** 2 * norm;
}

/**
 * Runs the node's calls with a variant on fixed inputs.
 * @param most seconds; what takes several times as long is run but once
 */
async function measure(
  gpu: Gpu,
  cache: PipelineCache,
  target: Target,
  choice: ChoiceAsked,
  name: string | null,
  most = Number.POSITIVE_INFINITY,
): Promise<Measured> {
  const forced: Target = {
    ...target,
    choose: (family, key, variants) =>
      name !== null && family === choice.family && key === choice.key ? name : target.choose(family, key, variants),
  };
  const lowering = new Lowering(forced, copySource);
  lowering.one(choice.node);
  const buffers = new Map<Slot, GPUBuffer>();
  const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_DST | GPUBufferUsage.COPY_SRC;
  const where = (slot: Slot) => {
    let buffer = buffers.get(slot);
    if (!buffer) {
      buffer = gpu.device.createBuffer({ size: Math.max(256, slot.bytes), usage });
      upload(gpu, buffer, 0, fixedValues(slot, buffers.size));
      buffers.set(slot, buffer);
    }
    return { buffer, offset: 0 };
  };
  const readback = new Readback(gpu);
  try {
    const executable = await Executable.build(gpu, cache, lowering.calls, where);
    const last = lowering.calls.at(-1)!;
    const out = last.bindings[last.writes.indexOf(true)]!;
    const run = async (times: number) => {
      const started = performance.now();
      for (let i = 0; i < times; i++) executable.replay();
      await gpu.wait(gpu.device.queue.onSubmittedWorkDone());
      return (performance.now() - started) / 1000 / times;
    };
    const once = await run(1);
    const output = new Float32Array(await readback.read(buffers.get(out)!, 0, out.bytes));
    const kernel = JSON.stringify(lowering.calls.map(({ label, constants }) => [label, constants]));
    const times = Math.max(1, Math.min(50, Math.round(MEASURE_SECONDS / Math.max(once, 1e-5))));
    // The first run pays for what is done once, so a second one decides whether it is hopeless.
    const bound = HOPELESS * most + MEASURE_SECONDS;
    const second = once > bound ? await run(1) : once;
    const seconds = second > bound ? second : Math.min(await run(times), await run(times), await run(times));
    executable.destroy();
    return { seconds, output, kernel };
  } finally {
    readback.destroy();
    for (const buffer of buffers.values()) buffer.destroy();
  }
}

/** The same numbers for the same slot of every variant; small halves and floats alike, never NaN. */
function fixedValues(slot: Slot, seed: number): Float32Array | Uint16Array | Uint32Array {
  const count = slot.dtype === "f16" ? slot.bytes / 2 : slot.bytes / 4;
  const values = new Float32Array(count);
  let state = (seed + 1) * 0x9e3779b9;
  for (let i = 0; i < count; i++) {
    state = (Math.imul(state ^ (state >>> 15), 0x2c1b3c6d) + 0x9e3779b9) >>> 0;
    values[i] = state / 2 ** 31 - 1;
  }
  // Words may be codes of a stored weight: both halves of one are small numbers as f16 and as bf16.
  if (slot.dtype === "u32") return new Uint32Array(values.buffer).map((bits) => (bits >>> 16) * 0x10001);
  return slot.dtype === "f16" ? f32ToF16(values) : values;
}
