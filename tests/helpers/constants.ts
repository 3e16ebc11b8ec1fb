// Runs traced functions that ask for constant tables (src/ops/resample.ts): a first trace without a device finds the
// tables, which then travel as inputs of `runOps`.

import { backward } from "../../src/ops/backward.ts";
import type { Constant } from "../../src/ops/resample.ts";
import { Graph, type Tensor } from "../../src/tensor/graph.ts";
import { Pool } from "../../src/tensor/variable.ts";
import { type InputSpec, type RunResult, runOps } from "./gpu.ts";

type Body = (tensors: Tensor[], constant: Constant, graph: Graph) => Tensor[];

export async function runWithConstants(
  inputs: InputSpec[],
  body: Body,
  options: Parameters<typeof runOps>[2] = {},
): Promise<RunResult> {
  const pool = new Pool("constants", "data", 2 ** 30);
  const graph = new Graph("constants");
  const tables: InputSpec[] = [];
  const names = new Map<string, number>();
  const find: Constant = (name, values, shape) => {
    const known = names.get(name);
    if (known !== undefined) {
      if (`${values}` !== `${tables[known]!.values}`) throw new Error(`constant ${name} was given two contents`);
      return graph.read(pool.variables.find((v) => v.name === name)!);
    }
    names.set(name, tables.length);
    tables.push({ shape, values: Array.from(values), dtype: "u32" });
    return graph.read(pool.add(name, shape, "u32"));
  };
  const leaves = inputs.map((spec, i) =>
    graph.read(pool.add(`in${i}`, spec.shape, spec.dtype ?? "f32"), options.seeds !== undefined),
  );
  const results = body(leaves, find, graph);
  if (options.seeds)
    backward(
      graph,
      results.map((t, i) => [t, graph.read(pool.add(`seed${i}`, t.shape, "f32"))]),
      leaves,
    );
  return runOps(
    [...inputs, ...tables],
    (tensors, g) => {
      return body(tensors.slice(0, inputs.length), (name) => tensors[inputs.length + names.get(name)!]!, g);
    },
    options,
  );
}
