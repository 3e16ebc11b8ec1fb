// rsLoRA, DoRA and LoKr against PEFT on diffusers' FluxTransformer2DModel: outputs, gradients of every adapter tensor, what
// the settings make of the same modules, and merged weights.

import { basename, dirname } from "node:path";
import { describe, expect, it } from "vitest";
import type { KroneckerFactor, LokrLayer, LoraLayer } from "../../src/formats/adapter_layers.ts";
import { fluxConfig } from "../../src/models/flux/config.ts";
import { FluxTransformer } from "../../src/models/flux/transformer.ts";
import { adaptersOf, chooseAdapters } from "../../src/nn/adapters.ts";
import { Parameters } from "../../src/nn/parameters.ts";
import { Session } from "../../src/tensor/session.ts";
import { portableTarget } from "../../src/tensor/target.ts";
import { Comparison } from "../helpers/compare.ts";
import { type Dump, dump, suite, tolerance } from "../helpers/dumps.ts";
import { relativeError } from "../helpers/gpu.ts";
import { runLora } from "../helpers/lora.ts";
import { mergedWeight } from "../helpers/merged_weight.ts";

const PREFIX = "transformer.";

/** The layers of a case, from PEFT's own tensors. */
async function layersOf(found: Dump, name: string): Promise<Map<string, LoraLayer | LokrLayer>> {
  const file = await found.open(name);
  const scales: Record<string, number> = found.config["cases"][name]["scales"];
  const layers = new Map<string, LoraLayer | LokrLayer>();
  for (const [module, scale] of Object.entries(scales)) {
    const at = (part: string) => `${PREFIX}${module}.${part}`;
    const load = (part: string) => file.load(at(part));
    if (file.has(at("lora_A.weight"))) {
      const [rank, inputs] = file.shape(at("lora_A.weight")) as [number, number];
      layers.set(module, {
        rank,
        inputs,
        outputs: file.shape(at("lora_B.weight"))[0]!,
        down: await load("lora_A.weight"),
        up: await load("lora_B.weight"),
        scale,
        ...(file.has(at("lora_magnitude_vector")) ? { magnitude: await load("lora_magnitude_vector") } : {}),
      });
      continue;
    }
    const factor = async (part: string): Promise<KroneckerFactor> => {
      if (file.has(at(part))) {
        const [rows, columns] = file.shape(at(part)) as [number, number];
        return { rows, columns, whole: await load(part) };
      }
      const [rows, rank] = file.shape(at(`${part}_a`)) as [number, number];
      const columns = file.shape(at(`${part}_b`))[1]!;
      return { rows, columns, rank, left: await load(`${part}_a`), right: await load(`${part}_b`) };
    };
    const [first, second] = [await factor("lokr_w1"), await factor("lokr_w2")];
    layers.set(module, {
      first,
      second,
      inputs: first.columns * second.columns,
      outputs: first.rows * second.rows,
      scale,
    });
  }
  return layers;
}

suite("adapters", (found) => {
  const model = dump(basename(dirname(found.config["weights"])));
  let base: Float32Array | null = null;
  describe.each(Object.keys(found.config["cases"]))("%s", (name) => {
    const settings = found.config["cases"][name];
    const own = found.config["_oracle"]["f32_vs_f64"][name];

    it.skipIf(!model)("agrees on the output, the loss and every gradient", async () => {
      const layers = await layersOf(found, name);
      const run = await runLora(found, model!, layers, [0]);
      const io = await found.open("io");
      const compared = new Comparison(`adapters ${name}`);
      const bound = tolerance(2e-5, own.output.relative_l2);
      compared.values("output", name, run.outputs.get(1), await io.load(`${name}.output`), bound);
      compared.values("loss", name, [run.loss], await io.load(`${name}.loss`), bound);
      const gradientBound = tolerance(5e-5, own.grads.worst_relative_l2);
      const gradient = await io.load(`${name}.grad.hidden_states`);
      compared.values("input gradient", name, run.inputGradient, gradient, gradientBound);
      const gradients = await found.open(`${name}_grads`);
      const mine = Object.fromEntries(Object.entries(run.gradients).map(([key, value]) => [PREFIX + key, value]));
      await compared.gradients("gradients", mine, gradients, gradientBound);
      compared.finish();
      expect(Object.keys(mine).sort()).toEqual([...gradients.names()].sort());
      // What was written to the device comes back as it was.
      expect(run.layers).toEqual(layers);
      base ??= (await runLora(found, model!, new Map(), [])).outputs.get(1)!;
      expect(relativeError(run.outputs.get(0)!, base), "strength 0 is the model itself").toBeLessThan(1e-6);
    });

    it.skipIf(!model)("chooses the modules, ranks, forms and scales that PEFT chooses", async () => {
      const session = new Session(portableTarget());
      const parameters = new Parameters(session.pool("weights", "weights"));
      new FluxTransformer(parameters, fluxConfig(model!.config, model!.folder));
      const chosen = chooseAdapters(parameters, {
        kind: settings.peft_type === "LOKR" ? "lokr" : settings.use_dora ? "dora" : "lora",
        targets: settings.target_modules,
        rank: settings.r,
        alpha: settings.lora_alpha ?? settings.alpha,
        rankOf: settings.rank_pattern,
        alphaOf: settings.alpha_pattern,
        rankStabilised: settings.use_rslora,
        factor: settings.decompose_factor,
        decomposeBoth: settings.decompose_both,
      });
      const theirs = adaptersOf(await layersOf(found, name));
      // Where neither factor is a product LyCORIS and its readers know no rank and scale by 1; PEFT divides all the same.
      for (const shape of theirs.values()) {
        if (shape.kind === "lokr" && shape.first.rank === null && shape.second.rank === null) shape.scale = 1;
      }
      expect(new Map([...chosen].sort())).toEqual(new Map([...theirs].sort()));
    });

    it.skipIf(!model)("merges to the weights that PEFT merges to", async () => {
      const layers = await layersOf(found, name);
      const io = await found.open("io");
      const weights = await model!.open("weights");
      const merged = io.names().filter((key) => key.startsWith(`${name}.merged.`));
      expect(merged.length).toBeGreaterThan(0);
      for (const key of merged) {
        const module = key.slice(`${name}.merged.`.length);
        const weight = mergedWeight(layers.get(module)!, await weights.load(`${module}.weight`));
        expect(relativeError(weight, await io.load(key)), key).toBeLessThan(1e-6);
      }
    });
  });
});
