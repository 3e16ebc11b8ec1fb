// What a kernel call asks of an adapter, read from its expanded text: workgroup memory, invocations, features. For targets
// that no machine at hand has; an adapter with such limits would refuse a kernel that exceeds one of them.

import { expandTemplate } from "../../src/gpu/template.ts";
import type { KernelCall, Target } from "../../src/tensor/lower.ts";

/** Sizes and alignments of what lies in workgroup memory, in bytes. */
const TYPES: Readonly<Record<string, number>> = { f32: 4, u32: 4, i32: 4, f16: 2, "atomic<u32>": 4 };

export interface KernelResources {
  workgroupBytes: number;
  invocations: number;
  storage: number;
  f16: boolean;
  subgroups: boolean;
  matrices: boolean;
}

/** Resources of expanded WGSL. Throws an Error on a declaration that it does not understand. */
export function kernelResources(expanded: string): KernelResources {
  const text = expanded.replace(/\/\/[^\n]*/g, "");
  const constants = new Map<string, string>();
  for (const [, name, value] of text.matchAll(/^\s*const\s+(\w+)(?:\s*:\s*\w+)?\s*=\s*([^;]+);/gm))
    constants.set(name!, value!);
  const evaluate = (expression: string, depth = 0): number => {
    if (depth > 20) throw new Error(`endless constant ${expression}`);
    const numbers = expression.replace(/\b[A-Za-z_]\w*\b/g, (name) => {
      const value = constants.get(name);
      if (value === undefined) throw new Error(`unknown constant ${name} in ${expression}`);
      return String(evaluate(value, depth + 1));
    });
    return arithmetic(numbers.replace(/(\d)u\b/g, "$1"));
  };
  const sizeOf = (type: string): number => {
    const vector = /^vec([234])<(\w+)>$/.exec(type);
    if (vector) return (vector[1] === "3" ? 4 : Number(vector[1])) * sizeOf(vector[2]!);
    const array = /^array<(.+),\s*([^,<>]+)>$/.exec(type);
    if (array) return sizeOf(array[1]!.trim()) * evaluate(array[2]!);
    const size = TYPES[type];
    if (size === undefined) throw new Error(`unknown type ${type} in workgroup memory`);
    return size;
  };
  let workgroupBytes = 0;
  const declared = [...text.matchAll(/var<workgroup>\s+\w+\s*:\s*([^;]+);/g)];
  // Implementations place each variable at a multiple of 16.
  for (const [, type] of declared) workgroupBytes += Math.ceil(sizeOf(type!.trim()) / 16) * 16;
  const size = /@workgroup_size\(([^)]*)\)/.exec(text);
  if (!size) throw new Error("a kernel without a workgroup size");
  return {
    workgroupBytes,
    invocations: size[1]!.split(",").reduce((n, part) => n * evaluate(part), 1),
    storage: [...text.matchAll(/var<storage/g)].length,
    f16: /\bf16\b/.test(text),
    subgroups: /\bsubgroup(?!_matrix)[A-Z]\w*\(|subgroup_size|subgroup_invocation_id/.test(text),
    matrices: /subgroup_matrix/.test(text),
  };
}

/** Sums and products of whole numbers with brackets. */
function arithmetic(text: string): number {
  const tokens = text.match(/\d+(?:\.\d+)?|[-+*/()]/g) ?? [];
  let at = 0;
  const atom = (): number => {
    const token = tokens[at++];
    if (token === "-") return -atom();
    if (token !== "(") return Number(token);
    const value = sum();
    at++;
    return value;
  };
  const product = (): number => {
    let value = atom();
    while (tokens[at] === "*" || tokens[at] === "/")
      value = tokens[at++] === "*" ? value * atom() : Math.floor(value / atom());
    return value;
  };
  const sum = (): number => {
    let value = product();
    while (tokens[at] === "+" || tokens[at] === "-") value += tokens[at++] === "+" ? product() : -product();
    return value;
  };
  const value = sum();
  if (at !== tokens.length || !Number.isFinite(value)) throw new Error(`not understood: ${text}`);
  return value;
}

const known = new Map<string, KernelResources>();

/** What of `target` a call exceeds; empty where it fits. */
export function exceeded(call: KernelCall, target: Target): string[] {
  const text = expandTemplate(call.source, call.constants);
  let r = known.get(text);
  if (!r) {
    r = kernelResources(text);
    known.set(text, r);
  }
  const { kernels } = target;
  const out: string[] = [];
  const most = (what: string, value: number, limit: number) => {
    if (value > limit) out.push(`${call.label}: ${what} ${value} of ${limit}`);
  };
  most("storage buffers", Math.max(call.bindings.length, r.storage), target.maxStorageBuffers);
  most("workgroup memory", r.workgroupBytes, kernels.maxComputeWorkgroupStorageSize);
  most("invocations", r.invocations, kernels.maxComputeInvocationsPerWorkgroup);
  most("bytes of a binding", Math.max(...call.bindings.map((slot) => slot.bytes)), target.maxBindingBytes);
  most("workgroups", Math.max(...call.grid), target.maxWorkgroups);
  most("parameter words", Math.max(call.params.length, call.epilogue?.length ?? 0), 64);
  if (r.f16 && !target.f16) out.push(`${call.label}: needs f16`);
  if ((r.subgroups || r.matrices) && !kernels.subgroups) out.push(`${call.label}: needs subgroups`);
  if (r.matrices && !kernels.matrices?.length) out.push(`${call.label}: needs subgroup matrices`);
  return out;
}
