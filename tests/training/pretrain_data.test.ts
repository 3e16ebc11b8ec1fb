// What pretraining feeds its trainers, without a device: token tables, draws, rates, starting values, changed pictures.

import { join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import { RandomStream } from "../../src/base/random.ts";
import type { PromptItem } from "../../src/data/prompts.ts";
import { Safetensors } from "../../src/formats/safetensors.ts";
import { addNoise, blur, fromBytes, sampleAffine, toBytes, warp } from "../../src/training/pretrain/augment.ts";
import {
  type ClipDraw,
  contrastiveWeights,
  drawClipBatch,
  drawGeneratorBatch,
  fits,
  PicturePicker,
  type TrainingPicture,
} from "../../src/training/pretrain/draws.ts";
import { startingValues } from "../../src/training/pretrain/initial.ts";
import { loadPretrainData, type PretrainData } from "../../src/training/pretrain/jobs.ts";
import { pretrainRate, RECIPES } from "../../src/training/pretrain/recipes.ts";
import { MODELS, NodeFiles } from "../helpers/files.ts";

const files = new NodeFiles();
const full = RECIPES["full"]!;
let data: PretrainData;

beforeAll(async () => {
  data = await loadPretrainData(
    files,
    { data: join(MODELS, "embedded"), tokenizers: join(MODELS, "tokenizers") },
    full,
  );
});

describe("the vocabulary", () => {
  it("is that of the shipped tables: 801 rows for CLIP, 804 for T5", async () => {
    const clip = await Safetensors.open(files, join(MODELS, "embedded/text_encoder/model.safetensors"));
    const t5 = await Safetensors.open(files, join(MODELS, "embedded/text_encoder_2/model.safetensors"));
    const { clipIds, t5Ids } = data.vocabulary;
    expect([...clipIds]).toEqual([...(await clip.readI32("text_model.embeddings.token_embedding.ids"))]);
    expect([...t5Ids]).toEqual([...(await t5.readI32("shared.ids"))]);
    await Promise.all([clip.close(), t5.close()]);
  });

  it("has a row for every token of a caption, and tells where it ends", () => {
    const { clip, end, t5 } = data.vocabulary.rows("Blurry. fluent icon of rice ball. food, Japan");
    expect(clip).toHaveLength(24);
    expect(t5).toHaveLength(20);
    expect(clip.every((row) => row < data.vocabulary.clipIds.length)).toBe(true);
    expect(data.vocabulary.clipIds[clip[end]!]).toBe(49407);
    expect(clip.indexOf(clip[end]!)).toBe(end);
  });
});

describe("the rate", () => {
  it("rises in the warm-up, follows a cosine from the first step on, and ends near a hundredth", () => {
    const numbers = { rate: 1e-3, steps: 1000, warmup: 300 };
    expect(pretrainRate(numbers, 1)).toBeCloseTo((1e-3 / 300) * 0.99, 12);
    expect(pretrainRate(numbers, 150)).toBeCloseTo(5e-4 * (0.5 + 0.49 * Math.cos(Math.PI * 0.149)), 12);
    expect(pretrainRate(numbers, 1000)).toBeCloseTo(1e-5, 7);
  });
});

describe("draws", () => {
  const items = [
    { item: "taco", category: "food", region: "Mexico", tail: true },
    { item: "sushi", category: "food", region: "Japan", tail: true },
    { item: "dog", category: "animal", region: "", tail: false },
  ] as PromptItem[];
  const pictures: TrainingPicture[] = [
    [0, "noto"],
    [0, "twitter"],
    [1, "noto"],
    [2, "noto"],
    [2, "fluent"],
    [2, "twitter"],
  ].map(([item, style]) => ({ item: item as number, style: style as string, planes: new Float32Array(0) }));

  it("take items by weight and an item's pictures evenly", () => {
    const picker = new PicturePicker(pictures, [1, 2, 1]);
    const counts = new Array(6).fill(0);
    for (let i = 0; i < 2400; i++) counts[picker.pick((i + 0.5) / 2400)]++;
    expect(counts).toEqual([300, 300, 1200, 200, 200, 200]);
    expect([picker.pick(0), picker.pick(1 - 2 ** -24)]).toEqual([0, 5]);
  });

  it("of the generator follow the recipe's shares, and are the same whenever they are asked for", () => {
    const recipe = { ...full.generator, batch: 4000 };
    const picker = new PicturePicker(pictures, [1, 1, 1]);
    const draws = drawGeneratorBatch(recipe, items, pictures, picker, 7);
    const share = (test: (d: (typeof draws)[number]) => boolean) => draws.filter(test).length / draws.length;
    expect(share((d) => d.variant === 0)).toBeCloseTo(0.5, 1);
    expect(share((d) => d.variant === 3)).toBeCloseTo(1 / 6, 1);
    expect(share((d) => /taco|sushi|dog/.test(d.text))).toBeCloseTo(0.85, 1);
    expect(share((d) => /^(noto|twitter|fluent) /.test(d.text))).toBeCloseTo(0.92, 1);
    expect(share((d) => d.sigma > 0.5)).toBeCloseTo(0.5 * 0.5 + 0.5 * 0.618, 1);
    expect(draws.every((d) => d.sigma >= 0 && d.sigma <= 1)).toBe(true);
    expect(drawGeneratorBatch(recipe, items, pictures, picker, 7)).toEqual(draws);
    expect(drawGeneratorBatch(recipe, items, pictures, picker, 8)).not.toEqual(draws);
  });

  it("of the judge hold no style and no quality words, of the reward both", () => {
    const picker = new PicturePicker(pictures, [1, 1, 1]);
    const texts = (part: "reward" | "judge") =>
      drawClipBatch({ ...full[part], batch: 500 }, items, pictures, picker, 1).map((d) => d.text);
    expect(texts("judge").every((t) => t.startsWith("icon of "))).toBe(true);
    expect(texts("reward").some((t) => /^Noisy\. (noto|twitter|fluent) icon of /.test(t))).toBe(true);
  });

  it("fit where everything that the caption names is true of the picture", () => {
    const draw = (picture: number, names: Partial<ClipDraw["names"]>, quality: number | null = null) =>
      ({
        picture,
        quality,
        names: { item: true, region: false, style: false, quality: null, ...names },
      }) as ClipDraw;
    const draws = [
      draw(0, {}),
      draw(1, { item: false }),
      draw(2, { item: false, region: true }),
      draw(1, { style: true }),
      draw(0, { quality: 2 }, 2),
    ];
    const fit = fits(draws, items, pictures);
    expect([...fit]).toEqual([
      ...[1, 1, 0, 1, 1],
      ...[1, 1, 1, 1, 1],
      ...[0, 0, 1, 0, 0],
      ...[0, 1, 0, 1, 0],
      ...[0, 0, 0, 0, 1],
    ]);
    const weights = contrastiveWeights(fit, 5);
    // Row 2 has one fit, column 2 two.
    expect(weights[12]).toBeCloseTo((1 + 1 / 2) / 10, 6);
    expect(weights.reduce((a, b) => a + b, 0)).toBeCloseTo(1, 6);
  });
});

describe("starting values", () => {
  it("leave modulations and the last layer at zero, and fill the rest by each layer's rule", () => {
    const shapes = new Map<string, number[]>([
      ["transformer_blocks.0.norm1.linear.weight", [48, 8]],
      ["proj_out.weight", [16, 8]],
      ["single_transformer_blocks.0.proj_out.weight", [100, 200]],
      ["transformer_blocks.0.attn.norm_added_q.weight", [8]],
      ["x_embedder.bias", [8]],
    ]);
    const values = startingValues("flux", shapes, 3);
    const get = (name: string) => values.get(name)!;
    expect(get("transformer_blocks.0.norm1.linear.weight").every((v) => v === 0)).toBe(true);
    expect(get("proj_out.weight").every((v) => v === 0)).toBe(true);
    const xavier = Math.sqrt(6 / 300);
    const inner = get("single_transformer_blocks.0.proj_out.weight");
    expect(Math.max(...inner)).toBeLessThanOrEqual(xavier);
    expect(Math.max(...inner)).toBeGreaterThan(0.99 * xavier);
    expect([...get("transformer_blocks.0.attn.norm_added_q.weight")]).toEqual(new Array(8).fill(1));
    expect(startingValues("flux", shapes, 3)).toEqual(values);
    expect(startingValues("flux", shapes, 4)).not.toEqual(values);
  });

  it("of a bias lie within one over the root of its layer's inputs, and an unknown tensor is refused", () => {
    const shapes = new Map<string, number[]>([
      ["text_model.encoder.layers.0.mlp.fc1.weight", [64, 16]],
      ["text_model.encoder.layers.0.mlp.fc1.bias", [64]],
    ]);
    const bias = startingValues("clip text", shapes, 0).get("text_model.encoder.layers.0.mlp.fc1.bias")!;
    expect(Math.max(...bias.map(Math.abs))).toBeLessThanOrEqual(0.25);
    expect(Math.max(...bias.map(Math.abs))).toBeGreaterThan(0.2);
    expect(() => startingValues("t5", new Map([["other.bias", [4]]]), 0)).toThrow(/other\.bias/);
  });
});

describe("changed pictures", () => {
  const side = 16;
  const picture = Float32Array.from({ length: 3 * side * side }, (_, i) => ((i * 37) % 101) / 101);
  const stream = new RandomStream(1, "test");

  it("stay as they are under the unit map, and white stays white under every change", () => {
    const same = sampleAffine(picture, side, Float32Array.of(1, 0, 0, 0, 1, 0));
    same.forEach((v, i) => expect(v).toBeCloseTo(picture[i]!, 6));
    const white = new Float32Array(picture.length).fill(1);
    for (const changed of [blur(white, side, 1.5), warp(white, side, 0.2, stream, 0)]) {
      changed.forEach((v) => expect(v).toBeCloseTo(1, 6));
    }
  });

  it("keep their mean under blur away from the border and lose contrast", () => {
    const blurred = blur(picture, side, 1.2);
    const spread = (x: Float32Array) => Math.max(...x) - Math.min(...x);
    expect(spread(blurred)).toBeLessThan(0.8 * spread(picture));
  });

  it("move more under a stronger warp, and noise has its deviation", () => {
    const far = (amount: number) =>
      warp(picture, side, amount, stream, 3).reduce((sum, v, i) => sum + Math.abs(v - picture[i]!), 0);
    expect(far(0)).toBeLessThan(1e-3);
    expect(far(0.02)).toBeLessThan(far(0.1));
    const noisy = addNoise(picture, 0.1, stream, 1).map((v, i) => v - picture[i]!);
    const deviation = Math.sqrt(noisy.reduce((sum, v) => sum + v * v, 0) / noisy.length);
    expect(deviation).toBeCloseTo(0.1, 2);
    expect([...fromBytes(toBytes(Float32Array.of(-1, 0.5, 2)))]).toEqual([0, Math.fround(128 / 255), 1]);
  });
});
