// What a place with weights is: folders, files, prefixes, configurations that are there, missing or wrong, public models by
// their sizes and names, and everything that is refused by its own name.

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import type { RangedSource } from "../../src/base/tensor_source.ts";
import { writeSafetensors } from "../../src/formats/safetensors_write.ts";
import { openCheckpoint } from "../../src/models/checkpoint_source.ts";
import { fluxDiffusersMap } from "../../src/models/flux/bfl_keys.ts";
import { FLUX_PRESETS } from "../../src/models/flux/keys.ts";
import { FLUX_VARIANTS, recogniseVariant } from "../../src/models/flux/variants.ts";
import { inferAutoencoder, inferFlux1 } from "../../src/models/inferred_config.ts";
import { tensorsToWrite } from "../../src/models/mapped_source.ts";
import { recognise } from "../../src/models/recognise.ts";
import { MemoryFiles, OWN_FIXTURES } from "../helpers/files.ts";
import { devShapes, dumpSource, originalOf, withPrefix, writeTogether } from "../helpers/original_layout.ts";

const configText = (subject: string) => readFileSync(join(OWN_FIXTURES, subject, "config.json"), "utf8");
const configOf = (subject: string) => JSON.parse(configText(subject)) as Record<string, unknown>;
const USUAL = "diffusion_pytorch_model.safetensors";

async function filesWith(content: Record<string, string>, weights: Record<string, RangedSource>): Promise<MemoryFiles> {
  const files = new MemoryFiles(content);
  for (const [path, source] of Object.entries(weights)) await writeTogether(files, path, source);
  return files;
}

const emptyTensors = (...names: string[]) =>
  names.map((name) => ({ name, dtype: "F32" as const, shape: [1], data: new Float32Array(1) }));

describe("a place with weights", () => {
  it("may be a part of diffusers' layout, the pipeline around it, its file, one of its shards or its index", async () => {
    const source = await dumpSource("flux1_small");
    const files = new MemoryFiles({
      "pipe/model_index.json": '{"_class_name": "FluxPipeline"}',
      "pipe/transformer/config.json": configText("flux1_small"),
    });
    await writeSafetensors(files, `pipe/transformer/${USUAL}`, tensorsToWrite(source), { shardBytes: 400_000 });
    const shard = files.list("pipe/transformer").then((names) => names.find((name) => name.includes("-00002-of-"))!);
    for (const where of [
      "pipe",
      "pipe/",
      "pipe/transformer",
      `pipe/transformer/${USUAL}`,
      `pipe/transformer/${await shard}`,
    ]) {
      const opened = await openCheckpoint(files, where);
      expect([opened.family, opened.layout, opened.configPath], where).toEqual([
        "flux1",
        "diffusers",
        "pipe/transformer/config.json",
      ]);
      expect([...opened.source.names()].length).toBe(80);
      await opened.source.close();
    }
    expect(files.openHandles).toBe(0);
  });

  it("may hold several files of which one fits, or two that nothing tells apart", async () => {
    const flux = await originalOf("flux1_small");
    const files = await filesWith({}, { "dl/flux.safetensors": flux, "dl/ae.safetensors": await originalOf("vae_kl") });
    const config = { json: configOf("flux1_small"), path: "c" };
    expect((await openCheckpoint(files, "dl", { config })).family).toBe("flux1");
    const vae = await openCheckpoint(files, "dl", {
      part: "autoencoder",
      config: { json: configOf("vae_kl"), path: "c" },
    });
    expect(vae.family).toBe("autoencoder");
    await writeTogether(files, "dl/flux2.safetensors", flux);
    await expect(openCheckpoint(files, "dl", { config })).rejects.toThrow(
      /E-FILE-123.*flux\.safetensors, flux2\.safetensors/,
    );
    expect(files.openHandles).toBe(2);
  });

  it("must exist and hold weights", async () => {
    const files = new MemoryFiles({ "a/readme.txt": "x" });
    await expect(openCheckpoint(files, "b.safetensors")).rejects.toThrow(/E-FILE-001/);
    await expect(openCheckpoint(files, "b")).rejects.toThrow(/E-FILE-001.*owner\/name/);
    await expect(openCheckpoint(files, "a")).rejects.toThrow(/E-FILE-123.*readme\.txt/);
    await expect(openCheckpoint(files, "m.gguf")).rejects.toThrow(/E-FILE-122.*GGUF/);
  });
});

