// Persistent device memory: weights, adapters, gradients, optimizer state, and the small buffers through which a step
// receives its changing scalars. Variables of one pool lie in the same order in flat segments, so that an optimizer
// reads parameter, gradient and moments at equal offsets.

import { BYTES, type DType, elements, type Shape } from "./shape.ts";

/** What the memory plan groups by. */
export type Category = "weights" | "adapter" | "gradients" | "optimizer" | "data";

export class Variable {
  readonly name: string;
  readonly shape: Shape;
  readonly dtype: DType;
  readonly pool: Pool;
  /** Segment and byte offset inside the pool. */
  readonly segment: number;
  readonly offset: number;
  /** Where gradients accumulate; set for trained variables. */
  gradient: Variable | null = null;

  constructor(name: string, shape: Shape, dtype: DType, place: { pool: Pool; segment: number; offset: number }) {
    this.name = name;
    this.shape = shape;
    this.dtype = dtype;
    this.pool = place.pool;
    this.segment = place.segment;
    this.offset = place.offset;
  }

  get size(): number {
    return elements(this.shape);
  }

  get bytes(): number {
    return this.size * BYTES[this.dtype];
  }
}

/** Every binding starts at a multiple of this; 256 is WebGPU's default for storage offsets. */
export const ALIGNMENT = 256;

export function alignUp(bytes: number, alignment = ALIGNMENT): number {
  return Math.ceil(bytes / alignment) * alignment;
}

/** A growing list of flat segments, each below the adapter's binding limit. */
export class Pool {
  readonly name: string;
  readonly category: Category;
  readonly segmentBytes: number[] = [];
  readonly variables: Variable[] = [];
  /** Bytes that one segment, and so one variable, may have. */
  readonly limit: number;
  private readonly names = new Set<string>();

  constructor(name: string, category: Category, maxSegmentBytes: number) {
    this.name = name;
    this.category = category;
    this.limit = Math.floor(maxSegmentBytes / ALIGNMENT) * ALIGNMENT;
  }

  /** Reserves room; throws a plain Error where one tensor alone exceeds a binding. */
  add(name: string, shape: Shape, dtype: DType): Variable {
    if (this.names.has(name)) throw new Error(`pool ${this.name} has a variable ${name} already`);
    this.names.add(name);
    const bytes = alignUp(Math.max(4, elements(shape) * BYTES[dtype]));
    if (bytes > this.limit) {
      throw new Error(`${name} needs ${bytes} bytes, more than one binding of this adapter holds (${this.limit})`);
    }
    let segment = this.segmentBytes.length - 1;
    if (segment < 0 || this.segmentBytes[segment]! + bytes > this.limit) {
      this.segmentBytes.push(0);
      segment++;
    }
    const offset = this.segmentBytes[segment]!;
    this.segmentBytes[segment] = offset + bytes;
    const variable = new Variable(name, shape, dtype, { pool: this, segment, offset });
    this.variables.push(variable);
    return variable;
  }

  get bytes(): number {
    return this.segmentBytes.reduce((a, b) => a + b, 0);
  }

  /** A pool with the same layout for another purpose (gradients, moments). */
  twin(name: string, category: Category, suffix: string): Pool {
    const twin = new Pool(name, category, this.limit);
    for (const v of this.variables) twin.add(v.name + suffix, v.shape, "f32");
    return twin;
  }
}
