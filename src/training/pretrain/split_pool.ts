// One tree of parameters in two pools: matrices and embeddings, which weight decay pulls on, and vectors, which it leaves
// alone (norms, biases, scales).

import type { Session } from "../../tensor/session.ts";
import type { DType, Shape } from "../../tensor/shape.ts";
import { Pool, type Variable } from "../../tensor/variable.ts";

/** Hands every variable to one of two pools by its number of dimensions; holds none itself. */
export class SplitPool extends Pool {
  readonly matrices: Pool;
  readonly vectors: Pool;

  constructor(session: Session, name: string) {
    super(name, "weights", session.target.maxBindingBytes);
    this.matrices = session.pool(`${name} matrices`, "weights");
    this.vectors = session.pool(`${name} vectors`, "weights");
  }

  override add(name: string, shape: Shape, dtype: DType): Variable {
    return (shape.length > 1 ? this.matrices : this.vectors).add(name, shape, dtype);
  }
}
