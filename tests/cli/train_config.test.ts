// The configuration of a training run: what is refused before anything is opened, the short names and --data on the command
// line, presets below a file, and `longtail init`.

import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { LongtailError } from "../../src/base/errors.ts";
import { parseArguments } from "../../src/cli/arguments.ts";
import type { Command, CommandContext } from "../../src/cli/command.ts";
import { loadCommands } from "../../src/cli/commands.ts";
import { runCommandLine } from "../../src/cli/main.ts";
import { DiskFiles } from "../../src/platform/files.ts";
import { fullKey, loadConfig, type Override, type ResolvedConfig } from "../../src/runs/config/load.ts";
import { toToml } from "../../src/runs/config/toml.ts";
import { projectSources } from "../../src/runs/project.ts";
import { checkTraining, withDataFlag } from "../../src/runs/train/checks.ts";
import { ROOT } from "../helpers/files.ts";
import { RecordingTerminal } from "./recorder.ts";

const sources = projectSources(new DiskFiles());
const presets = readdirSync(join(ROOT, "presets")).map((name) => name.replace(/\.toml$/, ""));

let folder: string;
let commands: Command[];
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "longtail-train-config-"));
  commands = await loadCommands();
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const overridesOf = (words: readonly string[]): Override[] =>
  words.map((word) => ({ key: word.slice(0, word.indexOf("=")), value: word.slice(word.indexOf("=") + 1) }));
const load = (...words: string[]) => loadConfig({ preset: "lora", overrides: overridesOf(words) }, sources);

async function refusal(work: () => unknown): Promise<LongtailError> {
  try {
    await work();
  } catch (error) {
    expect(error).toBeInstanceOf(LongtailError);
    return error as LongtailError;
  }
  throw new Error("it was accepted");
}

async function longtail(argv: readonly string[], own: readonly Command[] = commands) {
  const terminal = new RecordingTerminal();
  const code = await runCommandLine(argv, { terminal, commands: own, onInterrupt: () => () => {} });
  return { code, errors: terminal.errors, output: terminal.output };
}

/** What `train` would run with these words: its configuration, caught before a device is opened. */
async function resolvedBy(...argv: string[]): Promise<ResolvedConfig> {
  let caught: ResolvedConfig | null = null;
  const own = commands.map((command) => ({
    ...command,
    run: async (context: CommandContext) => {
      const source = context.arguments.positionals[0];
      const loaded = await context.loadConfig({ ...(source === undefined ? {} : { source }), preset: "lora" });
      caught = withDataFlag(loaded, context.arguments.flags["data"]);
      return 0;
    },
  }));
  const { errors, code } = await longtail(argv, own);
  expect([errors, code]).toEqual(["", 0]);
  return caught!;
}

describe("what makes no sense together", () => {
  it.each([
    ["E-CFG-050", ["data.sets=[]"], "there are no pictures to train on", "give --data=PATH"],
    [
      "E-CFG-050",
      ['data.sets=[{path = "a", prior = true}, {path = "b", split = "validation"}]'],
      "there are no pictures to train on",
      "[[data.sets]]",
    ],
    ["E-CFG-051", ["adapter.kind=full", "adapter.start=a.safetensors"], "full fine-tuning starts from no", "merge"],
    ["E-CFG-051", ["adapter.kind=full", "model.storage=nf4"], "cannot be stored as nf4", '"auto"'],
    ["E-CFG-051", ["adapter.kind=full", "model.storage=f16"], "cannot be stored as f16", "train an adapter"],
    ["E-CFG-054", ["optim.ema=1"], "a running mean with decay 1 never moves", "0.99 to 0.9999"],
    ["E-CFG-051", ["data.keep_tags=2"], "tags keep their places", "data.shuffle_tags = true"],
    ["E-CFG-054", ["data.min_side=128", "data.max_side=64"], "min_side = 128 is above max_side = 64", "swap"],
    ["E-CFG-051", ["adapter.kind=full", "save.dtype=f16"], "saved in f32", 'save.dtype = "f32"'],
  ])("%s refuses %j", async (code, words, what, fix) => {
    const { config } = await load(...words);
    const error = await refusal(() => checkTraining(config));
    expect(error.code).toBe(code);
    expect(error.exitCode).toBe(2);
    expect(error.message).toContain(what);
    expect(error.message.slice(error.message.indexOf("Fix: "))).toContain(fix);
    // Where it is told: the key that the user would change.
    expect(error.parts.where).toMatch(/^(data|adapter|model|optim|save)\.\w+$/);
  });

  it.each([
    [[]],
    [["adapter.kind=full"]],
    [["adapter.kind=full", "model.storage=f32"]],
    [["model.storage=nf4"]],
    [["optim.ema=0.999"]],
    [["data.keep_tags=2", "data.shuffle_tags=true"]],
    [["data.min_side=64", "data.max_side=64"]],
    [["data.min_side=64"]],
    [["save.dtype=f16", "adapter.kind=dora"]],
  ])("accepts %j", async (words) => {
    checkTraining((await load(...words)).config);
  });

  it("ends the command with that one sentence and exit code 2, without a run folder", async () => {
    for (const name of ["train", "cache"]) {
      const result = await longtail([name, "lora", "--data.sets=[]", `--run.folder=${folder}/none`]);
      expect(result.errors).toMatch(/^E-CFG-050 data\.sets: there are no pictures to train on .*Fix: .+\n$/);
      expect(result.code).toBe(2);
    }
    expect(existsSync(join(folder, "none"))).toBe(false);
  });
});

