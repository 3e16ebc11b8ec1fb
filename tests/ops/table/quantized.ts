// Stored weights of the table: the decoder of every storage, and the product that decodes. Codes and scales are constants
// of the cases, because weights of this kind have no gradient.

import { type CompactStorage, encodeWeight } from "../../../src/base/quantize.ts";
import { type Decoded, decodeMatrix, type StoredMatrix, storedLinear } from "../../../src/ops/quantized.ts";
import type { Constant } from "../../../src/ops/resample.ts";
import { decodeWeight } from "../../helpers/decode_weight.ts";
import { noise } from "../../helpers/gpu.ts";
import { product } from "./products.ts";
import { type Case, type Draw, type Entry, input, typicalSum } from "./types.ts";

const STORAGES = ["f16", "bf16", "int8", "nf4"] as const;

/** A weight of normal-like values, encoded; `values` is what its codes stand for. */
function weightOf(storage: CompactStorage, shape: readonly [number, number], decoded: Decoded = "f32") {
  const count = shape[0] * shape[1];
  const [a, b] = [noise(count, 31), noise(count, 32)];
  const encoded = encodeWeight(
    "a sample",
    storage,
    Float32Array.from(a, (v, i) => v * b[i]!),
  );
  const values = Float64Array.from(decodeWeight(storage, encoded, count));
  /** The matrix as constants of one case; a name always means the same contents. */
  const matrix = (constant: Constant): StoredMatrix => {
    const name = `${storage} ${shape}`;
    const codes = constant(`${name} codes`, encoded.codes, [encoded.codes.length]).variable!;
    const { scales } = encoded;
    return {
      name,
      storage,
      shape,
      codes,
      scales: scales ? constant(`${name} scales`, scales, [scales.length]).variable! : null,
      decoded,
    };
  };
  return { values, matrix };
}

function decodeCase(storage: CompactStorage, shape: readonly [number, number], decoded: Decoded = "f32"): Case {
  const weight = weightOf(storage, shape, decoded);
  return {
    label: `${storage} [${shape}]${decoded === "f16" ? " as f16" : ""}`,
    inputs: [],
    body: (_inputs, graph, constant) => [decodeMatrix(graph, weight.matrix(constant), decoded)],
    reference: () => [weight.values],
    terms: 1,
    stored: decoded === "f16" ? "f16" : undefined,
  };
}

function storedCase(
  storage: CompactStorage,
  leading: readonly number[],
  [width, K]: readonly [number, number],
  decoded: Decoded = "f32",
): Case {
  const rows = leading.reduce((a, b) => a * b, 1);
  const weight = weightOf(storage, [width, K], decoded);
  return {
    label: `${storage} [${[...leading, K]}] to ${width}${decoded === "f16" ? ", decoded as f16" : ""}`,
    inputs: [input([...leading, K])],
    body: ([x], _graph, constant) => [storedLinear(x!, weight.matrix(constant))],
    reference: ([x]) => [product(x!, weight.values, [rows, width, K], { transB: true })],
    terms: Math.max(rows, width, K),
    floor: 0.2 * typicalSum(Math.min(width, K)),
    stored: decoded === "f16" ? "f16" : undefined,
  };
}

export const QUANTIZED: Entry[] = [
  {
    name: "decodeMatrix",
    file: "quantized.ts",
    kernels: ["dequantize.wgsl"],
    formula: "w[i] = code[i] · scale[i / 64] (int8, nf4), or the f16 or bf16 pattern as a number",
    shapes: "any matrix; blocks of 64 run over the ends of rows",
    types: "u32 codes, f32 scales; f32 or f16 out",
    gradient: "",
    cases: STORAGES.flatMap((storage) => [
      decodeCase(storage, [1, 1]),
      decodeCase(storage, [3, 37]),
      decodeCase(storage, [5, 64]),
      decodeCase(storage, [61, 67]),
      decodeCase(storage, [9, 20], "f16"),
    ]),
    draw: (r: Draw) => decodeCase(r.pick(STORAGES), [r.int(1, 60), r.int(1, 90)]),
  },
  {
    name: "storedLinear",
    file: "quantized.ts",
    kernels: ["dequantize.wgsl"],
    adapterKernels: ["matmul_direct.wgsl", "matmul_outer.wgsl", "matmul_narrow.wgsl", "matmul_tiled.wgsl"],
    formula: "y = x Wᵀ with a stored W, decoded for one kernel call",
    shapes: "x [..., in], W [out, in]",
    types: "x f32, f16, W f16, bf16, int8, nf4; f32 out",
    gradient: "dy W of the input, with W decoded again; W itself has none",
    cases: STORAGES.flatMap((storage) => [
      storedCase(storage, [1], [1, 1]),
      storedCase(storage, [2, 3], [33, 37]),
      storedCase(storage, [5, 8], [24, 64]),
      storedCase(storage, [33], [65, 70]),
      storedCase(storage, [2, 20], [24, 40], "f16"),
    ]),
    draw: (r: Draw) => storedCase(r.pick(STORAGES), [r.int(1, 3), r.int(1, 20)], [r.int(1, 60), r.int(1, 60)]),
  },
];
