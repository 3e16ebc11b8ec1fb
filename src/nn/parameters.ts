// Names and places of a model's weights. A model declares each tensor it needs under its public name while it is built;
// loading then checks every name and shape against the file, so that a wrong checkpoint is refused with a list and not
// discovered by its pictures.

import { LongtailError } from "../base/errors.ts";
import { f32ToF16 } from "../base/halves.ts";
import type { TensorSource } from "../base/tensor_source.ts";
import type { Session } from "../tensor/session.ts";
import { type DType, type Shape, sameShape, showShape } from "../tensor/shape.ts";
import type { Pool, Variable } from "../tensor/variable.ts";
import type { Linear } from "./linear.ts";

/** What all places of one tree share. */
interface Declared {
  tensors: Map<string, Variable>;
  linears: Map<string, Linear>;
}

/** A place in a tree of parameter names; models declare their tensors through it. */
export class Parameters {
  readonly pool: Pool;
  readonly dtype: DType;
  private readonly prefix: string;
  private readonly declared: Declared;

  constructor(pool: Pool, options: { dtype?: DType; prefix?: string; declared?: Declared } = {}) {
    this.pool = pool;
    this.dtype = options.dtype ?? "f32";
    this.prefix = options.prefix ?? "";
    this.declared = options.declared ?? { tensors: new Map(), linears: new Map() };
  }

  /** The subtree under `name`. */
  at(name: string | number): Parameters {
    return new Parameters(this.pool, { dtype: this.dtype, prefix: `${this.prefix}${name}.`, declared: this.declared });
  }

  /** Remembers a Linear layer under this place's path, so that an adapter can find it. */
  register(layer: Linear): void {
    this.declared.linears.set(this.prefix.slice(0, -1), layer);
  }

  /** Linear layers of the whole tree by module path ("transformer_blocks.0.attn.to_q"), in order of declaration. */
  get linears(): ReadonlyMap<string, Linear> {
    return this.declared.linears;
  }

  /** Declares a tensor. Vectors stay f32: they are small, and norms and biases need the range. */
  tensor(name: string, shape: Shape): Variable {
    const full = this.prefix + name;
    const variable = this.pool.add(full, shape, shape.length > 1 ? this.dtype : "f32");
    this.declared.tensors.set(full, variable);
    return variable;
  }

  /** All tensors declared so far under any prefix, in order. */
  get variables(): ReadonlyMap<string, Variable> {
    return this.declared.tensors;
  }
}

/**
 * Compares names and shapes of all declared tensors with those of `source`; nothing is read but the header, so it can be
 * done before anything is traced.
 * @param rename public name in the file of a declared name (identity by default)
 * @throws LongtailError E-FILE-030 where tensors are missing, E-FILE-031 where a shape differs
 */
export function checkParameters(
  parameters: Parameters,
  source: TensorSource,
  rename: (name: string) => string = (name) => name,
): void {
  const missing = [...parameters.variables.keys()].filter((name) => !source.has(rename(name)));
  if (missing.length > 0) {
    throw new LongtailError("E-FILE-030", {
      what: `${missing.length} of ${parameters.variables.size} tensors are missing: ${missing.slice(0, 3).map(rename).join(", ")}${missing.length > 3 ? ", ..." : ""}`,
      where: source.name,
      why: "the file belongs to another model or another layout",
      fix: "check [model] in the configuration; the config.json beside the weights must describe them",
    });
  }
  for (const [name, variable] of parameters.variables) {
    const shape = source.shape(rename(name));
    if (!sameShape(shape, variable.shape)) {
      throw new LongtailError("E-FILE-031", {
        what: `tensor ${rename(name)} has shape ${showShape(shape)}, and the model expects ${showShape(variable.shape)}`,
        where: source.name,
        why: "the file and its config.json do not belong together",
        fix: "use the config.json that came with these weights",
      });
    }
  }
}

/** Loads every declared tensor from `source` into the open session; checks and errors as `checkParameters`. */
export async function loadParameters(
  session: Session,
  parameters: Parameters,
  source: TensorSource,
  rename: (name: string) => string = (name) => name,
): Promise<void> {
  checkParameters(parameters, source, rename);
  for (const [name, variable] of parameters.variables) {
    const values = await source.load(rename(name));
    session.write(variable, variable.dtype === "f16" ? f32ToF16(values) : values);
  }
}
