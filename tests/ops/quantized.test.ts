// Stored weights on the device beyond the table of operations: bit for bit what the host decodes, on both forms of the
// kernel, and what is refused.

import { describe, expect, it } from "vitest";
import { type CompactStorage, encodeWeight } from "../../src/base/quantize.ts";
import { Parameters } from "../../src/nn/parameters.ts";
import { decodeMatrix, type StoredMatrix, storedLinear } from "../../src/ops/quantized.ts";
import { Graph } from "../../src/tensor/graph.ts";
import { Session } from "../../src/tensor/session.ts";
import { portableTarget } from "../../src/tensor/target.ts";
import { decodeWeight } from "../helpers/decode_weight.ts";
import { noise, runOps } from "../helpers/gpu.ts";

const STORAGES = ["f16", "bf16", "int8", "nf4"] as const;

/** Values that reach every code, both signs, and scales of many sizes. */
const sample = (count: number) => Float32Array.from(noise(count, 8), (v, i) => v * 2 ** ((i >> 6) % 12));

function stored(storage: CompactStorage, shape: readonly [number, number]): { matrix: StoredMatrix; session: Session } {
  const session = new Session(portableTarget());
  const parameters = new Parameters(session.pool("weights", "weights"), { storage });
  return { matrix: parameters.matrix("weight", shape) as StoredMatrix, session };
}

describe("the decoder on the device", () => {
  for (const storage of STORAGES) {
    // 65 x 68 is a multiple of four, for the form that stores four values at a time.
    it.each([
      [65, 68],
      [61, 67],
    ] as const)(`gives the host's bits of ${storage} weights [%i, %i]`, async (rows, columns) => {
      const count = rows * columns;
      const encoded = encodeWeight("w", storage, sample(count));
      const expected = decodeWeight(storage, encoded, count);
      for (const software of [true, false]) {
        const { outputs } = await runOps(
          [],
          (_inputs, graph, constant) => [
            decodeMatrix(graph, {
              name: "w",
              storage,
              shape: [rows, columns],
              codes: constant("codes", encoded.codes, [encoded.codes.length]).variable!,
              scales: encoded.scales ? constant("scales", encoded.scales, [encoded.scales.length]).variable! : null,
              decoded: "f32",
            }),
          ],
          { target: () => ({ software }) },
        );
        // f16 subnormals may be flushed by an adapter; the sample has none.
        expect(
          outputs[0]!.every((v, i) => Object.is(v, expected[i])),
          `software: ${software}`,
        ).toBe(true);
      }
    });
  }
});

describe("stored weights", () => {
  it("cannot get a gradient", () => {
    const { matrix, session } = stored("int8", [4, 64]);
    matrix.codes.gradient = session.data("gradient", matrix.codes.shape);
    expect(() => decodeMatrix(new Graph("test"), matrix)).toThrow(/weight is stored as int8 and cannot be trained/);
  });

  it("are checked against the shape that they claim", () => {
    const { matrix, session } = stored("nf4", [4, 64]);
    const graph = new Graph("test");
    expect(() => decodeMatrix(graph, { ...matrix, shape: [8, 64] })).toThrow(/u32\[64\] and f32\[8\]/);
    expect(() => decodeMatrix(graph, { ...matrix, scales: null })).toThrow(/not u32\[32\]$/);
    const x = graph.read(session.data("x", [3, 32]));
    expect(() => storedLinear(x, matrix)).toThrow(/\[3, 32\] does not fit weight \[4, 64\]/);
  });
});
