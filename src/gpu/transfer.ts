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
