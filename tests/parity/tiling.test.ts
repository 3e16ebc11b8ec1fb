// Autoencoders in tiles: against diffusers' enable_tiling and its blending, through the classes that commands use on an adapter
// of small bindings, and against the same pictures in one piece. LONGTAIL_PARITY=print prints how far tiles move a picture.

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { EmbeddedData } from "../../src/data/embedded.ts";
import { writeSafetensors } from "../../src/formats/safetensors_write.ts";
import { type Geometry, geometryOf, Pipeline } from "../../src/models/pipeline.ts";
import { Autoencoder, type AutoencoderKind } from "../../src/models/vae/autoencoder.ts";
import { TiledDecoder, TiledEncoder } from "../../src/models/vae/tiling.ts";
import { Parameters } from "../../src/nn/parameters.ts";
import { pictureFeatures } from "../../src/rewards/clip_reward.ts";
import { Session } from "../../src/tensor/session.ts";
import { targetOf } from "../../src/tensor/target.ts";
import { Drawing } from "../../src/training/drawing.ts";
import { PictureEncoder } from "../../src/training/picture_encoder.ts";
import { Comparison, item, largest, largestDifference } from "../helpers/compare.ts";
import { suite, tolerance } from "../helpers/dumps.ts";
import { EMBEDDED, openPipeline, openScorer } from "../helpers/embedded.ts";
import { NodeFiles } from "../helpers/files.ts";
import { generated, hashed } from "../helpers/generated_weights.ts";
import { relativeError, testGpu } from "../helpers/gpu.ts";
import { writePipelineFolder } from "../helpers/pipeline_folder.ts";

const TILE: Geometry = { rows: 4, columns: 4 };

let folder: string;
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "longtail-tiling-"));
  await writePipelineFolder(join(folder, "dev"), "dev");
  await writePipelineFolder(join(folder, "schnell"), "schnell");
  await writeAutoencoder("wide kl", "kl", {
    _class_name: "AutoencoderKL",
    block_out_channels: [32, 32, 32, 32],
    norm_num_groups: 8,
    layers_per_block: 1,
    use_quant_conv: false,
    use_post_quant_conv: false,
  });
  await writeAutoencoder("wide tiny", "tiny", {
    _class_name: "AutoencoderTiny",
    encoder_block_out_channels: [32, 32, 32, 32],
    decoder_block_out_channels: [32, 32, 32, 32],
  });
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** An autoencoder of generated weights whose values are larger than those of the small transformer. */
async function writeAutoencoder(name: string, kind: AutoencoderKind, config: Record<string, unknown>): Promise<void> {
  const files = new NodeFiles();
  const parameters = new Parameters((await sessionOf()).pool("weights", "weights"));
  new Autoencoder(parameters, { kind, scale: 1, shift: 0, config }, { encoder: true, decoder: true });
  await files.writeAtomic(join(folder, name, "config.json"), JSON.stringify(config));
  await writeSafetensors(
    files,
    join(folder, name, "diffusion_pytorch_model.safetensors"),
    [...parameters.variables].map(([key, { shape }]) => ({
      name: key,
      dtype: "F32" as const,
      shape: [...shape],
      data: () => generated(`vae/${key}`, shape),
    })),
  );
}

/** A session that sees bindings of at most `limit` bytes. */
async function sessionOf(limit?: number): Promise<Session> {
  const own = targetOf(await testGpu());
  return new Session({ ...own, maxBindingBytes: limit ?? own.maxBindingBytes });
}

const openDev = (session: Session) =>
  Pipeline.open(new NodeFiles(), session, {
    folder: join(folder, "dev"),
    vae: "auto",
    tokenizers: "",
    imageSize: 0,
    parts: { transformer: false, text: false, encoder: true },
  });

/** Latents and a picture in [0, 1] by formula, the same as tests/oracle/tiling.py has them. */
function inputsOf(side: number): { packed: Float32Array; picture: Float32Array } {
  return {
    packed: Float32Array.from(hashed(`latents ${side}`, (side * side) / 4), (u) => u * 1.7),
    picture: Float32Array.from(hashed(`picture ${side}`, 3 * side * side), (u) => (u + 1) / 2),
  };
}

interface Coded {
  decoded: Float32Array;
  packed: Float32Array;
}

/** Decodes `packed` and encodes `picture`, both of `geometry`; a tile of the same size is the picture in one piece. */
async function code(
  open: (session: Session) => Promise<Pipeline>,
  geometry: Geometry,
  tile: Geometry,
  { packed, picture }: { packed: Float32Array; picture: Float32Array },
): Promise<Coded> {
  const session = await sessionOf();
  try {
    const pipeline = await open(session);
    const options = (title: string) => ({ title, geometry, tile, channels: pipeline.channels });
    const decoder = new TiledDecoder(session, options("decode"), (graph, z) => pipeline.decode(graph, z, tile));
    const encoder = new TiledEncoder(session, options("encode"), (graph, x) => pipeline.encode(graph, x));
    await session.open(await testGpu());
    await pipeline.loadWeights(session);
    session.poison();
    return { decoded: await decoder.decode(packed), packed: await encoder.encode(picture) };
  } finally {
    session.close();
  }
}

