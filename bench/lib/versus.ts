// One comparison from tasks to rows: every library prepares a task in its own process, its result is checked, then batches
// of all of them go round (contest.ts), and what counts are the medians.

import { Child, contest } from "./contest.ts";
import { fixed, geometricMean, median, printTable, type Row } from "./report.ts";

export interface Compared {
  name: string;
  task: unknown;
  /** Of one run of the task; multiply-adds count as two. */
  flops: number;
}

export interface VersusOptions {
  /** Names and files (relative to bench/); the first is ours. */
  libraries: readonly (readonly [name: string, file: string])[];
  /** Largest relative error that a result may have. */
  tolerance: number;
  rounds: number;
  batchSeconds: number;
  /** Most seconds of all rounds of one task, three at least. */
  mostSeconds?: number;
  /** Count processor time (contest.ts). */
  byProcessor?: boolean;
}

/** Runs all tasks and prints GFLOP/s and the ratio to the best of the others. @throws where our own result is wrong */
export async function versus(tasks: readonly Compared[], options: VersusOptions): Promise<Row[]> {
  const children: Child[] = [];
  for (const [name, file] of options.libraries) children.push(await Child.start(name, file));
  const ours = children[0]!;
  const rows: Row[] = [];
  const table: string[][] = [];
  const notes = new Set<string>();
  for (const { name, task, flops } of tasks) {
    const able: Child[] = [];
    for (const child of children) {
      const error = await child.prepare(task);
      if (child.absent) {
        notes.add(`${child.name} is absent: ${child.absent}`);
        if (child === ours) throw new Error(child.absent);
      } else if (typeof error !== "number" || !(error < options.tolerance)) {
        notes.add(`${child.name} is left out at ${name}: relative error ${error}`);
        if (child === ours) throw new Error(`our result of ${name} has a relative error of ${error}`);
      } else {
        able.push(child);
      }
    }
    const times = await contest(able, options.rounds, options.batchSeconds, options.mostSeconds, options.byProcessor);
    const speeds = new Map([...times].map(([child, t]) => [child, flops / median(t) / 1e9]));
    const own = speeds.get(ours)!;
    const peers = able.slice(1).map((child) => speeds.get(child)!);
    const best = peers.length > 0 ? Math.max(...peers) : null;
    rows.push({ name, ours: own, best_peer: best, ratio: best ? own / best : null });
    // A benchmark of many tasks shows how far it is; tables and rows come at the end.
    const speedsText = [...speeds].map(([child, speed]) => `${child.name} ${fixed(speed, 1)}`).join(", ");
    console.error(`${rows.length}/${tasks.length} ${name}: ${speedsText}`);
    table.push([name, ...children.map((c) => fixed(speeds.get(c), 1)), best ? `${fixed(own / best)}x` : "-"]);
  }
  for (const child of children) await child.close();
  printTable(["GFLOP/s", ...children.map((c) => c.name), "ratio to the best"], table);
  for (const child of children) if (!child.absent) console.log(`${child.name}: adapter ${child.adapter}`);
  for (const note of notes) console.log(note);
  return rows;
}

/** Geometric mean and least of the ratios, beside the goals. */
export function summary(rows: readonly Row[], goal: number, least: number | null): string {
  const ratios = rows.map((r) => r.ratio).filter((r): r is number => r !== null);
  if (ratios.length === 0) return "nobody to compare with";
  const worst = rows.find((r) => r.ratio === Math.min(...ratios))!;
  const bound = least === null ? "" : ` (goal ${least}x)`;
  return `geometric mean ${fixed(geometricMean(ratios))}x (goal ${goal}x), least ${fixed(worst.ratio)}x${bound} at ${worst.name}`;
}
