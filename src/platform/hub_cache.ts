// The cache folder of downloaded models, in the layout that huggingface_hub's tools share: `models--owner--name` with
// blobs by hash, snapshots by commit that link to them, and refs that say which commit a branch was. What other tools have
// fetched is found here and the other way round. `.longtail` beside them keeps what a commit consists of, so that a
// complete model needs no request.

import * as fs from "node:fs/promises";
import { dirname, join, relative } from "node:path";
import { safeName } from "../formats/safe_name.ts";
import type { HubFile } from "../models/hub_id.ts";
import { DiskFiles } from "./files.ts";

const COMMIT = /^[0-9a-f]{40}$/;

export const isCommit = (revision: string): boolean => COMMIT.test(revision);

export class HubCache {
  /** Folder of the repository. */
  readonly folder: string;
  readonly #files = new DiskFiles();

  constructor(root: string, repository: string) {
    this.folder = join(root, `models--${repository.replace("/", "--")}`);
  }

  /** Place of a file, or of the whole snapshot for "". */
  snapshot(commit: string, path: string): string {
    return join(this.folder, "snapshots", commit, path);
  }

  blob(hex: string): string {
    return join(this.folder, "blobs", hex);
  }

  /** The commit that a branch or tag was when it was last asked for, or null. */
  async commitOf(revision: string): Promise<string | null> {
    if (isCommit(revision)) return revision;
    const text = await fs.readFile(join(this.folder, "refs", revision), "utf8").catch(() => "");
    return isCommit(text.trim()) ? text.trim() : null;
  }

  async remember(revision: string, commit: string): Promise<void> {
    if (!isCommit(revision)) await this.#files.writeAtomic(join(this.folder, "refs", revision), commit);
  }

  /** The files of a commit as the hub listed them, or null. */
  async listing(commit: string): Promise<HubFile[] | null> {
    const text = await fs.readFile(join(this.folder, ".longtail", `${commit}.json`), "utf8").catch(() => null);
    try {
      return text === null ? null : checkListing((JSON.parse(text) as { files: unknown }).files);
    } catch {
      // Damaged: it is asked for again.
      return null;
    }
  }

  async writeListing(commit: string, files: readonly HubFile[]): Promise<void> {
    const path = join(this.folder, ".longtail", `${commit}.json`);
    await this.#files.writeAtomic(path, `${JSON.stringify({ commit, files }, null, 1)}\n`);
  }

  /** Files of a snapshot that another tool fetched; their hashes are not known. */
  async walk(commit: string): Promise<HubFile[]> {
    const found: HubFile[] = [];
    const visit = async (folder: string): Promise<void> => {
      for (const name of await fs.readdir(this.snapshot(commit, folder)).catch(() => [] as string[])) {
        const path = folder === "" ? name : `${folder}/${name}`;
        const facts = await fs.stat(this.snapshot(commit, path)).catch(() => null);
        if (facts?.isDirectory()) await visit(path);
        else if (facts?.isFile()) found.push({ path, size: facts.size, hash: null });
      }
    };
    await visit("");
    return found;
  }

  /** Whether a file of a snapshot is there, as long as it should be. */
  async has(commit: string, file: HubFile): Promise<boolean> {
    const facts = await fs.stat(this.snapshot(commit, file.path)).catch(() => null);
    return facts?.isFile() === true && facts.size === file.size;
  }

  /** Puts a blob into a snapshot: as a link where the system allows, else as the file itself. */
  async link(commit: string, path: string, hex: string): Promise<void> {
    const place = this.snapshot(commit, path);
    const blob = this.blob(hex);
    await fs.mkdir(dirname(place), { recursive: true });
    const target = relative(dirname(place), blob);
    if ((await fs.readlink(place).catch(() => null)) === target) return;
    await fs.rm(place, { force: true });
    try {
      await fs.symlink(target, place);
    } catch (error) {
      if ((error as { code?: string }).code === "EEXIST") return;
      // Windows allows links to developers alone.
      await fs.link(blob, place).catch(() => fs.rename(blob, place));
    }
  }
}

/** Files with plain relative paths, sizes and hashes. @throws Error where an entry is not so */
export function checkListing(entries: unknown): HubFile[] {
  if (!Array.isArray(entries)) throw new Error("the list of files is no list");
  return entries.map((entry: Partial<HubFile> | null) => {
    const { path, size, hash } = entry ?? {};
    if (typeof path !== "string" || safeName(path) !== path)
      throw new Error(`${JSON.stringify(path)} is no path of a file`);
    if (!Number.isSafeInteger(size) || size! < 0) throw new Error(`${path} has no size`);
    const digits = hash?.kind === "sha256" ? 64 : hash?.kind === "git" ? 40 : 0;
    if (!hash || typeof hash.hex !== "string" || !/^[0-9a-f]+$/.test(hash.hex) || hash.hex.length !== digits) {
      throw new Error(`${path} has no hash`);
    }
    return { path, size: size!, hash: { kind: hash.kind, hex: hash.hex } };
  });
}
