// tmp
import { expect, it } from "vitest";
import { f16ToF32, f32ToF16 } from "../../src/base/halves.ts";
import { attention } from "../../src/ops/attention.ts";
import { noise, relativeError, runOps, testGpu } from "../helpers/gpu.ts";
import { attentionBackward, attentionForward } from "../helpers/reference_attention.ts";
const half = (x: ArrayLike<number>) => Float64Array.from(f16ToF32(f32ToF16(Float32Array.from(x))));
it("works", async () => {
  for (const [rows, keys, hd, causal, size] of [[37, 45, 16, false, 1], [70, 97, 64, false, 1], [45,37,16,true,1], [70, 97, 64, false, 8]] as const) {
    const p = { batch: 2, heads: 2, rows, keys, headSize: hd, scale: 1 / Math.sqrt(hd), causal };
    const w = 2 * hd;
    const q = half(noise(2 * rows * w, 1)).map(x=>x*size), k = half(noise(2 * keys * w, 2)).map(x=>x*size), v = half(noise(2 * keys * w, 3));
    const dout = noise(2 * rows * w, 4); const t0 = performance.now();
    const { outputs, kernels, gradients } = await runOps([{ shape: [2, rows, w], values: q, dtype: "f16" }, { shape: [2, keys, w], values: k, dtype: "f16" }, { shape: [2, keys, w], values: v , dtype: "f16"}],
      ([a, b, c]) => [attention(a!, b!, c!, { heads: 2, causal })], { seeds: [dout], target: () => ({ matrices: "all" }) , repeat: true});
    console.log(rows, keys, hd, causal, size, relativeError(outputs[0]!, attentionForward(p, q, k, v)), performance.now() - t0, attentionBackward(p,q,k,v,dout).map((g,i)=>relativeError(gradients[i]!,g)), kernels.map(k=>k.source.includes("subgroup_matrix")), kernels[0]!.source.includes("subgroup_matrix"));
  }
});
