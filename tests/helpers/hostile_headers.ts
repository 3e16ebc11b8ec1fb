// Hostile headers of model files, made from a number: whole files with one lie in them (a length, an offset, a count, a
// name, a cut), and structures that are small on disk and endless when walked. Every kind says what it attacks.

import { Dice } from "./dice.ts";
import { pickleOf, Storage, Tensor, Tuple, torchLegacy, torchParts, type Value, zipOfParts } from "./torch_writer.ts";

export interface HostileHeader {
  kind: string;
  bytes: Uint8Array;
}

const utf8 = (text: string) => new TextEncoder().encode(text);
const little = (value: bigint, bytes: number): number[] =>
  Array.from({ length: bytes }, (_, i) => Number((value >> BigInt(8 * i)) & 255n));

function concat(...parts: (Uint8Array | readonly number[])[]): Uint8Array {
  const file = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    file.set(part, at);
    at += part.length;
  }
  return file;
}

/** A safetensors file of a header and `data` bytes. */
const safetensors = (header: Uint8Array | string, data = 16, length?: bigint): Uint8Array => {
  const bytes = typeof header === "string" ? utf8(header) : header;
  return concat(little(BigInt.asUintN(64, length ?? BigInt(bytes.length)), 8), bytes, new Uint8Array(data));
};
const entry = (name: string, begin: unknown, end: unknown, shape: unknown = "[2]", dtype = '"F32"') =>
  `${JSON.stringify(name)}:{"dtype":${dtype},"shape":${shape},"data_offsets":[${begin},${end}]}`;
const whole = `{"__metadata__":{"format":"pt"},${entry("a", 0, 8)},${entry("b", 8, 16)}}`;

function flipped(bytes: Uint8Array, dice: Dice, most = 8): Uint8Array {
  const copy = bytes.slice();
  for (let i = dice.below(most) + 1; i > 0 && copy.length > 0; i--) copy[dice.below(copy.length)] = dice.below(256);
  return copy;
}

const storage = (dice: Dice, lie = false) =>
  new Storage(lie ? dice.pick(["0", "1", "", "../0", "0/0", "a".repeat(300)]) : "0", "FloatStorage", 8);
const tensor = () => new Tensor(new Storage("0", "FloatStorage", 8), 0, [2, 4], [4, 1]);
const contents = (): [string, Uint8Array][] => [["0", new Uint8Array(32).fill(1)]];
const around = (pickle: Uint8Array) => zipOfParts(torchParts(pickle, contents()));
const plain = (): Value => new Map<string | number, Value>([["state_dict", new Map([["t", tensor()]])]]);

/** Places of the numbers in the records of a zip archive: signature, field, bytes. */
const RECORDS: readonly [signature: number, fields: readonly (readonly [at: number, bytes: number])[]][] = [
  [
    0x04034b50,
    [
      [4, 2],
      [6, 2],
      [8, 2],
      [14, 4],
      [18, 4],
      [22, 4],
      [26, 2],
      [28, 2],
    ],
  ],
  [
    0x02014b50,
    [
      [6, 2],
      [8, 2],
      [10, 2],
      [16, 4],
      [20, 4],
      [24, 4],
      [28, 2],
      [30, 2],
      [32, 2],
      [38, 4],
      [42, 4],
    ],
  ],
  [
    0x06054b50,
    [
      [8, 2],
      [10, 2],
      [12, 4],
      [16, 4],
      [20, 2],
    ],
  ],
  [
    0x06064b50,
    [
      [4, 8],
      [24, 8],
      [32, 8],
      [40, 8],
      [48, 8],
    ],
  ],
  [0x07064b50, [[8, 8]]],
];

function zipLie(dice: Dice): Uint8Array {
  const file = zipOfParts(torchParts(pickleOf(plain()), contents()), dice.below(2) === 0);
  const view = new DataView(file.buffer);
  for (let lies = dice.below(3) + 1; lies > 0; lies--) {
    const [signature, fields] = dice.pick(RECORDS);
    const places: number[] = [];
    for (let at = 0; at + 4 <= file.length; at++) if (view.getUint32(at, true) === signature) places.push(at);
    if (places.length === 0) continue;
    const [field, bytes] = dice.pick(fields);
    const at = dice.pick(places) + field;
    if (at + bytes <= file.length) file.set(little(BigInt.asUintN(64, dice.edge()), bytes), at);
  }
  return file;
}

