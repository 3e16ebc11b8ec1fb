// The Watch mode in a real Chromium, served by `longtail serve`'s own server: a run that goes on, one of 100,000 lines, runs
// laid over each other, a folder, a recording, commands, and what an accessibility check and a narrow screen say.

import * as fs from "node:fs";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import axe from "axe-core";
import type { Page } from "playwright-core";
import { afterAll, beforeAll, expect, test } from "vitest";
import { pageServer } from "../../../src/cli/serve/server.ts";
import { ROOT } from "../../helpers/files.ts";
import { describeInBrowser, openPage, type PageOptions, screenshot } from "../browser.ts";
import { builtPage } from "../built_page.ts";

const recorded = join(ROOT, "src/web/public/recorded");
const TOKEN = "a-token-for-tests";
/** A machine that does other work as well is slow. */
const patient = { timeout: 60_000 };

describeInBrowser("watching runs in Chromium", () => {
  const folder = fs.mkdtempSync(join(tmpdir(), "longtail-watch-"));
  const runs = join(folder, "runs");
  let url = "";
  let stop: () => Promise<void>;

  const copyRun = (name: string, to: string) => fs.cpSync(join(recorded, name), join(runs, to), { recursive: true });
  const linesOf = (name: string) =>
    fs
      .readFileSync(join(runs, name, "log.jsonl"), "utf8")
      .split("\n")
      .filter(Boolean);
  const setState = (name: string, state: string) =>
    fs.writeFileSync(
      join(runs, name, "run.json"),
      JSON.stringify({ state, command: "train", started: "2026-11-23T08:00:00.000Z" }),
    );

  beforeAll(async () => {
    copyRun("lora", "first");
    copyRun("lora", "second");
    // The same run with another course: a tenth lower.
    const second = linesOf("second").map((line) =>
      line.replace(/"loss":(0\.\d+)/, (_, v) => `"loss":${0.9 * Number(v)}`),
    );
    fs.writeFileSync(join(runs, "second", "log.jsonl"), `${second.join("\n")}\n`);
    const controller = new AbortController();
    const times = { look: 50, beat: 5000 };
    const page = await builtPage();
    const server = pageServer({ page, runs, host: "127.0.0.1", token: TOKEN, signal: controller.signal, times });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/#mode=watch`;
    stop = async () => {
      controller.abort();
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    };
  });
  afterAll(async () => {
    await stop?.();
    fs.rmSync(folder, { recursive: true, force: true });
  });

  const open = (options: PageOptions = {}, address = url) => openPage(address, { webgpu: "no-adapter", ...options });
  /** Waits until both runs of the comparison are read to their ends. */
  const bothRead = (page: Page) =>
    expect
      .poll(() => page.locator("table tbody td:nth-child(3)").allTextContents(), patient)
      .toEqual(expect.arrayContaining(["200", "200"]));
  const figure = (name: string) => `.run-panel .figure:has(dt:text-is("${name}")) dd`;

  test("shows a run as it grows, and its end", async () => {
    copyRun("lora", "growing");
    const lines = linesOf("growing");
    const log = join(runs, "growing", "log.jsonl");
    fs.writeFileSync(log, `${lines.slice(0, 60).join("\n")}\n`);
    setState("growing", "running");
    const opened = await open();
    const { page } = opened;
    await page.getByRole("button", { name: /^growing/ }).click();
    await expect.poll(() => page.textContent(figure("Update")), patient).toMatch(/^\d+ of 200$/);
    const before = Number.parseInt((await page.textContent(figure("Update")))!, 10);
    fs.appendFileSync(log, `${lines.slice(60, 200).join("\n")}\n`);
    await expect
      .poll(async () => Number.parseInt((await page.textContent(figure("Update")))!, 10), patient)
      .toBeGreaterThan(before + 40);
    fs.appendFileSync(log, `${lines.slice(200).join("\n")}\n`);
    setState("growing", "finished");
    await expect.poll(() => page.textContent(figure("Update")), patient).toBe("200 of 200");
    await expect.poll(() => page.textContent(".run-panel .badge"), patient).toBe("Finished");
    await expect.poll(() => page.locator(".sample-pictures img").count(), patient).toBe(12);
    await opened.close();
    fs.rmSync(join(runs, "growing"), { recursive: true });
  });

  test("shows 100,000 lines and stays responsive", async () => {
    fs.mkdirSync(join(runs, "huge"));
    const lines: string[] = [];
    for (let i = 1; i <= 100_000; i++) {
      const values = { loss: 0.4 + 0.4 * Math.exp(-i / 20_000) + 0.1 * Math.sin(i * i), grad_norm: 0.1, lr: 0.001 };
      lines.push(JSON.stringify({ t: 1000 + i / 5, step: i, kind: "metric", values }));
    }
    fs.writeFileSync(join(runs, "huge", "log.jsonl"), `${lines.join("\n")}\n`);
    setState("huge", "finished");
    const opened = await open();
    const { page } = opened;
    await page.waitForSelector(".run-panel .figures");
    await page.evaluate(() => {
      const all: number[] = [];
      Object.assign(globalThis, { longTasks: all });
      new PerformanceObserver((list) => {
        for (const entry of list.getEntries()) all.push(entry.duration);
      }).observe({ entryTypes: ["longtask"] });
    });
    const began = performance.now();
    await page.getByRole("button", { name: /^huge/ }).click();
    await expect.poll(() => page.textContent(figure("Update")), { timeout: 60_000, interval: 20 }).toBe("100,000");
    const took = performance.now() - began;
    const longest = await page.evaluate(() =>
      Math.max(0, ...(globalThis as unknown as { longTasks: number[] }).longTasks),
    );
    console.log(`100,000 lines in Chromium: shown after ${took.toFixed(0)} ms, longest task ${longest.toFixed(0)} ms`);
    expect(took).toBeLessThan(30_000);
    expect(longest).toBeLessThan(1500);
    await opened.close();
    fs.rmSync(join(runs, "huge"), { recursive: true });
  });

  test("lays runs over each other, by update and by time, and reads their values", async () => {
    const opened = await open();
    const { page } = opened;
    await page.getByRole("button", { name: /^first/ }).click();
    await page.getByRole("button", { name: "Compare second with what is shown" }).click();
    await page.getByLabel("Measurement").selectOption("loss");
    await bothRead(page);
    const values = async () =>
      (await page.locator("table tbody td:nth-child(2)").allTextContents()).slice(0, 2).map(Number);
    const ratio = () => values().then(([first, second]) => second! / first!);
    const heading = () => page.locator("thead th:nth-child(2)").first().textContent();
    await expect.poll(ratio, patient).toBeCloseTo(0.9, 2);
    const [newest] = await values();
    await page.getByLabel("Read the values at").fill("100");
    await expect.poll(heading, patient).toBe("At update 100");
    await expect.poll(ratio, patient).toBeCloseTo(0.9, 2);
    expect((await values())[0]).not.toBe(newest);
    await page.getByLabel("Time worked").check();
    await page.getByLabel("Read the values at").fill("40");
    await expect.poll(heading, patient).toBe("At 40 s");
    await screenshot(opened, "watch-compare");
    await page.getByRole("button", { name: "Remove second" }).click();
    await expect.poll(() => page.locator("table").count(), patient).toBe(0);
    await opened.close();
  });

  test("opens a folder of this machine, and says where there is no run in it", async () => {
    const opened = await open();
    const { page } = opened;
    const input = page.locator('input[type="file"]');
    await input.setInputFiles(join(runs, "second"));
    await expect.poll(() => page.locator(".run-panel h2").allTextContents(), patient).toContain("second");
    await page.getByText("in a folder").first().waitFor();
    fs.mkdirSync(join(folder, "photos"));
    fs.writeFileSync(join(folder, "photos", "cat.png"), "");
    await input.setInputFiles(join(folder, "photos"));
    await expect.poll(() => page.textContent(".run-drop [role=alert]"), patient).toMatch(/There is no run in “photos”/);
    await opened.close();
  });

  test("gives a word to a run with the printed token, which leaves the address", async () => {
    copyRun("lora", "busy");
    setState("busy", "running");
    const opened = await open({}, `${url}&token=${TOKEN}`);
    const { page } = opened;
    await page.getByRole("button", { name: /^busy/ }).click();
    await expect.poll(() => new URL(page.url()).hash, patient).toBe("#mode=watch");
    await page.getByRole("button", { name: "Pause", exact: true }).click();
    await page.getByText("“pause” was written").waitFor();
    expect(fs.readFileSync(join(runs, "busy", "CMD"), "utf8")).toBe("pause\n");
    await page.getByRole("button", { name: "Stop", exact: true }).click();
    await page.getByRole("button", { name: "Cancel" }).click();
    expect(fs.readFileSync(join(runs, "busy", "CMD"), "utf8")).toBe("pause\n");
    await opened.close();
    fs.rmSync(join(runs, "busy"), { recursive: true });
  });

  test("plays a recording that says what it is, and holds still for who wants little motion", async () => {
    const opened = await open();
    const { page } = opened;
    await page.getByRole("button", { name: /^A LoRA learns/ }).click();
    await page.getByText("This is a recording").waitFor();
    await page.getByRole("button", { name: "×60" }).click();
    await expect.poll(() => page.textContent(figure("Update")), patient).toBe("200 of 200");
    const scrub = page.getByLabel("Position in the recording");
    await scrub.fill("40");
    await expect
      .poll(async () => Number.parseInt((await page.textContent(figure("Update")))!, 10), patient)
      .toBeLessThan(150);
    await screenshot(opened, "watch-recorded");
    await opened.close();
    const still = await open({ reducedMotion: true });
    await still.page.getByRole("button", { name: /^A LoRA learns/ }).click();
    await expect.poll(() => still.page.textContent(figure("Update")), patient).toBe("200 of 200");
    await still.page.getByRole("button", { name: "Play", exact: true }).waitFor();
    await still.close();
  });

  test("plays a recording where the browser has no WebGPU, without touching what is watched", async () => {
    const opened = await open({ webgpu: "missing" }, url.replace(/#.*/, ""));
    const { page } = opened;
    await page.getByText("This is a recording").waitFor();
    await page.getByRole("button", { name: /^SRPO/ }).click();
    await expect.poll(() => page.locator("#panel-train .run-panel h2").first().textContent(), patient).toMatch(/^SRPO/);
    await page.getByRole("tab", { name: "Watch a run" }).click();
    await expect.poll(() => page.locator("#panel-watch .run-panel h2").first().textContent(), patient).toBe("first");
    await opened.close();
  });

  test.each([
    ["light, wide", {}],
    ["dark, 360 px", { dark: true, width: 360 }],
  ] as const)("has no serious finding of axe and nothing that overflows: %s", async (name, options) => {
    const opened = await open(options);
    const { page } = opened;
    await page.getByRole("button", { name: /^first/ }).click();
    await page.locator(".sample-pictures img").first().waitFor();
    await page.getByRole("button", { name: "Compare second with what is shown" }).click();
    await page.getByLabel("Measurement").waitFor();
    await bothRead(page);
    await page.evaluate(() => {
      for (const details of document.querySelectorAll("details")) if (details.checkVisibility()) details.open = true;
    });
    await page.evaluate(axe.source);
    const { violations } = await page.evaluate(() =>
      (globalThis as unknown as { axe: typeof axe }).axe.run("#panel-watch"),
    );
    const serious = violations.filter(({ impact }) => impact === "serious" || impact === "critical");
    expect(serious.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html.slice(0, 120)).join(" | ")}`)).toEqual(
      [],
    );
    await expect
      .poll(() => page.evaluate(() => document.documentElement.scrollWidth - innerWidth), patient)
      .toBeLessThanOrEqual(0);
    await screenshot(opened, `watch-${name.replace(/\W+/g, "-")}`);
    await opened.close();
  });
});
