// The flow-matching trainer: writes what changes from update to update, replays the plans of plans.ts, and reads the report.
// All that is random is a function of (seed, update, sample), noise on the device and sigmas on the host, so an update can
// be repeated and a run resumed to the bit.

import { joined } from "../../base/arrays.ts";
import { RandomStream } from "../../base/random.ts";
import { drawSigma, type SigmaSettings } from "../../diffusion/samplers.ts";
import { sigmaWeight, type Weighting } from "../../diffusion/weightings.ts";
import { type Geometry, geometryName } from "../../models/pipeline.ts";
import { randomKey } from "../../ops/random.ts";
import type { Optimizer } from "../../optim/optimizer.ts";
import { learningRate, type Schedule } from "../../optim/schedules.ts";
import type { Session } from "../../tensor/session.ts";
import { SubmitRate } from "../submit_rate.ts";
import { type FlowModel, FlowPlanner, type FlowPlans, type FlowShelf } from "./plans.ts";
import { type FlowReport, summariseFlow } from "./reports.ts";
import { type FlowLossKind, type HuberSchedule, huberDelta } from "./steps.ts";

export type { FlowModel, FlowPlans } from "./plans.ts";
export type { FlowReport } from "./reports.ts";

/** One picture with its text, encoded. */
export interface FlowSample {
  /** Packed, model-scaled latents [rows · columns · C]. */
  latents: Float32Array;
  /** T5 states [Lt · J] and pooled text [P]. */
  states: Float32Array;
  pooled: Float32Array;
  /** Factor on its loss: 1, or the weight of prior preservation. */
  weight: number;
}

export interface FlowSettings {
  /** Samples of a micro-step, and micro-steps whose gradients add up to one update. */
  batch: number;
  accumulation: number;
  sigma: SigmaSettings;
  weighting: Weighting;
  loss: FlowLossKind;
  /** Delta of the pseudo-Huber losses, 0.1 and the same at all sigmas by default. */
  huberDelta?: number;
  huberSchedule?: HuberSchedule;
  /** What the network is told as guidance; models without a guidance embedder ignore it. */
  guidance: number;
  seed: number;
  schedule: Schedule;
  /** Trace transformer blocks again in the backward pass. */
  checkpointing: boolean;
  /** Sigmas at which `validate` measures every sample; eight, evenly spread, by default; [] traces no validation. */
  validationSigmas?: readonly number[];
  /**
   * Called before each replay of a plan that trains, with its number counted from 1 over the whole run: an adapter's
   * dropout takes its masks from it (`Adapter.writeDropout`).
   */
  beforeReplay?: (replay: number) => void;
  /** Noise comes with every step instead of from the device's counters: for comparisons with other programs. */
  givenNoise?: boolean;
  /** Frequencies of the sinusoids, for comparisons. */
  frequencies?: Float32Array;
}

/** Random choices of one update, for comparisons. */
export interface DrawnFlow {
  /** [samples · L · C]; with `givenNoise`. */
  noise?: Float32Array;
  sigmas?: readonly number[];
}

export const VALIDATION_SIGMAS: readonly number[] = Array.from({ length: 8 }, (_, i) => (i + 0.5) / 8);

export class FlowTrainer {
  readonly settings: FlowSettings;
  /** By the geometry's name. */
  readonly plans: ReadonlyMap<string, FlowPlans>;
  private readonly session: Session;
  private readonly optimizer: Optimizer;
  private readonly planner: FlowPlanner;
  private readonly validationSigmas: readonly number[];
  private readonly streams: Record<"noise" | "sigma" | "validation", RandomStream>;
  private readonly rate = new SubmitRate();

  /** Declares all memory and traces all plans; the session must not be open yet. */
  constructor(
    session: Session,
    model: FlowModel,
    optimizer: Optimizer,
    geometries: readonly Geometry[],
    settings: FlowSettings,
  ) {
    this.session = session;
    this.optimizer = optimizer;
    this.settings = settings;
    this.validationSigmas = settings.validationSigmas ?? VALIDATION_SIGMAS;
    const stream = (name: string) => new RandomStream(settings.seed, `flow ${name}`);
    this.streams = { noise: stream("noise"), sigma: stream("sigma"), validation: stream("validation") };
    const { batch, accumulation, loss, checkpointing, givenNoise = false } = settings;
    const validates = this.validationSigmas.length > 0;
    const options = { batch, accumulation, loss, checkpointing, givenNoise, validates };
    this.planner = new FlowPlanner(session, model, optimizer, geometries, options);
    this.plans = new Map([...this.planner.shelves].map(([name, { plans }]) => [name, plans]));
  }

