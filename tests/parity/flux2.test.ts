// FLUX.2 against diffusers' Flux2Transformer2DModel: sinusoids, positions, packing, conditioning vector, every block, output,
// all gradients, the variant without guidance, and the empirical shift.

import { expect, it } from "vitest";
import { empiricalShiftExponent } from "../../src/diffusion/empirical_shift.ts";
import { ropeTables, sinusoids } from "../../src/models/flux/embeddings.ts";
import { flux2Config } from "../../src/models/flux2/config.ts";
import { positionIds, referenceIds } from "../../src/models/flux2/embeddings.ts";
import { Flux2Transformer } from "../../src/models/flux2/transformer.ts";
import { packLatents, unpackLatents } from "../../src/models/vae/packing.ts";
import { add, affine, mul, square } from "../../src/ops/pointwise.ts";
import { meanAll } from "../../src/ops/reduce.ts";
import { concat } from "../../src/ops/slab.ts";
import type { Tensor } from "../../src/tensor/graph.ts";
import { Comparison } from "../helpers/compare.ts";
import { type Dump, suite, tolerance } from "../helpers/dumps.ts";
import { relativeError, runOps } from "../helpers/gpu.ts";
import { runModel } from "../helpers/models.ts";
import { frequenciesOf } from "../helpers/sinusoids.ts";

interface Run {
  guidance?: boolean;
  checkpoint?: boolean;
  fuse?: boolean;
  loss?: boolean;
}

async function runFlux2(dump: Dump, options: Run = {}) {
  const { guidance: guided = dump.config["guidance_embeds"] as boolean } = options;
  const config = flux2Config({ ...dump.config, guidance_embeds: guided }, dump.folder);
  const io = await dump.open("io");
  const shape = (name: string) => io.shape(name);
  const [rows, columns] = dump.config["_oracle"]["grid"] as [number, number];
  const ids = positionIds(dump.config["_oracle"]["text_tokens"], rows, columns);
  const { cosine, sine } = ropeTables(ids, config.ropeAxes, config.ropeTheta);
  const batch = shape("hidden_states")[0]!;
  const frequencies = await frequenciesOf(dump);
  const table = async (name: string) => ({
    shape: [batch, 256],
    values: sinusoids([...(await io.load(name))], frequencies),
  });
  const input = async (name: string, gradient = false) => ({
    shape: shape(name),
    values: await io.load(name),
    gradient,
  });
  const run = await runModel({
    build: (parameters) => new Flux2Transformer(parameters, config),
    weights: await dump.open("weights"),
    inputs: {
      latents: await input("hidden_states", true),
      states: await input("encoder_hidden_states", true),
      time: await table("timestep"),
      ...(config.guidance ? { guidance: await table("guidance") } : {}),
      cosine: { shape: [ids.length, config.headSize / 2], values: cosine },
      sine: { shape: [ids.length, config.headSize / 2], values: sine },
      weight: await input("loss_weight"),
    },
    trace: (model, t, graph) => {
      const { output, vector, blocks } = model.forward(graph, t as never, { checkpoint: options.checkpoint });
      const outputs: Record<string, Tensor> = { output, vec: vector };
      for (const { name, image, text } of blocks) {
        if (name.startsWith("single")) outputs[name] = concat([text, image], 1);
        else Object.assign(outputs, { [`${name}.img`]: image, [`${name}.txt`]: text });
      }
      const loss = add(meanAll(mul(output, t["weight"]!)), affine(meanAll(square(output)), 0.5, 0));
      return { outputs: { ...outputs, loss }, ...(options.loss === false ? {} : { loss }) };
    },
    fuse: options.fuse,
  });
  return { run, io };
}

const rowsOf = (values: Float32Array): number[][] =>
  Array.from({ length: values.length / 4 }, (_, i) => [...values.subarray(4 * i, 4 * i + 4)]);

