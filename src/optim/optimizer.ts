// One optimizer for all kinds: it declares gradients and state as twins of the parameters, appends clearing and the whole
// step to plans, and says what the step did. Groups of parameters are clipped by one norm; a step whose gradients, norm or
// loss are not finite changes nothing but the loss scale.

import type { Graph, Operation, Tensor } from "../tensor/graph.ts";
import type { Plan, Session } from "../tensor/session.ts";
import type { Pool, Variable } from "../tensor/variable.ts";
import { AdafactorRule, relativeRate } from "./rules/adafactor.ts";
import { AdamWRule } from "./rules/adamw.ts";
import { AdamW8bitRule } from "./rules/adamw8bit.ts";
import { LionRule } from "./rules/lion.ts";
import { ProdigyRule } from "./rules/prodigy.ts";
import { SgdRule } from "./rules/sgd.ts";
import { checkTwin, poolSegments } from "./segments.ts";
import type { OptimizerKind, OptimizerReport, OptimizerSettings, ParameterGroup } from "./settings.ts";
import {
  chunkCount,
  GROUP_WORDS,
  type Group,
  lowerAverage,
  lowerClear,
  lowerClip,
  lowerLossScale,
  lowerReport,
  REPORT,
  REPORT_WORDS,
  type StepContext,
  stateName,
  stretchesOf,
  type UpdateRule,
  WORD,
} from "./step.ts";

export type { OptimizerKind, OptimizerReport, OptimizerSettings, ParameterGroup } from "./settings.ts";

/** Nodes that do something to pools and hand no values on. */
const operation = (name: string, lower: Operation["lower"]): Operation => ({
  name,
  sideEffect: true,
  infer: () => [],
  lower,
});

const clearOperation = operation("clear gradients", (lowering, node) =>
  lowerClear(lowering, node.attributes["groups"] as readonly Group[]),
);

const stepOperation = operation("optimizer", (lowering, node) =>
  (node.attributes["lower"] as Operation["lower"])(lowering, node),
);

export class Optimizer {
  readonly settings: OptimizerSettings;
  readonly groups: readonly Group[];
  readonly gradients: readonly Pool[];
  /**
   * Everything besides the parameters that decides how training goes on, by the name of its group of tensors in a
   * checkpoint. Pools may hold u32 values.
   */
  readonly state: Readonly<Record<string, Pool>>;
  /** Exponential averages of the parameters, one a group; part of `state`. */
  readonly average: readonly Pool[] | null;
  /** f32 [1]: what the seed of the backward pass must be multiplied with; the optimizer divides it out again. */
  readonly lossScale: Variable | null;
  private readonly counters: Variable | null;
  private readonly rule: UpdateRule;
  private readonly scalars: Variable;
  private readonly report: Variable;
  private readonly beginPlan: Plan | null;

  /**
   * Declares gradients (each parameter's `gradient` is set), state, scalars and report; the session must not be open, and
   * no plan that trains the parameters may be traced before. Throws a plain Error where a group is empty or holds
   * anything but f32.
   */
  constructor(session: Session, groups: readonly ParameterGroup[], settings: OptimizerSettings) {
    this.settings = settings;
    if (groups.length === 0) throw new Error("an optimizer needs at least one group of parameters");
    this.groups = groups.map(({ pool, weightDecay, rateFactor }, index) => {
      if (pool.variables.length === 0) throw new Error(`pool ${pool.name} has no parameters`);
      poolSegments(pool);
      const gradients = session.adopt(pool.twin(stateName("gradients", index), "gradients", ".gradient"));
      pool.variables.forEach((v, i) => (v.gradient = gradients.variables[i]!));
      return {
        index,
        parameters: pool,
        gradients,
        weightDecay: weightDecay ?? settings.weightDecay,
        rateFactor: rateFactor ?? 1,
      };
    });
    this.gradients = this.groups.map((g) => g.gradients);
    this.rule = new RULES[settings.kind](session, this.groups, settings);
    const state: Record<string, Pool> = { ...this.rule.state };
    this.average =
      settings.averageDecay === undefined
        ? null
        : this.groups.map((g) =>
            session.adopt(g.parameters.twin(stateName("average", g.index), "optimizer", ".average")),
          );
    this.average?.forEach((pool, i) => (state[stateName("average", i)] = pool));
    if (settings.lossScale) {
      const pool = session.pool("loss scale", "optimizer");
      this.lossScale = pool.add("loss_scale", [1], "f32");
      this.counters = pool.add("loss_scale.counters", [4], "f32");
      state["loss_scale"] = pool;
    } else {
      this.lossScale = null;
      this.counters = null;
    }
    this.state = state;
    const name = `${groups[0]!.pool.name}.optimizer`;
    this.scalars = session.data(`${name}.scalars`, [groups.length * GROUP_WORDS]);
    this.report = session.data(`${name}.report`, [REPORT_WORDS]);
    this.beginPlan = this.planBegin(session);
  }

