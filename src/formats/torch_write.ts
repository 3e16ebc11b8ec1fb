// Writes one tensor as torch.save does (zip layout of torch >= 1.6, pickle protocol 2): a zip archive of stored entries,
// `archive/data.pkl` that says what the tensor is, and its bytes at a multiple of 64 in `archive/data/0`. Scripts of SRPO's
// kind keep every prompt's embeddings in such files; torch.load reads them with weights_only=True.

import { f32ToBf16, f32ToF16 } from "../base/halves.ts";
import { crc32 } from "./crc32.ts";

const STORAGES = {
  F32: { type: "FloatStorage", bytes: 4 },
  F16: { type: "HalfStorage", bytes: 2 },
  BF16: { type: "BFloat16Storage", bytes: 2 },
} as const;

export type TorchWriteType = keyof typeof STORAGES;

const ROOT = "archive";
/** torch aligns storages, so that a file can be mapped into memory. */
const ALIGNMENT = 64;

/**
 * The bytes of a file with one tensor.
 * @param values row-major, rounded to `dtype`
 */
export function torchTensorFile(values: Float32Array, shape: readonly number[], dtype: TorchWriteType): Uint8Array {
  const count = shape.reduce((product, size) => product * size, 1);
  if (count !== values.length) throw new RangeError(`shape [${shape.join(", ")}] for ${values.length} numbers`);
  const stored = dtype === "F32" ? values : dtype === "F16" ? f32ToF16(values) : f32ToBf16(values);
  const data = new Uint8Array(stored.buffer as ArrayBuffer, stored.byteOffset, stored.byteLength);
  const text = (content: string) => new TextEncoder().encode(content);
  return zip([
    [`${ROOT}/data.pkl`, pickle(STORAGES[dtype].type, count, shape)],
    [`${ROOT}/byteorder`, text("little")],
    [`${ROOT}/data/0`, data],
    [`${ROOT}/version`, text("3\n")],
  ]);
}

/** torch._utils._rebuild_tensor_v2(storage, 0, shape, strides, False, OrderedDict()). */
function pickle(storage: string, count: number, shape: readonly number[]): Uint8Array {
  const out: number[] = [0x80, 2];
  const letters = (text: string) => [...new TextEncoder().encode(text)];
  const word = (value: number) => [value & 255, (value >> 8) & 255, (value >> 16) & 255, (value >>> 24) & 255];
  const global = (module: string, name: string) => out.push(0x63, ...letters(`${module}\n${name}\n`));
  const text = (value: string) => out.push(0x58, ...word(value.length), ...letters(value));
  const integer = (value: number) => out.push(0x4a, ...word(value));
  const strides = shape.map((_, i) => shape.slice(i + 1).reduce((product, size) => product * size, 1));
  const [MARK, TUPLE, EMPTY_TUPLE, REDUCE, PERSISTENT, FALSE, STOP] = [0x28, 0x74, 0x29, 0x52, 0x51, 0x89, 0x2e];
  const tuple = (values: readonly number[]) => {
    out.push(MARK);
    for (const value of values) integer(value);
    out.push(TUPLE);
  };
  global("torch._utils", "_rebuild_tensor_v2");
  out.push(MARK, MARK);
  text("storage");
  global("torch", storage);
  text("0");
  text("cpu");
  integer(count);
  out.push(TUPLE, PERSISTENT);
  integer(0);
  tuple(shape);
  tuple(strides);
  out.push(FALSE);
  global("collections", "OrderedDict");
  out.push(EMPTY_TUPLE, REDUCE, TUPLE, REDUCE, STOP);
  return Uint8Array.from(out);
}

/** A zip archive of stored entries (APPNOTE 6.3, sections 4.3.7, 4.3.12, 4.3.16); padding is an extra field «FB» as torch's. */
function zip(entries: readonly (readonly [string, Uint8Array])[]): Uint8Array {
  const parts: Uint8Array[] = [];
  const directory: Uint8Array[] = [];
  let at = 0;
  const add = (bytes: Uint8Array) => {
    parts.push(bytes);
    at += bytes.length;
  };
  for (const [title, data] of entries) {
    const name = new TextEncoder().encode(title);
    const sum = crc32(data);
    const start = at;
    // The extra field has four bytes of its own before its content.
    const padding = (ALIGNMENT - ((at + 30 + name.length + 4) % ALIGNMENT)) % ALIGNMENT;
    const common = (view: DataView, offset: number, extra: number) => {
      view.setUint16(offset, 20, true);
      view.setUint32(offset + 10, sum, true);
      view.setUint32(offset + 14, data.length, true);
      view.setUint32(offset + 18, data.length, true);
      view.setUint16(offset + 22, name.length, true);
      view.setUint16(offset + 24, extra, true);
    };
    const local = new Uint8Array(30 + name.length + 4 + padding);
    const view = new DataView(local.buffer);
    view.setUint32(0, 0x04034b50, true);
    common(view, 4, 4 + padding);
    local.set(name, 30);
    view.setUint16(30 + name.length, 0x4246, true);
    view.setUint16(32 + name.length, padding, true);
    local.fill(0x5a, 34 + name.length);
    add(local);
    add(data);
    const central = new Uint8Array(46 + name.length);
    const entry = new DataView(central.buffer);
    entry.setUint32(0, 0x02014b50, true);
    entry.setUint16(4, 20, true);
    common(entry, 6, 0);
    entry.setUint32(42, start, true);
    central.set(name, 46);
    directory.push(central);
  }
  const begin = at;
  for (const entry of directory) add(entry);
  const end = new Uint8Array(22);
  const view = new DataView(end.buffer);
  view.setUint32(0, 0x06054b50, true);
  view.setUint16(8, entries.length, true);
  view.setUint16(10, entries.length, true);
  view.setUint32(12, at - begin, true);
  view.setUint32(16, begin, true);
  add(end);
  const out = new Uint8Array(at);
  let to = 0;
  for (const part of parts) {
    out.set(part, to);
    to += part.length;
  }
  return out;
}
