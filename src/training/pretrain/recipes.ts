// What the models of the embedded experiment are and how they are pretrained: sizes, batch, steps, rates, caption habits.
// `full` is what the shipped files were made with; `short` shows in minutes on two cores that the losses fall; `page` is a
// smaller generator for a browser's first download.

import { EMBEDDED_RANKS, type RankSettings } from "../../data/emoji/weights.ts";

/** Numbers of one optimizer and its schedule. */
export interface TrainingNumbers {
  steps: number;
  batch: number;
  rate: number;
  /** Steps of rising rate. */
  warmup: number;
  /** On matrices and embeddings alone. */
  weightDecay: number;
  beta1: number;
  beta2: number;
  /** Largest norm of the gradients. */
  maxNorm: number;
  /** Decay of the average of the weights, which is what is saved. */
  averageDecay: number;
  seed: number;
}

export interface FluxShape {
  doubleBlocks: number;
  singleBlocks: number;
  heads: number;
  headSize: number;
  ropeAxes: readonly [number, number, number];
}

export interface ClipTextShape {
  width: number;
  layers: number;
  heads: number;
  inner: number;
}

export interface T5Shape {
  width: number;
  layers: number;
  heads: number;
  headSize: number;
  inner: number;
}

export interface GeneratorRecipe extends TrainingNumbers {
  flux: FluxShape;
  clip: ClipTextShape;
  t5: T5Shape;
  /** Micro-batches whose gradients add up to one batch; memory falls with it. */
  accumulation: number;
  /** Encoded views of a picture: the picture itself and its similarity transforms; half of the draws take the first. */
  variants: number;
  /** Shares of captions that name the item (else its category stands there), the category, the region, the style. */
  nameItem: number;
  nameCategory: number;
  nameRegion: number;
  nameStyle: number;
  ranks: RankSettings;
}

export interface ClipShape {
  embed: number;
  patch: number;
  visionWidth: number;
  visionLayers: number;
  visionHeads: number;
  textWidth: number;
  textLayers: number;
  textHeads: number;
}

export interface ClipRecipe extends TrainingNumbers {
  shape: ClipShape;
  /** Style words of captions and quality variants of pictures, which the reward knows and the judge does not. */
  styleWords: boolean;
  qualities: boolean;
  /** Only the generator's styles, or all five. */
  allStyles: boolean;
  /** Views of a picture that are made beforehand; every second one passes through the autoencoder. */
  variants: number;
  qualityVariants: number;
}

export interface PretrainSettings {
  name: string;
  /** Every how-manyth item is used; 1 takes all. */
  itemStride: number;
  imageSize: number;
  clipLength: number;
  t5Length: number;
  /** Model latent = (autoencoder latent - shift) · scale. */
  latentScale: number;
  latentShift: number;
  generator: GeneratorRecipe;
  reward: ClipRecipe;
  judge: ClipRecipe;
}

const GENERATOR: GeneratorRecipe = {
  flux: { doubleBlocks: 2, singleBlocks: 3, heads: 4, headSize: 64, ropeAxes: [16, 24, 24] },
  clip: { width: 128, layers: 2, heads: 2, inner: 512 },
  t5: { width: 128, layers: 2, heads: 4, headSize: 32, inner: 256 },
  steps: 5533,
  batch: 512,
  accumulation: 1,
  rate: 1e-3,
  warmup: 300,
  weightDecay: 0.01,
  beta1: 0.9,
  beta2: 0.99,
  maxNorm: 1,
  averageDecay: 0.9995,
  seed: 0,
  variants: 4,
  nameItem: 0.85,
  nameCategory: 0.35,
  nameRegion: 0.35,
  nameStyle: 0.92,
  ranks: EMBEDDED_RANKS,
};

const CLIP = { batch: 512, rate: 1e-3, warmup: 300, weightDecay: 0.05, beta1: 0.9, beta2: 0.98, maxNorm: 1 };

const REWARD: ClipRecipe = {
  ...CLIP,
  shape: {
    embed: 128,
    patch: 8,
    visionWidth: 192,
    visionLayers: 6,
    visionHeads: 3,
    textWidth: 128,
    textLayers: 3,
    textHeads: 2,
  },
  steps: 1898,
  averageDecay: 0.999,
  seed: 0,
  styleWords: true,
  qualities: true,
  allStyles: false,
  variants: 16,
  qualityVariants: 4,
};

const JUDGE: ClipRecipe = {
  ...CLIP,
  shape: {
    embed: 96,
    patch: 8,
    visionWidth: 160,
    visionLayers: 5,
    visionHeads: 5,
    textWidth: 96,
    textLayers: 2,
    textHeads: 3,
  },
  steps: 2298,
  averageDecay: 0.999,
  seed: 12,
  styleWords: false,
  qualities: false,
  allStyles: true,
  variants: 16,
  qualityVariants: 0,
};

const FULL: PretrainSettings = {
  name: "full",
  itemStride: 1,
  imageSize: 64,
  clipLength: 24,
  t5Length: 20,
  latentScale: 1.22,
  latentShift: 0.04,
  generator: GENERATOR,
  reward: REWARD,
  judge: JUDGE,
};

const SHORT_NUMBERS = { steps: 60, batch: 16, warmup: 10, variants: 2 };

export const RECIPES: Readonly<Record<string, PretrainSettings>> = {
  full: FULL,
  short: {
    ...FULL,
    name: "short",
    itemStride: 9,
    generator: { ...GENERATOR, ...SHORT_NUMBERS, averageDecay: 0.99 },
    reward: { ...REWARD, ...SHORT_NUMBERS, averageDecay: 0.9, qualityVariants: 1 },
    judge: { ...JUDGE, ...SHORT_NUMBERS, averageDecay: 0.9 },
  },
  page: {
    ...FULL,
    name: "page",
    generator: {
      ...GENERATOR,
      flux: { doubleBlocks: 2, singleBlocks: 2, heads: 5, headSize: 32, ropeAxes: [8, 12, 12] },
    },
    reward: {
      ...REWARD,
      shape: {
        ...REWARD.shape,
        embed: 96,
        visionWidth: 128,
        visionLayers: 4,
        visionHeads: 2,
        textWidth: 96,
        textLayers: 2,
        textHeads: 3,
      },
    },
    judge: {
      ...JUDGE,
      shape: {
        ...JUDGE.shape,
        visionWidth: 96,
        visionLayers: 4,
        visionHeads: 3,
        textWidth: 64,
        textHeads: 2,
        embed: 64,
      },
    },
  },
};

export const CHANNELS = 128;

/**
 * Learning rate of step `t`, counted from 1: a linear warm-up times a cosine that ends at a hundredth of the rate. The
 * cosine runs from the first step on, warm-up included.
 */
export function pretrainRate(numbers: Pick<TrainingNumbers, "rate" | "steps" | "warmup">, t: number): number {
  const cosine = 0.5 + 0.49 * Math.cos((Math.PI * (t - 1)) / numbers.steps);
  return numbers.rate * Math.min(1, t / numbers.warmup) * cosine;
}