  private planBegin(session: Session): Plan | null {
    if (!this.average && !this.rule.lowerBegin) return null;
    return session.plan("optimizer begin", (graph) => {
      this.rule.prepare?.(graph);
      const lower: Operation["lower"] = (lowering) => {
        this.groups.forEach(({ parameters }, i) => {
          const average = this.average?.[i];
          if (!average) return;
          const targets = poolSegments(average);
          poolSegments(parameters).forEach((s, k) =>
            lowering.copy(lowering.variable(s), lowering.variable(targets[k]!)),
          );
        });
        this.rule.lowerBegin?.(lowering);
      };
      graph.apply(stepOperation, [], { lower });
    });
  }

  /** Sets all gradients to zero where the plan has come to this place. */
  clearGradients(graph: Graph): void {
    graph.apply(clearOperation, [], { groups: this.groups });
  }

  /**
   * Appends one step (norm, clipping, update, average, report) to a plan. Gradients stay as they are: the caller clears
   * them. A NaN or an infinity among the values of `loss`, f32 of any shape, refuses the step like one in a gradient.
   */
  trace(graph: Graph, options: { loss?: Tensor } = {}): void {
    const { loss } = options;
    if (loss && loss.dtype !== "f32") throw new Error("the loss must be f32");
    for (const { parameters, gradients } of this.groups) checkTwin(parameters, gradients);
    this.rule.prepare?.(graph);
    const lower: Operation["lower"] = (lowering, node) => {
      const { groups, lossScale, settings } = this;
      const stretches = stretchesOf(lowering, groups);
      const state = lowerClip(lowering, groups, stretches, this.scalars, lossScale, node.inputs[0]);
      const context: StepContext = {
        stretches,
        chunks: chunkCount(stretches),
        state,
        report: lowering.variable(this.report),
      };
      if (lossScale && settings.lossScale) {
        const scale = { value: lossScale, counters: this.counters! };
        const { growthInterval } = settings.lossScale;
        lowerLossScale(lowering, context, groups.length, scale, growthInterval, this.rule.corrected ?? false);
      }
      const parts = this.rule.lower(lowering, context);
      if (this.average) lowerAverage(lowering, context, groups, this.average);
      lowerReport(lowering, context, parts);
    };
    graph.apply(stepOperation, loss ? [loss] : [], { lower });
  }

  /** The rate of step `t` before the groups' factors: the one that is given, or Adafactor's own. */
  rate(given: number, t: number): number {
    const { kind, adafactor } = this.settings;
    if (kind !== "adafactor" || !(adafactor?.relativeStep ?? true)) return given;
    return relativeRate(t, adafactor?.warmupInit ?? false);
  }

  /**
   * Writes what changes from step to step, before each run of a traced plan.
   * @param rate learning rate; groups multiply it with their factor
   * @param t number of the step, counted from 1
   */
  write(session: Session, rate: number, t: number): void {
    const { maxNorm, averageDecay } = this.settings;
    const all = new Float32Array(this.scalars.size);
    for (const group of this.groups) {
      const words = all.subarray(group.index * GROUP_WORDS, (group.index + 1) * GROUP_WORDS);
      this.rule.scalars(group, rate, t, words);
      words[WORD.averageRest] = 1 - (averageDecay ?? 0);
      words[WORD.maxNorm] = maxNorm;
    }
    session.write(this.scalars, all);
  }

  /** What the last step did; waits for the device. */
  async read(session: Session): Promise<OptimizerReport> {
    const values = await session.read(this.report);
    const report: OptimizerReport = {
      norm: values[REPORT.norm]!,
      finite: values[REPORT.notFinite] === 0,
      update: values[REPORT.update]!,
      parameters: values[REPORT.parameters]!,
    };
    if (this.settings.kind === "prodigy") report.d = values[REPORT.d]!;
    if (this.lossScale) report.lossScale = values[REPORT.lossScale]!;
    return report;
  }

  /** Gradients and state at their starting values; the session must be open. */
  initialise(session: Session): void {
    for (const pool of [...this.gradients, ...Object.values(this.state)]) session.clear(pool);
    this.rule.initialise?.(session);
    if (this.lossScale) session.write(this.lossScale, Float32Array.of(this.settings.lossScale!.initial));
  }

  /** Remembers the parameters' starting values, which must be written by now: averages, Prodigy's first point. */
  begin(session: Session): void {
    if (this.beginPlan) session.run(this.beginPlan);
  }
}

const RULES: Readonly<
  Record<OptimizerKind, new (session: Session, groups: readonly Group[], settings: OptimizerSettings) => UpdateRule>
> = {
  adamw: AdamWRule,
  adamw8bit: AdamW8bitRule,
  lion: LionRule,
  adafactor: AdafactorRule,
  prodigy: ProdigyRule,
  sgd: SgdRule,
};
