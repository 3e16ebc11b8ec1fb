// jax-js in the shapes benchmark: the products under jit, transposes written as such and left to its compiler.

import { blockUntilReady, defaultDevice, init, jit, numpy as np } from "@jax-js/jax";
import { provideDawn, serve } from "../lib/child.ts";
import { productError, productInputs, shapeA, shapeB } from "../lib/products.ts";

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
    const inputs = productInputs(task);
    const a = inputs.a.map((values) => np.array(values).reshape(shapeA(task)));
    const b = np.array(inputs.b).reshape(shapeB(task));
    const turned = (x, turn) => (turn ? np.transpose(x) : x);
    const products = jit((as, w) => {
      const results = as.map((x) => np.matmul(turned(x, task.transposeA), turned(w.ref, task.transposeB)));
      w.dispose();
      return results;
    });
    const once = () =>
      products(
        a.map((x) => x.ref),
        b.ref,
      );
    await blockUntilReady([...a, b]);
    return {
      async run(repeats) {
        // Work is sent to the device when somebody waits for it: a result that is disposed of before is never computed.
        for (let i = 0; i < repeats; i++) {
          const results = once();
          await blockUntilReady(results);
          for (const result of results) result.dispose();
        }
      },
      async check() {
        const results = once();
        const last = results.pop();
        for (const result of results) result.dispose();
        return productError(task, await last.data());
      },
      close() {
        for (const x of [...a, b]) x.dispose();
      },
    };
  },
});
