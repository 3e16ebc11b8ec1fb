// Pools as an optimizer sees them: one flat variable a segment, which spans every variable that lies in it and the
// padding between them. The padding of gradients and moments is zero from the start and stays so.

import { BYTES } from "../tensor/shape.ts";
import { type Pool, Variable } from "../tensor/variable.ts";

const known = new WeakMap<Pool, Variable[]>();

/**
 * Variables [bytes / 4] of one element type over the whole segments of a pool; always the same objects while the pool does not grow.
 * They alias the pool's own variables, so a plan that binds them must not write those by other names at the same call.
 * Throws a plain Error where a variable has another element type.
 */
export function poolSegments(pool: Pool, dtype: "f32" | "u32" = "f32"): Variable[] {
  const old = known.get(pool);
  if (old && old.length === pool.segmentBytes.length && old.every((v, i) => v.bytes === pool.segmentBytes[i]))
    return old;
  const other = pool.variables.find((v) => v.dtype !== dtype);
  if (other) throw new Error(`pool ${pool.name}: ${other.name} is ${other.dtype}; flat segments hold ${dtype}`);
  const segments = pool.segmentBytes.map((bytes, segment) => {
    return new Variable(`${pool.name}.segment${segment}`, [bytes / BYTES[dtype]], dtype, { pool, segment, offset: 0 });
  });
  known.set(pool, segments);
  return segments;
}

/** Throws a plain Error where a pool's variables do not lie as those of `pool` do. */
export function checkTwin(pool: Pool, twin: Pool): void {
  const same =
    pool.variables.length === twin.variables.length &&
    pool.variables.every((v, i) => {
      const t = twin.variables[i]!;
      return t.segment === v.segment && t.offset === v.offset && t.size === v.size;
    });
  if (!same) throw new Error(`pool ${twin.name} has not the layout of ${pool.name}`);
}
