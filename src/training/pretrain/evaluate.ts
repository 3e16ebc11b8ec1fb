// How good pretrained parts are: whether reward and judge find the caption of a real picture among all items, and whether
// the judge finds it for pictures that the generator draws. Tail and head are told apart.

import { joined } from "../../base/arrays.ts";
import type { FileStore } from "../../base/files.ts";
import { EmbeddedData, GENERATOR_STYLES, plainCaption, type Style } from "../../data/embedded.ts";
import type { PromptItem } from "../../data/prompts.ts";
import { ClipTokenizer } from "../../data/tokenizers/clip.ts";
import type { Gpu } from "../../gpu/device.ts";
import { Pipeline } from "../../models/pipeline.ts";
import { pictureFeatures } from "../../rewards/clip_reward.ts";
import { ClipScorer } from "../../rewards/scorer.ts";
import type { Target } from "../../tensor/lower.ts";
import { type Plan, Session } from "../../tensor/session.ts";
import type { Variable } from "../../tensor/variable.ts";
import { Drawing } from "../drawing.ts";
import { PromptEncoder } from "../prompt_encoder.ts";

/** Means over the pictures of a group of items. */
export interface Retrieval {
  pictures: number;
  top1: number;
  top5: number;
  /** Cosine with the item's own caption. */
  cosine: number;
}

export interface GroupedRetrieval {
  tail: Retrieval;
  head: Retrieval;
}

export interface PretrainEvaluation {
  /** Real pictures of the generator's styles. */
  reward: GroupedRetrieval | null;
  judge: GroupedRetrieval | null;
  /** Drawn pictures, by the judge. */
  generator: GroupedRetrieval | null;
}

export interface EvaluateOptions {
  /** Folder with transformer, text encoders, reward and judge; a part that is not there is not evaluated. */
  folder: string;
  data: string;
  tokenizers: string;
  /** Folder whose judge stands in where `folder` has none. */
  fallback: string;
  /** Every how-manyth item, in the list's order. */
  stride: number;
  /** Draw with the generator, which is most of the work. */
  draw: boolean;
  steps: number;
  shift: number;
  seed: number;
  batch: number;
}

const TEXT_BATCH = 16;
const PICTURE_BATCH = 32;

interface Shown {
  item: PromptItem;
  style: Style;
  features: Float32Array;
}

