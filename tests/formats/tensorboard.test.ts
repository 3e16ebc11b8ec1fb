// TensorBoard event files: checksums and records against vectors of other writers, values that come back as they were
// written, and torn tails.

import { describe, expect, it } from "vitest";
import { encodePng } from "../../src/formats/png.ts";
import {
  crc32c,
  encodeEvent,
  frameRecord,
  readTensorBoard,
  type TensorBoardEvent,
  TensorBoardWriter,
} from "../../src/formats/tensorboard.ts";

const hex = (bytes: Uint8Array) => Array.from(bytes, (b) => b.toString(16).padStart(2, "0")).join("");
const filled = (value: number) => new Uint8Array(32).fill(value);
const joined = (parts: readonly Uint8Array[]) => Uint8Array.from(parts.flatMap((part) => [...part]));
const TIME = 1_700_000_000.5;

describe("CRC-32C", () => {
  it("gives the values of RFC 3720 and of the standard check text", () => {
    expect(crc32c(new TextEncoder().encode("123456789"))).toBe(0xe3069283);
    expect(crc32c(filled(0))).toBe(0x8a9136aa);
    expect(crc32c(filled(0xff))).toBe(0x62a8ab43);
    expect(crc32c(Uint8Array.from({ length: 32 }, (_, i) => i))).toBe(0x46dd794e);
    expect(crc32c(Uint8Array.from({ length: 32 }, (_, i) => 31 - i))).toBe(0x113fdb5c);
    expect(crc32c(new Uint8Array())).toBe(0);
  });
});

/** Records that TensorBoard's own writer and protobuf messages gave for the same events. */
const GOLDEN: [string, TensorBoardEvent, string][] = [
  [
    "the version",
    { kind: "version", time: TIME, step: 0, version: "brain.Event:2" },
    "1800000000000000a37f4b220900002040fc54d9411a0d627261696e2e4576656e743a322b353110",
  ],
  [
    "a session start",
    { kind: "start", time: TIME, step: 301 },
    "100000000000000095fbfe180900002040fc54d94110ad023a020801596f3f79",
  ],
  [
    "a scalar",
    { kind: "values", time: TIME, step: 300, values: [{ tag: "train/loss", kind: "scalar", value: 0.25 }] },
    "2e00000000000000c5cb57fa0900002040fc54d94110ac022a200a1e0a0a747261696e2f6c6f7373150000803e4a0b0a090a077363616c617273612d1bdb",
  ],
  [
    "a text",
    { kind: "values", time: TIME, step: 0, values: [{ tag: "config", kind: "text", text: "lr = 1" }] },
    "31000000000000009d8383e90900002040fc54d9412a260a240a06636f6e6669674210080712041202080142066c72203d20314a080a060a04746578742976e10b",
  ],
];

describe("event files", () => {
  it.each(GOLDEN)("hold %s as TensorBoard itself writes it", (_name, event, bytes) => {
    expect(hex(frameRecord(encodeEvent(event)))).toBe(bytes);
  });

  it("give back what was written, with values that are not finite, large steps and text of any script", () => {
    const parts: Uint8Array[] = [];
    const writer = new TensorBoardWriter(
      (bytes) => parts.push(bytes),
      0,
      () => TIME,
    );
    const png = encodePng({ width: 5, height: 3, channels: 3, depth: 8, data: new Uint8Array(45) });
    writer.scalars(2 ** 40, { a: Number.NaN, b: Number.POSITIVE_INFINITY, c: -0.5, d: 0 });
    writer.picture(7, "samples/0", { png, width: 5, height: 3, channels: 3 }, "寿司 <b>");
    writer.text(8, "config", "λ = 1\n");
    writer.scalars(9, {});
    const { events, wholeBytes } = readTensorBoard(joined(parts), "memory");
    expect(wholeBytes).toBe(joined(parts).length);
    expect(events).toEqual([
      { kind: "version", time: TIME, step: 0, version: "brain.Event:2" },
      { kind: "start", time: TIME, step: 0 },
      {
        kind: "values",
        time: TIME,
        step: 2 ** 40,
        values: [
          { tag: "a", kind: "scalar", value: Number.NaN },
          { tag: "b", kind: "scalar", value: Number.POSITIVE_INFINITY },
          { tag: "c", kind: "scalar", value: -0.5 },
          { tag: "d", kind: "scalar", value: 0 },
        ],
      },
      {
        kind: "values",
        time: TIME,
        step: 7,
        values: [
          {
            tag: "samples/0",
            kind: "picture",
            picture: { png: Uint8Array.from(png), width: 5, height: 3, channels: 3 },
            description: "寿司 <b>",
          },
        ],
      },
      { kind: "values", time: TIME, step: 8, values: [{ tag: "config", kind: "text", text: "λ = 1\n" }] },
    ]);
  });

  it("are read up to the last whole record, wherever the file is cut", () => {
    const parts: Uint8Array[] = [];
    const writer = new TensorBoardWriter(
      (bytes) => parts.push(bytes),
      0,
      () => TIME,
    );
    for (let step = 1; step <= 3; step++) writer.scalars(step, { loss: step });
    const whole = joined(parts);
    const ends = parts.map((_, i) => joined(parts.slice(0, i + 1)).length);
    for (let cut = 0; cut <= whole.length; cut++) {
      const { events, wholeBytes } = readTensorBoard(whole.subarray(0, cut), "cut");
      const before = ends.filter((end) => end <= cut);
      expect(events).toHaveLength(before.length);
      expect(wholeBytes).toBe(before.at(-1) ?? 0);
    }
  });

  it("are refused where a byte has changed", () => {
    const parts: Uint8Array[] = [];
    new TensorBoardWriter(
      (bytes) => parts.push(bytes),
      0,
      () => TIME,
    ).scalars(1, { loss: 1 });
    const last = joined(parts.slice(0, -1)).length;
    for (const at of [last, last + 9, last + 20, joined(parts).length - 1]) {
      const bytes = joined(parts);
      bytes[at]! ^= 4;
      expect(() => readTensorBoard(bytes, "tb/x")).toThrow(/E-FILE-056|checksum/);
    }
  });
});
