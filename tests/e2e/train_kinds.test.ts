// Every kind of adapter and optimizer once in a short training run: it changes its weights, goes on to the bit, and writes
// files that load. LONGTAIL_LONG=1 runs all kinds instead of one.

import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { RandomStream } from "../../src/base/random.ts";
import { readLora } from "../../src/formats/lora.ts";
import { writeSafetensors } from "../../src/formats/safetensors_write.ts";
import { tensorsToWrite } from "../../src/models/mapped_source.ts";
import { openPart, readLayout } from "../../src/models/pipeline_layout.ts";
import { EMBEDDED } from "../helpers/embedded.ts";
import { NodeFiles } from "../helpers/files.ts";
import { type PictureFolder, writePictureFolder } from "../helpers/picture_folder.ts";
import { here, json, type Report, shortRun, tensorsOf } from "../helpers/short_run.ts";

const LONG = process.env.LONGTAIL_LONG === "1";
/** Another seed runs another kind. */
const PICK = Number(process.env.LONGTAIL_PICK_SEED ?? 22);

let folder: string;
let pictures: PictureFolder;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "longtail-train-kinds-"));
  pictures = writePictureFolder(join(folder, "pictures"));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe("every kind of adapter and optimizer", () => {
  /** Each kind of both lists at least once. */
  const kinds = [
    ["dora", "adamw8bit"],
    ["lokr", "lion"],
    ["full", "adafactor"],
    ["lora", "prodigy"],
    ["lora", "sgd"],
  ] as const;
  const picked = kinds[Math.floor(new RandomStream(PICK, "kinds").uniform(0) * kinds.length)]!;
  it.each(kinds.filter((kind) => LONG || kind === picked))(
    "%s trained by %s changes its weights, goes on to the bit, and writes files that load",
    async (kind, optimizer) => {
      const name = `${kind}-${optimizer}`;
      const place = join(folder, "runs", name);
      const train = async (...words: string[]) => {
        const result = await here(
          ...[
            "train",
            "lora",
            `--name=${name}`,
            ...shortRun(folder, pictures),
            "--steps=2",
            "--save.every=1",
            `--adapter=${kind}`,
          ],
          ...[`--optim.kind=${optimizer}`, `--lr=${optimizer === "prodigy" ? 1 : 1e-3}`, "--adapter.targets=attention"],
          ...["--adapter.difference_rank=2", "--sample.every=0", "--sample.steps=1", ...words],
        );
        expect([result.errors, result.code]).toEqual(["", 0]);
      };
      await train();
      const report = json(join(place, "report.json")) as Report;
      expect(report.method).toMatchObject({ adapter: kind });
      expect(report.curves.steps).toHaveLength(2);
      for (const { loss, updateRatio, finite } of report.curves.steps) {
        expect(finite).toBe(true);
        expect(loss).toBeGreaterThan(0);
        expect(updateRatio).toBeGreaterThan(0);
      }
      const endings = kind === "full" ? [".lora", ".transformer"] : [".kohya", ""];
      const weights = readdirSync(place).filter((file) => file.endsWith(".safetensors"));
      expect(weights.sort()).toEqual(endings.map((part) => `${name}${part}.safetensors`));
      for (const file of weights.filter((one) => !one.includes(".transformer."))) {
        const verdict = await here("lora", "verify", join(place, file), "--base=embedded");
        expect([verdict.errors, verdict.code], file).toEqual(["", 0]);
      }
      const inOneGo = weights.map((file) => tensorsOf(join(place, file)));
      for (const file of weights) rmSync(join(place, file));
      await train(`--resume=${join(place, "ckpt/step-000001")}`);
      for (const [i, file] of weights.entries())
        expect(tensorsOf(join(place, file)).equals(inOneGo[i]!), file).toBe(true);
    },
    300_000,
  );
});

describe("full training on a transformer in the place of the pipeline's own", () => {
  it.runIf(LONG)(
    "leaves a LoRA of the change that training made, not of the way from the pipeline's transformer",
    async () => {
      const files = new NodeFiles();
      const own = await openPart(files, "transformer", (await readLayout(files, EMBEDDED, "auto")).transformer);
      const doubled = tensorsToWrite(own).map(({ name, shape }) => ({
        name,
        shape,
        dtype: "F32" as const,
        data: async () => (await own.load(name)).map((v) => 2 * v),
      }));
      const transformer = join(folder, "doubled.safetensors");
      await writeSafetensors(files, transformer, doubled);
      await own.close();
      const words = ["train", "lora", "--name=swapped", ...shortRun(folder, pictures), "--steps=1", "--adapter=full"];
      const more = ["--adapter.difference_rank=1", "--sample.every=0", "--sample.steps=1", "--lr=1e-6"];
      const result = await here(...words, ...more, `--model.transformer=${transformer}`);
      expect([result.errors, result.code]).toEqual(["", 0]);
      const { layers } = await readLora(files, join(folder, "runs/swapped/swapped.lora.safetensors"));
      const length = (values: Float32Array) => Math.hypot(...values);
      expect(layers.size).toBeGreaterThan(10);
      // One update moves a number by the rate; the two transformers are apart by the weights themselves.
      for (const [module, { down, up }] of layers) expect(length(down) * length(up), module).toBeLessThan(0.1);
    },
    300_000,
  );
});
