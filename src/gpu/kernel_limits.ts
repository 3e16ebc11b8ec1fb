// What the choice of a kernel variant depends on besides the shape: a small part of an adapter's facts, in one place for
// the dispatcher, the tuner and the tests.

/** Rows, columns and inner length of a product of matrices that a subgroup computes at once. */
export interface MatrixSize {
  m: number;
  n: number;
  k: number;
}

/**
 * Which products may run on subgroup matrices, which round their factors to f16 and add in f32. "auto": those that have an
 * f16 factor already, on adapters that do not compute on the CPU; "all": f32 products too; "off": none.
 */
export type MatrixUse = "auto" | "off" | "all";

export interface KernelLimits {
  subgroups: boolean;
  /** Smallest and largest subgroup size; both 0 where unknown. */
  subgroupMinSize: number;
  subgroupMaxSize: number;
  maxComputeInvocationsPerWorkgroup: number;
  maxComputeWorkgroupStorageSize: number;
  maxComputeWorkgroupsPerDimension: number;
  /** Subgroup matrices with f16 factors and f32 sums that may be used; none by default. */
  matrices?: readonly MatrixSize[];
}

/** Lanes of every subgroup where all have 8 or all have 16, which kernels with `_broadcast` in their name rely on; else 0. */
export function subgroupLanes({ subgroups, subgroupMinSize: lanes, subgroupMaxSize }: KernelLimits): 0 | 8 | 16 {
  return subgroups && lanes === subgroupMaxSize && (lanes === 8 || lanes === 16) ? lanes : 0;
}

/** Lanes of a workgroup that is one vector of a processor, for kernels on adapters that compute on the CPU. */
export function vectorLanes(limits: KernelLimits): 8 | 16 {
  return subgroupLanes(limits) || 8;
}

/** What every WebGPU implementation grants. */
export const PORTABLE_KERNEL_LIMITS: KernelLimits = {
  subgroups: false,
  subgroupMinSize: 0,
  subgroupMaxSize: 0,
  maxComputeInvocationsPerWorkgroup: 256,
  maxComputeWorkgroupStorageSize: 16384,
  maxComputeWorkgroupsPerDimension: 65535,
};
