// What the two dumps of tiny autoencoders have in common: encode, decode, and gradients of weighted sums of both.

import type { TensorSource } from "../../src/base/tensor_source.ts";
import { type TinyConfig, TinyDecoder, TinyEncoder } from "../../src/models/vae/tiny.ts";
import { add, mul } from "../../src/ops/pointwise.ts";
import { sumAll } from "../../src/ops/reduce.ts";
import type { Dump } from "./dumps.ts";
import { type ModelRun, runModel } from "./models.ts";

/** @param at subtree of the numbered layers in a half of the file: "" or "layers" */
export async function runTiny(
  dump: Dump,
  size: string,
  options: { config: TinyConfig; weights: TensorSource; at: string },
): Promise<ModelRun> {
  const io = await dump.open("io");
  const input = async (name: string, gradient = false) => ({
    shape: io.shape(`${size}.${name}`),
    values: await io.load(`${size}.${name}`),
    gradient,
  });
  const half = (name: string) => (options.at ? `${name}.${options.at}` : name);
  return runModel({
    build: (parameters) => ({
      encoder: new TinyEncoder(parameters.at(half("encoder")), options.config),
      decoder: new TinyDecoder(parameters.at(half("decoder")), options.config),
    }),
    weights: options.weights,
    inputs: {
      image: await input("image", true),
      latent: await input("latent", true),
      encodeWeight: await input("encode_weight"),
      decodeWeight: await input("decode_weight"),
    },
    trace: ({ encoder, decoder }, t, graph) => {
      const [encoded, decoded] = [encoder.forward(graph, t["image"]!), decoder.forward(graph, t["latent"]!)];
      return {
        outputs: { encoded, decoded },
        loss: add(sumAll(mul(encoded, t["encodeWeight"]!)), sumAll(mul(decoded, t["decodeWeight"]!))),
      };
    },
  });
}

export function sizesOf(dump: Dump): string[] {
  return (dump.config["_oracle"].sizes as [number, number][]).map(([h, w]) => `${h}x${w}`);
}
