// Black Forest Labs' single-file layout against diffusers': the key maps over all of FLUX.1-dev, files written in one and
// read in the other to the bit, range reads, scaled float8, and the forward passes of both.

import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { RangedSource } from "../../src/base/tensor_source.ts";
import { elementCount } from "../../src/formats/safetensors.ts";
import { writeSafetensors } from "../../src/formats/safetensors_write.ts";
import { openCheckpoint } from "../../src/models/checkpoint_source.ts";
import { fluxDiffusersMap, fluxOriginalMap } from "../../src/models/flux/bfl_keys.ts";
import { fluxConfig } from "../../src/models/flux/config.ts";
import { ropeTables } from "../../src/models/flux/embeddings.ts";
import { FluxTransformer } from "../../src/models/flux/transformer.ts";
import { type Piece, type TensorMap, tensorsToWrite } from "../../src/models/mapped_source.ts";
import { KlDecoder, KlEncoder, klConfig } from "../../src/models/vae/kl.ts";
import { suite } from "../helpers/dumps.ts";
import { MemoryFiles } from "../helpers/files.ts";
import { runModel } from "../helpers/models.ts";
import { devShapes, dumpSource, originalOf, withPrefix, writeTogether } from "../helpers/original_layout.ts";

const bytesOf = ({ buffer, byteOffset, byteLength }: Float32Array) => Buffer.from(buffer, byteOffset, byteLength);
const sameBits = (a: Float32Array, b: Float32Array) => bytesOf(a).equals(bytesOf(b));

async function expectSame(actual: RangedSource, expected: RangedSource): Promise<void> {
  expect([...actual.names()].sort()).toEqual([...expected.names()].sort());
  for (const name of expected.names()) {
    expect(actual.shape(name), name).toEqual(expected.shape(name));
    expect(actual.dtype(name), name).toBe(expected.dtype(name));
    expect(sameBits(await actual.load(name), await expected.load(name)), name).toBe(true);
  }
}

/** Every element of every stored tensor, as pieces that follow each other. */
function coverage(map: TensorMap): Map<string, Piece[]> {
  const found = new Map<string, Piece[]>();
  for (const { shape, pieces } of map.values()) {
    expect(pieces.reduce((sum, piece) => sum + piece.count, 0)).toBe(elementCount(shape));
    for (const piece of pieces) found.set(piece.tensor, [...(found.get(piece.tensor) ?? []), piece]);
  }
  for (const pieces of found.values()) pieces.sort((a, b) => a.first - b.first);
  return found;
}

