// Files of torch.save since torch 1.6: a zip archive of stored entries, `<root>/data.pkl` with the structure and
// `<root>/data/<key>` with the bytes of every storage. Sizes come from the archive's directory alone, because torch
// leaves them out of the entries' own headers.

import type { FileStore } from "../base/files.ts";
import { crc32 } from "./crc32.ts";
import { LONGEST_PICKLE, unpickle } from "./pickle.ts";
import { PickleError, type PickleValue } from "./pickle_values.ts";
import { asCheckpoint, CONVERT, refusal } from "./torch_error.ts";
import { TorchRules } from "./torch_rules.ts";
import { ZipArchive, type ZipEntry } from "./zip.ts";

export interface TorchZip {
  archive: ZipArchive;
  root: PickleValue;
  /** The entry of every storage, by key. */
  entries: Map<string, ZipEntry>;
  rules: TorchRules;
}

/** Opens and reads the structure; the archive is closed where that fails. */
export async function readTorchZip(files: FileStore, path: string): Promise<TorchZip> {
  const limits = { maxBytes: Number.MAX_SAFE_INTEGER, maxEntries: 400_000 };
  const archive = await asCheckpoint(ZipArchive.open(files, path, limits));
  try {
    return { archive, ...(await readStructure(archive, path)) };
  } catch (error) {
    await archive.close();
    throw error;
  }
}

async function readStructure(archive: ZipArchive, path: string) {
  const layout = (why: string, fix?: string) =>
    refusal("E-FILE-101", path, "the archive is not one that torch.save writes", why, fix);
  const twice = archive.refused.find(({ code }) => code === "E-DATA-047");
  if (twice) throw layout(`it holds ${twice.name} twice, and readers disagree on which counts`);

  // torch can leave checksums out, and then writes 0.
  const stored = async (entry: ZipEntry) => {
    const bytes = await (await asCheckpoint(archive.ranges(entry)))(0, entry.size);
    if (entry.crc !== 0 && crc32(bytes) !== entry.crc)
      throw refusal("E-FILE-108", path, `${entry.name} is damaged`, "its checksum is wrong");
    return bytes;
  };
  const byName = new Map(archive.entries.map((entry) => [entry.name, entry]));
  const pickles = archive.entries.filter(({ name }) => /^[^/]+\/data\.pkl$/.test(name));
  const isScript = archive.entries.some(({ name }) => /^[^/]+\/(?:constants\.pkl$|code\/)/.test(name));
  if (isScript)
    throw layout(
      "it is a TorchScript program, which holds code beside its weights",
      "save the state dict of the module as .safetensors (torch.jit.load, then safetensors.torch.save_file)",
    );
  if (pickles.length === 0) {
    const refused = archive.refused.find(({ name }) => name.endsWith("data.pkl"));
    throw layout(refused ? `its data.pkl cannot be used: ${refused.why}` : "it has no data.pkl");
  }
  if (pickles.length > 1) throw layout(`it has ${pickles.length} folders with a data.pkl`);
  const pickle = pickles[0]!;
  const root = pickle.name.slice(0, -"data.pkl".length);
  if (pickle.method !== 0) throw layout("its data.pkl is compressed; torch stores it as it is", CONVERT);
  if (pickle.size > LONGEST_PICKLE)
    throw new PickleError("limit", `data.pkl has ${pickle.size} bytes, at most ${LONGEST_PICKLE} are read`);

  const order = byName.get(`${root}byteorder`);
  if (order !== undefined) {
    const word = order.method === 0 && order.size <= 16 ? new TextDecoder().decode(await stored(order)) : "";
    if (word !== "little")
      throw layout(
        word === "big" ? "its numbers are big-endian" : "its byteorder is neither little nor big",
        "save it again with torch on a little-endian machine",
      );
  }

  const rules = new TorchRules();
  const bytes = await stored(pickle);
  const { value } = unpickle(bytes, 0, rules);
  const entries = new Map<string, ZipEntry>();
  for (const storage of rules.storages.values()) {
    const name = JSON.stringify(storage.key);
    const entry = /^[^/\\]+$/.test(storage.key) ? byName.get(`${root}data/${storage.key}`) : undefined;
    if (entry === undefined) throw new PickleError("storage", `the archive has no entry for storage ${name}`);
    if (entry.method !== 0) throw layout(`storage ${name} is compressed; torch stores it as it is`, CONVERT);
    if (entry.size !== storage.bytes)
      throw new PickleError(
        "storage",
        `storage ${name} is described with ${storage.bytes} bytes, and its entry has ${entry.size}`,
      );
    entries.set(storage.key, entry);
  }
  return { root: value, rules, entries };
}
