// Opens WebGPU for the command line: Dawn through the npm package `webgpu`, or the implementation that Deno brings along.
// Both are handed on as the plain `GPU` interface that a browser has, so nothing above knows which one it is.

import { LongtailError } from "../base/errors.ts";
import { quietNativeStderr } from "./native-stderr.ts";

export type GpuBackend = "dawn" | "deno";

export interface OpenGpuOptions {
  backend: GpuBackend;
  /** Keeps Dawn's bounds checks in kernels. Off for speed; on in tests that look for reads out of bounds. */
  robust?: boolean;
  /** Zeroes workgroup memory before each workgroup, as a browser does. Kernels must not rely on it; off by default. */
  clearWorkgroupMemory?: boolean;
  /** Part of an adapter's name, to choose among several. Dawn alone can do that. */
  adapterName?: string;
}

/**
 * The flags for Dawn's `create`. One list serves instance, adapter and device.
 * - `allow_unsafe_apis` and `use_vulkan_memory_model` give subgroup matrices,
 * - `vulkan_enable_f16_on_nvidia` gives shader-f16, which Dawn hides on NVIDIA cards otherwise,
 * - the integer polyfills guard divisions by zero and cost time in every index computation,
 * - exact timestamps instead of ones rounded to 100 µs.
 */
export function dawnFlags(options: Omit<OpenGpuOptions, "backend"> = {}): string[] {
  const enabled = [
    "allow_unsafe_apis",
    "vulkan_enable_f16_on_nvidia",
    "use_vulkan_memory_model",
    "disable_polyfills_on_integer_div_and_mod",
  ];
  if (!options.robust) enabled.push("disable_robustness");
  if (!options.clearWorkgroupMemory) enabled.push("disable_workgroup_init");
  const flags = [`enable-dawn-features=${enabled.join(",")}`, "disable-dawn-features=timestamp_quantization"];
  if (options.adapterName) flags.push(`adapter=${options.adapterName}`);
  return flags;
}

// Two limits that Dawn lowers on every start and says so; nothing here uses dynamic offsets beyond them.
const HARMLESS = /^Warning: maxDynamic(Uniform|Storage)BuffersPerPipelineLayout artificially reduced/;

/** Takes Dawn's harmless warnings out of stderr and gives a coded error where the named adapter does not exist. */
function tame(gpu: GPU): GPU {
  const request = gpu.requestAdapter.bind(gpu);
  const requestAdapter = async (options?: GPURequestAdapterOptions): Promise<GPUAdapter | null> => {
    try {
      return await quietNativeStderr(
        () => request(options),
        (line) => HARMLESS.test(line),
      );
    } catch (cause) {
      throw new LongtailError("E-ENV-032", {
        what: "Dawn did not give the adapter that was asked for",
        why: (cause as Error).message,
        fix: "choose one of the adapters that `npx longtail doctor` lists",
        cause,
      });
    }
  };
  return Object.defineProperty(gpu, "requestAdapter", { value: requestAdapter });
}

// Dawn's objects are only as alive as the GPU they come from, so what was opened once stays for the whole process.
const opened = new Map<string, Promise<GPU>>();

/**
 * Opens an implementation of WebGPU; the same options give the same object. Whether there is an adapter, its
 * `requestAdapter` tells. Throws E-ENV-030 where Dawn cannot be loaded, E-ENV-031 where this runtime has no WebGPU.
 */
export function openGpu(options: OpenGpuOptions): Promise<GPU> {
  const key = JSON.stringify([options.backend, dawnFlags(options)]);
  let gpu = opened.get(key);
  if (!gpu) {
    gpu = options.backend === "deno" ? openBuiltIn() : openDawn(options);
    opened.set(key, gpu);
    gpu.catch(() => opened.delete(key));
  }
  return gpu;
}

async function openDawn(options: OpenGpuOptions): Promise<GPU> {
  try {
    const { create, globals } = await import("webgpu");
    // Node lacks WebGPU's constants and classes (GPUBufferUsage …). Deno has its own, which stay: constants are the same
    // numbers, and its classes belong to its own implementation. So errors are told apart by name, not by `instanceof`.
    for (const [name, value] of Object.entries(globals)) {
      if (!(name in globalThis)) Object.defineProperty(globalThis, name, { value, configurable: true, writable: true });
    }
    return tame(create(dawnFlags(options)));
  } catch (cause) {
    throw new LongtailError("E-ENV-030", {
      what: "Dawn cannot be loaded",
      where: "npm package webgpu",
      why: (cause as Error).message,
      fix: "run npm ci; Dawn's binary needs Linux with glibc, macOS or Windows on x64 or arm64",
      cause,
    });
  }
}

async function openBuiltIn(): Promise<GPU> {
  const gpu = (globalThis.navigator as Navigator | undefined)?.gpu;
  if (gpu) return gpu;
  throw new LongtailError("E-ENV-031", {
    what: "this runtime has no WebGPU of its own",
    where: "--gpu=deno",
    fix: "run inside Deno 2.9 or newer, or use --gpu=dawn",
  });
}
