// Every plan of a demo, a training run and FLUX, traced for adapters at the lower end of what WebGPU grants: no call may ask
// for more than they have. Here are also the lists that kernels are chosen from, each entry against the same limits.
// LONGTAIL_LONG=1 traces all plans for all adapters; tracing takes seconds.

import { join } from "node:path";
import process from "node:process";
import { describe, expect, it } from "vitest";
import { mainJob } from "../../bench/lib/main_job.ts";
import { LongtailError } from "../../src/base/errors.ts";
import { expandTemplate, type TemplateConstants } from "../../src/gpu/template.ts";
import { geometryOf, Pipeline } from "../../src/models/pipeline.ts";
import { attention, attentionVariant } from "../../src/ops/attention.ts";
import { type AttentionKernel, attentionMatrices, chooseAttentionMatrix } from "../../src/ops/attention_matrix.ts";
import { backward } from "../../src/ops/backward.ts";
import {
  chooseConv,
  chooseConvGradInput,
  chooseConvGradWeight,
  convGradWeightVariants,
  convVariants,
} from "../../src/ops/conv_choice.ts";
import { chooseConvMatrix, convMatrixVariants } from "../../src/ops/conv_matrix.ts";
import { chooseMatmul, matmulVariants } from "../../src/ops/matmul_choice.ts";
import { chooseMatrix, matrixVariants } from "../../src/ops/matmul_matrix.ts";
import { Optimizer, type OptimizerKind } from "../../src/optim/optimizer.ts";
import { loadConfig } from "../../src/runs/config/load.ts";
import type { Config } from "../../src/runs/config/schema.ts";
import { projectSources } from "../../src/runs/project.ts";
import { buildTrainWorld } from "../../src/runs/train/world.ts";
import type { Target } from "../../src/tensor/lower.ts";
import { Session } from "../../src/tensor/session.ts";
import { PictureEncoder } from "../../src/training/picture_encoder.ts";
import { PromptEncoder } from "../../src/training/prompt_encoder.ts";
import { MODELS, NodeFiles } from "../helpers/files.ts";
import { ADAMW } from "../helpers/flow.ts";
import { FOLDER, fluxDev } from "../helpers/flux_dev.ts";
import { exceeded, kernelResources } from "../helpers/kernel_resources.ts";
import { SMALL_TARGETS } from "../helpers/targets.ts";

const targets = Object.entries(SMALL_TARGETS);
const long = process.env.LONGTAIL_LONG === "1";
/** Adapters that whole runs are traced for. */
const some = targets.filter(
  ([name]) => long || /^a CPU without|GPU without f16 and|GPU with subgroups of 64$/.test(name),
);
/** Every adapter that these are traced for gets another kind of adapter and storage, unless all are wanted. */
const KINDS = [
  ["lora", "auto"],
  ["dora", "int8"],
  ["lokr", "nf4"],
  ["full", "auto"],
] as const;

/** What the calls of a session's plans exceed, each thing once. */
function tooMuch(session: Session): string[] {
  const out = new Set<string>();
  for (const plan of session.plans.filter(({ like }) => like === null))
    for (const call of plan.lowered.calls)
      for (const what of exceeded(call, session.target)) out.add(`${plan.name}, ${what}`);
  expect(session.plans.length).toBeGreaterThan(0);
  return [...out];
}

const configOf = async (source: string): Promise<Config> =>
  (await loadConfig({ source }, projectSources(new NodeFiles()))).config;

