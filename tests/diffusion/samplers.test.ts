import { describe, expect, it } from "vitest";
import { RandomStream } from "../../src/base/random.ts";
import { drawSigma, SIGMA_SAMPLERS, type SigmaSettings } from "../../src/diffusion/samplers.ts";
import {
  DEV_SHIFT,
  exponentiallyShifted,
  SCHNELL_SHIFT,
  samplerSigmas,
  shiftExponent,
} from "../../src/diffusion/shifting.ts";
import { shifted } from "../../src/diffusion/sigmas.ts";
import { sigmaWeight, WEIGHTINGS } from "../../src/diffusion/weightings.ts";

const COUNT = 20_000;
const QUANTILES = [0.05, 0.25, 0.5, 0.75, 0.95];
/** Four standard errors of an empirical probability. */
const bound = (p: number) => 4 * Math.sqrt((p * (1 - p)) / COUNT);

const sigmoid = (x: number) => 1 / (1 + Math.exp(-x));
const logit = (p: number) => Math.log(p / (1 - p));

/** The distribution function of a standard normal number, by Simpson's rule. */
function normalBelow(x: number): number {
  const [low, parts] = [-8, 2000];
  const h = (x - low) / parts;
  let sum = 0;
  for (let i = 0; i <= parts; i++) {
    const weight = i === 0 || i === parts ? 1 : i % 2 ? 4 : 2;
    sum += weight * Math.exp(-0.5 * (low + i * h) ** 2);
  }
  return (sum * h) / 3 / Math.sqrt(2 * Math.PI);
}

function draws(settings: SigmaSettings, tokens = 1024): Float64Array {
  const stream = new RandomStream(7, "test");
  return Float64Array.from({ length: COUNT }, (_, i) => drawSigma(settings, stream, i >> 3, i & 7, tokens)).sort();
}

/** Share of the values at or below `x`. */
const below = (sorted: Float64Array, x: number) => sorted.filter((value) => value <= x).length / sorted.length;

describe("sigmas of training", () => {
  it("lie in [0.001, 1] for every kind, and are functions of seed, update and sample alone", () => {
    for (const sampler of SIGMA_SAMPLERS) {
      const stream = new RandomStream(3, "sigma");
      const draw = (step: number, sample: number) => drawSigma({ sampler }, stream, step, sample, 16);
      const all = Array.from({ length: 64 }, (_, i) => draw(5, i));
      expect(
        all.every((s) => s >= Math.fround(0.001) && s <= 1 && Math.fround(s) === s),
        sampler,
      ).toBe(true);
      expect(Array.from({ length: 64 }, (_, i) => draw(5, 63 - i)).reverse(), sampler).toEqual(all);
      expect(new Set(all).size, sampler).toBeGreaterThan(50);
      expect(drawSigma({ sampler }, new RandomStream(4, "sigma"), 5, 0, 16), sampler).not.toBe(all[0]);
      expect(draw(6, 0), sampler).not.toBe(all[0]);
    }
  });

  // Distribution functions in sigma, in double precision.
  const distributions: [string, SigmaSettings, (s: number) => number][] = [
    ["uniform", { sampler: "uniform" }, (s) => s],
    ["sigma_sqrt", { sampler: "sigma_sqrt" }, (s) => s],
    ["cosmap", { sampler: "cosmap" }, (s) => s],
    // The table runs down: a larger draw is a smaller sigma.
    ["logit_normal", { sampler: "logit_normal" }, (s) => 1 - normalBelow(logit(1 - s))],
    [
      "logit_normal with a mean",
      { sampler: "logit_normal", mean: 0.7, deviation: 0.5 },
      (s) => 1 - normalBelow((logit(1 - s) - 0.7) / 0.5),
    ],
    ["sigmoid", { sampler: "sigmoid" }, (s) => normalBelow(logit(s))],
    ["sigmoid with a scale", { sampler: "sigmoid", sigmoidScale: 2 }, (s) => normalBelow(logit(s) / 2)],
    ["shift", { sampler: "shift" }, (s) => normalBelow(logit(s) - Math.log(3))],
    ["shift 1.8", { sampler: "shift", shift: 1.8 }, (s) => normalBelow(logit(s) - Math.log(1.8))],
    ["flux_shift", { sampler: "flux_shift" }, (s) => normalBelow(logit(s) - shiftExponent(1024))],
    ["mixture", { sampler: "mixture" }, (s) => 0.5 * s + 0.5 * normalBelow(logit(s) - 0.3)],
  ];
  it.each(distributions)("%s follows its distribution function", (_name, settings, expected) => {
    const sorted = draws(settings);
    for (const p of QUANTILES) {
      const at = sorted[Math.floor(p * COUNT)]!;
      // A table cuts to thousandths, upwards; that moves the function by at most its slope times 0.001.
      expect(Math.abs(expected(at) - p), `${p} at ${at}`).toBeLessThan(bound(p) + 0.004);
    }
  });

  it("mode follows the map of Esser et al., worked out on a fine grid", () => {
    const sorted = draws({ sampler: "mode" });
    const grid = Float64Array.from({ length: 100_000 }, (_, i) => {
      const u = (i + 0.5) / 100_000;
      return u + 1.29 * (Math.cos((Math.PI * u) / 2) ** 2 - 1 + u);
    }).sort();
    for (const p of QUANTILES)
      expect(Math.abs(below(sorted, grid[Math.floor(p * grid.length)]! + 0.0005) - p)).toBeLessThan(bound(p) + 0.004);
  });

  it("have the means of their distributions", () => {
    const mean = (settings: SigmaSettings) => draws(settings).reduce((a, b) => a + b) / COUNT;
    // Four standard errors of a mean, and half an entry of the table.
    const close = 4 * Math.sqrt(1 / 12 / COUNT) + 0.0005;
    for (const sampler of ["uniform", "sigma_sqrt", "cosmap", "logit_normal", "mode", "sigmoid"] as const)
      expect(Math.abs(mean({ sampler }) - 0.5), sampler).toBeLessThan(close);
    expect(mean({ sampler: "logit_normal", mean: 1 })).toBeLessThan(0.35);
    expect(mean({ sampler: "shift" })).toBeGreaterThan(0.65);
  });

  it("flux_shift depends on the number of tokens as the dynamic schedule does", () => {
    const stream = new RandomStream(1, "sigma");
    for (const tokens of [16, 256, 4096]) {
      const plain = drawSigma({ sampler: "sigmoid" }, stream, 1, 0, tokens);
      const own = drawSigma({ sampler: "flux_shift" }, stream, 1, 0, tokens);
      expect(own).toBeCloseTo(exponentiallyShifted(plain, shiftExponent(tokens)), 6);
    }
  });
});

