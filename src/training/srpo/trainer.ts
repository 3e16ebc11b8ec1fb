// SRPO's update (arXiv 2509.06942, Direct-Align): a rollout from shared noise without gradient, one or two micro-steps that
// put the noise back and recover the picture, rewards with positive and negative texts, and one AdamW step. Everything
// random is a function of (seed, update), so an update can be repeated and a run resumed to the bit.

import { joined } from "../../base/arrays.ts";
import { RandomStream } from "../../base/random.ts";
import { modelTime, rolloutSigmas } from "../../diffusion/sigmas.ts";
import type { Pipeline } from "../../models/pipeline.ts";
import { ConditioningVariables } from "../../models/velocity_network.ts";
import { full } from "../../ops/pointwise.ts";
import { reshape } from "../../ops/reshape.ts";
import { concat } from "../../ops/slab.ts";
import { Optimizer, type OptimizerSettings, type ParameterGroup } from "../../optim/optimizer.ts";
import { learningRate, type Schedule } from "../../optim/schedules.ts";
import type { Graph, Tensor } from "../../tensor/graph.ts";
import type { Plan, Session } from "../../tensor/session.ts";
import type { Variable } from "../../tensor/variable.ts";
import { type NotFinite, type Stage, type StageParts, stageOf } from "../stage.ts";
import { SubmitRate } from "../submit_rate.ts";
import { type Branch, type BranchKind, type BranchOptions, branchesOf } from "./branches.ts";
import {
  declareTexts,
  type PreparedPrompt,
  type RewardTexts,
  SCALARS,
  type SrpoReward,
  writeBranches,
} from "./micro_inputs.ts";
import { summariseUpdate, type UpdateReport } from "./reports.ts";
import { type AlignInputs, eulerStep, injectNoise, judgeVelocity, type RewardTerm } from "./steps.ts";

export type { PreparedPrompt, SrpoReward } from "./micro_inputs.ts";

export interface SrpoSettings {
  /** Prompts of a micro-batch, and micro-batches whose gradients add up to one update. */
  batch: number;
  accumulation: number;
  rolloutSteps: number;
  shift: number;
  branch: BranchOptions;
  branches: readonly BranchKind[];
  /** Both branches in one batch of twice the size. */
  stacked: boolean;
  /** m0 is drawn from [margin, N - margin]. */
  timestepMargin: number;
  threshold: number;
  offline: boolean;
  /** One noise for all prompts of an update. */
  sameNoise: boolean;
  rolloutGuidance: number;
  trainGuidance: number;
  seed: number;
  optimizer: OptimizerSettings;
  schedule: Schedule;
  /** Trace transformer blocks again in the backward pass. */
  checkpointing: boolean;
  /** Called before each micro-step with its number, counted from 1 over the whole run: adapters with dropout draw then. */
  beforeReplay?: (replay: number) => void;
}

/** What training needs of a pipeline. */
export type SrpoModel = Pick<
  Pipeline,
  "transformer" | "config" | "channels" | "textLength" | "imageTokens" | "imageSize" | "rotary" | "encode" | "decode"
>;

export class SrpoTrainer {
  readonly settings: SrpoSettings;
  readonly plans: { rollout: Stage | null; encode: Plan | null; micro: Stage; optimizer: Plan };
  readonly optimizer: Optimizer;
  private readonly session: Session;
  private readonly pipeline: SrpoModel;
  private readonly rewards: readonly SrpoReward[];
  private readonly vars: Record<string, Variable> = {};
  private readonly conditioning: ConditioningVariables;
  private rolloutConditioning: ConditioningVariables | null = null;
  private texts: readonly RewardTexts[] = [];
  private readonly rate = new SubmitRate();

