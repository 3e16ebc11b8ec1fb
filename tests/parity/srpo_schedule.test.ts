// Sigma tables, cut times and branches of SRPO against the golden table: the same float32 numbers, bit for bit.

import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { modelTime, rolloutSigmas } from "../../src/diffusion/sigmas.ts";
import {
  type BranchKind,
  type BranchOptions,
  branchesOf,
  branchSpan,
  trainingTable,
} from "../../src/training/srpo/branches.ts";
import { suite } from "../helpers/dumps.ts";
import { type SrpoDumpOptions, srpoBranchOptions } from "../helpers/srpo.ts";

interface GoldenBranch {
  m: number;
  b_index: number;
  e_index: number;
  discount: number;
  b: number;
  e: number;
  timestep: number;
  gain: number;
  k: number;
}

interface Golden {
  options: SrpoDumpOptions;
  rows: { m0: number; float32: Record<BranchKind, GoldenBranch> }[];
  "rollout sigmas (float32)": number[];
  "rollout timesteps": number[];
  "training table (float32)": number[];
  "trunc(1000 sigma) of rollouts": Record<string, number[]>;
}

function checkBranches(options: BranchOptions, m0: number, expected: Record<BranchKind, GoldenBranch>): void {
  const table = trainingTable(options);
  const branches = branchesOf(options, m0);
  for (const [kind, want] of Object.entries(expected) as [BranchKind, GoldenBranch][]) {
    const own = branches[kind];
    const label = `m0 ${m0}, ${kind}`;
    expect(branchSpan(options, m0), label).toBe(want.k);
    expect({ m: own.m, from: own.from, to: own.to, time: own.time, discount: own.discount }, label).toEqual({
      m: want.m,
      from: want.b,
      to: want.e,
      time: want.timestep,
      discount: want.discount,
    });
    expect([own.from, own.to], label).toEqual([table[want.b_index], table[want.e_index]]);
    expect(Math.abs(own.gain / want.gain - 1), label).toBeLessThan(1e-6);
  }
}

suite("srpo_step", (dump) => {
  const golden = JSON.parse(readFileSync(dump.path("golden.json"), "utf8")) as Golden;

  it("makes the rollout's sigmas and the times that the network is told", () => {
    const { sampling_steps, shift } = golden.options;
    const sigmas = rolloutSigmas(sampling_steps, shift);
    expect([...sigmas]).toEqual(golden["rollout sigmas (float32)"]);
    expect([...sigmas].slice(0, -1).map(modelTime)).toEqual(golden["rollout timesteps"]);
  });

  it("makes the training table", () => {
    expect([...trainingTable(srpoBranchOptions(golden.options))]).toEqual(golden["training table (float32)"]);
  });

  it("cuts 1000 sigma as the float32 product falls, for every shift and number of steps", () => {
    for (const [name, cut] of Object.entries(golden["trunc(1000 sigma) of rollouts"])) {
      const [shift, steps] = name.match(/[\d.]+/g)!.map(Number) as [number, number];
      expect(
        [...rolloutSigmas(steps, shift)].slice(0, -1).map((sigma) => Math.round(1000 * modelTime(sigma))),
        name,
      ).toEqual(cut);
    }
  });

  it("chooses both branches for every row of the golden table", () => {
    for (const { m0, float32 } of golden.rows) checkBranches(srpoBranchOptions(golden.options), m0, float32);
  });

  describe("the branches of each case", () => {
    for (const [name, recorded] of Object.entries(dump.config["cases"] as Record<string, any>)) {
      it(`agree in case ${name}`, () => {
        checkBranches(srpoBranchOptions(recorded.options), recorded.m0, recorded.plan);
      });
    }
  });
});
