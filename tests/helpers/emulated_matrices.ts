// Subgroup matrices of sizes and subgroups that the adapter at hand does not have, emulated: the text of a kernel gets
// arrays in place of matrices, whose values are dealt out to the lanes in turn and meet in workgroup memory to be multiplied,
// and lanes that are counted from the workgroup's invocations. So the kernels for a card with subgroups of 32 and matrices of 16x16x16 are tested on a CPU.

import type { Gpu } from "../../src/gpu/device.ts";
import type { KernelLimits, MatrixSize } from "../../src/gpu/kernel_limits.ts";

/** What a card reports; `kernels` for a target. */
export function cardLimits(own: KernelLimits, lanes: number, size: MatrixSize): KernelLimits {
  return { ...own, subgroups: true, subgroupMinSize: lanes, subgroupMaxSize: lanes, matrices: [size] };
}

/** WGSL in which nothing of subgroups and their matrices is left. */
export function emulate(code: string, lanes: number, { m, n, k }: MatrixSize): string {
  const threads = /@workgroup_size\((\d+)\)/.exec(code)?.[1] ?? /const THREADS = (.*?)u;/.exec(code)![1]!;
  // The loaders that the text asks for, by type, majorness and memory.
  const loaders = new Set<string>();
  const stores = new Set<string>();
  let text = code
    .replace(/enable chromium_experimental_subgroup_matrix;|enable subgroups;|requires subgroup_id;/g, "")
    .replace(/diagnostic\(off, chromium\.subgroup_matrix_uniformity\);/, "")
    .replace(/alias Left = .*;/, `alias Left = array<f32, ${(m * k) / lanes}>;`)
    .replace(/alias Right = .*;/, `alias Right = array<f32, ${(k * n) / lanes}>;`)
    .replace(/alias Sums = .*;/, `alias Sums = array<f32, ${(m * n) / lanes}>;`)
    .replace(/subgroupMatrixLoad<(\w+), (\w+)>\(\s*&(\w+),/g, (_, type: string, order: string, memory: string) => {
      loaders.add(`${type} ${order} ${memory}`);
      return `load${type}_${order}_${memory}(`;
    })
    .replace(/subgroupMatrixStore<row_major>\(\s*&(\w+),/g, (_, memory: string) => {
      stores.add(memory);
      return `store_${memory}(`;
    })
    .replace(/subgroupMatrixMultiplyAccumulate\(/g, "multiplyAdd(")
    .replace(/subgroupShuffleXor\(/g, "shuffleXor(thread, ")
    .replace(
      /\n\s*@builtin\(subgroup_id\) subgroup : u32,\n\s*@builtin\(subgroup_invocation_id\) lane : u32,\n\) \{/,
      `\n) {\n  let subgroup = thread / ${lanes}u;\n  let lane = thread % ${lanes}u;\n  emulatedThread = thread;\n  none = p.fold >> 31u;`,
    );
  text += `
var<private> emulatedThread : u32;
var<workgroup> shuffled : array<f32, ${threads}>;
fn shuffleXor(thread : u32, value : f32, mask : u32) -> f32 {
  shuffled[thread] = value;
  workgroupBarrier();
  let other = shuffled[thread ^ mask];
  workgroupBarrier();
  return other;
}
// Nobody who compiles this knows that it is zero, so that loops stay loops.
var<private> none : u32;
var<workgroup> lefts : array<f32, ${(Number(threads) * m * k) / lanes}>;
var<workgroup> rights : array<f32, ${(Number(threads) * k * n) / lanes}>;
fn multiplyAdd(a : Left, b : Right, c : Sums) -> Sums {
  var left = a;
  var right = b;
  var sums = c;
  let lane = emulatedThread % ${lanes}u;
  let ownLeft = emulatedThread / ${lanes}u * ${m * k}u;
  let ownRight = emulatedThread / ${lanes}u * ${k * n}u;
  for (var e = none; e < ${(m * k) / lanes}u; e++) { lefts[ownLeft + e * ${lanes}u + lane] = left[e]; }
  for (var e = none; e < ${(k * n) / lanes}u; e++) { rights[ownRight + e * ${lanes}u + lane] = right[e]; }
  workgroupBarrier();
  for (var e = none; e < ${(m * n) / lanes}u; e++) {
    let at = e * ${lanes}u + lane;
    var sum = sums[e];
    for (var l = none; l < ${k}u; l++) {
      sum = fma(lefts[ownLeft + at / ${n}u * ${k}u + l], rights[ownRight + l * ${n}u + at % ${n}u], sum);
    }
    sums[e] = sum;
  }
  workgroupBarrier();
  return sums;
}
`;
  const sides = { Left: [m, k], Right: [k, n], Sums: [m, n] } as const;
  for (const loader of loaders) {
    const [type, order, memory] = loader.split(" ") as [keyof typeof sides, string, string];
    const [rows, columns] = sides[type];
    const words = type === "Sums" ? 4 : 8;
    const [row, column] = order === "row_major" ? ["i", "j"] : ["j", "i"];
    const at = `offset * ${words}u + ${row} * stride * ${words}u + ${column}`;
    const value =
      type === "Sums"
        ? `bitcast<f32>(${memory}[at >> 2u][at & 3u])`
        : `unpack2x16float(${memory}[at >> 3u][(at >> 1u) & 3u])[at & 1u]`;
    text += `fn load${type}_${order}_${memory}(offset : u32, stride : u32) -> ${type} {
  var out : ${type};
  for (var e = none; e < ${(rows * columns) / lanes}u; e++) {
    let i = (e * ${lanes}u + emulatedThread % ${lanes}u) / ${columns}u;
    let j = (e * ${lanes}u + emulatedThread % ${lanes}u) % ${columns}u;
    let at = ${at};
    out[e] = ${value};
  }
  return out;
}
`;
  }
  for (const memory of stores) {
    const store =
      memory === "stage"
        ? "stage[offset + i * stride + (j >> 2u)][j & 3u] = bitcast<u32>(sums[e]);"
        : `${memory}[offset + i * stride + j] = sums[e];`;
    text += `fn store_${memory}(offset : u32, value : Sums, stride : u32) {
  var sums = value;
  for (var e = none; e < ${(m * n) / lanes}u; e++) {
    let i = (e * ${lanes}u + emulatedThread % ${lanes}u) / ${n}u;
    let j = (e * ${lanes}u + emulatedThread % ${lanes}u) % ${n}u;
    ${store}
  }
}
`;
  }
  return text;
}

/** Runs `body` while every kernel on matrices that the device compiles is emulated. */
export async function withEmulatedMatrices<T>(gpu: Gpu, lanes: number, size: MatrixSize, body: () => Promise<T>) {
  const { device } = gpu;
  const create = device.createShaderModule.bind(device);
  Object.defineProperty(device, "createShaderModule", {
    configurable: true,
    value: (descriptor: GPUShaderModuleDescriptor) => {
      const isMatrix = descriptor.code.includes("chromium_experimental_subgroup_matrix");
      return create(isMatrix ? { ...descriptor, code: emulate(descriptor.code, lanes, size) } : descriptor);
    },
  });
  try {
    return await body();
  } finally {
    Reflect.deleteProperty(device, "createShaderModule");
  }
}
