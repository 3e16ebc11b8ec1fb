// Drawing apart from training, for the Compare card: the base model, or a run's weights at any strength. What was opened for one
// picture stays open for the next, so that a slider is answered in the time of a few sampling steps.

import { LongtailError } from "../../base/errors.ts";
import type { FileStore } from "../../base/files.ts";
import { Safetensors } from "../../formats/safetensors.ts";
import type { Gpu } from "../../gpu/device.ts";
import { Pipeline, TOKEN_PIXELS } from "../../models/pipeline.ts";
import type { TextEmbedding } from "../../models/velocity_network.ts";
import { tensorSource } from "../../models/weights_file.ts";
import { Adapter, adaptersOf } from "../../nn/adapters.ts";
import { loadParameters, type Parameters } from "../../nn/parameters.ts";
import { makeAdapter, type RunAdapter, readLayers } from "../../runs/adapter_settings.ts";
import { loadConfig } from "../../runs/config/load.ts";
import type { Config } from "../../runs/config/schema.ts";
import { modelFiles } from "../../runs/model_files.ts";
import { Phases } from "../../runs/phases.ts";
import { projectSources } from "../../runs/project.ts";
import { encodeAll } from "../../runs/train/encode.ts";
import { type Learnt, learntInCheckpoint } from "../../runs/train/learnt.ts";
import { Session } from "../../tensor/session.ts";
import { targetOf } from "../../tensor/target.ts";
import { Drawing } from "../../training/drawing.ts";
import { EncodingCache, textOfEntry } from "../../training/encoding_cache.ts";
import type { DrawnPicture, DrawRequest } from "../protocol.ts";
import { type Lookout, rgbaOf } from "./onlooker.ts";
import type { Paused } from "./run_job.ts";

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
  /** Updates of an unfinished run. */
  step: number | null;
}

type Weights = { key: string } & (
  | { kind: "base" }
  | { kind: "adapter" | "transformer"; path: string }
  /** Of a run that has not ended. */
  | { kind: "learnt"; run: string; read: () => Promise<Learnt | null> }
);

/** The run of that name where it is paused in this tab. */
export type PausedRuns = (run: string) => Paused | null;

export interface DeskParts {
  paused?: PausedRuns;
  lookout?: Pick<Lookout, "onlooker"> | null;
}

export class DrawDesk {
  private readonly files: FileStore;
  private readonly gpu: Gpu;
  private readonly paused: PausedRuns;
  private readonly lookout: Pick<Lookout, "onlooker"> | null;
  private easel: Easel | null = null;
  private config: Config | null = null;
  private readonly texts = new Map<string, TextEmbedding>();

  constructor(files: FileStore, gpu: Gpu, { paused = () => null, lookout = null }: DeskParts = {}) {
    this.files = files;
    this.gpu = gpu;
    this.paused = paused;
    this.lookout = lookout;
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
    const onlooker = this.lookout?.onlooker(null, 0, prompts) ?? null;
    const drawn = await easel.drawing.draw(requests, undefined, steps, onlooker);
    const { rows, columns } = easel.drawing.geometry;
    return drawn.map(({ picture }) => ({
      ...rgbaOf(picture, columns * TOKEN_PIXELS, rows * TOKEN_PIXELS),
      step: easel.step,
    }));
  }

  private async configuration(): Promise<Config> {
    const sources = projectSources(this.files);
    this.config ??= (await loadConfig({ preset: "lora", overrides: [] }, sources)).config;
    return this.config;
  }

  /** A run's finished weights, its adapter or its transformer; of an unfinished one what it has learnt up to now. */
  private async weightsOf({ run, strength }: DrawRequest): Promise<Weights> {
    if (run === null) return { key: "base", kind: "base" };
    const folder = `runs/${run}`;
    const names = await this.files.list(folder);
    const adapter = names.find((name) => name === `${run}.safetensors`);
    const transformer = names.find((name) => name === `${run}.transformer.safetensors`);
    const name = adapter ?? transformer;
    if (!name) return await this.learntOf(run);
    const path = `${folder}/${name}`;
    if (!adapter && strength === 0) return { key: "base", kind: "base" };
    const handle = await this.files.open(path);
    const key = `${path} ${handle.size}`;
    await handle.close();
    return { key, kind: adapter ? "adapter" : "transformer", path };
  }

  private async learntOf(run: string): Promise<Weights> {
    const checkpoints = `runs/${run}/ckpt`;
    const read = () => learntInCheckpoint(this.files, checkpoints);
    const kind = "learnt";
    const paused = this.paused(run);
    if (paused) {
      const live = async () => (await paused.read()) ?? (await read());
      return { key: `${run} at ${paused.step}`, kind, run, read: live };
    }
    return { key: `${run} of ${(await this.files.list(checkpoints)).join()}`, kind, run, read };
  }

  private async easelFor(config: Config, weights: Weights): Promise<Easel> {
    if (this.easel?.key === weights.key) return this.easel;
    await this.close();
    const { files, gpu } = this;
    // Read before anything is opened: where there is nothing to draw with, that is said at once.
    const learnt = weights.kind === "learnt" ? await learntBy(weights) : null;
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
      const { parameters } = pipeline.transformer;
      const layers = weights.kind === "adapter" ? await readLayers(files, weights.path) : null;
      const own = weights.kind === "learnt" ? await this.adapterOf(weights.run, session, parameters) : null;
      const adapter = own?.adapter ?? (layers ? new Adapter(session, parameters, adaptersOf(layers)) : null);
      const { steps, shift, guidance } = config.sample;
      const drawing = new Drawing(session, pipeline, [], { batch: 1, steps, shift, guidance });
      await session.open(gpu);
      await pipeline.loadWeights(session);
      if (weights.kind === "adapter") adapter!.load(session, layers!, weights.path);
      else if (weights.kind === "transformer") {
        const file = await Safetensors.open(files, weights.path);
        try {
          await loadParameters(session, parameters, tensorSource(file));
        } finally {
          await file.close();
        }
      } else if (own && learnt) {
        // Scales and what is derived from the base weights; the values themselves are the run's.
        own.begin(0);
        for (const variable of own.pools.flatMap(({ variables }) => variables))
          session.write(variable, learnt.values.get(variable.name)!);
      }
      this.easel = { key: weights.key, session, pipeline, drawing, adapter, step: learnt?.step ?? null };
      return this.easel;
    } catch (error) {
      // Of a device without room for all of it, what it gave must not stay taken.
      session.close();
      await pipeline.close();
      throw error;
    }
  }

  /** An adapter of the run's own shapes, which the file of a finished run would tell. */
  private async adapterOf(run: string, session: Session, parameters: Parameters): Promise<RunAdapter> {
    const source = `runs/${run}/config.resolved.toml`;
    const { config } = await loadConfig({ source, overrides: [] }, projectSources(this.files));
    if (config.adapter.kind === "full") throw nothingLearnt(run);
    return await makeAdapter(this.files, session, parameters, config);
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

async function learntBy({ run, read }: Extract<Weights, { kind: "learnt" }>): Promise<Learnt> {
  const learnt = await read();
  if (!learnt) throw nothingLearnt(run);
  return learnt;
}

const nothingLearnt = (run: string) =>
  new LongtailError("E-FILE-055", {
    what: "the run has no weights",
    where: `runs/${run}`,
    why: "it did not reach its end, and has no checkpoint with an adapter",
    fix: "resume it, or compare the samples that it drew on the way",
  });

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
