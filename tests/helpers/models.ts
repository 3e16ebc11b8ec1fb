// Runs a model on the test device: weights from a dump, inputs by name, any traced tensors out, gradients of all parameters.

import type { TensorSource } from "../../src/base/tensor_source.ts";
import { loadParameters, Parameters, type ParametersOptions } from "../../src/nn/parameters.ts";
import { backward } from "../../src/ops/backward.ts";
import { full } from "../../src/ops/pointwise.ts";
import type { Graph, Tensor } from "../../src/tensor/graph.ts";
import { Session } from "../../src/tensor/session.ts";
import type { DType, Shape } from "../../src/tensor/shape.ts";
import { targetOf } from "../../src/tensor/target.ts";
import type { Variable } from "../../src/tensor/variable.ts";
import { testGpu } from "./gpu.ts";

export interface ModelInput {
  shape: Shape;
  values: ArrayLike<number>;
  dtype?: DType;
  /** Ask for the gradient. */
  gradient?: boolean;
}

export interface ModelRun {
  outputs: Record<string, Float32Array>;
  /** Gradients of parameters by name, of inputs as "input.<name>". */
  gradients: Record<string, Float32Array>;
  calls: number;
}

/**
 * @param build declares the model; what it returns is handed to `trace`
 * @param trace returns tensors to read, and optionally a scalar loss to differentiate
 */
export async function runModel<M>(options: {
  build: (parameters: Parameters) => M;
  weights: TensorSource;
  rename?: (name: string) => string;
  inputs: Record<string, ModelInput>;
  trace: (model: M, inputs: Record<string, Tensor>, graph: Graph) => { outputs: Record<string, Tensor>; loss?: Tensor };
  fuse?: boolean;
  /** How the weights are kept; f32 by default. */
  keep?: ParametersOptions;
}): Promise<ModelRun> {
  const gpu = await testGpu();
  const session = new Session(targetOf(gpu), { fuse: options.fuse });
  try {
    const pool = session.pool("weights", "weights");
    const parameters = new Parameters(pool, options.keep);
    const model = options.build(parameters);
    const inputs = Object.entries(options.inputs).map(([name, spec]) => ({
      name,
      spec,
      variable: session.data(`input.${name}`, spec.shape, spec.dtype ?? "f32"),
    }));
    const reads: Record<string, Variable> = {};
    const inputGradients: Record<string, Variable> = {};
    let gradientPool: ReturnType<typeof pool.twin> | null = null;
    const probe = (graph: Graph) => {
      const leaves: Record<string, Tensor> = {};
      for (const { name, spec, variable } of inputs) leaves[name] = graph.read(variable, spec.gradient);
      return { leaves, traced: options.trace(model, leaves, graph) };
    };
    const plan = session.plan("model", (graph) => {
      // Gradient buffers exist only where a loss is asked for: a dry trace tells.
      const wantsLoss =
        probe(new (graph.constructor as new (name: string) => Graph)("probe")).traced.loss !== undefined;
      if (wantsLoss) {
        gradientPool = session.adopt(pool.twin("gradients", "gradients", ".grad"));
        pool.variables.forEach((v, i) => (v.gradient = gradientPool!.variables[i]!));
      }
      const { leaves, traced } = probe(graph);
      for (const [name, tensor] of Object.entries(traced.outputs)) {
        reads[name] = session.data(`output.${name}`, tensor.shape, tensor.dtype);
        graph.assign(reads[name]!, tensor);
      }
      if (traced.loss) {
        const wanted = inputs.filter((i) => i.spec.gradient);
        const found = backward(
          graph,
          [[traced.loss, full(graph, traced.loss.shape, 1)]],
          wanted.map((i) => leaves[i.name]!),
        );
        found.forEach((g, i) => {
          if (!g) return;
          const variable = session.data(`gradient.${wanted[i]!.name}`, g.shape);
          inputGradients[wanted[i]!.name] = variable;
          graph.assign(variable, g);
        });
      }
    });
    await session.open(gpu);
    await loadParameters(session, parameters, options.weights, options.rename);
    for (const { spec, variable } of inputs) {
      session.write(variable, spec.dtype === "u32" ? Uint32Array.from(spec.values) : Float32Array.from(spec.values));
    }
    if (gradientPool) session.clear(gradientPool);
    session.poison();
    session.run(plan);
    await session.finish();
    const run: ModelRun = { outputs: {}, gradients: {}, calls: plan.lowered.calls.length };
    for (const [name, variable] of Object.entries(reads)) run.outputs[name] = await session.read(variable);
    for (const [name, variable] of Object.entries(inputGradients))
      run.gradients[`input.${name}`] = await session.read(variable);
    if (gradientPool) for (const v of pool.variables) run.gradients[v.name] = await session.read(v.gradient!);
    return run;
  } finally {
    session.close();
  }
}
