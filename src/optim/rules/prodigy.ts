// Prodigy (Mishchenko & Defazio, "Prodigy: An Expeditiously Adaptive Parameter-Free Learner", 2023; results as the class
// of the package prodigyopt): Adam whose step is scaled by a running estimate d of the distance to the solution. The
// estimate and its sums stay on the device, in a pool that checkpoints hold.

import findRow from "../../../shaders/lib/find_row.wgsl" with { type: "text" };
import laneSum from "../../../shaders/lib/lane_sum.wgsl" with { type: "text" };
import prodigySource from "../../../shaders/prodigy.wgsl" with { type: "text" };
import estimateSource from "../../../shaders/prodigy_estimate.wgsl" with { type: "text" };
import gatherSource from "../../../shaders/prodigy_gather.wgsl" with { type: "text" };
import sumsSource from "../../../shaders/prodigy_sums.wgsl" with { type: "text" };
import type { Graph } from "../../tensor/graph.ts";
import type { Lowering, Slot } from "../../tensor/lower.ts";
import type { Session } from "../../tensor/session.ts";
import type { Pool, Variable } from "../../tensor/variable.ts";
import type { OptimizerSettings, ProdigyOptions } from "../settings.ts";
import {
  GROUP_WORDS,
  type Group,
  type Parts,
  type StepContext,
  segmentSlot,
  stateName,
  stretchWords,
  type UpdateRule,
} from "../step.ts";
import { type Run, runChunks, runValues, runWords, tensorRuns, tensorTable } from "../tensors.ts";

/** Stands for growth without bound: min(d_max, d · growth) is d_max for every d that occurs. */
const UNBOUNDED = 1e30;

export class ProdigyRule implements UpdateRule {
  readonly state: Readonly<Record<string, Pool>>;
  private readonly session: Session;
  private readonly groups: readonly Group[];
  private readonly settings: OptimizerSettings;
  private readonly options: Required<Omit<ProdigyOptions, "beta3">> & { beta3: number };
  private readonly first: Pool[] | null;
  private readonly second: Pool[];
  /** Every `sliceP`-th value of the first point, and accumulated gradients at these places. */
  private readonly points: Pool[];
  private readonly sums: Pool[];
  private readonly estimate: Variable;
  private readonly runs: Run[];
  private table: Variable | null = null;

  /** Throws a plain Error where groups have different rates other than 0: they share one estimate. */
  constructor(session: Session, groups: readonly Group[], settings: OptimizerSettings) {
    this.session = session;
    this.groups = groups;
    this.settings = settings;
    const given = settings.prodigy ?? {};
    this.options = {
      beta3: given.beta3 ?? Math.sqrt(settings.beta2),
      decouple: given.decouple ?? true,
      useBiasCorrection: given.useBiasCorrection ?? false,
      safeguardWarmup: given.safeguardWarmup ?? false,
      d0: given.d0 ?? 1e-6,
      dCoef: given.dCoef ?? 1,
      growthRate: given.growthRate ?? Number.POSITIVE_INFINITY,
      sliceP: given.sliceP ?? 1,
    };
    const { sliceP } = this.options;
    if (!Number.isInteger(sliceP) || sliceP < 1) throw new Error(`sliceP ${sliceP} is not a whole number above 0`);
    const rates = new Set(groups.map((g) => g.rateFactor).filter((factor) => factor !== 0));
    if (rates.size > 1) throw new Error("Prodigy's groups share one rate: factors must be equal, or 0");
    const twins = (name: string, suffix: string) =>
      groups.map((g) => session.adopt(g.parameters.twin(stateName(name, g.index), "optimizer", suffix)));
    this.first = settings.beta1 > 0 ? twins("first moment", ".first") : null;
    this.second = twins("second moment", ".second");
    this.points = groups.map((g) => {
      const pool = session.pool(stateName("prodigy points", g.index), "optimizer");
      for (const v of g.parameters.variables) pool.add(`${v.name}.point`, [Math.ceil(v.size / sliceP)], "f32");
      return pool;
    });
    this.sums = this.points.map((pool, i) =>
      session.adopt(pool.twin(stateName("prodigy sums", i), "optimizer", ".sum")),
    );
    const own = session.pool("prodigy estimate", "optimizer");
    this.estimate = own.add("prodigy.estimate", [8], "f32");
    this.runs = tensorRuns(groups, this.points);
    this.state = {
      ...Object.fromEntries((this.first ?? []).map((pool, i) => [stateName("first_moment", i), pool])),
      ...Object.fromEntries(this.second.map((pool, i) => [stateName("second_moment", i), pool])),
      ...Object.fromEntries(this.points.map((pool, i) => [stateName("prodigy_points", i), pool])),
      ...Object.fromEntries(this.sums.map((pool, i) => [stateName("prodigy_sums", i), pool])),
      prodigy: own,
    };
  }

