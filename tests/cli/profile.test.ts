// `--profile`: a run's own replays are timed, nothing of its results changes, and the trace is well formed.

import { describe, expect, it } from "vitest";
import type { RunEvent } from "../../src/base/events.ts";
import type { ParsedArguments } from "../../src/cli/command.ts";
import { profiled, profileText } from "../../src/cli/profile.ts";
import type { Gpu } from "../../src/gpu/device.ts";
import { linear } from "../../src/ops/matmul.ts";
import { layerNorm } from "../../src/ops/norm.ts";
import { add, affine } from "../../src/ops/pointwise.ts";
import { Profiler } from "../../src/tensor/profile.ts";
import { Session } from "../../src/tensor/session.ts";
import { targetOf } from "../../src/tensor/target.ts";
import { MemoryFiles } from "../helpers/files.ts";
import { testGpu } from "../helpers/gpu.ts";

interface Slice {
  name: string;
  cat: string;
  ph: string;
  tid: number;
  ts: number;
  dur: number;
}

/** y grows with every replay, so a replay that is left out or made twice shows. */
async function world(gpu: Gpu) {
  const session = new Session(targetOf(gpu));
  const [x, weight, y] = [session.data("x", [32, 64]), session.data("weight", [64, 64]), session.data("y", [32, 64])];
  const product = session.plan("product", (graph) => {
    const hidden = graph.scope("first", () => linear(graph.read(x), graph.read(weight)));
    const normed = graph.scope("second", () => layerNorm(hidden, 1e-6));
    graph.assign(y, add(graph.read(y), normed));
  });
  const shrink = session.plan("shrink", (graph) => graph.assign(y, affine(graph.read(y), 0.5, 1)));
  await session.open(gpu);
  session.write(
    x,
    Float32Array.from({ length: x.size }, (_, i) => Math.sin(i)),
  );
  session.write(
    weight,
    Float32Array.from({ length: weight.size }, (_, i) => Math.cos(i)),
  );
  session.write(y, new Float32Array(y.size));
  const run = async () => {
    for (let i = 0; i < 6; i++) session.run(product);
    session.run(shrink);
    await session.finish();
    return session.read(y);
  };
  return { session, run };
}

function target(gpu: Gpu, session: Session, profile: boolean) {
  const events: RunEvent[] = [];
  const printed: string[] = [];
  const files = new MemoryFiles();
  const parsed = { flags: profile ? { profile: true } : {} } as unknown as ParsedArguments;
  const context = { arguments: parsed, files, print: (text: string) => printed.push(text), columns: () => 100 };
  const emit = (event: RunEvent) => events.push(event);
  return { events, printed, files, given: { context, gpu, session, emit, path: "runs/a/profile.json" } };
}

describe("a profiled run", () => {
  it("computes the same bits and times the first replays of every plan", async () => {
    const gpu = await testGpu();
    const plain = await world(gpu);
    const expected = await plain.run();
    plain.session.close();
    const { session, run } = await world(gpu);
    const { files, given, printed, events } = target(gpu, session, true);
    expect(await profiled(given, run)).toEqual(expected);
    session.close();
    expect(session.profiler).toBeNull();
    if (!gpu.facts.timestamps) return;

    const trace = JSON.parse(await files.readText("runs/a/profile.json"));
    const plans = trace.longtail.plans as {
      plan: string;
      replays: number;
      timed: number;
      kernels: { share: number }[];
    }[];
    expect(plans.map(({ plan, replays, timed }) => [plan, replays, timed])).toEqual([
      ["product", 6, 4],
      ["shrink", 1, 1],
    ]);
    for (const { kernels } of plans) expect(kernels.reduce((n, k) => n + k.share, 0)).toBeCloseTo(1, 6);
    const slices = trace.traceEvents.filter((e: Slice) => e.ph === "X") as Slice[];
    expect(slices.filter((s) => s.cat === "plan").map((s) => s.name)).toEqual([...Array(4).fill("product"), "shrink"]);
    expect(new Set(slices.filter((s) => s.cat === "scope").map((s) => s.name))).toEqual(
      new Set(["first", "second", "assign"]),
    );
    // On one track slices lie inside each other or one behind the other; half a nanosecond is lost in rounding.
    for (const [i, a] of slices.entries()) {
      for (const b of slices.slice(i + 1)) {
        if (a.tid !== b.tid) continue;
        const [after, inside] = [b.ts >= a.ts + a.dur - 0.002, b.ts + b.dur <= a.ts + a.dur + 0.002];
        expect(b.ts >= a.ts && (after || inside)).toBe(true);
      }
    }
    expect(printed.join("")).toMatch(/matmul NT 32x64x64.*%/);
    expect(events).toEqual([
      { kind: "message", text: "profile: runs/a/profile.json (open it in ui.perfetto.dev or chrome://tracing)" },
    ]);
  });

  it("leaves its profile too where it is stopped, and the reason stays the reason", async () => {
    const gpu = await testGpu();
    const { session, run } = await world(gpu);
    const { files, given } = target(gpu, session, true);
    const stop = new Error("Ctrl-C");
    const stopped = profiled(given, async () => {
      await run();
      throw stop;
    });
    await expect(stopped).rejects.toBe(stop);
    expect(await files.exists("runs/a/profile.json")).toBe(gpu.facts.timestamps);
    session.close();
  });

  it("warns with a code and writes nothing on an adapter without timestamps", async () => {
    const own = await testGpu();
    const gpu: Gpu = { ...own, facts: { ...own.facts, timestamps: false } };
    const { session, run } = await world(gpu);
    const { files, given, events } = target(gpu, session, true);
    await profiled(given, run);
    session.close();
    expect(events).toEqual([{ kind: "warning", code: "E-ENV-070", text: expect.stringContaining("no timestamp") }]);
    expect(await files.exists("runs/a/profile.json")).toBe(false);
  });

  it("is left alone without the flag", async () => {
    const gpu = await testGpu();
    const { session, run } = await world(gpu);
    const { files, given, events } = target(gpu, session, false);
    await profiled(given, run);
    session.close();
    expect([events, await files.exists("runs/a/profile.json")]).toEqual([[], false]);
  });

  it("says nothing of a rate where a call took no measurable time", async () => {
    const gpu = await testGpu();
    const { session, run } = await world(gpu);
    const profiler = new Profiler(session);
    await run();
    const plans = await profiler.finish();
    session.close();
    for (const plan of plans) plan.least.fill(0);
    const { longtail } = JSON.parse(profileText(gpu, plans));
    for (const plan of longtail.plans) {
      expect(plan.flops_per_second).toBeNull();
      for (const kernel of plan.kernels) expect([kernel.share, kernel.bytes_per_second]).toEqual([0, null]);
    }
  });
});
