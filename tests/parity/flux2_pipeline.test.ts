// A whole FLUX.2 klein against Flux2KleinPipeline itself, from prompt and noise to the picture: token ids, text states, sigmas,
// latents after every step; distilled, and base with classifier-free guidance. The transformer comes in Black Forest Labs' layout.

import { expect, it } from "vitest";
import type { RangedSource } from "../../src/base/tensor_source.ts";
import { QwenTokenizer } from "../../src/data/tokenizers/qwen.ts";
import { guidedVelocity } from "../../src/diffusion/classifier_free.ts";
import { empiricalSigmas } from "../../src/diffusion/empirical_shift.ts";
import { ropeTables, SINUSOID_WIDTH, sinusoids } from "../../src/models/flux/embeddings.ts";
import { Flux2Autoencoder, flux2AutoencoderConfig } from "../../src/models/flux2/autoencoder.ts";
import { flux2BflMap, inferFlux2Config } from "../../src/models/flux2/bfl_keys.ts";
import { flux2Config } from "../../src/models/flux2/config.ts";
import { positionIds } from "../../src/models/flux2/embeddings.ts";
import { Flux2Transformer } from "../../src/models/flux2/transformer.ts";
import { mappedSource, shapesOf } from "../../src/models/mapped_source.ts";
import { qwen3Config } from "../../src/models/qwen3/config.ts";
import { paddingScores, Qwen3Encoder, qwen3Rotary } from "../../src/models/qwen3/encoder.ts";
import { loadParameters, Parameters } from "../../src/nn/parameters.ts";
import { add, clamp, mul } from "../../src/ops/pointwise.ts";
import { slice } from "../../src/ops/slab.ts";
import { Session } from "../../src/tensor/session.ts";
import { targetOf } from "../../src/tensor/target.ts";
import { Comparison, idRows, largestDifference } from "../helpers/compare.ts";
import { type Dump, suite, tolerance } from "../helpers/dumps.ts";
import { NodeFiles } from "../helpers/files.ts";
import { generatedSource } from "../helpers/generated_source.ts";
import { hashed } from "../helpers/generated_weights.ts";
import { testGpu } from "../helpers/gpu.ts";

/** The transformer's weights as diffusers names them, out of a source in the original layout. */
function transformerSource(dump: Dump): RangedSource {
  const original = generatedSource("transformer", dump.config["_oracle"]["tensors"]["transformer"]);
  const ranged: RangedSource = {
    ...original,
    dtype: () => "F32",
    loadRange: async (name, first, count) =>
      (await original.load(name)).slice(first, count === undefined ? undefined : first + count),
    loadBytes: () => Promise.reject(new Error("not needed")),
    close: () => Promise.resolve(),
  };
  return mappedSource(ranged, flux2BflMap(shapesOf(original)));
}

