// Hostile inputs for the picture readers, made from a seed: input n is the same in every run. Each is a set of files with
// the options to read it by.

import { deflateRawSync } from "node:zlib";
import { RandomStream } from "../../src/base/random.ts";
import type { PictureSetOptions } from "../../src/data/pictures/sets.ts";
import { crc32 } from "../../src/formats/inflate.ts";
import { gradient, jpegOf, parquetOf, pngOf, withOrientation, withSegment, zipOf } from "./pictures.ts";

export interface HostileInput {
  kind: string;
  files: Record<string, Uint8Array | string>;
  set: PictureSetOptions;
}

/** Random numbers of one input. */
class Dice {
  readonly #stream: RandomStream;
  #next = 0;
  constructor(seed: number, n: number) {
    this.#stream = new RandomStream(seed, `hostile/${n}`);
  }
  below(n: number): number {
    return n <= 1 ? 0 : this.#stream.integer(0, this.#next++, 0, n - 1);
  }
  pick<T>(list: readonly T[]): T {
    return list[this.below(list.length)]!;
  }
  bytes(n: number): Uint8Array {
    return Uint8Array.from(this.#stream.words(1 + this.#next++, n), (word) => word & 255);
  }
}

const PNG = pngOf(40, 30);
const JPEG = withOrientation(jpegOf(gradient(40, 30)), 6);
const TABLE = Array.from({ length: 6 }, (_, i) => ({
  image: i === 3 ? null : pngOf(8, 8, i),
  text: i === 4 ? null : `caption ${i}`,
}));

const folder = (content: Record<string, Uint8Array | string>, more: Partial<PictureSetOptions> = {}) => ({
  files: Object.fromEntries(Object.entries(content).map(([name, data]) => [`set/${name}`, data])),
  set: { path: "set", caption: "a picture", ...more },
});
const archive = (bytes: Uint8Array) => ({
  files: { "set.zip": bytes },
  set: { path: "set.zip", caption: "a picture" },
});
const table = (bytes: Uint8Array, more: Partial<PictureSetOptions> = {}) => ({
  files: { "set.parquet": bytes },
  set: { path: "set.parquet", caption: "a picture", ...more },
});

function damage(bytes: Uint8Array, dice: Dice): Uint8Array {
  const copy = bytes.slice();
  for (let i = 1 + dice.below(8); i > 0; i--) copy[dice.below(copy.length)]! ^= 1 << dice.below(8);
  const cut = dice.below(3) === 0 ? dice.below(copy.length) : copy.length;
  return copy.subarray(0, cut);
}

/** Recomputes the checksums of a PNG, so that what was altered reaches the decoder. */
function resealed(png: Uint8Array): Uint8Array {
  const copy = png.slice();
  const view = new DataView(copy.buffer);
  for (let at = 8; at + 12 <= copy.length; ) {
    const length = view.getUint32(at);
    if (at + 12 + length > copy.length) break;
    view.setUint32(at + 8 + length, crc32(copy.subarray(at + 4, at + 8 + length)));
    at += 12 + length;
  }
  return copy;
}

function pngChunk(type: string, data: Uint8Array): number[] {
  const out = new Uint8Array(data.length + 12);
  new DataView(out.buffer).setUint32(0, data.length);
  out.set(new TextEncoder().encode(type), 4);
  out.set(data, 8);
  return [...out];
}

/** A PNG of any declared size over compressed zeros. */
function pngBomb(width: number, height: number, depth: number, colour: number, zeros: number): Uint8Array {
  const header = new Uint8Array(13);
  const view = new DataView(header.buffer);
  view.setUint32(0, width);
  view.setUint32(4, height);
  header.set([depth, colour, 0, 0, 0], 8);
  const raw = deflateRawSync(new Uint8Array(zeros));
  const data = Uint8Array.from([0x78, 0x9c, ...raw, 0, 0, 0, 0]);
  const palette = colour === 3 ? pngChunk("PLTE", Uint8Array.of(1, 2, 3)) : [];
  return resealed(
    Uint8Array.from([
      ...PNG.subarray(0, 8),
      ...pngChunk("IHDR", header),
      ...palette,
      ...pngChunk("IDAT", data),
      ...pngChunk("IEND", new Uint8Array(0)),
    ]),
  );
}

/** Numbers of the directory of a zip overwritten at random places that matter. */
function zipLie(dice: Dice): Uint8Array {
  const bytes = zipOf({ "a.png": PNG, "a.txt": "text", "b/c.jpg": JPEG });
  const view = new DataView(bytes.buffer);
  const text = new TextDecoder("latin1").decode(bytes);
  const entries: number[] = [];
  for (let at = text.indexOf("PK\x01\x02"); at >= 0; at = text.indexOf("PK\x01\x02", at + 1)) entries.push(at);
  const entry = dice.pick(entries);
  const values = [0, 1, 0x7fffffff, 0xffffffff, bytes.length, 1 << 20, dice.below(bytes.length)];
  for (let i = 0; i < 1 + dice.below(3); i++) {
    const [offset, wide] = dice.pick([
      [16, 4],
      [20, 4],
      [24, 4],
      [42, 4],
      [8, 2],
      [10, 2],
      [28, 2],
      [30, 2],
      [32, 2],
    ] as const);
    if (wide === 4) view.setUint32(entry + offset, dice.pick(values), true);
    else view.setUint16(entry + offset, dice.pick(values) & 0xffff, true);
  }
  const end = text.lastIndexOf("PK\x05\x06");
  if (dice.below(3) === 0) view.setUint32(end + dice.pick([12, 16]), dice.pick(values), true);
  if (dice.below(3) === 0) view.setUint16(end + 10, dice.pick([0, 1, 65535]), true);
  return bytes;
}

/** A zip whose one entry is a stream of zeros that announces `size`. */
function zipBomb(zeros: number, size: number): Uint8Array {
  const bytes = zipOf({ "bomb.png": new Uint8Array(zeros), "ok.png": PNG });
  const view = new DataView(bytes.buffer);
  view.setUint32(new TextDecoder("latin1").decode(bytes).indexOf("PK\x01\x02") + 24, size, true);
  return bytes;
}

/** Sets the size in the frame of a JPEG. */
function jpegOfSize(width: number, height: number, sampling?: number): Uint8Array {
  const bytes = jpegOf(gradient(16, 16));
  const frame = bytes.findIndex((byte, i) => byte === 0xff && bytes[i + 1] === 0xc0);
  new DataView(bytes.buffer).setUint32(frame + 5, height * 65536 + width);
  if (sampling !== undefined) bytes[frame + 11] = sampling;
  return bytes;
}

const NAMES = [
  "../up.png",
  "/root.png",
  "a/../../b.png",
  "c:\\x.png",
  "\\\\server\\x.png",
  "a\0b.png",
  "..",
  `${"a/".repeat(3000)}x.png`,
  "\u202egnp.exe",
  "con.png",
  `${"n".repeat(300)}.png`,
];
const SIDES = [0, 1, 7, 65535, 0x7fffffff, 0xffffffff, 20000, 100000];

const KINDS: Record<string, (dice: Dice) => Pick<HostileInput, "files" | "set">> = {
  "damaged PNG": (dice) => folder({ "a.png": damage(PNG, dice) }),
  "damaged PNG with right checksums": (dice) => folder({ "a.png": resealed(damage(PNG, dice)) }),
  "damaged JPEG": (dice) => folder({ "a.jpg": damage(JPEG, dice) }),
  "cut picture": (dice) => folder({ "a.png": dice.pick([PNG, JPEG]).subarray(0, dice.below(200)) }),
  "random bytes": (dice) =>
    folder({ "a.png": dice.bytes(dice.below(3000)), "b.jpg": Uint8Array.from([0xff, 0xd8, 0xff, ...dice.bytes(900)]) }),
  "PNG of a huge size": (dice) =>
    folder({
      "a.png": pngBomb(
        dice.pick(SIDES),
        dice.pick(SIDES),
        dice.pick([1, 8, 16]),
        dice.pick([0, 2, 3, 6]),
        dice.below(5_000_000),
      ),
    }),
  "PNG with too much data": (dice) =>
    folder({ "a.png": pngBomb(1 + dice.below(50), 1 + dice.below(50), 8, 2, 60_000_000) }),
  "PNG with odd header": (dice) => folder({ "a.png": pngBomb(20, 20, dice.below(20), dice.below(8), 5000) }),
  "JPEG of a huge size": (dice) =>
    folder({
      "a.jpg": jpegOfSize(
        dice.pick([0, 1, 8000, 65535]),
        dice.pick([0, 1, 6000, 65535]),
        dice.pick([0, 0x11, 0x44, 0xff]),
      ),
    }),
  "JPEG with hostile Exif": (dice) =>
    folder({
      "a.jpg": withSegment(
        jpegOf(gradient(8, 8)),
        0xe1,
        Uint8Array.from([
          ...new TextEncoder().encode("Exif\0\0"),
          ...dice.pick([new TextEncoder().encode("II*\0"), new TextEncoder().encode("MM\0*")]),
          ...dice.bytes(40),
        ]),
      ),
    }),
  "JPEG with a flood of segments": (dice) => {
    let bytes = jpegOf(gradient(8, 8));
    for (let i = 0; i < 20; i++) bytes = withSegment(bytes, 0xc0 + dice.below(32), dice.bytes(dice.below(80)));
    return folder({ "a.jpg": bytes });
  },
  "bomb in a zip": (dice) => archive(zipBomb(30_000_000, dice.pick([10, 1000, 29_999_999, 30_000_001, 0xfffffffe]))),
  "zip with lies": (dice) => archive(zipLie(dice)),
  "damaged zip": (dice) => archive(damage(zipOf({ "a.png": PNG, "b.jpg": JPEG, "b.txt": "text" }), dice)),
  "names in a zip": (dice) => archive(zipOf({ [dice.pick(NAMES)]: PNG, [dice.pick(NAMES)]: JPEG, "ok.png": PNG })),
  "zip in a zip": (dice) => archive(zipOf({ "inner.zip": zipOf({ "a.png": PNG }), "a.png": damage(PNG, dice) })),
  "garbage as zip": (dice) => archive(dice.bytes(dice.below(5000))),
  "damaged parquet": (dice) =>
    table(
      damage(
        parquetOf(TABLE, {
          codec: dice.pick(["SNAPPY", "GZIP", "UNCOMPRESSED", "BROTLI"]),
          struct: dice.below(2) === 1,
        }),
        dice,
      ),
    ),
  "parquet with wrong columns": (dice) =>
    table(
      parquetOf(TABLE, { imageColumn: dice.pick(["pixels", "image"]), captionColumn: dice.pick(["words", "text"]) }),
      dice.pick([
        {},
        { imageColumn: "text" },
        { captionColumn: "nothing" },
        { imageColumn: "image", captionColumn: "image" },
      ]),
    ),
  "parquet with garbage pictures": (dice) =>
    table(parquetOf(TABLE.map((row) => ({ text: row.text, image: dice.bytes(dice.below(300)) })))),
  "garbage as parquet": (dice) => {
    const bytes = dice.bytes(200 + dice.below(3000));
    bytes.set(new TextEncoder().encode("PAR1"), bytes.length - 4);
    new DataView(bytes.buffer).setUint32(bytes.length - 8, dice.pick([bytes.length - 12, 50, 0xffffffff]), true);
    return table(bytes);
  },
  "odd captions": (dice) =>
    folder({
      "a.png": PNG,
      "a.txt": dice.pick<Uint8Array | string>([
        "x".repeat(1 << 20),
        "\0".repeat(100),
        Uint8Array.of(0xff, 0xfe, 0, 0xd8),
        Uint8Array.of(0xc3, 0x28),
        "\u202e\ud800",
        ", ".repeat(8000),
        dice.bytes(500),
        "\n".repeat(60000),
      ]),
    }),
  "metadata that lies": (dice) => {
    const name = JSON.stringify(dice.pick([...NAMES, "a.png", "gone.png", "a.txt"]));
    const text = dice.pick([
      '"good"',
      "7",
      "null",
      "[]",
      "[[]]",
      "{}",
      `"${"y".repeat(1 << 20)}"`,
      '"\\u0000"',
      '"\\ud800"',
      "true",
      `${"[".repeat(50_000)}`,
      '"unfinished',
    ]);
    const extra = dice.pick([
      "",
      ',"weight":-1',
      ',"weight":1e999',
      ',"split":"__proto__"',
      ',"tags":{"a":1}',
      ',"__proto__":{"x":1}',
      ',"text":"twice"',
    ]);
    const line = `{"file_name":${name},"text":${text}${extra}}`;
    return folder({
      "a.png": PNG,
      "b.png": PNG,
      "metadata.jsonl": dice.pick([line, `${line}\n${line}`, `\ufeff${line}`, "null\n1\n[]", dice.bytes(300)]),
    });
  },
  "items that lie": (dice) => ({
    files: {
      "items.json": dice.pick<Uint8Array | string>([
        '[{"caption":"x","picture":"../a.png"}]',
        '[{"caption":"x"}]',
        "{}",
        "[]",
        '[{"picture":"a.png"}]',
        '[{"caption":"x","pictures":[1,null,"a.png","a.png"]}]',
        "[".repeat(100_000),
        dice.bytes(100),
      ]),
      "a.png": dice.pick([PNG, damage(PNG, dice)]),
    },
    set: { path: "items.json" },
  }),
  "odd folders": (dice) =>
    dice.pick([
      () => folder({ "a.png/b.png": PNG, "c.txt/d.txt": "x" }),
      () => folder({ [`${"d/".repeat(60)}a.png`]: PNG, "ok.png": PNG }),
      () => folder({ "notes.md": "nothing here" }),
      () => folder({ "99999_x/a.png": PNG, "0_y/b.png": PNG, "9999_z/c.png": PNG }),
      () => folder(Object.fromEntries(Array.from({ length: 300 }, (_, i) => [`${i}/a.png`, new Uint8Array(0)]))),
      () => ({ files: {}, set: { path: "set" } }),
      () => ({ files: { "x.zip/a.png": PNG }, set: { path: "x.zip", caption: "x" } }),
      () => folder({ "a.png": PNG, "A.png": PNG, "a.jpg": JPEG, "a.png.png": PNG }),
    ])(),
};

export const HOSTILE_KINDS = Object.keys(KINDS);

/** Hostile input number n. */
export function hostileInput(seed: number, n: number): HostileInput {
  const kind = HOSTILE_KINDS[n % HOSTILE_KINDS.length]!;
  return { kind, ...KINDS[kind]!(new Dice(seed, n)) };
}
