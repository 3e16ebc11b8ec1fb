// LoRA files: fused layers of kohya's style, scales of all kinds, and files that are refused.

import { describe, expect, it } from "vitest";
import type { LongtailError } from "../../src/base/errors.ts";
import { type LoraLayer, readLora, writeLora } from "../../src/formats/lora.ts";
import { Safetensors } from "../../src/formats/safetensors.ts";
import { writeSafetensors } from "../../src/formats/safetensors_write.ts";
import { MemoryFiles } from "../helpers/files.ts";

type Tensors = Record<string, [number[], ArrayLike<number>]>;

async function fileOf(tensors: Tensors, metadata?: Record<string, string>): Promise<MemoryFiles> {
  const files = new MemoryFiles();
  const list = Object.entries(tensors).map(([name, [shape, values]]) => ({
    name,
    shape,
    dtype: "F32" as const,
    data: Float32Array.from(values),
  }));
  await writeSafetensors(files, "x/lora.safetensors", list, { metadata });
  return files;
}

const read = (files: MemoryFiles) => readLora(files, "x/lora.safetensors");

const failure = (promise: Promise<unknown>): Promise<LongtailError> =>
  promise.then(
    () => {
      throw new Error("nothing was thrown");
    },
    (error) => error,
  );

const count = (n: number, from = 1) => Float32Array.from({ length: n }, (_, i) => from + i);

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

/** The fused change, rows `from` to `to`. */
function rows(tensors: Tensors, stem: string, from: number, to: number): number[] {
  const [downShape, down] = tensors[`${stem}.lora_down.weight`]!;
  const [, up] = tensors[`${stem}.lora_up.weight`]!;
  const [rank, inputs] = downShape as [number, number];
  const scale = (tensors[`${stem}.alpha`]?.[1][0] ?? rank) / rank;
  const part = Float32Array.from(up).subarray(from * rank, to * rank);
  return change({ rank, inputs, outputs: to - from, down: Float32Array.from(down), up: part, scale });
}

describe("a kohya file", () => {
  it("gives query, key and value their rows of a shared factor", async () => {
    const stem = "lora_unet_double_blocks_3_txt_attn_qkv";
    const tensors: Tensors = {
      [`${stem}.lora_down.weight`]: [[3, 4], count(12)],
      [`${stem}.lora_up.weight`]: [[12, 3], count(36)],
      [`${stem}.alpha`]: [[], [6]],
    };
    const { layers, style } = await read(await fileOf(tensors));
    expect(style).toBe("kohya");
    ["add_q_proj", "add_k_proj", "add_v_proj"].forEach((name, i) => {
      const layer = layers.get(`transformer_blocks.3.attn.${name}`)!;
      expect(layer).toMatchObject({ rank: 3, scale: 2, inputs: 4, outputs: 4 });
      expect(change(layer)).toEqual(rows(tensors, stem, 4 * i, 4 * i + 4));
    });
  });

  it("splits the rank as well where the up factor is block-diagonal, and leaves out parts without values", async () => {
    const stem = "lora_unet_single_blocks_0_linear1";
    // Width 2, MLP 8: rows 2 + 2 + 2 + 8, two columns a part; the MLP's part is empty.
    const up = new Float32Array(14 * 8);
    for (let row = 0; row < 6; row++)
      for (let k = 0; k < 2; k++) up[row * 8 + 2 * Math.floor(row / 2) + k] = row + k + 1;
    const down = count(16);
    down.fill(0, 12);
    const tensors: Tensors = {
      [`${stem}.lora_down.weight`]: [[8, 2], down],
      [`${stem}.lora_up.weight`]: [[14, 8], up],
      [`${stem}.alpha`]: [[], [4]],
    };
    const { layers } = await read(await fileOf(tensors));
    expect([...layers.keys()]).toEqual(
      ["to_q", "to_k", "to_v"].map((name) => `single_transformer_blocks.0.attn.${name}`),
    );
    [...layers.values()].forEach((layer, i) => {
      expect(layer).toMatchObject({ rank: 2, scale: 0.5, inputs: 2, outputs: 2 });
      expect(change(layer)).toEqual(rows(tensors, stem, 2 * i, 2 * i + 2));
    });
  });

  it("shares linear1's rows out as width, width, width and the rest", async () => {
    const stem = "lora_unet_single_blocks_11_linear1";
    const tensors: Tensors = {
      [`${stem}.lora_down.weight`]: [
        [1, 2],
        [1, 2],
      ],
      [`${stem}.lora_up.weight`]: [[14, 1], count(14)],
    };
    const { layers } = await read(await fileOf(tensors));
    expect(layers.get("single_transformer_blocks.11.proj_mlp")!.up).toEqual(count(8, 7));
    expect(layers.get("single_transformer_blocks.11.attn.to_v")!.up).toEqual(count(2, 5));
  });

  it("has the final modulation's halves in the other order, and names the outer layers", async () => {
    const tensors: Tensors = {};
    for (const stem of [
      "final_layer_adaLN_modulation_1",
      "final_layer_linear",
      "time_in_in_layer",
      "vector_in_out_layer",
      "img_in",
    ]) {
      tensors[`lora_unet_${stem}.lora_down.weight`] = [
        [1, 2],
        [1, 2],
      ];
      tensors[`lora_unet_${stem}.lora_up.weight`] = [[4, 1], count(4)];
    }
    const { layers } = await read(await fileOf(tensors));
    expect([...layers.keys()].sort()).toEqual([
      "norm_out.linear",
      "proj_out",
      "time_text_embed.text_embedder.linear_2",
      "time_text_embed.timestep_embedder.linear_1",
      "x_embedder",
    ]);
    expect([...layers.get("norm_out.linear")!.up]).toEqual([3, 4, 1, 2]);
    expect([...layers.get("proj_out")!.up]).toEqual([1, 2, 3, 4]);
  });
});

