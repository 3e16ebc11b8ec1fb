// What comes with the page, fetched from a host that misbehaves in every way a host can: it is checked, fetched once, kept, and
// never passed on damaged.

import { Buffer } from "node:buffer";
import { gzipSync } from "node:zlib";
import { describe, expect, test } from "vitest";
import { LongtailError } from "../../src/base/errors.ts";
import type { FileStore } from "../../src/base/files.ts";
import { sha256 } from "../../src/base/hash.ts";
import type { AssetManifest } from "../../src/web/files/asset_stream.ts";
import { ASSET_CACHE, AssetFiles, type AssetOptions, type DownloadProgress } from "../../src/web/files/assets.ts";
import { MemoryFiles } from "../../src/web/files/memory.ts";

const BASE = "https://page.test/sub/";
const bytesOf = (count: number, start = 0) => Uint8Array.from({ length: count }, (_, i) => (start + (i >> 3)) % 251);
const WEIGHTS = bytesOf(300_000);
const TOKENS = bytesOf(50_000, 9);

async function hostOf(files: Record<string, { content: Uint8Array; gzip?: boolean }>, groups = {}) {
  const manifest: AssetManifest = { version: 1, files: {}, groups };
  const served = new Map<string, Uint8Array>();
  for (const [path, { content, gzip }] of Object.entries(files)) {
    const sent = gzip ? new Uint8Array(gzipSync(content)) : content;
    const hash = await sha256(content);
    const file = `data/${hash.slice(0, 8)}.bin`;
    served.set(BASE + file, sent);
    manifest.files[path] = { file, bytes: content.length, sha256: hash, transfer: sent.length };
    if (gzip) manifest.files[path]!.encoding = "gzip";
  }
  served.set(`${BASE}assets.json`, new TextEncoder().encode(JSON.stringify(manifest)));
  return { manifest, served };
}

/** Vitest's own comparison takes seconds for so many bytes. */
const same = (one: Uint8Array, other: Uint8Array) => Buffer.compare(one, other) === 0;

type Host = Awaited<ReturnType<typeof hostOf>>;

/** Answers in pieces, and lets a test do otherwise. */
function network(host: Host, trouble: (url: string, count: number) => Response | Error | undefined = () => undefined) {
  const requests: string[] = [];
  const fetch = async (input: string | URL | Request, init?: RequestInit): Promise<Response> => {
    const url = String(input);
    requests.push(`${url.slice(BASE.length)}${init?.cache === "reload" ? " anew" : ""}`);
    const other = trouble(url, requests.length);
    if (other instanceof Error) throw other;
    if (other) return other;
    const bytes = host.served.get(url);
    return bytes ? new Response(inPieces(bytes)) : new Response("not found", { status: 404 });
  };
  return { requests, fetch: fetch as typeof globalThis.fetch };
}

function inPieces(bytes: Uint8Array, size = 40_001, breakAfter = Number.POSITIVE_INFINITY): ReadableStream<Uint8Array> {
  let at = 0;
  return new ReadableStream({
    pull(controller) {
      if (at >= breakAfter) return controller.error(new TypeError("network error"));
      if (at >= bytes.length) return controller.close();
      controller.enqueue(bytes.slice(at, at + size));
      at += size;
    },
  });
}

const hostWithTwo = () =>
  hostOf(
    { "models/m/w.safetensors": { content: WEIGHTS }, "models/t/tokens.json": { content: TOKENS, gzip: true } },
    { draw: ["models/m/w.safetensors", "models/t/tokens.json"] },
  );

const assetsOf = (fetch: typeof globalThis.fetch, store: FileStore | null, more: Partial<AssetOptions> = {}) =>
  new AssetFiles({ base: BASE, store, fetch, ...more });

const offline = () => new TypeError("Failed to fetch");

