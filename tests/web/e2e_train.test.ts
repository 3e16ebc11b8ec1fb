// A run from start to end as a person makes it, in one browser profile: train to a lower loss, keep a LoRA that the command
// line accepts, reload in the middle of another run and go on to the same curve, and open the page without a network.

import { execFile } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { promisify } from "node:util";
import { afterAll, beforeAll, expect, test } from "vitest";
import { parseLog } from "../../src/web/run_source.ts";
import { ROOT } from "../helpers/files.ts";
import { describeInBrowser, type OpenPage, openBrowser, screenshot } from "./browser.ts";
import { builtPage } from "./built_page.ts";
import {
  address,
  button,
  openLongtail,
  PATIENCE,
  startTraining,
  storedLosses,
  trained,
  trainingOver,
} from "./longtail_page.ts";
import { readStoredText } from "./opfs.ts";
import { type Served, serveFolder } from "./server.ts";

const execute = promisify(execFile);
const LONGEST = 1_200_000;
/** More than are needed to learn something: a run that is looked at on its way must not be over before the look. */
const UPDATES = 8;
const SETTINGS = { updates: UPDATES, rank: 8, lr: 0.003 };

/** Validation losses in order: deterministic, so that their fall is learning and no luck. */
async function validationLosses({ page }: OpenPage, run: string): Promise<number[]> {
  const lines = parseLog(await readStoredText(page, `runs/${run}/log.jsonl`));
  return lines.flatMap((line) => (line.kind === "metric" ? [line.values["val_loss"]!] : [])).filter(Number.isFinite);
}

