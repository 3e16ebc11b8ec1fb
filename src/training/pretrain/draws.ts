// What each sample of a pretraining step is: which picture, which of its views, what its caption says, how noisy it is. All
// of it is a function of (seed, step, sample), so a run can be resumed or repeated to the bit.

import { RandomStream } from "../../base/random.ts";
import { caption, QUALITIES, type Quality } from "../../data/embedded.ts";
import type { PromptItem } from "../../data/prompts.ts";
import type { ClipRecipe, GeneratorRecipe } from "./recipes.ts";

/** A picture of the training set. */
export interface TrainingPicture {
  /** Place in the list of items. */
  item: number;
  style: string;
  /** [3 · S · S] in [0, 1]. */
  planes: Float32Array;
}

/** Random numbers that one sample may use. */
const WORDS = 16;

/** Picks pictures with probabilities proportional to the weight of their item, shared evenly by the item's pictures. */
export class PicturePicker {
  private readonly sums: Float64Array;

  /** @param weights one for every item */
  constructor(pictures: readonly { item: number }[], weights: ArrayLike<number>) {
    const counts = new Map<number, number>();
    for (const { item } of pictures) counts.set(item, (counts.get(item) ?? 0) + 1);
    let total = 0;
    this.sums = Float64Array.from(pictures, ({ item }) => (total += weights[item]! / counts.get(item)!));
  }

  /** The picture at `u` in [0, 1) of the cumulative distribution. */
  pick(u: number): number {
    const target = u * this.sums.at(-1)!;
    let low = 0;
    let high = this.sums.length - 1;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.sums[middle]! > target) high = middle;
      else low = middle + 1;
    }
    return low;
  }
}

export interface GeneratorDraw {
  picture: number;
  variant: number;
  text: string;
  sigma: number;
}

/** Mean of the normal number behind half of the sigmas. */
const SIGMA_MEAN = 0.3;

/**
 * The samples of step `step`: the picture itself in half of the draws, else one of its other views; sigma uniform in half
 * of them, else sigmoid(N(0.3, 1)).
 */
export function drawGeneratorBatch(
  recipe: GeneratorRecipe,
  items: readonly PromptItem[],
  pictures: readonly TrainingPicture[],
  picker: PicturePicker,
  step: number,
): GeneratorDraw[] {
  const uniforms = new RandomStream(recipe.seed, "pretrain sample").uniforms(step, recipe.batch * WORDS);
  const normals = new RandomStream(recipe.seed, "pretrain sigma").normals(step, recipe.batch);
  return Array.from({ length: recipe.batch }, (_, i) => {
    const u = (k: number) => uniforms[i * WORDS + k]!;
    const picture = picker.pick(u(0));
    const { item, style } = pictures[picture]!;
    const others = recipe.variants - 1;
    return {
      picture,
      variant: Math.max(0, Math.ceil(u(1) * 2 * others - others)),
      text: caption(items[item]!, {
        item: u(2) < recipe.nameItem,
        category: u(3) < recipe.nameCategory,
        region: u(4) < recipe.nameRegion,
        style: u(5) < recipe.nameStyle ? style : null,
      }),
      sigma: u(6) < 0.5 ? u(7) : 1 / (1 + Math.exp(-(normals[i]! + SIGMA_MEAN))),
    };
  });
}

export interface ClipDraw {
  picture: number;
  /** Place in the pool of views, or in the pool of a quality. */
  quality: number | null;
  variant: number;
  text: string;
  /** What the caption names, for the rule of `fits`. */
  names: { item: boolean; region: boolean; style: boolean; quality: number | null };
  /** Affine map [6] of the step's own augmentation, colour gain and offset of each channel, deviation of noise. */
  map: Float32Array;
  gain: [number, number, number];
  offset: [number, number, number];
  noise: number;
}

const SHARES = { quality: 0.3, item: 0.8, category: 0.4, region: 0.4, style: 0.6, qualityWord: 0.7, tint: 0.3 };
const STEP_MOTION: Motion = { scale: [0.9, 1.05], turn: 0.08, shift: 0.05 };
const CLIP_WORDS = 32;

