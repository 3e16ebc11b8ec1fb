// The browser's storage as a file store, in a real Chromium with a profile on the disk: the contract of all file stores, workers
// that die at every single call to the storage, a full storage, weights over HTTP, and locks between tabs.

import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import process from "node:process";
import { type BrowserContext, type CDPSession, chromium as driver, type Page } from "playwright-core";
import { build } from "vite";
import { afterAll, beforeAll, expect, test } from "vitest";
import { collectAssets } from "../../scripts/page_assets.mjs";
import { wgslText } from "../../scripts/wgsl_text.mjs";
import { browserEnvironment, chromium, describeInBrowser } from "./browser.ts";
import { type Served, serveFolder } from "./server.ts";

/** The page that starts workers and passes on what is said to them. */
const PAGE = `
  const workers = new Map();
  window.startWorker = (key) => {
    const worker = new Worker("worker.js", { type: "module" });
    const waiting = new Map();
    const heard = [];
    worker.onmessage = ({ data }) => {
      if (data.id === undefined) { heard.push(data); (waiting.get("said") ?? (() => {}))("said"); return; }
      waiting.get(data.id)("error" in data ? Promise.reject(new Error(data.error)) : data.result);
    };
    workers.set(key, { worker, waiting });
  };
  let count = 0;
  // Answers with the result, or with "said" when the worker reports that it stopped or holds a lock.
  window.ask = (key, name, args) => new Promise((resolve) => {
    const { worker, waiting } = workers.get(key);
    const id = count++;
    waiting.set(id, resolve);
    waiting.set("said", resolve);
    worker.postMessage({ id, name, args });
  });
  window.endWorker = (key) => workers.get(key).worker.terminate();
`;

type Ask = (key: string, name: string, args: unknown[]) => Promise<unknown>;
type PageWindow = { startWorker(key: string): void; endWorker(key: string): void; ask: Ask };

