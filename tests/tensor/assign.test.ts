// Assignments: values written into variables when a plan ends. They are parallel: each takes the values from before.

import { describe, expect, it } from "vitest";
import { backward } from "../../src/ops/backward.ts";
import { matmul } from "../../src/ops/matmul.ts";
import { accumulate, add, affine, mul, relu, silu } from "../../src/ops/pointwise.ts";
import { reshape } from "../../src/ops/reshape.ts";
import { removeDeadNodes } from "../../src/tensor/fuse.ts";
import { Graph, type Tensor } from "../../src/tensor/graph.ts";
import { type Plan, Session } from "../../src/tensor/session.ts";
import { targetOf } from "../../src/tensor/target.ts";
import type { Variable } from "../../src/tensor/variable.ts";
import { noise, relativeError, runOps, testGpu } from "../helpers/gpu.ts";

interface World {
  session: Session;
  plan: Plan;
  /** Contents by name after a run that started with `start`. */
  run(start: Record<string, number[]>): Promise<Record<string, number[]>>;
}

/** Variables of four values by name, and one plan over them. */
async function world(names: string[], body: (graph: Graph, v: Record<string, Variable>) => void): Promise<World> {
  const gpu = await testGpu();
  const session = new Session(targetOf(gpu));
  const v = Object.fromEntries(names.map((n) => [n, session.data(n, [4])]));
  const plan = session.plan("assignments", (graph) => body(graph, v));
  await session.open(gpu);
  return {
    session,
    plan,
    async run(start) {
      for (const [name, values] of Object.entries(start)) session.write(v[name]!, Float32Array.from(values));
      session.poison();
      session.run(plan);
      const out: Record<string, number[]> = {};
      for (const name of names) out[name] = [...(await session.read(v[name]!))];
      session.close();
      return out;
    },
  };
}

const copies = (plan: Plan) => plan.lowered.calls.filter((c) => c.label === "copy").length;
const [ONE, TWO] = [
  [1, 2, 3, 4],
  [10, 20, 30, 40],
];

describe("an assignment", () => {
  it("is written in place where nothing reads the old value after the first write", async () => {
    const w = await world(["a", "b"], (g, v) => g.assign(v["b"]!, affine(g.read(v["a"]!), 2, 0)));
    expect(copies(w.plan)).toBe(0);
    expect(await w.run({ a: ONE, b: TWO })).toEqual({ a: ONE, b: [2, 4, 6, 8] });
  });

  it("waits where the same call reads the target", async () => {
    const w = await world(["a"], (g, v) => g.assign(v["a"]!, affine(g.read(v["a"]!), 2, 1)));
    expect(await w.run({ a: ONE })).toEqual({ a: [3, 5, 7, 9] });
  });

  it("waits where a later call reads the old value of the target", async () => {
    const w = await world(["a", "b", "c"], (g, v) => {
      const next = silu(affine(g.read(v["a"]!), 0, 0));
      g.assign(v["b"]!, next);
      g.assign(v["c"]!, relu(add(reshape(relu(reshape(g.read(v["b"]!), [2, 2])), [4]), affine(next, 1, 0))));
    });
    expect(await w.run({ a: ONE, b: TWO })).toMatchObject({ b: [0, 0, 0, 0], c: TWO });
  });

  it("of a value that is read later in the plan keeps it", async () => {
    const w = await world(["a", "b", "c"], (g, v) => {
      const x = affine(g.read(v["a"]!), 2, 0);
      g.assign(v["b"]!, x);
      g.assign(v["c"]!, mul(x, x));
    });
    expect(await w.run({ a: ONE })).toMatchObject({ b: [2, 4, 6, 8], c: [4, 16, 36, 64] });
  });

  it("of one value to two targets fills both", async () => {
    const w = await world(["a", "b", "c"], (g, v) => {
      const x = affine(g.read(v["a"]!), 3, 0);
      g.assign(v["b"]!, x);
      g.assign(v["c"]!, x);
    });
    expect(await w.run({ a: ONE })).toMatchObject({ b: [3, 6, 9, 12], c: [3, 6, 9, 12] });
  });

  it("of a view of a variable is a copy", async () => {
    const w = await world(["a", "b"], (g, v) => g.assign(v["b"]!, reshape(reshape(g.read(v["a"]!), [2, 2]), [4])));
    expect(copies(w.plan)).toBe(1);
    expect(await w.run({ a: ONE, b: TWO })).toEqual({ a: ONE, b: ONE });
  });

  it("swaps two variables", async () => {
    const w = await world(["a", "b"], (g, v) => {
      g.assign(v["a"]!, g.read(v["b"]!));
      g.assign(v["b"]!, g.read(v["a"]!));
    });
    expect(await w.run({ a: ONE, b: TWO })).toEqual({ a: TWO, b: ONE });
  });

  it("hands a variable's old value on while the variable gets a new one", async () => {
    const w = await world(["a", "old", "x"], (g, v) => {
      g.assign(v["a"]!, affine(g.read(v["x"]!), 1, 1));
      g.assign(v["old"]!, g.read(v["a"]!));
    });
    expect(await w.run({ a: ONE, x: TWO })).toMatchObject({ a: [11, 21, 31, 41], old: ONE });
  });

  it("of a variable to itself does nothing", async () => {
    const w = await world(["a"], (g, v) => g.assign(v["a"]!, g.read(v["a"]!)));
    expect(w.plan.lowered.calls).toHaveLength(0);
    expect(await w.run({ a: ONE })).toEqual({ a: ONE });
  });

  it("adds into a variable more than once", async () => {
    const w = await world(["a", "sum"], (g, v) => {
      accumulate(v["sum"]!, g.read(v["a"]!));
      accumulate(v["sum"]!, affine(g.read(v["a"]!), 10, 0));
    });
    expect(await w.run({ a: ONE, sum: TWO })).toMatchObject({ sum: [21, 42, 63, 84] });
  });
});

