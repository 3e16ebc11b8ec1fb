// The memory of a session by purpose, exact before anything is allocated: what `plan` prints and runs are refused by.

import { uploadRingBytes } from "../gpu/transfer.ts";
import { Executable } from "./executable.ts";
import type { Target } from "./lower.ts";
import type { Plan } from "./session.ts";
import type { Category, Pool } from "./variable.ts";

/** A call's table of buffers: a page of its own on Mesa's CPU adapter, a few dozen bytes a buffer on hardware. */
const SOFTWARE_TABLE_BYTES = 4096;
const TABLE_BYTES = 512;
/** Dawn's own ring for small uploads. Values come back through one buffer of the largest variable's size. */
const UPLOAD_RING_BYTES = 4 << 20;

export interface MemoryTable {
  /** Bytes of persistent variables by category. */
  variables: Record<Category, number>;
  /** Bytes of the shared arena and which plan needs it. */
  arena: number;
  largestPlan: string;
  /** Uniform words of all plans. */
  uniforms: number;
  /** Tables of buffers that the driver keeps, one for each call. */
  bindings: number;
  /** Host-visible buffers through which values go in and out. */
  staging: number;
  total: number;
  plans: { name: string; arena: number; calls: number; flops: number }[];
}

/**
 * What a session's pools and plans take.
 * @param stagingBytes mapped memory that was reserved for uploads
 */
export function memoryTable(
  pools: readonly Pool[],
  plans: readonly Plan[],
  target: Target,
  stagingBytes: number,
): MemoryTable {
  const variables: Record<Category, number> = { weights: 0, adapter: 0, gradients: 0, optimizer: 0, data: 0 };
  for (const pool of pools) variables[pool.category] += pool.bytes;
  let arena = 0;
  let largestPlan = "";
  for (const plan of plans) {
    if (plan.placement.arenaBytes > arena) {
      arena = plan.placement.arenaBytes;
      largestPlan = plan.name;
    }
  }
  const uniforms = plans.reduce((n, p) => n + (p.like ? 0 : Executable.uniformBytes(p.lowered.calls)), 0);
  const calls = plans.reduce((n, p) => n + p.lowered.calls.length, 0);
  const bindings = calls * (target.software ? SOFTWARE_TABLE_BYTES : TABLE_BYTES);
  const largest = pools.reduce((n, pool) => pool.variables.reduce((m, v) => Math.max(m, v.bytes), n), 0);
  const resident = Object.values(variables).reduce((a, b) => a + b, 0);
  const uploads = Math.max(UPLOAD_RING_BYTES, uploadRingBytes(target.software, resident));
  const staging = (largest > 0 ? uploads + largest : 0) + stagingBytes;
  const total = resident + arena + uniforms + bindings + staging;
  const rows = plans.map((p) => ({
    name: p.name,
    arena: p.placement.arenaBytes,
    calls: p.lowered.calls.length,
    flops: p.flops,
  }));
  return { variables, arena, largestPlan, uniforms, bindings, staging, total, plans: rows };
}
