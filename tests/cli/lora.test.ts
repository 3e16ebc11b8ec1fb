// `longtail lora`, its `inspect` and its `verify` through the whole command line: what they print, what they say of faulty
// files, and their exit codes.

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { productSvd } from "../../src/cli/lora/low_rank.ts";
import { readLora, writeKohya, writeLora, writeLycoris } from "../../src/formats/lora.ts";
import { Safetensors } from "../../src/formats/safetensors.ts";
import { writeSafetensors } from "../../src/formats/safetensors_write.ts";
import { fluxModules, inferConfig } from "../../src/models/flux/keys.ts";
import { OWN_FIXTURES } from "../helpers/files.ts";
import { FACTS, lokrLayers, loraLayers } from "../helpers/lora_files.ts";
import { layer } from "../helpers/small_adapters.ts";
import { config, files, json, run, SMALL, small } from "./lora_runner.ts";

let folder: string;
const at = (name: string) => join(folder, name);
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "longtail-lora-"));
  const layers = loraLayers(config, "cli", { rank: () => 4, alpha: () => 8, only: (module) => /attn/.test(module) });
  await writeLora(files, at("good.safetensors"), layers, { facts: FACTS, fields: "portable" });
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe("lora", () => {
  it("explains every subcommand, and takes no other", async () => {
    expect((await run()).output).toContain("longtail lora resize");
    for (const name of ["inspect", "verify", "convert", "merge", "resize", "diff"]) {
      const { code, output } = await run("help", name);
      expect(code).toBe(0);
      expect(output).toContain(`Usage: longtail lora ${name}`);
    }
    for (const [words, code] of [
      [["verfy", "x"], "E-ARG-072"],
      [["verify"], "E-ARG-070"],
      [["diff", "one"], "E-ARG-070"],
      [["inspect", "x", "--rank=3"], "E-ARG-071"],
      [["resize", "x", "--output=y"], "E-ARG-073"],
      [["resize", "x", "--output=y", "--rank=0"], "E-ARG-074"],
      [["resize", "x", "--output=y", "--energy=2"], "E-ARG-074"],
      [["resize", "x", "--output=x", "--rank=2"], "E-ARG-074"],
      [["convert", "x"], "E-ARG-073"],
      [["convert", "x", "--output=y", "--style=webui"], "E-ARG-074"],
      [["merge", "x", "--output=y"], "E-ARG-073"],
      [["merge", "x", "--output=y", "--base=embedded", "--strength=1,2"], "E-ARG-074"],
    ] as const) {
      const result = await run(...words);
      expect(result.errors, words.join(" ")).toMatch(new RegExp(`^${code} .*Fix: .+\n$`));
      expect(result.code).toBe(2);
    }
  });

  it("inspect shows style, ranks, alphas, norms and metadata", async () => {
    const { code, value } = await json("inspect", at("good.safetensors"));
    expect(code).toBe(0);
    expect(value).toMatchObject({ style: "diffusers", kind: "lora", dtype: "F32" });
    expect(value.metadata.ss_seed).toBe("7");
    const { layers } = await readLora(files, at("good.safetensors"));
    expect(value.layers.length).toBe(layers.size);
    const [first] = value.layers;
    const { values } = productSvd(layers.get(first.module)!);
    expect(first).toMatchObject({ rank: 4, alpha: 8, scale: 2 });
    expect(first.norm).toBeCloseTo(2 * Math.sqrt(values.reduce((sum, one) => sum + one * one, 0)), 6);
    const { output } = await run("inspect", at("good.safetensors"));
    expect(output).toContain("lora in the style of diffusers");
    expect(output).toContain("modelspec.title");
  });
});

