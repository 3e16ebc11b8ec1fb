// Variables and plans of flow-matching training. Without accumulation the whole update is one plan: clear gradients, draw
// noise, forward, backward, clip, optimizer, average, report. Pictures of several sizes have a set of plans each and share
// the arena, the optimizer and everything that does not depend on the size.

import { type Geometry, geometryName } from "../../models/pipeline.ts";
import { ConditioningVariables, type VelocityNetwork } from "../../models/velocity_network.ts";
import { markTraining } from "../../nn/training_mode.ts";
import { backward } from "../../ops/backward.ts";
import { gatherRows } from "../../ops/gather_rows.ts";
import { permute } from "../../ops/permute.ts";
import { full } from "../../ops/pointwise.ts";
import { RANDOM_KEY_WORDS, randomNormal } from "../../ops/random.ts";
import { reshape } from "../../ops/reshape.ts";
import { concat } from "../../ops/slab.ts";
import type { Optimizer } from "../../optim/optimizer.ts";
import type { Graph, Tensor } from "../../tensor/graph.ts";
import type { Plan, Session } from "../../tensor/session.ts";
import type { Variable } from "../../tensor/variable.ts";
import { type FlowLoss, type FlowLossKind, traceFlowLoss } from "./steps.ts";

/** What training needs of a model; a `Pipeline` is one. */
export interface FlowModel {
  readonly transformer: VelocityNetwork;
  /** Channels of a packed token, and tokens of the text. */
  readonly channels: number;
  readonly textLength: number;
  rotary(graph: Graph, session: Session, geometry: Geometry): { cosine: Tensor; sine: Tensor };
}

export interface FlowPlanOptions {
  batch: number;
  accumulation: number;
  loss: FlowLossKind;
  checkpointing: boolean;
  /** Noise comes from the host. */
  givenNoise: boolean;
  validates: boolean;
}

export interface FlowPlans {
  /** The whole update, or null where gradients are accumulated. */
  update: Plan | null;
  /** Clearing and noise, and one micro-step; null where there is an update in one. */
  begin: Plan | null;
  micro: Plan | null;
  validate: Plan | null;
}

/** Variables and plans of one geometry. */
export interface FlowShelf {
  geometry: Geometry;
  /** [B, L, C]. */
  latents: Variable;
  /** Noise of all samples [B, accumulation, L · C]; null where it is drawn inside the update. */
  noise: Variable | null;
  /** Noise [B, L, C] that the host writes. */
  given: Variable | null;
  plans: FlowPlans;
}

/** Inputs that do not depend on the geometry, by their names in `FlowInputs`, and: */
export interface FlowShared extends Record<"sigma" | "keep" | "factor" | "delta", Variable> {
  conditioning: ConditioningVariables;
  /** Key of the update's noise (ops/random.ts). */
  key: Variable;
  /** Number of the micro-step, once for each sample. */
  slot: Variable;
  /** Loss of a micro-step, then the losses of its samples without weights, [1 + B]. */
  report: Variable;
}

/** Where the optimizer's calls of an update are found. */
export const OPTIMIZER_SCOPE = "optimizer";

export class FlowPlanner {
  readonly shared: FlowShared;
  /** By the geometry's name. */
  readonly shelves: ReadonlyMap<string, FlowShelf>;
  /** One row of `report` a micro-step; null without accumulation. */
  readonly reports: Variable | null;
  /** The optimizer's step after the last micro-step; null without accumulation. */
  readonly optimizerPlan: Plan | null;
  private readonly session: Session;
  private readonly model: FlowModel;
  private readonly optimizer: Optimizer;
  private readonly options: FlowPlanOptions;

  /** Declares all variables and traces all plans; the session must not be open yet. */
  constructor(
    session: Session,
    model: FlowModel,
    optimizer: Optimizer,
    geometries: readonly Geometry[],
    options: FlowPlanOptions,
  ) {
    this.session = session;
    this.model = model;
    this.optimizer = optimizer;
    this.options = options;
    const { batch, accumulation } = options;
    const data = (name: string, shape: number[], dtype: "f32" | "u32" = "f32") =>
      session.data(`flow.${name}`, shape, dtype);
    this.shared = {
      conditioning: new ConditioningVariables(session, "flow", model.transformer.config, batch, model.textLength),
      sigma: data("sigma", [batch, 1, 1]),
      keep: data("keep", [batch, 1, 1]),
      factor: data("factor", [batch]),
      delta: data("delta", [batch, 1]),
      key: data("key", [RANDOM_KEY_WORDS], "u32"),
      slot: data("slot", [batch], "u32"),
      report: data("report", [1 + batch]),
    };
    // In a pool of its own: WebGPU refuses copies within one buffer.
    this.reports =
      accumulation > 1
        ? session.pool("flow reports", "data").add("flow.reports", [accumulation, 1 + batch], "f32")
        : null;
    const shelves = new Map<string, FlowShelf>();
    for (const geometry of geometries) {
      const name = geometryName(geometry);
      if (!shelves.has(name)) shelves.set(name, this.makeShelf(name, geometry));
    }
    this.shelves = shelves;
    this.optimizerPlan = this.reports
      ? session.plan("flow optimizer", (graph) => optimizer.trace(graph, { loss: graph.read(this.reports!) }))
      : null;
  }

