// Queries or keys on their way into attention: RMS norm of every head with its stream's gain, rotary positions, and the place
// in the joint sequence of text and image, as one kernel instead of a norm a stream, a concatenation and a rotation. Backward
// is one kernel too; it computes the norm's statistics again, and the terms of the gains' gradients only where those are asked for.

import source from "../../shaders/heads.wgsl" with { type: "text" };
import gradSource from "../../shaders/heads_grad.wgsl" with { type: "text" };
import { vectorLanes } from "../gpu/kernel_limits.ts";
import { apply1, type Node, type Operation, type Tensor } from "../tensor/graph.ts";
import { type Constants, f32Bits, foldGrid, type Lowering } from "../tensor/lower.ts";
import { rmsNorm } from "./norm.ts";
import { sumTo } from "./reduce.ts";
import { rope } from "./rope.ts";
import { concat } from "./slab.ts";

/** One stream: x [B, tokens, heads * headSize] and the gain [headSize] of its norm. */
export interface HeadStream {
  x: Tensor;
  gain: Tensor;
}

interface HeadAttributes {
  heads: number;
  eps: number;
  /** Tokens of the joint sequence. */
  joint: number;
  /** For each stream, its first token in the joint sequence. */
  offsets: number[];
}

/** Constants, parameter words and grid that both directions share, for the streams `chosen`. */
function layout(
  lowering: Lowering,
  attributes: HeadAttributes,
  streams: HeadStream[],
  chosen: number[],
): { constants: Constants; params: number[]; grid: [number, number, number] } {
  const { heads, eps, joint, offsets } = attributes;
  const [a, b] = chosen as [number, number | undefined];
  const { software, kernels } = lowering.target;
  const lanes = software ? vectorLanes(kernels) : 64;
  const perGroup = software ? lanes : 4;
  const groups = chosen.map((k) => Math.ceil((streams[k]!.x.dim(0) * streams[k]!.x.dim(1) * heads) / perGroup));
  const grid = foldGrid(
    groups.reduce((sum, n) => sum + n, 0),
    lowering.target.maxWorkgroups,
  );
  const { x, gain } = streams[a]!;
  const other = b === undefined ? null : streams[b]!;
  return {
    constants: {
      X: x.dtype,
      GAIN: gain.dtype,
      X2: other?.x.dtype ?? "f32",
      GAIN2: other?.gain.dtype ?? "f32",
      TWO: other !== null,
      LANE_ROWS: software,
      LANES: lanes,
    },
    params: [
      heads,
      gain.size / 2,
      joint,
      x.dim(0),
      grid[0],
      groups[0]!,
      x.dim(1),
      offsets[a]!,
      other?.x.dim(1) ?? 1,
      b === undefined ? 0 : offsets[b]!,
      f32Bits(eps),
    ],
    grid,
  };
}

/** The streams among a node's inputs, which begin at `first`. */
function streamsOf(node: Node, first: number): HeadStream[] {
  const streams: HeadStream[] = [];
  for (let i = first; i < node.inputs.length; i += 2) streams.push({ x: node.inputs[i]!, gain: node.inputs[i + 1]! });
  return streams;
}

/** Inputs: cosine, sine, then x and gain of each stream. */
const headsOperation: Operation = {
  name: "heads",
  infer: (inputs, attributes) => {
    const { joint } = attributes as unknown as HeadAttributes;
    const [batch, , width] = inputs[2]!.shape as [number, number, number];
    return [{ shape: [batch, joint, width], dtype: "f32" }];
  },
  lower(lowering, node) {
    const streams = streamsOf(node, 2);
    const { constants, params, grid } = layout(
      lowering,
      node.attributes as unknown as HeadAttributes,
      streams,
      streams.map((_, k) => k),
    );
    lowering.call({
      label: "heads",
      source,
      constants,
      inputs: node.inputs.map((t) => lowering.slot(t)),
      outputs: [lowering.slot(node.outputs[0]!)],
      params,
      grid,
      flops: 8 * node.outputs[0]!.size,
    });
  },
  gradient(node, [dy], needs) {
    const [cosine, sine] = node.inputs as [Tensor, Tensor];
    const attributes = node.attributes as unknown as HeadAttributes;
    const streams = streamsOf(node, 2);
    const wanted = streams.map((_, k) => k).filter((k) => needs[2 + 2 * k] || needs[3 + 2 * k]);
    const gains = wanted.some((k) => needs[3 + 2 * k]);
    const outputs = node.inputs[0]!.graph.apply(
      headsGradOperation,
      [dy!, cosine, sine, ...wanted.flatMap((k) => [streams[k]!.x, streams[k]!.gain])],
      { ...attributes, offsets: wanted.map((k) => attributes.offsets[k]!), gains },
    );
    const gradients: (Tensor | null)[] = node.inputs.map(() => null);
    wanted.forEach((k, i) => {
      if (needs[2 + 2 * k]) gradients[2 + 2 * k] = outputs[i]!;
      if (needs[3 + 2 * k]) gradients[3 + 2 * k] = sumTo(outputs[wanted.length + i]!, streams[k]!.gain.shape);
    });
    return gradients;
  },
};

