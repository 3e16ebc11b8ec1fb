// Frozen weights in every storage under a LoRA: gradients equal to those over the decoded weights, decoded weights that
// live for one kernel call, and the bytes that plans show.

import "../helpers/vectors_of_8.ts";
import process from "node:process";
import { describe, expect, it } from "vitest";
import { type StoredTask, storedTransformer } from "../../bench/lib/stored_transformer.ts";
import type { LongtailError } from "../../src/base/errors.ts";
import { encodeWeight, type Storage, storedBytes } from "../../src/base/quantize.ts";
import { memorySource, type TensorSource } from "../../src/base/tensor_source.ts";
import { type FluxConfig, fluxConfig } from "../../src/models/flux/config.ts";
import { FluxTransformer } from "../../src/models/flux/transformer.ts";
import { Linear } from "../../src/nn/linear.ts";
import { loadParameters, Parameters } from "../../src/nn/parameters.ts";
import { backward } from "../../src/ops/backward.ts";
import { matmul } from "../../src/ops/matmul.ts";
import type { Graph, Tensor } from "../../src/tensor/graph.ts";
import { lifetimes } from "../../src/tensor/planner.ts";
import { type Plan, Session } from "../../src/tensor/session.ts";
import { portableTarget, targetOf } from "../../src/tensor/target.ts";
import { decodeWeight } from "../helpers/decode_weight.ts";
import { openSource, readConfig } from "../helpers/dumps.ts";
import { EMBEDDED } from "../helpers/embedded.ts";
import { noise, relativeError, testGpu } from "../helpers/gpu.ts";

const COMPACT = ["f16", "bf16", "int8", "nf4"] as const;
const TRANSFORMER = `${EMBEDDED}/transformer/diffusion_pytorch_model.safetensors`;
const embedded = () => fluxConfig(readConfig(TRANSFORMER), EMBEDDED);

/** Columns that are no multiple of a block, of a word or of four values among the matrices. */
const long = process.env.LONGTAIL_LONG === "1";

const SMALL: FluxConfig = fluxConfig(
  {
    _class_name: "FluxTransformer2DModel",
    patch_size: 1,
    in_channels: 6,
    out_channels: null,
    num_layers: 1,
    num_single_layers: 1,
    attention_head_dim: 12,
    num_attention_heads: 3,
    joint_attention_dim: 23,
    pooled_projection_dim: 11,
    guidance_embeds: false,
    axes_dims_rope: [4, 4, 4],
  },
  "test",
);

/** Weights of unit gain with an outlier in some rows, so that blocks differ. */
function smallWeights(): TensorSource {
  const parameters = new Parameters(new Session(portableTarget()).pool("weights", "weights"));
  new FluxTransformer(parameters, SMALL);
  const tensors = new Map<string, { shape: readonly number[]; data: Float32Array }>();
  let seed = 100;
  for (const [name, { shape }] of parameters.tensors) {
    const count = shape.reduce((a, b) => a * b, 1);
    const scale = shape.length > 1 ? Math.sqrt(1.5 / shape[1]!) : 0.1;
    const offset = /norm_(added_)?[qk]\.weight$/.test(name) ? 1 : 0;
    const data = Float32Array.from(noise(count, seed++), (v, i) => offset + v * scale * (i % 97 === 0 ? 3 : 1));
    tensors.set(name, { shape, data });
  }
  return memorySource("small weights", tensors);
}

/** The source with every matrix replaced by what its codes stand for. */
function decodedSource(source: TensorSource, storage: Storage): TensorSource {
  return {
    ...source,
    load: async (name) => {
      const values = await source.load(name);
      if (storage === "f32" || source.shape(name).length !== 2) return values;
      return decodeWeight(storage, encodeWeight(name, storage, values), values.length);
    },
  };
}

interface StepResult {
  output: Float32Array;
  loss: number;
  gradients: Float32Array;
}

async function runStep(
  source: TensorSource,
  storage: Storage,
  options: Partial<StoredTask> & { config: FluxConfig; f16?: boolean; onMatrices?: boolean },
): Promise<StepResult> {
  const gpu = await testGpu();
  const target = targetOf(gpu);
  const world = storedTransformer(
    {
      ...target,
      f16: options.f16 ?? target.f16,
      ...(options.onMatrices ? { matrices: "all", stagedDecoding: true } : {}),
    },
    { side: 3, ...options, storage, batch: 2, text: 5, rank: 4 },
  );
  const { session } = world;
  try {
    await session.open(gpu);
    await world.load(source);
    session.poison();
    session.run(world.step);
    await session.finish();
    const gradients: number[] = [];
    for (const v of world.trained) gradients.push(...(await session.read(v.gradient!)));
    return {
      output: await session.read(world.output),
      loss: (await session.read(world.loss))[0]!,
      gradients: Float32Array.from(gradients),
    };
  } finally {
    session.close();
  }
}

