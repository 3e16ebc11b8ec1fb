// A desktop GPU whose bindings hold 1 GiB, for tests that trace models in their real size and touch no device.

import type { Target } from "../../src/tensor/lower.ts";
import { portableTarget } from "../../src/tensor/target.ts";

export const GIB = 2 ** 30;

export const desktop: Target = {
  ...portableTarget(),
  kernels: {
    subgroups: true,
    subgroupMinSize: 32,
    subgroupMaxSize: 32,
    maxComputeInvocationsPerWorkgroup: 1024,
    maxComputeWorkgroupStorageSize: 49152,
    maxComputeWorkgroupsPerDimension: 65535,
  },
  software: false,
  f16: true,
  maxBindingBytes: GIB,
  maxStorageBuffers: 10,
};
