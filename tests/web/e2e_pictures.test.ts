// Files that nobody should drop, dropped: each is left out with its reason, the good ones are taken, and the page goes on.
// And storage that is full, which says so and loses nothing.

import { Buffer } from "node:buffer";
import { deflateSync } from "node:zlib";
import { beforeAll, expect, test } from "vitest";
import { crc32 } from "../../src/formats/inflate.ts";
import { encodePng } from "../../src/formats/png.ts";
import { pngOf, zipOf } from "../helpers/pictures.ts";
import { describeInBrowser, type OpenPage, setQuota } from "./browser.ts";
import { builtPage } from "./built_page.ts";
import { openLongtail } from "./longtail_page.ts";
import { listStored } from "./opfs.ts";
import { type Served, serveFolder } from "./server.ts";

type Given = Record<string, Uint8Array>;

/** Hands files to the page as the button "Files" does. */
async function give({ page }: OpenPage, files: Given): Promise<void> {
  const chosen = Object.entries(files).map(([name, bytes]) => ({
    name,
    mimeType: name.endsWith(".zip") ? "application/zip" : name.endsWith(".png") ? "image/png" : "text/plain",
    buffer: Buffer.from(bytes),
  }));
  await page.getByLabel("Files", { exact: true }).setInputFiles(chosen);
}

/** The list of what was left out, as one text; empty where there is none. */
async function leftOut({ page }: OpenPage): Promise<string> {
  const list = page.locator("details.left-out");
  return (await list.count()) > 0 ? ((await list.textContent()) ?? "") : "";
}

/** Pictures are read by the worker, one after another. */
const patient = { timeout: 120_000 };

const countOf = ({ page }: OpenPage) => page.locator(".own-status").textContent();

/** A grey picture of more pixels than are read, as a real file has them: black, a few kilobytes small. */
function hugePng(width: number, height: number): Uint8Array {
  const chunk = (kind: string, content: Uint8Array) => {
    const bytes = Buffer.alloc(12 + content.length);
    bytes.writeUInt32BE(content.length);
    bytes.write(kind, 4, "latin1");
    bytes.set(content, 8);
    bytes.writeUInt32BE(crc32(bytes.subarray(4, 8 + content.length)), 8 + content.length);
    return bytes;
  };
  const head = Buffer.alloc(13);
  head.writeUInt32BE(width);
  head.writeUInt32BE(height, 4);
  head[8] = 8;
  const rows = deflateSync(new Uint8Array(height * (width + 1)), { level: 1 });
  const signature = Buffer.from("89504e470d0a1a0a", "hex");
  return Buffer.concat([signature, chunk("IHDR", head), chunk("IDAT", rows), chunk("IEND", new Uint8Array())]);
}

describeInBrowser("pictures of one's own", () => {
  let served: Served;
  beforeAll(async () => {
    served = await serveFolder(await builtPage());
  });

  async function ownPictures(): Promise<OpenPage> {
    const open = await openLongtail(served.url);
    await open.page.getByText("Your own", { exact: true }).click();
    await open.page.getByLabel("Files", { exact: true }).waitFor({ state: "attached" });
    return open;
  }

  test("are taken from among a hostile zip, an empty file and a picture of more than 50 megapixels", async () => {
    const open = await ownPictures();
    const hostile = zipOf({
      "../../outside.png": pngOf(20, 20),
      "good/one.png": pngOf(70, 70, 10),
      "good/damaged.png": pngOf(30, 30).subarray(0, 60),
      "good/not_a_picture.png": new TextEncoder().encode("<script>alert(1)</script>"),
    });
    await give(open, {
      "hostile.zip": hostile,
      "cut.zip": hostile.subarray(0, hostile.length - 40),
      "empty.png": new Uint8Array(),
      "huge.png": hugePng(7200, 7200),
      "two.png": pngOf(64, 64, 90),
    });
    await expect.poll(() => countOf(open), patient).toMatch(/^2 pictures/);
    for (const part of ["outside.png", "damaged.png", "not_a_picture.png", "cut.zip", "empty.png", "huge.png"])
      await expect.poll(() => leftOut(open)).toContain(part);
    for (const code of ["E-DATA-020", "E-DATA-023", "E-DATA-024", "E-DATA-046"])
      await expect.poll(() => leftOut(open)).toContain(code);
    const stored = async () =>
      (await listStored(open.page, "pictures")).filter(({ path }) => path.endsWith(".png")).length;
    await expect.poll(stored).toBe(2);
    expect((await listStored(open.page)).map(({ path }) => path).join("\n")).not.toContain("outside");
    // The page is as usable as before.
    await give(open, { "three.png": pngOf(65, 64, 120) });
    await expect.poll(() => countOf(open), patient).toMatch(/^3 pictures/);
    await open.close();
  });

  test("are refused with the reason when storage is full, and taken when there is room again", async () => {
    const open = await ownPictures();
    await give(open, { "one.png": pngOf(64, 64) });
    await expect.poll(() => countOf(open), patient).toMatch(/^1 picture/);
    const used = await open.page.evaluate(async () => (await navigator.storage.estimate()).usage ?? 0);
    await setQuota(open, Math.max(1, used));
    const noise = Uint8Array.from({ length: 300 * 300 * 3 }, (_, i) => (i * 2654435761) >>> 13);
    const large = encodePng({ width: 300, height: 300, channels: 3, depth: 8, data: noise });
    await give(open, { "large.png": large });
    const said = () => open.page.locator("body").textContent();
    await expect.poll(said, patient).toMatch(/E-ENV-020/);
    await expect.poll(said).toMatch(/full|space|room/i);
    await expect.poll(() => countOf(open)).toMatch(/^1 picture/);
    await setQuota(open, null);
    await give(open, { "large.png": large });
    await expect.poll(() => countOf(open), patient).toMatch(/^2 pictures/);
    await open.close();
  });
});
