// `longtail plan` and `longtail sample` on the embedded model: what they print for machines, and the pictures they leave.

import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { runCommandLine } from "../../src/cli/main.ts";
import { EmbeddedData } from "../../src/data/embedded.ts";
import { writeLora } from "../../src/formats/lora.ts";
import { decodePng, encodePng, fromPlanes } from "../../src/formats/png.ts";
import { EMBEDDED } from "../helpers/embedded.ts";
import { NodeFiles } from "../helpers/files.ts";
import { SMALL_RUN } from "../helpers/processes.ts";
import { RecordingTerminal } from "./recorder.ts";

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "longtail-sample-"));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

async function longtail(...argv: string[]) {
  const terminal = new RecordingTerminal();
  const code = await runCommandLine(argv, { terminal, onInterrupt: () => () => {} });
  return { code, errors: terminal.errors, output: terminal.output };
}

describe("plan", () => {
  it("prints memory by category, dispatches and times as JSON, and writes nothing", async () => {
    const result = await longtail("plan", "--json", `--run.folder=${folder}/runs`, ...SMALL_RUN);
    expect(result.errors).toBe("");
    expect(result.code).toBe(0);
    const plan = JSON.parse(result.output);
    expect(Object.keys(plan).sort()).toEqual([
      "dispatchesPerUpdate",
      "flopsPerUpdate",
      "memory",
      "seconds",
      "speed",
      "steps",
      "texts",
    ]);
    expect(plan).toMatchObject({ dispatchesPerUpdate: expect.any(Number), flopsPerUpdate: expect.any(Number) });
    expect([40, 80, 160]).toContain(plan.steps);
    const { memory } = plan;
    const { weights, adapter, gradients, optimizer, data } = memory.variables;
    // Full fine-tuning: a gradient for every trained weight and two moments.
    expect(adapter).toBe(0);
    expect(optimizer).toBe(2 * gradients);
    expect(weights).toBeGreaterThan(gradients);
    expect(memory.total).toBe(
      weights + gradients + optimizer + data + memory.arena + memory.uniforms + memory.bindings + memory.staging,
    );
    expect(memory.arena).toBe(Math.max(...memory.plans.map((p: { arena: number }) => p.arena)));
    expect(memory.plans.map((p: { name: string }) => p.name)).toEqual(
      expect.arrayContaining(["rollout", "micro-step", "optimizer", "draw step", "draw finish"]),
    );
    // Texts are encoded before and their encoders given back: none of them is in the plan of the training.
    expect(memory.plans.every(({ name }: { name: string }) => !/text|prompt/.test(name))).toBe(true);
    for (const key of ["encoders", "towers", "prompts", "cached", "texts"]) expect(plan.texts[key]).toBeGreaterThan(0);
    for (const key of ["update", "training", "evaluation"]) expect(plan.seconds[key]).toBeGreaterThan(0);
    expect(readdirSync(folder)).not.toContain("runs");
  });

  it("says the same in words", async () => {
    const { code, output } = await longtail("plan", "--adapter=lora", "--align.steps=7", ...SMALL_RUN);
    expect(code).toBe(0);
    for (const word of [
      "device memory",
      "weights",
      "adapter",
      "optimizer",
      "gradients",
      "activations",
      "dispatches",
      "GFLOP",
      "7 updates: about",
      "first the text encoders: ",
      "then the text towers of rewards and judge: ",
    ])
      expect(output).toContain(word);
  });
});

describe("plan --memory", () => {
  it("shows what makes an alignment smaller", async () => {
    const asked = ["plan", "--align.batch=2", ...SMALL_RUN.filter((word) => !word.startsWith("--align.batch"))];
    const { output, errors } = await longtail(...asked, "--memory=1MiB", "--json");
    expect(errors).toBe("");
    const { ladder, texts, memory } = JSON.parse(output);
    expect(ladder[0]).toEqual({ change: [], bytes: memory.total, fits: false });
    expect(ladder.at(-1).change).toContain("--align.batch=1");
    expect(ladder.at(-1).bytes).toBeLessThan(memory.total);
    expect(ladder.at(-1).bytes).toBeGreaterThan(Math.max(texts.encoders, texts.towers));
    const words = await longtail(...asked, "--memory=1MiB");
    expect(words.output).toContain("none of these fits; lower model.image_size");
  });
});

