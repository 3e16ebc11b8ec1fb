// The reader of torch.save files against files that torch wrote, against hostile ones, and against generated ones.

import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { LongtailError } from "../../src/base/errors.ts";
import { f16ToF32 } from "../../src/base/halves.ts";
import { Safetensors } from "../../src/formats/safetensors.ts";
import { TorchArchive } from "../../src/formats/torch_archive.ts";
import { FIXTURES, MemoryFiles, MODELS, NodeFiles, OWN_FIXTURES } from "../helpers/files.ts";
import {
  Float,
  layoutZip,
  Ordered,
  pickleOf,
  Shared,
  Storage,
  Tensor,
  Tuple,
  torchLegacy,
  torchParts,
  torchZip,
  type Value,
  zipOfParts,
} from "../helpers/torch_writer.ts";

const disk = new NodeFiles();
const folder = join(readdirSync(FIXTURES).includes("torch_archives") ? FIXTURES : OWN_FIXTURES, "torch_archives");
interface Entry {
  what: string;
  expected: string;
  values?: Record<string, unknown>;
}
const manifest: Record<"good" | "hostile", Record<string, Entry>> = JSON.parse(
  readFileSync(join(folder, "manifest.json"), "utf8"),
);

async function failure(work: Promise<unknown>): Promise<LongtailError> {
  const error = await work.then(
    () => null,
    (reason) => reason,
  );
  expect(error).toBeInstanceOf(LongtailError);
  return error as LongtailError;
}

const openBytes = (bytes: Uint8Array, keys?: string[]) =>
  TorchArchive.open(new MemoryFiles({ "a.pt": bytes }), "a.pt", keys === undefined ? {} : { keys });

async function readAll(path: string): Promise<void> {
  const archive = await TorchArchive.open(disk, path);
  try {
    for (const name of archive.names()) await archive.load(name);
  } finally {
    await archive.close();
  }
}

describe("files that torch wrote", () => {
  for (const [name, entry] of Object.entries(manifest.good)) {
    test(`${name} (${entry.what}) is read with every shape and value`, async () => {
      const expected = await Safetensors.open(disk, join(folder, "expected.safetensors"));
      const archive = await TorchArchive.open(disk, join(folder, "good", name), { keys: [] });
      const names = expected.names().filter((key) => key.startsWith(`${name}/`));
      expect(new Set(archive.names())).toEqual(new Set(names.map((key) => key.slice(name.length + 1))));
      for (const tensor of archive.names()) {
        const { dtype, shape } = expected.info(`${name}/${tensor}`);
        expect(archive.info(tensor)).toMatchObject({ name: tensor, dtype, shape });
        expect(await archive.load(tensor)).toEqual(await expected.readF32(`${name}/${tensor}`));
        const bytes = await archive.loadBytes(tensor, 0);
        expect(Buffer.from(bytes).equals(await expected.readBytes(`${name}/${tensor}`))).toBe(true);
      }
      for (const [path, value] of Object.entries(entry.values ?? {}))
        expect(archive.value(path.split(".")), path).toEqual(value);
      await archive.close();
      await expected.close();
    });
  }

  test("a state_dict is unwrapped by default, and other keys lead elsewhere", async () => {
    const path = join(folder, "good/nested.pt");
    const archive = await TorchArchive.open(disk, path);
    expect(archive.nesting).toEqual(["state_dict"]);
    expect(archive.names()).toEqual(["0.weight", "0.bias", "1.weight", "1.bias"]);
    expect(archive.outside).toBe(3);
    await archive.close();
    const deep = await TorchArchive.open(disk, path, { keys: ["deep", "a", "b"] });
    expect(deep.names()).toEqual(["c.0", "c.1.d"]);
    await deep.close();
    const bare = await TorchArchive.open(disk, path, { keys: ["tuple", "2"] });
    expect(bare.names()).toEqual(["tensor"]);
    await bare.close();
    const error = await failure(TorchArchive.open(disk, path, { keys: ["deep", "A"] }));
    expect(error.code).toBe("E-FILE-107");
    expect(error.message).toContain('"a"');
  });

  const real = join(FIXTURES, "../torch-archives");
  test.skipIf(!existsSync(real))(
    "published checkpoints open, hold finite numbers and agree with their safetensors form",
    async () => {
      const shipped = await Safetensors.open(disk, join(MODELS, "taef2/taef2.safetensors"));
      for (const name of readdirSync(real).filter((file) => file.endsWith(".pth"))) {
        const archive = await TorchArchive.open(disk, join(real, name));
        expect(archive.names().length).toBeGreaterThan(5);
        for (const tensor of archive.names()) {
          const values = await archive.load(tensor);
          expect(values.every(Number.isFinite)).toBe(true);
          const half = /^taef2_(encoder|decoder)/.exec(name)?.[1];
          if (half === undefined) continue;
          const stored = await shipped.readF32(`${half}.${tensor}`);
          expect(stored.length === values.length && stored.every((value, i) => value === values[i])).toBe(true);
        }
        await archive.close();
      }
      await shipped.close();
    },
  );
});

