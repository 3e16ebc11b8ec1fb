// A scorer from HPS's own kind of file: halves in a torch archive under `state_dict`, alone. Token table on the device or in
// the file, matrices as f32 or as the halves they are: the features are the same. And pictures of any shape are made square
// on the host as they are on the device.

import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { ClipTokenizer } from "../../src/data/tokenizers/clip.ts";
import { type PictureFit, preprocessPictures } from "../../src/rewards/clip_reward.ts";
import { fitPlanes } from "../../src/rewards/fit.ts";
import { ClipScorer } from "../../src/rewards/scorer.ts";
import { Session } from "../../src/tensor/session.ts";
import { targetOf } from "../../src/tensor/target.ts";
import { MemoryFiles, MODELS, NodeFiles } from "../helpers/files.ts";
import { noise, relativeError, runMany, testGpu } from "../helpers/gpu.ts";
import { hpsFile } from "../helpers/hps_file.ts";

describe("a scorer of weights alone", () => {
  it("gives the same text features from the device's table and from the file's, as f32 and as halves", async () => {
    const files = new MemoryFiles({ "HPS_v2.1_compressed.pt": hpsFile() });
    const tokenizer = await ClipTokenizer.load(
      new NodeFiles(),
      join(MODELS, "tokenizers/clip/bpe_simple_vocab_16e6.txt.gz"),
    );
    const gpu = await testGpu();
    const session = new Session(targetOf(gpu));
    try {
      const open = (name: string, sizes: { deviceTableBytes?: number; halvesFromBytes?: number }) =>
        ClipScorer.open(files, session, { name, folder: "HPS_v2.1_compressed.pt", tokenizer, ...sizes });
      const scorers = [
        await open("device", {}),
        await open("file", { deviceTableBytes: 0 }),
        await open("halves", { deviceTableBytes: 0, halvesFromBytes: 0 }),
      ];
      for (const scorer of scorers) scorer.planText(session, 2);
      await session.open(gpu);
      const features: Float32Array[][] = [];
      // "!", "a" and "(" are among the first 600 ids, which the table holds.
      for (const scorer of scorers) {
        await scorer.loadWeights(session);
        features.push(await scorer.textFeatures(session, ["! a", "a ! ( !", "a"]));
      }
      expect(files.openHandles).toBe(0);
      const [device, file, stored] = features as [Float32Array[], Float32Array[], Float32Array[]];
      expect(relativeError(device[0]!, device[1]!)).toBeGreaterThan(1e-3);
      for (const [i, expected] of device.entries()) {
        expect(relativeError(file[i]!, expected)).toBeLessThan(1e-6);
        expect(relativeError(stored[i]!, expected)).toBeLessThan(1e-5);
      }
      const { model } = scorers[2]!;
      expect(model.parameters.tensors.has("token_embedding.weight")).toBe(false);
      expect(model.parameters.bytesByStorage.f16).toBeGreaterThan(0);
      expect(scorers[0]!.factor("hps")).toBe(1);
      expect(scorers[0]!.factor("pickscore")).toBeCloseTo(5, 1);
      expect(scorers[0]!.scale("pickscore")).toBeCloseTo(100, 0);
    } finally {
      session.close();
    }
  });
});

describe("a tower alone", () => {
  it("gives the bits that it gives beside the other, and declares none of the other's weights", async () => {
    const files = new MemoryFiles({ "HPS.pt": hpsFile() });
    const path = join(MODELS, "tokenizers/clip/bpe_simple_vocab_16e6.txt.gz");
    const tokenizer = await ClipTokenizer.load(new NodeFiles(), path);
    const gpu = await testGpu();
    const session = new Session(targetOf(gpu));
    try {
      const open = (name: string, options: object) =>
        ClipScorer.open(files, session, { name, folder: "HPS.pt", ...options });
      const both = await open("both", { tokenizer });
      const text = await open("text", { tokenizer, towers: "text" });
      const picture = await open("picture", { towers: "picture" });
      const pixels = session.data("pixels", [1, 3, 16, 16]);
      const features = [both, picture].map((scorer) => session.data(`features.${scorer.name}`, [1, scorer.width]));
      const plan = session.plan("pictures", (graph) => {
        for (const [i, { model }] of [both, picture].entries())
          graph.assign(features[i]!, model.imageFeatures(graph, graph.read(pixels)));
      });
      for (const scorer of [both, text]) scorer.planText(session, 2);
      expect(() => picture.model.text).toThrow(/without its text tower/);
      expect(() => text.model.vision).toThrow(/without its picture tower/);
      const counts = [both, text, picture].map(({ model }) => model.parameters.count);
      expect(counts[1]! + counts[2]!).toBe(counts[0]);
      await session.open(gpu);
      for (const scorer of [both, text, picture]) await scorer.loadWeights(session);
      session.write(pixels, Float32Array.from(noise(3 * 16 * 16, 5)));
      session.run(plan);
      expect(await session.read(features[1]!)).toEqual(await session.read(features[0]!));
      const texts = ["! a", "a ! ( !", "("];
      const heard: number[] = [];
      const alone = await text.textFeatures(session, texts, (done) => heard.push(done));
      expect(alone).toEqual(await both.textFeatures(session, texts));
      expect(heard).toEqual([2, 3]);
      expect(files.openHandles).toBe(0);
    } finally {
      session.close();
    }
  });
});

describe("pictures that are no squares", () => {
  const side = 28;
  const none = { vision: { imageSize: side }, mean: [0, 0, 0], std: [1, 1, 1] };
  const model = { config: none } as unknown as Parameters<typeof preprocessPictures>[0];
  const sizes: [PictureFit, number, number][] = [
    ["crop", 50, 33],
    ["pad", 50, 33],
    ["pad", 20, 61],
    ["pad", 40, 40],
  ];

  it("are cropped, or padded with black, alike on the host and on the device", async () => {
    const pictures = sizes.map(([, h, w], i) => Float32Array.from(noise(3 * h * w, i + 1), (v) => (v + 1) / 2));
    const results = await runMany(
      sizes.map(([fit, h, w], i) => ({
        inputs: [{ shape: [1, 3, h, w], values: pictures[i]! }],
        body: ([x], _, constant) => [preprocessPictures(model, x!, constant, fit)],
        seeds: [noise(3 * side * side, 9)],
      })),
    );
    for (const [i, [fit, h, w]] of sizes.entries()) {
      const expected = fitPlanes(pictures[i]!, w, h, side, fit);
      expect(relativeError(results[i]!.outputs[0]!, expected), `${fit} ${h}x${w}`).toBeLessThan(1e-6);
      expect(results[i]!.gradients[0]).toHaveLength(3 * h * w);
    }
    // 50 x 33 fits 28 x 18: five black columns on either side.
    const padded = fitPlanes(pictures[1]!, 33, 50, side, "pad");
    const isBlack = (x: number) =>
      Array.from({ length: 3 * side }, (_, y) => padded[y * side + x]!).every((v) => v === 0);
    expect(Array.from({ length: side }, (_, x) => isBlack(x)).indexOf(false)).toBe(5);
    expect(isBlack(22)).toBe(false);
    expect(isBlack(23)).toBe(true);
  });
});
