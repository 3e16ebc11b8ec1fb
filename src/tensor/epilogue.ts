// Pointwise steps as data. A chain of steps works on one value `v` with flat index `index`; the same chain is the body of
// the pointwise kernel and the epilogue of matmul, convolution and norms. The functions that steps name are WGSL
// (shaders/lib/functions.wgsl); here only the glue lines between them are put together.

import division from "../../shaders/lib/division.wgsl" with { type: "text" };
import functions from "../../shaders/lib/functions.wgsl" with { type: "text" };
import type { Node } from "./graph.ts";
import { f32Bits } from "./lower.ts";
import { type Broadcast, collapseBroadcast, elements } from "./shape.ts";

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

/** A group of the output's dimensions whose place a kernel knows beside the flat index. */
export interface OutputAxis {
  size: number;
  /** WGSL expression of the place along it, and of the flat index of all dimensions before it. */
  place: string;
  before: string;
}

/** What a kernel has in scope where its epilogue stands, so that operands are found without dividing `index`. */
export interface EpilogueScope {
  /** From the innermost outwards. */
  axes?: readonly OutputAxis[];
  /** Name of the smallest index of `lanes` neighbours, the same for all of them, of which `index` is one. */
  first?: { name: string; lanes: number };
}

/**
 * Whether a chain may work on four neighbours along the innermost dimension together, the first index divisible by four:
 * then every operand lies in whole vectors too, or has one value for all four.
 */
export function worksOnVectors(
  steps: readonly PointwiseStep[],
  node: Node,
  bindingOf: (input: number) => number,
): boolean {
  const { shape } = node.outputs[0]!;
  if (elements(shape) % 4 !== 0) return false;
  const kinds = new Map<number, boolean>();
  for (const { operand } of steps) {
    if (operand === undefined) continue;
    const broadcast = collapseBroadcast(node.inputs[operand]!.shape, shape);
    if (broadcast.pattern !== "b" && broadcast.sizes.at(-1)! % 4 !== 0) return false;
    // Two views of one piece of memory cannot be read in two ways.
    const binding = bindingOf(operand);
    if ((kinds.get(binding) ?? isVector(broadcast)) !== isVector(broadcast)) return false;
    kinds.set(binding, isVector(broadcast));
  }
  return true;
}

/** Whether four neighbours of the output read four neighbours of the operand. */
const isVector = ({ pattern }: Broadcast): boolean => pattern.endsWith("s");

/**
 * Text of a chain: operand declarations from binding `firstBinding` on, and statements that update `v`.
 * @param bindingOf number of the extra binding that holds an input of the node
 * @param wide `v` is a vec4<f32> and `index` that of its first value; only where `worksOnVectors`
 */
export function epilogueText(
  steps: readonly PointwiseStep[],
  node: Node,
  bindingOf: (input: number) => number,
  firstBinding: number,
  scope: EpilogueScope = {},
  wide = false,
): EpilogueText {
  const words: number[] = [];
  const operandTypes = new Map<number, string>();
  const lines: string[] = [];
  const word = (value: number): string => {
    words.push(value);
    const at = words.length - 1;
    return `e[${at >> 2}].${"xyzw"[at & 3]}`;
  };
  const shape = node.outputs[0]!.shape;
  const indices = new OperandIndices(elements(shape), scope, lines, word);
  for (const [i, step] of steps.entries()) {
    if (!FUNCTIONS.has(step.name)) throw new Error(`no pointwise function ${step.name}`);
    const args: string[] = [];
    let vector = "";
    if (step.operand !== undefined) {
      const tensor = node.inputs[step.operand]!;
      const k = bindingOf(step.operand);
      const broadcast = collapseBroadcast(tensor.shape, shape);
      const whole = wide && isVector(broadcast);
      operandTypes.set(k, whole ? `vec4<${tensor.dtype}>` : tensor.dtype);
      const index = indices.of(broadcast);
      const value = whole ? `vec4<f32>(o${k}[(${index}) / 4u])` : `f32(o${k}[${index}])`;
      if (wide) lines.push(`let x${i} = ${value};`);
      if (whole) vector = `x${i}`;
      args.push(wide ? `x${i}` : value);
    }
    for (const value of step.numbers ?? []) args.push(`bitcast<f32>(${word(f32Bits(value))})`);
    const call = (part: string) =>
      `${step.name}(${[`v${part}`, ...args.map((a) => (a === vector ? a + part : a))].join(", ")})`;
    lines.push(`v = ${wide ? `vec4<f32>(${[".x", ".y", ".z", ".w"].map(call).join(", ")})` : call("")};`);
  }
  let bindings = indices.divides ? functions + division : functions;
  for (const [k, dtype] of [...operandTypes].sort((a, b) => a[0] - b[0])) {
    bindings += `@group(0) @binding(${firstBinding + k}) var<storage, read_write> o${k} : array<${dtype}>;\n`;
  }
  if (words.length > 0) {
    while (words.length % 4 !== 0) words.push(0);
    bindings += `@group(0) @binding(100) var<uniform> e : array<vec4<u32>, ${words.length / 4}>;\n`;
  }
  return {
    // A kernel may put the statements in several places of one block.
    statements: lines.length > 0 ? `{\n${lines.join("\n")}\n}` : "",
    bindings,
    words: words.length > 0 ? Uint32Array.from(words) : null,
  };
}

