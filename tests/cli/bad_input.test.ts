// What a user can get wrong, through the whole command line: one line with a code, a cause and a fix, the exit code of its
// area, and nothing half-written left behind.

import { Buffer } from "node:buffer";
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { runCommandLine } from "../../src/cli/main.ts";
import { DiskFiles } from "../../src/platform/files.ts";
import { MODELS } from "../helpers/files.ts";
import { FullDisk } from "../helpers/full_disk.ts";
import { SMALL_RUN } from "../helpers/processes.ts";
import { RecordingTerminal } from "./recorder.ts";

const WEIGHTS = "transformer/diffusion_pytorch_model.safetensors";

let folder: string;
let count = 0;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "longtail-bad-"));
  // pipeline.json names the autoencoder's weights relative to itself.
  symlinkSync(join(MODELS, "taef2"), join(folder, "taef2"), "dir");
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));
let runs: string;
beforeEach(() => {
  runs = join(folder, `runs${count++}`);
});

async function longtail(argv: string[], files?: DiskFiles) {
  const terminal = new RecordingTerminal();
  const code = await runCommandLine(argv, { terminal, onInterrupt: () => () => {}, ...(files ? { files } : {}) });
  return { code, errors: terminal.errors, output: terminal.output };
}

const align = (words: string[], files?: DiskFiles) =>
  longtail(
    ["align", "embedded", "--name=bad", `--run.folder=${runs}`, "--align.steps=2", ...SMALL_RUN, ...words],
    files,
  );

function expectOneError(result: { code: number; errors: string }, id: string, code: number, ...words: string[]): void {
  expect(result.errors).toMatch(new RegExp(`^${id} .*Fix: .+\n$`));
  expect(result.errors.trimEnd().split("\n")).toHaveLength(1);
  for (const word of words) expect(result.errors).toContain(word);
  expect(result.code).toBe(code);
}

/** No run folder, or one that says that it failed and holds neither weights nor pieces of files. */
function expectNothingHalf(): void {
  if (!existsSync(runs)) return;
  expect(JSON.parse(readFileSync(join(runs, "bad/run.json"), "utf8"))).toMatchObject({ state: "failed" });
  const left = readdirSync(runs, { recursive: true }) as string[];
  expect(left.filter((name) => /\.partial|\.longtail-tmp-|transformer\.safetensors|report/.test(name))).toEqual([]);
}

/** A copy of the embedded model in which `changes` replaces files; null leaves one out. */
function modelWith(changes: Record<string, Uint8Array | string | null>): string {
  const place = join(folder, `model${count++}`);
  for (const name of readdirSync(join(MODELS, "embedded"), { recursive: true, withFileTypes: true })) {
    if (!name.isFile()) continue;
    const path = join(name.parentPath, name.name);
    const relative = path.slice(join(MODELS, "embedded").length + 1);
    const own = join(place, relative);
    mkdirSync(dirname(own), { recursive: true });
    if (!(relative in changes)) symlinkSync(path, own);
    else if (changes[relative] !== null) writeFileSync(own, changes[relative]!);
  }
  return place;
}
const read = (name: string) => readFileSync(join(MODELS, "embedded", name));

/** The T5 encoder's files with vectors of another width, weights all zero. */
function encoderOfWidth(width: number): Record<string, Uint8Array | string> {
  const original = read("text_encoder_2/model.safetensors");
  const length = Number(original.readBigUInt64LE(0));
  const header = JSON.parse(original.toString("utf8", 8, 8 + length)) as Record<
    string,
    { dtype: string; shape: number[] }
  >;
  const config = JSON.parse(read("text_encoder_2/config.json").toString()) as Record<string, number>;
  const { d_model: own, d_ff: inner } = config as { d_model: number; d_ff: number };
  let at = 0;
  const tensors: Record<string, unknown> = {};
  for (const [name, { dtype, shape }] of Object.entries(header)) {
    if (name === "__metadata__" || name === "shared.ids") continue;
    const small = shape.map((n) => (n === own ? width : n === inner ? 2 * width : n));
    const bytes = 2 * small.reduce((a, b) => a * b, 1);
    tensors[name] = { dtype, shape: small, data_offsets: [at, at + bytes] };
    at += bytes;
  }
  const ids = Int32Array.from({ length: header["shared.ids"]!.shape[0]! }, (_, i) => i);
  tensors["shared.ids"] = { dtype: "I32", shape: [ids.length], data_offsets: [at, at + ids.byteLength] };
  const text = Buffer.from(JSON.stringify(tensors));
  const size = Buffer.alloc(8);
  size.writeBigUInt64LE(BigInt(text.length));
  return {
    "text_encoder_2/model.safetensors": Buffer.concat([size, text, Buffer.alloc(at), Buffer.from(ids.buffer)]),
    "text_encoder_2/config.json": JSON.stringify({ ...config, d_model: width, d_ff: 2 * width, d_kv: width / 4 }),
  };
}

