// Runs the FLUX transformer of a dump with an adapter on the test device: outputs at several strengths of one plan,
// gradients of the adapter alone, the model's weights frozen.

import type { TensorSource } from "../../src/base/tensor_source.ts";
import type { LokrLayer, LoraLayer } from "../../src/formats/adapter_layers.ts";
import type { Safetensors } from "../../src/formats/safetensors.ts";
import { fluxConfig } from "../../src/models/flux/config.ts";
import { ropeTables } from "../../src/models/flux/embeddings.ts";
import { FluxTransformer } from "../../src/models/flux/transformer.ts";
import { Adapter, adaptersOf } from "../../src/nn/adapters.ts";
import { loadParameters, Parameters } from "../../src/nn/parameters.ts";
import { backward } from "../../src/ops/backward.ts";
import { add, affine, full, mul, square } from "../../src/ops/pointwise.ts";
import { meanAll } from "../../src/ops/reduce.ts";
import { Session } from "../../src/tensor/session.ts";
import { targetOf } from "../../src/tensor/target.ts";
import type { Dump } from "./dumps.ts";
import { testGpu } from "./gpu.ts";
import { dumpSinusoids } from "./sinusoids.ts";

export interface LoraRun {
  /** Outputs by strength. */
  outputs: Map<number, Float32Array>;
  /** At strength 1, by variable name. */
  gradients: Record<string, Float32Array>;
  inputGradient: Float32Array;
  loss: number;
  /** Kernel calls of the plan that differentiates. */
  calls: string[];
  /** The adapter as read back. */
  layers: Map<string, LoraLayer | LokrLayer>;
}

/** A dump's own sinusoids where it holds them: it may be of another processor than its model's dump. */
async function sinusoidsOf(io: Safetensors & TensorSource, name: string): Promise<Float32Array> {
  const own = `sinusoid.${name}`;
  return io.has(own) ? await io.load(own) : await dumpSinusoids([...(await io.load(name))]);
}

/** @param inputs the dump with the inputs, @param model the dump with weights and sizes */
export async function runLora(
  inputs: Dump,
  model: Dump,
  layers: ReadonlyMap<string, LoraLayer | LokrLayer>,
  strengths: readonly number[],
): Promise<LoraRun> {
  const config = fluxConfig(model.config, model.folder);
  const io = await inputs.open("io");
  const rows = (values: Float32Array) =>
    Array.from({ length: values.length / 3 }, (_, i) => [...values.subarray(3 * i, 3 * i + 3)]);
  const ids = [...rows(await io.load("txt_ids")), ...rows(await io.load("img_ids"))];
  const { cosine, sine } = ropeTables(ids, config.ropeAxes, config.ropeTheta);
  const values: Record<string, Float32Array> = {
    latents: await io.load("hidden_states"),
    states: await io.load("encoder_hidden_states"),
    pooled: await io.load("pooled_projections"),
    weight: await io.load("loss_weight"),
    time: await sinusoidsOf(io, "timestep"),
    cosine,
    sine,
  };
  if (config.guidance) values["guidance"] = await sinusoidsOf(io, "guidance");
  const batch = io.shape("hidden_states")[0]!;
  const tables = [ids.length, config.headSize / 2];
  const shapes: Record<string, readonly number[]> = {
    latents: io.shape("hidden_states"),
    states: io.shape("encoder_hidden_states"),
    pooled: io.shape("pooled_projections"),
    weight: io.shape("loss_weight"),
    time: [batch, 256],
    guidance: [batch, 256],
    cosine: tables,
    sine: tables,
  };

  const gpu = await testGpu();
  const session = new Session(targetOf(gpu));
  try {
    const parameters = new Parameters(session.pool("weights", "weights"));
    const transformer = new FluxTransformer(parameters, config);
    const adapter = new Adapter(session, parameters, adaptersOf(layers));
    const pools = adapter.groups().map(({ pool }) => pool);
    const gradients = pools.map((pool, k) => session.adopt(pool.twin(`gradients ${k}`, "gradients", ".grad")));
    pools.forEach((pool, k) => pool.variables.forEach((v, i) => (v.gradient = gradients[k]!.variables[i]!)));
    const variables = Object.fromEntries(Object.keys(values).map((name) => [name, session.data(name, shapes[name]!)]));
    const output = session.data("output", shapes["weight"]!);
    const inputGradient = session.data("gradient.latents", shapes["latents"]!);
    const loss = session.data("loss", [1]);
    const plan = session.plan("lora", (graph) => {
      const leaves = Object.fromEntries(
        Object.entries(variables).map(([name, v]) => [name, graph.read(v, name === "latents")]),
      );
      const traced = transformer.forward(graph, leaves as never);
      graph.assign(output, traced.output);
      const value = add(meanAll(mul(traced.output, leaves["weight"]!)), affine(meanAll(square(traced.output)), 0.5, 0));
      graph.assign(loss, value);
      const [found] = backward(graph, [[value, full(graph, value.shape, 1)]], [leaves["latents"]!]);
      graph.assign(inputGradient, found!);
    });
    await session.open(gpu);
    await loadParameters(session, parameters, await model.open("weights"));
    for (const [name, variable] of Object.entries(variables)) session.write(variable, values[name]!);
    adapter.load(session, layers, "the test's layers");
    const run: LoraRun = {
      outputs: new Map(),
      gradients: {},
      inputGradient: new Float32Array(),
      loss: Number.NaN,
      calls: plan.lowered.calls.map((call) => call.label),
      layers: adapter.kind === "lokr" ? await adapter.readLokr(session) : await adapter.read(session),
    };
    for (const strength of [1, ...strengths]) {
      adapter.setStrength(session, strength);
      for (const pool of gradients) session.clear(pool);
      session.poison();
      session.run(plan);
      await session.finish();
      run.outputs.set(strength, await session.read(output));
      if (strength !== 1) continue;
      run.loss = (await session.read(loss))[0]!;
      run.inputGradient = await session.read(inputGradient);
      for (const variable of pools.flatMap((pool) => pool.variables))
        run.gradients[variable.name] = await session.read(variable.gradient!);
    }
    return run;
  } finally {
    session.close();
  }
}
