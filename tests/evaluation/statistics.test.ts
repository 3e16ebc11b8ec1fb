// Statistics against values worked out by hand, against numpy's rules, and against coverage by simulation.

import { describe, expect, it } from "vitest";
import { RandomStream } from "../../src/base/random.ts";
import {
  bootstrapMean,
  judgement,
  MINIMUM_ITEMS,
  median,
  pairedChange,
  quantile,
  standardDeviation,
  uniformsOf,
} from "../../src/evaluation/statistics.ts";

describe("statistics", () => {
  it("gives the median of odd and even numbers of values", () => {
    expect(median([3, 1, 2])).toBe(2);
    expect(median([4, 1, 2, 3])).toBe(2.5);
    expect(median([])).toBeNaN();
  });

  it("interpolates quantiles as numpy does by default", () => {
    // numpy.quantile([1, 2, 4, 8, 16], [.1, .4, .975])
    expect(quantile([16, 8, 4, 2, 1], 0.1)).toBeCloseTo(1.4, 12);
    expect(quantile([1, 2, 4, 8, 16], 0.4)).toBeCloseTo(3.2, 12);
    expect(quantile([1, 2, 4, 8, 16], 0.975)).toBeCloseTo(15.2, 12);
  });

  it("computes the standard deviation with n - 1", () => {
    expect(standardDeviation([1, 2, 3, 4])).toBeCloseTo(Math.sqrt(5 / 3), 12);
    expect(standardDeviation([7])).toBe(0);
  });

  it("gives the same interval for the same seed and another for another seed", () => {
    const values = [0.1, -0.2, 0.05, 0.3, 0.12, -0.01, 0.2, 0.07];
    const a = bootstrapMean(values, uniformsOf(1, "x"));
    const b = bootstrapMean(values, uniformsOf(1, "x"));
    const c = bootstrapMean(values, uniformsOf(2, "x"));
    expect(a).toEqual(b);
    expect(c.low).not.toBe(a.low);
    expect(c.low).toBeCloseTo(a.low!, 1);
  });

  it("makes an interval close to the normal one for many items", () => {
    const values = [...new RandomStream(5, "normal items").normals(0, 400)];
    const { mean, low, high } = bootstrapMean(values, uniformsOf(0, "wide"));
    const half = (1.96 * standardDeviation(values)) / 20;
    // Standard error of a percentile end of 2,000 resamples: .06 standard errors of the mean, here .003; four of them.
    expect(Math.abs(low! - (mean - half))).toBeLessThan(0.012);
    expect(Math.abs(high! - (mean + half))).toBeLessThan(0.012);
  });

  it("covers the true mean about 19 times in 20", () => {
    let covered = 0;
    const runs = 150;
    for (let run = 0; run < runs; run++) {
      const values = [...new RandomStream(run, "coverage").normals(0, 24)];
      const { low, high } = bootstrapMean(values, uniformsOf(run, "resample"));
      if (low! <= 0 && high! >= 0) covered++;
    }
    expect(covered / runs).toBeGreaterThan(0.87);
    expect(covered / runs).toBeLessThan(0.99);
  });

  it("gives no interval for fewer items than chance needs to agree in sign", () => {
    const values = Array.from({ length: MINIMUM_ITEMS - 1 }, () => 0.5);
    expect(bootstrapMean(values, uniformsOf(0, "few"))).toMatchObject({ low: null, high: null, mean: 0.5 });
    expect(judgement({ low: null, high: null })).toBe("too few items");
  });

  it("pairs changes item by item and not mean by mean", () => {
    const before = [0, 10, 20, 30, 40, 50, 60];
    const after = before.map((value) => value + 1);
    const change = pairedChange(before, after, uniformsOf(0, "pairs"));
    expect(change).toEqual({ n: 7, before: 30, after: 31, change: 1, low: 1, high: 1 });
  });

  it("calls a change better or worse only where the interval excludes 0", () => {
    expect(judgement({ low: 0.001, high: 0.2 })).toBe("better");
    expect(judgement({ low: -0.3, high: -0.001 })).toBe("worse");
    expect(judgement({ low: 0, high: 0.2 })).toBe("no significant change");
    expect(judgement({ low: -0.3, high: -0.001 }, -1)).toBe("better");
  });
});