describe("the command line of a training run", () => {
  const keysOf = (...argv: string[]) =>
    parseArguments(argv, commands).overrides.map(({ key, value }) => [fullKey(key), value]);

  it("takes --steps for the command's own number of updates", () => {
    expect(keysOf("train", "--steps=7")).toEqual([["train.steps", "7"]]);
    expect(keysOf("cache", "--steps", "7")).toEqual([["train.steps", "7"]]);
    expect(keysOf("align", "--steps=7")).toEqual([["align.steps", "7"]]);
    expect(keysOf("demo", "--steps=7")).toEqual([["align.steps", "7"]]);
  });

  it("knows --batch, --lr and --rank where they mean one thing, and the names that all commands share", () => {
    expect(keysOf("train", "--batch=2", "--lr=1e-4", "--rank=4", "--adapter=dora", "--seed=3", "--gpu=deno")).toEqual([
      ["train.batch", "2"],
      ["optim.lr", "1e-4"],
      ["adapter.rank", "4"],
      ["adapter.kind", "dora"],
      ["train.seed", "3"],
      ["device.backend", "deno"],
    ]);
    expect(keysOf("train", "--name=a", "--resume=auto")).toEqual([
      ["run.name", "a"],
      ["run.resume", "auto"],
    ]);
    expect(() => parseArguments(["align", "--batch=2"], commands)).toThrow(/E-ARG-002/);
  });

  it("puts the pictures of --data in the place of all sets, and says so in the resolved configuration", async () => {
    const resolved = await resolvedBy("train", "lora", "--data=./my pictures", "--steps=5");
    expect(resolved.config.data.sets).toEqual([
      {
        path: "./my pictures",
        caption: "",
        repeats: 1,
        weight: 1,
        prior: false,
        split: "train",
        items: [],
        styles: [],
        image_column: "",
        caption_column: "",
      },
    ]);
    expect(resolved.config.train.steps).toBe(5);
    expect(resolved.origins.get("data.sets")).toBe("command line --data");
    checkTraining(resolved.config);
    // The written configuration alone repeats the run.
    const path = join(folder, "resolved.toml");
    writeFileSync(path, toToml(resolved));
    expect((await resolvedBy("train", path)).config).toEqual(resolved.config);
    const plain = await load();
    expect(withDataFlag(plain, undefined)).toBe(plain);
  });

  it("refuses --data without a path", async () => {
    const { errors, code } = await longtail(["train", "lora", "--data"]);
    expect(errors).toMatch(/^E-ARG-003 --data: the value is missing.*Fix: /);
    expect(code).toBe(2);
  });
});

