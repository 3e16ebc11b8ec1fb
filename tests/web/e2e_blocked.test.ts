// A browser that gives no GPU: the page says which of the causes it is and what to do, and is not blank.

import { afterEach, beforeAll, expect, test } from "vitest";
import { describeInBrowser, insecure, type OpenPage, type PageOptions } from "./browser.ts";
import { builtPage } from "./built_page.ts";
import { button, openLongtail } from "./longtail_page.ts";
import { type Served, serveFolder } from "./server.ts";

describeInBrowser("a page without WebGPU", () => {
  let served: Served;
  let open: OpenPage | undefined;
  beforeAll(async () => {
    served = await serveFolder(await builtPage());
  });
  afterEach(async () => open?.discard());

  const cases: [string, PageOptions, (url: string) => string, RegExp, RegExp][] = [
    [
      "gets no adapter",
      { webgpu: "no-adapter" },
      (url) => url,
      /gives no GPU/,
      /chrome:\/\/gpu|--enable-unsafe-webgpu/,
    ],
    ["has no WebGPU", { webgpu: "missing" }, (url) => url, /behind a flag|no WebGPU/, /flags|current Chrome/],
    ["came over plain http", {}, insecure, /plain http/, /https address/],
  ];
  for (const [name, options, address, why, action] of cases) {
    test(`that ${name} says so, says what to do, and can be copied for help`, async () => {
      // Some browsers tell it to the console as well, as a warning or an error.
      open = await openLongtail(address(served.url), { ...options, expected: [/WebGPU|insecure|secure context/i] });
      const main = open.page.getByRole("main");
      await main.getByText("This browser cannot train").first().waitFor();
      await expect.poll(() => main.textContent()).toMatch(why);
      await expect.poll(() => main.textContent()).toMatch(action);
      expect(await button(open, "Start training").count()).toBe(0);
      await button(open, "Copy diagnostics").click();
      if (name !== "came over plain http") {
        const copied = () => open!.page.evaluate(() => navigator.clipboard.readText());
        await expect.poll(copied).toMatch(/user agent: .*Chrome[\s\S]*adapter: none/);
      }
      await open.close();
    });
  }
});
