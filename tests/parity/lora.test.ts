// LoRA against PEFT on diffusers' FluxTransformer2DModel: output, gradients of both factors, and the files of all styles.

import { basename, dirname } from "node:path";
import { expect, it } from "vitest";
import { readLora, writeLora } from "../../src/formats/lora.ts";
import { Safetensors } from "../../src/formats/safetensors.ts";
import { dump, suite, tolerance } from "../helpers/dumps.ts";
import { MemoryFiles, NodeFiles } from "../helpers/files.ts";
import { relativeError } from "../helpers/gpu.ts";
import { runLora } from "../helpers/lora.ts";

suite("lora", (found) => {
  const own = found.config["_oracle"]["f32_vs_f64"];
  const rank: number = found.config["r"];
  const alpha: number = found.config["lora_alpha"];
  const files = new NodeFiles();
  const modelSubject = basename(dirname(found.config["weights"]));
  const model = dump(modelSubject);

  it.skipIf(!model)("agrees on the output, the loss and the gradients of A and B", async () => {
    const { layers } = await readLora(files, found.path("diffusers.safetensors"));
    // Strength r / alpha makes the scale 1, which is what a file without metadata stands for.
    const run = await runLora(found, model!, layers, [rank / alpha, 0]);
    const io = await found.open("io");
    const bound = tolerance(2e-5, own.output.relative_l2);
    expect(relativeError(run.outputs.get(1)!, await io.load("output"))).toBeLessThan(bound);
    expect(relativeError(run.outputs.get(rank / alpha)!, await io.load("output.scale_1"))).toBeLessThan(bound);
    expect(relativeError(run.outputs.get(0)!, await io.load("output.base"))).toBeLessThan(bound);
    expect(relativeError([run.loss], await io.load("loss"))).toBeLessThan(bound);
    const gradientBound = tolerance(5e-5, own.grads.worst_relative_l2);
    expect(relativeError(run.inputGradient, await io.load("grad.hidden_states"))).toBeLessThan(gradientBound);
    const gradients = await found.open("grads");
    for (const name of gradients.names()) {
      const mine = run.gradients[name.replace(/^transformer\./, "")];
      expect(mine, name).toBeDefined();
      expect(relativeError(mine!, await gradients.load(name)), name).toBeLessThan(gradientBound);
    }
    expect(Object.keys(run.gradients).length).toBe([...gradients.names()].length);
    // Factors written to the device come back as they were.
    expect(run.layers).toEqual(new Map(layers));
  });

  it("reads the same factors from files of every style", async () => {
    const reference = await readLora(files, found.path("diffusers.safetensors"));
    expect(reference.style).toBe("diffusers");
    for (const layer of reference.layers.values()) expect(layer).toMatchObject({ rank, scale: alpha / rank });
    for (const [path, style] of [
      ["kohya.safetensors", "kohya"],
      ["peft/adapter_model.safetensors", "peft"],
      ["diffusers_no_metadata.safetensors", "diffusers"],
    ] as const) {
      const other = await readLora(files, found.path(path));
      expect(other.style).toBe(style);
      expect([...other.layers.keys()].sort(), path).toEqual([...reference.layers.keys()].sort());
      const scale = path.includes("no_metadata") ? 1 : alpha / rank;
      for (const [module, layer] of reference.layers) {
        const mine = other.layers.get(module)!;
        expect(mine.scale, `${path} ${module}`).toBeCloseTo(scale, 12);
        expect({ ...mine, scale: 0 }, `${path} ${module}`).toEqual({ ...layer, scale: 0 });
      }
    }
  });

  it("writes the file that diffusers writes: the same keys, shapes, values and metadata", async () => {
    const path = found.path("diffusers.safetensors");
    const memory = new MemoryFiles();
    await writeLora(memory, "mine", (await readLora(files, path)).layers, { targets: found.config["target_modules"] });
    const [mine, theirs] = [await Safetensors.open(memory, "mine"), await Safetensors.open(files, path)];
    expect(Object.fromEntries(mine.metadata)).toEqual(Object.fromEntries(theirs.metadata));
    expect(mine.names().sort()).toEqual(theirs.names().sort());
    for (const name of theirs.names()) {
      expect(mine.info(name).shape, name).toEqual(theirs.info(name).shape);
      expect(mine.info(name).dtype, name).toBe(theirs.info(name).dtype);
      expect(await mine.readF32(name), name).toEqual(await theirs.readF32(name));
    }
    await theirs.close();
  });
});
