// A placed plan, ready to replay: pipelines, bind groups and grids in flat arrays, so that a step is one loop of
// setPipeline / setBindGroup / dispatch without allocation. Work is cut into submits by its estimated device time, so
// that a desktop stays responsive and a watchdog never fires.

import type { Gpu } from "../gpu/device.ts";
import type { PipelineCache } from "../gpu/pipelines.ts";
import type { KernelCall, Slot } from "./lower.ts";

export interface ReplayOptions {
  /** Range of calls; the whole plan by default. */
  from?: number;
  to?: number;
}

/** Device work of one submit before the speed is known, in the unit of `cost`; `setRate` refines it. */
const FIRST_SUBMIT = { software: 2e9, hardware: 2e10 } as const;
/** Device time that one submit should take; a plan's own speed differs a little from that of all. */
const SUBMIT_SECONDS = 0.075;
/** A call that moves memory only still costs time: bytes count as this many FLOP. */
const FLOPS_PER_BYTE = 2;

/** Calls whose timestamps fit one query set: WebGPU grants 4096 queries. */
const CALLS_PER_QUERY_SET = 2048;

/** A replay with timestamps that was submitted. */
export interface TimedReplay {
  /** Begin and end of every call in nanoseconds of the device's clock; waits for the device. Once. */
  read(): Promise<BigUint64Array>;
}

export class Executable {
  private readonly gpu: Gpu;
  private readonly pipelines: GPUComputePipeline[];
  private readonly groups: GPUBindGroup[];
  private readonly grids: Uint32Array;
  private readonly uniforms: GPUBuffer;
  private readonly cost: Float64Array;
  private readonly flops: number;
  /** Index after the last call of each submit. */
  private cuts: number[] = [];

  private constructor(
    gpu: Gpu,
    parts: {
      pipelines: GPUComputePipeline[];
      groups: GPUBindGroup[];
      grids: Uint32Array;
      uniforms: GPUBuffer;
      cost: Float64Array;
      flops: number;
    },
  ) {
    this.gpu = gpu;
    this.pipelines = parts.pipelines;
    this.groups = parts.groups;
    this.grids = parts.grids;
    this.uniforms = parts.uniforms;
    this.cost = parts.cost;
    this.flops = parts.flops;
    const total = this.cost.reduce((sum, cost) => sum + cost, 0);
    this.cut(total / FIRST_SUBMIT[gpu.facts.software ? "software" : "hardware"]);
  }

  /** Tells the executable at how many FLOP/s plans like it run, so that a submit holds a moment's work. */
  setRate(flopsPerSecond: number): void {
    this.cut(this.flops / flopsPerSecond / SUBMIT_SECONDS);
  }

  get submits(): number {
    return this.cuts.length;
  }

  /** Cuts into so many submits, of about the same work each; a quarter more work is better than another submit. */
  private cut(submits: number): void {
    const pieces = Math.max(1, Math.ceil(submits - 0.25));
    const share = this.cost.reduce((sum, cost) => sum + cost, 0) / pieces;
    this.cuts = [];
    let done = 0;
    for (let i = 0; i + 1 < this.cost.length; i++) {
      done += this.cost[i]!;
      // A submit ends where half of the next call would belong to the one after it.
      const passed = done + this.cost[i + 1]! / 2 > share * (this.cuts.length + 1);
      if (passed && this.cuts.length < pieces - 1) this.cuts.push(i + 1);
    }
    this.cuts.push(this.cost.length);
  }

  /** Bytes of the uniform buffer for these calls. */
  static uniformBytes(calls: readonly KernelCall[]): number {
    return calls.reduce((n, c) => n + 256 * (c.epilogue ? 2 : 1), 0);
  }

  /** @param like the executable of the same calls on other memory, whose pipelines and uniforms are shared */
  static async build(
    gpu: Gpu,
    cache: PipelineCache,
    calls: readonly KernelCall[],
    where: (slot: Slot) => { buffer: GPUBuffer; offset: number },
    like?: Executable,
  ): Promise<Executable> {
    const uniforms =
      like?.uniforms ??
      gpu.device.createBuffer({
        size: Math.max(256, Executable.uniformBytes(calls)),
        usage: GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_DST,
        label: "uniforms",
      });
    const words = new Uint32Array(Math.max(64, Executable.uniformBytes(calls) / 4));
    const groups: GPUBindGroup[] = [];
    const grids = new Uint32Array(calls.length * 3);
    const cost = new Float64Array(calls.length);
    const flops = calls.reduce((sum, call) => sum + call.flops, 0);
    let at = 0;
    calls.forEach((call, i) => {
      if (call.params.length > 64)
        throw new Error(`${call.label}: ${call.params.length} parameter words, at most 64 fit`);
      if (call.epilogue && call.epilogue.length > 64)
        throw new Error(`${call.label}: its steps need ${call.epilogue.length} words, at most 64 fit`);
      words.set(call.params, at);
      const entries: GPUBindGroupEntry[] = [{ binding: 0, resource: { buffer: uniforms, offset: at * 4, size: 256 } }];
      at += 64;
      if (call.epilogue) {
        words.set(call.epilogue, at);
        entries.push({ binding: 100, resource: { buffer: uniforms, offset: at * 4, size: 256 } });
        at += 64;
      }
      call.bindings.forEach((slot, k) => {
        const place = where(slot);
        // A kernel may declare vectors; one implementation wants room for a whole one even in a tiny buffer.
        entries.push({
          binding: k + 1,
          resource: { buffer: place.buffer, offset: place.offset, size: Math.max(16, slot.bytes) },
        });
      });
      const layout = cache.bindGroupLayout(call.bindings.length, call.epilogue !== null);
      groups.push(gpu.device.createBindGroup({ layout, entries, label: call.label }));
      grids.set(call.grid, i * 3);
      cost[i] = call.flops + FLOPS_PER_BYTE * call.bytes;
    });
    if (like) return new Executable(gpu, { pipelines: like.pipelines, groups, grids, uniforms, cost, flops });
    gpu.device.queue.writeBuffer(uniforms, 0, words);
    const pipelines = await Promise.all(
      calls.map((call) =>
        cache.get({
          label: call.label,
          source: call.source,
          constants: call.constants,
          storageBindings: call.bindings.length,
          epilogue: call.epilogue !== null,
        }),
      ),
    );
    return new Executable(gpu, { pipelines, groups, grids, uniforms, cost, flops });
  }