describe("the configuration of a checkpoint", () => {
  it("is the one beside it, else that of the model it takes the place of, else what a public size says", async () => {
    const source = await originalOf("flux1_small");
    const beside = await filesWith({ "x/config.json": configText("flux1_small") }, { "x/f.safetensors": source });
    expect((await openCheckpoint(beside, "x/f.safetensors")).configPath).toBe("x/config.json");
    const alone = await filesWith({ "x/config.json": '{"model_type": "other"}' }, { "x/f.safetensors": source });
    const config = { json: configOf("flux1_small"), path: "pipe/transformer/config.json" };
    const opened = await openCheckpoint(alone, "x/f.safetensors", { config });
    expect([opened.configPath, opened.config["axes_dims_rope"]]).toEqual([config.path, [8, 12, 12]]);
    // Sizes of another model, and none that is public: nobody knows the axes.
    const other = { json: { ...config.json, num_layers: 7 }, path: "other" };
    await expect(openCheckpoint(alone, "x/f.safetensors", { config: other })).rejects.toThrow(
      /E-FILE-126.*axes_dims_rope/,
    );
  });

  it("is refused where it contradicts the tensors", async () => {
    const wrong = JSON.stringify({ ...configOf("flux1_small"), num_single_layers: 5 });
    const files = await filesWith({ "x/config.json": wrong }, { "x/f.safetensors": await originalOf("flux1_small") });
    await expect(openCheckpoint(files, "x")).rejects.toThrow(
      /E-FILE-125.*num_single_layers is 5, and the tensors show 2/,
    );
    expect(files.openHandles).toBe(0);
  });

  it("is read from the shapes of FLUX.1 [dev] and of its autoencoder as diffusers writes it", () => {
    const { diffusers } = devShapes();
    const { config, sizes } = inferFlux1(diffusers, "dev");
    expect(config).toMatchObject({
      in_channels: 64,
      num_layers: 19,
      num_single_layers: 38,
      attention_head_dim: 128,
      num_attention_heads: 24,
      joint_attention_dim: 4096,
      pooled_projection_dim: 768,
      guidance_embeds: true,
      axes_dims_rope: [16, 56, 56],
    });
    expect(recogniseVariant(sizes!, [])).toMatchObject({ variant: { id: "flux1-dev" }, certain: false });
    const shapes = new Map<string, number[]>([["decoder.conv_in.weight", [512, 16, 3, 3]]]);
    [512, 512, 256, 128].forEach((width, k) => {
      for (let j = 0; j < 3; j++) shapes.set(`decoder.up_blocks.${k}.resnets.${j}.conv1.weight`, [width, width, 3, 3]);
    });
    shapes.set("decoder.mid_block.attentions.0.to_q.weight", [512, 512]);
    expect(inferAutoencoder(shapes, "ae").config).toMatchObject({
      block_out_channels: [128, 256, 512, 512],
      layers_per_block: 2,
      latent_channels: 16,
      norm_num_groups: 32,
      scaling_factor: 0.3611,
      shift_factor: 0.1159,
      use_quant_conv: false,
      mid_block_add_attention: true,
    });
    expect(() => inferAutoencoder(shapes.set("decoder.conv_in.weight", [512, 4, 3, 3]), "sd")).toThrow(
      /E-FILE-121.*4 latent/,
    );
  });

  it("of FLUX.2 is what diffusers wrote, with it beside the weights or without", async () => {
    const written = configOf("flux2");
    const weights = await dumpSource("flux2");
    const files = await filesWith(
      { "a/config.json": configText("flux2") },
      { "a/f.safetensors": weights, "b/f.safetensors": weights },
    );
    const beside = await openCheckpoint(files, "a");
    expect([beside.family, beside.layout, beside.configPath, beside.variant]).toEqual([
      "flux2",
      "diffusers",
      "a/config.json",
      null,
    ]);
    const { config } = await openCheckpoint(files, "b");
    for (const key of [
      "num_layers",
      "num_single_layers",
      "attention_head_dim",
      "joint_attention_dim",
      "mlp_ratio",
      "axes_dims_rope",
      "guidance_embeds",
    ]) {
      expect(config[key], key).toEqual(written[key]);
    }
  });

  it("does not believe a block's number that cannot be", async () => {
    const { original } = devShapes();
    original.set("double_blocks.4000000000.img_mlp.0.weight", [12288, 3072]);
    expect(() => inferFlux1(new Map([...fluxDiffusersMap(original, "f")].map(([n, t]) => [n, t.shape])), "f")).toThrow(
      /E-FILE-124/,
    );
    const shapes = new Map([
      ["decoder.conv_in.weight", [512, 16, 3, 3]],
      ["decoder.up_blocks.4000000000.resnets.0.conv1.weight", [1, 1, 3, 3]],
    ]);
    expect(() => inferAutoencoder(shapes, "f")).toThrow(/E-FILE-124/);
  });
});