describe("a LoRA over stored weights", () => {
  for (const storage of COMPACT) {
    it(`has the gradients over ${storage} that it has over the decoded weights in f32`, async () => {
      const source = smallWeights();
      // Checkpointing traces a block again: one storage stands for all.
      for (const checkpoint of storage === "nf4" ? [false, true] : [false]) {
        const found = await runStep(source, storage, { config: SMALL, checkpoint });
        const expected = await runStep(decodedSource(source, storage), "f32", { config: SMALL, checkpoint });
        expect(Math.hypot(...expected.gradients)).toBeGreaterThan(1e-3);
        expect(relativeError(found.output, expected.output)).toBeLessThan(1e-6);
        expect(relativeError(found.gradients, expected.gradients)).toBeLessThan(1e-6);
        expect(Math.abs(found.loss / expected.loss - 1)).toBeLessThan(1e-6);
      }
    });
  }

  // Dozens of kernels, each compiled for seconds by a CPU adapter.
  it.runIf(long)(
    "has them up to the rounding of f16 on subgroup matrices",
    async () => {
      const source = smallWeights();
      const found = await runStep(source, "nf4", { config: SMALL, decoded: "f16", onMatrices: true });
      const expected = await runStep(source, "nf4", { config: SMALL });
      const errors = [relativeError(found.output, expected.output), relativeError(found.gradients, expected.gradients)];
      console.log(
        `matrices: output off by ${errors[0]!.toExponential(1)}, gradients by ${errors[1]!.toExponential(1)}`,
      );
      expect(errors[0]).toBeLessThan(2e-3);
      expect(errors[1]).toBeLessThan(1e-2);
    },
    1_200_000,
  );

  it("has them as DoRA and LoKr too, which read the weight in other ways", async () => {
    const source = smallWeights();
    for (const kind of ["dora", "lokr"] as const) {
      const found = await runStep(source, "nf4", { config: SMALL, kind });
      const expected = await runStep(decodedSource(source, "nf4"), "f32", { config: SMALL, kind });
      expect(relativeError(found.output, expected.output), kind).toBeLessThan(1e-6);
      expect(relativeError(found.gradients, expected.gradients), kind).toBeLessThan(1e-6);
    }
  });

  it("needs no shader-f16 for halves", async () => {
    const source = smallWeights();
    const found = await runStep(source, "f16", { config: SMALL, f16: false });
    const expected = await runStep(decodedSource(source, "f16"), "f32", { config: SMALL });
    expect(relativeError(found.gradients, expected.gradients)).toBeLessThan(1e-6);
  });

  it("keeps the resolution of f16 where products read decoded weights as f16", async (context) => {
    if (!(await testGpu()).facts.f16) return context.skip("the adapter has no shader-f16");
    const source = smallWeights();
    for (const storage of ["bf16", "int8", "nf4"] as const) {
      const found = await runStep(source, storage, { config: SMALL, decoded: "f16" });
      const expected = await runStep(decodedSource(source, storage), "f32", { config: SMALL });
      const errors = [found.output, found.gradients].map((values, i) =>
        relativeError(values, [expected.output, expected.gradients][i]!),
      );
      for (const error of errors) expect(error, storage).toBeLessThan(2e-3);
      if (storage !== "bf16") expect(errors[0], "f16 was not read").toBeGreaterThan(1e-6);
    }
  });

  it("has the embedded model's gradients up to the error of the storage", async () => {
    const source = await openSource(TRANSFORMER);
    const options = { config: embedded(), side: 4 };
    const exact = await runStep(source, "f32", options);
    /** The file holds f16; the errors of the weights are 0, 0.17, 0.56 and 9.1 %, and the model passes on 1.5 times that. */
    const bounds = { f16: 1e-6, bf16: 0.006, int8: 0.02, nf4: 0.3 };
    for (const storage of COMPACT) {
      const found = await runStep(source, storage, options);
      const [output, gradients] = [
        relativeError(found.output, exact.output),
        relativeError(found.gradients, exact.gradients),
      ];
      console.info(
        `${storage}: output off by ${output.toExponential(1)}, gradients of the LoRA by ${gradients.toExponential(1)}`,
      );
      expect(output, storage).toBeLessThan(bounds[storage]);
      expect(gradients, storage).toBeLessThan(bounds[storage]);
    }
  });

  it("learns: steps against the gradient lower the loss", async () => {
    const task = { config: SMALL, storage: "nf4", batch: 2, text: 5, side: 3, rank: 4 } as const;
    const { session, trained, loss, step, load } = storedTransformer(targetOf(await testGpu()), task);
    try {
      await session.open(await testGpu());
      await load(smallWeights());
      const losses: number[] = [];
      for (let i = 0; i < 4; i++) {
        for (const v of trained) session.write(v.gradient!, new Float32Array(v.size));
        session.run(step);
        losses.push((await session.read(loss))[0]!);
        for (const v of trained) {
          const gradient = await session.read(v.gradient!);
          const values = await session.read(v);
          session.write(
            v,
            values.map((value, k) => value - 0.5 * gradient[k]!),
          );
        }
      }
      for (let i = 1; i < losses.length; i++) expect(losses[i]).toBeLessThan(losses[i - 1]!);
    } finally {
      session.close();
    }
  });
});

