// One device for a test file, and helpers that run a traced function on it: outputs are poisoned before, padding is
// checked behind. LONGTAIL_TEST_GPU=deno runs the same tests on Deno's own implementation of WebGPU.

import process from "node:process";
import { type Gpu, openDevice } from "../../src/gpu/device.ts";
import { backward } from "../../src/ops/backward.ts";
import type { Graph, Tensor } from "../../src/tensor/graph.ts";
import { Session } from "../../src/tensor/session.ts";
import type { DType, Shape } from "../../src/tensor/shape.ts";
import { openGpu } from "../../src/platform/adapters.ts";
import { rest } from "../../src/platform/rest.ts";
import { targetOf } from "../../src/tensor/target.ts";
import { f16ToF32, f32ToF16 } from "../../src/base/halves.ts";

export type Numbers = Float32Array | Float64Array | number[];

export interface InputSpec {
  shape: Shape;
  values: Numbers;
  dtype?: DType;
}

let opened: Promise<Gpu> | null = null;

export function testGpu(): Promise<Gpu> {
  opened ??= openTestGpu();
  return opened;
}

async function openTestGpu(): Promise<Gpu> {
  const backend = process.env.LONGTAIL_TEST_GPU === "deno" ? "deno" : "dawn";
  return openDevice(await openGpu({ backend, robust: process.env.LONGTAIL_ROBUST === "1" }), { rest });
}

export interface RunResult {
  outputs: Float32Array[];
  /** Gradients of the inputs, where `gradientOf` asked for them. */
  gradients: (Float32Array | null)[];
  calls: string[];
}

/**
 * Traces `body` on the inputs, runs it and returns the outputs as f32. With `seeds` (one per output) the backward pass
 * is traced too and the gradients of all f32 and f16 inputs come back.
 */
export async function runOps(
  inputs: InputSpec[],
  body: (tensors: Tensor[], graph: Graph) => Tensor[],
  options: { seeds?: Numbers[]; fuse?: boolean; repeat?: boolean } = {},
): Promise<RunResult> {
  const gpu = await testGpu();
  const session = new Session(targetOf(gpu), { fuse: options.fuse });
  try {
    const variables = inputs.map((spec, i) => session.data(`in${i}`, spec.shape, spec.dtype ?? "f32"));
    const outputs: ReturnType<Session["data"]>[] = [];
    const gradients: (ReturnType<Session["data"]> | null)[] = [];
    const seeds: ReturnType<Session["data"]>[] = [];
    const plan = session.plan("test", (graph) => {
      const leaves = variables.map((v, i) => graph.read(v, options.seeds !== undefined && inputs[i]!.dtype !== "u32"));
      const results = body(leaves, graph);
      results.forEach((t, i) => {
        const out = session.data(`out${i}`, t.shape, t.dtype);
        outputs.push(out);
        graph.assign(out, t);
      });
      if (options.seeds) {
        const pairs = results.map((t, i): [Tensor, Tensor] => {
          const seed = session.data(`seed${i}`, t.shape);
          seeds.push(seed);
          return [t, graph.read(seed)];
        });
        backward(graph, pairs, leaves).forEach((g, i) => {
          if (!g) return gradients.push(null);
          const out = session.data(`grad${i}`, g.shape, g.dtype);
          gradients.push(out);
          graph.assign(out, g);
        });
      }
    });
    await session.open(gpu);
    inputs.forEach((spec, i) => {
      const dtype = spec.dtype ?? "f32";
      if (dtype === "f16") session.write(variables[i]!, f32ToF16(Float32Array.from(spec.values)));
      else if (dtype === "u32") session.write(variables[i]!, Uint32Array.from(spec.values));
      else session.write(variables[i]!, Float32Array.from(spec.values));
    });
    seeds.forEach((v, i) => session.write(v, Float32Array.from(options.seeds![i]!)));
    for (const v of [...outputs, ...gradients]) if (v && v.dtype === "f32") session.write(v, new Float32Array(v.size).fill(Number.NaN));
    session.poison();
    session.run(plan);
    await session.finish();
    const broken = await session.brokenCanary(plan);
    if (broken) throw new Error(`bytes behind ${broken} were overwritten`);
    const read = async (v: ReturnType<Session["data"]>) =>
      v.dtype === "f16" ? f16ToF32(new Uint16Array(await session.readBits(v))) : session.read(v);
    const result: RunResult = { outputs: [], gradients: [], calls: plan.lowered.calls.map((c) => c.label) };
    for (const v of outputs) result.outputs.push(await read(v));
    for (const v of gradients) result.gradients.push(v ? await read(v) : null);
    if (options.repeat) {
      session.poison();
      session.run(plan);
      for (const [i, v] of outputs.entries()) {
        const again = await read(v);
        if (!again.every((x, k) => Object.is(x, result.outputs[i]![k]))) throw new Error("a second run gave other bits");
      }
    }
    return result;
  } finally {
    session.close();
  }
}

/** Deterministic test values in [-1, 1), reproducible on every machine. */
export function noise(count: number, seed = 1): Float64Array {
  const out = new Float64Array(count);
  let s = (seed * 2654435761) >>> 0 || 1;
  for (let i = 0; i < count; i++) {
    s ^= s << 13;
    s >>>= 0;
    s ^= s >>> 17;
    s ^= s << 5;
    s >>>= 0;
    out[i] = Math.fround(s / 2 ** 31 - 1);
  }
  return out;
}

/** Relative L2 difference ‖a − b‖ / ‖b‖; NaN anywhere gives NaN, which no bound accepts. */
export function relativeError(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
  if (actual.length !== expected.length) return Number.NaN;
  let difference = 0;
  let norm = 0;
  for (let i = 0; i < expected.length; i++) {
    difference += (actual[i]! - expected[i]!) ** 2;
    norm += expected[i]! ** 2;
  }
  return norm === 0 ? Math.sqrt(difference) : Math.sqrt(difference / norm);
}
