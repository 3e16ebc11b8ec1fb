// CLIP's text tower against transformers' CLIPTextModel: both activations, both rules for the token that is pooled (the
// first largest id of older configurations, the first end token of newer ones), and all hidden states.

import { it } from "vitest";
import { ClipTextModel } from "../../src/models/clip/text.ts";
import { Comparison, firstLargest, idRows } from "../helpers/compare.ts";
import { suite, tolerance } from "../helpers/dumps.ts";
import { runModel } from "../helpers/models.ts";

suite("clip_text", (dump) => {
  const { config } = dump;
  const own = config["_oracle"]["f32_vs_f64"];
  const activations = [...new Set(Object.keys(own).map((name) => name.split(".")[0]!))];

  it(`agrees with ${activations.join(" and ")}, pooled by either rule`, async () => {
    const io = await dump.open("io");
    const ids = await idRows(io, "ids");
    const endToken = config["_oracle"]["eos id of rule `eos`"] as number;
    const ends: Record<string, number[]> = {
      argmax: ids.map(firstLargest),
      eos: ids.map((row) => row.indexOf(endToken)),
    };
    const run = await runModel({
      // One model an activation; both read the same weights.
      build: (parameters) =>
        activations.map(
          (activation) =>
            new ClipTextModel(parameters.at(activation), {
              rows: config["vocab_size"],
              positions: config["max_position_embeddings"],
              width: config["hidden_size"],
              heads: config["num_attention_heads"],
              layers: config["num_hidden_layers"],
              inner: config["intermediate_size"],
              activation,
            }),
        ),
      weights: await dump.open("weights"),
      rename: (name) => name.slice(name.indexOf(".") + 1),
      inputs: {
        ids: { shape: [ids.length, ids[0]!.length], values: ids.flat(), dtype: "u32" },
        argmax: { shape: [ids.length], values: ends["argmax"]!, dtype: "u32" },
        eos: { shape: [ids.length], values: ends["eos"]!, dtype: "u32" },
      },
      trace: (models, t, graph) => ({
        outputs: Object.fromEntries(
          models.flatMap((model, i) => {
            const [argmax, eos] = [
              model.forward(graph, t["ids"]!, t["argmax"]!),
              model.forward(graph, t["ids"]!, t["eos"]!),
            ];
            const name = activations[i]!;
            return [
              [`${name}.last_hidden`, argmax.states],
              [`${name}.argmax.pooled`, argmax.pooled],
              [`${name}.eos.pooled`, eos.pooled],
            ];
          }),
        ),
      }),
    });
    const comparison = new Comparison("clip_text");
    for (const [name, values] of Object.entries(run.outputs)) {
      const activation = name.split(".")[0]!;
      const bound = tolerance(
        1e-5,
        own[name.replace(".pooled", "")]?.relative_l2 ?? own[`${activation}.argmax`]?.relative_l2,
      );
      comparison.values(name, name, values, await io.load(name), bound);
    }
    comparison.finish();
  });
});
