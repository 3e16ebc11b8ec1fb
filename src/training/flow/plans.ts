// Variables and plans of flow-matching training. Without accumulation the whole update is one plan: clear gradients, draw
// noise, forward, backward, clip, optimizer, average, report; with it, or where the model is streamed, clearing, micro-step and
// optimizer are apart. Pictures of several sizes have a set of plans each and share everything that does not depend on the size.

import { type Geometry, geometryName } from "../../models/pipeline.ts";
import { ConditioningVariables, isStreamed, type VelocityModel } from "../../models/velocity_network.ts";
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
import { PlanStage, type Stage, type StageParts, stageOf, traceStage } from "../stage.ts";
import { type FlowLossKind, type FlowMix, judgeFlow, mixNoise } from "./steps.ts";

/** What training needs of a model; a `Pipeline` is one. */
export interface FlowModel {
  readonly transformer: VelocityModel;
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
  /** The whole update, or null where it is in parts: gradients are accumulated, or the model is streamed. */
  update: Stage | null;
  /** Clearing and noise, and one micro-step; null where there is an update in one. */
  begin: Plan | null;
  micro: Stage | null;
  validate: Stage | null;
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
  /** One row of `report` a micro-step; null where the update is one plan. */
  readonly reports: Variable | null;
  /** The optimizer's step after the last micro-step; null where the update is one plan. */
  readonly optimizerPlan: Plan | null;
  private readonly session: Session;
  private readonly model: FlowModel;
  private readonly optimizer: Optimizer;
  private readonly options: FlowPlanOptions;
  private readonly whole: boolean;

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
    this.whole = accumulation === 1 && !isStreamed(model.transformer);
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
    this.reports = this.whole
      ? null
      : session.pool("flow reports", "data").add("flow.reports", [accumulation, 1 + batch], "f32");
    const named = new Map(geometries.map((geometry) => [geometryName(geometry), geometry]));
    // A streamed model's sizes share memory, for which the largest comes first.
    const tokens = ({ rows, columns }: Geometry) => rows * columns;
    const sorted = [...named].sort(([, a], [, b]) => tokens(b) - tokens(a));
    const shelves = new Map(sorted.map(([name, geometry]) => [name, this.makeShelf(name, geometry)]));
    this.shelves = new Map([...named.keys()].map((name) => [name, shelves.get(name)!]));
    this.optimizerPlan = this.reports
      ? session.plan("flow optimizer", (graph) => optimizer.trace(graph, { loss: graph.read(this.reports!) }))
      : null;
  }

  private makeShelf(name: string, geometry: Geometry): FlowShelf {
    const { session, options } = this;
    const { batch, accumulation } = options;
    const shape = [batch, geometry.rows * geometry.columns, this.model.channels];
    const data = (part: string, size: number[]) => session.data(`flow ${name}.${part}`, size);
    const { whole } = this;
    const shelf: FlowShelf = {
      geometry,
      latents: data("latents", shape),
      noise: whole || options.givenNoise ? null : data("noise", [batch, accumulation, shape[1]! * shape[2]!]),
      given: options.givenNoise || options.validates ? data("given noise", shape) : null,
      plans: { update: null, begin: null, micro: null, validate: null },
    };
    const { transformer } = this.model;
    if (this.whole && !isStreamed(transformer)) {
      const update = this.parts(`flow update ${name}`, shelf, true, (graph) => this.drawnNoise(graph, shelf));
      const plan = session.plan(update.name, (graph) => {
        this.optimizer.clearGradients(graph);
        const { loss } = traceStage(graph, transformer, update)!;
        graph.scope(OPTIMIZER_SCOPE, () => this.optimizer.trace(graph, { loss }));
      });
      shelf.plans.update = new PlanStage(session, plan, OPTIMIZER_SCOPE);
    } else {
      shelf.plans.begin = session.plan(`flow begin ${name}`, (graph) => this.traceBegin(graph, shelf));
      const micro = this.parts(`flow micro-step ${name}`, shelf, true, (graph) => this.pickedNoise(graph, shelf));
      shelf.plans.micro = stageOf(session, transformer, micro);
    }
    if (options.validates) {
      const validation = this.parts(`flow validation ${name}`, shelf, false, (graph) => graph.read(shelf.given!));
      shelf.plans.validate = stageOf(session, transformer, validation);
    }
    return shelf;
  }

  /** Noise of an update in one. */
  private drawnNoise(graph: Graph, shelf: FlowShelf): Tensor {
    if (this.options.givenNoise) return graph.read(shelf.given!);
    return randomNormal(graph.read(this.shared.key), shelf.latents.shape);
  }

  private traceBegin(graph: Graph, shelf: FlowShelf): void {
    this.optimizer.clearGradients(graph);
    if (!shelf.noise) return;
    const [batch, accumulation, values] = shelf.noise.shape as [number, number, number];
    // Sample s of the update gets the s-th part of the stream, whatever the batch; a micro-step picks rows by its number.
    const all = randomNormal(graph.read(this.shared.key), [accumulation, batch, values]);
    graph.assign(shelf.noise, permute(all, [1, 0, 2]));
  }

  /** Noise of a micro-step. */
  private pickedNoise(graph: Graph, shelf: FlowShelf): Tensor {
    if (!shelf.noise) return graph.read(shelf.given!);
    return reshape(gatherRows(graph.read(shelf.noise), graph.read(this.shared.slot)), shelf.latents.shape);
  }

  /** Mixing noise in, the loss of the velocity, and its report. */
  private parts(
    name: string,
    shelf: FlowShelf,
    training: boolean,
    noise: (graph: Graph) => Tensor,
  ): StageParts<FlowMix> {
    const { shared, options, model, session } = this;
    const { lossScale } = this.optimizer;
    return {
      name,
      conditioning: shared.conditioning,
      rotary: (graph) => model.rotary(graph, session, shelf.geometry),
      imageTokens: shelf.latents.shape[1]!,
      training,
      checkpoint: training && options.checkpointing,
      inputs: (graph) => ({
        clean: graph.read(shelf.latents),
        noise: noise(graph),
        sigma: graph.read(shared.sigma),
        keep: graph.read(shared.keep),
        factor: graph.read(shared.factor),
        delta: options.loss === "mse" ? undefined : graph.read(shared.delta),
      }),
      latents: (_, mix) => mixNoise(mix),
      judge: (graph, mix, _, velocity) => {
        const { loss, samples } = judgeFlow(graph, velocity, mix, options.loss);
        graph.assign(shared.report, concat([loss, samples], 0));
        return { loss, seed: lossScale ? graph.read(lossScale) : full(graph, [1], 1) };
      },
    };
  }
}
