// Adapter files in the styles of other programs, read and written: what comes back, what is refused, and what a file says
// about itself.

import { createHash } from "node:crypto";
import { describe, expect, it } from "vitest";
import type { LongtailError } from "../../src/base/errors.ts";
import { factorisation } from "../../src/formats/lokr.ts";
import {
  type LokrLayer,
  type LoraLayer,
  readAdapter,
  readLora,
  writeKohya,
  writeLora,
  writeLoraPair,
  writeLycoris,
  writeOneTrainer,
  writePeft,
  writePeftLokr,
} from "../../src/formats/lora.ts";
import { sortLoraKeys } from "../../src/formats/lora_keys.ts";
import { joinFused } from "../../src/formats/lora_kohya.ts";
import { fileHashes } from "../../src/formats/model_spec.ts";
import { Safetensors } from "../../src/formats/safetensors.ts";
import { writeSafetensors } from "../../src/formats/safetensors_write.ts";
import { MemoryFiles } from "../helpers/files.ts";
import { FACTS } from "../helpers/lora_files.ts";

type Tensors = Record<string, [number[], ArrayLike<number>]>;

async function fileOf(tensors: Tensors, metadata?: Record<string, string>): Promise<MemoryFiles> {
  const files = new MemoryFiles();
  const list = Object.entries(tensors).map(([name, [shape, values]]) => ({
    name,
    shape,
    dtype: "F32" as const,
    data: Float32Array.from(values),
  }));
  await writeSafetensors(files, "x", list, { metadata });
  return files;
}

const failure = (promise: Promise<unknown>): Promise<LongtailError> =>
  promise.then(
    () => {
      throw new Error("nothing was thrown");
    },
    (error) => error,
  );

const count = (n: number, from = 1) => Float32Array.from({ length: n }, (_, i) => from + i);

const layer = (rank: number, outputs: number, inputs: number, alpha: number, from = 1): LoraLayer => ({
  rank,
  inputs,
  outputs,
  down: count(rank * inputs, from),
  up: count(outputs * rank, from + 100),
  scale: alpha / rank,
});

const dora = (plain: LoraLayer): LoraLayer => ({ ...plain, magnitude: count(plain.outputs, 7) });

/** scale · up · down, row-major. */
function change({ rank, inputs, outputs, down, up, scale }: LoraLayer): number[] {
  const out: number[] = [];
  for (let i = 0; i < outputs; i++) {
    for (let j = 0; j < inputs; j++) {
      let sum = 0;
      for (let k = 0; k < rank; k++) sum += up[i * rank + k]! * down[k * inputs + j]!;
      out.push(scale * sum);
    }
  }
  return out;
}

/** Every layer of a model of width 4 that a single and a double block have, with ranks and alphas of their own. */
function blocks(): Map<string, LoraLayer> {
  const layers = new Map<string, LoraLayer>();
  for (const [i, name] of ["attn.to_q", "attn.to_k", "attn.to_v"].entries()) {
    layers.set(`transformer_blocks.0.${name}`, layer(2, 4, 4, 3, i));
    layers.set(`single_transformer_blocks.1.${name}`, layer(2, 4, 4, 3, 2 * i));
  }
  layers.set("single_transformer_blocks.1.proj_mlp", layer(2, 16, 4, 3, 9));
  layers.set("transformer_blocks.0.attn.to_out.0", layer(3, 4, 4, 1));
  layers.set("norm_out.linear", layer(1, 8, 4, 1));
  layers.set("proj_out", layer(1, 5, 4, 2));
  return layers;
}

