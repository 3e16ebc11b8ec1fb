// What the pretraining of every part shares: a plan that clears, traces a loss, differentiates it and updates; a ring of
// losses that is read now and then, so that the device need not wait for the host at every step; and pools by name for
// checkpoints.

import { LongtailError } from "../../base/errors.ts";
import { backward } from "../../ops/backward.ts";
import { full } from "../../ops/pointwise.ts";
import { Optimizer } from "../../optim/optimizer.ts";
import type { Graph, Tensor } from "../../tensor/graph.ts";
import type { Plan, Session } from "../../tensor/session.ts";
import type { Pool, Variable } from "../../tensor/variable.ts";
import { pretrainRate, type TrainingNumbers } from "./recipes.ts";
import type { SplitPool } from "./split_pool.ts";

/** Losses kept on the device between two reports. */
const RING = 256;
const EPSILON = 1e-8;

export interface StepReport {
  step: number;
  rate: number;
  /** Means of the steps since the last report, oldest first. */
  losses: number[];
  gradientNorm: number;
}

export class PretrainLoop {
  readonly optimizer: Optimizer;
  private readonly session: Session;
  private readonly numbers: TrainingNumbers;
  private readonly accumulation: number;
  private readonly loss: Variable;
  private readonly ring: Variable;
  private readonly pool: SplitPool;
  private plans: { step: Plan; update: Plan | null } | null = null;
  private recorded = 0;
  private last = 0;

  /** Declares gradients and optimizer state for all that `pool` holds; the session must not be open. */
  constructor(session: Session, pool: SplitPool, numbers: TrainingNumbers, accumulation = 1) {
    this.session = session;
    this.numbers = numbers;
    this.accumulation = accumulation;
    this.pool = pool;
    const { beta1, beta2, weightDecay, maxNorm, averageDecay } = numbers;
    this.optimizer = new Optimizer(
      session,
      [
        { pool: pool.matrices, weightDecay },
        { pool: pool.vectors, weightDecay: 0 },
      ],
      { kind: "adamw", beta1, beta2, epsilon: EPSILON, weightDecay, maxNorm, averageDecay },
    );
    this.loss = session.data("pretrain.loss", [1]);
    // In a pool of its own: WebGPU refuses copies within one buffer.
    this.ring = session.pool("pretrain losses", "data").add("pretrain.losses", [RING], "f32");
  }

  /** Traces the step. `loss` makes the loss of one micro-batch, [1], already divided by their number. */
  trace(loss: (graph: Graph) => Tensor): void {
    const differentiate = (graph: Graph): Tensor => {
      const value = loss(graph);
      graph.assign(this.loss, value);
      backward(graph, [[value, full(graph, [1], 1)]]);
      return value;
    };
    if (this.accumulation === 1) {
      const step = this.session.plan("pretrain step", (graph) => {
        this.optimizer.clearGradients(graph);
        this.optimizer.trace(graph, { loss: differentiate(graph) });
      });
      this.plans = { step, update: null };
      return;
    }
    this.plans = {
      step: this.session.plan("pretrain micro-step", (graph) => {
        differentiate(graph);
      }),
      update: this.session.plan("pretrain update", (graph) => {
        this.optimizer.trace(graph, { loss: graph.read(this.ring) });
      }),
    };
  }

  /** Zero state; the weights must have their starting values. */
  initialise(): void {
    this.optimizer.initialise(this.session);
    this.session.clear(this.ring.pool);
    this.optimizer.begin(this.session);
  }

  /** Submits step `t`, counted from 1; `fill` writes the inputs of a micro-batch. */
  step(t: number, fill: (part: number) => void): void {
    const { session, optimizer, accumulation } = this;
    const { step, update } = this.plans!;
    optimizer.write(session, pretrainRate(this.numbers, t), t);
    if (update) for (const pool of optimizer.gradients) session.clear(pool);
    for (let part = 0; part < accumulation; part++) {
      fill(part);
      session.run(step);
      session.copyInto(this.loss, this.ring, this.recorded++ % RING);
    }
    if (update) session.run(update);
    this.last = t;
  }

  /** True where another step would overwrite a loss that nobody has read. */
  get full(): boolean {
    return this.recorded + this.accumulation > RING;
  }

  /**
   * Waits for the device and tells how the steps since the last report went.
   * @throws LongtailError E-NUM-001 where the last step was refused because its numbers were not finite
   */
  async report(): Promise<StepReport> {
    const { session, accumulation, recorded } = this;
    const values = await session.read(this.ring);
    const optimizer = await this.optimizer.read(session);
    const losses: number[] = [];
    for (let at = 0; at < recorded; at += accumulation) {
      let sum = 0;
      for (let part = 0; part < accumulation; part++) sum += values[at + part]!;
      losses.push(sum);
    }
    this.recorded = 0;
    if (!optimizer.finite || !losses.every(Number.isFinite)) {
      throw new LongtailError("E-NUM-001", {
        what: `the numbers of pretraining step ${this.last} are not finite`,
        where: this.pool.name,
        why: "the learning rate is too high for this batch; the weights are as they were before the step",
        fix: "lower the rate, and continue from the last checkpoint",
      });
    }
    const rate = pretrainRate(this.numbers, this.last);
    return { step: this.last, rate, losses, gradientNorm: optimizer.norm };
  }

  /** What a checkpoint holds, by group. */
  get pools(): Record<string, Pool> {
    return { weights: this.pool.matrices, weight_vectors: this.pool.vectors, ...this.optimizer.state };
  }

  /** The averaged value of a parameter. */
  averageOf(variable: Variable): Variable {
    const groups = this.optimizer.groups;
    for (const [g, { parameters }] of groups.entries()) {
      const at = parameters.variables.indexOf(variable);
      if (at >= 0) return this.optimizer.average![g]!.variables[at]!;
    }
    throw new Error(`${variable.name} is not trained here`);
  }
}
