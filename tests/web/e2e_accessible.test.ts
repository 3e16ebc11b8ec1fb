// Every mode of the page, light and dark, wide and on a phone: axe-core finds nothing serious, nothing is wider than the
// screen, and everything can be reached by the keyboard.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { beforeAll, expect, test } from "vitest";
import { describeInBrowser, type OpenPage, screenshot } from "./browser.ts";
import { builtPage } from "./built_page.ts";
import { openLongtail } from "./longtail_page.ts";
import { type Served, serveFolder } from "./server.ts";

const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

interface Finding {
  id: string;
  impact: string;
  help: string;
  places: string[];
}

/** What axe-core calls serious or critical. */
async function seriousFindings({ page }: OpenPage): Promise<Finding[]> {
  // Evaluated by the debugger, which the page's policy does not concern.
  await page.evaluate(`${AXE};0`);
  return page.evaluate(async () => {
    const axe = (globalThis as unknown as { axe: { run(options: object): Promise<{ violations: never[] }> } }).axe;
    const { violations } = await axe.run({ resultTypes: ["violations"] });
    return (violations as { id: string; impact: string; help: string; nodes: { html: string }[] }[])
      .filter(({ impact }) => impact === "serious" || impact === "critical")
      .map(({ id, impact, help, nodes }) => ({
        id,
        impact,
        help,
        places: nodes.slice(0, 5).map(({ html }) => html.slice(0, 160)),
      }));
  });
}

/** Waits until no part of the page is on its way any more and its text stands still. */
async function settled({ page }: OpenPage): Promise<void> {
  let last = "";
  await expect
    .poll(
      async () => {
        const before = last;
        const busy = await page.locator("main [aria-busy=true]:visible").count();
        last = `${await page.locator("main").textContent()} ${busy}`;
        return last === before && busy === 0;
      },
      { interval: 300 },
    )
    .toBe(true);
}

describeInBrowser("the page for everybody", () => {
  let served: Served;
  beforeAll(async () => {
    served = await serveFolder(await builtPage());
  });

  for (const mode of ["train", "longtail", "watch"]) {
    for (const width of [1280, 360]) {
      test(`in mode ${mode}, ${width} pixels wide, has no serious accessibility finding, light and dark`, async () => {
        for (const dark of [false, true]) {
          const open = await openLongtail(`${served.url}#mode=${mode}`, { width, dark, reducedMotion: true });
          await open.page.waitForLoadState("networkidle");
          await settled(open);
          // In one go: what is opened may bring further ones, and the page may draw a part anew in between.
          await open.page.evaluate(() => {
            for (const details of document.querySelectorAll("main details"))
              if ((details as HTMLElement).checkVisibility()) details.setAttribute("open", "");
          });
          await screenshot(open, `${mode}-${width}-${dark ? "dark" : "light"}`);
          expect(await seriousFindings(open), dark ? "dark" : "light").toEqual([]);
          const wide = await open.page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
          expect(wide, "the page can be scrolled sideways").toBeLessThanOrEqual(0);
          await open.close();
        }
      });
    }
  }

  test("is reached by the keyboard: the skip link first, then the modes, and focus is seen", async () => {
    const open = await openLongtail(served.url);
    const focused = () =>
      open.page.evaluate(() => {
        const element = document.activeElement as HTMLElement;
        // After the last part of the page comes the browser's own.
        if (element === document.body) return { text: "", role: null, seen: true };
        const { outlineStyle, outlineWidth, boxShadow } = getComputedStyle(element);
        const seen = (outlineStyle !== "none" && Number.parseFloat(outlineWidth) > 0) || boxShadow !== "none";
        return { text: element.textContent?.trim() ?? "", role: element.getAttribute("role"), seen };
      });
    await open.page.keyboard.press("Tab");
    await expect.poll(focused).toMatchObject({ text: "Skip to the content", seen: true });
    const met: string[] = [];
    for (let i = 0; i < 60; i++) {
      await open.page.keyboard.press("Tab");
      const { text, role } = await focused();
      if (text || role)
        await expect.poll(async () => (await focused()).seen, { message: `focus on “${text}” is seen` }).toBe(true);
      if (role === "tab") met.push(text);
    }
    expect(met).toContain("Train a LoRA");
    await open.page.getByRole("tab", { name: "Train a LoRA" }).focus();
    await open.page.keyboard.press("ArrowRight");
    await expect.poll(() => open.page.getByRole("tab", { selected: true }).textContent()).toBe("The long tail");
    await open.close();
  });
});
