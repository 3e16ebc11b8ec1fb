// What the operations never ask of the kernel for products on subgroup matrices, but its interface offers: results stored
// as halves, and an operand that all of a batch share.

import { expect, it } from "vitest";
import { f16ToF32 } from "../../src/base/halves.ts";
import { PipelineCache } from "../../src/gpu/pipelines.ts";
import { Readback, upload } from "../../src/gpu/transfer.ts";
import type { MatmulShape } from "../../src/ops/matmul_choice.ts";
import { chooseMatrix, matrixVariants } from "../../src/ops/matmul_matrix.ts";
import { targetOf } from "../../src/tensor/target.ts";
import { testGpu } from "../helpers/gpu.ts";
import { product } from "./table/products.ts";

/** Whole numbers from -3 to 3, whose products f16 holds exactly for short sums. */
const whole = (count: number, factor: number) => Float32Array.from({ length: count }, (_, i) => ((i * factor) % 7) - 3);

/** C as the device stores it, in a buffer of which every byte was set before. */
async function multiply(shape: MatmulShape, c: "f32" | "f16", a: Float32Array, b: Float32Array): Promise<ArrayBuffer> {
  const gpu = await testGpu();
  const { kernels } = targetOf(gpu);
  const name = matrixVariants(kernels).find((variant) => variant.name.endsWith("_32x32"))!.name;
  const { main } = chooseMatrix(shape, name, kernels, { C: c });
  const bytes = Math.ceil((shape.M * shape.N * (shape.batch ?? 1) * (c === "f16" ? 2 : 4)) / 4) * 4;
  const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_DST | GPUBufferUsage.COPY_SRC;
  const buffers = [a.byteLength, b.byteLength, bytes].map((size) => gpu.device.createBuffer({ size, usage }));
  const words = gpu.device.createBuffer({
    size: main.params.byteLength,
    usage: GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_DST,
  });
  const cache = new PipelineCache(gpu);
  const readback = new Readback(gpu);
  try {
    const pipeline = await cache.get({
      label: name,
      source: main.source,
      constants: { ...main.constants },
      storageBindings: 3,
      epilogue: false,
    });
    gpu.device.queue.writeBuffer(words, 0, main.params);
    upload(gpu, buffers[0]!, 0, a);
    upload(gpu, buffers[1]!, 0, b);
    upload(gpu, buffers[2]!, 0, new Uint32Array(bytes / 4).fill(0x7e007e00));
    const encoder = gpu.device.createCommandEncoder();
    const pass = encoder.beginComputePass();
    pass.setPipeline(pipeline);
    const entries = [words, ...buffers].map((buffer, binding) => ({ binding, resource: { buffer } }));
    pass.setBindGroup(0, gpu.device.createBindGroup({ layout: cache.bindGroupLayout(3, false), entries }));
    pass.dispatchWorkgroups(...main.grid);
    pass.end();
    gpu.device.queue.submit([encoder.finish()]);
    return (await readback.read(buffers[2]!, 0, bytes)).slice(0);
  } finally {
    readback.destroy();
    for (const buffer of [words, ...buffers]) buffer.destroy();
  }
}

const withMatrices = it.runIf(matrixVariants(targetOf(await testGpu()).kernels).length > 0);

withMatrices("results are stored as halves, in rows of any length", async () => {
  for (const [M, N, K] of [
    [33, 20, 24],
    [5, 21, 24],
  ] as const) {
    const [a, b] = [whole(M * K, 5), whole(N * K, 3)];
    const found = new Uint16Array(await multiply({ M, N, K, transB: true }, "f16", a, b)).subarray(0, M * N);
    expect([...f16ToF32(found)]).toEqual([...product(a, b, [M, N, K], { transB: true })]);
  }
});

withMatrices("one right factor serves all of a batch", async () => {
  const [M, N, K] = [9, 20, 24];
  const [a, b] = [whole(3 * M * K, 5), whole(N * K, 3)];
  const found = new Float32Array(await multiply({ M, N, K, batch: 3, strideB: 0, transB: true }, "f32", a, b));
  const parts = [0, 1, 2].map((i) => [...product(a, b, [M, N, K], { transB: true, atA: i * M * K })]);
  expect([...found]).toEqual(parts.flat());
});
