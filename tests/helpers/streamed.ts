// A FLUX transformer with LoRA run whole and streamed on the same numbers: velocity, and gradients of the factors from a
// given dL/dv.

import type { Storage } from "../../src/base/quantize.ts";
import { RandomStream } from "../../src/base/random.ts";
import type { TensorSource } from "../../src/base/tensor_source.ts";
import type { FluxConfig } from "../../src/models/flux/config.ts";
import { positionIds, ropeTables, sinusoids } from "../../src/models/flux/embeddings.ts";
import type { BlockSource } from "../../src/models/flux/streamed/sources.ts";
import { type Slots, StreamedFlux } from "../../src/models/flux/streamed/streamed.ts";
import { FluxTransformer } from "../../src/models/flux/transformer.ts";
import { ConditioningVariables } from "../../src/models/velocity_network.ts";
import { Adapter, type AdapterSettings, chooseAdapters } from "../../src/nn/adapters.ts";
import { loadParameters, Parameters } from "../../src/nn/parameters.ts";
import { backward } from "../../src/ops/backward.ts";
import type { Graph } from "../../src/tensor/graph.ts";
import { type MemoryTable, Session } from "../../src/tensor/session.ts";
import { targetOf } from "../../src/tensor/target.ts";
import { testGpu } from "./gpu.ts";

export interface StreamTask {
  config: FluxConfig;
  storage: Storage;
  adapter: AdapterSettings;
  batch: number;
  textTokens: number;
  /** Rows and columns of image tokens. */
  grid: [number, number];
  /** Factor on the latents. */
  magnitude?: number;
  /** Smaller bindings than the adapter's. */
  maxBindingBytes?: number;
}

export interface StreamResult {
  velocity: Float32Array;
  gradients: Map<string, Float32Array>;
  memory: MemoryTable;
  /** Bytes of stored words uploaded after the first forward pass began. */
  streamed: number;
  /** Plans that have tables of buffers of their own and nothing else. */
  shared: number;
  plans: number;
  /** Largest residual value where the run keeps it. */
  largest: number;
  /** The velocity of a pass that cannot train, in the same session. */
  sampled?: Float32Array;
  /** The first kernel that made a value which is not finite, where that was asked for. */
  located?: { label: string; scope: string; plan: string } | null;
}

/** Everything that both runs read. */
function inputsOf(task: StreamTask): Record<string, { shape: number[]; values: Float32Array }> {
  const { config, batch, textTokens, grid } = task;
  const imageTokens = grid[0] * grid[1];
  const stream = new RandomStream(7, "streamed test");
  const random = (step: number, shape: number[], factor = 1) => ({
    shape,
    values: stream
      .normals(
        step,
        shape.reduce((a, b) => a * b, 1),
      )
      .map((x) => x * factor),
  });
  const { cosine, sine } = ropeTables(positionIds(textTokens, ...grid), config.ropeAxes, config.ropeTheta);
  const table = [textTokens + imageTokens, config.headSize / 2];
  const sigmas = Array.from({ length: batch }, (_, i) => 0.3 + 0.2 * i);
  return {
    latents: random(1, [batch, imageTokens, config.inChannels], task.magnitude),
    states: random(2, [batch, textTokens, config.jointWidth], task.magnitude),
    pooled: random(3, [batch, config.pooledWidth]),
    velocityGradient: random(4, [batch, imageTokens, config.outChannels]),
    time: { shape: [batch, 256], values: sinusoids(sigmas) },
    ...(config.guidance ? { guidance: { shape: [batch, 256], values: sinusoids(sigmas.map(() => 3.5)) } } : {}),
    cosine: { shape: table, values: cosine },
    sine: { shape: table, values: sine },
  };
}

/** The session, and an adapter with factors that act, once the model's layers are declared. */
async function prepare(task: StreamTask) {
  const gpu = await testGpu();
  const own = targetOf(gpu);
  const session = new Session({ ...own, maxBindingBytes: task.maxBindingBytes ?? own.maxBindingBytes });
  const adapt = (parameters: Parameters) => {
    const adapter = new Adapter(session, parameters, chooseAdapters(parameters, task.adapter));
    const gradients = session.adopt(adapter.pool.twin("gradients", "gradients", ".gradient"));
    adapter.pool.variables.forEach((v, i) => (v.gradient = gradients.variables[i]!));
    const begin = () => {
      adapter.initialise(session, 3);
      const stream = new RandomStream(5, "up factors");
      adapter.pool.variables.forEach((v, i) => {
        if (/lora_B|lokr_w2/.test(v.name))
          session.write(
            v,
            stream.normals(i, v.size).map((x) => 0.05 * x),
          );
      });
      session.clear(gradients);
    };
    const read = async () => {
      const found = new Map<string, Float32Array>();
      for (const v of adapter.pool.variables) found.set(v.name, await session.read(v.gradient!));
      return found;
    };
    return { begin, read };
  };
  return { gpu, session, adapt };
}

