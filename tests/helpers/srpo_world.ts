// The small models of the srpo_step dump in one session, with the traced steps of the trainer: text features, encoding,
// rollout, one micro-step with its inner gradients, AdamW. Built once for all cases that train the same weights.

import { existsSync } from "node:fs";
import { join } from "node:path";
import { readLora } from "../../src/formats/lora.ts";
import { OpenClip, openClipConfig } from "../../src/models/clip/open_clip.ts";
import { fluxConfig } from "../../src/models/flux/config.ts";
import { positionIds, ropeTables, SINUSOID_WIDTH } from "../../src/models/flux/embeddings.ts";
import { FluxTransformer } from "../../src/models/flux/transformer.ts";
import { KlDecoder, KlEncoder, klConfig, samplePosterior } from "../../src/models/vae/kl.ts";
import { packLatents, unpackLatents } from "../../src/models/vae/packing.ts";
import { TinyDecoder } from "../../src/models/vae/tiny.ts";
import { Adapter } from "../../src/nn/adapters.ts";
import { loadParameters, Parameters } from "../../src/nn/parameters.ts";
import { affine } from "../../src/ops/pointwise.ts";
import { Optimizer } from "../../src/optim/optimizer.ts";
import type { Graph, Tensor } from "../../src/tensor/graph.ts";
import { type Plan, Session } from "../../src/tensor/session.ts";
import { targetOf } from "../../src/tensor/target.ts";
import type { Pool, Variable } from "../../src/tensor/variable.ts";
import { traceEulerStep, traceMicroStep } from "../../src/training/srpo/steps.ts";
import { type Dump, openSource, readConfig } from "./dumps.ts";
import { NodeFiles } from "./files.ts";
import { testGpu } from "./gpu.ts";

/** Names in the dump of what a micro-step makes in between. */
const INNER = {
  z: "z",
  v: "velocity",
  moved: "moved",
  recovered: "recovered",
  picture_unclamped: "unclamped",
  picture: "pictures",
  clip_input: "input",
  feature: "features",
} as const;
/** Those whose gradients the dump holds. */
const DIFFERENTIATED = ["z", "v", "recovered", "picture", "feature"] as const;
const SCALARS = ["from", "keep", "move", "to", "recover"] as const;

export interface World {
  session: Session;
  plans: Record<"text" | "encode" | "rollout" | "micro" | "optimizer", Plan>;
  /** Inputs and outputs by name; those of the micro-step are "micro." and the dump's name. */
  data: Record<string, Variable>;
  /** Names in the dump of the micro-step's outputs. */
  outputs: string[];
  trained: Pool;
  optimizer: Optimizer;
  /** Name in the dump of a trained variable. */
  publicName: (variable: Variable) => string;
  /** Puts the trained weights of the dump back. */
  reset: () => Promise<void>;
  close: () => void;
}

/** What the dump's weights entry "key" names, as a path. */
function weightsPath(dump: Dump, key: string): string {
  return join(dump.folder, dump.config["weights"][key]);
}

/** Files that the subject needs from other subjects and that are not there. */
export function missingFiles(dump: Dump): string[] {
  const files = Object.keys(dump.config["weights"]).map((key) => weightsPath(dump, key));
  return [...files, join(dump.folder, "../lora/config.json")].filter(
    (file) => !existsSync(file) && !existsSync(`${file}.index.json`),
  );
}