suite("flux2", (dump) => {
  const own = dump.config["_oracle"]["f32_vs_f64"];
  const [rows, columns] = dump.config["_oracle"]["grid"] as [number, number];

  it("makes the same sinusoids as the float32 reference", async () => {
    const io = await dump.open("io");
    const frequencies = await frequenciesOf(dump);
    for (const name of ["timestep", "guidance"]) {
      const expected = await io.load(`sinusoid.${name}`);
      expect(relativeError(sinusoids([...(await io.load(name))]), expected), name).toBeLessThan(2e-5);
      expect(relativeError(sinusoids([...(await io.load(name))], frequencies), expected), name).toBeLessThan(1e-6);
    }
  });

  it("places text, picture and reference pictures at the same four coordinates", async () => {
    const io = await dump.open("io");
    const text = rowsOf(await io.load("txt_ids"));
    expect(positionIds(text.length, rows, columns)).toEqual([...text, ...rowsOf(await io.load("img_ids"))]);
    const references = [
      { rows, columns },
      { rows: rows - 1, columns },
    ];
    expect(referenceIds(references)).toEqual(rowsOf(await io.load("ids.two_references")));
  });

  it("packs latents with the channels in the order channel, row, column", async () => {
    const io = await dump.open("io");
    const packed = { shape: io.shape("hidden_states"), values: await io.load("hidden_states") };
    const latent = { shape: io.shape("latent"), values: await io.load("latent") };
    const result = await runOps([latent, packed], ([z, tokens]) => [
      packLatents(z!),
      unpackLatents(tokens!, rows, columns),
    ]);
    expect(result.outputs).toEqual([packed.values, latent.values]);
  });

  it("works out the same empirical shift", () => {
    const table = dump.config["_oracle"]["empirical_mu (tokens x steps)"] as Record<string, number>;
    expect(Object.keys(table).length).toBeGreaterThan(20);
    for (const [key, mu] of Object.entries(table)) {
      const [tokens, steps] = key.split("x").map(Number) as [number, number];
      expect(Math.abs(empiricalShiftExponent(tokens, steps) - mu), key).toBeLessThan(1e-12);
    }
  });

  it("agrees on every block, the output, the loss and all gradients", async () => {
    const { run, io } = await runFlux2(dump);
    const comparison = new Comparison("flux2");
    for (const [name, values] of Object.entries(run.outputs)) {
      comparison.values("values", name, values, await io.load(name), tolerance(2e-5, own.output.relative_l2));
    }
    const bound = tolerance(5e-5, own.input_grads.worst_relative_l2);
    for (const [ours, theirs] of [
      ["latents", "hidden_states"],
      ["states", "encoder_hidden_states"],
    ] as const) {
      const expected = await io.load(`grad.${theirs}`);
      comparison.values("gradients of inputs", theirs, run.gradients[`input.${ours}`], expected, bound);
    }
    const grads = await dump.open("grads");
    // Every parameter has a gradient in the dump, and every gradient there is compared.
    const parameters = Object.keys(run.gradients).filter((name) => !name.startsWith("input."));
    expect(parameters.length).toBe([...grads.names()].length);
    await comparison.gradients("gradients", run.gradients, grads, tolerance(5e-5, own.grads.worst_relative_l2));
    comparison.finish();
  });

  it("gives the same gradients when every block is traced again in the backward pass", async () => {
    const kept = await runFlux2(dump);
    const again = await runFlux2(dump, { checkpoint: true });
    for (const [name, values] of Object.entries(kept.run.gradients)) {
      expect(relativeError(again.run.gradients[name]!, values), name).toBeLessThan(5e-6);
    }
  });

  it("gives the same output with fusion switched off", async () => {
    const fused = await runFlux2(dump, { loss: false });
    const plain = await runFlux2(dump, { loss: false, fuse: false });
    expect(fused.run.calls).toBeLessThan(plain.run.calls);
    expect(relativeError(fused.run.outputs["output"]!, plain.run.outputs["output"]!)).toBeLessThan(1e-6);
  });

  it("runs without the guidance embedder", async () => {
    const { run, io } = await runFlux2(dump, { guidance: false, loss: false });
    expect(relativeError(run.outputs["output"]!, await io.load("output.no_guidance"))).toBeLessThan(
      tolerance(2e-5, own.output.relative_l2),
    );
  });
});
