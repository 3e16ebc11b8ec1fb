// A session holds everything that one run keeps on the device: pools of persistent variables, and all of its plans, which
// share one arena sized to the largest of them. Plans are traced, fused, lowered and placed without a device, so the
// memory table is exact before anything is allocated; `open` allocates and compiles, `run` replays.

import copySource from "../../shaders/copy.wgsl" with { type: "text" };
import { LongtailError } from "../base/errors.ts";
import { awake, type Gpu } from "../gpu/device.ts";
import { PipelineCache } from "../gpu/pipelines.ts";
import { Readback, Staging, upload, uploadRingBytes } from "../gpu/transfer.ts";
import { Executable, type ReplayOptions } from "./executable.ts";
import { fuse, removeDeadNodes } from "./fuse.ts";
import { Graph, type Tensor } from "./graph.ts";
import { findBrokenCanary, findNotFinite, type Inspected, type NotFinite } from "./inspect.ts";
import { refuseBeyondLimits } from "./limits.ts";
import { type Lowered, Lowering, type Slot, type Target } from "./lower.ts";
import { type MemoryTable, memoryTable } from "./memory_table.ts";
import { type Gate, Pacer } from "./pacing.ts";
import { type Placement, place } from "./planner.ts";
import type { DType, Shape } from "./shape.ts";
import { differsInVariablesAlone, samePlaces } from "./sharing.ts";
import { alignUp, type Category, Pool, type Variable } from "./variable.ts";

/** A quiet NaN that no kernel produces by itself. */
const POISON = 0x7fc0dead;

export type { MemoryTable } from "./memory_table.ts";

/** One step function, traced and placed. */
export interface Plan {
  readonly name: string;
  readonly lowered: Lowered;
  readonly placement: Placement;
  /** Sum over the calls; multiply-adds count as two. */
  readonly flops: number;
  /** The plan of the same calls on other variables, whose pipelines, uniforms and places in the arena this one shares. */
  readonly like: Plan | null;
  executable: Executable | null;
}

export interface SessionOptions {
  /** False traces and lowers every operation from its parts: the plans that fused ones are compared with. */
  fuse?: boolean;
}

/** What a variable can be written from; f16 variables take the bits as Uint16Array. */
export type Words = Float32Array | Uint32Array | Uint16Array | Int32Array;

/** Values of a variable where the device put them; they are gone after `release`. */
export interface MappedValues {
  readonly view: Float32Array | Uint32Array | Uint16Array;
  release(): void;
}

export class Session {
  readonly target: Target;
  readonly pools: Pool[] = [];
  readonly plans: Plan[] = [];
  private readonly options: SessionOptions;
  private readonly constants = new Map<string, { variable: Variable; values: Float32Array | Uint32Array }>();
  private gpu: Gpu | null = null;
  private pipelines: PipelineCache | null = null;
  private readback: Readback | null = null;
  private readonly buffers = new Map<Pool, GPUBuffer[]>();
  private arena: GPUBuffer | null = null;
  /** Where it is set, it takes over some of the replays and times their calls. */
  profiler: { replay(plan: Plan): boolean } | null = null;
  /** Where it is set, `replay` asks it before every submit and keeps at most two submits in flight. */
  gate: Gate | null = null;
  private pacer: Pacer | null = null;
  private staging: Staging | null = null;
  private stagingBytes = 0;

  constructor(target: Target, options: SessionOptions = {}) {
    this.target = target;
    this.options = options;
  }

  /** Adds a pool of persistent memory. */
  pool(name: string, category: Category): Pool {
    const pool = new Pool(name, category, this.target.maxBindingBytes);
    this.pools.push(pool);
    return pool;
  }

  adopt(pool: Pool): Pool {
    this.pools.push(pool);
    return pool;
  }

  /** A single variable in the pool of step inputs and outputs. */
  data(name: string, shape: Shape, dtype: DType = "f32"): Variable {
    let pool = this.pools.find((p) => p.name === "data");
    if (!pool) pool = this.pool("data", "data");
    return pool.add(name, shape, dtype);
  }

