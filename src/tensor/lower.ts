// From nodes to kernel calls. A call names a WGSL template, its placeholder values, the memory it binds and its grid;
// memory is still symbolic here (slots), so that the planner can see every lifetime before anything is allocated.

import { type KernelLimits, type MatrixUse, vectorLanes } from "../gpu/kernel_limits.ts";
import { type EpilogueScope, epilogueText, type PointwiseStep, worksOnVectors } from "./epilogue.ts";
import type { Graph, Node, Tensor } from "./graph.ts";
import { BYTES, type DType, elements } from "./shape.ts";
import type { Variable } from "./variable.ts";

/** A piece of memory: a place in the arena that the planner chooses, or a persistent variable. */
export interface Slot {
  readonly id: number;
  readonly bytes: number;
  readonly dtype: DType;
  /** Set where the slot is persistent memory. */
  variable: Variable | null;
  readonly label: string;
}

export type Constants = Record<string, string | number | boolean>;

export interface KernelCall {
  /** Name of the kernel, for profiles and messages. */
  label: string;
  scope: string;
  source: string;
  constants: Constants;
  bindings: Slot[];
  /** For each binding: is it written. */
  writes: boolean[];
  /** Words of the uniform at binding 0. */
  params: Uint32Array;
  /** Words of the epilogue's uniform at binding 100, or null. */
  epilogue: Uint32Array | null;
  grid: [number, number, number];
  /** Multiply-adds count as two. */
  flops: number;
  bytes: number;
}

export interface CallRequest {
  label: string;
  source: string;
  constants?: Constants;
  inputs: Slot[];
  outputs: Slot[];
  /** Bindings that are read and written; they follow inputs and outputs. */
  inPlace?: Slot[];
  params: ArrayLike<number> | Uint32Array;
  grid: [number, number, number];
  flops?: number;
  /** The node whose pointwise steps this kernel runs before its store. */
  epilogueOf?: Node;
  /** What the kernel knows of an output's place. */
  epilogueScope?: EpilogueScope;
  /** The kernel's variant that makes four neighbours together, where it has one and its sizes allow it. */
  wide?: WideVariant | null;
}

/** What differs from the request where values are made as vectors of four; constants are added to those of the request. */
export type WideVariant = Partial<Pick<CallRequest, "params" | "grid" | "epilogueScope">> & { constants: Constants };

/** What lowering may ask about the adapter; no device is needed to know it. */
export interface Target {
  /** What kernel choices depend on besides the shape. */
  kernels: KernelLimits;
  software: boolean;
  f16: boolean;
  /** Which products run on the adapter's subgroup matrices. */
  matrices: MatrixUse;
  /** Tiled kernels decode stored weights while they stage them, without a decoded copy of the matrix. */
  stagedDecoding: boolean;
  maxBindingBytes: number;
  maxStorageBuffers: number;
  maxWorkgroups: number;
  /** The tuner's answer for a kernel family and shape key, or null to take the default. */
  choose(family: string, key: string, variants: readonly string[]): string | null;
}

export interface Lowered {
  calls: KernelCall[];
  slots: Slot[];
  /** Every choice between kernel variants that was asked for. */
  choices: ChoiceAsked[];
}

/** A place where an operation chose between kernel variants. */
export interface ChoiceAsked {
  family: string;
  key: string;
  variants: readonly string[];
  node: Node;
}

export class Lowering {
  readonly target: Target;
  readonly calls: KernelCall[] = [];
  readonly slots: Slot[] = [];
  private readonly slotOf = new Map<Tensor, Slot>();
  private readonly slotOfVariable = new Map<Variable, Slot>();
  private scope = "";
  private node: Node | null = null;
  private readonly choices: ChoiceAsked[] = [];
  private readonly copySource: string;

  constructor(target: Target, copySource: string) {
    this.target = {
      ...target,
      choose: (family, key, variants) => {
        if (this.node) this.choices.push({ family, key, variants, node: this.node });
        return target.choose(family, key, variants);
      },
    };
    this.copySource = copySource;
  }