describe("hostile files", () => {
  for (const [name, { what, expected }] of Object.entries(manifest.hostile)) {
    const path = join(folder, "hostile", name);
    const mayAccept = expected.includes("accept");
    test(`${name} (${what}) is ${mayAccept ? "read or refused" : "refused"}: ${expected}`, async () => {
      if (mayAccept) {
        await readAll(path).catch((error) => expect(error).toBeInstanceOf(LongtailError));
        return;
      }
      const error = await failure(readAll(path));
      expect(error.code).toMatch(/^E-FILE-(?:10[0-8]|08[0-2])$/);
      expect(error.exitCode).toBe(4);
      expect(error.message).toContain(path);
      expect(error.message).toContain("Fix: ");
    });
  }

  const says: Record<string, [code: string, part: string]> = {
    "os_system.pt": ["E-FILE-102", "posix.system"],
    "eval.pt": ["E-FILE-102", "eval"],
    "getattr.pt": ["E-FILE-102", "getattr"],
    "eval_protocol4.pt": ["E-FILE-102", "builtins.eval"],
    "global_unused.pt": ["E-FILE-102", "os.system"],
    "inst_opcode.pt": ["E-FILE-103", "opcode STRING"],
    "extension_opcode.pt": ["E-FILE-103", "opcode EXT1"],
    "build_on_dict.pt": ["E-FILE-103", "BUILD"],
    "offset_out_of_range.pt": ["E-FILE-105", '"t"'],
    "huge_shape_stride_0.pt": ["E-FILE-105", "1099511627776"],
    "storage_missing.pt": ["E-FILE-106", 'storage "5"'],
    "deflated_pickle.pt": ["E-FILE-101", "compressed"],
    "duplicate_entry.pt": ["E-FILE-101", "twice"],
    "torchscript.pt": ["E-FILE-101", "TorchScript"],
    "big_endian.pt": ["E-FILE-101", "big-endian"],
    "wrong_crc.pt": ["E-FILE-108", "checksum"],
    "text.pt": ["E-FILE-100", "web page"],
    "lfs_pointer.pt": ["E-FILE-100", "Git LFS pointer"],
    "empty.pt": ["E-FILE-100", "empty"],
  };
  for (const [name, [code, part]] of Object.entries(says)) {
    test(`the refusal of ${name} says ${part}`, async () => {
      const error = await failure(readAll(join(folder, "hostile", name)));
      expect(error.code).toBe(code);
      expect(error.message).toContain(part);
    });
  }

  test("a forbidden global comes with the advice to convert the file", async () => {
    const error = await failure(readAll(join(folder, "hostile/eval.pt")));
    expect(error.parts.fix).toContain("safetensors");
  });

  test("a key named __proto__ is a key and changes no object", async () => {
    const archive = await TorchArchive.open(disk, join(folder, "hostile/prototype_key.pt"));
    expect(archive.names()).toEqual(["t"]);
    expect(archive.value(["__proto__", "polluted"])).toBe(1);
    expect(({} as Record<string, unknown>)["polluted"]).toBeUndefined();
    await archive.close();
  });

  test("two ways to one name are refused, and a dictionary that is shared is read under both of its names", async () => {
    const bytes = Float32Array.of(1, 2);
    const tensor = new Tensor(new Storage("0", "FloatStorage", 2), 0, [2], [1]);
    const stored = new Map([["0", new Uint8Array(bytes.buffer)]]);
    const twice = new Map<string | number, Value>([
      [7, tensor],
      ["7", tensor],
    ]);
    expect((await failure(openBytes(torchZip(twice, stored)))).message).toContain('"7"');
    const shared = new Shared(1000, new Map([["t", tensor]]));
    const pair = new Map<string | number, Value>([
      ["a", shared],
      ["b", [shared]],
    ]);
    const archive = await openBytes(torchZip(pair, stored));
    expect(archive.names()).toEqual(["a.t", "b.0.t"]);
    expect(await archive.load("b.0.t")).toEqual(bytes);
  });

  test("a branch that is shared into more names than any checkpoint has is refused at once", async () => {
    const tensor = new Tensor(new Storage("0", "FloatStorage", 2), 0, [2], [1]);
    let branch: Value = tensor;
    for (let i = 0; i < 20; i++) branch = new Array(10).fill(new Shared(1000 + i, [branch])) as Value[];
    const error = await failure(openBytes(torchZip(branch, new Map([["0", new Uint8Array(8)]]))));
    expect(error.code).toBe("E-FILE-104");
    expect(error.message).toContain("tensors");
  });

  test("lists that contain themselves or lie 65 deep are refused", async () => {
    let deep: Value = [1];
    for (let i = 0; i < 64; i++) deep = [deep];
    expect((await failure(openBytes(torchZip(deep, new Map())))).code).toBe("E-FILE-104");
    const around = zipOfParts(torchParts(Uint8Array.of(0x80, 2, 0x5d, 0x71, 0, 0x68, 0, 0x61, 0x2e), []));
    expect((await failure(openBytes(around))).message).toContain("contains itself");
  });
});

