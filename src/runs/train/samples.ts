// Samples of a training run: the same prompts from the same noise at step 0 and every so many updates, drawn from the
// averaged weights where the run keeps an average. PNG files carry prompt, seed and step inside.

import type { EventSink } from "../../base/events.ts";
import type { FileStore } from "../../base/files.ts";
import { join } from "../../base/paths.ts";
import { encodePng, fromPlanes } from "../../formats/png.ts";
import type { DrawRequest } from "../../training/drawing.ts";
import { type EncodingCache, textOfEntry } from "../../training/encoding_cache.ts";
import type { Config } from "../config/schema.ts";
import type { RunHost } from "../host.ts";
import type { Phases } from "../phases.ts";
import type { RunFolder } from "../run_folder.ts";
import { withAverage } from "./average.ts";
import type { TrainState } from "./state.ts";
import type { TrainWorld } from "./world.ts";

/** Name of the phase in which the samples of a step are drawn. */
export const samplesPhase = (step: number): string => `draw samples, step ${step}`;

export interface SamplePrompt {
  prompt: string;
  /** Key of its text in the cache, and of the negative prompt's where there is classifier-free guidance. */
  key: string;
  negativeKey?: string;
}

export class SampleDrawer {
  readonly prompts: readonly SamplePrompt[];
  private readonly files: FileStore;
  private readonly run: RunFolder;
  private readonly config: Config;
  private readonly cache: EncodingCache;
  private readonly phases: Phases;
  private readonly emit: EventSink;
  private readonly onlooker: RunHost["onlooker"];

  constructor(parts: {
    files: FileStore;
    run: RunFolder;
    config: Config;
    cache: EncodingCache;
    phases: Phases;
    emit: EventSink;
    prompts: readonly SamplePrompt[];
    onlooker?: RunHost["onlooker"];
  }) {
    this.files = parts.files;
    this.run = parts.run;
    this.config = parts.config;
    this.cache = parts.cache;
    this.phases = parts.phases;
    this.emit = parts.emit;
    this.prompts = parts.prompts;
    this.onlooker = parts.onlooker;
  }

  /** Pictures of one sampling. */
  get count(): number {
    return this.prompts.length * this.config.sample.pictures;
  }

  /** Draws all prompts and writes `samples/step-…/NN-seedS.png`; noted in the state. */
  async draw(world: TrainWorld, state: TrainState, step: number): Promise<void> {
    if (this.count === 0) return;
    const { seed, pictures } = this.config.sample;
    const requests: DrawRequest[] = [];
    const embedding = async (key: string) => {
      const { found } = await this.cache.get(key);
      if (!found) throw new Error(`the text ${key} of a sample is not in the cache`);
      return textOfEntry(found);
    };
    for (const [p, { key, negativeKey }] of this.prompts.entries()) {
      const text = await embedding(key);
      const negative = negativeKey ? { negative: await embedding(negativeKey) } : {};
      for (let i = 0; i < pictures; i++) {
        const noise = world.drawing.noise(seed, p * pictures + i);
        requests.push({ ...text, ...negative, noise });
      }
    }
    const items = requests.map((_, index) => this.prompts[Math.floor(index / pictures)]!.prompt);
    const onlooker = this.onlooker?.({ step, items }) ?? null;
    const drawn = await this.phases.timed(samplesPhase(step), requests.length, "pictures", (tick) =>
      withAverage(world, () => world.drawing.draw(requests, (done) => tick(done), undefined, onlooker)),
    );
    const side = world.pipeline.imageSize;
    const paths: string[] = [];
    for (const [index, { picture }] of drawn.entries()) {
      const prompt = items[index]!;
      const path = this.run.paths.picture(step, index, seed);
      const text = { prompt, seed: String(seed), picture: String(index), step: String(step), software: "longtail" };
      await this.files.writeAtomic(path, encodePng(fromPlanes(picture, side, side, text)));
      const inside = join("samples", path.split("samples/").at(-1)!);
      paths.push(inside);
      this.emit({ kind: "sample", step, path: inside, item: prompt, seed });
    }
    // A sampling on demand may repeat a step.
    state.samples = [...state.samples.filter((s) => s.step !== step), { step, paths }].sort((a, b) => a.step - b.step);
  }
}
