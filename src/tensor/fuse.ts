// Fusion at one place: a pointwise node whose input is made by a kernel that can finish its values before the store is
// folded into that kernel, and chains of pointwise nodes become one. The switch is for parity tests; results differ at
// most by the rounding of a store that no longer happens (f16), never for f32.

import type { PointwiseStep } from "./epilogue.ts";
import type { Graph, Node, Tensor } from "./graph.ts";
import type { Variable } from "./variable.ts";

/** Steps whose two arguments may change places, and what the step is called then. */
const SWAPPED: Readonly<Record<string, string>> = { add: "add", mul: "mul", sub: "rsub", rsub: "sub" };

/** Removes nodes whose values nobody reads. */
export function removeDeadNodes(graph: Graph): void {
  const live = new Set<Tensor>(graph.assignments.map((a) => a.value));
  const kept: Node[] = [];
  for (let i = graph.nodes.length - 1; i >= 0; i--) {
    const node = graph.nodes[i]!;
    if (!node.operation.sideEffect && !node.outputs.some((t) => live.has(t))) continue;
    for (const input of node.inputs) live.add(input);
    kept.push(node);
  }
  graph.nodes = kept.reverse();
}

/** Folds pointwise nodes into their producers; `maxBindings` bounds the storage buffers of one kernel. */
export function fuse(graph: Graph, maxBindings: number): void {
  const consumers = new Map<Tensor, number>();
  const position = new Map<Node, number>();
  graph.nodes.forEach((node, i) => {
    position.set(node, i);
    for (const input of node.inputs) consumers.set(input, (consumers.get(input) ?? 0) + 1);
  });
  for (const { value } of graph.assignments) consumers.set(value, (consumers.get(value) ?? 0) + 1);
  const lastUse = lastUses(graph, position);
  const removed = new Set<Node>();
  const nodes = graph.nodes;
  for (let i = 0; i < nodes.length; i++) {
    const node = nodes[i]!;
    if (node.operation.role === "accumulate") {
      const joined = joinAccumulation(node, consumers);
      if (!joined) continue;
      for (const dead of joined.removed) removed.add(dead);
      nodes[i] = joined.node;
      continue;
    }
    if (node.operation.role !== "pointwise") continue;
    const found = findProducer(node, consumers, maxBindings, i, lastUse);
    if (!found) continue;
    const { producer, steps, operands, views } = found;
    removed.add(producer);
    for (const view of views) removed.add(view);
    const inputs = [...producer.inputs];
    const own = (producer.attributes["epilogue"] as PointwiseStep[] | undefined) ?? [];
    const moved = steps.map((step) => {
      if (step.operand === undefined) return step;
      inputs.push(operands.get(step.operand)!);
      return { ...step, operand: inputs.length - 1 };
    });
    const merged: Node = {
      operation: producer.operation,
      inputs,
      outputs: [node.outputs[0]!, ...producer.outputs.slice(1)],
      attributes: { ...producer.attributes, epilogue: [...own, ...moved] },
      scope: producer.scope,
    };
    if (!("mainInputs" in producer.attributes)) merged.attributes["mainInputs"] = producer.inputs.length;
    for (const output of merged.outputs) output.node = merged;
    nodes[i] = merged;
    position.set(merged, i);
  }
  graph.nodes = nodes.filter((n) => !removed.has(n));
}

/** gradient += product, where nothing else reads the product: the product's kernel adds by itself. */
function joinAccumulation(node: Node, consumers: Map<Tensor, number>): { node: Node; removed: Node[] } | null {
  let tensor = node.inputs[0]!;
  const removed: Node[] = [];
  while (tensor.node?.operation.view && consumers.get(tensor) === 1) {
    removed.push(tensor.node);
    tensor = tensor.node.inputs[0]!;
  }
  const producer = tensor.node;
  if (!producer || consumers.get(tensor) !== 1) return null;
  const joined = producer.operation.addInto?.(producer, node.attributes["target"] as Variable);
  return joined ? { node: joined, removed: [...removed, producer] } : null;
}

interface Found {
  producer: Node;
  steps: PointwiseStep[];
  /** Tensors of the steps' operands by their index in the pointwise node. */
  operands: Map<number, Tensor>;
  views: Node[];
}

function findProducer(
  node: Node,
  consumers: Map<Tensor, number>,
  maxBindings: number,
  at: number,
  lastUse: (tensor: Tensor) => { first: number },
): Found | null {
  const steps = node.attributes["epilogue"] as PointwiseStep[];
  const out = node.outputs[0]!;
  const candidates: { input: number; steps: PointwiseStep[] }[] = [{ input: 0, steps }];
  const first = steps[0];
  if (first && first.operand === 1 && SWAPPED[first.name] && node.inputs[1]!.size === out.size) {
    candidates.unshift({ input: 1, steps: [{ ...first, name: SWAPPED[first.name]!, operand: 0 }, ...steps.slice(1)] });
  }
  for (const candidate of candidates) {
    if (candidate.steps.some((s) => s.operand === candidate.input)) continue;
    const views: Node[] = [];
    let tensor = node.inputs[candidate.input]!;
    if (tensor.size !== out.size) continue;
    while (tensor.node?.operation.view && consumers.get(tensor) === 1) {
      views.push(tensor.node);
      tensor = tensor.node.inputs[0]!;
    }
    const producer = tensor.node;
    if (!producer || consumers.get(tensor) !== 1 || producer.outputs[0] !== tensor) continue;
    if (producer.operation.role !== "pointwise" && !producer.operation.takesEpilogue) continue;
    if (tensor.dtype !== out.dtype) continue;
    // Values that the producer makes besides output 0 must not be needed before this place.
    if (producer.outputs.slice(1).some((t) => lastUse(t).first <= at && (consumers.get(t) ?? 0) > 0)) continue;
    const own = (producer.attributes["epilogue"] as PointwiseStep[] | undefined) ?? [];
    // Operand patterns are collapsed against the output's shape; a chain through a view must have plain operands only.
    if (views.length > 0 && own.some((s) => s.operand !== undefined)) continue;
    if (producer.operation.role === "pointwise" && producer.inputs[0]!.size !== out.size) continue;
    const operands = new Map<number, Tensor>();
    for (const step of candidate.steps)
      if (step.operand !== undefined) operands.set(step.operand, node.inputs[step.operand]!);
    const bound = new Set<Tensor>([...producer.inputs, ...operands.values()].map(root));
    const clash =
      producer.operation.role !== "pointwise" &&
      [...operands.values()].some((t) => mainInputs(producer).some((m) => root(m) === root(t)));
    if (clash || bound.size + producer.outputs.length > maxBindings) continue;
    return { producer, steps: candidate.steps, operands, views };
  }
  return null;
}

function mainInputs(node: Node): Tensor[] {
  return node.inputs.slice(0, (node.attributes["mainInputs"] as number | undefined) ?? node.inputs.length);
}

/** The tensor whose memory a chain of views shows. */
function root(tensor: Tensor): Tensor {
  let t = tensor;
  while (t.node?.operation.view) t = t.node.inputs[0]!;
  return t;
}

function lastUses(graph: Graph, position: Map<Node, number>): (tensor: Tensor) => { first: number } {
  const first = new Map<Tensor, number>();
  for (const node of graph.nodes) {
    for (const input of node.inputs) if (!first.has(input)) first.set(input, position.get(node)!);
  }
  return (tensor) => ({ first: first.get(tensor) ?? Number.POSITIVE_INFINITY });
}