describe("public models", () => {
  it("are told apart by sizes, and those of one size by names in a path or hub id", () => {
    const sizes = (id: string) => FLUX_VARIANTS.find((variant) => variant.id === id)!;
    const cases: [string, string, string, boolean][] = [
      ["flux1-dev", "/models/x.safetensors", "flux1-dev", false],
      ["flux1-dev", "black-forest-labs/FLUX.1-Krea-dev", "flux1-krea", true],
      ["flux1-dev", "models/flux1-dev-kontext_fp8_scaled.safetensors", "flux1-kontext", true],
      ["flux1-dev", "tencent/SRPO/diffusion_pytorch_model.safetensors", "srpo", true],
      ["flux1-schnell", "x", "flux1-schnell", false],
      ["openflux", "ostris/OpenFLUX.1", "openflux", true],
      ["flux1-fill", "x", "flux1-fill", true],
      ["flux1-depth", "black-forest-labs/FLUX.1-Depth-dev", "flux1-depth", true],
      ["flux-mini", "x", "flux-mini", true],
      ["flux1-lite", "Freepik/flux.1-lite-8B", "flux1-lite", true],
      ["flex1-alpha", "ostris/Flex.1-alpha", "flex1-alpha", true],
      ["flex2-preview", "x", "flex2-preview", true],
      ["tiny-flux", "x", "tiny-flux", true],
      ["flux2-klein-4b", "black-forest-labs/FLUX.2-klein-4B", "flux2-klein-4b", true],
      ["flux2-klein-4b", "black-forest-labs/FLUX.2-klein-base-4B", "flux2-klein-base-4b", true],
      ["flux2-dev", "x", "flux2-dev", true],
    ];
    for (const [of, hint, expected, certain] of cases) {
      const found = recogniseVariant(sizes(of), [hint]);
      expect([found?.variant.id, found?.certain], hint).toEqual([expected, certain]);
    }
    expect(recogniseVariant({ ...sizes("flux1-dev"), doubleBlocks: 3 }, [])).toBe(null);
  });

  it("have the sizes that the rest of the project knows, and names and places of their own", () => {
    for (const [preset, id] of [
      ["flux-dev", "flux1-dev"],
      ["flux-schnell", "flux1-schnell"],
    ] as const) {
      expect(FLUX_PRESETS[preset]).toMatchObject({ inChannels: 64, doubleBlocks: 19, singleBlocks: 38, heads: 24 });
      expect(FLUX_VARIANTS.find((variant) => variant.id === id)!.guidance).toBe(FLUX_PRESETS[preset]!.guidance);
    }
    const ids = FLUX_VARIANTS.map(({ id }) => id);
    expect(new Set(ids).size).toBe(ids.length);
    for (const { hub, names } of FLUX_VARIANTS) if (hub) expect(hub).toMatch(names);
  });
});

