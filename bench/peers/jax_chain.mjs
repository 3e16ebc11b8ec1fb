// jax-js in the matmul benchmark: the chain of products under jit, its fastest documented way.

import { blockUntilReady, defaultDevice, init, jit, numpy as np } from "@jax-js/jax";
import { chainError, chainInputs } from "../lib/chain.ts";
import { provideDawn, serve } from "../lib/child.ts";

await serve({
  name: "jax-js",
  async open() {
    const adapter = await provideDawn();
    const devices = await init("webgpu");
    if (!devices.includes("webgpu")) throw new Error("jax-js did not open WebGPU");
    defaultDevice("webgpu");
    return adapter;
  },
  async prepare(task) {
    const { size, products } = task;
    const inputs = chainInputs(task);
    const x = np.array(inputs.x).reshape([size, size]);
    const w = np.array(inputs.w).reshape([size, size]);
    const chain = jit((a, b) => {
      let value = a;
      for (let i = 0; i < products; i++) value = np.matmul(value, b.ref);
      b.dispose();
      return value;
    });
    await blockUntilReady([x, w]);
    return {
      async run(repeats) {
        // Work is sent to the device when somebody waits for it: a result that is disposed of before is never computed.
        let waiting = [];
        for (let i = 0; i < repeats; i++) {
          waiting.push(chain(x.ref, w.ref));
          if (waiting.length < 16 && i < repeats - 1) continue;
          await blockUntilReady(waiting);
          for (const result of waiting) result.dispose();
          waiting = [];
        }
      },
      check: async () => chainError(task, await chain(x.ref, w.ref).data()),
      close() {
        x.dispose();
        w.dispose();
      },
    };
  },
});
