// A CLIP model in the layout of transformers' CLIPModel (PickScore's) against transformers: features, scores with the logit
// scale, gradients to pixels. The same weights in open_clip's names and half precision, as HPS v2.1 is stored, are within
// what rounding them costs.

import { expect, it } from "vitest";
import type { RangedSource } from "../../src/base/tensor_source.ts";
import { openWeights } from "../../src/models/checkpoint_files.ts";
import { openClipCheckpoint } from "../../src/models/clip/checkpoint.ts";
import { clipTensors } from "../../src/models/clip/layouts.ts";
import { OpenClip, type OpenClipConfig } from "../../src/models/clip/open_clip.ts";
import { inferClip } from "../../src/models/clip/sizes.ts";
import { affine, mul } from "../../src/ops/pointwise.ts";
import { sumAll } from "../../src/ops/reduce.ts";
import { rowDot } from "../../src/rewards/clip_reward.ts";
import { Comparison, firstLargest, idRows } from "../helpers/compare.ts";
import { type Dump, suite, tolerance } from "../helpers/dumps.ts";
import { NodeFiles } from "../helpers/files.ts";
import { relativeError } from "../helpers/gpu.ts";
import { runModel } from "../helpers/models.ts";

async function run(dump: Dump, source: RangedSource, config: OpenClipConfig) {
  const io = await dump.open("io");
  const tokens = await idRows(io, "input_ids");
  const scale = Math.exp((await source.load("logit_scale"))[0]!);
  return runModel({
    build: (parameters) => new OpenClip(parameters, config),
    weights: source,
    inputs: {
      pixel_values: { shape: io.shape("pixel_values"), values: await io.load("pixel_values"), gradient: true },
      tokens: { shape: [tokens.length, tokens[0]!.length], values: tokens.flat(), dtype: "u32" },
      ends: { shape: [tokens.length], values: tokens.map(firstLargest), dtype: "u32" },
      weight: { shape: io.shape("score_weight"), values: await io.load("score_weight") },
    },
    trace: (model, t, graph) => {
      const [pictures, ends] = [t["pixel_values"]!, t["ends"]!];
      const unit = [model.imageFeatures(graph, pictures), model.textFeatures(graph, t["tokens"]!, ends)] as const;
      const score = affine(rowDot(...unit), scale, 0);
      return {
        outputs: {
          image_features: model.vision.forward(graph, pictures),
          text_features: model.text.forward(graph, t["tokens"]!, ends),
          score,
        },
        loss: sumAll(mul(score, t["weight"]!)),
      };
    },
  });
}

suite("clip_hf", (dump) => {
  const own = dump.config["_oracle"]["f32_vs_f64"];
  const files = new NodeFiles();

  it("agrees on features, scores and gradients to pixels", async () => {
    const { source, config, layout, notes } = await openClipCheckpoint(files, dump.path("weights.safetensors"));
    expect(layout).toBe("transformers");
    expect(notes).toEqual([]);
    const io = await dump.open("io");
    const { outputs, gradients } = await run(dump, source, config);
    await source.close();
    const comparison = new Comparison("clip_hf");
    for (const [name, values] of Object.entries(outputs))
      comparison.values("values", name, values, await io.load(name), tolerance(1e-5, own[name]?.relative_l2));
    const expected = await io.load("grad.pixel_values");
    const bound = tolerance(5e-5, own["grad.pixel_values"].relative_l2);
    comparison.values("gradient to pixels", "pixel_values", gradients["input.pixel_values"], expected, bound);
    comparison.finish();
  });

  it("reads the same model from open_clip's names in half precision", async () => {
    const file = await openWeights(files, dump.path("weights_openclip.safetensors"));
    const { source, layout } = clipTensors(file);
    expect(layout).toBe("open_clip");
    const { config } = inferClip(source, dump.config);
    const io = await dump.open("io");
    const { outputs } = await run(dump, source, config);
    // Rounding weights to 11 bits moves them by 2.8e-4 of their size; what comes out moves by as much.
    for (const name of ["image_features", "text_features", "score"])
      expect(relativeError(outputs[name]!, await io.load(name)), name).toBeLessThan(2e-3);

    // Against the same rounded weights in the other layout there is nothing but rounding of sums.
    const original = clipTensors(await openWeights(files, dump.path("weights.safetensors"))).source;
    for (const name of source.names()) {
      expect(original.shape(name), name).toEqual(source.shape(name));
      const [stored, rounded] = [await source.load(name), await original.load(name)];
      expect(stored, name).toEqual(new Float32Array(new Float16Array(rounded)));
    }
    await original.close();
    await source.close();
  });
});
