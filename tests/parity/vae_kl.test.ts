// AutoencoderKL in FLUX layout against diffusers: moments, posterior sample, scaled latent, decoded picture, and gradients to
// picture, latent and all parameters, for every size of the dump.

import { it } from "vitest";
import { KlDecoder, KlEncoder, klConfig, samplePosterior } from "../../src/models/vae/kl.ts";
import { add, affine, mul } from "../../src/ops/pointwise.ts";
import { sumAll } from "../../src/ops/reduce.ts";
import { Comparison, norm } from "../helpers/compare.ts";
import { suite, tolerance } from "../helpers/dumps.ts";
import { runModel } from "../helpers/models.ts";

suite("vae_kl", (dump) => {
  const config = klConfig(dump.config);
  const oracle = dump.config["_oracle"];

  for (const size of (oracle.sizes as [number, number][]).map(([h, w]) => `${h}x${w}`)) {
    it(`agrees on pictures of ${size}`, async () => {
      const io = await dump.open("io");
      const input = async (name: string, gradient = false) => ({
        shape: io.shape(`${size}.${name}`),
        values: await io.load(`${size}.${name}`),
        gradient,
      });
      const run = await runModel({
        build: (parameters) => ({
          encoder: new KlEncoder(parameters.at("encoder"), config),
          decoder: new KlDecoder(parameters.at("decoder"), config),
        }),
        weights: await dump.open("weights"),
        inputs: {
          image: await input("image", true),
          latent: await input("latent", true),
          noise: await input("posterior_noise"),
          momentsWeight: await input("moments_weight"),
          decodeWeight: await input("decode_weight"),
        },
        trace: ({ encoder, decoder }, t, graph) => {
          const moments = encoder.forward(graph, t["image"]!);
          const sample = samplePosterior(moments, t["noise"]!);
          const decoded = decoder.forward(graph, t["latent"]!);
          const [encodeLoss, decodeLoss] = [
            sumAll(mul(moments, t["momentsWeight"]!)),
            sumAll(mul(decoded, t["decodeWeight"]!)),
          ];
          return {
            outputs: {
              moments,
              sample,
              scaled: affine(sample, config.scalingFactor, -config.scalingFactor * config.shiftFactor),
              decoded,
              encode_loss: encodeLoss,
              decode_loss: decodeLoss,
            },
            loss: add(encodeLoss, decodeLoss),
          };
        },
      });
      const own = oracle.f32_vs_f64[size];
      const comparison = new Comparison(`vae_kl ${size}`);
      for (const name of ["moments", "sample", "scaled", "decoded"]) {
        comparison.values(
          "values",
          name,
          run.outputs[name],
          await io.load(`${size}.${name}`),
          tolerance(1e-5, own[name]?.relative_l2 ?? own.moments.relative_l2),
        );
      }
      // A sum over weights of both signs nearly cancels: its error is measured against what was added up.
      for (const [loss, weight, value] of [
        ["encode_loss", "moments_weight", "moments"],
        ["decode_loss", "decode_weight", "decoded"],
      ] as const) {
        const summed = norm(await io.load(`${size}.${weight}`)) * norm(await io.load(`${size}.${value}`));
        const expected = (await io.load(`${size}.${loss}`))[0]!;
        comparison.note(
          "losses",
          loss,
          Math.abs(run.outputs[loss]![0]! - expected) / summed,
          tolerance(1e-5, own[value].relative_l2),
        );
      }
      for (const name of ["image", "latent"]) {
        comparison.values(
          "gradients of inputs",
          name,
          run.gradients[`input.${name}`],
          await io.load(`${size}.grad.${name}`),
          tolerance(5e-5, own.input_grads.worst_relative_l2),
        );
      }
      if (oracle["grads.safetensors belongs to"] === size) {
        await comparison.gradients(
          "gradients",
          run.gradients,
          await dump.open("grads"),
          tolerance(5e-5, own.grads.worst_relative_l2),
        );
      }
      comparison.finish();
    });
  }
});
