// Drawing apart from training, for the Compare card: the base model, or a run's weights at any strength. What was opened for one
// picture stays open for the next, so that a slider is answered in the time of a few sampling steps.

import { LongtailError } from "../../base/errors.ts";
import type { FileStore } from "../../base/files.ts";
import { fromPlanes } from "../../formats/png.ts";
import { Safetensors } from "../../formats/safetensors.ts";
import type { Gpu } from "../../gpu/device.ts";
import { Pipeline, TOKEN_PIXELS } from "../../models/pipeline.ts";
import type { TextEmbedding } from "../../models/velocity_network.ts";
import { tensorSource } from "../../models/weights_file.ts";
import { Adapter, adaptersOf } from "../../nn/adapters.ts";
import { loadParameters } from "../../nn/parameters.ts";
import { readLayers } from "../../runs/adapter_settings.ts";
import { loadConfig } from "../../runs/config/load.ts";
import type { Config } from "../../runs/config/schema.ts";
import { modelFiles } from "../../runs/model_files.ts";
import { Phases } from "../../runs/phases.ts";
import { projectSources } from "../../runs/project.ts";
import { encodeAll } from "../../runs/train/encode.ts";
import { Session } from "../../tensor/session.ts";
import { targetOf } from "../../tensor/target.ts";
import { Drawing } from "../../training/drawing.ts";
import { EncodingCache, textOfEntry } from "../../training/encoding_cache.ts";
import type { DrawnPicture, DrawRequest } from "../protocol.ts";

/** Most pictures of one request; more would take the page's memory for no one to see. */
const MOST_PICTURES = 64;
const MOST_STEPS = 50;

/** A model that is ready to draw. */
interface Easel {
  /** Which weights, by content: a run that went on since is another. */
  key: string;
  session: Session;
  pipeline: Pipeline;
  drawing: Drawing;
  adapter: Adapter | null;
}

interface Weights {
  key: string;
  /** Null for the base model. */
  path: string | null;
  adapter: boolean;
}

export class DrawDesk {
  private readonly files: FileStore;
  private readonly gpu: Gpu;
  private easel: Easel | null = null;
  private config: Config | null = null;
  private readonly texts = new Map<string, TextEmbedding>();

  constructor(files: FileStore, gpu: Gpu) {
    this.files = files;
    this.gpu = gpu;
  }

  /** Gives the memory back; the next request opens what it needs again. */
  async close(): Promise<void> {
    const { easel } = this;
    this.easel = null;
    easel?.session.close();
    await easel?.pipeline.close();
  }

  /** One request at a time. */
  async draw(request: DrawRequest): Promise<DrawnPicture[]> {
    const { prompts, seed, first, strength, steps } = request;
    checkRequest(request);
    const config = await this.configuration();
    const weights = await this.weightsOf(request);
    const easel = await this.easelFor(config, weights);
    await this.encode(config, prompts);
    easel.adapter?.setStrength(easel.session, strength);
    const requests = prompts.map((prompt, i) => ({
      ...this.texts.get(prompt)!,
      noise: easel.drawing.noise(seed, first + i),
    }));
    const drawn = await easel.drawing.draw(requests, undefined, steps);
    const { rows, columns } = easel.drawing.geometry;
    return drawn.map(({ picture }) => rgbaOf(picture, columns * TOKEN_PIXELS, rows * TOKEN_PIXELS));
  }

  private async configuration(): Promise<Config> {
    const sources = projectSources(this.files);
    this.config ??= (await loadConfig({ preset: "lora", overrides: [] }, sources)).config;
    return this.config;
  }

