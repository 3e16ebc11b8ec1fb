// One Linear layer with an adapter of any kind on the device, with its output and gradients, and layers to put there.

import { RandomStream } from "../../src/base/random.ts";
import { memorySource } from "../../src/base/tensor_source.ts";
import type { LokrLayer, LoraLayer } from "../../src/formats/adapter_layers.ts";
import { kroneckerShape } from "../../src/nn/adapters/targets.ts";
import { Adapter, type AdapterShape, adaptersOf } from "../../src/nn/adapters.ts";
import { Linear } from "../../src/nn/linear.ts";
import { loadParameters, Parameters } from "../../src/nn/parameters.ts";
import { markTraining } from "../../src/nn/training_mode.ts";
import { backward } from "../../src/ops/backward.ts";
import { Session } from "../../src/tensor/session.ts";
import { targetOf } from "../../src/tensor/target.ts";
import { noise, testGpu } from "./gpu.ts";

export const SEED = 11;
export const STEP = 3;

export interface Options {
  inputs: number;
  outputs: number;
  rows: number;
  bias?: boolean;
  storage?: "f32" | "f16" | "bf16" | "int8" | "nf4";
  /** Trace the layer as a checkpointed segment. */
  checkpoint?: boolean;
  /** Mark the plan as one that trains; true by default. */
  training?: boolean;
}

export interface Parts {
  session: Session;
  adapter: Adapter;
  /** The weight as products read it, [out, in]. */
  weight: Float64Array;
  bias: Float64Array | null;
  x: Float64Array;
  seed: Float64Array;
  run: () => Promise<{ y: Float32Array; gradients: Float32Array[] }>;
}

/** One layer "proj" with an adapter on the device, and the plan that differentiates sum(seed · y). */
export async function onDevice(
  shape: AdapterShape,
  options: Options,
  body: (parts: Parts) => Promise<void>,
): Promise<void> {
  const { inputs, outputs, rows } = options;
  const gpu = await testGpu();
  const session = new Session(targetOf(gpu));
  try {
    const parameters = new Parameters(session.pool("weights", "weights"), { storage: options.storage ?? "f32" });
    const layer = new Linear(parameters.at("proj"), inputs, outputs, { bias: options.bias });
    const adapter = new Adapter(session, parameters, new Map([["proj", shape]]));
    const pools = adapter.groups().map(({ pool }) => pool);
    const twins = pools.map((pool, k) => session.adopt(pool.twin(`gradients ${k}`, "gradients", ".grad")));
    pools.forEach((pool, k) => pool.variables.forEach((v, i) => (v.gradient = twins[k]!.variables[i]!)));
    const variable = {
      x: session.data("x", [rows, inputs]),
      y: session.data("y", [rows, outputs]),
      seed: session.data("seed", [rows, outputs]),
      dx: session.data("dx", [rows, inputs]),
      weight: session.data("weight read", [outputs, inputs]),
    };
    const plan = session.plan("linear", (graph) => {
      if (options.training !== false) markTraining(graph);
      const x = graph.read(variable.x, true);
      const y = options.checkpoint
        ? graph.checkpoint([x], ([inner]) => [layer.forward(graph, inner!)])[0]!
        : layer.forward(graph, x);
      graph.assign(variable.y, y);
      const [dx] = backward(graph, [[y, graph.read(variable.seed)]], [x]);
      graph.assign(variable.dx, dx!);
    });
    const look = session.plan("weight", (graph) => graph.assign(variable.weight, layer.weightTensor(graph)));
    await session.open(gpu);
    const [w, b] = [values(inputs * outputs, 1), values(outputs, 2)];
    const tensors = new Map([
      ["proj.weight", { shape: [outputs, inputs], data: w }],
      ["proj.bias", { shape: [outputs], data: b }],
    ]);
    await loadParameters(session, parameters, memorySource("test", tensors));
    const [x, seed] = [noise(rows * inputs, 3), noise(rows * outputs, 4)];
    session.write(variable.x, Float32Array.from(x));
    session.write(variable.seed, Float32Array.from(seed));
    session.run(look);
    const weight = Float64Array.from(await session.read(variable.weight));
    const run = async () => {
      for (const pool of twins) session.clear(pool);
      session.poison();
      session.run(plan);
      await session.finish();
      const gradients: Float32Array[] = [];
      for (const v of pools.flatMap((pool) => pool.variables)) gradients.push(await session.read(v.gradient!));
      gradients.push(await session.read(variable.dx));
      return { y: await session.read(variable.y), gradients };
    };
    adapter.writeDropout(session, SEED, STEP);
    const bias = options.bias === false ? null : Float64Array.from(b);
    await body({ session, adapter, weight, bias, x, seed, run });
  } finally {
    session.close();
  }
}

export const values = (count: number, seed: number, scale = 1) =>
  Float32Array.from(noise(count, seed), (v) => v * scale);

export function lora(inputs: number, outputs: number, rank: number, scale: number, magnitude = false): LoraLayer {
  return {
    rank,
    inputs,
    outputs,
    down: values(rank * inputs, 5),
    up: values(outputs * rank, 6),
    scale,
    ...(magnitude ? { magnitude: values(outputs, 7).map((v) => 2 + v) } : {}),
  };
}

export function lokr(
  inputs: number,
  outputs: number,
  rank: number,
  options: { factor?: number; decomposeBoth?: boolean } = {},
): LokrLayer {
  const { first, second, scale } = kroneckerShape(inputs, outputs, { rank, scale: 0.7, ...options });
  const make = ({ rows, columns, rank: own }: typeof first, seed: number) =>
    own === null
      ? { rows, columns, whole: values(rows * columns, seed) }
      : { rows, columns, rank: own, left: values(rows * own, seed), right: values(own * columns, seed + 1) };
  return { inputs, outputs, first: make(first, 8), second: make(second, 10), scale };
}

export function maskOf(rate: number, rows: number, inputs: number): Float64Array {
  const uniforms = new RandomStream(SEED, "adapter dropout").uniforms(STEP, rows * inputs);
  return Float64Array.from(uniforms, (u) => (u >= rate ? 1 / (1 - rate) : 0));
}

export const shapeOf = (layer: LoraLayer | LokrLayer, dropout = 0): AdapterShape =>
  adaptersOf(new Map([["proj", layer]]), { dropout }).get("proj")!;
