// What the long-tail mode asks the worker for: TOML that the configuration loader takes, a command that says the same, names
// that are free, and a cost that does not promise.

import { describe, expect, it } from "vitest";
import { DiskFiles } from "../../../src/platform/files.ts";
import { loadConfig } from "../../../src/runs/config/load.ts";
import { projectSources } from "../../../src/runs/project.ts";
import { costOf, costText } from "../../../src/web/longtail/cost.ts";
import {
  ALIGN_PRESETS,
  type AlignForm,
  alignCommand,
  alignedNames,
  alignToml,
  draws,
  freeName,
  measureEvery,
  startProblem,
  tomlText,
} from "../../../src/web/longtail/request.ts";

const FORM: AlignForm = { length: null, weights: "full", pair: "mia", seed: 7, name: "" };
const ITEMS = ["diya lamp", "piñata", 'a "quoted" one'];
const { hardware, software } = ALIGN_PRESETS;

async function configOf(toml: string) {
  const sources = { ...projectSources(new DiskFiles()), readText: async () => toml, exists: async () => true };
  return (await loadConfig({ source: "page.toml" }, sources)).config;
}

describe("the configuration that the page makes", () => {
  it("is accepted by the loader, and says what the form says", async () => {
    for (const preset of [hardware, software]) {
      for (const weights of ["full", "lora"] as const) {
        const config = await configOf(alignToml({ ...FORM, weights, length: 2 }, preset, ITEMS));
        expect(config.align.items).toEqual(ITEMS);
        expect(config.align.steps).toBe(preset.updates[2]);
        expect(config.align.batch).toBe(preset.batch);
        expect(config.align.guard).toMatchObject({ pictures: true, items: 3, every: measureEvery(preset.updates[2]) });
        expect(config.adapter.kind).toBe(weights);
        expect(config.optim.lr).toBe(weights === "full" ? 3e-5 : 6e-4);
        expect(config.train.seed).toBe(7);
        expect(config.eval.judge).toBe("embedded");
      }
    }
  });

  it("keeps every pair of texts that the form offers", async () => {
    for (const pair of ["mia", "control-words", "none"] as const)
      expect((await configOf(alignToml({ ...FORM, pair }, hardware, ITEMS))).align.pair).toBe(pair);
  });

  it("measures at least twice even where one item is picked, and never more often than every second update", () => {
    expect(measureEvery(4)).toBe(2);
    expect(measureEvery(160)).toBe(20);
    expect(alignToml(FORM, hardware, ["moai"])).toContain("\nitems = 2\n");
  });

  it("can be read back for its items", () => {
    expect(alignedNames(alignToml(FORM, hardware, ITEMS))).toEqual(ITEMS);
    expect(alignedNames('preset = "embedded"\n')).toEqual([]);
  });

  it("is repeated by a command with the same keys", async () => {
    const words = alignCommand({ ...FORM, weights: "lora" }, software, ["diya lamp"], "first");
    expect(words).toMatch(/^npx longtail align embedded /);
    expect(words).toContain(`'--align.items=["diya lamp"]'`);
    expect(words).toContain("--name=first");
    // As a shell would cut it.
    const argv = [...words.matchAll(/'([^']*)'|(\S+)/g)].map((m) => m[1] ?? m[2]!).slice(3);
    const overrides = argv.flatMap((word) => {
      const [, key, value] = /^--([a-z]+\.[\w.]+)=(.*)$/.exec(word) ?? [];
      return key ? [{ key, value: value! }] : [];
    });
    const config = (await loadConfig({ source: "embedded", overrides }, projectSources(new DiskFiles()))).config;
    const page = await configOf(alignToml({ ...FORM, weights: "lora" }, software, ["diya lamp"]));
    expect(config.align).toEqual(page.align);
    expect(config.adapter).toEqual(page.adapter);
    expect(config.eval).toEqual(page.eval);
  });

  it("writes texts so that TOML reads them back", () => {
    expect(tomlText('a "b" \\ c\n')).toBe('"a \\"b\\" \\\\ c\\u000a"');
  });
});

describe("starting", () => {
  it("needs a picked concept, a plain name and a whole seed", () => {
    expect(startProblem(FORM, 0)).toMatch(/Pick at least one/);
    expect(startProblem(FORM, 1)).toBeNull();
    expect(startProblem({ ...FORM, name: "a/b" }, 1)).toMatch(/name/);
    expect(startProblem({ ...FORM, seed: 1.5 }, 1)).toMatch(/seed/);
  });

  it("takes a name that no run has", () => {
    expect(freeName(FORM, ["piñata"], [])).toBe("pinata");
    expect(freeName(FORM, ITEMS, [])).toBe("tail-3");
    expect(freeName(FORM, ITEMS, ["tail-3", "tail-3-2"])).toBe("tail-3-3");
    expect(freeName({ ...FORM, name: "mine" }, ITEMS, [])).toBe("mine");
  });

  it("says how often each item is drawn", () => {
    expect(draws(40, hardware, 32)).toBeCloseTo(3.75);
  });
});

describe("the cost", () => {
  const plan = { steps: 80, flopsPerUpdate: 59e9 };

  it("is a range where nothing was measured, and one number where something was", () => {
    const guessed = costOf(plan, hardware, 32);
    expect(guessed.high).toBeGreaterThan(5 * guessed.low);
    expect(costText(guessed)).toMatch(/roughly .* to .*not measured/);
    const known = costOf(plan, hardware, 32, 1e12);
    expect(known.low).toBe(known.high);
    expect(costText(known)).toMatch(/about .*earlier run/);
  });

  it("counts updates and pictures", () => {
    const { flops } = costOf(plan, hardware, 32);
    expect(flops).toBeGreaterThan(80 * 59e9);
    expect(costOf(plan, hardware, 8).flops).toBeLessThan(flops);
  });
});
