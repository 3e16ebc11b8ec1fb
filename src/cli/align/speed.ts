// A short benchmark of the adapter with the kernels that the main job spends its time in, and the same kernels compared
// with the CPU. `plan` estimates times from it, `doctor` shows it.

import type { Gpu } from "../../gpu/device.ts";
import { attention } from "../../ops/attention.ts";
import { conv2d } from "../../ops/conv2d.ts";
import { linear } from "../../ops/matmul.ts";
import { layerNorm } from "../../ops/norm.ts";
import { affine } from "../../ops/pointwise.ts";
import type { Graph, Tensor } from "../../tensor/graph.ts";
import { type Plan, Session } from "../../tensor/session.ts";
import { targetOf } from "../../tensor/target.ts";
import type { Variable } from "../../tensor/variable.ts";
import { addSelfTests, type SelfTest, type SelfTestResult } from "../self_tests.ts";

/** Wall time that a benchmark of one kernel should take. */
const SECONDS = 0.15;

interface Case {
  name: string;
  shapes: number[][];
  trace: (graph: Graph, inputs: Tensor[]) => Tensor;
  /** Expected value of output element `index`, in double precision. */
  expected: (inputs: Float32Array[], index: number) => number;
}

const [BATCH, CHANNELS, SIDE] = [4, 64, 32];
const [ROWS, WIDTH, INNER] = [288, 256, 1024];
const [TOKENS, HEADS, HEAD] = [36, 4, 64];

const CASES: Case[] = [
  {
    name: "matmul 288x1024x256",
    shapes: [
      [ROWS, WIDTH],
      [INNER, WIDTH],
    ],
    trace: (_, [x, w]) => linear(x!, w!),
    expected([x, w], index) {
      const [row, column] = [Math.floor(index / INNER), index % INNER];
      let sum = 0;
      for (let k = 0; k < WIDTH; k++) sum += x![row * WIDTH + k]! * w![column * WIDTH + k]!;
      return sum;
    },
  },
  {
    name: "convolution 3x3 64 to 64 channels, 32x32",
    shapes: [
      [BATCH, CHANNELS, SIDE, SIDE],
      [CHANNELS, CHANNELS, 3, 3],
    ],
    trace: (_, [x, w]) => conv2d(x!, w!, { padding: [1, 1, 1, 1] }),
    expected([x, w], index) {
      const [ox, oy] = [index % SIDE, Math.floor(index / SIDE) % SIDE];
      const [o, n] = [Math.floor(index / SIDE ** 2) % CHANNELS, Math.floor(index / (SIDE ** 2 * CHANNELS))];
      let sum = 0;
      for (let i = 0; i < CHANNELS; i++) {
        for (let t = 0; t < 9; t++) {
          const [y, z] = [oy + Math.floor(t / 3) - 1, ox + (t % 3) - 1];
          if (y < 0 || y >= SIDE || z < 0 || z >= SIDE) continue;
          sum += x![((n * CHANNELS + i) * SIDE + y) * SIDE + z]! * w![(o * CHANNELS + i) * 9 + t]!;
        }
      }
      return sum;
    },
  },
  {
    name: "attention 4 heads of 64, 36 tokens",
    shapes: [
      [BATCH, TOKENS, HEADS * HEAD],
      [BATCH, TOKENS, HEADS * HEAD],
      [BATCH, TOKENS, HEADS * HEAD],
    ],
    trace: (_, [q, k, v]) => attention(q!, k!, v!, { heads: HEADS, scale: 1 / Math.sqrt(HEAD) }),
    expected([q, k, v], index) {
      const width = HEADS * HEAD;
      const column = index % width;
      const row = Math.floor(index / width);
      const first = Math.floor(row / TOKENS) * TOKENS;
      const base = Math.floor(column / HEAD) * HEAD;
      const scores = Array.from({ length: TOKENS }, (_, j) => {
        let dot = 0;
        for (let d = 0; d < HEAD; d++) dot += q![row * width + base + d]! * k![(first + j) * width + base + d]!;
        return dot / Math.sqrt(HEAD);
      });
      const top = Math.max(...scores);
      const weights = scores.map((s) => Math.exp(s - top));
      const total = weights.reduce((a, b) => a + b, 0);
      return weights.reduce((sum, w, j) => sum + w * v![(first + j) * width + column]!, 0) / total;
    },
  },
  {
    name: "layer norm of 1024 rows of 256",
    shapes: [[1024, WIDTH]],
    trace: (_, [x]) => layerNorm(x!, 1e-6),
    expected([x], index) {
      const row = x!.subarray(Math.floor(index / WIDTH) * WIDTH, (Math.floor(index / WIDTH) + 1) * WIDTH);
      const mean = row.reduce((a, b) => a + b, 0) / WIDTH;
      const variance = row.reduce((a, b) => a + (b - mean) ** 2, 0) / WIDTH;
      return (x![index]! - mean) / Math.sqrt(variance + 1e-6);
    },
  },
];

/** Deterministic values in [-1, 1). */
function values(count: number, seed: number): Float32Array {
  const out = new Float32Array(count);
  let s = (seed * 2654435761) >>> 0;
  for (let i = 0; i < count; i++) {
    s = (Math.imul(s ^ (s >>> 15), 2246822519) + 374761393) >>> 0;
    out[i] = s / 2 ** 31 - 1;
  }
  return out;
}

