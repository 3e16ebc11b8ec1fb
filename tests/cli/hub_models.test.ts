// Rewards, judge and the models of `longtail eval` by their name on a hub, against a hub on this machine.

import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { command } from "../../src/cli/commands/eval.ts";
import { withLocalModels } from "../../src/cli/hub_models.ts";
import { runCommandLine } from "../../src/cli/main.ts";
import { EmbeddedData } from "../../src/data/embedded.ts";
import { encodePng, fromPlanes } from "../../src/formats/png.ts";
import { writeSafetensors } from "../../src/formats/safetensors_write.ts";
import { tensorsToWrite } from "../../src/models/mapped_source.ts";
import { openPart, readLayout } from "../../src/models/pipeline_layout.ts";
import { type Config, configSchema } from "../../src/runs/config/schema.ts";
import { layoutOf } from "../../src/runs/model_files.ts";
import { EMBEDDED } from "../helpers/embedded.ts";
import { COMMIT, FakeHub } from "../helpers/fake_hub.ts";
import { MODELS, NodeFiles } from "../helpers/files.ts";
import { writePipelineFolder } from "../helpers/pipeline_folder.ts";
import { RecordingTerminal } from "./recorder.ts";

const JUDGE = join(MODELS, "embedded/judge");
const WEIGHTS = "open_clip_model.safetensors";
const files = new NodeFiles();
const before = { ...process.env };
let folder: string;
let hub: FakeHub;

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "longtail-hub-models-"));
  const names = [WEIGHTS, "open_clip_config.json"];
  hub = await FakeHub.start({
    ...Object.fromEntries(names.map((name) => [name, new Uint8Array(readFileSync(join(JUDGE, name)))])),
    "README.md": "for people",
    "other/weights.safetensors": new Uint8Array(2000),
  });
  Object.assign(process.env, { HF_ENDPOINT: hub.endpoint, HF_HOME: join(folder, "home") });
  for (const name of ["HF_HUB_OFFLINE", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_TOKEN"]) delete process.env[name];
});
afterAll(async () => {
  process.env = before;
  await hub.stop();
  rmSync(folder, { recursive: true, force: true });
});

const snapshot = () => join(folder, "home/hub/models--owner--model/snapshots", COMMIT);

describe("a transformer of the hub", () => {
  it("takes the place of the pipeline's own, as SRPO's does: one file in diffusers' layout without a configuration", async () => {
    const pipeline = join(folder, "pipeline");
    await writePipelineFolder(pipeline, "dev");
    const own = await readLayout(files, pipeline, "auto");
    const single = join(folder, "srpo.safetensors");
    await writeSafetensors(files, single, tensorsToWrite(await openPart(files, "transformer", own.transformer)));
    const srpo = await FakeHub.start(
      {
        "README.md": "for people",
        "diffusion_pytorch_model.safetensors": new Uint8Array(readFileSync(single)),
        "comfy/workflow.json": "{}",
      },
      "tencent/SRPO",
    );
    const endpoint = process.env["HF_ENDPOINT"];
    process.env["HF_ENDPOINT"] = srpo.endpoint;
    try {
      for (const transformer of ["tencent/SRPO", "tencent/SRPO:diffusion_pytorch_model.safetensors"]) {
        const config = configSchema.parse({ model: { pipeline, transformer } }) as Config;
        const local = await withLocalModels(files, config, () => {});
        const layout = await layoutOf(files, local);
        expect(layout.transformer.weights).toContain("models--tencent--SRPO");
        expect(layout.transformer.config).toEqual(own.transformer.config);
        const [source, expected] = [
          await openPart(files, "transformer", layout.transformer),
          await openPart(files, "transformer", own.transformer),
        ];
        expect([...source.names()].sort()).toEqual([...expected.names()].sort());
        const name = "transformer_blocks.0.attn.to_q.weight";
        expect(await source.load(name)).toEqual(await expected.load(name));
        for (const opened of [source, expected]) await opened.close();
      }
      expect(srpo.downloads("diffusion_pytorch_model.safetensors")).toHaveLength(1);
      expect(srpo.downloads("comfy/workflow.json")).toEqual([]);
    } finally {
      process.env["HF_ENDPOINT"] = endpoint;
      await srpo.stop();
    }
  });
});

describe("a model of the hub", () => {
  it("scores as the same files in a folder do, under its own name, and is fetched once", async () => {
    const data = await EmbeddedData.load(files, EMBEDDED);
    const pictures = join(folder, "pictures");
    mkdirSync(pictures);
    let count = 0;
    for (const item of data.items) {
      const planes = count < 2 ? await data.picture(item, "noto") : null;
      if (!planes) continue;
      const png = encodePng(fromPlanes(planes, data.size, data.size, { prompt: `icon of ${item.item}` }));
      writeFileSync(join(pictures, `${count++}.png`), png);
    }
    const run = async (...argv: string[]) => {
      const terminal = new RecordingTerminal();
      const words = ["eval", "clip", pictures, ...argv, "--device.tuner=off", "--eval.batch=2", "--json"];
      const code = await runCommandLine(words, { commands: [command], terminal, onInterrupt: () => () => {} });
      const result = terminal.lines.flatMap((line) => (line.startsWith("{") ? [JSON.parse(line)] : [])).at(-1);
      return { code, errors: terminal.errors, result: result?.value };
    };
    const here = await run("--model=embedded", `--output=${join(folder, "here")}`);
    const there = await run("--model=owner/model", `--output=${join(folder, "there")}`);
    expect([here.code, there.errors, there.code]).toEqual([0, "", 0]);
    expect(there.result.groups).toEqual(here.result.groups);
    expect(there.result.scorer).toMatchObject({ label: "CLIP score (model)", model: here.result.scorer.model });
    // Offline, the second time: nothing is asked for.
    const asked = hub.seen.length;
    const again = await run("--model=owner/model", "--model.offline", `--output=${join(folder, "again")}`);
    expect([again.code, hub.seen.length]).toEqual([0, asked]);
    const other = await run("--model=owner/none", `--output=${join(folder, "none")}`);
    expect(other).toMatchObject({ code: 4, errors: expect.stringMatching(/^E-FILE-130 owner\/none/) });
  });

  it("is a reward or the judge of an alignment, as a whole or as one file, and nothing that other commands ask for", async () => {
    const config = configSchema.parse({}) as Config;
    config.align.rewards = [{ kind: "clip", path: `owner/model:${WEIGHTS}`, weight: 1 }];
    config.eval.judge = "owner/model@v1";
    const untouched = await withLocalModels(files, config, () => {});
    expect([untouched.align.rewards[0]!.path, untouched.eval.judge]).toEqual([
      `owner/model:${WEIGHTS}`,
      "owner/model@v1",
    ]);
    const local = await withLocalModels(files, config, () => {}, true);
    expect(local.align.rewards[0]!.path).toBe(join(snapshot(), WEIGHTS));
    expect(local.eval.judge).toBe(snapshot());
    expect(hub.downloads("README.md")).toEqual([]);
    for (const judge of ["none", "embedded"])
      expect(
        (await withLocalModels(files, { ...config, eval: { ...config.eval, judge } }, () => {}, true)).eval.judge,
      ).toBe(judge);
  });
});
