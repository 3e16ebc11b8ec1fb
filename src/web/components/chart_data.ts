// Curves of different steps on one axis: uPlot wants one list of x and, for each curve, a value or null at each of them.

import type { Series } from "../run_view.ts";

/** The union of all steps in `[0]`, then each curve's values with null where it has none. */
export function alignSeries(curves: readonly (Series | undefined)[]): [number[], ...(number | null)[][]] {
  const steps = mergeSteps(curves.map((curve) => curve?.steps ?? []));
  const values = curves.map((curve) => {
    const column: (number | null)[] = new Array(steps.length).fill(null);
    let at = 0;
    for (const [i, step] of (curve?.steps ?? []).entries()) {
      while (steps[at]! < step) at++;
      const value = curve!.values[i]!;
      column[at] = Number.isFinite(value) ? value : null;
    }
    return column;
  });
  return [steps, ...values];
}

/** Rising lists as one rising list without repeats. */
function mergeSteps(lists: readonly (readonly number[])[]): number[] {
  const at = lists.map(() => 0);
  const merged: number[] = [];
  for (;;) {
    let next = Number.POSITIVE_INFINITY;
    for (const [i, list] of lists.entries()) if (at[i]! < list.length) next = Math.min(next, list[at[i]!]!);
    if (next === Number.POSITIVE_INFINITY) return merged;
    merged.push(next);
    for (const [i, list] of lists.entries()) while (at[i]! < list.length && list[at[i]!]! <= next) at[i]!++;
  }
}

/** Thins a long curve to at most about `most` points for drawing: the least and the greatest value of each stretch stay. */
export function thin(curve: Series, most: number): Series {
  const { steps, values } = curve;
  if (steps.length <= most) return curve;
  const stretch = Math.ceil((2 * steps.length) / most);
  const out: Series = { steps: [], values: [] };
  for (let from = 0; from < steps.length; from += stretch) {
    const to = Math.min(steps.length, from + stretch);
    let low = from;
    let high = from;
    for (let i = from; i < to; i++) {
      if (values[i]! < values[low]!) low = i;
      if (values[i]! > values[high]!) high = i;
    }
    for (const i of low === high ? [low] : [Math.min(low, high), Math.max(low, high)]) {
      out.steps.push(steps[i]!);
      out.values.push(values[i]!);
    }
  }
  return out;
}
