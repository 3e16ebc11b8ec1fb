import { describe, expect, it } from "vitest";
import { learningRate, type Schedule } from "../../src/optim/schedules.ts";

describe("learning rates", () => {
  const schedule: Schedule = { kind: "constant_with_warmup", rate: 3e-5, warmup: 10, total: 40 };

  it("rise by equal steps from the first update on and reach the full rate after the warm-up", () => {
    expect(learningRate(schedule, 1)).toBeCloseTo(3e-5 / 11, 15);
    expect(learningRate(schedule, 10)).toBeCloseTo((3e-5 * 10) / 11, 15);
    expect(learningRate(schedule, 11)).toBe(3e-5);
    expect(learningRate(schedule, 400)).toBe(3e-5);
  });

  it("are constant where no warm-up is asked for", () => {
    for (const t of [1, 5, 100]) {
      expect(learningRate({ ...schedule, kind: "constant" }, t)).toBe(3e-5);
      expect(learningRate({ ...schedule, warmup: 0 }, t)).toBe(3e-5);
    }
  });

  it("fall to zero behind the last step", () => {
    for (const kind of ["linear", "cosine"] as const) {
      expect(learningRate({ ...schedule, kind }, 11)).toBe(3e-5);
      expect(learningRate({ ...schedule, kind }, 26)).toBeCloseTo(1.5e-5, 12);
      expect(learningRate({ ...schedule, kind }, 40)).toBeGreaterThan(0);
      expect(learningRate({ ...schedule, kind }, 41)).toBeCloseTo(0, 15);
    }
    expect(learningRate({ ...schedule, kind: "linear" }, 400)).toBe(0);
  });

  it("turn round in a cosine of several periods, and fall anew in one with restarts", () => {
    const whole: Schedule = { kind: "cosine", rate: 1, warmup: 0, total: 40, periods: 1 };
    expect(learningRate(whole, 1)).toBe(1);
    expect(learningRate(whole, 21)).toBeCloseTo(0, 12);
    expect(learningRate(whole, 41)).toBeCloseTo(1, 12);
    const restarts: Schedule = { ...whole, kind: "cosine_with_restarts", cycles: 2 };
    expect(learningRate(restarts, 20)).toBeLessThan(0.01);
    expect(learningRate(restarts, 21)).toBe(1);
    expect(learningRate(restarts, 41)).toBe(0);
  });

  it("end a polynomial at the rate asked for, and never rise to it", () => {
    const polynomial: Schedule = { kind: "polynomial", rate: 1, warmup: 0, total: 10, power: 2, end: 0.1 };
    expect(learningRate(polynomial, 1)).toBe(1);
    expect(learningRate(polynomial, 6)).toBeCloseTo(0.9 * 0.25 + 0.1, 12);
    for (const t of [11, 12, 500]) expect(learningRate(polynomial, t)).toBeCloseTo(0.1, 12);
    expect(learningRate({ ...polynomial, rate: 1e-8, end: undefined }, 5)).toBe(1e-8);
  });

  it("stay high and fall late in the reflected exponential", () => {
    const rex: Schedule = { kind: "rex", rate: 1, warmup: 0, total: 100 };
    expect(learningRate(rex, 1)).toBe(1);
    expect(learningRate(rex, 51)).toBeCloseTo(0.5 / 0.75, 12);
    expect(learningRate(rex, 101)).toBe(0);
  });
});