  /** Declares all memory and traces all plans; the session must not be open yet. `trained` holds what is trained. */
  constructor(
    session: Session,
    pipeline: SrpoModel,
    trained: readonly ParameterGroup[],
    rewards: readonly SrpoReward[],
    settings: SrpoSettings,
  ) {
    this.session = session;
    this.pipeline = pipeline;
    this.rewards = rewards;
    this.settings = settings;
    this.optimizer = new Optimizer(session, trained, settings.optimizer);
    const { batch } = settings;
    const samples = this.samples;
    const tokens = pipeline.imageTokens;
    this.declare("clean", [batch, tokens, pipeline.channels]);
    this.declare("noise", [batch, tokens, pipeline.channels]);
    this.conditioning = new ConditioningVariables(session, "srpo", pipeline.config, samples, pipeline.textLength);
    for (const name of SCALARS) this.declare(name, [samples, 1, 1]);
    this.declare("lossWeight", [1]);
    const slots = this.microSteps;
    this.declare("report", [1 + 3 * samples]);
    // In a pool of its own: WebGPU refuses copies within one buffer.
    this.vars["reports"] = session.pool("srpo reports", "data").add("srpo.reports", [slots, 1 + 3 * samples], "f32");
    // First of all: a streamed model's passes share memory, and this one needs most.
    const micro = this.planMicro();
    this.plans = {
      rollout: settings.offline ? null : this.planRollout(),
      encode: settings.offline ? this.planEncode() : null,
      micro,
      optimizer: session.plan("optimizer", (graph) =>
        this.optimizer.trace(graph, { loss: graph.read(this.variable("reports")) }),
      ),
    };
  }

  /** Samples of one micro-step. */
  get samples(): number {
    return this.settings.stacked ? this.settings.batch * this.settings.branches.length : this.settings.batch;
  }

  /** Micro-steps of one update. */
  private get microSteps(): number {
    const { accumulation, stacked, branches } = this.settings;
    return accumulation * (stacked ? 1 : branches.length);
  }

  /** Prompts of one update. */
  get promptsPerUpdate(): number {
    return this.settings.batch * this.settings.accumulation;
  }

  private declare(name: string, shape: number[]): void {
    this.vars[name] = this.session.data(`srpo.${name}`, shape);
  }

  private variable(name: string): Variable {
    return this.vars[name]!;
  }

  private stage<V>(parts: Omit<StageParts<V>, "rotary" | "imageTokens">): Stage {
    const { session, pipeline } = this;
    const rotary = (graph: Graph) => pipeline.rotary(graph, session);
    return stageOf(session, pipeline.transformer, { ...parts, rotary, imageTokens: pipeline.imageTokens });
  }

  private planRollout(): Stage {
    const { batch } = this.settings;
    const { config, textLength } = this.pipeline;
    const conditioning = new ConditioningVariables(this.session, "srpo.rollout", config, batch, textLength);
    this.rolloutConditioning = conditioning;
    this.declare("rollout.step", [1]);
    return this.stage({
      name: "rollout",
      conditioning,
      training: false,
      inputs: (graph) => graph.read(this.variable("clean")),
      latents: (_, clean) => clean,
      judge: (graph, _, clean, velocity) => {
        graph.assign(this.variable("clean"), eulerStep(clean, velocity, graph.read(this.variable("rollout.step"))));
        return null;
      },
    });
  }

  private planEncode(): Plan {
    const side = this.pipeline.imageSize;
    this.declare("picture", [this.settings.batch, 3, side, side]);
    return this.session.plan("encode", (graph) => {
      graph.assign(this.variable("clean"), this.pipeline.encode(graph, graph.read(this.variable("picture"))));
    });
  }

  private planMicro(): Stage {
    this.texts = declareTexts(this.session, this.rewards, this.samples);
    const { settings, pipeline, session } = this;
    const { lossScale } = this.optimizer;
    return this.stage({
      name: "micro-step",
      conditioning: this.conditioning,
      training: true,
      checkpoint: settings.checkpointing,
      inputs: (graph) => this.readMicro(graph),
      latents: (_, inputs) => injectNoise(inputs),
      judge: (graph, inputs, z, velocity) => {
        const step = judgeVelocity(graph, z, velocity, inputs, {
          threshold: settings.threshold,
          decode: (g: Graph, packed: Tensor) => pipeline.decode(g, packed),
          constant: (name, values, shape) => session.constant(graph, name, values, shape),
        });
        const report = [step.loss, step.reward, step.positive, step.negative].map((t) => reshape(t, [t.size]));
        graph.assign(this.variable("report"), concat(report, 0));
        return { loss: step.loss, seed: lossScale ? graph.read(lossScale) : full(graph, [1], 1) };
      },
    });
  }