  /** Encodes and submits the calls. */
  replay(options: ReplayOptions = {}): void {
    const to = options.to ?? this.pipelines.length;
    let from = options.from ?? 0;
    for (const cut of this.cuts) {
      const end = Math.min(cut, to);
      if (end <= from) continue;
      this.submit(from, end);
      from = end;
    }
  }

  /** Encodes the calls of a range and submits them as one piece of work. */
  submit(from: number, to: number): void {
    const { device } = this.gpu;
    const { pipelines, groups, grids } = this;
    const encoder = device.createCommandEncoder();
    const pass = encoder.beginComputePass();
    let current: GPUComputePipeline | null = null;
    for (let i = from; i < to; i++) {
      const pipeline = pipelines[i]!;
      if (pipeline !== current) {
        pass.setPipeline(pipeline);
        current = pipeline;
      }
      pass.setBindGroup(0, groups[i]!);
      pass.dispatchWorkgroups(grids[i * 3]!, grids[i * 3 + 1]!, grids[i * 3 + 2]!);
    }
    pass.end();
    device.queue.submit([encoder.finish()]);
  }

  /** How many calls there are. */
  get count(): number {
    return this.pipelines.length;
  }

  /** Where a submit that begins at `from` should end for it to hold about `work`, one call at least, and what it holds. */
  after(from: number, work: number): { to: number; work: number } {
    let sum = this.cost[from]!;
    let to = from + 1;
    while (to < this.cost.length && sum + this.cost[to]! <= work) sum += this.cost[to++]!;
    return { to, work: sum };
  }

  /**
   * Replays the whole plan with each call in a pass of its own between two timestamps; the results are the same.
   * @returns the way to the times, or null where the adapter has no timestamps
   */
  replayTimed(): TimedReplay | null {
    const { device, facts } = this.gpu;
    if (!facts.timestamps) return null;
    const parts: { count: number; set: GPUQuerySet; resolve: GPUBuffer; staging: GPUBuffer }[] = [];
    let from = 0;
    for (const cut of this.cuts) {
      for (; from < cut; from = Math.min(cut, from + CALLS_PER_QUERY_SET)) {
        const count = Math.min(cut - from, CALLS_PER_QUERY_SET);
        const [resolving, reading] = [GPUBufferUsage.QUERY_RESOLVE, GPUBufferUsage.MAP_READ];
        const set = device.createQuerySet({ type: "timestamp", count: 2 * count });
        const resolve = device.createBuffer({ size: 16 * count, usage: resolving | GPUBufferUsage.COPY_SRC });
        const staging = device.createBuffer({ size: 16 * count, usage: reading | GPUBufferUsage.COPY_DST });
        const encoder = device.createCommandEncoder();
        for (let k = 0; k < count; k++) {
          const i = from + k;
          const pass = encoder.beginComputePass({
            timestampWrites: { querySet: set, beginningOfPassWriteIndex: 2 * k, endOfPassWriteIndex: 2 * k + 1 },
          });
          pass.setPipeline(this.pipelines[i]!);
          pass.setBindGroup(0, this.groups[i]!);
          pass.dispatchWorkgroups(this.grids[i * 3]!, this.grids[i * 3 + 1]!, this.grids[i * 3 + 2]!);
          pass.end();
        }
        encoder.resolveQuerySet(set, 0, 2 * count, resolve, 0);
        encoder.copyBufferToBuffer(resolve, 0, staging, 0, 16 * count);
        device.queue.submit([encoder.finish()]);
        parts.push({ count, set, resolve, staging });
      }
    }
    const read = async () => {
      const times = new BigUint64Array(2 * this.pipelines.length);
      let at = 0;
      for (const { count, set, resolve, staging } of parts) {
        await this.gpu.wait(staging.mapAsync(GPUMapMode.READ));
        times.set(new BigUint64Array(staging.getMappedRange()), at);
        at += 2 * count;
        staging.unmap();
        for (const thing of [set, resolve, staging]) thing.destroy();
      }
      return times;
    };
    return { read };
  }

  /** Times each call with timestamps; seconds by call, or null where the adapter has none. */
  async profile(): Promise<Float64Array | null> {
    const times = await this.replayTimed()?.read();
    if (!times) return null;
    return Float64Array.from({ length: times.length / 2 }, (_, k) => Number(times[2 * k + 1]! - times[2 * k]!) * 1e-9);
  }

  destroy(): void {
    this.uniforms.destroy();
  }
}
