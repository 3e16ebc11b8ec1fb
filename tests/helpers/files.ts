// File stores for tests: one in memory, which can be told to run out of space, and one that reads the real disk.
// Where the dumps and the shipped models lie is answered here as well.

import { appendFile, mkdir, open, readdir, rename, rm, stat, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { LongtailError } from "../../src/base/errors.ts";
import type { FileHandle, FileStore } from "../../src/base/files.ts";

/** The project's folder. */
export const ROOT = fileURLToPath(new URL("../..", import.meta.url)).replace(/\/$/, "");
/** The models that come with the project. */
export const MODELS = join(ROOT, "models");
/** The reference dumps: the folder named by LONGTAIL_FIXTURES, else the project's own copy. */
export const FIXTURES = process.env.LONGTAIL_FIXTURES || join(ROOT, "tests/fixtures");
/** The project's own copy of the dumps, for those that are always taken from it. */
export const OWN_FIXTURES = join(ROOT, "tests/fixtures");

type Chunks = Parameters<FileStore["writeAtomic"]>[1];

async function gather(chunks: Chunks): Promise<Uint8Array> {
  if (typeof chunks === "string") return new TextEncoder().encode(chunks);
  if (chunks instanceof Uint8Array) return chunks.slice();
  const parts: Uint8Array[] = [];
  for await (const part of chunks) parts.push(part.slice());
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

const endsEarly = (path: string) => new LongtailError("E-FILE-003", { what: "the file ends earlier", where: path });
const noFile = (path: string) => new LongtailError("E-FILE-001", { what: "no such file", where: path });

/** Files in a Map; `reads` counts the bytes read through handles, `openHandles` those not yet closed. */
export class MemoryFiles implements FileStore {
  readonly content = new Map<string, Uint8Array>();
  reads = 0;
  openHandles = 0;
  /** The next write fails with this error. */
  failWrite: Error | null = null;

  constructor(content: Record<string, Uint8Array | string> = {}) {
    for (const [path, data] of Object.entries(content)) {
      this.content.set(path, typeof data === "string" ? new TextEncoder().encode(data) : data);
    }
  }
  async exists(path: string): Promise<boolean> {
    return this.content.has(path) || (await this.list(path)).length > 0;
  }
  async list(path: string): Promise<string[]> {
    const prefix = path === "" || path.endsWith("/") ? path : `${path}/`;
    const names = [...this.content.keys()].filter((name) => name.startsWith(prefix));
    return [...new Set(names.map((name) => name.slice(prefix.length).split("/")[0]!))].sort();
  }
  async open(path: string): Promise<FileHandle> {
    const bytes = this.content.get(path);
    if (!bytes) throw noFile(path);
    this.openHandles++;
    return {
      size: bytes.length,
      read: async (offset, length) => {
        if (offset + length > bytes.length) throw endsEarly(path);
        this.reads += length;
        return bytes.slice(offset, offset + length);
      },
      close: async () => {
        this.openHandles--;
      },
    };
  }
  async readBytes(path: string): Promise<Uint8Array> {
    const bytes = this.content.get(path);
    if (!bytes) throw noFile(path);
    return bytes;
  }
  async readText(path: string): Promise<string> {
    return new TextDecoder().decode(await this.readBytes(path));
  }
  async writeAtomic(path: string, chunks: Chunks): Promise<void> {
    if (this.failWrite) throw this.failWrite;
    this.content.set(path, await gather(chunks));
  }
  async append(path: string, text: string): Promise<void> {
    const before = this.content.has(path) ? await this.readText(path) : "";
    this.content.set(path, new TextEncoder().encode(before + text));
  }
  async makeFolder(): Promise<void> {}
  async rename(from: string, to: string): Promise<void> {
    this.content.set(to, await this.readBytes(from));
    this.content.delete(from);
  }
  async remove(path: string): Promise<void> {
    for (const name of [...this.content.keys()])
      if (name === path || name.startsWith(`${path}/`)) this.content.delete(name);
  }
  async freeSpace(): Promise<number | null> {
    return null;
  }
}

/** The real disk, as plainly as tests need it. */
export class NodeFiles implements FileStore {
  async exists(path: string): Promise<boolean> {
    return stat(path).then(
      () => true,
      () => false,
    );
  }
  async list(path: string): Promise<string[]> {
    return readdir(path).then(
      (names) => names.sort(),
      () => [],
    );
  }
  async open(path: string): Promise<FileHandle> {
    const file = await open(path).catch(() => {
      throw noFile(path);
    });
    const { size } = await file.stat();
    return {
      size,
      read: async (offset, length) => {
        const bytes = new Uint8Array(length);
        const { bytesRead } = await file.read(bytes, 0, length, offset);
        if (bytesRead < length) throw endsEarly(path);
        return bytes;
      },
      close: () => file.close(),
    };
  }
  async readBytes(path: string): Promise<Uint8Array> {
    const handle = await this.open(path);
    try {
      return await handle.read(0, handle.size);
    } finally {
      await handle.close();
    }
  }
  async readText(path: string): Promise<string> {
    return new TextDecoder().decode(await this.readBytes(path));
  }
  async writeAtomic(path: string, chunks: Chunks): Promise<void> {
    await mkdir(dirname(path), { recursive: true });
    await writeFile(`${path}.part`, await gather(chunks));
    await rename(`${path}.part`, path);
  }
  async append(path: string, text: string): Promise<void> {
    await appendFile(path, text);
  }
  async makeFolder(path: string): Promise<void> {
    await mkdir(path, { recursive: true });
  }
  async rename(from: string, to: string): Promise<void> {
    await rename(from, to);
  }
  async remove(path: string): Promise<void> {
    await rm(path, { recursive: true, force: true });
  }
  async freeSpace(): Promise<number | null> {
    return null;
  }
}
