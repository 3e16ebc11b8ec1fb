// Reward models in every form in which they are published: which files are found, which sizes are read from tensors, what is
// refused, what scores are called, and the linear aesthetic head as one vector.

import { describe, expect, it } from "vitest";
import type { LongtailError } from "../../src/base/errors.ts";
import type { RangedSource } from "../../src/base/tensor_source.ts";
import { writeSafetensors } from "../../src/formats/safetensors_write.ts";
import { openClipCheckpoint } from "../../src/models/clip/checkpoint.ts";
import { clipTensors } from "../../src/models/clip/layouts.ts";
import { inferClip } from "../../src/models/clip/sizes.ts";
import { AestheticHead } from "../../src/rewards/aesthetic.ts";
import { hpsVersion, scoreLabel } from "../../src/rewards/labels.ts";
import { MemoryFiles, NodeFiles, OWN_FIXTURES } from "../helpers/files.ts";

const errorOf = (promise: Promise<unknown>) =>
  promise.then(
    () => Promise.reject(new Error("nothing was thrown")),
    (error: LongtailError) => error,
  );

/** A source that has shapes alone: real sizes take no memory. */
function shapesOnly(name: string, shapes: Record<string, readonly number[]>): RangedSource {
  const none = () => Promise.reject(new Error("no values"));
  return {
    name,
    names: () => Object.keys(shapes),
    has: (key) => key in shapes,
    shape: (key) => shapes[key]!,
    dtype: () => "F16",
    load: none,
    loadRange: none,
    loadBytes: none,
    close: () => Promise.resolve(),
  };
}

interface Sizes {
  vision: [width: number, layers: number, patch: number, side: number];
  text: [width: number, layers: number];
  embed: number;
}

function openClipShapes({ vision: [width, layers, patch, side], text: [textWidth, textLayers], embed }: Sizes) {
  const shapes: Record<string, readonly number[]> = {
    logit_scale: [],
    "visual.conv1.weight": [width, 3, patch, patch],
    "visual.positional_embedding": [(side / patch) ** 2 + 1, width],
    "visual.proj": [width, embed],
    positional_embedding: [77, textWidth],
    text_projection: [textWidth, embed],
    "token_embedding.weight": [49408, textWidth],
  };
  const blocks = (prefix: string, count: number, w: number) => {
    for (let i = 0; i < count; i++) {
      shapes[`${prefix}.${i}.ln_1.weight`] = [w];
      shapes[`${prefix}.${i}.mlp.c_fc.weight`] = [4 * w, w];
    }
  };
  blocks("visual.transformer.resblocks", layers, width);
  blocks("transformer.resblocks", textLayers, textWidth);
  return shapes;
}

describe("sizes of weights without a configuration", () => {
  it.each([
    ["HPS_v2.1_compressed.pt", { vision: [1280, 32, 14, 224], text: [1024, 24], embed: 1024 }, 16, 16, "gelu", 0],
    ["ViT-bigG-14.safetensors", { vision: [1664, 48, 14, 224], text: [1280, 32], embed: 1280 }, 16, 20, "gelu", 0],
    ["openai/ViT-L-14.pt", { vision: [1024, 24, 14, 224], text: [768, 12], embed: 768 }, 16, 12, "quick_gelu", 1],
    ["laion/ViT-L-14-336.pt", { vision: [1024, 24, 14, 336], text: [768, 12], embed: 768 }, 16, 12, "gelu", 1],
    ["laion/ViT-B-32.pt", { vision: [768, 12, 32, 224], text: [512, 12], embed: 512 }, 12, 8, "gelu", 1],
  ] as const)("are those of %s", (name, sizes, heads, textHeads, activation, notes) => {
    const found = inferClip(shapesOnly(name, openClipShapes(sizes as unknown as Sizes)));
    const [width, layers, patch, side] = sizes.vision;
    expect(found.config.vision).toMatchObject({
      width,
      layers,
      patch,
      imageSize: side,
      heads,
      inner: 4 * width,
      activation,
    });
    expect(found.config.text).toMatchObject({
      width: sizes.text[0],
      layers: sizes.text[1],
      heads: textHeads,
      positions: 77,
    });
    expect(found.notes).toHaveLength(notes);
  });

  it("are not guessed where no public model has them", () => {
    const shapes = openClipShapes({ vision: [200, 2, 14, 28], text: [64, 1], embed: 32 });
    expect(() => inferClip(shapesOnly("odd.pt", shapes))).toThrow(/E-FILE-142/);
    expect(
      inferClip(shapesOnly("odd.pt", shapes), { vision_config: { num_attention_heads: 8 } }).config.vision.heads,
    ).toBe(8);
  });

  it("refuse a configuration of another model, and towers that are no vision transformer's", () => {
    const shapes = openClipShapes({ vision: [768, 12, 32, 224], text: [512, 12], embed: 512 });
    expect(() =>
      inferClip(shapesOnly("b.pt", shapes), { vision_config: { hidden_size: 1024 } }, "config.json"),
    ).toThrow(/E-FILE-041 config.json: vision_config.hidden_size is 1024, and the tensors say 768/);
    const broken = { ...shapes, "visual.positional_embedding": [49, 768] };
    expect(() => inferClip(shapesOnly("b.pt", broken))).toThrow(/E-FILE-141/);
  });

  it.each([
    ["SigLIP", "vision_model.head.attention.in_proj_weight"],
    ["CoCa", "visual.attn_pool.query"],
    ["ImageReward", "blip.visual_encoder.cls_token"],
    ["a ResNet", "visual.layer1.0.conv1.weight"],
  ])("call %s by its name", (title, name) => {
    const shapes = { ...openClipShapes({ vision: [64, 1, 14, 28], text: [64, 1], embed: 32 }), [name]: [1] };
    expect(() => clipTensors(shapesOnly("x.safetensors", shapes))).toThrow(new RegExp(`E-FILE-140.*${title}`));
  });
});