/** Instructions with the values that they take from the stack and leave there; their arguments follow. */
const MOVES: readonly (readonly [takes: number, leaves: number, ...opcode: (number | "n" | "text")[]])[] = [
  [0, 1, 0x4e],
  [0, 1, 0x88],
  [0, 1, 0x4b, "n"],
  [0, 1, 0x58, 1, 0, 0, 0, "text"],
  [0, 1, 0x43, 2, "n", "n"],
  [0, 1, 0x8a, 2, "n", "n"],
  [0, 1, 0x29],
  [0, 1, 0x5d],
  [0, 1, 0x7d],
  [0, 1, 0x68, "n"],
  [0, 1, 0x63, ...utf8("collections\nOrderedDict\n")],
  [0, 1, 0x63, ...utf8("torch\nFloatStorage\n")],
  [0, 1, 0x63, ...utf8("torch._utils\n_rebuild_tensor_v2\n")],
  [1, 0, 0x30],
  [1, 1, 0x71, "n"],
  [1, 1, 0x94],
  [1, 1, 0x85],
  [1, 1, 0x51],
  [2, 1, 0x86],
  [2, 1, 0x61],
  [2, 1, 0x52],
  [2, 1, 0x62],
  [2, 1, 0x93],
  [3, 1, 0x87],
  [3, 1, 0x73],
];

/** Instructions in any order that the stack allows, so that what they meet is of the wrong kind more often than absent. */
function soup(dice: Dice): Uint8Array {
  const out: number[] = [0x80, 2];
  const depths = [0];
  for (let i = dice.below(60) + 3; i > 0; i--) {
    const depth = depths.at(-1)!;
    if (dice.below(8) === 0) {
      out.push(0x28);
      depths.push(0);
      continue;
    }
    if (depths.length > 1 && dice.below(6) === 0) {
      out.push(dice.pick([0x74, 0x74, 0x31, 0x65, 0x75]));
      depths.pop();
      depths.push(depths.pop()! + (out.at(-1) === 0x74 ? 1 : 0));
      continue;
    }
    const [takes, leaves, ...opcode] = dice.pick(MOVES.filter(([taken]) => taken <= depth));
    for (const part of opcode) out.push(part === "n" ? dice.below(4) : part === "text" ? 0x61 + dice.below(3) : part);
    depths[depths.length - 1] = depth - takes + leaves;
  }
  while (depths.length > 1) {
    out.push(0x74);
    depths.pop();
  }
  out.push(...(depths[0] === 0 ? [0x4e] : []), 0x2e);
  return around(Uint8Array.from(out));
}

/** Each level holds the one before it many times through the memo: tuples, lists, dictionaries or all of them. */
function bomb(dice: Dice): Uint8Array {
  const out: number[] = [0x80, 2];
  const [levels, copies] = [dice.below(250) + 2, dice.below(30) + 2];
  if (dice.below(2) === 0) out.push(...pickleOf(tensor()).slice(2, -1));
  else out.push(0x4e);
  const first = 5000;
  const slot = (level: number) => little(BigInt(first + level), 4);
  out.push(0x72, ...slot(0));
  for (let level = 0; level < levels; level++) {
    const form = dice.below(4);
    if (form === 1) out.push(0x5d);
    if (form === 2) out.push(0x7d);
    if (form < 3) out.push(0x28);
    for (let i = 0; i < (form === 3 ? 3 : copies); i++) {
      if (form === 2) out.push(0x4b, i);
      out.push(0x6a, ...slot(level));
    }
    out.push([0x74, 0x65, 0x75, 0x87][form]!, 0x72, ...slot(level + 1));
  }
  out.push(0x2e);
  return around(Uint8Array.from(out));
}

function nest(dice: Dice): Uint8Array {
  const count = dice.pick([10, 63, 64, 65, 1000, 20_000]);
  const [open, close] = dice.pick([
    [[0x5d], [0x61]],
    [[0x4b, 1], [0x85]],
    [[0x28], [0x74]],
    [[0x7d, 0x4b, 1], [0x73]],
    [[0x28, 0x28], [0x31]],
  ] as const);
  const out: number[] = [0x80, 2];
  for (let i = 0; i < count; i++) out.push(...open);
  if (open[0] === 0x7d || open[0] === 0x5d) out.push(0x4e);
  for (let i = 0; i < count; i++) out.push(...close);
  return around(Uint8Array.from([...out, 0x2e]));
}