describe("a file that was written", () => {
  it("comes back the same in every style", async () => {
    const layers = blocks();
    const writers = { diffusers: writeLora, peft: writePeft, kohya: writeKohya, onetrainer: writeOneTrainer };
    for (const [style, write] of Object.entries(writers)) {
      const files = new MemoryFiles();
      await write(files, "x/a.safetensors", layers);
      const back = await readLora(files, "x/a.safetensors");
      expect(back.style).toBe(style);
      expect(back.kind).toBe("lora");
      expect(new Map([...back.layers].sort()), style).toEqual(new Map([...layers].sort()));
    }
  });

  it("comes back with its magnitudes where it is a DoRA", async () => {
    const layers = new Map([...blocks()].map(([module, plain]) => [module, dora(plain)]));
    for (const write of [writeLora, writePeft, writeKohya, writeOneTrainer]) {
      const files = new MemoryFiles();
      await write(files, "x/a.safetensors", layers);
      const back = await readLora(files, "x/a.safetensors");
      expect(back.kind).toBe("dora");
      expect(new Map([...back.layers].sort())).toEqual(new Map([...layers].sort()));
    }
    const files = new MemoryFiles();
    await writeKohya(files, "k", layers);
    const file = await Safetensors.open(files, "k");
    expect(file.info("lora_unet_double_blocks_0_img_attn_qkv.dora_scale").shape).toEqual([12, 1]);
    await writeLora(files, "d", layers);
    expect((await Safetensors.open(files, "d")).info("transformer.proj_out.lora_magnitude_vector").shape).toEqual([5]);
  });

  it("keeps what it does where parts of a matrix differ in rank, in scale, or are missing", async () => {
    const layers = new Map([
      ["single_transformer_blocks.0.attn.to_k", layer(1, 2, 2, 3)],
      ["single_transformer_blocks.0.proj_mlp", layer(3, 8, 2, 2, 5)],
    ]);
    const files = new MemoryFiles();
    const { rescaled } = await writeKohya(files, "x", layers);
    expect(rescaled).toEqual(["single_transformer_blocks.0.proj_mlp"]);
    const file = await Safetensors.open(files, "x");
    const stem = "lora_unet_single_blocks_0_linear1";
    expect(file.info(`${stem}.lora_down.weight`).shape).toEqual([12, 2]);
    expect(file.info(`${stem}.lora_up.weight`).shape).toEqual([14, 12]);
    const back = (await readLora(files, "x")).layers;
    expect([...back.keys()].sort()).toEqual([...layers.keys()].sort());
    for (const [module, before] of layers) {
      const after = change(back.get(module)!);
      change(before).forEach((value, i) => expect(after[i]! / value).toBeCloseTo(1, 6));
    }
  });

  it("shares one down factor between query, key and value where they have one", () => {
    const shared = { down: count(6), rank: 2, inputs: 3, outputs: 3, scale: 0.5 };
    const names = ["to_q", "to_k", "to_v"].map((name) => `transformer_blocks.2.attn.${name}`);
    const layers = new Map(names.map((name, i) => [name, { ...shared, up: count(6, 10 * i + 1) }]));
    const [[stem, joined]] = [...joinFused(layers).layers] as [[string, LoraLayer]];
    expect(stem).toBe("lora_unet_double_blocks_2_img_attn_qkv");
    expect(joined).toMatchObject({ rank: 2, outputs: 9, scale: 0.5 });
    expect([...joined.up]).toEqual([...count(6, 1), ...count(6, 11), ...count(6, 21)]);
  });

  it("is refused in kohya's style where a module has no place there or a DoRA is not whole", async () => {
    const strange = new Map([["some.other", layer(1, 2, 2, 1)]]);
    const half = new Map([["transformer_blocks.0.attn.to_q", dora(layer(1, 2, 2, 1))]]);
    for (const [layers, word] of [
      [strange, "some.other"],
      [half, "to_k has no DoRA magnitude"],
    ] as const) {
      const error = await failure(writeKohya(new MemoryFiles(), "x", layers));
      expect(error.code).toBe("E-FILE-018");
      expect(error.message).toContain(word);
    }
  });

  it("says rank-stabilised scaling with the alpha that means the same", async () => {
    const files = new MemoryFiles();
    const layers = new Map([
      ["a", layer(4, 2, 2, 6)],
      ["b", layer(16, 2, 2, 24)],
    ]);
    await writeLora(files, "x", layers, { rankStabilised: true });
    const back = await readLora(files, "x");
    const config = JSON.parse(back.metadata.get("lora_adapter_metadata")!);
    expect(config).toMatchObject({ "transformer.use_rslora": true, "transformer.lora_alpha": 3 });
    expect(config["transformer.alpha_pattern"]).toEqual({ b: 6 });
    for (const [module, { scale }] of layers) expect(back.layers.get(module)!.scale).toBeCloseTo(scale, 12);
  });

  it("gives a module whose name ends another's entries that PEFT cannot mistake", async () => {
    const files = new MemoryFiles();
    const layers = new Map([
      ["proj_out", layer(2, 3, 3, 4)],
      ["single_transformer_blocks.0.proj_out", layer(3, 3, 3, 3)],
      ["x_embedder", layer(3, 3, 3, 3)],
    ]);
    for (const order of [[...layers], [...layers].reverse()]) {
      await writeLora(files, "x", new Map(order));
      const back = await readLora(files, "x");
      expect(new Map([...back.layers].sort())).toEqual(new Map([...layers].sort()));
      const ranks = JSON.parse(back.metadata.get("lora_adapter_metadata")!)["transformer.rank_pattern"];
      const names = Object.keys(ranks);
      if (names.includes("proj_out")) {
        expect(names.indexOf("single_transformer_blocks.0.proj_out")).toBeLessThan(names.indexOf("proj_out"));
      }
    }
  });
});

