// FLUX.2 klein 4B in its real size, without its weights: the preset for it declares all models and traces every plan, so that
// what a GPU has to hold is known and no value exceeds what its bindings hold.

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import { Flux2Autoencoder, flux2AutoencoderConfig } from "../../src/models/flux2/autoencoder.ts";
import { flux2Config } from "../../src/models/flux2/config.ts";
import { Flux2Transformer } from "../../src/models/flux2/transformer.ts";
import { geometryOf, Pipeline, type StreamOptions } from "../../src/models/pipeline.ts";
import { qwen3Config } from "../../src/models/qwen3/config.ts";
import { Qwen3Encoder } from "../../src/models/qwen3/encoder.ts";
import { Parameters } from "../../src/nn/parameters.ts";
import { availableMemory } from "../../src/platform/environment.ts";
import { loadConfig } from "../../src/runs/config/load.ts";
import type { Config } from "../../src/runs/config/schema.ts";
import { chooseOffload, streamingChange } from "../../src/runs/offload.ts";
import { projectSources } from "../../src/runs/project.ts";
import { buildTrainWorld } from "../../src/runs/train/world.ts";
import { Session } from "../../src/tensor/session.ts";
import { Drawing } from "../../src/training/drawing.ts";
import { PictureEncoder } from "../../src/training/picture_encoder.ts";
import { PromptEncoder } from "../../src/training/prompt_encoder.ts";
import { NodeFiles, OWN_FIXTURES } from "../helpers/files.ts";
import { desktop, GIB, plannedGib } from "../helpers/flux_dev.ts";
import { HeaderFiles } from "../helpers/header_files.ts";

const FOLDER = "FLUX.2-klein-base-4B";
const TRANSFORMER = {
  _class_name: "Flux2Transformer2DModel",
  num_layers: 5,
  num_single_layers: 20,
  num_attention_heads: 24,
  joint_attention_dim: 7680,
  guidance_embeds: false,
};
const QWEN = { model_type: "qwen3", head_dim: 128, num_key_value_heads: 8 };
const VAE = { _class_name: "AutoencoderKLFlux2", sample_size: 1024 };

/** The folder's configurations, and headers with the shapes that they mean. */
function klein(): HeaderFiles {
  const files = new HeaderFiles();
  const session = new Session({ ...desktop, maxBindingBytes: Number.MAX_SAFE_INTEGER });
  const declare = (name: string, file: string, config: object, model: (parameters: Parameters) => unknown) => {
    const parameters = new Parameters(session.pool(name, "weights"));
    model(parameters);
    files.addJson(`${FOLDER}/${name}/config.json`, config);
    files.addWeights(
      `${FOLDER}/${name}/${file}.safetensors`,
      [...parameters.variables].map(([key, variable]) => [key, variable.shape] as const),
    );
  };
  files.addJson(`${FOLDER}/model_index.json`, { _class_name: "Flux2KleinPipeline", is_distilled: false });
  const tokenizer = readFileSync(join(OWN_FIXTURES, "flux2_pipeline/tokenizer.json"), "utf8");
  files.addJson(`${FOLDER}/tokenizer/tokenizer.json`, JSON.parse(tokenizer));
  const stem = "diffusion_pytorch_model";
  declare("transformer", stem, TRANSFORMER, (p) => new Flux2Transformer(p, flux2Config(TRANSFORMER, "")));
  // The file holds all 36 layers; the last nine are not declared.
  declare("text_encoder", "model", QWEN, (p) => new Qwen3Encoder(p, qwen3Config(QWEN, ""), { layers: [36] }));
  const vae = flux2AutoencoderConfig(VAE, "");
  declare("vae", stem, VAE, (p) => new Flux2Autoencoder(p, vae, { encoder: true, decoder: true }));
  return files;
}

describe("FLUX.2 klein 4B in its real size", () => {
  let files: HeaderFiles;
  let config: Config;
  beforeAll(async () => {
    files = klein();
    config = (await loadConfig({ source: "lora-flux2-klein" }, projectSources(new NodeFiles()))).config;
  });

  const open = (session: Session, parts: Record<string, boolean>) =>
    Pipeline.open(files, session, {
      folder: FOLDER,
      vae: "auto",
      tokenizers: "",
      imageSize: 0,
      parts: { transformer: false, text: false, encoder: false, decoder: false, ...parts },
    });

  it("holds 27 layers of the text encoder as the halves of their file and leaves the token table there", async () => {
    const session = new Session(desktop);
    const pipeline = await open(session, { text: true });
    const batch = pipeline.textBatch(16, desktop.maxBindingBytes);
    new PromptEncoder(session, pipeline, batch, false);
    const { variables, total } = session.memory();
    expect([pipeline.textLength, pipeline.config.jointWidth]).toEqual([512, 7680]);
    expect(batch).toBeGreaterThanOrEqual(4);
    // 27 of 36 layers' 3.63 billion parameters, at two bytes.
    expect(variables.weights / GIB).toBeCloseTo(5.08, 1);
    expect(total / GIB).toBeLessThan(7);
  });

  it("encodes pictures of 1024 pixels", async () => {
    const session = new Session(desktop);
    const pipeline = await open(session, { encoder: true });
    const geometry = geometryOf(1024, 1024, "a test");
    new PictureEncoder(session, pipeline, [geometry], 1);
    expect(session.memory().total / GIB).toBeLessThan(3);
  });

  it.each([
    [512, "nf4", 6],
    [1024, "nf4", 7],
    [768, "int8", 8],
    [1024, "bf16", 12],
  ] as const)(
    "trains the preset's LoRA at %i pixels on %s weights in %i GiB, guided samples of 1024 among it",
    async (side, storage, most) => {
      const wanted = { ...config, model: { ...config.model, storage } };
      const geometry = geometryOf(side, side, "a test");
      const world = await buildTrainWorld(files, wanted, desktop, [geometry], 4);
      expect(world.drawing.options).toMatchObject({ batch: 1, classifierFree: 4 });
      expect(plannedGib(`${side} pixels, ${storage}`, world.session.memory().total)).toBeLessThan(most);
    },
  );

  it.each([
    [416, 128],
    [1040, 512],
  ])("draws %i pixels where a binding holds %i MiB, and no larger square", async (side, mebibytes) => {
    const maxBindingBytes = mebibytes * 2 ** 20;
    const draw = async (pixels: number) => {
      const session = new Session({ ...desktop, maxBindingBytes });
      const pipeline = await open(session, { transformer: true, decoder: true });
      const geometry = geometryOf(pixels, pixels, "a test");
      new Drawing(session, pipeline, [], { batch: 1, steps: 4, shift: "auto", guidance: 1, geometry });
    };
    await draw(side);
    await expect(draw(side + 16)).rejects.toMatchObject({ code: "E-MEM-003" });
  });

  it("does not stream its blocks, and says so", async () => {
    const geometries = [geometryOf(512, 512, "a test")];
    const stream = { slots: { double: 2, single: 2 }, hostCacheBytes: 0 };
    await expect(buildTrainWorld(files, config, desktop, geometries, 1, stream)).rejects.toMatchObject({
      code: "E-CFG-048",
    });
    expect(await streamingChange(files, config)).toEqual([]);
    // Above a cap it stays whole, and the cap is what the run is refused by.
    const capped = { ...config, device: { ...config.device, memory_cap: 100 } };
    const build = (wanted: StreamOptions | null) => buildTrainWorld(files, config, desktop, geometries, 1, wanted);
    expect(await chooseOffload(capped, { canStream: true, available: availableMemory }, build)).toEqual({
      stream: null,
      text: null,
    });
  });
});