describe("plans on small adapters", () => {
  it.each(some)("of the main job fit %s", async (_, target) => {
    const { session } = await mainJob(target);
    expect(tooMuch(session)).toEqual([]);
    if (!long) return;
    const stacked = await mainJob(target, { stacked: true, checkpointing: true, batch: 8 });
    expect(tooMuch(stacked.session)).toEqual([]);
  });

  it.each(some)("of a LoRA run fit %s, with kinds of adapter and storage", async (name, target) => {
    const config = await configOf("lora");
    const at = some.findIndex(([other]) => other === name) % KINDS.length;
    for (const [kind, storage] of long ? KINDS : KINDS.slice(at, at + 1)) {
      const wanted = {
        ...config,
        device: { ...config.device, precision: target.f16 ? "f16" : "f32" },
        adapter: { ...config.adapter, kind },
        model: { ...config.model, storage },
      } as Config;
      const { session } = await buildTrainWorld(new NodeFiles(), wanted, target, [geometryOf(64, 64, "a test")], 4);
      expect(tooMuch(session)).toEqual([]);
    }
  });

  it.each(long ? targets : some.slice(-1))("of FLUX.1 dev's LoRA at 512 pixels fit %s", async (_, target) => {
    const files = fluxDev();
    const config = await configOf("lora-flux-dev");
    const geometry = geometryOf(512, 512, "a test");
    const wanted = {
      ...config,
      device: { ...config.device, precision: target.f16 ? "f16" : "f32" },
      model: { ...config.model, storage: target.software ? "int8" : "nf4", image_size: 512 },
    } as Config;
    const stream = { slots: { double: 2, single: 2 }, hostCacheBytes: 0 };
    const { session } = await buildTrainWorld(files, wanted, target, [geometry], 1, stream);
    expect(tooMuch(session)).toEqual([]);
    const encoders = new Session(target);
    const pipeline = await Pipeline.open(files, encoders, {
      folder: FOLDER,
      vae: "auto",
      tokenizers: join(MODELS, "tokenizers"),
      imageSize: 0,
      parts: { transformer: false, text: true, encoder: true, decoder: false },
    });
    new PromptEncoder(encoders, pipeline, pipeline.textBatch(4, target.maxBindingBytes), false);
    new PictureEncoder(encoders, pipeline, [geometry], 1);
    expect(tooMuch(encoders)).toEqual([]);
  });

  it.each(targets)("of every optimizer fit %s", (_, target) => {
    for (const kind of [
      "adamw",
      "adamw8bit",
      "lion",
      "adafactor",
      "prodigy",
      "sgd",
    ] as const satisfies OptimizerKind[]) {
      const session = new Session(target);
      const pool = session.pool("trained", "weights");
      pool.add("matrix", [96, 4100], "f32");
      pool.add("bias", [77], "f32");
      const settings = { ...ADAMW, kind, averageDecay: 0.9, lossScale: { initial: 1024 } };
      const optimizer = new Optimizer(session, [{ pool }], settings as never);
      session.plan("update", (graph) => optimizer.trace(graph, {}));
      expect(tooMuch(session)).toEqual([]);
    }
  });

  it("would be found out: a call of nine buffers, and one of more workgroup memory than there is", () => {
    const target = SMALL_TARGETS["a GPU without subgroups"]!;
    const session = new Session({ ...target, maxStorageBuffers: 10 });
    const q = session.data("q", [1, 8, 64]);
    session.plan("attention", (graph) => {
      const leaf = graph.read(q, true);
      graph.assign(q, backward(graph, [[attention(leaf, leaf, leaf, { heads: 1 }), graph.read(q)]], [leaf])[0]!);
    });
    const calls = session.plans[0]!.lowered.calls;
    const few = {
      ...target,
      maxStorageBuffers: 4,
      kernels: { ...target.kernels, maxComputeWorkgroupStorageSize: 1024 },
    };
    const found = calls.flatMap((call) => exceeded(call, few)).join("\n");
    expect(found).toMatch(/storage buffers \d+ of 4/);
    expect(found).toMatch(/workgroup memory \d+ of 1024/);
    expect(
      kernelResources("const A = 3u;\nvar<workgroup> x : array<vec2<f32>, A * (4 + 1)>;\n@workgroup_size(A, 2)"),
    ).toMatchObject({ workgroupBytes: 128, invocations: 6 });
  });
});

