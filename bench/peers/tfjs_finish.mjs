// Waits until the device has done everything that TensorFlow.js was asked for: what it gathers must be submitted first.

import * as tf from "@tensorflow/tfjs-core";

export async function finish() {
  const backend = tf.backend();
  backend.endComputePassEncoder();
  // It submits by itself after so many dispatches, and has nothing to submit then.
  if (backend.commandEncoder) backend.submitQueue();
  await backend.queue.onSubmittedWorkDone();
}
