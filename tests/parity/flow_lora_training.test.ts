// Twenty updates of flow-matching LoRA training of the small FLUX.1, with AdamW and with Prodigy, against diffusers, PEFT,
// torch and prodigyopt: the loss, norm and rate of every update, the first clipped gradients of both factors, and the
// factors at the end. Pictures, noise and sigmas are the dump's.

import { readFileSync } from "node:fs";
import { basename, dirname } from "node:path";
import { expect, it } from "vitest";
import { type LoraLayer, readLora } from "../../src/formats/lora.ts";
import { fluxConfig } from "../../src/models/flux/config.ts";
import { positionIds, ropeTables } from "../../src/models/flux/embeddings.ts";
import { FluxTransformer } from "../../src/models/flux/transformer.ts";
import { Adapter, adaptersOf } from "../../src/nn/adapters.ts";
import { loadParameters, Parameters } from "../../src/nn/parameters.ts";
import { Optimizer, type OptimizerSettings } from "../../src/optim/optimizer.ts";
import { Session } from "../../src/tensor/session.ts";
import { targetOf } from "../../src/tensor/target.ts";
import { type FlowModel, type FlowSample, type FlowSettings, FlowTrainer } from "../../src/training/flow/trainer.ts";
import { Comparison, idRows, item } from "../helpers/compare.ts";
import { type Dump, dump, openSource, suite, tolerance } from "../helpers/dumps.ts";
import { NodeFiles } from "../helpers/files.ts";
import { testGpu } from "../helpers/gpu.ts";
import { frequenciesOf } from "../helpers/sinusoids.ts";

interface Curve {
  options: {
    lr: number;
    betas: [number, number];
    weight_decay: number;
    eps: number;
    clip: number;
    warmup: number;
    weighting: "none" | "sigma_sqrt";
  };
  loss: number[];
  grad_norm: number[];
  lr: number[];
  d: number | null;
}

const LOSS = 1e-5;
const NORM = 5e-5;
const GRADIENTS = 5e-5;
const FACTORS = 1e-4;
/** The reference clips by max / (norm + this). */
const CLIP_EPSILON = 1e-6;

function optimizerOf(run: string, { betas, eps, weight_decay, clip }: Curve["options"]): OptimizerSettings {
  return {
    kind: run === "prodigy" ? "prodigy" : "adamw",
    beta1: betas[0],
    beta2: betas[1],
    epsilon: eps,
    weightDecay: weight_decay,
    maxNorm: clip,
    ...(run === "prodigy" ? { prodigy: { decouple: true, useBiasCorrection: true, safeguardWarmup: true } } : {}),
  };
}

