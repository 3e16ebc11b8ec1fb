// TensorFlow.js (WebGPU backend) in the matmul benchmark: eager products, which its backend gathers into few submits.

import * as tf from "@tensorflow/tfjs-core";
import "@tensorflow/tfjs-backend-webgpu";
import { chainError, chainInputs } from "../lib/chain.ts";
import { provideDawn, serve } from "../lib/child.ts";
import { finish } from "./tfjs_finish.mjs";

await serve({
  name: "tfjs",
  async open() {
    const adapter = await provideDawn();
    if (!(await tf.setBackend("webgpu"))) throw new Error("TensorFlow.js did not open WebGPU");
    await tf.ready();
    return adapter;
  },
  async prepare(task) {
    const { size, products } = task;
    const inputs = chainInputs(task);
    const x = tf.tensor2d(inputs.x, [size, size]);
    const w = tf.tensor2d(inputs.w, [size, size]);
    const chain = () =>
      tf.tidy(() => {
        let value = x;
        for (let i = 0; i < products; i++) value = tf.matMul(value, w);
        return value;
      });
    return {
      async run(repeats) {
        for (let i = 0; i < repeats; i++) chain().dispose();
        await finish();
      },
      async check() {
        const y = chain();
        const error = chainError(task, await y.data());
        y.dispose();
        return error;
      },
      close() {
        x.dispose();
        w.dispose();
      },
    };
  },
});
