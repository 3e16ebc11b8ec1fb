// FLUX.2's autoencoder against diffusers' AutoencoderKLFlux2: moments, packed and normalised latents, decoded pictures, and
// gradients through both ways, for every size of the dump.

import { expect, it } from "vitest";
import { LongtailError } from "../../src/base/errors.ts";
import { Flux2Autoencoder, flux2AutoencoderConfig } from "../../src/models/flux2/autoencoder.ts";
import { add, affine, mul } from "../../src/ops/pointwise.ts";
import { sumAll } from "../../src/ops/reduce.ts";
import { Comparison } from "../helpers/compare.ts";
import { suite, tolerance } from "../helpers/dumps.ts";
import { generatedSource } from "../helpers/generated_source.ts";
import { runModel } from "../helpers/models.ts";

suite("flux2_vae", (dump) => {
  const config = flux2AutoencoderConfig(dump.config, dump.folder);
  const oracle = dump.config["_oracle"];

  for (const [height, width] of oracle.sizes as [number, number][]) {
    const size = `${height}x${width}`;
    it(`agrees on pictures of ${size}`, async () => {
      const io = await dump.open("io");
      const input = async (name: string, gradient = false) => ({
        shape: io.shape(`${size}.${name}`),
        values: await io.load(`${size}.${name}`),
        gradient,
      });
      const run = await runModel({
        build: (parameters) => new Flux2Autoencoder(parameters, config, { encoder: true, decoder: true }),
        weights: generatedSource("vae", oracle.tensors),
        inputs: {
          image: await input("image", true),
          packed: await input("packed", true),
          encodeWeight: await input("encode_weight"),
          decodeWeight: await input("decode_weight"),
        },
        trace: (vae, t, graph) => {
          // The reference takes pictures in [-1, 1].
          const encoded = vae.encode(graph, affine(t["image"]!, 0.5, 0.5));
          const decoded = affine(vae.decode(graph, t["packed"]!, height / 16, width / 16), 2, -1);
          const moments = vae.moments(graph, t["image"]!);
          const loss = add(sumAll(mul(encoded, t["encodeWeight"]!)), sumAll(mul(decoded, t["decodeWeight"]!)));
          return { outputs: { moments, encoded, decoded }, loss };
        },
      });
      const own = oracle.f32_vs_f64[size];
      const comparison = new Comparison(`flux2_vae ${size}`);
      for (const name of ["moments", "encoded", "decoded"]) {
        const bound = tolerance(1e-5, own[name].relative_l2);
        comparison.values("values", name, run.outputs[name], await io.load(`${size}.${name}`), bound);
      }
      for (const name of ["image", "packed"]) {
        const bound = tolerance(5e-5, own.input_grads.worst_relative_l2);
        const expected = await io.load(`${size}.grad.${name}`);
        comparison.values("gradients of inputs", name, run.gradients[`input.${name}`], expected, bound);
      }
      comparison.finish();
    });
  }

  it("refuses autoencoders with other layers", () => {
    const refused = (change: Record<string, unknown>) => {
      try {
        flux2AutoencoderConfig({ ...dump.config, ...change }, "vae/config.json");
        return null;
      } catch (error) {
        return error instanceof LongtailError ? error.code : String(error);
      }
    };
    expect(refused({})).toBe(null);
    expect(refused({ _class_name: "AutoencoderKL" })).toBe("E-FILE-035");
    expect(refused({ patch_size: [1, 1] })).toBe("E-FILE-035");
    expect(refused({ mid_block_add_attention: false })).toBe("E-FILE-035");
    expect(refused({ block_out_channels: [8, 16] })).toBe("E-FILE-035");
    expect(refused({ act_fn: "relu" })).toBe("E-FILE-035");
  });
});
