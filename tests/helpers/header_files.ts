// Safetensors files that are a header and nothing behind it: enough to open a model of any size, declare its weights and
// trace its plans on a host that could not hold a hundredth of it. Reading a value fails.

import type { FileHandle } from "../../src/base/files.ts";
import { NodeFiles } from "./files.ts";

const BF16_BYTES = 2;

export class HeaderFiles extends NodeFiles {
  private readonly made = new Map<string, { bytes: Uint8Array; size: number }>();

  addJson(path: string, value: unknown): void {
    const bytes = new TextEncoder().encode(JSON.stringify(value));
    this.made.set(path, { bytes, size: bytes.length });
  }

  /** A file that says it holds these tensors as BF16. */
  addWeights(path: string, tensors: Iterable<readonly [string, readonly number[]]>): void {
    let at = 0;
    const header: Record<string, unknown> = {};
    for (const [name, shape] of tensors) {
      const bytes = BF16_BYTES * shape.reduce((a, b) => a * b, 1);
      header[name] = { dtype: "BF16", shape, data_offsets: [at, at + bytes] };
      at += bytes;
    }
    const text = JSON.stringify(header);
    const padded = new TextEncoder().encode(text.padEnd(Math.ceil(text.length / 8) * 8));
    const bytes = new Uint8Array(8 + padded.length);
    new DataView(bytes.buffer).setBigUint64(0, BigInt(padded.length), true);
    bytes.set(padded, 8);
    this.made.set(path, { bytes, size: bytes.length + at });
  }

  override async exists(path: string): Promise<boolean> {
    return this.made.has(path) || [...this.made.keys()].some((p) => p.startsWith(`${path}/`)) || super.exists(path);
  }

  override async list(folder: string): Promise<string[]> {
    const own = [...this.made.keys()].filter((path) => path.startsWith(`${folder}/`));
    return own.length > 0 ? own.map((path) => path.slice(folder.length + 1).split("/")[0]!) : super.list(folder);
  }

  override async open(path: string): Promise<FileHandle> {
    const file = this.made.get(path);
    if (!file) return super.open(path);
    return {
      size: file.size,
      read: async (offset, length) => {
        if (offset + length > file.bytes.length) throw new Error(`${path} is a header alone`);
        return file.bytes.slice(offset, offset + length);
      },
      close: async () => {},
    };
  }

  override async readBytes(path: string): Promise<Uint8Array> {
    return this.made.get(path)?.bytes ?? super.readBytes(path);
  }
}
