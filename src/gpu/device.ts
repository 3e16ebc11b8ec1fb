// Opens a WebGPU device with everything that its adapter offers, and turns the three ways in which WebGPU reports trouble
// (error scopes, uncaptured errors, device loss) into typed errors. The `GPU` object itself comes from the platform.

import { LongtailError } from "../base/errors.ts";
import type { MatrixUse } from "./kernel_limits.ts";

export interface AdapterFacts {
  /** Stable text for caches: vendor, architecture, device, description. */
  key: string;
  name: string;
  vendor: string;
  architecture: string;
  description: string;
  /** True for lavapipe, SwiftShader, WARP and other adapters that compute on the CPU. */
  software: boolean;
  f16: boolean;
  subgroups: boolean;
  subgroupSizes: [number, number] | null;
  timestamps: boolean;
  /** As the adapter reports them: component type, result type, M, N, K. */
  subgroupMatrices: { component: string; result: string; m: number; n: number; k: number }[];
}

const MATRICES = "chromium-experimental-subgroup-matrix";

const WANTED_FEATURES = ["shader-f16", "subgroups", "timestamp-query", "subgroup-size-control", MATRICES] as const;

/** What kernels need at the very least; a smaller adapter is refused by name. */
const REQUIRED_LIMITS: Readonly<Record<string, number>> = {
  maxStorageBuffersPerShaderStage: 8,
  maxComputeInvocationsPerWorkgroup: 256,
  maxComputeWorkgroupStorageSize: 16384,
};

export interface Gpu {
  readonly device: GPUDevice;
  readonly facts: AdapterFacts;
  readonly limits: Readonly<Record<string, number>>;
  /** Default "auto". */
  readonly matrices?: MatrixUse;
  /** Throws the first error that the device reported since it was opened. */
  check(): void;
  /** Waits for a promise of the device, without taking a core from an adapter that computes on the CPU. */
  wait<T>(promise: Promise<T>): Promise<T>;
  /** Milliseconds in which somebody waited for the device since it was opened; the rest is the host's own time. */
  readonly waited: number;
  /** Resolves with the error when the device is lost; never where it lives. */
  readonly lost: Promise<LongtailError>;
  close(): void;
}

export interface OpenOptions {
  /** Features to leave out, for tests. */
  without?: readonly string[];
  /** Default "auto". */
  matrices?: MatrixUse;
  /**
   * Lets the host thread sleep for a moment and then handle its events once. Some hosts ask the device whether it is done
   * over and over while a promise is pending; on a CPU adapter that costs one of its cores.
   */
  rest?: () => Promise<void>;
}

/**
 * Opens the first adapter of `gpu`.
 * @throws LongtailError E-ENV-001 no adapter, E-ENV-002 a limit is too small, E-ENV-003 the device was refused
 */
export async function openDevice(gpu: GPU, options: OpenOptions = {}): Promise<Gpu> {
  const adapter = await awake(gpu.requestAdapter({ powerPreference: "high-performance" }));
  if (!adapter) {
    throw new LongtailError("E-ENV-001", {
      what: "no WebGPU adapter was found",
      why: "the system has no Vulkan, Metal or D3D12 driver that this program can see",
      fix: "run `npx longtail doctor`; on Linux, LONGTAIL_SOFT_GPU=1 sets up a software GPU",
    });
  }
  const facts = adapterFacts(adapter);
  const limits: Record<string, number> = {};
  for (const name of limitNames(adapter.limits))
    limits[name] = Number((adapter.limits as unknown as Record<string, number>)[name]);
  for (const [name, least] of Object.entries(REQUIRED_LIMITS)) {
    if ((limits[name] ?? 0) < least) {
      throw new LongtailError("E-ENV-002", {
        what: `the adapter's limit ${name} is ${limits[name]}, and ${least} is the least that the kernels need`,
        where: facts.name,
        fix: "update the graphics driver, or choose another adapter",
      });
    }
  }
  const without = new Set(options.without ?? []);
  // Mesa's software driver takes matrices apart for subgroups of 8, and ends the process where vectors are wider.
  if (facts.vendor === "mesa" && facts.software && (facts.subgroupSizes?.[1] ?? 0) > 8) without.add(MATRICES);
  // Both need subgroups.
  if (without.has("subgroups")) without.add("subgroup-size-control").add(MATRICES);
  const features = WANTED_FEATURES.filter((f) => adapter.features.has(f) && !without.has(f)) as GPUFeatureName[];
  let device: GPUDevice;
  try {
    device = await awake(adapter.requestDevice({ requiredFeatures: features, requiredLimits: limits }));
  } catch (error) {
    throw new LongtailError("E-ENV-003", {
      what: "the adapter refused to open a device",
      where: facts.name,
      why: String((error as Error).message ?? error),
      fix: "close other programs that use the GPU, or update its driver",
      cause: error,
    });
  }
  // What is left out is missing for everybody who asks: kernels, the tuner, profiles.
  if (without.has("shader-f16")) facts.f16 = false;
  if (without.has("timestamp-query")) facts.timestamps = false;
  if (without.has("subgroups")) {
    facts.subgroups = false;
    facts.subgroupSizes = null;
  }
  if (without.has("subgroups") || without.has(MATRICES)) facts.subgroupMatrices = [];
  let first: LongtailError | null = null;
  device.onuncapturederror = (event) => {
    const kind = event.error.constructor?.name ?? "error";
    first ??= deviceError(kind, event.error.message);
  };
  let closed = false;
  let gone = false;
  const lost = new Promise<LongtailError>((resolve) => {
    device.lost.then((info) => {
      gone = true;
      if (closed) return;
      const error = new LongtailError("E-MEM-002", {
        what: "the GPU device was lost",
        where: facts.name,
        why: info.message || String(info.reason),
        fix: "run again with --run.resume=auto: it continues from the last checkpoint",
      });
      first ??= error;
      resolve(error);
    });
  });
  // Waits may overlap: only the time in which at least one goes on counts.
  let waiting = 0;
  let since = 0;
  let waited = 0;
  return {
    device,
    facts,
    limits,
    matrices: options.matrices,
    lost,
    get waited() {
      return waited + (waiting > 0 ? performance.now() - since : 0);
    },
    check() {
      if (first) throw first;
    },
    async wait(promise) {
      if (waiting++ === 0) since = performance.now();
      try {
        return await awake(facts.software && options.rest ? resting(promise, options.rest, () => gone) : promise);
      } catch (error) {
        // A lost device fails every promise; what the user needs to read is the loss, which can be told a moment later.
        throw (
          (await Promise.race([
            lost,
            new Promise<null>((resolve) => setTimeout(() => resolve(null), LOSS_DELAY_MS)),
          ])) ?? error
        );
      } finally {
        if (--waiting === 0) waited += performance.now() - since;
      }
    },
    close() {
      closed = true;
      device.destroy();
    },
  };
}

