// LoKr files in the names of LyCORIS and PEFT, read and written, and fused matrices taken apart.

import { describe, expect, it } from "vitest";
import { factorisation } from "../../src/formats/lokr.ts";
import { type LokrLayer, readAdapter, readLora, writeLycoris, writePeftLokr } from "../../src/formats/lora.ts";
import { MemoryFiles } from "../helpers/files.ts";
import { count, failure, fileOf, type Tensors } from "../helpers/small_adapters.ts";

describe("a LoKr", () => {
  const kronecker = (): LokrLayer => ({
    inputs: 6,
    outputs: 12,
    first: { rows: 3, columns: 2, whole: count(6) },
    second: { rows: 4, columns: 3, rank: 2, left: count(8, 3), right: count(6, 2) },
    scale: 1.5,
  });
  const whole = (): LokrLayer => ({
    inputs: 6,
    outputs: 12,
    first: { rows: 3, columns: 2, whole: count(6) },
    second: { rows: 4, columns: 3, whole: count(12) },
    scale: 1,
  });
  const layers = () =>
    new Map([
      ["transformer_blocks.0.attn.to_q", kronecker()],
      ["transformer_blocks.0.attn.to_k", whole()],
    ]);

  it("comes back the same with LyCORIS' names and from PEFT's form", async () => {
    const files = new MemoryFiles();
    await writeLycoris(files, "l", layers());
    const back = await readAdapter(files, "l");
    expect(back).toMatchObject({ kind: "lokr", style: "lycoris" });
    expect(back.lokr).toEqual(layers());
    expect((await failure(readLora(files, "l"))).code).toBe("E-FILE-018");

    const square = new Map([...layers()].map(([module, one]) => [module, { ...one, scale: 0.5 }]));
    // 12 = 3 · 4 and 6 = 2 · 3 are what PEFT finds nearest to a square.
    await writePeftLokr(files, "p/adapter_model.safetensors", square);
    const peft = await readAdapter(files, "p/adapter_model.safetensors");
    expect(peft.style).toBe("peft");
    expect(new Map([...peft.lokr].sort())).toEqual(new Map([...square].sort()));
  });

  it("carries a scale in its first matrix where LyCORIS would know none", async () => {
    const files = new MemoryFiles();
    await writeLycoris(files, "l", new Map([["proj_out", { ...whole(), scale: 2 }]]));
    const back = (await readAdapter(files, "l")).lokr.get("proj_out")!;
    expect(back.scale).toBe(1);
    expect((back.first as { whole: Float32Array }).whole).toEqual(count(6).map((value) => 2 * value));
  });

  it("of a fused matrix is taken apart where the first matrix shares out, else refused", async () => {
    const stem = "lora_unet_double_blocks_0_img_attn_qkv";
    const tensors: Tensors = {
      [`${stem}.lokr_w1`]: [[3, 2], count(6)],
      [`${stem}.lokr_w2`]: [[2, 1], count(2)],
    };
    const { lokr } = await readAdapter(await fileOf(tensors), "x");
    expect([...lokr.keys()].map((name) => name.slice(-4))).toEqual(["to_q", "to_k", "to_v"]);
    expect(lokr.get("transformer_blocks.0.attn.to_k")!.first).toEqual({
      rows: 1,
      columns: 2,
      whole: Float32Array.of(3, 4),
    });
    tensors[`${stem}.lokr_w1`] = [[2, 2], count(4)];
    tensors[`${stem}.lokr_w2`] = [[3, 1], count(3)];
    expect((await failure(readAdapter(await fileOf(tensors), "x"))).code).toBe("E-FILE-018");
  });

  it("is refused where a matrix is missing, comes twice or does not fit", async () => {
    const w1: Tensors = { "lycoris_proj_out.lokr_w1": [[1, 1], [1]] };
    for (const more of [
      {},
      {
        "lycoris_proj_out.lokr_w2_a": [
          [2, 1],
          [1, 1],
        ],
      },
      {
        "lycoris_proj_out.lokr_w2_a": [
          [2, 1],
          [1, 1],
        ],
        "lycoris_proj_out.lokr_w2_b": [
          [2, 1],
          [1, 1],
        ],
      },
      { "lycoris_proj_out.lokr_w2": [[1, 1], [1]], "lycoris_proj_out.lokr_w2_a": [[1, 1], [1]] },
      { "lycoris_proj_out.lokr_w2": [[1, 1], [1]], "lycoris_proj_out.lora_down.weight": [[1, 1], [1]] },
    ] as Tensors[]) {
      expect((await failure(readAdapter(await fileOf({ ...w1, ...more }), "x"))).code).toBe("E-FILE-018");
    }
  });

  it("has its sizes from the same factorisation as PEFT's", () => {
    expect([factorisation(128, -1), factorisation(127, -1), factorisation(128, 4), factorisation(250, 8)]).toEqual([
      [8, 16],
      [1, 127],
      [4, 32],
      [5, 50],
    ]);
  });
});
