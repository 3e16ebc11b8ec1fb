// What a recipe costs before it is run: multiply-adds of all steps from the traced plans, and of the views that are made
// beforehand.

import { Autoencoder } from "../../models/vae/autoencoder.ts";
import { Parameters } from "../../nn/parameters.ts";
import type { Target } from "../../tensor/lower.ts";
import { type Plan, Session } from "../../tensor/session.ts";
import type { PretrainPart } from "./jobs.ts";
import type { PretrainSettings } from "./recipes.ts";

/** FLOP of all steps of a part; multiply-adds count as two. */
export function trainingFlops(plans: readonly Plan[], settings: PretrainSettings, part: PretrainPart): number {
  const of = (name: string) => plans.find((plan) => plan.name === name)?.flops ?? 0;
  const accumulation = part === "generator" ? settings.generator.accumulation : 1;
  return (
    (of("pretrain step") + accumulation * of("pretrain micro-step") + of("pretrain update")) * settings[part].steps
  );
}

/** FLOP of the views of `pictures` pictures of a part. */
export function viewFlops(target: Target, settings: PretrainSettings, part: PretrainPart, pictures: number): number {
  const session = new Session(target);
  const { imageSize: side, latentScale: scale, latentShift: shift } = settings;
  const autoencoder = new Autoencoder(
    new Parameters(session.pool("autoencoder", "weights")),
    { kind: "taef2", scale, shift, config: {} },
    { encoder: true, decoder: true },
  );
  const picture = session.data("picture", [1, 3, side, side]);
  const latent = session.data("latent", [1, (side / 16) ** 2, 128]);
  const encode = session.plan("encode", (graph) => {
    graph.assign(latent, autoencoder.encode(graph, graph.read(picture)));
  });
  const decode = session.plan("decode", (graph) => {
    graph.assign(picture, autoencoder.decode(graph, graph.read(latent), side / 16, side / 16));
  });
  if (part === "generator") return pictures * settings.generator.variants * encode.flops;
  const { variants, qualityVariants, qualities } = settings[part];
  // Every second view; every second variant of four qualities, and of "Noisy" once more.
  const passes = Math.floor(variants / 2) + (qualities ? 5 * Math.floor(qualityVariants / 2) : 0);
  return pictures * passes * (encode.flops + decode.flops);
}
