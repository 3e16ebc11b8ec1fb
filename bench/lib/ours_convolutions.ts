// Our side of the convolution benchmark.

import { openDevice } from "../../src/gpu/device.ts";
import { backward } from "../../src/ops/backward.ts";
import { conv2d } from "../../src/ops/conv2d.ts";
import { openGpu } from "../../src/platform/adapters.ts";
import { Session } from "../../src/tensor/session.ts";
import { targetOf } from "../../src/tensor/target.ts";
import type { Variable } from "../../src/tensor/variable.ts";
import { serve } from "./child.ts";
import { type ConvTask, convError, convInputs, pictureShape, resultShape, weightShape } from "./convolutions.ts";
import { describe } from "./report.ts";

const gpu = await openDevice(await openGpu({ backend: "dawn" }));

await serve<ConvTask>({
  name: "ours",
  open: () => Promise.resolve(describe(gpu)),
  async prepare(task) {
    const session = new Session(targetOf(gpu));
    const [x, w] = [session.data("x", pictureShape(task)), session.data("w", weightShape(task))];
    const dy = session.data("dy", resultShape(task));
    let result: Variable | null = null;
    const plan = session.plan(task.kind, (graph) => {
      const [a, b] = [graph.read(x, true), graph.read(w, true)];
      const y = conv2d(a, b, { padding: [1, 1, 1, 1] });
      const wanted = task.kind === "input gradient" ? a : b;
      // What only the value needs is removed from the plan of a gradient.
      const value = task.kind === "forward" ? y : backward(graph, [[y, graph.read(dy)]], [wanted])[0]!;
      result = session.data("result", value.shape);
      graph.assign(result, value);
    });
    await session.open(gpu);
    const inputs = convInputs(task);
    session.write(x, inputs.x);
    session.write(w, inputs.w);
    session.write(dy, inputs.dy);
    return {
      async run(repeats) {
        for (let i = 0; i < repeats; i++) session.run(plan);
        await session.finish();
      },
      check: async () => convError(task, await session.read(result!)),
      close: () => session.close(),
    };
  },
});