async function train(found: Dump, flux: Dump, run: string, curve: Curve): Promise<void> {
  const { batch, steps, guidance } = found.config as { batch: number; steps: number; guidance: number };
  const [rows, columns] = found.config["grid"] as [number, number];
  const geometry = { rows, columns };
  const data = await found.open("batches");
  const textLength = data.shape("dataset.text")[1]!;
  const config = fluxConfig(flux.config, flux.folder);
  const startPath = found.path("adapter_start.safetensors");
  const layers = (await readLora(new NodeFiles(), startPath)).layers as Map<string, LoraLayer>;
  // The file says no scale: it is the one of the lora subject.
  const { r, lora_alpha } = dump("lora")!.config;
  for (const layer of layers.values()) layer.scale = lora_alpha / r;

  const gpu = await testGpu();
  const session = new Session(targetOf(gpu));
  try {
    const parameters = new Parameters(session.pool("weights", "weights"));
    const transformer = new FluxTransformer(parameters, config);
    const adapter = new Adapter(session, parameters, adaptersOf(layers));
    const optimizer = new Optimizer(session, [{ pool: adapter.pool }], optimizerOf(run, curve.options));
    const model: FlowModel = {
      transformer,
      channels: config.inChannels,
      textLength,
      rotary: (graph, own, at) => {
        const ids = positionIds(textLength, at.rows, at.columns);
        const { cosine, sine } = ropeTables(ids, config.ropeAxes, config.ropeTheta);
        const shape = [ids.length, config.headSize / 2];
        return { cosine: own.constant(graph, "cosine", cosine, shape), sine: own.constant(graph, "sine", sine, shape) };
      },
    };
    const settings: FlowSettings = {
      batch,
      accumulation: 1,
      sigma: { sampler: "uniform" },
      weighting: curve.options.weighting,
      loss: "mse",
      guidance,
      seed: 0,
      schedule: {
        kind: "constant_with_warmup",
        rate: curve.options.lr,
        warmup: curve.options.warmup,
        total: steps,
        warmupFromZero: true,
      },
      checkpointing: false,
      validationSigmas: [],
      givenNoise: true,
      frequencies: await frequenciesOf(flux),
    };
    const trainer = new FlowTrainer(session, model, optimizer, [geometry], settings);
    await session.open(gpu);
    await loadParameters(session, parameters, await openSource(found.path(found.config["weights"])));
    adapter.load(session, layers, startPath);
    optimizer.initialise(session);
    optimizer.begin(session);

    const [latents, states, pooled, noise, sigmas] = (await Promise.all(
      ["dataset.latents", "dataset.text", "dataset.pooled", "noise", "sigmas"].map((name) => data.load(name)),
    )) as [Float32Array, Float32Array, Float32Array, Float32Array, Float32Array];
    const pictures = data.shape("dataset.latents")[0]!;
    const order = await idRows(data, "order");
    const clipped = await found.open(`${run}_clipped_grads_step1`);
    const own = found.config["_oracle"]["f32_vs_f64"][run];
    const comparison = new Comparison(`flow_lora_training ${run}`);
    for (let t = 0; t < steps; t++) {
      const samples = order[t]!.map(
        (i): FlowSample => ({
          latents: item(latents, i, pictures),
          states: item(states, i, pictures),
          pooled: item(pooled, i, pictures),
          weight: 1,
        }),
      );
      session.poison();
      const report = await trainer.step(t + 1, samples, geometry, {
        noise: item(noise, t, steps),
        sigmas: [...item(sigmas, t, steps)],
      });
      expect(report.finite).toBe(true);
      const bound = tolerance(LOSS, own["largest relative loss difference"]);
      comparison.values("loss", `step ${t}`, [report.loss], [curve.loss[t]!], bound);
      comparison.values("norm", `step ${t}`, [report.gradientNorm], [curve.grad_norm[t]!], NORM);
      expect(report.rate, `rate of step ${t}`).toBeCloseTo(curve.lr[t]!, 12);
      if (t === 1) {
        const factor = Math.min(1, curve.options.clip / (report.gradientNorm + CLIP_EPSILON));
        const gradients: Record<string, Float32Array> = {};
        for (const v of adapter.pool.variables)
          gradients[`transformer.${v.name}`] = (await session.read(v.gradient!)).map((g) => g * factor);
        await comparison.gradients("clipped gradients", gradients, clipped, GRADIENTS);
        expect(Object.keys(gradients).length).toBe(clipped.names().length);
      }
      if (t === steps - 1 && curve.d !== null)
        comparison.values("d", "after the last step", [report.d!], [curve.d], 0.03);
    }
    const final = await found.open(`${run}_final`);
    for (const variable of adapter.pool.variables) {
      const name = `transformer.${variable.name}`;
      const bound = tolerance(FACTORS, own["final adapter"].worst_relative_l2);
      comparison.values("final factors", name, await session.read(variable), await final.load(name), bound);
    }
    comparison.finish();
  } finally {
    session.close();
  }
}

suite("flow_lora_training", (found) => {
  const flux = dump(basename(dirname(found.config["weights"])));
  const curves = JSON.parse(readFileSync(found.path("curves.json"), "utf8")) as Record<string, Curve>;

  for (const [run, curve] of Object.entries(curves)) {
    it.skipIf(!flux || !dump("lora"))(`follows every update of the run with ${run}`, () =>
      train(found, flux!, run, curve),
    );
  }
});