describe("a file of another program is read", () => {
  const pair = (stem: string, down: string, up: string, outputs: number, inputs = 2): Tensors => ({
    [`${stem}.${down}`]: [[1, inputs], count(inputs)],
    [`${stem}.${up}`]: [[outputs, 1], count(outputs)],
  });

  it("where XLabs, ComfyUI or OneTrainer wrote it", async () => {
    const xlabs = await readLora(
      await fileOf({
        ...pair("double_blocks.3.processor.qkv_lora2", "down.weight", "up.weight", 6),
        ...pair("single_blocks.0.processor.proj_lora", "down.weight", "up.weight", 2),
      }),
      "x",
    );
    expect(xlabs.style).toBe("xlabs");
    expect([...xlabs.layers.keys()].sort()).toEqual([
      "single_transformer_blocks.0.proj_out",
      "transformer_blocks.3.attn.add_k_proj",
      "transformer_blocks.3.attn.add_q_proj",
      "transformer_blocks.3.attn.add_v_proj",
    ]);
    expect([...xlabs.layers.get("transformer_blocks.3.attn.add_v_proj")!.up]).toEqual([5, 6]);
    const comfy = await readLora(
      await fileOf(pair("diffusion_model.double_blocks.0.img_mlp.2", "lora_A.weight", "lora_B.weight", 3)),
      "x",
    );
    expect(comfy.style).toBe("bfl");
    expect([...comfy.layers.keys()]).toEqual(["transformer_blocks.0.ff.net.2"]);
    const one = await readLora(
      await fileOf({
        ...pair("lora_transformer_transformer_blocks_1_attn_to_out_0", "lora_down.weight", "lora_up.weight", 3),
        "lora_transformer_transformer_blocks_1_attn_to_out_0.alpha": [[], [4]],
      }),
      "x",
    );
    expect(one.style).toBe("onetrainer");
    expect(one.layers.get("transformer_blocks.1.attn.to_out.0")!.scale).toBe(4);
  });

  it("where ai-toolkit wrote it in half precision without alphas", async () => {
    const files = new MemoryFiles();
    await writeSafetensors(
      files,
      "x",
      [
        { name: "transformer.proj_out.lora_A.weight", dtype: "F16", shape: [1, 2], data: Float32Array.of(1, 2) },
        { name: "transformer.proj_out.lora_B.weight", dtype: "F16", shape: [2, 1], data: Float32Array.of(3, 4) },
      ],
      { metadata: { name: "a", version: "1.0", software: '{"name": "ai-toolkit"}', format: "pt" } },
    );
    const file = await readLora(files, "x");
    expect(file).toMatchObject({ style: "diffusers", dtype: "F16" });
    expect(change(file.layers.get("proj_out")!)).toEqual([3, 6, 4, 8]);
  });

  it("but not where its DoRA has a magnitude for each input, or lacks the one it promises", async () => {
    const tensors = pair("lora_unet_img_in", "lora_down.weight", "lora_up.weight", 3);
    const error = await failure(
      readLora(
        await fileOf({
          ...tensors,
          "lora_unet_img_in.dora_scale": [
            [1, 2],
            [1, 2],
          ],
        }),
        "x",
      ),
    );
    expect(error.code).toBe("E-FILE-018");
    expect(error.message).toContain("each input");
    const promised = pair("transformer.proj_out", "lora_A.weight", "lora_B.weight", 3);
    const metadata = { lora_adapter_metadata: JSON.stringify({ "transformer.use_dora": true }) };
    expect((await failure(readLora(await fileOf(promised, metadata), "x"))).message).toContain("magnitude is missing");
  });
});

