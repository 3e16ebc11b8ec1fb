// Files in memory, with the same rules as those of a disk: what the page works with where the browser gives it no storage (some
// private windows), and what tests use in a disk's place. All of it is gone when the page is closed.

import { LongtailError } from "../../base/errors.ts";
import type { FileHandle, FileStore } from "../../base/files.ts";
import { plainPath } from "./opfs_names.ts";

type Chunks = Parameters<FileStore["writeAtomic"]>[1];

export class MemoryFiles implements FileStore {
  readonly #content = new Map<string, Uint8Array>();
  readonly #folders = new Set<string>([""]);

  async exists(path: string): Promise<boolean> {
    const place = plainPath(path);
    return this.#content.has(place) || this.#folders.has(place);
  }

  async list(path: string): Promise<string[]> {
    const place = plainPath(path);
    const prefix = place === "" ? "" : `${place}/`;
    const names = [...this.#content.keys(), ...this.#folders].filter((name) => name !== "" && name.startsWith(prefix));
    return [...new Set(names.map((name) => name.slice(prefix.length).split("/")[0]!))].sort();
  }

  async open(path: string): Promise<FileHandle> {
    const bytes = this.#read(path);
    return {
      size: bytes.length,
      read: async (offset, length) => {
        if (offset + length > bytes.length) {
          throw new LongtailError("E-FILE-003", {
            what: `the file ends too early: bytes ${offset} to ${offset + length} are wanted and it has ${bytes.length}`,
            where: path,
          });
        }
        return bytes.slice(offset, offset + length);
      },
      close: async () => {},
    };
  }

  async readBytes(path: string): Promise<Uint8Array> {
    return this.#read(path).slice();
  }

  async readText(path: string): Promise<string> {
    return new TextDecoder().decode(this.#read(path));
  }

  async writeAtomic(path: string, chunks: Chunks): Promise<void> {
    const parts: Uint8Array[] = [];
    if (typeof chunks === "string") parts.push(new TextEncoder().encode(chunks));
    else if (chunks instanceof Uint8Array) parts.push(chunks);
    // Each piece is copied: a writer may use its buffer again.
    else for await (const chunk of chunks) parts.push(chunk.slice());
    this.#put(path, joined(parts));
  }

  async append(path: string, text: string): Promise<void> {
    const before = this.#content.get(plainPath(path)) ?? new Uint8Array(0);
    this.#put(path, joined([before, new TextEncoder().encode(text)]));
  }

  async makeFolder(path: string): Promise<void> {
    this.#makeFolder(path, plainPath(path));
  }

  async rename(from: string, to: string): Promise<void> {
    const [source, target] = [plainPath(from), plainPath(to)];
    if (source === target) return;
    const content = this.#content.get(source);
    if (!content && !this.#folders.has(source)) throw missing(from);
    if (!this.#folders.has(target.split("/").slice(0, -1).join("/"))) throw missing(to);
    if (content) {
      this.#put(to, content);
      this.#content.delete(source);
      return;
    }
    if (this.#content.has(target) || (await this.list(to)).length > 0 || target.startsWith(`${source}/`))
      throw refused(to, "a folder of that name exists already");
    const moved = (name: string) => target + name.slice(source.length);
    for (const name of [...this.#content.keys()].filter((name) => name.startsWith(`${source}/`))) {
      this.#content.set(moved(name), this.#content.get(name)!);
      this.#content.delete(name);
    }
    for (const name of [...this.#folders].filter((name) => name === source || name.startsWith(`${source}/`))) {
      this.#folders.add(moved(name));
      this.#folders.delete(name);
    }
  }

  async remove(path: string): Promise<void> {
    const place = plainPath(path);
    for (const names of [this.#content, this.#folders]) {
      for (const name of [...names.keys()]) if (name === place || name.startsWith(`${place}/`)) names.delete(name);
    }
  }

  async freeSpace(): Promise<number | null> {
    return null;
  }

  #read(path: string): Uint8Array {
    const place = plainPath(path);
    const bytes = this.#content.get(place);
    if (!bytes) throw this.#folders.has(place) ? refused(path, "it is a folder") : missing(path);
    return bytes;
  }

  #put(path: string, bytes: Uint8Array): void {
    const place = plainPath(path);
    if (this.#folders.has(place)) throw refused(path, "it is a folder");
    this.#makeFolder(path, place.split("/").slice(0, -1).join("/"));
    this.#content.set(place, bytes);
  }

  #makeFolder(path: string, place: string): void {
    const segments = place === "" ? [] : place.split("/");
    for (let count = 1; count <= segments.length; count++) {
      const folder = segments.slice(0, count).join("/");
      if (this.#content.has(folder)) throw refused(path, "a file of that name is in the way");
      this.#folders.add(folder);
    }
  }
}

function joined(parts: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

function missing(path: string): LongtailError {
  return new LongtailError("E-FILE-001", { what: "there is no such file", where: path });
}

function refused(path: string, why: string): LongtailError {
  return new LongtailError("E-FILE-004", { what: "the file cannot be read or written", where: path, why });
}
