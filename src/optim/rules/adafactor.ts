// Adafactor (Shazeer & Stern, "Adafactor: Adaptive Learning Rates with Sublinear Memory Cost", 2018) with the options and
// results of transformers' class: the second moment of a matrix is kept as means of its rows and columns, updates are
// clipped tensor by tensor, and the rate may follow the step and the tensor's own size.

import adafactorSource from "../../../shaders/adafactor.wgsl" with { type: "text" };
import columnsSource from "../../../shaders/adafactor_columns.wgsl" with { type: "text" };
import columnsSumSource from "../../../shaders/adafactor_columns_sum.wgsl" with { type: "text" };
import meansSource from "../../../shaders/adafactor_means.wgsl" with { type: "text" };
import ratesSource from "../../../shaders/adafactor_rates.wgsl" with { type: "text" };
import rowsSource from "../../../shaders/adafactor_rows.wgsl" with { type: "text" };
import sizesSource from "../../../shaders/adafactor_sizes.wgsl" with { type: "text" };
import directionText from "../../../shaders/lib/adafactor_direction.wgsl" with { type: "text" };
import findRow from "../../../shaders/lib/find_row.wgsl" with { type: "text" };
import laneSum from "../../../shaders/lib/lane_sum.wgsl" with { type: "text" };
import type { Graph } from "../../tensor/graph.ts";
import type { Lowering, Slot } from "../../tensor/lower.ts";
import type { Session } from "../../tensor/session.ts";
import type { Shape } from "../../tensor/shape.ts";
import type { Pool, Variable } from "../../tensor/variable.ts";
import type { AdafactorOptions, OptimizerSettings } from "../settings.ts";
import { type Group, type Parts, type StepContext, segmentSlot, stateName, type UpdateRule } from "../step.ts";
import { type Run, runChunks, runValues, runWords, TENSOR_CHUNK, tensorRuns } from "../tensors.ts";

/** Rows of a matrix that one lane of the column sums takes; the kernel holds the same number. */
const TILE = 128;

/** A tensor as a stack of matrices; `columns` is 0 where its second moment is kept whole. */
interface Stack {
  matrices: number;
  rows: number;
  columns: number;
}

function stackOf(shape: Shape): Stack {
  if (shape.length < 2) return { matrices: 1, rows: 0, columns: 0 };
  const [rows, columns] = shape.slice(-2) as [number, number];
  return { matrices: shape.slice(0, -2).reduce((a, b) => a * b, 1), rows, columns };
}

/** The rate of step `t` that Adafactor works out by itself. */
export function relativeRate(t: number, warmupInit: boolean): number {
  return Math.min(warmupInit ? 1e-6 * t : 1e-2, 1 / Math.sqrt(t));
}

/** What a run's kernels need to know of its sums. */
interface Layout {
  /** Work items of each pass. */
  rows: number;
  columns: number;
  columnSums: number;
  /** Matrices, and with them the means; behind them `results` holds two values a tensor. */
  matrices: number;
  /** Values of scratch for the tiles of columns. */
  tiles: number;
}

export class AdafactorRule implements UpdateRule {
  readonly state: Readonly<Record<string, Pool>>;
  private readonly session: Session;
  private readonly groups: readonly Group[];
  private readonly options: Required<AdafactorOptions>;
  /** Rows [B·R] and columns [B·C] of a matrix or stack [B, R, C] in one vector; all values of anything else. */
  private readonly second: Pool[];
  private readonly first: Pool[] | null;
  private readonly runs: Run[];
  private readonly layouts: Layout[];
  private readonly words: number[];
  private table: Variable | null = null;

  constructor(session: Session, groups: readonly Group[], settings: OptimizerSettings) {
    this.session = session;
    this.groups = groups;
    const given = settings.adafactor ?? {};
    this.options = {
      scaleParameter: given.scaleParameter ?? true,
      relativeStep: given.relativeStep ?? true,
      warmupInit: given.warmupInit ?? false,
      clipThreshold: given.clipThreshold ?? 1,
      decayRate: given.decayRate ?? -0.8,
      beta1: given.beta1 ?? null,
      epsilonSquare: given.epsilonSquare ?? 1e-30,
      epsilonScale: given.epsilonScale ?? 1e-3,
    };
    this.second = groups.map((g) => {
      const pool = session.pool(stateName("second moment", g.index), "optimizer");
      for (const v of g.parameters.variables) {
        const { matrices, rows, columns } = stackOf(v.shape);
        pool.add(`${v.name}.second`, [columns > 0 ? matrices * (rows + columns) : v.size], "f32");
      }
      return pool;
    });
    const moment = (g: Group) =>
      session.adopt(g.parameters.twin(stateName("first moment", g.index), "optimizer", ".first"));
    this.first = this.options.beta1 === null ? null : groups.map(moment);
    this.runs = tensorRuns(groups, this.second);
    this.words = [];
    this.layouts = this.runs.map((run) => this.layOut(run));
    this.state = {
      ...Object.fromEntries(this.second.map((pool, i) => [stateName("second_moment", i), pool])),
      ...Object.fromEntries((this.first ?? []).map((pool, i) => [stateName("first_moment", i), pool])),
    };
  }

