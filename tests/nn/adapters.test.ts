// Adapters on Linear layers: which modules are meant, how they begin, and that strength 0 is the model itself.

import { describe, expect, it } from "vitest";
import type { LongtailError } from "../../src/base/errors.ts";
import type { LoraLayer } from "../../src/formats/lora.ts";
import { fluxConfig } from "../../src/models/flux/config.ts";
import { FluxTransformer } from "../../src/models/flux/transformer.ts";
import { splitSize } from "../../src/nn/adapters/targets.ts";
import { Adapter, adaptersOf, chooseAdapters, DIFFUSERS_TARGETS } from "../../src/nn/adapters.ts";
import { Linear } from "../../src/nn/linear.ts";
import { Parameters } from "../../src/nn/parameters.ts";
import { Session } from "../../src/tensor/session.ts";
import { portableTarget, targetOf } from "../../src/tensor/target.ts";
import { testGpu } from "../helpers/gpu.ts";

const CONFIG = {
  _class_name: "FluxTransformer2DModel",
  patch_size: 1,
  in_channels: 16,
  out_channels: null,
  num_layers: 2,
  num_single_layers: 3,
  attention_head_dim: 16,
  num_attention_heads: 2,
  joint_attention_dim: 24,
  pooled_projection_dim: 16,
  guidance_embeds: false,
  axes_dims_rope: [4, 6, 6],
};

function model() {
  const session = new Session(portableTarget());
  const parameters = new Parameters(session.pool("weights", "weights"));
  new FluxTransformer(parameters, fluxConfig(CONFIG, "test"));
  return { session, parameters };
}

function thrown(body: () => unknown): LongtailError {
  try {
    body();
  } catch (error) {
    return error as LongtailError;
  }
  throw new Error("nothing was thrown");
}