describe("a LoKr", () => {
  const kronecker = (): LokrLayer => ({
    inputs: 6,
    outputs: 12,
    first: { rows: 3, columns: 2, whole: count(6) },
    second: { rows: 4, columns: 3, rank: 2, left: count(8, 3), right: count(6, 2) },
    scale: 1.5,
  });
  const whole = (): LokrLayer => ({
    inputs: 6,
    outputs: 12,
    first: { rows: 3, columns: 2, whole: count(6) },
    second: { rows: 4, columns: 3, whole: count(12) },
    scale: 1,
  });
  const layers = () =>
    new Map([
      ["transformer_blocks.0.attn.to_q", kronecker()],
      ["transformer_blocks.0.attn.to_k", whole()],
    ]);

  it("comes back the same with LyCORIS' names and from PEFT's form", async () => {
    const files = new MemoryFiles();
    await writeLycoris(files, "l", layers());
    const back = await readAdapter(files, "l");
    expect(back).toMatchObject({ kind: "lokr", style: "lycoris" });
    expect(back.lokr).toEqual(layers());
    expect((await failure(readLora(files, "l"))).code).toBe("E-FILE-018");

    const square = new Map([...layers()].map(([module, one]) => [module, { ...one, scale: 0.5 }]));
    // 12 = 3 · 4 and 6 = 2 · 3 are what PEFT finds nearest to a square.
    await writePeftLokr(files, "p/adapter_model.safetensors", square);
    const peft = await readAdapter(files, "p/adapter_model.safetensors");
    expect(peft.style).toBe("peft");
    expect(new Map([...peft.lokr].sort())).toEqual(new Map([...square].sort()));
  });

  it("carries a scale in its first matrix where LyCORIS would know none", async () => {
    const files = new MemoryFiles();
    await writeLycoris(files, "l", new Map([["proj_out", { ...whole(), scale: 2 }]]));
    const back = (await readAdapter(files, "l")).lokr.get("proj_out")!;
    expect(back.scale).toBe(1);
    expect((back.first as { whole: Float32Array }).whole).toEqual(count(6).map((value) => 2 * value));
  });

  it("of a fused matrix is taken apart where the first matrix shares out, else refused", async () => {
    const stem = "lora_unet_double_blocks_0_img_attn_qkv";
    const tensors: Tensors = {
      [`${stem}.lokr_w1`]: [[3, 2], count(6)],
      [`${stem}.lokr_w2`]: [[2, 1], count(2)],
    };
    const { lokr } = await readAdapter(await fileOf(tensors), "x");
    expect([...lokr.keys()].map((name) => name.slice(-4))).toEqual(["to_q", "to_k", "to_v"]);
    expect(lokr.get("transformer_blocks.0.attn.to_k")!.first).toEqual({
      rows: 1,
      columns: 2,
      whole: Float32Array.of(3, 4),
    });
    tensors[`${stem}.lokr_w1`] = [[2, 2], count(4)];
    tensors[`${stem}.lokr_w2`] = [[3, 1], count(3)];
    expect((await failure(readAdapter(await fileOf(tensors), "x"))).code).toBe("E-FILE-018");
  });

  it("is refused where a matrix is missing, comes twice or does not fit", async () => {
    const w1: Tensors = { "lycoris_proj_out.lokr_w1": [[1, 1], [1]] };
    for (const more of [
      {},
      {
        "lycoris_proj_out.lokr_w2_a": [
          [2, 1],
          [1, 1],
        ],
      },
      {
        "lycoris_proj_out.lokr_w2_a": [
          [2, 1],
          [1, 1],
        ],
        "lycoris_proj_out.lokr_w2_b": [
          [2, 1],
          [1, 1],
        ],
      },
      { "lycoris_proj_out.lokr_w2": [[1, 1], [1]], "lycoris_proj_out.lokr_w2_a": [[1, 1], [1]] },
      { "lycoris_proj_out.lokr_w2": [[1, 1], [1]], "lycoris_proj_out.lora_down.weight": [[1, 1], [1]] },
    ] as Tensors[]) {
      expect((await failure(readAdapter(await fileOf({ ...w1, ...more }), "x"))).code).toBe("E-FILE-018");
    }
  });

  it("has its sizes from the same factorisation as PEFT's", () => {
    expect([factorisation(128, -1), factorisation(127, -1), factorisation(128, 4), factorisation(250, 8)]).toEqual([
      [8, 16],
      [1, 127],
      [4, 32],
      [5, 50],
    ]);
  });
});

