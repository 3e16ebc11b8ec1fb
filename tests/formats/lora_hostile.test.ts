// Adapter files that are wrong or meant to harm: refused fast, with the layer named.

import { describe, expect, it } from "vitest";
import { readLora } from "../../src/formats/lora.ts";
import { sortLoraKeys } from "../../src/formats/lora_keys.ts";
import { failure, fileOf, type Tensors } from "../helpers/small_adapters.ts";

describe("a hostile file", () => {
  it("of a million keys is refused in seconds, with a few of them named", async () => {
    const sorted = sortLoraKeys(Array.from({ length: 1_000_000 }, (_, i) => `transformer.k${i}.lora_C.weight`));
    expect(sorted.unknown.length).toBe(1_000_000);
    // The whole path on fewer keys: parsing the header is the slow part, and is tested with the container.
    const names = Array.from({ length: 50_000 }, (_, i) => `k${i}`);
    const files = await fileOf(Object.fromEntries(names.map((name) => [name, [[0], []]])));
    const error = await failure(readLora(files, "x"));
    expect(error.code).toBe("E-FILE-017");
    expect(error.message).toContain("50000 keys");
    expect(error.message.length).toBeLessThan(2000);
  });

  it("with values that are not finite is refused by name, unless a tool asks to see it", async () => {
    const tensors: Tensors = {
      "transformer.proj_out.lora_A.weight": [
        [1, 2],
        [1, 2],
      ],
      "transformer.proj_out.lora_B.weight": [
        [2, 1],
        [1, Number.NaN],
      ],
    };
    const error = await failure(readLora(await fileOf(tensors), "x"));
    expect(error.code).toBe("E-FILE-018");
    expect(error.message).toContain("transformer.proj_out.lora_B.weight");
    expect((await readLora(await fileOf(tensors), "x", { allowNonFinite: true })).layers.size).toBe(1);
  });

  it("that names a layer twice in two styles is refused", async () => {
    const one = (stem: string, a: string, b: string): Tensors => ({
      [`${stem}.${a}.weight`]: [[1, 1], [1]],
      [`${stem}.${b}.weight`]: [[1, 1], [1]],
    });
    const tensors = {
      ...one("transformer.x_embedder", "lora_A", "lora_B"),
      ...one("lora_unet_img_in", "lora_down", "lora_up"),
    };
    const error = await failure(readLora(await fileOf(tensors), "x"));
    expect(error.code).toBe("E-FILE-018");
    expect(error.message).toContain("two sets of factors");
  });

  it("with a rank of zero, a factor of three dimensions or a long alpha is refused", async () => {
    const stem = "lora_unet_img_in";
    for (const tensors of [
      { [`${stem}.lora_down.weight`]: [[0, 2], []], [`${stem}.lora_up.weight`]: [[2, 0], []] },
      {
        [`${stem}.lora_down.weight`]: [
          [1, 2, 1],
          [1, 2],
        ],
        [`${stem}.lora_up.weight`]: [
          [2, 1],
          [1, 2],
        ],
      },
      {
        [`${stem}.lora_down.weight`]: [
          [1, 2],
          [1, 2],
        ],
        [`${stem}.lora_up.weight`]: [
          [2, 1],
          [1, 2],
        ],
        [`${stem}.alpha`]: [[2], [1, 2]],
      },
      { [`${stem}.alpha`]: [[], [1]] },
    ] as Tensors[]) {
      expect((await failure(readLora(await fileOf(tensors), "x"))).code).toBe("E-FILE-018");
    }
  });
});
