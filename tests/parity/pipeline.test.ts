// A whole FLUX.1 pipeline in diffusers' folder against FluxPipeline itself: tokens, text embeddings, sigmas, sampled latents,
// picture, and both ways of the autoencoder. Variant dev has guidance, AutoencoderKL and the resolution-dependent shift,
// schnell AutoencoderTiny, shorter texts and none of them.

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { LongtailError } from "../../src/base/errors.ts";
import { firstStep, noisedLatents } from "../../src/diffusion/image_start.ts";
import { type Geometry, geometryOf, Pipeline } from "../../src/models/pipeline.ts";
import { Session } from "../../src/tensor/session.ts";
import { targetOf } from "../../src/tensor/target.ts";
import { Drawing, type DrawingOptions } from "../../src/training/drawing.ts";
import { PictureEncoder } from "../../src/training/picture_encoder.ts";
import { PromptEncoder } from "../../src/training/prompt_encoder.ts";
import { Comparison, idRows, item, largestDifference } from "../helpers/compare.ts";
import { type Dump, suite, tolerance } from "../helpers/dumps.ts";
import { MODELS, NodeFiles } from "../helpers/files.ts";
import { generated, hashed } from "../helpers/generated_weights.ts";
import { testGpu } from "../helpers/gpu.ts";
import {
  describedPipeline,
  type FolderOptions,
  type Variant,
  writePipelineFolder,
} from "../helpers/pipeline_folder.ts";

const TOKENIZERS = join(MODELS, "tokenizers");

let folder: string;
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "longtail-pipeline-"));
  await writePipelineFolder(join(folder, "dev"), "dev");
  // transformers 5 saves a lone text model without the prefix; both forms are about.
  await writePipelineFolder(join(folder, "schnell"), "schnell", { clipPrefix: false });
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

interface Result {
  tokens: { clip: Uint32Array; ends: Uint32Array; t5: Uint32Array };
  embeddings: { states: Float32Array; pooled: Float32Array }[];
  sigmas: Float32Array;
  latents: Float32Array;
  picture: Float32Array;
  decoded: Float32Array;
  packed: Float32Array;
  /** Latents drawn from the picture and noise. */
  fromPicture: Float32Array;
}

/** Everything that the dump holds, by the classes that commands use. */
async function runPipeline(
  dump: Dump,
  variant: Variant,
  options: { folder?: string; deviceTableBytes?: number; halvesFromBytes?: number } = {},
): Promise<Result> {
  const { height, width, steps, strength = 0.6, guidance, prompts } = dump.config as Record<string, any>;
  const geometry: Geometry = geometryOf(width, height, "the dump");
  const gpu = await testGpu();
  const session = new Session(targetOf(gpu));
  try {
    const pipeline = await Pipeline.open(new NodeFiles(), session, {
      vae: "auto",
      tokenizers: TOKENIZERS,
      imageSize: 0,
      parts: { encoder: true },
      ...options,
      folder: join(folder, options.folder ?? variant),
    });
    const encoder = new PromptEncoder(session, pipeline, 2);
    const pictures = new PictureEncoder(session, pipeline, [geometry], 1);
    const settings: DrawingOptions = { batch: 1, steps, shift: "auto", guidance, geometry };
    const drawing = new Drawing(session, pipeline, [], settings);
    const packed = [1, geometry.rows * geometry.columns, pipeline.channels];
    const start = session.data("start", packed);
    const decoded = session.data("decoded", [1, 3, height, width]);
    const decode = session.plan("decode", (graph) => {
      graph.assign(decoded, pipeline.decode(graph, graph.read(start), geometry));
    });
    await session.open(gpu);
    await pipeline.loadWeights(session);
    session.poison();
    const noise = Float32Array.from(hashed("latents", drawing.noise(0, 0).length), (u) => u * 1.7);
    const embeddings = await encoder.encode(prompts);
    const [drawn] = await drawing.draw([{ ...embeddings[0]!, noise }]);
    session.write(start, noise);
    session.run(decode);
    const latents = await session.read(drawing.latents);
    const picture = Float32Array.from(hashed("picture", 3 * height * width), (u) => (u + 1) / 2);
    const [encoded] = await pictures.encode([picture], geometry);
    settings.first = firstStep(steps, strength);
    const sigma = drawing.sigmas[settings.first]!;
    await drawing.draw([{ ...embeddings[0]!, noise: noisedLatents(encoded!, noise, sigma) }]);
    return {
      tokens: pipeline.tokenize(prompts).tokens as Result["tokens"],
      embeddings,
      sigmas: drawing.sigmas,
      latents,
      picture: drawn!.picture,
      decoded: await session.read(decoded),
      packed: encoded!,
      fromPicture: await session.read(drawing.latents),
    };
  } finally {
    session.close();
  }
}