/** Evaluates the parts of a folder; `tick` hears of pictures done and may throw to stop. */
export async function evaluatePretrained(
  files: FileStore,
  gpu: Gpu,
  target: Target,
  options: EvaluateOptions,
  tick: (name: string, done: number, total: number) => void,
): Promise<PretrainEvaluation> {
  const data = await EmbeddedData.load(files, options.data);
  const tokenizer = await ClipTokenizer.load(files, `${options.tokenizers}/clip/bpe_simple_vocab_16e6.txt.gz`);
  const chosen = data.items.filter((_, i) => i % options.stride === 0);
  const has = (part: string, file: string, folder = options.folder) => files.exists(`${folder}/${part}/${file}`);
  const MODEL = "open_clip_model.safetensors";
  const drawn =
    options.draw &&
    (await has("transformer", "diffusion_pytorch_model.safetensors")) &&
    (await files.exists(`${options.folder}/pipeline.json`));
  const session = new Session(target);
  const scorers: Record<"reward" | "judge", ClipScorer | null> = { reward: null, judge: null };
  const own = { reward: await has("reward", MODEL), judge: await has("judge", MODEL) };
  for (const name of ["reward", "judge"] as const) {
    if (!own[name] && !(name === "judge" && drawn)) continue;
    const folder = `${own[name] ? options.folder : options.fallback}/${name}`;
    scorers[name] = await ClipScorer.open(files, session, { name, folder, tokenizer });
    scorers[name].planText(session, TEXT_BATCH);
  }
  const lookers = (["reward", "judge"] as const).flatMap((name) => {
    const scorer = scorers[name];
    return scorer && own[name] ? [{ name, scorer, ...planFeatures(session, scorer, data.size) }] : [];
  });
  const pipeline = drawn
    ? await Pipeline.open(files, session, {
        folder: options.folder,
        vae: "auto",
        tokenizers: options.tokenizers,
        imageSize: 0,
      })
    : null;
  const encoder = pipeline ? new PromptEncoder(session, pipeline, TEXT_BATCH) : null;
  const { batch, steps, shift, seed } = options;
  const drawing = pipeline
    ? new Drawing(session, pipeline, [scorers.judge!], { batch, steps, shift, guidance: 1 })
    : null;
  await session.open(gpu);
  try {
    for (const scorer of Object.values(scorers)) await scorer?.loadWeights(session);
    await pipeline?.loadWeights(session);
    const captions = data.items.map((item) => plainCaption(item));
    const result: PretrainEvaluation = { reward: null, judge: null, generator: null };
    const bank = new Map<string, Float32Array[]>();
    for (const name of ["reward", "judge"] as const) {
      if (scorers[name]) bank.set(name, await scorers[name].textFeatures(session, captions));
    }
    const numberOf = new Map(data.items.map((item, i) => [item.item, i]));
    for (const { name, plan, pictures, features } of lookers) {
      const shown: Shown[] = [];
      const waiting = chosen.flatMap((item) => GENERATOR_STYLES.map((style) => ({ item, style })));
      for (let at = 0; at < waiting.length; at += PICTURE_BATCH) {
        const part: { item: PromptItem; style: Style; planes: Float32Array }[] = [];
        for (const one of waiting.slice(at, at + PICTURE_BATCH)) {
          const planes = await data.picture(one.item, one.style);
          if (planes) part.push({ ...one, planes });
        }
        if (part.length === 0) continue;
        session.write(pictures, joined(Array.from({ length: PICTURE_BATCH }, (_, i) => (part[i] ?? part[0]!).planes)));
        await session.replay(plan);
        const values = await session.read(features);
        const width = values.length / PICTURE_BATCH;
        part.forEach((one, i) => shown.push({ ...one, features: values.slice(i * width, (i + 1) * width) }));
        tick(name, Math.min(at + PICTURE_BATCH, waiting.length), waiting.length);
      }
      result[name] = grouped(shown, bank.get(name)!, numberOf);
    }
    if (drawing && encoder) {
      const wanted = chosen.flatMap((item) => GENERATOR_STYLES.map((style) => ({ item, style })));
      const prompts = await encoder.encode(wanted.map(({ item, style }) => plainCaption(item, style)));
      const requests = prompts.map((prompt, i) => ({ ...prompt, noise: drawing.noise(seed, i) }));
      const pictures = await drawing.draw(requests, (done) => tick("generator", done, requests.length));
      const shown = wanted.map((one, i) => ({ ...one, features: pictures[i]!.features[0]! }));
      result.generator = grouped(shown, bank.get("judge")!, numberOf);
    }
    return result;
  } finally {
    session.close();
  }
}

function planFeatures(
  session: Session,
  scorer: ClipScorer,
  side: number,
): { plan: Plan; pictures: Variable; features: Variable } {
  const pictures = session.data(`${scorer.name}.pictures`, [PICTURE_BATCH, 3, side, side]);
  const features = session.data(`${scorer.name}.features`, [PICTURE_BATCH, scorer.width]);
  const plan = session.plan(`${scorer.name} pictures`, (graph) => {
    const constant = (name: string, values: Float32Array | Uint32Array, shape: readonly number[]) =>
      session.constant(graph, name, values, shape);
    graph.assign(features, pictureFeatures(scorer.model, graph, graph.read(pictures), constant).features);
  });
  return { plan, pictures, features };
}

function grouped(
  shown: readonly Shown[],
  bank: readonly Float32Array[],
  numberOf: ReadonlyMap<string, number>,
): GroupedRetrieval {
  const scored = shown.map(({ item, features }) => {
    const scores = bank.map((text) => text.reduce((sum, value, i) => sum + value * features[i]!, 0));
    const cosine = scores[numberOf.get(item.item)!]!;
    return { tail: item.tail, cosine, rank: scores.filter((score) => score > cosine).length };
  });
  const of = (tail: boolean): Retrieval => {
    const group = scored.filter((one) => one.tail === tail);
    const mean = (value: (one: (typeof group)[number]) => number) =>
      group.length === 0 ? 0 : group.reduce((sum, one) => sum + value(one), 0) / group.length;
    return {
      pictures: group.length,
      top1: mean(({ rank }) => (rank < 1 ? 1 : 0)),
      top5: mean(({ rank }) => (rank < 5 ? 1 : 0)),
      cosine: mean(({ cosine }) => cosine),
    };
  };
  return { tail: of(true), head: of(false) };
}
