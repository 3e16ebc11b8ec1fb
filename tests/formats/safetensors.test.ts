import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { LongtailError } from "../../src/base/errors.ts";
import { Safetensors, type TensorInfo } from "../../src/formats/safetensors.ts";
import { type TensorToWrite, writeSafetensors } from "../../src/formats/safetensors_write.ts";
import { FIXTURES, MemoryFiles, MODELS, NodeFiles, OWN_FIXTURES } from "../helpers/files.ts";

const disk = new NodeFiles();
const folder = readdirSync(FIXTURES).includes("safetensors_files") ? FIXTURES : OWN_FIXTURES;
interface Entry {
  what: string;
  reference: string;
  metadata: Record<string, string> | null;
  tensors: Record<string, { dtype: string; shape: number[]; hex: string }>;
}
const manifest: Record<"valid" | "hostile", Record<string, Entry>> = JSON.parse(
  readFileSync(join(folder, "safetensors_files/manifest.json"), "utf8"),
);

async function failure(work: Promise<unknown>): Promise<LongtailError> {
  const error = await work.then(
    () => null,
    (reason) => reason,
  );
  expect(error).toBeInstanceOf(LongtailError);
  return error as LongtailError;
}

describe("safetensors files of the reference library", () => {
  for (const [name, entry] of Object.entries(manifest.valid)) {
    test(`${name} (${entry.what}) is read with its types, shapes and bytes`, async () => {
      const file = await Safetensors.open(disk, join(folder, "safetensors_files/valid", name));
      expect(new Set(file.names())).toEqual(new Set(Object.keys(entry.tensors)));
      expect(Object.fromEntries(file.metadata)).toEqual(entry.metadata ?? {});
      for (const [tensor, { dtype, shape, hex }] of Object.entries(entry.tensors)) {
        expect(file.info(tensor)).toMatchObject({ dtype, shape });
        expect(Buffer.from(await file.readBytes(tensor)).toString("hex")).toBe(hex);
        const elements = shape.reduce((a, b) => a * b, 1);
        expect((await file.readF32(tensor)).length).toBe(elements);
      }
      await file.close();
    });
  }

  for (const [name, entry] of Object.entries(manifest.hostile)) {
    const accepted = entry.reference.startsWith("accept");
    test(`${name} (${entry.what}) is ${accepted ? "accepted" : "refused"}`, async () => {
      const path = join(folder, "safetensors_files/hostile", name);
      if (accepted) {
        const file = await Safetensors.open(disk, path);
        for (const tensor of file.names()) await file.readF32(tensor);
        await file.close();
        return;
      }
      const error = await failure(Safetensors.open(disk, path));
      expect(error.code).toMatch(/^E-FILE-01[01]$/);
      expect(error.exitCode).toBe(4);
      expect(error.message).toContain(path);
    });
  }

  test("a header that claims 100 MB is refused after its first bytes", async () => {
    const files = new MemoryFiles({
      "x.safetensors": new Uint8Array(
        readFileSync(join(folder, "safetensors_files/hostile/header_length_100MB.safetensors")),
      ),
    });
    await failure(Safetensors.open(files, "x.safetensors"));
    expect(files.reads).toBeLessThan(100);
    expect(files.openHandles).toBe(0);
  });
});

const random = (length: number) => Float32Array.from({ length }, (_, i) => Math.fround(Math.sin(i * 12.9898 + 1) * 3));
const sample: TensorToWrite[] = [
  { name: "0", dtype: "F16", shape: [3], data: Float32Array.of(1, -2.5, 65504) },
  { name: "weight", dtype: "F32", shape: [2, 3], data: random(6) },
  { name: "__proto__", dtype: "BF16", shape: [], data: () => Float32Array.of(0.5) },
  { name: "ids", dtype: "I64", shape: [2], data: async () => BigInt64Array.of(-7n, 49407n) },
  { name: "mask", dtype: "BOOL", shape: [5], data: Uint8Array.of(1, 0, 1, 1, 0) },
  { name: "empty", dtype: "F32", shape: [0, 4], data: new Float32Array(0) },
];

