// TensorFlow.js (WebGPU backend) in the convolution benchmark: its kernels for conv2d and both gradients, in the order
// [N, H, W, C] and [3, 3, I, O] that they are made for.

import * as tf from "@tensorflow/tfjs-core";
import "@tensorflow/tfjs-backend-webgpu";
import { provideDawn, serve } from "../lib/child.ts";
import { convError, convInputs, pictureShape, reordered, resultShape, weightShape } from "../lib/convolutions.ts";
import { finish } from "./tfjs_finish.mjs";

const CHANNELS_LAST = [0, 2, 3, 1];
const CHANNELS_FIRST = [0, 3, 1, 2];
const TAPS_FIRST = [2, 3, 1, 0];
const TAPS_LAST = [3, 2, 0, 1];

await serve({
  name: "tfjs",
  async open() {
    const adapter = await provideDawn();
    if (!(await tf.setBackend("webgpu"))) throw new Error("TensorFlow.js did not open WebGPU");
    await tf.ready();
    return adapter;
  },
  async prepare(task) {
    const inputs = convInputs(task);
    const turned = (values, shape, order) =>
      tf.tensor4d(
        reordered(values, shape, order),
        order.map((o) => shape[o]),
      );
    const x = turned(inputs.x, pictureShape(task), CHANNELS_LAST);
    const w = turned(inputs.w, weightShape(task), TAPS_FIRST);
    const dy = turned(inputs.dy, resultShape(task), CHANNELS_LAST);
    const common = { strides: 1, pad: "same", dataFormat: "NHWC" };
    const once = () => {
      if (task.kind === "forward") return tf.conv2d(x, w, 1, "same");
      if (task.kind === "input gradient")
        return tf.engine().runKernel("Conv2DBackpropInput", { dy, filter: w }, { ...common, inputShape: x.shape });
      return tf.engine().runKernel("Conv2DBackpropFilter", { x, dy }, { ...common, filterShape: w.shape });
    };
    return {
      async run(repeats) {
        for (let i = 0; i < repeats; i++) once().dispose();
        await finish();
      },
      async check() {
        const result = once();
        const back = task.kind === "weight gradient" ? TAPS_LAST : CHANNELS_FIRST;
        const values = reordered(await result.data(), result.shape, back);
        result.dispose();
        return convError(task, values);
      },
      close: () => tf.dispose([x, w, dy]),
    };
  },
});
