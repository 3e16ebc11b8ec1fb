// The project's files for tests that run in a page: fetched from the server of the tests (scripts/node_in_browser.mjs). Stands in for
// tests/helpers/files.ts and for the platform's own files.

/// <reference types="vite/types/importMeta.d.ts" />

import { LongtailError } from "../../../src/base/errors.ts";
import type { FileHandle, FileStore } from "../../../src/base/files.ts";
import { join } from "./path.ts";

const places = Object.keys(
  import.meta.glob(["/models/**/*", "/tests/fixtures/{clip_preprocess,flux1_small}/*"], {
    query: "?url",
    import: "default",
  }),
);

export const ROOT = "";
export const projectFolder = "";
export const MODELS = "/models";
export const FIXTURES = "/tests/fixtures";
export const OWN_FIXTURES = FIXTURES;

const never = (): never => {
  throw new Error("files of the project are read-only here");
};

/** Reads alone; a file is fetched whole when it is opened. */
export class NodeFiles implements FileStore {
  async exists(given: string): Promise<boolean> {
    const path = join(given);
    return places.some((place) => place === path || place.startsWith(`${path}/`));
  }
  async list(given: string): Promise<string[]> {
    const path = join(given);
    const inside = places.filter((place) => place.startsWith(`${path}/`));
    return [...new Set(inside.map((place) => place.slice(path.length + 1).split("/")[0]!))].sort();
  }
  async open(path: string): Promise<FileHandle> {
    const bytes = await this.readBytes(path);
    return {
      size: bytes.length,
      async read(offset, length) {
        if (offset + length > bytes.length)
          throw new LongtailError("E-FILE-003", { what: "the file ends earlier", where: path });
        return bytes.slice(offset, offset + length);
      },
      async close() {},
    };
  }
  async readBytes(given: string): Promise<Uint8Array> {
    const path = join(given);
    if (!places.includes(path)) throw new LongtailError("E-FILE-001", { what: "no such file", where: path });
    const answer = await fetch(`/longtail-files${path}`);
    if (!answer.ok) throw new Error(`${path}: HTTP ${answer.status}`);
    return new Uint8Array(await answer.arrayBuffer());
  }
  async readText(path: string): Promise<string> {
    return new TextDecoder().decode(await this.readBytes(path));
  }
  async freeSpace(): Promise<number | null> {
    return null;
  }
  writeAtomic = never;
  append = never;
  makeFolder = never;
  rename = never;
  remove = never;
}

export { NodeFiles as DiskFiles };