  /** Memory of a tensor; made on first use. */
  slot(tensor: Tensor): Slot {
    let slot = this.slotOf.get(tensor);
    if (slot) return slot;
    if (tensor.variable) slot = this.variable(tensor.variable);
    else if (tensor.node?.operation.view) slot = this.slot(tensor.node.inputs[0]!);
    else
      slot = this.newSlot(
        tensor.size * BYTES[tensor.dtype],
        tensor.dtype,
        `${this.scope}/${tensor.node?.operation.name}`,
      );
    this.slotOf.set(tensor, slot);
    return slot;
  }

  /** Memory of a persistent variable. */
  variable(variable: Variable): Slot {
    let slot = this.slotOfVariable.get(variable);
    if (!slot) {
      slot = this.newSlot(variable.bytes, variable.dtype, variable.name);
      slot.variable = variable;
      this.slotOfVariable.set(variable, slot);
    }
    return slot;
  }

  /** Memory that lives only between the calls of one node. */
  scratch(count: number, dtype: DType = "f32"): Slot {
    return this.newSlot(count * BYTES[dtype], dtype, `${this.scope}/scratch`);
  }

  /** Appends a kernel call. A slot that would be bound twice is copied first: writable bindings may not overlap. */
  call(asked: CallRequest): void {
    let request = asked;
    const inputs = [...request.inputs];
    let steps: PointwiseStep[] = [];
    if (request.epilogueOf) steps = (request.epilogueOf.attributes["epilogue"] as PointwiseStep[] | undefined) ?? [];
    const extraNames = new Map<Slot, number>();
    const main = inputs.length + request.outputs.length + (request.inPlace?.length ?? 0);
    const extra: Slot[] = [];
    const bindingOf = (input: number): number => {
      const slot = this.slot(request.epilogueOf!.inputs[input]!);
      let k = extraNames.get(slot);
      if (k === undefined) {
        k = extra.length;
        extraNames.set(slot, k);
        extra.push(slot);
      }
      return k;
    };
    const isWide = Boolean(asked.wide) && (steps.length === 0 || worksOnVectors(steps, asked.epilogueOf!, bindingOf));
    if (isWide) request = { ...asked, ...asked.wide, constants: { ...asked.constants, ...asked.wide!.constants } };
    let constants: Constants = { EPILOGUE: "", EPILOGUE_BINDINGS: "", ...request.constants };
    let words: Uint32Array | null = null;
    if (steps.length > 0) {
      const text = epilogueText(steps, asked.epilogueOf!, bindingOf, main + 1, request.epilogueScope, isWide);
      constants = { ...constants, EPILOGUE: text.statements, EPILOGUE_BINDINGS: text.bindings };
      words = text.words;
    }
    const seen = new Set<Slot>(request.outputs);
    for (const slot of request.inPlace ?? []) seen.add(slot);
    for (let i = 0; i < inputs.length; i++) {
      if (seen.has(inputs[i]!)) inputs[i] = this.copyOf(inputs[i]!);
      seen.add(inputs[i]!);
    }
    for (let i = 0; i < extra.length; i++) {
      if (seen.has(extra[i]!)) extra[i] = this.copyOf(extra[i]!);
      seen.add(extra[i]!);
    }
    const bindings = [...inputs, ...request.outputs, ...(request.inPlace ?? []), ...extra];
    const writes = bindings.map((_, i) => i >= inputs.length && i < main);
    const params = request.params instanceof Uint32Array ? request.params : Uint32Array.from(request.params);
    const bytes = bindings.reduce((n, s) => n + s.bytes, 0);
    this.calls.push({
      label: request.label,
      scope: this.scope,
      source: request.source,
      constants,
      bindings,
      writes,
      params,
      epilogue: words,
      grid: request.grid,
      flops: request.flops ?? 0,
      bytes,
    });
  }

  /** A copy of `slot` made by a call of its own. */
  copyOf(slot: Slot): Slot {
    const copy = this.newSlot(slot.bytes, slot.dtype, `${slot.label}/copy`);
    this.copy(slot, copy);
    return copy;
  }

