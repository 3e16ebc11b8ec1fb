// `longtail preprocess` with the embedded encoders: both forms of files, what they hold compared with the encoders
// themselves, resuming after a stop and after a change of the prompts, and folders made by other programs.

import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, unlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { bf16ToF32, f32ToBf16 } from "../../src/base/halves.ts";
import { command } from "../../src/cli/commands/preprocess.ts";
import { runCommandLine } from "../../src/cli/main.ts";
import { PromptEmbeddings } from "../../src/data/prompt_embeddings.ts";
import { torchTensorFile } from "../../src/formats/torch_write.ts";
import { Session } from "../../src/tensor/session.ts";
import { targetOf } from "../../src/tensor/target.ts";
import { PromptEncoder } from "../../src/training/prompt_encoder.ts";
import { openPipeline } from "../helpers/embedded.ts";
import { NodeFiles } from "../helpers/files.ts";
import { testGpu } from "../helpers/gpu.ts";
import { RecordingTerminal } from "./recorder.ts";

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "longtail-preprocess-"));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const files = new NodeFiles();
const PROMPTS = ["noto icon of taco", "icon of sari", "noto icon of moai"];

async function preprocess(...argv: string[]) {
  const terminal = new RecordingTerminal();
  const words = ["preprocess", ...argv, "--device.tuner=off"];
  const code = await runCommandLine(words, { commands: [command], terminal, onInterrupt: () => () => {} });
  return { code, errors: terminal.errors, output: terminal.output };
}

async function reference(prompts: readonly string[]) {
  const session = new Session(targetOf(await testGpu()));
  try {
    const pipeline = await openPipeline(session, { transformer: false, decoder: false });
    const encoder = new PromptEncoder(session, pipeline, prompts.length);
    await session.open(await testGpu());
    await pipeline.loadWeights(session);
    return await encoder.encode(prompts);
  } finally {
    session.close();
  }
}

describe("preprocess", () => {
  it("writes what the encoders give, in both forms, and goes on where it was stopped", async () => {
    const prompts = join(folder, "prompts.txt");
    const output = join(folder, "embeddings");
    writeFileSync(prompts, PROMPTS.join("\n"));
    const first = await preprocess(prompts, `--output=${output}`);
    expect(first.errors).toBe("");
    expect(first.output).toContain("3 prompts encoded, 0 were there already");
    const expected = await reference(PROMPTS);
    const made = await PromptEmbeddings.open(files, output);
    expect(made.items.map(({ caption }) => caption)).toEqual(PROMPTS);
    for (const [i, { states, pooled }] of expected.entries()) {
      const found = await made.load(i);
      expect(found.states).toEqual(states);
      expect(found.pooled).toEqual(pooled);
      expect(found.length * found.width).toBe(states.length);
    }

    // A file is lost, a prompt changes: these two are made again, the third is not touched.
    const kept = join(output, "prompt_embed/2.safetensors");
    const before = statSync(kept).mtimeMs;
    unlinkSync(join(output, "text_ids/0.safetensors"));
    writeFileSync(prompts, [PROMPTS[0], "icon of kimono", PROMPTS[2]].join("\n"));
    const second = await preprocess(prompts, `--output=${output}`);
    expect(second.output).toContain("2 prompts encoded, 1 were there already");
    expect(statSync(kept).mtimeMs).toBe(before);
    expect((await PromptEmbeddings.open(files, output)).items[1]!.caption).toBe("icon of kimono");
    expect((await preprocess(prompts, `--output=${output}`)).output).toContain(
      "0 prompts encoded, 3 were there already",
    );

    const torch = join(folder, "torch");
    writeFileSync(prompts, PROMPTS.join("\n"));
    expect((await preprocess(prompts, `--output=${torch}`, "--format=torch")).code).toBe(0);
    const list = JSON.parse(readFileSync(join(torch, "videos2caption2.json"), "utf8"));
    expect(list[2]).toEqual({
      caption: PROMPTS[2],
      prompt_embed_path: "2.pt",
      pooled_prompt_embeds_path: "2.pt",
      text_ids: "2.pt",
    });
    const halves = await (await PromptEmbeddings.open(files, torch)).load(0);
    expect(halves.states).toEqual(bf16ToF32(f32ToBf16(expected[0]!.states)));
  });

  it("fills a template with items, and keeps what they say besides", async () => {
    const items = join(folder, "items.json");
    const output = join(folder, "items");
    writeFileSync(items, JSON.stringify([{ item: "taco", caption: "a taco", category: "food", mia_region: "Mexico" }]));
    expect((await preprocess(items, `--output=${output}`, "--template=noto icon of {item}")).code).toBe(0);
    const { items: made } = await PromptEmbeddings.open(files, output);
    expect(made[0]).toMatchObject({ caption: "noto icon of taco", item: "taco", category: "food", region: "Mexico" });
  });

  it("says what is missing, and that T5 does not read every script", async () => {
    const prompts = join(folder, "cjk.txt");
    writeFileSync(prompts, "icon of 寿司");
    expect((await preprocess(prompts)).errors).toContain("E-ARG-080");
    expect((await preprocess(prompts, `--output=${folder}/x`, "--format=pickle")).errors).toContain("E-ARG-081");
    const { output } = await preprocess(prompts, `--output=${folder}/x`);
    expect(output).toContain("E-DATA-074");
    expect(existsSync(join(folder, "x/prompt_embed/0.safetensors"))).toBe(true);
  });
});

describe("a folder of SRPO's scripts", () => {
  const make = (name: string, entry: Record<string, unknown>, shape = [4, 6]) => {
    const at = join(folder, name);
    for (const part of ["prompt_embed", "pooled_prompt_embeds", "text_ids"])
      mkdirSync(join(at, part), { recursive: true });
    const numbers = (count: number) => Float32Array.from({ length: count }, (_, i) => i / 8);
    writeFileSync(join(at, "prompt_embed/0.pt"), torchTensorFile(numbers(24), shape, "BF16"));
    writeFileSync(join(at, "pooled_prompt_embeds/0.pt"), torchTensorFile(numbers(3), [3], "BF16"));
    writeFileSync(join(at, "videos2caption.json"), JSON.stringify([entry]));
    return at;
  };
  const entry = {
    prompt_embed_path: "0.pt",
    text_ids: "0.pt",
    pooled_prompt_embeds_path: "0.pt",
    caption: "a cat",
    pos_prompt: "a real cat",
  };

  it("is read as it is, a batch of one included", async () => {
    for (const shape of [
      [4, 6],
      [1, 4, 6],
    ]) {
      const made = await PromptEmbeddings.open(files, make("foreign", entry, shape));
      expect(made.items[0]).toMatchObject({ caption: "a cat", pos: "a real cat" });
      expect(await made.load(0)).toMatchObject({ length: 4, width: 6, pooled: Float32Array.of(0, 1 / 8, 2 / 8) });
    }
  });

  it("is refused where names lead elsewhere or shapes are others", async () => {
    const load = async (at: string) => (await PromptEmbeddings.open(files, at)).load(0);
    await expect(load(make("out", { ...entry, prompt_embed_path: "../0.pt" }))).rejects.toThrow(/E-DATA-070/);
    await expect(load(make("none", { caption: "a cat" }))).rejects.toThrow(/E-DATA-070/);
    await expect(load(make("flat", entry, [24]))).rejects.toThrow(/E-DATA-071/);
    await expect(PromptEmbeddings.open(files, folder)).rejects.toThrow(/E-FILE-001/);
  });
});
