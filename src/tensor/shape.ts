// Element types and shapes. Tensors are dense and row-major, so a shape and an element type say everything about the
// layout; broadcasting follows NumPy's rule and is kept in a collapsed form that kernels can index with few divisions.

export type DType = "f32" | "f16" | "u32";
export type Shape = readonly number[];

export const BYTES: Readonly<Record<DType, number>> = { f32: 4, f16: 2, u32: 4 };

/** Number of elements of a shape; 1 for a scalar. */
export function elements(shape: Shape): number {
  let n = 1;
  for (const d of shape) n *= d;
  return n;
}

export function sameShape(a: Shape, b: Shape): boolean {
  return a.length === b.length && a.every((d, i) => d === b[i]);
}

export function showShape(shape: Shape): string {
  return `[${shape.join(", ")}]`;
}

/** The shape that NumPy's broadcasting gives; throws a plain Error where the shapes do not fit. */
export function broadcastShapes(a: Shape, b: Shape): number[] {
  const rank = Math.max(a.length, b.length);
  const out: number[] = [];
  for (let i = 0; i < rank; i++) {
    const x = a[a.length - rank + i] ?? 1;
    const y = b[b.length - rank + i] ?? 1;
    if (x !== y && x !== 1 && y !== 1) throw new Error(`shapes ${showShape(a)} and ${showShape(b)} do not broadcast`);
    out.push(x === 1 ? y : x);
  }
  return out;
}

/**
 * How an operand of shape `from` is read while a tensor of shape `to` is written: neighbouring dimensions that behave
 * alike are merged. `pattern` has one letter a merged dimension, "s" (stepped over) or "b" (broadcast); `sizes` are the
 * merged sizes in the output. The same shape gives pattern "s", a bias over the last dimension "bs", a gate [B,1,D] "sbs".
 */
export interface Broadcast {
  pattern: string;
  sizes: number[];
}

export function collapseBroadcast(from: Shape, to: Shape): Broadcast {
  const pattern: string[] = [];
  const sizes: number[] = [];
  for (let i = 0; i < to.length; i++) {
    const size = to[i]!;
    if (size === 1) continue;
    const own = from[from.length - to.length + i] ?? 1;
    if (own !== size && own !== 1) throw new Error(`shape ${showShape(from)} does not broadcast to ${showShape(to)}`);
    const letter = own === size ? "s" : "b";
    if (pattern.at(-1) === letter) sizes[sizes.length - 1]! *= size;
    else {
      pattern.push(letter);
      sizes.push(size);
    }
  }
  if (pattern.length === 0) return { pattern: "s", sizes: [1] };
  return { pattern: pattern.join(""), sizes };
}

/** Resolves one -1 in a target shape; throws a plain Error where the element counts differ. */
export function resolveShape(count: number, target: Shape): number[] {
  const known = target.filter((d) => d !== -1).reduce((a, b) => a * b, 1);
  const out = target.map((d) => (d === -1 ? count / known : d));
  if (elements(out) !== count || out.some((d) => !Number.isInteger(d))) {
    throw new Error(`${count} elements do not fit shape ${showShape(target)}`);
  }
  return out;
}
