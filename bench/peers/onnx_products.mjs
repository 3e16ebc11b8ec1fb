// onnxruntime-node (execution provider "webgpu") in the shapes benchmark: Gemm nodes with its own flags for transposes. A
// scalar goes in and a column of maxima of every product comes out.

import { provideDawn, serve } from "../lib/child.ts";
import { productError, productInputs, shapeA, shapeB } from "../lib/products.ts";
import { productsModel } from "./onnx_model.mjs";

let ort;
const options = { executionProviders: ["webgpu"], logSeverityLevel: 3 };

await serve({
  name: "onnxruntime",
  async open() {
    // See onnx_chain.mjs: its own Dawn finds the driver that ours has loaded.
    await provideDawn();
    ort = (await import("onnxruntime-node")).default;
    return "chosen by its own Dawn, not told";
  },
  async prepare(task) {
    const inputs = productInputs(task);
    const shapes = { a: shapeA(task), b: shapeB(task) };
    const feeds = { s: new ort.Tensor("float32", Float32Array.of(0), [1]) };
    const session = await ort.InferenceSession.create(productsModel(task, shapes, inputs, true), options);
    return {
      async run(repeats) {
        for (let i = 0; i < repeats; i++) await session.run(feeds);
      },
      async check() {
        const whole = await ort.InferenceSession.create(productsModel(task, shapes, inputs, false), options);
        const results = await whole.run(feeds);
        const error = productError(task, results[`c${task.count - 1}`].data);
        await whole.release();
        return error;
      },
      close: () => session.release(),
    };
  },
});
