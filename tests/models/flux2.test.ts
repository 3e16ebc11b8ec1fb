// Sizes and refusals of the FLUX.2 family, from configurations alone: nothing is loaded and no device is needed.

import { expect, it } from "vitest";
import { LongtailError } from "../../src/base/errors.ts";
import { DISTILLED_STEPS, empiricalSigmas } from "../../src/diffusion/empirical_shift.ts";
import { FLUX2_PRESETS, flux2Config } from "../../src/models/flux2/config.ts";
import { flux2Modules } from "../../src/models/flux2/keys.ts";
import { Flux2Transformer } from "../../src/models/flux2/transformer.ts";
import { KLEIN_LAYERS, qwen3Config } from "../../src/models/qwen3/config.ts";
import { Qwen3Encoder } from "../../src/models/qwen3/encoder.ts";
import { Parameters } from "../../src/nn/parameters.ts";
import { Pool } from "../../src/tensor/variable.ts";

const anyPool = () => new Pool("weights", "weights", 2 ** 40);

it.each([
  ["flux2-dev", 32.22],
  ["flux2-klein-4b", 3.876],
  ["flux2-klein-9b", 9.079],
])("%s has %d billion parameters", (name, billions) => {
  const parameters = new Parameters(anyPool());
  new Flux2Transformer(parameters, FLUX2_PRESETS[name]!);
  expect(parameters.count / 1e9).toBeCloseTo(billions, 2);
  const linears = [...parameters.linears].map(([module, { outputs, inputs }]) => [module, { outputs, inputs }]);
  expect(new Map(flux2Modules(FLUX2_PRESETS[name]!))).toEqual(new Map(linears as [string, object][]));
});

it("the states of klein's text encoders are as wide as its transformers take them", () => {
  for (const [name, json] of [
    ["flux2-klein-4b", {}],
    ["flux2-klein-9b", { hidden_size: 4096, intermediate_size: 12288, head_dim: 128 }],
  ] as const) {
    const config = qwen3Config({ head_dim: 128, num_key_value_heads: 8, ...json }, name);
    const parameters = new Parameters(anyPool());
    const encoder = new Qwen3Encoder(parameters, config, { layers: KLEIN_LAYERS });
    expect(encoder.outputWidth).toBe(FLUX2_PRESETS[name]!.jointWidth);
  }
  const whole = new Parameters(anyPool());
  new Qwen3Encoder(whole, qwen3Config({ head_dim: 128, num_key_value_heads: 8 }, ""), { layers: [36] });
  expect(whole.count / 1e9).toBeCloseTo(4.02, 2);
});

it("four distilled steps at 1024 pixels spend most of their way at high noise", () => {
  const sigmas = empiricalSigmas(DISTILLED_STEPS, 4096);
  expect([sigmas.length, sigmas[0], sigmas[4]]).toEqual([5, 1, 0]);
  // Each is the logistic of mu plus the logit of the unshifted time.
  const mu = 2.291179894115571;
  [3 / 4, 2 / 4, 1 / 4].forEach((t, i) => expect(sigmas[i + 1]).toBeCloseTo(1 / (1 + Math.exp(-mu) * (1 / t - 1)), 6));
});

it("refuses configurations of other models and contradictions", () => {
  const refused = (json: Record<string, unknown>) => {
    try {
      flux2Config(json, "transformer/config.json");
      return null;
    } catch (error) {
      return error instanceof LongtailError ? `${error.code} ${error.parts.where}` : String(error);
    }
  };
  expect(refused({})).toBe(null);
  for (const json of [
    { _class_name: "FluxTransformer2DModel" },
    { axes_dims_rope: [16, 56, 56] },
    { axes_dims_rope: [16, 16, 16, 16] },
    { patch_size: 2 },
    { axes_dims_rope: [31, 33, 32, 32] },
    { num_layers: "8" },
    { num_single_layers: 2.5 },
    { timestep_guidance_channels: 128 },
  ]) {
    expect(refused(json), JSON.stringify(json)).toBe("E-FILE-040 transformer/config.json");
  }
});
