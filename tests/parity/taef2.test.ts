// TAEF2 with its real weights. Some of its values lie so close to zero that rounding switches a ReLU, so gradients are held
// to a looser bound than values, and their norm and direction are compared as well.

import { join } from "node:path";
import { it } from "vitest";
import { TAEF2 } from "../../src/models/vae/tiny.ts";
import { Comparison, normAndDirection } from "../helpers/compare.ts";
import { openSource, suite, tolerance } from "../helpers/dumps.ts";
import { MODELS } from "../helpers/files.ts";
import { runTiny, sizesOf } from "../helpers/tiny_autoencoder.ts";

suite("taef2", (dump) => {
  const oracle = dump.config["_oracle"];

  for (const size of sizesOf(dump)) {
    it(`agrees on pictures of ${size}`, async () => {
      const io = await dump.open("io");
      const run = await runTiny(dump, size, {
        config: TAEF2,
        weights: await openSource(join(MODELS, "taef2/taef2.safetensors")),
        at: "",
      });
      const own = oracle.f32_vs_f64[size];
      const comparison = new Comparison(`taef2 ${size}`);
      for (const name of ["encoded", "decoded"]) {
        comparison.values(
          "values",
          name,
          run.outputs[name],
          await io.load(`${size}.${name}`),
          tolerance(1e-5, own[name].relative_l2),
        );
      }
      const gradient = (group: string, name: string, actual: Float32Array, expected: Float32Array, bound: number) => {
        comparison.values(group, name, actual, expected, bound);
        const { norm, direction } = normAndDirection(actual, expected);
        comparison.note(`${group}, norm`, name, norm, bound / 2);
        // Vectors that differ by the bound in length one include an angle whose cosine is off by half its square.
        comparison.note(`${group}, direction`, name, direction, bound ** 2 / 2);
      };
      const inputBound = tolerance(2e-2, own.input_grads.worst_relative_l2);
      for (const name of ["image", "latent"]) {
        gradient(
          "gradients of inputs",
          name,
          run.gradients[`input.${name}`]!,
          await io.load(`${size}.grad.${name}`),
          inputBound,
        );
      }
      if (oracle["grads.safetensors belongs to"] === size) {
        const grads = await dump.open("grads");
        const bound = tolerance(2e-2, own.grads.worst_relative_l2);
        for (const name of grads.names())
          gradient("gradients", name, run.gradients[name]!, await grads.load(name), bound);
      }
      comparison.finish();
    });
  }
});
