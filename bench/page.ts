// The page against its budgets: first load, verdict, weights, first picture, first update, speed, pause, save, reload and resume.
//
// A real Chromium opens the built page, trains the smallest run, pauses it, is reloaded in the middle and resumes. Times between
// events of the run come from its log.jsonl, what people feel from the browser's own event timing. Budgets are those of a GPU;
// without one Chromium computes on the CPU (SwiftShader), and the compute rows say what that takes. Options: --json, --dist=PATH.

import process from "node:process";
import { type Browser, chromium, type Page } from "playwright-core";
import { build, preview } from "vite";
import { findChromium } from "../scripts/chromium.mjs";
import type { LogLine } from "../src/web/protocol.ts";
import { parseLog } from "../src/web/run_source.ts";
import { fixed, median, printHeader, printRows, printTable, type Row, readArguments } from "./lib/report.ts";

const CONFIG = new URL("../vite.config.ts", import.meta.url).pathname;
/** Longest wait for anything. */
const PATIENCE = 600_000;
const HASH = "#updates=12&batch=2";

const args = readArguments();
const { program, why } = await findChromium();
if (!program) throw new Error(`there is no Chromium: ${why}`);
await build({ configFile: CONFIG, logLevel: "error" });
const server = await preview({ configFile: CONFIG, preview: { port: 0, host: "127.0.0.1" }, logLevel: "error" });
const url = `${server.resolvedUrls!.local[0]!}`;
const { VK_DRIVER_FILES: _, VK_ICD_FILENAMES: _old, ...env } = process.env as Record<string, string>;
const flags = ["--no-sandbox", "--enable-unsafe-webgpu", "--disable-background-networking", "--no-first-run"];
const browser: Browser = await chromium.launch({ executablePath: program, headless: true, args: flags, env });

interface Line {
  moment: string;
  budget: string;
  /** What the budget allows; null where there is none. */
  most: number | null;
  /** Above 1 where it is within its budget. */
  ratio: number | null;
  measured: number;
  unit: string;
  within: boolean | null;
}
const lines: Line[] = [];
function say(moment: string, measured: number, unit: string, most: number | null, least = false): void {
  const within = most === null ? null : least ? measured >= most : measured <= most;
  const budget = most === null ? "" : `${least ? "≥" : "≤"} ${most} ${unit}`;
  const ratio = most === null ? null : least ? measured / most : most / measured;
  lines.push({ moment, budget, most, ratio, measured, unit, within });
}

/** What the run has logged; the page itself reads it as it does. */
const logOf = async (page: Page, run: string): Promise<LogLine[]> =>
  parseLog(
    await page.evaluate(async (name) => {
      try {
        let folder = await navigator.storage.getDirectory();
        for (const part of ["runs", name]) folder = await folder.getDirectoryHandle(part);
        return await (await (await folder.getFileHandle("log.jsonl")).getFile()).text();
      } catch {
        return "";
      }
    }, run),
  );

const runs = (page: Page): Promise<string[]> =>
  page.evaluate(async () => {
    const names = [];
    try {
      const folder = await (await navigator.storage.getDirectory()).getDirectoryHandle("runs");
      for await (const [name, entry] of folder.entries()) if (entry.kind === "directory") names.push(name);
    } catch {
      // None yet.
    }
    return names.filter((name) => name !== "cache");
  });

