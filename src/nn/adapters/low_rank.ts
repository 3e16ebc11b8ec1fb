// LoRA (Hu et al. 2021): y = x Wᵀ + b + s · (drop(x) Aᵀ) Bᵀ, A [rank, in], B [out, rank]. The scale s is a scalar on the
// device, so that a sample with another strength replays the same plan.

import { RandomStream } from "../../base/random.ts";
import { isLokr, type LokrLayer, type LoraLayer } from "../../formats/adapter_layers.ts";
import { matmul } from "../../ops/matmul.ts";
import { add, mul } from "../../ops/pointwise.ts";
import type { Graph, Tensor } from "../../tensor/graph.ts";
import type { Session } from "../../tensor/session.ts";
import type { Pool, Variable } from "../../tensor/variable.ts";
import type { Linear } from "../linear.ts";
import { type AdapterModule, type InputDropout, sameScale } from "./module.ts";
import type { LowRankShape } from "./targets.ts";

export class LowRankModule implements AdapterModule {
  /** A, [rank, in]. */
  readonly down: Variable;
  /** B, [out, rank]. */
  readonly up: Variable;
  /** [1] */
  readonly scale: Variable;
  protected readonly shape: LowRankShape;
  protected readonly thinning: InputDropout;
  private readonly module: string;

  constructor(
    pool: Pool,
    module: string,
    linear: Linear,
    shape: LowRankShape,
    parts: { scale: Variable; dropout: InputDropout },
  ) {
    this.module = module;
    this.shape = shape;
    this.down = pool.add(`${module}.lora_A.weight`, [shape.rank, linear.inputs], "f32");
    this.up = pool.add(`${module}.lora_B.weight`, [linear.outputs, shape.rank], "f32");
    this.scale = parts.scale;
    this.thinning = parts.dropout;
  }

  apply(graph: Graph, _linear: Linear, x: Tensor, y: Tensor): Tensor {
    return add(y, this.update(graph, this.thinning.apply(graph, x)));
  }

  /** s · (x Aᵀ) Bᵀ. */
  protected update(graph: Graph, x: Tensor): Tensor {
    const low = matmul(x, graph.read(this.down), { transposeB: true });
    return mul(matmul(low, graph.read(this.up), { transposeB: true }), graph.read(this.scale));
  }

  /** A ~ normal with standard deviation 1/r, B = 0, as diffusers' FLUX scripts begin (PEFT's "gaussian"). */
  initialise(session: Session, seed: number): void {
    const values = new RandomStream(seed, `lora.${this.module}`).normals(0, this.down.size);
    session.write(
      this.down,
      values.map((value) => value / this.shape.rank),
    );
    session.write(this.up, new Float32Array(this.up.size));
  }

  refusal(layer: LoraLayer | LokrLayer): string | null {
    if (isLokr(layer)) return "the file has a LoKr there";
    const wanted = this.shape.kind ?? "lora";
    if ((layer.magnitude !== undefined) !== (wanted === "dora")) {
      return layer.magnitude
        ? "the file has a DoRA there, with a magnitude that a plain LoRA has no place for"
        : "the file has a plain LoRA there, without the magnitude of a DoRA";
    }
    const [rank, inputs] = this.down.shape as [number, number];
    const outputs = this.up.shape[0]!;
    if (layer.rank !== rank || layer.inputs !== inputs || layer.outputs !== outputs) {
      return `rank ${layer.rank} of ${layer.outputs} × ${layer.inputs}, expected ${rank} of ${outputs} × ${inputs}`;
    }
    const { scale } = this.shape;
    return sameScale(layer.scale, scale) ? null : `its factor on B A is ${layer.scale}, expected ${scale}`;
  }

  load(session: Session, layer: LoraLayer): void {
    session.write(this.down, layer.down);
    session.write(this.up, layer.up);
  }

  async read(session: Session): Promise<LoraLayer> {
    const [rank, inputs] = this.down.shape as [number, number];
    return {
      rank,
      inputs,
      outputs: this.up.shape[0]!,
      down: await session.read(this.down),
      up: await session.read(this.up),
      scale: this.shape.scale,
    };
  }
}
