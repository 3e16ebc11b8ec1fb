// `longtail lora convert`, `merge`, `resize` and `diff` through the whole command line: what each writes and says, and its exit
// code.

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { productSvd } from "../../src/cli/lora/low_rank.ts";
import { type LoraLayer, readAdapter, readLora, writeLora, writeLycoris } from "../../src/formats/lora.ts";
import { Safetensors } from "../../src/formats/safetensors.ts";
import { writeSafetensors } from "../../src/formats/safetensors_write.ts";
import { FACTS, lokrLayers, loraLayers } from "../helpers/lora_files.ts";
import { config, files, json, run, SMALL, small } from "./lora_runner.ts";

let folder: string;
const at = (name: string) => join(folder, name);
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "longtail-lora-change-"));
  const layers = loraLayers(config, "cli", { rank: () => 4, alpha: () => 8, only: (module) => /attn/.test(module) });
  await writeLora(files, at("good.safetensors"), layers, { facts: FACTS, fields: "portable" });
  await writeLora(files, at("s.safetensors"), loraLayers(small, "s", { rank: () => 1, alpha: () => 1 }));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe("lora convert", () => {
  it("goes through every style and back without loss", async () => {
    const { layers } = await readLora(files, at("good.safetensors"));
    let from = at("good.safetensors");
    for (const style of ["kohya", "onetrainer", "peft", "diffusers"]) {
      const to = at(`${style}/adapter_model.safetensors`);
      const { code, value } = await json("convert", from, `--style=${style}`, `--output=${to}`);
      expect(code).toBe(0);
      expect(value.lost, style).toEqual([]);
      const back = await readLora(files, to);
      expect(back.style).toBe(style);
      expect(back.metadata.get("ss_seed")).toBe("7");
      expect(back.metadata.has("sshs_model_hash")).toBe(false);
      expect([...back.layers.keys()].sort()).toEqual([...layers.keys()].sort());
      for (const [module, { down, up, ...rest }] of layers) {
        const mine = back.layers.get(module)!;
        expect([mine.rank, mine.inputs, mine.outputs, mine.scale]).toEqual([
          rest.rank,
          rest.inputs,
          rest.outputs,
          rest.scale,
        ]);
        expect(down.every((value, i) => value === mine.down[i]) && up.every((value, i) => value === mine.up[i])).toBe(
          true,
        );
      }
      from = to;
    }
  });

  it("says what another number format loses, and refuses what does not fit into it", async () => {
    const { value } = await json("convert", at("good.safetensors"), "--dtype=bf16", `--output=${at("b.safetensors")}`);
    expect(value.to).toEqual({ style: "diffusers", dtype: "BF16" });
    expect(value.lost.join()).toMatch(/values were rounded to BF16: relative error .*e-3/);
    const again = await json("convert", at("b.safetensors"), "--dtype=f32", `--output=${at("f.safetensors")}`);
    expect(again.value.lost).toEqual([]);
    const layers = new Map([["x_embedder", big()]]);
    await writeLora(files, at("big.safetensors"), layers);
    const refused = await run("convert", at("big.safetensors"), "--dtype=f16", `--output=${at("h.safetensors")}`);
    expect(refused.errors).toContain("E-FILE-071");
    expect(refused.code).toBe(4);
    expect(await files.exists(at("h.safetensors"))).toBe(false);
  });

  const big = (): LoraLayer => ({
    rank: 1,
    inputs: 1,
    outputs: 1,
    down: Float32Array.of(1e6),
    up: Float32Array.of(1),
    scale: 1,
  });

  it("takes a LoKr to LyCORIS and PEFT alone", async () => {
    const layers = lokrLayers(
      small,
      "k",
      (module) => /to_[qk]$/.test(module),
      () => false,
    );
    await writeLycoris(files, at("k.safetensors"), layers);
    const to = at("k/adapter_model.safetensors");
    expect((await json("convert", at("k.safetensors"), "--style=peft", `--output=${to}`)).code).toBe(0);
    expect((await readAdapter(files, to)).lokr).toEqual(layers);
    const refused = await run("convert", at("k.safetensors"), "--style=kohya", `--output=${at("n.safetensors")}`);
    expect(refused.errors).toContain("E-FILE-075");
  });
});

