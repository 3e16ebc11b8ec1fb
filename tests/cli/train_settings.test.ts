// How the keys of a configuration become settings of optimizer, learning rate and adapter.

import { describe, expect, it } from "vitest";
import { LongtailError } from "../../src/base/errors.ts";
import { learningRate } from "../../src/optim/schedules.ts";
import { DiskFiles } from "../../src/platform/files.ts";
import { adapterSettings } from "../../src/runs/adapter_settings.ts";
import { recipeRate } from "../../src/runs/config/checks.ts";
import { loadConfig, type Override } from "../../src/runs/config/load.ts";
import { optimizerSettings, rateSchedule } from "../../src/runs/optimizer_settings.ts";
import { projectSources } from "../../src/runs/project.ts";

const sources = projectSources(new DiskFiles());
const overridesOf = (words: readonly string[]): Override[] =>
  words.map((word) => ({ key: word.slice(0, word.indexOf("=")), value: word.slice(word.indexOf("=") + 1) }));
const load = (...words: string[]) => loadConfig({ preset: "lora", overrides: overridesOf(words) }, sources);

async function _refusal(work: () => unknown): Promise<LongtailError> {
  try {
    await work();
  } catch (error) {
    expect(error).toBeInstanceOf(LongtailError);
    return error as LongtailError;
  }
  throw new Error("it was accepted");
}

describe("settings", () => {
  it("hands every key of [optim] to the optimizer", async () => {
    const { config } = await load(
      "optim.kind=prodigy",
      "optim.betas=0.8,0.99",
      "optim.eps=1e-6",
      "optim.weight_decay=0.02",
      "optim.grad_clip=2",
      "optim.momentum=0.7",
      "optim.ema=0.95",
      "optim.d0=1e-5",
      "optim.d_coef=2",
      "optim.growth_rate=1.5",
      "optim.slice=11",
      "optim.bias_correction=false",
      "optim.safeguard_warmup=false",
      "optim.scale_parameter=true",
      "optim.relative_step=true",
      "train.loss_scale=on",
    );
    expect(optimizerSettings(config)).toEqual({
      kind: "prodigy",
      beta1: 0.8,
      beta2: 0.99,
      epsilon: 1e-6,
      weightDecay: 0.02,
      maxNorm: 2,
      momentum: 0.7,
      averageDecay: 0.95,
      prodigy: {
        decouple: true,
        useBiasCorrection: false,
        safeguardWarmup: false,
        d0: 1e-5,
        dCoef: 2,
        growthRate: 1.5,
        sliceP: 11,
      },
      adafactor: { scaleParameter: true, relativeStep: true, warmupInit: false },
      lossScale: { initial: 4096, growthInterval: 1000 },
    });
  });

  it("keeps no average and sets no limit of growth where the keys are 0", async () => {
    const settings = optimizerSettings((await load()).config);
    expect("averageDecay" in settings).toBe(false);
    expect("growthRate" in settings.prodigy!).toBe(false);
  });

  it.each([
    ["auto", "f32", false],
    ["auto", "f16", true],
    ["on", "f32", true],
    ["off", "f16", false],
  ])("scales the loss with loss_scale = %s and precision %s: %s", async (scale, precision, expected) => {
    const { config } = await load(`train.loss_scale=${scale}`, `device.precision=${precision}`);
    expect(optimizerSettings(config).lossScale !== null).toBe(expected);
  });

  it("makes rates of [schedule]: warmed up, at the peak, and at the end of each kind", async () => {
    const rates = async (...words: string[]) => {
      const { config } = await load("optim.lr=0.5", "schedule.warmup=4", ...words);
      return [1, 4, 5, 100].map((t) => Number(learningRate(rateSchedule(config, 100), t).toFixed(6)));
    };
    expect(await rates()).toEqual([0.1, 0.4, 0.5, 0.5]);
    expect(await rates("schedule.warmup=0")).toEqual([0.5, 0.5, 0.5, 0.5]);
    const linear = await rates("schedule.kind=linear");
    expect(linear.slice(0, 3)).toEqual([0.1, 0.4, 0.5]);
    expect(linear[3]).toBeCloseTo(0.5 / 96, 5);
    expect((await rates("schedule.kind=cosine"))[3]).toBeLessThan(0.001);
    const { config } = await load(
      "optim.lr=0.5",
      "schedule.kind=polynomial",
      "schedule.power=3",
      "schedule.end=0.25",
      "schedule.cycles=2",
      "schedule.warmup=0",
    );
    const schedule = rateSchedule(config, 50);
    expect(schedule).toEqual({
      kind: "polynomial",
      rate: 0.5,
      warmup: 0,
      total: 50,
      cycles: 2,
      power: 3,
      end: 0.25,
    });
    expect(learningRate(schedule, 51)).toBe(0.25);
    const restarts = rateSchedule(
      (await load("schedule.kind=cosine_with_restarts", "schedule.cycles=2", "schedule.warmup=0", "optim.lr=1")).config,
      100,
    );
    expect(learningRate(restarts, 51)).toBe(1);
    expect(learningRate(restarts, 50)).toBeLessThan(0.01);
  });

  it("takes the recipe's rate for what is trained and by which optimizer where optim.lr is auto", async () => {
    expect(recipeRate("full", "adamw")).toBe(3e-5);
    for (const kind of ["lora", "dora", "lokr"] as const) expect(recipeRate(kind, "adamw")).toBe(6e-4);
    expect(recipeRate("lora", "lion")).toBeCloseTo(6e-5, 12);
    expect(recipeRate("full", "lion")).toBeCloseTo(3e-6, 12);
    for (const kind of ["full", "lora"] as const) expect(recipeRate(kind, "prodigy")).toBe(1);
    const { config, origins } = await load("optim.lr=auto", "optim.kind=prodigy");
    expect(config.optim.lr).toBe(1);
    expect(origins.get("optim.lr")).toBe("the lora recipe");
    expect((await load("optim.kind=prodigy")).config.optim.lr).toBe(1e-3);
  });

  it("hands every key of [adapter] to the adapter, and none for full fine-tuning", async () => {
    const { config } = await load(
      "adapter.kind=lokr",
      "adapter.rank=3",
      "adapter.alpha=1.5",
      "adapter.targets=attn.to_q,ff",
      "adapter.exclude=norm",
      'adapter.layers=[{match = "attn.to_q", rank = 2, alpha = 4}]',
      "adapter.dropout=0.25",
      "adapter.rank_stabilised=true",
      "adapter.factor=4",
    );
    expect(adapterSettings(config)).toEqual({
      kind: "lokr",
      targets: ["attn.to_q", "ff"],
      rank: 3,
      alpha: 1.5,
      rankOf: { "attn.to_q": 2 },
      alphaOf: { "attn.to_q": 4 },
      exclude: ["norm"],
      dropout: 0.25,
      rankStabilised: true,
      factor: 4,
    });
    expect("factor" in adapterSettings((await load()).config)).toBe(false);
    const full = (await load("adapter.kind=full")).config;
    expect(() => adapterSettings(full)).toThrow("full fine-tuning has no adapter");
  });
});
