// Writes files as torch.save does, and as nobody should: pickles of protocols 2 to 5 by hand, the zip and the legacy
// layout. Only what tests and benchmarks of the reader need; every number of the layout can be given a lie.

import { crc32 } from "../../src/formats/crc32.ts";

export class Tuple {
  readonly items: readonly Value[];
  constructor(...items: Value[]) {
    this.items = items;
  }
}
export class Float {
  readonly value: number;
  constructor(value: number) {
    this.value = value;
  }
}
/** An OrderedDict, with the attribute `_metadata` that state dicts carry. */
export class Ordered {
  readonly entries: Map<string | number, Value>;
  constructor(entries: Map<string | number, Value>) {
    this.entries = entries;
  }
}
export class Storage {
  readonly key: string;
  readonly type: string;
  readonly count: number;
  constructor(key: string, type: string, count: number) {
    this.key = key;
    this.type = type;
    this.count = count;
  }
}
export class Tensor {
  readonly storage: Storage;
  readonly offset: number;
  readonly shape: readonly number[];
  readonly strides: readonly number[];
  readonly isParameter: boolean;
  /** Name of its type in torch, for tensors over an untyped storage. */
  readonly dtype: string | null;
  constructor(
    storage: Storage,
    offset: number,
    shape: readonly number[],
    strides: readonly number[],
    isParameter = false,
    dtype: string | null = null,
  ) {
    this.storage = storage;
    this.offset = offset;
    this.shape = shape;
    this.strides = strides;
    this.isParameter = isParameter;
    this.dtype = dtype;
  }
}
/** A value that is written once and then taken from the memo's slot; for protocols 2 and 3. */
export class Shared {
  readonly slot: number;
  readonly value: Value;
  constructor(slot: number, value: Value) {
    this.slot = slot;
    this.value = value;
  }
}
/** Bytes of opcodes as they are. */
export class Raw {
  readonly bytes: readonly number[];
  constructor(bytes: readonly number[]) {
    this.bytes = bytes;
  }
}
export type Value =
  | null
  | boolean
  | number
  | bigint
  | string
  | Float
  | Tuple
  | Ordered
  | Tensor
  | Raw
  | Shared
  | Map<string | number, Value>
  | readonly Value[];

const letters = (text: string) => [...new TextEncoder().encode(text)];
const little = (value: bigint | number, bytes: number): number[] =>
  Array.from({ length: bytes }, (_, i) => Number((BigInt(value) >> BigInt(8 * i)) & 255n));

