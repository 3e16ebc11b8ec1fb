// Memory by name that several users take turns in, each with a shape of its own: what one leaves there is lost when the next
// writes. A place grows only by being made anew, so the largest user comes first.

import { elements, type Shape } from "../../../tensor/shape.ts";
import { type Pool, Variable } from "../../../tensor/variable.ts";

export class Places {
  private readonly pool: Pool;
  private readonly made = new Map<string, Variable>();

  constructor(pool: Pool) {
    this.pool = pool;
  }

  /** An f32 variable of the shape in the place of that name. */
  take(name: string, shape: Shape): Variable {
    const known = this.made.get(name);
    if (known && elements(shape) <= known.size) return new Variable(name, shape, known.dtype, known);
    const made = this.pool.add(known ? `${name} of ${shape.join(" x ")}` : name, shape, "f32");
    this.made.set(name, made);
    return made;
  }
}
