// TensorBoard event files, written and read by hand: protobuf messages in the framing of TFRecord (length, CRC of the
// length, bytes, CRC of the bytes; CRC-32C, masked by a rotation and an offset so that a CRC of data that holds CRCs
// stays useful). Only what a training run says is known here: scalars, PNG pictures, text and session starts.

import { LongtailError } from "../base/errors.ts";
import { readPngHeader } from "./png_decode.ts";

/** Castagnoli's polynomial 0x1EDC6F41, bits reversed (RFC 3720, B.4). */
const POLYNOMIAL = 0x82f63b78;
const MASK_DELTA = 0xa282ead8;
/** The version whose readers purge what came after a restart by its session start. */
const FILE_VERSION = "brain.Event:2";
/** tensorflow.DataType of strings. */
const DT_STRING = 7;
/** tensorflow.SessionLog.SessionStatus: a program (re)starts here. */
const SESSION_START = 1;
/** Length and its CRC before the bytes, the bytes' CRC after them. */
const FRAME_HEAD = 12;
const FRAME_TAIL = 4;

const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let value = byte;
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? (value >>> 1) ^ POLYNOMIAL : value >>> 1;
  return value >>> 0;
});

/** CRC-32C of bytes, as an unsigned number. */
export function crc32c(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of bytes) crc = CRC_TABLE[(crc ^ byte) & 0xff]! ^ (crc >>> 8);
  return (crc ^ 0xffffffff) >>> 0;
}

/** The form in which TFRecord stores a CRC: rotated right by 15 bits, plus a constant. */
export function maskedCrc(bytes: Uint8Array): number {
  const crc = crc32c(bytes);
  return (((crc >>> 15) | (crc << 17)) + MASK_DELTA) >>> 0;
}

/** One TFRecord: u64 length, its masked CRC, the bytes, their masked CRC; all little-endian. */
export function frameRecord(bytes: Uint8Array): Uint8Array {
  const record = new Uint8Array(FRAME_HEAD + bytes.length + FRAME_TAIL);
  const view = new DataView(record.buffer);
  view.setBigUint64(0, BigInt(bytes.length), true);
  view.setUint32(8, maskedCrc(record.subarray(0, 8)), true);
  record.set(bytes, FRAME_HEAD);
  view.setUint32(FRAME_HEAD + bytes.length, maskedCrc(bytes), true);
  return record;
}

/** A picture as encoded bytes. */
export interface EventPicture {
  png: Uint8Array;
  width: number;
  height: number;
  /** 1 grey, 2 grey and alpha, 3 RGB, 4 RGBA. */
  channels: number;
}

export type EventValue =
  | { tag: string; kind: "scalar"; value: number; description?: string }
  | { tag: string; kind: "picture"; picture: EventPicture; description?: string }
  | { tag: string; kind: "text"; text: string; description?: string };

export type TensorBoardEvent =
  | { kind: "version"; time: number; step: number; version: string }
  | { kind: "start"; time: number; step: number }
  | { kind: "values"; time: number; step: number; values: EventValue[] };

/** Fields of a protobuf message, appended in the order of the calls. */
class Message {
  private readonly parts: Uint8Array[] = [];

  /** int32, int64 (not negative) and enumerations; a zero is left out, as proto3 has it. */
  whole(field: number, value: number): this {
    return value === 0 ? this : this.push(varint(field << 3), varint(value));
  }

  double(field: number, value: number): this {
    const bytes = new Uint8Array(8);
    new DataView(bytes.buffer).setFloat64(0, value, true);
    return this.push(varint((field << 3) | 1), bytes);
  }

  /** Written even where it is 0: as part of a oneof its presence has a meaning. */
  float(field: number, value: number): this {
    const bytes = new Uint8Array(4);
    new DataView(bytes.buffer).setFloat32(0, value, true);
    return this.push(varint((field << 3) | 5), bytes);
  }

  bytes(field: number, value: Uint8Array): this {
    return this.push(varint((field << 3) | 2), varint(value.length), value);
  }

  text(field: number, value: string): this {
    return this.bytes(field, new TextEncoder().encode(value));
  }

  message(field: number, value: Message): this {
    return this.bytes(field, value.encode());
  }

  encode(): Uint8Array {
    const whole = new Uint8Array(this.parts.reduce((sum, part) => sum + part.length, 0));
    let at = 0;
    for (const part of this.parts) {
      whole.set(part, at);
      at += part.length;
    }
    return whole;
  }

