// The tiny autoencoder of FLUX.1 (TAEF1) in diffusers' numbering against AutoencoderTiny: values and gradients.

import { it } from "vitest";
import { Comparison } from "../helpers/compare.ts";
import { suite, tolerance } from "../helpers/dumps.ts";
import { runTiny, sizesOf } from "../helpers/tiny_autoencoder.ts";

suite("vae_tiny", (dump) => {
  const oracle = dump.config["_oracle"];
  const config = {
    latentChannels: dump.config["latent_channels"],
    width: dump.config["encoder_block_out_channels"][0],
    pool: false,
    diffusers: true,
  };

  for (const size of sizesOf(dump)) {
    it(`agrees on pictures of ${size}`, async () => {
      const io = await dump.open("io");
      const run = await runTiny(dump, size, { config, weights: await dump.open("weights"), at: "layers" });
      const own = oracle.f32_vs_f64[size];
      const comparison = new Comparison(`vae_tiny ${size}`);
      for (const name of ["encoded", "decoded"]) {
        comparison.values(
          "values",
          name,
          run.outputs[name],
          await io.load(`${size}.${name}`),
          tolerance(1e-5, own[name].relative_l2),
        );
      }
      for (const name of ["image", "latent"]) {
        comparison.values(
          "gradients of inputs",
          name,
          run.gradients[`input.${name}`],
          await io.load(`${size}.grad.${name}`),
          tolerance(1e-4, own.input_grads.worst_relative_l2),
        );
      }
      if (oracle["grads.safetensors belongs to"] === size) {
        await comparison.gradients(
          "gradients",
          run.gradients,
          await dump.open("grads"),
          tolerance(1e-4, own.grads.worst_relative_l2),
        );
      }
      comparison.finish();
    });
  }
});
