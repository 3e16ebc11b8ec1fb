// The small FLUX.1 of the dumps with a LoRA and a flow-matching trainer, on random latents and texts: a run that can be
// stopped, whose state can be taken out and put into another one.

import { join } from "node:path";
import { RandomStream } from "../../src/base/random.ts";
import type { Gpu } from "../../src/gpu/device.ts";
import { fluxConfig } from "../../src/models/flux/config.ts";
import { positionIds, ropeTables } from "../../src/models/flux/embeddings.ts";
import { fileBlocks } from "../../src/models/flux/streamed/sources.ts";
import { type Slots, StreamedFlux } from "../../src/models/flux/streamed/streamed.ts";
import { FluxTransformer } from "../../src/models/flux/transformer.ts";
import { type Geometry, geometryName } from "../../src/models/pipeline.ts";
import type { VelocityModel } from "../../src/models/velocity_network.ts";
import { Adapter, chooseAdapters } from "../../src/nn/adapters.ts";
import { loadParameters, Parameters } from "../../src/nn/parameters.ts";
import { Optimizer, type OptimizerSettings } from "../../src/optim/optimizer.ts";
import type { GpuBackend } from "../../src/platform/adapters.ts";
import { Session, type SessionOptions } from "../../src/tensor/session.ts";
import { targetOf } from "../../src/tensor/target.ts";
import type { Pool } from "../../src/tensor/variable.ts";
import { type FlowModel, type FlowSample, type FlowSettings, FlowTrainer } from "../../src/training/flow/trainer.ts";
import { openSource, readConfig } from "./dumps.ts";
import { OWN_FIXTURES } from "./files.ts";
import { testGpu } from "./gpu.ts";

const WEIGHTS = join(OWN_FIXTURES, "flux1_small/weights.safetensors");
const TEXT = 5;

export const ADAMW: OptimizerSettings = {
  kind: "adamw",
  beta1: 0.9,
  beta2: 0.999,
  epsilon: 1e-8,
  weightDecay: 1e-4,
  maxNorm: 1,
};

export const FLOW: FlowSettings = {
  batch: 2,
  accumulation: 1,
  sigma: { sampler: "logit_normal" },
  weighting: "none",
  loss: "mse",
  guidance: 1,
  seed: 11,
  schedule: { kind: "constant", rate: 1e-3, warmup: 0, total: 100 },
  checkpointing: false,
  validationSigmas: [],
};

export const GRID: Geometry = { rows: 3, columns: 5 };

/** A model without a pipeline around it. */
export function flowModel(transformer: VelocityModel, textLength: number): FlowModel {
  const { config } = transformer;
  return {
    transformer,
    channels: config.inChannels,
    textLength,
    rotary: (graph, session, geometry) => {
      const ids = positionIds(textLength, geometry.rows, geometry.columns);
      const { cosine, sine } = ropeTables(ids, config.ropeAxes, config.ropeTheta);
      const shape = [ids.length, config.headSize / 2];
      const name = geometryName(geometry);
      return {
        cosine: session.constant(graph, `cosine ${name}`, cosine, shape),
        sine: session.constant(graph, `sine ${name}`, sine, shape),
      };
    },
  };
}

/** Everything that a checkpoint holds, by pool and variable. */
export type Snapshot = Record<string, Float32Array[]>;

/** Bits of all variables, for comparisons to the bit. */
export function snapshotBits(snapshot: Snapshot): Record<string, number[][]> {
  return Object.fromEntries(
    Object.entries(snapshot).map(([name, list]) => [
      name,
      list.map((values) => [...new Uint32Array(values.buffer.slice(0, values.byteLength))]),
    ]),
  );
}

export interface FlowRunOptions {
  settings?: Partial<FlowSettings>;
  optimizer?: Partial<OptimizerSettings>;
  geometries?: readonly Geometry[];
  session?: SessionOptions;
  backend?: GpuBackend;
  /** Another device than that of the test file. */
  gpu?: Gpu;
  /** Streams the model's blocks through so many places. */
  slots?: Slots;
  /** Train the model's own weights; there is no adapter then. */
  full?: boolean;
  /** What an earlier run left, in place of drawn factors (both are drawn, so that every gradient flows). */
  start?: Snapshot;
}

export class FlowRun {
  readonly session: Session;
  readonly trainer: FlowTrainer;
  /** What is trained. */
  readonly trained: Pool;
  readonly optimizer: Optimizer;
  readonly channels: number;
  private readonly widths: { joint: number; pooled: number };