  /**
   * A tensor of fixed contents (tables of resampling, rotary positions) as a leaf of `graph`. The same name always means
   * the same contents; they are uploaded when the session opens.
   */
  constant(graph: Graph, name: string, values: Float32Array | Uint32Array, shape: Shape): Tensor {
    let constant = this.constants.get(name);
    if (!constant) {
      const variable = this.data(`constant.${name}`, shape, values instanceof Uint32Array ? "u32" : "f32");
      constant = { variable, values };
      this.constants.set(name, constant);
    }
    return graph.read(constant.variable);
  }

  /**
   * Traces `body` into a plan.
   * @param like a plan that may differ in its variables alone, as one block of a network from the next: where that is so,
   * only the tables of buffers are made anew
   */
  plan(name: string, body: (graph: Graph) => void, like: Plan | null = null): Plan {
    if (this.gpu) throw new Error(`plan ${name}: the session is open already`);
    const fused = this.options.fuse !== false;
    const graph = new Graph(name, fused);
    body(graph);
    removeDeadNodes(graph);
    // One storage binding is kept free below the limit: some drivers count the uniform's.
    if (fused) fuse(graph, Math.min(this.target.maxStorageBuffers, 10) - 1);
    const lowered = new Lowering(this.target, copySource).run(graph);
    const shared = like && differsInVariablesAlone(like.lowered, lowered) ? (like.like ?? like) : null;
    const placement = shared ? samePlaces(shared.lowered, shared.placement, lowered) : place(lowered.calls);
    refuseBeyondLimits(name, lowered, this.target);
    const plan: Plan = {
      name,
      lowered,
      placement,
      flops: lowered.calls.reduce((n, c) => n + c.flops, 0),
      like: shared,
      executable: null,
    };
    this.plans.push(plan);
    return plan;
  }

  memory(): MemoryTable {
    return memoryTable(this.pools, this.plans, this.target, this.stagingBytes);
  }

  /** Allocates all memory and compiles all pipelines in parallel. */
  async open(gpu: Gpu, onCompiled?: (done: number, total: number) => void): Promise<void> {
    this.gpu = gpu;
    this.pipelines = new PipelineCache(gpu);
    this.readback = new Readback(gpu);
    this.pacer = new Pacer(gpu);
    gpu.device.pushErrorScope("out-of-memory");
    gpu.device.pushErrorScope("validation");
    const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST;
    for (const pool of this.pools) {
      this.buffers.set(
        pool,
        pool.segmentBytes.map((size, i) => gpu.device.createBuffer({ size, usage, label: `${pool.name}.${i}` })),
      );
    }
    const { arena } = this.memory();
    this.arena = gpu.device.createBuffer({ size: Math.max(arena, 256), usage, label: "arena" });
    const failure = (await awake(gpu.device.popErrorScope())) ?? (await awake(gpu.device.popErrorScope()));
    if (failure) {
      throw new LongtailError("E-MEM-001", {
        what: `the GPU could not give ${this.memory().total} bytes`,
        why: failure.message,
        fix: 'lower align.batch or eval.batch, stream a LoRA\'s base with device.offload = "blocks", or close other programs that use the GPU',
      });
    }
    if (this.stagingBytes > 0) this.staging = new Staging(gpu, this.stagingBytes);
    for (const { variable, values } of this.constants.values()) this.write(variable, values);
    let done = 0;
    const total = this.plans.length;
    const compile = async (plan: Plan): Promise<void> => {
      const { like, lowered } = plan;
      const where = (slot: Slot) => this.place(plan, slot);
      plan.executable = await Executable.build(
        gpu,
        this.pipelines!,
        lowered.calls,
        where,
        like?.executable ?? undefined,
      );
      onCompiled?.(++done, total);
    };
    await Promise.all(this.plans.filter((plan) => !plan.like).map(compile));
    await Promise.all(this.plans.filter((plan) => plan.like).map(compile));
    gpu.check();
  }

  /** Where a slot's bytes lie. */
  private place(plan: Plan, slot: Slot): { buffer: GPUBuffer; offset: number } {
    if (slot.variable) return this.where(slot.variable);
    return { buffer: this.arena!, offset: plan.placement.offsets.get(slot)! };
  }

  private where(variable: Variable): { buffer: GPUBuffer; offset: number } {
    const buffer = this.buffers.get(variable.pool)?.[variable.segment];
    if (!buffer) throw new Error(`${variable.name}: the session is not open`);
    return { buffer, offset: variable.offset };
  }

  get device(): GPUDevice {
    return this.requireGpu().device;
  }

