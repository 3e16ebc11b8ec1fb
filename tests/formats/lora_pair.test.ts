// The two files that a training leaves: complete together or not at all, each readable by the programs that it is for, with
// facts and hashes that hold.

import { createHash } from "node:crypto";
import { describe, expect, it } from "vitest";
import { type LoraLayer, readLora, writeLoraPair } from "../../src/formats/lora.ts";
import { fileHashes } from "../../src/formats/model_spec.ts";
import { Safetensors } from "../../src/formats/safetensors.ts";
import { MemoryFiles } from "../helpers/files.ts";
import { FACTS } from "../helpers/lora_files.ts";
import { blocks, change, dora, failure, layer } from "../helpers/small_adapters.ts";

describe("the pair of files", () => {
  it("is written whole, with training facts and hashes that hold", async () => {
    const files = new MemoryFiles();
    const pair = await writeLoraPair(files, "out/first", blocks(), FACTS);
    expect(pair).toMatchObject({ diffusers: "out/first.safetensors", kohya: "out/first.kohya.safetensors" });
    expect([...files.content.keys()].sort()).toEqual([pair.kohya, pair.diffusers]);
    for (const path of [pair.diffusers, pair.kohya]) {
      const { metadata } = await readLora(files, path);
      const bytes = await files.readBytes(path);
      const start = 8 + Number(new DataView(bytes.slice(0, 8).buffer).getBigUint64(0, true));
      const hash = createHash("sha256").update(bytes.subarray(start)).digest("hex");
      expect(Object.fromEntries(metadata)).toMatchObject({
        ss_network_module: "networks.lora_flux",
        ss_network_dim: "Dynamic",
        ss_base_model_version: "flux1",
        ss_learning_rate: "1e-05",
        ss_resolution: "(64, 64)",
        ss_seed: "7",
        ss_tag_frequency: '{"icons":{"sari":2,"naïve «taco»":1}}',
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": "flux-1/lora",
        "modelspec.resolution": "64x64",
        "modelspec.trigger_phrase": "noto icon",
        "modelspec.hash_sha256": `0x${hash}`,
        sshs_model_hash: hash,
      });
      expect([...metadata.keys()].some((key) => key.includes("session"))).toBe(false);
    }
  });

  it("leaves an earlier pair alone where the second file cannot be written", async () => {
    const files = new MemoryFiles();
    await writeLoraPair(files, "first", blocks(), FACTS);
    const before = new Map(files.content);
    const write = files.writeAtomic.bind(files);
    let calls = 0;
    files.writeAtomic = async (path, chunks) => {
      if (++calls === 2) throw new Error("disk full");
      await write(path, chunks);
    };
    const other = new Map([...blocks()].slice(0, 3));
    expect((await failure(writeLoraPair(files, "first", other, FACTS))).message).toBe("disk full");
    expect(files.content).toEqual(before);
  });

  it("acts as trained wherever alpha is read, or is not", async () => {
    const files = new MemoryFiles();
    const scaleIn = async (layers: Map<string, LoraLayer>) => {
      await writeLoraPair(files, "p", layers, FACTS);
      const file = await Safetensors.open(files, "p.safetensors");
      const place = file.names().some((name) => name.endsWith(".alpha")) ? "tensors" : "metadata";
      expect(place === "tensors" && file.metadata.has("lora_adapter_metadata")).toBe(false);
      return { place, layers: (await readLora(files, "p.safetensors")).layers };
    };
    const named = (...layers: LoraLayer[]) =>
      new Map(layers.map((one, i) => [`transformer_blocks.${i}.ff.net.2`, one]));
    expect((await scaleIn(named(layer(2, 3, 3, 2)))).place).toBe("metadata");
    expect((await scaleIn(named(layer(2, 3, 3, 4), layer(1, 3, 3, 4)))).place).toBe("tensors");
    const mixed = named(layer(2, 3, 3, 4), layer(1, 3, 3, 1));
    const folded = await scaleIn(mixed);
    expect(folded.place).toBe("metadata");
    for (const [module, one] of folded.layers) {
      expect(one.scale).toBe(1);
      expect(change(one)).toEqual(change(mixed.get(module)!));
    }
  });

  it("has OneTrainer's keys in the second file where a DoRA does not fill fused matrices", async () => {
    const files = new MemoryFiles();
    const layers = new Map([["single_transformer_blocks.0.attn.to_q", dora(layer(1, 2, 2, 1))]]);
    const { notes } = await writeLoraPair(files, "d", layers, FACTS);
    expect(notes.join()).toContain("OneTrainer");
    expect((await readLora(files, "d.kohya.safetensors")).style).toBe("onetrainer");
  });

  it("hashes the 64 KiB at 1 MiB of the file as the old hash does", () => {
    const data = new Float32Array(400_000).fill(0.25);
    const tensors = [{ name: "a", dtype: "F32" as const, shape: [data.length], data }];
    const plain = fileHashes(tensors, { ss_seed: "1" });
    const titled = fileHashes(tensors, { ss_seed: "1", title: "not hashed" });
    expect(plain).toEqual(titled);
    const bytes = new Uint8Array(0x10000);
    new Float32Array(bytes.buffer).fill(0.25);
    expect(plain.legacy).toBe(createHash("sha256").update(bytes).digest("hex").slice(0, 8));
  });
});
