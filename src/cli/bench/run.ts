// The benchmark of `longtail bench`: what this adapter reaches with the program's own kernels, in about half a minute.

import { adapterLabel } from "../../evaluation/format.ts";
import type { AdapterFacts, Gpu } from "../../gpu/device.ts";
import { affine } from "../../ops/pointwise.ts";
import { Session } from "../../tensor/session.ts";
import { targetOf } from "../../tensor/target.ts";
import { arithmeticSections } from "./arithmetic.ts";
import { measureTask, type Task } from "./measure.ts";
import { COPIES, memoryBoundTasks } from "./memory_bound.ts";

/** How long one task is measured, where it does not take longer anyway. */
const SECONDS = 0.25;

/** Memory-bound kernels that are shown; bench/bandwidth.ts measures all of them. */
const SHOWN: readonly string[] = [
  ...COPIES,
  "GELU",
  "gated residual",
  "layer norm, modulated",
  "RMS norm of heads",
  "group norm and SiLU",
  "RoPE",
  "AdamW",
];

export interface BenchRow {
  section: string;
  name: string;
  /** Of the device, the least of several runs. */
  seconds: number;
  flopsPerSecond: number | null;
  bytesPerSecond: number | null;
  /** Of the fastest copy of this run, for kernels that are bound by memory. */
  ofCopy: number | null;
}

export interface HostCost {
  /** Microseconds of the host's time for one dispatch of a replay. */
  dispatch: number;
  /** Milliseconds from submitting a tiny plan until the host knows that it is done. */
  roundTrip: number;
}

export interface BenchReport {
  adapter: Pick<AdapterFacts, "name" | "vendor" | "architecture" | "software" | "f16" | "subgroupMatrices"> & {
    driver: string;
    timestamps: boolean;
  };
  rows: BenchRow[];
  host: HostCost;
  seconds: number;
}

/**
 * Measures the adapter.
 * @param onTask told before each task
 */
export async function runBench(
  gpu: Gpu,
  onTask: (name: string, done: number, total: number) => void,
): Promise<BenchReport> {
  const started = performance.now();
  const { facts } = gpu;
  const sizes = facts.software ? { batch: 2, tokens: 1152, width: 1024 } : { batch: 4, tokens: 4608, width: 2048 };
  const sections: { title: string; tasks: Task[] }[] = [
    ...arithmeticSections(facts.software, facts.f16),
    { title: "bound by memory", tasks: memoryBoundTasks(sizes).filter(({ name }) => SHOWN.includes(name)) },
  ];
  const total = sections.reduce((n, { tasks }) => n + tasks.length, 1);
  const rows: BenchRow[] = [];
  let done = 0;
  for (const { title, tasks } of sections) {
    for (const task of tasks) {
      onTask(task.name, done++, total);
      for (const { name, seconds, flops, bytes } of await measureTask(gpu, task, SECONDS)) {
        const flopsPerSecond = bytes === null ? flops / seconds : null;
        const bytesPerSecond = bytes === null ? null : bytes / seconds;
        rows.push({ section: title, name, seconds, flopsPerSecond, bytesPerSecond, ofCopy: null });
      }
    }
  }
  const copy = Math.max(...rows.filter(({ name }) => COPIES.includes(name)).map((row) => row.bytesPerSecond!));
  for (const row of rows) if (row.bytesPerSecond !== null) row.ofCopy = row.bytesPerSecond / copy;
  onTask("host", done++, total);
  const host = await hostCost(gpu);
  onTask("", total, total);
  const { name, vendor, architecture, software, f16, subgroupMatrices, timestamps, description } = facts;
  const adapter = { name, vendor, architecture, software, f16, subgroupMatrices, driver: description, timestamps };
  return { adapter, rows, host, seconds: (performance.now() - started) / 1000 };
}

/** Host time of replaying many tiny kernels, and of waiting for one. */
async function hostCost(gpu: Gpu): Promise<HostCost> {
  const [calls, rounds] = [512, 12];
  const session = new Session(targetOf(gpu), { fuse: false });
  try {
    const [x, y, z] = [session.data("x", [64]), session.data("y", [64]), session.data("z", [64])];
    const many = session.plan("many", (graph) => {
      let value = graph.read(x);
      for (let i = 0; i < calls; i++) value = affine(value, 0.5, 1);
      graph.assign(y, value);
    });
    const single = session.plan("single", (graph) => graph.assign(z, affine(graph.read(x), 0.5, 1)));
    await session.open(gpu);
    session.write(x, new Float32Array(64));
    let [host, wait] = [Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY];
    for (let round = 0; round < rounds; round++) {
      const started = performance.now();
      session.run(many);
      host = Math.min(host, performance.now() - started);
      await session.finish();
      const again = performance.now();
      session.run(single);
      await session.finish();
      wait = Math.min(wait, performance.now() - again);
    }
    return { dispatch: (host * 1000) / many.lowered.calls.length, roundTrip: wait };
  } finally {
    session.close();
  }
}

/** Name and driver in one line. */
export function adapterLine({ adapter }: BenchReport): string {
  const name = adapterLabel({ name: adapter.name, driver: adapter.driver });
  const driver = adapter.driver && adapter.driver !== name ? `, ${adapter.driver}` : "";
  return `${name}${driver}${adapter.software ? ", a software adapter" : ""}`;
}