  /** What a micro-step reads; with stacked branches each holds the same clean latents and noise. */
  private readMicro(graph: Graph): AlignInputs {
    const read = (name: string) => graph.read(this.variable(name));
    const repeated = (name: string): Tensor => {
      const tensor = read(name);
      const times = this.samples / this.settings.batch;
      const all = Array.from({ length: times }, () => tensor);
      return times === 1 ? tensor : concat(all, 0);
    };
    const rewards: RewardTerm[] = this.rewards.map(({ scorer }, i) => {
      const text = this.texts[i]!;
      return {
        model: scorer.model,
        positive: graph.read(text.positive),
        negative: graph.read(text.negative),
        positiveFactor: graph.read(text.positiveFactor),
        negativeFactor: graph.read(text.negativeFactor),
      };
    });
    return {
      clean: repeated("clean"),
      noise: repeated("noise"),
      from: read("from"),
      keep: read("keep"),
      move: read("move"),
      to: read("to"),
      recover: read("recover"),
      rewards,
      lossWeight: read("lossWeight"),
    };
  }

  /** The index m0 of update `step`, drawn from [margin, N - margin]. */
  timestep(step: number): number {
    const { timestepMargin, branch, seed } = this.settings;
    return new RandomStream(seed, "srpo timestep").integer(
      step,
      0,
      timestepMargin,
      branch.timestepLength - timestepMargin,
    );
  }

  /** Initial noise of one micro-batch of update `step`, [batch · L · C]. */
  noise(step: number, part: number): Float32Array {
    const { batch, sameNoise, seed } = this.settings;
    const one = this.pipeline.imageTokens * this.pipeline.channels;
    const stream = new RandomStream(seed, "srpo noise");
    if (!sameNoise) return Float32Array.from(stream.normals(step, batch * one, part * batch * one));
    const shared = stream.normals(step, one);
    const out = new Float32Array(batch * one);
    for (let i = 0; i < batch; i++) out.set(shared, i * one);
    return out;
  }

  /**
   * One update from `promptsPerUpdate` prepared prompts. `drawn` replaces the random choices, for comparisons.
   * The returned promise resolves when the device has done it; nothing is changed where it says `finite: false`.
   */
  async update(
    step: number,
    prompts: readonly PreparedPrompt[],
    drawn?: { m0: number; noise: Float32Array },
  ): Promise<UpdateReport> {
    const { settings, session } = this;
    const started = performance.now();
    const m0 = drawn?.m0 ?? this.timestep(step);
    const all = branchesOf(settings.branch, m0);
    const branches = settings.branches.map((kind) => all[kind]);
    for (const pool of this.optimizer.gradients) session.clear(pool);
    session.write(this.variable("lossWeight"), Float32Array.of(1 / (this.promptsPerUpdate * settings.branches.length)));
    let slot = 0;
    for (let part = 0; part < settings.accumulation; part++) {
      const batch = prompts.slice(part * settings.batch, (part + 1) * settings.batch);
      await this.makeClean(batch, drawn?.noise ?? this.noise(step, part));
      for (const group of settings.stacked ? [branches] : branches.map((b) => [b])) {
        this.writeMicro(batch, group);
        settings.beforeReplay?.((step - 1) * this.microSteps + slot + 1);
        await this.plans.micro.run();
        session.copyInto(this.variable("report"), this.variable("reports"), slot++ * this.variable("report").size);
      }
    }
    const rate = learningRate(settings.schedule, step);
    this.optimizer.write(session, rate, step);
    await session.replay(this.plans.optimizer);
    const reports = await session.read(this.variable("reports"));
    const optimizer = await this.optimizer.read(session);
    const { rollout, encode, micro } = this.plans;
    const clean = rollout ? settings.rolloutSteps * rollout.flops : encode!.flops;
    const flops = settings.accumulation * clean + this.microSteps * micro.flops;
    this.rate.learn(flops, performance.now() - started, [rollout, encode, micro, this.plans.optimizer]);
    const { batch } = settings;
    return summariseUpdate(
      { step, rate: this.optimizer.rate(rate, step), m0, branches, batch, samples: this.samples },
      reports,
      optimizer,
    );
  }