suite("pipeline", (dump) => {
  it("generates the weights that the reference ran with", () => {
    const name = "transformer/x_embedder.weight";
    expect([...generated(name, [64, 64]).subarray(0, 4)]).toEqual(dump.config[`first values of ${name}`]);
  });

  describe.each(["dev", "schnell"] as const)("variant %s", (variant) => {
    it("gives FluxPipeline's tokens, embeddings, sigmas, latents and picture, and FluxImg2ImgPipeline's latents", async () => {
      const io = await dump.open("io");
      const own = dump.config["_oracle"]["f32_vs_f64"][variant];
      const bound = (table: number, name: string) => tolerance(table, own[name].relative_l2);
      const result = await runPipeline(dump, variant);
      const { length: count } = dump.config["prompts"] as string[];

      const clip = await idRows(io, `${variant}.clip_ids`);
      const t5 = await idRows(io, `${variant}.t5_ids`);
      expect(t5[0]!.length).toBe(dump.config["lengths"][variant]);
      const rows = (all: Uint32Array) =>
        Array.from({ length: count }, (_, i) => [
          ...all.subarray((i * all.length) / count, ((i + 1) * all.length) / count),
        ]);
      expect(rows(result.tokens.clip)).toEqual(clip);
      expect(rows(result.tokens.t5)).toEqual(t5);
      // Padding has the end token's id: the first one is pooled, in an empty text the second token.
      expect([...result.tokens.ends]).toEqual(clip.map((ids) => ids.indexOf(49407)));
      expect(result.tokens.ends[1]).toBe(1);
      expect(result.tokens.ends[2]).toBe(76);

      const comparison = new Comparison(`pipeline ${variant}`);
      const states = await io.load(`${variant}.states`);
      const others = await io.load(`${variant}.other_states`);
      const pooled = await io.load(`${variant}.pooled`);
      const width = describedPipeline(variant).configs["text_encoder_2"]!["d_model"] as number;
      result.embeddings.forEach((embedding, i) => {
        const expected = i === 0 ? states : item(others, i - 1, count - 1);
        const given = i === 0 ? embedding.states : everyFourth(embedding.states, width);
        comparison.values("states", `prompt ${i}`, given, expected, bound(2e-5, "states"));
        comparison.values("pooled", `prompt ${i}`, embedding.pooled, item(pooled, i, count), bound(2e-5, "pooled"));
      });
      comparison.note("sigmas", variant, largestDifference(result.sigmas, await io.load(`${variant}.sigmas`)), 1e-6);
      const values = async (name: "latents" | "packed" | "decoded" | "picture", table: number) =>
        comparison.values(name, variant, result[name], await io.load(`${variant}.${name}`), bound(table, name));
      await values("latents", 5e-5);
      await values("packed", 5e-5);
      await values("picture", 1e-4);
      if (io.has(`${variant}.from_picture`)) {
        const expected = await io.load(`${variant}.from_picture`);
        comparison.values("from a picture", variant, result.fromPicture, expected, bound(5e-5, "from_picture"));
      }
      if (io.has(`${variant}.decoded`)) await values("decoded", 5e-5);
      comparison.finish();
    });
  });

  it("reads rows of a large embedding table from the file and gives the same bits", async () => {
    const small = await runPipeline(dump, "schnell");
    const large = await runPipeline(dump, "schnell", { deviceTableBytes: 0 });
    expect(large.tokens).toEqual(small.tokens);
    expect(large.embeddings).toEqual(small.embeddings);
    expect(large.picture).toEqual(small.picture);
  });

  it("keeps the matrices of a large text encoder as the halves of its file, which are the same values", async () => {
    await writePipelineFolder(join(folder, "halves"), "schnell", { dtype: "BF16" });
    const full = await runPipeline(dump, "schnell", { folder: "halves" });
    const halves = await runPipeline(dump, "schnell", { folder: "halves", halvesFromBytes: 0 });
    const comparison = new Comparison("text encoders in bf16");
    full.embeddings.forEach(({ states, pooled }, i) => {
      comparison.values("states", `prompt ${i}`, halves.embeddings[i]!.states, states, 1e-6);
      comparison.values("pooled", `prompt ${i}`, halves.embeddings[i]!.pooled, pooled, 1e-6);
    });
    comparison.finish();
  });

  it("samples with the shift that FLUX.1 dev has at the size of the picture", async () => {
    const drawn = async (side: number) => {
      const session = new Session(targetOf(await testGpu()));
      const pipeline = await openTransformer(session, join(folder, "dev"));
      const geometry = geometryOf(side, side, "a test");
      return new Drawing(session, pipeline, [], { batch: 1, steps: 4, shift: "auto", guidance: 1, geometry }).sigmas;
    };
    // e^mu / (e^mu + 1/t - 1) at t = 1/2 is the logistic of mu: 0.5 at 256 tokens, 1.15 at 4096.
    expect((await drawn(256))[2]).toBeCloseTo(1 / (1 + Math.exp(-0.5)), 6);
    expect((await drawn(1024))[2]).toBeCloseTo(1 / (1 + Math.exp(-1.15)), 6);
  });

  it("refuses a scheduler and an autoencoder that it would not follow", async () => {
    const refused = async (name: string, variant: Variant, configs: FolderOptions["configs"]) => {
      await writePipelineFolder(join(folder, name), variant, { configs });
      const session = new Session(targetOf(await testGpu()));
      try {
        const pipeline = await openTransformer(session, join(folder, name));
        new Drawing(session, pipeline, [], { batch: 1, steps: 1, shift: "auto", guidance: 1 });
      } catch (error) {
        if (error instanceof LongtailError) return error.code;
        throw error;
      }
      return null;
    };
    expect(await refused("karras", "schnell", { scheduler: { use_karras_sigmas: true } })).toBe("E-FILE-038");
    expect(await refused("ddim", "schnell", { scheduler: { _class_name: "DDIMScheduler" } })).toBe("E-FILE-038");
    expect(await refused("quant", "dev", { vae: { use_quant_conv: true } })).toBe("E-FILE-035");
    expect(await refused("video", "dev", { vae: { _class_name: "AutoencoderKLWan" } })).toBe("E-FILE-035");
  });
});

/** Rows 0, 4, 8 ... of [n, width]. */
function everyFourth(values: Float32Array, width: number): number[] {
  return [...values].filter((_, i) => Math.floor(i / width) % 4 === 0);
}

function openTransformer(session: Session, place: string): Promise<Pipeline> {
  const parts = { text: false, decoder: true };
  return Pipeline.open(new NodeFiles(), session, { folder: place, vae: "auto", tokenizers: "", imageSize: 64, parts });
}
