// The fused AdamW against torch's trajectories in float64, clipping by the global norm, and the learning rates of
// diffusers. Optimizers and schedules that Longtail does not have are skipped by name.

import { existsSync, readFileSync } from "node:fs";
import { expect, it } from "vitest";
import { ADAMW_REPORT, ADAMW_SCALARS, type AdamWSettings, adamwScalars, traceAdamW } from "../../src/optim/adamw.ts";
import { learningRate, type ScheduleKind } from "../../src/optim/schedules.ts";
import { Session } from "../../src/tensor/session.ts";
import { targetOf } from "../../src/tensor/target.ts";
import type { Pool } from "../../src/tensor/variable.ts";
import { Comparison, largest, largestDifference } from "../helpers/compare.ts";
import { suite } from "../helpers/dumps.ts";
import { testGpu } from "../helpers/gpu.ts";

interface Optimizer {
  session: Session;
  parameters: Pool;
  gradients: Pool;
  first: Pool;
  /** One step on the gradients that were written; returns the norm before clipping. */
  step: (settings: AdamWSettings, t: number) => Promise<number>;
}

async function openOptimizer(shapes: readonly (readonly number[])[]): Promise<Optimizer> {
  const gpu = await testGpu();
  const session = new Session(targetOf(gpu));
  const parameters = session.pool("parameters", "weights");
  shapes.forEach((shape, i) => parameters.add(`${i}`, [...shape], "f32"));
  const twin = (name: string) => session.adopt(parameters.twin(name, "optimizer", `.${name}`));
  const [gradients, first, second] = [twin("gradients"), twin("first"), twin("second")];
  const scalars = session.data("scalars", [ADAMW_SCALARS]);
  const report = session.data("report", [4]);
  const plan = session.plan("adamw", (graph) =>
    traceAdamW(graph, { parameters, gradients, first, second, scalars, report }),
  );
  await session.open(gpu);
  return {
    session,
    parameters,
    gradients,
    first,
    step: async (settings, t) => {
      session.write(scalars, adamwScalars(settings, t));
      session.run(plan);
      const told = await session.read(report);
      expect(told[ADAMW_REPORT.notFinite]).toBe(0);
      return told[ADAMW_REPORT.norm]!;
    },
  };
}

suite("optim", (dump) => {
  const { config } = dump;

  for (const [name, options] of Object.entries<any>(config["optimizers"])) {
    if (options.class !== "AdamW") {
      it.skip(`trajectory ${name}: ${options.class} is not supported yet`, () => {});
      continue;
    }
    it(`follows the trajectory ${name}`, async () => {
      const file = await dump.open("trajectories");
      const names = file.names().flatMap((key) => key.match(/^start\.(.+)$/)?.[1] ?? []);
      const all = (kind: string) => Promise.all(names.map((key) => file.load(`${kind}.${key}`)));
      const [start, target, curvature, noise, expected] = (await Promise.all(
        ["start", "target", "curvature", "noise", name].map(all),
      )) as [Float32Array[], Float32Array[], Float32Array[], Float32Array[], Float32Array[]];
      const optimizer = await openOptimizer(names.map((key) => file.shape(`start.${key}`)));
      const { session, parameters, gradients } = optimizer;
      const comparison = new Comparison(`optim ${name}`);
      const [beta1, beta2] = options.betas;
      const settings = {
        rate: options.lr,
        beta1,
        beta2,
        epsilon: options.eps,
        weightDecay: options.weight_decay,
        maxNorm: 0,
      };
      start.forEach((values, k) => session.write(parameters.variables[k]!, values));
      for (let t = 0; t < config["steps"]; t++) {
        for (const [k, variable] of parameters.variables.entries()) {
          const p = await session.read(variable);
          const at = t * p.length;
          session.write(
            gradients.variables[k]!,
            p.map((x, i) => (x - target[k]![i]!) * curvature[k]![i]! + noise[k]![at + i]!),
          );
        }
        await optimizer.step(settings, t + 1);
        for (const [k, variable] of parameters.variables.entries()) {
          const want = expected[k]!.subarray(t * variable.size, (t + 1) * variable.size);
          const own = config["_oracle"]["f32_vs_f64 (max over max)"][name][names[k]!];
          const error = largestDifference(await session.read(variable), want) / largest(expected[k]!);
          comparison.note(names[k]!, `step ${t + 1}`, error, Math.max(1e-5, 10 * own));
        }
      }
      session.close();
      comparison.finish();
    });
  }

  it("clips gradients by their global norm", async () => {
    const file = await dump.open("trajectories");
    const comparison = new Comparison("optim clip");
    for (const [name, { max_norm, total_norm }] of Object.entries<any>(config["clip"])) {
      const keys = file.names().filter((key) => key.startsWith(`${name}.grad.`));
      const { session, gradients, first, step } = await openOptimizer(keys.map((key) => file.shape(key)));
      for (const [k, key] of keys.entries()) session.write(gradients.variables[k]!, await file.load(key));
      // With beta1 = 0 the first moment is the clipped gradient itself.
      const norm = await step(
        { rate: 1e-3, beta1: 0, beta2: 0.999, epsilon: 1e-8, weightDecay: 0, maxNorm: max_norm },
        1,
      );
      comparison.note("norm", name, Math.abs(norm / total_norm - 1), 1e-5);
      for (const [k, key] of keys.entries()) {
        const clipped = await session.read(first.variables[k]!);
        comparison.values("clipped", key, clipped, await file.load(key.replace(".grad.", ".clipped.")), 1e-5);
      }
      session.close();
    }
    comparison.finish();
  });

  const tables = dump.path("lr_schedules.json");
  const schedules: Record<string, any> = existsSync(tables) ? JSON.parse(readFileSync(tables, "utf8")) : {};
  for (const [name, table] of Object.entries(schedules)) {
    const plain = table.kind !== "cosine" || table.num_cycles === undefined || table.num_cycles === 0.5;
    if (!plain || !["constant", "constant_with_warmup", "linear", "cosine"].includes(table.kind)) {
      it.skip(`learning rates ${name}: not supported`, () => {});
      continue;
    }
    it(`gives the learning rates ${name}`, () => {
      const schedule = {
        kind: table.kind as ScheduleKind,
        rate: table.base_lr,
        warmup: table.num_warmup_steps,
        total: table.num_training_steps,
        warmupFromZero: true,
      };
      const own = (table.lr as number[]).map((_, i) => learningRate(schedule, i + 1));
      expect(largestDifference(own, table.lr) / table.base_lr).toBeLessThan(1e-6);
    });
  }
});