  /** Milliseconds in which somebody waited for the device; see `Gpu.waited`. */
  get waited(): number {
    return this.requireGpu().waited;
  }

  get pipelineCount(): number {
    return this.pipelines?.size ?? 0;
  }

  private requireGpu(): Gpu {
    if (!this.gpu) throw new Error("the session is not open");
    return this.gpu;
  }

  /** Replays a plan. Submission is asynchronous; `finish` or `read` waits. */
  run(plan: Plan, options?: ReplayOptions): void {
    if (!plan.executable) throw new Error(`plan ${plan.name} is not open`);
    // All plans share one arena.
    if (this.pacer?.busy) throw new Error(`plan ${plan.name} would run in the middle of another one`);
    if (!options && this.profiler?.replay(plan)) return;
    plan.executable.replay(options);
  }

  /** Replays a plan as `run` does and gives the same bits; with a `gate` piece by piece, resolved with the last submit. */
  async replay(plan: Plan): Promise<void> {
    const { gate, pacer } = this;
    if (!plan.executable || !pacer || !(gate || pacer.busy)) return this.run(plan);
    const asked = async () => {
      await gate?.();
      this.requireGpu();
    };
    await pacer.replay(plan.executable, asked, () => this.profiler?.replay(plan) ?? false);
  }

  /** Writes a variable from host memory. */
  write(variable: Variable, data: Words): void {
    this.checkLength(variable, data);
    const { buffer, offset } = this.where(variable);
    upload(this.requireGpu(), buffer, offset, data);
  }

  /**
   * Uploads many words, such as a model's weights: `body` writes variables through the function that it is given, which
   * waits for room. In the queue's order they are written by the time that this is done.
   * @param bytes about how many there will be
   * @param ringBytes mapped memory to use meanwhile, 0 for the queue's own writes; by default what suits the adapter
   */
  async upload(
    bytes: number,
    body: (write: (variable: Variable, data: Words) => Promise<void>) => Promise<void>,
    ringBytes = uploadRingBytes(this.target.software, bytes),
  ): Promise<void> {
    if (ringBytes === 0) return body(async (variable, data) => this.write(variable, data));
    const ring = new Staging(this.requireGpu(), ringBytes);
    try {
      await body((variable, data) => {
        this.checkLength(variable, data);
        const { buffer, offset } = this.where(variable);
        return ring.write(buffer, offset, data);
      });
      ring.flush();
    } finally {
      ring.destroy();
    }
  }

  /** Asks for room for `stage`; before `open`. The largest wish counts. */
  reserveStaging(bytes: number): void {
    this.stagingBytes = Math.max(this.stagingBytes, bytes);
  }

  /**
   * Writes a variable through the reserved room: for words that come all the time. The device sees them after `flushStaged`;
   * the promise waits for room, and `data` may change when it resolves.
   */
  async stage(variable: Variable, data: Float32Array | Uint32Array | Uint16Array): Promise<void> {
    if (!this.staging) throw new Error("no room for staging was reserved");
    this.checkLength(variable, data);
    const { buffer, offset } = this.where(variable);
    await this.staging.write(buffer, offset, data);
  }

  /** Hands staged words to the queue, in whose order they are written. */
  flushStaged(): void {
    this.staging?.flush();
  }

  /** Milliseconds in which `stage` waited until the device had copied what lay in the reserved room. */
  get stagingWaited(): number {
    return this.staging?.waited ?? 0;
  }

  private checkLength(variable: Variable, data: { length: number }): void {
    if (data.length !== variable.size)
      throw new Error(`write ${variable.name}: ${data.length} values for ${variable.size} places`);
  }

  /** Reads an f32 variable (or `count` values from `start`). */
  async read(variable: Variable, start = 0, count = variable.size - start): Promise<Float32Array> {
    return new Float32Array(await this.readBits(variable, start, count));
  }

  /** Reads a whole variable in place: without a copy, which takes longer than the transfer. Release it soon. */
  async map(variable: Variable): Promise<MappedValues> {
    const { buffer, offset } = this.where(variable);
    const { data, release } = await this.readback!.map(buffer, offset, alignUp(variable.bytes, 4));
    const View = { f32: Float32Array, u32: Uint32Array, f16: Uint16Array }[variable.dtype];
    return { view: new View(data, 0, variable.size), release };
  }

