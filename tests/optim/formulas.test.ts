// The references in double precision against the public implementations, also in double precision: what is compared with
// the kernels elsewhere is right itself.

import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import type { OptimizerSettings } from "../../src/optim/optimizer.ts";
import { suite } from "../helpers/dumps.ts";
import { FIXTURES } from "../helpers/files.ts";
import { ADAMW } from "../helpers/optimizer.ts";
import { type ReferenceTensor, referenceOf } from "../helpers/optimizer_references.ts";
import { settingsOf } from "../helpers/torch_options.ts";

const DIGITS = 1e-12;

suite("optim", (dump) => {
  const { config } = dump;
  for (const [name, options] of Object.entries<any>(config["optimizers"])) {
    it(`holds for the reference of ${name} to twelve digits`, async () => {
      const file = await dump.open("trajectories");
      const load = async (key: string) => new Float64Array((await file.readBytes(key)).slice().buffer);
      const names = file.names().flatMap((key) => key.match(/^start\.(.+)$/)?.[1] ?? []);
      const all = (kind: string) => Promise.all(names.map((key) => load(`${kind}.${key}`)));
      const [start, target, curvature, noise, expected] = (await Promise.all(
        ["start", "target", "curvature", "noise", name].map(all),
      )) as [Float64Array[], Float64Array[], Float64Array[], Float64Array[], Float64Array[]];
      const { settings, rate } = settingsOf(options);
      const tensors: ReferenceTensor[] = start.map((p, k) => ({
        shape: file.shape(`start.${names[k]}`),
        p,
        weightDecay: settings.weightDecay,
        rateFactor: 1,
      }));
      const reference = referenceOf(settings, tensors);
      const distances = settings.kind === "prodigy" ? await load(`${name}.d`) : null;
      for (let t = 0; t < config["steps"]; t++) {
        const gradients = tensors.map(({ p }, k) =>
          p.map((x, i) => (x - target[k]![i]!) * curvature[k]![i]! + noise[k]![t * p.length + i]!),
        );
        reference.step(gradients, rate, t + 1);
        tensors.forEach(({ p }, k) =>
          p.forEach((x, i) => expect(Math.abs(x - expected[k]![t * p.length + i]!)).toBeLessThan(DIGITS)),
        );
        if (distances) expect(Math.abs(reference.d! / distances[t]! - 1)).toBeLessThan(DIGITS);
      }
    });
  }
});

const runs = join(FIXTURES, "prodigy_fp64.json");
describe.skipIf(!existsSync(runs))("Prodigy on a quadratic function", () => {
  const { A, b, x0, runs: all } = existsSync(runs) ? JSON.parse(readFileSync(runs, "utf8")) : { runs: {} };
  for (const [name, { cfg, d_then_x }] of Object.entries<any>(all)) {
    it(`takes the steps of the run ${name}`, () => {
      const settings: OptimizerSettings = {
        ...ADAMW,
        kind: "prodigy",
        beta1: cfg.b1 ?? 0.9,
        beta2: cfg.b2 ?? 0.999,
        prodigy: {
          useBiasCorrection: cfg.bc,
          safeguardWarmup: cfg.sg,
          decouple: cfg.dec,
          d0: cfg.d0,
          dCoef: cfg.dc,
          growthRate: cfg.gr,
          sliceP: cfg.sl,
        },
      };
      const x: ReferenceTensor = { shape: [4], p: Float64Array.from(x0), weightDecay: cfg.wd ?? 0, rateFactor: 1 };
      const reference = referenceOf(settings, [x]);
      for (const [t, [d, ...expected]] of (d_then_x as number[][]).entries()) {
        reference.step([x.p.map((value, i) => A[i] * (value - b[i]))], 1, t + 1);
        expect(Math.abs(reference.d! / d! - 1)).toBeLessThan(DIGITS);
        expected.forEach((value, i) => expect(Math.abs(x.p[i]! - value)).toBeLessThan(DIGITS));
      }
    });
  }
});
