// LoRA on FLUX.2 against PEFT in diffusers' model: which modules the training scripts adapt, their file, the output with it, and the
// gradients of all factors, with the blocks' values kept and traced again.

import { expect, it } from "vitest";
import { readLora } from "../../src/formats/lora.ts";
import { ropeTables, sinusoids } from "../../src/models/flux/embeddings.ts";
import { flux2Config, flux2Targets } from "../../src/models/flux2/config.ts";
import { positionIds } from "../../src/models/flux2/embeddings.ts";
import { Flux2Transformer } from "../../src/models/flux2/transformer.ts";
import { Adapter, adaptersOf, chooseAdapters } from "../../src/nn/adapters.ts";
import { loadParameters, Parameters } from "../../src/nn/parameters.ts";
import { backward } from "../../src/ops/backward.ts";
import { add, affine, full, mul, square } from "../../src/ops/pointwise.ts";
import { meanAll } from "../../src/ops/reduce.ts";
import { Session } from "../../src/tensor/session.ts";
import { portableTarget, targetOf } from "../../src/tensor/target.ts";
import { Comparison } from "../helpers/compare.ts";
import { type Dump, suite, tolerance } from "../helpers/dumps.ts";
import { NodeFiles } from "../helpers/files.ts";
import { generatedSource } from "../helpers/generated_source.ts";
import { testGpu } from "../helpers/gpu.ts";
import { frequenciesOf } from "../helpers/sinusoids.ts";

async function run(dump: Dump, checkpoint: boolean) {
  const config = flux2Config(dump.config, dump.folder);
  const oracle = dump.config["_oracle"];
  const io = await dump.open("io");
  const { layers } = await readLora(new NodeFiles(), dump.path("adapter.safetensors"));
  const gpu = await testGpu();
  const session = new Session(targetOf(gpu));
  try {
    const parameters = new Parameters(session.pool("weights", "weights"));
    const transformer = new Flux2Transformer(parameters, config);
    const adapter = new Adapter(session, parameters, adaptersOf(layers));
    const gradients = session.adopt(adapter.pool.twin("gradients", "gradients", ".grad"));
    adapter.pool.variables.forEach((v, i) => (v.gradient = gradients.variables[i]!));
    const names = ["hidden_states", "encoder_hidden_states", "loss_weight"] as const;
    const data = new Map(names.map((name) => [name, session.data(name, io.shape(name))]));
    const time = session.data("time", [1, 256]);
    const output = session.data("output", io.shape("output"));
    const plan = session.plan("step", (graph) => {
      const places = positionIds(oracle.text_tokens, oracle.grid[0], oracle.grid[1]);
      const { cosine, sine } = ropeTables(places, config.ropeAxes, config.ropeTheta);
      const shape = [places.length, config.headSize / 2];
      const read = (name: (typeof names)[number]) => graph.read(data.get(name)!);
      const inputs = {
        latents: read("hidden_states"),
        states: read("encoder_hidden_states"),
        time: graph.read(time),
        cosine: session.constant(graph, "cosine", cosine, shape),
        sine: session.constant(graph, "sine", sine, shape),
      };
      const v = transformer.forward(graph, inputs, { checkpoint }).output;
      graph.assign(output, v);
      const loss = add(meanAll(mul(v, read("loss_weight"))), affine(meanAll(square(v)), 0.5, 0));
      backward(graph, [[loss, full(graph, loss.shape, 1)]], []);
    });
    await session.open(gpu);
    await loadParameters(session, parameters, generatedSource("transformer", oracle.tensors));
    adapter.load(session, layers, "adapter.safetensors");
    for (const name of names) session.write(data.get(name)!, await io.load(name));
    const frequencies = await frequenciesOf(dump);
    session.write(time, sinusoids([...(await io.load("timestep"))], frequencies));
    session.clear(gradients);
    session.poison();
    session.run(plan);
    const found: Record<string, Float32Array> = { output: await session.read(output) };
    for (const v of adapter.pool.variables) found[`grad.${v.name}`] = await session.read(v.gradient!);
    return found;
  } finally {
    session.close();
  }
}

suite("flux2_lora", (dump) => {
  const oracle = dump.config["_oracle"];

  it("means the modules that the training scripts adapt", () => {
    const config = flux2Config(dump.config, dump.folder);
    const session = new Session(portableTarget());
    const parameters = new Parameters(session.pool("weights", "weights"));
    new Flux2Transformer(parameters, config);
    expect(flux2Targets(config)).toEqual(oracle.targets);
    const chosen = chooseAdapters(parameters, {
      targets: flux2Targets(config),
      rank: oracle.rank,
      alpha: oracle.alpha,
    });
    expect([...chosen.keys()].sort()).toEqual([...oracle.modules].sort());
    const { rank, alpha } = oracle;
    const named = chooseAdapters(parameters, { targets: "diffusers", rank, alpha });
    expect([...named.keys()].sort()).toEqual([...oracle.modules].sort());
    const attention = [...chooseAdapters(parameters, { targets: "attention", rank, alpha }).keys()];
    expect(attention.filter((module) => module.startsWith("transformer_blocks.0."))).toHaveLength(8);
    expect(attention).toContain("single_transformer_blocks.0.attn.to_qkv_mlp_proj");
    expect(attention).not.toContain("single_transformer_blocks.0.attn.to_out");
  });

  it.each([false, true])("agrees on the output and all gradients; blocks traced again: %s", async (checkpoint) => {
    const io = await dump.open("io");
    const found = await run(dump, checkpoint);
    const comparison = new Comparison(`flux2_lora${checkpoint ? " again" : ""}`);
    const names = io.names().filter((name) => name === "output" || name.startsWith("grad."));
    expect(Object.keys(found).sort()).toEqual([...names].sort());
    for (const name of names) {
      const bound =
        name === "output"
          ? tolerance(2e-5, oracle.f32_vs_f64.output.relative_l2)
          : tolerance(5e-5, oracle.f32_vs_f64.worst_grad);
      comparison.values(name === "output" ? "output" : "gradients", name, found[name], await io.load(name), bound);
    }
    comparison.finish();
  });
});
