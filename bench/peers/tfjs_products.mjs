// TensorFlow.js (WebGPU backend) in the shapes benchmark: eager products with its own flags for transposes.

import * as tf from "@tensorflow/tfjs-core";
import "@tensorflow/tfjs-backend-webgpu";
import { provideDawn, serve } from "../lib/child.ts";
import { productError, productInputs, shapeA, shapeB } from "../lib/products.ts";
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
    const inputs = productInputs(task);
    const a = inputs.a.map((values) => tf.tensor2d(values, shapeA(task)));
    const b = tf.tensor2d(inputs.b, shapeB(task));
    const once = () => a.map((x) => tf.matMul(x, b, task.transposeA, task.transposeB));
    return {
      async run(repeats) {
        for (let i = 0; i < repeats; i++) tf.dispose(once());
        await finish();
      },
      async check() {
        const results = once();
        const error = productError(task, await results.at(-1).data());
        tf.dispose(results);
        return error;
      },
      close: () => tf.dispose([...a, b]),
    };
  },
});
