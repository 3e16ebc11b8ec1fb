// The page as a person uses it, for the end-to-end tests: opened with the smallest settings that still train, its parts found
// by their roles and names, and what it stored read back.

import { expect } from "vitest";
import type { LogLine } from "../../src/web/protocol.ts";
import { parseLog } from "../../src/web/run_source.ts";
import { type OpenPage, openPage, type PageOptions } from "./browser.ts";
import { readStoredText } from "./opfs.ts";

/** Five pictures of one style: the fewest that the page trains on. */
export const ITEMS = "taco,sushi,pizza,bread,banana";

/** Milliseconds for anything that computes: two cores that others use as well are slow. */
export const PATIENCE = 400_000;

/** The page's address with a run of few updates. */
export function address(url: string, settings: Record<string, string | number> = {}): string {
  const all = { set: "Small set", items: ITEMS, styles: "noto", updates: 4, batch: 1, rank: 4, ...settings };
  const query = Object.entries(all).map(([name, value]) => `${name}=${encodeURIComponent(value)}`);
  return `${url}#${query.join("&")}`;
}

/** Opens the page and waits for its verdict on the machine. */
export async function openLongtail(address: string, options: PageOptions = {}): Promise<OpenPage> {
  const open = await openPage(address, options);
  await open.page.locator("[role=tabpanel]:visible").waitFor();
  await expect.poll(() => open.page.getByText("Looking at this machine").count(), { timeout: 60_000 }).toBe(0);
  return open;
}

export const button = ({ page }: OpenPage, name: string | RegExp) => page.getByRole("button", { name, exact: true });

/** Presses "Start training" and waits until the run is under way. */
export async function startTraining(open: OpenPage): Promise<void> {
  await button(open, "Start training").click();
  await button(open, "Stop").waitFor({ timeout: PATIENCE });
}

/** Losses by update as they stand in the run's log; of an update that was repeated, the last. */
export async function storedLosses({ page }: OpenPage, run: string): Promise<Map<number, number>> {
  const text = await readStoredText(page, `runs/${run}/log.jsonl`).catch(() => "");
  return new Map(
    parseLog(text).flatMap((line: LogLine) =>
      line.kind === "metric" && "loss" in line.values ? [[line.step, line.values["loss"]!] as const] : [],
    ),
  );
}

/** Waits until the run has trained `step` updates. */
export async function trained(open: OpenPage, run: string, step: number): Promise<void> {
  await expect
    .poll(async () => Math.max(0, ...(await storedLosses(open, run)).keys()), { timeout: PATIENCE, interval: 300 })
    .toBeGreaterThanOrEqual(step);
}

/** Waits until no run is under way any more; says where it stood if that takes too long. */
export async function trainingOver(open: OpenPage, run: string): Promise<void> {
  try {
    await button(open, "Start training").waitFor({ timeout: PATIENCE });
  } catch (error) {
    const log = await readStoredText(open.page, `runs/${run}/log.jsonl`).catch(() => "no log");
    const lines = [...log.trim().split("\n").slice(-3), ...open.complaints()];
    throw new Error(`the run “${run}” does not end:\n${lines.join("\n")}`, { cause: error });
  }
}