describe("lora verify", () => {
  it("passes a file that fits, and says where it loads", async () => {
    const { code, value } = await json("verify", at("good.safetensors"), "--base=embedded");
    expect(value.problems).toEqual([]);
    expect(code).toBe(0);
    expect(value.notes.map((note: { program: string }) => note.program)).toEqual([
      "diffusers",
      "PEFT",
      "ComfyUI",
      "sd-scripts",
    ]);
    // alpha 8 of rank 4 stands in the metadata alone.
    expect(value.notes[2]).toMatchObject({ loads: "partly" });
    expect(value.notes[2].text).toContain("strength 2");
  });

  it("says that a LoRA is for a model of another width", async () => {
    const { code, output } = await run("verify", at("good.safetensors"), "--base=flux-dev");
    expect(code).toBe(4);
    expect(output).toContain(`is for a model of width ${config.width}, flux-dev has 3072`);
  });

  it("knows the kohya files that diffusers refuses, and why", async () => {
    const layers = loraLayers(config, "kohya", {
      rank: () => 1,
      alpha: () => 1,
      only: (module) => /attn/.test(module),
    });
    await writeKohya(files, at("kohya.safetensors"), layers);
    const { code, value } = await json("verify", at("kohya.safetensors"), "--base=embedded");
    expect(code).toBe(0);
    expect(value.notes[0]).toMatchObject({ program: "diffusers", loads: "no" });
    expect(value.notes[0].text).toContain("3072");
    expect(value.notes[3]).toMatchObject({ program: "sd-scripts", loads: "yes" });
  });

  const pair = (module: string, down: number[], up: number[]) => ({
    [`transformer.${module}.lora_A.weight`]: down,
    [`transformer.${module}.lora_B.weight`]: up,
  });
  const D = config.width;
  const q = "transformer_blocks.0.attn.to_q";
  const other = (shapes: Record<string, number[]>, name: string) =>
    Object.fromEntries(Object.entries(shapes).filter(([key]) => !key.endsWith(name)));

  it.each<[string, Record<string, number[]>, number | undefined, string]>([
    [
      "a missing partner",
      other(pair(q, [1, D], [D, 1]), "lora_B.weight"),
      1,
      `partner is missing: transformer.${q}.lora_B`,
    ],
    ["two ranks", pair(q, [2, D], [D, 3]), 1, "has rank 2, its partner rank 3"],
    [
      "another matrix",
      pair(q, [1, D], [D + 1, 1]),
      1,
      `changes a matrix of ${D + 1} × ${D}, the model's is ${D} × ${D}`,
    ],
    ["fused rows", pair(q, [1, D], [3 * D, 1]), 1, "holds query, key and value fused"],
    ["a block beyond the last", pair("transformer_blocks.77.attn.to_q", [1, D], [D, 1]), 1, "is for block 77"],
    ["a module that is none", pair("transformer_blocks.0.attn.to_qq", [1, D], [D, 1]), 1, `the nearest is ${q}`],
    ["an unknown key", { [`transformer.${q}.lora_C.weight`]: [1] }, 1, "is no key of a FLUX LoRA; the nearest is"],
    ["a text encoder", { "lora_te1_text_model_encoder.lora_down.weight": [1, 1] }, 1, "belongs to a text encoder"],
    ["a number that is none", pair(q, [1, D], [D, 1]), Number.NaN, "values that are not finite"],
    [
      "a part of a fused matrix",
      {
        "lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight": [1, D],
        "lora_unet_double_blocks_0_img_attn_qkv.lora_up.weight": [D, 1],
      },
      1,
      "has the rows of one of 3 parts",
    ],
  ])("explains %s and exits with 4", async (_name, shapes, fill, text) => {
    const tensors = Object.entries(shapes).map(([name, shape]) => {
      const data = new Float32Array(shape.reduce((a, b) => a * b, 1)).fill(fill!);
      return { name, dtype: "F32" as const, shape, data };
    });
    await writeSafetensors(files, at("bad.safetensors"), tensors);
    const { code, value } = await json("verify", at("bad.safetensors"), "--base=embedded");
    expect(value.problems.map((problem: { text: string }) => problem.text).join("\n")).toContain(text);
    expect(value.ok).toBe(false);
    expect(code).toBe(4);
  });

  it("warns of layers that are all zero, which is no error", async () => {
    const layers = loraLayers(config, "zero", { rank: () => 1, alpha: () => 1, only: (module) => module === q });
    layers.get(q)!.up.fill(0);
    await writeLora(files, at("zero.safetensors"), layers);
    const { code, output } = await run("verify", at("zero.safetensors"), "--base=embedded");
    expect(code).toBe(0);
    expect(output).toContain("warning: every layer is all zero");
  });

  it("takes the base from the file where none is named, and says which and why", async () => {
    const embedded = await run("verify", at("good.safetensors"));
    expect(embedded.code).toBe(0);
    expect(embedded.output).toContain(`checked against embedded, because its width is ${config.width}; name another`);
    expect((await json("verify", at("good.safetensors"), "--base=embedded")).value).not.toHaveProperty("why");
    const wide = { ...config, width: 3072 };
    const layers = loraLayers(wide, "dev", { rank: () => 1, alpha: () => 1, only: (module) => module === q });
    const lokr = lokrLayers(
      config,
      "k",
      (module) => module === q,
      () => false,
    );
    await writeLycoris(files, at("lokr.safetensors"), lokr);
    expect((await json("verify", at("lokr.safetensors"))).value).toMatchObject({ base: "embedded", ok: true });
    for (const [metadata, base, why] of [
      [{}, "flux-dev", "its width is 3072, and nothing in its metadata names schnell"],
      [{ ss_sd_model_name: "flux1-dev.safetensors" }, "flux-dev", 'its ss_sd_model_name is "flux1-dev.safetensors"'],
      [{ "modelspec.architecture": "flux-1-schnell/lora" }, "flux-schnell", "its modelspec.architecture is"],
    ] as const) {
      await writeLora(files, at("public.safetensors"), layers, { metadata });
      const { value } = await json("verify", at("public.safetensors"));
      expect(value).toMatchObject({ base, ok: true });
      expect(value.why).toContain(why);
    }
    const guided = { "transformer.time_text_embed.guidance_embedder.linear_2": [3072, 3072] };
    const tensors = Object.entries(guided).flatMap(([module, [outputs, inputs]]) => [
      { name: `${module}.lora_A.weight`, dtype: "F32" as const, shape: [1, inputs!], data: new Float32Array(inputs!) },
      {
        name: `${module}.lora_B.weight`,
        dtype: "F32" as const,
        shape: [outputs!, 1],
        data: new Float32Array(outputs!),
      },
    ]);
    await writeSafetensors(files, at("guided.safetensors"), tensors, { metadata: { base_model: "schnell" } });
    expect((await json("verify", at("guided.safetensors"))).value).toMatchObject({ base: "flux-dev", ok: true });
  });

  it("knows a file of FLUX.2 and which of its models it is for, and says what loads it", async () => {
    const fused = "single_transformer_blocks.3.attn.to_qkv_mlp_proj";
    for (const [name, width] of [
      ["flux2-klein-4b", 3072],
      ["flux2-klein-9b", 4096],
    ] as const) {
      await writeLora(files, at("second.safetensors"), new Map([[fused, layer(1, 9 * width, width, 1)]]));
      const { value } = await json("verify", at("second.safetensors"));
      expect(value).toMatchObject({ base: name, ok: true, why: `its layers are FLUX.2's, of width ${width}` });
      expect(value.notes.map((note: { loads: string }) => note.loads)).toEqual(["yes", "partly", "yes", "no"]);
      const first = await run("verify", at("second.safetensors"), "--base=flux-dev");
      expect(first.code).toBe(4);
    }
    await run("convert", at("second.safetensors"), "--style=kohya", `--output=${at("second.kohya.safetensors")}`);
    const kohya = await json("verify", at("second.kohya.safetensors"));
    expect(kohya.value.notes[0]).toMatchObject({ program: "diffusers", loads: "yes" });
    const modulation = new Map([["single_stream_modulation.linear", layer(1, 9216, 3072, 1)]]);
    await writeKohya(files, at("modulation.safetensors"), modulation);
    expect((await json("verify", at("modulation.safetensors"))).value.notes[0].loads).toBe("partly");
    expect(kohya.value).toMatchObject({ base: "flux2-klein-9b", style: "kohya", ok: true });
    await writeLora(files, at("alphas.safetensors"), new Map([[fused, layer(2, 27648, 3072, 1)]]), {
      scales: "tensors",
    });
    const refused = (await json("verify", at("alphas.safetensors"))).value.notes[0];
    expect(refused).toMatchObject({ program: "diffusers", loads: "no" });
  });

  it("takes presets, folders and files as the base, and nothing else", async () => {
    await writeLora(files, at("s.safetensors"), loraLayers(small, "s", { rank: () => 1, alpha: () => 1 }));
    expect((await run("verify", at("s.safetensors"), `--base=${SMALL}`)).code).toBe(0);
    expect((await run("verify", at("s.safetensors"), `--base=${join(OWN_FIXTURES, "flux1_small")}`)).code).toBe(0);
    const wrong = await run("verify", at("s.safetensors"), "--base=flux-de");
    expect(wrong.errors).toContain("E-FILE-070");
    expect(wrong.errors).toContain("did you mean flux-dev?");
    const file = await Safetensors.open(files, SMALL);
    expect(fluxModules(inferConfig(file.tensors)!)).toEqual(fluxModules(small));
    const layers = fluxModules(small);
    for (const [module, { outputs, inputs }] of layers) {
      expect(file.info(`${module}.weight`).shape, module).toEqual([outputs, inputs]);
    }
    await file.close();
  });
});
