// The work of bench/flux_dev.ts: one rollout step and one Direct-Align branch of a streamed FLUX transformer with generated
// weights, with what each part took. The benchmark prints it at real size, a test runs it small.

import type { Storage } from "../../src/base/quantize.ts";
import type { Gpu } from "../../src/gpu/device.ts";
import type { FluxConfig } from "../../src/models/flux/config.ts";
import { positionIds, ropeTables } from "../../src/models/flux/embeddings.ts";
import { GeneratedBlocks } from "../../src/models/flux/streamed/generated.ts";
import { type Slots, StreamedFlux } from "../../src/models/flux/streamed/streamed.ts";
import { Autoencoder } from "../../src/models/vae/autoencoder.ts";
import { ConditioningVariables } from "../../src/models/velocity_network.ts";
import { Adapter, chooseAdapters } from "../../src/nn/adapters.ts";
import { loadParameters, Parameters } from "../../src/nn/parameters.ts";
import { backward } from "../../src/ops/backward.ts";
import { add, affine, clamp, full, mul, sub } from "../../src/ops/pointwise.ts";
import { meanAll } from "../../src/ops/reduce.ts";
import { type MemoryTable, Session } from "../../src/tensor/session.ts";
import { targetOf } from "../../src/tensor/target.ts";
import type { Variable } from "../../src/tensor/variable.ts";
import { branchScalars } from "../../src/training/srpo/steps.ts";
import { noise } from "./chain.ts";
import { generatedSource } from "./generated_source.ts";

export interface FluxTask {
  /** FLUX.1's heads of 128 channels: a multiple of that. */
  width: number;
  doubleBlocks: number;
  singleBlocks: number;
  storage: Storage;
  slots: Slots;
  rank: number;
  /** Tokens of the text, and rows and columns of the picture's. */
  text: number;
  rows: number;
  columns: number;
  spill?: boolean;
  /** Widths of the autoencoder's levels; FLUX's by default. */
  autoencoderWidths?: readonly number[];
}

export interface FluxPart {
  name: string;
  seconds: number;
  /** Stored words uploaded. */
  bytes: number;
  /** Seconds in which the host read the source and copied, and in which it waited for a slot or room for a copy. */
  filling: number;
  waiting: number;
  flops: number;
}

export interface FluxJob {
  parts: FluxPart[];
  /** Seconds before the first part. */
  tracing: number;
  opening: number;
  loading: number;
  plans: number;
  sharedPlans: number;
  parameters: number;
  adapterParameters: number;
  memory: MemoryTable;
  loss: number;
  /** Norm of the gradients of the LoRA's second factors; the first factors' are zero where those begin at zero. */
  gradientNorm: number;
  finite: boolean;
}

const HEAD = 128;
/** From this noise level to that one, as a branch early in a schedule goes. */
const [FROM, TO] = [0.7, 0.6];

export function fluxShape({ width, doubleBlocks, singleBlocks }: FluxTask): FluxConfig {
  return {
    inChannels: 64,
    outChannels: 64,
    doubleBlocks,
    singleBlocks,
    headSize: HEAD,
    heads: width / HEAD,
    width,
    jointWidth: 4096,
    pooledWidth: 768,
    guidance: true,
    ropeAxes: [16, 56, 56],
    ropeTheta: 10000,
    mlpRatio: 4,
  };
}