describe("the names of FLUX.1 [dev]", () => {
  const { diffusers, original } = devShapes();

  it("are 1160 tensors in diffusers' layout and 780 in the original, and each map leads to the other list", () => {
    expect([diffusers.size, original.size]).toEqual([1160, 780]);
    const shapes = (map: TensorMap) => Object.fromEntries([...map].map(([name, { shape }]) => [name, shape]));
    expect(shapes(fluxDiffusersMap(original, "dev"))).toEqual(Object.fromEntries(diffusers));
    expect(shapes(fluxOriginalMap(diffusers, "dev"))).toEqual(Object.fromEntries(original));
  });

  it("use every stored element exactly once", () => {
    for (const [map, stored] of [
      [fluxDiffusersMap(original, "dev"), original],
      [fluxOriginalMap(diffusers, "dev"), diffusers],
    ] as const) {
      const found = coverage(map);
      for (const [name, shape] of stored) {
        let reached = 0;
        for (const piece of found.get(name)!) {
          expect(piece.first, name).toBe(reached);
          reached += piece.count;
        }
        expect(reached, name).toBe(elementCount(shape));
      }
    }
  });

  it("undo each other for every element", () => {
    const there = fluxDiffusersMap(original, "dev");
    const back = fluxOriginalMap(diffusers, "dev");
    const names = [...original.keys()];
    const locate = (map: TensorMap, name: string, element: number): [string, number] => {
      let start = 0;
      for (const piece of map.get(name)!.pieces) {
        if (element < start + piece.count) return [piece.tensor, piece.first + element - start];
        start += piece.count;
      }
      throw new Error(`${name} has no element ${element}`);
    };
    fc.assert(
      fc.property(
        fc.nat(names.length - 1),
        fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }),
        (i, part) => {
          const name = names[i]!;
          const element = Math.floor(part * elementCount(original.get(name)!));
          const [module, place] = locate(back, name, element);
          expect(locate(there, module, place)).toEqual([name, element]);
        },
      ),
      { numRuns: 2000 },
    );
  });

  it("refuse a fused matrix that cannot be shared out, and a model that lacks a part of one", () => {
    const odd = new Map(original).set("double_blocks.3.img_attn.qkv.weight", [9217, 3072]);
    expect(() => fluxDiffusersMap(odd, "f")).toThrow(/E-FILE-124.*double_blocks\.3\.img_attn\.qkv\.weight/);
    const short = new Map(original).set("single_blocks.0.linear1.weight", [9216, 3072]);
    expect(() => fluxDiffusersMap(short, "f")).toThrow(/E-FILE-124/);
    const lacking = new Map(diffusers);
    lacking.delete("transformer_blocks.2.attn.to_k.bias");
    expect(() => fluxOriginalMap(lacking, "f")).toThrow(
      /E-FILE-124.*transformer_blocks\.2\.attn\.to_k\.bias is missing/,
    );
    expect(() => fluxOriginalMap(new Map(diffusers).set("extra.weight", [1]), "f")).toThrow(/extra\.weight/);
  });
});

