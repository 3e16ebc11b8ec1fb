// The command line on a pipeline in diffusers' folder, as somebody with FLUX.1 on the disk uses it: a LoRA on int8 weights
// with gradient checkpointing from pictures of two shapes, then pictures with that LoRA. The pipeline is tiny, its layout
// and vocabularies are real; one variant has AutoencoderKL and guidance, the other AutoencoderTiny.

import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { decodePng } from "../../src/formats/png.ts";
import { openSource } from "../helpers/dumps.ts";
import { pngOf } from "../helpers/pictures.ts";
import { writePipelineFolder } from "../helpers/pipeline_folder.ts";
import { longtail } from "../helpers/processes.ts";

let folder: string;
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "longtail-diffusers-"));
  await writePipelineFolder(join(folder, "dev"), "dev");
  await writePipelineFolder(join(folder, "schnell"), "schnell", { dtype: "BF16", clipPrefix: false });
  const pictures = join(folder, "pictures");
  mkdirSync(pictures);
  const sizes = [
    [64, 64],
    [96, 64],
    [70, 66],
    [128, 80],
  ] as const;
  sizes.forEach(([width, height], i) => {
    writeFileSync(join(pictures, `${i}.png`), pngOf(width, height, 60 * i));
    writeFileSync(join(pictures, `${i}.txt`), `a photo of object number ${i}, on a table`);
  });
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const common = (variant: string) => [
  `--model.pipeline=${join(folder, variant)}`,
  "--model.image_size=64",
  "--model.storage=int8",
  "--sample.shift=auto",
  "--sample.steps=2",
  "--device.tuner=off",
];

const training = (variant: string, steps: number) => [
  "train",
  "lora",
  ...common(variant),
  `--name=${variant}`,
  `--run.folder=${join(folder, "runs")}`,
  `--data=${join(folder, "pictures")}`,
  `--data.cache=${join(folder, "cache")}`,
  "--data.resolution=64",
  "--data.bucket_step=16",
  "--data.caption_dropout=0.5",
  "--adapter.rank=4",
  `--steps=${steps}`,
  "--batch=1",
  "--train.accumulation=2",
  "--train.checkpointing=true",
  "--flow.sampling=logit_normal",
  "--save.dtype=bf16",
  "--log.every=1",
];

/** A picture of 96 × 64 pixels. */
async function draw(variant: string, name: string, words: string[]) {
  const output = join(folder, name);
  const asked = ["sample", "a fox", ...common(variant), "--size=96x64", "--count=1", `--output=${output}`];
  const drawn = await longtail([...asked, ...words]);
  expect(drawn.errors).toBe("");
  expect(drawn.code).toBe(0);
  return decodePng(readFileSync(join(output, "a_fox_0.png")), name);
}

it("trains a LoRA on a folder with AutoencoderKL and guidance, and draws with it", async () => {
  const trained = await longtail(training("dev", 3));
  expect(trained.errors).toBe("");
  expect(trained.code).toBe(0);
  const said = trained.events.flatMap((e) => (e.kind === "message" ? [e.text] : [])).join("\n");
  expect(said).toMatch(/4 pictures to learn from; 2 sizes .*64×64: 2/);
  const losses = trained.events.flatMap((e) => (e.kind === "metric" && "loss" in e.values ? [e.values["loss"]!] : []));
  expect(losses.length).toBe(3);
  expect(losses.every(Number.isFinite)).toBe(true);
  const run = join(folder, "runs/dev");
  const lora = await openSource(join(run, "dev.safetensors"));
  expect(lora.names().every((name) => /^transformer\..*\.(lora_[AB]\.weight|alpha)$/.test(name))).toBe(true);
  const factors = lora.names().filter((name) => name.endsWith(".weight"));
  expect(new Set(factors.map((name) => lora.info(name).dtype))).toEqual(new Set(["BF16"]));
  await lora.close();
  expect(readdirSync(join(run, "samples")).length).toBeGreaterThan(0);

  const [adapted, base] = await Promise.all([
    draw("dev", "adapted", [`--weights=${join(run, "dev.safetensors")}`, "--strength=8"]),
    draw("dev", "base", []),
  ]);
  expect([adapted.width, adapted.height]).toEqual([96, 64]);
  expect(adapted.text["shift"]).toBe("auto");
  expect(Buffer.from(adapted.data).equals(Buffer.from(base.data))).toBe(false);
}, 120_000);

it("trains and draws on a folder with AutoencoderTiny, bf16 weights and no guidance", async () => {
  const trained = await longtail(training("schnell", 1));
  expect(trained.errors).toBe("");
  expect(trained.code).toBe(0);
  const weights = join(folder, "runs/schnell/schnell.safetensors");
  const { width, height, text } = await draw("schnell", "tiny", [`--weights=${weights}`]);
  expect([width, height, text["weights"]]).toEqual([96, 64, "schnell.safetensors"]);
}, 120_000);
