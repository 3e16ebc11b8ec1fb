// A LoRA on the embedded model learns four of its pictures: from the picture through the autoencoder's encoder and the text
// encoders to a lower validation loss, and pictures that are not square through the same pieces.

import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { EmbeddedData, plainCaption } from "../../src/data/embedded.ts";
import { type Geometry, type Pipeline, TOKEN_PIXELS } from "../../src/models/pipeline.ts";
import { Adapter, chooseAdapters } from "../../src/nn/adapters.ts";
import { Optimizer } from "../../src/optim/optimizer.ts";
import { type Plan, Session } from "../../src/tensor/session.ts";
import { targetOf } from "../../src/tensor/target.ts";
import type { Variable } from "../../src/tensor/variable.ts";
import { Drawing } from "../../src/training/drawing.ts";
import { type FlowSample, FlowTrainer } from "../../src/training/flow/trainer.ts";
import { PromptEncoder } from "../../src/training/prompt_encoder.ts";
import { EMBEDDED, openPipeline } from "../helpers/embedded.ts";
import { NodeFiles } from "../helpers/files.ts";
import { ADAMW, FLOW } from "../helpers/flow.ts";
import { relativeError, testGpu } from "../helpers/gpu.ts";

const PICTURES = 4;
const UPDATES = 10;
const WIDE: Geometry = { rows: 2, columns: 3 };

interface Bench {
  session: Session;
  pipeline: Pipeline;
  trainer: FlowTrainer;
  prompts: PromptEncoder;
  drawing: Drawing;
  encode: { plan: Plan; pictures: Variable; latents: Variable };
  wide: { plan: Plan; pictures: Variable; latents: Variable; decoded: Variable };
}

let bench: Bench;

beforeAll(async () => {
  const gpu = await testGpu();
  const session = new Session(targetOf(gpu));
  const pipeline = await openPipeline(session, { encoder: true });
  const { parameters } = pipeline.transformer;
  const shapes = chooseAdapters(parameters, { targets: "diffusers", rank: 16, alpha: 16 });
  const adapter = new Adapter(session, parameters, shapes);
  const optimizer = new Optimizer(session, [{ pool: adapter.pool }], ADAMW);
  const prompts = new PromptEncoder(session, pipeline, PICTURES);
  const trainer = new FlowTrainer(session, pipeline, optimizer, [pipeline.geometry, WIDE], {
    ...FLOW,
    batch: PICTURES,
    sigma: { sampler: "uniform" },
    schedule: { kind: "constant", rate: 2e-3, warmup: 0, total: UPDATES },
    validationSigmas: [0.3, 0.5, 0.7, 0.9],
  });
  const side = pipeline.imageSize;
  const pictures = session.data("pictures", [PICTURES, 3, side, side]);
  const latents = session.data("latents", [PICTURES, pipeline.imageTokens, pipeline.channels]);
  const encode = session.plan("encode", (graph) => graph.assign(latents, pipeline.encode(graph, graph.read(pictures))));
  const tokens = WIDE.rows * WIDE.columns;
  const wide = {
    pictures: session.data("wide pictures", [1, 3, TOKEN_PIXELS * WIDE.rows, TOKEN_PIXELS * WIDE.columns]),
    latents: session.data("wide latents", [1, tokens, pipeline.channels]),
    decoded: session.data("wide decoded", [1, 3, TOKEN_PIXELS * WIDE.rows, TOKEN_PIXELS * WIDE.columns]),
  };
  const widePlan = session.plan("wide", (graph) => {
    const packed = pipeline.encode(graph, graph.read(wide.pictures));
    graph.assign(wide.latents, packed);
    graph.assign(wide.decoded, pipeline.decode(graph, packed, WIDE));
  });
  const drawing = new Drawing(session, pipeline, [], { batch: 1, steps: 2, shift: 1.5, guidance: 1, geometry: WIDE });
  await session.open(gpu);
  await pipeline.loadWeights(session);
  adapter.initialise(session, 1);
  optimizer.initialise(session);
  optimizer.begin(session);
  bench = {
    session,
    pipeline,
    trainer,
    prompts,
    drawing,
    encode: { plan: encode, pictures, latents },
    wide: { plan: widePlan, ...wide },
  };
}, 120_000);

afterAll(() => bench?.session.close());

async function samples(): Promise<FlowSample[]> {
  const { session, encode, prompts } = bench;
  const data = await EmbeddedData.load(new NodeFiles(), EMBEDDED);
  const items = data.aligned.slice(0, PICTURES);
  const size = 3 * data.size * data.size;
  const all = new Float32Array(PICTURES * size);
  for (const [i, item] of items.entries()) all.set((await data.picture(item, "noto"))!, i * size);
  session.write(encode.pictures, all);
  session.run(encode.plan);
  const latents = await session.read(encode.latents);
  const texts = await prompts.encode(items.map((item) => plainCaption(item, "noto")));
  return texts.map((text, i) => ({
    latents: latents.slice((i * latents.length) / PICTURES, ((i + 1) * latents.length) / PICTURES),
    ...text,
    weight: 1,
  }));
}

describe("a LoRA on the embedded model", () => {
  it("fits four pictures better after ten updates", async () => {
    const { trainer, pipeline } = bench;
    const four = await samples();
    const before = await trainer.validate(four, pipeline.geometry);
    for (let t = 1; t <= UPDATES; t++) {
      const report = await trainer.step(t, four, pipeline.geometry);
      expect(report.finite).toBe(true);
      expect(report.updateRatio).toBeGreaterThan(0);
    }
    const after = await trainer.validate(four, pipeline.geometry);
    expect(after).toBeLessThan(0.9 * before);
  });

  it("trains on, encodes, decodes and draws pictures that are not square", async () => {
    const { session, pipeline, trainer, wide, drawing } = bench;
    // A picture of two halves, so that a mistake of rows for columns shows.
    const [height, width] = wide.pictures.shape.slice(2) as [number, number];
    const picture = Float32Array.from({ length: wide.pictures.size }, (_, i) => (i % width < width / 3 ? 0.1 : 0.9));
    session.write(wide.pictures, picture);
    session.run(wide.plan);
    const decoded = await session.read(wide.decoded);
    expect(relativeError(decoded, picture)).toBeLessThan(0.1);
    const latents = await session.read(wide.latents);
    const [text] = await bench.prompts.encode(["noto icon of a house"]);
    const sample: FlowSample = { latents, ...text!, weight: 1 };
    const four = Array.from({ length: PICTURES }, () => sample);
    expect((await trainer.step(UPDATES + 1, four, WIDE)).finite).toBe(true);
    const request = { ...text!, noise: drawing.noise(3, 0) };
    const [drawn] = await drawing.draw([request]);
    expect(drawn!.picture.length).toBe(3 * height * width);
    expect(drawn!.picture.every((x) => x >= 0 && x <= 1)).toBe(true);
    expect(new Set(drawn!.picture).size).toBeGreaterThan(100);
    expect(pipeline.geometry).toEqual({ rows: 4, columns: 4 });
  });
});
