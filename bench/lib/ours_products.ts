// Our side of the shapes benchmark: a few products in one plan.

import { openDevice } from "../../src/gpu/device.ts";
import { matmul } from "../../src/ops/matmul.ts";
import { openGpu } from "../../src/platform/adapters.ts";
import { Session } from "../../src/tensor/session.ts";
import { targetOf } from "../../src/tensor/target.ts";
import { serve } from "./child.ts";
import { type ProductTask, productError, productInputs, shapeA, shapeB } from "./products.ts";
import { describe } from "./report.ts";

const gpu = await openDevice(await openGpu({ backend: "dawn" }));

await serve<ProductTask>({
  name: "ours",
  open: () => Promise.resolve(describe(gpu)),
  async prepare(task) {
    const { m, n, count, transposeA, transposeB } = task;
    const session = new Session(targetOf(gpu));
    const a = Array.from({ length: count }, (_, i) => session.data(`a${i}`, shapeA(task)));
    const b = session.data("b", shapeB(task));
    const c = a.map((_, i) => session.data(`c${i}`, [m, n]));
    const plan = session.plan("products", (graph) => {
      a.forEach((v, i) => graph.assign(c[i]!, matmul(graph.read(v), graph.read(b), { transposeA, transposeB })));
    });
    await session.open(gpu);
    const inputs = productInputs(task);
    a.forEach((v, i) => session.write(v, inputs.a[i]!));
    session.write(b, inputs.b);
    return {
      async run(repeats) {
        for (let i = 0; i < repeats; i++) session.run(plan);
        await session.finish();
      },
      check: async () => productError(task, await session.read(c.at(-1)!)),
      close: () => session.close(),
    };
  },
});
