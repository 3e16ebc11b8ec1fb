// Models by their name on a hub (`@huggingface/hub`, loaded only where one is named): which commit a branch is, which files
// it has, and those files on this machine, checked. A model that is here already needs no request where its commit is named
// or offline mode is on (HF_HUB_OFFLINE=1), and survives a network that is away.

import { readFile, stat } from "node:fs/promises";
import { homedir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { LongtailError } from "../base/errors.ts";
import type { EventSink } from "../base/events.ts";
import type { FileStore } from "../base/files.ts";
import {
  type ChooseFiles,
  type HubFile,
  type HubId,
  type HubSnapshot,
  hubIdText,
  type ModelHub,
  parseHubId,
} from "../models/hub_id.ts";
import { type DiskCalls, DiskFiles } from "./files.ts";
import { checkListing, HubCache, isCommit } from "./hub_cache.ts";
import { type Download, download, partialName } from "./hub_download.ts";
import { type HubContext, notCached } from "./hub_errors.ts";
import { interfaceFetch, type RequestSettings } from "./hub_requests.ts";

export interface HubSettings extends RequestSettings {
  /** Address of the hub; null for the public one. */
  endpoint: string | null;
  /** Folder of the cache. */
  cache: string;
  /** Sends no request at all. */
  offline: boolean;
  disk: DiskCalls | null;
}

type Environment = Readonly<Record<string, string | undefined>>;

const isOn = (value: string | undefined) => /^(?:1|on|yes|true)$/i.test(value ?? "");

/** Settings as the hub's other tools read them from the environment; `own` comes before that. */
export async function hubSettings(
  own: { offline?: boolean; cache?: string } = {},
  environment: Environment = process.env,
): Promise<HubSettings> {
  const general = environment["XDG_CACHE_HOME"] || join(environment["HOME"] || homedir(), ".cache");
  const home = environment["HF_HOME"] || join(general, "huggingface");
  const cache = environment["HF_HUB_CACHE"] || environment["HUGGINGFACE_HUB_CACHE"] || join(home, "hub");
  const offline = own.offline ?? isOn(environment["HF_HUB_OFFLINE"]);
  return {
    endpoint: environment["HF_ENDPOINT"]?.replace(/\/+$/, "") || null,
    cache: own.cache ?? cache,
    offline,
    token: offline ? null : await readToken(environment, home),
    fetch,
    retries: 5,
    pauseMs: 500,
    stallSeconds: 60,
    disk: null,
  };
}

async function readToken(environment: Environment, home: string): Promise<string | null> {
  const given = environment["HF_TOKEN"] || environment["HUGGING_FACE_HUB_TOKEN"];
  if (given) return given.trim();
  const path = environment["HF_TOKEN_PATH"] || join(home, "token");
  return (await readFile(path, "utf8").catch(() => "")).trim() || null;
}

/** How many files are fetched at once: one connection rarely fills a fast line. */
const AT_ONCE = 3;
const PROGRESS_MS = 250;
/** Space that stays free beside the files. */
const SPARE_BYTES = 64e6;

/** What is known of a model before files are looked at. */
interface Known {
  commit: string;
  files: HubFile[];
}

export class HubClient implements ModelHub {
  readonly settings: HubSettings;

  constructor(settings: HubSettings) {
    this.settings = settings;
  }

  /**
   * Brings the files that `choose` picks into the cache, or finds them there.
   * @throws LongtailError E-ENV-020 full disk, E-ENV-100 no network, 101 the hub fails, 102 no token, 103 token rejected, 104
   * licence not accepted, 105 offline and not here; E-FILE-130 no such model, 131 revision, 132 file, 133 wrong hash
   */
  async fetch(id: HubId, choose: ChooseFiles, events: EventSink = () => {}): Promise<HubSnapshot> {
    const cache = new HubCache(this.settings.cache, id.repository);
    if (this.settings.offline) return await this.#here(id, cache, choose);
    const hub = await import("@huggingface/hub");
    const endpoint = this.settings.endpoint ?? hub.HUB_URL;
    const context: HubContext = { id, endpoint, token: this.settings.token !== null };
    let known: Known;
    try {
      known = await this.#ask(hub, id, cache, context);
    } catch (error) {
      if (!(error instanceof LongtailError) || !["E-ENV-100", "E-ENV-101"].includes(error.code)) throw error;
      const snapshot = await this.#here(id, cache, choose).catch(() => null);
      if (!snapshot) throw error;
      events({
        kind: "warning",
        code: error.code,
        text: `${error.parts.what}: ${hubIdText(id)} is taken as it is here`,
      });
      return snapshot;
    }
    const chosen = pick(known.files, choose, id);
    const missing: HubFile[] = [];
    for (const file of chosen) if (!(await cache.has(known.commit, file))) missing.push(file);
    const fetched = missing.length > 0 ? await this.#download(known.commit, missing, cache, context, events) : 0;
    return { path: cache.snapshot(known.commit, id.path), commit: known.commit, fetched };
  }

  /** Everything from the cache. @throws LongtailError E-ENV-105 */
  async #here(id: HubId, cache: HubCache, choose: ChooseFiles): Promise<HubSnapshot> {
    const commit = await cache.commitOf(id.revision);
    if (!commit) throw notCached(id, `nothing of it is in ${cache.folder}`);
    const listed = await cache.listing(commit);
    const files = listed ?? (await cache.walk(commit));
    if (files.length === 0) throw notCached(id, `nothing of it is in ${cache.folder}`);
    const missing: string[] = [];
    for (const file of pick(files, choose, id)) if (!(await cache.has(commit, file))) missing.push(file.path);
    if (missing.length > 0) {
      const some = `${missing.slice(0, 3).join(", ")}${missing.length > 3 ? ", ..." : ""}`;
      throw notCached(id, `${missing.length} of its files are missing: ${some}`);
    }
    return { path: cache.snapshot(commit, id.path), commit, fetched: 0 };
  }

  /** Commit and files of a model; asks only for what is not known yet. */
  async #ask(hub: typeof import("@huggingface/hub"), id: HubId, cache: HubCache, context: HubContext): Promise<Known> {
    const hubUrl = context.endpoint;
    const asking = interfaceFetch(this.settings, context);
    let commit = id.revision;
    if (!isCommit(commit)) {
      const info = await hub.modelInfo({
        name: id.repository,
        revision: id.revision,
        additionalFields: ["sha"],
        hubUrl,
        fetch: asking,
      });
      commit = String(info.sha);
      if (!isCommit(commit)) throw confused(id, `its answer names no commit (${commit})`);
    }
    let files = await cache.listing(commit);
    if (!files) {
      const entries: { path: string; size: number; hash: HubFile["hash"] }[] = [];
      const listing = hub.listFiles({ repo: id.repository, recursive: true, revision: commit, hubUrl, fetch: asking });
      for await (const { type, path, size, oid, lfs } of listing) {
        if (type !== "file") continue;
        const hash = lfs
          ? ({ kind: "sha256", hex: lfs.oid.replace(/^sha256:/, "") } as const)
          : ({ kind: "git", hex: oid ?? "" } as const);
        entries.push({ path, size: lfs?.size ?? size, hash });
      }
      try {
        files = checkListing(entries);
      } catch (error) {
        throw confused(id, (error as Error).message);
      }
      await cache.writeListing(commit, files);
    }
    await cache.remember(id.revision, commit);
    return { commit, files };
  }

  async #download(
    commit: string,
    files: readonly HubFile[],
    cache: HubCache,
    context: HubContext,
    events: EventSink,
  ): Promise<number> {
    const total = files.reduce((sum, { size }) => sum + size, 0);
    const disk = new DiskFiles(this.settings.disk ?? undefined);
    await checkSpace(disk, cache, files);
    const { id, endpoint } = context;
    const name = `fetch ${id.repository}`;
    const megabytes = (bytes: number) => Math.round(bytes / 1e5) / 10;
    let done = 0;
    let told = 0;
    const tell = (now = Date.now()) => {
      told = now;
      events({ kind: "phase", name, done: megabytes(done), total: megabytes(total), unit: "MB" });
    };
    tell();
    let fetched = 0;
    // One failure ends them all; what has arrived of the others is kept.
    const stop = new AbortController();
    const queue = [...files].sort((a, b) => b.size - a.size);
    const work = async () => {
      for (let file = queue.shift(); file; file = queue.shift()) {
        const { path, hash } = file;
        if (!hash) continue;
        const address = path.split("/").map(encodeURIComponent).join("/");
        const job: Download = {
          url: `${endpoint}/${id.repository}/resolve/${commit}/${address}`,
          file: { ...file, hash },
          target: cache.blob(hash.hex),
          context,
          settings: { ...this.settings, disk: this.settings.disk ?? (await import("node:fs/promises")) },
          onBytes: (change) => {
            done += change;
            if (Date.now() - told >= PROGRESS_MS) tell();
          },
          signal: stop.signal,
          onWait: () => events({ kind: "message", text: `another process fetches ${path}: waiting for it` }),
        };
        const arrived = await download(job);
        fetched += arrived;
        await cache.link(commit, path, hash.hex);
      }
    };
    let failure: unknown = null;
    const workers = Array.from({ length: AT_ONCE }, () =>
      work().catch((error: unknown) => {
        queue.length = 0;
        failure ??= error;
        stop.abort(error);
      }),
    );
    await Promise.all(workers);
    if (failure !== null) throw failure;
    tell();
    return fetched;
  }
}

