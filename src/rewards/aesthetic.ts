// LAION's aesthetic predictor: a score of about 1 to 10 from the unit picture feature of CLIP ViT-L/14, without any text. The
// published «linear» heads are stacks of linear layers with dropout between them and no activation, so that the whole stack
// is one vector and a bias: score = w·f + b. Heads with activations are another function and are refused.

import { LongtailError } from "../base/errors.ts";
import type { FileStore } from "../base/files.ts";
import { openWeights } from "../models/checkpoint_files.ts";

/** Layer numbers of the published stack with ReLU between its layers. */
const WITH_RELU = [0, 3, 6];

export class AestheticHead {
  readonly path: string;
  /** w [width]. */
  readonly vector: Float32Array;
  readonly bias: number;

  constructor(path: string, vector: Float32Array, bias: number) {
    this.path = path;
    this.vector = vector;
    this.bias = bias;
  }

  /**
   * Reads a head (.pth of torch or safetensors): `layers.{0,2,4,6,7}.{weight,bias}` or a single `weight` and `bias`.
   * @throws LongtailError E-FILE-143 it is no head of this kind, E-FILE-144 it belongs to a CLIP model of another width
   */
  static async open(files: FileStore, path: string, width: number): Promise<AestheticHead> {
    const source = await openWeights(files, path);
    try {
      const names = [...source.names()];
      const layers = names
        .flatMap((name) => /^(.*?)weight$/.exec(name)?.slice(1, 2) ?? [])
        .sort((a, b) => Number(/\d+/.exec(a)?.[0] ?? 0) - Number(/\d+/.exec(b)?.[0] ?? 0));
      const numbers = layers.map((name) => Number(/\d+/.exec(name)?.[0] ?? 0));
      if (layers.length > 1 && WITH_RELU.every((n) => numbers.includes(n)))
        throw notHead(path, "its layers are those of the variant with ReLU between them, which is no linear function");
      // From the last layer to the first: y = W (V x + v) + w = (W V) x + (W v + w).
      let vector = Float64Array.of(1);
      let bias = 0;
      for (const layer of layers.toReversed()) {
        const shape = source.shape(`${layer}weight`);
        if (shape.length !== 2 || shape[0] !== vector.length)
          throw notHead(
            path,
            `${layer}weight [${shape.join(", ")}] does not give the ${vector.length} numbers of the next`,
          );
        const [rows, columns] = shape as [number, number];
        const weight = await source.load(`${layer}weight`);
        const own = source.has(`${layer}bias`) ? await source.load(`${layer}bias`) : new Float32Array(rows);
        const next = new Float64Array(columns);
        for (let r = 0; r < rows; r++) {
          bias += vector[r]! * own[r]!;
          for (let c = 0; c < columns; c++) next[c]! += vector[r]! * weight[r * columns + c]!;
        }
        vector = next;
      }
      if (layers.length === 0) throw notHead(path, "it has no weights");
      if (vector.length !== width)
        throw new LongtailError("E-FILE-144", {
          what: `the aesthetic head takes features of ${vector.length} numbers, and the CLIP model gives ${width}`,
          where: path,
          why: "each head was trained on one CLIP model; LAION's on OpenAI's ViT-L/14 (768)",
          fix: "give the CLIP model that the head belongs to with --model",
        });
      return new AestheticHead(path, Float32Array.from(vector), bias);
    } finally {
      await source.close();
    }
  }

  /** The score of a unit picture feature. */
  score(feature: ArrayLike<number>): number {
    let sum = this.bias;
    for (let i = 0; i < this.vector.length; i++) sum += this.vector[i]! * feature[i]!;
    return sum;
  }
}

function notHead(path: string, why: string): LongtailError {
  return new LongtailError("E-FILE-143", {
    what: "this is not a linear aesthetic head",
    where: path,
    why,
    fix: "give a linear head such as LAION's sac+logos+ava1-l14-linearMSE.pth",
  });
}
