// Starting values of networks that are pretrained: Xavier's uniform for the generator (Glorot & Bengio 2010), the uniform
// +-1/sqrt(inputs) of torch's layers elsewhere, normal numbers for embeddings. A tensor's values depend on the seed and its
// name alone, so that another size of another tensor changes nothing.

import { RandomStream } from "../../base/random.ts";
import type { Session } from "../../tensor/session.ts";
import type { Variable } from "../../tensor/variable.ts";

type Fill = (shape: readonly number[], stream: RandomStream) => Float32Array;

const count = (shape: readonly number[]): number => shape.reduce((a, b) => a * b, 1);
const constant =
  (value: number): Fill =>
  (shape) =>
    new Float32Array(count(shape)).fill(value);
const uniform =
  (bound: (shape: readonly number[]) => number): Fill =>
  (shape, stream) => {
    const most = bound(shape);
    return stream.uniforms(0, count(shape)).map((u) => (2 * u - 1) * most);
  };
const normal =
  (deviation: (shape: readonly number[]) => number): Fill =>
  (shape, stream) => {
    const std = deviation(shape);
    return stream.normals(0, count(shape)).map((n) => n * std);
  };

const zeros = constant(0);
const ones = constant(1);
/** Inputs of a row: what one output adds up. */
const fanIn = (shape: readonly number[]): number => count(shape) / shape[0]!;
const layer = uniform((shape) => 1 / Math.sqrt(fanIn(shape)));
const xavier = uniform((shape) => Math.sqrt(6 / (shape[0]! + fanIn(shape))));
const normalOf = (std: number): Fill => normal(() => std);
const rootOf = (dimension: number): Fill => normal((shape) => shape[dimension]! ** -0.5);

/** Rules by pattern of the name, the first that fits. */
type Rules = readonly (readonly [RegExp, Fill])[];

/** FluxTransformer2DModel: modulations and the last layer start at zero, so that every block starts as identity. */
export const FLUX_START: Rules = [
  [/(norm1|norm1_context|norm_out|norm)\.linear\.weight$/, zeros],
  [/^proj_out\.weight$/, zeros],
  [/norm_(added_)?[qk]\.weight$/, ones],
  [/\.weight$/, xavier],
  [/\.bias$/, zeros],
];

/** Biases of torch's Linear layers start in +-1/sqrt(inputs); `inputs` finds the weight that belongs to a bias. */
const biasLike =
  (inputs: number): Fill =>
  (shape, stream) =>
    uniform(() => 1 / Math.sqrt(inputs))(shape, stream);

const CLIP_TEXT_START: Rules = [
  [/token_embedding\.weight$/, normalOf(0.05)],
  [/position_embedding\.weight$/, normalOf(0.02)],
  [/layer_norm\d?\.weight$/, ones],
  [/layer_norm\d?\.bias$/, zeros],
  [/\.weight$/, layer],
];

const t5Start = (headSize: number): Rules => [
  [/^shared\.weight$/, normalOf(0.5)],
  [/relative_attention_bias\.weight$/, normalOf(0.1)],
  [/layer_norm\.weight$/, ones],
  [/SelfAttention\.q\.weight$/, normal((shape) => (shape[1]! * headSize) ** -0.5)],
  [/SelfAttention\.[kvo]\.weight$/, normal((shape) => shape[1]! ** -0.5)],
  [/\.weight$/, layer],
];

/** Logits start at cosine / 0.07 (Radford et al. 2021). */
const OPEN_CLIP_START: Rules = [
  [/^logit_scale$/, constant(Math.log(1 / 0.07))],
  [/^token_embedding\.weight$/, normalOf(0.02)],
  [/^positional_embedding$/, normalOf(0.01)],
  [/^visual\.class_embedding$/, rootOf(0)],
  [/^visual\.positional_embedding$/, rootOf(1)],
  [/^(visual\.proj|text_projection)$/, rootOf(0)],
  [/attn\.in_proj_weight$/, rootOf(1)],
  [/attn\.(in_proj_bias|out_proj\.bias)$/, zeros],
  [/(ln_\w+)\.weight$/, ones],
  [/(ln_\w+)\.bias$/, zeros],
  [/\.weight$/, layer],
];

export type Network = "flux" | "clip text" | "t5" | "open_clip";

/**
 * Starting values of a network's tensors, by name.
 * @param shapes shapes of all of its tensors
 */
export function startingValues(
  network: Network,
  shapes: ReadonlyMap<string, readonly number[]>,
  seed: number,
  options: { headSize?: number } = {},
): Map<string, Float32Array> {
  const rules: Record<Network, Rules> = {
    flux: FLUX_START,
    "clip text": CLIP_TEXT_START,
    t5: t5Start(options.headSize ?? 64),
    open_clip: OPEN_CLIP_START,
  };
  const values = new Map<string, Float32Array>();
  for (const [name, shape] of shapes) {
    const fill = rules[network].find(([pattern]) => pattern.test(name))?.[1] ?? biasFill(name, shapes);
    values.set(name, fill(shape, new RandomStream(seed, `${network} ${name}`)));
  }
  return values;
}

function biasFill(name: string, shapes: ReadonlyMap<string, readonly number[]>): Fill {
  const weight = shapes.get(name.replace(/bias$/, "weight"));
  if (!name.endsWith(".bias") || !weight) throw new Error(`no starting value is known for ${name}`);
  return biasLike(fanIn(weight));
}

/** Writes starting values into an open session. */
export function writeStart(
  session: Session,
  network: Network,
  variables: ReadonlyMap<string, Variable>,
  seed: number,
  options: { headSize?: number } = {},
): void {
  const shapes = new Map([...variables].map(([name, v]) => [name, v.shape] as const));
  for (const [name, values] of startingValues(network, shapes, seed, options))
    session.write(variables.get(name)!, values);
}
