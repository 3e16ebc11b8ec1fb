import { existsSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { Safetensors } from "../../src/formats/safetensors.ts";
import { ADAMW_SCALARS, type AdamWSettings, adamwScalars, traceAdamW } from "../../src/optim/adamw.ts";
import { poolSegments } from "../../src/optim/segments.ts";
import { type Plan, Session } from "../../src/tensor/session.ts";
import { elements, type Shape } from "../../src/tensor/shape.ts";
import { portableTarget, targetOf } from "../../src/tensor/target.ts";
import { Pool, type Variable } from "../../src/tensor/variable.ts";
import { type AdamWState, adamwStep } from "../helpers/adamw.ts";
import { FIXTURES, NodeFiles } from "../helpers/files.ts";
import { noise, relativeError, testGpu } from "../helpers/gpu.ts";

const SETTINGS: AdamWSettings = { rate: 1e-2, beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weightDecay: 1e-2, maxNorm: 0 };

interface Options {
  /** Bytes of a pool segment. */
  limit?: number;
  maxWorkgroups?: number;
  average?: boolean;
  loss?: boolean;
}

/** An optimizer plan over parameters of the given shapes, open on the test device. */
class Bench {
  readonly session: Session;
  readonly pools: Pool[];
  readonly plan: Plan;
  readonly scalars: Variable;
  readonly report: Variable;
  readonly loss: Variable;

  private constructor(session: Session, shapes: readonly Shape[], options: Options) {
    this.session = session;
    const parameters = session.adopt(new Pool("parameters", "weights", options.limit ?? 1 << 26));
    shapes.forEach((shape, i) => parameters.add(`p${i}`, shape, "f32"));
    const twin = (name: string) => session.adopt(parameters.twin(name, "optimizer", `.${name}`));
    const [gradients, first, second, average] = [twin("gradients"), twin("first"), twin("second"), twin("average")];
    this.pools = [parameters, gradients, first, second, average];
    this.scalars = session.data("scalars", [ADAMW_SCALARS]);
    this.report = session.data("report", [4]);
    this.loss = session.data("loss", [3]);
    const { scalars, report } = this;
    this.plan = session.plan("optimizer", (graph) => {
      const loss = options.loss ? graph.read(this.loss) : undefined;
      traceAdamW(graph, {
        parameters,
        gradients,
        first,
        second,
        average: options.average ? average : undefined,
        scalars,
        report,
        loss,
      });
    });
  }

  static async open(shapes: readonly Shape[], options: Options = {}): Promise<Bench> {
    const gpu = await testGpu();
    const target = targetOf(gpu);
    const bench = new Bench(
      new Session({ ...target, maxWorkgroups: options.maxWorkgroups ?? target.maxWorkgroups }),
      shapes,
      options,
    );
    await bench.session.open(gpu);
    return bench;
  }

  /** Writes all variables of pool `k` from one array in their order. */
  write(k: number, values: ArrayLike<number>): void {
    let at = 0;
    for (const v of this.pools[k]!.variables) {
      this.session.write(
        v,
        Float32Array.from({ length: v.size }, (_, i) => values[at + i]!),
      );
      at += v.size;
    }
  }

  async read(k: number): Promise<Float32Array> {
    const parts: number[] = [];
    for (const v of this.pools[k]!.variables) for (const x of await this.session.read(v)) parts.push(x);
    return Float32Array.from(parts);
  }

  /** The bits of all segments of parameters, moments and average, padding included. */
  async bits(): Promise<number[]> {
    const out: number[] = [];
    for (const k of [0, 2, 3, 4]) {
      for (const v of poolSegments(this.pools[k]!))
        for (const w of new Uint32Array(await this.session.readBits(v))) out.push(w);
    }
    return out;
  }

  async step(
    settings: AdamWSettings,
    t: number,
  ): Promise<{ norm: number; flag: number; update: number; parameters: number }> {
    this.session.write(this.scalars, adamwScalars(settings, t));
    this.session.write(this.report, new Float32Array(4).fill(Number.NaN));
    this.session.poison();
    this.session.run(this.plan);
    await this.session.finish();
    const broken = await this.session.brokenCanary(this.plan);
    if (broken) throw new Error(`bytes behind ${broken} were overwritten`);
    const [norm, flag, update, parameters] = (await this.session.read(this.report)) as unknown as [
      number,
      number,
      number,
      number,
    ];
    return { norm, flag, update, parameters };
  }
}

function start(count: number, seed: number): AdamWState {
  const p = noise(count, seed);
  return { p, m: new Float64Array(count), v: new Float64Array(count), average: p.slice() };
}

async function compare(
  shapes: readonly Shape[],
  options: Options,
  settings: AdamWSettings,
  steps: number,
): Promise<number[]> {
  const count = shapes.reduce((n, s) => n + elements(s), 0);
  const bench = await Bench.open(shapes, { average: true, ...options });
  try {
    const state = start(count, count);
    bench.write(0, state.p);
    bench.write(4, state.p);
    for (let t = 1; t <= steps; t++) {
      const g = noise(count, count + t);
      bench.write(1, g);
      const report = await bench.step(settings, t);
      const expected = adamwStep(state, g, settings, t);
      expect(report.flag).toBe(0);
      for (const name of ["norm", "update", "parameters"] as const) {
        expect(Math.abs(report[name] / expected[name] - 1), `${name} of ${count} values at step ${t}`).toBeLessThan(
          2e-6,
        );
      }
    }
    expect(relativeError(await bench.read(0), state.p)).toBeLessThan(1e-6);
    expect(relativeError(await bench.read(2), state.m)).toBeLessThan(1e-6);
    expect(relativeError(await bench.read(3), state.v)).toBeLessThan(1e-6);
    expect(relativeError(await bench.read(4), state.average)).toBeLessThan(1e-6);
    return await bench.bits();
  } finally {
    bench.session.close();
  }
}

describe("AdamW on flat segments", () => {
  it("agrees with float64 for every size around a workgroup, with clipping and an average", async () => {
    for (const n of [1, 63, 64, 65, 257, 1009, 4096, 4097]) {
      await compare([[n]], {}, { ...SETTINGS, maxNorm: 0.5, averageDecay: 0.9 }, 3);
    }
  });

  it("treats many variables in several segments as one vector and gives the same bits twice", async () => {
    const shapes = [[3, 5], [1], [700], [64, 16], [9, 9], [1009], [2, 2, 2]];
    const settings = { ...SETTINGS, maxNorm: 1, averageDecay: 0.99 };
    const first = await compare(shapes, { limit: 8192 }, settings, 4);
    expect(await compare(shapes, { limit: 8192 }, settings, 4)).toEqual(first);
  });

  it("folds a grid that is larger than one dispatch dimension", async () => {
    await compare([[50_001]], { maxWorkgroups: 3 }, { ...SETTINGS, maxNorm: 1 }, 2);
  });

  it("leaves the padding between variables at zero and gradients as they were", async () => {
    const bench = await Bench.open([[3], [5]]);
    try {
      bench.write(0, noise(8, 1));
      bench.write(1, noise(8, 2));
      await bench.step(SETTINGS, 1);
      expect(await bench.read(1)).toEqual(Float32Array.from(noise(8, 2)));
      for (const k of [0, 1, 2, 3]) {
        const flat = await bench.session.read(poolSegments(bench.pools[k]!)[0]!);
        expect(flat.length).toBe(128);
        expect(flat.every((x, i) => (i < 3 || (i >= 64 && i < 69) ? x !== 0 : x === 0))).toBe(true);
      }
    } finally {
      bench.session.close();
    }
  });
});

describe("a step that is not finite", () => {
  const unchanged = async (options: Options, spoil: (bench: Bench) => void): Promise<void> => {
    const count = 2048 + 1009;
    const bench = await Bench.open([[2048], [1009]], { limit: 8192, average: true, ...options });
    try {
      const state = start(count, 3);
      bench.write(0, state.p);
      bench.write(4, state.p);
      bench.write(1, noise(count, 4));
      await bench.step(SETTINGS, 1);
      const before = await bench.bits();
      spoil(bench);
      const report = await bench.step(SETTINGS, 2);
      expect(report.flag).toBe(1);
      expect(report.update).toBe(0);
      expect(report.parameters).toBeGreaterThan(0);
      expect(await bench.bits()).toEqual(before);
      // The next good gradient is taken as if nothing had happened.
      bench.write(1, noise(count, 5));
      bench.session.write(bench.loss, Float32Array.of(1, -2, 0));
      adamwStep(state, noise(count, 4), SETTINGS, 1);
      adamwStep(state, noise(count, 5), SETTINGS, 2);
      expect((await bench.step(SETTINGS, 2)).flag).toBe(0);
      expect(relativeError(await bench.read(0), state.p)).toBeLessThan(1e-6);
    } finally {
      bench.session.close();
    }
  };

  for (const [name, value] of [
    ["NaN", Number.NaN],
    ["infinity", Number.POSITIVE_INFINITY],
    ["minus infinity", Number.NEGATIVE_INFINITY],
  ] as const) {
    it(`changes no bit when one gradient element is ${name}`, async () => {
      for (const at of [0, 2047, 2048, 3056]) {
        await unchanged({}, (bench) =>
          bench.write(
            1,
            noise(3057, 6).map((x, i) => (i === at ? value : x)),
          ),
        );
      }
    });

    it(`changes no bit when one loss is ${name}`, async () => {
      await unchanged({ loss: true }, (bench) => bench.session.write(bench.loss, Float32Array.of(1, value, 2)));
    });
  }

  it("is what a norm beyond float32 makes, though every gradient is finite", async () => {
    await unchanged({}, (bench) => bench.write(1, new Float32Array(3057).fill(1e30)));
  });
});

describe("the pools of an optimizer", () => {
  it("must lie alike, hold f32 and have parameters", () => {
    const session = new Session(portableTarget());
    const scalars = session.data("scalars", [ADAMW_SCALARS]);
    const report = session.data("report", [4]);
    const parameters = new Pool("parameters", "weights", 1 << 20);
    const trace = (gradients: Pool, short?: Variable) =>
      session.plan("p", (graph) => {
        const twin = () => parameters.twin("twin", "optimizer", "");
        traceAdamW(graph, { parameters, gradients, first: twin(), second: twin(), scalars: short ?? scalars, report });
      });
    expect(() => trace(new Pool("none", "gradients", 1 << 20))).toThrow("no parameters");
    parameters.add("a", [100], "f32");
    const other = new Pool("other", "gradients", 1 << 20);
    other.add("a", [99], "f32");
    expect(() => trace(other)).toThrow("pool other has not the layout of parameters");
    expect(() => trace(parameters.twin("g", "gradients", ""), report)).toThrow("must hold 16 values");
    parameters.add("half", [4], "f16");
    expect(() => trace(parameters.twin("g", "gradients", ""))).toThrow("half is f16");
  });
});

interface TorchOptions {
  class: string;
  lr: number;
  betas: [number, number];
  eps: number;
  weight_decay: number;
}

const folder = join(FIXTURES, "optim");
describe.skipIf(!existsSync(join(folder, "trajectories.safetensors")))("parity with torch", () => {
  const open = async () => ({
    config: JSON.parse(await new NodeFiles().readText(join(folder, "config.json"))),
    file: await Safetensors.open(new NodeFiles(), join(folder, "trajectories.safetensors")),
  });

  it("follows the AdamW trajectories", async () => {
    const { config, file } = await open();
    const names = file
      .names()
      .filter((n) => n.startsWith("start."))
      .map((n) => n.slice(6));
    const shapes = names.map((n) => file.info(`start.${n}`).shape);
    const sizes = shapes.map(elements);
    const all = async (kind: string) =>
      Float64Array.from((await Promise.all(names.map((n) => file.readF32(`${kind}.${n}`)))).flatMap((a) => [...a]));
    const [p0, target, curvature] = [await all("start"), await all("target"), await all("curvature")];
    const noises = await Promise.all(names.map((n) => file.readF32(`noise.${n}`)));
    for (const [name, options] of Object.entries<TorchOptions>(config.optimizers)) {
      if (options.class !== "AdamW") continue;
      const [beta1, beta2] = options.betas;
      const settings = {
        rate: options.lr,
        beta1,
        beta2,
        epsilon: options.eps,
        weightDecay: options.weight_decay,
        maxNorm: 0,
      };
      const expected = await Promise.all(names.map((n) => file.readF32(`${name}.${n}`)));
      const bench = await Bench.open(shapes);
      bench.write(0, p0);
      const path = names.map((): number[] => []);
      for (let t = 0; t < config.steps; t++) {
        const p = await bench.read(0);
        const noiseNow = noises.flatMap((a, k) => [...a.subarray(t * sizes[k]!, (t + 1) * sizes[k]!)]);
        bench.write(
          1,
          p.map((x, i) => (x - target[i]!) * curvature[i]! + noiseNow[i]!),
        );
        expect((await bench.step(settings, t + 1)).flag).toBe(0);
        const after = await bench.read(0);
        let at = 0;
        sizes.forEach((size, k) => {
          path[k]!.push(...after.subarray(at, at + size));
          at += size;
        });
      }
      bench.session.close();
      names.forEach((n, k) => {
        const bound = Math.max(1e-5, 10 * config._oracle["f32_vs_f64 (max over max)"][name][n]);
        expect(relativeError(path[k]!, expected[k]!), `${name}.${n}`).toBeLessThan(bound);
      });
    }
    await file.close();
  });

  it("clips gradients by their global norm", async () => {
    const { config, file } = await open();
    const names = file
      .names()
      .filter((n) => n.startsWith("start."))
      .map((n) => n.slice(6));
    for (const [key, { max_norm, total_norm }] of Object.entries<{ max_norm: number; total_norm: number }>(
      config.clip,
    )) {
      const bench = await Bench.open(names.map((n) => file.info(`${key}.grad.${n}`).shape));
      const all = async (kind: string) =>
        (await Promise.all(names.map((n) => file.readF32(`${key}.${kind}.${n}`)))).flatMap((a) => [...a]);
      bench.write(1, await all("grad"));
      // With beta1 = 0 the first moment is the clipped gradient itself.
      const { norm } = await bench.step({ ...SETTINGS, beta1: 0, maxNorm: max_norm }, 1);
      expect(Math.abs(norm / total_norm - 1), key).toBeLessThan(1e-6);
      expect(relativeError(await bench.read(2), await all("clipped")), key).toBeLessThan(1e-6);
      bench.session.close();
    }
    await file.close();
  });
});
