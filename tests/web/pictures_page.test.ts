// Own pictures in a real browser: files, drop and paste reach the browser's storage in the layout that the command line reads,
// hostile files are named with their codes, and what was stored is there after a reload.

import { zipSync } from "fflate";
import type { Page } from "playwright-core";
import { expect, test } from "vitest";
import { openPictureSets } from "../../src/data/pictures/sets.ts";
import { crc32 } from "../../src/formats/crc32.ts";
import { MemoryFiles } from "../helpers/files.ts";
import { gradient, jpegOf, pngOf } from "../helpers/pictures.ts";
import { describeInBrowser, openPage, screenshot } from "./browser.ts";
import { builtPage } from "./built_page.ts";
import { listStored, readStored } from "./opfs.ts";
import { serveFolder } from "./server.ts";

const fileOf = (name: string, bytes: Uint8Array) => ({
  name,
  mimeType: "application/octet-stream",
  buffer: Buffer.from(bytes),
});

/** A PNG that announces 54 megapixels, with a checksum that fits. */
function giant(): Uint8Array {
  const png = pngOf(8, 8).slice();
  const view = new DataView(png.buffer);
  view.setUint32(16, 9000);
  view.setUint32(20, 6000);
  view.setUint32(29, crc32(png.subarray(12, 29)));
  return png;
}

/** Pictures that only the browser encodes, made in the page. */
const encoded = async (page: Page, type: string) => {
  const bytes = await page.evaluate(async (type) => {
    const canvas = new OffscreenCanvas(96, 64);
    const context = canvas.getContext("2d")!;
    context.fillStyle = "#d55e00";
    context.fillRect(0, 0, 96, 64);
    return [...new Uint8Array(await (await canvas.convertToBlob({ type })).arrayBuffer())];
  }, type);
  return Uint8Array.from(bytes);
};

/** The browser's storage as a file store of this process. */
async function storedFiles(page: Page): Promise<MemoryFiles> {
  const files = new MemoryFiles();
  for (const { path } of await listStored(page, "pictures")) files.content.set(path, await readStored(page, path));
  return files;
}

async function ownPage() {
  const served = await serveFolder(await builtPage());
  const open = await openPage(served.url);
  await open.page.getByText("Your own").click();
  await open.page.getByText(/Drop pictures/).waitFor();
  return open;
}

/** What the page remembers of the own set, out of the browser's IndexedDB. */
const rememberedTrigger = (page: Page) =>
  page.evaluate(
    () =>
      new Promise<unknown>((resolve) => {
        const opening = indexedDB.open("keyval-store");
        opening.onsuccess = () => {
          const reading = opening.result.transaction("keyval").objectStore("keyval").get("longtail.own");
          reading.onsuccess = () => {
            opening.result.close();
            resolve((reading.result as { trigger: unknown } | undefined)?.trigger);
          };
        };
      }),
  );

const captions = (page: Page) =>
  page.locator(".own-caption").evaluateAll((all) => all.map((one) => (one as HTMLTextAreaElement).value));

