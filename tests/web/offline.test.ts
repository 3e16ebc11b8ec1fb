// The built page without a network, and the change to a new version: the service worker keeps the page's own files and never a
// model's.

import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { withShell } from "../../scripts/page_shell.mjs";
import { describeInBrowser, type OpenPage, openPage } from "./browser.ts";
import { builtPage } from "./built_page.ts";
import { serveFolder } from "./server.ts";

describeInBrowser("the built page without a network", () => {
  const home = mkdtempSync(join(tmpdir(), "longtail-offline-"));
  afterAll(() => rmSync(home, { recursive: true, force: true }));

  async function copyOfPage(name: string): Promise<string> {
    const folder = join(home, name);
    cpSync(await builtPage(), folder, { recursive: true });
    return folder;
  }

  /** Puts up another version: another title, and what the build makes of it. */
  /** Another version: the page's own title changes as it runs, so the mark is another one. */
  function renew(folder: string, version: string): void {
    const front = join(folder, "index.html");
    const plain = readFileSync(front, "utf8").replace(/<meta name="version"[^>]*>/, "");
    writeFileSync(front, plain.replace("<head>", `<head><meta name="version" content="${version}">`));
    const file = join(folder, "service_worker.js");
    const code = readFileSync(file, "utf8").replace(/^const LONGTAIL_SHELL=.*\n/, "");
    writeFileSync(file, withShell(code, folder));
  }

  const versionOf = ({ page }: OpenPage) => page.locator('meta[name="version"]').getAttribute("content");

  const whenReady = ({ page }: OpenPage) =>
    page.evaluate(async () => {
      const { active } = await navigator.serviceWorker.ready;
      if (active?.state !== "activated") await new Promise((done) => (active!.onstatechange = done));
    });

  const cached = ({ page }: OpenPage) =>
    page.evaluate(async () => {
      const names = await caches.keys();
      const paths: string[] = [];
      for (const name of names)
        for (const { url } of await (await caches.open(name)).keys()) paths.push(new URL(url).pathname);
      return { names, paths };
    });

  const shown = ({ page }: OpenPage) =>
    page
      .locator("#app main")
      .textContent()
      .then((text) => text ?? "");

  /** What the page shows when it has found out about the machine and changes no more. */
  async function shownAtLast(open: OpenPage): Promise<string> {
    let last = "";
    await expect
      .poll(
        async () => {
          const before = last;
          last = await shown(open);
          return last === before && last.length > 100 && !last.includes("Looking at this machine");
        },
        { interval: 1000 },
      )
      .toBe(true);
    return last;
  }

  test("comes up again, in a path below a host's, from its own files alone", async () => {
    await copyOfPage("site/sub");
    const served = await serveFolder(join(home, "site"));
    const open = await openPage(`${served.url}sub/`, {
      expected: [/ERR_INTERNET_DISCONNECTED|ERR_FAILED|Failed to load/],
    });
    await whenReady(open);
    const { names, paths } = await cached(open);
    expect(names).toHaveLength(1);
    expect(paths).toContain("/sub/index.html");
    expect(paths).toContain("/sub/assets.json");
    expect(paths.filter((path) => path.includes("/data/") || path.includes("/recorded/"))).toEqual([]);
    expect(served.requests.filter((path) => path.includes("/data/"))).toEqual([]);
    const before = await shownAtLast(open);

    await open.context.setOffline(true);
    const count = served.requests.length;
    await open.page.reload();
    await expect.poll(() => shown(open)).toBe(before);
    expect(served.requests).toHaveLength(count);
    const parts = await open.page.evaluate(async () => {
      const list = await (await fetch("assets.json")).json();
      const code = (await caches.keys()).length;
      return [list.version, code];
    });
    expect(parts).toEqual([1, 1]);
    await open.context.setOffline(false);

    // A host that is out of order is no reason to show nothing.
    served.options.trouble = () => ({ status: 502 });
    await open.page.reload();
    await expect.poll(() => shown(open)).toBe(before);
    await open.close();
  });

  test("gives way to a new version at the next load, whole, and works without a network again", async () => {
    const folder = await copyOfPage("next");
    renew(folder, "first");
    const served = await serveFolder(folder);
    const open = await openPage(served.url, { expected: [/ERR_INTERNET_DISCONNECTED|ERR_FAILED|Failed to load/] });
    await whenReady(open);
    const old = (await cached(open)).names;
    renew(folder, "second");
    await open.page.reload();
    expect(await versionOf(open)).toBe("second");
    await open.page.evaluate(async () => {
      const registration = await navigator.serviceWorker.ready;
      await registration.update();
      while (registration.installing || registration.waiting) await new Promise((done) => setTimeout(done, 50));
    });
    await expect.poll(async () => (await cached(open)).names.length).toBe(2);
    await open.context.setOffline(true);
    await open.page.reload();
    expect(await versionOf(open)).toBe("second");
    await open.context.setOffline(false);

    // The old version's files go when the page is opened next and no window of it is left.
    await open.page.goto("about:blank");
    await expect
      .poll(async () => {
        await open.page.goto("about:blank");
        await open.page.goto(served.url);
        return (await cached(open)).names.filter((name) => old.includes(name));
      })
      .toEqual([]);
    await expect.poll(async () => (await cached(open)).names.length).toBe(1);
    await open.close();
  });
});
