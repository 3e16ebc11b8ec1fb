// The presets of SRPO's scripts and of the MIA fork from `longtail init` to the report, on models that have the public
// layouts and tiny sizes: a FLUX folder, HPS as a .pt alone, PickScore as a CLIPModel folder. Prompts come from a list, and from
// folders of embeddings in both forms, with which no text encoder is opened.

import { copyFileSync, existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { OWN_FIXTURES } from "../helpers/files.ts";
import { hpsFile } from "../helpers/hps_file.ts";
import { writePipelineFolder } from "../helpers/pipeline_folder.ts";
import { here, json, tensorsOf } from "../helpers/short_run.ts";

const PROMPTS = ["a plate of jollof rice", "a sari on a chair", "a moai at dusk", "two loaves of injera"];
const ITEMS = [
  { caption: "jollof rice", Item: "jollof rice", mia_category: "Rice_Dish", mia_region: "Nigeria" },
  { caption: "sari", Item: "sari", mia_category: "Traditional_clothing", mia_region: "India" },
  { caption: "somebody", Item: "somebody", mia_category: "Politician", mia_region: "Chile" },
];

let folder: string;
const home = process.cwd();
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "longtail-presets-"));
  process.chdir(folder);
  await writePipelineFolder("FLUX.1-dev", "dev", { dtype: "BF16" });
  writeFileSync("HPS_v2.1_compressed.pt", hpsFile(49408));
  mkdirSync("PickScore_v1");
  const clip = join(OWN_FIXTURES, "clip_hf");
  copyFileSync(join(clip, "config.json"), "PickScore_v1/config.json");
  copyFileSync(join(clip, "weights.safetensors"), "PickScore_v1/model.safetensors");
  writeFileSync("prompts.txt", PROMPTS.join("\n"));
  writeFileSync("items.json", JSON.stringify(ITEMS));
});
afterAll(() => {
  process.chdir(home);
  rmSync(folder, { recursive: true, force: true });
});

/** What makes the presets small; everything else is theirs. */
const SMALL = [
  "--model.image_size=64",
  "--align.steps=2",
  "--align.rollout_steps=2",
  "--train.accumulation=2",
  "--align.guard.every=0",
  "--align.guard.items=2",
  "--eval.items=2",
  "--eval.steps=1",
  "--save.every=0",
  "--log.every=1",
  "--device.tuner=off",
];

/** `longtail init` into a file, run in the folder where models and prompts lie under the names that it has for them. */
async function align(preset: string, name: string, ...words: string[]) {
  const path = `${preset}.toml`;
  if (!existsSync(path)) expect((await here("init", preset, `--output=${path}`)).errors).toBe("");
  return await here("align", path, ...SMALL, `--name=${name}`, ...words);
}

const phases = (events: readonly { kind: string }[]) =>
  new Set(events.flatMap((event) => (event.kind === "phase" ? [(event as { name?: string }).name] : [])));
const report = (name: string) => json(`runs/${name}/report.json`);
const weights = (name: string) => tensorsOf(`runs/${name}/${name}.lora.safetensors`);

async function preprocess(output: string, ...words: string[]) {
  const made = await here("preprocess", ...words, `--output=${output}`, "--model.pipeline=FLUX.1-dev");
  expect([made.errors, made.code]).toEqual(["", 0]);
}

const MINUTES = 300_000;

describe("the presets of the reference scripts", () => {
  it(
    "srpo-hps aligns a LoRA on nf4 weights, and does the same from embeddings without text encoders",
    async () => {
      const run = await align("srpo-hps", "hps");
      expect([run.errors, run.code]).toEqual(["", 0]);
      for (const name of ["encode captions", "encode texts", "align", "evaluate after"])
        expect(phases(run.events)).toContain(name);
      expect(report("hps")).toMatchObject({
        status: { updatesDone: 2 },
        method: { label: "SRPO with control words", training: "lora", sigma: [0.9642857, 0.75], batch: 2 },
        evaluation: { picturesPerItem: 1 },
      });

      await preprocess("embeddings", "prompts.txt");
      await writePipelineFolder("bare", "dev", { dtype: "BF16" });
      for (const part of ["text_encoder", "text_encoder_2"])
        for (const file of readdirSync(`bare/${part}`)) if (file !== "config.json") rmSync(`bare/${part}/${file}`);
      const words = ["--data.items=embeddings", "--model.pipeline=bare"];
      const planned = await here("plan", "srpo-hps.toml", ...SMALL, ...words, "--memory=24GiB");
      expect(planned.value.texts).toMatchObject({ encoders: 0, prompts: 4, cached: 0 });
      expect(planned.value.ladder[0]).toMatchObject({ change: [], fits: true });
      const again = await align("srpo-hps", "stored", ...words);
      expect([again.errors, again.code]).toEqual(["", 0]);
      expect(phases(again.events)).toContain("check prompt embeddings");
      expect(phases(again.events)).not.toContain("encode captions");
      expect(weights("stored").equals(weights("hps"))).toBe(true);
      expect(report("stored").evaluation.rows).toEqual(report("hps").evaluation.rows);
    },
    MINUTES,
  );

  it(
    "srpo-pickscore trains on a folder of torch files as SRPO's script leaves it",
    async () => {
      await preprocess("data/rl_embeddings", "prompts.txt", "--format=torch");
      const run = await align("srpo-pickscore", "pick", "--data.items=data/rl_embeddings");
      expect([run.errors, run.code]).toEqual(["", 0]);
      expect(phases(run.events)).not.toContain("encode captions");
      expect(report("pick")).toMatchObject({
        status: { updatesDone: 2 },
        method: { sigma: [0.9642857, 0.6666667], discountInversion: [0.6, 0.01] },
      });
    },
    MINUTES,
  );

  it(
    "mia-fork pairs items with their attributes, also where they were encoded with a template",
    async () => {
      const run = await align("mia-fork", "mia");
      expect([run.errors, run.code]).toEqual(["", 0]);
      expect(report("mia")).toMatchObject({ status: { updatesDone: 2 } });
      await preprocess("items", "items.json", "--template=An image of {item}");
      const again = await align("mia-fork", "mia-stored", "--data.items=items");
      expect([again.errors, again.code]).toEqual(["", 0]);
      // The politician is left out by either list.
      expect(weights("mia-stored").equals(weights("mia"))).toBe(true);
      expect(JSON.stringify(report("mia-stored").pairs)).toContain("An image of sari. Traditional clothing, India");
    },
    MINUTES,
  );
});