/** An instruction that announces more than there is. */
function giant(dice: Dice): Uint8Array {
  const length = BigInt.asUintN(64, dice.edge());
  const [opcode, bytes] = dice.pick([
    [0x8b, 4],
    [0x58, 4],
    [0x8d, 8],
    [0x8e, 8],
    [0x42, 4],
    [0x54, 4],
    [0x95, 8],
    [0x72, 4],
    [0x6a, 4],
    [0x8a, 1],
    [0x96, 8],
  ] as const);
  const rest = new Uint8Array(dice.pick([0, 4, 300, 5000])).fill(dice.pick([0, 0x7f, 0xff, 0x4e]));
  const before = dice.below(2) === 0 ? [0x5d] : [];
  return around(concat([0x80, 4, ...before, opcode, ...little(length, bytes)], rest, [0x2e]));
}

function tensorLie(dice: Dice): Uint8Array {
  const number = () => (dice.below(2) === 0 ? dice.edge() : BigInt(dice.below(5)));
  const numbers = () => new Tuple(...Array.from({ length: dice.below(4) }, number));
  const held =
    dice.below(4) === 0 ? storage(dice, true) : new Storage("0", "FloatStorage", dice.below(3) ? 8 : Number(number()));
  // Sizes beyond 2^53 go through the writer's whole numbers as they are.
  const lie = new Tensor(
    held,
    number() as never,
    numbers().items as never,
    numbers().items as never,
    dice.below(3) === 0,
  );
  return around(pickleOf(new Map([["t", lie]]), dice.pick([2, 3, 4, 5])));
}

const NAMES = [
  "os",
  "builtins",
  "torch",
  "torch._utils",
  "numpy",
  "collections",
  "",
  "\u0000",
  "a".repeat(300),
  "__proto__",
];
const FUNCTIONS = [
  "system",
  "eval",
  "OrderedDict",
  "_rebuild_tensor_v2",
  "FloatStorage",
  "Size",
  "constructor",
  "float16",
  "",
];

function globals(dice: Dice): Uint8Array {
  const late = dice.below(2) === 0;
  const [module, name] = [dice.pick(NAMES), dice.pick(FUNCTIONS)];
  const text = (value: string) => [0x58, ...little(BigInt(utf8(value).length), 4), ...utf8(value)];
  const named = late ? [...text(module), ...text(name), 0x93] : [0x63, ...utf8(`${module}\n${name}\n`)];
  const args = dice.pick([
    [0x29],
    [0x4e, 0x85],
    [0x4b, 4, 0x85, 0x85],
    [0x5d],
    [0x28, 0x4e, 0x4b, 1, 0x29, 0x29, 0x89, 0x7d, 0x74],
  ]);
  const after = dice.pick([[], [0x52], [0x52, 0x7d, 0x62], [0x51], [0x81], [0x4b, 1, 0x73]]);
  return around(Uint8Array.from([0x80, late ? 4 : 2, ...named, ...args, ...after, 0x2e]));
}

const legacy = (dice: Dice): Uint8Array =>
  torchLegacy(plain(), new Map(contents()), new Map([["0", dice.below(8) === 0 ? 1 : 4]]), dice.pick([2, 4]));

const cut = (bytes: Uint8Array, dice: Dice) => bytes.slice(0, dice.below(bytes.length + 1));

