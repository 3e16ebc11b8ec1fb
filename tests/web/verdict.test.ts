// Which cause the page names for which findings, and what it says will run: one row a browser, system or adapter.

import { describe, expect, it } from "vitest";
import { type AdapterFindings, browserOf, type Cause, type Findings, judge } from "../../src/web/verdict.ts";

const AGENTS = {
  firefoxLinux: "Mozilla/5.0 (X11; Linux x86_64; rv:147.0) Gecko/20100101 Firefox/147.0",
  firefoxOld: "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:128.0) Gecko/20100101 Firefox/128.0",
  safari18:
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.3 Safari/605.1.15",
  iphone:
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) CriOS/130.0 Mobile/15E148 Safari/604.1",
  chromeLinux: "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36",
  chromeOld:
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/109.0.0.0 Safari/537.36",
  chromeWindows:
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/150.0.0.0 Safari/537.36",
  androidOld:
    "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/118.0.0.0 Mobile Safari/537.36",
};

const ADAPTER: AdapterFindings = {
  vendor: "amd",
  architecture: "rdna-3",
  description: "",
  fallback: false,
  features: ["shader-f16", "subgroups"],
  limits: {
    maxStorageBuffersPerShaderStage: 10,
    maxComputeInvocationsPerWorkgroup: 1024,
    maxComputeWorkgroupStorageSize: 32768,
    maxStorageBufferBindingSize: 2 ** 30,
    maxBufferSize: 2 ** 31,
  },
  device: true,
};

const findings = (change: Partial<Findings>): Findings => ({
  secure: true,
  userAgent: AGENTS.chromeWindows,
  gpu: true,
  adapter: ADAPTER,
  storage: true,
  free: 2 ** 34,
  isolated: false,
  ms: 40,
  ...change,
});

const adapter = (change: Partial<AdapterFindings>) => ({ adapter: { ...ADAPTER, ...change } });
const missing = (userAgent: string) => ({ userAgent, gpu: false, adapter: null });

const CAUSES: [string, Partial<Findings>, Cause, RegExp][] = [
  ["plain http", { secure: false, gpu: false, adapter: null }, "insecure", /https/],
  ["Firefox on Linux", missing(AGENTS.firefoxLinux), "firefox", /dom\.webgpu\.enabled/],
  ["an old Firefox", missing(AGENTS.firefoxOld), "firefox", /Update Firefox/],
  ["Safari before 26", missing(AGENTS.safari18), "safari-old", /macOS/],
  ["any browser of an older iPhone", missing(AGENTS.iphone), "safari-old", /iOS 26/],
  ["Chromium on Linux without the flag", missing(AGENTS.chromeLinux), "chromium-linux", /enable-unsafe-webgpu/],
  ["an old Chromium", missing(AGENTS.chromeOld), "chromium-old", /Update the browser/],
  ["an old Chromium of Android", missing(AGENTS.androidOld), "chromium-old", /Update the browser/],
  ["WebGPU switched off by a policy", missing(AGENTS.chromeWindows), "no-gpu", /current Chrome/],
  ["no adapter on Windows", { adapter: null }, "no-adapter", /hardware acceleration/],
  ["no adapter on Linux", { adapter: null, userAgent: AGENTS.chromeLinux }, "no-adapter", /chrome:\/\/gpu/],
  ["a driver that never answers", { adapter: null, error: "the browser did not answer" }, "no-adapter", /driver/],
  ["a refused device", { ...adapter({ device: false }), error: "out of memory" }, "device-refused", /Close other tabs/],
  [
    "limits below the kernels'",
    adapter({ limits: { ...ADAPTER.limits, maxComputeInvocationsPerWorkgroup: 128 } }),
    "small-limits",
    /driver/,
  ],
];

describe("the verdict", () => {
  it.each(CAUSES)("names the cause and one action: %s", (_, change, cause, action) => {
    const verdict = judge(findings(change));
    expect(verdict.cause).toBe(cause);
    expect(verdict.level).toBe("none");
    expect(verdict.action).toMatch(action);
    expect(verdict.why).toMatch(/\.$/);
    expect(verdict.diagnostics).toContain(findings(change).userAgent);
  });

  it("is good on a GPU, and names it by maker and architecture", () => {
    const verdict = judge(findings({}));
    expect(verdict).toMatchObject({ level: "good", cause: null, software: false, title: "AMD rdna-3" });
  });

  it.each([
    ["a fallback adapter", { fallback: true }],
    ["SwiftShader", { vendor: "google", architecture: "swiftshader" }],
    ["lavapipe", { vendor: "mesa", description: "llvmpipe (LLVM 21)" }],
    ["WARP", { vendor: "microsoft", description: "Microsoft Basic Render Driver" }],
  ])("lets %s run the smallest preset", (_, change) => {
    expect(judge(findings(adapter(change)))).toMatchObject({ level: "limited", software: true, cause: null });
  });

  it("warns where nothing can be kept", () => {
    expect(judge(findings({ storage: false }))).toMatchObject({ level: "limited", cause: "no-worker-storage" });
  });

  it("says which limit is too small and what is needed", () => {
    const limits = { ...ADAPTER.limits, maxStorageBufferBindingSize: 2 ** 20 };
    const { why } = judge(findings(adapter({ limits })));
    expect(why).toContain("maxStorageBufferBindingSize is 1048576 and 67108864 is needed");
  });
});

describe("the browser's name", () => {
  it("is read off the user agent with version and system", () => {
    expect(browserOf(AGENTS.firefoxLinux)).toEqual({ name: "Firefox", version: 147, os: "Linux" });
    expect(browserOf(AGENTS.iphone)).toEqual({ name: "Safari", version: 18, os: "iOS" });
    expect(browserOf(AGENTS.androidOld)).toEqual({ name: "Chromium", version: 118, os: "Android" });
  });
});
