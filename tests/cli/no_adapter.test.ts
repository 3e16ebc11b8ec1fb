// Commands on machines whose GPU is missing, too small, or refuses: what `openGpu` gives is made up.

import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { runCommandLine } from "../../src/cli/main.ts";
import { RecordingTerminal } from "./recorder.ts";

let adapter: GPUAdapter | null = null;
vi.mock("../../src/platform/adapters.ts", () => ({
  openGpu: () => Promise.resolve({ requestAdapter: () => Promise.resolve(adapter) }),
}));

const LIMITS = {
  maxBufferSize: 2 ** 28,
  maxStorageBufferBindingSize: 2 ** 27,
  maxStorageBuffersPerShaderStage: 8,
  maxComputeInvocationsPerWorkgroup: 256,
  maxComputeWorkgroupStorageSize: 16384,
  maxComputeWorkgroupsPerDimension: 65535,
};

const adapterWith = (limits: object, requestDevice = () => Promise.reject(new Error("it is busy"))) =>
  ({
    info: { vendor: "test", architecture: "", device: "Small Card", description: "" },
    features: new Set(),
    limits: { ...LIMITS, ...limits },
    requestDevice,
  }) as unknown as GPUAdapter;

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "longtail-no-adapter-"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

describe.each([
  ["align", ["align", "embedded"]],
  ["demo", ["demo"]],
  ["plan", ["plan"]],
  ["sample", ["sample", "icon of taco"]],
])("%s", (name, words) => {
  it.each([
    ["no adapter", () => null, "E-ENV-001", "doctor"],
    [
      "few storage buffers",
      () => adapterWith({ maxStorageBuffersPerShaderStage: 4 }),
      "E-ENV-002",
      "maxStorageBuffersPerShaderStage is 4",
    ],
    [
      "small workgroups",
      () => adapterWith({ maxComputeInvocationsPerWorkgroup: 128 }),
      "E-ENV-002",
      "maxComputeInvocationsPerWorkgroup is 128",
    ],
    ["a device that is refused", () => adapterWith({}), "E-ENV-003", "it is busy"],
  ])("ends with one coded error and leaves nothing behind: %s", async (_case, make, id, word) => {
    adapter = make();
    const terminal = new RecordingTerminal();
    const place = name === "sample" ? `--output=${folder}/new` : `--run.folder=${folder}/new`;
    const code = await runCommandLine([...words, place], { terminal, onInterrupt: () => () => {} });
    expect(terminal.errors).toMatch(new RegExp(`^${id} .*Fix: .+\\n$`));
    expect(terminal.errors).toContain(word);
    expect(code).toBe(3);
    expect(existsSync(join(folder, "new"))).toBe(false);
  });
});