/** Runs everything once on an open device. */
export async function runFluxJob(gpu: Gpu, task: FluxTask): Promise<FluxJob> {
  const { storage, slots, rank, text, rows, columns, spill, autoencoderWidths: widths } = task;
  const config = fluxShape(task);
  const started = performance.now();
  const session = new Session(targetOf(gpu));
  const model = new StreamedFlux(session, config, { storage, slots });
  const { parameters } = model;
  const adapter = new Adapter(
    session,
    parameters,
    chooseAdapters(parameters, { targets: "diffusers", rank, alpha: rank }),
  );
  const gradients = session.adopt(adapter.pool.twin("gradients", "gradients", ".gradient"));
  adapter.pool.variables.forEach((v, i) => (v.gradient = gradients.variables[i]!));
  const conditioning = new ConditioningVariables(session, "flux", config, 1, text);
  const pass = model.pass({
    name: "flux",
    conditioning,
    rotary: (graph) => {
      const { cosine, sine } = ropeTables(positionIds(text, rows, columns), config.ropeAxes, config.ropeTheta);
      const shape = [text + rows * columns, config.headSize / 2];
      return {
        cosine: session.constant(graph, "cosine", cosine, shape),
        sine: session.constant(graph, "sine", sine, shape),
      };
    },
    imageTokens: rows * columns,
    training: true,
    spill,
  });
  const vaeParameters = new Parameters(session.pool("autoencoder", "weights"));
  const vae = new Autoencoder(
    vaeParameters,
    { kind: "kl", scale: 0.3611, shift: 0.1159, config: widths ? { block_out_channels: widths } : {} },
    { decoder: true },
  );

  const latentShape = pass.latents.shape;
  const clean = session.data("clean", latentShape);
  const start = session.data("noise", latentShape);
  const scalars = Object.fromEntries(
    ["from", "keep", "move", "to", "recover", "step"].map((name): [string, Variable] => [
      name,
      session.data(name, [1]),
    ]),
  );
  const loss = session.data("loss", [1]);
  const scalar = (name: string) => scalars[name]!;
  const euler = session.plan("euler step", (graph) => {
    const moved = mul(graph.read(pass.velocity), graph.read(scalar("step")));
    graph.assign(clean, add(moved, graph.read(pass.latents)));
  });
  const inject = session.plan("inject", (graph) => {
    const mixed = mul(graph.read(clean), graph.read(scalar("keep")));
    graph.assign(pass.latents, add(mul(graph.read(start), graph.read(scalar("from"))), mixed));
  });
  const judge = session.plan("recover and decode", (graph) => {
    const velocity = graph.read(pass.velocity, true);
    const moved = add(mul(velocity, graph.read(scalar("move"))), graph.read(pass.latents));
    const recovered = mul(sub(moved, mul(graph.read(start), graph.read(scalar("to")))), graph.read(scalar("recover")));
    const pictures = clamp(affine(vae.decode(graph, recovered, rows, columns), 0.25, 0.5), 0, 1);
    const value = meanAll(pictures);
    graph.assign(loss, value);
    const [gradient] = backward(graph, [[value, full(graph, value.shape, 1)]], [velocity]);
    graph.assign(pass.velocityGradient!, gradient!);
  });
  const traced = performance.now();
  await session.open(gpu);
  const opened = performance.now();
  const source = new GeneratedBlocks(parameters.tensors, { seed: 1 });
  await model.load(source);
  await loadParameters(session, vaeParameters, generatedSource(vaeParameters.tensors, 2));
  adapter.initialise(session, 1);
  session.clear(gradients);
  const random = (variable: Variable, seed: number, scale = 1.7) =>
    session.write(variable, noise(variable.size, seed, scale));
  random(pass.latents, 1);
  random(start, 2);
  random(conditioning.states, 3, 0.3);
  random(conditioning.pooled!, 4);
  conditioning.writeTimes(session, [1]);
  conditioning.writeGuidance(session, 3.5);
  const branch = branchScalars(FROM, TO);
  for (const [name, value] of Object.entries({ ...branch, step: -0.3 }))
    session.write(scalar(name), Float32Array.of(value));
  await session.finish();
  const loaded = performance.now();

  const parts: FluxPart[] = [];
  const { times } = model.ring;
  const timed = async (name: string, flops: number, body: () => Promise<void>): Promise<void> => {
    const before = { ...times };
    const from = performance.now();
    await body();
    await session.finish();
    parts.push({
      name,
      seconds: (performance.now() - from) / 1e3,
      bytes: times.bytes - before.bytes,
      filling: (times.filling - before.filling) / 1e3,
      waiting: (times.waiting - before.waiting) / 1e3,
      flops,
    });
  };
  const flopsOf = (plans: Iterable<{ flops: number }>) => [...plans].reduce((sum, plan) => sum + plan.flops, 0);
  const forwardFlops = flopsOf(pass.forwardPlans.values());
  await timed("rollout step", forwardFlops, async () => {
    await pass.forward();
    session.run(euler);
  });
  conditioning.writeTimes(session, [FROM]);
  await timed("branch: inject, velocity", forwardFlops, async () => {
    session.run(inject);
    await pass.forward();
  });
  await timed("branch: recover, decode, back to v", judge.flops, () => Promise.resolve(session.run(judge)));
  await timed("branch: back to the LoRA", flopsOf(pass.backwardPlans.values()), () => pass.backward());

  let squares = 0;
  for (const v of gradients.variables) {
    // The second factors begin at zero, so theirs are the gradients that are not.
    if (!v.name.includes("lora_B")) continue;
    for (const x of await session.read(v)) squares += x * x;
  }
  const velocity = await session.read(pass.velocity);
  const finite = velocity.every(Number.isFinite) && Number.isFinite(squares);
  const seconds = (a: number, b: number) => (b - a) / 1e3;
  return {
    parts,
    tracing: seconds(started, traced),
    opening: seconds(traced, opened),
    loading: seconds(opened, loaded),
    plans: session.plans.length,
    sharedPlans: session.plans.filter((plan) => plan.like).length,
    parameters: parameters.count,
    adapterParameters: adapter.pool.variables.reduce((n, v) => n + v.size, 0),
    memory: session.memory(),
    loss: (await session.read(loss))[0]!,
    gradientNorm: Math.sqrt(squares),
    finite,
  };
}