  scalars(group: Group, rate: number, _t: number, words: Float32Array): void {
    const { beta1, beta2, epsilon } = this.settings;
    const { beta3, dCoef, growthRate, d0 } = this.options;
    words.set([rate * group.rateFactor, 1 - beta1, 1 - beta2, beta3, group.weightDecay, epsilon, dCoef]);
    words.set([Math.min(growthRate, UNBOUNDED), d0, beta2, beta1], 9);
  }

  prepare(graph: Graph): void {
    const name = `${this.groups[0]!.parameters.name}.prodigy`;
    this.table = tensorTable(this.session, graph, name, this.runs);
  }

  initialise(session: Session): void {
    const values = new Float32Array(this.estimate.size);
    values[0] = values[1] = this.options.d0;
    session.write(this.estimate, values);
  }

  lowerBegin(lowering: Lowering): void {
    for (const run of this.runs) {
      const { words, grid } = runWords(lowering, run, runChunks(run), 0);
      lowering.call({
        label: "prodigy gather",
        source: gatherSource,
        constants: { FIND_ROW: findRow },
        inputs: [
          lowering.variable(this.table!),
          segmentSlot(lowering, this.groups[run.group]!.parameters, run.segment),
        ],
        outputs: [],
        inPlace: [segmentSlot(lowering, this.points[run.group]!, run.stateSegment)],
        params: [...words, this.options.sliceP],
        grid,
      });
    }
  }

  lower(lowering: Lowering, context: StepContext): Parts {
    const { decouple } = this.options;
    const steps = this.lowerEstimate(lowering, context);
    const parts = lowering.scratch(Math.max(4, 2 * context.chunks));
    for (const stretch of context.stretches) {
      const segment = (pool: Pool) => segmentSlot(lowering, pool, stretch.segment);
      const { parameters, gradients } = this.groups[stretch.group]!;
      const changed = [parameters, this.second[stretch.group]!, ...(this.first ? [this.first[stretch.group]!] : [])];
      lowering.call({
        label: "prodigy",
        source: prodigySource,
        constants: { LANE_SUM: laneSum, COUPLED: !decouple, FIRST: this.first !== null },
        inputs: [segment(gradients), context.state, steps],
        outputs: [parts],
        inPlace: changed.map(segment),
        params: stretchWords(stretch),
        grid: stretch.grid,
        flops: 100 * stretch.vectors,
      });
    }
    return { parts, count: context.chunks };
  }

  /** Sums over the places that the estimate looks at, then d; returns what the update needs of both. */
  private lowerEstimate(lowering: Lowering, context: StepContext): Slot {
    const { decouple, useBiasCorrection, safeguardWarmup, sliceP } = this.options;
    const chunks = this.runs.reduce((n, run) => n + runChunks(run), 0);
    const parts = lowering.scratch(Math.max(4, 2 * chunks));
    let first = 0;
    for (const run of this.runs) {
      const items = runChunks(run);
      const { words, grid } = runWords(lowering, run, items, first);
      const { parameters, gradients } = this.groups[run.group]!;
      lowering.call({
        label: "prodigy sums",
        source: sumsSource,
        constants: {
          FIND_ROW: findRow,
          LANE_SUM: laneSum,
          COUPLED: !decouple,
          SAFEGUARD: safeguardWarmup,
          BIAS: useBiasCorrection,
        },
        inputs: [
          segmentSlot(lowering, gradients, run.segment),
          context.state,
          lowering.variable(this.table!),
          lowering.variable(this.estimate),
          segmentSlot(lowering, parameters, run.segment),
          segmentSlot(lowering, this.points[run.group]!, run.stateSegment),
        ],
        outputs: [parts],
        inPlace: [segmentSlot(lowering, this.sums[run.group]!, run.stateSegment)],
        params: [...words, sliceP],
        grid,
        flops: (10 * runValues(run)) / sliceP,
      });
      first += items;
    }
    const steps = lowering.scratch(4);
    const leader = this.groups.find((g) => g.rateFactor !== 0) ?? this.groups[0]!;
    lowering.call({
      label: "prodigy estimate",
      source: estimateSource,
      constants: { BIAS: useBiasCorrection },
      inputs: [parts, context.state],
      outputs: [steps],
      inPlace: [lowering.variable(this.estimate), context.report],
      params: [chunks, leader.index * GROUP_WORDS],
      grid: [1, 1, 1],
      flops: 2 * chunks,
    });
    return steps;
  }
}
