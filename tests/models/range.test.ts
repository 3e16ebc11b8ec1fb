// Numbers far above the range of f16 (65504), as the residual streams of FLUX and T5 reach them. A norm takes the size of what
// it reads away again, so a model whose embedders and branches give s times as much has streams s times as large and the same
// output; the same holds for a product between two Linear layers, one s times as large and the other divided by s. The plain
// model is the reference, which the parity tests hold to PyTorch. Powers of two leave every other digit alone.

import { expect, it } from "vitest";
import type { Storage } from "../../src/base/quantize.ts";
import type { TensorSource } from "../../src/base/tensor_source.ts";
import { fluxConfig } from "../../src/models/flux/config.ts";
import { ropeTables, sinusoids } from "../../src/models/flux/embeddings.ts";
import { FluxTransformer } from "../../src/models/flux/transformer.ts";
import { bucketTable, T5Encoder, t5Config } from "../../src/models/t5/encoder.ts";
import { KlDecoder, KlEncoder, klConfig } from "../../src/models/vae/kl.ts";
import type { ParametersOptions } from "../../src/nn/parameters.ts";
import { add, mul } from "../../src/ops/pointwise.ts";
import { meanAll, sumAll } from "../../src/ops/reduce.ts";
import { idRows, largest } from "../helpers/compare.ts";
import { type Dump, suite } from "../helpers/dumps.ts";
import { relativeError, testGpu } from "../helpers/gpu.ts";
import { type ModelRun, runModel } from "../helpers/models.ts";

const long = process.env["LONGTAIL_LONG"] === "1";
const LARGE = 1e5;
/** Streams that are this much larger. */
const STREAM = 2 ** 16;
/** Values inside a branch that are this much larger. */
const INNER = 2 ** 17;

/** Factor of a tensor, and for a weight [out, in] that of columns from `from` to `to`. */
interface Factor {
  factor: number;
  columns?: { to: number; factor: number };
}

/** The source with tensors multiplied as `factors` says. */
function scaled(source: TensorSource, factors: (name: string) => Factor): TensorSource {
  return {
    name: `${source.name} scaled`,
    names: () => source.names(),
    has: (name) => source.has(name),
    shape: (name) => source.shape(name),
    load: async (name) => {
      const values = await source.load(name);
      const { factor, columns } = factors(name);
      const width = source.shape(name)[1] ?? 1;
      return values.map((v, i) => v * factor * (columns && i % width < columns.to ? columns.factor : 1));
    },
  };
}

/** All outputs finite and those of the plain model, and the stream beyond f16. */
function expectSame(large: ModelRun, plain: ModelRun, names: readonly string[], bound: number, what: string): void {
  for (const name of names) {
    expect(large.outputs[name]!.every(Number.isFinite), `${what}: ${name} is finite`).toBe(true);
    expect(relativeError(large.outputs[name]!, plain.outputs[name]!), `${what}: ${name}`).toBeLessThan(bound);
  }
  for (const [name, values] of Object.entries(plain.gradients).filter(([name]) => name.startsWith("input.")))
    expect(relativeError(large.gradients[name]!, values), `${what}: gradient of ${name}`).toBeLessThan(bound);
}

/** What a run with device.precision = "f16" keeps, in every storage of frozen matrices; a few of them unless LONGTAIL_LONG=1. */
async function ways(): Promise<{ title: string; keep: ParametersOptions; frozen: boolean }[]> {
  const { f16 } = (await testGpu()).facts;
  const storages: Storage[] = long ? ["f32", "f16", "bf16", "int8", "nf4"] : ["f32"];
  return [
    ...storages.map((storage) => ({ title: storage, keep: { storage }, frozen: storage !== "f32" })),
    ...(f16 ? [{ title: "f16 everywhere", keep: { dtype: "f16" as const }, frozen: true }] : []),
    ...(f16
      ? [{ title: "nf4 read as f16", keep: { storage: "nf4" as const, decoded: "f16" as const }, frozen: true }]
      : []),
  ];
}

