// LoKr (Yeh et al. 2023, LyCORIS): ΔW = s · (F ⊗ G) with F [out1, in1] and G [out2, in2], each whole or a product of two.
// The Kronecker product is never made: with x as X [in1, in2] the output is F X Gᵀ, which costs 1 / out1 + 1 / in2 of the
// multiplications with ΔW, or 1 / out2 + 1 / in1 in the other order. Only F of one element would not gain, nor does it lose.

import { RandomStream } from "../../base/random.ts";
import { isLokr, type KroneckerFactor, type LokrLayer, type LoraLayer } from "../../formats/adapter_layers.ts";
import { matmul } from "../../ops/matmul.ts";
import { transpose } from "../../ops/permute.ts";
import { add, expand, mul } from "../../ops/pointwise.ts";
import { reshape } from "../../ops/reshape.ts";
import type { Graph, Tensor } from "../../tensor/graph.ts";
import type { Session } from "../../tensor/session.ts";
import type { Pool, Variable } from "../../tensor/variable.ts";
import type { Linear } from "../linear.ts";
import { type AdapterModule, type InputDropout, sameScale, spread } from "./module.ts";
import type { FactorShape, KroneckerShape } from "./targets.ts";

/** Rows of a product that one partial sum of its weight's gradient runs over, about. */
const ROWS_A_SUM = 4096;
const FEWEST_ROWS = 128;

/** The variables of a factor: [whole], or [left, right] whose product it is. */
class Factor {
  readonly shape: FactorShape;
  readonly variables: readonly Variable[];

  constructor(pool: Pool, name: string, shape: FactorShape) {
    const { rows, columns, rank } = shape;
    this.shape = shape;
    this.variables =
      rank === null
        ? [pool.add(name, [rows, columns], "f32")]
        : [pool.add(`${name}_a`, [rows, rank], "f32"), pool.add(`${name}_b`, [rank, columns], "f32")];
  }

  /** What multiplies a row, in order: (z Rᵀ) Lᵀ. */
  steps(): readonly Variable[] {
    return [...this.variables].reverse();
  }

  /** PyTorch's default for matrices, uniform in ±1 / √columns; `zero` makes the factor zero and leaves it a gradient. */
  initialise(session: Session, stream: (part: number) => RandomStream, zero: boolean): void {
    this.variables.forEach((variable, i) => {
      const last = i === this.variables.length - 1;
      const values =
        zero && last
          ? new Float32Array(variable.size)
          : spread(stream(i), variable.size, 1 / Math.sqrt(variable.shape[1]!));
      session.write(variable, values);
    });
  }

  refusal(factor: KroneckerFactor, name: string): string | null {
    const { rows, columns, rank } = this.shape;
    const show = (r: number, c: number, k: number | null) => `${r} × ${c}${k === null ? "" : ` of rank ${k}`}`;
    const own = "whole" in factor ? null : factor.rank;
    if (factor.rows === rows && factor.columns === columns && own === rank) return null;
    return `its ${name} factor is ${show(factor.rows, factor.columns, own)}, expected ${show(rows, columns, rank)}`;
  }

  load(session: Session, factor: KroneckerFactor): void {
    const values = "whole" in factor ? [factor.whole] : [factor.left, factor.right];
    this.variables.forEach((variable, i) => session.write(variable, values[i]!));
  }

  async read(session: Session): Promise<KroneckerFactor> {
    const { rows, columns, rank } = this.shape;
    const values: Float32Array[] = [];
    for (const variable of this.variables) values.push(await session.read(variable));
    if (rank === null) return { rows, columns, whole: values[0]! };
    return { rows, columns, rank, left: values[0]!, right: values[1]! };
  }
}

export class KroneckerModule implements AdapterModule {
  private readonly module: string;
  private readonly shape: KroneckerShape;
  private readonly first: Factor;
  private readonly second: Factor;
  private readonly scale: Variable;
  private readonly thinning: InputDropout;

