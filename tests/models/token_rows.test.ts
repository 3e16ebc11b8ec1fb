// Rows of an embedding table that stays in its file: the right values, little read, nothing left open.

import { expect, it } from "vitest";
import { Safetensors } from "../../src/formats/safetensors.ts";
import { writeSafetensors } from "../../src/formats/safetensors_write.ts";
import { FileRows } from "../../src/models/token_rows.ts";
import { MemoryFiles } from "../helpers/files.ts";

const [ROWS, WIDTH] = [1000, 8];

async function table(): Promise<{ files: MemoryFiles; rows: FileRows; header: number }> {
  const files = new MemoryFiles();
  const data = Float32Array.from({ length: ROWS * WIDTH }, (_, i) => i);
  await writeSafetensors(files, "a.safetensors", [{ name: "shared.weight", dtype: "F32", shape: [ROWS, WIDTH], data }]);
  await (await Safetensors.open(files, "a.safetensors")).close();
  const header = files.reads;
  files.reads = 0;
  return { files, rows: new FileRows(files, "a.safetensors", "shared.weight", [ROWS, WIDTH]), header };
}

const row = (n: number) => Array.from({ length: WIDTH }, (_, i) => n * WIDTH + i);

it("gives rows in the order of the ids, repeated ones again, and zeros behind the table", async () => {
  const { rows } = await table();
  const values = await rows.gather(Uint32Array.of(999, 0, 5, 0, ROWS, 4));
  expect([...values]).toEqual([...row(999), ...row(0), ...row(5), ...row(0), ...Array(WIDTH).fill(0), ...row(4)]);
});

it("reads each distinct row once and remembers it", async () => {
  const { files, rows, header } = await table();
  await rows.gather(Uint32Array.of(7, 8, 7, 300, 8));
  expect(files.reads - header).toBe(3 * WIDTH * 4);
  await rows.gather(Uint32Array.of(8, 300));
  expect(files.reads - header).toBe(3 * WIDTH * 4);
  expect(files.openHandles).toBe(0);
});
