// A FLUX.1 transformer whose frozen matrices lie on the device in one of the storages, with an adapter in f32 on the layers of
// its blocks and the training step of flow matching: velocity, mean squared error, gradients of the factors. The storage
// benchmark times it and the tests of storages compare its gradients.

import type { Storage } from "../../src/base/quantize.ts";
import type { TensorSource } from "../../src/base/tensor_source.ts";
import type { FluxConfig } from "../../src/models/flux/config.ts";
import { positionIds, ropeTables, SINUSOID_WIDTH, sinusoids } from "../../src/models/flux/embeddings.ts";
import { FluxTransformer } from "../../src/models/flux/transformer.ts";
import { Adapter, type AdapterKind, chooseAdapters } from "../../src/nn/adapters.ts";
import { loadParameters, Parameters } from "../../src/nn/parameters.ts";
import { backward } from "../../src/ops/backward.ts";
import { full, square, sub } from "../../src/ops/pointwise.ts";
import type { Decoded } from "../../src/ops/quantized.ts";
import { meanAll } from "../../src/ops/reduce.ts";
import type { Target } from "../../src/tensor/lower.ts";
import { type Plan, Session } from "../../src/tensor/session.ts";
import type { Pool, Variable } from "../../src/tensor/variable.ts";
import { noise } from "./chain.ts";

export interface StoredTask {
  config: FluxConfig;
  storage: Storage;
  decoded?: Decoded;
  batch: number;
  /** Tokens of the text, and of a side of the picture. */
  text: number;
  side: number;
  rank: number;
  /** "lora" by default. */
  kind?: AdapterKind;
  checkpoint?: boolean;
}

export interface StoredTransformer {
  session: Session;
  parameters: Parameters;
  weights: Pool;
  /** What is trained; each variable has its gradient. */
  trained: readonly Variable[];
  /** Forward and backward pass. */
  step: Plan;
  output: Variable;
  loss: Variable;
  /** Uploads weights, factors and inputs; the session must be open. */
  load(source: TensorSource): Promise<void>;
}

/** Declares and plans everything; the session is not open yet. */
export function storedTransformer(target: Target, task: StoredTask): StoredTransformer {
  const { config, batch, text, side, rank } = task;
  const session = new Session(target);
  const weights = session.pool("transformer", "weights");
  const parameters = new Parameters(weights, { storage: task.storage, decoded: task.decoded });
  const model = new FluxTransformer(parameters, config);
  const shapes = chooseAdapters(parameters, { kind: task.kind, targets: "diffusers", rank, alpha: rank });
  const adapter = new Adapter(session, parameters, shapes);
  const pools = adapter.groups().map(({ pool }) => pool);
  const gradients = pools.map((pool) => session.adopt(pool.twin(`${pool.name} gradients`, "gradients", ".gradient")));
  pools.forEach((pool, k) => pool.variables.forEach((v, i) => (v.gradient = gradients[k]!.variables[i]!)));
  const inputs = {
    latents: session.data("latents", [batch, side * side, config.inChannels]),
    states: session.data("states", [batch, text, config.jointWidth]),
    pooled: session.data("pooled", [batch, config.pooledWidth]),
    velocity: session.data("velocity", [batch, side * side, config.outChannels]),
  };
  const time = session.data("time", [batch, SINUSOID_WIDTH]);
  const tables = ropeTables(positionIds(text, side, side), config.ropeAxes, config.ropeTheta);
  const rotary = [text + side * side, config.headSize / 2];
  const output = session.data("output", inputs.velocity.shape);
  const loss = session.data("loss", [1]);
  const step = session.plan("step", (graph) => {
    const traced = model.forward(
      graph,
      {
        latents: graph.read(inputs.latents),
        states: graph.read(inputs.states),
        pooled: graph.read(inputs.pooled),
        time: graph.read(time),
        guidance: config.guidance ? graph.read(time) : undefined,
        cosine: session.constant(graph, "cosine", tables.cosine, rotary),
        sine: session.constant(graph, "sine", tables.sine, rotary),
      },
      { checkpoint: task.checkpoint },
    );
    graph.assign(output, traced.output);
    const value = meanAll(square(sub(traced.output, graph.read(inputs.velocity))));
    graph.assign(loss, value);
    backward(graph, [[value, full(graph, value.shape, 1)]]);
  });
  return {
    session,
    parameters,
    weights,
    trained: pools.flatMap((pool) => pool.variables),
    step,
    output,
    loss,
    async load(source) {
      await loadParameters(session, parameters, source);
      Object.values(inputs).forEach((v, i) => session.write(v, noise(v.size, 10 + i, 1.7)));
      session.write(time, sinusoids(Array.from({ length: batch }, (_, i) => (i + 0.5) / batch)));
      adapter.initialise(session, 1);
      // Both factors away from zero, so that neither gradient is.
      adapter.pool.variables.forEach((v, i) => session.write(v, noise(v.size, 50 + i, 0.05)));
      for (const pool of gradients) session.clear(pool);
    },
  };
}