  /** The file of a run's weights: its adapter, or its transformer, or of an unfinished run nothing. */
  private async weightsOf({ run, strength }: DrawRequest): Promise<Weights> {
    if (run === null) return { key: "base", path: null, adapter: false };
    const folder = `runs/${run}`;
    const names = await this.files.list(folder);
    const adapter = names.find((name) => name === `${run}.safetensors`);
    const transformer = names.find((name) => name === `${run}.transformer.safetensors`);
    const name = adapter ?? transformer;
    if (!name) {
      throw new LongtailError("E-FILE-055", {
        what: "the run has no weights",
        where: folder,
        why: "it did not reach its end",
        fix: "resume it, or compare the samples that it drew on the way",
      });
    }
    const path = `${folder}/${name}`;
    if (!adapter && strength === 0) return { key: "base", path: null, adapter: false };
    const handle = await this.files.open(path);
    const key = `${path} ${handle.size}`;
    await handle.close();
    return { key, path, adapter: adapter !== undefined };
  }

  private async easelFor(config: Config, weights: Weights): Promise<Easel> {
    if (this.easel?.key === weights.key) return this.easel;
    await this.close();
    const { files, gpu } = this;
    const session = new Session(targetOf(gpu));
    const { precision } = config.device;
    const pipeline = await Pipeline.open(files, session, {
      ...modelFiles(config),
      parts: { text: false },
      precision,
      transformerPrecision: precision,
      stream: null,
    });
    try {
      const layers = weights.path && weights.adapter ? await readLayers(files, weights.path) : null;
      const adapter = layers ? new Adapter(session, pipeline.transformer.parameters, adaptersOf(layers)) : null;
      const { steps, shift, guidance } = config.sample;
      const drawing = new Drawing(session, pipeline, [], { batch: 1, steps, shift, guidance });
      await session.open(gpu);
      await pipeline.loadWeights(session);
      if (layers) adapter!.load(session, layers, weights.path!);
      else if (weights.path) {
        const file = await Safetensors.open(files, weights.path);
        try {
          await loadParameters(session, pipeline.transformer.parameters, tensorSource(file));
        } finally {
          await file.close();
        }
      }
      this.easel = { key: weights.key, session, pipeline, drawing, adapter };
      return this.easel;
    } catch (error) {
      // Of a device without room for all of it, what it gave must not stay taken.
      session.close();
      await pipeline.close();
      throw error;
    }
  }

  private async encode(config: Config, prompts: readonly string[]): Promise<void> {
    const missing = [...new Set(prompts)].filter((prompt) => !this.texts.has(prompt));
    if (missing.length === 0) return;
    const { files, gpu } = this;
    const cache = new EncodingCache(files, null);
    const emit = () => {};
    const inputs = { files, config, gpu, cache, emit, phases: new Phases(emit), signal: new AbortController().signal };
    const { texts } = await encodeAll(inputs, [], missing);
    for (const prompt of missing) this.texts.set(prompt, textOfEntry((await cache.get(texts.get(prompt)!)).found!));
  }
}

function checkRequest({ prompts, steps, strength, seed }: DrawRequest): void {
  const problem =
    prompts.length === 0 || prompts.length > MOST_PICTURES
      ? `${prompts.length} prompts; 1 to ${MOST_PICTURES} are drawn at once`
      : !Number.isInteger(steps) || steps < 1 || steps > MOST_STEPS
        ? `${steps} steps; 1 to ${MOST_STEPS} can be taken`
        : !Number.isFinite(strength) || Math.abs(strength) > 100
          ? `a strength of ${strength}`
          : !Number.isSafeInteger(seed) || seed < 0
            ? `the seed ${seed}`
            : null;
  if (problem) throw new LongtailError("E-ARG-056", { what: "this cannot be drawn", why: problem, fix: "change it" });
}

/** [3 · H · W] in [0, 1] as a canvas takes it. */
function rgbaOf(planes: Float32Array, width: number, height: number): DrawnPicture {
  const { data } = fromPlanes(planes, width, height, {});
  const rgba = new Uint8ClampedArray(4 * width * height);
  for (let i = 0; i < width * height; i++) {
    rgba.set(data.subarray(3 * i, 3 * i + 3), 4 * i);
    rgba[4 * i + 3] = 255;
  }
  return { width, height, rgba };
}
