// Weights that are made up, of any size and without a file: normal numbers of a counter, encoded once as one long tile. A
// tensor is a stretch of the tile from a place that its name chooses, so that each of a thousand tensors has numbers of its
// own and none costs more than a view. Good for measuring size and speed; a model of them draws nothing.

import { QUANTIZATION_BLOCK, STORAGES, type Storage } from "../../../base/quantize.ts";
import { RandomStream, streamId } from "../../../base/random.ts";
import { type StoredTensor, storeTensor } from "../../../nn/parameters.ts";
import { elements } from "../../../tensor/shape.ts";
import { type BlockSource, valuesPerWord } from "./sources.ts";

/** Different numbers in a tile; a longer tile repeats them, at other columns of a matrix each time. */
const DISTINCT = 2 ** 21;

export interface GeneratedOptions {
  seed: number;
  /** Standard deviation of weights and biases, 0.02 by default. Norms' weights are 1. */
  deviation?: number;
}

export class GeneratedBlocks implements BlockSource {
  readonly name = "generated weights";
  private readonly shapes: ReadonlyMap<string, readonly number[]>;
  private readonly seed: number;
  private readonly deviation: number;
  private readonly length: number;
  private readonly tiles = new Map<Storage, StoredTensor>();
  private readonly ones: Float32Array;

  /** @param shapes of all tensors by name: `parameters.tensors` of the model */
  constructor(shapes: ReadonlyMap<string, { readonly shape: readonly number[] }>, options: GeneratedOptions) {
    this.shapes = new Map([...shapes].map(([name, { shape }]) => [name, shape]));
    this.seed = options.seed;
    this.deviation = options.deviation ?? 0.02;
    const sizes = [...this.shapes.values()].map(elements);
    this.length = Math.ceil((Math.max(...sizes) + DISTINCT) / DISTINCT) * DISTINCT;
    const vectors = [...this.shapes.values()].filter((shape) => shape.length === 1).map(elements);
    this.ones = new Float32Array(Math.max(0, ...vectors)).fill(1);
  }

  has(name: string): boolean {
    return this.shapes.has(name);
  }

  shape(name: string): readonly number[] {
    const shape = this.shapes.get(name);
    if (!shape) throw new Error(`no tensor ${name}`);
    return shape;
  }

  read(name: string, storage: Storage): Promise<StoredTensor> {
    const shape = this.shape(name);
    const size = elements(shape);
    if (shape.length === 1 && name.endsWith(".weight"))
      return Promise.resolve({ codes: this.ones.subarray(0, size), scales: null });
    const tile = this.tile(storage);
    const blocks = DISTINCT / QUANTIZATION_BLOCK;
    const from = ((streamId(name) ^ this.seed) >>> 0) % blocks;
    const perWord = valuesPerWord(storage);
    const first = (from * QUANTIZATION_BLOCK) / perWord;
    return Promise.resolve({
      codes: tile.codes.subarray(first, first + Math.ceil(size / perWord)),
      scales: tile.scales?.subarray(from, from + Math.ceil(size / QUANTIZATION_BLOCK)) ?? null,
    });
  }

  private tile(storage: Storage): StoredTensor {
    let tile = this.tiles.get(storage);
    if (!tile) {
      if (!STORAGES.includes(storage)) throw new Error(`no storage ${storage}`);
      const { deviation } = this;
      const values = new RandomStream(this.seed, "generated weights").normals(0, DISTINCT).map((x) => x * deviation);
      const { codes, scales } = storeTensor(this.name, storage, values);
      const times = this.length / DISTINCT;
      tile = { codes: repeated(codes, times), scales: scales && repeated(scales, times) };
      this.tiles.set(storage, tile);
    }
    return tile;
  }
}

function repeated<T extends StoredTensor["codes"]>(part: T, times: number): T {
  const whole = new (part.constructor as new (length: number) => T)(part.length * times);
  for (let i = 0; i < times; i++) whole.set(part as never, i * part.length);
  return whole;
}
