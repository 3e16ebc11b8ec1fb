// Our side of the block benchmark: forward and backward traced into one plan that writes all gradients afresh, as a gradient
// function does. (Training adds them into buffers that it clears, one pass more over them.)

import { openDevice } from "../../src/gpu/device.ts";
import { backward } from "../../src/ops/backward.ts";
import { openGpu } from "../../src/platform/adapters.ts";
import { Session } from "../../src/tensor/session.ts";
import { targetOf } from "../../src/tensor/target.ts";
import type { Variable } from "../../src/tensor/variable.ts";
import { blockInputs, blockWeights, type Fingerprints, fingerprint } from "./block_task.ts";
import { serve } from "./child.ts";
import { type FluxShape, fluxBlocks } from "./flux_blocks.ts";
import { describe } from "./report.ts";

const gpu = await openDevice(await openGpu({ backend: "dawn" }));

await serve<FluxShape>({
  name: "ours",
  open: () => Promise.resolve(describe(gpu)),
  async prepare(task) {
    const session = new Session(targetOf(gpu));
    const flux = fluxBlocks(session, task, { gradients: false });
    const inputs = blockInputs(task);
    const seed = session.data("seed", inputs.seed.shape);
    const gradients: Record<string, Variable> = {};
    const plan = session.plan("block", (graph) => {
      const names = ["latents", "states", "pooled", ...flux.weights.variables.map((v) => v.name)];
      const weights = flux.weights.variables.map((v) => graph.read(v, true));
      const { outputs, leaves } = flux.trace(graph, { gradients: true });
      backward(graph, [[outputs[0]!, graph.read(seed)]], [...leaves, ...weights]).forEach((g, i) => {
        const variable = session.data(`gradient of ${names[i]!}`, g!.shape);
        gradients[names[i]!] = variable;
        graph.assign(variable, g!);
      });
    });
    await session.open(gpu);
    blockWeights(task).forEach(({ values }, i) => session.write(flux.weights.variables[i]!, values));
    for (const [name, variable] of Object.entries(flux.inputs))
      session.write(variable, inputs[name as "latents"].values);
    session.write(seed, inputs.seed.values);
    const step = () => session.run(plan);
    return {
      async run(repeats) {
        for (let i = 0; i < repeats; i++) step();
        await session.finish();
      },
      async check() {
        step();
        const found: Fingerprints = {};
        for (const [name, v] of Object.entries(gradients)) found[name] = fingerprint(await session.read(v));
        return found;
      },
      close: () => session.close(),
    };
  },
});
