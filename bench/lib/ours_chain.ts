// Our side of the matmul benchmark: the chain of products traced into one plan and replayed.

import { openDevice } from "../../src/gpu/device.ts";
import { matmul } from "../../src/ops/matmul.ts";
import { openGpu } from "../../src/platform/adapters.ts";
import { Session } from "../../src/tensor/session.ts";
import { targetOf } from "../../src/tensor/target.ts";
import { type ChainTask, chainError, chainInputs } from "./chain.ts";
import { serve } from "./child.ts";
import { describe } from "./report.ts";

const gpu = await openDevice(await openGpu({ backend: "dawn" }));

await serve<ChainTask>({
  name: "ours",
  open: () => Promise.resolve(describe(gpu)),
  async prepare(task) {
    const { size, products } = task;
    const session = new Session(targetOf(gpu));
    const x = session.data("x", [size, size]);
    const w = session.data("w", [size, size]);
    const y = session.data("y", [size, size]);
    const plan = session.plan("chain", (graph) => {
      let value = graph.read(x);
      for (let i = 0; i < products; i++) value = matmul(value, graph.read(w));
      graph.assign(y, value);
    });
    await session.open(gpu);
    const inputs = chainInputs(task);
    session.write(x, inputs.x);
    session.write(w, inputs.w);
    return {
      async run(repeats) {
        for (let i = 0; i < repeats; i++) session.run(plan);
        await session.finish();
      },
      check: async () => chainError(task, await session.read(y)),
      close: () => session.close(),
    };
  },
});
