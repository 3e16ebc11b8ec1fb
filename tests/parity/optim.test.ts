// Every optimizer against float64 trajectories of torch, transformers and prodigyopt, clipping by the global norm, and the
// learning rates of diffusers. Prodigy's distance is a sum of differences that float32 hardly resolves while they are
// small: its runs are compared by what the same program loses in float32.

import { existsSync, readFileSync } from "node:fs";
import { expect, it } from "vitest";
import type { OptimizerSettings } from "../../src/optim/optimizer.ts";
import { learningRate, type ScheduleKind } from "../../src/optim/schedules.ts";
import { Comparison, largest, largestDifference } from "../helpers/compare.ts";
import { suite } from "../helpers/dumps.ts";
import { ADAMW, OptimizerBench } from "../helpers/optimizer.ts";
import { settingsOf } from "../helpers/torch_options.ts";

suite("optim", (dump) => {
  const { config } = dump;

  for (const [name, options] of Object.entries<any>(config["optimizers"])) {
    it(`follows the trajectory ${name}`, async () => {
      const file = await dump.open("trajectories");
      const names = file.names().flatMap((key) => key.match(/^start\.(.+)$/)?.[1] ?? []);
      const all = (kind: string) => Promise.all(names.map((key) => file.load(`${kind}.${key}`)));
      const [start, target, curvature, noise, expected] = (await Promise.all(
        ["start", "target", "curvature", "noise", name].map(all),
      )) as [Float32Array[], Float32Array[], Float32Array[], Float32Array[], Float32Array[]];
      const { settings, rate } = settingsOf(options);
      const bench = await OptimizerBench.open([names.map((key) => file.shape(`start.${key}`))], settings);
      const { session, parameters, optimizer } = bench;
      const { variables } = parameters[0]!;
      const gradients = optimizer.gradients[0]!.variables;
      const comparison = new Comparison(`optim ${name}`);
      const rounding = config["_oracle"]["f32_vs_f64 (max over max)"][name];
      const slack = settings.kind === "prodigy" ? 4 : 10;
      const bound = (key: string) => Math.max(1e-5, slack * rounding[key]);
      const distances = settings.kind === "prodigy" ? await file.load(`${name}.d`) : null;
      start.forEach((values, k) => session.write(variables[k]!, values));
      optimizer.begin(session);
      for (let t = 0; t < config["steps"]; t++) {
        for (const [k, variable] of variables.entries()) {
          const p = await session.read(variable);
          const at = t * p.length;
          session.write(
            gradients[k]!,
            p.map((x, i) => (x - target[k]![i]!) * curvature[k]![i]! + noise[k]![at + i]!),
          );
        }
        const report = await bench.step(rate, t + 1);
        expect(report.finite).toBe(true);
        for (const [k, variable] of variables.entries()) {
          const want = expected[k]!.subarray(t * variable.size, (t + 1) * variable.size);
          const error = largestDifference(await session.read(variable), want) / largest(expected[k]!);
          comparison.note(names[k]!, `step ${t + 1}`, error, bound(names[k]!));
        }
        // A few per cent of the distance itself, at every step.
        if (distances) comparison.note("d", `step ${t + 1}`, Math.abs(report.d! / distances[t]! - 1), 0.05);
      }
      bench.close();
      comparison.finish();
    });
  }

  it("clips gradients by their global norm", async () => {
    const file = await dump.open("trajectories");
    const comparison = new Comparison("optim clip");
    for (const [name, { max_norm, total_norm }] of Object.entries<any>(config["clip"])) {
      const keys = file.names().filter((key) => key.startsWith(`${name}.grad.`));
      // With beta1 = 0 the first moment is the clipped gradient itself.
      const settings: OptimizerSettings = { ...ADAMW, beta1: 0, maxNorm: max_norm };
      const bench = await OptimizerBench.open([keys.map((key) => file.shape(key))], settings);
      const gradients = bench.optimizer.gradients[0]!.variables;
      for (const [k, key] of keys.entries()) bench.session.write(gradients[k]!, await file.load(key));
      const { norm } = await bench.step(1e-3, 1);
      comparison.note("norm", name, Math.abs(norm / total_norm - 1), 1e-5);
      const first = bench.optimizer.state["first_moment"]!.variables;
      for (const [k, key] of keys.entries()) {
        const clipped = await bench.session.read(first[k]!);
        comparison.values("clipped", key, clipped, await file.load(key.replace(".grad.", ".clipped.")), 1e-5);
      }
      bench.close();
    }
    comparison.finish();
  });

  const tables = dump.path("lr_schedules.json");
  const schedules: Record<string, any> = existsSync(tables) ? JSON.parse(readFileSync(tables, "utf8")) : {};
  for (const [name, table] of Object.entries(schedules)) {
    it(`gives the learning rates ${name}`, () => {
      const schedule = {
        kind: table.kind as ScheduleKind,
        rate: table.base_lr,
        warmup: table.num_warmup_steps,
        total: table.num_training_steps,
        warmupFromZero: true,
        cycles: table.num_cycles,
        power: table.power,
      };
      const own = (table.lr as number[]).map((_, i) => learningRate(schedule, i + 1));
      expect(largestDifference(own, table.lr) / table.base_lr).toBeLessThan(1e-12);
    });
  }
});