describe("presets and files", () => {
  it("gives train the preset lora where nothing is named, below a file that names none, and not where it names another", async () => {
    const nothing = await resolvedBy("train");
    expect(nothing.preset).toBe("lora");
    expect(nothing.config.adapter.kind).toBe("lora");
    expect(nothing.config.data.sets).toHaveLength(1);

    const path = join(folder, "own.toml");
    writeFileSync(path, '[[data.sets]]\npath = "mine"\nrepeats = 3\n[train]\nbatch = 2\n');
    const own = await resolvedBy("train", path);
    expect(own.preset).toBe("lora");
    expect(own.config.data.sets.map(({ path: set, repeats }) => [set, repeats])).toEqual([["mine", 3]]);
    expect([own.config.train.batch, own.config.train.steps, own.config.optim.lr]).toEqual([2, 200, 1e-3]);
    expect(own.origins.get("train.batch")).toBe(path);
    expect(own.origins.get("train.steps")).toBe("preset lora");

    const other = join(folder, "other.toml");
    writeFileSync(other, 'preset = "embedded"\n[[data.sets]]\npath = "mine"\n');
    const resolved = await resolvedBy("train", other);
    expect(resolved.preset).toBe("embedded");
    expect(resolved.config.adapter.kind).toBe("full");
    expect([...resolved.origins.values()]).not.toContain("preset lora");
  });

  it.each(presets)(
    "loads the preset %s, reads its written form back, and says what it is in its first sentence",
    async (name) => {
      const resolved = await loadConfig({ source: name }, sources);
      expect(resolved.warnings.filter(({ code }) => code !== "E-CFG-030")).toEqual([]);
      const path = join(folder, `${name}.toml`);
      writeFileSync(path, toToml(resolved));
      expect((await loadConfig({ source: path }, sources)).config).toEqual(resolved.config);
      expect(readFileSync(join(ROOT, "presets", `${name}.toml`), "utf8")).toMatch(/^# [A-Z][^.]+\./);
      if (resolved.config.data.sets.length > 0) checkTraining(resolved.config);
    },
  );

  it("names the nearest key for a typo in [[data.sets]], with its line", async () => {
    const path = join(folder, "typo.toml");
    writeFileSync(path, '[[data.sets]]\npath = "a"\n\n[[data.sets]]\npath = "b"\nrepaets = 2\n');
    const { errors, code } = await longtail(["train", path]);
    expect(errors).toBe(
      `E-CFG-001 ${path} line 6: unknown key data.sets[1].repaets. Fix: did you mean data.sets[1].repeats?\n`,
    );
    expect(code).toBe(2);
    writeFileSync(path, '[[data.sets]]\npaht = "a"\n');
    expect((await longtail(["train", path])).errors).toContain("did you mean data.sets[0].path?");
    writeFileSync(path, '[[data.sets]]\npath = "a"\nsplit = "valid"\n');
    expect((await longtail(["train", path])).errors).toMatch(/E-CFG-002 .*data\.sets\[0\]\.split .*"validation"/);
    writeFileSync(path, "[[data.sets]]\nrepeats = 2\n");
    expect((await longtail(["train", path])).errors).toMatch(/E-CFG-002 .*data\.sets\[0\]\.path is nothing/);
    writeFileSync(path, '[[adapter.layers]]\nmatch = "attn"\nrnak = 2\n');
    expect((await longtail(["train", path])).errors).toContain("did you mean adapter.layers[0].rank?");
  });
});

describe("init", () => {
  it("lists every preset with its first sentence", async () => {
    const { code, output } = await longtail(["init"]);
    expect(code).toBe(0);
    for (const name of presets) expect(output).toMatch(new RegExp(`^  ${name} +[A-Z].{10,}$`, "m"));
    const { presets: listed } = JSON.parse((await longtail(["init", "--json"])).output) as {
      presets: { name: string; summary: string }[];
    };
    expect(listed.map(({ name }) => name)).toEqual([...presets].sort());
  });

  it("prints a preset's own text, which is the same run as the preset", async () => {
    const { code, output } = await longtail(["init", "lora"]);
    expect(code).toBe(0);
    expect(output.trimEnd()).toBe(readFileSync(join(ROOT, "presets/lora.toml"), "utf8").trimEnd());
    const path = join(folder, "printed.toml");
    writeFileSync(path, output);
    expect((await resolvedBy("train", path)).config).toEqual((await resolvedBy("train", "lora")).config);
  });

  it("writes a file, and never over one that exists", async () => {
    const path = join(folder, "new", "my.toml");
    const first = await longtail(["init", "lora", `--output=${path}`]);
    expect([first.errors, first.code]).toEqual(["", 0]);
    expect(first.output).toContain(`${path} written`);
    expect(readFileSync(path, "utf8")).toBe(readFileSync(join(ROOT, "presets/lora.toml"), "utf8"));
    writeFileSync(path, "changed");
    const second = await longtail(["init", "lora", `--output=${path}`]);
    expect(second.errors).toMatch(/^E-FILE-091 .*my\.toml: the file exists .*Fix: .+\n$/);
    expect(second.code).toBe(4);
    expect(readFileSync(path, "utf8")).toBe("changed");
  });

  it("names the nearest preset for a typo", async () => {
    const { errors, code } = await longtail(["init", "lroa"]);
    expect(errors).toBe("E-CFG-005 lroa: there is no such preset. Fix: did you mean lora?\n");
    expect(code).toBe(2);
  });
});