const KINDS: Record<string, (dice: Dice) => Uint8Array> = {
  "safetensors: the length of the header": (dice) => safetensors(whole, 16, dice.edge()),
  "safetensors: offsets, shapes and types": (dice) => {
    const shape = `[${Array.from({ length: dice.below(6) }, () => dice.edge()).join(",")}]`;
    const odd = ["-1", "1.5", "1e3", '"8"', "null", "[]", "9".repeat(dice.below(3000) + 1), "00", "-0"];
    const number = () => (dice.below(2) === 0 ? dice.edge() : dice.pick(odd));
    const type = dice.pick(['"F32"', '"BF16"', '"F4"', '"C64"', '"f32"', "7", "null", '"__proto__"', '"constructor"']);
    return safetensors(`{${entry("a", number(), number(), dice.below(2) ? shape : "[2]", type)}}`, dice.below(64));
  },
  "safetensors: overlaps, holes and double names": (dice) => {
    const entries = Array.from({ length: dice.below(6) + 1 }, () => {
      const begin = dice.below(8) * 4;
      const size = dice.below(5);
      return entry(dice.pick(["a", "b", "c", "__metadata__", ""]), begin, begin + 4 * size, `[${size}]`);
    });
    return safetensors(`{${entries.join(",")}}`, dice.below(12) * 4);
  },
  "safetensors: depth": (dice) => {
    const depth = dice.pick([100, 126, 127, 128, 5000, 11_000]);
    const [open, close] = dice.pick([
      ["[", "]"],
      ['{"a":', "}"],
      ['{"__metadata__":', "}"],
    ] as const);
    const closed = dice.below(2) === 0 ? close.repeat(depth) : "";
    return safetensors(`${dice.pick(["", '{"t":'])}${open.repeat(depth)}1${closed}`);
  },
  "safetensors: counts": (dice) => {
    const count = dice.below(800) + 1;
    const entries = Array.from({ length: count }, (_, i) => entry(`t${i}`, i * 8, i * 8 + 8));
    return safetensors(`{${entries.join(",")}}`, dice.below(2) === 0 ? count * 8 : dice.below(count * 8));
  },
  "safetensors: cuts": (dice) => cut(safetensors(whole), dice),
  "safetensors: wrong UTF-8": (dice) => {
    const header = utf8(whole);
    const bad = dice.pick([
      [0xff],
      [0xc0, 0x80],
      [0xed, 0xa0, 0x80],
      [0xf4, 0x90, 0x80, 0x80],
      [0xe2, 0x82],
      [0xef, 0xbb, 0xbf],
    ]);
    const at = dice.below(header.length);
    return safetensors(concat(header.slice(0, at), bad, header.slice(at)));
  },
  "safetensors: changed bytes": (dice) => flipped(safetensors(whole), dice),
  "safetensors: pieces of JSON": (dice) => {
    const tokens = [
      "{",
      "}",
      "[",
      "]",
      ":",
      ",",
      '"a"',
      '"dtype"',
      '"shape"',
      '"data_offsets"',
      '"__metadata__"',
      '"F32"',
      "0",
      "8",
    ];
    const odd = [
      "1e999",
      "-",
      "\\ud800",
      '"\\ud800"',
      '"\\u0000"',
      "nul",
      "true",
      '"',
      " ",
      "\t",
      "\u0000",
      "//",
      "'a'",
    ];
    const text = Array.from({ length: dice.below(40) }, () => dice.pick(dice.below(4) === 0 ? odd : tokens)).join("");
    return safetensors(dice.below(2) === 0 ? text : `{"a":${text}}`);
  },
  "safetensors: long names": (dice) =>
    safetensors(
      `{${entry("\u0007é".repeat(dice.below(20_000)), 0, 8, dice.pick(["[2]", "[3]", `"${"x".repeat(9000)}"`]))}}`,
      8,
    ),
  "zip: lies in its records": zipLie,
  "zip: cuts": (dice) => cut(around(pickleOf(plain())), dice),
  "zip: changed bytes": (dice) =>
    flipped(zipOfParts(torchParts(pickleOf(plain()), contents()), dice.below(2) === 0), dice),
  "zip: double, missing and strange entries": (dice) => {
    const parts = torchParts(pickleOf(plain()), contents());
    const names = [
      "archive/data.pkl",
      "archive/data/0",
      "b/data.pkl",
      "../x",
      "archive/constants.pkl",
      "archive/byteorder",
      "\u0001",
      "",
    ];
    parts.splice(dice.below(parts.length), dice.below(2), {
      name: dice.pick(names),
      content: utf8(dice.pick(["", "big", "little", "x".repeat(40)])),
      method: dice.pick([0, 0, 8, 12, 99]),
    });
    return zipOfParts(parts);
  },
  "pickle: changed bytes": (dice) => around(flipped(pickleOf(plain(), dice.pick([2, 3, 4, 5])), dice, 4)),
  "pickle: cuts": (dice) => around(cut(pickleOf(plain(), dice.pick([2, 4])), dice)),
  "pickle: opcodes in any order": soup,
  "pickle: bombs of the memo": bomb,
  "pickle: depth": nest,
  "pickle: giants": giant,
  "pickle: globals": globals,
  "torch: shapes, strides, offsets and storages": tensorLie,
  "legacy: changed bytes": (dice) => flipped(legacy(dice), dice, 6),
  "legacy: cuts": (dice) => cut(legacy(dice), dice),
  "legacy: other lengths of storages": (dice) => {
    const file = legacy(dice);
    file.set(little(BigInt.asUintN(64, dice.edge()), 8), file.length - 40);
    return file;
  },
};

export const HEADER_KINDS = Object.keys(KINDS);

/** Case number `n`; the kinds take turns. */
export function hostileHeader(n: number): HostileHeader {
  const kind = HEADER_KINDS[n % HEADER_KINDS.length]!;
  return { kind, bytes: KINDS[kind]!(new Dice(n + 1)) };
}