/** Inputs: dy, cosine, sine, then x and gain of each stream. Outputs: dx of each, then with `gains` the terms of each gain's. */
const headsGradOperation: Operation = {
  name: "heads_grad",
  infer(inputs, attributes) {
    const streams = inputs.slice(3).filter((_, i) => i % 2 === 0);
    const dx = streams.map(({ shape }) => ({ shape, dtype: "f32" as const }));
    if (!attributes["gains"]) return dx;
    const size = inputs[4]!.shape[0]!;
    return [
      ...dx,
      ...dx.map(({ shape: [b, l, d] }) => ({ shape: [(b! * l! * d!) / size, size], dtype: "f32" as const })),
    ];
  },
  lower(lowering, node) {
    const attributes = node.attributes as unknown as HeadAttributes & { gains: boolean };
    const streams = streamsOf(node, 3);
    const all = streams.map((_, k) => k);
    // Two streams take nine bindings, one more than every adapter has; a tenth stays free for drivers that count the uniform.
    const together = !attributes.gains && lowering.target.maxStorageBuffers >= 10;
    for (const chosen of together ? [all] : all.map((k) => [k])) {
      const { constants, params, grid } = layout(lowering, attributes, streams, chosen);
      const outputs = chosen.map((k) => node.outputs[k]!);
      if (attributes.gains) outputs.push(...chosen.map((k) => node.outputs[streams.length + k]!));
      const inputs = [...node.inputs.slice(0, 3), ...chosen.flatMap((k) => [streams[k]!.x, streams[k]!.gain])];
      lowering.call({
        label: "heads grad",
        source: gradSource,
        constants: { ...constants, TERMS: attributes.gains },
        inputs: inputs.map((t) => lowering.slot(t)),
        outputs: outputs.map((t) => lowering.slot(t)),
        params,
        grid,
        flops: 20 * chosen.reduce((n, k) => n + streams[k]!.x.size, 0),
      });
    }
  },
};

/**
 * Normalises the heads of one or two streams and rotates them into the joint sequence [B, L, heads * headSize], in the order
 * of `streams`.
 * @param streams x [B, tokens, heads * headSize] and gain [headSize] of each; L is the sum of their tokens
 * @param cosine rotary table [L, headSize / 2], as `sine`
 */
export function rotatedHeads(
  streams: HeadStream[],
  cosine: Tensor,
  sine: Tensor,
  { heads, eps }: { heads: number; eps: number },
): Tensor {
  const { x, gain } = streams[0]!;
  const offsets: number[] = [];
  let joint = 0;
  for (const stream of streams) {
    offsets.push(joint);
    joint += stream.x.dim(1);
    if (stream.x.dim(0) !== x.dim(0) || stream.x.dim(2) !== heads * gain.size || stream.gain.size !== gain.size)
      throw new Error(
        `heads of [${stream.x.shape}] with gain [${stream.gain.shape}] do not fit ${heads} x ${gain.size}`,
      );
  }
  if (cosine.size !== (joint * gain.size) / 2 || sine.size !== cosine.size)
    throw new Error(`tables [${cosine.shape}] do not fit ${joint} tokens with heads of ${gain.size}`);
  if (!x.graph.fused || streams.length > 2) {
    const normed = streams.map((s) => rmsNorm(s.x, eps, s.gain));
    return rope(concat(normed, 1), cosine, sine, heads);
  }
  return apply1(headsOperation, [cosine, sine, ...streams.flatMap((s) => [s.x, s.gain])], {
    heads,
    eps,
    joint,
    offsets,
  });
}