describe("where a CLIP model lies", () => {
  const fixture = (name: string) => `${OWN_FIXTURES}/clip_hf/${name}`;
  const disk = new NodeFiles();

  it("is a folder of transformers, of open_clip, a folder with one file, or the file", async () => {
    const [config, weights, open] = await Promise.all(
      ["config.json", "weights.safetensors", "weights_openclip.safetensors"].map((name) =>
        disk.readBytes(fixture(name)),
      ),
    );
    const files = new MemoryFiles({
      "pick/config.json": config!,
      "pick/model.safetensors": weights!,
      "pick/preprocessor_config.json": JSON.stringify({ image_mean: [0.5, 0.4, 0.3], image_std: [1, 2, 3] }),
      "alone/HPS_v2.1.safetensors": open!,
      "two/a.safetensors": open!,
      "two/b.safetensors": open!,
    });
    const pick = await openClipCheckpoint(files, "pick");
    expect(pick).toMatchObject({
      layout: "transformers",
      path: "pick/model.safetensors",
      configPath: "pick/config.json",
    });
    expect(pick.config).toMatchObject({ mean: [0.5, 0.4, 0.3], std: [1, 2, 3], vision: { heads: 2, width: 80 } });
    expect(pick.table).toBe("text_model.embeddings.token_embedding.weight");
    await pick.source.close();
    // The fixture's widths are nobody's: what is inferred of a real model is tested above.
    expect((await errorOf(openClipCheckpoint(files, "alone"))).code).toBe("E-FILE-142");
    expect((await errorOf(openClipCheckpoint(files, "two"))).code).toBe("E-FILE-123");
    expect((await errorOf(openClipCheckpoint(files, "none"))).code).toBe("E-FILE-001");
    expect((await errorOf(openClipCheckpoint(files, "none.pt"))).code).toBe("E-FILE-001");
    expect(files.openHandles).toBe(0);
  });
});

describe("labels", () => {
  it.each([
    ["hps/HPS_v2.1_compressed.pt", "2.1", "HPS v2.1"],
    ["HPS_v2_compressed.pt", "2.0", "HPS v2.0"],
    ["models/HPSv2/weights.pt", "2.0", "HPS v2.0"],
    ["HPS_v2_1.pt", "2.1", "HPS v2.1"],
    ["some/reward", null, "HPS of unknown version (reward)"],
  ])("of %s have the version %s", (path, version, label) => {
    expect(hpsVersion(path)).toBe(version);
    expect(scoreLabel("hps", path)).toBe(label);
  });

  it("name the model by its folder where the file has a general name", () => {
    expect(scoreLabel("pickscore", "x/PickScore_v1/model.safetensors")).toBe("PickScore (PickScore_v1)");
    const cached = "cache/hub/models--yuvalkirstain--PickScore_v1/snapshots/0123abcd";
    for (const path of [cached, `${cached}/model.safetensors`])
      expect(scoreLabel("pickscore", path)).toBe("PickScore (PickScore_v1)");
    expect(scoreLabel("hps", "hub/models--xswu--HPSv2/snapshots/0123/HPS_v2.1_compressed.pt")).toBe("HPS v2.1");
    expect(scoreLabel("clip", "models/embedded/judge/")).toBe("CLIP score (judge)");
  });
});

describe("the aesthetic head", () => {
  const linear = (rows: number, columns: number, seed: number) =>
    Float32Array.from({ length: rows * columns }, (_, i) => Math.sin(seed + 1.7 * i));
  const tensor = (name: string, shape: number[], data: Float32Array) => ({ name, dtype: "F32" as const, shape, data });
  const stack = [
    tensor("layers.0.weight", [5, 6], linear(5, 6, 1)),
    tensor("layers.0.bias", [5], linear(5, 1, 2)),
    tensor("layers.2.weight", [4, 5], linear(4, 5, 3)),
    tensor("layers.2.bias", [4], linear(4, 1, 4)),
    tensor("layers.4.weight", [1, 4], linear(1, 4, 5)),
    tensor("layers.4.bias", [1], linear(1, 1, 6)),
  ];

  it("is the stack of its layers", async () => {
    const files = new MemoryFiles();
    await writeSafetensors(files, "head.safetensors", stack);
    const head = await AestheticHead.open(files, "head.safetensors", 6);
    const x = linear(6, 1, 7);
    let values = [...x].map(Number);
    for (let l = 0; l < 6; l += 2) {
      const [rows, columns] = stack[l]!.shape as [number, number];
      values = Array.from({ length: rows }, (_, r) =>
        values.reduce((sum, v, c) => sum + v * stack[l]!.data[r * columns + c]!, stack[l + 1]!.data[r]!),
      );
    }
    expect(head.score(x)).toBeCloseTo(values[0]!, 5);
    expect((await errorOf(AestheticHead.open(files, "head.safetensors", 768))).code).toBe("E-FILE-144");
    expect(files.openHandles).toBe(0);
  });

  it("is refused where it has activations or is something else", async () => {
    const relu = [0, 3, 6].map((n) => tensor(`layers.${n}.weight`, [1, 1], linear(1, 1, n)));
    const files = new MemoryFiles();
    await writeSafetensors(files, "relu.safetensors", relu);
    await writeSafetensors(files, "other.safetensors", stack.slice(0, 2));
    expect((await errorOf(AestheticHead.open(files, "relu.safetensors", 1))).message).toContain("ReLU");
    expect((await errorOf(AestheticHead.open(files, "other.safetensors", 6))).code).toBe("E-FILE-143");
  });
});