describe("a diffusers file's metadata", () => {
  const pair = (module: string, rank: number): Tensors => ({
    [`transformer.${module}.lora_A.weight`]: [[rank, 2], count(2 * rank)],
    [`transformer.${module}.lora_B.weight`]: [[3, rank], count(3 * rank)],
  });
  const with_ = (fields: unknown) => ({ lora_adapter_metadata: JSON.stringify(fields) });

  it("scales single modules by alpha_pattern and all by √rank where use_rslora says so", async () => {
    const tensors = { ...pair("transformer_blocks.0.attn.to_q", 4), ...pair("proj_out", 4) };
    const fields = { "transformer.lora_alpha": 8, "transformer.alpha_pattern": { to_q: 2 } };
    const plain = (await read(await fileOf(tensors, with_(fields)))).layers;
    expect([...plain.values()].map((layer) => layer.scale).sort()).toEqual([0.5, 2]);
    const stabilised = (await read(await fileOf(tensors, with_({ ...fields, "transformer.use_rslora": true })))).layers;
    expect([...stabilised.values()].map((layer) => layer.scale).sort()).toEqual([1, 4]);
  });

  it("is refused where it asks for what is not read, or is no configuration", async () => {
    for (const fields of [
      { "transformer.use_dora": true },
      { "transformer.peft_type": "LOHA" },
      { "transformer.lora_alpha": "8" },
      [],
      null,
    ]) {
      expect((await failure(read(await fileOf(pair("proj_out", 1), with_(fields))))).code, JSON.stringify(fields)).toBe(
        "E-FILE-018",
      );
    }
    expect((await failure(read(await fileOf(pair("proj_out", 1), { lora_adapter_metadata: "{" })))).code).toBe(
      "E-FILE-018",
    );
  });
});