  private constructor(
    parts: Pick<FlowRun, "session" | "trainer" | "trained" | "optimizer" | "channels">,
    widths: FlowRun["widths"],
  ) {
    this.session = parts.session;
    this.trainer = parts.trainer;
    this.trained = parts.trained;
    this.optimizer = parts.optimizer;
    this.channels = parts.channels;
    this.widths = widths;
  }

  static async open(options: FlowRunOptions = {}): Promise<FlowRun> {
    const gpu = options.gpu ?? (await testGpu(options.backend));
    const session = new Session(targetOf(gpu), options.session);
    const config = fluxConfig(readConfig(WEIGHTS), WEIGHTS);
    const transformer = options.slots
      ? new StreamedFlux(session, config, { slots: options.slots })
      : new FluxTransformer(new Parameters(session.pool("weights", "weights")), config);
    const { parameters } = transformer;
    const shapes = chooseAdapters(parameters, { targets: "diffusers", rank: 4, alpha: 8 });
    const adapter = options.full ? null : new Adapter(session, parameters, shapes);
    const trained = adapter?.pool ?? parameters.pool;
    const optimizer = new Optimizer(session, [{ pool: trained }], { ...ADAMW, ...options.optimizer });
    const model = flowModel(transformer, TEXT);
    const settings = { ...FLOW, ...options.settings };
    const trainer = new FlowTrainer(session, model, optimizer, options.geometries ?? [GRID], settings);
    await session.open(gpu);
    const source = await openSource(WEIGHTS);
    if (transformer instanceof StreamedFlux) await transformer.load(fileBlocks(source));
    else await loadParameters(session, parameters, source);
    const widths = { joint: config.jointWidth, pooled: config.pooledWidth };
    const run = new FlowRun({ session, trainer, trained, optimizer, channels: config.inChannels }, widths);
    adapter?.initialise(session, 5);
    optimizer.initialise(session);
    if (options.start) {
      run.write(options.start);
      return run;
    }
    const stream = new RandomStream(9, "factors");
    adapter?.pool.variables.forEach((v, i) =>
      session.write(
        v,
        stream.normals(i, v.size).map((x) => 0.1 * x),
      ),
    );
    optimizer.begin(session);
    return run;
  }

  private get pools(): Record<string, Pool> {
    return { trained: this.trained, ...this.optimizer.state };
  }

  /** Sample `i` of an endless set. */
  sample(i: number, geometry: Geometry = GRID, weight = 1): FlowSample {
    const stream = new RandomStream(21, "samples");
    const size = geometry.rows * geometry.columns * this.channels;
    return {
      latents: stream.normals(i, size),
      states: stream.normals(i, TEXT * this.widths.joint, 1 << 20),
      pooled: stream.normals(i, this.widths.pooled, 1 << 21),
      weight,
    };
  }

  /** Updates `from` to `to`, both included, from samples that depend on the update alone; their losses. */
  async steps(from: number, to: number): Promise<number[]> {
    const losses = [];
    const count = this.trainer.samplesPerUpdate;
    for (let t = from; t <= to; t++) {
      const samples = Array.from({ length: count }, (_, i) => this.sample((t * count + i) % 7));
      this.session.poison();
      losses.push((await this.trainer.step(t, samples, GRID)).loss);
    }
    return losses;
  }

  async read(): Promise<Snapshot> {
    const all: Snapshot = {};
    for (const [name, pool] of Object.entries(this.pools)) {
      all[name] = [];
      for (const variable of pool.variables) all[name].push(await this.session.read(variable));
    }
    return all;
  }

  write(snapshot: Snapshot): void {
    for (const [name, pool] of Object.entries(this.pools))
      pool.variables.forEach((variable, i) => this.session.write(variable, snapshot[name]![i]!));
  }

  async gradients(): Promise<Float32Array[]> {
    const all = [];
    for (const variable of this.optimizer.gradients[0]!.variables) all.push(await this.session.read(variable));
    return all;
  }

  close(): void {
    this.session.close();
  }
}

/** Opens a run, hands it to `body`, and closes it. */
export async function withRun<T>(options: FlowRunOptions, body: (run: FlowRun) => Promise<T>): Promise<T> {
  const run = await FlowRun.open(options);
  try {
    return await body(run);
  } finally {
    run.close();
  }
}

/** ‖a - b‖ / ‖b‖ over lists of tensors. */
export function distance(a: readonly Float32Array[], b: readonly Float32Array[]): number {
  let [difference, size] = [0, 0];
  b.forEach((values, k) => {
    for (let i = 0; i < values.length; i++) {
      difference += (a[k]![i]! - values[i]!) ** 2;
      size += values[i]! ** 2;
    }
  });
  return Math.sqrt(difference / size);
}