describe("lora merge", () => {
  const dense = ({ rank, inputs, outputs, up, down, scale }: LoraLayer) => {
    const out = new Float64Array(outputs * inputs);
    for (let i = 0; i < outputs; i++)
      for (let j = 0; j < inputs; j++)
        for (let k = 0; k < rank; k++) out[i * inputs + j]! += scale * up[i * rank + k]! * down[k * inputs + j]!;
    return out;
  };

  it("adds several LoRAs at their strengths and leaves all else as it was", async () => {
    const one = loraLayers(small, "one", { rank: () => 2, alpha: () => 1, only: (module) => module === "proj_out" });
    const two = loraLayers(small, "two", { rank: () => 1, alpha: () => 2 });
    await writeLora(files, at("one.safetensors"), one);
    await writeLora(files, at("two.safetensors"), two);
    const to = at("merged.safetensors");
    const { code, value } = await json(
      "merge",
      at("one.safetensors"),
      at("two.safetensors"),
      "--strength=0.5,-2",
      `--base=${SMALL}`,
      `--output=${to}`,
    );
    expect(code).toBe(0);
    expect(value.layers).toEqual([1, two.size]);
    const [before, after] = [await Safetensors.open(files, SMALL), await Safetensors.open(files, to)];
    expect(after.names().sort()).toEqual(before.names().sort());
    for (const name of before.names()) {
      const [was, is] = [await before.readF32(name), await after.readF32(name)];
      const module = name.replace(/\.weight$/, "");
      const second = name.endsWith(".weight") ? two.get(module) : undefined;
      if (!second) {
        expect(is, name).toEqual(was);
        continue;
      }
      const [a, b] = [one.get(module) ? dense(one.get(module)!) : null, dense(second)];
      is.forEach((value, i) => {
        const expected = was[i]! + 0.5 * (a?.[i] ?? 0) - 2 * b[i]!;
        if (Math.abs(value - expected) > 1e-6 * (1 + Math.abs(expected))) expect(value, `${name} ${i}`).toBe(expected);
      });
    }
    await before.close();
    await after.close();
  });

  it("finds the rows of fused matrices in a base of Black Forest Labs' layout, and keeps its number format", async () => {
    const width = 2;
    const layers = loraLayers({ ...small, width, singleBlocks: 1, doubleBlocks: 0 }, "fused", {
      rank: () => 1,
      alpha: () => 1,
      only: (module) => /blocks\.0\.(attn\.to_k|proj_mlp)$|norm_out/.test(module),
    });
    await writeLora(files, at("fused.safetensors"), layers);
    const shapes: Record<string, number[]> = {
      "model.diffusion_model.img_in.weight": [width, small.inChannels],
      "model.diffusion_model.txt_in.weight": [width, small.jointWidth],
      "model.diffusion_model.vector_in.in_layer.weight": [width, small.pooledWidth],
      "model.diffusion_model.single_blocks.0.linear1.weight": [7 * width, width],
      "model.diffusion_model.single_blocks.0.norm.query_norm.scale": [1],
      "model.diffusion_model.final_layer.adaLN_modulation.1.weight": [2 * width, width],
    };
    const tensors = Object.entries(shapes).map(([name, shape]) => ({
      name,
      shape,
      dtype: "BF16" as const,
      data: new Float32Array(shape.reduce((a, b) => a * b, 1)),
    }));
    await writeSafetensors(files, at("bfl.safetensors"), tensors);
    const to = at("bfl-merged.safetensors");
    const { code, errors } = await run(
      "merge",
      at("fused.safetensors"),
      `--base=${at("bfl.safetensors")}`,
      `--output=${to}`,
    );
    expect(errors).toBe("");
    expect(code).toBe(0);
    const after = await Safetensors.open(files, to);
    const linear = "model.diffusion_model.single_blocks.0.linear1.weight";
    expect(after.info(linear).dtype).toBe("BF16");
    const values = await after.readF32(linear);
    expect([...values.subarray(0, 4)]).toEqual([0, 0, 0, 0]);
    expect([...values.subarray(8, 12)]).toEqual([0, 0, 0, 0]);
    const near = (mine: Float32Array, wanted: ArrayLike<number>) =>
      mine.forEach((value, i) =>
        expect(Math.abs(value - wanted[i]!)).toBeLessThan(0.004 * Math.abs(wanted[i]!) + 1e-9),
      );
    near(values.subarray(4, 8), dense(layers.get("single_transformer_blocks.0.attn.to_k")!));
    near(values.subarray(12), dense(layers.get("single_transformer_blocks.0.proj_mlp")!));
    const final = await after.readF32("model.diffusion_model.final_layer.adaLN_modulation.1.weight");
    const norm = dense(layers.get("norm_out.linear")!);
    near(final, [...norm.subarray(4), ...norm.subarray(0, 4)]);
    await after.close();
  });

  it("refuses an adapter of another model, and a base without weights", async () => {
    const to = `--output=${at("never.safetensors")}`;
    const other = await run("merge", at("good.safetensors"), `--base=${SMALL}`, to);
    expect(other.errors).toContain("E-FILE-072");
    const nameOnly = await run("merge", at("good.safetensors"), "--base=flux-dev", to);
    expect(nameOnly.errors).toContain("E-FILE-074");
    expect(await files.exists(at("never.safetensors"))).toBe(false);
  });
});

