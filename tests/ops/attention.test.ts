import { describe, expect, it } from "vitest";
import { attention } from "../../src/ops/attention.ts";
import { add, affine, cast } from "../../src/ops/pointwise.ts";
import { attentionBackward, attentionForward, type AttentionProblem } from "../helpers/reference_attention.ts";
import { noise, relativeError, runOps } from "../helpers/gpu.ts";

/** Stands for a masked place in a bias of whole numbers. */
const MASK_LEVEL = 1000;

/** A bias [H, Lq, Lk] in steps of 1/64; about one place in `every` is masked. */
function biasOf(heads: number, rows: number, keys: number, every = 0): Float64Array {
  return noise(heads * rows * keys, 9).map((x, at) => {
    if (every > 0 && at % keys !== 0 && at % every === 1) return -3e38;
    return Math.round(x * 64) / 64;
  });
}

/** Shape [batch, Lq, Lk, heads, head size]. */
function problem([batch, rows, keys, heads, headSize]: number[], extra: Partial<AttentionProblem> = {}): AttentionProblem {
  return { batch: batch!, rows: rows!, keys: keys!, heads: heads!, headSize: headSize!, scale: 1 / Math.sqrt(headSize!), ...extra };
}

function inputsOf(p: AttentionProblem, size = 1) {
  const width = p.heads * p.headSize;
  const scaled = (values: Float64Array) => values.map((x) => Math.fround(x * size));
  return {
    q: scaled(noise(p.batch * p.rows * width, 1)),
    k: scaled(noise(p.batch * p.keys * width, 2)),
    v: noise(p.batch * p.keys * width, 3),
    dout: noise(p.batch * p.rows * width, 4),
  };
}

interface Options {
  size?: number;
  dtype?: "f32" | "f16";
  tolerance?: number;
}

/** Runs forward and backward on the device and compares both with float64. */
async function check(p: AttentionProblem, options: Options = {}): Promise<void> {
  const { q, k, v, dout } = inputsOf(p, options.size);
  const { dtype = "f32", tolerance = 1e-5 } = options;
  const width = p.heads * p.headSize;
  const inputs = [
    { shape: [p.batch, p.rows, width], values: q, dtype },
    { shape: [p.batch, p.keys, width], values: k, dtype },
    { shape: [p.batch, p.keys, width], values: v, dtype },
  ];
  // A bias is a constant: it comes from whole numbers, which runOps asks no gradient for.
  const biasShape = [p.heads, p.rows, p.keys];
  const levels = p.bias ? Array.from(p.bias, (x) => (x < -1 ? MASK_LEVEL : Math.round((x + 1) * 64))) : [];
  const masks = levels.map((x) => (x === MASK_LEVEL ? 1 : 0));
  const biasInputs = p.bias
    ? [{ shape: biasShape, values: levels, dtype: "u32" as const }, { shape: biasShape, values: masks, dtype: "u32" as const }]
    : [];
  const { outputs, gradients } = await runOps([...inputs, ...biasInputs], ([a, b, c, level, mask]) => {
    const bias = level && add(affine(cast(level, "f32"), 1 / 64, -1), affine(cast(mask!, "f32"), -3e38, 0));
    return [attention(a!, b!, c!, { heads: p.heads, scale: p.scale, causal: p.causal, bias })];
  }, { seeds: [dout], repeat: true });
  const name = JSON.stringify({ ...p, bias: p.bias !== undefined });
  expect(relativeError(outputs[0]!, attentionForward(p, q, k, v)), `out ${name}`).toBeLessThan(tolerance);
  const expected = attentionBackward(p, q, k, v, dout);
  ["dq", "dk", "dv"].forEach((label, i) => {
    // With one key the weights are constant, and dq and dk are rounding noise around zero.
    if (p.keys === 1 && i < 2) return expect(Math.max(...gradients[i]!.map(Math.abs))).toBeLessThan(1e-5);
    return expect(relativeError(gradients[i]!, expected[i]!), `${label} ${name}`).toBeLessThan(tolerance);
  });
}

describe("attention", () => {
  it("agrees with float64 for lengths around the workgroup and the key block", async () => {
    for (const length of [1, 3, 7, 8, 9, 31, 36, 64, 65]) await check(problem([2, length, length, 2, 16]));
  });
});