describe("the lists that kernels are chosen from", () => {
  const fits = (name: string, choice: { source: string; constants: TemplateConstants }, target: Target) => {
    const r = kernelResources(
      expandTemplate(choice.source, { EPILOGUE: "", EPILOGUE_BINDINGS: "", ...choice.constants }),
    );
    const { kernels } = target;
    expect(r.invocations, name).toBeLessThanOrEqual(kernels.maxComputeInvocationsPerWorkgroup);
    expect(r.workgroupBytes, name).toBeLessThanOrEqual(kernels.maxComputeWorkgroupStorageSize);
    expect(r.storage, name).toBeLessThanOrEqual(target.maxStorageBuffers);
    if (!kernels.subgroups) expect(r.subgroups || r.matrices, name).toBe(false);
  };
  const conv = { N: 2, IC: 24, H: 16, W: 16, OC: 40, OH: 16, OW: 16, KH: 3, KW: 3, padTop: 1, padLeft: 1 };

  it.each(targets)("hold nothing for products that %s cannot run", (_, target) => {
    const { kernels } = target;
    for (const transA of [false, true]) {
      for (const transB of [false, true]) {
        const shape = { M: 130, N: 96, K: 72, transA, transB };
        for (const name of matmulVariants(kernels)) {
          fits(name, chooseMatmul(shape, name, kernels), target);
          if (target.f16) fits(name, chooseMatmul(shape, name, kernels, { A: "f16", B: "f16", C: "f16" }), target);
          if (!name.startsWith("direct") && transB)
            for (const B of ["int8", "nf4", "bf16"] as const)
              fits(name, chooseMatmul(shape, name, kernels, { B }), target);
        }
        for (const { name } of matrixVariants(kernels)) {
          const types = transB ? (["f32", "f16", "int8", "nf4"] as const) : (["f32", "f16"] as const);
          for (const B of types) fits(name, chooseMatrix(shape, name, kernels, { B }).main, target);
        }
      }
    }
    expect(matmulVariants(kernels).length).toBeGreaterThan(0);
  });

  it.each(targets)("hold nothing for convolutions that %s cannot run", (_, target) => {
    const { kernels } = target;
    for (const stride of [1, 2]) {
      const shape = { ...conv, stride, OH: conv.H / stride, OW: conv.W / stride };
      for (const name of convVariants(kernels)) {
        fits(name, chooseConv(shape, name, kernels), target);
        fits(name, chooseConvGradInput(shape, name, kernels), target);
      }
      for (const name of convGradWeightVariants(kernels))
        fits(name, chooseConvGradWeight(shape, name, kernels, { chunks: 2 }).main, target);
      for (const name of convMatrixVariants(kernels))
        for (const pass of ["forward", "grad_weight"] as const)
          fits(name, chooseConvMatrix(pass, shape, name, kernels).main, target);
    }
  });

  it.each(targets)("hold nothing for attention that %s cannot run", (_, target) => {
    const { kernels } = target;
    const kinds: AttentionKernel[] = ["forward", "grad_query", "grad_key_value"];
    for (const kernel of kinds) {
      for (const headSize of [64, 80, 128]) {
        const sizes = { batch: 1, rows: 96, keys: 96, heads: 2, headSize, causal: false };
        for (const form of attentionMatrices(kernel, kernels, headSize)) {
          const types = { q: "f32", k: "f32", v: "f32", out: "f32", dout: "f32" } as const;
          fits(form.name, chooseAttentionMatrix(kernel, sizes, form, types), target);
        }
      }
      for (let headSize = 4; headSize <= 512; headSize += 4) {
        const { rows, parts, keys, tile } = attentionVariant(kernel, headSize, target.software);
        expect(rows * parts).toBeLessThanOrEqual(256);
        const partials = parts > 1 ? keys * rows * parts * (kernel === "forward" ? 4 : 8) : 0;
        expect(2 * tile * headSize * 4 + partials, `${kernel} ${headSize}`).toBeLessThanOrEqual(16384);
      }
    }
  });

  it("hold forms on matrices for every size of subgroup that a matrix is known for", () => {
    const sizes = targets
      .filter(([, t]) => matrixVariants(t.kernels).length > 0)
      .map(([, t]) => t.kernels.subgroupMinSize);
    expect(sizes).toEqual(expect.arrayContaining([8, 16, 32, 64]));
  });
});

describe("attention with a bias, which needs most buffers of all", () => {
  const trace = (maxStorageBuffers: number) => {
    const session = new Session({ ...SMALL_TARGETS["a GPU without subgroups"]!, maxStorageBuffers });
    const [q, bias] = [session.data("q", [1, 8, 64]), session.data("bias", [1, 8, 8])];
    session.plan("biased", (graph) => {
      const leaf = graph.read(q, true);
      const out = attention(leaf, leaf, leaf, { heads: 1, bias: graph.read(bias) });
      graph.assign(q, backward(graph, [[out, graph.read(q)]], [leaf])[0]!);
    });
  };

  it("has a backward pass for an adapter of eight buffers, and is refused by name on one of seven", () => {
    trace(8);
    expect(() => trace(7)).toThrow(LongtailError);
    expect(() => trace(7)).toThrow(/E-ENV-011 plan biased, attention.*8 storage buffers, and the adapter takes 7/);
  });
});
