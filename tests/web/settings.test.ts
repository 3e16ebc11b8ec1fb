// The form's settings as a configuration file, as a command and as an address: what the page writes is read by the very
// loader of the command line.

import { readFile } from "node:fs/promises";
import fc from "fast-check";
import { parse } from "smol-toml";
import { describe, expect, it } from "vitest";
import { loadConfig } from "../../src/runs/config/load.ts";
import {
  DEFAULT_SETTINGS,
  effective,
  FIELDS,
  freeName,
  type PictureChoice,
  PRESETS,
  settingsFromHash,
  settingsOfToml,
  settingsToHash,
  startProblem,
  type TrainSettings,
  tomlString,
  trainCommand,
  trainToml,
} from "../../src/web/settings.ts";

const RARE: PictureChoice = {
  label: "rare items",
  path: "embedded",
  items: ["diya lamp", "taco", "piñata", "moai", "sari"],
  styles: ["noto"],
  pictures: 5,
};
const OWN: PictureChoice = { label: "my cats", path: "pictures/mine", items: [], styles: [], pictures: 12 };

const form = (change: Partial<TrainSettings>): TrainSettings => ({ ...DEFAULT_SETTINGS, set: RARE, ...change });

/** Loads a configuration text as `longtail train config.toml` would. */
async function load(text: string, overrides: { key: string; value: string }[] = []) {
  return await loadConfig(text === "" ? { preset: "lora", overrides } : { source: "config.toml", overrides }, {
    readText: async () => text,
    exists: async () => true,
    presetNames: async () => ["lora"],
    readPreset: (name) => readFile(`presets/${name}.toml`, "utf8"),
  });
}

describe("the configuration of a run", () => {
  it.each(["hardware", "software"] as const)("is accepted by the loader with every pace (%s)", async (id) => {
    for (const pace of [0, 1, 2, 3, 4]) {
      const settings = form({ pace });
      const { config, warnings, preset } = await load(trainToml(settings, PRESETS[id]));
      expect(preset).toBe("lora");
      expect(warnings).toEqual([]);
      expect(config.train.steps).toBe(PRESETS[id].updates[pace]);
      expect(config.train.batch).toBe(PRESETS[id].batch);
      expect(config.data.sets).toMatchObject([{ path: "embedded", items: RARE.items, styles: ["noto"] }]);
      expect(config.schedule.warmup).toBeLessThanOrEqual(config.train.steps / 4);
    }
  });

  it("names preset lora in its first line", () => {
    expect(trainToml(form({}), PRESETS.hardware).split("\n")[0]).toBe('preset = "lora"');
  });

  it("cuts own pictures to squares and enlarges small ones", async () => {
    const { config } = await load(trainToml(form({ set: OWN, trigger: 'oh"wx' }), PRESETS.hardware));
    expect(config.data).toMatchObject({ buckets: false, upscale: true, trigger: 'oh"wx' });
    expect(config.data.sets[0]!.path).toBe("pictures/mine");
  });

  it("keeps every value that was set by hand", async () => {
    const settings = form({ updates: 33, batch: 3, lr: 2e-5, rank: 4, seed: 7 });
    const { config } = await load(trainToml(settings, PRESETS.software));
    expect(config.train).toMatchObject({ steps: 33, batch: 3, seed: 7 });
    expect(config.adapter).toMatchObject({ kind: "lora", rank: 4, alpha: 4 });
    expect(config.optim.lr).toBe(2e-5);
  });

  it("writes any text as a TOML string that reads back", () => {
    fc.assert(
      fc.property(
        fc.string({ unit: fc.integer({ min: 0, max: 0xd7ff }).map((code) => String.fromCharCode(code)) }),
        (text) => {
          expect(parse(`trigger = ${tomlString(text)}`)).toEqual({ trigger: text });
        },
      ),
    );
  });
});

/** Words of a command as a POSIX shell splits them. */
function shellWords(command: string): string[] {
  return [...command.matchAll(/(?:'[^']*'|\\'|[^\s'])+/g)].map(([word]) =>
    word.replace(
      /'([^']*)'|\\(')/g,
      (_, quoted: string | undefined, escaped: string | undefined) => quoted ?? escaped ?? "",
    ),
  );
}

describe("the command that repeats a run", () => {
  it.each([
    ["embedded pictures", form({ trigger: "it's", pace: 1, seed: 3 })],
    ["an item with an apostrophe", form({ set: { ...RARE, items: ["jack-o'-lantern"] } })],
  ])("means the same configuration as the file: %s", async (_, settings) => {
    const words = shellWords(trainCommand(settings, PRESETS.hardware));
    expect(words.slice(0, 4)).toEqual(["npx", "longtail", "train", "lora"]);
    const overrides = words.slice(4).map((word) => {
      const [, key, value] = /^--([^=]+)=(.*)$/s.exec(word)!;
      return { key: key!, value: value! };
    });
    const fromCommand = (await load("", overrides)).config;
    const fromFile = (await load(trainToml(settings, PRESETS.hardware))).config;
    expect(fromCommand).toEqual(fromFile);
  });

  it("names a folder to put own pictures into", () => {
    expect(trainCommand(form({ set: OWN, name: "cats" }), PRESETS.hardware)).toMatch(
      / --data=\.\/pictures .*--name=cats$/,
    );
  });
});

