// The configuration's layers, its errors and its written form.
import { readdirSync, readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { LongtailError } from "../../src/base/errors.ts";
import { longestMove } from "../../src/runs/config/checks.ts";
import { type ConfigSources, loadConfig, type Override, withValue } from "../../src/runs/config/load.ts";
import { describeSections, findOption } from "../../src/runs/config/schema.ts";
import { toToml } from "../../src/runs/config/toml.ts";

const presetFolder = new URL("../../presets/", import.meta.url);
const presetNames = readdirSync(presetFolder)
  .map((name) => name.replace(/\.toml$/, ""))
  .sort();

function sources(files: Record<string, string> = {}): ConfigSources {
  return {
    exists: (path) => Promise.resolve(path in files),
    readText: (path) => Promise.resolve(files[path]!),
    presetNames: () =>
      Promise.resolve([...presetNames, ...Object.keys(files).filter((name) => name.startsWith("test-"))]),
    readPreset: (name) => Promise.resolve(files[name] ?? readFileSync(new URL(`${name}.toml`, presetFolder), "utf8")),
  };
}

const fromText = (text: string, overrides: Override[] = []) =>
  loadConfig({ source: "my.toml", overrides }, sources({ "my.toml": text }));
const fromOverrides = (...overrides: string[]) =>
  loadConfig(
    {
      overrides: overrides.map((one) => {
        const cut = one.indexOf("=");
        return cut < 0 ? { key: one, value: true } : { key: one.slice(0, cut), value: one.slice(cut + 1) };
      }),
    },
    sources(),
  );

async function errorOf(promise: Promise<unknown>): Promise<LongtailError> {
  const error = await promise.then(
    () => null,
    (thrown: unknown) => thrown,
  );
  expect(error).toBeInstanceOf(LongtailError);
  return error as LongtailError;
}

describe("layers", () => {
  it("gives every key a default, a sentence and a place", async () => {
    const { config, origins } = await loadConfig({}, sources());
    expect(config.align.steps).toBe("ladder");
    expect(config.align.rewards).toEqual([{ kind: "hps", path: "embedded", weight: 1 }]);
    expect(origins.get("align.batch")).toBe("default");
    for (const { options, description } of describeSections()) {
      expect(description).not.toBe("");
      for (const option of options) {
        expect(option.description, option.key).toMatch(/[a-z0-9].*\.$/i);
        expect(option.accepted, option.key).not.toBe("");
      }
    }
  });

  it("lets the file win over the preset and the command line over both, and remembers who said what", async () => {
    const { config, origins, preset, sourceText } = await fromText(
      'preset = "embedded-lora"\n[align]\nbatch = 2\nthreshold = 0.5\n',
      [{ key: "align.batch", value: "3" }],
    );
    expect(preset).toBe("embedded-lora");
    expect(sourceText).toContain("threshold");
    expect([config.adapter.kind, config.optim.lr, config.align.batch, config.align.threshold]).toEqual([
      "lora",
      6e-4,
      3,
      0.5,
    ]);
    expect(origins.get("align.batch")).toBe("command line");
    expect(origins.get("align.threshold")).toBe("my.toml");
    expect(origins.get("adapter.kind")).toBe("preset embedded-lora");
    expect(origins.get("align.focus")).toBe("preset embedded");
    expect(origins.get("device.backend")).toBe("default");
  });

  it("takes the recipe's learning rate with the adapter kind", async () => {
    expect((await fromOverrides()).config.optim.lr).toBe(3e-5);
    const lora = await fromOverrides("adapter=lora");
    expect(lora.config.adapter.kind).toBe("lora");
    expect(lora.config.optim.lr).toBe(6e-4);
    expect(lora.origins.get("optim.lr")).toBe("the lora recipe");
    expect((await fromOverrides("adapter=lora", "optim.lr=1e-4")).config.optim.lr).toBe(1e-4);
  });

  it("reads overrides as their key wants them", async () => {
    const { config } = await fromOverrides(
      "align.discount_pos=0.1,0.25",
      "align.discount_inv=[0.3, 0.01]",
      "run.name=5",
      "align.steps=7",
      "align.offline",
      "align.negative_words=Concept art,Oil",
      "adapter.targets=to_q,to_k",
      "align.rewards.0.weight=2",
      "data.exclude_categories=",
    );
    expect(config.align.discount_pos).toEqual([0.1, 0.25]);
    expect(config.align.discount_inv).toEqual([0.3, 0.01]);
    expect(config.run.name).toBe("5");
    expect(config.align.steps).toBe(7);
    expect(config.align.offline).toBe(true);
    expect(config.align.negative_words).toEqual(["Concept art", "Oil"]);
    expect(config.adapter.targets).toEqual(["to_q", "to_k"]);
    expect(config.align.rewards[0]!.weight).toBe(2);
    expect(config.data.exclude_categories).toEqual([]);
  });

  it.each(presetNames)("preset %s is valid", async (name) => {
    const { config, preset } = await loadConfig({ source: name }, sources());
    expect(preset).toBe(name);
    expect(config.align.rewards).toHaveLength(1);
  });

  it("resolves the embedded preset to the measured recipe", async () => {
    const { config } = await loadConfig({ preset: "embedded" }, sources());
    expect(config.align).toMatchObject({
      steps: "ladder",
      ladder: [40, 80, 160],
      batch: 4,
      rollout_steps: 6,
      shift: 1.5,
      sigma_high: 0.9643,
      sigma_low: 0.5,
      timestep_length: 1000,
      groundtruth_ratio: 0.9,
      discount_pos: [1, 1],
      discount_inv: [0, 0],
      pair: "mia",
      threshold: 0.7,
      focus: 32,
      head_share: 0.25,
    });
    expect(config.optim).toMatchObject({
      lr: 3e-5,
      betas: [0.9, 0.999],
      eps: 1e-8,
      weight_decay: 1e-4,
      grad_clip: 0.1,
    });
    expect(longestMove(config.align.groundtruth_ratio, config.align.timestep_length)).toBe(100);
  });

  it("sets a key that the program decides, and refuses a wrong one", async () => {
    const resolved = withValue(await fromOverrides(), "align.steps", 80, "the ladder");
    expect(resolved.config.align.steps).toBe(80);
    expect(resolved.origins.get("align.steps")).toBe("the ladder");
    expect(() => withValue(resolved, "align.steps", -1, "the ladder")).toThrow(/E-CFG-003/);
  });
});

describe("errors", () => {
  it("names the nearest key, the file and the line for a typo", async () => {
    const error = await errorOf(fromText("[align]\nbatch = 4\nstesp = 10\n"));
    expect(error.code).toBe("E-CFG-001");
    expect(error.exitCode).toBe(2);
    expect(error.message).toBe("E-CFG-001 my.toml line 3: unknown key align.stesp. Fix: did you mean align.steps?");
  });

  it("gives the position in a list and finds a key of another section", async () => {
    expect(
      (await errorOf(fromText('[[align.rewards]]\nkind = "hps"\n[[align.rewards]]\nkind = "clip"\nwieght = 2\n')))
        .message,
    ).toBe("E-CFG-001 my.toml line 5: unknown key align.rewards[1].wieght. Fix: did you mean align.rewards[1].weight?");
    expect((await errorOf(fromOverrides("align.weight_decay=1"))).message).toContain(
      "did you mean optim.weight_decay?",
    );
    expect((await errorOf(fromOverrides("aling.steps=1"))).message).toContain("did you mean [align]?");
    expect((await errorOf(fromText("[optm]\nlr = 1\n"))).message).toContain("did you mean optim?");
    expect((await errorOf(fromText("[align.gaurd]\nevery = 1\n"))).message).toContain("did you mean align.guard?");
  });

  it("suggests the near key of every key that lost or swapped a letter", async () => {
    for (const { options } of describeSections()) {
      for (const { key } of options) {
        if (key.includes("[]")) continue;
        const last = key.slice(key.lastIndexOf(".") + 1);
        if (last.length < 3) continue;
        const typo = `${key.slice(0, -last.length)}${last.slice(0, 1)}${last.slice(2)}`;
        if (findOption(typo)) continue;
        const error = await errorOf(fromOverrides(`${typo}=1`));
        expect(error.code, typo).toBe("E-CFG-001");
        expect(error.message, typo).toContain(`did you mean ${key.slice(0, -last.length)}`);
      }
    }
  });

  it("says what was given and what is expected for a wrong type, choice or range", async () => {
    expect((await errorOf(fromText('[align]\nbatch = "four"\n'))).message).toBe(
      'E-CFG-002 my.toml line 2: align.batch is the text "four" → expected a whole number of at least 1. Fix: the default is 4',
    );
    expect((await errorOf(fromOverrides("adapter.kind=lroa"))).message).toContain('did you mean "lora"?');
    expect((await errorOf(fromOverrides("align.steps=0"))).message).toContain(
      'E-CFG-003 command line: align.steps = 0 is out of range → expected "ladder" or a whole number of at least 1',
    );
    expect((await errorOf(fromOverrides("adapter.rank=0"))).code).toBe("E-CFG-003");
    expect((await errorOf(fromText("align = 3\n"))).message).toContain(
      "align is the number 3 → expected a table of keys",
    );
    expect((await errorOf(fromText('[align]\ndiscount_pos = [1, "x"]\n'))).message).toContain(
      'position 2 of the list is the text "x"',
    );
    expect((await errorOf(fromText("[align]\ndiscount_pos = [1]\n"))).message).toContain(
      "align.discount_pos is a list of 1 → expected two numbers",
    );
    expect((await errorOf(fromText('[[align.rewards]]\nkind = "hpss"\n'))).message).toContain("align.rewards[0].kind");
    expect((await errorOf(fromText("[align]\nsigma_high = nan\n"))).code).toBe("E-CFG-003");
    expect((await errorOf(fromText("[align]\nthreshold = inf\n"))).code).toBe("E-CFG-003");
    expect((await errorOf(fromText("[run]\nname = 2026-01-01\n"))).message).toContain("is a date");
  });

  it("names what replaces a choice that is gone", async () => {
    const expected =
      'device.tuner is the text "fixed" → it chose the kernels that "off" chooses, and no choice of kernels gives the same bits on every adapter. Fix: write device.tuner = "off", which runs the very same kernels';
    for (const config of [fromText('[device]\ntuner = "fixed"\n'), fromOverrides("device.tuner=fixed")]) {
      const error = await errorOf(config);
      expect(error.code).toBe("E-CFG-002");
      expect(error.message).toContain(expected);
    }
    expect((await errorOf(fromOverrides("device.tuner=onn"))).message).toContain('did you mean "on"?');
  });

  it("counts further problems instead of hiding them", async () => {
    expect((await errorOf(fromText("[align]\nbatch = 0\nstesp = 1\n[optim]\neps = -1\n"))).message).toMatch(
      /and 2 more to correct/,
    );
  });

  it("points at the line of a TOML syntax error", async () => {
    const error = await errorOf(fromText("[align]\nbatch = = 4\n"));
    expect(error.code).toBe("E-CFG-004");
    expect(error.message).toContain("my.toml line 2");
  });

  it("refuses unknown presets, files and circles", async () => {
    expect((await errorOf(loadConfig({ source: "embeded" }, sources()))).message).toContain(
      "E-FILE-001 embeded: there is no such configuration file or preset. Fix: did you mean the preset embedded?",
    );
    expect((await errorOf(loadConfig({ preset: "embedded-lroa" }, sources()))).message).toContain(
      "did you mean embedded-lora?",
    );
    const circle = { "test-a": 'preset = "test-b"\n', "test-b": 'preset = "test-a"\n' };
    expect((await errorOf(loadConfig({ preset: "test-a" }, sources(circle)))).message).toContain(
      "test-a → test-b → test-a",
    );
  });

  it("does not let a file reach into the prototype of tables", async () => {
    expect((await errorOf(fromText("[__proto__]\npolluted = true\n"))).code).toBe("E-CFG-001");
    expect(({} as Record<string, unknown>).polluted).toBeUndefined();
  });

  it.each([
    ["E-CFG-010", ["align.sigma_high=0.4"], "sigma_low"],
    ["E-CFG-010", ["align.sigma_high=1"], "sigma_high"],
    ["E-CFG-010", ["align.sigma_low=-0.1"], "sigma_low"],
    ["E-CFG-011", ["align.ladder=80,40"], "position 2"],
    ["E-CFG-012", ["align.timestep_length=10"], "N = 10"],
    ["E-CFG-012", ["align.groundtruth_ratio=1"], "groundtruth_ratio"],
    ["E-CFG-012", ["align.groundtruth_ratio=0.4"], "longer than half"],
    ["E-CFG-013", ["align.discount_pos=1,11"], "11"],
    ["E-CFG-013", ["align.discount_inv=-0.5,0"], "-0.5"],
    ["E-CFG-014", ["align.pair=control-words", "align.positive_words="], "positive_words"],
    ["E-CFG-015", ["align.rewards.0.weight=0"], "weight 0"],
    ["E-CFG-016", ["align.offline", "data.pictures=none"], "no pictures"],
    ["E-CFG-017", ["data.prompt=a picture"], "no {item}"],
    ["E-CFG-017", ["data.prompt=a {thing} {item}"], "{thing}"],
    ["E-CFG-018", ["optim.betas=0.9,1"], "betas"],
    ["E-CFG-019", ["align.stacked=yes", "align.branches=denoise"], "stack"],
    ["E-CFG-024", ["adapter.kind=lora", "adapter.targets=[]"], "adapter.targets"],
    ["E-CFG-025", ["device.backend=deno", "device.robust=true"], "bounds checks"],
    ["E-CFG-006", ["align.rewards.3.weight=1"], "no position 3"],
  ])("%s refuses %j", async (code, overrides, part) => {
    const error = await errorOf(fromOverrides(...overrides));
    expect(error.code).toBe(code);
    expect(error.message).toContain(part);
    expect(error.message).toContain("Fix: ");
    expect(error.exitCode).toBe(2);
  });

  it("warns where a combination merely surprises", async () => {
    expect((await fromOverrides("align.steps=5")).warnings.map(({ code }) => code)).toEqual(["E-CFG-030"]);
    expect((await fromOverrides("optim.lr=1e-3")).warnings.map(({ code }) => code)).toEqual(["E-CFG-031"]);
    expect((await fromOverrides()).warnings).toEqual([]);
  });
});

describe("config.resolved.toml", () => {
  it.each(["embedded", "embedded-lora", "embedded-quick"])("reads back as the same configuration: %s", async (name) => {
    const resolved = await loadConfig(
      {
        source: name,
        overrides: [
          { key: "align.threshold", value: "1e-7" },
          { key: "run.name", value: 'a "b" \\ é' },
        ],
      },
      sources(),
    );
    const text = toToml(resolved, ["a run"]);
    expect(text.startsWith("# a run\n")).toBe(true);
    expect(text).toContain("from command line");
    for (const line of text.split("\n")) if (line.startsWith("#")) expect(line.length).toBeLessThanOrEqual(112);
    expect((await fromText(text)).config).toEqual(resolved.config);
  });
});
