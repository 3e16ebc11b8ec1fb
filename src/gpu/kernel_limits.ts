// What the choice of a kernel variant depends on besides the shape: a small part of an adapter's facts, in one place for
// the dispatcher, the tuner and the tests.

export interface KernelLimits {
  subgroups: boolean;
  /** Smallest and largest subgroup size; both 0 where unknown. */
  subgroupMinSize: number;
  subgroupMaxSize: number;
  maxComputeInvocationsPerWorkgroup: number;
  maxComputeWorkgroupStorageSize: number;
  maxComputeWorkgroupsPerDimension: number;
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