export interface Motion {
  scale: readonly [number, number];
  /** Largest angle in radians, and largest shift in half pictures. */
  turn: number;
  shift: number;
}

/** The affine map of a random similarity transform from four uniform numbers. */
export function similarity({ scale, turn, shift }: Motion, u: (k: number) => number): Float32Array {
  const between = (k: number, low: number, high: number) => low + u(k) * (high - low);
  const s = 1 / between(0, scale[0], scale[1]);
  const angle = between(1, -turn, turn);
  const [cos, sin] = [s * Math.cos(angle), s * Math.sin(angle)];
  return Float32Array.of(cos, -sin, between(2, -shift, shift), sin, cos, between(3, -shift, shift));
}

/** The samples of step `step` of a CLIP: every item is drawn equally often. */
export function drawClipBatch(
  recipe: ClipRecipe,
  items: readonly PromptItem[],
  pictures: readonly TrainingPicture[],
  picker: PicturePicker,
  step: number,
): ClipDraw[] {
  const uniforms = new RandomStream(recipe.seed, "clip sample").uniforms(step, recipe.batch * CLIP_WORDS);
  return Array.from({ length: recipe.batch }, (_, i) => {
    const u = (k: number) => uniforms[i * CLIP_WORDS + k]!;
    const picture = picker.pick(u(0));
    const { item, style } = pictures[picture]!;
    const quality = recipe.qualities && u(1) < SHARES.quality ? Math.floor(u(2) * QUALITIES.length) : null;
    const names = {
      item: u(5) < SHARES.item,
      region: u(7) < SHARES.region && items[item]!.region !== "",
      style: recipe.styleWords && u(8) < SHARES.style,
      quality: quality !== null && u(9) < SHARES.qualityWord ? quality : null,
    };
    const tint = u(10) < SHARES.tint ? 0.06 : 0;
    const colour = (value: (c: number) => number) => [0, 1, 2].map(value) as [number, number, number];
    return {
      picture,
      quality,
      variant: Math.floor(u(quality === null ? 4 : 3) * (quality === null ? recipe.variants : recipe.qualityVariants)),
      text: caption(items[item]!, {
        item: names.item,
        category: u(6) < SHARES.category,
        region: names.region,
        style: names.style ? style : null,
        quality: names.quality === null ? null : (QUALITIES[names.quality] as Quality),
      }),
      names,
      map: similarity(STEP_MOTION, (k) => u(11 + k)),
      gain: colour((c) => 0.8 + 0.4 * u(15 + c)),
      offset: colour((c) => -tint * u(18 + c)),
      noise: 0.04 * u(21),
    };
  });
}

/**
 * Which captions fit which pictures, [B, B], row = caption: every attribute that the caption names is true of the picture.
 * A caption that does not name its item names the category.
 */
export function fits(
  draws: readonly ClipDraw[],
  items: readonly PromptItem[],
  pictures: readonly TrainingPicture[],
): Uint8Array {
  const size = draws.length;
  const out = new Uint8Array(size * size);
  draws.forEach(({ picture: own, names }, i) => {
    const mine = pictures[own]!;
    draws.forEach(({ picture, quality }, j) => {
      const other = pictures[picture]!;
      const [a, b] = [items[mine.item]!, items[other.item]!];
      const fit =
        (names.item ? mine.item === other.item : a.category === b.category) &&
        (!names.style || mine.style === other.style) &&
        (!names.region || a.region === b.region) &&
        (names.quality === null || names.quality === quality);
      if (fit) out[i * size + j] = 1;
    });
  });
  return out;
}

/**
 * Weights of the logits in the multi-positive InfoNCE loss, [B, B]: the mean of what rows and columns give, each row
 * (column) sharing 1 / B evenly among its fits.
 */
export function contrastiveWeights(fit: Uint8Array, size: number): Float32Array {
  const rows = new Float64Array(size);
  const columns = new Float64Array(size);
  fit.forEach((value, at) => {
    rows[Math.floor(at / size)]! += value;
    columns[at % size]! += value;
  });
  return Float32Array.from(fit, (value, at) => {
    if (value === 0) return 0;
    return (1 / rows[Math.floor(at / size)]! + 1 / columns[at % size]!) / (2 * size);
  });
}