/** Up to this many values a quotient is one multiplication (shaders/lib/division.wgsl). */
const SMALL = 2 ** 22;

interface Peeled {
  /** Place along the peeled size, and flat index of what lies before it. */
  place: string;
  before: string;
}

/** WGSL expressions for operands' indices; what they share is computed once. */
class OperandIndices {
  /** True where an expression needs shaders/lib/division.wgsl. */
  divides = false;
  private readonly count: number;
  private readonly scope: EpilogueScope;
  private readonly lines: string[];
  private readonly word: (value: number) => string;
  private readonly known = new Map<string, string>();

  /** @param count of the output's values; `lines` get the statements that expressions need before them */
  constructor(count: number, scope: EpilogueScope, lines: string[], word: (value: number) => string) {
    this.count = count;
    this.scope = scope;
    this.lines = lines;
    this.word = word;
  }

  of({ pattern, sizes }: Broadcast): string {
    if (pattern === "s") return "index";
    if (pattern === "b") return "0u";
    const terms: string[] = [];
    let axes = this.scope.axes ?? [];
    let rest = "index";
    let bound = this.count;
    let stride = "";
    // From the innermost merged dimension outwards: peel off one size at a time.
    for (let i = pattern.length - 1; i >= 0; i--) {
      const size = sizes[i]!;
      let place = rest;
      if (i > 0) {
        const known = this.alongAxes(axes, bound, size);
        const peeled = known ?? this.byDivision(rest, bound, size);
        axes = known?.axes ?? [];
        place = peeled.place;
        rest = peeled.before;
        bound /= size;
      }
      if (pattern[i] !== "s") continue;
      terms.push(stride ? `${place} * ${stride}` : place);
      stride = stride ? `${stride} * ${this.size(size)}` : this.size(size);
    }
    return terms.join(" + ") || "0u";
  }

  /**
   * Peels a size off the kernel's axes: some whole ones, then a part of the next, or of what lies before the last. Null where
   * the axes and the size have no common grid.
   */
  private alongAxes(
    axes: readonly OutputAxis[],
    bound: number,
    size: number,
  ): (Peeled & { axes: OutputAxis[] }) | null {
    let left = size;
    let stride = 1;
    const places: string[] = [];
    const place = () => `(${places.join(" + ")})`;
    const take = (one: string) => places.push(stride === 1 ? one : `${one} * ${this.size(stride)}`);
    for (const [i, axis] of axes.entries()) {
      const others = axes.slice(i + 1);
      if (left % axis.size === 0) {
        take(axis.place);
        stride *= axis.size;
        left /= axis.size;
        if (left === 1) return { place: place(), before: axis.before, axes: others };
        if (others.length > 0) continue;
        const rest = this.byDivision(axis.before, bound / stride, left);
        take(rest.place);
        return { place: place(), before: rest.before, axes: [] };
      }
      if (axis.size % left !== 0) return null;
      const inner = this.byDivision(axis.place, axis.size, left);
      take(inner.place);
      const outer = { size: axis.size / left, place: inner.before, before: axis.before };
      const before = `(${axis.before} * ${this.size(outer.size)} + ${inner.before})`;
      return { place: place(), before, axes: [outer, ...others] };
    }
    return null;
  }

  private byDivision(value: string, bound: number, size: number): Peeled {
    const { first } = this.scope;
    // Neighbours that cannot straddle a multiple of the size have the quotient of the first of them.
    const from = value === "index" && first && size % first.lanes === 0 ? first.name : value;
    const before = this.once(`${from} / ${size}`, () => {
      if (bound > SMALL) return `${from} / ${this.size(size)}`;
      this.divides = true;
      const inverse = this.once(`1 / ${size}`, () => `bitcast<f32>(${this.word(f32Bits(1 / size))})`);
      return `quotient(${from}, ${inverse})`;
    });
    return { place: `(${value} - ${before} * ${this.size(size)})`, before };
  }

  private size(size: number): string {
    return this.once(`size ${size}`, () => this.word(size));
  }

  /** The name of a value that is computed where it is needed first. */
  private once(key: string, expression: () => string): string {
    let name = this.known.get(key);
    if (!name) {
      const text = expression();
      name = `q${this.known.size}`;
      this.known.set(key, name);
      this.lines.push(`let ${name} = ${text};`);
    }
    return name;
  }
}
