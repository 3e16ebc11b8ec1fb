// The command line on a FLUX.2 klein in diffusers' folder: a LoRA on int8 weights from pictures of two shapes, its files checked
// and drawn with, guidance with a negative prompt, prompts encoded to files, an alignment. The model is tiny, its layout is real.

import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { PromptEmbeddings } from "../../src/data/prompt_embeddings.ts";
import { decodePng } from "../../src/formats/png.ts";
import { run as lora } from "../cli/lora_runner.ts";
import { openSource, suite } from "../helpers/dumps.ts";
import { NodeFiles } from "../helpers/files.ts";
import { writeFlux2Folder, writeOriginalTransformer } from "../helpers/flux2_folder.ts";
import { pngOf } from "../helpers/pictures.ts";
import { longtail } from "../helpers/processes.ts";

let folder: string;
const at = (...parts: string[]) => join(folder, ...parts);
const common = (variant: string) => [
  `--model.pipeline=${at(variant)}`,
  "--model.image_size=64",
  "--sample.shift=auto",
  "--sample.steps=2",
  "--device.tuner=off",
];

async function done(words: string[]) {
  const ended = await longtail(words);
  expect(ended.errors).toBe("");
  expect(ended.code).toBe(0);
  return ended;
}

async function verified(path: string, base: string) {
  const { code, output } = await lora("verify", path, `--base=${at(base)}`);
  expect(code, output).toBe(0);
}

async function draw(variant: string, name: string, words: string[] = []) {
  await done(["sample", "a fox", ...common(variant), "--size=96x64", "--count=1", `--output=${at(name)}`, ...words]);
  return decodePng(readFileSync(at(name, "a_fox_0.png")), name);
}

suite("flux2_pipeline", (dump) => {
  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), "longtail-flux2-"));
    await writeFlux2Folder(at("klein"), dump, { dtype: "BF16" });
    await writeFlux2Folder(at("base"), dump, { distilled: false });
    await writeOriginalTransformer(at("flux2.safetensors"), dump);
    mkdirSync(at("pictures"));
    [
      [64, 64],
      [96, 64],
    ].forEach(([width, height], i) => {
      writeFileSync(at("pictures", `${i}.png`), pngOf(width!, height!, 60 * i));
      writeFileSync(at("pictures", `${i}.txt`), `a photo of object number ${i}, on a table`);
    });
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  it("trains a LoRA whose files fit the model, and draws with them", async () => {
    const trained = await done([
      ...["train", "lora", ...common("klein"), "--model.storage=int8", "--name=one", `--run.folder=${at("runs")}`],
      ...[`--data=${at("pictures")}`, `--data.cache=${at("cache")}`, "--data.resolution=64", "--data.bucket_step=16"],
      ...["--data.caption_dropout=0.5", "--adapter.rank=4", "--adapter.alpha=2", "--steps=2", "--batch=1"],
      ...["--train.checkpointing=true", "--save.dtype=bf16", "--log.every=1"],
    ]);
    const losses = trained.events.flatMap((e) =>
      e.kind === "metric" && "loss" in e.values ? [e.values["loss"]!] : [],
    );
    expect(losses.length).toBe(2);
    expect(losses.every(Number.isFinite)).toBe(true);
    const file = await openSource(at("runs/one/one.safetensors"));
    expect(file.names().every((name) => /^transformer\..*\.lora_[AB]\.weight$/.test(name))).toBe(true);
    expect(file.names()).toContain("transformer.single_transformer_blocks.0.attn.to_qkv_mlp_proj.lora_A.weight");
    expect(file.metadata.get("ss_base_model_version")).toBe("flux2");
    await file.close();
    const { model } = JSON.parse(readFileSync(at("runs/one/report.json"), "utf8"));
    expect(model).toMatchObject({ architecture: "Flux2Transformer2DModel", pipelineClass: "Flux2KleinPipeline" });
    expect(model.autoencoder).toBe("AutoencoderKLFlux2");
    // The cached encodings of captions have no pooled text.
    const entries = readdirSync(at("cache"), { recursive: true }).map(String);
    const text = await openSource(at("cache", entries.find((name) => /text-.*safetensors$/.test(name))!));
    expect(text.names().filter((name) => /states|pooled/.test(name))).toEqual(["states"]);
    await text.close();

    for (const name of ["one", "one.kohya"]) {
      for (const base of ["klein", "flux2.safetensors"]) await verified(at(`runs/one/${name}.safetensors`), base);
    }
    const weights = [`--weights=${at("runs/one/one.kohya.safetensors")}`, "--strength=8"];
    const [plain, adapted] = [await draw("klein", "plain"), await draw("klein", "adapted", weights)];
    expect([plain.width, plain.height, plain.text["cfg"]]).toEqual([96, 64, undefined]);
    expect(Buffer.from(adapted.data).equals(Buffer.from(plain.data))).toBe(false);
  }, 120_000);

  it("draws a base model with guidance away from a negative prompt, from a single file's transformer", async () => {
    const guided = await draw("base", "guided");
    expect(guided.text).toMatchObject({ cfg: "4", negative_prompt: "" });
    const single = `--model.transformer=${at("flux2.safetensors")}`;
    const other = await draw("base", "negative", ["--sample.negative_prompt=blurry", single]);
    expect(Buffer.from(other.data).equals(Buffer.from(guided.data))).toBe(false);
  }, 120_000);

  it("keeps the states of prompts without pooled vectors", async () => {
    writeFileSync(at("prompts.txt"), "a fox\nan owl\n");
    await done(["preprocess", at("prompts.txt"), ...common("klein"), `--output=${at("embeddings")}`]);
    expect(readdirSync(at("embeddings")).sort()).toEqual(["preprocess.json", "prompt_embed", "videos2caption2.json"]);
    const found = await PromptEmbeddings.open(new NodeFiles(), at("embeddings"));
    const { length, width, pooled } = await found.load(1);
    expect([length, width, pooled.length]).toEqual([48, 96, 0]);
  }, 120_000);

  const aligning = (name: string, variant: string) => [
    ...["align", "embedded-quick", ...common(variant), "--adapter.kind=lora", "--adapter.rank=2", "--align.steps=1"],
    ...[`--name=${name}`, `--run.folder=${at("runs")}`, "--align.batch=1", "--eval.items=1", "--eval.head_items=1"],
  ];

  it("aligns a LoRA on it", async () => {
    await done(aligning("aligned", "klein"));
    const name = readdirSync(at("runs/aligned")).find((file) => file.endsWith(".lora.safetensors"))!;
    await verified(at("runs/aligned", name), "klein");
  }, 120_000);

  it("aligns a model of another language model from prompts that are embedded already", async () => {
    await writeFlux2Folder(at("other"), dump, { configs: { text_encoder: { model_type: "mistral3" } } });
    const refused = await longtail(aligning("refused", "other"));
    expect(refused.code).toBe(4);
    expect(refused.errors + JSON.stringify(refused.events)).toContain("E-FILE-043");
    await done([...aligning("stored", "other"), `--data.items=${at("embeddings")}`, "--align.pair=control-words"]);
  }, 120_000);
});