describe("the choice of modules", () => {
  it("finds every matrix of the transformer under its module path", () => {
    const { parameters } = model();
    const matrices = [...parameters.variables]
      .filter(([, variable]) => variable.shape.length === 2)
      .map(([name]) => name);
    expect([...parameters.linears.keys()].map((module) => `${module}.weight`)).toEqual(matrices);
    expect([...chooseAdapters(parameters, { targets: "all-linear", rank: 2, alpha: 2 }).keys()].length).toBe(
      matrices.length,
    );
  });

  it("meets diffusers' set in double blocks and the projections of single blocks alone", () => {
    const chosen = [...chooseAdapters(model().parameters, { targets: "diffusers", rank: 4, alpha: 8 }).keys()];
    expect(chosen.length).toBe(2 * DIFFUSERS_TARGETS.length + 3 * 3);
    expect(chosen).toContain("single_transformer_blocks.2.attn.to_v");
    expect(chosen.some((module) => /proj_mlp|proj_out|norm|embed/.test(module))).toBe(false);
  });

  it("takes a list of names or endings, with ranks and alphas of single modules", () => {
    const chosen = chooseAdapters(model().parameters, {
      targets: ["to_q", "proj_out"],
      rank: 4,
      alpha: 8,
      rankOf: { "transformer_blocks.0.attn.to_q": 2 },
      alphaOf: { proj_out: 1 },
    });
    expect(chosen.get("transformer_blocks.0.attn.to_q")).toEqual({ rank: 2, scale: 4 });
    expect(chosen.get("transformer_blocks.1.attn.to_q")).toEqual({ rank: 4, scale: 2 });
    expect(chosen.get("proj_out")).toEqual({ rank: 4, scale: 0.25 });
    expect(chosen.get("single_transformer_blocks.0.proj_out")).toEqual({ rank: 4, scale: 0.25 });
    // An ending begins at a dot: "_q" is no module's name.
    expect(thrown(() => chooseAdapters(model().parameters, { targets: ["_q"], rank: 1, alpha: 1 })).code).toBe(
      "E-CFG-040",
    );
  });

  it("has presets for attention alone and for kohya's set, every layer of the blocks with the modulation", () => {
    const { parameters } = model();
    const attention = [...chooseAdapters(parameters, { targets: "attention", rank: 1, alpha: 1 }).keys()];
    expect(attention.length).toBe(2 * 8 + 3 * 3);
    expect(attention.every((module) => module.includes(".attn."))).toBe(true);
    const kohya = [...chooseAdapters(parameters, { targets: "kohya", rank: 1, alpha: 1 }).keys()];
    expect(kohya.length).toBe(2 * 14 + 3 * 6);
    expect(kohya).toContain("transformer_blocks.1.norm1_context.linear");
    expect(kohya).toContain("single_transformer_blocks.0.norm.linear");
    expect(kohya).toContain("single_transformer_blocks.0.proj_out");
    expect(kohya).not.toContain("proj_out");
  });

  it("leaves out what is excluded", () => {
    const { parameters } = model();
    const chosen = chooseAdapters(parameters, {
      targets: "kohya",
      exclude: ["norm.linear", "transformer_blocks.0.norm1.linear"],
      rank: 1,
      alpha: 1,
    });
    expect(chosen.size).toBe(2 * 14 + 3 * 6 - 3 - 1);
    expect([...chosen.keys()].some((module) => module.endsWith("norm.linear"))).toBe(false);
  });

  it("scales by alpha / √rank where that is asked for", () => {
    const settings = { targets: ["proj_out"], rank: 16, alpha: 8, rankStabilised: true };
    expect(chooseAdapters(model().parameters, settings).get("proj_out")).toEqual({ rank: 16, scale: 2 });
  });

  it("refuses entries that change nothing, and says which setting they are of", () => {
    const { parameters } = model();
    const base = { targets: ["to_q"], rank: 1, alpha: 1 };
    for (const [code, settings, words] of [
      ["E-CFG-040", { ...base, exclude: ["to_qq"] }, ["adapter.exclude", '"to_q"']],
      ["E-CFG-040", { ...base, rankOf: { to_k: 2 } }, ["adapter.layers", "with an adapter", '"to_k"']],
      ["E-CFG-040", { ...base, alphaOf: { to_k: 2 } }, ["adapter.layers", '"to_k"']],
      ["E-CFG-043", { ...base, exclude: ["to_q"] }, ["adapter.exclude", "no Linear layer is left"]],
      ["E-CFG-043", { ...base, targets: [] }, ["adapter.targets", "no Linear layer is left"]],
    ] as const) {
      const error = thrown(() => chooseAdapters(parameters, settings));
      expect(error.code).toBe(code);
      for (const word of words) expect(error.message).toContain(word);
    }
  });

  it("gives LoKr the sizes of LyCORIS, with a scale of 1 where no rank is left", () => {
    const { parameters } = model();
    const choose = (rank: number, more: object = {}) =>
      chooseAdapters(parameters, { kind: "lokr", targets: ["ff.net.2"], rank, alpha: 4, ...more }).get(
        "transformer_blocks.0.ff.net.2",
      );
    // 128 inputs and 32 outputs.
    expect(choose(2)).toEqual({
      kind: "lokr",
      first: { rows: 4, columns: 8, rank: null },
      second: { rows: 8, columns: 16, rank: 2 },
      scale: 2,
    });
    expect(choose(2, { factor: 2, decomposeBoth: true })).toMatchObject({
      first: { rows: 2, columns: 2, rank: null },
      second: { rows: 16, columns: 64, rank: 2 },
    });
    expect(choose(2, { decomposeBoth: true })).toMatchObject({ first: { rank: 2 } });
    expect(choose(8)).toMatchObject({ second: { rank: null }, scale: 1 });
  });

  it("splits sizes as LyCORIS does", () => {
    expect(splitSize(128)).toEqual([8, 16]);
    expect(splitSize(128, 4)).toEqual([4, 32]);
    expect(splitSize(3072)).toEqual([48, 64]);
    expect(splitSize(250)).toEqual([10, 25]);
    expect(splitSize(250, 4)).toEqual([2, 125]);
    expect(splitSize(127)).toEqual([1, 127]);
  });

  it("refuses a name that no layer has, with the nearest", () => {
    const error = thrown(() => chooseAdapters(model().parameters, { targets: ["attn.to_qq"], rank: 1, alpha: 1 }));
    expect(error.code).toBe("E-CFG-040");
    expect(error.message).toContain('"attn.to_q"');
  });

  it("puts the factors into a pool of their own and counts them as adapter", () => {
    const { session, parameters } = model();
    const adapter = new Adapter(
      session,
      parameters,
      chooseAdapters(parameters, { targets: ["ff.net.2"], rank: 3, alpha: 3 }),
    );
    expect(adapter.pool.variables.map(({ name, shape }) => [name, shape])).toEqual([
      ["transformer_blocks.0.ff.net.2.lora_A.weight", [3, 128]],
      ["transformer_blocks.0.ff.net.2.lora_B.weight", [32, 3]],
      ["transformer_blocks.1.ff.net.2.lora_A.weight", [3, 128]],
      ["transformer_blocks.1.ff.net.2.lora_B.weight", [32, 3]],
    ]);
    expect(session.memory().variables.adapter).toBe(adapter.pool.bytes);
    expect(adapter.groups()).toEqual([{ pool: adapter.pool }]);
  });

  it("keeps DoRA's magnitudes in a group of their own without weight decay", () => {
    const { session, parameters } = model();
    const settings = { kind: "dora", targets: ["ff.net.2"], rank: 3, alpha: 3, dropout: 0.1 } as const;
    const adapter = new Adapter(session, parameters, chooseAdapters(parameters, settings));
    expect(adapter.kind).toBe("dora");
    expect(adapter.magnitudes!.variables.map(({ name, shape }) => [name, shape])).toEqual([
      ["transformer_blocks.0.ff.net.2.lora_magnitude_vector", [32]],
      ["transformer_blocks.1.ff.net.2.lora_magnitude_vector", [32]],
    ]);
    expect(adapter.groups()).toEqual([{ pool: adapter.pool }, { pool: adapter.magnitudes, weightDecay: 0 }]);
    expect(session.memory().variables.adapter).toBe(adapter.pool.bytes + adapter.magnitudes!.bytes);
  });

  it("names LoKr's factors as PEFT does", () => {
    const { session, parameters } = model();
    const settings = { kind: "lokr", targets: ["proj_mlp"], rank: 2, alpha: 3 } as const;
    const adapter = new Adapter(session, parameters, chooseAdapters(parameters, settings));
    const own = adapter.pool.variables.filter(({ name }) => name.startsWith("single_transformer_blocks.0."));
    expect(own.map(({ name, shape }) => [name.slice("single_transformer_blocks.0.".length), shape])).toEqual([
      ["proj_mlp.lokr_w1", [8, 4]],
      ["proj_mlp.lokr_w2_a", [16, 2]],
      ["proj_mlp.lokr_w2_b", [2, 8]],
    ]);
  });
});

