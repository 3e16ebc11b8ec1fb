// Which weights a file holds, told without reading all of it: a text encoder has ten gigabytes, and its header, size and
// ends differ whenever anybody saves other weights. Used in the names of cached encodings.

import type { FileStore } from "../base/files.ts";
import { sha256 } from "../base/hash.ts";

const END_BYTES = 1 << 20;

/** SHA-256 over size, first and last MiB of a file; of a sharded set, over its index and every shard's. */
export async function fileIdentity(files: FileStore, path: string): Promise<string> {
  if (await files.exists(path)) return await single(files, path);
  const index = await files.readText(`${path}.index.json`);
  const map = (JSON.parse(index) as { weight_map?: Record<string, string> }).weight_map ?? {};
  const folder = path.slice(0, path.lastIndexOf("/") + 1);
  const shards = [...new Set(Object.values(map))].sort();
  const parts = [await sha256(index)];
  for (const shard of shards) parts.push(await single(files, folder + shard));
  return await sha256(parts.join("\n"));
}

async function single(files: FileStore, path: string): Promise<string> {
  const file = await files.open(path);
  try {
    const end = Math.min(END_BYTES, file.size);
    const head = await sha256(await file.read(0, end));
    const tail = await sha256(await file.read(file.size - end, end));
    return await sha256(`${file.size} ${head} ${tail}`);
  } finally {
    await file.close();
  }
}
