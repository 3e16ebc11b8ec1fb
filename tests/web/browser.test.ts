// The tests' own browser: it sees the GPU as asked for, notices a page's complaints, and keeps and limits files.

import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { describeInBrowser, insecure, openPage, setQuota, type WebGpu } from "./browser.ts";
import { listStored, readStoredText, removeStored, writeStored } from "./opfs.ts";
import { serveFolder } from "./server.ts";

describeInBrowser("a page in Chromium", () => {
  const folder = mkdtempSync(join(tmpdir(), "longtail-page-"));
  afterAll(() => rmSync(folder, { recursive: true, force: true }));
  writeFileSync(join(folder, "index.html"), "<!doctype html><title>test</title><link rel=icon href=data:,><p>here</p>");
  const ask = `async function ask() {
    if (!navigator.gpu) return "no WebGPU";
    const adapter = await navigator.gpu.requestAdapter();
    if (!adapter) return "no adapter";
    const { vendor, architecture, subgroupMinSize } = adapter.info;
    return [vendor, architecture, subgroupMinSize, adapter.features.has("shader-f16")].join(" ");
  }`;
  writeFileSync(join(folder, "worker.js"), `${ask}\nask().then(postMessage);`);

  const inPage = async (webgpu: WebGpu, address = (url: string) => url) => {
    const served = await serveFolder(folder);
    const open = await openPage(address(served.url), { webgpu });
    const own = await open.page.evaluate(`(${ask})()`);
    const workers = await open.page.evaluate(
      () => new Promise((resolve) => (new Worker("worker.js").onmessage = (event) => resolve(event.data))),
    );
    await open.close();
    return [own, workers];
  };

  test("has a software adapter, in workers too", async () => {
    const [own, workers] = await inPage("software");
    console.log(`adapter in Chromium: ${own}`);
    expect(own).toMatch(/^google swiftshader 4 false$/);
    expect(workers).toBe(own);
  });

  test("can be without an adapter, without WebGPU, and not a secure context", async () => {
    expect(await inPage("no-adapter")).toEqual(["no adapter", "no adapter"]);
    expect((await inPage("missing"))[0]).toBe("no WebGPU");
    expect(await inPage("software", insecure)).toEqual(["no WebGPU", "no WebGPU"]);
  });

  test("fails the test when it complains and nobody expected it", async () => {
    const served = await serveFolder(folder, { headers: { "Content-Security-Policy": "default-src 'self'" } });
    const complaining = () => {
      setTimeout(() => {
        throw new Error("lost");
      });
      console.error("an error line");
      fetch("https://example.org/").catch(() => {});
    };
    const open = await openPage(served.url);
    await open.page.evaluate(complaining);
    for (const part of [/Content Security Policy/, /lost/, /an error line/])
      await expect.poll(() => open.complaints().join("\n")).toMatch(part);
    await expect(open.close()).rejects.toThrow(/uncaught: Error: lost[\s\S]*an error line|an error line[\s\S]*lost/);

    const expecting = await openPage(served.url, { expected: [/lost/, /an error line/, /Content Security|fetch/i] });
    await expecting.page.evaluate(complaining);
    await expecting.close();
  });

  test("keeps files, and says when storage is full", async () => {
    const served = await serveFolder(folder);
    const open = await openPage(served.url);
    const { page } = open;
    await writeStored(page, "runs/one/log.jsonl", "a line\n");
    expect(await listStored(page)).toEqual([{ path: "runs/one/log.jsonl", bytes: 7 }]);
    expect(await readStoredText(page, "runs/one/log.jsonl")).toBe("a line\n");
    await setQuota(open, 1_000_000);
    const write = writeStored(page, "big", new Uint8Array(2_000_000));
    await expect(write).rejects.toThrow(/QuotaExceeded/);
    await setQuota(open, null);
    await writeStored(page, "big", new Uint8Array(2_000_000));
    await removeStored(page, "runs");
    expect(await listStored(page, "runs")).toEqual([]);
    await open.close();
  });

  test("is as wide, as dark and as much offline as asked for", async () => {
    const served = await serveFolder(folder, {
      trouble: (path) => (path === "/slow" ? { status: 503, delay: 50 } : null),
    });
    const open = await openPage(served.url, { width: 360, dark: true, reducedMotion: true });
    const matches = (query: string) => open.page.evaluate((text) => matchMedia(text).matches, query);
    expect(await matches("(width: 360px) and (prefers-color-scheme: dark) and (prefers-reduced-motion)")).toBe(true);
    const statusOf = () =>
      open.page.evaluate(() =>
        fetch("slow")
          .then((answer) => answer.status)
          .catch(() => 0),
      );
    expect(await statusOf()).toBe(503);
    await open.context.setOffline(true);
    expect(await statusOf()).toBe(0);
    expect(served.requests.filter((path) => path === "/slow")).toHaveLength(1);
    await open.discard();
  });
});
