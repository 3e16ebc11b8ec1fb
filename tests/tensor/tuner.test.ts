import { describe, expect, it } from "vitest";
import { linear } from "../../src/ops/matmul.ts";
import { chooseFromLadder } from "../../src/runs/align/ladder.ts";
import { Session } from "../../src/tensor/session.ts";
import { targetOf } from "../../src/tensor/target.ts";
import { chooseFrom, tune } from "../../src/tensor/tuner.ts";
import { testGpu } from "../helpers/gpu.ts";

async function plannedProduct(choices = {}) {
  const gpu = await testGpu();
  const session = new Session(targetOf(gpu, chooseFrom(choices)));
  const [x, w] = [session.data("x", [96, 64]), session.data("w", [128, 64])];
  const y = session.data("y", [96, 128]);
  const plan = session.plan("product", (graph) => graph.assign(y, linear(graph.read(x), graph.read(w))));
  return { gpu, session, plan };
}

describe("the kernel tuner", () => {
  it("measures each choice once, names only variants that the adapter can run, and skips what is known", async () => {
    const { gpu, session, plan } = await plannedProduct();
    const asked = plan.lowered.choices;
    expect(asked).toHaveLength(1);
    const first = await tune(gpu, session.target, [plan], {}, 60);
    const [key, name] = Object.entries(first.measured)[0]!;
    expect(key).toBe(`matmul|${asked[0]!.key}`);
    expect(["", ...asked[0]!.variants]).toContain(name);
    const second = await tune(gpu, session.target, [plan], first.measured, 60);
    expect(second.measured).toEqual({});
  });

  it("leaves choices for later when its budget is spent", async () => {
    const { gpu, session, plan } = await plannedProduct();
    const report = await tune(gpu, session.target, [plan], {}, -1);
    expect(report).toMatchObject({ measured: {}, left: 1 });
  });

  it("makes plans use what was chosen, and ignores a variant that this adapter does not have", async () => {
    const { plan } = await plannedProduct();
    const key = `matmul|${plan.lowered.choices[0]!.key}`;
    const tiled = await plannedProduct({ [key]: "tiled_32x32x16" });
    expect(tiled.plan.lowered.calls[0]!.source).toContain("var<workgroup>");
    const unknown = await plannedProduct({ [key]: "of another version" });
    expect(unknown.plan.lowered.calls[0]!.constants).toEqual(plan.lowered.calls[0]!.constants);
  });
});

describe("the ladder of updates", () => {
  it("takes the longest rung that fits two minutes, and the shortest where none does", () => {
    const perUpdate = 56e9;
    expect(chooseFromLadder([40, 80, 160], 10e9, perUpdate).steps).toBe(40);
    expect(chooseFromLadder([40, 80, 160], 25e9, perUpdate).steps).toBe(40);
    expect(chooseFromLadder([40, 80, 160], 40e9, perUpdate).steps).toBe(80);
    expect(chooseFromLadder([40, 80, 160], 4e12, perUpdate).steps).toBe(160);
  });
});