describe("decoded weights", () => {
  const WIDTH = 64;

  /** A chain of layers, forward and backward to the input: nothing else needs to be kept between the two. */
  function chain(layers: number, storage: Storage, project: (graph: Graph, layer: Linear, x: Tensor) => Tensor): Plan {
    const session = new Session(portableTarget());
    const parameters = new Parameters(session.pool("weights", "weights"), { storage });
    const stack = Array.from({ length: layers }, (_, i) => new Linear(parameters.at(i), WIDTH, WIDTH));
    const x = session.data("x", [2, WIDTH]);
    return session.plan("chain", (graph) => {
      const leaf = graph.read(x, true);
      const y = stack.reduce((value, layer) => project(graph, layer, value), leaf as Tensor);
      graph.assign(session.data("y", y.shape), y);
      const [dx] = backward(graph, [[y, graph.read(session.data("dy", y.shape))]], [leaf]);
      graph.assign(session.data("dx", dx!.shape), dx!);
    });
  }

  it("do not live from the forward to the backward pass: the arena does not grow with the number of layers", () => {
    for (const storage of ["bf16", "int8", "nf4"] as const) {
      const own = [8, 64].map(
        (n) => chain(n, storage, (graph, layer, x) => layer.project(graph, x)).placement.arenaBytes,
      );
      expect(own[1], storage).toBe(own[0]);
      expect(own[0]!, storage).toBeLessThan(4 * WIDTH * WIDTH + 8 * 4 * 2 * WIDTH);
      // The same product over a decoded tensor, whose gradient reads it again, does grow: the test can see it.
      const kept = [8, 64].map(
        (n) =>
          chain(n, storage, (graph, layer, x) => {
            return matmul(x, layer.weightTensor(graph), { transposeB: true });
          }).placement.arenaBytes,
      );
      expect(kept[1]! - kept[0]!, storage).toBeGreaterThanOrEqual(56 * 4 * WIDTH * WIDTH);
    }
  });

  it("live for two calls in the embedded transformer's step, and add at most one matrix to its arena", () => {
    const arena = (storage: Storage, checkpoint: boolean) => {
      const { step, parameters } = storedTransformer(portableTarget(), {
        config: embedded(),
        storage,
        batch: 8,
        text: 20,
        side: 4,
        rank: 16,
        checkpoint,
      });
      const decoders = step.lowered.calls.filter((call) => call.label.startsWith("decode"));
      const decoded = new Set(decoders.map((call) => call.bindings.at(-1)!));
      for (const { slot, from, to } of lifetimes(step.lowered.calls)) if (decoded.has(slot)) expect(to - from).toBe(1);
      return { bytes: step.placement.lowerBound, decoders: decoders.length, layers: parameters.linears.size };
    };
    for (const checkpoint of [false, true]) {
      const plain = arena("f32", checkpoint);
      expect(plain.decoders).toBe(0);
      const { width } = embedded();
      for (const storage of ["bf16", "int8", "nf4"] as const) {
        const own = arena(storage, checkpoint);
        // Once in the forward pass, and again where the input needs a gradient.
        expect(own.decoders).toBeGreaterThan(1.5 * own.layers);
        expect(own.bytes - plain.bytes, storage).toBeLessThanOrEqual(4 * width * 6 * width);
      }
    }
  });
});