/** Longest time between a promise that fails because the device is lost and the news of the loss. */
const LOSS_DELAY_MS = 500;

/** How often the event loop is woken while somebody waits for the device. */
const WAKE_MS = 20;

let waitersAwake = 0;
let alarm: ReturnType<typeof setInterval> | undefined;

/**
 * Waits for a promise of the device with the event loop kept awake. With nothing but immediates pending, Deno's loop now
 * and then parks until something else wakes it: waits of a minute and more were seen while the device had long finished. A
 * timer is always something else.
 */
export async function awake<T>(promise: Promise<T>): Promise<T> {
  if (waitersAwake++ === 0) alarm = setInterval(() => {}, WAKE_MS);
  try {
    return await promise;
  } finally {
    if (--waitersAwake === 0) clearInterval(alarm);
  }
}

async function resting<T>(promise: Promise<T>, rest: () => Promise<void>, isLost: () => boolean): Promise<T> {
  let done = false;
  const settle = () => {
    done = true;
  };
  promise.then(settle, settle);
  // One turn without sleep first: a promise that is settled already must not cost a rest.
  await Promise.resolve();
  if (!done) {
    while (!done && !isLost()) await rest();
  }
  // A promise of a lost device may never settle.
  if (!done) throw new Error("the device was lost");
  return promise;
}

function deviceError(kind: string, message: string): LongtailError {
  if (kind.includes("OutOfMemory")) {
    return new LongtailError("E-MEM-001", {
      what: "the GPU ran out of memory",
      why: message,
      fix: "run `longtail plan` and lower align.batch or eval.batch, or close other programs that use the GPU",
    });
  }
  return new LongtailError("E-NUM-090", {
    what: "the GPU rejected a command",
    why: message,
    fix: "this is a defect of the program or the driver; please report it with `longtail doctor --json`",
  });
}

export function adapterFacts(adapter: GPUAdapter): AdapterFacts {
  const info = adapter.info as GPUAdapterInfo & {
    subgroupMinSize?: number;
    subgroupMaxSize?: number;
    isFallbackAdapter?: boolean;
    subgroupMatrixConfigs?: Iterable<{
      componentType: string;
      resultComponentType: string;
      M: number;
      N: number;
      K: number;
    }>;
  };
  const description = info.description ?? "";
  const text = `${info.vendor} ${info.architecture} ${info.device} ${description}`.toLowerCase();
  const software =
    Boolean(info.isFallbackAdapter) || /llvmpipe|lavapipe|swiftshader|software|basic render|warp/.test(text);
  const matrices = [];
  for (const c of info.subgroupMatrixConfigs ?? []) {
    matrices.push({ component: c.componentType, result: c.resultComponentType, m: c.M, n: c.N, k: c.K });
  }
  // Browsers often tell no more than vendor and architecture.
  const name =
    info.device || description || [info.vendor, info.architecture].filter(Boolean).join(" ") || "unnamed adapter";
  return {
    key: [info.vendor, info.architecture, info.device, description].join("|"),
    name,
    vendor: info.vendor ?? "",
    architecture: info.architecture ?? "",
    description,
    software,
    f16: adapter.features.has("shader-f16"),
    subgroups: adapter.features.has("subgroups" as GPUFeatureName),
    subgroupSizes: info.subgroupMinSize ? [info.subgroupMinSize, info.subgroupMaxSize ?? info.subgroupMinSize] : null,
    timestamps: adapter.features.has("timestamp-query"),
    subgroupMatrices: matrices,
  };
}

/** Limits are getters on a prototype in every implementation; their names are listed from there. */
function limitNames(limits: GPUSupportedLimits): string[] {
  const names = new Set<string>();
  for (let o: object | null = limits; o && o !== Object.prototype; o = Object.getPrototypeOf(o)) {
    for (const name of Object.getOwnPropertyNames(o)) {
      if (/^(max|min)[A-Z]/.test(name) && typeof (limits as unknown as Record<string, unknown>)[name] === "number")
        names.add(name);
    }
  }
  return [...names];
}
