// Work lists for the kinds that must know where a tensor begins and ends (quantised blocks, factored moments, slices).
// One table of u32 rows, one a tensor, tells every kernel its place; a workgroup finds its row by bisection, so that a
// model of many small tensors needs no dispatch for each.

import type { Graph } from "../tensor/graph.ts";
import { foldGrid, type Lowering } from "../tensor/lower.ts";
import type { Session } from "../tensor/session.ts";
import { BYTES } from "../tensor/shape.ts";
import type { Pool, Variable } from "../tensor/variable.ts";
import { GROUP_WORDS, type Group } from "./step.ts";

/** Values of one tensor that a workgroup takes; the kernels hold the same number. */
export const TENSOR_CHUNK = 4096;

/** A parameter and the variable that holds its state. */
export interface Place {
  parameter: Variable;
  state: Variable;
  /** Offsets in elements inside their segments. */
  start: number;
  stateStart: number;
}

/** Tensors of one group that lie in one segment of the parameters and in one of the state: they share a dispatch. */
export interface Run {
  group: number;
  segment: number;
  stateSegment: number;
  places: Place[];
  /** First row of the table. */
  row: number;
}

/**
 * Cuts groups into runs, in the order of their variables.
 * @param states one pool a group whose variables stand for those of its parameters, one to one
 * @param take leaves tensors out
 */
export function tensorRuns(
  groups: readonly Group[],
  states: readonly Pool[],
  take: (parameter: Variable) => boolean = () => true,
): Run[] {
  const runs: Run[] = [];
  let row = 0;
  groups.forEach(({ index, parameters }) => {
    parameters.variables.forEach((parameter, i) => {
      if (!take(parameter)) return;
      const state = states[index]!.variables[i]!;
      let run = runs.at(-1);
      const fits = run?.group === index && run.segment === parameter.segment && run.stateSegment === state.segment;
      if (!run || !fits) {
        run = { group: index, segment: parameter.segment, stateSegment: state.segment, places: [], row };
        runs.push(run);
      }
      run.places.push({
        parameter,
        state,
        start: parameter.offset / BYTES[parameter.dtype],
        stateStart: state.offset / BYTES[state.dtype],
      });
      row++;
    });
  });
  return runs;
}

/**
 * The table of plain rows for all runs, as a constant of the session. A row is four words: chunks of the rows before it in
 * its run, start, size, start of the state.
 */
export function tensorTable(session: Session, graph: Graph, name: string, runs: readonly Run[]): Variable {
  const words: number[] = [];
  for (const run of runs) {
    let chunks = 0;
    for (const { parameter, start, stateStart } of run.places) {
      words.push(chunks, start, parameter.size, stateStart);
      chunks += Math.ceil(parameter.size / TENSOR_CHUNK);
    }
  }
  return session.constant(graph, name, Uint32Array.from(words), [words.length]).variable!;
}

export const runChunks = (run: Run): number =>
  run.places.reduce((n, { parameter }) => n + Math.ceil(parameter.size / TENSOR_CHUNK), 0);

/** Sum of the values of a run's tensors. */
export const runValues = (run: Run): number => run.places.reduce((n, { parameter }) => n + parameter.size, 0);

/** The words that all kernels of a run begin with: row, rows, items, fold, base of the group's words, first part. */
export function runWords(
  lowering: Lowering,
  run: Run,
  items: number,
  first: number,
): { words: number[]; grid: [number, number, number] } {
  const grid = foldGrid(items, lowering.target.maxWorkgroups);
  return { words: [run.row, run.places.length, items, grid[0], run.group * GROUP_WORDS, first], grid };
}
