// Adapter files of FLUX.2: its own modules in every style, and which family a file is for where both call layers alike.

import { describe, expect, it } from "vitest";
import { type LoraLayer, readLora, writeKohya, writeLora, writeOneTrainer, writePeft } from "../../src/formats/lora.ts";
import { adapterFamily, stemOf } from "../../src/formats/lora_names.ts";
import { portableScales } from "../../src/formats/lora_write.ts";
import { Safetensors } from "../../src/formats/safetensors.ts";
import { FLUX_PRESETS, fluxModules, modulesOfTensor } from "../../src/models/flux/keys.ts";
import { flux2Config } from "../../src/models/flux2/config.ts";
import { flux2Modules } from "../../src/models/flux2/keys.ts";
import { MemoryFiles } from "../helpers/files.ts";
import { count, fileOf, layer } from "../helpers/small_adapters.ts";

const config = flux2Config(
  {
    num_layers: 1,
    num_single_layers: 1,
    num_attention_heads: 1,
    attention_head_dim: 8,
    axes_dims_rope: [2, 2, 2, 2],
    in_channels: 8,
    joint_attention_dim: 12,
  },
  "a test",
);
const modules = flux2Modules(config);

/** Every layer of the model, of rank 2 and alpha 1. */
const everyLayer = (): Map<string, LoraLayer> =>
  new Map([...modules].map(([module, { outputs, inputs }], i) => [module, layer(2, outputs, inputs, 1, i + 1)]));

describe("an adapter of FLUX.2", () => {
  it("comes back the same in every style, with every layer", async () => {
    const layers = everyLayer();
    const writers = { diffusers: writeLora, peft: writePeft, kohya: writeKohya, onetrainer: writeOneTrainer };
    for (const [style, write] of Object.entries(writers)) {
      const files = new MemoryFiles();
      await write(files, "x/a.safetensors", layers);
      const back = await readLora(files, "x/a.safetensors");
      expect(back.style).toBe(style);
      expect(new Map([...back.layers].sort()), style).toEqual(new Map([...layers].sort()));
    }
  });

  it("keeps the single blocks' fused matrices whole in kohya's keys and joins the double blocks' query, key and value", async () => {
    const files = new MemoryFiles();
    await writeKohya(files, "x", everyLayer());
    const file = await Safetensors.open(files, "x");
    const { width, inner } = config;
    const up = (stem: string) => file.info(`lora_unet_${stem}.lora_up.weight`).shape;
    expect(up("single_blocks_0_linear1")).toEqual([3 * width + 2 * inner, 2]);
    expect(up("single_blocks_0_linear2")).toEqual([width, 2]);
    expect(up("double_blocks_0_img_attn_qkv")).toEqual([3 * width, 6]);
    expect(up("double_blocks_0_txt_mlp_0")).toEqual([2 * inner, 2]);
    expect(up("single_stream_modulation_lin")).toEqual([3 * width, 2]);
  });

  it("is read in ComfyUI's keys, where names alone do not tell it from FLUX.1's", async () => {
    const { width, inner } = config;
    const pair = (path: string, outputs: number, inputs: number) => ({
      [`diffusion_model.${path}.lora_A.weight`]: [[2, inputs], count(2 * inputs)] as [number[], Float32Array],
      [`diffusion_model.${path}.lora_B.weight`]: [[outputs, 2], count(2 * outputs)] as [number[], Float32Array],
    });
    const read = async (tensors: ReturnType<typeof pair>) =>
      [...(await readLora(await fileOf(tensors), "x")).layers.keys()].sort();
    const [double, single] = ["transformer_blocks.0.", "single_transformer_blocks.0."];
    const qkv = ["attn.to_k", "attn.to_q", "attn.to_v"];
    expect(
      await read({
        ...pair("single_blocks.0.linear1", 3 * width + 2 * inner, width),
        ...pair("double_blocks.0.img_attn.qkv", 3 * width, width),
        ...pair("double_blocks.0.txt_mlp.2", width, inner),
      }),
    ).toEqual([`${single}attn.to_qkv_mlp_proj`, ...qkv.map((name) => double + name), `${double}ff_context.linear_out`]);
    expect(await read(pair("single_blocks.0.linear2", width, width + inner))).toEqual([`${single}attn.to_out`]);
    expect(await read(pair("single_blocks.0.linear2", width, 5 * width))).toEqual([`${single}proj_out`]);
    expect(await read(pair("double_blocks.0.img_mlp.0", 2 * inner, width))).toEqual([`${double}ff.linear_in`]);
    expect(await read(pair("double_blocks.0.img_mlp.0", 4 * width, width))).toEqual([`${double}ff.net.0.proj`]);
    expect(await read(pair("double_blocks.0.img_mlp.2", width, 4 * width))).toEqual([`${double}ff.net.2`]);
    expect(await read(pair("single_blocks.0.linear1", 7 * width, width))).toEqual(
      [...qkv, "proj_mlp"].map((name) => single + name),
    );
  });

  it("is known by any layer that FLUX.2 alone has, in every style, and FLUX.1's by none", () => {
    const named = (names: Iterable<string>, style: (name: string) => string) =>
      adapterFamily(new Map([...names].map((name) => [style(name), { shape: [1, 1] }])));
    const first = fluxModules({ ...FLUX_PRESETS["flux-dev"]!, doubleBlocks: 1, singleBlocks: 1 });
    for (const style of [
      (name: string) => `transformer.${name}.lora_A.weight`,
      (name: string) => `base_model.model.${name}.lora_A.weight`,
      (name: string) => `lora_transformer_${name.replaceAll(".", "_")}.lora_down.weight`,
      (name: string) => `lycoris_${name.replaceAll(".", "_")}.lokr_w1`,
    ]) {
      for (const name of modules.keys()) {
        if (!first.has(name)) expect(named([name], style), style(name)).toBe("flux2");
      }
      for (const name of first.keys()) expect(named([name], style), style(name)).toBe("flux1");
    }
    const kohya = (name: string) => `${stemOf(name)!.stem}.lora_down.weight`;
    expect(named(["single_stream_modulation.linear"], kohya)).toBe("flux2");
    expect(named(["single_transformer_blocks.0.norm.linear"], kohya)).toBe("flux1");
  });

  it("has scales folded into its values, because diffusers takes no alpha tensors there", () => {
    expect(portableScales(everyLayer())).toBe("folded");
    expect(portableScales(new Map([["transformer_blocks.0.ff.net.2", layer(2, 4, 4, 1)]]))).toBe("tensors");
  });

  it("finds its layers in a base file of the original layout", () => {
    const at = (name: string) => modulesOfTensor(`model.diffusion_model.${name}.weight`, "flux2").map((r) => r.module);
    expect(at("single_blocks.3.linear1")).toEqual(["single_transformer_blocks.3.attn.to_qkv_mlp_proj"]);
    expect(at("double_blocks.0.txt_attn.qkv").length).toBe(3);
    expect(at("double_stream_modulation_img.lin")).toEqual(["double_stream_modulation_img.linear"]);
    expect(at("final_layer.adaLN_modulation.1")).toEqual(["norm_out.linear"]);
  });
});
