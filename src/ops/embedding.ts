// Rows of a table by token ids. The table's gradient is a sum in fixed order: each row of the table looks through all ids.

import forwardSource from "../../shaders/embedding.wgsl" with { type: "text" };
import gradSource from "../../shaders/embedding_grad.wgsl" with { type: "text" };
import { apply1, type Operation, type Tensor } from "../tensor/graph.ts";
import { foldGrid, grid1d } from "../tensor/lower.ts";
import { showShape } from "../tensor/shape.ts";

const embeddingOperation: Operation = {
  name: "embedding",
  takesEpilogue: true,
  infer([table, ids]) {
    if (table!.shape.length !== 2) throw new Error(`the table ${showShape(table!.shape)} must be [entries, width]`);
    if (ids!.dtype !== "u32") throw new Error(`ids must be u32, not ${ids!.dtype}`);
    return [{ shape: [...ids!.shape, table!.shape[1]!], dtype: "f32" }];
  },
  lower(lowering, node) {
    const [table, ids] = node.inputs as [Tensor, Tensor];
    const out = node.outputs[0]!;
    const grid = grid1d(out.size, 256, lowering.target);
    lowering.call({
      label: "embedding",
      source: forwardSource,
      constants: { TABLE: table.dtype },
      inputs: [lowering.slot(table), lowering.slot(ids)],
      outputs: [lowering.slot(out)],
      params: [table.dim(0), table.dim(1), ids.size, grid[0]],
      grid,
      epilogueOf: node,
    });
  },
  gradient(node, [dy], needs) {
    const [table, ids] = node.inputs as [Tensor, Tensor];
    return [needs[0] ? apply1(embeddingGradientOperation, [ids, dy!], { entries: table.dim(0) }) : null, null];
  },
};

/** Inputs ids and dy [..., width]; output [entries, width]. */
const embeddingGradientOperation: Operation = {
  name: "embedding gradient",
  infer: ([, dy], attributes) => [{ shape: [attributes["entries"] as number, dy!.shape.at(-1)!], dtype: "f32" }],
  lower(lowering, node) {
    const [ids, dy] = node.inputs as [Tensor, Tensor];
    const [entries, width] = node.outputs[0]!.shape as [number, number];
    const grid = foldGrid(entries, lowering.target.maxWorkgroups);
    lowering.call({
      label: "embedding gradient",
      source: gradSource,
      constants: { DY: dy.dtype },
      inputs: [lowering.slot(ids), lowering.slot(dy)],
      outputs: [lowering.slot(node.outputs[0]!)],
      params: [entries, width, ids.size, grid[0]],
      grid,
      flops: dy.size,
    });
  },
};

/**
 * table [entries, width] (f32 or f16) and ids [...] (u32) → [..., width] in f32. An id outside the table gives zeros.
 * @throws Error where the table is not a matrix or the ids are not u32
 */
export function embedding(table: Tensor, ids: Tensor): Tensor {
  return apply1(embeddingOperation, [table, ids]);
}