describe("the pair of files", () => {
  it("is written whole, with training facts and hashes that hold", async () => {
    const files = new MemoryFiles();
    const pair = await writeLoraPair(files, "out/first", blocks(), FACTS);
    expect(pair).toMatchObject({ diffusers: "out/first.safetensors", kohya: "out/first.kohya.safetensors" });
    expect([...files.content.keys()].sort()).toEqual([pair.kohya, pair.diffusers]);
    for (const path of [pair.diffusers, pair.kohya]) {
      const { metadata } = await readLora(files, path);
      const bytes = await files.readBytes(path);
      const start = 8 + Number(new DataView(bytes.slice(0, 8).buffer).getBigUint64(0, true));
      const hash = createHash("sha256").update(bytes.subarray(start)).digest("hex");
      expect(Object.fromEntries(metadata)).toMatchObject({
        ss_network_module: "networks.lora_flux",
        ss_network_dim: "Dynamic",
        ss_base_model_version: "flux1",
        ss_learning_rate: "1e-05",
        ss_resolution: "(64, 64)",
        ss_seed: "7",
        ss_tag_frequency: '{"icons":{"sari":2,"naïve «taco»":1}}',
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": "flux-1/lora",
        "modelspec.resolution": "64x64",
        "modelspec.trigger_phrase": "noto icon",
        "modelspec.hash_sha256": `0x${hash}`,
        sshs_model_hash: hash,
      });
      expect([...metadata.keys()].some((key) => key.includes("session"))).toBe(false);
    }
  });

  it("leaves an earlier pair alone where the second file cannot be written", async () => {
    const files = new MemoryFiles();
    await writeLoraPair(files, "first", blocks(), FACTS);
    const before = new Map(files.content);
    const write = files.writeAtomic.bind(files);
    let calls = 0;
    files.writeAtomic = async (path, chunks) => {
      if (++calls === 2) throw new Error("disk full");
      await write(path, chunks);
    };
    const other = new Map([...blocks()].slice(0, 3));
    expect((await failure(writeLoraPair(files, "first", other, FACTS))).message).toBe("disk full");
    expect(files.content).toEqual(before);
  });

  it("acts as trained wherever alpha is read, or is not", async () => {
    const files = new MemoryFiles();
    const scaleIn = async (layers: Map<string, LoraLayer>) => {
      await writeLoraPair(files, "p", layers, FACTS);
      const file = await Safetensors.open(files, "p.safetensors");
      const place = file.names().some((name) => name.endsWith(".alpha")) ? "tensors" : "metadata";
      expect(place === "tensors" && file.metadata.has("lora_adapter_metadata")).toBe(false);
      return { place, layers: (await readLora(files, "p.safetensors")).layers };
    };
    const named = (...layers: LoraLayer[]) =>
      new Map(layers.map((one, i) => [`transformer_blocks.${i}.ff.net.2`, one]));
    expect((await scaleIn(named(layer(2, 3, 3, 2)))).place).toBe("metadata");
    expect((await scaleIn(named(layer(2, 3, 3, 4), layer(1, 3, 3, 4)))).place).toBe("tensors");
    const mixed = named(layer(2, 3, 3, 4), layer(1, 3, 3, 1));
    const folded = await scaleIn(mixed);
    expect(folded.place).toBe("metadata");
    for (const [module, one] of folded.layers) {
      expect(one.scale).toBe(1);
      expect(change(one)).toEqual(change(mixed.get(module)!));
    }
  });

  it("has OneTrainer's keys in the second file where a DoRA does not fill fused matrices", async () => {
    const files = new MemoryFiles();
    const layers = new Map([["single_transformer_blocks.0.attn.to_q", dora(layer(1, 2, 2, 1))]]);
    const { notes } = await writeLoraPair(files, "d", layers, FACTS);
    expect(notes.join()).toContain("OneTrainer");
    expect((await readLora(files, "d.kohya.safetensors")).style).toBe("onetrainer");
  });

  it("hashes the 64 KiB at 1 MiB of the file as the old hash does", () => {
    const data = new Float32Array(400_000).fill(0.25);
    const tensors = [{ name: "a", dtype: "F32" as const, shape: [data.length], data }];
    const plain = fileHashes(tensors, { ss_seed: "1" });
    const titled = fileHashes(tensors, { ss_seed: "1", title: "not hashed" });
    expect(plain).toEqual(titled);
    const bytes = new Uint8Array(0x10000);
    new Float32Array(bytes.buffer).fill(0.25);
    expect(plain.legacy).toBe(createHash("sha256").update(bytes).digest("hex").slice(0, 8));
  });
});