describeInBrowser("files in the browser's storage", () => {
  const home = mkdtempSync(join(tmpdir(), "longtail-files-"));
  const site = join(home, "site");
  let served: Served;
  let context: BrowserContext;
  let page: Page;

  beforeAll(async () => {
    await build({
      configFile: false,
      root: import.meta.dirname,
      logLevel: "warn",
      plugins: [wgslText()],
      build: {
        outDir: site,
        emptyOutDir: true,
        minify: false,
        rolldownOptions: {
          input: join(import.meta.dirname, "files_worker.ts"),
          output: { entryFileNames: "worker.js", codeSplitting: false },
        },
      },
    });
    writeFileSync(join(site, "index.html"), `<!doctype html><link rel=icon href=data:,><script>${PAGE}</script>`);
    const { manifest, contents } = collectAssets();
    for (const [file, content] of contents) {
      mkdirSync(dirname(join(site, file)), { recursive: true });
      writeFileSync(join(site, file), content);
    }
    writeFileSync(join(site, "assets.json"), JSON.stringify(manifest));
    served = await serveFolder(site);
    context = await driver.launchPersistentContext(join(home, "profile"), {
      executablePath: chromium!,
      headless: true,
      args: ["--no-sandbox", "--no-first-run", "--disable-background-networking", "--disable-sync"],
      env: browserEnvironment(),
    });
    page = await openTab();
  });

  afterAll(async () => {
    await context?.close();
    rmSync(home, { recursive: true, force: true, maxRetries: 5 });
  });

  async function openTab(): Promise<Page> {
    const tab = await context.newPage();
    await tab.goto(served.url);
    return tab;
  }

  const start = (key: string, tab = page) =>
    tab.evaluate((name) => (window as unknown as PageWindow).startWorker(name), key);
  const end = (key: string, tab = page) =>
    tab.evaluate((name) => (window as unknown as PageWindow).endWorker(name), key);
  async function ask(key: string, name: string, args: unknown[] = [], tab = page): Promise<unknown> {
    try {
      return await tab.evaluate(([k, n, a]) => (window as unknown as PageWindow).ask(k, n, a), [
        key,
        name,
        args,
      ] as const);
    } catch (error) {
      // The page's stack says nothing here, and the test run cannot read it.
      throw new Error(`${name}: ${(error as Error).message.split("\n")[0]}`);
    }
  }

  /** Asks a fresh worker one thing. */
  async function once(name: string, ...args: unknown[]): Promise<unknown> {
    await start("once");
    const answer = await ask("once", name, args);
    await end("once");
    return answer;
  }

  let cdp: CDPSession | undefined;
  /** What the browser gives this page, in bytes; null gives its own answer back. It holds as long as the session lives. */
  const quota = async (bytes: number | null) => {
    cdp ??= await context.newCDPSession(page);
    const origin = served.url.slice(0, -1);
    await cdp.send("Storage.overrideQuotaForOrigin", bytes === null ? { origin } : { origin, quotaSize: bytes });
  };

  test("keep to the contract of all file stores, whether the browser can move files or not", async () => {
    await once("empty");
    expect(await once("cases", "moving", true)).toEqual([]);
    expect(await once("cases", "copying", false)).toEqual([]);
  });

  for (const canMove of [true, false]) {
    for (const deed of ["write", "rename", "checkpoint"]) {
      // A checkpoint makes a hundred calls: each of them is one to die at with LONGTAIL_LONG, every few without.
      const stride = process.env.LONGTAIL_LONG ? 1 : { write: 1, rename: 3, checkpoint: 7 }[deed]!;
      test(`are old or new, whole, after a worker died at any call of "${deed}"${canMove ? "" : ", without moves"}`, async () => {
        let seen = "";
        let at = 1;
        await once("empty");
        for (; ; at += stride) {
          await start("dying");
          const answer = await ask("dying", "begin", [deed, at, canMove]);
          await end("dying");
          const [found, left] = (await once("lookAndEmpty", deed, canMove)) as [string, string[]];
          expect([found, left], `call ${at}`).toEqual([expect.stringMatching(/^(old|new)$/), []]);
          seen += found === "old" ? "o" : "n";
          if (answer === "done") break;
        }
        // Old up to one call, new from there on, and never back.
        expect(seen).toMatch(/^o*n+$/);
        console.log(`${deed}, ${canMove ? "moving" : "copying"}: ${seen.length} of about ${at} calls, ${seen}`);
      });
    }
  }

  test("are whole after the tab was closed in the middle", async () => {
    await once("empty");
    for (const deed of ["write", "rename", "checkpoint"]) {
      const tab = await openTab();
      await start("dying", tab);
      await ask("dying", "begin", [deed, 12, true], tab);
      await tab.close();
      // A tab that is closed lets go of its files and locks a moment later.
      await expect
        .poll(() => once("look", deed, true), { message: deed })
        .toEqual([expect.stringMatching(/^(old|new)$/), []]);
      await once("empty");
    }
  });

  test("are left alone while the tab that is at work on them lives", async () => {
    await once("empty");
    const tab = await openTab();
    await start("stopped", tab);
    expect(await ask("stopped", "begin", ["write", 3, true], tab)).toBe("said");
    expect(((await once("leftovers")) as string[]).length).toBe(1);
    expect(await once("look", "write", true)).toEqual(["old", [expect.stringMatching(/^part-/)]]);
    await tab.close();
    await expect.poll(() => once("look", "write", true)).toEqual(["old", []]);
  });

  test("go on after a line that was cut off", async () => {
    await once("empty");
    await once("tear", "log.jsonl", '{"n":1}\n{"n":2');
    await once("append", "log.jsonl", '{"n":3}\n');
    expect(await once("text", "log.jsonl")).toBe('{"n":1}\n{"n":2\n{"n":3}\n');
  });

  test("say when the storage is full, and keep what was there", async () => {
    await once("empty");
    expect(await once("write", "runs/a", 2_000_000)).toBe("written");
    await quota(5_000_000);
    try {
      const said = await once("write", "runs/a", 8_000_000);
      expect(said).toMatch(/^E-ENV-020 runs\/a: .*full → [\d.]+ MB are in use\. Fix: remove runs/);
      expect(await once("text", "runs/a")).toBe("\u0007".repeat(2_000_000));
      expect(await once("leftovers")).toEqual([]);
      // Lines until it is full: the last whole line stays, no half of one.
      expect(await once("appendUntilFull", "runs/log.jsonl")).toEqual(["E-ENV-020", 0]);
    } finally {
      await quota(null);
    }
    expect(await once("write", "runs/a", 8_000_000)).toBe("written");
  });

  test("bring a first picture's weights once, and read them afterwards without a network", async () => {
    await once("empty");
    const first = (await once("warm", served.url, true)) as Record<string, unknown>;
    expect(first).toMatchObject({ cached: 0, right: true, warnings: [], pruned: 0 });
    expect(first["fetched"]).toBeGreaterThan(9);
    // A host that nobody answers at.
    const nowhere = "http://127.0.0.1:9/";
    const second = (await once("warm", nowhere, true)) as Record<string, unknown>;
    expect(second).toMatchObject({ fetched: 0, cached: first["fetched"], right: true, warnings: [] });
    console.log(`weights: ${first["ms"]} ms over HTTP on this machine, ${second["ms"]} ms from storage`);
    expect(await once("warm", nowhere, false)).toMatchObject({ error: expect.stringMatching(/^E-FILE-150/) });
  });

  test("keep weights in memory with a warning where the storage is too small", async () => {
    await once("empty");
    await quota(10_000_000);
    try {
      expect(await once("warm", served.url, true)).toMatchObject({
        right: true,
        warnings: [expect.stringMatching(/^E-ENV-024 weights stay in memory/)],
      });
    } finally {
      await quota(null);
    }
  });

  test("of a run belong to one tab, until it is gone", async () => {
    const tab = await openTab();
    await start("holder", tab);
    expect(await ask("holder", "lock", ["mine"], tab)).toBe("said");
    expect(await once("locked", "mine")).toBe(true);
    expect(await once("locked", "other")).toBe(false);
    expect(await once("lock", "mine")).toBe("E-RUN-015");
    await tab.close();
    await expect.poll(() => once("locked", "mine")).toBe(false);
    expect(await once("lock", "mine")).toBe("said");
  });

  test("are read and written at the speed of a disk", async () => {
    await once("empty");
    const times = (await once("speed", 16_000_000)) as Record<string, number>;
    console.log(`16 MB in ms: ${JSON.stringify(times)}`);
    expect(times["readBytes"]).toBeLessThan(10_000);
  });
});