async function until<T>(what: string, find: () => Promise<T | undefined | false>): Promise<T> {
  for (const end = Date.now() + PATIENCE; Date.now() < end; ) {
    const found = await find();
    if (found) return found;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new Error(`${what} did not come`);
}

const context = await browser.newContext({ viewport: { width: 1280, height: 900 } });
let page = await context.newPage();
let sent = 0;
const cdp = await context.newCDPSession(page);
await cdp.send("Network.enable");
cdp.on("Network.loadingFinished", ({ encodedDataLength }) => {
  sent += encodedDataLength;
});
await page.addInitScript(() => {
  const all: number[] = [];
  (globalThis as unknown as { interactions: number[] }).interactions = all;
  new PerformanceObserver((list) => all.push(...list.getEntries().map((entry) => entry.duration))).observe({
    type: "event",
    durationThreshold: 16,
    buffered: true,
  } as PerformanceObserverInit);
});
await page.goto(url + HASH);
await until("the verdict", () => page.evaluate(() => performance.getEntriesByName("verdict").length > 0));
const loaded = await page.evaluate(() => ({
  paint: performance.getEntriesByName("first-contentful-paint")[0]?.startTime ?? 0,
  verdict: performance.getEntriesByName("verdict")[0]!.startTime,
}));
say("first paint", loaded.paint / 1000, "s", 0.5);
say("verdict after the load began", loaded.verdict, "ms", 300);
say("sent until the verdict (not packed by this server)", sent / 1000, "kB", null);
const adapter = await page.evaluate(async () => {
  const { vendor, architecture, description } = (await navigator.gpu.requestAdapter())!.info;
  return [vendor, architecture, description].filter(Boolean).join(" ");
});

const start = page.getByRole("button", { name: "Start training" });
await start.waitFor({ timeout: PATIENCE });
const clicked = Date.now() / 1000;
await start.click();
const name = (await until("the run", async () => (await runs(page)).length > 0 && (await runs(page))))[0]!;
const first = await until("the first sample", async () => (await logOf(page, name)).find((l) => l.kind === "sample"));
say("base picture on the screen, weights fetched on the way", first.t - clicked, "s", 5);
const updates = (log: LogLine[]) => log.filter((l) => l.kind === "metric" && "loss" in l.values);
const begun = await until("an update", async () => updates(await logOf(page, name))[0]);
const compile = (log: LogLine[]) => {
  const of = log.filter((l) => l.kind === "phase" && /compile/.test(l.name));
  const names = new Set(of.map((l) => (l as { name: string }).name));
  return [...names].reduce((sum, one) => {
    const own = of.filter((l) => (l as { name: string }).name === one);
    return sum + own.at(-1)!.t - own[0]!.t;
  }, 0);
};
say("pipelines compiled", compile(await logOf(page, name)), "s", 3);
const sampled = (await logOf(page, name)).filter((l) => l.kind === "sample" && l.step === 0).at(-1)!;
say("first update after the first samples", begun.t - sampled.t, "s", 1);

await until("three updates", async () => updates(await logOf(page, name)).length >= 3);
const pausedAt = Date.now();
await page.getByRole("button", { name: "Pause" }).click();
await page.getByRole("button", { name: "Resume", exact: true }).waitFor({ timeout: PATIENCE });
say("pause, from click to standing still", Date.now() - pausedAt, "ms", 200);
await page.getByRole("button", { name: "Resume", exact: true }).click();

await page.getByRole("button", { name: "Save now" }).click();
await until("a checkpoint", async () => (await logOf(page, name)).some((l) => l.kind === "checkpoint"));
const interactions = await page.evaluate(() => (globalThis as unknown as { interactions: number[] }).interactions);
say("slowest answer to a click or key while training", Math.max(16, ...interactions), "ms", 50);
const before = updates(await logOf(page, name)).at(-1)!.step;

await page.close();
page = await context.newPage();
const reloaded = Date.now() / 1000;
await page.goto(url + HASH);
await page
  .getByRole("button", { name: /^Resume/ })
  .first()
  .click({ timeout: PATIENCE });
const after = await until("an update after the reload", async () =>
  updates(await logOf(page, name)).find((l) => l.t > reloaded),
);
say(`reload to the same loss curve (from update ${before})`, after.t - reloaded, "s", 4);
await until("the end", async () =>
  (await logOf(page, name)).some((l) => l.kind === "phase" && l.name === "save weights" && l.done === l.total),
);
const log = await logOf(page, name);
const seconds = updates(log).map((l) => (l.kind === "metric" ? l.values["seconds"]! : 0));
say("updates a second, batch 2", 1 / median(seconds), "/s", 5, true);
const saves = log.filter((l, i) => l.kind === "checkpoint" && i > 0);
const stalls = saves.map((save) => {
  const at = log.indexOf(save);
  return 1000 * (save.t - log.slice(0, at).findLast((l) => l.kind !== "message")!.t);
});
if (stalls.length > 0) say("stall of a save", Math.max(...stalls), "ms", 150);
say("size of a save", Math.max(0, ...saves.map((s) => (s.kind === "checkpoint" ? s.bytes : 0))) / 1e6, "MB", 5);

const version = browser.version();
await browser.close();
await server.close();

printHeader("the page against its budgets", `${adapter}, Chromium ${version}`);
printTable(
  ["moment", "budget", "measured", ""],
  lines.map(({ moment, budget, measured, unit, within }) => [
    moment,
    budget,
    `${fixed(measured, measured < 10 ? 2 : 0)} ${unit}`,
    within === null ? "" : within ? "within" : "over",
  ]),
);
const rows = lines.map(
  ({ moment, measured, most, ratio }): Row => ({ name: moment, ours: measured, best_peer: most, ratio }),
);
printRows(args, rows);
Deno.exit(0);
