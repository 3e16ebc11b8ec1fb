// Times the calls of a traced task on an adapter: with timestamps where it has them, else by the clock around many replays
// of one call. A call's time is the least that was seen, because other work on the machine only ever adds to it.

import type { Gpu } from "../../gpu/device.ts";
import { backward } from "../../ops/backward.ts";
import type { Graph, Tensor } from "../../tensor/graph.ts";
import type { KernelCall } from "../../tensor/lower.ts";
import { type Plan, Session } from "../../tensor/session.ts";
import type { DType, Shape } from "../../tensor/shape.ts";
import { targetOf } from "../../tensor/target.ts";
import type { Variable } from "../../tensor/variable.ts";

/** Some of a task's calls, told as one line. */
export interface Part {
  name: string;
  of(call: KernelCall): boolean;
  /** Bytes that must be read and written at least, where that is what the line is about. */
  bytes?: number;
  /** FLOP of the mathematics, where kernels may do with fewer; else those of the calls. */
  flops?: number;
}

export interface Built {
  plan: Plan;
  parts: readonly Part[];
  /** Writes inputs; the session is open. */
  fill(): void;
}

export interface Task {
  name: string;
  build(session: Session): Built;
}

export interface Timing {
  name: string;
  seconds: number;
  flops: number;
  /** Null where the line is about arithmetic. */
  bytes: number | null;
  /** CPU seconds of all threads that a replay takes; null where nobody asked. */
  work: number | null;
}

const LEAST_REPLAYS = 4;
const MOST_REPLAYS = 60;
/** Replays of one call between two waits, where there are no timestamps. */
const BATCH = 16;

/**
 * Seconds of every part of a task.
 * @param seconds how long the measurement may take, where fewer replays than it needs at least take less
 * @param usage CPU seconds that this process has used: on a software adapter they tell what a busy machine hides
 */
export async function measureTask(gpu: Gpu, task: Task, seconds: number, usage?: () => number): Promise<Timing[]> {
  const session = new Session(targetOf(gpu));
  try {
    const { plan, parts, fill } = task.build(session);
    await session.open(gpu);
    fill();
    session.run(plan);
    await session.finish();
    const times = await leastSeconds(gpu, session, plan, seconds);
    const work = usage ? await leastWork(session, plan, usage) : null;
    const all = times.reduce((sum, t) => sum + t, 0);
    return parts.map(({ name, of, bytes, flops }) => {
      const timing: Timing = { name, seconds: 0, flops: 0, bytes: bytes ?? null, work: null };
      plan.lowered.calls.forEach((call, i) => {
        if (!of(call)) return;
        timing.seconds += times[i]!;
        timing.flops += call.flops;
      });
      if (flops !== undefined) timing.flops = flops;
      if (work !== null) timing.work = (work * timing.seconds) / all;
      if (timing.seconds === 0) throw new Error(`${task.name}: no call belongs to ${name}`);
      return timing;
    });
  } finally {
    session.close();
  }
}

async function leastSeconds(gpu: Gpu, session: Session, plan: Plan, seconds: number): Promise<Float64Array> {
  const least = new Float64Array(plan.lowered.calls.length).fill(Number.POSITIVE_INFINITY);
  const once = gpu.facts.timestamps
    ? async () => (await plan.executable!.profile())!
    : () => timeByClock(session, plan, least.length);
  const until = performance.now() + seconds * 1000;
  for (let i = 0; i < MOST_REPLAYS && (i < LEAST_REPLAYS || performance.now() < until); i++) {
    const times = await once();
    // A clock that is too coarse for a call says zero.
    for (let k = 0; k < least.length; k++) least[k] = Math.min(least[k]!, Math.max(times[k]!, 1e-9));
  }
  return least;
}

/** CPU seconds of a replay: the least of a few batches. */
async function leastWork(session: Session, plan: Plan, usage: () => number): Promise<number> {
  let least = Number.POSITIVE_INFINITY;
  for (let batch = 0; batch < 4; batch++) {
    const before = usage();
    for (let i = 0; i < BATCH; i++) session.run(plan);
    await session.finish();
    least = Math.min(least, (usage() - before) / BATCH);
  }
  return least;
}

async function timeByClock(session: Session, plan: Plan, calls: number): Promise<Float64Array> {
  const times = new Float64Array(calls);
  for (let k = 0; k < calls; k++) {
    const started = performance.now();
    for (let i = 0; i < BATCH; i++) session.run(plan, { from: k, to: k + 1 });
    await session.finish();
    times[k] = (performance.now() - started) / 1000 / BATCH;
  }
  return times;
}

export interface TracedTask {
  name: string;
  inputs: readonly Shape[];
  dtype?: DType;
  body(inputs: Tensor[], graph: Graph): Tensor;
  /** Inputs whose gradients are wanted in the place of the value: what only the value needs is not computed then. */
  gradients?: readonly number[];
  parts: readonly Part[];
}

/** True for calls of the backward pass. */
export const isBackward = (call: KernelCall): boolean => call.scope.includes(":backward");

/** A task that is a function of fresh inputs: uniform numbers in [-1, 1). */
export function traced(task: TracedTask): Task {
  return {
    name: task.name,
    build(session) {
      const inputs = task.inputs.map((shape, i) => session.data(`x${i}`, shape, task.dtype));
      const filled: Variable[] = [...inputs];
      const plan = session.plan(task.name, (graph) => {
        const leaves = inputs.map((v) => graph.read(v, task.gradients !== undefined));
        const out = task.body(leaves, graph);
        const results = [out];
        if (task.gradients) {
          const seed = session.data("seed", out.shape, out.dtype);
          filled.push(seed);
          const wanted = task.gradients.map((i) => leaves[i]!);
          results.splice(0, 1, ...backward(graph, [[out, graph.read(seed)]], wanted).map((g) => g!));
        }
        results.forEach((r, i) => graph.assign(session.data(`result${i}`, r.shape, r.dtype), r));
      });
      return { plan, parts: task.parts, fill: () => fillAll(session, filled) };
    },
  };
}

/** Writes the same numbers on every machine; f16 variables get small ones too. */
export function fillAll(session: Session, variables: readonly Variable[]): void {
  for (const [i, v] of variables.entries()) {
    if (v.dtype !== "f16") session.write(v, noise(v.size, i + 1));
    // Bits of halves in (0.25, 1).
    else
      session.write(
        v,
        Uint16Array.from({ length: v.size }, (_, k) => 0x3400 + ((k * 40503 + i) & 0x07ff)),
      );
  }
}

function noise(count: number, seed: number): Float32Array {
  const out = new Float32Array(count);
  let s = (seed * 2654435761) >>> 0 || 1;
  for (let i = 0; i < count; i++) {
    s ^= s << 13;
    s ^= s >>> 17;
    s ^= s << 5;
    out[i] = s / 2 ** 31;
  }
  return out;
}
