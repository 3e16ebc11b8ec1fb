// A disk that has no space for chosen files: half of the first write arrives, as on a real one.

import * as fs from "node:fs/promises";
import type { DiskCalls } from "../../src/platform/files.ts";

export class FullDisk implements DiskCalls {
  readonly rename = fs.rename;
  readonly rm = fs.rm;
  readonly statfs = fs.statfs;
  readonly open: DiskCalls["open"];

  constructor(isFull: (path: string) => boolean) {
    this.open = (async (path, ...rest) => {
      const handle = await fs.open(path, ...rest);
      if (!isFull(String(path))) return handle;
      const write = handle.write.bind(handle) as (
        bytes: Uint8Array,
        offset: number,
        length: number,
      ) => Promise<unknown>;
      return new Proxy(handle, {
        get: (target, key) => {
          if (key === "write")
            return async (bytes: Uint8Array, offset: number, length: number) => {
              await write(bytes, offset, Math.floor(length / 2));
              throw Object.assign(new Error("ENOSPC: no space left on device"), { code: "ENOSPC" });
            };
          const value = Reflect.get(target, key, target) as unknown;
          return typeof value === "function" ? value.bind(target) : value;
        },
      });
    }) as DiskCalls["open"];
  }
}