  /** Reads a whole segment of a pool: where its variables are many and small, asking for each takes longer than the transfer. */
  async readSegment(pool: Pool, segment: number): Promise<ArrayBuffer> {
    const buffer = this.buffers.get(pool)![segment]!;
    return await this.readback!.read(buffer, 0, buffer.size);
  }

  async readBits(variable: Variable, start = 0, count = variable.size - start): Promise<ArrayBuffer> {
    const { buffer, offset } = this.where(variable);
    const itemBytes = variable.bytes / variable.size;
    const from = Math.floor((start * itemBytes) / 4) * 4;
    const bytes = Math.ceil((count * itemBytes) / 4) * 4;
    const data = await this.readback!.read(buffer, offset + from, bytes);
    return data.byteLength === count * itemBytes ? data : data.slice(0, count * itemBytes);
  }

  /** Copies a whole variable to element `at` of another of the same type, in the queue's order. */
  copyInto(from: Variable, to: Variable, at: number): void {
    const { device } = this.requireGpu();
    const source = this.where(from);
    const target = this.where(to);
    const encoder = device.createCommandEncoder();
    const offset = target.offset + at * (to.bytes / to.size);
    encoder.copyBufferToBuffer(source.buffer, source.offset, target.buffer, offset, from.bytes);
    device.queue.submit([encoder.finish()]);
  }

  /** Copies a pool over another of the same layout, in the queue's order. */
  copyPool(from: Pool, to: Pool): void {
    const { device } = this.requireGpu();
    const sources = this.buffers.get(from) ?? [];
    const targets = this.buffers.get(to) ?? [];
    const sizes = (buffers: readonly GPUBuffer[]) => buffers.map((b) => b.size).join();
    if (sources.length === 0 || sizes(sources) !== sizes(targets))
      throw new Error(`pool ${to.name} has not the layout of ${from.name}`);
    const encoder = device.createCommandEncoder();
    sources.forEach((source, i) => encoder.copyBufferToBuffer(source, 0, targets[i]!, 0, source.size));
    device.queue.submit([encoder.finish()]);
  }

  /** Sets every byte of a pool to zero, in the queue's order. */
  clear(pool: Pool): void {
    const { device } = this.requireGpu();
    const encoder = device.createCommandEncoder();
    for (const buffer of this.buffers.get(pool) ?? []) encoder.clearBuffer(buffer);
    device.queue.submit([encoder.finish()]);
  }

  /** Waits until the device has done everything that was submitted, and throws what it reported. */
  async finish(): Promise<void> {
    const gpu = this.requireGpu();
    await gpu.wait(gpu.device.queue.onSubmittedWorkDone());
    gpu.check();
  }

  /**
   * A moment in the queue's order: the function waits until the device has done all that was submitted before it, and
   * throws what the device reported.
   */
  mark(): () => Promise<void> {
    const gpu = this.requireGpu();
    const done = gpu.device.queue.onSubmittedWorkDone();
    // A device that is lost while nobody waits here is reported by the next one who does.
    done.catch(() => undefined);
    return async () => {
      await gpu.wait(done);
      gpu.check();
    };
  }

  /** `findNotFinite` in a plan of this session. */
  firstNotFinite(plan: Plan): Promise<NotFinite | null> {
    return findNotFinite(this.inspected, plan);
  }

  /** Fills the arena with a NaN pattern, so that a value that no kernel wrote shows; for tests. */
  poison(): void {
    const words = new Uint32Array(this.arena!.size / 4).fill(POISON);
    upload(this.requireGpu(), this.arena!, 0, words);
  }

  /** `findBrokenCanary` after `poison`, in a plan of this session. */
  brokenCanary(plan: Plan): Promise<string | null> {
    return findBrokenCanary(this.inspected, plan, POISON);
  }

  private get inspected(): Inspected {
    return {
      device: this.device,
      arena: this.arena!,
      readback: this.readback!,
      place: (plan, slot) => this.place(plan, slot),
    };
  }

  close(): void {
    for (const buffers of this.buffers.values()) for (const b of buffers) b.destroy();
    this.arena?.destroy();
    this.readback?.destroy();
    this.staging?.destroy();
    for (const plan of this.plans) plan.executable?.destroy();
    this.gpu = null;
  }
}