  /** Samples of one update. */
  get samplesPerUpdate(): number {
    return this.settings.batch * this.settings.accumulation;
  }

  /** FLOP of one update on pictures of a size. */
  flopsPerUpdate(geometry: Geometry): number {
    const { update, begin, micro } = this.shelfOf(geometry).plans;
    if (update) return update.flops;
    return begin!.flops + this.settings.accumulation * micro!.flops + (this.planner.optimizerPlan?.flops ?? 0);
  }

  /** Sigma of each sample of update `step`. */
  sigmas(step: number, geometry: Geometry): number[] {
    const tokens = geometry.rows * geometry.columns;
    return Array.from({ length: this.samplesPerUpdate }, (_, i) =>
      drawSigma(this.settings.sigma, this.streams.sigma, step, i, tokens),
    );
  }

  /**
   * Update `t`, counted from 1, from `samplesPerUpdate` samples of one geometry. The promise resolves when the device has
   * done it; nothing but the loss scale is changed where it says `finite: false`.
   * Throws a plain Error where the samples are not as many as an update takes, or of another size.
   */
  async step(
    t: number,
    samples: readonly FlowSample[],
    geometry: Geometry,
    drawn: DrawnFlow = {},
  ): Promise<FlowReport> {
    const { session, settings } = this;
    const started = performance.now();
    const shelf = this.shelfOf(geometry);
    this.checkSamples(samples, shelf);
    const sigmas = [...(drawn.sigmas ?? this.sigmas(t, geometry))];
    const rate = learningRate(settings.schedule, t);
    this.optimizer.write(session, rate, t);
    await this.start(shelf, t);
    const stage = (shelf.plans.update ?? shelf.plans.micro)!;
    for (let slot = 0; slot < settings.accumulation; slot++) {
      settings.beforeReplay?.((t - 1) * settings.accumulation + slot + 1);
      this.writeMicro(shelf, slot, samples, sigmas, drawn.noise);
      await stage.run();
      if (this.planner.reports)
        session.copyInto(this.planner.shared.report, this.planner.reports, slot * (1 + settings.batch));
    }
    if (this.planner.optimizerPlan) await session.replay(this.planner.optimizerPlan);
    const reports = await session.read(this.planner.reports ?? this.planner.shared.report);
    const optimizer = await this.optimizer.read(session);
    const works = [...this.plans.values()].flatMap(({ update, begin, micro, validate }) => [
      update,
      begin,
      micro,
      validate,
    ]);
    this.rate.learn(settings.accumulation * stage.flops, performance.now() - started, works);
    return summariseFlow(
      { step: t, rate: this.optimizer.rate(rate, t), sigmas },
      reports,
      settings.accumulation,
      optimizer,
    );
  }

  /** Clears gradients and draws noise, or hands over the key with which the update draws its own. */
  private async start(shelf: FlowShelf, t: number): Promise<void> {
    const { session } = this;
    session.write(this.planner.shared.key, randomKey(this.streams.noise, t));
    if (shelf.plans.begin) await session.replay(shelf.plans.begin);
  }

  /** Writes what one micro-batch needs. */
  private writeMicro(
    shelf: FlowShelf,
    slot: number,
    samples: readonly FlowSample[],
    sigmas: readonly number[],
    noise: Float32Array | undefined,
  ): void {
    const { session, settings } = this;
    const { batch } = settings;
    const from = slot * batch;
    const part = samples.slice(from, from + batch);
    const own = sigmas.slice(from, from + batch);
    const total = this.samplesPerUpdate;
    const factors = part.map((sample, i) => (sample.weight * sigmaWeight(settings.weighting, own[i]!)) / total);
    this.writeSamples(shelf, part, own, factors);
    if (settings.givenNoise) {
      const size = shelf.given!.size;
      if (noise?.length !== settings.accumulation * size) throw new Error("the noise of the update was not given");
      session.write(shelf.given!, noise.subarray(slot * size, (slot + 1) * size));
    } else if (shelf.noise) {
      session.write(this.planner.shared.slot, new Uint32Array(batch).fill(slot));
    }
  }

