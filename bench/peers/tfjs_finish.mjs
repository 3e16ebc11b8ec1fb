// Waits until the device has done everything that TensorFlow.js was asked for: what it gathers must be submitted first.

import * as tf from "@tensorflow/tfjs-core";

export async function finish() {
  const backend = tf.backend();
  backend.endComputePassEncoder();
  backend.submitQueue();
  await backend.queue.onSubmittedWorkDone();
}
