// The alarm's state machine: when it watches, when it fires, what it keeps, and that good runs stay calm.

import { describe, expect, it } from "vitest";
import {
  advanceGuard,
  baselineBands,
  GUARD_DEFAULTS,
  type GuardPoint,
  type GuardState,
  initialGuardState,
  shouldStop,
  signalsOutside,
} from "../../src/evaluation/guards.ts";

const BASE = {
  judge: 0.49,
  diversity: 0.383,
  saturation: 0.15,
  contrast: 0.2,
  sharpness: 0.06,
  grid8: 0.001,
  grid16: 0.002,
};
const good = (step: number, reward = 0.44 + step / 1000): GuardPoint => ({
  step,
  reward,
  signals: { ...BASE, judge: 0.49 + step / 1000 },
});
const hacked = (step: number): GuardPoint => ({
  step,
  reward: 0.44 + step / 500,
  signals: { ...BASE, judge: 0.4, saturation: 0.3 },
});
const play = (points: GuardPoint[], options = GUARD_DEFAULTS) =>
  points.reduce<GuardState>((state, point) => advanceGuard(state, point, options), initialGuardState());

describe("guard rails", () => {
  it("take the first evaluation as baseline, with a band for every signal measured", () => {
    const state = play([{ step: 0, reward: 0.4, signals: { judge: 0.5, saturation: 0.2 } }]);
    expect(state.level).toBe("calm");
    expect(Object.keys(state.bands)).toEqual(["judge", "saturation"]);
    expect(state.bands.judge).toEqual({ low: 0.475 });
    expect(state.bands.saturation!.low).toBeCloseTo(0.13, 12);
    expect(state.bands.saturation!.high).toBeCloseTo(0.32, 12);
  });

  it("stay calm through the reference run of 160 updates", () => {
    const end = {
      judge: 0.62,
      diversity: 0.172,
      saturation: 0.194,
      contrast: 0.22,
      sharpness: 0.08,
      grid8: 0.003,
      grid16: 0.005,
    };
    const points = Array.from({ length: 9 }, (_, i): GuardPoint => {
      const signals = Object.fromEntries(
        Object.entries(BASE).map(([k, v]) => [k, v + ((end[k as keyof typeof end] - v) * i) / 8]),
      );
      return { step: i * 20, reward: 0.44 + i * 0.02, signals };
    });
    const state = play(points);
    expect(state.level).toBe("calm");
    expect(state.best!.step).toBe(160);
  });

  it("watch at once and raise the alarm after the given number of evaluations in a row", () => {
    const levels: string[] = [];
    let state = initialGuardState();
    for (const point of [good(0), good(10), hacked(20), hacked(30), hacked(40)]) {
      state = advanceGuard(state, point);
      levels.push(state.level);
    }
    expect(levels).toEqual(["calm", "calm", "watching", "watching", "alarm"]);
    expect(state.alarm).toMatchObject({ step: 40, since: 20, outside: ["judge", "saturation"] });
    expect(state.alarm!.rewardRise).toBeCloseTo(0.08, 12);
  });

  it("begin a new count after one unsuspicious evaluation", () => {
    const state = play([good(0), hacked(10), hacked(20), good(30), hacked(40), hacked(50)]);
    expect(state.level).toBe("watching");
    expect(state.streak).toBe(2);
    expect(state.streakStart).toBe(40);
  });

  it("raise nothing for one signal alone or where the reward has not risen", () => {
    const one = (step: number): GuardPoint => ({ ...hacked(step), signals: { ...BASE, saturation: 0.4 } });
    expect(play([good(0), one(10), one(20), one(30), one(40)]).level).toBe("calm");
    const flat = (step: number): GuardPoint => ({ ...hacked(step), reward: 0.44 });
    expect(play([good(0), flat(10), flat(20), flat(30), flat(40)]).level).toBe("calm");
  });

  it("keep the best evaluation from before the suspicion and freeze it at the alarm", () => {
    const late: GuardPoint = { ...good(60), signals: { ...BASE, judge: 0.9 } };
    const state = play([good(0), good(10), good(20), hacked(30), hacked(40), hacked(50), late]);
    expect(state.best).toEqual({ step: 20, value: 0.51, measure: "judge" });
    expect(state.level).toBe("alarm");
    expect(state.alarm!.step).toBe(50);
  });

  it("take the optimised reward for the best where nothing held out was measured", () => {
    const plain = (step: number, reward: number): GuardPoint => ({ step, reward, signals: {} });
    expect(play([plain(0, 0.4), plain(10, 0.5), plain(20, 0.45)]).best).toEqual({
      step: 10,
      value: 0.5,
      measure: "reward",
    });
  });

  it("count a value that is not finite as outside and never as the best", () => {
    const bands = baselineBands(BASE);
    expect(signalsOutside({ ...BASE, judge: Number.NaN, contrast: Number.POSITIVE_INFINITY }, bands)).toEqual([
      "judge",
      "contrast",
    ]);
    expect(play([good(0), { step: 10, reward: Number.NaN, signals: { judge: Number.NaN } }]).best!.step).toBe(0);
  });

  it("go on after being stored and read back, with the same outcome", () => {
    const points = [good(0), good(10), hacked(20), hacked(30), hacked(40)];
    const half = JSON.parse(JSON.stringify(play(points.slice(0, 3)))) as GuardState;
    const resumed = points.slice(3).reduce((state, point) => advanceGuard(state, point), half);
    expect(resumed).toEqual(play(points));
  });

  it("change no state that they were given", () => {
    const state = play([good(0), hacked(10)]);
    const copy = structuredClone(state);
    advanceGuard(state, hacked(20));
    expect(state).toEqual(copy);
  });

  it("ask for a stop once the alarm is old enough, and never where stopping is off", () => {
    const state = play([good(0), hacked(10), hacked(20), hacked(30)]);
    expect(shouldStop(state, 39, 10)).toBe(false);
    expect(shouldStop(state, 40, 10)).toBe(true);
    expect(shouldStop(state, 400, null)).toBe(false);
    expect(shouldStop(initialGuardState(), 400, 0)).toBe(false);
  });
});