  private writeSamples(
    shelf: FlowShelf,
    samples: readonly FlowSample[],
    sigmas: readonly number[],
    factors: readonly number[],
  ): void {
    const { session, settings } = this;
    const { shared } = this.planner;
    const { frequencies } = settings;
    session.write(shelf.latents, joined(samples.map((s) => s.latents)));
    shared.conditioning.writeTexts(session, samples);
    shared.conditioning.writeTimes(session, sigmas, frequencies);
    shared.conditioning.writeGuidance(session, settings.guidance, frequencies);
    session.write(shared.sigma, Float32Array.from(sigmas));
    session.write(
      shared.keep,
      Float32Array.from(sigmas, (s) => 1 - Math.fround(s)),
    );
    session.write(shared.factor, Float32Array.from(factors));
    if (settings.loss !== "mse") {
      const { huberSchedule = "constant", huberDelta: delta = 0.1 } = settings;
      session.write(
        shared.delta,
        Float32Array.from(sigmas, (s) => huberDelta(huberSchedule, delta, s)),
      );
    }
  }

  /**
   * Mean loss of the samples over the validation sigmas, without weights and without gradient. The noise belongs to the
   * place of a sample in the list, so the same samples are measured in the same way at any time and with any batch.
   */
  async validate(samples: readonly FlowSample[], geometry: Geometry): Promise<number> {
    const { session, settings } = this;
    const shelf = this.shelfOf(geometry);
    if (!shelf.plans.validate) throw new Error("this trainer has no validation sigmas");
    this.checkSamples(samples, shelf, samples.length);
    const size = shelf.given!.size / settings.batch;
    const noises = samples.map((_, i) => this.streams.validation.normals(i, size));
    const jobs = samples.flatMap((sample, i) =>
      this.validationSigmas.map((sigma) => ({ sample, noise: noises[i]!, sigma: Math.fround(sigma) })),
    );
    let sum = 0;
    for (let at = 0; at < jobs.length; at += settings.batch) {
      // The last batch is filled up with its first job, which counts once.
      const part = Array.from({ length: settings.batch }, (_, i) => jobs[at + i] ?? jobs[at]!);
      this.writeSamples(
        shelf,
        part.map((j) => j.sample),
        part.map((j) => j.sigma),
        part.map(() => 0),
      );
      session.write(shelf.given!, joined(part.map((j) => j.noise)));
      await shelf.plans.validate.run();
      const report = await session.read(this.planner.shared.report);
      const kept = Math.min(settings.batch, jobs.length - at);
      for (let i = 0; i < kept; i++) sum += report[1 + i]!;
    }
    return sum / jobs.length;
  }

  /**
   * Repeats an update whose numbers were not finite, call by call, and says which kernel first made such a number; the
   * optimizer's part is not repeated, so parameters stay as they are.
   */
  async locateNotFinite(
    t: number,
    samples: readonly FlowSample[],
    geometry: Geometry,
    drawn: DrawnFlow = {},
  ): Promise<string> {
    const { session, settings } = this;
    const shelf = this.shelfOf(geometry);
    const sigmas = [...(drawn.sigmas ?? this.sigmas(t, geometry))];
    await this.start(shelf, t);
    // What the failed update left in them would be found in the first call that adds to it.
    for (const pool of this.optimizer.gradients) session.clear(pool);
    const stage = (shelf.plans.update ?? shelf.plans.micro)!;
    for (let slot = 0; slot < settings.accumulation; slot++) {
      settings.beforeReplay?.((t - 1) * settings.accumulation + slot + 1);
      this.writeMicro(shelf, slot, samples, sigmas, drawn.noise);
      const found = await stage.firstNotFinite();
      if (found) return `${found.label} in ${found.scope || found.plan} (${found.plan}, micro-step ${slot + 1})`;
    }
    return "the sum of gradients: single values are finite, their squares are not";
  }

  private shelfOf(geometry: Geometry): FlowShelf {
    const shelf = this.planner.shelves.get(geometryName(geometry));
    if (shelf) return shelf;
    throw new Error(
      `the trainer has no plans for ${geometryName(geometry)}; it has ${[...this.planner.shelves.keys()]}`,
    );
  }

  private checkSamples(samples: readonly FlowSample[], shelf: FlowShelf, count = this.samplesPerUpdate): void {
    const size = shelf.latents.size / this.settings.batch;
    const other = samples.find((sample) => sample.latents.length !== size);
    const where = `pictures of ${geometryName(shelf.geometry)} tokens`;
    if (other) throw new Error(`${where} have ${size} latent values, and a sample has ${other.latents.length}`);
    if (samples.length !== count || count === 0)
      throw new Error(`${where}: ${samples.length} samples instead of ${count}`);
  }
}
