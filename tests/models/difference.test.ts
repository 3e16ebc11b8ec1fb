// Truncated singular value decomposition against known spectra and an exact one, and the LoRA made of a difference.

import { describe, expect, it } from "vitest";
import { RandomStream } from "../../src/base/random.ts";
import { memorySource } from "../../src/base/tensor_source.ts";
import { differenceLora } from "../../src/models/flux/difference.ts";
import { energyOf, jacobi, type Svd, truncatedSvd } from "../../src/models/flux/svd.ts";

const normals = (name: string, count: number) => Float64Array.from(new RandomStream(7, name).normals(0, count));

/** Orthonormal columns [rows, k] by plain Gram–Schmidt in the test's own words. */
function orthonormal(name: string, rows: number, k: number): number[][] {
  const columns: number[][] = [];
  for (let c = 0; c < k; c++) {
    let x = [...normals(`${name}.${c}`, rows)];
    for (let pass = 0; pass < 2; pass++) {
      for (const other of columns) {
        const part = x.reduce((sum, v, i) => sum + v * other[i]!, 0);
        x = x.map((v, i) => v - part * other[i]!);
      }
    }
    const length = Math.hypot(...x);
    columns.push(x.map((v) => v / length));
  }
  return columns;
}

/** A matrix with given singular values. */
function withSpectrum(rows: number, columns: number, values: number[]): Float64Array {
  const left = orthonormal("left", rows, values.length);
  const right = orthonormal("right", columns, values.length);
  const out = new Float64Array(rows * columns);
  values.forEach((value, k) => {
    for (let i = 0; i < rows; i++)
      for (let j = 0; j < columns; j++) out[i * columns + j]! += value * left[k]![i]! * right[k]![j]!;
  });
  return out;
}

function product(svd: Svd, rows: number, columns: number): Float64Array {
  const k = svd.values.length;
  const out = new Float64Array(rows * columns);
  for (let i = 0; i < rows; i++) {
    for (let j = 0; j < columns; j++) {
      for (let c = 0; c < k; c++)
        out[i * columns + j]! += svd.left[i * k + c]! * svd.values[c]! * svd.right[j * k + c]!;
    }
  }
  return out;
}

/** Largest difference of columnsᵀ · columns from the identity. */
function skew(columns: Float64Array, rows: number, k: number): number {
  let worst = 0;
  for (let a = 0; a < k; a++) {
    for (let b = 0; b < k; b++) {
      let sum = 0;
      for (let i = 0; i < rows; i++) sum += columns[i * k + a]! * columns[i * k + b]!;
      worst = Math.max(worst, Math.abs(sum - (a === b ? 1 : 0)));
    }
  }
  return worst;
}

const distance = (a: Float64Array, b: Float64Array) => Math.sqrt(energyOf(a.map((v, i) => v - b[i]!)));

describe("the exact SVD of a small matrix", () => {
  it("multiplies back to the matrix, with orthonormal factors and descending values", () => {
    for (const n of [1, 2, 5, 20]) {
      const matrix = normals(`square${n}`, n * n);
      const svd = jacobi(matrix, n);
      expect(distance(product(svd, n, n), matrix)).toBeLessThan(1e-13 * n);
      expect(skew(svd.left, n, n)).toBeLessThan(1e-13);
      expect(skew(svd.right, n, n)).toBeLessThan(1e-13);
      expect([...svd.values]).toEqual([...svd.values].sort((a, b) => b - a));
    }
  });

  it("knows a matrix of two by two: [[3, 0], [4, 5]] has √45 and √5", () => {
    const { values } = jacobi(Float64Array.of(3, 0, 4, 5), 2);
    expect(values[0]).toBeCloseTo(Math.sqrt(45), 13);
    expect(values[1]).toBeCloseTo(Math.sqrt(5), 13);
  });
});

describe("the truncated SVD", () => {
  const shapes: [number, number][] = [
    [90, 61],
    [61, 90],
    [128, 128],
    [67, 33],
  ];

  it("finds the leading values and vectors of a known spectrum", () => {
    for (const [rows, columns] of shapes) {
      const values = Array.from({ length: 30 }, (_, i) => 0.8 ** i);
      const matrix = withSpectrum(rows, columns, values);
      const svd = truncatedSvd(matrix, rows, columns, 8, "a");
      svd.values.forEach((value, i) => expect(value, `${rows} × ${columns}, value ${i}`).toBeCloseTo(values[i]!, 9));
      expect(skew(svd.left, rows, 8)).toBeLessThan(1e-13);
      expect(skew(svd.right, columns, 8)).toBeLessThan(1e-13);
      // The rest is the energy of the values that were cut, no more.
      const rest = Math.sqrt(values.slice(8).reduce((sum, v) => sum + v * v, 0));
      expect(distance(product(svd, rows, columns), matrix)).toBeCloseTo(rest, 7);
    }
  });

  it("keeps nearly the best energy where the spectrum has no gap", () => {
    const n = 96;
    const matrix = normals("flat", n * n);
    const best = energyOf(jacobi(matrix, n).values.subarray(0, 16));
    const kept = energyOf(truncatedSvd(matrix, n, n, 16, "a").values);
    expect(kept).toBeLessThanOrEqual(best * (1 + 1e-12));
    expect(kept).toBeGreaterThan(best * (1 - 1e-4));
  });

  it("is exact where rank and oversampling reach the smaller side", () => {
    const matrix = normals("small", 20 * 9);
    const svd = truncatedSvd(matrix, 20, 9, 16, "a");
    expect(svd.values.length).toBe(9);
    expect(distance(product(svd, 20, 9), matrix)).toBeLessThan(1e-13);
  });

  it("gives zeros for what a matrix of lower rank does not have", () => {
    const matrix = withSpectrum(40, 30, [2, 1]);
    const svd = truncatedSvd(matrix, 40, 30, 5, "a");
    expect(svd.values[1]).toBeCloseTo(1, 12);
    expect(Math.max(...svd.values.subarray(2))).toBeLessThan(1e-12);
    expect(distance(product(svd, 40, 30), matrix)).toBeLessThan(1e-12);
    expect([...truncatedSvd(new Float64Array(12), 4, 3, 2, "a").values]).toEqual([0, 0]);
  });

  it("gives the same bits every time", () => {
    const matrix = normals("again", 50 * 40);
    expect(truncatedSvd(matrix, 50, 40, 6, "a")).toEqual(truncatedSvd(matrix.slice(), 50, 40, 6, "a"));
  });
});