  /**
   * Repeats an update whose numbers were not finite, call by call, and says which kernel first made such a number;
   * weights are as they were before it, because the optimizer changed nothing.
   */
  async locateNotFinite(step: number, prompts: readonly PreparedPrompt[]): Promise<string> {
    const { settings, session } = this;
    const all = branchesOf(settings.branch, this.timestep(step));
    const branches = settings.branches.map((kind) => all[kind]);
    // What the failed update left in them would be found in the first call that adds to it.
    for (const pool of this.optimizer.gradients) session.clear(pool);
    const told = (where: string, found: Omit<NotFinite, "plan">) =>
      `${found.label} in ${found.scope || where} (${where})`;
    for (let part = 0; part < settings.accumulation; part++) {
      const batch = prompts.slice(part * settings.batch, (part + 1) * settings.batch);
      await this.makeClean(batch, this.noise(step, part));
      const clean = await session.read(this.variable("clean"));
      if (!clean.every(Number.isFinite)) {
        const { rollout, encode } = this.plans;
        if (rollout) session.write(this.variable("clean"), this.noise(step, part));
        const found = await (rollout ? rollout.firstNotFinite() : session.firstNotFinite(encode!));
        const { name } = rollout ?? encode!;
        return found ? told(name, found) : `a later step of the ${name}`;
      }
      for (const group of settings.stacked ? [branches] : branches.map((b) => [b])) {
        this.writeMicro(batch, group);
        const found = await this.plans.micro.firstNotFinite();
        if (found) return told(`${group.map((b) => b.kind).join(" and ")} branch`, found);
      }
    }
    return "the sum of gradients: single values are finite, their squares are not";
  }

  /** Puts the noise and the clean latents of a micro-batch in place: a rollout, or encoded pictures. */
  private async makeClean(batch: readonly PreparedPrompt[], noise: Float32Array): Promise<void> {
    const { session, settings } = this;
    session.write(this.variable("noise"), noise);
    if (this.plans.encode) {
      session.write(this.variable("picture"), joined(batch.map((p) => requirePicture(p))));
      await session.replay(this.plans.encode);
      return;
    }
    session.write(this.variable("clean"), noise);
    const conditioning = this.rolloutConditioning!;
    conditioning.writeTexts(session, batch);
    conditioning.writeGuidance(session, settings.rolloutGuidance);
    const sigmas = rolloutSigmas(settings.rolloutSteps, settings.shift);
    for (let i = 0; i < settings.rolloutSteps; i++) {
      conditioning.writeTimes(
        session,
        batch.map(() => modelTime(sigmas[i]!)),
      );
      session.write(this.variable("rollout.step"), Float32Array.of(sigmas[i + 1]! - sigmas[i]!));
      await this.plans.rollout!.run();
    }
  }

  private writeMicro(batch: readonly PreparedPrompt[], branches: readonly Branch[]): void {
    const { rewards, texts, settings, conditioning } = this;
    const variable = (name: string) => this.variable(name);
    const inputs = { variable, conditioning, rewards, texts, guidance: settings.trainGuidance };
    writeBranches(this.session, inputs, batch, branches);
  }
}

function requirePicture(prompt: PreparedPrompt): Float32Array {
  if (!prompt.picture) throw new Error("offline training needs a picture for every prompt");
  return prompt.picture;
}
