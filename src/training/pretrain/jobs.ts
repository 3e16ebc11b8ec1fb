// One pretraining job from data to steps: which pictures, their views, the batches of each step, and the trainer that takes
// them. The command line, the tests and a resumed run all go through here.

import type { FileStore } from "../../base/files.ts";
import { EmbeddedData, GENERATOR_STYLES, STYLES, type Style } from "../../data/embedded.ts";
import { pretrainingWeights } from "../../data/emoji/weights.ts";
import type { PromptItem } from "../../data/prompts.ts";
import { ClipTokenizer } from "../../data/tokenizers/clip.ts";
import { T5Tokenizer } from "../../data/tokenizers/t5.ts";
import type { Gpu } from "../../gpu/device.ts";
import type { Parameters } from "../../nn/parameters.ts";
import type { Target } from "../../tensor/lower.ts";
import type { Session } from "../../tensor/session.ts";
import { PretrainAutoencoder } from "./autoencoder.ts";
import { ClipTrainer } from "./clip.ts";
import {
  contrastiveWeights,
  drawClipBatch,
  drawGeneratorBatch,
  fits,
  PicturePicker,
  type TrainingPicture,
} from "./draws.ts";
import { GeneratorTrainer } from "./generator.ts";
import type { PretrainSettings, TrainingNumbers } from "./recipes.ts";
import type { PretrainLoop } from "./trainer.ts";
import { ClipViews, generatorViews, type Tick } from "./views.ts";
import { Vocabulary } from "./vocabulary.ts";

export const PRETRAIN_PARTS = ["generator", "reward", "judge"] as const;
export type PretrainPart = (typeof PRETRAIN_PARTS)[number];

/** Pictures through the autoencoder at a time. */
const VIEW_BATCH = 8;

/** What all jobs read. */
export interface PretrainData {
  /** Side of the pictures in pixels. */
  size: number;
  /** Items that are trained on, and all of the folder's. */
  items: PromptItem[];
  allItems: readonly PromptItem[];
  vocabulary: Vocabulary;
  pictures(allStyles: boolean): Promise<TrainingPicture[]>;
}

export async function loadPretrainData(
  files: FileStore,
  folders: { data: string; tokenizers: string },
  settings: PretrainSettings,
): Promise<PretrainData> {
  const data = await EmbeddedData.load(files, folders.data);
  const items = data.items.filter((_, i) => i % settings.itemStride === 0);
  const vocabulary = new Vocabulary(
    data.items,
    {
      clip: await ClipTokenizer.load(files, `${folders.tokenizers}/clip/bpe_simple_vocab_16e6.txt.gz`),
      t5: await T5Tokenizer.load(files, `${folders.tokenizers}/t5/tokenizer.json`),
    },
    { clip: settings.clipLength, t5: settings.t5Length },
  );
  return {
    size: data.size,
    items,
    allItems: data.items,
    vocabulary,
    async pictures(allStyles) {
      const out: TrainingPicture[] = [];
      const styles: readonly Style[] = allStyles ? STYLES : GENERATOR_STYLES;
      for (const [item, entry] of items.entries()) {
        for (const style of styles) {
          const planes = await data.picture(entry, style);
          if (planes) out.push({ item, style, planes });
        }
      }
      return out;
    },
  };
}

/** A job that was declared: the session must be opened next, then `initialise` or a checkpoint, then steps. */
export interface PretrainJob {
  part: PretrainPart;
  numbers: TrainingNumbers;
  loop: PretrainLoop;
  /** Trees of parameters by the file that they are saved in. */
  trees: Readonly<Record<string, Parameters>>;
  initialise(): void;
  /** Makes the views of all pictures; before the first step, after the session was opened. */
  prepare(open: (options: { decoder: boolean }) => Promise<PretrainAutoencoder>, tick: Tick): Promise<void>;
  step(t: number): void;
}

/** Declares a job in `session` and traces its step. */
export async function declareJob(
  session: Session,
  part: PretrainPart,
  settings: PretrainSettings,
  data: PretrainData,
): Promise<PretrainJob> {
  return part === "generator"
    ? await generatorJob(session, settings, data)
    : await clipJob(session, part, settings, data);
}

/** The autoencoder at the batch that views are made with. */
export function openViewer(
  files: FileStore,
  gpu: Gpu,
  target: Target,
  path: string,
  settings: PretrainSettings,
  options: { decoder: boolean },
): Promise<PretrainAutoencoder> {
  return PretrainAutoencoder.open(files, gpu, target, path, settings, { batch: VIEW_BATCH, ...options });
}

async function generatorJob(session: Session, settings: PretrainSettings, data: PretrainData): Promise<PretrainJob> {
  const recipe = settings.generator;
  const { items, allItems, vocabulary } = data;
  const pictures = await data.pictures(false);
  const trainer = new GeneratorTrainer(session, settings, {
    clip: vocabulary.clipIds.length,
    t5: vocabulary.t5Ids.length,
  });
  // Ranks are drawn over all items, so that a part of them keeps its weights.
  const weights = pretrainingWeights(
    allItems.map(({ tail }) => tail),
    recipe.ranks,
  ).filter((_, i) => i % settings.itemStride === 0);
  const picker = new PicturePicker(pictures, weights);
  let views: Float32Array[][] | null = null;
  return {
    part: "generator",
    numbers: recipe,
    loop: trainer.loop,
    trees: trainer.parts,
    initialise: () => trainer.initialise(),
    async prepare(open, tick) {
      const autoencoder = await open({ decoder: false });
      try {
        views = await generatorViews(recipe, settings, pictures, autoencoder, tick);
      } finally {
        autoencoder.close();
      }
    },
    step(t) {
      const draws = drawGeneratorBatch(recipe, items, pictures, picker, t);
      trainer.step(
        t,
        draws.map(({ variant, picture, text, sigma }) => ({
          latents: views![variant]![picture]!,
          rows: vocabulary.rows(text),
          sigma,
        })),
      );
    },
  };
}

async function clipJob(
  session: Session,
  part: "reward" | "judge",
  settings: PretrainSettings,
  data: PretrainData,
): Promise<PretrainJob> {
  const recipe = settings[part];
  const { items, vocabulary } = data;
  const pictures = await data.pictures(recipe.allStyles);
  const trainer = new ClipTrainer(session, part, recipe, settings, vocabulary.clipIds.length);
  const picker = new PicturePicker(
    pictures,
    items.map(() => 1),
  );
  let views: ClipViews | null = null;
  return {
    part,
    numbers: recipe,
    loop: trainer.loop,
    trees: { clip: trainer.parameters },
    initialise: () => trainer.initialise(),
    async prepare(open, tick) {
      const autoencoder = await open({ decoder: true });
      try {
        views = await ClipViews.make(recipe, settings, pictures, autoencoder, tick);
      } finally {
        autoencoder.close();
      }
    },
    step(t) {
      const draws = drawClipBatch(recipe, items, pictures, picker, t);
      const weights = contrastiveWeights(fits(draws, items, pictures), draws.length);
      trainer.step(
        t,
        draws.map((draw) => ({ draw, planes: views!.of(draw), rows: vocabulary.rows(draw.text) })),
        weights,
      );
    },
  };
}
