// What the page really fetches before anybody touches it, parts that it loads on its own accord included: the build's own sum
// knows only what the front page pulls in at once.

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { expect, test } from "vitest";
import { FIRST_LOAD_BUDGET, weighPage, withImports } from "../../scripts/page_shell.mjs";
import { describeInBrowser, openPage } from "./browser.ts";
import { builtPage } from "./built_page.ts";
import { serveFolder } from "./server.ts";

describeInBrowser("the first load of the built page", () => {
  test("sends scripts and styles within the budget, and no weights", async () => {
    const folder = await builtPage();
    const served = await serveFolder(folder);
    // The service worker fetches the rest of the page later and on purpose.
    const open = await openPage(served.url, {
      before: () => Reflect.deleteProperty(Navigator.prototype, "serviceWorker"),
    });
    const workers = () => open.page.workers().map((worker) => worker.url().slice(served.url.length));
    await open.page.locator("#app main").waitFor();
    await expect.poll(() => workers().length).toBeGreaterThan(0);
    // Parts bring further parts: the first load is over when nothing was asked for during two seconds.
    for (let seen = -1; seen !== served.requests.length; ) {
      seen = served.requests.length;
      await open.page.waitForLoadState("networkidle");
      await open.page.waitForTimeout(2000);
    }
    const paths = [...new Set(served.requests.map((path) => (path === "/" ? "/index.html" : path)))];
    const code = paths.map((path) => path.slice(1)).filter((path) => /\.(js|css|html)$/.test(path));
    const weigh = (names: Iterable<string>) =>
      [...names].reduce((sum, name) => sum + gzipSync(readFileSync(join(folder, name)), { level: 9 }).length, 0);
    // The engine comes in a worker of its own, which the page does not wait for; what trains is fetched when it is asked for.
    const engine = withImports(folder, workers());
    const own = code.filter((name) => !engine.has(name));
    const kilobytes = (bytes: number) => `${(bytes / 1000).toFixed(1)} kB`;
    console.log(
      `first load: ${kilobytes(weighPage(folder).first)} at once, ${kilobytes(weigh(own))} with what the page loads by itself; the engine's worker: ${kilobytes(weigh(engine))}`,
    );
    expect(weigh(own) + weigh(engine)).toBeLessThanOrEqual(FIRST_LOAD_BUDGET);
    expect(paths.filter((path) => path.startsWith("/data/"))).toEqual([]);
    await open.close();
  });
});
