// A reward's view of a picture against torchvision: antialiased bicubic resize of the short side, centre crop and
// normalisation, and the gradient back to the picture, for every size of the dump.

import { it } from "vitest";
import type { OpenClip } from "../../src/models/clip/open_clip.ts";
import { backward } from "../../src/ops/backward.ts";
import { preprocessPictures } from "../../src/rewards/clip_reward.ts";
import { Session } from "../../src/tensor/session.ts";
import { targetOf } from "../../src/tensor/target.ts";
import { Comparison } from "../helpers/compare.ts";
import { suite, tolerance } from "../helpers/dumps.ts";
import { testGpu } from "../helpers/gpu.ts";

suite("clip_preprocess", (dump) => {
  const { size, mean, std } = dump.config;
  const sizes = (dump.config["pictures"] as [number, number][]).map(([h, w]) => `${h}x${w}`);
  // Preprocessing reads these fields of a model and nothing else.
  const model = { config: { vision: { imageSize: size }, mean, std } } as unknown as OpenClip;

  it(`agrees on pictures of ${sizes.join(", ")}`, async () => {
    const io = await dump.open("io");
    const gpu = await testGpu();
    const session = new Session(targetOf(gpu));
    const comparison = new Comparison("clip_preprocess");
    try {
      const runs = sizes.map((name) => {
        const vars = Object.fromEntries(
          ["picture", "weight", "output", "grad.picture"].map((key) => [
            key,
            session.data(`${name}.${key}`, io.shape(`${name}.${key}`)),
          ]),
        );
        const plan = session.plan(name, (graph) => {
          const picture = graph.read(vars["picture"]!, true);
          const output = preprocessPictures(model, picture, (key, values, shape) =>
            session.constant(graph, key, values, shape),
          );
          graph.assign(vars["output"]!, output);
          const [gradient] = backward(graph, [[output, graph.read(vars["weight"]!)]], [picture]);
          graph.assign(vars["grad.picture"]!, gradient!);
        });
        return { name, vars, plan };
      });
      await session.open(gpu);
      for (const { name, vars, plan } of runs) {
        for (const key of ["picture", "weight"]) session.write(vars[key]!, await io.load(`${name}.${key}`));
        session.poison();
        session.run(plan);
        const own = dump.config["_oracle"]["f32_vs_f64"][name];
        for (const [key, error] of [
          ["output", own.output.relative_l2],
          ["grad.picture", own.grad.relative_l2],
        ] as const) {
          const values = await session.read(vars[key]!);
          comparison.values(key, name, values, await io.load(`${name}.${key}`), tolerance(2e-5, error));
        }
      }
      comparison.finish();
    } finally {
      session.close();
    }
  });
});