/** Whether numbers are rounded to halves: small ones lose digits when they are divided. */
const readsHalves = (title: string) => /\bf16/.test(title);

async function runFlux(dump: Dump, factors: (name: string) => Factor, keep: ParametersOptions, loss: boolean) {
  const config = fluxConfig(dump.config, dump.folder);
  const io = await dump.open("io");
  const input = async (name: string, gradient = false) => ({
    shape: io.shape(name),
    values: await io.load(name),
    gradient: gradient && loss,
  });
  const rows = (values: Float32Array) =>
    Array.from({ length: values.length / 3 }, (_, i) => [...values.subarray(3 * i, 3 * i + 3)]);
  const ids = [...rows(await io.load("txt_ids")), ...rows(await io.load("img_ids"))];
  const { cosine, sine } = ropeTables(ids, config.ropeAxes, config.ropeTheta);
  const table = (values: Float32Array) => ({ shape: [ids.length, config.headSize / 2], values });
  const times = sinusoids([...(await io.load("timestep"))]);
  const batch = io.shape("hidden_states")[0]!;
  return await runModel({
    build: (parameters) => new FluxTransformer(parameters, config),
    weights: scaled(await dump.open("weights"), factors),
    keep,
    inputs: {
      latents: await input("hidden_states", true),
      states: await input("encoder_hidden_states", true),
      pooled: await input("pooled_projections"),
      time: { shape: [batch, 256], values: times },
      ...(config.guidance
        ? { guidance: { shape: [batch, 256], values: sinusoids([...(await io.load("guidance"))]) } }
        : {}),
      cosine: table(cosine),
      sine: table(sine),
      weight: await input("loss_weight"),
    },
    trace: (model, t, graph) => {
      const { output, blocks } = model.forward(graph, t as never);
      const stream = blocks.at(-1)!.image;
      return {
        outputs: { output, stream },
        ...(loss ? { loss: meanAll(mul(output, t["weight"]!)) } : {}),
      };
    },
  });
}

suite("flux1_small", (dump) => {
  const width = fluxConfig(dump.config, dump.folder).headSize * fluxConfig(dump.config, dump.folder).heads;
  const factors =
    (stream: number, inner: number) =>
    (name: string): Factor => {
      const isSingle = name.startsWith("single_");
      const own = { factor: 1 };
      if (/^(x|context)_embedder\./.test(name)) own.factor = stream;
      if (/\.(attn\.to_out\.0|attn\.to_add_out)\.weight$/.test(name)) own.factor = stream / inner;
      if (/\.(attn\.to_out\.0|attn\.to_add_out)\.bias$|\.ff(_context)?\.net\.2\./.test(name)) own.factor = stream;
      if (/\.attn\.(to_v|add_v_proj)\./.test(name)) own.factor = inner;
      // Columns of a single block's output: attention first, then the MLP.
      if (isSingle && name.endsWith(".proj_out.weight"))
        return { factor: stream, columns: { to: width, factor: 1 / inner } };
      if (isSingle && name.endsWith(".proj_out.bias")) own.factor = stream;
      return own;
    };

  it("FLUX's output and gradients do not change when its streams and its attention's values are above 1e5", async () => {
    for (const { title, keep, frozen } of await ways()) {
      const plain = await runFlux(dump, factors(1, 1), keep, !frozen);
      const large = await runFlux(dump, factors(STREAM, 1), keep, !frozen);
      expect(largest(large.outputs["stream"]!), title).toBeGreaterThan(LARGE);
      expectSame(large, plain, ["output"], readsHalves(title) ? 1e-3 : 2e-5, `streams, ${title}`);
      // Blocks of int8 and nf4 hold columns of both kinds.
      if (!/^(f32|bf16)$/.test(title)) continue;
      const inside = await runFlux(dump, factors(1, INNER), keep, !frozen);
      expectSame(inside, plain, ["output"], 2e-5, `attention, ${title}`);
    }
  });

  it("weights beyond f16 are refused where they would become infinite, in every storage that is read as f16", async (context) => {
    if (!(await testGpu()).facts.f16) return context.skip("the adapter has no shader-f16");
    const ways: ParametersOptions[] = [{ storage: "f16" }, { dtype: "f16" }];
    for (const storage of ["bf16", "int8", "nf4"] as const) ways.push({ storage, decoded: "f16" });
    for (const keep of ways)
      await expect(runFlux(dump, factors(2 ** 30, 1), keep, false)).rejects.toMatchObject({ code: "E-FILE-037" });
  });
});