/** The upper left corner of [planes, side, side, size], every `step`th row of it. */
function corner(values: Float32Array, planes: number, size: number, part: number, step = 1): number[] {
  const side = Math.sqrt(values.length / planes / size);
  return [...values].filter((_, i) => {
    const [x, y] = [Math.floor(i / size) % side, Math.floor(i / size / side) % side];
    return x < part && y < part && y % step === 0;
  });
}

suite("tiling", (dump) => {
  it.each(["whole", "shifted"] as const)("gives what diffusers gives in tiles, case %s", async (name) => {
    const io = await dump.open("io");
    const side = dump.config[name] as number;
    const geometry = geometryOf(side, side, "the dump");
    const result = await code(openDev, geometry, TILE, inputsOf(side));
    // diffusers blends a narrow rest into the end of a whole picture.
    const covered = name === "whole" ? side - 16 : side;
    const own = dump.config["_oracle"].f32_vs_f64;
    const comparison = new Comparison(`tiling ${name}`);
    for (const [key, values] of [
      ["decoded", corner(result.decoded, 3, 1, covered, 2)],
      ["packed", corner(result.packed, 1, 64, covered / 16)],
    ] as const) {
      const bound = tolerance(2e-5, own[`${name}.${key}`].relative_l2);
      comparison.values("relative", key, values, await io.load(`${name}.${key}`), bound);
      comparison.note("largest", key, largestDifference(values, await io.load(`${name}.${key}`)), 1e-4);
    }
    comparison.finish();
  });
});

describe("tiles beside the whole picture", () => {
  const SIDE = 256;
  const GEOMETRY = geometryOf(SIDE, SIDE, "a test");

  /** What nine tiles of half the side change, and four of three quarters; relative L2 below `bounds`. */
  async function compare(
    title: string,
    open: (session: Session) => Promise<Pipeline>,
    inputs: { packed: Float32Array; picture: Float32Array },
    bounds: { decoded: number; packed: number },
  ): Promise<void> {
    const whole = await code(open, GEOMETRY, GEOMETRY, inputs);
    for (const share of [0.5, 0.75]) {
      const side = share * GEOMETRY.rows;
      const tiled = await code(open, GEOMETRY, { rows: side, columns: side }, inputs);
      const comparison = new Comparison(`${title} in tiles of ${share * SIDE}`);
      for (const key of ["decoded", "packed"] as const) comparison.values(key, "", tiled[key], whole[key], bounds[key]);
      const differences = whole.decoded.map((v, i) => Math.abs(v - tiled.decoded[i]!));
      const mean = differences.reduce((a, b) => a + b, 0) / differences.length;
      comparison.note("decoded, mean difference", "", mean, bounds.decoded);
      comparison.note("decoded, largest difference", "", largest(differences), 2);
      comparison.finish();
      // They are not the same: a tile's normalisation sees the tile alone.
      expect(relativeError(tiled.decoded, whole.decoded)).toBeGreaterThan(1e-6);
    }
  }

  it("change a picture of the tiny autoencoder TAEF2 by a few hundredths", async () => {
    const picture = await emojiSheet(SIDE);
    const open = (session: Session) =>
      openPipeline(session, { transformer: false, text: false, encoder: true, decoder: true });
    const { packed } = await code(open, GEOMETRY, GEOMETRY, { packed: new Float32Array(SIDE ** 2 / 2), picture });
    await compare("TAEF2", open, { packed, picture }, { decoded: 0.1, packed: 0.3 });
  });

  it("change a picture of a random AutoencoderKL by a tenth at most", async () => {
    await compare("random AutoencoderKL", openDev, inputsOf(SIDE), { decoded: 0.1, packed: 0.3 });
  });
});

/** A sheet of emoji [3, side, side]. */
async function emojiSheet(side: number): Promise<Float32Array> {
  const data = await EmbeddedData.load(new NodeFiles(), EMBEDDED);
  const { size } = data;
  const sheet = new Float32Array(3 * side * side);
  const count = (side / size) ** 2;
  for (const [i, item] of data.aligned.slice(0, count).entries()) {
    const values = (await data.picture(item, "noto"))!;
    const [top, left] = [Math.floor((i * size) / side) * size, (i * size) % side];
    for (let line = 0; line < 3 * size; line++) {
      const [c, y] = [Math.floor(line / size), line % size];
      sheet.set(values.subarray(line * size, (line + 1) * size), (c * side + top + y) * side + left);
    }
  }
  return sheet;
}

