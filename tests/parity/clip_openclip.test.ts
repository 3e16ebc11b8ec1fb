// A CLIP model in open_clip's layout against open_clip: features of both towers, cosines, gradients of a sum of cosines to
// pixels and all parameters, and the symmetric contrastive loss (InfoNCE) with its gradients.

import { it } from "vitest";
import { OpenClip, openClipConfig } from "../../src/models/clip/open_clip.ts";
import { matmul } from "../../src/ops/matmul.ts";
import { l2Normalise } from "../../src/ops/norm.ts";
import { add, affine, exp, log, mul, sub } from "../../src/ops/pointwise.ts";
import { sum, sumAll } from "../../src/ops/reduce.ts";
import { rowDot } from "../../src/rewards/clip_reward.ts";
import type { Tensor } from "../../src/tensor/graph.ts";
import { Comparison, firstLargest, idRows, largest } from "../helpers/compare.ts";
import { suite, tolerance } from "../helpers/dumps.ts";
import { type ModelInput, runModel } from "../helpers/models.ts";

/** Σ over the rows of log Σ exp of [B, B]; `limit` is at least the largest entry and keeps the exponentials finite. */
function sumOfLogSums(logits: Tensor, dimension: number, limit: number): Tensor {
  return affine(sumAll(log(sum(exp(affine(logits, 1, -limit)), dimension))), 1, limit * logits.dim(0));
}

suite("clip_openclip", (dump) => {
  const own = dump.config["_oracle"]["f32_vs_f64"];
  const config = openClipConfig(dump.config, dump.folder);

  async function open(): Promise<{
    io: Awaited<ReturnType<typeof dump.open>>;
    inputs: Record<string, ModelInput>;
    count: number;
  }> {
    const io = await dump.open("io");
    const tokens = await idRows(io, "tokens");
    return {
      io,
      count: tokens.length,
      inputs: {
        image: { shape: io.shape("image"), values: await io.load("image"), gradient: true },
        tokens: { shape: [tokens.length, tokens[0]!.length], values: tokens.flat(), dtype: "u32" },
        ends: { shape: [tokens.length], values: tokens.map(firstLargest), dtype: "u32" },
      },
    };
  }

  it("agrees on features, cosines, and gradients to pixels and parameters", async () => {
    const { io, inputs } = await open();
    const run = await runModel({
      build: (parameters) => new OpenClip(parameters, config),
      weights: await dump.open("weights"),
      inputs: { ...inputs, weight: { shape: io.shape("cosine_weight"), values: await io.load("cosine_weight") } },
      trace: (model, t, graph) => {
        const [image, text] = [
          model.vision.forward(graph, t["image"]!),
          model.text.forward(graph, t["tokens"]!, t["ends"]!),
        ];
        const [unitImage, unitText] = [l2Normalise(image), l2Normalise(text)];
        const cosine = rowDot(unitImage, unitText);
        return {
          outputs: {
            image_features: image,
            text_features: text,
            image_normalised: unitImage,
            text_normalised: unitText,
            cosine,
            cosine_matrix: matmul(unitImage, unitText, { transposeB: true }),
          },
          loss: sumAll(mul(cosine, t["weight"]!)),
        };
      },
    });
    const comparison = new Comparison("clip_openclip");
    for (const [name, values] of Object.entries(run.outputs)) {
      comparison.values(
        "values",
        name,
        values,
        await io.load(name),
        tolerance(1e-5, own[name]?.relative_l2 ?? own.cosine.relative_l2),
      );
    }
    comparison.values(
      "gradient to pixels",
      "image",
      run.gradients["input.image"],
      await io.load("grad.image"),
      tolerance(5e-5, own["grad.image"].relative_l2),
    );
    await comparison.gradients(
      "gradients",
      run.gradients,
      await dump.open("grads"),
      tolerance(5e-5, own.grads.worst_relative_l2),
    );
    comparison.finish();
  });

  it("agrees on the contrastive loss and its gradients", async () => {
    const { io, inputs, count } = await open();
    const logitScale = dump.config["_oracle"]["logit_scale"] as number;
    const limit = Math.exp(logitScale) * largest(await io.load("cosine_matrix"));
    const eye = Array.from({ length: count * count }, (_, i) => (i % (count + 1) === 0 ? 1 : 0));
    const weights = await dump.open("weights");
    const run = await runModel({
      build: (parameters) => new OpenClip(parameters, config),
      weights,
      inputs: {
        ...inputs,
        scale: { shape: [1], values: await weights.load("logit_scale"), gradient: true },
        eye: { shape: [count, count], values: eye },
      },
      trace: (model, t, graph) => {
        const cosines = matmul(
          model.imageFeatures(graph, t["image"]!),
          model.textFeatures(graph, t["tokens"]!, t["ends"]!),
          { transposeB: true },
        );
        const logits = mul(cosines, exp(t["scale"]!));
        const both = add(sumOfLogSums(logits, 0, limit), sumOfLogSums(logits, 1, limit));
        const loss = affine(sub(both, affine(sumAll(mul(logits, t["eye"]!)), 2, 0)), 0.5 / count, 0);
        return { outputs: { loss }, loss };
      },
    });
    const comparison = new Comparison("clip_openclip, contrastive");
    comparison.values(
      "loss",
      "loss",
      run.outputs["loss"],
      await io.load("contrastive_loss"),
      tolerance(1e-5, own.contrastive_loss.relative_l2),
    );
    const bound = tolerance(5e-5, own.contrastive_grads.worst_relative_l2);
    await comparison.gradients(
      "gradients",
      { ...run.gradients, logit_scale: run.gradients["input.scale"]! },
      await dump.open("grads_contrastive"),
      bound,
    );
    comparison.finish();
  });
});
