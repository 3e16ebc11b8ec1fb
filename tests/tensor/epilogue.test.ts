// Operands of epilogues are found without integer division: the quotient is exact, and every way to an index is the same.

import { describe, expect, it } from "vitest";
import division from "../../shaders/lib/division.wgsl" with { type: "text" };
import { Readback } from "../../src/gpu/transfer.ts";
import { conv2d } from "../../src/ops/conv2d.ts";
import { linear, matmul } from "../../src/ops/matmul.ts";
import { groupNorm, layerNorm } from "../../src/ops/norm.ts";
import { add, mul } from "../../src/ops/pointwise.ts";
import { reshape } from "../../src/ops/reshape.ts";
import type { Tensor } from "../../src/tensor/graph.ts";
import { Session } from "../../src/tensor/session.ts";
import type { Shape } from "../../src/tensor/shape.ts";
import { targetOf } from "../../src/tensor/target.ts";
import { testGpu } from "../helpers/gpu.ts";

const LARGEST = 2 ** 22;

it("the quotient of the epilogues is exact for every number that it is used for", async () => {
  const { device, wait } = await testGpu();
  const code = `
    struct Params { d : u32, inverse : f32, count : u32 }
    @group(0) @binding(0) var<uniform> p : Params;
    @group(0) @binding(1) var<storage, read_write> wrong : array<atomic<u32>>;
    ${division}
    @compute @workgroup_size(64)
    fn main(@builtin(global_invocation_id) id : vec3<u32>) {
      for (var n = id.x; n < p.count; n += 65536u) {
        if (quotient(n, p.inverse) != n / p.d) { atomicAdd(&wrong[0], 1u); }
      }
    }`;
  const module = device.createShaderModule({ code });
  const pipeline = device.createComputePipeline({ layout: "auto", compute: { module, entryPoint: "main" } });
  const uniform = device.createBuffer({ size: 16, usage: GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_DST });
  const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC;
  const counter = device.createBuffer({ size: 4, usage });
  const group = device.createBindGroup({
    layout: pipeline.getBindGroupLayout(0),
    entries: [uniform, counter].map((buffer, binding) => ({ binding, resource: { buffer } })),
  });
  for (const d of [1, 2, 3, 7, 36, 64, 100, 255, 257, 1000, 3072, 4093, 65537, 1048573, LARGEST - 1, LARGEST]) {
    const words = new Uint32Array(4);
    words[0] = d;
    new Float32Array(words.buffer)[1] = 1 / d;
    words[2] = LARGEST;
    device.queue.writeBuffer(uniform, 0, words);
    const encoder = device.createCommandEncoder();
    const pass = encoder.beginComputePass();
    pass.setPipeline(pipeline);
    pass.setBindGroup(0, group);
    pass.dispatchWorkgroups(1024);
    pass.end();
    device.queue.submit([encoder.finish()]);
    await wait(device.queue.onSubmittedWorkDone());
  }
  const readback = new Readback(await testGpu());
  expect(new Uint32Array(await readback.read(counter, 0, 4))[0]).toBe(0);
  readback.destroy();
});

/** Values of `body` with its steps in one kernel and with each in a kernel of its own. */
async function bothWays(shapes: readonly Shape[], body: (inputs: Tensor[]) => Tensor): Promise<Float32Array[]> {
  const gpu = await testGpu();
  const results: Float32Array[] = [];
  for (const fuse of [true, false]) {
    const session = new Session(targetOf(gpu), { fuse });
    const inputs = shapes.map((shape, i) => session.data(`x${i}`, shape));
    const plan = session.plan("steps", (graph) => {
      const out = body(inputs.map((v) => graph.read(v)));
      graph.assign(session.data("out", out.shape), out);
    });
    await session.open(gpu);
    inputs.forEach((v, k) =>
      session.write(
        v,
        Float32Array.from({ length: v.size }, (_, i) => ((i * 37 + k) % 101) / 50 - 1),
      ),
    );
    session.run(plan);
    results.push(await session.read(session.pools.find((p) => p.name === "data")!.variables.at(-1)!));
    session.close();
  }
  return results;
}

/** The rows of x [2, K, M] times w [K, N], lanes along M. */
const ofColumns = (x: Tensor, w: Tensor): Tensor =>
  matmul(reshape(x, [1, x.dim(1), x.dim(0) * x.dim(2)]), reshape(w, [1, ...w.shape]), { transposeA: true });