describe("a LoRA file is refused", () => {
  it("with the list of its keys where they belong to no layer", async () => {
    const a: [number[], number[]] = [[1, 1], [1]];
    for (const keys of [
      [
        "lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_down.weight",
        "lora_unet_img_in.lora_down.weight",
        "lora_unet_img_in.lora_up.weight",
      ],
      ["lora_unet_double_blocks_0_constructor.lora_down.weight"],
      ["transformer.x.lora_A.weight", "transformer.x.lora_B.weight", "text_encoder.y.lora_A.weight"],
      ["transformer.x.lora_A.weight", "transformer.x.lora_B.weight", "transformer.x.lora_B.bias"],
      ["double_blocks.0.processor.qkv_lora3.down.weight"],
      ["lycoris_constructor.lokr_w1"],
    ]) {
      const error = await failure(read(await fileOf(Object.fromEntries(keys.map((key) => [key, a])))));
      expect(error.code, keys[0]).toBe("E-FILE-017");
      expect(keys.some((key) => error.message.includes(key))).toBe(true);
    }
    expect((await failure(read(await fileOf({})))).code).toBe("E-FILE-017");
  });

  it("where a factor is missing or the two do not fit together", async () => {
    const name = "transformer.proj_out";
    for (const tensors of [
      {
        [`${name}.lora_A.weight`]: [
          [1, 2],
          [1, 2],
        ],
      },
      {
        [`${name}.lora_A.weight`]: [
          [1, 2],
          [1, 2],
        ],
        [`${name}.lora_B.weight`]: [[3, 2], count(6)],
      },
      { [`${name}.lora_A.weight`]: [[2], [1, 2]], [`${name}.lora_B.weight`]: [[3, 2], count(6)] },
      {
        "lora_unet_img_in.lora_down.weight": [
          [1, 2],
          [1, 2],
        ],
        "lora_unet_img_in.alpha": [[], [1]],
      },
      {
        "lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight": [
          [1, 2],
          [1, 2],
        ],
        "lora_unet_double_blocks_0_img_attn_qkv.lora_up.weight": [[4, 1], count(4)],
      },
    ] as Tensors[]) {
      const error = await failure(read(await fileOf(tensors)));
      expect(error.code).toBe("E-FILE-018");
      expect(error.message).toContain(Object.keys(tensors)[0]!.replace(/\.lora_.*/, ""));
    }
  });
});

describe("a written LoRA", () => {
  const layer = (rank: number, alpha: number): LoraLayer => ({
    rank,
    inputs: 2,
    outputs: 3,
    down: count(2 * rank),
    up: count(3 * rank),
    scale: alpha / rank,
  });

  it("comes back as it was, other ranks and alphas of single layers included", async () => {
    const layers = new Map([
      ["a.b", layer(3, 5)],
      ["a.c", layer(2, 5)],
      ["d", layer(3, 1)],
    ]);
    for (const fields of ["full", "portable"] as const) {
      const files = new MemoryFiles();
      await writeLora(files, "x/lora.safetensors", layers, { fields, metadata: { "longtail.energy_kept": "0.5" } });
      const back = await read(files);
      expect(back.layers).toEqual(layers);
      expect(back.metadata.get("longtail.energy_kept")).toBe("0.5");
      const config = JSON.parse(back.metadata.get("lora_adapter_metadata")!);
      expect(config["transformer.rank_pattern"]).toEqual({ "a.c": 2 });
      expect(config["transformer.alpha_pattern"]).toEqual({ d: 1 });
      expect(config["transformer.target_modules"]).toEqual(["a.b", "a.c", "d"]);
      expect("transformer.kasa_config" in config).toBe(fields === "full");
    }
  });

  it("can be stored in half precision", async () => {
    const files = new MemoryFiles();
    await writeLora(files, "x/lora.safetensors", new Map([["a", layer(1, 1)]]), { dtype: "BF16" });
    const file = await Safetensors.open(files, "x/lora.safetensors");
    expect(file.info("transformer.a.lora_A.weight").dtype).toBe("BF16");
    expect((await read(files)).layers.get("a")!.up).toEqual(count(3));
  });

  it("is refused without layers, or where values and sizes differ", async () => {
    expect((await failure(writeLora(new MemoryFiles(), "x", new Map()))).code).toBe("E-FILE-018");
    const bad = { ...layer(1, 1), inputs: 3 };
    expect((await failure(writeLora(new MemoryFiles(), "x", new Map([["a", bad]])))).code).toBe("E-FILE-018");
  });
});
