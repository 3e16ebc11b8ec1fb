// Drawing apart from training: prompts are encoded first and the encoders freed, then transformer and decoder draw batch by
// batch, with the base weights, another transformer, or an adapter at any strength.

import { LongtailError } from "../../base/errors.ts";
import { noisedLatents } from "../../diffusion/image_start.ts";
import { Safetensors } from "../../formats/safetensors.ts";
import type { Gpu } from "../../gpu/device.ts";
import { type Geometry, Pipeline, type StreamOptions } from "../../models/pipeline.ts";
import type { TextEmbedding } from "../../models/velocity_network.ts";
import { tensorSource } from "../../models/weights_file.ts";
import { Adapter, adaptersOf } from "../../nn/adapters.ts";
import { loadParameters } from "../../nn/parameters.ts";
import { availableMemory } from "../../platform/environment.ts";
import type { Config } from "../../runs/config/schema.ts";
import { checkMemoryCap } from "../../runs/device.ts";
import { classifierFreeScale, layoutOf, modelFiles } from "../../runs/model_files.ts";
import { chooseOffload } from "../../runs/offload.ts";
import { Phases } from "../../runs/phases.ts";
import { encodeAll } from "../../runs/train/encode.ts";
import { Session } from "../../tensor/session.ts";
import { targetOf } from "../../tensor/target.ts";
import { Drawing } from "../../training/drawing.ts";
import { EncodingCache, textOfEntry } from "../../training/encoding_cache.ts";
import type { CommandContext } from "../command.ts";
import type { StartPicture } from "./start_picture.ts";
import type { Weights } from "./weights.ts";

/** One picture to be drawn. */
export interface Picture {
  prompt: string;
  /** File name without ending. */
  name: string;
  /** Which noise it is drawn from. */
  index: number;
  /** What is stored in it. */
  text: Record<string, string>;
}

export interface Sampler {
  session: Session;
  pipeline: Pipeline;
  drawing: Drawing;
  /** Embeddings of the prompts, in the order of the pictures. */
  texts: TextEmbedding[];
  /** That of the negative prompt, where there is classifier-free guidance. */
  negative: { negative: TextEmbedding } | null;
  /** Latents of the picture that drawing starts from. */
  latents: Float32Array | null;
}

/** Encodes the prompts, frees the encoders, and opens the transformer with the weights that were asked for. */
export async function openSampler(
  context: CommandContext,
  config: Config,
  gpu: Gpu,
  geometry: Geometry,
  pictures: readonly Picture[],
  weights: Weights,
  start: StartPicture | null = null,
): Promise<Sampler> {
  const { files, emit, signal } = context;
  const cache = new EncodingCache(files, null);
  const { steps, shift, guidance, negative_prompt: unwanted } = config.sample;
  const classifierFree = classifierFreeScale(config, await layoutOf(files, config));
  const encoded = await encodeAll(
    { files, config, gpu, cache, emit, phases: new Phases(emit), signal },
    start ? [start.want] : [],
    [...pictures.map((p) => p.prompt), ...(classifierFree === 1 ? [] : [unwanted])],
  );
  const failed = encoded.failed.get(0);
  if (failed) throw failed;
  const latents = start ? (await cache.get(encoded.pictures[0]!)).found!["latents"]! : null;
  const embedding = async (prompt: string): Promise<TextEmbedding> =>
    textOfEntry((await cache.get(encoded.texts.get(prompt)!)).found!);
  const texts: TextEmbedding[] = [];
  for (const { prompt } of pictures) texts.push(await embedding(prompt));
  const negative = classifierFree === 1 ? null : { negative: await embedding(unwanted) };
  const target = targetOf(gpu);
  const build = async (stream: StreamOptions | null) => {
    const session = new Session(target);
    // A streamed transformer has one place where it comes from.
    const swapped = stream && weights.path && !weights.layers ? { transformer: weights.path } : {};
    const pipeline = await Pipeline.open(files, session, {
      ...modelFiles(config),
      ...swapped,
      parts: { text: false },
      precision: config.device.precision,
      transformerPrecision: config.device.precision,
      ...(config.model.storage === "auto" ? {} : { transformerStorage: config.model.storage }),
      stream,
    });
    const { parameters } = pipeline.transformer;
    const adapter = weights.layers ? new Adapter(session, parameters, adaptersOf(weights.layers)) : null;
    const batch = pipeline.drawingBatch(config.eval.batch, geometry, target.maxBindingBytes);
    const drawing = new Drawing(session, pipeline, [], {
      batch,
      steps,
      shift,
      guidance,
      classifierFree,
      geometry,
      first: start?.first ?? 0,
    });
    return { session, pipeline, adapter, drawing };
  };
  const dora = [...adaptersOf(weights.layers ?? new Map())].some(([, shape]) => shape.kind === "dora");
  const offload = await chooseOffload(config, { canStream: !dora, available: availableMemory }, build);
  if (offload.text) emit({ kind: "message", text: offload.text });
  const { session, pipeline, adapter, drawing } = await build(offload.stream);
  checkMemoryCap(config, session.memory().total);
  await new Phases(emit).timed("compile and load", session.plans.length, "plans", async (tick) => {
    await session.open(gpu, tick);
    await pipeline.loadWeights(session);
  });
  if (adapter) {
    adapter.load(session, weights.layers!, weights.path!);
    adapter.setStrength(session, weights.strength);
  } else if (weights.path && !pipeline.streamed) {
    const file = await Safetensors.open(files, weights.path);
    try {
      await loadParameters(session, pipeline.transformer.parameters, tensorSource(file));
    } finally {
      await file.close();
    }
  }
  return { session, pipeline, drawing, texts, negative, latents };
}

/**
 * Draws batch by batch and hands every picture out as soon as it is there, so that Ctrl-C loses one batch at most.
 * @throws LongtailError E-NUM-012 where the transformer's numbers are not finite: no black picture is written
 */
export async function drawMissing(
  context: CommandContext,
  config: Config,
  { session, drawing, texts, negative, latents }: Sampler,
  missing: readonly Picture[],
  take: (picture: Picture, planes: Float32Array) => Promise<void>,
): Promise<void> {
  await new Phases(context.emit).timed("draw", missing.length, "pictures", async (tick) => {
    for (let at = 0; at < missing.length; at += drawing.options.batch) {
      if (context.signal.aborted) throw context.signal.reason;
      const part = missing.slice(at, at + drawing.options.batch);
      const requests = part.map((p, i) => {
        const noise = drawing.noise(config.sample.seed, p.index);
        const sigma = drawing.sigmas[drawing.options.first ?? 0]!;
        const from = latents ? noisedLatents(latents, noise, sigma) : noise;
        return { ...texts[at + i]!, ...negative, noise: from };
      });
      const drawn = await drawing.draw(requests);
      checkFinite(await session.read(drawing.latents), part[0]!.prompt);
      for (const [i, picture] of part.entries()) await take(picture, drawn[i]!.picture);
      tick(at + part.length);
    }
  });
}

function checkFinite(latents: Float32Array, prompt: string): void {
  if (latents.every(Number.isFinite)) return;
  throw new LongtailError("E-NUM-012", {
    what: "the drawn latents are not finite",
    where: prompt,
    why: "the weights are damaged, an adapter's strength is too large, or a number exceeds the range of f32",
    fix: "check the adapter with longtail lora verify, lower --strength, or take other weights",
  });
}