async function draw(dump: Dump, guided: boolean) {
  const { configs, height, width, steps, length, layers, guidance, prompts } = dump.config;
  const [rows, columns] = [height / 16, width / 16];
  const tokens = rows * columns;
  const config = flux2Config(configs.transformer, "transformer/config.json");
  const text = qwen3Config(configs.text_encoder, "text_encoder/config.json");
  const gpu = await testGpu();
  const session = new Session(targetOf(gpu));
  try {
    const at = (name: string) => new Parameters(session.pool(name, "weights"));
    const parameters = { transformer: at("transformer"), text_encoder: at("text_encoder"), vae: at("vae") };
    const transformer = new Flux2Transformer(parameters.transformer, config);
    const encoder = new Qwen3Encoder(parameters.text_encoder, text, { layers });
    const vaeConfig = flux2AutoencoderConfig(configs.vae, "vae/config.json");
    const vae = new Flux2Autoencoder(parameters.vae, vaeConfig, { decoder: true });
    // The prompts, then the empty one that guidance needs.
    const texts = [...(prompts as string[]), ""];
    const ids = session.data("ids", [texts.length, length], "u32");
    const mask = session.data("mask", [texts.length, length]);
    const states = session.data("states", [texts.length, length, encoder.outputWidth]);
    const z = session.data("z", [1, tokens, config.inChannels]);
    const time = session.data("time", [1, SINUSOID_WIDTH]);
    const step = session.data("step", [1]);
    const picture = session.data("picture", [1, 3, height, width]);
    const encode = session.plan("encode", (graph) => {
      const { cosine, sine } = qwen3Rotary(length, text);
      const shape = [length, text.headSize / 2];
      const found = encoder.forward(graph, {
        tokens: graph.read(ids),
        mask: graph.read(mask),
        cosine: session.constant(graph, "qwen3 cosine", cosine, shape),
        sine: session.constant(graph, "qwen3 sine", sine, shape),
      });
      graph.assign(states, found);
    });
    const advance = session.plan("step", (graph) => {
      const places = positionIds(length, rows, columns);
      const { cosine, sine } = ropeTables(places, config.ropeAxes, config.ropeTheta);
      const shape = [places.length, config.headSize / 2];
      const rotary = {
        cosine: session.constant(graph, "cosine", cosine, shape),
        sine: session.constant(graph, "sine", sine, shape),
      };
      const velocity = (row: number) =>
        transformer.forward(graph, {
          latents: graph.read(z),
          time: graph.read(time),
          states: slice(graph.read(states), 0, row, 1),
          ...rotary,
        }).output;
      const v = guided ? guidedVelocity(velocity(0), velocity(texts.length - 1), guidance) : velocity(0);
      graph.assign(z, add(graph.read(z), mul(v, graph.read(step))));
    });
    const finish = session.plan("finish", (graph) => {
      graph.assign(picture, clamp(vae.decode(graph, graph.read(z), rows, columns), 0, 1));
    });
    await session.open(gpu);
    const shapes = dump.config["_oracle"]["tensors"];
    await loadParameters(session, parameters.transformer, transformerSource(dump));
    await loadParameters(session, parameters.text_encoder, generatedSource("text_encoder", shapes["text_encoder"]));
    await loadParameters(session, parameters.vae, generatedSource("vae", shapes["vae"]));
    const tokenizer = await QwenTokenizer.load(new NodeFiles(), dump.path("tokenizer.json"));
    const encoded = texts.map((prompt) => tokenizer.encodePrompt(prompt, length));
    session.write(ids, Uint32Array.from(encoded.flatMap((e) => [...e.ids])));
    session.write(
      mask,
      paddingScores(
        encoded.map(({ count }) => count),
        length,
      ),
    );
    session.poison();
    session.run(encode);
    session.write(
      z,
      Float32Array.from(hashed("latents", tokens * config.inChannels), (u) => u * 1.7),
    );
    const sigmas = empiricalSigmas(steps, tokens);
    const latents: number[] = [];
    for (let i = 0; i < steps; i++) {
      // The network hears sigma by way of a float32 timestep.
      session.write(time, sinusoids([Math.fround(Math.fround(1000 * sigmas[i]!) / 1000)]));
      session.write(step, Float32Array.of(sigmas[i + 1]! - sigmas[i]!));
      session.run(advance);
      latents.push(...(await session.read(z)));
    }
    session.run(finish);
    const all = await session.read(states);
    return {
      ids: encoded.map((e) => [...e.ids]),
      counts: encoded.map((e) => e.count),
      states: all.subarray(0, (all.length / texts.length) * prompts.length),
      sigmas,
      latents,
      picture: await session.read(picture),
    };
  } finally {
    session.close();
  }
}

suite("flux2_pipeline", (dump) => {
  it.each(["klein", "base"])("gives Flux2KleinPipeline's states, sigmas, latents and picture: %s", async (name) => {
    const io = await dump.open("io");
    const own = dump.config["_oracle"]["f32_vs_f64"][name];
    const drawn = await draw(dump, name === "base");
    expect(drawn.ids).toEqual(await idRows(io, "ids"));
    expect(drawn.counts).toEqual((await idRows(io, "mask")).map((row) => row.reduce((a, b) => a + b)));
    const comparison = new Comparison(`flux2_pipeline ${name}`);
    comparison.note("sigmas", name, largestDifference(drawn.sigmas, await io.load(`${name}.sigmas`)), 1e-6);
    for (const [part, table] of [
      ["states", 2e-5],
      ["latents", 5e-5],
      ["picture", 1e-4],
    ] as const) {
      if (!io.has(`${name}.${part}`)) continue;
      const expected = await io.load(`${name}.${part}`);
      comparison.values(part, name, drawn[part], expected, tolerance(table, own[part].relative_l2));
    }
    comparison.finish();
  });

  it("knows the configuration from the shapes of the tensors", () => {
    const shapes = shapesOf(transformerSource(dump));
    expect(inferFlux2Config(shapes)).toEqual(flux2Config(dump.config["configs"]["transformer"], ""));
    shapes.delete("single_stream_modulation.linear.weight");
    expect(inferFlux2Config(shapes)).toBe(null);
  });
});
