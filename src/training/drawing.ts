// Draws pictures with a pipeline, batch by batch, and scores them: an Euler sampler without gradient, the decoder, and the
// picture towers of any number of CLIP models. Noise is a function of (seed, picture), the same before and after a run.

import { joined } from "../base/arrays.ts";
import { RandomStream } from "../base/random.ts";
import { guidedVelocity } from "../diffusion/classifier_free.ts";
import { pipelineSigmas } from "../diffusion/scheduler_config.ts";
import { modelTime, rolloutSigmas } from "../diffusion/sigmas.ts";
import { type Geometry, geometryName, type Pipeline, TOKEN_PIXELS } from "../models/pipeline.ts";
import { TiledDecoder } from "../models/vae/tiling.ts";
import { ConditioningVariables, type TextEmbedding } from "../models/velocity_network.ts";
import { clamp } from "../ops/pointwise.ts";
import { pictureFeatures } from "../rewards/clip_reward.ts";
import type { ClipScorer } from "../rewards/scorer.ts";
import type { Graph, Tensor } from "../tensor/graph.ts";
import type { Plan, Session } from "../tensor/session.ts";
import type { Variable } from "../tensor/variable.ts";
import { eulerStep } from "./srpo/steps.ts";
import { type Stage, stageOf } from "./stage.ts";

export interface DrawingOptions {
  batch: number;
  steps: number;
  /** Static time shift; "auto" takes the schedule of the pipeline's own scheduler, which may depend on the size. */
  shift: number | "auto";
  guidance: number;
  /** Scale of classifier-free guidance; at 1, the default, the network is asked once a step. */
  classifierFree?: number;
  /** Size of the pictures; the pipeline's square where it is not given. */
  geometry?: Geometry;
  /** The first step that is taken, of `steps`; requests bring latents with the noise of its sigma then. 0 by default. */
  first?: number;
}

export interface DrawRequest extends TextEmbedding {
  /** Initial noise [rows · columns · C], or what drawing starts from at a later step. */
  noise: Float32Array;
  /** What classifier-free guidance leads away from; read where the scale is not 1. */
  negative?: TextEmbedding;
}

export interface Drawn {
  /** [3 · height · width] in [0, 1]. */
  picture: Float32Array;
  /** Unit features by scorer, in the order given to the constructor. */
  features: Float32Array[];
}

/** Somebody who looks on while pictures take shape. */
export interface Onlooker {
  /** Asked before each step but the last: whether to show what comes after it. */
  wanted(): boolean;
  /**
   * What the pictures would become if the rest of the way were straight, [3 · height · width] in [0, 1] each.
   * @param first number of the request that the first one is of
   * @param cost milliseconds that the drawing was held up for it: those of a decoding
   */
  show(pictures: readonly Float32Array[], first: number, done: number, steps: number, cost: number): void;
}

export class Drawing {
  readonly options: DrawingOptions;
  readonly geometry: Geometry;
  /** Noise levels from 1 to 0, one more than steps. */
  readonly sigmas: Float32Array;
  /**
   * `step` ends a step; with classifier-free guidance `ask` comes before it, which keeps the prompted velocity. `finish` decodes
   * and scores; where pictures are decoded in tiles it decodes one tile, and `score` does the rest.
   */
  readonly plans: { ask?: Stage; step: Stage; finish: Plan; score?: Plan };
  private readonly session: Session;
  private readonly pipeline: Pipeline;
  private readonly vars: Record<"z" | "step" | "pictures", Variable>;
  private readonly conditioning: ConditioningVariables;
  private readonly negative: ConditioningVariables | null;
  private readonly features: Variable[];
  /** For pictures whose values exceed a binding. */
  private readonly tiled: TiledDecoder | null = null;

