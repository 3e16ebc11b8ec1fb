// Work around one evaluation of a velocity network that is traced once and run again and again: what comes before the model,
// the model, what reads its velocity, and the way back. A model that is on the device as a whole makes one plan of it; one
// whose blocks are streamed has a plan before and a plan behind, between which it runs piece by piece.

import {
  type ConditioningVariables,
  isStreamed,
  type StreamedNetwork,
  type VelocityModel,
  type VelocityNetwork,
  type VelocityPass,
} from "../models/velocity_network.ts";
import { markTraining } from "../nn/training_mode.ts";
import { backward } from "../ops/backward.ts";
import type { Graph, Tensor } from "../tensor/graph.ts";
import type { Plan, Session } from "../tensor/session.ts";
import type { Variable } from "../tensor/variable.ts";

/** What is differentiated, and the gradient that the backward pass begins with (1, or the optimizer's loss scale). */
export interface Judged {
  loss: Tensor;
  seed: Tensor;
}

/** A stage in its parts. `V` is what the parts before and behind the model both read. */
export interface StageParts<V> {
  /** Name of the plan, and beginning of the names of several. */
  name: string;
  conditioning: ConditioningVariables;
  /** Rotary tables as leaves of a graph. */
  rotary(graph: Graph): { cosine: Tensor; sine: Tensor };
  imageTokens: number;
  training: boolean;
  /** Trace blocks again in the backward pass; streamed ones always are. */
  checkpoint?: boolean;
  /** Reads what both sides need; it is traced once for each plan, so it must give the same values every time. */
  inputs(graph: Graph): V;
  /** Packed latents [B, Li, C] that the model is given. */
  latents(graph: Graph, inputs: V): Tensor;
  /** Assigns what is wanted of the velocity; what it returns is differentiated where the stage trains. */
  judge(graph: Graph, inputs: V, latents: Tensor, velocity: Tensor): Judged | null;
}

/** Where a value first was not finite. */
export interface NotFinite {
  label: string;
  scope: string;
  plan: string;
}

export interface Stage {
  readonly name: string;
  /** Everything that one run replays, each once. */
  readonly plans: readonly Plan[];
  readonly flops: number;
  /** Resolves when all is submitted; waits for slots of a streamed model, and for the session's gate. Gradients add to their buffers. */
  run(): Promise<void>;
  /** Repeats the work call by call up to the first call that makes a value which is not finite. */
  firstNotFinite(): Promise<NotFinite | null>;
  /** Tells the plans how fast the device is (FLOP/s), so that a submit holds a moment's work. */
  setRate(flopsPerSecond: number): void;
}

/** The plans of a piece of work of either kind. */
export function plansOf(work: Plan | Stage): readonly Plan[] {
  return "plans" in work ? work.plans : [work];
}

/** Traces all of a stage into one graph; returns what was differentiated. */
export function traceStage<V>(graph: Graph, model: VelocityNetwork, parts: StageParts<V>): Judged | null {
  if (parts.training) markTraining(graph);
  const inputs = parts.inputs(graph);
  const latents = parts.latents(graph, inputs);
  const told = { latents, ...parts.conditioning.read(graph), ...parts.rotary(graph) };
  const { output } = model.forward(graph, told, { checkpoint: parts.checkpoint });
  const judged = parts.judge(graph, inputs, latents, output);
  if (parts.training && judged) backward(graph, [[judged.loss, judged.seed]]);
  return judged;
}

/** Declares a stage of either kind of model; the session must not be open yet. */
export function stageOf<V>(session: Session, model: VelocityModel, parts: StageParts<V>): Stage {
  if (isStreamed(model)) return new StreamedStage(session, model, parts);
  const plan = session.plan(parts.name, (graph) => void traceStage(graph, model, parts));
  return new PlanStage(session, plan);
}

/** A stage that is one plan. */
export class PlanStage implements Stage {
  readonly plan: Plan;
  private readonly session: Session;
  private readonly end: string | null;

  /** @param end scope of calls that a search for values which are not finite must not repeat: the optimizer's */
  constructor(session: Session, plan: Plan, end: string | null = null) {
    this.session = session;
    this.plan = plan;
    this.end = end;
  }

  get name(): string {
    return this.plan.name;
  }

  get plans(): readonly Plan[] {
    return [this.plan];
  }

  get flops(): number {
    return this.plan.flops;
  }

  run(): Promise<void> {
    return this.session.replay(this.plan);
  }

  async firstNotFinite(): Promise<NotFinite | null> {
    const { lowered, name } = this.plan;
    const end = this.end === null ? -1 : lowered.calls.findIndex((call) => call.scope === this.end);
    const calls = end < 0 ? lowered.calls : lowered.calls.slice(0, end);
    const found = await this.session.firstNotFinite({ ...this.plan, lowered: { ...lowered, calls } });
    return found && { ...found, plan: name };
  }

  setRate(flopsPerSecond: number): void {
    this.plan.executable?.setRate(flopsPerSecond);
  }
}

/** A stage around a model that runs piece by piece. */
class StreamedStage<V> implements Stage {
  readonly name: string;
  readonly plans: readonly Plan[];
  readonly flops: number;
  private readonly session: Session;
  private readonly pass: VelocityPass;
  private readonly before: Plan;
  private readonly behind: Plan;
  private readonly training: boolean;

  constructor(session: Session, model: StreamedNetwork, parts: StageParts<V>) {
    const { name, training, imageTokens, conditioning } = parts;
    this.name = name;
    this.session = session;
    this.training = training;
    const rotary = (graph: Graph) => parts.rotary(graph);
    const pass = model.pass({ name, imageTokens, conditioning, rotary, training });
    this.pass = pass;
    this.before = session.plan(`${name}, before the model`, (graph) => {
      graph.assign(pass.latents, parts.latents(graph, parts.inputs(graph)));
    });
    this.behind = session.plan(`${name}, behind the model`, (graph) => {
      const velocity = graph.read(pass.velocity, training);
      const judged = parts.judge(graph, parts.inputs(graph), graph.read(pass.latents), velocity);
      if (!training || !judged) return;
      const [gradient] = backward(graph, [[judged.loss, judged.seed]], [velocity]);
      graph.assign(pass.velocityGradient!, gradient!);
    });
    this.plans = [this.before, ...pass.forwardPlans.values(), this.behind, ...pass.backwardPlans.values()];
    this.flops = this.plans.reduce((sum, plan) => sum + plan.flops, 0);
  }

  async run(): Promise<void> {
    await this.session.replay(this.before);
    await this.pass.forward();
    await this.session.replay(this.behind);
    if (this.training) await this.pass.backward();
  }

  async firstNotFinite(): Promise<NotFinite | null> {
    const { session, pass } = this;
    const own = async (plan: Plan, written: Variable | null): Promise<NotFinite | null> => {
      // What an earlier run left there would be taken for what was there before.
      if (written) session.write(written, new Float32Array(written.size));
      const found = await session.firstNotFinite(plan);
      return found && { ...found, plan: plan.name };
    };
    return (
      (await own(this.before, pass.latents)) ??
      (await pass.firstNotFinite("forward")) ??
      (await own(this.behind, pass.velocityGradient)) ??
      (this.training ? await pass.firstNotFinite("backward") : null)
    );
  }

  setRate(flopsPerSecond: number): void {
    for (const plan of this.plans) plan.executable?.setRate(flopsPerSecond);
  }
}