function pick(files: readonly HubFile[], choose: ChooseFiles, id: HubId): HubFile[] {
  const paths = choose(
    files.map(({ path }) => path),
    id,
  );
  const byPath = new Map(files.map((file) => [file.path, file]));
  return paths.map((path) => byPath.get(path)!);
}

async function checkSpace(disk: DiskFiles, cache: HubCache, files: readonly HubFile[]): Promise<void> {
  let bytes = SPARE_BYTES;
  for (const { size, hash } of files) {
    const begun = hash ? await stat(partialName(cache.blob(hash.hex))).catch(() => null) : null;
    bytes += Math.max(0, size - (begun?.size ?? 0));
  }
  const free = await disk.freeSpace(cache.folder);
  if (free === null || free >= bytes) return;
  throw new LongtailError("E-ENV-020", {
    what: `${(bytes / 1e9).toFixed(1)} GB are needed for the download, and ${(free / 1e9).toFixed(1)} GB are free`,
    where: cache.folder,
    fix: "free some space, or choose another cache folder (HF_HOME)",
  });
}

function confused(id: HubId, why: string): LongtailError {
  return new LongtailError("E-ENV-101", {
    what: "the hub's answer is not understood",
    where: hubIdText(id),
    why,
    fix: "start again; if it stays, report it",
  });
}

/**
 * Where a model lies that a configuration names: a path of this machine where there is one, else a hub id, which is fetched.
 * A text that is neither comes back as it is, for the reader of files to complain about.
 */
export async function locateModel(
  files: FileStore,
  hub: () => Promise<ModelHub>,
  text: string,
  choose: ChooseFiles,
  events?: EventSink,
): Promise<string> {
  if (await files.exists(text)) return text;
  const id = parseHubId(text);
  return id ? (await (await hub()).fetch(id, choose, events)).path : text;
}