describe("configuration", () => {
  it.each([
    ["a typo in a key", ["--align.stesp=5"], "E-CFG-00\\d", "align.steps"],
    ["sigmas upside down", ["--align.sigma_high=0.2"], "E-CFG-010", "sigma_low"],
    ["a sigma beyond 1", ["--align.sigma_high=1.5"], "E-CFG-010", "sigma_high"],
    ["no updates", ["--align.steps=0"], "E-CFG-00\\d", "align.steps"],
    ["a negative number of rollout steps", ["--align.rollout_steps=-3"], "E-CFG-00\\d", "align.rollout_steps"],
    ["a move longer than the schedule", ["--align.groundtruth_ratio=0"], "E-CFG-01\\d", "groundtruth_ratio"],
    ["a word for a number", ["--align.batch=many"], "E-CFG-00\\d", "align.batch"],
  ])("refuses %s", async (_name, words, id, named) => {
    expectOneError(await align(words), id, 2, named);
    expect(existsSync(runs)).toBe(false);
  });
});

describe("model files", () => {
  it("names a weights file that is missing", async () => {
    const model = modelWith({ [WEIGHTS]: null });
    expectOneError(await align([`--model.pipeline=${model}`]), "E-FILE-001", 4, join(model, WEIGHTS));
    expectNothingHalf();
  });

  it("names a weights file that was cut short", async () => {
    const model = modelWith({ [WEIGHTS]: null });
    copyFileSync(join(MODELS, "embedded", WEIGHTS), join(model, WEIGHTS));
    truncateSync(join(model, WEIGHTS), 1_000_000);
    expectOneError(await align([`--model.pipeline=${model}`]), "E-FILE-0\\d\\d", 4, join(model, WEIGHTS));
    expectNothingHalf();
  });

  it("names a tensor of another shape than config.json says", async () => {
    const config = JSON.parse(read("transformer/config.json").toString()) as Record<string, number>;
    config["num_attention_heads"]! *= 2;
    const model = modelWith({ "transformer/config.json": JSON.stringify(config) });
    const result = await align([`--model.pipeline=${model}`]);
    expectOneError(result, "E-FILE-031", 4, "x_embedder.weight", join(model, WEIGHTS));
    expectNothingHalf();
  });

  it("names a part that belongs to another model", async () => {
    const model = modelWith(encoderOfWidth(4));
    expectOneError(await align([`--model.pipeline=${model}`]), "E-FILE-032", 4, "text_encoder_2", model);
    expectNothingHalf();
  });

  it("says that a reward's folder is not there", async () => {
    const result = await align(["--align.rewards.0.path=/nowhere/reward"]);
    expectOneError(result, "E-FILE-001", 4, "/nowhere/reward");
    expectNothingHalf();
  });
});

describe("data", () => {
  it("names a picture that does not decode, before any work", async () => {
    const model = modelWith({ "pictures-noto.png": read("pictures-noto.png").subarray(0, 5000) });
    expectOneError(await align([`--data.pictures=${model}`]), "E-DATA-020", 4, join(model, "pictures-noto.png"));
    expectNothingHalf();
  });

  it("names an item without a caption", async () => {
    const path = join(folder, "items.json");
    writeFileSync(
      path,
      JSON.stringify([
        { caption: "icon of taco", category: "food" },
        { item: "sari", region: "India" },
      ]),
    );
    expectOneError(await align([`--data.items=${path}`]), "E-DATA-030", 4, "item 1 (sari)");
    expectNothingHalf();
  });

  it("says so where no tail item is left", async () => {
    const path = join(folder, "head.json");
    writeFileSync(path, JSON.stringify([{ caption: "icon of sun", tail: false }]));
    expectOneError(await align([`--data.items=${path}`]), "E-DATA-036", 4, path);
    expectNothingHalf();
  });
});

describe("a full disk", () => {
  it("while `sample` writes a picture", async () => {
    const output = join(folder, "pictures");
    const disk = new FullDisk((path) => path.includes("icon_of_taco_1.png"));
    const words = ["sample", "icon of taco", `--output=${output}`, "--count=2", "--sample.steps=1", ...SMALL_RUN];
    expectOneError(await longtail(words, new DiskFiles(disk)), "E-ENV-020", 3, "icon_of_taco_1.png");
    expect(readdirSync(output)).toEqual(["icon_of_taco_0.png"]);
  });
});