describe("operands of steps", () => {
  /** The rule of broadcasting, counted out. */
  function expanded(values: Float32Array, from: Shape, to: Shape): Float32Array {
    const size = to.reduce((a, b) => a * b, 1);
    return Float32Array.from({ length: size }, (_, index) => {
      let [rest, at, stride] = [index, 0, 1];
      for (let i = to.length - 1; i >= 0; i--) {
        const digit = rest % to[i]!;
        rest = Math.floor(rest / to[i]!);
        if (from[i] !== 1) at += digit * stride;
        stride *= from[i]!;
      }
      return values[at]!;
    });
  }

  it.each([
    [
      [3, 5, 128],
      [3, 1, 128],
    ],
    [
      [3, 5, 100],
      [3, 1, 100],
    ],
    [
      [2, 7, 8, 8],
      [1, 7, 1, 1],
    ],
    [
      [2, 7, 5, 3],
      [1, 7, 1, 1],
    ],
    [
      [2, 3, 4, 64],
      [2, 1, 4, 1],
    ],
    [
      [4, 3, 64, 2],
      [1, 3, 1, 2],
    ],
    [
      [70_001, 64],
      [1, 64],
    ],
    [
      [66_000, 65],
      [66_000, 1],
    ],
  ] as [Shape, Shape][])("of [%s] and [%s] are those of the rule", async (to, from) => {
    const gpu = await testGpu();
    const session = new Session(targetOf(gpu));
    const [x, o, y] = [session.data("x", to), session.data("o", from), session.data("y", to)];
    const plan = session.plan("add", (graph) => graph.assign(y, add(graph.read(x), graph.read(o))));
    await session.open(gpu);
    const values = Float32Array.from({ length: o.size }, (_, i) => i);
    session.write(x, new Float32Array(x.size));
    session.write(o, values);
    session.run(plan);
    const [found, expected] = [await session.read(y), expanded(values, from, to)];
    // Element by element: a matcher takes a minute for millions of them.
    expect(found.findIndex((v, i) => v !== expected[i])).toBe(-1);
    session.close();
  });

  it.each<[string, Shape[], (inputs: Tensor[]) => Tensor]>([
    [
      "a product's bias and gate",
      [[2, 9, 32], [24, 32], [24], [2, 1, 24]],
      ([x, w, b, g]) => mul(linear(x!, w!, b!), g!),
    ],
    [
      "a batched product's rows",
      [
        [3, 9, 8],
        [3, 8, 10],
        [3, 9, 1],
      ],
      ([a, b, r]) => add(matmul(a!, b!), r!),
    ],
    [
      "a convolution's channels",
      [[2, 3, 9, 7], [5, 3, 3, 3], [5], [2, 5, 1, 1]],
      ([x, w, b, g]) => mul(conv2d(x!, w!, { bias: b!, padding: [1, 1, 1, 1] }), g!),
    ],
    [
      "a convolution's rows and columns",
      [[2, 3, 9, 7], [5, 3, 3, 3], [9, 1], [7]],
      ([x, w, r, c]) => add(mul(conv2d(x!, w!, { padding: [1, 1, 1, 1] }), r!), c!),
    ],
    ["a 1x1 convolution's channels", [[2, 6, 5, 5], [4, 6, 1, 1], [4]], ([x, w, b]) => conv2d(x!, w!, { bias: b! })],
    [
      "four columns of a product of few terms",
      [[2, 9, 4], [36, 4], [36], [2, 1, 36], [2, 9, 36]],
      ([x, w, b, g, r]) => add(r!, mul(linear(x!, w!, b!), g!)),
    ],
    [
      "single columns of a product of few terms",
      [[18, 4], [36, 4], [9, 2, 36], [9, 1, 1], [6]],
      ([x, w, r, g, c]) => add(reshape(mul(add(reshape(linear(x!, w!), [9, 2, 36]), r!), g!), [9, 2, 6, 6]), c!),
    ],
    [
      "a product's few rows",
      [[2, 3, 18], [2, 18, 40], [40], [2, 3, 1]],
      ([x, w, b, r]) => mul(add(matmul(x!, w!), b!), r!),
    ],
    ["a product's few columns", [[2, 40, 18], [40, 4], [4]], ([x, w, b]) => add(ofColumns(x!, w!), b!)],
    ["a layer norm's modulation", [[2, 6, 40], [40], [2, 1, 40]], ([x, g, s]) => add(layerNorm(x!, 1e-6, g!), s!)],
    ["a group norm's channels", [[2, 12, 5, 3], [12], [12]], ([x, g, b]) => groupNorm(x!, 4, 1e-6, g!, b!)],
  ])("%s are the same inside the kernel and behind it", async (_, shapes, body) => {
    const [inside, behind] = await bothWays(shapes, body);
    expect(inside).toEqual(behind);
  });

  // A compiler may join the sums of a tile with those of the steps in another order.
  it.each([
    [16, 20],
    [15, 22],
  ])("a convolution's tiles of %i x %i are the same but for rounding", async (h, w) => {
    const shapes = [[2, 16, h, w], [16, 16, 3, 3], [16], [2, 16, h, w]];
    const [inside, behind] = await bothWays(shapes, ([x, k, b, r]) =>
      add(conv2d(x!, k!, { bias: b!, padding: [1, 1, 1, 1] }), r!),
    );
    expect(Math.max(...inside!.map((v, i) => Math.abs(v - behind![i]!)))).toBeLessThan(4e-6);
  });
});
