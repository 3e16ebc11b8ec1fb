// Makes what the page shows of the embedded pictures without fetching their sheets: a small sheet of thumbnails for each
// bundled set, and the words that the embedded model reads. Run it when the sets or the items change:
//   deno run -A --no-check scripts/page_pictures.ts

import { writeFile } from "node:fs/promises";
import { zlibSync } from "fflate";
import { EmbeddedData, QUALITIES, STYLES, type Style } from "../src/data/embedded.ts";
import { crc32 } from "../src/formats/crc32.ts";
import { DiskFiles } from "../src/platform/files.ts";
import { BUNDLED } from "../src/web/pictures/bundled.ts";

/** Colours of a sheet: with a palette a thumbnail takes 1.5 KB in place of 3. */
const COLOURS = 256;

interface Sheet {
  width: number;
  height: number;
  data: Uint8Array;
}

/** Heckbert's median cut: boxes of colours are halved along their longest side until there are enough. */
function palette({ data }: Sheet, colours: number): Uint8Array {
  const counts = new Map<number, number>();
  for (let i = 0; i < data.length; i += 3) {
    const key = (data[i]! << 16) | (data[i + 1]! << 8) | data[i + 2]!;
    counts.set(key, (counts.get(key) ?? 0) + 1);
  }
  type Box = { keys: number[]; channel: number; spread: number };
  const part = (key: number, channel: number) => (key >> (16 - 8 * channel)) & 255;
  const boxOf = (keys: number[]): Box => {
    const spreads = [0, 1, 2].map((c) => {
      let [low, high] = [255, 0];
      for (const key of keys) {
        low = Math.min(low, part(key, c));
        high = Math.max(high, part(key, c));
      }
      return high - low;
    });
    const spread = Math.max(...spreads);
    return { keys, channel: spreads.indexOf(spread), spread: spread * Math.sqrt(keys.length) };
  };
  const boxes = [boxOf([...counts.keys()])];
  while (boxes.length < colours) {
    boxes.sort((a, b) => b.spread - a.spread);
    const { keys, channel } = boxes.shift()!;
    if (keys.length < 2) {
      boxes.push({ keys, channel, spread: 0 });
      if (boxes.every(({ spread }) => spread === 0)) break;
      continue;
    }
    keys.sort((a, b) => part(a, channel) - part(b, channel));
    boxes.push(boxOf(keys.slice(0, keys.length >> 1)), boxOf(keys.slice(keys.length >> 1)));
  }
  const out = new Uint8Array(boxes.length * 3);
  for (const [n, { keys }] of boxes.entries()) {
    const weight = keys.reduce((sum, key) => sum + counts.get(key)!, 0);
    for (let c = 0; c < 3; c++)
      out[3 * n + c] = Math.round(keys.reduce((sum, key) => sum + part(key, c) * counts.get(key)!, 0) / weight);
  }
  // The background stays white.
  if (counts.has(0xffffff)) out.fill(255, out.length - 3);
  return out;
}

function indexed({ data }: Sheet, colours: Uint8Array): Uint8Array {
  const known = new Map<number, number>();
  const out = new Uint8Array(data.length / 3);
  for (let i = 0; i < out.length; i++) {
    const [r, g, b] = [data[3 * i]!, data[3 * i + 1]!, data[3 * i + 2]!];
    const key = (r << 16) | (g << 8) | b;
    let best = known.get(key);
    if (best === undefined) {
      let least = Number.POSITIVE_INFINITY;
      best = 0;
      for (let n = 0; n < colours.length / 3; n++) {
        const far = (r - colours[3 * n]!) ** 2 + (g - colours[3 * n + 1]!) ** 2 + (b - colours[3 * n + 2]!) ** 2;
        if (far < least) [least, best] = [far, n];
      }
      known.set(key, best);
    }
    out[i] = best;
  }
  return out;
}

function chunk(type: string, data: Uint8Array): Uint8Array {
  const out = new Uint8Array(data.length + 12);
  const view = new DataView(out.buffer);
  view.setUint32(0, data.length);
  out.set(new TextEncoder().encode(type), 4);
  out.set(data, 8);
  view.setUint32(8 + data.length, crc32(out.subarray(4, 8 + data.length)));
  return out;
}

/** A PNG of colour type 3 (palette), its rows unfiltered. */
function palettePng(sheet: Sheet): Uint8Array<ArrayBuffer> {
  const { width, height } = sheet;
  const colours = palette(sheet, COLOURS);
  const pixels = indexed(sheet, colours);
  const rows = new Uint8Array((width + 1) * height);
  for (let y = 0; y < height; y++) rows.set(pixels.subarray(y * width, (y + 1) * width), y * (width + 1) + 1);
  const header = new Uint8Array(13);
  const view = new DataView(header.buffer);
  view.setUint32(0, width);
  view.setUint32(4, height);
  header.set([8, 3, 0, 0, 0], 8);
  const parts = [
    Uint8Array.of(137, 80, 78, 71, 13, 10, 26, 10),
    chunk("IHDR", header),
    chunk("PLTE", colours),
    chunk("IDAT", zlibSync(rows, { level: 9 })),
    chunk("IEND", new Uint8Array(0)),
  ];
  const out = new Uint8Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const bytes of parts) {
    out.set(bytes, at);
    at += bytes.length;
  }
  return out;
}

const folder = new URL("../src/web/pictures/", import.meta.url);
const models = new URL("../models/embedded", import.meta.url);
const embedded = await EmbeddedData.load(new DiskFiles(), models.pathname);
const { size } = embedded;
let total = 0;
for (const { id, items, style } of BUNDLED) {
  const sheet = { width: size * items.length, height: size, data: new Uint8Array(size * items.length * size * 3) };
  for (const [n, name] of items.entries()) {
    const picture = await embedded.pictureBytes(embedded.item(name), style as Style);
    if (picture === null) throw new Error(`there is no ${style} picture of ${name}`);
    for (let y = 0; y < size; y++) {
      const row = picture.data.subarray(y * size * 3, (y + 1) * size * 3);
      sheet.data.set(row, (y * sheet.width + n * size) * 3);
    }
  }
  const png = palettePng(sheet);
  await writeFile(new URL(`sheets/${id}.png`, folder), png);
  total += png.length;
  console.log(`${id}.png: ${items.length} pictures, ${png.length} bytes`);
}
console.log(`thumbnails in all: ${total} bytes`);

const wordsOf = (text: string) =>
  text
    .toLowerCase()
    .split(/[^\p{L}\p{N}]+/u)
    .filter((word) => word !== "");
const words = new Set(["icon", "of", "a", "picture", ...STYLES, ...QUALITIES.flatMap(wordsOf)]);
for (const { item, category, region } of embedded.items)
  for (const text of [item, category, region]) for (const word of wordsOf(text)) words.add(word);
const vocabulary = { items: embedded.items.map(({ item }) => item), words: [...words].sort() };
await writeFile(new URL("vocabulary.json", folder), `${JSON.stringify(vocabulary, null, 2)}\n`);
console.log(`vocabulary.json: ${vocabulary.items.length} items, ${vocabulary.words.length} words`);
