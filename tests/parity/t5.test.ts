// The T5 encoder against transformers' T5EncoderModel: without a mask (as FLUX uses it), with a padding mask, and on a
// sequence long enough for the last bucket of relative positions.

import { it } from "vitest";
import { bucketTable, T5Encoder, t5Config } from "../../src/models/t5/encoder.ts";
import type { Tensor } from "../../src/tensor/graph.ts";
import { Comparison, idRows, item } from "../helpers/compare.ts";
import { suite, tolerance } from "../helpers/dumps.ts";
import { type ModelInput, runModel } from "../helpers/models.ts";

/** Score of a padding token: exp of it is zero. */
const HIDDEN = -1e9;

suite("t5", (dump) => {
  it("agrees without a mask, with one, and on a long sequence", async () => {
    const io = await dump.open("io");
    const [ids, masks, long] = await Promise.all([idRows(io, "ids"), idRows(io, "mask"), idRows(io, "ids.long")]);
    const length = ids[0]!.length;
    const inputs: Record<string, ModelInput> = {};
    const whole = (name: string, rows: number[][]) => {
      inputs[name] = { shape: [rows.length, rows[0]!.length], values: rows.flat(), dtype: "u32" };
      const size = rows[0]!.length;
      inputs[`buckets.${size}`] = { shape: [size, size], values: bucketTable(size), dtype: "u32" };
    };
    whole("unmasked", ids);
    whole("long", long);
    // The mask is one per call: masked sequences run one at a time.
    ids.forEach((row, i) => {
      whole(`masked.${i}`, [row]);
      inputs[`mask.${i}`] = { shape: [1, 1, length], values: masks[i]!.map((keep) => (keep ? 0 : HIDDEN)) };
    });
    const run = await runModel({
      build: (parameters) => new T5Encoder(parameters, t5Config(dump.config)),
      weights: await dump.open("weights"),
      inputs,
      trace: (model, t, graph) => {
        const outputs: Record<string, Tensor> = {};
        for (const name of Object.keys(t).filter((name) => /^(unmasked|long|masked\.\d+)$/.test(name))) {
          const rows = t[name]!;
          const mask = name.startsWith("masked.") ? t[name.replace("masked.", "mask.")] : undefined;
          outputs[name] = model.forward(graph, rows, t[`buckets.${rows.dim(1)}`]!, mask);
        }
        return { outputs };
      },
    });
    const comparison = new Comparison("t5");
    const own = dump.config["_oracle"]["f32_vs_f64"];
    const bound = (name: string) => tolerance(2e-5, own[name]?.relative_l2);
    for (const name of ["unmasked", "long"])
      comparison.values(name, name, run.outputs[name], await io.load(`output.${name}`), bound(name));
    const masked = await io.load("output.masked");
    ids.forEach((_, i) =>
      comparison.values(
        "masked",
        `sequence ${i}`,
        run.outputs[`masked.${i}`],
        item(masked, i, ids.length),
        bound("masked"),
      ),
    );
    comparison.finish();
  });
});
