// onnxruntime-node (execution provider "webgpu") in the matmul benchmark. It brings a Dawn of its own and tells nothing
// about its adapter. Weights stay on the device; only a scalar goes in and a column of maxima comes out.

import { chainError, chainInputs } from "../lib/chain.ts";
import { provideDawn, serve } from "../lib/child.ts";
import { chainModel } from "./onnx_model.mjs";

let ort;
const options = { executionProviders: ["webgpu"], logSeverityLevel: 3 };

await serve({
  name: "onnxruntime",
  async open() {
    // Asking our Dawn for an adapter first leaves the Vulkan loader and the driver's C++ library in the process, where
    // onnxruntime's own Dawn then finds them: its library looks in the system's folders alone.
    await provideDawn();
    ort = (await import("onnxruntime-node")).default;
    return "chosen by its own Dawn, not told";
  },
  async prepare(task) {
    const { size, products } = task;
    const inputs = chainInputs(task);
    const feeds = { s: new ort.Tensor("float32", Float32Array.of(0), [1]) };
    const session = await ort.InferenceSession.create(chainModel(size, products, inputs, true), options);
    return {
      async run(repeats) {
        for (let i = 0; i < repeats; i++) await session.run(feeds);
      },
      async check() {
        const whole = await ort.InferenceSession.create(chainModel(size, products, inputs, false), options);
        const y = (await whole.run(feeds))[`y${products}`].data;
        const error = chainError(task, y);
        await whole.release();
        // What is timed must be the same result.
        const { max } = await session.run(feeds);
        for (let r = 0; r < size; r++) {
          let most = Number.NEGATIVE_INFINITY;
          for (let c = 0; c < size; c++) most = Math.max(most, y[r * size + c]);
          if (Math.abs(most - max.data[r]) > 1e-4 * Math.abs(most))
            throw new Error("the timed model gives another result");
        }
        return error;
      },
      close: () => session.release(),
    };
  },
});
