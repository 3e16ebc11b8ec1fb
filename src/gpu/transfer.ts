// Moving bytes between host and device. Uploads go through the queue in pieces; readback goes through one persistent
// staging buffer that grows, because a fresh one a step costs more than the copy.

import type { Gpu } from "./device.ts";

/** Uploads are cut so that the queue's own staging memory stays small. */
const UPLOAD_PIECE = 16 << 20;

export function upload(gpu: Gpu, buffer: GPUBuffer, offset: number, data: ArrayBufferView): void {
  const bytes = new Uint8Array(data.buffer as ArrayBuffer, data.byteOffset, data.byteLength);
  for (let at = 0; at < bytes.byteLength; at += UPLOAD_PIECE) {
    let piece = bytes.subarray(at, Math.min(at + UPLOAD_PIECE, bytes.byteLength));
    if (piece.byteLength % 4 !== 0) {
      // Queue writes count in words; the padding lies inside the variable's own aligned room.
      const padded = new Uint8Array(Math.ceil(piece.byteLength / 4) * 4);
      padded.set(piece);
      piece = padded;
    }
    gpu.device.queue.writeBuffer(buffer, offset + at, piece as Uint8Array<ArrayBuffer>);
  }
}

/** A buffer of the staging ring is this large, or a fraction of a smaller ring. */
const STAGING_PIECE = 32 << 20;

/**
 * Uploads through a few mapped buffers that are used again and again. For words that come all the time it is faster than
 * the queue's own writes, whose memory is new each time, and takes no more memory than it was given: a writer waits until
 * the device has copied what lies in the oldest buffer.
 */
export class Staging {
  /** Milliseconds in which a writer waited for a buffer. */
  waited = 0;
  private readonly gpu: Gpu;
  private readonly buffers: { buffer: GPUBuffer; ready: Promise<unknown> | null }[];
  private readonly pieceBytes: number;
  private at = 0;
  private room: Uint8Array | null = null;
  private filled = 0;
  private copies: { buffer: GPUBuffer; offset: number; from: number; bytes: number }[] = [];

  /** @param bytes of all buffers together */
  constructor(gpu: Gpu, bytes: number) {
    this.gpu = gpu;
    const count = Math.max(2, Math.ceil(bytes / STAGING_PIECE));
    this.pieceBytes = Math.max(4096, Math.floor(bytes / count / 256) * 256);
    const usage = GPUBufferUsage.MAP_WRITE | GPUBufferUsage.COPY_SRC;
    this.buffers = Array.from({ length: count }, (_, i) => ({
      buffer: gpu.device.createBuffer({ size: this.pieceBytes, usage, label: `staging.${i}`, mappedAtCreation: true }),
      ready: null,
    }));
  }

  /** Copies `data` to a buffer, in the queue's order of the `flush` that follows or of an earlier one. */
  async write(buffer: GPUBuffer, offset: number, data: ArrayBufferView): Promise<void> {
    const bytes = new Uint8Array(data.buffer as ArrayBuffer, data.byteOffset, data.byteLength);
    for (let from = 0; from < bytes.byteLength; ) {
      this.room ??= await this.open();
      const part = bytes.subarray(from, from + Math.min(bytes.byteLength - from, this.pieceBytes - this.filled));
      this.room.set(part, this.filled);
      // Copies count in words; the padding lies inside the variable's own aligned room.
      const padded = Math.ceil(part.byteLength / 4) * 4;
      this.copies.push({ buffer, offset: offset + from, from: this.filled, bytes: padded });
      this.filled += padded;
      from += part.byteLength;
      if (this.filled === this.pieceBytes) this.flush();
    }
  }

  private async open(): Promise<Uint8Array> {
    const { buffer, ready } = this.buffers[this.at]!;
    if (ready) {
      const started = performance.now();
      await this.gpu.wait(ready);
      this.gpu.check();
      this.waited += performance.now() - started;
    }
    return new Uint8Array(buffer.getMappedRange());
  }

  /** Hands everything that was written to the queue. */
  flush(): void {
    if (!this.room) return;
    const piece = this.buffers[this.at]!;
    const { device } = this.gpu;
    this.room = null;
    piece.buffer.unmap();
    const encoder = device.createCommandEncoder();
    for (const { buffer, offset, from, bytes } of this.copies) {
      encoder.copyBufferToBuffer(piece.buffer, from, buffer, offset, bytes);
    }
    device.queue.submit([encoder.finish()]);
    piece.ready = piece.buffer.mapAsync(GPUMapMode.WRITE);
    // A device that is lost while nobody waits here is reported by the next one who does.
    piece.ready.catch(() => undefined);
    this.copies = [];
    this.filled = 0;
    this.at = (this.at + 1) % this.buffers.length;
  }

  destroy(): void {
    for (const { buffer } of this.buffers) buffer.destroy();
  }
}

export class Readback {
  private readonly gpu: Gpu;
  private staging: GPUBuffer | null = null;
  private busy: Promise<unknown> = Promise.resolve();

  constructor(gpu: Gpu) {
    this.gpu = gpu;
  }

  /** Copies `bytes` (a multiple of 4) out of a device buffer; calls are served one after the other. */
  read(buffer: GPUBuffer, offset: number, bytes: number): Promise<ArrayBuffer> {
    const answer = this.busy.then(() => this.readNow(buffer, offset, bytes));
    this.busy = answer.catch(() => undefined);
    return answer;
  }

  private async readNow(buffer: GPUBuffer, offset: number, bytes: number): Promise<ArrayBuffer> {
    const { device } = this.gpu;
    if (!this.staging || this.staging.size < bytes) {
      this.staging?.destroy();
      this.staging = device.createBuffer({
        size: Math.max(bytes, 4096),
        usage: GPUBufferUsage.COPY_DST | GPUBufferUsage.MAP_READ,
      });
    }
    const encoder = device.createCommandEncoder();
    encoder.copyBufferToBuffer(buffer, offset, this.staging, 0, bytes);
    device.queue.submit([encoder.finish()]);
    await this.gpu.wait(this.staging.mapAsync(GPUMapMode.READ, 0, bytes));
    this.gpu.check();
    const copy = this.staging.getMappedRange(0, bytes).slice(0);
    this.staging.unmap();
    return copy;
  }

  destroy(): void {
    this.staging?.destroy();
    this.staging = null;
  }
}
