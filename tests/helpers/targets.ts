// Made-up adapters at the lower end of what WebGPU grants: every size of subgroup, with and without f16 and matrices, the
// least of all limits. What is planned for them must run there.

import type { MatrixSize } from "../../src/gpu/kernel_limits.ts";
import type { Target } from "../../src/tensor/lower.ts";
import { portableTarget } from "../../src/tensor/target.ts";

function small(
  subgroups: readonly [number, number] | null,
  matrices: readonly MatrixSize[],
  more: Partial<Target>,
): Target {
  const portable = portableTarget();
  const [subgroupMinSize, subgroupMaxSize] = subgroups ?? [0, 0];
  return {
    ...portable,
    kernels: { ...portable.kernels, subgroups: subgroups !== null, subgroupMinSize, subgroupMaxSize, matrices },
    ...more,
  };
}

const square = (side: number): MatrixSize => ({ m: side, n: side, k: side });
const HARDWARE = { software: false, stagedDecoding: true } as const;

/** 8 storage buffers, 16 KiB of workgroup memory, 256 invocations, 128 MiB a binding: all of them. */
export const SMALL_TARGETS: Readonly<Record<string, Target>> = {
  "a CPU without subgroups": small(null, [], {}),
  "a CPU with subgroups of 4": small([4, 4], [], { f16: true }),
  "a CPU with subgroups of 8 and matrices": small([8, 8], [square(8)], { f16: true, matrices: "all" }),
  "a CPU with subgroups of 16": small([16, 16], [], { f16: true }),
  "a GPU without f16 and subgroups": small(null, [], HARDWARE),
  "a GPU without subgroups": small(null, [], { ...HARDWARE, f16: true }),
  "a GPU with subgroups of 4": small([4, 4], [], { ...HARDWARE, f16: true }),
  "a GPU with subgroups of 8 to 32": small([8, 32], [{ m: 8, n: 16, k: 16 }], {
    ...HARDWARE,
    f16: true,
    matrices: "all",
  }),
  "a GPU with subgroups of 16": small([16, 16], [{ m: 8, n: 16, k: 16 }], { ...HARDWARE, f16: true, matrices: "all" }),
  "a GPU with subgroups of 32": small([32, 32], [square(16), { m: 16, n: 8, k: 16 }], {
    ...HARDWARE,
    f16: true,
    matrices: "all",
  }),
  "a GPU with subgroups of 64": small([64, 64], [square(16)], { ...HARDWARE, f16: true, matrices: "all" }),
  "a GPU without f16, with subgroups of 64": small([64, 64], [], HARDWARE),
};