describe("the safetensors writer", () => {
  test("what it writes is read back with types, shapes, values and metadata", async () => {
    const files = new MemoryFiles();
    expect(
      await writeSafetensors(files, "out/a.safetensors", sample, { metadata: { format: "pt", note: "é" } }),
    ).toEqual(["out/a.safetensors"]);
    const file = await Safetensors.open(files, "out/a.safetensors");
    expect(Object.fromEntries(file.metadata)).toEqual({ format: "pt", note: "é" });
    expect([...(await file.readF32("0"))]).toEqual([1, -2.5, 65504]);
    expect([...(await file.readF16("0"))]).toEqual([0x3c00, 0xc100, 0x7bff]);
    expect([...(await file.readF32("weight"))]).toEqual([...random(6)]);
    expect([...(await file.readF32("weight", 2, 3))]).toEqual([...random(6).slice(2, 5)]);
    expect([...(await file.readF32("__proto__"))]).toEqual([0.5]);
    expect([...(await file.readI32("ids"))]).toEqual([-7, 49407]);
    expect([...(await file.readF32("ids"))]).toEqual([-7, 49407]);
    expect([...(await file.readI32("mask"))]).toEqual([1, 0, 1, 1, 0]);
    expect(file.info("empty").shape).toEqual([0, 4]);
  });

  test("the data begins at a multiple of 8 and lies by descending alignment, then by name", async () => {
    const files = new MemoryFiles();
    await writeSafetensors(files, "a.safetensors", sample);
    const file = await Safetensors.open(files, "a.safetensors");
    const order = [...file.tensors.values()].sort((a, b) => a.begin - b.begin || a.end - b.end);
    expect(order.map((tensor) => tensor.name)).toEqual(["ids", "empty", "weight", "0", "__proto__", "mask"]);
    expect(order[0]!.begin % 8).toBe(0);
    for (const tensor of order)
      expect(tensor.begin % { I64: 8, F32: 4, F16: 2, BF16: 2, BOOL: 1 }[tensor.dtype as string]!).toBe(0);
  });

  test("shards with an index are read as one file, by index or by the name without it", async () => {
    const files = new MemoryFiles();
    const written = await writeSafetensors(files, "m/model.safetensors", sample, {
      shardBytes: 24,
      metadata: { format: "pt" },
    });
    expect(written.at(-1)).toBe("m/model.safetensors.index.json");
    expect(written[0]).toBe("m/model-00001-of-00003.safetensors");
    for (const path of ["m/model.safetensors", "m/model.safetensors.index.json"]) {
      const file = await Safetensors.open(files, path);
      expect(new Set(file.names())).toEqual(new Set(sample.map((tensor) => tensor.name)));
      expect([...(await file.readF32("weight"))]).toEqual([...random(6)]);
      await file.close();
      expect(files.openHandles).toBe(0);
    }
  });

  test("borrowed memory is given back after its bytes are written, and where they do not fit", async () => {
    const files = new MemoryFiles();
    const log: string[] = [];
    const borrowed = (name: string, values: Float32Array): TensorToWrite => ({
      name,
      dtype: "F32",
      shape: [2],
      data: () => {
        log.push(`take ${name}`);
        return { view: values, release: () => log.push(`give ${name}`) };
      },
    });
    await writeSafetensors(files, "a.safetensors", [
      borrowed("x", Float32Array.of(1, 2)),
      borrowed("y", Float32Array.of(3, 4)),
    ]);
    expect(log).toEqual(["take x", "give x", "take y", "give y"]);
    const file = await Safetensors.open(files, "a.safetensors");
    expect([...(await file.readF32("y"))]).toEqual([3, 4]);
    await expect(writeSafetensors(files, "b.safetensors", [borrowed("z", Float32Array.of(1))])).rejects.toThrow(
      "needs 8",
    );
    expect(log.slice(4)).toEqual(["take z", "give z"]);
  });

  test("a failure in the middle of the shards leaves none behind", async () => {
    const files = new MemoryFiles();
    const broken = sample.map((tensor) => (tensor.name === "mask" ? { ...tensor, shape: [6] } : tensor));
    const error = await failure(writeSafetensors(files, "model.safetensors", broken, { shardBytes: 24 }));
    expect(error.code).toBe("E-FILE-016");
    expect(error.message).toContain('"mask"');
    expect(files.content.size).toBe(0);
  });

  test("a name that comes twice and the reserved name are refused before anything is written", async () => {
    const files = new MemoryFiles();
    const twice = [sample[0]!, sample[0]!];
    expect((await failure(writeSafetensors(files, "a.safetensors", twice))).code).toBe("E-FILE-016");
    expect(
      (await failure(writeSafetensors(files, "a.safetensors", [{ ...sample[0]!, name: "__metadata__" }]))).code,
    ).toBe("E-FILE-016");
    expect(files.content.size).toBe(0);
  });
});