describe("the LoRA of a difference", () => {
  const shapes: Record<string, number[]> = {
    "a.weight": [40, 24],
    "b.weight": [24, 40],
    "tiny.weight": [3, 24],
    "a.bias": [40],
    "norm.weight": [24],
  };
  const original = new Map(
    Object.entries(shapes).map(([name, shape]) => [
      name,
      {
        shape,
        data: Float32Array.from(
          normals(
            name,
            shape.reduce((a, b) => a * b, 1),
          ),
        ),
      },
    ]),
  );
  const tuned = new Map(
    [...original].map(([name, { shape, data }]) => [
      name,
      { shape, data: data.map((v, i) => v + 0.01 * new RandomStream(3, name).normals(0, data.length)[i]!) },
    ]),
  );
  const make = (rank: number) =>
    differenceLora(memorySource("original", original), memorySource("tuned", tuned), { rank });

  it("has one rank for all matrices, both factors of equal length, and says what it kept", async () => {
    const { layers, energy } = await make(6);
    expect([...layers.keys()]).toEqual(["a", "b", "tiny"]);
    let kept = 0;
    let matrices = 0;
    let vectors = 0;
    for (const [name, { data }] of tuned) {
      const delta = Float64Array.from(data, (v, i) => v - original.get(name)!.data[i]!);
      const layer = layers.get(name.replace(/\.weight$/, ""));
      if (!layer) {
        vectors += energyOf(delta);
        continue;
      }
      expect(layer).toMatchObject({ rank: 6, scale: 1, outputs: shapes[name]![0], inputs: shapes[name]![1] });
      matrices += energyOf(delta);
      // ‖Δ‖² − ‖Δ − BA‖² is what the factors, as they are stored, explain.
      const rest = delta.slice();
      for (let i = 0; i < layer.outputs; i++) {
        for (let j = 0; j < layer.inputs; j++) {
          for (let k = 0; k < 6; k++)
            rest[i * layer.inputs + j]! -= layer.up[i * 6 + k]! * layer.down[k * layer.inputs + j]!;
        }
      }
      kept += energyOf(delta) - energyOf(rest);
      for (let k = 0; k < 6; k++) {
        const row = energyOf(layer.down.subarray(k * layer.inputs, (k + 1) * layer.inputs));
        const column = energyOf(layer.up.filter((_, at) => at % 6 === k));
        expect(Math.abs(row - column)).toBeLessThan(1e-6 * row + 1e-12);
      }
    }
    expect(energy.kept).toBeCloseTo(kept / matrices, 6);
    expect(energy.unstorable).toBeCloseTo(vectors / (vectors + matrices), 9);
    expect(energy.kept).toBeGreaterThan(0.4);
    expect(energy.kept).toBeLessThan(0.9);
    expect(energy.layers.get("tiny")!.kept / energy.layers.get("tiny")!.total).toBeCloseTo(1, 9);
    expect(energy.total).toBeCloseTo(matrices + vectors, 9);
  });

  it("keeps everything at full rank, and is the same bits every time", async () => {
    const { energy } = await make(24);
    expect(energy.kept).toBeCloseTo(1, 9);
    expect(await make(6)).toEqual(await make(6));
  });

  it("is all zero where nothing changed", async () => {
    const source = memorySource("original", original);
    const { layers, energy } = await differenceLora(source, source, { rank: 2, modules: ["a"] });
    expect(energy).toMatchObject({ kept: 1, unstorable: 0, total: 0 });
    expect([...layers.keys()]).toEqual(["a"]);
    expect(layers.get("a")!.up.every((v) => v === 0)).toBe(true);
  });

  it("refuses weights of another model", async () => {
    const other = new Map([...tuned].filter(([name]) => name !== "b.weight"));
    await expect(
      differenceLora(memorySource("original", original), memorySource("tuned", other), { rank: 2 }),
    ).rejects.toThrow("b.weight");
  });
});
