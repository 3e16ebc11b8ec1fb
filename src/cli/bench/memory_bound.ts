// Kernels whose time is the memory's: what each must read and write at least, against the fastest copy on the same adapter in
// the same run. Bytes are those of the mathematics; a kernel that touches a value twice gains nothing by it.

import { groupNorm, layerNorm, modulatedLayerNorm, rmsNorm } from "../../ops/norm.ts";
import { add, geluTanh, mul, scaleBy, silu } from "../../ops/pointwise.ts";
import { sumTo } from "../../ops/reduce.ts";
import { rope } from "../../ops/rope.ts";
import { concat } from "../../ops/slab.ts";
import { softmax } from "../../ops/softmax.ts";
import { Optimizer } from "../../optim/optimizer.ts";
import type { KernelCall } from "../../tensor/lower.ts";
import type { Shape } from "../../tensor/shape.ts";
import { fillAll, isBackward, type Task, type TracedTask, traced } from "./measure.ts";

export interface MemoryBoundSizes {
  batch: number;
  tokens: number;
  /** Divides into heads of 64. */
  width: number;
}

/** 36 MiB a tensor on a software adapter, beyond its caches; 144 MiB on hardware. */
export function memoryBoundSizes(software: boolean): MemoryBoundSizes {
  return software ? { batch: 4, tokens: 2304, width: 1024 } : { batch: 4, tokens: 4608, width: 2048 };
}

const HEAD = 64;
const CHANNELS_A_GROUP = 4;

const labelled =
  (...labels: string[]) =>
  (call: KernelCall): boolean =>
    labels.includes(call.label);

/** Names of the lines that say what a copy reaches. */
export const COPIES: readonly string[] = ["copy of words", "copy of vectors"];

/** All memory-bound tasks, copies first. */
export function memoryBoundTasks({ batch, tokens, width }: MemoryBoundSizes): Task[] {
  const x: Shape = [batch, tokens, width];
  const tensor = 4 * batch * tokens * width;
  const one = (
    task: Omit<TracedTask, "parts">,
    touched: number,
    of: (call: KernelCall) => boolean = () => true,
  ): Task => traced({ ...task, parts: [{ name: task.name, of, bytes: touched * tensor }] });
  const heads = width / HEAD;
  const rotary: Shape = [tokens, HEAD / 2];
  const row: Shape = [batch, 1, width];
  const channels = Math.min(512, width);
  const picture: Shape = [batch, channels, tokens, width / channels];
  return [
    one({ name: COPIES[0]!, inputs: [x], body: ([a]) => a! }, 2),
    // Joining two tensors moves whole vectors, and nothing else.
    one({ name: COPIES[1]!, inputs: [x, x], body: ([a, b]) => concat([a!, b!], 0) }, 4),
    one({ name: "sum of two", inputs: [x, x], body: ([a, b]) => add(a!, b!) }, 3),
    one({ name: "GELU", inputs: [x], body: ([a]) => geluTanh(a!) }, 2),
    one({ name: "GELU gradient", inputs: [x], body: ([a]) => geluTanh(a!), gradients: [0] }, 3),
    one({ name: "modulation", inputs: [x, row, row], body: ([a, s, b]) => add(scaleBy(a!, s!), b!) }, 2),
    one({ name: "gated residual", inputs: [x, row, x], body: ([a, g, r]) => add(r!, mul(a!, g!)) }, 3),
    one({ name: "layer norm", inputs: [x], body: ([a]) => layerNorm(a!, 1e-6) }, 2),
    one(
      {
        name: "layer norm, modulated",
        inputs: [x, row, row],
        body: ([a, s, b]) => modulatedLayerNorm(a!, 1e-6, s!, b!),
      },
      2,
    ),
    one(
      { name: "layer norm gradient", inputs: [x], body: ([a]) => layerNorm(a!, 1e-6), gradients: [0] },
      3,
      isBackward,
    ),
    one({ name: "RMS norm of heads", inputs: [x, [HEAD]], body: ([a, g]) => rmsNorm(a!, 1e-6, g!) }, 2),
    one(
      {
        name: "group norm and SiLU",
        inputs: [picture, [channels], [channels]],
        body: ([a, g, b]) => silu(groupNorm(a!, channels / CHANNELS_A_GROUP, 1e-6, g!, b!)),
      },
      2,
    ),
    one({ name: "softmax", inputs: [x], body: ([a]) => softmax(a!) }, 2),
    one({ name: "RoPE", inputs: [x, rotary, rotary], body: ([a, c, s]) => rope(a!, c!, s!, heads) }, 2),
    one({ name: "column sums", inputs: [x], body: ([a]) => sumTo(a!, [width]) }, 1),
    one({ name: "concatenation of channels", inputs: [x, x], body: ([a, b]) => concat([a!, b!], 2) }, 4),
    adamw([batch * tokens, width], tensor),
  ];
}

/** Reads parameter, gradient and both moments, writes three of them. */
function adamw(shape: Shape, tensor: number): Task {
  return {
    name: "AdamW",
    build(session) {
      const pool = session.pool("trained", "weights");
      pool.add("weight", shape, "f32");
      const optimizer = new Optimizer(session, [{ pool }], {
        kind: "adamw",
        beta1: 0.9,
        beta2: 0.999,
        epsilon: 1e-8,
        weightDecay: 0.01,
        maxNorm: 1,
      });
      const plan = session.plan("AdamW", (graph) => optimizer.trace(graph));
      const parts = [
        { name: "AdamW", of: labelled("adamw"), bytes: 7 * tensor },
        { name: "norm of gradients", of: labelled("sum of squares"), bytes: tensor },
      ];
      const fill = () => {
        optimizer.initialise(session);
        fillAll(session, [...pool.variables, ...optimizer.gradients[0]!.variables]);
        optimizer.begin(session);
        optimizer.write(session, 1e-4, 1);
      };
      return { plan, parts, fill };
    },
  };
}
