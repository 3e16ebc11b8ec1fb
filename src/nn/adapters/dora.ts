// DoRA (Liu et al. 2024) as PEFT computes it: W' = m / ‖W + s B A‖ · (W + s B A), the norm taken over each row and held
// constant in the backward pass (section 4.3 of the paper). The norm is worked out without the sum as a matrix:
// ‖w + s b A‖² = ‖w‖² + 2 s b · (A w) + s² b · (A Aᵀ b), which reads W once, in the form in which it is stored.

import type { LoraLayer } from "../../formats/adapter_layers.ts";
import { detach } from "../../ops/detach.ts";
import { matmul } from "../../ops/matmul.ts";
import { transpose } from "../../ops/permute.ts";
import { add, affine, clamp, div, mul, sqrt, square, sub } from "../../ops/pointwise.ts";
import { sum } from "../../ops/reduce.ts";
import { concat, slice } from "../../ops/slab.ts";
import type { Graph, Tensor } from "../../tensor/graph.ts";
import type { Session } from "../../tensor/session.ts";
import type { Pool, Variable } from "../../tensor/variable.ts";
import type { Linear } from "../linear.ts";
import { LowRankModule } from "./low_rank.ts";
import type { InputDropout } from "./module.ts";
import type { LowRankShape } from "./targets.ts";

/** Elements of the weight that are squared at a time while row norms are measured: bounds the memory of that. */
const SQUARED_AT_A_TIME = 1 << 22;
/** Keeps the norm of a row of zeros from dividing by zero. */
const LEAST_SQUARE = 1e-30;
const MOST_SQUARE = 3e38;

export class DoraModule extends LowRankModule {
  /** m, [out]. */
  readonly magnitude: Variable;
  /** ‖w‖² of the base weight's rows, [out]; `measure` fills it. */
  private readonly squares: Variable;
  /** [1]: 1 as trained, 0 the model without it. */
  private readonly strength: Variable;
  private readonly linear: Linear;

  constructor(
    pools: { factors: Pool; magnitudes: Pool },
    module: string,
    linear: Linear,
    shape: LowRankShape,
    parts: { scale: Variable; dropout: InputDropout; strength: Variable; squares: Variable },
  ) {
    super(pools.factors, module, linear, shape, parts);
    this.magnitude = pools.magnitudes.add(`${module}.lora_magnitude_vector`, [linear.outputs], "f32");
    this.squares = parts.squares;
    this.strength = parts.strength;
    this.linear = linear;
  }

  /** Between y and the merged layer's output by the strength; PEFT drops elements of the base product's input too. */
  override apply(graph: Graph, linear: Linear, x: Tensor, y: Tensor): Tensor {
    const thin = this.thinning.apply(graph, x);
    const whole = linear.bias ? () => sub(y, graph.read(linear.bias!)) : () => y;
    const base = this.thinning.acts(graph) ? linear.project(graph, thin) : whole();
    const factor = div(graph.read(this.magnitude), this.rowNorms(graph, linear));
    const change = sub(mul(add(base, this.update(graph, thin)), factor), base);
    return add(y, mul(change, graph.read(this.strength)));
  }

  /** ‖W + s B A‖ of every row, [out], without gradient. */
  private rowNorms(graph: Graph, linear: Linear): Tensor {
    const down = detach(graph.read(this.down));
    const up = detach(graph.read(this.up));
    const scale = graph.read(this.scale);
    const gram = matmul(down, down, { transposeB: true });
    const crossed = transpose(affine(linear.project(graph, down), 2, 0));
    const inner = add(mul(matmul(up, gram), scale), crossed);
    const added = mul(sum(mul(inner, up), 1), scale);
    return sqrt(clamp(add(added, graph.read(this.squares)), LEAST_SQUARE, MOST_SQUARE));
  }

  /** Traces what the base weight decides: the squares of its rows, and the magnitude that begins as their norm. */
  traceMeasure(graph: Graph): void {
    const { inputs, outputs } = this.linear;
    const weight = detach(this.linear.weightTensor(graph));
    const rows = Math.max(1, Math.floor(SQUARED_AT_A_TIME / inputs));
    const parts: Tensor[] = [];
    for (let first = 0; first < outputs; first += rows) {
      parts.push(sum(square(slice(weight, 0, first, Math.min(rows, outputs - first))), 1));
    }
    const squares = concat(parts, 0);
    graph.assign(this.squares, squares);
    graph.assign(this.magnitude, sqrt(squares));
  }

  override load(session: Session, layer: LoraLayer): void {
    super.load(session, layer);
    session.write(this.magnitude, layer.magnitude!);
  }

  override async read(session: Session): Promise<LoraLayer> {
    return { ...(await super.read(session)), magnitude: await session.read(this.magnitude) };
  }
}