/** Opcodes of a value with PROTO and STOP. Texts and globals that come again are taken from the memo. */
export function pickleOf(value: Value, protocol = 2): Uint8Array {
  const out: number[] = [0x80, protocol];
  const memo = new Map<string, number>();
  const written = new Set<Shared>();
  const memoised = (key: string, write: () => void) => {
    const slot = memo.get(key);
    if (slot !== undefined) {
      if (slot < 256) out.push(0x68, slot);
      else out.push(0x6a, ...little(slot, 4));
      return;
    }
    write();
    const next = memo.size;
    memo.set(key, next);
    if (protocol >= 4) out.push(0x94);
    else if (next < 256) out.push(0x71, next);
    else out.push(0x72, ...little(next, 4));
  };
  const text = (value: string) =>
    memoised(`text ${value}`, () => {
      const bytes = letters(value);
      if (protocol >= 4 && bytes.length < 256) out.push(0x8c, bytes.length);
      else out.push(0x58, ...little(bytes.length, 4));
      for (const byte of bytes) out.push(byte);
    });
  const global = (module: string, name: string) =>
    memoised(`global ${module} ${name}`, () => {
      if (protocol < 4) {
        out.push(0x63, ...letters(`${module}\n${name}\n`));
        return;
      }
      text(module);
      text(name);
      out.push(0x93);
    });
  const integer = (value: number | bigint) => {
    if (value >= 0 && value < 256) out.push(0x4b, Number(value));
    else if (value >= 0 && value < 65536) out.push(0x4d, ...little(value, 2));
    else if (value >= -(2 ** 31) && value < 2 ** 31) out.push(0x4a, ...little(value, 4));
    else {
      let bytes = 1;
      while (BigInt.asIntN(8 * bytes, BigInt(value)) !== BigInt(value)) bytes++;
      out.push(0x8a, bytes, ...little(value, bytes));
    }
  };
  const items = (entries: Map<string | number, Value>) => {
    if (entries.size === 0) return;
    out.push(0x28);
    for (const [key, item] of entries) {
      write(key);
      write(item);
    }
    out.push(0x75);
  };
  const tuple = (...values: Value[]) => {
    if (values.length === 0) out.push(0x29);
    else if (values.length <= 3) {
      for (const item of values) write(item);
      out.push(0x84 + values.length);
    } else {
      out.push(0x28);
      for (const item of values) write(item);
      out.push(0x74);
    }
  };
  const emptyOrdered = () => {
    global("collections", "OrderedDict");
    out.push(0x29, 0x52);
  };
  const storage = ({ type, key, count }: Storage) => {
    out.push(0x28);
    text("storage");
    global(type === "UntypedStorage" ? "torch.storage" : "torch", type);
    text(key);
    text("cuda:0");
    integer(count);
    out.push(0x74, 0x51);
  };
  const tensor = (value: Tensor) => {
    if (value.isParameter) {
      global("torch._utils", "_rebuild_parameter");
      out.push(0x28);
    }
    global("torch._utils", value.dtype === null ? "_rebuild_tensor_v2" : "_rebuild_tensor_v3");
    out.push(0x28);
    storage(value.storage);
    integer(value.offset);
    tuple(...value.shape);
    tuple(...value.strides);
    out.push(0x89);
    emptyOrdered();
    if (value.dtype !== null) global("torch", value.dtype);
    out.push(0x74, 0x52);
    if (value.isParameter) {
      out.push(0x88);
      emptyOrdered();
      out.push(0x74, 0x52);
    }
  };
  const write = (value: Value): void => {
    if (value === null) out.push(0x4e);
    else if (typeof value === "boolean") out.push(value ? 0x88 : 0x89);
    else if (typeof value === "number" || typeof value === "bigint") integer(value);
    else if (typeof value === "string") text(value);
    else if (value instanceof Float) {
      const bytes = new Uint8Array(8);
      new DataView(bytes.buffer).setFloat64(0, value.value);
      out.push(0x47, ...bytes);
    } else if (value instanceof Tuple) tuple(...value.items);
    else if (value instanceof Tensor) tensor(value);
    else if (value instanceof Raw) out.push(...value.bytes);
    else if (value instanceof Shared) {
      if (written.has(value)) out.push(0x6a, ...little(value.slot, 4));
      else {
        written.add(value);
        write(value.value);
        out.push(0x72, ...little(value.slot, 4));
      }
    } else if (value instanceof Ordered) {
      emptyOrdered();
      items(value.entries);
      out.push(0x7d, 0x28);
      text("_metadata");
      emptyOrdered();
      out.push(0x75, 0x62);
    } else if (value instanceof Map) {
      out.push(0x7d);
      items(value);
    } else {
      out.push(0x5d, 0x28);
      for (const item of value as readonly Value[]) write(item);
      out.push(0x65);
    }
  };
  write(value);
  out.push(0x2e);
  if (protocol < 4) return Uint8Array.from(out);
  return Uint8Array.from([...out.slice(0, 2), 0x95, ...little(out.length - 2, 8), ...out.slice(2)]);
}

export interface ZipPart {
  name: string;
  /** The content, or its length where it is a hole of a sparse file. */
  content: Uint8Array | number;
  crc?: number;
  method?: number;
}

/**
 * A zip archive of stored entries as torch writes it: sizes in the directory alone, content at multiples of 64, zip64
 * fields where they are needed or where `wide` asks for them. The pieces lie at their offsets in a file of `size` bytes.
 */
