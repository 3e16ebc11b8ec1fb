// Reference dumps made by the public PyTorch libraries (tests/oracle). LONGTAIL_FIXTURES names another folder of the same
// layout, one subfolder a subject; sizes and options always come from the dump's own config.json. A subject that is not
// there is skipped by name.

import { existsSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { describe, it } from "vitest";
import type { TensorSource } from "../../src/base/tensor_source.ts";
import { Safetensors } from "../../src/formats/safetensors.ts";
import { FIXTURES, NodeFiles } from "./files.ts";

export interface Dump {
  folder: string;
  config: Record<string, any>;
  /** Opens one of the dump's safetensors files (or sharded sets) by its stem. */
  open(stem: string): Promise<Safetensors & TensorSource>;
  path(...parts: string[]): string;
}

export function dump(subject: string): Dump | null {
  const folder = join(FIXTURES, subject);
  if (!existsSync(join(folder, "config.json"))) return null;
  return {
    folder,
    config: JSON.parse(readFileSync(join(folder, "config.json"), "utf8")),
    open: (stem) => openSource(join(folder, `${stem}.safetensors`)),
    path: (...parts) => join(folder, ...parts),
  };
}

/** A safetensors file as a source of f32 tensors. */
export async function openSource(path: string): Promise<Safetensors & TensorSource> {
  const file = await Safetensors.open(new NodeFiles(), path);
  return Object.assign(file, {
    name: path,
    shape: (key: string) => file.info(key).shape,
    load: (key: string) => file.readF32(key),
  }) as unknown as Safetensors & TensorSource;
}

/** The config.json beside a weights file. */
export function readConfig(weights: string): Record<string, any> {
  return JSON.parse(readFileSync(join(dirname(weights), "config.json"), "utf8"));
}

/** A suite over one subject; skipped by name where the dump is absent. */
export function suite(subject: string, body: (dump: Dump) => void): void {
  const found = dump(subject);
  describe(`parity with the ${subject} dump`, () => {
    if (found) body(found);
    else it.skip(`${subject} is not in ${FIXTURES}`, () => {});
  });
}

/** The larger of the table's tolerance and ten times the dump's own float32 error. */
export function tolerance(table: number, own: number | undefined): number {
  return Math.max(table, 10 * (own ?? 0));
}