describeInBrowser("own pictures in the page", () => {
  test("are checked by the worker and stored as the command line reads them; the others are named with their codes", async () => {
    const open = await ownPage();
    const { page } = open;
    const jpeg = jpegOf(gradient(120, 80));
    const zip = zipSync({
      "set/tea cup.png": pngOf(50, 40, 7),
      "set/tea cup.txt": new TextEncoder().encode("a blue tea cup"),
      "../../evil.png": pngOf(8, 8),
      "bomb.png": new Uint8Array(66 * 1024 * 1024),
    });
    await page
      .locator("input[type=file]")
      .first()
      .setInputFiles([
        fileOf("red hat.png", pngOf(70, 70, 1)),
        fileOf("IMG_0001.jpg", jpeg),
        fileOf("leaf.webp", await encoded(page, "image/webp")),
        fileOf("猫.png", pngOf(60, 90, 3)),
        fileOf("set.zip", zip),
        fileOf("empty.png", new Uint8Array(0)),
        fileOf("giant.png", giant()),
        fileOf("cut.jpg", jpeg.subarray(0, 900)),
        fileOf("moving.gif", new TextEncoder().encode("GIF89a")),
      ]);
    await page.getByText("5 pictures", { exact: true }).waitFor();
    await page.getByText(/files were left out/).click();
    const codes = async () => {
      const refused = await page.locator(".left-out li").allInnerTexts();
      const codeOf = (name: string) => /E-\w+-\d{3}/.exec(refused.find((text) => text.includes(name)) ?? "")?.[0];
      return {
        empty: codeOf("empty.png"),
        giant: codeOf("giant.png"),
        cut: codeOf("cut.jpg"),
        gif: codeOf("moving.gif"),
        evil: codeOf("evil.png"),
        bomb: codeOf("bomb.png"),
      };
    };
    await expect.poll(codes).toEqual({
      empty: "E-DATA-024",
      giant: "E-DATA-023",
      cut: "E-DATA-020",
      gif: "E-DATA-056",
      evil: "E-DATA-046",
      bomb: "E-FILE-081",
    });
    await screenshot(open, "own-pictures");

    const files = await storedFiles(page);
    expect(files.content.get("pictures/mine/IMG_0001.jpg")).toEqual(jpeg);
    const read = await openPictureSets(files, [{ path: "pictures/mine" }]);
    expect(read.pictures.map(({ name, captions, width, height }) => [name, captions[0], width, height])).toEqual([
      ["leaf.png", "leaf", 96, 64],
      ["red hat.png", "red hat", 70, 70],
      ["tea cup.png", "a blue tea cup", 50, 40],
      ["猫.png", "猫", 60, 90],
    ]);
    // The photograph's name says nothing, so it has no caption, and the page asks for one.
    expect(read.dropped).toMatchObject([{ name: "IMG_0001.jpg", code: "E-DATA-040" }]);
    await page.getByText("To start: write a caption for 1 picture").waitFor();
    await open.close();
  });

  test("come by drop and paste, keep their captions over a reload, and can be removed", async () => {
    const open = await ownPage();
    const { page } = open;
    const bytes = [...pngOf(40, 40, 5)];
    await page.evaluate((bytes) => {
      const dropped = new DataTransfer();
      dropped.items.add(new File([Uint8Array.from(bytes)], "dropped thing.png", { type: "image/png" }));
      document.body.dispatchEvent(new DragEvent("drop", { dataTransfer: dropped, bubbles: true, cancelable: true }));
    }, bytes);
    await page.getByText("1 picture", { exact: true }).waitFor();
    await page.evaluate(
      (bytes) => {
        const pasted = new DataTransfer();
        pasted.items.add(new File([Uint8Array.from(bytes)], "image.png", { type: "image/png" }));
        document.dispatchEvent(new ClipboardEvent("paste", { clipboardData: pasted, bubbles: true, cancelable: true }));
      },
      [...pngOf(40, 40, 6)],
    );
    await page.getByText("2 pictures", { exact: true }).waitFor();
    await expect.poll(() => captions(page)).toEqual(["dropped thing", ""]);
    await page.getByLabel(/no caption\. One text/).fill("icon of cat");
    await page.getByRole("button", { name: "Use it" }).click();
    await expect.poll(() => captions(page)).toEqual(["dropped thing", "icon of cat"]);
    await page.getByLabel("Caption of dropped thing.png").fill("icon of dog");
    await page.getByLabel("Caption of dropped thing.png").blur();
    await expect
      .poll(async () =>
        new TextDecoder().decode((await storedFiles(page)).content.get("pictures/mine/dropped thing.txt")),
      )
      .toBe("icon of dog");

    await page.getByLabel("Trigger word").fill("my dog");
    await expect.poll(() => rememberedTrigger(page)).toBe("my dog");
    await page.reload();
    // Without a click: they are still the chosen ones, trigger word and all.
    await page.getByText("2 pictures", { exact: true }).waitFor();
    await expect.poll(() => page.getByLabel("Trigger word").inputValue()).toBe("my dog");
    await expect.poll(() => captions(page)).toEqual(["icon of dog", "icon of cat"]);
    await page.getByRole("button", { name: "Remove dropped thing.png" }).click();
    await page.getByText("1 picture", { exact: true }).waitFor();
    await page.getByRole("button", { name: "Remove all" }).click();
    await page.getByRole("button", { name: "Remove", exact: true }).click();
    await expect.poll(async () => (await storedFiles(page)).content.size).toBe(0);
    // What is chosen instead stays chosen as well.
    await page.locator("label.tile", { hasText: "Rare things" }).click();
    await expect.poll(() => page.url()).toContain("set=");
    await page.reload();
    await expect.poll(() => page.getByRole("radio", { name: /Rare things/ }).isChecked()).toBe(true);
    await open.close();
  });

  test("are refused by one sentence where the camera may not be used, and the camera is off after it", async () => {
    const open = await ownPage();
    await open.page.getByRole("button", { name: "Camera" }).click();
    await open.page.getByText(/no camera|did not allow/i).waitFor();
    await open.page.getByRole("button", { name: "Switch camera off" }).click();
    await expect.poll(() => open.page.locator("video").count()).toBe(0);
    await open.close();
  });
});