  private push(...parts: Uint8Array[]): this {
    this.parts.push(...parts);
    return this;
  }
}

/** Base-128 digits, lowest first; numbers up to 2^53. */
function varint(value: number): Uint8Array {
  const digits: number[] = [];
  let rest = value;
  while (rest >= 128) {
    digits.push((rest % 128) | 128);
    rest = Math.floor(rest / 128);
  }
  digits.push(rest);
  return Uint8Array.from(digits);
}

/** Which of TensorBoard's plugins shows a value, and what it says about it. */
function metadata(plugin: string, description: string | undefined): Message {
  const message = new Message().message(1, new Message().text(1, plugin));
  return description ? message.text(3, description) : message;
}

function valueMessage(value: EventValue): Message {
  const message = new Message().text(1, value.tag);
  switch (value.kind) {
    case "scalar":
      return message.float(2, value.value).message(9, metadata("scalars", value.description));
    case "picture": {
      const { png, width, height, channels } = value.picture;
      const image = new Message().whole(1, height).whole(2, width).whole(3, channels).bytes(4, png);
      return message.message(4, image).message(9, metadata("images", value.description));
    }
    case "text": {
      const shape = new Message().message(2, new Message().whole(1, 1));
      const tensor = new Message().whole(1, DT_STRING).message(2, shape).text(8, value.text);
      return message.message(8, tensor).message(9, metadata("text", value.description));
    }
  }
}

/** An event as the bytes of its protobuf message. `time` is in seconds since 1970, `step` a whole number from 0. */
export function encodeEvent(event: TensorBoardEvent): Uint8Array {
  const message = new Message().double(1, event.time).whole(2, event.step);
  switch (event.kind) {
    case "version":
      return message.text(3, event.version).encode();
    case "start":
      return message.message(7, new Message().whole(1, SESSION_START)).encode();
    case "values": {
      const summary = new Message();
      for (const value of event.values) summary.message(1, valueMessage(value));
      return message.message(5, summary).encode();
    }
  }
}

/** Takes the bytes of whole records, in order. */
export type AppendBytes = (bytes: Uint8Array) => void;

/**
 * Writes one event file from its beginning. Every file opens with a session start, because readers take the first one
 * that they meet for the run's beginning and each further one for a restart, at which they drop all that is not before
 * its step: the `firstStep` of a continued run's new file is the step after its checkpoint.
 */
export class TensorBoardWriter {
  private readonly append: AppendBytes;
  private readonly now: () => number;

  /** @param now seconds since 1970 */
  constructor(append: AppendBytes, firstStep = 0, now: () => number = () => Date.now() / 1000) {
    this.append = append;
    this.now = now;
    const time = now();
    this.write({ kind: "version", time, step: firstStep, version: FILE_VERSION });
    this.write({ kind: "start", time, step: firstStep });
  }

  /** All scalars of a step in one record; a value that is not finite stays one, and TensorBoard shows it as such. */
  scalars(step: number, values: Readonly<Record<string, number>>): void {
    const entries = Object.entries(values).map(([tag, value]) => ({ tag, kind: "scalar" as const, value }));
    if (entries.length > 0) this.values(step, entries);
  }

  picture(step: number, tag: string, picture: EventPicture, description?: string): void {
    this.values(step, [{ tag, kind: "picture", picture, ...(description ? { description } : {}) }]);
  }

  /** Markdown, as TensorBoard's text page shows it. */
  text(step: number, tag: string, text: string): void {
    this.values(step, [{ tag, kind: "text", text }]);
  }

  private values(step: number, values: EventValue[]): void {
    this.write({ kind: "values", time: this.now(), step, values });
  }

  private write(event: TensorBoardEvent): void {
    this.append(frameRecord(encodeEvent(event)));
  }
}

/** Channels of PNG's colour types; a palette is shown as RGB. */
const PNG_CHANNELS = { 0: 1, 2: 3, 3: 3, 4: 2, 6: 4 } as const;

/**
 * A PNG file with its size and channels from its header.
 * @throws PngError the bytes are not a PNG file
 */
export function pngPicture(png: Uint8Array): EventPicture {
  const { width, height, colourType } = readPngHeader(png);
  return { png, width, height, channels: PNG_CHANNELS[colourType] };
}