describe("an adapter on the device", () => {
  async function onDevice(
    body: (parts: { session: Session; adapter: Adapter; run: () => Promise<Float32Array> }) => Promise<void>,
  ) {
    const gpu = await testGpu();
    const session = new Session(targetOf(gpu));
    try {
      const parameters = new Parameters(session.pool("weights", "weights"));
      const layer = new Linear(parameters.at("proj"), 40, 24);
      const adapter = new Adapter(session, parameters, new Map([["proj", { rank: 4, scale: 2 }]]));
      const x = session.data("x", [3, 40]);
      const y = session.data("y", [3, 24]);
      const plan = session.plan("linear", (graph) => graph.assign(y, layer.forward(graph, graph.read(x))));
      await session.open(gpu);
      session.write(
        parameters.variables.get("proj.weight")!,
        Float32Array.from({ length: 960 }, (_, i) => Math.sin(i)),
      );
      session.write(
        layer.bias!,
        Float32Array.from({ length: 24 }, (_, i) => i),
      );
      session.write(
        x,
        Float32Array.from({ length: 120 }, (_, i) => Math.cos(i)),
      );
      const run = async () => {
        session.poison();
        session.run(plan);
        await session.finish();
        return await session.read(y);
      };
      await body({ session, adapter, run });
    } finally {
      session.close();
    }
  }

  it("begins with A of standard deviation 1/r and B = 0, which changes nothing, and the same in every run", async () => {
    await onDevice(async ({ session, adapter, run }) => {
      adapter.initialise(session, 1);
      const first = (await adapter.read(session)).get("proj")!;
      const deviation = Math.sqrt(first.down.reduce((sum, v) => sum + v * v, 0) / first.down.length);
      expect(deviation).toBeGreaterThan(0.8 / 4);
      expect(deviation).toBeLessThan(1.2 / 4);
      expect(first.up.every((v) => v === 0)).toBe(true);
      const began = await run();
      adapter.setStrength(session, 0);
      expect(await run()).toEqual(began);
      adapter.initialise(session, 2);
      expect((await adapter.read(session)).get("proj")!.down).not.toEqual(first.down);
      adapter.initialise(session, 1);
      expect((await adapter.read(session)).get("proj")!).toEqual(first);
    });
  });

  it("adds scale · strength · B A x", async () => {
    await onDevice(async ({ session, adapter, run }) => {
      const layer: LoraLayer = {
        rank: 4,
        inputs: 40,
        outputs: 24,
        down: Float32Array.from({ length: 160 }, (_, i) => Math.sin(3 * i)),
        up: Float32Array.from({ length: 96 }, (_, i) => Math.cos(5 * i)),
        scale: 2,
      };
      expect(adaptersOf(new Map([["proj", layer]]))).toEqual(new Map([["proj", { rank: 4, scale: 2 }]]));
      adapter.load(session, new Map([["proj", layer]]), "test");
      adapter.setStrength(session, 0);
      const base = await run();
      adapter.setStrength(session, 0.75);
      const changed = await run();
      for (let i = 0; i < 3; i++) {
        for (let o = 0; o < 24; o++) {
          let sum = 0;
          for (let k = 0; k < 4; k++) {
            for (let j = 0; j < 40; j++)
              sum += layer.up[o * 4 + k]! * layer.down[k * 40 + j]! * Math.fround(Math.cos(i * 40 + j));
          }
          expect(changed[i * 24 + o]! - base[i * 24 + o]!).toBeCloseTo(1.5 * sum, 3);
        }
      }
      for (const bad of [
        { ...layer, scale: 1 },
        { ...layer, rank: 2 },
        { ...layer, inputs: 41 },
      ]) {
        expect(thrown(() => adapter.load(session, new Map([["proj", bad]]), "x.safetensors")).code).toBe("E-FILE-060");
      }
      expect(thrown(() => adapter.load(session, new Map([["other", layer]]), "x.safetensors")).message).toContain(
        "other",
      );
    });
  });
});
