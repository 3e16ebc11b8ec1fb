// Draws pictures with a pipeline, batch by batch, and scores them: an Euler sampler without gradient, the decoder, and the
// picture towers of any number of CLIP models. Noise is a function of (seed, picture), the same before and after a run.

import { RandomStream } from "../base/random.ts";
import { shiftConfigOf } from "../diffusion/scheduler_config.ts";
import { samplerSigmas } from "../diffusion/shifting.ts";
import { modelTime, rolloutSigmas } from "../diffusion/sigmas.ts";
import { SINUSOID_WIDTH, sinusoids } from "../models/flux/embeddings.ts";
import { type Geometry, geometryName, type Pipeline, TOKEN_PIXELS } from "../models/pipeline.ts";
import { clamp } from "../ops/pointwise.ts";
import { pictureFeatures } from "../rewards/clip_reward.ts";
import type { ClipScorer } from "../rewards/scorer.ts";
import type { Plan, Session } from "../tensor/session.ts";
import type { Variable } from "../tensor/variable.ts";
import { traceEulerStep } from "./srpo/steps.ts";

export interface DrawingOptions {
  batch: number;
  steps: number;
  /** Static time shift; "auto" takes the schedule of the pipeline's own scheduler, which may depend on the size. */
  shift: number | "auto";
  guidance: number;
  /** Size of the pictures; the pipeline's square where it is not given. */
  geometry?: Geometry;
}

export interface DrawRequest {
  states: Float32Array;
  pooled: Float32Array;
  /** Initial noise [rows · columns · C]. */
  noise: Float32Array;
}

export interface Drawn {
  /** [3 · height · width] in [0, 1]. */
  picture: Float32Array;
  /** Unit features by scorer, in the order given to the constructor. */
  features: Float32Array[];
}

export class Drawing {
  readonly options: DrawingOptions;
  readonly geometry: Geometry;
  /** Noise levels from 1 to 0, one more than steps. */
  readonly sigmas: Float32Array;
  readonly plans: { step: Plan; finish: Plan };
  private readonly session: Session;
  private readonly pipeline: Pipeline;
  private readonly vars: Record<"z" | "states" | "pooled" | "time" | "guidance" | "step" | "pictures", Variable>;
  private readonly features: Variable[];

  /** Traces the plans; the session must not be open yet. One session takes one drawing of each geometry. */
  constructor(session: Session, pipeline: Pipeline, scorers: readonly ClipScorer[], options: DrawingOptions) {
    this.session = session;
    this.pipeline = pipeline;
    this.options = options;
    const { batch } = options;
    this.geometry = options.geometry ?? pipeline.geometry;
    const { rows, columns } = this.geometry;
    this.sigmas =
      options.shift === "auto"
        ? samplerSigmas(
            options.steps,
            shiftConfigOf(pipeline.layout.scheduler, pipeline.config.guidance),
            rows * columns,
          )
        : rolloutSigmas(options.steps, options.shift);
    const title = options.geometry ? `draw ${geometryName(options.geometry)}` : "draw";
    const data = (name: string, shape: number[]) => session.data(`${title}.${name}`, shape);
    this.vars = {
      z: data("z", [batch, rows * columns, pipeline.channels]),
      states: data("states", [batch, pipeline.textLength, pipeline.config.jointWidth]),
      pooled: data("pooled", [batch, pipeline.config.pooledWidth]),
      time: data("time", [batch, SINUSOID_WIDTH]),
      guidance: data("guidance", [batch, SINUSOID_WIDTH]),
      step: data("step", [1]),
      pictures: data("pictures", [batch, 3, TOKEN_PIXELS * rows, TOKEN_PIXELS * columns]),
    };
    this.features = scorers.map((s) => data(`features.${s.name}`, [batch, s.width]));
    const step = session.plan(`${title} step`, (graph) => {
      const read = (name: keyof typeof this.vars) => graph.read(this.vars[name]);
      graph.assign(
        this.vars.z,
        traceEulerStep(graph, pipeline.transformer, read("z"), {
          states: read("states"),
          pooled: read("pooled"),
          time: read("time"),
          guidance: pipeline.config.guidance ? read("guidance") : undefined,
          step: read("step"),
          ...pipeline.rotary(graph, session, this.geometry),
        }),
      );
    });
    const finish = session.plan(`${title} finish`, (graph) => {
      const pictures = clamp(pipeline.decode(graph, graph.read(this.vars.z), this.geometry), 0, 1);
      graph.assign(this.vars.pictures, pictures);
      scorers.forEach((scorer, i) => {
        const constant = (name: string, values: Float32Array | Uint32Array, shape: readonly number[]) =>
          session.constant(graph, name, values, shape);
        graph.assign(
          this.features[i]!,
          graph.scope(scorer.name, () => pictureFeatures(scorer.model, graph, pictures, constant)).features,
        );
      });
    });
    this.plans = { step, finish };
  }

  /**
   * What the network is told at `sigma`. Under a static shift the recipe of SRPO, 1000 sigma cut to an integer; pipelines
   * of diffusers tell it sigma itself, by way of a float32 timestep.
   */
  private timeAt(sigma: number): number {
    return this.options.shift === "auto" ? Math.fround(Math.fround(1000 * sigma) / 1000) : modelTime(sigma);
  }

  /** The packed latents of the last batch, before the decoder. */
  get latents(): Variable {
    return this.vars.z;
  }

  /** Noise of picture `index` under `seed`. */
  noise(seed: number, index: number): Float32Array {
    const values = this.geometry.rows * this.geometry.columns * this.pipeline.channels;
    return Float32Array.from(new RandomStream(seed, "drawing noise").normals(index, values));
  }

  /** Draws all requests; `onDrawn` hears how many are done. */
  async draw(requests: readonly DrawRequest[], onDrawn?: (done: number) => void | Promise<void>): Promise<Drawn[]> {
    const { session, vars, sigmas } = this;
    const { batch, steps, guidance } = this.options;
    const out: Drawn[] = [];
    const ones = Array.from({ length: batch }, () => 1);
    for (let at = 0; at < requests.length; at += batch) {
      // The last batch is filled up with its first request; the surplus is drawn and dropped.
      const part = ones.map((_, i) => requests[at + i] ?? requests[at]!);
      const gather = (pick: (r: DrawRequest) => Float32Array) => {
        const size = pick(part[0]!).length;
        const all = new Float32Array(batch * size);
        part.forEach((r, i) => all.set(pick(r), i * size));
        return all;
      };
      session.write(
        vars.z,
        gather((r) => r.noise),
      );
      session.write(
        vars.states,
        gather((r) => r.states),
      );
      session.write(
        vars.pooled,
        gather((r) => r.pooled),
      );
      session.write(vars.guidance, sinusoids(ones.map(() => guidance)));
      for (let i = 0; i < steps; i++) {
        session.write(vars.time, sinusoids(ones.map(() => this.timeAt(sigmas[i]!))));
        session.write(vars.step, Float32Array.of(sigmas[i + 1]! - sigmas[i]!));
        session.run(this.plans.step);
      }
      session.run(this.plans.finish);
      const pictures = await session.read(vars.pictures);
      const features = [];
      for (const variable of this.features) features.push(await session.read(variable));
      const size = pictures.length / batch;
      const kept = Math.min(batch, requests.length - at);
      for (let i = 0; i < kept; i++) {
        out.push({
          picture: pictures.slice(i * size, (i + 1) * size),
          features: features.map((f) => f.slice(i * (f.length / batch), (i + 1) * (f.length / batch))),
        });
      }
      await onDrawn?.(out.length);
    }
    return out;
  }
}
