// One device for a test file, and helpers that run traced functions on it: outputs are poisoned before, padding is
// checked behind. LONGTAIL_TEST_GPU=deno runs the same tests on Deno's own implementation of WebGPU, LONGTAIL_ROBUST=1
// with Dawn's bounds checks. In a page (vitest.chromium.config.ts) it is the browser's device.

import process from "node:process";
import { f16ToF32, f32ToF16 } from "../../src/base/halves.ts";
import { type Gpu, openDevice } from "../../src/gpu/device.ts";
import { backward } from "../../src/ops/backward.ts";
import type { Constant } from "../../src/ops/resample.ts";
import type { GpuBackend } from "../../src/platform/adapters.ts";
import type { Graph, Tensor } from "../../src/tensor/graph.ts";
import type { Target } from "../../src/tensor/lower.ts";
import { type Plan, Session } from "../../src/tensor/session.ts";
import type { DType, Shape } from "../../src/tensor/shape.ts";
import { targetOf } from "../../src/tensor/target.ts";
import { alignUp, type Variable } from "../../src/tensor/variable.ts";

export type Numbers = Float32Array | Float64Array | number[];

export interface InputSpec {
  shape: Shape;
  values: Numbers;
  dtype?: DType;
}

const opened = new Map<GpuBackend, Promise<Gpu>>();

/** The device of this test file; LONGTAIL_TEST_GPU chooses the implementation unless the test does. */
export function testGpu(
  backend: GpuBackend = process.env.LONGTAIL_TEST_GPU === "deno" ? "deno" : "dawn",
): Promise<Gpu> {
  let gpu = opened.get(backend);
  if (!gpu) {
    gpu = openTestGpu(backend);
    opened.set(backend, gpu);
  }
  return gpu;
}

async function openTestGpu(backend: GpuBackend): Promise<Gpu> {
  // Tests compare with float64 within f32's rounding; those of subgroup matrices ask for them.
  if (typeof document === "object") return openDevice(navigator.gpu, { matrices: "off" });
  // Not above: they bring along what no page can load.
  const { openGpu } = await import("../../src/platform/adapters.ts");
  const { restFor } = await import("../../src/platform/rest.ts");
  // As the command line does: with a device open, Deno's event loop may park on immediates for a minute.
  setInterval(() => {}, 50);
  const gpu = await openGpu({ backend, robust: process.env.LONGTAIL_ROBUST === "1" });
  return openDevice(gpu, { rest: restFor(backend), matrices: "off" });
}

export interface RunResult {
  outputs: Float32Array[];
  /** Gradients of the inputs, where `seeds` asked for them. */
  gradients: (Float32Array | null)[];
  /** Labels of the calls, and their kernels' texts and grids. */
  calls: string[];
  kernels: { source: string; grid: readonly [number, number, number] }[];
}

/** One traced function with its inputs. */
export interface Job {
  inputs: InputSpec[];
  body(tensors: Tensor[], graph: Graph, constant: Constant): Tensor[];
  /** Gradients of the outputs; asks for the gradients of all f32 and f16 inputs. */
  seeds?: Numbers[];
  /** Runs a second time and wants the same bits, gradients included. */
  repeat?: boolean;
  /** Another view of the adapter than its own: smaller limits, a kernel choice. */
  target?(own: Target): Partial<Target>;
}

export interface DeviceOptions {
  fuse?: boolean;
  gpu?: Gpu;
}

interface Prepared {
  job: Job;
  plan: Plan;
  variables: Variable[];
  seeds: Variable[];
  outputs: Variable[];
  gradients: (Variable | null)[];
}

/**
 * Traces `body` on the inputs, runs it and returns the outputs as f32. With `seeds` (one per output) the backward pass
 * is traced too and the gradients of all f32 and f16 inputs come back.
 */
export async function runOps(
  inputs: InputSpec[],
  body: Job["body"],
  options: Pick<Job, "seeds" | "repeat" | "target"> & DeviceOptions = {},
): Promise<RunResult> {
  const { fuse, gpu, ...job } = options;
  return (await runMany([{ inputs, body, ...job }], { fuse, gpu }))[0]!;
}

/** Runs many functions in one session, so that they share pipelines: compiling costs more than running here. */
export async function runMany(jobs: readonly Job[], options: DeviceOptions = {}): Promise<RunResult[]> {
  const gpu = options.gpu ?? (await testGpu());
  const own = targetOf(gpu);
  // A plan is lowered for what the target says at that moment.
  const target = { ...own };
  const session = new Session(target, { fuse: options.fuse });
  try {
    const prepared = jobs.map((job, k) => {
      Object.assign(target, own, job.target?.(own));
      return prepare(session, job, k);
    });
    await session.open(gpu);
    const results: RunResult[] = [];
    for (const item of prepared) results.push(await execute(session, item));
    return results;
  } finally {
    session.close();
  }
}

