// Reverse-mode differentiation on the tape: walks the nodes from the last to the first, asks each operation for the
// gradients of those inputs that need one, and appends the answers as ordinary nodes. Gradients of trained variables are
// added into their persistent gradient buffers; other leaves return theirs to the caller.

import type { CheckpointSegment, Graph, Node, Tensor } from "../tensor/graph.ts";
import { accumulate, add } from "./pointwise.ts";

/**
 * Appends the backward pass.
 * @param seeds pairs of a traced value and the gradient of the loss with respect to it (same shape)
 * @param wanted leaves or intermediates whose gradients are returned
 */
export function backward(
  graph: Graph,
  seeds: readonly [Tensor, Tensor][],
  wanted: readonly Tensor[] = [],
): (Tensor | null)[] {
  const gradients = new Map<Tensor, Tensor>();
  const addGradient = (tensor: Tensor, gradient: Tensor) => {
    const old = gradients.get(tensor);
    gradients.set(tensor, old ? add(old, gradient) : gradient);
  };
  for (const [value, gradient] of seeds) addGradient(value, gradient);
  walk(graph, 0, graph.nodes.length, gradients, addGradient, new Set(wanted), true);
  return wanted.map((t) => gradients.get(t) ?? null);
}

function walk(
  graph: Graph,
  from: number,
  to: number,
  gradients: Map<Tensor, Tensor>,
  addGradient: (tensor: Tensor, gradient: Tensor) => void,
  wanted: Set<Tensor>,
  useCheckpoints: boolean,
): void {
  let i = to - 1;
  const segments = useCheckpoints ? graph.checkpoints.filter((s) => s.first >= from && s.last <= to) : [];
  while (i >= from) {
    const segment = segments.find((s) => s.last - 1 === i && s.last > s.first);
    if (segment) {
      retrace(graph, segment, gradients, addGradient, wanted);
      i = segment.first - 1;
      continue;
    }
    visit(graph, graph.nodes[i]!, gradients, addGradient, wanted);
    i--;
  }
}

function visit(
  graph: Graph,
  node: Node,
  gradients: Map<Tensor, Tensor>,
  addGradient: (tensor: Tensor, gradient: Tensor) => void,
  wanted: Set<Tensor>,
): void {
  const outputs = node.outputs.map((t) => gradients.get(t) ?? null);
  if (outputs.every((g) => g === null)) return;
  const needs = node.inputs.map((t) => t.needsGradient);
  if (!needs.some(Boolean)) return;
  if (!node.operation.gradient)
    throw new Error(`${node.operation.name} in ${node.scope || "the graph"} has no gradient`);
  const inputs = graph.scope(`${node.scope}:backward`, () => node.operation.gradient!(node, outputs, needs));
  // The gradient of an inner value is dead once its node was visited, unless the caller asked for it.
  for (const output of node.outputs) if (!wanted.has(output)) gradients.delete(output);
  node.inputs.forEach((tensor, k) => {
    const gradient = inputs[k];
    if (!needs[k] || !gradient) return;
    if (gradient.size !== tensor.size) {
      throw new Error(
        `${node.operation.name}: gradient of input ${k} has ${gradient.size} elements, not ${tensor.size}`,
      );
    }
    if (tensor.variable?.gradient) accumulate(tensor.variable.gradient, gradient);
    if (!tensor.variable?.gradient || wanted.has(tensor)) addGradient(tensor, gradient);
  });
}

/** Traces a checkpointed segment again and differentiates the second trace. */
function retrace(
  graph: Graph,
  segment: CheckpointSegment,
  gradients: Map<Tensor, Tensor>,
  addGradient: (tensor: Tensor, gradient: Tensor) => void,
  wanted: Set<Tensor>,
): void {
  if (!segment.outputs.some((t) => gradients.has(t))) return;
  const first = graph.nodes.length;
  const outputs = graph.scope(`${segment.scope}:again`, () => segment.body(segment.inputs));
  const last = graph.nodes.length;
  segment.outputs.forEach((old, k) => {
    const gradient = gradients.get(old);
    if (gradient) addGradient(outputs[k]!, gradient);
    gradients.delete(old);
  });
  walk(graph, first, last, gradients, addGradient, wanted, false);
}