  private makeShelf(name: string, geometry: Geometry): FlowShelf {
    const { session, options } = this;
    const { batch, accumulation } = options;
    const shape = [batch, geometry.rows * geometry.columns, this.model.channels];
    const data = (part: string, size: number[]) => session.data(`flow ${name}.${part}`, size);
    const whole = accumulation === 1;
    const shelf: FlowShelf = {
      geometry,
      latents: data("latents", shape),
      noise: whole || options.givenNoise ? null : data("noise", [batch, accumulation, shape[1]! * shape[2]!]),
      given: options.givenNoise || options.validates ? data("given noise", shape) : null,
      plans: { update: null, begin: null, micro: null, validate: null },
    };
    if (whole) {
      shelf.plans.update = session.plan(`flow update ${name}`, (graph) => this.traceUpdate(graph, shelf));
    } else {
      shelf.plans.begin = session.plan(`flow begin ${name}`, (graph) => this.traceBegin(graph, shelf));
      shelf.plans.micro = session.plan(`flow micro-step ${name}`, (graph) => this.traceMicro(graph, shelf));
    }
    if (options.validates) {
      shelf.plans.validate = session.plan(`flow validation ${name}`, (graph) => {
        this.report(graph, this.traceLoss(graph, shelf, graph.read(shelf.given!), false));
      });
    }
    return shelf;
  }

  private traceUpdate(graph: Graph, shelf: FlowShelf): void {
    this.optimizer.clearGradients(graph);
    const noise = this.options.givenNoise
      ? graph.read(shelf.given!)
      : randomNormal(graph.read(this.shared.key), shelf.latents.shape);
    const { loss } = this.traceGradients(graph, shelf, noise);
    graph.scope(OPTIMIZER_SCOPE, () => this.optimizer.trace(graph, { loss }));
  }

  private traceBegin(graph: Graph, shelf: FlowShelf): void {
    this.optimizer.clearGradients(graph);
    if (!shelf.noise) return;
    const [batch, accumulation, values] = shelf.noise.shape as [number, number, number];
    // Sample s of the update gets the s-th part of the stream, whatever the batch; a micro-step picks rows by its number.
    const all = randomNormal(graph.read(this.shared.key), [accumulation, batch, values]);
    graph.assign(shelf.noise, permute(all, [1, 0, 2]));
  }

  private traceMicro(graph: Graph, shelf: FlowShelf): void {
    const noise = shelf.noise
      ? reshape(gatherRows(graph.read(shelf.noise), graph.read(this.shared.slot)), shelf.latents.shape)
      : graph.read(shelf.given!);
    this.traceGradients(graph, shelf, noise);
  }

  private traceLoss(graph: Graph, shelf: FlowShelf, noise: Tensor, checkpoint: boolean): FlowLoss {
    const read = (name: "sigma" | "keep" | "factor" | "delta") => graph.read(this.shared[name]);
    const { options, model } = this;
    return traceFlowLoss(
      graph,
      model.transformer,
      {
        clean: graph.read(shelf.latents),
        noise,
        sigma: read("sigma"),
        keep: read("keep"),
        ...this.shared.conditioning.read(graph),
        ...model.rotary(graph, this.session, shelf.geometry),
        factor: read("factor"),
        delta: options.loss === "mse" ? undefined : read("delta"),
      },
      { loss: options.loss, checkpoint },
    );
  }

  private traceGradients(graph: Graph, shelf: FlowShelf, noise: Tensor): FlowLoss {
    markTraining(graph);
    const traced = this.traceLoss(graph, shelf, noise, this.options.checkpointing);
    const { lossScale } = this.optimizer;
    backward(graph, [[traced.loss, lossScale ? graph.read(lossScale) : full(graph, [1], 1)]]);
    this.report(graph, traced);
    return traced;
  }

  private report(graph: Graph, { loss, samples }: FlowLoss): void {
    graph.assign(this.shared.report, concat([loss, samples], 0));
  }
}