  constructor(
    pool: Pool,
    module: string,
    linear: Linear,
    shape: KroneckerShape,
    parts: { scale: Variable; dropout: InputDropout },
  ) {
    const { first, second } = shape;
    if (first.rows * second.rows !== linear.outputs || first.columns * second.columns !== linear.inputs) {
      throw new Error(`${module}: factors do not multiply to ${linear.outputs} × ${linear.inputs}`);
    }
    this.module = module;
    this.shape = shape;
    this.first = new Factor(pool, `${module}.lokr_w1`, first);
    this.second = new Factor(pool, `${module}.lokr_w2`, second);
    this.scale = parts.scale;
    this.thinning = parts.dropout;
  }

  apply(graph: Graph, _linear: Linear, x: Tensor, y: Tensor): Tensor {
    const { first, second } = this.shape;
    const rows = x.size / x.dim(-1);
    const thin = reshape(this.thinning.apply(graph, x), [rows, first.columns, second.columns]);
    const read = (variables: readonly Variable[]) => variables.map((variable) => graph.read(variable));
    const inner = read(this.first.steps());
    const outer = read(this.second.steps());
    // F acts between the two halves of G where G is a product, on the shorter side where it is whole: [.., in1, k] there.
    const before = outer.length > 1 || secondFirst(this.shape) ? outer.splice(0, 1) : [];
    const left = swap(times(thin, before));
    const product = times(swap(times(left, inner)), outer);
    return add(y, mul(reshape(product, y.shape), graph.read(this.scale)));
  }

  /** F uniform, G zero: the model begins unchanged, as LyCORIS begins. */
  initialise(session: Session, seed: number): void {
    const stream = (factor: string) => (part: number) =>
      new RandomStream(seed, `lokr.${this.module}.${factor}.${part}`);
    this.first.initialise(session, stream("w1"), false);
    this.second.initialise(session, stream("w2"), true);
  }

  refusal(layer: LoraLayer | LokrLayer): string | null {
    if (!isLokr(layer)) return "the file has a LoRA there";
    const { scale } = this.shape;
    return (
      this.first.refusal(layer.first, "first") ??
      this.second.refusal(layer.second, "second") ??
      (sameScale(layer.scale, scale) ? null : `its factor on the product is ${layer.scale}, expected ${scale}`)
    );
  }

  load(session: Session, layer: LokrLayer): void {
    this.first.load(session, layer.first);
    this.second.load(session, layer.second);
  }

  async read(session: Session): Promise<LokrLayer> {
    const { first, second, scale } = this.shape;
    return {
      inputs: first.columns * second.columns,
      outputs: first.rows * second.rows,
      first: await this.first.read(session),
      second: await this.second.read(session),
      scale,
    };
  }
}

/** Whether a whole G acts before F: the order of fewer multiplications. */
function secondFirst({ first, second }: KroneckerShape): boolean {
  const before = first.columns * second.rows * (second.columns + first.rows);
  const after = first.rows * second.columns * (first.columns + second.rows);
  return before < after;
}

/** [n, a, b] -> [n, b, a]. */
function swap(x: Tensor): Tensor {
  const [n, a, b] = x.shape as [number, number, number];
  return a === 1 || b === 1 ? reshape(x, [n, b, a]) : transpose(x);
}

/** x [n, a, k] times the transposes of `matrices` [m, k], one after the other -> [n, a, m]. */
function times(x: Tensor, matrices: readonly Tensor[]): Tensor {
  return matrices.reduce((value, matrix) => {
    const rows = value.dim(0) * value.dim(1);
    const parts = partialSums(rows);
    const shape = [value.dim(0), value.dim(1), matrix.dim(0)];
    if (parts === 1) return reshape(matmul(value, matrix, { transposeB: true }), shape);
    const copies = expand(reshape(matrix, [1, ...matrix.shape]), [parts, ...matrix.shape]);
    const split = reshape(value, [parts, rows / parts, value.dim(2)]);
    return reshape(matmul(split, copies, { transposeB: true }), shape);
  }, x);
}

/**
 * Into how many equal parts the rows of a product are cut. The matrices are tiny and the rows many: the gradient of a
 * matrix is a sum over all rows that too few workgroups would share, so each part gets a copy of the matrix and a sum.
 */
function partialSums(rows: number): number {
  for (let parts = Math.ceil(rows / ROWS_A_SUM); parts > 1 && rows / parts >= FEWEST_ROWS; parts++) {
    if (rows % parts === 0) return parts;
  }
  return 1;
}