export function layoutZip(parts: readonly ZipPart[], wide = false): { size: number; pieces: [number, Uint8Array][] } {
  const pieces: [number, Uint8Array][] = [];
  const directory: number[] = [];
  let at = 0;
  for (const { name, content, crc, method = 0 } of parts) {
    const bytes = letters(name);
    const size = typeof content === "number" ? content : content.length;
    const sum = crc ?? (typeof content === "number" ? 0 : crc32(content));
    const fill = (64 - ((at + 30 + bytes.length + 4) % 64)) % 64;
    const far = wide || at >= 0xffffffff || size >= 0xffffffff;
    const narrow = (value: number) => little(far ? 0xffffffff : value, 4);
    const facts = [...little(0x0808, 2), ...little(method, 2), ...little(0, 4)];
    const local = [...little(0x04034b50, 4), ...little(20, 2), ...facts, ...little(0, 12)];
    local.push(...little(bytes.length, 2), ...little(4 + fill, 2), ...bytes, 0x46, 0x42, ...little(fill, 2));
    pieces.push([at, Uint8Array.from([...local, ...new Array(fill).fill(0x5a)])]);
    const extra = far ? [1, 0, 24, 0, ...little(size, 8), ...little(size, 8), ...little(at, 8)] : [];
    directory.push(...little(0x02014b50, 4), ...little(20, 2), ...little(20, 2), ...facts, ...little(sum, 4));
    directory.push(...narrow(size), ...narrow(size), ...little(bytes.length, 2), ...little(extra.length, 2));
    directory.push(...little(0, 10), ...narrow(at));
    for (const byte of [...bytes, ...extra]) directory.push(byte);
    at += local.length + fill;
    if (typeof content !== "number") pieces.push([at, content]);
    at += size;
  }
  const far = wide || at >= 0xffffffff || parts.length >= 0xffff;
  const end: number[] = [];
  if (far) {
    end.push(...little(0x06064b50, 4), ...little(44, 8), ...little(45, 2), ...little(45, 2), ...little(0, 8));
    end.push(...little(parts.length, 8), ...little(parts.length, 8), ...little(directory.length, 8), ...little(at, 8));
    end.push(...little(0x07064b50, 4), ...little(0, 4), ...little(at + directory.length, 8), ...little(1, 4));
  }
  const count = far ? 0xffff : parts.length;
  end.push(...little(0x06054b50, 4), ...little(0, 4), ...little(count, 2), ...little(count, 2));
  end.push(...little(far ? 0xffffffff : directory.length, 4), ...little(far ? 0xffffffff : at, 4), 0, 0);
  pieces.push([at, Uint8Array.from([...directory, ...end])]);
  return { size: at + directory.length + end.length, pieces };
}

function joined({ size, pieces }: { size: number; pieces: [number, Uint8Array][] }): Uint8Array {
  const file = new Uint8Array(size);
  for (const [at, bytes] of pieces) file.set(bytes, at);
  return file;
}

/** A zip archive in memory. */
export const zipOfParts = (parts: readonly ZipPart[], wide = false): Uint8Array => joined(layoutZip(parts, wide));

/** The entries of a file of torch.save. */
export function torchParts(
  pickle: Uint8Array,
  storages: Iterable<readonly [key: string, content: Uint8Array | number]>,
  root = "archive",
): ZipPart[] {
  return [
    { name: `${root}/data.pkl`, content: pickle },
    { name: `${root}/byteorder`, content: new TextEncoder().encode("little") },
    ...[...storages].map(([key, content]) => ({ name: `${root}/data/${key}`, content })),
    { name: `${root}/version`, content: new TextEncoder().encode("3\n") },
  ];
}

/** A file of torch.save since torch 1.6, in memory. */
export const torchZip = (value: Value, storages: ReadonlyMap<string, Uint8Array>, protocol = 2, wide = false) =>
  zipOfParts(torchParts(pickleOf(value, protocol), storages), wide);

/** A file of torch.save before torch 1.6. `sizes` are the bytes of an element, by storage. */
export function torchLegacy(
  value: Value,
  storages: ReadonlyMap<string, Uint8Array>,
  sizes: ReadonlyMap<string, number>,
  protocol = 2,
): Uint8Array {
  const machine = new Map<string, Value>([
    ["protocol_version", 1001],
    ["little_endian", true],
  ]);
  const keys = [...storages.keys()];
  const pickles = [0x1950a86a20f9469cfc6cn, 1001, machine, value, keys].map((part) =>
    pickleOf(part as Value, protocol),
  );
  const data = [...storages].flatMap(([key, content]) => [
    Uint8Array.from(little(content.length / sizes.get(key)!, 8)),
    content,
  ]);
  const parts = [...pickles, ...data];
  const file = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    file.set(part, at);
    at += part.length;
  }
  return file;
}