const names = fc.stringMatching(/^[a-zA-Z0-9][a-zA-Z0-9 ñ'._-]{0,15}[a-zA-Z0-9]$/);
const anySettings: fc.Arbitrary<TrainSettings> = fc.record({
  set: fc.option(
    fc
      .record({
        items: fc.uniqueArray(names, { minLength: 1, maxLength: 6 }),
        styles: fc.uniqueArray(names, { maxLength: 2 }),
      })
      .map(
        ({ items, styles }): PictureChoice => ({
          label: "a set & more",
          path: "embedded",
          items,
          styles,
          pictures: items.length * Math.max(1, styles.length),
        }),
      ),
  ),
  trigger: fc.string({ unit: "grapheme", maxLength: 12 }),
  pace: fc.integer({ min: 0, max: 4 }),
  updates: fc.option(fc.integer({ min: 1, max: 20000 })),
  batch: fc.option(fc.integer({ min: 1, max: 64 })),
  lr: fc.option(fc.constantFrom(1e-6, 3.5e-4, 0.001, 1)),
  rank: fc.integer({ min: 1, max: 128 }),
  seed: fc.integer({ min: 0, max: 2 ** 31 - 1 }),
  name: fc.constantFrom("", "first", "a.b-c_1"),
});

describe("the form of a run that is resumed", () => {
  it("means the run's own configuration", () => {
    fc.assert(
      fc.property(anySettings, (settings) => {
        const preset = PRESETS.software;
        const toml = trainToml(settings, preset);
        const read = settingsOfToml(toml, "first", preset);
        if (settings.set === null) expect(read).toBeNull();
        else expect(trainToml(read!, preset)).toBe(toml);
      }),
    );
  });

  it("is not guessed from another's file", () => {
    expect(settingsOfToml('preset = "lora"\n[train]\nsteps = 120\n', "a", PRESETS.hardware)).toBeNull();
  });
});

describe("settings in an address", () => {
  it("read back as they were written", () => {
    fc.assert(
      fc.property(anySettings, (settings) => {
        expect(settingsFromHash(`#${settingsToHash(settings)}`)).toEqual({ settings, problems: [] });
      }),
    );
  });

  it("are empty for the defaults, and leave own pictures at home", () => {
    expect(settingsToHash({ ...DEFAULT_SETTINGS })).toBe("");
    expect(settingsToHash(form({ set: OWN, rank: 8 }))).toBe("rank=8");
  });

  it("have no trigger word of own pictures", () => {
    expect(settingsToHash(form({ set: OWN, trigger: "gloss" }))).toBe("");
    expect(settingsToHash(form({ set: RARE, trigger: "gloss" }))).toContain("trigger=gloss");
  });

  it("with an unknown key are refused whole, with the nearest name", () => {
    const { settings, problems } = settingsFromHash("#ranks=8&seed=3");
    expect(problems).toEqual(["“ranks” is not a setting; did you mean “rank”?"]);
    expect(settings).toEqual(DEFAULT_SETTINGS);
  });

  it.each([
    ["rank=0", /“rank=0”.*from 1 to 128/],
    ["lr=fast", /“lr=fast”.*a number/],
    ["seed=", /“seed=”.*whole number/],
    ["name=../up", /“name=..\/up”/],
    ["rank=8&rank=9", /there twice/],
    ["set=x", /needs “items”/],
    ["items=a", /need “set”/],
  ])("with a bad value are refused: %s", (hash, message) => {
    expect(settingsFromHash(hash).problems.join("\n")).toMatch(message);
  });
});

describe("the start button", () => {
  it("says how many pictures are missing", () => {
    expect(startProblem(DEFAULT_SETTINGS)).toBe("pick pictures first");
    expect(startProblem(form({ set: { ...OWN, pictures: 4 } }))).toBe("add 1 more picture");
    expect(startProblem(form({ set: { ...OWN, pictures: 3 } }))).toBe("add 2 more pictures");
    expect(startProblem(form({}))).toBeNull();
  });

  it("says which value is wrong", () => {
    expect(startProblem(form({ rank: 0 }))).toMatch(/^Rank: .* 1 to 128$/);
    expect(FIELDS.name.check("a/b")).not.toBeNull();
  });
});

describe("a run's name", () => {
  it("comes from the set and is never one that exists", () => {
    expect(freeName(form({}), [])).toBe("rare-items");
    expect(freeName(form({}), ["rare-items", "rare-items-2"])).toBe("rare-items-3");
    expect(freeName(form({ name: "mine" }), ["mine"])).toBe("mine-2");
    expect(FIELDS.name.check(freeName(form({ set: { ...OWN, label: "«»" } }), []))).toBeNull();
  });
});

describe("samplings", () => {
  it("come about five times in a run", () => {
    for (const pace of [0, 1, 2, 3, 4]) {
      const { updates, every } = effective(form({ pace }), PRESETS.hardware);
      expect(Math.floor((updates - 1) / every)).toBeLessThanOrEqual(5);
    }
  });
});
