// One tensor as torch.save writes it: our own reader gives back what was written, in all three types, and the layout is that
// of torch (aligned storage, sizes in the directory). tests/oracle/load_prompt_files.py reads the same files with torch.

import { describe, expect, it } from "vitest";
import { bf16ToF32, f16ToF32, f32ToBf16, f32ToF16 } from "../../src/base/halves.ts";
import { TorchArchive } from "../../src/formats/torch_archive.ts";
import { type TorchWriteType, torchTensorFile } from "../../src/formats/torch_write.ts";
import { ZipArchive } from "../../src/formats/zip.ts";
import { MemoryFiles } from "../helpers/files.ts";
import { noise } from "../helpers/gpu.ts";

const rounded: Record<TorchWriteType, (values: Float32Array) => Float32Array> = {
  F32: (values) => values,
  F16: (values) => f16ToF32(f32ToF16(values)),
  BF16: (values) => bf16ToF32(f32ToBf16(values)),
};

describe("a tensor file of torch", () => {
  it.each([
    ["F32", [2, 3, 4]],
    ["F16", [7]],
    ["BF16", [300, 5]],
    ["F32", [1]],
  ] as const)("holds %s %j", async (dtype, shape) => {
    const values = Float32Array.from(
      noise(
        shape.reduce((a: number, b) => a * b, 1),
        5,
      ),
    );
    const bytes = torchTensorFile(values, shape, dtype);
    const files = new MemoryFiles({ "a.pt": bytes });
    const archive = await TorchArchive.open(files, "a.pt");
    expect(archive.names()).toEqual(["tensor"]);
    expect(archive.info("tensor")).toMatchObject({ dtype, shape, contiguous: true });
    expect(await archive.load("tensor")).toEqual(rounded[dtype](values));
    await archive.close();

    const zip = await ZipArchive.open(files, "a.pt");
    expect(zip.entries.map(({ name }) => name).sort()).toEqual([
      "archive/byteorder",
      "archive/data.pkl",
      "archive/data/0",
      "archive/version",
    ]);
    await zip.close();
    const data = new Uint8Array(
      (dtype === "F32" ? values : dtype === "F16" ? f32ToF16(values) : f32ToBf16(values)).buffer,
    );
    const at = Array.from({ length: bytes.length / 64 }, (_, i) => 64 * i).find((begin) =>
      data.every((byte, i) => bytes[begin + i] === byte),
    );
    expect(at, "the storage begins at a multiple of 64").toBeDefined();
  });

  it("refuses a shape of another size", () => {
    expect(() => torchTensorFile(new Float32Array(3), [2], "F32")).toThrow(RangeError);
  });
});
