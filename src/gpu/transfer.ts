// Moving bytes between host and device. Small uploads go through the queue in pieces, large ones through a ring of mapped
// buffers; readback hands out mapped memory itself, from buffers that stay and grow, because both fresh memory and a copy in
// JavaScript cost more than the transfer.

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
const STAGING_PIECE = 16 << 20;
/** So many buffers are in flight at least: one is filled while the device copies out of the others. */
const LEAST_PIECES = 4;

/** Mapped memory for uploads of many words at once. */
const UPLOAD_RING = 64 << 20;
/** Below this a ring costs more than it saves. */
const LEAST_RING = 1 << 20;

/**
 * How much mapped memory an upload of `bytes` goes through; 0 where the queue's own writes are better. Those take fresh
 * memory for every piece, which on hardware is several times slower than a ring. A software adapter has no memory of its
 * own: there the queue writes a buffer that is not in use in its place, one copy less than through a ring.
 */
export function uploadRingBytes(software: boolean, bytes: number): number {
  return software || bytes < LEAST_RING ? 0 : Math.min(UPLOAD_RING, Math.ceil(bytes / 4096) * 4096);
}

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
    const count = Math.max(LEAST_PIECES, Math.ceil(bytes / STAGING_PIECE));
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

/** Device memory as the host sees it, until it is released. */
export interface MappedBytes {
  /** Detached by `release`. */
  readonly data: ArrayBuffer;
  release(): void;
}

interface ReadbackPlace {
  buffer: GPUBuffer;
  busy: boolean;
}

/** Reads go through so many buffers at once; one that comes while all are in use waits. */
const READBACK_PLACES = 2;

/**
 * Reads device memory through buffers that are mapped in turns. What they hold is read in place: copying it out with
 * JavaScript is many times slower than the device's own copy (1.5 against 50 GB/s on an H100).
 */
export class Readback {
  private readonly gpu: Gpu;
  private readonly places: ReadbackPlace[] = [];
  private readonly waiting: (() => void)[] = [];

  constructor(gpu: Gpu) {
    this.gpu = gpu;
  }

  /** Copies `bytes` (a multiple of 4) out of a device buffer into memory of their own. */
  async read(buffer: GPUBuffer, offset: number, bytes: number): Promise<ArrayBuffer> {
    const { data, release } = await this.map(buffer, offset, bytes);
    const copy = data.slice(0);
    release();
    return copy;
  }

  /** Maps `bytes` (a multiple of 4) of a device buffer as they are at this point of the queue. */
  async map(buffer: GPUBuffer, offset: number, bytes: number): Promise<MappedBytes> {
    const place = await this.take(bytes);
    try {
      const { device } = this.gpu;
      const encoder = device.createCommandEncoder();
      encoder.copyBufferToBuffer(buffer, offset, place.buffer, 0, bytes);
      device.queue.submit([encoder.finish()]);
      await this.gpu.wait(place.buffer.mapAsync(GPUMapMode.READ, 0, bytes));
      this.gpu.check();
    } catch (error) {
      this.give(place);
      throw error;
    }
    let open = true;
    return {
      data: place.buffer.getMappedRange(0, bytes),
      release: () => {
        if (!open) return;
        open = false;
        place.buffer.unmap();
        this.give(place);
      },
    };
  }

  private async take(bytes: number): Promise<ReadbackPlace> {
    let place = this.places.find((p) => !p.busy);
    while (!place && this.places.length >= READBACK_PLACES) {
      await new Promise<void>((resolve) => this.waiting.push(resolve));
      place = this.places.find((p) => !p.busy);
    }
    if (place && place.buffer.size >= bytes) {
      place.busy = true;
      return place;
    }
    place?.buffer.destroy();
    const buffer = this.gpu.device.createBuffer({
      size: Math.max(bytes, 4096),
      usage: GPUBufferUsage.COPY_DST | GPUBufferUsage.MAP_READ,
    });
    if (place) {
      place.buffer = buffer;
      place.busy = true;
      return place;
    }
    const made = { buffer, busy: true };
    this.places.push(made);
    return made;
  }

  private give(place: ReadbackPlace): void {
    place.busy = false;
    this.waiting.shift()?.();
  }

  destroy(): void {
    for (const { buffer } of this.places) buffer.destroy();
    this.places.length = 0;
  }
}
