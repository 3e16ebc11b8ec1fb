// A scorer from HPS's own kind of file: halves in a torch archive under `state_dict`, alone. Token table on the device or in
// the file, matrices as f32 or as the halves they are: the features are the same. And pictures of any shape are made square
// on the host as they are on the device.

import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { f32ToF16 } from "../../src/base/halves.ts";
import { ClipTokenizer } from "../../src/data/tokenizers/clip.ts";
import { type PictureFit, preprocessPictures } from "../../src/rewards/clip_reward.ts";
import { fitPlanes } from "../../src/rewards/fit.ts";
import { ClipScorer } from "../../src/rewards/scorer.ts";
import { Session } from "../../src/tensor/session.ts";
import { targetOf } from "../../src/tensor/target.ts";
import { MemoryFiles, MODELS, NodeFiles } from "../helpers/files.ts";
import { noise, relativeError, runMany, testGpu } from "../helpers/gpu.ts";
import { Ordered, Storage, Tensor, torchZip } from "../helpers/torch_writer.ts";

const ROWS = 600;
const WIDTH = 64;

/** A CLIP of one block a tower as torch.save writes it, every tensor a storage of halves. */
function hpsFile(): Uint8Array {
  const entries = new Map<string, Tensor>();
  const storages = new Map<string, Uint8Array>();
  const add = (name: string, shape: number[], scale = 0.1, offset = 0) => {
    const count = shape.reduce((product, size) => product * size, 1);
    const values = Float32Array.from(noise(count, entries.size + 1), (value) => scale * value + offset);
    const key = String(entries.size);
    const strides = shape.map((_, i) => shape.slice(i + 1).reduce((product, size) => product * size, 1));
    entries.set(name, new Tensor(new Storage(key, "HalfStorage", count), 0, shape, strides));
    storages.set(key, new Uint8Array(f32ToF16(values).buffer));
  };
  const norm = (name: string) => {
    add(`${name}.weight`, [WIDTH], 0.1, 1);
    add(`${name}.bias`, [WIDTH]);
  };
  for (const tower of ["visual.transformer", "transformer"]) {
    const block = `${tower}.resblocks.0`;
    norm(`${block}.ln_1`);
    norm(`${block}.ln_2`);
    for (const [name, out, inner] of [
      ["attn.out_proj", WIDTH, WIDTH],
      ["mlp.c_fc", 4 * WIDTH, WIDTH],
      ["mlp.c_proj", WIDTH, 4 * WIDTH],
    ] as const) {
      add(`${block}.${name}.weight`, [out, inner]);
      add(`${block}.${name}.bias`, [out]);
    }
    add(`${block}.attn.in_proj_weight`, [3 * WIDTH, WIDTH]);
    add(`${block}.attn.in_proj_bias`, [3 * WIDTH]);
  }
  for (const name of ["visual.ln_pre", "visual.ln_post", "ln_final"]) norm(name);
  add("visual.conv1.weight", [WIDTH, 3, 8, 8]);
  add("visual.class_embedding", [WIDTH]);
  add("visual.positional_embedding", [5, WIDTH]);
  add("visual.proj", [WIDTH, 32]);
  add("positional_embedding", [77, WIDTH]);
  add("token_embedding.weight", [ROWS, WIDTH], 1);
  add("text_projection", [WIDTH, 32]);
  add("logit_scale", [], 0, Math.log(100));
  return torchZip(
    new Map<string, Ordered | number>([
      ["epoch", 3],
      ["state_dict", new Ordered(entries)],
    ]),
    storages,
  );
}

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
