// An optimizer over parameters of given shapes, open on the test device, with everything a test wants to write, run and
// read: the scratch memory is poisoned before each step and the bytes behind every value are checked after it.

import { Optimizer, type OptimizerReport, type OptimizerSettings } from "../../src/optim/optimizer.ts";
import { type Plan, Session } from "../../src/tensor/session.ts";
import type { Shape } from "../../src/tensor/shape.ts";
import { targetOf } from "../../src/tensor/target.ts";
import { Pool, Variable } from "../../src/tensor/variable.ts";
import { testGpu } from "./gpu.ts";

export const ADAMW: OptimizerSettings = {
  kind: "adamw",
  beta1: 0.9,
  beta2: 0.999,
  epsilon: 1e-8,
  weightDecay: 1e-2,
  maxNorm: 0,
};

export interface BenchOptions {
  /** Bytes of a pool segment. */
  limit?: number;
  maxWorkgroups?: number;
  /** A plan that reads a loss. */
  loss?: boolean;
  /** The plan clears the gradients after the step. */
  clear?: boolean;
  /** Decay and rate factor of each group. */
  groups?: { weightDecay?: number; rateFactor?: number }[];
}

export class OptimizerBench {
  readonly session: Session;
  readonly optimizer: Optimizer;
  readonly plan: Plan;
  readonly parameters: Pool[];
  readonly loss: Variable;

  private constructor(
    session: Session,
    shapes: readonly (readonly Shape[])[],
    settings: OptimizerSettings,
    options: BenchOptions,
  ) {
    this.session = session;
    this.parameters = shapes.map((list, g) => {
      const pool = session.adopt(new Pool(`parameters ${g}`, "weights", options.limit ?? 1 << 26));
      list.forEach((shape, i) => pool.add(`p${g}.${i}`, shape, "f32"));
      return pool;
    });
    this.loss = session.data("loss", [3]);
    this.optimizer = new Optimizer(
      session,
      this.parameters.map((pool, g) => ({ pool, ...options.groups?.[g] })),
      settings,
    );
    this.plan = session.plan("optimizer", (graph) => {
      this.optimizer.trace(graph, { loss: options.loss ? graph.read(this.loss) : undefined });
      if (options.clear) this.optimizer.clearGradients(graph);
    });
  }

  /** One list of shapes a group. */
  static async open(
    shapes: readonly (readonly Shape[])[],
    settings: OptimizerSettings,
    options: BenchOptions = {},
  ): Promise<OptimizerBench> {
    const gpu = await testGpu();
    const own = targetOf(gpu);
    const target = {
      ...own,
      maxWorkgroups: options.maxWorkgroups ?? own.maxWorkgroups,
      maxBindingBytes: options.limit ?? own.maxBindingBytes,
    };
    const bench = new OptimizerBench(new Session(target), shapes, settings, options);
    await bench.session.open(gpu);
    bench.optimizer.initialise(bench.session);
    return bench;
  }

  /** Writes all variables of a pool from one array in their order. */
  write(pool: Pool, values: ArrayLike<number>): void {
    let at = 0;
    for (const v of pool.variables) {
      const own = Float32Array.from({ length: v.size }, (_, i) => values[at + i]!);
      this.session.write(v, own);
      at += v.size;
    }
    if (at !== values.length) throw new Error(`${pool.name} has ${at} places, not ${values.length}`);
  }

  async read(pool: Pool): Promise<Float32Array> {
    const parts: number[] = [];
    for (const v of pool.variables) for (const x of await this.session.read(v)) parts.push(x);
    return Float32Array.from(parts);
  }

  /** Starting values of all groups, and what the optimizer remembers of them. */
  start(...values: ArrayLike<number>[]): void {
    values.forEach((v, g) => this.write(this.parameters[g]!, v));
    this.optimizer.begin(this.session);
  }

  gradients(...values: ArrayLike<number>[]): void {
    values.forEach((v, g) => this.write(this.optimizer.gradients[g]!, v));
  }

  /** The words of all segments of parameters and state, padding included. */
  async bits(leaveOut: readonly string[] = []): Promise<number[]> {
    const out: number[] = [];
    const state = Object.entries(this.optimizer.state).filter(([name]) => !leaveOut.includes(name));
    for (const pool of [...this.parameters, ...state.map(([, pool]) => pool)]) {
      for (const [segment, bytes] of pool.segmentBytes.entries()) {
        const whole = new Variable("segment", [bytes / 4], "u32", { pool, segment, offset: 0 });
        for (const w of new Uint32Array(await this.session.readBits(whole))) out.push(w);
      }
    }
    return out;
  }

  /** What a checkpoint would hold. */
  async save(): Promise<Map<Variable, ArrayBuffer>> {
    const saved = new Map<Variable, ArrayBuffer>();
    for (const pool of [...this.parameters, ...Object.values(this.optimizer.state)])
      for (const v of pool.variables) saved.set(v, await this.session.readBits(v));
    return saved;
  }

  restore(saved: ReadonlyMap<Variable, ArrayBuffer>): void {
    for (const [v, bits] of saved) this.session.write(v, new Uint32Array(bits));
  }

  async step(rate: number, t: number): Promise<OptimizerReport> {
    this.optimizer.write(this.session, rate, t);
    this.session.poison();
    this.session.run(this.plan);
    await this.session.finish();
    const broken = await this.session.brokenCanary(this.plan);
    if (broken) throw new Error(`bytes behind ${broken} were overwritten`);
    return this.optimizer.read(this.session);
  }

  close(): void {
    this.session.close();
  }
}
