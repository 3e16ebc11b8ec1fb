// A test of the adapter's subgroup matrices before anything relies on them: the interface is experimental, and drivers have
// compiled such kernels wrongly. Each size of matrix multiplies one small problem that crosses tiles in every direction,
// with sums that live over several steps, and is compared with the host; a size that fails is not used.

import type { AdapterFacts, Gpu } from "../gpu/device.ts";
import type { MatrixSize } from "../gpu/kernel_limits.ts";
import { PipelineCache } from "../gpu/pipelines.ts";
import { Readback, upload } from "../gpu/transfer.ts";
import { targetOf } from "../tensor/target.ts";
import { chooseMatrix, matrixVariants } from "./matmul_matrix.ts";

const [M, N, K] = [75, 68, 140];
/** Values are whole numbers of this size at most, so that f16 holds them and the sums are exact in f32. */
const LARGEST = 8;

/** A size of matrix that gave wrong numbers or did not compile. */
export interface MatrixFault {
  size: MatrixSize;
  why: string;
}

function values(count: number, seed: number): Float32Array {
  let state = seed;
  return Float32Array.from({ length: count }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return ((state >>> 24) % (2 * LARGEST + 1)) - LARGEST;
  });
}

/** Multiplies with one variant; null where the product is right, else what is wrong. */
async function faultOf(gpu: Gpu, cache: PipelineCache, name: string): Promise<string | null> {
  const choice = chooseMatrix({ M, N, K, transB: true }, name, targetOf(gpu).kernels).main;
  const { device } = gpu;
  const [a, b] = [values(M * K, 1), values(N * K, 2)];
  const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_DST | GPUBufferUsage.COPY_SRC;
  const buffers = [a.byteLength, b.byteLength, 4 * M * N].map((size) => device.createBuffer({ size, usage }));
  const words = device.createBuffer({
    size: choice.params.byteLength,
    usage: GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_DST,
  });
  const readback = new Readback(gpu);
  try {
    const pipeline = await cache.get({
      label: `check of ${name}`,
      source: choice.source,
      constants: choice.constants as Record<string, string | number | boolean>,
      storageBindings: 3,
      epilogue: false,
    });
    device.queue.writeBuffer(words, 0, choice.params);
    upload(gpu, buffers[0]!, 0, a);
    upload(gpu, buffers[1]!, 0, b);
    const entries = [words, ...buffers].map((buffer, binding) => ({ binding, resource: { buffer } }));
    const encoder = device.createCommandEncoder();
    const pass = encoder.beginComputePass();
    pass.setPipeline(pipeline);
    pass.setBindGroup(0, device.createBindGroup({ layout: cache.bindGroupLayout(3, false), entries }));
    pass.dispatchWorkgroups(...choice.grid);
    pass.end();
    device.queue.submit([encoder.finish()]);
    const c = new Float32Array(await readback.read(buffers[2]!, 0, 4 * M * N));
    return differenceOf(a, b, c);
  } catch (error) {
    return (error as Error).message;
  } finally {
    readback.destroy();
    for (const buffer of [words, ...buffers]) buffer.destroy();
  }
}

function differenceOf(a: Float32Array, b: Float32Array, c: Float32Array): string | null {
  let wrong = 0;
  for (let m = 0; m < M; m++) {
    for (let n = 0; n < N; n++) {
      let sum = 0;
      for (let k = 0; k < K; k++) sum += a[m * K + k]! * b[n * K + k]!;
      if (c[m * N + n] !== sum) wrong++;
    }
  }
  return wrong === 0 ? null : `${wrong} of ${M * N} values of a product are wrong`;
}

/**
 * Tries every size of f16 matrices with f32 sums and takes those that fail out of the adapter's facts.
 * @returns what was taken out
 */
export async function dropFaultyMatrices(gpu: Gpu): Promise<MatrixFault[]> {
  const variants = matrixVariants(targetOf(gpu).kernels);
  const sizes = [...new Set(variants.map(({ size }) => size))];
  const cache = new PipelineCache(gpu);
  const faults = await Promise.all(
    sizes.map(async (size): Promise<MatrixFault[]> => {
      // The least tile of them all compiles fastest and has every part of the others.
      const { name } = variants.filter((v) => v.size === size && /_\d+x\d+$/.test(v.name)).at(-1)!;
      const why = await faultOf(gpu, cache, name);
      return why === null ? [] : [{ size, why }];
    }),
  );
  const found = faults.flat();
  const isSound = ({ component, result, m, n, k }: AdapterFacts["subgroupMatrices"][number]) =>
    component !== "f16" || result !== "f32" || !found.some(({ size }) => size.m === m && size.n === n && size.k === k);
  gpu.facts.subgroupMatrices = gpu.facts.subgroupMatrices.filter(isSound);
  return found;
}
