// A whole FLUX.2 klein in diffusers' folder against Flux2KleinPipeline itself, from prompt and noise to the picture: token ids,
// text states, sigmas, latents; distilled, and base with classifier-free guidance. The reference's transformer was generated
// in Black Forest Labs' layout, which is read as a single file as well.

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { LongtailError } from "../../src/base/errors.ts";
import { empiricalSigmas } from "../../src/diffusion/empirical_shift.ts";
import { inferFlux2Config } from "../../src/models/flux2/bfl_keys.ts";
import { flux2Config } from "../../src/models/flux2/config.ts";
import { shapesOf } from "../../src/models/mapped_source.ts";
import { geometryOf, Pipeline, type PipelineOptions } from "../../src/models/pipeline.ts";
import { readLayout } from "../../src/models/pipeline_layout.ts";
import { HIDDEN_SCORE } from "../../src/models/qwen3/encoder.ts";
import { Session } from "../../src/tensor/session.ts";
import { portableTarget, targetOf } from "../../src/tensor/target.ts";
import { Drawing } from "../../src/training/drawing.ts";
import { PromptEncoder } from "../../src/training/prompt_encoder.ts";
import { Comparison, idRows, largestDifference } from "../helpers/compare.ts";
import { type Dump, suite, tolerance } from "../helpers/dumps.ts";
import { NodeFiles } from "../helpers/files.ts";
import { diffusersTransformer, writeFlux2Folder, writeOriginalTransformer } from "../helpers/flux2_folder.ts";
import { hashed } from "../helpers/generated_weights.ts";
import { testGpu } from "../helpers/gpu.ts";

let root: string;
beforeAll(() => {
  root = mkdtempSync(join(tmpdir(), "longtail-flux2-"));
});
afterAll(() => rmSync(root, { recursive: true, force: true }));

const options = (folder: string): PipelineOptions => ({ folder, vae: "auto", tokenizers: "", imageSize: 0 });

/** Everything that the dump holds, by the classes that commands use. */
async function draw(dump: Dump, folder: string, more: Partial<PipelineOptions> = {}) {
  const { height, width, steps, prompts } = dump.config as Record<string, any>;
  const geometry = geometryOf(width, height, "the dump");
  const gpu = await testGpu();
  const session = new Session(targetOf(gpu));
  try {
    const pipeline = await Pipeline.open(new NodeFiles(), session, { ...options(folder), ...more });
    const { classifierFree } = pipeline.layout;
    // The prompts, then the empty one that guidance leads away from.
    const texts = [...(prompts as string[]), ""];
    const encoder = new PromptEncoder(session, pipeline, 2);
    const drawing = new Drawing(session, pipeline, [], {
      batch: 1,
      steps,
      shift: "auto",
      guidance: 1,
      classifierFree,
      geometry,
    });
    await session.open(gpu);
    await pipeline.loadWeights(session);
    session.poison();
    const embeddings = await encoder.encode(texts);
    const noise = Float32Array.from(hashed("latents", drawing.noise(0, 0).length), (u) => u * 1.7);
    const [drawn] = await drawing.draw([{ ...embeddings[0]!, negative: embeddings.at(-1)!, noise }]);
    return {
      classifierFree,
      tokens: pipeline.tokenize(texts),
      embeddings,
      states: embeddings.slice(0, -1).flatMap(({ states }) => [...states]),
      sigmas: drawing.sigmas,
      latents: await session.read(drawing.latents),
      picture: drawn!.picture,
    };
  } finally {
    session.close();
  }
}