describe("an adapter of small bindings", () => {
  const WIDE = geometryOf(96, 64, "a test");

  /** Draws three pictures, two at a time, and scores them with the embedded judge where that is wished. */
  async function draw(open: (session: Session) => Promise<Pipeline>, limit?: number, scored = false) {
    const session = await sessionOf(limit);
    try {
      const pipeline = await open(session);
      const scorers = scored ? [await openScorer(session, "judge")] : [];
      const options = { batch: 2, steps: 2, shift: 1, guidance: 1, geometry: WIDE };
      const drawing = new Drawing(session, pipeline, scorers, options);
      await session.open(await testGpu());
      await pipeline.loadWeights(session);
      for (const scorer of scorers) await scorer.loadWeights(session);
      session.poison();
      const { jointWidth, pooledWidth } = pipeline.config;
      const text = {
        states: Float32Array.from(hashed("states", pipeline.textLength * jointWidth)),
        pooled: Float32Array.from(hashed("pooled", pooledWidth)),
      };
      const requests = [0, 1, 2].map((i) => ({ ...text, noise: drawing.noise(7, i) }));
      return { drawn: await drawing.draw(requests), plans: session.plans.map((plan) => plan.name) };
    } finally {
      session.close();
    }
  }

  const openWith = (vae: string) => (session: Session) =>
    Pipeline.open(new NodeFiles(), session, {
      folder: join(folder, "schnell"),
      vae: join(folder, vae),
      tokenizers: "",
      imageSize: 0,
      parts: { text: false },
    });

  it.each([
    ["AutoencoderKL", "wide kl", 0.5],
    ["AutoencoderTiny", "wide tiny", 0.5],
  ] as const)("draws pictures with %s in tiles, and they are nearly the same", async (_, vae, bound) => {
    // The transformer's largest value is smaller, 32 channels of 96 × 64 pixels are larger.
    const [open, limit] = [openWith(vae), 750_000];
    const [whole, tiled] = [await draw(open), await draw(open, limit)];
    expect(tiled.drawn.length).toBe(3);
    tiled.drawn.forEach(({ picture }, i) => {
      const error = relativeError(picture, whole.drawn[i]!.picture);
      expect(error).toBeGreaterThan(0);
      expect(error).toBeLessThan(bound);
      expect(Math.min(...picture)).toBeGreaterThanOrEqual(0);
      expect(Math.max(...picture)).toBeLessThanOrEqual(1);
    });
    expect((await draw(open, limit)).drawn).toEqual(tiled.drawn);
  });

  it("scores the joined pictures", async () => {
    const open = (session: Session) => openPipeline(session, { text: false });
    const [whole, tiled] = [await draw(open, undefined, true), await draw(open, 1_300_000, true)];
    expect(whole.plans).toEqual(["draw 4x6 step", "draw 4x6 finish"]);
    expect(tiled.plans).toEqual(["draw 4x6 step", "draw 4x6 finish", "draw 4x6 score"]);
    const features = await featuresOf(tiled.drawn.map(({ picture }) => picture));
    tiled.drawn.forEach((drawn, i) => {
      expect(relativeError(drawn.picture, whole.drawn[i]!.picture)).toBeLessThan(0.1);
      expect(relativeError(drawn.features[0]!, features[i]!)).toBeLessThan(1e-6);
    });
  });

  /** What the judge sees in pictures of the wide geometry. */
  async function featuresOf(pictures: readonly Float32Array[]): Promise<Float32Array[]> {
    const session = await sessionOf();
    try {
      const scorer = await openScorer(session, "judge");
      const count = pictures.length;
      const input = session.data("pictures", [count, 3, 64, 96]);
      const output = session.data("features", [count, scorer.width]);
      session.plan("score", (graph) => {
        const constant = (name: string, values: Float32Array | Uint32Array, shape: readonly number[]) =>
          session.constant(graph, name, values, shape);
        graph.assign(output, pictureFeatures(scorer.model, graph, graph.read(input), constant).features);
      });
      await session.open(await testGpu());
      await scorer.loadWeights(session);
      session.write(input, Float32Array.from(pictures.flatMap((picture) => [...picture])));
      session.run(session.plans[0]!);
      const all = await session.read(output);
      return pictures.map((_, i) => item(all, i, count));
    } finally {
      session.close();
    }
  }

  it("encodes pictures in tiles, and sizes that fit in one piece to the same bits", async () => {
    const small = geometryOf(32, 64, "a test");
    const encode = async (limit?: number) => {
      const session = await sessionOf(limit);
      try {
        const pipeline = await openDev(session);
        const encoder = new PictureEncoder(session, pipeline, [WIDE, small], 1);
        await session.open(await testGpu());
        await pipeline.loadWeights(session);
        session.poison();
        const picture = (n: number) => Float32Array.from(hashed("picture", n), (u) => (u + 1) / 2);
        return {
          wide: (await encoder.encode([picture(3 * 96 * 64)], WIDE))[0]!,
          small: (await encoder.encode([picture(3 * 32 * 64)], small))[0]!,
        };
      } finally {
        session.close();
      }
    };
    const [whole, tiled] = [await encode(), await encode(150_000)];
    expect(tiled.small).toEqual(whole.small);
    expect(relativeError(tiled.wide, whole.wide)).toBeGreaterThan(0);
    expect(relativeError(tiled.wide, whole.wide)).toBeLessThan(0.3);
  });
});
