// The tape. A step function is traced once into a list of nodes; the backward pass appends to the same list; everything
// later (fusion, lowering, planning, replay) reads it. Nothing here touches a device.

import type { Lowering } from "./lower.ts";
import { type DType, elements, type Shape, showShape } from "./shape.ts";
import type { Variable } from "./variable.ts";

export type AttributeValue = unknown;
export type Attributes = Record<string, AttributeValue>;

export interface TensorType {
  shape: Shape;
  dtype: DType;
}

/** One operation: its shape rule, how it becomes kernel calls, and its gradient rule. One file in src/ops each. */
export interface Operation {
  readonly name: string;
  /** Shapes and types of the outputs; throws a plain Error that says what does not fit. */
  infer(inputs: readonly TensorType[], attributes: Attributes): TensorType[];
  /** Emits kernel calls through `lowering`. */
  lower(lowering: Lowering, node: Node): void;
  /**
   * Gradients of the inputs (null where there is none) from the gradients of the outputs (null where nothing flows).
   * Only inputs with `needs[i]` are asked for.
   */
  gradient?(node: Node, outputs: readonly (Tensor | null)[], needs: readonly boolean[]): (Tensor | null)[];
  /** True where the node's kernel can run pointwise steps before it stores output 0 (see fuse.ts). */
  readonly takesEpilogue?: boolean;
  /** True where the node must be kept although nothing reads its outputs. */
  readonly sideEffect?: boolean;
  /** True where output 0 is the same memory as input 0 under another shape. */
  readonly view?: boolean;
  /** What fusion may do with it: a chain of pointwise steps, or an addition into a gradient buffer. */
  readonly role?: "pointwise" | "accumulate";
  /** The same node adding its result into `target` instead of making a value, or null where it cannot. */
  addInto?(node: Node, target: Variable): Node | null;
}

/** A value of the tape: the output of a node, or a leaf that reads a variable. */
export class Tensor {
  readonly graph: Graph;
  readonly id: number;
  readonly shape: Shape;
  readonly dtype: DType;
  /** The node that makes it; null for a leaf. */
  node: Node | null = null;
  /** The persistent buffer that a leaf reads. */
  variable: Variable | null = null;
  needsGradient = false;

  constructor(graph: Graph, id: number, type: TensorType) {
    this.graph = graph;
    this.id = id;
    this.shape = type.shape;
    this.dtype = type.dtype;
  }

  get rank(): number {
    return this.shape.length;
  }

  get size(): number {
    return elements(this.shape);
  }

  /** Size of dimension `i`; negative counts from the end. */
  dim(i: number): number {
    const d = this.shape[i < 0 ? this.shape.length + i : i];
    if (d === undefined) throw new Error(`shape ${showShape(this.shape)} has no dimension ${i}`);
    return d;
  }
}

export interface Node {
  readonly operation: Operation;
  inputs: Tensor[];
  outputs: Tensor[];
  attributes: Attributes;
  /** Where in the model it was traced, for messages: "transformer_blocks.0.attn". */
  scope: string;
}

/** A value that the plan writes into a persistent variable at its end. */
export interface Assignment {
  target: Variable;
  value: Tensor;
}

export class Graph {
  readonly name: string;
  /** False where operations are to be traced and lowered from their parts, which parity tests compare with. */
  readonly fused: boolean;
  nodes: Node[] = [];
  readonly assignments: Assignment[] = [];
  private nextId = 0;
  private readonly leaves = new Map<Variable, Tensor>();
  private readonly scopes: string[] = [];
  /** Re-tracing functions of checkpointed segments, keyed by the outputs they made (see backward.ts). */
  readonly checkpoints: CheckpointSegment[] = [];
  private openSegments = 0;

  constructor(name: string, fused = true) {
    this.name = name;
    this.fused = fused;
  }

  /** The leaf that reads `variable`; one per graph. `gradient` marks it as wanted by the backward pass. */
  read(variable: Variable, gradient = false): Tensor {
    let leaf = this.leaves.get(variable);
    if (!leaf) {
      leaf = this.newTensor({ shape: variable.shape, dtype: variable.dtype });
      leaf.variable = variable;
      this.leaves.set(variable, leaf);
    }
    if (gradient || variable.gradient) leaf.needsGradient = true;
    return leaf;
  }

  /** Writes `value` into `target` when the plan runs. */
  assign(target: Variable, value: Tensor): void {
    if (elements(target.shape) !== value.size || target.dtype !== value.dtype) {
      throw new Error(
        `assign ${target.name}: ${target.dtype}${showShape(target.shape)} given ${value.dtype}${showShape(value.shape)}`,
      );
    }
    this.assignments.push({ target, value });
  }

  /** Appends a node and returns its outputs. */
  apply(operation: Operation, inputs: Tensor[], attributes: Attributes = {}): Tensor[] {
    for (const input of inputs) {
      if (input.graph !== this) throw new Error(`${operation.name}: an input belongs to another graph`);
    }
    let types: TensorType[];
    try {
      types = operation.infer(inputs, attributes);
    } catch (error) {
      const scope = this.scopes.join(".");
      throw new Error(`${operation.name}${scope ? ` in ${scope}` : ""}: ${(error as Error).message}`);
    }
    const outputs = types.map((type) => this.newTensor(type));
    const node: Node = { operation, inputs, outputs, attributes, scope: this.scopes.join(".") };
    const needs = inputs.some((t) => t.needsGradient);
    for (const output of outputs) {
      output.node = node;
      output.needsGradient = needs;
    }
    this.nodes.push(node);
    return outputs;
  }

  /** Runs `body` with `name` added to the scope that error messages and profiles show. */
  scope<T>(name: string, body: () => T): T {
    this.scopes.push(name);
    try {
      return body();
    } finally {
      this.scopes.pop();
    }
  }

  /**
   * Traces `body` so that its inner values need not be kept for the backward pass: when the gradient reaches its
   * outputs, `body` is traced a second time on the same inputs (gradient checkpointing, Chen et al. 2016). `body` must
   * use the same random counters each time, which counter-based numbers give for free.
   */
  checkpoint(inputs: Tensor[], body: (inputs: Tensor[]) => Tensor[]): Tensor[] {
    const first = this.nodes.length;
    this.openSegments++;
    const outputs = body(inputs);
    this.openSegments--;
    if (this.openSegments === 0) {
      this.checkpoints.push({ first, last: this.nodes.length, inputs, outputs, body, scope: this.scopes.join(".") });
    }
    return outputs;
  }

  private newTensor(type: TensorType): Tensor {
    return new Tensor(this, this.nextId++, type);
  }
}

export interface CheckpointSegment {
  /** Range of node indices that the first trace made. */
  first: number;
  last: number;
  inputs: Tensor[];
  outputs: Tensor[];
  body: (inputs: Tensor[]) => Tensor[];
  scope: string;
}

/** Applies an operation with one output. */
export function apply1(operation: Operation, inputs: Tensor[], attributes: Attributes = {}): Tensor {
  return inputs[0]!.graph.apply(operation, inputs, attributes)[0]!;
}