  copy(from: Slot, to: Slot): void {
    const words = Math.ceil(from.bytes / 4);
    const isWide = words % 4 === 0;
    const items = isWide ? words / 4 : words;
    const { grid, lanes } = laneGrid(items, this.target, isWide);
    this.calls.push({
      label: "copy",
      scope: this.scope,
      source: this.copySource,
      constants: { ITEM: isWide ? "vec4<u32>" : "u32", ...lanes },
      bindings: [from, to],
      writes: [false, true],
      params: Uint32Array.from([items, grid[0]]),
      epilogue: null,
      grid,
      flops: 0,
      bytes: 2 * from.bytes,
    });
  }

  /** Lowers a whole graph; values assigned to variables are written in place where that is safe. */
  run(graph: Graph): Lowered {
    for (const node of graph.nodes) this.one(node);
    this.scope = "assign";
    // Assignments are parallel: where one hands on the old value of a variable that another one overwrites, that value is
    // saved first.
    const targets = new Set(graph.assignments.map((a) => a.target));
    const values = graph.assignments.map(({ target, value }) => {
      const slot = this.slot(value);
      return slot.variable && slot.variable !== target && targets.has(slot.variable) ? this.copyOf(slot) : slot;
    });
    graph.assignments.forEach(({ target }, i) => this.assign(target, values[i]!));
    return { calls: this.calls, slots: this.slots, choices: this.choices };
  }

  /** Lowers one node. */
  one(node: Node): void {
    if (node.operation.view) return;
    this.scope = node.scope;
    this.node = node;
    node.operation.lower(this, node);
    this.node = null;
  }

  private assign(target: Variable, value: Slot): void {
    const firstWrite = this.calls.findIndex((c) => c.bindings.some((s, i) => s === value && c.writes[i]));
    const clash = this.calls.some((c, at) => at >= firstWrite && c.bindings.some((s) => s.variable === target));
    if (value.variable === null && firstWrite >= 0 && !clash && value.bytes === target.bytes) {
      value.variable = target;
      return;
    }
    if (value.variable !== target) this.copy(value, this.variable(target));
  }

  private newSlot(bytes: number, dtype: DType, label: string): Slot {
    const slot: Slot = {
      id: this.slots.length,
      bytes: Math.max(4, Math.ceil(bytes / 4) * 4),
      dtype,
      variable: null,
      label,
    };
    this.slots.push(slot);
    return slot;
  }
}

/** Workgroups for `count` work items, folded into y above the adapter's limit; kernels multiply y by grid[0]. */
export function grid1d(
  count: number,
  perWorkgroup: number,
  target: { maxWorkgroups: number },
): [number, number, number] {
  return foldGrid(Math.ceil(Math.max(1, count) / perWorkgroup), target.maxWorkgroups);
}

/** How a kernel that makes one value after another is spread over lanes. */
export interface Lanes {
  /** Lanes of a workgroup. */
  LANES: number;
  /** Values (or vectors) that a lane makes, a workgroup's width apart. */
  PER_LANE: number;
}

/**
 * On a CPU adapter starting a lane costs more than a loop turn, and a workgroup is one vector of the processor; a GPU wants
 * lanes to hide its latency with, so `vectors` of four count as four values there.
 */
export function lanesOf(target: Pick<Target, "software" | "kernels">, vectors = false): Lanes {
  if (target.software) return { LANES: vectorLanes(target.kernels), PER_LANE: 16 };
  return { LANES: 64, PER_LANE: vectors ? 1 : 4 };
}

/** Grid of a kernel over `count` values or vectors of four, and the constants that its text needs. */
export function laneGrid(
  count: number,
  target: Target,
  vectors = false,
): { grid: [number, number, number]; lanes: Lanes } {
  const lanes = lanesOf(target, vectors);
  return { grid: grid1d(count, lanes.LANES * lanes.PER_LANE, target), lanes };
}

export function foldGrid(workgroups: number, maxWorkgroups: number): [number, number, number] {
  if (workgroups <= maxWorkgroups) return [workgroups, 1, 1];
  const y = Math.ceil(workgroups / maxWorkgroups);
  return [Math.ceil(workgroups / y), y, 1];
}

/** Bit patterns of f32 values, for parameter words. */
export function f32Bits(value: number): number {
  scratchFloat[0] = value;
  return scratchWord[0]!;
}
const scratchFloat = new Float32Array(1);
const scratchWord = new Uint32Array(scratchFloat.buffer);

export function elementCount(tensor: Tensor): number {
  return elements(tensor.shape);
}
