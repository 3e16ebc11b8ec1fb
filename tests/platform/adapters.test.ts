// Opening WebGPU: both implementations give an adapter here, Dawn with what its switches are there for.

import { describe, expect, it } from "vitest";
import { dawnFlags, openGpu } from "../../src/platform/adapters.ts";
import { quietNativeStderr } from "../../src/platform/native-stderr.ts";

describe("opening WebGPU", () => {
  it("keeps bounds checks and clean workgroup memory only where they are asked for", () => {
    expect(dawnFlags().join()).toContain("disable_robustness");
    expect(dawnFlags({ robust: true }).join()).not.toContain("disable_robustness");
    expect(dawnFlags().join()).toContain("disable_workgroup_init");
    expect(dawnFlags({ clearWorkgroupMemory: true }).join()).not.toContain("disable_workgroup_init");
    expect(dawnFlags().join()).toContain("vulkan_enable_f16_on_nvidia");
  });

  it("gives the same object for the same options", async () => {
    expect(await openGpu({ backend: "dawn" })).toBe(await openGpu({ backend: "dawn", robust: false }));
    expect(await openGpu({ backend: "dawn" })).not.toBe(await openGpu({ backend: "dawn", robust: true }));
  });

  it.each(["dawn", "deno"] as const)("computes on %s", async (backend) => {
    const gpu = await openGpu({ backend });
    const adapter = await gpu.requestAdapter();
    const device = await adapter!.requestDevice();
    const module = device.createShaderModule({
      code: `@group(0) @binding(0) var<storage, read_write> x : array<u32>;
        @compute @workgroup_size(4) fn main(@builtin(global_invocation_id) id : vec3u) { x[id.x] = id.x * id.x; }`,
    });
    const pipeline = device.createComputePipeline({ layout: "auto", compute: { module, entryPoint: "main" } });
    const usage = GPUBufferUsage;
    const data = device.createBuffer({ size: 16, usage: usage.STORAGE | usage.COPY_SRC });
    const copy = device.createBuffer({ size: 16, usage: usage.MAP_READ | usage.COPY_DST });
    const group = device.createBindGroup({
      layout: pipeline.getBindGroupLayout(0),
      entries: [{ binding: 0, resource: { buffer: data } }],
    });
    const encoder = device.createCommandEncoder();
    const pass = encoder.beginComputePass();
    pass.setPipeline(pipeline);
    pass.setBindGroup(0, group);
    pass.dispatchWorkgroups(1);
    pass.end();
    encoder.copyBufferToBuffer(data, 0, copy, 0, 16);
    device.queue.submit([encoder.finish()]);
    await copy.mapAsync(GPUMapMode.READ);
    expect([...new Uint32Array(copy.getMappedRange())]).toEqual([0, 1, 4, 9]);
    device.destroy();
  });

  it("says which adapters there are where the named one is missing", async () => {
    const gpu = await openGpu({ backend: "dawn", adapterName: "no such card" });
    await expect(gpu.requestAdapter()).rejects.toMatchObject({ code: "E-ENV-032" });
  });

  it("passes on results and errors of work whose stderr is filtered", async () => {
    const keep = () => false;
    expect(await quietNativeStderr(async () => 7, keep)).toBe(7);
    const failing = quietNativeStderr(async () => {
      throw new Error("inside");
    }, keep);
    await expect(failing).rejects.toThrow("inside");
    expect(await Promise.all([1, 2].map((n) => quietNativeStderr(async () => n, keep)))).toEqual([1, 2]);
  });
});
