// A real Chromium for the tests of the page: one browser a test file, one fresh profile a page, and every complaint of the
// page (console errors, uncaught errors, what its content security policy refused) fails the test unless it was expected.
// Playwright's library drives the Chromium that scripts/chromium.mjs found; where there is none the suites are skipped
// with its reason in their names.

import process from "node:process";
import { type Browser, type BrowserContext, type CDPSession, chromium as driver, type Page } from "playwright-core";
import { afterAll, afterEach, describe } from "vitest";
import { findChromium } from "../../scripts/chromium.mjs";

/** `npm test` hands over what it set up; a test file run by itself takes what is there. */
const found: { program: string | null; why?: string } = process.env.LONGTAIL_NO_CHROMIUM
  ? { program: null, why: process.env.LONGTAIL_NO_CHROMIUM }
  : await findChromium();

/** The Chromium program, or null. */
export const chromium: string | null = found.program;

/** Milliseconds for a test in the browser, unless it says another limit: a machine that does other work as well is slow. */
const LONGEST_TEST = 300_000;

/** Milliseconds that a page may take to show what a test acts on. */
const LONGEST_WAIT = 90_000;

/** `describe` for tests that need Chromium; without one they are skipped, and the title says why. */
export function describeInBrowser(title: string, body: () => void): void {
  const whole = chromium ? title : `${title} (skipped: ${found.why})`;
  describe.skipIf(!chromium)(whole, { timeout: LONGEST_TEST }, body);
}

/**
 * How a page sees the GPU: `software` is SwiftShader, also where the machine has a GPU; `no-adapter` has navigator.gpu and
 * gets null from it, in workers too; `missing` has no navigator.gpu, as in an old browser (workers still have it).
 */
export type WebGpu = "software" | "no-adapter" | "missing";

const COMMON = [
  // The pages are the tests' own, and containers allow no sandbox.
  "--no-sandbox",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
  "--no-first-run",
  "--force-color-profile=srgb",
  "--host-resolver-rules=MAP insecure.test 127.0.0.1",
];

const SOFTWARE = ["--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader"];
const NO_ADAPTER = ["--disable-gpu", "--disable-software-rasterizer"];

const browsers = new Map<boolean, Promise<Browser>>();

/** The browser of this test file, with or without an adapter; closed by itself after the last test. */
export function openBrowser(webgpu: WebGpu = "software"): Promise<Browser> {
  const adapter = webgpu !== "no-adapter";
  let browser = browsers.get(adapter);
  if (!browser) {
    const args = [...COMMON, ...(adapter ? SOFTWARE : NO_ADAPTER)];
    browser = driver.launch({ executablePath: chromium!, headless: true, args, env: browserEnvironment() });
    browsers.set(adapter, browser);
  }
  return browser;
}

/** Without the drivers that are meant for the tests themselves: they hide Chromium's own software adapter. */
export function browserEnvironment(): Record<string, string> {
  const { VK_DRIVER_FILES: _, VK_ICD_FILENAMES: _old, LD_LIBRARY_PATH: _libraries, ...rest } = process.env;
  return Object.fromEntries(Object.entries(rest).filter(([, value]) => value !== undefined)) as Record<string, string>;
}

/** The same address as a page that is not a secure context sees it: without WebGPU, without OPFS. */
export function insecure(url: string): string {
  return url.replace("127.0.0.1", "insecure.test");
}

const pages = new Set<OpenPage>();

afterEach(async () => {
  // A test that failed half-way leaves its page; its complaints would hide the first failure.
  for (const open of [...pages]) await open.discard();
});

afterAll(async () => {
  for (const browser of browsers.values()) await (await browser).close();
  browsers.clear();
});

export interface PageOptions {
  webgpu?: WebGpu;
  /** CSS pixels; 1280 × 800 by default. */
  width?: number;
  height?: number;
  dark?: boolean;
  reducedMotion?: boolean;
  /** Starts without a network; `open.context.setOffline` changes it later. */
  offline?: boolean;
  /** Complaints that this test provokes. */
  expected?: RegExp[];
  /** A context of an earlier page: the same storage, as a second tab has. */
  context?: BrowserContext;
  /** Runs in the page before its own scripts; not in workers. */
  before?: () => void;
}

/** A page under test. */
export interface OpenPage {
  page: Page;
  context: BrowserContext;
  cdp: CDPSession;
  /** Complaints so far, those that were expected left out. */
  complaints(): string[];
  /** Closes the tab and throws if the page complained. The context goes with it unless `keepContext`. */
  close(options?: { keepContext?: boolean }): Promise<void>;
  /** Closes without looking. */
  discard(): Promise<void>;
}

/** Opens `url` in a fresh profile (or in `context`) and waits until it has loaded. */
export async function openPage(url: string, options: PageOptions = {}): Promise<OpenPage> {
  const browser = await openBrowser(options.webgpu);
  const context =
    options.context ??
    (await browser.newContext({
      viewport: { width: options.width ?? 1280, height: options.height ?? 800 },
      colorScheme: options.dark ? "dark" : "light",
      reducedMotion: options.reducedMotion ? "reduce" : "no-preference",
      offline: options.offline ?? false,
      acceptDownloads: true,
      permissions: ["clipboard-read", "clipboard-write"],
    }));
  context.setDefaultTimeout(LONGEST_WAIT);
  const page = await context.newPage();
  const cdp = await context.newCDPSession(page);
  const seen: string[] = [];
  page.on("pageerror", (error) => seen.push(`uncaught: ${error.stack ?? error.message}`));
  page.on("console", (message) => {
    // What the policy refuses is a console error as well, in workers too.
    if (message.type() === "error") seen.push(`${message.text()} (${message.location().url})`);
  });
  page.on("crash", () => seen.push("the tab crashed"));
  if (options.webgpu === "missing") {
    await page.addInitScript(() => Reflect.deleteProperty(Navigator.prototype, "gpu"));
  }
  if (options.before) await page.addInitScript(options.before);
  const expected = options.expected ?? [];
  const open: OpenPage = {
    page,
    context,
    cdp,
    complaints: () => seen.filter((text) => !expected.some((pattern) => pattern.test(text))),
    async close({ keepContext = false } = {}) {
      pages.delete(open);
      await (keepContext ? page.close() : context.close());
      const complaints = open.complaints();
      if (complaints.length > 0) throw new Error(`the page complained:\n${complaints.join("\n")}`);
    },
    async discard() {
      pages.delete(open);
      await context.close().catch(() => {});
    },
  };
  pages.add(open);
  await page.goto(url, { waitUntil: "load" });
  return open;
}

/** Everything that this origin may keep, in bytes; null gives the browser's own answer back. */
export async function setQuota({ cdp, page }: OpenPage, bytes: number | null): Promise<void> {
  const { origin } = new URL(page.url());
  await cdp.send("Storage.overrideQuotaForOrigin", bytes === null ? { origin } : { origin, quotaSize: bytes });
}

/**
 * A picture of the page for a person to look at, written where LONGTAIL_SCREENSHOTS names a folder; nothing otherwise.
 * `name` gets `.png`.
 */
export async function screenshot({ page }: OpenPage, name: string, fullPage = true): Promise<void> {
  const folder = process.env.LONGTAIL_SCREENSHOTS;
  if (folder) await page.screenshot({ path: `${folder}/${name}.png`, fullPage, animations: "disabled" });
}
