// What this machine can do, found out on the main thread before anything is downloaded: which of the known causes keeps WebGPU
// away, or which adapter there is and what will run on it. `look` asks the browser, `judge` is pure and decides.

import { bytes } from "../evaluation/format.ts";

export type Cause =
  | "insecure"
  | "firefox"
  | "safari-old"
  | "chromium-old"
  | "chromium-linux"
  | "no-gpu"
  | "no-adapter"
  | "device-refused"
  | "small-limits"
  | "no-worker-storage";

/** What the browser said; everything that `judge` needs. */
export interface Findings {
  secure: boolean;
  userAgent: string;
  /** `navigator.gpu` exists. */
  gpu: boolean;
  adapter: AdapterFindings | null;
  /** The error of `requestAdapter` or `requestDevice`. */
  error?: string;
  /** OPFS can be reached. */
  storage: boolean;
  free?: number;
  isolated: boolean;
  cores?: number;
  memoryGb?: number;
  /** Milliseconds that the questions took. */
  ms: number;
}

export interface AdapterFindings {
  vendor: string;
  architecture: string;
  description: string;
  fallback: boolean;
  features: string[];
  limits: Record<string, number>;
  /** The device opened. */
  device: boolean;
}

export interface Verdict {
  /** good: as it should be; limited: it runs, slowly or without keeping; none: it cannot run. */
  level: "good" | "limited" | "none";
  cause: Cause | null;
  software: boolean;
  /** The badge, a few words. */
  title: string;
  /** One sentence: why, or what will run. */
  why: string;
  /** The one thing to do; empty where nothing is wrong. */
  action: string;
  /** Text to copy into a report. */
  diagnostics: string;
  /** Adapter's name for people. */
  adapter: string;
  facts: [string, string][];
}

/** The least that the kernels need, as in src/gpu/device.ts. */
const LEAST_LIMITS: Readonly<Record<string, number>> = {
  maxStorageBuffersPerShaderStage: 8,
  maxComputeInvocationsPerWorkgroup: 256,
  maxComputeWorkgroupStorageSize: 16384,
};

/** The largest single buffer of the small model's run. */
const LEAST_BINDING = 64 * 2 ** 20;

const SHOWN_LIMITS = [
  ...Object.keys(LEAST_LIMITS),
  "maxStorageBufferBindingSize",
  "maxBufferSize",
  "maxComputeWorkgroupsPerDimension",
];

const SOFTWARE = /swiftshader|llvmpipe|lavapipe|softpipe|warp|basic render|software/i;

/** A question that takes longer than this has no answer: a page must not hang on a driver. */
const PATIENCE_MS = 4000;

function patiently<T>(promise: Promise<T>): Promise<T> {
  const late = new Promise<never>((_, reject) =>
    setTimeout(() => reject(new Error("the browser did not answer")), PATIENCE_MS),
  );
  return Promise.race([promise, late]);
}

/** Milliseconds after which a missing adapter is asked for again. */
const RETRY_MS = 150;

const later = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));

/** Asks the browser. Never rejects. */
export async function look(): Promise<Findings> {
  const began = performance.now();
  const nav = navigator as Navigator & { deviceMemory?: number };
  const findings: Findings = {
    secure: globalThis.isSecureContext,
    userAgent: nav.userAgent,
    gpu: "gpu" in nav && Boolean(nav.gpu),
    adapter: null,
    storage: false,
    isolated: globalThis.crossOriginIsolated ?? false,
    cores: nav.hardwareConcurrency,
    ms: 0,
    ...(nav.deviceMemory === undefined ? {} : { memoryGb: nav.deviceMemory }),
  };
  const stored = lookAtStorage(findings);
  if (findings.gpu) {
    try {
      const request = () => patiently(nav.gpu.requestAdapter({ powerPreference: "high-performance" }));
      // Chromium answers null while its GPU process is still starting, as it may be right after the page was opened.
      const adapter = (await request()) ?? (await later(RETRY_MS).then(request));
      if (adapter) findings.adapter = await lookAtAdapter(adapter, findings);
    } catch (error) {
      findings.error = String((error as Error).message ?? error);
    }
  }
  await stored;
  findings.ms = performance.now() - began;
  return findings;
}

async function lookAtStorage(findings: Findings): Promise<void> {
  try {
    await patiently(navigator.storage.getDirectory());
    findings.storage = true;
    const { quota = 0, usage = 0 } = await navigator.storage.estimate();
    findings.free = Math.max(0, quota - usage);
  } catch {
    // Left at "no storage".
  }
}

async function lookAtAdapter(adapter: GPUAdapter, findings: Findings): Promise<AdapterFindings> {
  const { info } = adapter;
  const limits: Record<string, number> = {};
  for (const name of SHOWN_LIMITS) limits[name] = Number((adapter.limits as unknown as Record<string, number>)[name]);
  const older = (adapter as unknown as { isFallbackAdapter?: boolean }).isFallbackAdapter;
  const found: AdapterFindings = {
    vendor: info.vendor,
    architecture: info.architecture,
    description: info.description,
    fallback: (info as { isFallbackAdapter?: boolean }).isFallbackAdapter ?? older ?? false,
    features: [...adapter.features].sort(),
    limits,
    device: false,
  };
  try {
    const device = await patiently(adapter.requestDevice());
    device.destroy();
    found.device = true;
  } catch (error) {
    findings.error = String((error as Error).message ?? error);
  }
  return found;
}