describe("an open checkpoint", () => {
  async function small() {
    const files = new MemoryFiles();
    await writeSafetensors(files, "a.safetensors", [
      { name: "x_embedder.weight", dtype: "F32", shape: [256, 64], data: random(256 * 64) },
    ]);
    return files;
  }

  test("opening reads the header alone and a range reads only its bytes", async () => {
    const files = await small();
    const file = await Safetensors.open(files, "a.safetensors");
    expect(files.reads).toBeLessThan(200);
    const before = files.reads;
    await file.readF32("x_embedder.weight", 64, 128);
    expect(files.reads - before).toBe(512);
    await expect(file.readF32("x_embedder.weight", 256 * 64, 1)).rejects.toThrow(RangeError);
  });

  test("a missing tensor is named together with the nearest name", async () => {
    const file = await Safetensors.open(await small(), "a.safetensors");
    const error = await failure(file.readF32("x_embeder.weight"));
    expect(error.code).toBe("E-FILE-012");
    expect(error.message).toContain("a.safetensors");
    expect(error.message).toContain('"x_embedder.weight"');
  });

  test("another shape is an error with both shapes, the file and the tensor", async () => {
    const file = await Safetensors.open(await small(), "a.safetensors");
    expect(file.expectShape("x_embedder.weight", [256, 64]).dtype).toBe("F32");
    let error: unknown;
    try {
      file.expectShape("x_embedder.weight", [64, 256]);
    } catch (reason) {
      error = reason;
    }
    expect((error as LongtailError).code).toBe("E-FILE-013");
    expect((error as LongtailError).message).toMatch(/a\.safetensors.*"x_embedder\.weight".*\[256, 64\].*\[64, 256\]/);
  });

  test("a truncated file is called truncated, a missing one missing", async () => {
    const files = await small();
    files.content.set("a.safetensors", files.content.get("a.safetensors")!.slice(0, -1000));
    expect((await failure(Safetensors.open(files, "a.safetensors"))).code).toBe("E-FILE-011");
    expect((await failure(Safetensors.open(files, "b.safetensors"))).code).toBe("E-FILE-001");
  });

  test("an index that names a missing shard, a path elsewhere or a tensor in the wrong shard is refused", async () => {
    const files = await small();
    const index = (map: unknown) =>
      files.content.set("m.safetensors.index.json", new TextEncoder().encode(JSON.stringify(map)));
    const open = () => failure(Safetensors.open(files, "m.safetensors"));
    index({ weight_map: { "x_embedder.weight": "gone.safetensors" } });
    expect(await open()).toMatchObject({ code: "E-FILE-001", parts: { where: "gone.safetensors" } });
    index({ weight_map: { "x_embedder.weight": "../a.safetensors" } });
    expect((await open()).code).toBe("E-FILE-015");
    index({ weight_map: { other: "a.safetensors" } });
    expect((await open()).code).toBe("E-FILE-015");
    index({});
    expect((await open()).code).toBe("E-FILE-015");
    expect(files.openHandles).toBe(0);
  });

  test("a type without numbers is refused by name when it is read, not when the file is opened", async () => {
    const files = new MemoryFiles();
    await writeSafetensors(files, "a.safetensors", [
      { name: "scale", dtype: "F8_E8M0", shape: [2], data: Uint8Array.of(1, 2) },
    ]);
    const file = await Safetensors.open(files, "a.safetensors");
    expect([...(await file.readBytes("scale"))]).toEqual([1, 2]);
    expect((await failure(file.readF32("scale"))).code).toBe("E-FILE-014");
  });

  test("the shipped models and the sharded dump open and hold finite numbers", async () => {
    const sharded = readdirSync(FIXTURES).includes("flux1") ? FIXTURES : OWN_FIXTURES;
    for (const path of [
      join(MODELS, "taef2/taef2.safetensors"),
      join(MODELS, "embedded/transformer/diffusion_pytorch_model.safetensors"),
      join(sharded, "flux1/grads.safetensors"),
    ]) {
      const file = await Safetensors.open(disk, path);
      const tensors: TensorInfo[] = [...file.tensors.values()];
      expect(tensors.length).toBeGreaterThan(50);
      for (const tensor of tensors.slice(0, 5))
        expect((await file.readF32(tensor.name)).every(Number.isFinite)).toBe(true);
      await file.close();
    }
  });
});
