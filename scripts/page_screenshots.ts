// Makes the page's pictures in docs/pictures/page: every stage wide and light, and on a phone and dark, from the built page with its
// real engine in Chromium. `deno run -A --no-check scripts/page_screenshots.ts [stage …]`; on a software adapter it takes minutes.

import { mkdirSync } from "node:fs";
import process from "node:process";
import { type BrowserContext, chromium, type Page } from "playwright-core";
import { build, preview } from "vite";
import { findChromium } from "./chromium.mjs";

const FOLDER = "docs/pictures/page";
const PATIENCE = 900_000;

const { program, why } = await findChromium();
if (!program) throw new Error(`there is no Chromium: ${why}`);
mkdirSync(FOLDER, { recursive: true });
const configFile = new URL("../vite.config.ts", import.meta.url).pathname;
await build({ configFile, logLevel: "error" });
const server = await preview({ configFile, preview: { port: 0, host: "127.0.0.1" }, logLevel: "error" });
const url = server.resolvedUrls!.local[0]!;
const { VK_DRIVER_FILES: _, VK_ICD_FILENAMES: _old, ...env } = process.env as Record<string, string>;
const common = ["--no-sandbox", "--disable-background-networking", "--no-first-run"];
const launch = (...flags: string[]) =>
  chromium.launch({ executablePath: program, headless: true, args: [...common, ...flags], env });

async function open(context: BrowserContext, hash: string): Promise<Page> {
  const page = await context.newPage();
  await page.goto(url + hash);
  await page.getByRole("tabpanel").first().waitFor();
  await page.waitForTimeout(3000);
  return page;
}

/** One stage, wide and light, then narrow and dark. */
async function shoot(page: Page, name: string): Promise<void> {
  for (const [suffix, width, colorScheme] of [
    ["wide-light", 1280, "light"],
    ["phone-dark", 360, "dark"],
  ] as const) {
    await page.setViewportSize({ width, height: width === 360 ? 740 : 900 });
    await page.emulateMedia({ colorScheme, reducedMotion: "reduce" });
    // Lists draw what is in sight only; a picture of the whole page shows everything.
    await page.evaluate(() => {
      for (const row of document.querySelectorAll<HTMLElement>(".lt-row")) row.style.contentVisibility = "visible";
      scrollTo(0, 0);
    });
    await page.waitForTimeout(1500);
    await page.screenshot({ path: `${FOLDER}/${name}-${suffix}.jpg`, fullPage: true, type: "jpeg", quality: 80 });
    console.log(`${FOLDER}/${name}-${suffix}.jpg`);
  }
  await page.setViewportSize({ width: 1280, height: 900 });
  await page.emulateMedia({ colorScheme: "light", reducedMotion: "reduce" });
}

const button = (page: Page, name: string | RegExp) => page.getByRole("button", { name });

const STAGES: Record<string, () => Promise<void>> = {
  async train() {
    const browser = await launch("--enable-unsafe-webgpu");
    const page = await open(await browser.newContext(), "#updates=40&batch=2");
    await shoot(page, "train-1-pick");
    await button(page, "Start training").click();
    await page
      .getByText(/update (1[0-9]|2[0-9]) of 40/)
      .first()
      .waitFor({ timeout: PATIENCE });
    await shoot(page, "train-2-running");
    await page.getByText("Finished", { exact: true }).waitFor({ timeout: PATIENCE });
    await button(page, "Draw before and after").click();
    await page.getByText("As training went on").waitFor();
    await page
      .locator("[class*=compare] canvas, .compare canvas, canvas.drawn")
      .nth(1)
      .waitFor({ timeout: 120_000 })
      .catch(() => {});
    await page.waitForTimeout(30_000);
    await shoot(page, "train-3-compare-keep");
    await browser.close();
  },
  async longtail() {
    const browser = await launch("--enable-unsafe-webgpu");
    const page = await open(await browser.newContext(), "#mode=longtail");
    await page.locator(".lt-map[data-renderer]").waitFor({ timeout: PATIENCE });
    await button(page, "The 32 of the experiment").click();
    await page.waitForTimeout(15_000);
    await shoot(page, "longtail-1-pick");
    await browser.close();
  },
  async watch() {
    const browser = await launch("--enable-unsafe-webgpu");
    for (const [name, title] of [
      ["watch-1-lora", "A LoRA learns ten rare emoji"],
      ["watch-2-alignment", "SRPO with MIA pairs lifts 32 rare items"],
    ] as const) {
      const page = await open(await browser.newContext({ reducedMotion: "reduce" }), "#mode=watch");
      await page.getByText(title).first().click();
      await page.waitForTimeout(3000);
      const slider = page.getByRole("slider").first();
      await slider.focus();
      await page.keyboard.press("End");
      await page.waitForTimeout(5000);
      await shoot(page, name);
      await page.close();
    }
    await browser.close();
  },
  async blocked() {
    const browser = await launch("--disable-gpu", "--disable-software-rasterizer");
    const page = await open(await browser.newContext({ reducedMotion: "reduce" }), "");
    await page.waitForTimeout(4000);
    await shoot(page, "no-webgpu");
    await browser.close();
  },
};

const wanted = process.argv.slice(2).length > 0 ? process.argv.slice(2) : Object.keys(STAGES);
for (const stage of wanted) {
  const work = STAGES[stage];
  if (!work) throw new Error(`there is no stage ${stage}; the stages are ${Object.keys(STAGES).join(", ")}`);
  await work();
}
await server.close();
process.exit(0);