describe("sample", () => {
  const words = ["--sample.steps=1", "--sample.seed=5", ...SMALL_RUN];

  it("writes pictures that say how they were made, skips those that exist, and keeps its names apart", async () => {
    const output = join(folder, "pictures");
    const first = await longtail("sample", "noto icon of taco", `--output=${output}`, "--count=2", "--json", ...words);
    expect([first.errors, first.code]).toEqual(["", 0]);
    expect(JSON.parse(first.output.trimEnd().split("\n").at(-1)!)).toEqual({
      kind: "result",
      value: { output, drawn: 2, skipped: 0 },
    });
    expect(readdirSync(output).sort()).toEqual(["grid.png", "noto_icon_of_taco_0.png", "noto_icon_of_taco_1.png"]);
    const path = join(output, "noto_icon_of_taco_1.png");
    const picture = decodePng(readFileSync(path), path);
    expect(picture).toMatchObject({ width: 64, height: 64 });
    expect(picture.text).toMatchObject({
      prompt: "noto icon of taco",
      seed: "5",
      picture: "1",
      steps: "1",
      weights: "base",
    });
    const before = { bytes: readFileSync(path), time: statSync(path).mtimeMs };

    // One more of the same, and a prompt that reads the same as a file name.
    const more = ["sample", "noto icon of taco", "noto icon of: taco", `--output=${output}`, ...words];
    rmSync(join(output, "noto_icon_of_taco_0.png"));
    const second = await longtail(...more);
    expect([second.errors, second.code]).toEqual(["", 0]);
    expect(second.output).toContain("3 pictures in");
    expect(second.output).toContain("1 were there already");
    expect(readdirSync(output)).toHaveLength(5);
    expect(statSync(path).mtimeMs).toBe(before.time);
    const grid = decodePng(readFileSync(join(output, "grid.png")), "grid.png");
    expect(grid.width).toBeGreaterThan(4 * 2 * 64 - 1);

    // Nothing left to draw: no device is opened.
    const third = await longtail(...more, "--gpu=deno", "--json");
    expect(third.code).toBe(0);
    expect(third.output).not.toContain("device:");

    // Other settings would be another picture: it is neither taken for this one nor overwritten.
    const other = await longtail("sample", "noto icon of taco", `--output=${output}`, ...words, "--sample.seed=6");
    expect(other.code).toBe(2);
    expect(other.errors).toMatch(/^E-ARG-052 .*its seed is "5" and not "6".*Fix: /);
    expect(readFileSync(path).equals(before.bytes)).toBe(true);
  });

  it("starts from a picture: all of it drawn anew is the picture without it, and a little of it is nearly itself", async () => {
    const pixels = (name: string) => {
      const path = join(folder, name, "noto_icon_of_taco_0.png");
      return decodePng(readFileSync(path), path);
    };
    const draw = async (name: string, ...more: string[]) => {
      const all = [
        "noto icon of taco",
        `--output=${join(folder, name)}`,
        "--count=1",
        ...words,
        "--sample.steps=4",
        ...more,
      ];
      const result = await longtail("sample", ...all);
      expect([result.errors, result.code]).toEqual(["", 0]);
      return pixels(name);
    };
    const difference = (a: ArrayLike<number>, b: ArrayLike<number>) =>
      Array.from(a, (v, i) => Math.abs(v - b[i]!)).reduce((x, y) => x + y) / a.length;
    const data = await EmbeddedData.load(new NodeFiles(), EMBEDDED);
    const source = fromPlanes((await data.picture(data.items[0]!, "noto"))!, data.size, data.size);
    const path = join(folder, "source.png");
    writeFileSync(path, encodePng(source));
    const image = `--image=${path}`;
    const whole = await draw("whole", image, "--strength=1", "--sample.seed=6");
    const plain = await draw("plain", "--sample.seed=6");
    expect(whole.data).toEqual(plain.data);
    expect(whole.text).toMatchObject({ image_strength: "1", image_id: expect.stringMatching(/^[0-9a-f]{16}$/) });
    expect(plain.text).not.toHaveProperty("image_id");
    const little = await draw("little", image, "--strength=0.25", "--sample.seed=6", "--sample.shift=1");
    expect(difference(little.data, source.data)).toBeLessThan(difference(plain.data, source.data) / 2);
    // A picture of another strength is another one.
    const other = await longtail(
      "sample",
      "noto icon of taco",
      `--output=${join(folder, "little")}`,
      "--count=1",
      ...words,
      "--sample.steps=4",
      "--sample.seed=6",
      "--sample.shift=1",
      image,
      "--image-strength=0.5",
    );
    expect(other.errors).toMatch(/^E-ARG-052 .*its image_strength is "0.25" and not "0.5"/);
  });

  it("refuses a picture to start from that is none, and strengths that leave nothing to do", async () => {
    const start = (...more: string[]) => longtail("sample", "icon of taco", ...words, "--sample.steps=4", ...more);
    writeFileSync(join(folder, "noise.png"), "this is no picture");
    const image = `--image=${join(folder, "noise.png")}`;
    expect(await start(image)).toMatchObject({ code: 4, errors: expect.stringMatching(/^E-DATA-021 .*noise\.png/) });
    expect(await start(`--image=${join(folder, "nowhere.png")}`)).toMatchObject({
      code: 4,
      errors: expect.stringMatching(/^E-FILE-001 .*nowhere\.png/),
    });
    for (const strength of ["1.5", "-0.1", "much"]) {
      const errors = expect.stringMatching(/^E-ARG-051 .*between 0 and 1/);
      expect(await start(image, `--strength=${strength}`)).toMatchObject({ code: 2, errors });
    }
    expect((await start(image, "--strength=0")).errors).toMatch(/^E-ARG-053 .*leaves no step/);
    expect((await start("--image-strength=0.5")).errors).toMatch(/^E-ARG-054 .*Fix: /);
    expect((await start(image, "--size=100x64")).errors).toMatch(/^E-CFG-041 /);
  });

  it("writes no black picture where the numbers leave the range of f32", async () => {
    const path = join(folder, "wild.safetensors");
    const config = JSON.parse(readFileSync(join(EMBEDDED, "transformer/config.json"), "utf8"));
    const width = config.num_attention_heads * config.attention_head_dim;
    const layer = { rank: 1, inputs: width, outputs: width, scale: 1 };
    const factors = { down: new Float32Array(width).fill(1e30), up: new Float32Array(width).fill(1e30) };
    const layers = new Map([["single_transformer_blocks.0.attn.to_v", { ...layer, ...factors }]]);
    await writeLora(new NodeFiles(), path, layers, { fields: "portable" });
    const output = join(folder, "wild");
    const result = await longtail("sample", "noto icon of taco", `--weights=${path}`, `--output=${output}`, ...words);
    expect(result).toMatchObject({ code: 5, errors: expect.stringMatching(/^E-NUM-012 noto icon of taco.*Fix: /) });
    expect(existsSync(output)).toBe(false);
  });

  it("refuses what cannot be drawn", async () => {
    const nothing = await longtail("sample", ...words);
    expect(nothing.code).toBe(2);
    expect(nothing.errors).toMatch(/^E-ARG-050 .*Fix: /);
    const many = await longtail("sample", "icon of taco", "--count=none", ...words);
    expect(many.errors).toMatch(/^E-ARG-051 .*Fix: /);
    writeFileSync(join(folder, "noise.safetensors"), "this is no model");
    const weights = await longtail(
      "sample",
      "icon of taco",
      `--weights=${join(folder, "noise.safetensors")}`,
      ...words,
    );
    expect(weights.code).toBe(4);
    expect(weights.errors).toMatch(/^E-FILE-\d+ .*noise\.safetensors.*Fix: /);
  });
});