export async function openWorld(
  dump: Dump,
  options: {
    trained: "full" | "lora";
    decoder: "kl" | "tiny";
    threshold: number;
    weightDecay: number;
    maxNorm: number;
  },
): Promise<World> {
  const io = await dump.open("io");
  const [height, width] = dump.config["image"] as [number, number];
  const [rows, columns] = [height / 16, width / 16];
  const gpu = await testGpu();
  const session = new Session(targetOf(gpu));
  const places: { parameters: Parameters; path: string }[] = [];
  const place = (name: string, key: string) => {
    const parameters = new Parameters(session.pool(name, "weights"));
    places.push({ parameters, path: weightsPath(dump, key) });
    return parameters;
  };

  const config = fluxConfig(readConfig(weightsPath(dump, "transformer")), dump.folder);
  const fluxParameters = place("transformer", "transformer");
  const flux = new FluxTransformer(fluxParameters, config);
  const clipParameters = place("reward", "reward");
  const clip = new OpenClip(clipParameters, openClipConfig(readConfig(weightsPath(dump, "reward")), dump.folder));
  const klJson = klConfig(readConfig(weightsPath(dump, "vae")));
  const klParameters = place("vae", "vae");
  const encoder = new KlEncoder(klParameters.at("encoder"), klJson);
  let decodeLatent: (graph: Graph, latent: Tensor) => Tensor;
  if (options.decoder === "kl") {
    const decoder = new KlDecoder(klParameters.at("decoder"), klJson);
    decodeLatent = (graph, latent) =>
      decoder.forward(graph, affine(latent, 1 / klJson.scalingFactor, klJson.shiftFactor));
  } else {
    const tiny = readConfig(weightsPath(dump, "vae of case tae"));
    const decoder = new TinyDecoder(place("tiny vae", "vae of case tae").at("decoder.layers"), {
      latentChannels: tiny["latent_channels"],
      width: tiny["decoder_block_out_channels"][0],
      pool: false,
      diffusers: true,
    });
    decodeLatent = (graph, latent) => decoder.forward(graph, latent);
  }
  const decode = (graph: Graph, packed: Tensor) =>
    affine(decodeLatent(graph, unpackLatents(packed, rows, columns)), 0.5, 0.5);

  let adapter: Adapter | null = null;
  const loraPath = weightsPath(dump, "adapter of the LoRA cases");
  const lora = (await readLora(new NodeFiles(), loraPath)).layers;
  if (options.trained === "lora") {
    // The file says no scale: it is the one of the lora subject.
    const { r, lora_alpha } = readConfig(join(dump.folder, "../lora/config.json"));
    for (const layer of lora.values()) layer.scale = lora_alpha / r;
    adapter = new Adapter(
      session,
      fluxParameters,
      new Map([...lora].map(([module, { rank, scale }]) => [module, { rank, scale }])),
    );
  }
  const trained = adapter?.pool ?? fluxParameters.pool;
  const optimizer = new Optimizer(session, [{ pool: trained }], {
    kind: "adamw",
    beta1: 0.9,
    beta2: 0.999,
    epsilon: 1e-8,
    weightDecay: options.weightDecay,
    maxNorm: options.maxNorm,
  });

  const data: Record<string, Variable> = {};
  const declare = (name: string, shape: readonly number[], dtype: "f32" | "u32" = "f32") =>
    (data[name] = session.data(name, [...shape], dtype));
  const packed = [1, rows * columns, config.inChannels];
  for (const name of ["clean", "noise"]) declare(name, packed);
  declare("states", io.shape("encoder_hidden_states"));
  declare("pooled", io.shape("pooled_projections"));
  for (const name of ["time", "guidance"]) declare(name, [1, SINUSOID_WIDTH]);
  for (const name of [...SCALARS, "step", "lossWeight", "positiveFactor", "negativeFactor"]) declare(name, [1]);
  const length = clip.config.text.positions;
  declare("tokens", [2, length], "u32");
  declare("ends", [2], "u32");
  const embed = clip.config.vision.embed;
  declare("texts", [2, embed]);
  for (const name of ["t_pos", "t_neg"]) declare(name, [1, embed]);
  declare("picture", [1, 3, height, width]);
  const latent = [1, klJson.latentChannels, height / 8, width / 8];
  for (const name of ["latent noise", "posterior noise"]) declare(name, latent);

  const textTokens = io.shape("encoder_hidden_states")[1]!;
  const tables = ropeTables(positionIds(textTokens, rows, columns), config.ropeAxes, config.ropeTheta);
  const conditioning = (graph: Graph) => ({
    states: graph.read(data["states"]!),
    pooled: graph.read(data["pooled"]!),
    time: graph.read(data["time"]!),
    guidance: config.guidance ? graph.read(data["guidance"]!) : undefined,
    cosine: session.constant(graph, "cosine", tables.cosine, [textTokens + rows * columns, config.headSize / 2]),
    sine: session.constant(graph, "sine", tables.sine, [textTokens + rows * columns, config.headSize / 2]),
  });
  const outputs: string[] = [];
  const plans = {
    text: session.plan("text", (graph) => {
      graph.assign(data["texts"]!, clip.textFeatures(graph, graph.read(data["tokens"]!), graph.read(data["ends"]!)));
    }),
    encode: session.plan("encode", (graph) => {
      const moments = encoder.forward(graph, affine(graph.read(data["picture"]!), 2, -1));
      const sample = samplePosterior(moments, graph.read(data["posterior noise"]!));
      graph.assign(
        data["clean"]!,
        packLatents(affine(sample, klJson.scalingFactor, -klJson.scalingFactor * klJson.shiftFactor)),
      );
      graph.assign(data["noise"]!, packLatents(graph.read(data["latent noise"]!)));
    }),
    rollout: session.plan("rollout", (graph) => {
      graph.assign(
        data["clean"]!,
        traceEulerStep(graph, flux, graph.read(data["clean"]!), {
          ...conditioning(graph),
          step: graph.read(data["step"]!),
        }),
      );
    }),
    micro: session.plan("micro", (graph) => {
      const read = (name: string) => graph.read(data[name]!);
      const step = traceMicroStep(
        graph,
        flux,
        {
          ...conditioning(graph),
          clean: read("clean"),
          noise: read("noise"),
          from: read("from"),
          keep: read("keep"),
          move: read("move"),
          to: read("to"),
          recover: read("recover"),
          rewards: [
            {
              model: clip,
              positive: read("t_pos"),
              negative: read("t_neg"),
              positiveFactor: read("positiveFactor"),
              negativeFactor: read("negativeFactor"),
            },
          ],
          lossWeight: read("lossWeight"),
        },
        {
          threshold: options.threshold,
          decode,
          constant: (name, values, shape) => session.constant(graph, name, values, shape),
          wanted: (inner) => DIFFERENTIATED.map((name) => inner[INNER[name]]!),
        },
      );
      const keep = (name: string, tensor: Tensor) => {
        graph.assign(declare(`micro.${name}`, tensor.shape), tensor);
        outputs.push(name);
      };
      for (const [name, inner] of Object.entries(INNER)) keep(name, step.inner[inner]!);
      keep("s_pos", step.positive);
      keep("s_neg", step.negative);
      keep("reward", step.reward);
      keep("loss", step.loss);
      DIFFERENTIATED.forEach((name, i) => keep(`grad.${name}`, step.gradients[i]!));
    }),
    optimizer: session.plan("optimizer", (graph) => optimizer.trace(graph, { loss: graph.read(data["micro.loss"]!) })),
  };
  await session.open(gpu);
  for (const { parameters, path } of places) await loadParameters(session, parameters, await openSource(path));
  const start = fluxParameters.pool.variables;
  const source = await openSource(weightsPath(dump, "transformer"));
  const reset = async () => {
    optimizer.initialise(session);
    if (adapter) adapter.load(session, lora, loraPath);
    else for (const variable of start) session.write(variable, await source.load(variable.name));
  };
  return {
    session,
    plans,
    data,
    outputs,
    trained,
    optimizer,
    publicName: (variable) => (adapter ? `transformer.${variable.name}` : variable.name),
    reset,
    close: () => session.close(),
  };
}
