// Which pictures come in which step. Everything is a function of (seed, step): a run that was interrupted goes on exactly
// as if it had not been. Batches hold pictures of one bucket; the pictures of a bucket form an endless sequence of passes,
// each shuffled anew, which is cut into whole batches, so that no picture comes more or less often than its repeats say.

import { RandomStream } from "../../base/random.ts";
import { type Bucket, bucketKey } from "./buckets.ts";
import type { CaptionDraw } from "./captions.ts";
import type { PictureRecord } from "./sets.ts";

export interface PictureDraw extends CaptionDraw {
  record: PictureRecord;
  flip: boolean;
}

export interface PictureBatch {
  bucket: Bucket;
  draws: PictureDraw[];
  /** Number of the pass over the pictures, from 0. */
  epoch: number;
}

export interface OrderOptions {
  seed: number;
  /** Pictures of a step. */
  batch: number;
  /** Share of the draws that are mirrored; 0 by default. */
  flip?: number;
  /** Draws of prior pictures for each draw of a training picture; 1 by default. */
  priorRatio?: number;
}

/** Pictures of one bucket, either prior or not. */
interface Stream {
  bucket: Bucket;
  /** Each picture as often as it is repeated. */
  pictures: PictureRecord[];
  /** Draws of a pass; prior pictures may come more or less than once. */
  rate: number;
  random: RandomStream;
  /** Shuffled passes that were used last: neighbouring steps need the same ones. */
  passes: Map<number, Uint32Array>;
}

/** Words of random numbers that one draw uses. */
const WORDS = 8;

export class PictureOrder {
  /** Steps of the first pass; later passes differ by a step where batches do not divide the pictures. */
  readonly stepsPerEpoch: number;
  readonly #streams: readonly Stream[];
  readonly #options: OrderOptions;
  readonly #epochs: RandomStream;
  readonly #draws: RandomStream;
  #lastEpoch: { epoch: number; order: Uint32Array } | null = null;

  /** @param records training pictures; those without a bucket and those of validation are passed over */
  constructor(records: readonly PictureRecord[], of: ReadonlyMap<string, Bucket>, options: OrderOptions) {
    if (!(Number.isInteger(options.batch) && options.batch >= 1)) throw new RangeError(`batch ${options.batch}`);
    this.#options = options;
    this.#epochs = new RandomStream(options.seed, "batch order");
    this.#draws = new RandomStream(options.seed, "picture draws");
    const streams = new Map<string, Stream>();
    for (const record of [...records].sort((a, b) => (a.id < b.id ? -1 : a.id > b.id ? 1 : 0))) {
      const bucket = of.get(record.id);
      if (bucket === undefined || record.split !== "train") continue;
      const key = `${bucketKey(bucket)}${record.prior ? " prior" : ""}`;
      const random = new RandomStream(options.seed, `pictures of ${key}`);
      const stream: Stream = streams.get(key) ?? { bucket, pictures: [], rate: 0, random, passes: new Map() };
      streams.set(key, stream);
      for (let i = 0; i < record.repeats; i++) stream.pictures.push(record);
    }
    this.#streams = [...streams].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, stream]) => stream);
    const total = (prior: boolean) =>
      this.#streams.filter((s) => s.pictures[0]!.prior === prior).reduce((sum, s) => sum + s.pictures.length, 0);
    const [training, prior] = [total(false), total(true)];
    const priorRate = training === 0 || prior === 0 ? 1 : (training * (options.priorRatio ?? 1)) / prior;
    for (const stream of this.#streams)
      stream.rate = stream.pictures.length * (stream.pictures[0]!.prior ? priorRate : 1);
    if (!(this.draws > 0)) throw new RangeError("there is no training picture");
    this.stepsPerEpoch = Math.max(1, this.#stepsBefore(1));
  }

  /** Draws of a pass, prior pictures included. */
  get draws(): number {
    return this.#streams.reduce((sum, stream) => sum + stream.rate, 0);
  }

  get buckets(): Bucket[] {
    return [...new Map(this.#streams.map((stream) => [bucketKey(stream.bucket), stream.bucket])).values()];
  }

  /** The batch of a step, counted from 0. */
  batchAt(step: number): PictureBatch {
    if (!Number.isSafeInteger(step) || step < 0) throw new RangeError(`step ${step}`);
    const { batch, seed } = this.#options;
    const epoch = this.#epochOf(step);
    // Whole batches that each stream completes in this pass, in a shuffled order.
    const counts = this.#streams.map(
      (stream) => this.#batchesBefore(stream, epoch + 1) - this.#batchesBefore(stream, epoch),
    );
    if (this.#lastEpoch?.epoch !== epoch) {
      const steps = counts.reduce((a, b) => a + b, 0);
      this.#lastEpoch = { epoch, order: this.#epochs.permutation(epoch, steps) };
    }
    const { order } = this.#lastEpoch!;
    let place = order[step - this.#stepsBefore(epoch)]!;
    let which = 0;
    while (place >= counts[which]!) place -= counts[which++]!;
    const stream = this.#streams[which]!;
    const first = (this.#batchesBefore(stream, epoch) + place) * batch;
    const draws = Array.from({ length: batch }, (_, i): PictureDraw => {
      const position = first + i;
      const pass = Math.floor(position / stream.pictures.length);
      const shuffled = shuffledPass(stream, pass);
      const record = stream.pictures[shuffled[position % stream.pictures.length]!]!;
      // Steps above 2^32 do not occur; the words of a draw are its own.
      const number = step * batch + i;
      const random = this.#draws.uniforms(step, WORDS, i * WORDS);
      return {
        record,
        seed,
        number,
        caption: Math.floor(random[0]! * record.captions.length),
        dropCaption: random[1]!,
        flip: random[2]! < (this.#options.flip ?? 0),
      };
    });
    return { bucket: stream.bucket, draws, epoch };
  }

  #batchesBefore(stream: Stream, epoch: number): number {
    return Math.floor((epoch * stream.rate) / this.#options.batch + 1e-9);
  }

  #stepsBefore(epoch: number): number {
    return this.#streams.reduce((sum, stream) => sum + this.#batchesBefore(stream, epoch), 0);
  }

  /** The pass in which a step lies: the last that begins at or before it and is not empty. */
  #epochOf(step: number): number {
    let low = 0;
    let high = 1;
    while (this.#stepsBefore(high) <= step) high *= 2;
    while (high - low > 1) {
      const middle = Math.floor((low + high) / 2);
      if (this.#stepsBefore(middle) <= step) low = middle;
      else high = middle;
    }
    return low;
  }
}

function shuffledPass(stream: Stream, pass: number): Uint32Array {
  const known = stream.passes.get(pass);
  if (known) return known;
  const shuffled = stream.random.permutation(pass, stream.pictures.length);
  if (stream.passes.size >= 2) stream.passes.delete(stream.passes.keys().next().value!);
  stream.passes.set(pass, shuffled);
  return shuffled;
}