suite("flux2_pipeline", (dump) => {
  const folderOf = async (name: "klein" | "base") => {
    await writeFlux2Folder(join(root, name), dump, { distilled: name === "klein" });
    return join(root, name);
  };

  it.each(["klein", "base"] as const)(
    "gives Flux2KleinPipeline's tokens, states, sigmas, latents and picture from its folder: %s",
    async (name) => {
      const io = await dump.open("io");
      const own = dump.config["_oracle"]["f32_vs_f64"];
      const drawn = await draw(dump, await folderOf(name));
      expect(drawn.classifierFree).toBe(name === "klein" ? 1 : dump.config["guidance"]);
      const { qwen, mask } = drawn.tokens.tokens;
      const ids = await idRows(io, "ids");
      expect([...qwen!]).toEqual(ids.flat());
      expect([...mask!]).toEqual((await idRows(io, "mask")).flat().map((kept) => (kept ? 0 : HIDDEN_SCORE)));
      expect(drawn.embeddings.every(({ pooled }) => pooled.length === 0)).toBe(true);
      const comparison = new Comparison(`flux2_pipeline ${name}`);
      comparison.note("sigmas", name, largestDifference(drawn.sigmas, await io.load(`${name}.sigmas`)), 1e-6);
      const states = tolerance(2e-5, own.klein.states.relative_l2);
      comparison.values("states", name, drawn.states, await io.load("klein.states"), states);
      const steps = await io.load(`${name}.latents`);
      const last = steps.subarray(steps.length - drawn.latents.length);
      comparison.values("latents", name, drawn.latents, last, tolerance(5e-5, own[name].latents.relative_l2));
      const picture = await io.load(`${name}.picture`);
      comparison.values("picture", name, drawn.picture, picture, tolerance(1e-4, own[name].picture.relative_l2));
      comparison.finish();
    },
  );

  it("draws the same with the transformer from a single file in the original layout", async () => {
    const folder = await folderOf("klein");
    const transformer = join(root, "flux2.safetensors");
    await writeOriginalTransformer(transformer, dump);
    const layout = await readLayout(new NodeFiles(), folder, "auto", transformer);
    expect(layout.transformer.foreign).toBe(true);
    // A folder means the file in it, which runs take the identity of.
    const of = await readLayout(new NodeFiles(), folder, `${folder}/vae`, `${folder}/transformer`);
    expect(of.transformer.weights).toBe(join(folder, "transformer/diffusion_pytorch_model.safetensors"));
    const [own, swapped] = [await draw(dump, folder), await draw(dump, folder, { transformer })];
    expect(swapped.picture).toEqual(own.picture);
  });

  it("reads rows of a large token table from the file and gives the same bits", async () => {
    const folder = await folderOf("klein");
    const rows = await draw(dump, folder, { deviceTableBytes: 0 });
    expect(rows.picture).toEqual((await draw(dump, folder)).picture);
  });

  it("keeps the matrices of a large encoder as the halves of its file, which are the same values", async () => {
    await writeFlux2Folder(join(root, "halves"), dump, { dtype: "BF16" });
    const full = await draw(dump, join(root, "halves"));
    const halves = await draw(dump, join(root, "halves"), { halvesFromBytes: 0 });
    const comparison = new Comparison("qwen3 in bf16");
    comparison.values("states", "all", halves.states, full.states, 1e-6);
    comparison.finish();
  });

  it("reads 512 tokens and layers 9, 18 and 27 where nothing says otherwise, and refuses an encoder with fewer", async () => {
    const folder = join(root, "plain");
    await writeFlux2Folder(folder, dump, { plain: true });
    const layout = await readLayout(new NodeFiles(), folder, "auto");
    expect(layout).toMatchObject({ family: "flux2", textLength: 512, imageSize: 1024, classifierFree: 1 });
    expect(layout.text).toMatchObject({ kind: "qwen3", layers: [9, 18, 27] });
    expect(await refusal(folder)).toMatch(/^E-FILE-042 .* 5 layers/);
  });

  it("takes the transformer of FLUX.2 dev, and refuses to encode prompts with its language model", async () => {
    const folder = join(root, "dev");
    await writeFlux2Folder(folder, dump, {
      index: { _class_name: "Flux2Pipeline" },
      configs: { text_encoder: { model_type: "mistral3" } },
      plain: true,
    });
    expect(await refusal(folder)).toMatch(/^E-FILE-043 .*mistral3/);
    expect(await refusal(folder, { parts: { text: false } })).toBe(null);
  });

  it("refuses a transformer of the other family", async () => {
    const folder = join(root, "mixed");
    await writeFlux2Folder(folder, dump, { plain: true, index: { _class_name: "FluxPipeline" } });
    expect(await refusal(folder)).not.toBe(null);
  });

  it("spaces sigmas by the empirical shift unless the scheduler has a static one", async () => {
    const sigmas = async (name: string, scheduler: Record<string, unknown>) => {
      await writeFlux2Folder(join(root, name), dump, { configs: { scheduler } });
      const session = new Session(portableTarget());
      const parts = { text: false };
      const pipeline = await Pipeline.open(new NodeFiles(), session, { ...options(join(root, name)), parts });
      return new Drawing(session, pipeline, [], { batch: 1, steps: 4, shift: "auto", guidance: 1 }).sigmas;
    };
    expect(await sigmas("dynamic", {})).toEqual(empiricalSigmas(4, 16));
    // The static shift by 3 at t = 1/2.
    expect((await sigmas("static", { use_dynamic_shifting: false }))[2]).toBeCloseTo(0.75, 6);
  });

  it("knows the configuration from the shapes of the tensors", () => {
    const shapes = shapesOf(diffusersTransformer(dump));
    expect(inferFlux2Config(shapes)).toEqual(flux2Config(dump.config["configs"]["transformer"], ""));
    shapes.delete("single_stream_modulation.linear.weight");
    expect(inferFlux2Config(shapes)).toBe(null);
  });
});

/** Code and reason why a folder is not opened; null where it is. */
async function refusal(folder: string, more: Partial<PipelineOptions> = {}): Promise<string | null> {
  try {
    await Pipeline.open(new NodeFiles(), new Session(portableTarget()), { ...options(folder), ...more });
  } catch (error) {
    if (error instanceof LongtailError) return `${error.code} ${error.parts.what}`;
    throw error;
  }
  return null;
}