  /**
   * Appends a run's rows to the table: chunks before, start, size, start of the state, B, R, C, then the items before it
   * in the passes over rows, columns, sums of columns and matrices, and its places among tiles and means.
   */
  private layOut(run: Run): Layout {
    const layout: Layout = { rows: 0, columns: 0, columnSums: 0, matrices: 0, tiles: 0 };
    let chunks = 0;
    for (const { parameter, start, stateStart } of run.places) {
      const { matrices, rows, columns } = stackOf(parameter.shape);
      const row = [chunks, start, parameter.size, stateStart, matrices, rows, columns];
      row.push(layout.rows, layout.columns, layout.columnSums, layout.matrices, layout.tiles, layout.matrices);
      this.words.push(...row, 0, 0, 0);
      chunks += Math.ceil(parameter.size / TENSOR_CHUNK);
      if (columns === 0) continue;
      const tiles = Math.ceil(rows / TILE);
      const blocks = Math.ceil((matrices * columns) / 64);
      layout.rows += Math.ceil((matrices * rows) / 8);
      layout.columns += tiles * blocks;
      layout.columnSums += blocks;
      layout.matrices += matrices;
      layout.tiles += tiles * matrices * columns;
    }
    return layout;
  }

  scalars(group: Group, rate: number, t: number, words: Float32Array): void {
    const o = this.options;
    const own = (o.relativeStep ? relativeRate(t, o.warmupInit) : rate) * group.rateFactor;
    words.set([own, t ** o.decayRate, o.epsilonSquare, o.epsilonScale, o.clipThreshold, group.weightDecay]);
    words[6] = 1 - (o.beta1 ?? 0);
    words[9] = o.scaleParameter ? 1 : 0;
    words[10] = group.rateFactor === 0 ? 1 : 0;
  }

  prepare(graph: Graph): void {
    const name = `${this.groups[0]!.parameters.name}.adafactor`;
    this.table = this.session.constant(graph, name, Uint32Array.from(this.words), [this.words.length]).variable!;
  }

  lower(lowering: Lowering, context: StepContext): Parts {
    const count = this.runs.reduce((n, run) => n + runChunks(run), 0);
    const parts = lowering.scratch(Math.max(4, 2 * count));
    const sizes = lowering.scratch(Math.max(4, 2 * count));
    let first = 0;
    this.runs.forEach((run, i) => {
      this.lowerRun(lowering, context, run, this.layouts[i]!, { parts, sizes, first });
      first += runChunks(run);
    });
    return { parts, count };
  }

  private lowerRun(
    lowering: Lowering,
    context: StepContext,
    run: Run,
    layout: Layout,
    place: { parts: Slot; sizes: Slot; first: number },
  ): void {
    const { parameters, gradients } = this.groups[run.group]!;
    const table = lowering.variable(this.table!);
    const gradient = segmentSlot(lowering, gradients, run.segment);
    const value = segmentSlot(lowering, parameters, run.segment);
    const moments = segmentSlot(lowering, this.second[run.group]!, run.stateSegment);
    const results = lowering.scratch(Math.max(4, layout.matrices + 2 * run.places.length));
    const values = runValues(run);
    const pass = (
      label: string,
      source: string,
      items: number,
      bindings: { inputs: Slot[]; outputs?: Slot[]; inPlace?: Slot[] },
      flops: number,
      first = place.first,
    ) => {
      const { words, grid } = runWords(lowering, run, items, first);
      lowering.call({
        label,
        source,
        constants: { FIND_ROW: findRow, LANE_SUM: laneSum, DIRECTION: directionText, FIRST: this.first !== null },
        inputs: bindings.inputs,
        outputs: bindings.outputs ?? [],
        inPlace: bindings.inPlace,
        params: [...words, layout.matrices],
        grid,
        flops,
      });
    };
    const { state } = context;
    if (layout.matrices > 0) {
      const tiles = lowering.scratch(Math.max(4, layout.tiles));
      const inputs = [gradient, state, table];
      pass("adafactor rows", rowsSource, layout.rows, { inputs, inPlace: [moments] }, 3 * values);
      pass("adafactor columns", columnsSource, layout.columns, { inputs, outputs: [tiles] }, 3 * values);
      const summed = { inputs: [tiles, state, table], inPlace: [moments] };
      pass("adafactor columns sum", columnsSumSource, layout.columnSums, summed, layout.tiles);
      pass("adafactor means", meansSource, layout.matrices, { inputs: [moments, table], outputs: [results] }, values);
    }
    const chunks = runChunks(run);
    const measured = { inputs: [gradient, state, table, results, value], outputs: [place.sizes], inPlace: [moments] };
    pass("adafactor sizes", sizesSource, chunks, measured, 12 * values);
    const rates = { inputs: [place.sizes, state, table], inPlace: [results] };
    pass("adafactor rates", ratesSource, run.places.length, rates, 2 * chunks);
    const first = this.first ? [segmentSlot(lowering, this.first[run.group]!, run.segment)] : [];
    const updated = {
      inputs: [gradient, state, table, results, moments],
      outputs: [place.parts],
      inPlace: [value, ...first],
    };
    pass("adafactor", adafactorSource, chunks, updated, 14 * values);
  }
}