describe("time shifts", () => {
  it("give the resolutions' exponents and the same values as a static shift by e^mu", () => {
    expect(shiftExponent(256)).toBeCloseTo(0.5, 12);
    expect(shiftExponent(4096)).toBeCloseTo(1.15, 12);
    expect([...samplerSigmas(4, DEV_SHIFT, 4096)].map((s) => Number(s.toFixed(6)))).toEqual([
      1, 0.904531, 0.759511, 0.512844, 0,
    ]);
    expect([...samplerSigmas(4, SCHNELL_SHIFT, 4096)]).toEqual([1, 0.75, 0.5, 0.25, 0]);
    for (const t of [0.1, 0.5, 0.9]) expect(exponentiallyShifted(t, 0.63)).toBeCloseTo(shifted(t, Math.exp(0.63)), 6);
    expect(exponentiallyShifted(0, 1)).toBe(0);
  });
});

describe("weights of the loss", () => {
  it("have the values of their formulas", () => {
    expect(sigmaWeight("sigma_sqrt", 0.25)).toBe(16);
    expect(sigmaWeight("cosmap", 0.5)).toBeCloseTo(4 / Math.PI, 12);
    expect(sigmaWeight("cosmap", 1)).toBeCloseTo(2 / Math.PI, 12);
    for (const weighting of ["none", "logit_normal", "mode"] as const) expect(sigmaWeight(weighting, 0.3)).toBe(1);
  });

  it("bells have the mean 1, end at 0 and are symmetric; the half bell is flat below the middle", () => {
    const table = Array.from({ length: 1000 }, (_, i) => (i + 1) / 1000);
    const mean = table.map((s) => sigmaWeight("bell", s)).reduce((a, b) => a + b) / 1000;
    expect(mean).toBeCloseTo(1, 12);
    expect(sigmaWeight("bell", 1)).toBe(0);
    expect(sigmaWeight("bell", 0.2)).toBeCloseTo(sigmaWeight("bell", 0.8), 12);
    expect(sigmaWeight("half_bell", 0.1)).toBe(sigmaWeight("bell", 0.5));
    expect(sigmaWeight("half_bell", 0.8)).toBe(sigmaWeight("bell", 0.8));
    for (const weighting of WEIGHTINGS) expect(table.every((s) => sigmaWeight(weighting, s) >= 0)).toBe(true);
  });

  it("sigmoid of the drawn number is what kohya's kinds train at", () => {
    const stream = new RandomStream(2, "sigma");
    expect(drawSigma({ sampler: "sigmoid" }, stream, 4, 3, 16)).toBe(
      Math.fround(sigmoid(stream.normals(4, 1, 12)[0]!)),
    );
  });
});
