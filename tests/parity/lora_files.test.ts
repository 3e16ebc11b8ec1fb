// Adapter files of our writers, as diffusers and PEFT load them: the dump holds the outputs of the library's model with each
// file, and the hashes of the files, which the writers must still make today.

import { createHash } from "node:crypto";
import { join } from "node:path";
import { expect, it } from "vitest";
import { findBase } from "../../src/cli/lora/base.ts";
import { mergeLoras } from "../../src/cli/lora/merge.ts";
import { type LokrLayer, type LoraLayer, readAdapter } from "../../src/formats/lora.ts";
import { Safetensors } from "../../src/formats/safetensors.ts";
import { fluxConfig } from "../../src/models/flux/config.ts";
import { type Dump, dump, openSource, suite } from "../helpers/dumps.ts";
import { MemoryFiles, NodeFiles } from "../helpers/files.ts";
import { relativeError } from "../helpers/gpu.ts";
import { runLora } from "../helpers/lora.ts";
import { wideLayers, writeCases } from "../helpers/lora_files.ts";

suite("lora_files", (found) => {
  const model = dump("flux1_small")!;
  const written = (async () => {
    const files = new MemoryFiles();
    await writeCases(files, "x", fluxConfig(model.config, model.folder));
    return files;
  })();
  const cases: Record<string, { path: string }> = found.config["cases"];

  it("writes today the bytes that were loaded then", async () => {
    const files = await written;
    const hashes: Record<string, { sha256: string }> = found.config["files"];
    for (const [path, { sha256 }] of Object.entries(hashes)) {
      const bytes = await files.readBytes(`x/${path}`);
      expect(createHash("sha256").update(bytes).digest("hex"), path).toBe(sha256);
    }
  });

  it.each(Object.keys(cases))("agrees with the library on the output with the file of case %s", async (name) => {
    const file = await readAdapter(await written, `x/${cases[name]!.path}`);
    const layers = new Map<string, LoraLayer | LokrLayer>([...file.layers, ...file.lokr]);
    const run = await runLora(model, model, layers, []);
    const io = await found.open("io");
    expect(relativeError(run.outputs.get(1)!, await io.load(`output.${name}`))).toBeLessThan(2e-5);
  });

  it.each(["pair", "dora", "lokr"])("agrees as well after merging case %s into the weights", async (name) => {
    const files = await written;
    const base = await findBase(new NodeFiles(), join(model.folder, "weights.safetensors"));
    const both = new NodeFiles();
    const disk = { exists: both.exists.bind(both), open: both.open.bind(both) };
    // The base lies on the disk, the adapter and the result in memory.
    const mixed = Object.assign(Object.create(files), {
      exists: async (path: string) => (await files.exists(path)) || disk.exists(path),
      open: (path: string) => (files.content.has(path) ? files.open(path) : disk.open(path)),
    }) as MemoryFiles;
    await mergeLoras(mixed, base, [{ path: `x/${cases[name]!.path}`, strength: 1 }], "merged.safetensors");
    const merged = await Safetensors.open(files, "merged.safetensors");
    const open = async (stem: string) =>
      stem === "weights"
        ? Object.assign(merged, {
            name: "merged",
            shape: (key: string) => merged.info(key).shape,
            load: (key: string) => merged.readF32(key),
          })
        : openSource(model.path(`${stem}.safetensors`));
    const own = { ...model, open } as Dump;
    const run = await runLora(model, own, new Map(), []);
    const io = await found.open("io");
    expect(relativeError(run.outputs.get(1)!, await io.load(`output.${name}`))).toBeLessThan(2e-5);
  });

  it("reads its kohya file of width 3072 as the layers it was made from", async () => {
    const { layers, style } = await readAdapter(await written, "x/wide.kohya.safetensors");
    expect(style).toBe("kohya");
    const made = wideLayers();
    expect([...layers.keys()].sort()).toEqual([...made.keys()].sort());
    for (const [module, layer] of made) {
      const { down, up, scale, ...rest } = layers.get(module)!;
      expect(rest).toEqual({ rank: layer.rank, inputs: layer.inputs, outputs: layer.outputs });
      expect(scale).toBeCloseTo(layer.scale, 6);
      expect(down.every((value, i) => value === layer.down[i])).toBe(true);
      expect(up.every((value, i) => value === layer.up[i])).toBe(true);
    }
    expect(found.config["_oracle"]["kohya at width 3072"]["kohya against diffusers"].relative_l2).toBeLessThan(1e-5);
  });
});