describe("a file in the original layout", () => {
  for (const subject of ["flux1_small", "flux1"] as const) {
    it(`gives the tensors of ${subject} back to the bit, under every prefix`, async () => {
      const expected = await dumpSource(subject);
      const config = { json: await configOf(subject), path: "config" };
      for (const prefix of ["", "model.diffusion_model.", "transformer."]) {
        const files = new MemoryFiles();
        await writeTogether(files, "m/flux.safetensors", withPrefix(await originalOf(subject), prefix));
        const opened = await openCheckpoint(files, "m/flux.safetensors", { config });
        expect([opened.family, opened.layout, opened.unknown]).toEqual(["flux1", "original", []]);
        await expectSame(opened.source, expected);
        await opened.source.close();
        expect(files.openHandles).toBe(0);
      }
    });
  }

  it("gives the autoencoder back to the bit, alone and in an all-in-one file beside the transformer", async () => {
    const config = { json: await configOf("vae_kl"), path: "config" };
    const flux = { json: await configOf("flux1_small"), path: "config" };
    const expected = await dumpSource("vae_kl");
    const original = await originalOf("vae_kl");
    expect(original.shape("decoder.mid.attn_1.q.weight")).toHaveLength(4);
    const files = new MemoryFiles();
    await writeTogether(files, "ae.safetensors", original);
    await writeTogether(
      files,
      "all.safetensors",
      withPrefix(await originalOf("flux1_small"), "model.diffusion_model."),
      withPrefix(original, "vae."),
    );
    for (const file of ["ae.safetensors", "all.safetensors"]) {
      const opened = await openCheckpoint(files, file, { part: "autoencoder", config });
      expect([opened.family, opened.layout]).toEqual(["autoencoder", "original"]);
      await expectSame(opened.source, expected);
    }
    const transformer = await openCheckpoint(files, "all.safetensors", { config: flux });
    await expectSame(transformer.source, await dumpSource("flux1_small"));
  });

  it("is read by ranges: a part of a fused matrix costs its own bytes, and any range is that of the whole", async () => {
    const files = new MemoryFiles();
    await writeTogether(files, "f.safetensors", await originalOf("flux1_small"));
    const config = { json: await configOf("flux1_small"), path: "config" };
    const { source } = await openCheckpoint(files, "f.safetensors", { config });
    const reads = async (body: () => Promise<unknown>) => {
      const before = files.reads;
      await body();
      return files.reads - before;
    };
    expect(await reads(() => source.load("transformer_blocks.0.attn.to_k.weight"))).toBe(64 * 64 * 4);
    let all = 0;
    for (const name of source.names()) all += await reads(() => source.load(name));
    let stored = 0;
    for (const name of source.names()) stored += 4 * elementCount(source.shape(name));
    expect(all).toBe(stored);

    const names = [...source.names()];
    await fc.assert(
      fc.asyncProperty(fc.nat(names.length - 1), fc.nat(), fc.nat(), async (i, a, b) => {
        const name = names[i]!;
        const total = elementCount(source.shape(name));
        const first = a % (total + 1);
        const count = b % (total - first + 1);
        const whole = await source.load(name);
        const expected = whole.slice(first, first + count);
        expect(sameBits(await source.loadRange(name, first, count), expected)).toBe(true);
        const bytes = await source.loadBytes(name, first, count);
        expect(Buffer.from(bytes).equals(bytesOf(expected))).toBe(true);
      }),
      { numRuns: 200 },
    );
  });

  it("may be in f16, bf16 or float8, scaled or not", async () => {
    const source = await originalOf("flux1_small");
    const config = { json: await configOf("flux1_small"), path: "config" };
    const codes = (count: number) => Uint8Array.from({ length: count }, (_, i) => (i * 37) % 0x78);
    for (const dtype of ["F16", "BF16"] as const) {
      const files = new MemoryFiles();
      const written = [...source.names()].map((name) => ({
        name,
        dtype,
        shape: source.shape(name),
        data: () => source.load(name),
      }));
      await writeSafetensors(files, "h.safetensors", written);
      const { source: halves } = await openCheckpoint(files, "h.safetensors", { config });
      expect(halves.dtype("norm_out.linear.weight")).toBe(dtype);
      const bytes = await halves.loadBytes("norm_out.linear.weight", 0);
      expect(bytes.length).toBe(2 * elementCount(halves.shape("norm_out.linear.weight")));
      expect((await halves.load("norm_out.linear.weight"))[5]).toBeCloseTo(
        (await (await dumpSource("flux1_small")).load("norm_out.linear.weight"))[5]!,
        2,
      );
    }

    for (const scale of ["none", "scale_weight", "weight_scale", "rows"] as const) {
      const files = new MemoryFiles();
      const fused = "double_blocks.0.img_attn.qkv";
      const [rows, columns] = source.shape(`${fused}.weight`) as [number, number];
      const scales = scale === "rows" ? Float32Array.from({ length: rows }, (_, i) => 1 + i) : Float32Array.of(0.25);
      const leaf = scale === "rows" ? "weight_scale" : scale;
      await writeSafetensors(files, "f8.safetensors", [
        ...tensorsToWrite(source).filter(({ name }) => name !== `${fused}.weight`),
        { name: `${fused}.weight`, dtype: "F8_E4M3", shape: [rows, columns], data: codes(rows * columns) },
        ...(scale === "none"
          ? []
          : [
              {
                name: `${fused}.${leaf}`,
                dtype: "F32" as const,
                shape: scale === "rows" ? [rows, 1] : [],
                data: scales,
              },
              { name: `${fused}.scale_input`, dtype: "F32" as const, shape: [], data: Float32Array.of(9) },
              { name: "scaled_fp8", dtype: "F8_E4M3" as const, shape: [2], data: new Uint8Array(2) },
            ]),
      ]);
      const opened = await openCheckpoint(files, "f8.safetensors", { config });
      expect(opened.unknown).toEqual([]);
      expect(opened.source.has("scaled_fp8")).toBe(false);
      // Element (1, 2) of the second part: row `rows / 3 + 1` of the fused matrix.
      const row = rows / 3 + 1;
      const code = codes(rows * columns)[row * columns + 2]!;
      const exponent = code >> 3;
      const plain = exponent === 0 ? (code & 7) * 2 ** -9 : (1 + (code & 7) / 8) * 2 ** (exponent - 7);
      const factor = scale === "none" ? 1 : scale === "rows" ? 1 + row : 0.25;
      const values = await opened.source.load("transformer_blocks.0.attn.to_k.weight");
      expect(values[columns + 2]).toBe(plain * factor);
      expect(opened.source.dtype("transformer_blocks.0.attn.to_k.weight")).toBe(scale === "none" ? "F8_E4M3" : "F32");
    }
  });
});