describeInBrowser("a run in the page", () => {
  let served: Served;
  let first: OpenPage;
  let expected: Map<number, number>;
  const folder = mkdtempSync(join(tmpdir(), "longtail-kept-"));
  beforeAll(async () => {
    served = await serveFolder(await builtPage());
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  test(
    "ends with a lower loss and a LoRA that the command line accepts",
    async () => {
      first = await openLongtail(address(served.url, { ...SETTINGS, name: "whole" }));
      await startTraining(first);
      // The samples before training are seen while they take shape.
      await first.page
        .getByRole("img", { name: /, taking shape$/ })
        .first()
        .waitFor({ timeout: PATIENCE });
      await screenshot(first, "taking-shape");
      await trainingOver(first, "whole");
      expect(await first.page.getByRole("img", { name: /, taking shape$/ }).count()).toBe(0);
      expected = await storedLosses(first, "whole");
      expect([...expected.keys()]).toEqual(Array.from({ length: UPDATES }, (_, i) => i + 1));
      const losses = await validationLosses(first, "whole");
      console.log(`validation loss ${losses.map((x) => x.toFixed(4)).join(", ")}`);
      expect(losses.at(-1)!).toBeLessThan(losses[0]!);

      for (const name of ["whole.safetensors", "whole.kohya.safetensors"]) {
        const waiting = first.page.waitForEvent("download", { timeout: PATIENCE });
        await button(first, new RegExp(`download ${name}$`)).click();
        const download = await waiting;
        const kept = join(folder, download.suggestedFilename());
        await download.saveAs(kept);
        // Rejects, with what was printed, where the exit code is not 0.
        const program = ["run", "-A", "--no-check", "--config", join(ROOT, "deno.json"), join(ROOT, "src/cli/main.ts")];
        const { stdout } = await execute(process.execPath, [...program, "lora", "verify", kept, "--json"]);
        expect(JSON.parse(stdout)).toBeTruthy();
      }
      await first.close({ keepContext: true });
    },
    LONGEST,
  );

  test(
    "that is cut off by a reload goes on from its checkpoint, to the same losses",
    async () => {
      const settings = { ...SETTINGS, name: "cut" };
      const open = await openLongtail(address(served.url, settings), { context: first.context });
      await startTraining(open);
      await button(open, "Save now").click();
      await trained(open, "cut", 1);
      const saved = () =>
        readStoredText(open.page, "runs/cut/log.jsonl").then((text) => /"kind":"checkpoint"/.test(text));
      await expect.poll(saved, { timeout: PATIENCE, interval: 200 }).toBe(true);
      await open.page.reload();
      const offer = open.page.getByText("Resume the run “cut”?");
      await offer.waitFor({ timeout: PATIENCE });
      await button(open, "Resume").click();
      await button(open, "Stop").waitFor({ timeout: PATIENCE });
      await trainingOver(open, "cut");
      await expect.poll(() => open.page.getByRole("main").textContent()).toContain("Finished");
      await expect.poll(() => storedLosses(open, "cut")).toEqual(expected);
      await open.close({ keepContext: true });
    },
    LONGEST,
  );

  test(
    "goes on by itself when the browser's GPU process dies",
    async () => {
      const settings = { ...SETTINGS, updates: 40, name: "lost" };
      const open = await openLongtail(address(served.url, settings), {
        context: first.context,
        expected: [/GPU|device/i],
      });
      await startTraining(open);
      await trained(open, "lost", 1);
      const browser = await (await openBrowser()).newBrowserCDPSession();
      await browser.send("Browser.crashGpuProcess" as never).catch(() => {});
      await open.page.getByText("The GPU was reset").first().waitFor({ timeout: PATIENCE });
      const reached = Math.max(...(await storedLosses(open, "lost")).keys());
      await trained(open, "lost", reached + 1);
      await button(open, "Stop").click();
      await trainingOver(open, "lost");
      await expect.poll(() => open.page.getByRole("main").textContent()).toContain("Stopped");
      await open.close({ keepContext: true });
    },
    LONGEST,
  );

  test(
    "draws what it has learnt while it is paused, at any strength",
    async () => {
      const settings = { ...SETTINGS, updates: 60, name: "paused" };
      const open = await openLongtail(address(served.url, settings), { context: first.context });
      const { page } = open;
      await startTraining(open);
      await trained(open, "paused", 1);
      await button(open, "Pause").click();
      await button(open, "Resume").waitFor({ timeout: PATIENCE });
      const compare = page.getByRole("region", { name: "Compare" });
      await compare.getByLabel("Run", { exact: true }).selectOption("paused");
      await compare.getByLabel("Steps", { exact: true }).fill("2");
      await compare.getByLabel("Pictures", { exact: true }).fill("1");
      await button(open, "Draw before and so far").click();
      const picture = page.getByRole("img", { name: /, after \d+ updates?$/ });
      await picture.waitFor({ timeout: PATIENCE });
      const pixels = () => picture.evaluate((canvas: HTMLCanvasElement) => canvas.toDataURL());
      const whole = await pixels();
      // The far end; changing it is what letting go of the slider is.
      await page.getByLabel("Strength of the LoRA").fill("-0.5");
      await expect.poll(pixels, { timeout: PATIENCE }).not.toBe(whole);
      await screenshot(open, "paused-drawn");
      await button(open, "Resume").click();
      await button(open, "Pause").waitFor({ timeout: PATIENCE });
      await expect.poll(() => page.getByLabel("Strength of the LoRA").count()).toBe(0);
      await button(open, "Stop").click();
      await trainingOver(open, "paused");
      await open.close({ keepContext: true });
    },
    LONGEST,
  );

  test("is there when the page is opened again without a network", async () => {
    const open = await openLongtail(served.url, { context: first.context });
    await open.page.evaluate(() => navigator.serviceWorker.ready.then(() => {}));
    await open.context.setOffline(true);
    await open.page.reload();
    await button(open, "Storage").click();
    await open.page.getByText("Run “whole”").waitFor();
    await expect.poll(() => open.page.getByRole("tab").count()).toBe(3);
    await open.context.setOffline(false);
    await open.close();
  });
});