export async function runWhole(task: StreamTask, source: TensorSource): Promise<StreamResult> {
  const { gpu, session, adapt } = await prepare(task);
  try {
    const parameters = new Parameters(session.pool("weights", "weights"), { storage: task.storage });
    const transformer = new FluxTransformer(parameters, task.config);
    const adapter = adapt(parameters);
    const inputs = inputsOf(task);
    const variables = Object.entries(inputs).map(([name, { shape }]) => session.data(name, shape));
    const velocity = session.data("velocity", inputs["velocityGradient"]!.shape);
    const { batch, grid, config } = task;
    const last = session.data("last", [batch, grid[0] * grid[1], config.width]);
    const plan = session.plan("whole", (graph) => {
      const read = Object.fromEntries(variables.map((v) => [v.name, graph.read(v)]));
      const { output, blocks } = transformer.forward(graph, read as never, { checkpoint: true });
      graph.assign(velocity, output);
      graph.assign(last, blocks.at(-1)!.image);
      backward(graph, [[output, read["velocityGradient"]!]]);
    });
    await session.open(gpu);
    await loadParameters(session, parameters, source);
    variables.forEach((v) => session.write(v, inputs[v.name]!.values));
    adapter.begin();
    session.poison();
    session.run(plan);
    const largest = (await session.read(last)).reduce((m, x) => Math.max(m, Math.abs(x)), 0);
    const result = { velocity: await session.read(velocity), gradients: await adapter.read() };
    return { ...result, memory: session.memory(), streamed: 0, shared: 0, plans: session.plans.length, largest };
  } finally {
    session.close();
  }
}

export async function runStreamed(
  task: StreamTask,
  source: BlockSource,
  slots: Slots,
  options: { spill?: boolean; repeat?: boolean; locate?: boolean } = {},
): Promise<StreamResult> {
  const { gpu, session, adapt } = await prepare(task);
  try {
    const { config, storage, batch, textTokens, grid } = task;
    const model = new StreamedFlux(session, config, { storage, slots });
    const adapter = adapt(model.parameters);
    const conditioning = new ConditioningVariables(session, "pass", config, batch, textTokens);
    const inputs = inputsOf(task);
    const { cosine, sine, latents, velocityGradient, ...told } = inputs;
    const rotary = (graph: Graph) => ({
      cosine: session.constant(graph, "cosine", cosine!.values, cosine!.shape),
      sine: session.constant(graph, "sine", sine!.values, sine!.shape),
    });
    const shape = { name: "pass", conditioning, rotary, imageTokens: grid[0] * grid[1], training: true };
    const pass = model.pass({ ...shape, spill: options.spill });
    const sampling = options.spill ? model.pass({ ...shape, name: "sampling", training: false }) : null;
    await session.open(gpu);
    await model.load(source);
    for (const [name, { values }] of Object.entries(told)) session.write(conditioning[name as "states"], values);
    session.write(pass.latents, latents!.values);
    session.write(pass.velocityGradient!, velocityGradient!.values);
    const sample = async (other: typeof pass) => {
      session.write(other.latents, latents!.values);
      await other.forward();
      return await session.read(other.velocity);
    };
    adapter.begin();
    const before = model.ring.times.bytes;
    for (let i = 0; i < (options.repeat ? 2 : 1); i++) {
      session.poison();
      adapter.begin();
      await pass.forward();
      await pass.backward();
    }
    const result = { velocity: await session.read(pass.velocity), gradients: await adapter.read() };
    return {
      ...result,
      sampled: sampling ? await sample(sampling) : undefined,
      located: options.locate ? await pass.firstNotFinite("forward") : null,
      memory: session.memory(),
      streamed: model.ring.times.bytes - before,
      shared: session.plans.filter((plan) => plan.like).length,
      plans: session.plans.length,
      largest: 0,
    };
  } finally {
    session.close();
  }
}

/** A source of stored words as one of numbers. */
export function numbersOf(source: BlockSource, names: Iterable<string>): TensorSource {
  return {
    name: source.name,
    names: () => names,
    has: (name) => source.has(name),
    shape: (name) => source.shape(name),
    load: async (name) => (await source.read(name, "f32")).codes as Float32Array,
  };
}