describe("the plan's bytes of weights", () => {
  it("are those of the storage for the embedded transformer", () => {
    const rows: string[] = [];
    const found: Record<string, number> = {};
    for (const storage of ["f32", ...COMPACT] as const) {
      const session = new Session(portableTarget());
      const parameters = new Parameters(session.pool("transformer", "weights"), { storage });
      new FluxTransformer(parameters, embedded());
      const shapes = [...parameters.tensors.values()].map(({ shape }) => shape);
      const sum = (matrices: boolean, bytes: (count: number) => number) =>
        shapes
          .filter((shape) => (shape.length === 2) === matrices)
          .reduce((n, shape) => n + bytes(shape.reduce((a, b) => a * b, 1)), 0);
      const expected = sum(true, (n) => storedBytes(storage, n)) + sum(false, (n) => 4 * n);
      const { weights } = session.memory().variables;
      // Every tensor begins at a multiple of 256 bytes, and a stored one has two parts.
      expect(weights - expected, storage).toBeGreaterThanOrEqual(0);
      expect(weights - expected, storage).toBeLessThan(2 * 256 * shapes.length);
      expect(Object.values(parameters.bytesByStorage).reduce((a, b) => a + b, 0)).toBe(expected);
      expect(parameters.count).toBe(sum(true, (n) => n) + sum(false, (n) => n));
      found[storage] = weights;
      rows.push(`${storage.padEnd(5)} ${(weights / 2 ** 20).toFixed(2).padStart(6)} MiB`);
    }
    console.info(`weights of the embedded transformer:\n${rows.join("\n")}`);
    const shares = COMPACT.map((storage) => found[storage]! / found["f32"]!);
    expect(shares.map((share) => Math.round(share * 100))).toEqual([50, 50, 27, 14]);
  });

  it("leave embeddings and convolutions to the element type, and vectors in f32", () => {
    const parameters = new Parameters(new Session(portableTarget()).pool("weights", "weights"), {
      dtype: "f16",
      storage: "nf4",
    });
    const layer = new Linear(parameters.at("layer"), 8, 4);
    expect(parameters.tensor("table", [10, 8]).dtype).toBe("f16");
    expect(layer.bias!.dtype).toBe("f32");
    expect([...parameters.variables.keys()]).toEqual(["layer.bias", "table"]);
    expect([...parameters.tensors.keys()]).toEqual(["layer.weight", "layer.bias", "table"]);
    expect(parameters.bytesByStorage).toEqual({ nf4: 16 + 4, f32: 16, f16: 160 });
  });
});

describe("loading into a storage", () => {
  async function load(storage: Storage, data: Float32Array): Promise<LongtailError | null> {
    const gpu = await testGpu();
    const session = new Session(targetOf(gpu));
    const parameters = new Parameters(session.pool("weights", "weights"), { storage });
    new Linear(parameters.at("block.to_q"), 8, 4, { bias: false });
    try {
      await session.open(gpu);
      const tensors = new Map([["block.to_q.weight", { shape: [4, 8], data }]]);
      await loadParameters(session, parameters, memorySource("model.safetensors", tensors));
      return null;
    } catch (error) {
      return error as LongtailError;
    } finally {
      session.close();
    }
  }

  it("refuses values that are not finite with the names of file and tensor", async () => {
    for (const storage of COMPACT) {
      expect(await load(storage, new Float32Array(32))).toBeNull();
      const error = await load(storage, new Float32Array(32).fill(Number.NaN, 5));
      expect(error!.code, storage).toBe("E-FILE-036");
      expect(error!.message).toContain("model.safetensors, block.to_q.weight: value 5 of the weight is NaN");
    }
    expect((await load("f16", new Float32Array(32).fill(1e6)))!.code).toBe("E-FILE-037");
  });

  it("checks names and shapes as for f32", async () => {
    const gpu = await testGpu();
    const session = new Session(targetOf(gpu));
    const parameters = new Parameters(session.pool("weights", "weights"), { storage: "nf4" });
    new Linear(parameters.at("layer"), 8, 4, { bias: false });
    const source = (name: string, shape: readonly number[]) =>
      memorySource("file", new Map([[name, { shape, data: new Float32Array(32) }]]));
    await expect(loadParameters(session, parameters, source("other", [4, 8]))).rejects.toThrow("E-FILE-030");
    await expect(loadParameters(session, parameters, source("layer.weight", [8, 4]))).rejects.toThrow("E-FILE-031");
    session.close();
  });
});