interface Browser {
  name: "Firefox" | "Safari" | "Chromium";
  version: number;
  os: "Linux" | "Android" | "macOS" | "iOS" | "Windows" | "ChromeOS" | "other";
}

/** Browser family, version and system out of the user agent; WebKit on iOS is Safari whatever its name. */
export function browserOf(userAgent: string): Browser {
  const version = (pattern: RegExp) => Number(pattern.exec(userAgent)?.[1] ?? 0);
  const os = /iPhone|iPad|iPod/.test(userAgent)
    ? "iOS"
    : /Android/.test(userAgent)
      ? "Android"
      : /CrOS/.test(userAgent)
        ? "ChromeOS"
        : /Windows/.test(userAgent)
          ? "Windows"
          : /Macintosh|Mac OS X/.test(userAgent)
            ? "macOS"
            : /Linux|X11/.test(userAgent)
              ? "Linux"
              : "other";
  if (os === "iOS") return { name: "Safari", version: version(/(?:Version|OS)[/ ](\d+)/), os };
  if (/Firefox\//.test(userAgent)) return { name: "Firefox", version: version(/Firefox\/(\d+)/), os };
  if (/Chrom(?:e|ium)\//.test(userAgent)) return { name: "Chromium", version: version(/Chrom(?:e|ium)\/(\d+)/), os };
  return { name: "Safari", version: version(/Version\/(\d+)/), os };
}

/** Versions from which a browser has WebGPU without a flag: Chromium's first on the desktop and on Android. */
const FIRST_CHROMIUM = { desktop: 113, android: 121 };
const FIRST_SAFARI = 26;
const FIRST_FIREFOX = 141;

/** Which cause, in one sentence, and what to do about it, in one. */
function causeOf(findings: Findings): { cause: Cause; why: string; action: string } | null {
  const { adapter, error } = findings;
  if (!findings.secure)
    return {
      cause: "insecure",
      why: "Browsers give WebGPU only to pages that came over https or from this machine, and this one came over plain http.",
      action: "Open this page under its https address, or under http://localhost.",
    };
  if (!findings.gpu) return missingOf(browserOf(findings.userAgent));
  if (!adapter)
    return {
      cause: "no-adapter",
      why: error
        ? `The browser has WebGPU, but asking it for a GPU failed: ${error}.`
        : "The browser has WebGPU, but gives no GPU to it: the driver is missing, too old or on the browser's block list, or hardware acceleration is off.",
      action: noAdapterAction(browserOf(findings.userAgent)),
    };
  const small = Object.entries(LEAST_LIMITS).filter(([name, least]) => (adapter.limits[name] ?? 0) < least);
  const binding = adapter.limits.maxStorageBufferBindingSize ?? 0;
  if (binding < LEAST_BINDING) small.push(["maxStorageBufferBindingSize", LEAST_BINDING]);
  if (small.length > 0)
    return {
      cause: "small-limits",
      why: `This GPU's limits are too small: ${small
        .map(([name, least]) => `${name} is ${adapter.limits[name]} and ${least} is needed`)
        .join("; ")}.`,
      action: "Update the graphics driver, or open this page on another machine.",
    };
  if (!adapter.device)
    return {
      cause: "device-refused",
      why: `The browser found a GPU and then refused to open it${error ? `: ${error}` : ""}.`,
      action: "Close other tabs and programs that use the GPU, restart the browser, and reload this page.",
    };
  return null;
}

function missingOf({ name, version, os }: Browser): { cause: Cause; why: string; action: string } {
  if (name === "Firefox") {
    const shipped = version >= FIRST_FIREFOX;
    return {
      cause: "firefox",
      why: shipped
        ? `Firefox ${version} has WebGPU on Windows and on recent Macs; on this system it is switched off.`
        : `Firefox ${version} has no WebGPU that is switched on.`,
      action: shipped
        ? "Set dom.webgpu.enabled to true in about:config and restart, or open this page in Chrome or Edge."
        : `Update Firefox to ${FIRST_FIREFOX} or newer, or open this page in Chrome or Edge.`,
    };
  }
  if (name === "Safari")
    return {
      cause: "safari-old",
      why: `WebGPU came to Safari with version ${FIRST_SAFARI}${version ? `; this is ${version}` : ""}${os === "iOS" ? ", and every browser on this system uses Safari's engine" : ""}.`,
      action:
        os === "iOS"
          ? `Update the system to iOS ${FIRST_SAFARI} or newer.`
          : `Update macOS and Safari to ${FIRST_SAFARI} or newer.`,
    };
  const first = os === "Android" ? FIRST_CHROMIUM.android : FIRST_CHROMIUM.desktop;
  if (version > 0 && version < first)
    return {
      cause: "chromium-old",
      why: `WebGPU came to this browser with version ${first}; this is ${version}.`,
      action: "Update the browser and reload this page.",
    };
  if (os === "Linux")
    return {
      cause: "chromium-linux",
      why: "Chromium on Linux has WebGPU behind a flag for this GPU.",
      action:
        "Open chrome://flags/#enable-unsafe-webgpu and chrome://flags/#enable-vulkan, enable both, and restart the browser.",
    };
  return {
    cause: "no-gpu",
    why: "This browser has no WebGPU, or it is switched off by a setting or a policy.",
    action: "Open this page in a current Chrome, Edge, Safari or Firefox.",
  };
}

const noAdapterAction = ({ name, os }: Browser): string =>
  name === "Chromium"
    ? os === "Linux"
      ? "Start the browser with --enable-unsafe-webgpu --enable-features=Vulkan; chrome://gpu says what keeps the GPU away."
      : "Switch on hardware acceleration in the browser's settings and update the graphics driver; chrome://gpu says what keeps the GPU away."
    : name === "Firefox"
      ? "Update the graphics driver; about:support says under Graphics what keeps the GPU away."
      : "Update the system, and switch off Lockdown Mode for this site if it is on.";

/** The decision. Pure. */
export function judge(findings: Findings): Verdict {
  const { adapter } = findings;
  const software =
    adapter !== null &&
    (adapter.fallback || SOFTWARE.test(`${adapter.vendor} ${adapter.architecture} ${adapter.description}`));
  const name = adapter ? adapterName(adapter, software) : "none";
  const common = { software, adapter: name, facts: factsOf(findings, name), diagnostics: diagnosticsOf(findings) };
  const cause = causeOf(findings);
  if (cause) return { ...common, ...cause, level: "none", title: "This browser cannot train" };
  if (!findings.storage)
    return {
      ...common,
      level: "limited",
      cause: "no-worker-storage",
      title: "Nothing can be kept",
      why: "This window has no storage of its own, as private windows of some browsers: weights, pictures and runs have no place.",
      action: "Open this page in an ordinary window.",
    };
  if (software)
    return {
      ...common,
      level: "limited",
      cause: null,
      title: "No GPU found — software rendering",
      why: "The processor does a GPU’s work here. The smallest preset runs: a few dozen updates of two pictures.",
      action: "",
    };
  return {
    ...common,
    level: "good",
    cause: null,
    title: name,
    why: "The small model trains here: 8.5 million parameters, pictures of 64 × 64.",
    action: "",
  };
}

const TRADE_NAMES: Readonly<Record<string, string>> = {
  nvidia: "NVIDIA",
  amd: "AMD",
  intel: "Intel",
  apple: "Apple",
  arm: "Arm",
  qualcomm: "Qualcomm",
  google: "Google",
  microsoft: "Microsoft",
};

function adapterName({ vendor, architecture, description }: AdapterFindings, software: boolean): string {
  if (description) return description;
  const maker = TRADE_NAMES[vendor.toLowerCase()] ?? vendor;
  const name = [maker, architecture].filter(Boolean).join(" ");
  return name || (software ? "a software adapter" : "a GPU without a name");
}

function factsOf({ adapter, free, storage }: Findings, name: string): [string, string][] {
  if (!adapter) return [];
  const has = (feature: string) => (adapter.features.includes(feature) ? "yes" : "no");
  return [
    ["Adapter", name],
    ["16-bit floats", has("shader-f16")],
    ["Subgroups", has("subgroups")],
    ["Largest binding", bytes(adapter.limits.maxStorageBufferBindingSize)],
    ["Storage free", storage ? (free === undefined ? "not told" : bytes(free)) : "none"],
  ];
}

function diagnosticsOf(findings: Findings): string {
  const { adapter } = findings;
  const lines = [
    "Longtail, what this browser says",
    `user agent: ${findings.userAgent}`,
    `secure context: ${findings.secure}, isolated: ${findings.isolated}`,
    `navigator.gpu: ${findings.gpu ? "yes" : "no"}`,
    `cores: ${findings.cores ?? "not told"}, memory: ${findings.memoryGb ? `${findings.memoryGb} GB or more` : "not told"}`,
    `storage: ${findings.storage ? "yes" : "no"}${findings.free === undefined ? "" : `, free: ${bytes(findings.free)}`}`,
    ...(findings.error ? [`error: ${findings.error}`] : []),
    ...(adapter
      ? [
          `adapter: vendor ${adapter.vendor || "–"}, architecture ${adapter.architecture || "–"}, description ${adapter.description || "–"}, fallback ${adapter.fallback}, device ${adapter.device}`,
          `features: ${adapter.features.join(" ") || "none"}`,
          ...Object.entries(adapter.limits).map(([key, value]) => `${key}: ${value}`),
        ]
      : ["adapter: none"]),
    `asked in ${Math.round(findings.ms)} ms`,
  ];
  return lines.join("\n");
}