export interface EventFile {
  events: TensorBoardEvent[];
  /** Bytes of whole records; what is behind them is a record that an interrupted writer left unfinished. */
  wholeBytes: number;
}

/**
 * Reads the whole records of an event file. A torn record at the end is left out.
 * @throws E-FILE-056 a record whose CRC does not fit its bytes
 */
export function readTensorBoard(bytes: Uint8Array, where: string): EventFile {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const events: TensorBoardEvent[] = [];
  let at = 0;
  while (at + FRAME_HEAD <= bytes.length) {
    if (view.getUint32(at + 8, true) !== maskedCrc(bytes.subarray(at, at + 8))) throw damaged(where, at, "length");
    const length = Number(view.getBigUint64(at, true));
    const end = at + FRAME_HEAD + length;
    if (end + FRAME_TAIL > bytes.length) break;
    const body = bytes.subarray(at + FRAME_HEAD, end);
    if (view.getUint32(end, true) !== maskedCrc(body)) throw damaged(where, at, "content");
    events.push(decodeEvent(body));
    at = end + FRAME_TAIL;
  }
  return { events, wholeBytes: at };
}

function damaged(where: string, at: number, part: string): LongtailError {
  return new LongtailError("E-FILE-056", {
    what: "is a damaged TensorBoard event file",
    where,
    why: `the checksum of the ${part} of the record at byte ${at} does not fit`,
    fix: "remove the file; the run's log.jsonl has the same numbers",
  });
}

type Field = { number: number; value: number | Uint8Array };

/** The fields of a message; 32-bit and 64-bit ones as their bytes. */
function fieldsOf(bytes: Uint8Array): Field[] {
  const fields: Field[] = [];
  let at = 0;
  const readVarint = () => {
    let value = 0;
    for (let factor = 1; ; factor *= 128) {
      const digit = bytes[at++]!;
      value += (digit & 127) * factor;
      if (digit < 128) return value;
    }
  };
  const take = (length: number) => {
    at += length;
    return bytes.subarray(at - length, at);
  };
  while (at < bytes.length) {
    const key = readVarint();
    const wire = key & 7;
    const value = wire === 0 ? readVarint() : take(wire === 1 ? 8 : wire === 5 ? 4 : readVarint());
    fields.push({ number: Math.floor(key / 8), value });
  }
  return fields;
}

const viewOf = (bytes: Uint8Array) => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
const textOf = (value: unknown) => new TextDecoder().decode(value as Uint8Array);
const pick = (fields: readonly Field[], number: number) => fields.find((f) => f.number === number)?.value;

function decodeEvent(bytes: Uint8Array): TensorBoardEvent {
  const fields = fieldsOf(bytes);
  const time = viewOf(pick(fields, 1) as Uint8Array).getFloat64(0, true);
  const step = (pick(fields, 2) as number | undefined) ?? 0;
  const version = pick(fields, 3);
  if (version !== undefined) return { kind: "version", time, step, version: textOf(version) };
  if (pick(fields, 7) !== undefined) return { kind: "start", time, step };
  const summary = fieldsOf((pick(fields, 5) as Uint8Array | undefined) ?? new Uint8Array());
  return { kind: "values", time, step, values: summary.map((f) => decodeValue(f.value as Uint8Array)) };
}

function decodeValue(bytes: Uint8Array): EventValue {
  const fields = fieldsOf(bytes);
  const tag = textOf(pick(fields, 1));
  const note = pick(fieldsOf(pick(fields, 9) as Uint8Array), 3);
  const description = note === undefined ? {} : { description: textOf(note) };
  const [scalar, image, tensor] = [pick(fields, 2), pick(fields, 4), pick(fields, 8)];
  if (scalar !== undefined)
    return { tag, kind: "scalar", value: viewOf(scalar as Uint8Array).getFloat32(0, true), ...description };
  if (image !== undefined) {
    const parts = fieldsOf(image as Uint8Array);
    const [height, width, channels] = [1, 2, 3].map((n) => pick(parts, n) as number);
    const png = (pick(parts, 4) as Uint8Array).slice();
    return {
      tag,
      kind: "picture",
      picture: { png, width: width!, height: height!, channels: channels! },
      ...description,
    };
  }
  return { tag, kind: "text", text: textOf(pick(fieldsOf(tensor as Uint8Array), 8)), ...description };
}
