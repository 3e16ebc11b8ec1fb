import { openDevice } from "../src/gpu/device.ts";
import { openGpu } from "../src/platform/adapters.ts";
import { rest } from "../src/platform/rest.ts";
const gpu = await openGpu({ backend: "deno" });
for (const r of [rest, undefined]) {
  const g = await openDevice(gpu, { rest: r });
  const staging = g.device.createBuffer({ size: 4096, usage: GPUBufferUsage.COPY_DST | GPUBufferUsage.MAP_READ });
  const b = g.device.createBuffer({ size: 4096, usage: GPUBufferUsage.COPY_DST | GPUBufferUsage.COPY_SRC });
  for (let k = 0; k < 3; k++) {
    let t = performance.now();
    const e = g.device.createCommandEncoder(); e.copyBufferToBuffer(b, 0, staging, 0, 4096); g.device.queue.submit([e.finish()]);
    await g.wait(g.device.queue.onSubmittedWorkDone());
    const t1 = performance.now() - t; t = performance.now();
    await g.wait(staging.mapAsync(GPUMapMode.READ, 0, 4096));
    const t2 = performance.now() - t; staging.unmap();
    console.error(r ? "rest" : "plain", t1.toFixed(1), t2.toFixed(1));
  }
  for (let k = 0; k < 2; k++) {
    const t = performance.now();
    g.device.pushErrorScope("validation");
    await g.device.popErrorScope();
    console.error("scope", (performance.now() - t).toFixed(1));
  }
}
Deno.exit(0);