  /** Traces the plans; the session must not be open yet. One session takes one drawing of each geometry. */
  constructor(session: Session, pipeline: Pipeline, scorers: readonly ClipScorer[], options: DrawingOptions) {
    this.session = session;
    this.pipeline = pipeline;
    this.options = options;
    const { batch } = options;
    this.geometry = options.geometry ?? pipeline.geometry;
    const { rows, columns } = this.geometry;
    this.sigmas = this.sigmasOf(options.steps);
    const title = options.geometry ? `draw ${geometryName(options.geometry)}` : "draw";
    const data = (name: string, shape: number[]) => session.data(`${title}.${name}`, shape);
    this.vars = {
      z: data("z", [batch, rows * columns, pipeline.channels]),
      step: data("step", [1]),
      pictures: data("pictures", [batch, 3, TOKEN_PIXELS * rows, TOKEN_PIXELS * columns]),
    };
    this.conditioning = new ConditioningVariables(session, title, pipeline.config, batch, pipeline.textLength);
    const scale = options.classifierFree ?? 1;
    this.negative =
      scale === 1
        ? null
        : new ConditioningVariables(session, `${title}.negative`, pipeline.config, batch, pipeline.textLength);
    this.features = scorers.map((s) => data(`features.${s.name}`, [batch, s.width]));
    // Both velocities of a guided step come from plans of their own: side by side their values would be twice as large.
    const { vars, geometry } = this;
    const stage = (
      name: string,
      conditioning: ConditioningVariables,
      use: (graph: Graph, v: Tensor, z: Tensor) => void,
    ) =>
      stageOf(session, pipeline.transformer, {
        name: `${title} ${name}`,
        conditioning,
        rotary: (graph) => pipeline.rotary(graph, session, geometry),
        imageTokens: rows * columns,
        training: false,
        inputs: (graph) => graph.read(vars.z),
        latents: (_, z) => z,
        judge: (graph, _, z, velocity) => {
          use(graph, velocity, z);
          return null;
        },
      });
    const move = (graph: Graph, velocity: Tensor, z: Tensor) =>
      graph.assign(vars.z, eulerStep(z, velocity, graph.read(vars.step)));
    const prompted = this.negative ? data("prompted", [...this.vars.z.shape]) : null;
    const plans =
      this.negative && prompted
        ? {
            ask: stage("ask", this.conditioning, (graph, v) => graph.assign(prompted, v)),
            step: stage("step", this.negative, (graph, v, z) =>
              move(graph, guidedVelocity(graph.read(prompted), v, scale), z),
            ),
          }
        : { step: stage("step", this.conditioning, move) };
    const score = (graph: Graph, pictures: Tensor) => {
      const constant = (name: string, values: Float32Array | Uint32Array, shape: readonly number[]) =>
        session.constant(graph, name, values, shape);
      scorers.forEach((scorer, i) => {
        graph.assign(
          this.features[i]!,
          graph.scope(scorer.name, () => pictureFeatures(scorer.model, graph, pictures, constant)).features,
        );
      });
    };
    const tile = pipeline.tile("decoder", this.geometry, session.target.maxBindingBytes);
    if (tile) {
      this.tiled = new TiledDecoder(
        session,
        { title: `${title} finish`, geometry: this.geometry, tile, channels: pipeline.channels },
        (graph, packed) => pipeline.decode(graph, packed, tile),
      );
      this.plans = { ...plans, finish: this.tiled.plan };
      if (scorers.length > 0)
        this.plans.score = session.plan(`${title} score`, (graph) => score(graph, graph.read(this.vars.pictures)));
      return;
    }
    const finish = session.plan(`${title} finish`, (graph) => {
      const pictures = clamp(pipeline.decode(graph, graph.read(this.vars.z), this.geometry), 0, 1);
      graph.assign(this.vars.pictures, pictures);
      score(graph, pictures);
    });
    this.plans = { ...plans, finish };
  }

