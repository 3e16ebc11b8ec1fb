// What the adapters of all kinds have in common: one module's variables, how they begin, and the dropout on their input.

import type { RandomStream } from "../../base/random.ts";
import type { LokrLayer, LoraLayer } from "../../formats/adapter_layers.ts";
import { dropout } from "../../ops/dropout.ts";
import type { Graph, Tensor } from "../../tensor/graph.ts";
import type { Session } from "../../tensor/session.ts";
import type { Variable } from "../../tensor/variable.ts";
import type { LinearAdapter } from "../linear.ts";
import { isTraining } from "../training_mode.ts";

/** One module's adapter. */
export interface AdapterModule extends LinearAdapter {
  /** Sets the factors so that the layer begins unchanged, from streams of the module's own. */
  initialise(session: Session, seed: number): void;
  /** Why a file's layer cannot be taken, or null where it can. */
  refusal(layer: LoraLayer | LokrLayer): string | null;
  /** Takes a layer that `refusal` accepts. */
  load(session: Session, layer: LoraLayer | LokrLayer): void;
  read(session: Session): Promise<LoraLayer | LokrLayer>;
}

/** Dropout on one module's input: a stretch of the adapter's stream that no other module reads. */
export class InputDropout {
  private readonly rate: number;
  private readonly key: Variable | null;
  private readonly first: number;

  constructor(rate: number, key: Variable | null, first: number) {
    this.rate = rate;
    this.key = key;
    this.first = first;
  }

  /** True where the plan that is being traced drops elements. */
  acts(graph: Graph): boolean {
    return this.rate > 0 && isTraining(graph);
  }

  apply(graph: Graph, x: Tensor): Tensor {
    return this.acts(graph) ? dropout(x, graph.read(this.key!), { rate: this.rate, first: this.first }) : x;
  }
}

/** Evenly spread values in [-bound, bound), in float32. */
export function spread(stream: RandomStream, count: number, bound: number): Float32Array {
  return stream.uniforms(0, count).map((u) => bound * (2 * u - 1));
}

/** Whether a file's scale is the adapter's: files hold alpha in float32 or less, or as a product with fused parts. */
export function sameScale(a: number, b: number): boolean {
  return Math.abs(a - b) <= 1e-6 * Math.abs(b);
}