describe("a hostile file", () => {
  it("of a million keys is refused in seconds, with a few of them named", async () => {
    const sorted = sortLoraKeys(Array.from({ length: 1_000_000 }, (_, i) => `transformer.k${i}.lora_C.weight`));
    expect(sorted.unknown.length).toBe(1_000_000);
    // The whole path on fewer keys: parsing the header is the slow part, and is tested with the container.
    const names = Array.from({ length: 50_000 }, (_, i) => `k${i}`);
    const files = await fileOf(Object.fromEntries(names.map((name) => [name, [[0], []]])));
    const error = await failure(readLora(files, "x"));
    expect(error.code).toBe("E-FILE-017");
    expect(error.message).toContain("50000 keys");
    expect(error.message.length).toBeLessThan(2000);
  });

  it("with values that are not finite is refused by name, unless a tool asks to see it", async () => {
    const tensors: Tensors = {
      "transformer.proj_out.lora_A.weight": [
        [1, 2],
        [1, 2],
      ],
      "transformer.proj_out.lora_B.weight": [
        [2, 1],
        [1, Number.NaN],
      ],
    };
    const error = await failure(readLora(await fileOf(tensors), "x"));
    expect(error.code).toBe("E-FILE-018");
    expect(error.message).toContain("transformer.proj_out.lora_B.weight");
    expect((await readLora(await fileOf(tensors), "x", { allowNonFinite: true })).layers.size).toBe(1);
  });

  it("that names a layer twice in two styles is refused", async () => {
    const one = (stem: string, a: string, b: string): Tensors => ({
      [`${stem}.${a}.weight`]: [[1, 1], [1]],
      [`${stem}.${b}.weight`]: [[1, 1], [1]],
    });
    const tensors = {
      ...one("transformer.x_embedder", "lora_A", "lora_B"),
      ...one("lora_unet_img_in", "lora_down", "lora_up"),
    };
    const error = await failure(readLora(await fileOf(tensors), "x"));
    expect(error.code).toBe("E-FILE-018");
    expect(error.message).toContain("two sets of factors");
  });

  it("with a rank of zero, a factor of three dimensions or a long alpha is refused", async () => {
    const stem = "lora_unet_img_in";
    for (const tensors of [
      { [`${stem}.lora_down.weight`]: [[0, 2], []], [`${stem}.lora_up.weight`]: [[2, 0], []] },
      {
        [`${stem}.lora_down.weight`]: [
          [1, 2, 1],
          [1, 2],
        ],
        [`${stem}.lora_up.weight`]: [
          [2, 1],
          [1, 2],
        ],
      },
      {
        [`${stem}.lora_down.weight`]: [
          [1, 2],
          [1, 2],
        ],
        [`${stem}.lora_up.weight`]: [
          [2, 1],
          [1, 2],
        ],
        [`${stem}.alpha`]: [[2], [1, 2]],
      },
      { [`${stem}.alpha`]: [[], [1]] },
    ] as Tensors[]) {
      expect((await failure(readLora(await fileOf(tensors), "x"))).code).toBe("E-FILE-018");
    }
  });
});
