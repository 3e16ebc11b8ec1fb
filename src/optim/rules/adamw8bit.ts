// AdamW whose moments take 8 bits (Dettmers et al., "8-bit Optimizers via Block-wise Quantization", 2022; map, block size
// and the exception for small tensors as in bitsandbytes): two bytes of state a parameter instead of eight.

import smallSource from "../../../shaders/adam_small.wgsl" with { type: "text" };
import adam8bitSource from "../../../shaders/adam8bit.wgsl" with { type: "text" };
import findRow from "../../../shaders/lib/find_row.wgsl" with { type: "text" };
import laneSum from "../../../shaders/lib/lane_sum.wgsl" with { type: "text" };
import type { Graph } from "../../tensor/graph.ts";
import type { Lowering } from "../../tensor/lower.ts";
import type { Session } from "../../tensor/session.ts";
import type { Pool, Variable } from "../../tensor/variable.ts";
import type { OptimizerSettings } from "../settings.ts";
import { type Group, type Parts, type StepContext, segmentSlot, stateName, type UpdateRule } from "../step.ts";
import { type Run, runChunks, runValues, runWords, tensorRuns, tensorTable } from "../tensors.ts";
import { adamwWords } from "./adamw.ts";

/** Values that share one largest magnitude. */
export const BLOCK = 256;
/** Words of a block: codes of both moments, four in a word, and both magnitudes. */
export const BLOCK_WORDS = (2 * BLOCK) / 4 + 2;
/** Tensors with fewer values keep f32 moments: norms and biases need them, and there is little to save. */
export const SMALLEST_QUANTISED = 4096;

/**
 * The 256 values that codes stand for, rising: decades from 1e-6 to 1 with 2^i (signed, and their negatives) or 2^(i+1)
 * midpoints of an even division of [0.1, 1] each, and 0 and 1 ("dynamic tree quantization").
 */
export function dynamicMap(signed: boolean): Float32Array {
  const values = [0, 1];
  for (let decade = 0; decade < 7; decade++) {
    const count = 2 ** (signed ? decade : decade + 1);
    for (let k = 0; k < count; k++) {
      const value = (0.1 + (0.9 * (k + 0.5)) / count) * 10 ** (decade - 6);
      values.push(value);
      if (signed) values.push(-value);
    }
  }
  return Float32Array.from(values).sort();
}

const isQuantised = (parameter: Variable) => parameter.size >= SMALLEST_QUANTISED;

export class AdamW8bitRule implements UpdateRule {
  readonly state: Readonly<Record<string, Pool>>;
  readonly corrected = true;
  private readonly session: Session;
  private readonly groups: readonly Group[];
  private readonly settings: OptimizerSettings;
  /** u32: [blocks, BLOCK_WORDS], or [2, size] bits of f32 for a small tensor. */
  private readonly moments: Pool[];
  private readonly runs: { quantised: Run[]; small: Run[] };
  private tables: { quantised: Variable | null; small: Variable | null; maps: Variable } | null = null;

  constructor(session: Session, groups: readonly Group[], settings: OptimizerSettings) {
    this.session = session;
    this.groups = groups;
    this.settings = settings;
    this.moments = groups.map((g) => {
      const pool = session.pool(stateName("moments", g.index), "optimizer");
      for (const v of g.parameters.variables) {
        const shape = isQuantised(v) ? [Math.ceil(v.size / BLOCK), BLOCK_WORDS] : [2, v.size];
        pool.add(`${v.name}.moments`, shape, "u32");
      }
      return pool;
    });
    this.runs = {
      quantised: tensorRuns(groups, this.moments, isQuantised),
      small: tensorRuns(groups, this.moments, (v) => !isQuantised(v)),
    };
    this.state = Object.fromEntries(this.moments.map((pool, i) => [stateName("moments", i), pool]));
  }

  scalars(group: Group, rate: number, t: number, words: Float32Array): void {
    adamwWords(this.settings, group, rate, t, Boolean(this.settings.lossScale), words);
  }

  prepare(graph: Graph): void {
    const name = `${this.groups[0]!.parameters.name}.adamw8bit`;
    const table = (kind: "quantised" | "small") =>
      this.runs[kind].length > 0 ? tensorTable(this.session, graph, `${name}.${kind}`, this.runs[kind]) : null;
    const maps = Float32Array.from([...dynamicMap(true), ...dynamicMap(false)]);
    this.tables = {
      quantised: table("quantised"),
      small: table("small"),
      maps: this.session.constant(graph, "adamw8bit.maps", maps, [maps.length]).variable!,
    };
  }

  lower(lowering: Lowering, context: StepContext): Parts {
    const all = [...this.runs.quantised, ...this.runs.small];
    const count = all.reduce((n, run) => n + runChunks(run), 0);
    const parts = lowering.scratch(Math.max(4, 2 * count));
    let first = 0;
    for (const kind of ["quantised", "small"] as const) {
      for (const run of this.runs[kind]) {
        const items = runChunks(run);
        const { words, grid } = runWords(lowering, run, items, first);
        const { parameters, gradients } = this.groups[run.group]!;
        const tables = [this.tables![kind]!, ...(kind === "quantised" ? [this.tables!.maps] : [])];
        lowering.call({
          label: kind === "quantised" ? "adamw 8-bit" : "adamw small",
          source: kind === "quantised" ? adam8bitSource : smallSource,
          constants: { FIND_ROW: findRow, LANE_SUM: laneSum },
          inputs: [
            segmentSlot(lowering, gradients, run.segment),
            context.state,
            ...tables.map((table) => lowering.variable(table)),
          ],
          outputs: [parts],
          inPlace: [
            segmentSlot(lowering, parameters, run.segment),
            segmentSlot(lowering, this.moments[run.group]!, run.stateSegment, "u32"),
          ],
          params: words,
          grid,
          flops: 60 * runValues(run),
        });
        first += items;
      }
    }
    return { parts, count };
  }
}
