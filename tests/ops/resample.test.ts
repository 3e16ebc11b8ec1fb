import { existsSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { Safetensors } from "../../src/formats/safetensors.ts";
import { add, div, sub } from "../../src/ops/pointwise.ts";
import {
  type Filter,
  packRows,
  resample,
  resize,
  resizeRows,
  type SparseRows,
  shortSideThenCrop,
  transposeRows,
} from "../../src/ops/resample.ts";
import { runWithConstants } from "../helpers/constants.ts";
import { FIXTURES, NodeFiles } from "../helpers/files.ts";
import { noise, relativeError, testGpu } from "../helpers/gpu.ts";

const FILTERS: { filter: Filter; antialias: boolean }[] = [
  { filter: "bicubic", antialias: true },
  { filter: "bicubic", antialias: false },
  { filter: "bilinear", antialias: true },
  { filter: "bilinear", antialias: false },
];

/** Dense product along the middle of [outer, rows.columns, inner], in float64. */
function apply(rows: SparseRows, x: ArrayLike<number>, outer: number, inner: number): Float64Array {
  const out = new Float64Array(outer * rows.starts.length * inner);
  for (let o = 0; o < outer; o++) {
    rows.starts.forEach((start, j) => {
      for (let i = 0; i < inner; i++) {
        let sum = 0;
        rows.weights[j]!.forEach((w, t) => (sum += w * x[(o * rows.columns + start + t) * inner + i]!));
        out[(o * rows.starts.length + j) * inner + i] = sum;
      }
    });
  }
  return out;
}

describe("resampling tables", () => {
  it("have rows that add up to one, whichever way the size changes", () => {
    for (const options of FILTERS) {
      for (const [from, to] of [
        [1, 1],
        [1, 7],
        [7, 1],
        [512, 224],
        [28, 28],
        [37, 224],
        [1009, 63],
      ] as const) {
        const rows = resizeRows(from, to, options);
        expect(rows.starts.length).toBe(to);
        rows.weights.forEach((w, i) => {
          expect(w.reduce((a, b) => a + b, 0)).toBeCloseTo(1, 12);
          expect(rows.starts[i]).toBeGreaterThanOrEqual(0);
          expect(rows.starts[i]! + w.length).toBeLessThanOrEqual(from);
        });
      }
    }
  });

  it("transposed twice give the same matrix back", () => {
    for (const options of FILTERS) {
      const rows = resizeRows(45, 28, options);
      const again = transposeRows(transposeRows(rows));
      const eye = Float64Array.from({ length: 45 * 45 }, (_, i) => (i % 46 === 0 ? 1 : 0));
      expect(apply(again, eye, 1, 45)).toEqual(apply(rows, eye, 1, 45));
    }
  });

  it("are transposed so that both sides of <Ax, y> = <x, Aᵀy> are the same number", () => {
    const dot = (a: Float64Array, b: Float64Array) => a.reduce((sum, v, i) => sum + v * b[i]!, 0);
    for (const options of FILTERS) {
      for (const [from, to] of [
        [45, 28],
        [28, 45],
        [1, 9],
        [64, 1],
        [97, 13],
      ] as const) {
        const rows = resizeRows(from, to, options);
        const [x, y] = [noise(from, 1), noise(to, 2)];
        expect(dot(apply(rows, x, 1, 1), y)).toBeCloseTo(dot(x, apply(transposeRows(rows), y, 1, 1)), 12);
      }
    }
  });

  it("are an identity where the size stays", () => {
    for (const options of FILTERS) {
      const x = noise(29, 1);
      expect(relativeError(apply(resizeRows(29, 29, options), x, 1, 1), x)).toBe(0);
    }
  });

  it("keep the weights as bits behind start and count", () => {
    const { words, shape } = packRows(resizeRows(8, 4, { filter: "bilinear", antialias: true }));
    expect(shape).toEqual([4, 6]);
    expect([...words.subarray(6, 8)]).toEqual([1, 4]);
    expect([...new Float32Array(words.buffer, 32, 4)]).toEqual([0.125, 0.375, 0.375, 0.125]);
  });
});

describe("the geometry of short side and centre crop", () => {
  it("rounds down the long side and rounds half offsets to even", () => {
    expect(shortSideThenCrop(64, 64, 28)).toEqual({
      height: 28,
      width: 28,
      crop: { top: 0, left: 0, height: 28, width: 28 },
    });
    expect(shortSideThenCrop(15, 37, 28)).toEqual({
      height: 28,
      width: 69,
      crop: { top: 0, left: 20, height: 28, width: 28 },
    });
    expect(shortSideThenCrop(80, 45, 28)).toMatchObject({ height: 49, width: 28, crop: { top: 10, left: 0 } });
    // (29 - 28) / 2 = 0.5 goes to 0, (31 - 28) / 2 = 1.5 to 2.
    expect(shortSideThenCrop(29, 28, 28)).toMatchObject({ height: 29, crop: { top: 0 } });
    expect(shortSideThenCrop(31, 28, 28)).toMatchObject({ height: 31, crop: { top: 2 } });
  });
});

describe("resampling on the device", () => {
  it("runs pointwise steps before its store and reads f16", async (context) => {
    if (!(await testGpu()).facts.f16) return context.skip("the adapter has no shader-f16");
    const x = noise(2 * 3 * 8 * 6, 1);
    const rows = resizeRows(6, 4, FILTERS[0]!);
    const inputs = [
      { shape: [2, 3, 8, 6], values: x, dtype: "f16" as const },
      { shape: [1, 3, 1, 1], values: [0.5, 0.25, -1] },
    ];
    const { outputs, calls } = await runWithConstants(inputs, ([t, b], constant) => [
      add(resample(t!, rows, -1, "table", constant), b!),
    ]);
    expect(calls).toEqual(["resample rows"]);
    const expected = apply(rows, x, 48, 1).map((v, i) => v + [0.5, 0.25, -1][Math.floor(i / 32) % 3]!);
    expect(relativeError(outputs[0]!, expected)).toBeLessThan(5e-4);
  });

  it("folds grids beyond 65535 workgroups", async () => {
    const wide = 65536 * 16 + 3;
    const two = resizeRows(2, 4, FILTERS[2]!);
    const { outputs } = await runWithConstants([{ shape: [2, wide], values: noise(2 * wide, 1) }], ([t], constant) => [
      resample(t!, two, -2, "two", constant),
    ]);
    expect(relativeError(outputs[0]!, apply(two, noise(2 * wide, 1), 1, wide))).toBeLessThan(1e-6);
  });

  it("refuses a crop outside the resized picture", async () => {
    const crop = { top: 3, left: 0, height: 6, width: 8 };
    await expect(
      runWithConstants([{ shape: [1, 1, 16, 16], values: noise(256) }], ([t], constant) => {
        return [resize(t!, 8, 8, { ...FILTERS[0]!, crop, constant })];
      }),
    ).rejects.toThrow("outside");
  });
});

const io = async (subject: string) => ({
  config: JSON.parse(await new NodeFiles().readText(join(FIXTURES, subject, "config.json"))),
  file: await Safetensors.open(new NodeFiles(), join(FIXTURES, subject, "io.safetensors")),
});
const present = (subject: string) => existsSync(join(FIXTURES, subject, "io.safetensors"));

describe("parity with torchvision", () => {
  it.skipIf(!present("clip_preprocess"))("preprocesses pictures for CLIP and sends the gradient back", async () => {
    const { config, file } = await io("clip_preprocess");
    for (const [h, w] of config.pictures as [number, number][]) {
      const key = `${h}x${w}`;
      const picture = await file.readF32(`${key}.picture`);
      const shape = file.info(`${key}.picture`).shape;
      const geometry = shortSideThenCrop(h, w, config.size);
      const inputs = [
        { shape, values: picture },
        { shape: [1, 3, 1, 1], values: config.mean },
        { shape: [1, 3, 1, 1], values: config.std },
      ];
      const { outputs, gradients } = await runWithConstants(
        inputs,
        ([x, mean, std], constant) => {
          const options = { filter: config.interpolation, antialias: config.antialias, crop: geometry.crop, constant };
          return [div(sub(resize(x!, geometry.height, geometry.width, options), mean!), std!)];
        },
        { seeds: [await file.readF32(`${key}.weight`)], repeat: true },
      );
      const own = config._oracle.f32_vs_f64[key];
      expect(relativeError(outputs[0]!, await file.readF32(`${key}.output`)), key).toBeLessThan(
        Math.max(2e-5, 10 * own.output.relative_l2),
      );
      expect(relativeError(gradients[0]!, await file.readF32(`${key}.grad.picture`)), key).toBeLessThan(
        Math.max(2e-5, 10 * own.grad.relative_l2),
      );
    }
    await file.close();
  });

  it.skipIf(!present("image"))("resizes with and without antialiasing like torchvision", async () => {
    const { file } = await io("image");
    let seen = 0;
    for (const name of file.names()) {
      const match = /^(\w+)\.(tv|tv_plain)\.(bilinear|bicubic)\.(\d+)x(\d+)$/.exec(name);
      if (!match) continue;
      const [h, w] = file.info(`${match[1]}.source`).shape as [number, number, number];
      const source = await file.readF32(`${match[1]}.source`);
      const planes = Float32Array.from(source, (_, i) => source[(i % (h * w)) * 3 + Math.floor(i / (h * w))]! / 255);
      const { outputs } = await runWithConstants([{ shape: [1, 3, h, w], values: planes }], ([x], constant) => {
        return [
          resize(x!, Number(match[4]), Number(match[5]), {
            filter: match[3] as Filter,
            antialias: match[2] === "tv",
            constant,
          }),
        ];
      });
      expect(relativeError(outputs[0]!, await file.readF32(name)), name).toBeLessThan(2e-5);
      seen++;
    }
    expect(seen).toBeGreaterThan(0);
    await file.close();
  });
});