  /** Noise levels of a drawing in so many steps. */
  private sigmasOf(steps: number): Float32Array {
    const { options, pipeline, geometry } = this;
    if (options.shift !== "auto") return rolloutSigmas(steps, options.shift);
    const tokens = geometry.rows * geometry.columns;
    return pipelineSigmas({ ...pipeline.layout, guided: pipeline.config.guidance }, steps, tokens);
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

  /** Decodes and scores the first `kept` latents of the batch, the others maybe; gives the pictures of a whole batch. */
  private async finish(kept: number): Promise<Float32Array> {
    const { session, vars, tiled, plans } = this;
    if (!tiled) {
      await session.replay(plans.finish);
      return session.read(vars.pictures);
    }
    const latents = await session.read(vars.z);
    const pictures = new Float32Array(vars.pictures.size);
    const [from, to] = [latents.length, pictures.length].map((n) => n / this.options.batch) as [number, number];
    for (let i = 0; i < kept; i++) {
      const picture = await tiled.decode(latents.subarray(i * from, (i + 1) * from));
      // Tiles are blended as the decoder gives them, before the clamp, as in diffusers.
      pictures.set(
        picture.map((v) => Math.min(Math.max(v, 0), 1)),
        i * to,
      );
    }
    if (plans.score) {
      session.write(vars.pictures, pictures);
      await session.replay(plans.score);
    }
    return pictures;
  }

  /**
   * The pictures at the end of a straight way: a step from `before` at `sigma` to the latents at `next` shows the velocity, and
   * what is left of it leads to sigma 0. The latents are afterwards what they were, to the bit.
   */
  private async foreseen(before: Float32Array, sigma: number, next: number, kept: number) {
    const { session, vars } = this;
    const latents = await session.read(vars.z);
    const began = performance.now();
    const rest = next / (next - sigma);
    session.write(
      vars.z,
      latents.map((z, i) => z - rest * (z - before[i]!)),
    );
    const pictures = await this.finish(kept);
    session.write(vars.z, latents);
    const cost = performance.now() - began;
    const size = pictures.length / this.options.batch;
    return { pictures: Array.from({ length: kept }, (_, i) => pictures.slice(i * size, (i + 1) * size)), cost };
  }

  /**
   * Draws all requests; `onDrawn` hears how many are done.
   * @param steps other than `options.steps`; the plans are the same
   * @param onlooker changes no bit of what is drawn
   */
  async draw(
    requests: readonly DrawRequest[],
    onDrawn?: (done: number) => void | Promise<void>,
    steps: number = this.options.steps,
    onlooker: Onlooker | null = null,
  ): Promise<Drawn[]> {
    const { session, vars } = this;
    const { batch, guidance, first = 0 } = this.options;
    const sigmas = steps === this.options.steps ? this.sigmas : this.sigmasOf(steps);
    const told = [this.conditioning, ...(this.negative ? [this.negative] : [])];
    const out: Drawn[] = [];
    const ones = Array.from({ length: batch }, () => 1);
    for (let at = 0; at < requests.length; at += batch) {
      // The last batch is filled up with its first request; the surplus is drawn and dropped.
      const part = ones.map((_, i) => requests[at + i] ?? requests[at]!);
      const kept = Math.min(batch, requests.length - at);
      session.write(vars.z, joined(part.map((r) => r.noise)));
      this.conditioning.writeTexts(session, part);
      this.negative?.writeTexts(session, part.map(negativeOf));
      for (const conditioning of told) conditioning.writeGuidance(session, guidance);
      for (let i = first; i < steps; i++) {
        const times = part.map(() => this.timeAt(sigmas[i]!));
        for (const conditioning of told) conditioning.writeTimes(session, times);
        session.write(vars.step, Float32Array.of(sigmas[i + 1]! - sigmas[i]!));
        const before = onlooker && i + 1 < steps && onlooker.wanted() ? await session.read(vars.z) : null;
        await this.plans.ask?.run();
        await this.plans.step.run();
        if (before) {
          const { pictures, cost } = await this.foreseen(before, sigmas[i]!, sigmas[i + 1]!, kept);
          onlooker!.show(pictures, at, i + 1, steps, cost);
        }
      }
      const pictures = await this.finish(kept);
      const features = [];
      for (const variable of this.features) features.push(await session.read(variable));
      const size = pictures.length / batch;
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

function negativeOf({ negative }: DrawRequest): TextEmbedding {
  if (!negative) throw new Error("classifier-free guidance needs the embedding of a negative prompt");
  return negative;
}