describe("lora resize and diff", () => {
  it("cut to a rank or a share of energy, and report what is kept", async () => {
    const to = at("two-ranks.safetensors");
    const { value } = await json("resize", at("good.safetensors"), "--rank=2", `--output=${to}`);
    const [before, after] = [await readLora(files, at("good.safetensors")), await readLora(files, to)];
    for (const { module, kept } of value.layers) {
      const [was, is] = [before.layers.get(module)!, after.layers.get(module)!];
      expect(is).toMatchObject({ rank: 2, scale: 2 });
      const squares = [...productSvd(was).values].map((one) => one * one);
      const share = (squares[0]! + squares[1]!) / squares.reduce((a, b) => a + b, 0);
      expect(kept).toBeCloseTo(share, 10);
    }
    // What was cut off is all that is missing.
    const difference = (await json("diff", at("good.safetensors"), to)).value.total;
    expect((difference.difference / difference.norms[0]) ** 2).toBeCloseTo(1 - value.kept, 5);
    const all = await json("resize", at("good.safetensors"), "--energy=1", `--output=${to}`);
    expect(all.value.kept).toBeCloseTo(1, 9);
    const some = await json("resize", at("good.safetensors"), "--energy=0.6", `--output=${to}`);
    for (const { kept, after: rank } of some.value.layers) {
      expect(kept).toBeGreaterThanOrEqual(0.6);
      expect(rank).toBeLessThan(4);
    }
  });

  it("compare two files layer by layer, also of different kinds", async () => {
    const same = (await json("diff", at("good.safetensors"), at("good.safetensors"))).value;
    expect(same.total.cosine).toBeCloseTo(1, 12);
    expect(same.total.difference).toBeLessThan(1e-6 * same.total.norms[0]);
    const layers = lokrLayers(
      small,
      "d",
      (module) => module === "proj_out",
      () => false,
    );
    await writeLycoris(files, at("d1.safetensors"), layers);
    await writeLora(
      files,
      at("d2.safetensors"),
      loraLayers(small, "d", { rank: () => 2, alpha: () => 1, only: (module) => /proj_out$/.test(module) }),
    );
    const { value, code } = await json("diff", at("d1.safetensors"), at("d2.safetensors"));
    expect(code).toBe(0);
    const first = value.layers.find((layer: { module: string }) => layer.module === "proj_out");
    expect(Math.abs(first.cosine)).toBeLessThan(1);
    const only = value.layers.find((layer: { module: string }) => layer.module !== "proj_out");
    expect(only).toMatchObject({ cosine: null, norms: [0, only.difference] });
    expect((await run("diff", at("good.safetensors"), at("s.safetensors"))).errors).toContain("E-FILE-073");
  });
});