async function timed(session: Session, plan: Plan): Promise<number> {
  session.run(plan);
  await session.finish();
  let best = Number.POSITIVE_INFINITY;
  const until = performance.now() + SECONDS * 1000;
  do {
    const started = performance.now();
    for (let i = 0; i < 4; i++) session.run(plan);
    await session.finish();
    best = Math.min(best, (performance.now() - started) / 4000);
  } while (performance.now() < until);
  return best;
}

async function runCase(gpu: Gpu, test: Case, seedOffset: number): Promise<SelfTestResult> {
  const session = new Session(targetOf(gpu));
  try {
    const inputs = test.shapes.map((shape, i) => session.data(`x${i}`, shape));
    let out: Variable | null = null;
    const plan = session.plan(test.name, (graph) => {
      const y = test.trace(
        graph,
        inputs.map((v) => graph.read(v)),
      );
      out = session.data("y", y.shape);
      graph.assign(out, y);
    });
    await session.open(gpu);
    const data = inputs.map((v, i) => values(v.size, i + 1 + seedOffset));
    inputs.forEach((v, i) => session.write(v, data[i]!));
    const seconds = await timed(session, plan);
    const got = await session.read(out!);
    let worst = 0;
    let scale = 0;
    for (let k = 0; k < 97; k++) {
      const index = Math.floor((k * got.length) / 97);
      const expected = test.expected(data, index);
      worst = Math.max(
        worst,
        Math.abs(got[index]! - expected) || (Number.isFinite(got[index]!) ? 0 : Number.POSITIVE_INFINITY),
      );
      scale = Math.max(scale, Math.abs(expected));
    }
    return { ok: worst <= 2e-5 * scale, error: worst / scale, gflops: plan.flops / seconds / 1e9 };
  } finally {
    session.close();
  }
}

/** What a short benchmark says of an adapter. */
export interface AdapterSpeed {
  /** FLOP/s of matrix products of the main job's size, and of its convolutions. */
  matmul: number;
  convolution: number;
  /** Bytes/s that a pointwise kernel reads and writes. */
  bandwidth: number;
  /** Seconds that a dispatch costs however small it is. */
  dispatch: number;
}

/** Layers of the benchmark's chains: enough that weights and activations do not stay in a cache, as in a model. */
const LAYERS = 12;

/** Measures an adapter in about two seconds. */
export async function measureSpeed(gpu: Gpu): Promise<AdapterSpeed> {
  const session = new Session(targetOf(gpu), { fuse: false });
  const [large, small, steps] = [1 << 21, 64, 64];
  try {
    const chain = (
      name: string,
      shape: number[],
      layers: number,
      trace: (graph: Graph, x: Tensor, layer: number) => Tensor,
    ) => {
      const [x, y] = [session.data(`${name} x`, shape), session.data(`${name} y`, shape)];
      return session.plan(name, (graph) => {
        let value = graph.read(x);
        for (let i = 0; i < layers; i++) value = trace(graph, value, i);
        graph.assign(y, value);
      });
    };
    const matrices = Array.from({ length: LAYERS }, (_, i) =>
      session.data(`w${i}`, i % 2 ? [WIDTH, INNER] : [INNER, WIDTH]),
    );
    const kernels = Array.from({ length: LAYERS / 2 }, (_, i) => session.data(`k${i}`, [CHANNELS, CHANNELS, 3, 3]));
    const products = chain("products", [144, WIDTH], LAYERS, (graph, x, i) => linear(x, graph.read(matrices[i]!)));
    const convolutions = chain("convolutions", [BATCH, CHANNELS, 64, 64], LAYERS / 2, (graph, x, i) =>
      conv2d(x, graph.read(kernels[i]!), { padding: [1, 1, 1, 1] }),
    );
    const pointwise = chain("pointwise", [large], steps, (_, x) => affine(x, 0.5, 1));
    const tiny = chain("dispatches", [small], steps, (_, x) => affine(x, 0.5, 1));
    await session.open(gpu);
    const dispatch = (await timed(session, tiny)) / steps;
    return {
      matmul: products.flops / (await timed(session, products)),
      convolution: convolutions.flops / (await timed(session, convolutions)),
      bandwidth: (8 * large) / Math.max(1e-9, (await timed(session, pointwise)) / steps - dispatch),
      dispatch,
    };
  } finally {
    session.close();
  }
}

/** Kernels whose time goes by their arithmetic; all others go by the bytes they touch. */
const ARITHMETIC = /^(matmul|conv|attention)/;

/** Estimated seconds of plans: every call costs its dispatch, and its arithmetic or its bytes, whichever is slower. */
export function estimateSeconds(plans: readonly Plan[], speed: AdapterSpeed): number {
  const calls = plans.flatMap((plan) => plan.lowered.calls);
  return calls.reduce((sum, call) => {
    const rate = call.label.startsWith("conv") ? speed.convolution : speed.matmul;
    const arithmetic = ARITHMETIC.test(call.label) ? call.flops / rate : 0;
    return sum + speed.dispatch + Math.max(arithmetic, call.bytes / speed.bandwidth);
  }, 0);
}

addSelfTests((gpu) => CASES.map((test, i): SelfTest => ({ name: test.name, run: () => runCase(gpu, test, i) })));