describe("the page's assets", () => {
  test("are listed without being fetched, and read by ranges after one fetch", async () => {
    const net = network(await hostWithTwo());
    const assets = assetsOf(net.fetch, new MemoryFiles());
    expect(await assets.list("models")).toEqual(["m", "t"]);
    expect(await assets.list("")).toEqual(["models"]);
    expect(await assets.exists("models/m")).toBe(true);
    expect(await assets.exists("models/m/../t/tokens.json")).toBe(true);
    expect(await assets.exists("models/none")).toBe(false);
    expect(net.requests).toEqual(["assets.json"]);
    const handle = await assets.open("models/m/w.safetensors");
    expect(handle.size).toBe(300_000);
    expect(await handle.read(100_000, 5)).toEqual(WEIGHTS.slice(100_000, 100_005));
    await handle.close();
    expect(same(await assets.readBytes("models/m/w.safetensors"), WEIGHTS)).toBe(true);
    expect(net.requests).toHaveLength(2);
    await expect(assets.readBytes("models/none")).rejects.toMatchObject({ code: "E-FILE-001" });
    await expect(assets.writeAtomic("models/m/w.safetensors")).rejects.toMatchObject({ code: "E-FILE-004" });
  });

  test("share one download between all who ask, with progress that rises to the announced size", async () => {
    const host = await hostWithTwo();
    const net = network(host);
    const seen: DownloadProgress[] = [];
    const assets = assetsOf(net.fetch, new MemoryFiles(), { onDownload: (progress) => seen.push(progress) });
    await Promise.all([assets.warm("draw"), assets.readBytes("models/t/tokens.json"), assets.warm("draw")]);
    expect(net.requests.filter((url) => url !== "assets.json")).toHaveLength(2);
    for (const [path, { transfer }] of Object.entries(host.manifest.files)) {
      const received = seen.filter(({ name }) => name === path).map((progress) => progress.received);
      expect(received).toEqual([...received].sort((a, b) => a - b));
      expect([received[0], received.at(-1)]).toEqual([0, transfer]);
      expect(seen.some(({ cached }) => cached)).toBe(false);
    }
    expect(same(await assets.readBytes("models/t/tokens.json"), TOKENS)).toBe(true);
  });

  test("are unpacked here, also where the host has declared them packed and the browser has unpacked them", async () => {
    const host = await hostWithTwo();
    const { file } = host.manifest.files["models/t/tokens.json"]!;
    const net = network(host, (url) => (url.endsWith(file) ? new Response(inPieces(TOKENS)) : undefined));
    const seen: DownloadProgress[] = [];
    const assets = assetsOf(net.fetch, new MemoryFiles(), { onDownload: (progress) => seen.push(progress) });
    expect(same(await assets.readBytes("models/t/tokens.json"), TOKENS)).toBe(true);
    expect(seen.every(({ received, total }) => received <= total)).toBe(true);
    const oneByOne = network(host, (url) =>
      url.endsWith(file) ? new Response(inPieces(host.served.get(url)!, 1)) : undefined,
    );
    expect(same(await assetsOf(oneByOne.fetch, null).readBytes("models/t/tokens.json"), TOKENS)).toBe(true);
  });

  test("are there in the next session without a network", async () => {
    const host = await hostWithTwo();
    const store = new MemoryFiles();
    await assetsOf(network(host).fetch, store).warm("draw");
    const seen: DownloadProgress[] = [];
    const gone = network(host, offline);
    const assets = assetsOf(gone.fetch, store, { onDownload: (progress) => seen.push(progress) });
    expect(same(await assets.readBytes("models/m/w.safetensors"), WEIGHTS)).toBe(true);
    expect(seen).toEqual([{ name: "models/m/w.safetensors", received: 300_000, total: 300_000, cached: true }]);
    expect(gone.requests).toEqual(["assets.json"]);
  });

  test("say what to do where there is neither a network nor a copy, and come when it is back", async () => {
    let isOffline = true;
    const net = network(await hostWithTwo(), () => (isOffline ? offline() : undefined));
    const assets = assetsOf(net.fetch, new MemoryFiles());
    await expect(assets.open("models/m/w.safetensors")).rejects.toMatchObject({
      code: "E-FILE-150",
      parts: { fix: expect.stringMatching(/connect to the network/) },
    });
    isOffline = false;
    expect(same(await assets.readBytes("models/m/w.safetensors"), WEIGHTS)).toBe(true);
  });

  test("that are damaged on the way are asked for once more, past the cache, and refused the second time", async () => {
    const host = await hostWithTwo();
    const damaged = WEIGHTS.slice();
    damaged[299_999]! ^= 1;
    const broken: Record<string, () => Response> = {
      "one bit": () => new Response(inPieces(damaged)),
      "too short": () => new Response(inPieces(WEIGHTS.slice(0, 299_999))),
      "too long": () => new Response(inPieces(bytesOf(400_000))),
      "a front page": () => new Response("<!doctype html>"),
      "cut off": () => new Response(inPieces(WEIGHTS, 40_000, 80_000)),
      empty: () => new Response(null),
    };
    for (const [name, answer] of Object.entries(broken)) {
      let first = true;
      const net = network(host, (url) => {
        if (url.endsWith("assets.json") || !first) return undefined;
        first = false;
        return answer();
      });
      const store = new MemoryFiles();
      expect(same(await assetsOf(net.fetch, store).readBytes("models/m/w.safetensors"), WEIGHTS), name).toBe(true);
      expect(net.requests[2], name).toMatch(/ anew$/);
      const always = network(host, (url) => (url.endsWith("assets.json") ? undefined : answer()));
      const empty = new MemoryFiles();
      await expect(assetsOf(always.fetch, empty).readBytes("models/m/w.safetensors"), name).rejects.toMatchObject({
        code: "E-FILE-151",
      });
      expect(always.requests).toHaveLength(3);
      expect(await empty.list(ASSET_CACHE)).toEqual(["assets.json"]);
    }
    const { file } = host.manifest.files["models/t/tokens.json"]!;
    const torn = network(host, (url) =>
      url.endsWith(file) ? new Response(inPieces(host.served.get(url)!.slice(0, 90))) : undefined,
    );
    await expect(assetsOf(torn.fetch, null).readBytes("models/t/tokens.json")).rejects.toMatchObject({
      code: "E-FILE-151",
    });
  });

  test("that the host does not have, or a list that is none, are said with a code", async () => {
    const host = await hostWithTwo();
    const missing = network(host, (url) => (url.endsWith(".bin") ? new Response("", { status: 404 }) : undefined));
    await expect(assetsOf(missing.fetch, null).open("models/m/w.safetensors")).rejects.toMatchObject({
      code: "E-FILE-152",
      parts: { what: expect.stringMatching(/404/) },
    });
    const page = network(host, () => new Response("<!doctype html>"));
    await expect(assetsOf(page.fetch, null).list("models")).rejects.toMatchObject({ code: "E-FILE-153" });
  });

  test("that are damaged in the storage are fetched again once", async () => {
    const host = await hostWithTwo();
    const store = new MemoryFiles();
    await assetsOf(network(host).fetch, store).warm("draw");
    const { sha256: hash } = host.manifest.files["models/m/w.safetensors"]!;
    for (const content of [bytesOf(300_000, 1), bytesOf(7), new Uint8Array(0)]) {
      await store.writeAtomic(`${ASSET_CACHE}/${hash}`, content);
      const net = network(host);
      const assets = assetsOf(net.fetch, store);
      expect(same(await assets.readBytes("models/m/w.safetensors"), WEIGHTS)).toBe(true);
      await assets.readBytes("models/m/w.safetensors");
      expect(net.requests).toHaveLength(2);
    }
  });

  test("of an older version are removed, everything else in the storage stays", async () => {
    const store = new MemoryFiles();
    const old = await hostOf(
      { "models/m/w.safetensors": { content: bytesOf(999) } },
      { draw: ["models/m/w.safetensors"] },
    );
    await assetsOf(network(old).fetch, store).warm("draw");
    await store.writeAtomic("runs/mine/log.jsonl", "log");
    const assets = assetsOf(network(await hostWithTwo()).fetch, store);
    expect(same(await assets.readBytes("models/m/w.safetensors"), WEIGHTS)).toBe(true);
    expect(await assets.prune()).toBe(1);
    expect(await assets.prune()).toBe(0);
    expect(await store.list(ASSET_CACHE)).toHaveLength(2);
    expect(await store.readText("runs/mine/log.jsonl")).toBe("log");
    await assets.clear();
    expect(await store.list("cache")).toEqual([]);
    expect(same(await assets.readBytes("models/m/w.safetensors"), WEIGHTS)).toBe(true);
  });

  test("stay in memory, with one warning, where the storage is full, missing or too small", async () => {
    const full = (free: number | null): FileStore =>
      Object.assign(new MemoryFiles(), {
        freeSpace: async () => free,
        writeAtomic: async (path: string, chunks: AsyncIterable<Uint8Array>) => {
          if (typeof chunks !== "string") for await (const _ of chunks) break;
          throw new LongtailError("E-ENV-020", { what: "the browser's storage is full", where: path });
        },
      });
    for (const store of [full(1e12), full(1_000_000), full(null), null]) {
      const warnings: string[] = [];
      const net = network(await hostWithTwo());
      const assets = assetsOf(net.fetch, store, { onWarning: ({ code }) => warnings.push(code) });
      await assets.warm("draw");
      expect(same(await assets.readBytes("models/m/w.safetensors"), WEIGHTS)).toBe(true);
      expect(same(await assets.readBytes("models/t/tokens.json"), TOKENS)).toBe(true);
      expect(warnings).toEqual(["E-ENV-024"]);
    }
  });
});
