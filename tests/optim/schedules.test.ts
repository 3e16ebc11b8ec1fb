import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { learningRate, type Schedule } from "../../src/optim/schedules.ts";
import { FIXTURES } from "../helpers/files.ts";

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

  interface Table {
    kind: string;
    base_lr: number;
    num_warmup_steps: number;
    num_training_steps: number;
    lr: number[];
  }
  const tables = join(FIXTURES, "optim", "lr_schedules.json");
  it.skipIf(!existsSync(tables))("equal those of diffusers when the warm-up starts from zero", () => {
    let seen = 0;
    for (const [name, table] of Object.entries<Table>(JSON.parse(readFileSync(tables, "utf8")))) {
      const kind = table.kind;
      if (!["constant", "constant_with_warmup", "linear", "cosine"].includes(kind)) continue;
      const own: Schedule = {
        kind: kind as Schedule["kind"],
        rate: table.base_lr,
        warmup: table.num_warmup_steps,
        total: table.num_training_steps,
        warmupFromZero: true,
      };
      table.lr.forEach((rate, i) => {
        // The cosine of diffusers rises again behind the last step; ours stays at zero.
        if (i < own.total)
          expect(Math.abs(learningRate(own, i + 1) - rate), `${name} at step ${i + 1}`).toBeLessThan(1e-12 * own.rate);
      });
      seen++;
    }
    expect(seen).toBeGreaterThan(0);
  });
});