describe("what is not read", () => {
  it("is called by its name", () => {
    const chroma = ["double_blocks.0.img_attn.qkv.weight", "distilled_guidance_layer.in_proj.weight"];
    const cases: [string[], RegExp][] = [
      [chroma, /E-FILE-121.*Chroma/],
      [chroma.map((name) => `model.diffusion_model.${name}`), /E-FILE-121.*Chroma/],
      [["transformer_blocks.0.attn.add_q_proj.weight", "pos_embed.proj.weight"], /Stable Diffusion 3/],
      [["transformer_blocks.0.attn.add_q_proj.weight", "transformer_blocks.0.img_mod.1.weight"], /Qwen-Image/],
      [["transformer_blocks.0.attn.add_q_proj.weight", "controlnet_blocks.0.weight"], /ControlNet/],
      [["double_blocks.0.img_attn.qkv.weight", "txt_in.individual_token_refiner.blocks.0.x.weight"], /HunyuanVideo/],
      [["transformer.single_transformer_blocks.0.attn.to_q.lora_A.weight"], /a LoRA/],
      [["lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight"], /a LoRA/],
      [["model.diffusion_model.input_blocks.0.0.weight"], /U-Net/],
      [["noise_refiner.0.attention.qkv.weight"], /Z-Image/],
      [["text_model.encoder.layers.0.mlp.fc1.weight"], /a CLIP model/],
      [["encoder.block.0.layer.0.SelfAttention.q.weight"], /a T5 encoder/],
      [["redux_up.weight"], /Redux/],
      [["decoder.layers.3.conv.0.weight"], /tiny autoencoder/],
      [["anything"], /E-FILE-120.*"anything"/],
      [[], /E-FILE-120.*no tensors/],
    ];
    for (const [names, text] of cases) expect(() => recognise(names, "file"), names[0]).toThrow(text);
    expect(() => recognise(["decoder.mid.block_1.conv1.weight"], "ae", "transformer")).toThrow(
      /E-FILE-120.*no transformer/,
    );
  });

  it("is weights in codes, told before anything is loaded", async () => {
    const source = await originalOf("flux1_small");
    const config = { json: configOf("flux1_small"), path: "c" };
    const cases: [string, RegExp][] = [
      ["double_blocks.0.img_attn.qkv.weight.quant_state.bitsandbytes__nf4", /E-FILE-122.*bitsandbytes' 4-bit/],
      ["double_blocks.0.img_attn.qkv.weight_scale_2", /NVFP4/],
      ["double_blocks.0.img_attn.qkv.qweight", /packed integers/],
    ];
    for (const [name, text] of cases) {
      const files = new MemoryFiles();
      await writeSafetensors(files, "f.safetensors", [...tensorsToWrite(source), ...emptyTensors(name)]);
      await expect(openCheckpoint(files, "f.safetensors", { config })).rejects.toThrow(text);
    }
    const files = new MemoryFiles();
    const rest = tensorsToWrite(withPrefix(source, "")).filter(({ name }) => name !== "img_in.weight");
    const codes = { name: "img_in.weight", dtype: "I8" as const, shape: [64, 64], data: new Int8Array(64 * 64) };
    await writeSafetensors(files, "f.safetensors", [...rest, codes]);
    await expect(openCheckpoint(files, "f.safetensors", { config })).rejects.toThrow(/E-FILE-122.*type I8/);
    expect(files.openHandles).toBe(0);
  });
});