suite("flux1_small", (dump) => {
  it("draws the same velocity from either layout", async () => {
    const files = new MemoryFiles();
    await writeTogether(files, "f.safetensors", await originalOf("flux1_small"));
    const opened = await openCheckpoint(files, "f.safetensors", { config: { json: dump.config, path: "config" } });
    const config = fluxConfig(opened.config, opened.configPath);
    const io = await dump.open("io");
    const get = async (name: string) => ({ shape: io.shape(name), values: await io.load(name) });
    const ids = [...rows(await io.load("txt_ids")), ...rows(await io.load("img_ids"))];
    const { cosine, sine } = ropeTables(ids, config.ropeAxes, config.ropeTheta);
    const table = (values: Float32Array) => ({ shape: [ids.length, config.headSize / 2], values });
    const batch = io.shape("hidden_states")[0]!;
    const sinusoid = { shape: [batch, 256], values: Float32Array.from({ length: batch * 256 }, (_, i) => Math.sin(i)) };
    const inputs = {
      latents: await get("hidden_states"),
      states: await get("encoder_hidden_states"),
      pooled: await get("pooled_projections"),
      time: sinusoid,
      guidance: sinusoid,
      cosine: table(cosine),
      sine: table(sine),
    };
    const outputs: Float32Array[] = [];
    for (const weights of [await dump.open("weights"), opened.source]) {
      const run = await runModel({
        build: (parameters) => new FluxTransformer(parameters, config),
        weights,
        inputs,
        trace: (model, t, graph) => ({ outputs: { output: model.forward(graph, t as never).output } }),
      });
      outputs.push(run.outputs["output"]!);
    }
    expect(outputs[0]!.some((value) => value !== 0)).toBe(true);
    expect(sameBits(outputs[1]!, outputs[0]!)).toBe(true);
  });
});

suite("vae_kl", (dump) => {
  it("encodes and decodes the same from either layout", async () => {
    const files = new MemoryFiles();
    await writeTogether(files, "ae.safetensors", await originalOf("vae_kl"));
    const opened = await openCheckpoint(files, "ae.safetensors", { config: { json: dump.config, path: "config" } });
    const config = klConfig(opened.config);
    const io = await dump.open("io");
    const [h, w] = dump.config["_oracle"].sizes[0] as [number, number];
    const get = async (name: string) => ({
      shape: io.shape(`${h}x${w}.${name}`),
      values: await io.load(`${h}x${w}.${name}`),
    });
    const inputs = { image: await get("image"), latent: await get("latent") };
    const results: Record<string, Float32Array>[] = [];
    for (const weights of [await dump.open("weights"), opened.source]) {
      const run = await runModel({
        build: (parameters) => ({
          encoder: new KlEncoder(parameters.at("encoder"), config),
          decoder: new KlDecoder(parameters.at("decoder"), config),
        }),
        weights,
        inputs,
        trace: ({ encoder, decoder }, t, graph) => ({
          outputs: { moments: encoder.forward(graph, t["image"]!), picture: decoder.forward(graph, t["latent"]!) },
        }),
      });
      results.push(run.outputs);
    }
    for (const name of ["moments", "picture"]) expect(sameBits(results[1]![name]!, results[0]![name]!)).toBe(true);
  });
});

function rows(values: Float32Array): number[][] {
  return Array.from({ length: values.length / 3 }, (_, i) => [...values.subarray(3 * i, 3 * i + 3)]);
}

async function configOf(subject: string): Promise<Record<string, unknown>> {
  const { readFile } = await import("node:fs/promises");
  const { OWN_FIXTURES } = await import("../helpers/files.ts");
  return JSON.parse(await readFile(`${OWN_FIXTURES}/${subject}/config.json`, "utf8")) as Record<string, unknown>;
}
