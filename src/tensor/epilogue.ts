// Pointwise steps as data. A chain of steps works on one value `v` with flat index `index`; the same chain is the body of
// the pointwise kernel and the epilogue of matmul, convolution and norms. The functions that steps name are WGSL
// (shaders/lib/functions.wgsl); here only the glue lines between them are put together.

import functions from "../../shaders/lib/functions.wgsl" with { type: "text" };
import type { Node } from "./graph.ts";
import { f32Bits } from "./lower.ts";
import { type Broadcast, collapseBroadcast, type DType } from "./shape.ts";

export interface PointwiseStep {
  /** Name of the WGSL function: f(v), f(v, operand) or f(v, c0, ...). */
  name: string;
  /** Index into the node's inputs of the second argument, if it is a tensor. */
  operand?: number;
  /** Numbers that follow as arguments; they are data in the uniform, not text. */
  numbers?: number[];
}

export interface EpilogueText {
  statements: string;
  bindings: string;
  words: Uint32Array | null;
}

/** Names of the WGSL functions that a step may use. */
export const FUNCTIONS: ReadonlySet<string> = new Set([...functions.matchAll(/^fn (\w+)\(/gm)].map((m) => m[1]!));

/**
 * Text of a chain: operand declarations from binding `firstBinding` on, and statements that update `v`.
 * @param bindingOf number of the extra binding that holds an input of the node
 */
export function epilogueText(
  steps: readonly PointwiseStep[],
  node: Node,
  bindingOf: (input: number) => number,
  firstBinding: number,
): EpilogueText {
  const words: number[] = [];
  const operandTypes = new Map<number, DType>();
  const lines: string[] = [];
  const word = (value: number): string => {
    words.push(value);
    const at = words.length - 1;
    return `e[${at >> 2}].${"xyzw"[at & 3]}`;
  };
  const shape = node.outputs[0]!.shape;
  for (const step of steps) {
    const args = ["v"];
    if (step.operand !== undefined) {
      const tensor = node.inputs[step.operand]!;
      const k = bindingOf(step.operand);
      operandTypes.set(k, tensor.dtype);
      const at = indexExpression(collapseBroadcast(tensor.shape, shape), word);
      args.push(`f32(o${k}[${at}])`);
    }
    for (const value of step.numbers ?? []) args.push(`bitcast<f32>(${word(f32Bits(value))})`);
    if (!FUNCTIONS.has(step.name)) throw new Error(`no pointwise function ${step.name}`);
    lines.push(`v = ${step.name}(${args.join(", ")});`);
  }
  let bindings = functions;
  for (const [k, dtype] of [...operandTypes].sort((a, b) => a[0] - b[0])) {
    bindings += `@group(0) @binding(${firstBinding + k}) var<storage, read_write> o${k} : array<${dtype}>;\n`;
  }
  if (words.length > 0) {
    while (words.length % 4 !== 0) words.push(0);
    bindings += `@group(0) @binding(100) var<uniform> e : array<vec4<u32>, ${words.length / 4}>;\n`;
  }
  return {
    statements: lines.join("\n"),
    bindings,
    words: words.length > 0 ? Uint32Array.from(words) : null,
  };
}

/** WGSL expression for the operand's index from the output's flat `index`. */
function indexExpression({ pattern, sizes }: Broadcast, word: (value: number) => string): string {
  if (pattern === "s") return "index";
  if (pattern === "b") return "0u";
  // From the innermost merged dimension outwards: peel off one size at a time.
  const size = sizes.map((n, i) => (i === 0 ? "" : word(n)));
  const terms: string[] = [];
  let rest = "index";
  let stride = "";
  for (let i = pattern.length - 1; i >= 0; i--) {
    if (pattern[i] === "s") {
      const digit = i === 0 ? rest : `(${rest} % ${size[i]})`;
      terms.push(stride ? `${digit} * ${stride}` : digit);
      stride = stride ? `${stride} * ${size[i]}` : size[i]!;
    }
    rest = `(${rest} / ${size[i]})`;
  }
  return terms.join(" + ") || "0u";
}
