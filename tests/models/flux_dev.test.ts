// FLUX.1 dev in its real size, without its weights: the preset for it declares all models and traces every plan, so that
// what a GPU has to hold is known and no value exceeds what its bindings hold.

import { join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import { memoryLadder } from "../../src/cli/train/ladder.ts";
import { geometryOf, Pipeline, type StreamOptions } from "../../src/models/pipeline.ts";
import { availableMemory } from "../../src/platform/environment.ts";
import { loadConfig } from "../../src/runs/config/load.ts";
import type { Config } from "../../src/runs/config/schema.ts";
import { chooseOffload } from "../../src/runs/offload.ts";
import { projectSources } from "../../src/runs/project.ts";
import type { TrainingData } from "../../src/runs/train/data.ts";
import { buildTrainWorld } from "../../src/runs/train/world.ts";
import { Session } from "../../src/tensor/session.ts";
import { Drawing } from "../../src/training/drawing.ts";
import { PictureEncoder } from "../../src/training/picture_encoder.ts";
import { PromptEncoder } from "../../src/training/prompt_encoder.ts";
import { MODELS, NodeFiles } from "../helpers/files.ts";
import { desktop, FOLDER, fluxDev, GIB, plannedGib, printsPlans } from "../helpers/flux_dev.ts";
import type { HeaderFiles } from "../helpers/header_files.ts";

describe("FLUX.1 dev in its real size", () => {
  let files: HeaderFiles;
  let config: Config;
  beforeAll(async () => {
    files = fluxDev();
    config = (await loadConfig({ source: "lora-flux-dev" }, projectSources(new NodeFiles()))).config;
  });

  const open = (session: Session, parts: Record<string, boolean>) =>
    Pipeline.open(files, session, {
      folder: FOLDER,
      vae: "auto",
      tokenizers: join(MODELS, "tokenizers"),
      imageSize: 0,
      parts: { transformer: false, text: false, encoder: false, decoder: false, ...parts },
    });

  it("takes 512 tokens, 1024 pixels and 11.9 billion parameters from the configurations", async () => {
    const pipeline = await open(new Session(desktop), { transformer: true });
    expect([pipeline.textLength, pipeline.imageSize]).toEqual([512, 1024]);
    expect(pipeline.layout.text).toMatchObject({ kind: "clip-t5", clipLength: 77 });
    expect(pipeline.transformer.parameters.count).toBe(11_901_408_320);
  });

  it("holds the text encoders as the halves of their files and leaves the token tables there", async () => {
    const session = new Session(desktop);
    const pipeline = await open(session, { text: true });
    const batch = pipeline.textBatch(16, desktop.maxBindingBytes);
    new PromptEncoder(session, pipeline, batch, false);
    const { variables, total } = session.memory();
    expect(batch).toBeGreaterThanOrEqual(8);
    // 4.6 billion parameters of T5 without its table at two bytes, and CLIP.
    expect(variables.weights / GIB).toBeGreaterThan(8.5);
    expect(variables.weights / GIB).toBeLessThan(9.2);
    expect(total / GIB).toBeLessThan(11);
  });

  it.each([512, 768, 1024])("encodes pictures of %i pixels in batches whose values fit", async (side) => {
    const session = new Session(desktop);
    const pipeline = await open(session, { encoder: true });
    const geometry = geometryOf(side, side, "a test");
    const batch = pipeline.pictureBatch(8, [geometry], "encoder", desktop.maxBindingBytes);
    new PictureEncoder(session, pipeline, [geometry], batch);
    expect(session.memory().total / GIB).toBeLessThan(3);
  });

  it.each([
    [512, "nf4", 10],
    [768, "nf4", 10],
    [1024, "nf4", 12],
    [768, "int8", 16],
  ] as const)(
    "trains the preset's LoRA at %i pixels on %s weights in %i GiB, samples of 1024 among it",
    async (side, storage, most) => {
      const wanted = { ...config, model: { ...config.model, storage } };
      const geometry = geometryOf(side, side, "a test");
      const world = await buildTrainWorld(files, wanted, desktop, [geometry], 4);
      expect(world.drawing.options.batch).toBe(1);
      expect(world.session.memory().total / GIB).toBeLessThan(most);
    },
  );

  it("takes less memory with two blocks of each kind on the device, as the document's table says", async () => {
    const slots = { double: 2, single: 2 };
    const sizes = printsPlans ? [512, 768, 1024] : [1024];
    for (const side of sizes) {
      for (const storage of printsPlans ? (["nf4", "int8", "bf16"] as const) : (["int8"] as const)) {
        const wanted = { ...config, model: { ...config.model, storage } };
        const geometry = geometryOf(side, side, "a test");
        const plan = async (stream: StreamOptions | null) =>
          (await buildTrainWorld(files, wanted, desktop, [geometry], 4, stream)).session.memory().total;
        const name = `${side} pixels, ${storage}`;
        const whole = plannedGib(`${name}, whole`, await plan(null));
        const streamed = plannedGib(`${name}, streamed`, await plan({ slots, hostCacheBytes: 0 }));
        expect(streamed).toBeLessThan(0.75 * whole);
      }
    }
  });

  it.each([
    [1024, "bf16", 12],
    [512, "nf4", 6],
  ] as const)(
    "streams blocks of %i pixels' training on %s weights where the device may hold %i GiB, and fills them",
    async (side, storage, cap) => {
      const device = { ...config.device, memory_cap: 1024 * cap };
      const wanted = { ...config, device, model: { ...config.model, storage } };
      const geometry = geometryOf(side, side, "a test");
      const build = (stream: StreamOptions | null) => buildTrainWorld(files, wanted, desktop, [geometry], 4, stream);
      const { stream, text } = await chooseOffload(wanted, { canStream: true, available: availableMemory }, build);
      expect(text).toMatch(/because with the whole of it the run takes .* GiB, above device\.memory_cap/);
      const { total } = (await build(stream)).session.memory();
      expect(total / GIB).toBeLessThan(cap);
      expect(total / GIB).toBeGreaterThan(0.93 * cap);
    },
  );

  it("keeps the whole transformer on the device where the run fits, and where streaming is not wanted", async () => {
    const build = () => Promise.reject(new Error("nothing has to be traced"));
    expect(await chooseOffload(config, { canStream: true, available: availableMemory }, build)).toEqual({
      stream: null,
      text: null,
    });
    const capped = (offload: "auto" | "none") => ({ ...config, device: { ...config.device, memory_cap: 9, offload } });
    expect((await chooseOffload(capped("none"), { canStream: true, available: availableMemory }, build)).stream).toBe(
      null,
    );
    expect((await chooseOffload(capped("auto"), { canStream: false, available: availableMemory }, build)).stream).toBe(
      null,
    );
  });

  it("names streaming among the settings that fit a small memory", async () => {
    const geometries = [geometryOf(512, 512, "a test")];
    const data = { geometries, samplePictures: 1 } as unknown as TrainingData;
    const single = { ...config, model: { ...config.model, storage: "nf4" as const } };
    const rungs = await memoryLadder(files, single, desktop, data, 0, 6 * GIB);
    expect(rungs.map(({ change, fits }) => [change.join(" "), fits])).toEqual([
      ["", false],
      ["--device.offload=blocks", true],
    ]);
  });

  const MIB = 2 ** 20;
  const draw = async (side: number, maxBindingBytes: number) => {
    const session = new Session({ ...desktop, maxBindingBytes });
    const pipeline = await open(session, { transformer: true, decoder: true });
    const geometry = geometryOf(side, side, "a test");
    new Drawing(session, pipeline, [], { batch: 1, steps: 2, shift: "auto", guidance: 3.5, geometry });
    return pipeline.tile("decoder", geometry, maxBindingBytes);
  };

  it("decodes in tiles where a binding holds the transformer's values and not the decoder's", async () => {
    expect(await draw(640, 128 * MIB)).toEqual({ rows: 20, columns: 24 });
    expect(await draw(1024, 512 * MIB)).toEqual({ rows: 44, columns: 44 });
    expect(await draw(1024, GIB)).toBe(null);
  });

  it("stops where a binding does not hold the transformer's values", async () => {
    await expect(draw(656, 128 * MIB)).rejects.toMatchObject({ code: "E-MEM-003" });
    await expect(draw(1024, 256 * MIB)).rejects.toMatchObject({ code: "E-MEM-003" });
  });

  it("encodes pictures of 1024 pixels in tiles where a binding holds 128 MiB", async () => {
    const maxBindingBytes = 128 * MIB;
    const session = new Session({ ...desktop, maxBindingBytes });
    const pipeline = await open(session, { encoder: true });
    const geometry = geometryOf(1024, 1024, "a test");
    expect(pipeline.pictureBatch(8, [geometry], "encoder", maxBindingBytes)).toBe(1);
    new PictureEncoder(session, pipeline, [geometry], 1);
    expect(pipeline.tile("encoder", geometry, maxBindingBytes)).toEqual({ rows: 32, columns: 32 });
    expect(session.memory().total / GIB).toBeLessThan(1);
  });
});
