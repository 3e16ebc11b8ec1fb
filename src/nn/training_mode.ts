// Which plans train. A layer that behaves otherwise in training than in use (dropout) asks here while it is traced; the mark
// belongs to the graph, so a checkpointed second trace, which happens inside the backward pass, sees the same answer.

import type { Graph } from "../tensor/graph.ts";

const marked = new WeakSet<Graph>();

/** Marks the plan that is being traced as one that trains; to be called before the model is traced. */
export function markTraining(graph: Graph): void {
  marked.add(graph);
}

/** True while a marked plan is traced. */
export function isTraining(graph: Graph): boolean {
  return marked.has(graph);
}
