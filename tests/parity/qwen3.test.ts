// Qwen3 against transformers' Qwen3ForCausalLM: token ids of prompts in their chat, states of chosen layers side by side with and
// without padding, and what stands behind the last layer.

import { readFileSync } from "node:fs";
import { expect, it } from "vitest";
import { LongtailError } from "../../src/base/errors.ts";
import { QwenTokenizer, qwenChat } from "../../src/data/tokenizers/qwen.ts";
import { qwen3Config } from "../../src/models/qwen3/config.ts";
import { paddingScores, Qwen3Encoder, qwen3Name, qwen3Rotary } from "../../src/models/qwen3/encoder.ts";
import { Parameters } from "../../src/nn/parameters.ts";
import { Pool } from "../../src/tensor/variable.ts";
import { Comparison, idRows } from "../helpers/compare.ts";
import { type Dump, suite, tolerance } from "../helpers/dumps.ts";
import { MemoryFiles, NodeFiles } from "../helpers/files.ts";
import { generatedSource } from "../helpers/generated_source.ts";
import { type ModelInput, runModel } from "../helpers/models.ts";

/** States of the first prompts of the dump: token rows or, with `embedded`, embeddings that were looked up before. */
async function encode(dump: Dump, layers: readonly number[], options: { padded: boolean; embedded?: boolean }) {
  const io = await dump.open("io");
  const config = qwen3Config(dump.config, dump.folder);
  const prompts = io.shape("states")[0]!;
  const ids = (await idRows(io, "ids")).slice(0, prompts);
  const mask = (await idRows(io, "mask")).slice(0, prompts);
  const length = ids[0]!.length;
  const weights = generatedSource("text_encoder", dump.config["_oracle"]["tensors"]);
  const table = await weights.load("model.embed_tokens.weight");
  const { width } = config;
  const looked = ids.flat().flatMap((id) => [...table.subarray(id * width, (id + 1) * width)]);
  const counts = mask.map((row) => row.filter((keep) => keep === 1).length);
  const half = config.headSize / 2;
  const { cosine, sine } = qwen3Rotary(length, config);
  const inputs: Record<string, ModelInput> = {
    tokens: options.embedded
      ? { shape: [prompts, length, width], values: looked }
      : { shape: [prompts, length], values: ids.flat(), dtype: "u32" },
    cosine: { shape: [length, half], values: cosine },
    sine: { shape: [length, half], values: sine },
    ...(options.padded ? { mask: { shape: [prompts, length], values: paddingScores(counts, length) } } : {}),
  };
  const run = await runModel({
    build: (parameters) => new Qwen3Encoder(parameters, config, { layers, tableElsewhere: options.embedded }),
    weights,
    inputs,
    trace: (model, t, graph) => ({ outputs: { states: model.forward(graph, t as never) } }),
  });
  return run.outputs["states"]!;
}

suite("qwen3", (dump) => {
  const oracle = dump.config["_oracle"];
  const layers = oracle.layers as number[];

  it("gives the reference's ids and counts of prompts in their chat, padded and cut", async () => {
    const io = await dump.open("io");
    const tokenizer = await QwenTokenizer.load(new NodeFiles(), dump.path("tokenizer.json"));
    const [ids, masks] = [await idRows(io, "ids"), await idRows(io, "mask")];
    (oracle.prompts as string[]).forEach((prompt, i) => {
      expect(qwenChat(prompt)).toBe(oracle.chats[i]);
      expect(tokenizer.encode(prompt), prompt).toEqual(oracle.plain_ids[i]);
      const given = tokenizer.encodePrompt(prompt, oracle.length);
      expect([...given.ids], prompt).toEqual(ids[i]);
      expect(given.count, prompt).toBe(masks[i]!.reduce((a, b) => a + b));
    });
    // Both cases are among them.
    expect(masks.some((row) => row.at(-1) === 1) && masks.some((row) => row.at(-1) === 0)).toBe(true);
  });

  it("agrees on the states of padded prompts, of the padding itself, and without a mask", async () => {
    const io = await dump.open("io");
    const comparison = new Comparison("qwen3");
    const check = async (name: string, values: Float32Array) =>
      comparison.values(name, name, values, await io.load(name), tolerance(2e-5, oracle.f32_vs_f64[name].relative_l2));
    await check("states", await encode(dump, layers, { padded: true }));
    await check("states.unmasked", await encode(dump, layers, { padded: false }));
    await check("last", await encode(dump, [dump.config["num_hidden_layers"]], { padded: true }));
    comparison.finish();
  });

  it("gives the same bits from embeddings that were looked up before", async () => {
    const own = await encode(dump, layers, { padded: true });
    expect(await encode(dump, layers, { padded: true, embedded: true })).toEqual(own);
  });

  it("declares no layer behind the last one that is read", () => {
    const declared = (wanted: number[]) => {
      const parameters = new Parameters(new Pool("weights", "weights", 2 ** 30));
      new Qwen3Encoder(parameters, qwen3Config(dump.config, ""), { layers: wanted, tableElsewhere: true });
      return [...parameters.tensors.keys()];
    };
    expect(declared([1, 2]).some((name) => name.startsWith("model.layers.2."))).toBe(false);
    expect(declared([2]).includes("model.norm.weight")).toBe(false);
    expect(declared([dump.config["num_hidden_layers"]]).includes("model.norm.weight")).toBe(true);
    expect(() => declared([0])).toThrow(RangeError);
    expect(() => declared([dump.config["num_hidden_layers"] + 1])).toThrow(RangeError);
  });

  it("finds the names of files with and without the language model around it", () => {
    const name = "model.layers.0.mlp.up_proj.weight";
    expect(qwen3Name((n) => n === "model.embed_tokens.weight")(name)).toBe(name);
    expect(qwen3Name((n) => n === "embed_tokens.weight")(name)).toBe("layers.0.mlp.up_proj.weight");
  });

  it("reads the rotary base where either version of the library writes it", () => {
    const { rope_theta: _, rope_parameters: __, ...bare } = dump.config;
    expect(qwen3Config({ ...bare, rope_theta: 5e5 }, "").ropeTheta).toBe(5e5);
    expect(qwen3Config({ ...bare, rope_parameters: { rope_type: "default", rope_theta: 5e5 } }, "").ropeTheta).toBe(
      5e5,
    );
    expect(qwen3Config({ ...bare, rope_scaling: null }, "").ropeTheta).toBe(1e6);
  });

  it("refuses other models and other tokenizers", async () => {
    const refused = (change: Record<string, unknown>) => {
      try {
        qwen3Config({ ...dump.config, ...change }, "text_encoder/config.json");
        return null;
      } catch (error) {
        return error instanceof LongtailError ? error.code : String(error);
      }
    };
    expect(refused({})).toBe(null);
    for (const change of [
      { model_type: "mistral" },
      { attention_bias: true },
      { use_sliding_window: true },
      { hidden_act: "gelu" },
      { rope_scaling: { type: "yarn", factor: 4 }, rope_parameters: undefined },
      { num_key_value_heads: 5 },
    ]) {
      expect(refused(change), JSON.stringify(change)).toBe("E-FILE-042");
    }
    const text = readFileSync(dump.path("tokenizer.json"), "utf8");
    const files = new MemoryFiles({ "a.json": "{}", "b.json": text.replaceAll("<|im_start|>", "<|other|>") });
    for (const path of ["a.json", "b.json"]) {
      await expect(QwenTokenizer.load(files, path)).rejects.toMatchObject({
        code: "E-FILE-020",
        parts: { where: path },
      });
    }
  });
});