function prepare(session: Session, job: Job, k: number): Prepared {
  const variables = job.inputs.map((spec, i) => session.data(`${k}.in${i}`, spec.shape, spec.dtype ?? "f32"));
  const item: Omit<Prepared, "plan"> = { job, variables, seeds: [], outputs: [], gradients: [] };
  const plan = session.plan(`test ${k}`, (graph) => {
    const wantsGradient = (i: number) => job.seeds !== undefined && job.inputs[i]!.dtype !== "u32";
    const leaves = variables.map((v, i) => graph.read(v, wantsGradient(i)));
    const results = job.body(leaves, graph, (name, values, shape) => session.constant(graph, name, values, shape));
    results.forEach((t, i) => {
      const out = session.data(`${k}.out${i}`, t.shape, t.dtype);
      item.outputs.push(out);
      graph.assign(out, t);
    });
    if (!job.seeds) return;
    const pairs = results.map((t, i): [Tensor, Tensor] => {
      const seed = session.data(`${k}.seed${i}`, t.shape);
      item.seeds.push(seed);
      return [t, graph.read(seed)];
    });
    backward(graph, pairs, leaves).forEach((g, i) => {
      if (!g) return item.gradients.push(null);
      const out = session.data(`${k}.grad${i}`, g.shape, g.dtype);
      item.gradients.push(out);
      graph.assign(out, g);
    });
  });
  return { ...item, plan };
}

async function execute(session: Session, { job, plan, ...v }: Prepared): Promise<RunResult> {
  job.inputs.forEach((spec, i) => writeVariable(session, v.variables[i]!, spec.values));
  v.seeds.forEach((seed, i) => writeVariable(session, seed, job.seeds![i]!));
  const results = [...v.outputs, ...v.gradients].filter((x) => x !== null);
  const runOnce = async () => {
    for (const variable of results) poisonVariable(session, variable);
    session.poison();
    session.run(plan);
    await session.finish();
    const values: Float32Array[] = [];
    for (const variable of results) values.push(await readVariable(session, variable));
    return values;
  };
  const values = await runOnce();
  const broken = await session.brokenCanary(plan);
  if (broken) throw new Error(`bytes behind ${broken} were overwritten`);
  if (job.repeat) {
    const again = await runOnce();
    if (!again.every((a, i) => a.every((x, k) => Object.is(x, values[i]![k]))))
      throw new Error("a second run gave other bits");
  }
  const gradients = values.slice(v.outputs.length);
  return {
    outputs: values.slice(0, v.outputs.length),
    gradients: v.gradients.map((g) => (g ? gradients.shift()! : null)),
    calls: plan.lowered.calls.map((c) => c.label),
    kernels: plan.lowered.calls.map(({ source, grid }) => ({ source, grid })),
  };
}

function writeVariable(session: Session, variable: Variable, values: Numbers): void {
  if (variable.dtype === "f16") session.write(variable, f32ToF16(Float32Array.from(values)));
  else if (variable.dtype === "u32") session.write(variable, Uint32Array.from(values));
  else session.write(variable, Float32Array.from(values));
}

function poisonVariable(session: Session, variable: Variable): void {
  if (variable.dtype === "f32") session.write(variable, new Float32Array(variable.size).fill(Number.NaN));
  else if (variable.dtype === "f16") session.write(variable, new Uint16Array(variable.size).fill(0x7e00));
  else session.write(variable, new Uint32Array(variable.size).fill(0x7fc0dead));
}

/** The values of a variable; what a kernel wrote behind it, where fresh memory holds zeros, is an error. */
async function readVariable(session: Session, variable: Variable): Promise<Float32Array> {
  const itemBytes = variable.bytes / variable.size;
  const padded = await session.readBits(variable, 0, alignUp(variable.bytes) / itemBytes);
  // A value of an odd number of halves owns the whole of its last word.
  const behind = new Uint8Array(padded, alignUp(variable.bytes, 4));
  if (behind.some((byte) => byte !== 0)) throw new Error(`bytes behind ${variable.name} were overwritten`);
  const bits = padded.slice(0, variable.bytes);
  return variable.dtype === "f16" ? f16ToF32(new Uint16Array(bits)) : new Float32Array(bits);
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