suite("t5", (dump) => {
  async function run(stream: number, inner: number, keep: ParametersOptions): Promise<ModelRun> {
    const io = await dump.open("io");
    const ids = await idRows(io, "ids");
    const length = ids[0]!.length;
    const factors = (name: string): Factor => {
      if (name === "shared.weight") return { factor: stream };
      if (/\.(o|wo)\.weight$/.test(name)) return { factor: stream / inner };
      return { factor: /\.(v|wi_1)\.weight$/.test(name) ? inner : 1 };
    };
    return await runModel({
      build: (parameters) => new T5Encoder(parameters, t5Config(dump.config)),
      weights: scaled(await dump.open("weights"), factors),
      keep,
      inputs: {
        ids: { shape: [ids.length, length], values: ids.flat(), dtype: "u32" },
        buckets: { shape: [length, length], values: bucketTable(length), dtype: "u32" },
      },
      trace: (model, t, graph) => ({ outputs: { states: model.forward(graph, t["ids"]!, t["buckets"]!) } }),
    });
  }

  // transformers keeps `wo` in f32 and clamps the stream to ±64504 in halves; here nothing is kept in halves but weights.
  it("T5's states do not change when its stream and the products inside its blocks are above 1e5", async () => {
    for (const { title, keep } of await ways()) {
      const plain = await run(1, 1, keep);
      const bound = readsHalves(title) ? 2e-3 : 2e-5;
      // Halves cannot hold a token table of 2^16 times its size; 2^13 already takes the sums beyond them.
      expectSame(
        await run(keep.dtype === "f16" ? 2 ** 13 : STREAM, 1, keep),
        plain,
        ["states"],
        bound,
        `stream, ${title}`,
      );
      expectSame(await run(1, 2 ** 10, keep), plain, ["states"], bound, `inside, ${title}`);
    }
  });
});

suite("vae_kl", (dump) => {
  const config = klConfig(dump.config);
  const size = (dump.config["_oracle"].sizes as [number, number][])[0]!.join("x");

  async function run(stream: number): Promise<ModelRun> {
    const io = await dump.open("io");
    const input = async (name: string, gradient = false) => ({
      shape: io.shape(`${size}.${name}`),
      values: await io.load(`${size}.${name}`),
      gradient,
    });
    const factors = (name: string): Factor => {
      if (/\.(conv_in|conv2|to_out\.0)\.(weight|bias)$/.test(name)) return { factor: stream };
      return { factor: /\.(conv_shortcut|(up|down)samplers\.0\.conv)\.bias$/.test(name) ? stream : 1 };
    };
    return await runModel({
      build: (parameters) => ({
        encoder: new KlEncoder(parameters.at("encoder"), config),
        decoder: new KlDecoder(parameters.at("decoder"), config),
      }),
      weights: scaled(await dump.open("weights"), factors),
      inputs: {
        image: await input("image", true),
        latent: await input("latent", true),
        momentsWeight: await input("moments_weight"),
        decodeWeight: await input("decode_weight"),
      },
      trace: ({ encoder, decoder }, t, graph) => {
        const moments = encoder.forward(graph, t["image"]!);
        const decoded = decoder.forward(graph, t["latent"]!);
        const loss = add(sumAll(mul(moments, t["momentsWeight"]!)), sumAll(mul(decoded, t["decodeWeight"]!)));
        return { outputs: { moments, decoded }, ...(long ? { loss } : {}) };
      },
    });
  }

  it("AutoencoderKL's moments and picture do not change when its features are above 1e5", async () => {
    expectSame(await run(STREAM), await run(1), ["moments", "decoded"], 2e-5, "features");
  });
});
