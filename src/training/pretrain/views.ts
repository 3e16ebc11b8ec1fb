// The views of training pictures that are made before the first step: encoded similarity transforms for the generator, and
// for a CLIP pools of pictures as bytes, half of them through the autoencoder, and variants that its quality words mean.

import { QUALITIES } from "../../data/embedded.ts";
import { addNoise, blur, changeStream, fromBytes, moveRandomly, toBytes, warp } from "./augment.ts";
import type { PretrainAutoencoder } from "./autoencoder.ts";
import type { ClipDraw, Motion, TrainingPicture } from "./draws.ts";
import type { ClipRecipe, GeneratorRecipe, PretrainSettings } from "./recipes.ts";

const GENERATOR_MOTION: Motion = { scale: [0.86, 1], turn: 0.15, shift: 0.06 };
const POOL_MOTION: Motion = { scale: [0.8, 1.1], turn: 0.2, shift: 0.12 };
const QUALITY_MOTION: Motion = { scale: [0.88, 1.05], turn: 0.1, shift: 0.06 };
/** Deviations of noise on the latents of pooled views, of clean quality variants, and of "Noisy" ones. */
const LATENT_NOISE = { pool: 0.6, clean: 0.05, noisy: 1.6 };
const PIXEL_NOISE = 0.12;

/** Called between pieces of work; throws to stop. */
export type Tick = (done: number, total: number) => void;

/** Packed latents [variant][picture]; variant 0 is the picture itself. */
export async function generatorViews(
  recipe: GeneratorRecipe,
  settings: PretrainSettings,
  pictures: readonly TrainingPicture[],
  autoencoder: PretrainAutoencoder,
  tick: Tick,
): Promise<Float32Array[][]> {
  const views: Float32Array[][] = [];
  for (let v = 0; v < recipe.variants; v++) {
    const stream = changeStream(recipe.seed, `view ${v}`);
    const moved = pictures.map(({ planes }, i) =>
      v === 0 ? planes : moveRandomly(planes, settings.imageSize, GENERATOR_MOTION, stream, i),
    );
    views.push(
      await inPieces(
        moved,
        (part) => autoencoder.encode(part),
        (done) => tick(v * pictures.length + done, recipe.variants * pictures.length),
      ),
    );
  }
  return views;
}

/** Pictures given to the device between two ticks. */
const PIECE = 32;

async function inPieces<T, R>(
  all: readonly T[],
  work: (part: T[], from: number) => Promise<R[]>,
  after: (done: number) => void,
): Promise<R[]> {
  const out: R[] = [];
  for (let from = 0; from < all.length; from += PIECE) {
    out.push(...(await work(all.slice(from, from + PIECE), from)));
    after(out.length);
  }
  return out;
}

/** Pools of a CLIP's pictures, as bytes. */
export class ClipViews {
  /** [variant][picture] */
  readonly plain: Uint8Array[][];
  /** [quality][variant][picture] */
  readonly qualities: Uint8Array[][][];

  private constructor(plain: Uint8Array[][], qualities: Uint8Array[][][]) {
    this.plain = plain;
    this.qualities = qualities;
  }

  static async make(
    recipe: ClipRecipe,
    settings: PretrainSettings,
    pictures: readonly TrainingPicture[],
    autoencoder: PretrainAutoencoder,
    tick: Tick,
  ): Promise<ClipViews> {
    const { imageSize: side, latentScale } = settings;
    const { seed } = recipe;
    const kinds = recipe.qualities ? QUALITIES.length : 0;
    const total = (recipe.variants + kinds * recipe.qualityVariants) * pictures.length;
    let finished = 0;
    const through = async (views: Float32Array[], strength: number, name: string): Promise<Float32Array[]> => {
      const stream = changeStream(seed, `strength ${name}`);
      const noise = changeStream(seed, `latent ${name}`);
      const strengths = views.map((_, i) => strength * stream.uniform(i));
      return await inPieces(
        views,
        (part, from) => autoencoder.through(part, strengths.slice(from, from + PIECE), noise, from, latentScale),
        (done) => tick(finished + done, total),
      );
    };
    const move = (name: string, motion: Motion): Float32Array[] => {
      const stream = changeStream(seed, `motion ${name}`);
      return pictures.map(({ planes }, i) => moveRandomly(planes, side, motion, stream, i));
    };
    const keep = (views: readonly Float32Array[]): Uint8Array[] => {
      finished += views.length;
      tick(finished, total);
      return views.map(toBytes);
    };
    const plain: Uint8Array[][] = [keep(pictures.map(({ planes }) => planes))];
    for (let v = 1; v < recipe.variants; v++) {
      const moved = move(`view ${v}`, POOL_MOTION);
      plain.push(keep(v % 2 ? await through(moved, LATENT_NOISE.pool, `view ${v}`) : moved));
    }
    const qualities: Uint8Array[][][] = [];
    for (let q = 0; q < kinds; q++) {
      const variants: Uint8Array[][] = [];
      for (let r = 0; r < recipe.qualityVariants; r++) {
        const name = `${QUALITIES[q]} ${r}`;
        const stronger = Math.floor(r / 2);
        let views = move(name, QUALITY_MOTION);
        if (r % 2) views = await through(views, LATENT_NOISE.clean, name);
        const stream = changeStream(seed, `change ${name}`);
        if (QUALITIES[q] === "Blurry") views = views.map((x) => blur(x, side, 1.2 + stronger));
        if (QUALITIES[q] === "Distorted") views = views.map((x, i) => warp(x, side, 0.1 + 0.06 * stronger, stream, i));
        if (QUALITIES[q] === "Noisy") {
          views =
            r % 2
              ? await through(views, LATENT_NOISE.noisy, `${name} again`)
              : views.map((x, i) => addNoise(x, PIXEL_NOISE, stream, i));
        }
        variants.push(keep(views));
      }
      qualities.push(variants);
    }
    return new ClipViews(plain, qualities);
  }

  /** The picture of a draw, [3 · S · S] in [0, 1]. */
  of({ picture, quality, variant }: ClipDraw): Float32Array {
    const pool = quality === null ? this.plain : this.qualities[quality]!;
    return fromBytes(pool[variant]![picture]!);
  }
}