describe("generated files", () => {
  const kinds = [
    ["FloatStorage", 4, (bytes: Uint8Array) => new Float32Array(bytes.buffer)],
    ["HalfStorage", 2, (bytes: Uint8Array) => f16ToF32(new Uint16Array(bytes.buffer))],
    ["DoubleStorage", 8, (bytes: Uint8Array) => Float32Array.from(new Float64Array(bytes.buffer))],
    ["IntStorage", 4, (bytes: Uint8Array) => Float32Array.from(new Int32Array(bytes.buffer))],
    ["LongStorage", 8, (bytes: Uint8Array) => Float32Array.from(new BigInt64Array(bytes.buffer), Number)],
    ["ByteStorage", 1, (bytes: Uint8Array) => Float32Array.from(bytes)],
    ["CharStorage", 1, (bytes: Uint8Array) => Float32Array.from(new Int8Array(bytes.buffer))],
  ] as const;
  /** A view of its own storage: a permuted, cut and stepped block, as slicing and transposing make them. */
  const view = fc
    .record({
      kind: fc.constantFrom(...kinds),
      sizes: fc.array(fc.integer({ min: 0, max: 5 }), { maxLength: 4 }),
      steps: fc.array(fc.integer({ min: 1, max: 3 }), { minLength: 4, maxLength: 4 }),
      order: fc.shuffledSubarray([0, 1, 2, 3], { minLength: 4, maxLength: 4 }),
      offset: fc.integer({ min: 0, max: 7 }),
      expanded: fc.boolean(),
      isParameter: fc.boolean(),
      seed: fc.integer({ min: 1, max: 1000 }),
    })
    .map(({ kind, sizes, steps, order, offset, expanded, isParameter, seed }) => {
      const strides = new Array<number>(sizes.length).fill(0);
      let stride = 1;
      for (const d of order.filter((axis) => axis < sizes.length)) {
        stride *= steps[d]!;
        strides[d] = stride;
        stride *= Math.max(1, sizes[d]!);
      }
      if (expanded && sizes.length > 0) strides[0] = 0;
      const count = offset + sizes.reduce((sum, size, d) => sum + Math.max(0, size - 1) * strides[d]!, 0) + 1;
      const bytes = Uint8Array.from({ length: count * kind[1] }, (_, i) => (i * 37 + seed * 11) % 120);
      const stored = kind[2](bytes);
      const elements = sizes.reduce((a, b) => a * b, 1);
      const values = Float32Array.from({ length: elements }, (_, i) => {
        let [rest, at] = [i, offset];
        for (let d = sizes.length - 1; d >= 0; d--) {
          at += (rest % sizes[d]!) * strides[d]!;
          rest = Math.floor(rest / sizes[d]!);
        }
        return stored[at]!;
      });
      return { type: kind[0], size: kind[1], count, offset, sizes, strides, bytes, values, isParameter };
    });
  type View = typeof view extends fc.Arbitrary<infer T> ? T : never;
  const scalar = fc.oneof(
    fc.constant(null),
    fc.boolean(),
    fc.integer(),
    fc.bigInt({ min: -(2n ** 70n), max: 2n ** 70n }),
    fc.string({ unit: "grapheme", maxLength: 60 }),
    fc.double({ noNaN: true }).map((value) => new Float(value)),
  );
  const key = fc.oneof(fc.stringMatching(/^[a-z_é猫]{1,6}$/), fc.integer({ min: 0, max: 300 }));
  interface Tree {
    kind: string;
    entries: [string | number, Tree | View | Value][];
  }
  const { tree } = fc.letrec<{ tree: Tree; node: unknown }>((tie) => ({
    tree: fc.record({
      kind: fc.constantFrom("dict", "ordered", "list", "tuple"),
      entries: fc.uniqueArray(fc.tuple(key, tie("node")), { selector: ([name]) => String(name), maxLength: 5 }),
    }) as fc.Arbitrary<Tree>,
    node: fc.oneof({ depthSize: "small" }, view, scalar, tie("tree")),
  }));

  const isView = (node: unknown): node is View => typeof node === "object" && node !== null && "sizes" in node;
  const isTree = (node: unknown): node is Tree => typeof node === "object" && node !== null && "entries" in node;

  /** The tree as a value to write, with its storages, the tensors and the scalars that must come back. */
  function build(root: Tree) {
    const storages = new Map<string, Uint8Array>();
    const sizes = new Map<string, number>();
    const tensors = new Map<string, View>();
    const scalars: [string[], unknown][] = [];
    const convert = (node: Tree | View | Value, path: string[]): Value => {
      if (isView(node)) {
        const storage = String(storages.size);
        storages.set(storage, node.bytes);
        sizes.set(storage, node.size);
        tensors.set(path.join("."), node);
        const held = new Storage(storage, node.type, node.count);
        return new Tensor(held, node.offset, node.sizes, node.strides, node.isParameter);
      }
      if (!isTree(node)) {
        const shown = node instanceof Float ? node.value : node;
        const small = typeof shown === "bigint" && Number.isSafeInteger(Number(shown)) ? Number(shown) : shown;
        scalars.push([path, small]);
        return node;
      }
      const isDict = node.kind === "dict" || node.kind === "ordered";
      const children = node.entries.map(
        ([name, child], i) => [name, convert(child, [...path, isDict ? String(name) : String(i)])] as const,
      );
      if (isDict) return node.kind === "ordered" ? new Ordered(new Map(children)) : new Map(children);
      return node.kind === "list"
        ? children.map(([, child]) => child)
        : new Tuple(...children.map(([, child]) => child));
    };
    return { value: convert(root, []), storages, sizes, tensors, scalars };
  }

  test("any tree of dictionaries, lists, scalars and strided views comes back, in every layout and protocol", async () => {
    await fc.assert(
      fc.asyncProperty(
        tree,
        fc.constantFrom(2, 3, 4, 5),
        fc.constantFrom("zip", "zip64", "legacy"),
        async (root, protocol, layout) => {
          const { value, storages, sizes, tensors, scalars } = build(root);
          const bytes =
            layout === "legacy"
              ? torchLegacy(value, storages, sizes, protocol)
              : torchZip(value, storages, protocol, layout === "zip64");
          const archive = await openBytes(bytes, []);
          expect(archive.format).toBe(layout === "legacy" ? "legacy" : "zip");
          expect(new Set(archive.names())).toEqual(new Set(tensors.keys()));
          for (const [name, { sizes: shape, values }] of tensors) {
            expect(archive.shape(name)).toEqual(shape);
            expect(await archive.load(name)).toEqual(values);
            const first = Math.floor(values.length / 3);
            const count = Math.floor(values.length / 2);
            expect(await archive.loadRange(name, first, count)).toEqual(values.slice(first, first + count));
          }
          for (const [path, scalarValue] of scalars) expect(archive.value(path)).toEqual(scalarValue);
        },
      ),
      { numRuns: process.env["LONGTAIL_LONG"] === "1" ? 2000 : 200 },
    );
  });

  test("opening reads the structure alone, a range its own bytes, and nothing stays open", async () => {
    const stored = new Map([["0", new Uint8Array(40_000)]]);
    const tensor = new Tensor(new Storage("0", "FloatStorage", 10_000), 0, [100, 100], [100, 1]);
    const files = new MemoryFiles({ "a.pt": torchZip(new Map([["t", tensor]]), stored) });
    const archive = await TorchArchive.open(files, "a.pt");
    expect(files.reads).toBeLessThan(1500);
    const before = files.reads;
    await archive.loadRange("t", 500, 25);
    expect(files.reads - before).toBeLessThan(100 + 64);
    await expect(archive.loadRange("t", 9_990, 11)).rejects.toThrow(RangeError);
    expect((await failure(archive.load("T"))).message).toContain('"t"');
    await archive.close();
    expect(files.openHandles).toBe(0);
  });

  test("loading every tensor reads each byte of the file at most once", async () => {
    const stored = new Map(["0", "1", "2"].map((key) => [key, new Uint8Array(3_000_000 + 4 * Number(key))] as const));
    const tensors = [...stored].map(([key, content]) => {
      const count = content.length / 4;
      return [`t${key}`, new Tensor(new Storage(key, "FloatStorage", count), 0, [count], [1])] as const;
    });
    const bytes = torchZip(new Map(tensors), stored);
    const files = new MemoryFiles({ "a.pt": bytes });
    const archive = await TorchArchive.open(files, "a.pt");
    for (const name of archive.names()) await archive.load(name);
    // The first bytes are looked at for signs of another format, and the end for the directory.
    expect(files.reads).toBeLessThan(bytes.length + 200);
  });

  test("types without a storage of their own are read over untyped storages", async () => {
    const untyped = new Storage("0", "UntypedStorage", 8);
    const value = new Map<string | number, Value>([
      ["u16", new Tensor(untyped, 1, [2], [1], false, "uint16")],
      ["e4m3", new Tensor(untyped, 0, [4], [2], true, "float8_e4m3fn")],
    ]);
    const stored = new Map([["0", Uint8Array.of(0x38, 1, 0x40, 2, 0x48, 3, 0xff, 0xff)]]);
    const archive = await openBytes(torchZip(value, stored, 4));
    expect([archive.dtype("u16"), archive.dtype("e4m3")]).toEqual(["U16", "F8_E4M3"]);
    expect([...(await archive.load("u16"))]).toEqual([0x0240, 0x0348]);
    expect([...(await archive.load("e4m3"))]).toEqual([1, 2, 4, Number.NaN]);
  });

  test("an archive of 12 GB is opened through its zip64 fields, and its last tensor costs its own bytes", async () => {
    const count = 1e9;
    const names = ["a", "b", "c"];
    const tensors = names.map(
      (key) => [key, new Tensor(new Storage(key, "FloatStorage", count), 0, [count], [1])] as const,
    );
    const parts = torchParts(
      pickleOf(new Map(tensors)),
      names.map((key) => [key, 4 * count] as const),
    );
    const { size, pieces } = layoutZip(parts);
    expect(size).toBeGreaterThan(12e9);
    const files = new MemoryFiles({ "a.pt": "" });
    let reads = 0;
    files.open = async () => ({
      size,
      read: async (at, length) => {
        reads += length;
        const bytes = new Uint8Array(length);
        for (const [from, piece] of pieces) {
          const [begin, end] = [Math.max(at, from), Math.min(at + length, from + piece.length)];
          if (begin < end) bytes.set(piece.subarray(begin - from, end - from), begin - at);
        }
        return bytes;
      },
      close: async () => {},
    });
    const archive = await TorchArchive.open(files, "a.pt");
    expect(archive.info("c")).toMatchObject({ bytes: 4e9, shape: [1e9] });
    expect([...(await archive.loadRange("c", count - 2, 2))]).toEqual([0, 0]);
    expect(reads).toBeLessThan(3000);
  });

  test("a pickle above the limits is refused before it is run", async () => {
    const marks = new Uint8Array(2 + 1_000_002).fill(0x28);
    marks.set([0x80, 2]);
    expect((await failure(openBytes(zipOfParts(torchParts(marks, []))))).code).toBe("E-FILE-104");
    const lists = new Uint8Array(2 + 1_000_002).fill(0x5d);
    lists.set([0x80, 2]);
    expect((await failure(openBytes(zipOfParts(torchParts(lists, []))))).code).toBe("E-FILE-104");
    const long = zipOfParts(torchParts(new Uint8Array(33 * 1024 * 1024), []));
    expect((await failure(openBytes(long))).code).toBe("E-FILE-104");
    expect((await failure(openBytes(zipOfParts(torchParts(pickleOf(1, 6), []))))).message).toContain("protocol 6");
  });
});
