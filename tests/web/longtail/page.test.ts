// The long-tail mode in a real browser: the map is drawn, turned and picked from, the list mirrors it, and the worker plans the
// run that the form asks for. Without WebGPU the same map is drawn on a 2-D canvas.

import { beforeAll, expect, test } from "vitest";
import { describeInBrowser, type OpenPage, screenshot } from "../browser.ts";
import { builtPage } from "../built_page.ts";
import { openLongtail } from "../longtail_page.ts";
import { type Served, serveFolder } from "../server.ts";

describeInBrowser("the long tail's mode", () => {
  let served: Served;
  beforeAll(async () => {
    served = await serveFolder(await builtPage());
  });

  const openMode = async (options: Parameters<typeof openLongtail>[1] = {}) => {
    const open = await openLongtail(`${served.url}#mode=longtail`, { reducedMotion: true, ...options });
    await open.page
      .locator(".lt-map[data-renderer=webgpu], .lt-map[data-renderer=canvas]")
      .waitFor({ timeout: 120_000 });
    return open;
  };

  /** Colours that differ on the map: an empty one has a single one. */
  const colours = async ({ page }: OpenPage) => {
    const bytes = await page.locator(".lt-map").screenshot();
    return page.evaluate(
      async (data) => {
        const bitmap = await createImageBitmap(new Blob([new Uint8Array(data)], { type: "image/png" }));
        const context = new OffscreenCanvas(bitmap.width, bitmap.height).getContext("2d")!;
        context.drawImage(bitmap, 0, 0);
        const { data: pixels } = context.getImageData(0, 0, bitmap.width, bitmap.height);
        return new Set(new Uint32Array(pixels.buffer)).size;
      },
      [...bytes],
    );
  };

  test("picks on the map and in the list are one, and the plan of the run is told", async () => {
    const open = await openMode();
    const { page } = open;
    await expect.poll(() => colours(open), { timeout: 60_000 }).toBeGreaterThan(1500);
    await page.getByRole("button", { name: "The 32 of the experiment" }).click();
    await page.getByText("525 of 525 concepts, 32 picked").waitFor();
    await page.getByRole("button", { name: "Clear" }).click();
    await page.getByLabel("Search").fill("pinata");
    await page.getByText("1 of 525 concepts").waitFor();
    await page.getByRole("checkbox", { name: "Pick piñata" }).check();
    await page.getByText("noto icon of piñata").first().waitFor({ state: "attached" });
    // Enter on the map takes out what its card shows.
    await page.locator(".lt-row-name").click();
    await page.locator(".lt-map").focus();
    await page.keyboard.press("ArrowLeft");
    await page.keyboard.press("+");
    await page.keyboard.press("Enter");
    await page.getByText("0 picked", { exact: false }).first().waitFor();
    await page.keyboard.press("Enter");
    await page.getByText(/FLOP: (roughly|about)/).waitFor({ timeout: 120_000 });
    await open.close();
  });

  test("keeps what is picked in the address, and takes an address's picks or says what is wrong with them", async () => {
    const names = encodeURIComponent("piñata,diya lamp");
    const open = await openLongtail(`${served.url}#mode=longtail&picks=${names}`, { reducedMotion: true });
    const { page } = open;
    const picks = () => new URLSearchParams(new URL(page.url()).hash.slice(1)).get("picks");
    const chips = () => page.locator(".lt-chip").allTextContents();
    await expect.poll(chips).toEqual(["diya lamp", "piñata"]);
    await expect.poll(picks).toBe("diya lamp,piñata");
    await page.getByRole("button", { name: "Take out diya lamp" }).click();
    await expect.poll(picks).toBe("piñata");
    // Another mode and back, and a reload.
    await page.getByRole("tab", { name: "Watch a run" }).click();
    await expect.poll(() => new URL(page.url()).hash).toBe("#mode=watch");
    await page.getByRole("tab", { name: "The long tail" }).click();
    await expect.poll(picks).toBe("piñata");
    await page.reload();
    await expect.poll(chips).toEqual(["piñata"]);
    // Pasted while the page is open; one wrong name refuses all, and what was picked stays.
    await page.evaluate(() => {
      location.hash = "#mode=longtail&picks=moai,diya lmap";
    });
    await page.getByText("“diya lmap” is not a concept of this page; did you mean “diya lamp”?").waitFor();
    expect(await chips()).toEqual(["piñata"]);
    await screenshot(open, "longtail-wrong-link");
    await page.evaluate(() => {
      location.hash = "#mode=longtail&picks=moai";
    });
    await expect.poll(chips).toEqual(["moai"]);
    await page.getByRole("button", { name: "Clear" }).click();
    await expect.poll(() => new URL(page.url()).hash).toBe("#mode=longtail");
    await open.close();
  });

  test("is drawn on a 2-D canvas where there is no WebGPU, and says that nothing can be aligned here", async () => {
    const open = await openMode({ webgpu: "missing" });
    expect(await open.page.locator(".lt-map").getAttribute("data-renderer")).toBe("canvas");
    await expect.poll(() => colours(open), { timeout: 60_000 }).toBeGreaterThan(1500);
    await open.page.getByText("This browser cannot train; the Train mode says why.").waitFor();
    await open.close();
  });

  test("says which file did not come, and tries again", async () => {
    const open = await openLongtail(served.url, { reducedMotion: true, expected: [/./] });
    await open.page.route("**/data/*.bin", (route) => route.abort());
    await open.page.getByRole("tab", { name: "The long tail" }).click();
    await open.page.getByText("The concepts did not arrive").waitFor({ timeout: 60_000 });
    await open.page.unroute("**/data/*.bin");
    await open.page.getByRole("button", { name: "Try again" }).click();
    await open.page.locator(".lt-map").waitFor({ timeout: 60_000 });
    await open.close();
  });
});
