// LoRA and DoRA files in the styles of other programs, read and written: what comes back, and what is refused.

import { describe, expect, it } from "vitest";
import { type LoraLayer, readLora, writeKohya, writeLora, writeOneTrainer, writePeft } from "../../src/formats/lora.ts";
import { joinFused } from "../../src/formats/lora_kohya.ts";
import { Safetensors } from "../../src/formats/safetensors.ts";
import { writeSafetensors } from "../../src/formats/safetensors_write.ts";
import { MemoryFiles } from "../helpers/files.ts";
import { blocks, change, count, dora, failure, fileOf, layer, type Tensors } from "../helpers/small_adapters.ts";

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