describe("a kernel call", () => {
  it("that would bind one tensor twice reads a copy of it", async () => {
    const a = noise(9, 1);
    const { outputs, calls } = await runOps([{ shape: [1, 3, 3], values: a }], ([x]) => [matmul(x!, x!)]);
    const expected = Array.from({ length: 9 }, (_, i) =>
      [0, 1, 2].reduce((s, k) => s + a[Math.floor(i / 3) * 3 + k]! * a[k * 3 + (i % 3)]!, 0),
    );
    expect(relativeError(outputs[0]!, expected)).toBeLessThan(1e-6);
    expect(calls[0]).toBe("copy");
  });
});

describe("removal of dead nodes", () => {
  it("keeps what assignments need and nodes with side effects, and nothing else", async () => {
    const session = new Session(targetOf(await testGpu()));
    const [a, b] = [session.data("a", [4]), session.data("b", [4])];
    const graph = new Graph("dead");
    const x = relu(graph.read(a));
    silu(silu(x));
    graph.assign(b, x);
    accumulate(a, affine(graph.read(b), 2, 0));
    removeDeadNodes(graph);
    expect(graph.nodes.map((n) => n.operation.role)).toEqual(["pointwise", "pointwise", "accumulate"]);
  });
});

describe("a checkpointed segment", () => {
  const inputs = [
    { shape: [3, 8], values: noise(24, 1) },
    { shape: [8, 8], values: noise(64, 2) },
  ];
  const block = ([x, w]: Tensor[]) => [add(x!, silu(matmul(silu(matmul(x!, w!)), w!, { transposeB: true })))];
  const twice = (wrap: (g: Graph, t: Tensor[]) => Tensor[]) => (t: Tensor[], g: Graph) => {
    const [once] = wrap(g, t);
    return wrap(g, [once!, t[1]!]);
  };

  it("gives the bits of the plain trace, forward and backward, and keeps fewer values", async () => {
    const seeds = [noise(24, 3)];
    const plain = await runOps(
      inputs,
      twice((_, t) => block(t)),
      { seeds },
    );
    const checkpointed = await runOps(
      inputs,
      twice((g, t) => g.checkpoint(t, block)),
      { seeds },
    );
    expect([...checkpointed.outputs[0]!]).toEqual([...plain.outputs[0]!]);
    plain.gradients.forEach((g, i) => expect(relativeError(checkpointed.gradients[i]!, g!)).toBeLessThan(1e-6));
    expect(checkpointed.calls.length).toBeGreaterThan(plain.calls.length);
  });

  it("lowers the largest sum of live values", async () => {
    const bound = async (wrap: (g: Graph, t: Tensor[]) => Tensor[]) => {
      const session = new Session(targetOf(await testGpu()));
      const [x, w, seed] = [session.data("x", [64, 64]), session.data("w", [64, 64]), session.data("seed", [64, 64])];
      const out = session.data("dx", [64, 64]);
      const plan = session.plan("blocks", (g) => {
        let y = g.read(x, true);
        const start = y;
        for (let k = 0; k < 6; k++) y = wrap(g, [y, g.read(w)])[0]!;
        g.assign(out, backward(g, [[y, g.read(seed)]], [start])[0]!);
      });
      return plan.placement.lowerBound;
    };
    expect(await bound((g, t) => g.checkpoint(t, block))).toBeLessThan(0.8 * (await bound((_, t) => block(t))));
  });
});

describe("the memory table", () => {
  it("is what the session allocates, to the byte", async () => {
    const gpu = await testGpu();
    const session = new Session(targetOf(gpu));
    const weights = session.pool("weights", "weights");
    const w = weights.add("w", [70, 70], "f32");
    const gradients = session.adopt(weights.twin("gradients", "gradients", ".grad"));
    w.gradient = gradients.variables[0]!;
    const [x, seed] = [session.data("x", [33, 70]), session.data("seed", [33, 70])];
    session.plan("step", (g) => {
      const y = silu(matmul(relu(matmul(g.read(x), g.read(w))), g.read(w)));
      backward(g, [[y, g.read(seed)]]);
    });
    const create = gpu.device.createBuffer.bind(gpu.device);
    let allocated = 0;
    Object.defineProperty(gpu.device, "createBuffer", {
      configurable: true,
      value: (d: GPUBufferDescriptor) => {
        if (d.usage & (GPUBufferUsage.STORAGE | GPUBufferUsage.UNIFORM)) allocated += d.size;
        return create(d);
      },
    });
    try {
      await session.open(gpu);
    } finally {
      Reflect.deleteProperty(gpu.device, "createBuffer");
    }
    const memory = session.memory();
    // What the driver takes for bindings and uploads is an estimate beside it.
    const own = Object.values(memory.variables).reduce((a, b) => a + b, 0) + memory.arena + memory.uniforms;
    expect(allocated).toBe(own);
    expect(memory.variables.weights).toBe(Math.ceil((70 * 70 * 4) / 256) * 256);
    expect(memory.variables.gradients).toBe(memory.variables.weights);
    expect(memory.arena).toBe(session.plans[0]!.placement.arenaBytes);
    session.close();
  });
});
