// What lowering needs to know of an adapter, from the facts of an opened one, and a stand-in for planning without a device.

import type { Gpu } from "../gpu/device.ts";
import { PORTABLE_KERNEL_LIMITS } from "../gpu/kernel_limits.ts";
import type { Target } from "./lower.ts";

export type Choose = Target["choose"];

/** Sizes of buffers and bindings are u32 in kernels; above this, offsets would overflow. */
const LARGEST_BINDING = 0x7fffff00;

export function targetOf(gpu: Gpu, choose: Choose = () => null): Target {
  const limit = (name: string): number => gpu.limits[name]!;
  const [min, max] = gpu.facts.subgroupSizes ?? [0, 0];
  return {
    kernels: {
      subgroups: gpu.facts.subgroups,
      subgroupMinSize: min,
      subgroupMaxSize: max,
      maxComputeInvocationsPerWorkgroup: limit("maxComputeInvocationsPerWorkgroup"),
      maxComputeWorkgroupStorageSize: limit("maxComputeWorkgroupStorageSize"),
      maxComputeWorkgroupsPerDimension: limit("maxComputeWorkgroupsPerDimension"),
      matrices: gpu.facts.f16
        ? gpu.facts.subgroupMatrices.filter(({ component, result }) => component === "f16" && result === "f32")
        : [],
    },
    software: gpu.facts.software,
    f16: gpu.facts.f16,
    matrices: gpu.matrices ?? "auto",
    stagedDecoding: !gpu.facts.software,
    maxBindingBytes: Math.min(limit("maxStorageBufferBindingSize"), limit("maxBufferSize"), LARGEST_BINDING),
    maxStorageBuffers: limit("maxStorageBuffersPerShaderStage"),
    maxWorkgroups: limit("maxComputeWorkgroupsPerDimension"),
    choose,
  };
}

/** The limits that every WebGPU implementation grants. */
export function portableTarget(choose: Choose = () => null): Target {
  return {
    kernels: PORTABLE_KERNEL_LIMITS,
    software: true,
    f16: false,
    matrices: "auto",
    stagedDecoding: false,
    maxBindingBytes: 128 << 20,
    maxStorageBuffers: 8,
    maxWorkgroups: 65535,
    choose,
  };
}
